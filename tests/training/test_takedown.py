"""Images that are taken down: nothing that was made to be looked at shows them any more."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from training.explanations import read_neighbours
from training.meanings import read_meanings
from training.run_folder import read_manifest
from training.takedown import remove_images

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "recorded" / "picaisso-0.1.0.tar.xz"


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


@pytest.fixture
def recorded_run(tmp_path: Path) -> Path:
    """A run folder of version 0.1.0, which did not keep what its report was rendered from."""
    with tarfile.open(RECORDED) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "requests/1/runs/1"


def report_of(run: Path) -> str:
    return (run / "model" / "report.html").read_text(encoding="utf-8")


def shown_images(page: str) -> list[str]:
    """Return the CSS classes of the inline images, as often as the page shows them."""
    return re.findall(r'class="shot \w* ?((?:p|m\d+-)[0-9a-f]{16})"', page)


def embedded_images(page: str) -> set[str]:
    return set(re.findall(r"\.((?:p|m\d+-)[0-9a-f]{16}){", page))


def check_sums(model_folder: Path) -> None:
    lines = (model_folder / "SHA256SUMS").read_text().splitlines()
    for line in lines:
        digest, name = line.split("  ")
        path = model_folder / name
        if path.exists():  # the recorded model lacks its large files
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, name
    assert any(line.endswith("  report.html") for line in lines)


def test_a_picture_that_is_taken_down_is_shown_nowhere_any_more(
    trained_run: Path, run: Path
) -> None:
    tested = [row.file for row in read_manifest(run) if row.split == "test"]
    gone = tested[:2]
    before = report_of(run)
    for _ in range(2):
        remove_images(run, gone)
    after = report_of(run)
    assert before.count("base64") - after.count("base64") >= len(gone)
    assert after.count("base64") > 10, "the others are still there"
    assert {row.file for row in read_manifest(run)}.isdisjoint(gone)
    ranked = [
        json.loads(line)["file"]
        for line in (run / "suspects.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert ranked and set(ranked).isdisjoint(gone)
    grouped = [
        file for found in read_meanings(run) for group in found.groups for file in group.files
    ]
    rows = read_manifest(trained_run)
    assert sorted([*grouped, *gone]) == sorted(row.file for row in rows if row.group is not None)
    assert read_neighbours(trained_run) and read_neighbours(run) is None
    check_sums(run / "model")


def test_the_report_keeps_neither_caption_nor_map_nor_a_gap_of_a_taken_down_image(
    run: Path,
) -> None:
    tested = [row.file for row in read_manifest(run) if row.split == "test"]
    before = report_of(run)
    remove_images(run, tested[:4])
    after = report_of(run)
    assert len(shown_images(after)) < len(shown_images(before))
    assert set(shown_images(after)) <= embedded_images(after) < embedded_images(before)
    assert "absent" not in re.sub(r"(?s)<style>.*</style>", "", after)


def test_only_what_shows_the_image_leaves_the_report(run: Path) -> None:
    before = report_of(run)
    remove_images(run, ["images/0000000000000000.jpg"])
    assert report_of(run) == before


def test_the_report_is_rendered_again_without_torch_and_without_plotting(run: Path) -> None:
    gone = next(row.file for row in read_manifest(run) if row.split == "test")
    code = (
        "import sys; from pathlib import Path; from training.takedown import remove_images; "
        f"remove_images(Path({str(run)!r}), [{gone!r}]); "
        "print({'torch', 'sklearn', 'matplotlib', 'jinja2'} & set(sys.modules))"
    )
    before = report_of(run)
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "{'jinja2'}"
    assert report_of(run) != before


def test_what_the_report_is_rendered_from_is_not_delivered_and_forgets_the_image_too(
    run: Path,
) -> None:
    gone = next(row.file for row in read_manifest(run) if row.split == "test")
    context = run / "report_context.json"
    assert gone in context.read_text(encoding="utf-8")
    remove_images(run, [gone])
    assert gone not in context.read_text(encoding="utf-8")
    assert not (run / "model" / context.name).exists()


def test_every_image_leaves_a_report_of_which_no_context_was_kept(recorded_run: Path) -> None:
    rows = read_manifest(recorded_run)
    assert len(embedded_images(report_of(recorded_run))) > 20
    remove_images(recorded_run, [row.file for row in rows])
    after = report_of(recorded_run)
    assert embedded_images(after) == set() and "base64" not in after
    assert not [row.file for row in rows if Path(row.file).stem in after]
    assert not [row.page_url for row in rows if row.page_url in after]


def test_an_image_leaves_a_report_of_which_no_context_was_kept(recorded_run: Path) -> None:
    before = report_of(recorded_run)
    shown = next(row for row in read_manifest(recorded_run) if row.split == "test")
    link = f'"{shown.page_url}"'
    name = f"p{hashlib.sha256(shown.file.encode()).hexdigest()[:16]}"
    assert name in embedded_images(before)
    for _ in range(2):
        remove_images(recorded_run, [shown.file])
    after = report_of(recorded_run)
    assert embedded_images(after) < embedded_images(before) - {name}
    assert Path(shown.file).stem not in after
    assert shown.page_url and link in before and link not in after
    assert after.count("Taken down") == before.count(link) - 1
    assert after.count("Where it was found") > 10
    check_sums(recorded_run / "model")


def test_a_run_that_was_never_trained_forgets_pictures_too(
    imported_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(imported_run, tmp_path / "run"))
    first = read_manifest(run)[0].file
    remove_images(run, [first])
    assert first not in {row.file for row in read_manifest(run)}


@pytest.mark.parametrize("damage", ['"', '\ufeff"', "x" * 200_000 + ",", "{}\n[]\n", "\ud83d"])
def test_damaged_tables_keep_no_image(run: Path, damage: str) -> None:
    gone = read_manifest(run)[0].file
    torn = damage.encode("utf-8", "surrogatepass") + b",1,2,3,4,5,6,7,8,9\n"
    row = f'{gone},right,"torn\n'.encode()
    for name in ("predictions.csv", "verified.csv", "suspects.jsonl"):
        path = run / name
        content = path.read_bytes() if path.exists() else b""
        path.write_bytes(torn + row + content + row)
    remove_images(run, [gone])
    assert gone not in {row.file for row in read_manifest(run)}
    for name in ("predictions.csv", "verified.csv", "suspects.jsonl"):
        assert gone.encode() not in (run / name).read_bytes()


@pytest.mark.parametrize("network", ["network", "view-sample/network"])
def test_a_takedown_that_was_cut_off_is_finished_by_the_next_one(run: Path, network: str) -> None:
    removed = read_manifest(run)[0]
    features = run / "checkpoints" / "features" / network / f"{removed.sha256[:32]}.npz"
    features.parent.mkdir(parents=True)
    features.touch()
    sums = run / "model" / "SHA256SUMS"
    content = sums.read_text()
    sums.unlink()
    with pytest.raises(FileNotFoundError):
        remove_images(run, [removed.file])

    sums.write_text(content)
    features.touch()
    remove_images(run, [removed.file])

    assert not features.exists()
    assert removed.file not in {row.file for row in read_manifest(run)}
    check_sums(run / "model")
