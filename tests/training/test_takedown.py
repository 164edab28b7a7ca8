import hashlib
import json
import shutil
from pathlib import Path

from training.explanations import read_neighbours
from training.run_folder import read_manifest
from training.takedown import remove_images


def test_a_picture_that_is_taken_down_is_shown_nowhere_any_more(
    trained_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    tested = [row.file for row in read_manifest(run) if row.split == "test"]
    gone = tested[:2]
    report = run / "model" / "report.html"
    before = report.read_text(encoding="utf-8")
    for _ in range(2):
        remove_images(run, gone)
    after = report.read_text(encoding="utf-8")
    assert before.count("base64") - after.count("base64") >= len(gone)
    assert after.count("base64") > 10, "the others are still there"
    assert {row.file for row in read_manifest(run)}.isdisjoint(gone)
    ranked = [
        json.loads(line)["file"]
        for line in (run / "suspects.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert ranked and set(ranked).isdisjoint(gone)
    assert read_neighbours(trained_run) and read_neighbours(run) is None
    sums = dict(
        line.split("  ")[::-1] for line in (run / "model" / "SHA256SUMS").read_text().splitlines()
    )
    for name, digest in sums.items():
        assert hashlib.sha256((run / "model" / name).read_bytes()).hexdigest() == digest, name


def test_a_run_that_was_never_trained_forgets_pictures_too(
    imported_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(imported_run, tmp_path / "run"))
    first = read_manifest(run)[0].file
    remove_images(run, [first])
    assert first not in {row.file for row in read_manifest(run)}
