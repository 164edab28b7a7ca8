"""A run that fine-tunes, killed in each of its stages and started again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import stamps
from training.run_folder import STAGES

ROOT = Path(__file__).resolve().parents[2]
PER_CLASS = 220  # enough for 60 validation pictures, below which nothing is fine-tuned
# Random weights: the bundled network's real ones would take minutes to fine-tune on two cores, and
# learn no otherwise.
OPTIONS = ["--backbone", "resnet18", "--weights", "random", "--epochs", "1"]
OPTIONS += ["--device", "cpu", "--json"]


@pytest.fixture(scope="module")
def symbols_and_things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes with 220 photographs each."""
    folder = tmp_path_factory.mktemp("pictures")
    things = ("animals", "food", "household", "plants", "seasonal", "town", "vehicles", "clothes")
    for name, paths in (("symbol", stamps("symbols")), ("thing", stamps(*things))):
        (folder / name).mkdir()
        for number, path in enumerate(paths[:PER_CLASS]):
            shutil.copyfile(path, folder / name / f"{number:03d}.png")
    return folder


def command(images: Path, run: Path, home: Path) -> dict:
    kept = {name: value for name, value in os.environ.items() if "PICAISSO" not in name}
    arguments = [sys.executable, "-m", "training", "fit"]
    arguments += ["--images", str(images), "--out", str(run), *OPTIONS]
    return {"args": arguments, "cwd": home, "env": {**kept, "PYTHONPATH": str(ROOT)}, "text": True}


def killed_in(stage: str, process: subprocess.Popen[str]) -> None:
    """End the process without warning after the first thing that it says about the stage."""
    assert process.stderr is not None
    for line in process.stderr:
        if not line.startswith("{"):
            continue
        row = json.loads(line)
        if row.get("stage") == stage and (row["done"] or stage not in ("features", "finetune")):
            break
    else:
        raise AssertionError(f"the run ended before the stage {stage}")
    process.kill()
    process.communicate(timeout=60)


def take_over_measured_choices(whole: Path, torn: Path) -> None:
    """Let the second run compute as the first does: timing alone decides what is faster here."""
    (torn / "checkpoints").mkdir(parents=True)
    for name in ("backbone.json", "finetune-plan.json"):
        shutil.copyfile(whole / "checkpoints" / name, torn / "checkpoints" / name)


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.timeout(900)
def test_a_run_killed_in_every_stage_ends_once_and_with_the_same_figures(
    symbols_and_things: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    torn = tmp_path / "torn"
    undisturbed = subprocess.run(
        **command(symbols_and_things, whole, tmp_path), capture_output=True, timeout=600
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    take_over_measured_choices(whole, torn)
    for stage in STAGES:
        started = command(symbols_and_things, torn, tmp_path)
        killed_in(
            stage, subprocess.Popen(**started, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        )
        assert not (torn / "result.json").exists() and not (torn / "model").exists()
    resumed = subprocess.run(
        **command(symbols_and_things, torn, tmp_path), capture_output=True, timeout=600
    )
    assert resumed.returncode == 0, resumed.stderr
    one = metrics(whole)
    other = metrics(torn)
    assert one["network"] and one["network"]["epochs"] >= 1, (
        "nothing was fine-tuned, so nothing was tried"
    )
    assert other["split"] == one["split"] and other["delivered"] == one["delivered"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert other[name] == pytest.approx(one[name], abs=0.005), name
    assert other["network"]["val_loss"] == pytest.approx(one["network"]["val_loss"], abs=0.02)
    assert (torn / "manifest.jsonl").read_text() == (whole / "manifest.jsonl").read_text()
    assert (
        not list((torn / "checkpoints").glob("*.squares"))
        and not (torn / "checkpoints" / "finetune.pt").exists()
    )
