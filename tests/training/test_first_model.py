"""The first model: a linear head on the few images that are there while others are collected."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from training.first_model import fit_first_model
from training.predict import open_model, read_image
from training.run_folder import (
    FIRST_MODEL_FILE,
    ImageRow,
    RunError,
    read_config,
    read_manifest,
    write_manifest,
)

ROOT = Path(__file__).resolve().parents[2]


def rows_of(run: Path, per_class: int) -> list[ImageRow]:
    """Return the first rows of each class, in an order that more of them do not change."""
    rows = read_manifest(run)
    numbered = []
    for class_id in ("c001", "c002"):
        of_class = [row for row in rows if row.class_id == class_id]
        numbered += list(enumerate(of_class[:per_class]))
    numbered.sort(key=lambda pair: pair[0])
    return [row for _, row in numbered]


@pytest.fixture
def run(untrained_run: Path) -> Path:
    """A run folder with 20 images of each class."""
    write_manifest(untrained_run, rows_of(untrained_run, 20))
    return untrained_run


def without_seconds(folder: Path) -> dict[str, object]:
    found = json.loads((folder / FIRST_MODEL_FILE).read_text())
    del found["seconds"]
    return found


def test_twenty_images_a_class_make_a_model_that_predicts_and_a_figure_with_its_interval(
    run, imported_run
):
    found = fit_first_model(run, read_config(run))
    assert found == json.loads((run / FIRST_MODEL_FILE).read_text())
    assert found["images"] == found["n"] == 40
    assert found["per_class"] == {"mammal": 20, "plant": 20}
    assert found["accuracy"] == found["hits"] / 40 >= 0.8
    assert found["interval"][0] < found["accuracy"] <= found["interval"][1]
    model = open_model(run / "model")
    assert model.classes == ("mammal", "plant")
    learned = {row.file for row in read_manifest(run)}
    unseen = [row for row in read_manifest(imported_run) if row.file not in learned]
    right = 0
    for row in unseen:
        predicted = model.predict(read_image(imported_run / row.file))
        right += predicted.label == {"c001": "mammal", "c002": "plant"}[row.class_id]
    assert right >= 0.8 * len(unseen) > 10


def test_a_done_folder_is_left_as_it_is(run):
    first = fit_first_model(run, read_config(run))
    written = (run / "model" / "model.onnx").stat().st_mtime_ns
    assert fit_first_model(run, read_config(run)) == first
    assert (run / "model" / "model.onnx").stat().st_mtime_ns == written


def test_a_later_round_computes_only_the_images_that_are_new(untrained_run, tmp_path):
    cache = tmp_path / "features"
    later = Path(shutil.copytree(untrained_run, tmp_path / "later"))
    write_manifest(later, rows_of(later, 24))
    write_manifest(untrained_run, rows_of(untrained_run, 16))
    fit_first_model(untrained_run, read_config(untrained_run), cache)
    computed = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
    assert len(computed) == 32
    fit_first_model(later, read_config(later), cache)
    entries = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npz")}
    assert len(entries) == 48
    assert {path: entries[path] for path in computed} == computed


def killed_when(run: Path, is_time: Callable[[], bool]) -> None:
    """Start the command and end it without warning at a moment."""
    command = [sys.executable, "-m", "training", "first", str(run)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and not is_time():
        time.sleep(0.002)
    process.kill()
    process.wait()


def test_killed_anywhere_and_started_again_it_ends_the_same(run, tmp_path):
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    fit_first_model(whole, read_config(whole))
    features = run / "checkpoints" / "features"
    killed_when(run, lambda: any(features.rglob("*.npz")))
    assert not (run / "model").exists()
    killed_when(run, lambda: (run / ".model.tmp" / "model.onnx").exists())
    killed_when(run, lambda: (run / "model").exists())
    assert not (run / FIRST_MODEL_FILE).exists()
    fit_first_model(run, read_config(run))
    assert without_seconds(run) == without_seconds(whole)
    model = (run / "model" / "model.onnx").read_bytes()
    assert model == (whole / "model" / "model.onnx").read_bytes()
    assert not (run / ".model.tmp").exists()


def test_the_manifest_stays_as_it_is_without_a_split(run):
    before = (run / "manifest.jsonl").read_bytes()
    fit_first_model(run, read_config(run))
    assert (run / "manifest.jsonl").read_bytes() == before
    assert not (run / "result.json").exists()


def test_a_class_of_few_images_is_refused_in_a_sentence(run):
    write_manifest(run, rows_of(run, 20)[:1] + rows_of(run, 20)[1::2])
    with pytest.raises(RunError, match="“mammal” has 1 different pictures"):
        fit_first_model(run, read_config(run))
    assert not (run / "model").exists()


def test_the_command_prints_what_it_wrote(run):
    command = [sys.executable, "-m", "training", "first", str(run), "--json"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == json.loads((run / FIRST_MODEL_FILE).read_text())


def test_a_backbone_that_is_none_is_refused(run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "backbone": "brick"}))
    with pytest.raises(RunError, match="“brick”"):
        fit_first_model(run, read_config(run))
