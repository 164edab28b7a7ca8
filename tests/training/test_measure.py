"""A model measured on a person's own pictures: where they lie, and which are known."""

import shutil
from pathlib import Path

import pytest

from training.duplicates import fingerprint
from training.images.decode import read_image
from training.measure import _find, _known
from training.progress import no_progress
from training.run_folder import ClassLabel, RunError, read_manifest


def test_what_a_class_is_called_leads_to_no_other_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name in ("c001", "fox", "elsewhere", "c003"):
        (folder / name).mkdir(parents=True)
        (folder / name / "picture.jpg").touch()
    (tmp_path / "outside.jpg").touch()
    names = ("..", "fox", "x" * 300, str(folder / "elsewhere"))
    classes = [ClassLabel(f"c00{number}", name) for number, name in enumerate(names, start=1)]
    found = [(number, path.parent.name) for number, path in _find(folder, classes)]
    assert found == [(0, "c001"), (1, "fox"), (2, "c003")]
    with pytest.raises(RunError, match="no pictures in sub-folders"):
        _find(folder / "nowhere", classes)


def test_what_a_run_computed_of_its_pictures_is_not_computed_again(
    trained_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    first, second, *_ = [row for row in read_manifest(run) if row.split]
    mark = fingerprint(read_image(run / first.file))
    other = fingerprint(read_image(run / second.file))
    (run / first.file).write_bytes(b"")  # it would have to be decoded
    (run / second.file).unlink()  # taken down
    known = _known(run, no_progress)
    assert known.find(mark) == first.file
    assert known.find(other) != second.file
    shutil.rmtree(run / "checkpoints")
    assert _known(run, no_progress).find(mark) != first.file
