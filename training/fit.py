"""One training from its run folder to the model folder: the stages in order, and what makes it safe to stop."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from training.backbones import BACKBONES, LoadedBackbone, load_backbone
from training.curate import NearCopies, count_leaks, find_near_copies, with_groups
from training.data import as_array, read_picture
from training.evaluate import measure, suspected_labels
from training.export import Trained, export_model
from training.features import PictureFeatures, extract
from training.head import STRENGTHS, FittedHead, fit_head, softmax
from training.manifest import (
    PARTS,
    STAGES,
    ImageRow,
    RunConfig,
    RunError,
    Stopped,
    append_line,
    check_manifest,
    disk_error,
    read_manifest,
    read_metrics,
    read_result,
    split_rows,
    stopped_result,
    write_config,
    write_json,
    write_manifest,
    write_text,
)
from training.network import PictureNetwork
from training.weights import DOWNLOAD_URL, WeightPlaces

DEFAULTS: Mapping[str, Any] = {
    "backbone": "resnet50",
    "seed": 0,
    "device": "auto",
    "time_budget_seconds": 600.0,
    "weights": "pretrained",
    "weights_dir": "",
    "weights_cache": "data/cache/weights",
    "weights_url": DOWNLOAD_URL,
    "threads": 0,
}

_CHOICES = {"backbone": tuple(BACKBONES), "device": ("auto", "cpu", "cuda"), "weights": ("pretrained", "random")}
_COMPARED_PICTURES = 3  # test pictures that the exported files are compared on, besides the synthetic ones
_REPORT_SECONDS = 0.5  # between two rows of progress.jsonl at least, within a stage
_SECONDS_NOTE = Path("checkpoints", "seconds.json")  # in the run folder: {stage: seconds} of all attempts
_NAMED_FILES = 3  # unusable pictures that a notice names

_log = logging.getLogger("training")

Listener = Callable[[Mapping[str, Any]], None]
"""Gets every row of progress.jsonl as it is written."""


def no_listener(row: Mapping[str, Any]) -> None:
    """For callers that only want the result."""


@dataclass
class _Run:
    """Where the run is: its folder, its configuration, the present stage, and what to tell the user."""

    folder: Path
    config: RunConfig
    listen: Listener
    notices: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Spent on each stage, in earlier attempts too; see `spent` for the present stage."""
    stage: str = STAGES[0]
    message: str = ""
    started: float = field(default_factory=time.monotonic)
    reported: float = 0.0

    @contextmanager
    def during(self, stage: str, message: str) -> Iterator[None]:
        """Time a stage and announce its beginning."""
        self.stage, self.started, self.reported = stage, time.monotonic(), 0.0
        try:
            self.report(0, 0, message)
            yield
        finally:
            self.seconds = self.spent()
            with suppress(OSError):  # what ended the stage matters more than how long it took
                self.keep_seconds()

    def spent(self) -> dict[str, float]:
        """Seconds of each stage up to now, those of earlier attempts included."""
        present = self.seconds.get(self.stage, 0.0) + time.monotonic() - self.started
        return {**self.seconds, self.stage: round(present, 3)}

    def keep_seconds(self) -> None:
        """Note the seconds where the next attempt finds them, should this one be killed."""
        write_json(self.folder / _SECONDS_NOTE, self.seconds)

    def report(self, done: int, total: int, message: str = "") -> None:
        """A row of progress.jsonl, at most about two a second, but always a stage's first and last."""
        now = time.monotonic()
        if now - self.reported < _REPORT_SECONDS and done < total:
            return
        self.reported, self.message = now, message or self.message
        left = (now - self.started) / done * (total - done) if done else None
        row = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "stage": self.stage,
            "done": done,
            "total": total,
            "message": self.message,
            "eta_seconds": None if left is None else round(left, 1),
        }
        append_line(self.folder / "progress.jsonl", row)
        write_json(self.folder / _SECONDS_NOTE, self.spent())
        self.listen(row)


def fit(folder: Path, config: RunConfig, listen: Listener = no_listener) -> dict[str, Any]:
    """Train what the run folder describes and return its `result.json`; a folder that is done returns at once.

    Killed anywhere and started again it goes on from what is on the disk and ends the same. Raises RunError or OSError
    only where the run folder cannot be read or not even `result.json` be written.
    """
    result = read_result(folder)
    if result and result["ok"]:
        return result
    run = _Run(folder, config.completed_by(DEFAULTS), listen)
    try:
        _tidy(folder)
        run.seconds = _seconds_of_earlier_attempts(folder)
        _run_stages(run)
        result = {"ok": True, "seconds": read_metrics(folder)["seconds"], "notices": run.notices}
    except RunError as error:
        result = {"ok": False, "error": error.as_json()}
    except OSError as error:
        _log.info("the disk refused in stage %s", run.stage, exc_info=True)
        result = {"ok": False, "error": disk_error(run.stage, error).as_json()}
    except Stopped:
        result = stopped_result(run.stage)
    except Exception:
        _log.exception("training failed in stage %s", run.stage)
        reason = f"Training failed unexpectedly while it was at the stage “{run.stage}”."
        unexpected = RunError(run.stage, reason, "Start it again; if it fails the same way, the log tells more.", True)
        result = {"ok": False, "error": unexpected.as_json()}
    write_json(folder / "result.json", result)
    return result


def _tidy(folder: Path) -> None:
    """Remove what an earlier attempt left: its refusal, and files that it died over."""
    (folder / "result.json").unlink(missing_ok=True)
    for half_written in (*folder.glob(".*.tmp"), *folder.glob("checkpoints/**/.*.tmp")):
        if half_written.is_dir():
            shutil.rmtree(half_written)
        else:
            half_written.unlink()


def _seconds_of_earlier_attempts(folder: Path) -> dict[str, float]:
    """What attempts that did not come to the end have spent on each stage; nothing where their note is unreadable."""
    try:
        note = json.loads((folder / _SECONDS_NOTE).read_text(encoding="utf-8"))
        return {stage: float(note[stage]) for stage in STAGES if stage in note}
    except (OSError, ValueError, TypeError):
        return {}


def _run_stages(run: _Run) -> None:
    """The table of contents."""
    rows = _open(run)
    with run.during("features", "Looking at the pictures"):
        loaded = _choose_backbone(run)
        network = _network(run, loaded)
        run.message = "Looking at the pictures"  # it may have been a download's
        features = extract(network, rows, run.folder, run.folder / "checkpoints" / "features", run.report)
        _note_broken(run, features)
    with run.during("split", "Grouping near copies and splitting"):
        copies = find_near_copies(features, by_embedding=run.config.weights == "pretrained")
        rows = _split(run, rows, copies)
    with run.during("train", "Training the classifier"):
        fitted = _train(run, rows, features)
    with run.during("evaluate", "Testing on pictures it has not seen"):
        metrics = _evaluate(run, rows, features, fitted, count_leaks(rows, copies)) | {
            "weights": loaded.weights,
            "backbone": loaded.backbone.name,
            "device": str(network.temperature.device),
            "notices": run.notices,
        }
    with run.during("export", "Writing and checking the model"):
        _export(run, rows, network, fitted, metrics)


def _open(run: _Run) -> list[ImageRow]:
    """Check what came in and write the effective configuration down."""
    _check_budget(run.config.time_budget_seconds)
    for name, choices in _CHOICES.items():
        value = getattr(run.config, name)
        if value not in choices:
            raise RunError(
                "features",
                f"“{value}” is not a {name} that Picaisso knows.",
                f"Choose one of {', '.join(choices)}.",
                retry=False,
            )
    rows = read_manifest(run.folder)
    check_manifest(run.config, rows)
    write_config(run.folder, run.config)
    torch.set_num_threads(run.config.threads or _processors())
    return rows


def _check_budget(seconds: Any) -> None:
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 < seconds < math.inf:
        raise RunError(
            "features",
            f"The time budget is {seconds!r}, which is no number of seconds above 0.",
            "Give a time budget of more than 0 seconds, or none.",
            retry=False,
        )


def _processors() -> int:
    """Processors this process may use; more threads than these only wait for each other."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _choose_backbone(run: _Run) -> LoadedBackbone:
    """The wanted backbone, or the one that stood in for it when the run began, so that a resumed run ends the same."""
    note = run.folder / "checkpoints" / "backbone.json"
    wanted, weights = str(run.config.backbone), cast(Any, run.config.weights)
    earlier = json.loads(note.read_text(encoding="utf-8")) if note.exists() else None
    same = earlier is not None and earlier["wanted"] == [wanted, weights]
    name = earlier["used"] if same and earlier else wanted
    loaded = load_backbone(BACKBONES[name], weights, _weight_places(run), _in_megabytes(run))
    if same and earlier and earlier["used"] == loaded.backbone.name:
        loaded = dataclasses.replace(loaded, notice=earlier["notice"])
    choice = {"wanted": [wanted, weights], "used": loaded.backbone.name, "notice": loaded.notice}
    write_json(note, choice)
    if loaded.notice:
        run.notices.append(loaded.notice)
    return loaded


def _weight_places(run: _Run) -> WeightPlaces:
    config = run.config
    folder = Path(config.weights_dir) if config.weights_dir else None
    return WeightPlaces(folder, Path(config.weights_cache or ""), config.weights_url or "")


def _in_megabytes(run: _Run) -> Callable[[int, int], None]:
    return lambda done, total: run.report(done >> 20, max(done, total) >> 20, "Downloading pretrained weights (MB)")


def _network(run: _Run, loaded: LoadedBackbone) -> PictureNetwork:
    device = run.config.device
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError(
            "features",
            "This machine has no GPU that torch can use.",
            "Set the device to auto or cpu.",
            retry=False,
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network = PictureNetwork(loaded.backbone, loaded.network, len(run.config.classes))
    return network.to(str(device)).to(memory_format=cast(Any, torch.channels_last))


def _note_broken(run: _Run, features: PictureFeatures) -> None:
    if not features.broken:
        return
    named = [f"{file} ({reason})" for file, reason in list(features.broken.items())[:_NAMED_FILES]]
    more = len(features.broken) - len(named)
    run.notices.append(f"Left out because unusable: {', '.join(named)}{f' and {more} more' if more else ''}.")


def _split(run: _Run, rows: list[ImageRow], copies: NearCopies) -> list[ImageRow]:
    """Freeze groups and parts in the manifest."""
    grouped = with_groups(rows, copies)
    split = split_rows(run.config, grouped)
    left_out = sum(1 for row in split if row.group is not None and row.split is None)
    if left_out:
        run.notices.append(f"Pictures left out because they are near copies of pictures in another part: {left_out}.")
    write_manifest(run.folder, split)
    run.report(len(split), len(split))
    return split


def _train(run: _Run, rows: list[ImageRow], features: PictureFeatures) -> FittedHead:
    """The head on everything but the test part, searched for as long as the time budget lasts."""
    learned = _places(rows, features, ("train", "val"))
    budget = cast(float, run.config.time_budget_seconds)
    fitted = fit_head(
        features.embeddings[learned],
        _labels(run, rows, features)[learned],
        [cast(int, rows[features.rows[i]].group) for i in learned],
        len(run.config.classes),
        run.config.seed or 0,
        run.report,
        lambda: time.monotonic() - run.started < budget,
    )
    if fitted.tried < len(STRENGTHS):
        run.notices.append(
            f"The time budget of {budget:g} seconds ended the search for the best regularisation after "
            f"{fitted.tried} of {len(STRENGTHS)} values."
        )
    return fitted


def _evaluate(
    run: _Run, rows: list[ImageRow], features: PictureFeatures, fitted: FittedHead, leaks: int
) -> dict[str, Any]:
    """Of metrics.json what the test tells."""
    if leaks:
        raise RunError(
            "evaluate",
            "Near copies stand in different parts of the split.",
            "Start again without a split in the manifest.",
            retry=False,
        )
    labels = _labels(run, rows, features)
    learned, held_out = _places(rows, features, ("train", "val")), _places(rows, features, ("test",))
    logits = fitted.head.logits(features.embeddings[held_out])
    unseen = softmax(np.concatenate([fitted.out_of_fold, logits]) / fitted.temperature)
    suspects = suspected_labels(unseen, labels[np.concatenate([learned, held_out])])
    names = [label.name for label in run.config.classes]
    return measure(logits, labels[held_out], names, fitted.temperature) | {
        "temperature": fitted.temperature,
        "reject_threshold": None,
        "split": {part: sum(1 for row in rows if row.split == part) for part in PARTS},
        "near_duplicate_leaks": leaks,
        "label_issues": int(suspects.sum()),
        "regularisation": fitted.strength,
        "seed": run.config.seed,
    }


def _export(
    run: _Run, rows: list[ImageRow], network: PictureNetwork, fitted: FittedHead, metrics: dict[str, Any]
) -> None:
    network = network.to("cpu").to(memory_format=cast(Any, torch.contiguous_format))
    weight, bias = torch.from_numpy(fitted.head.weight), torch.from_numpy(fitted.head.bias)
    network.set_head(weight, bias, fitted.temperature)
    test = [row for row in rows if row.split == "test"][:_COMPARED_PICTURES]
    pictures = [as_array(read_picture(run.folder / row.file)) for row in test]
    trained = Trained(network, run.config.classes, run.config, metrics, run.spent)
    export_model(trained, run.folder / "model", pictures, run.report)
    write_text(run.folder / "metrics.json", (run.folder / "model" / "metrics.json").read_text(encoding="utf-8"))


def _places(rows: list[ImageRow], features: PictureFeatures, parts: tuple[str, ...]) -> Any:
    """Indices into the features of the pictures in the given parts: int64 [n]."""
    return np.array([i for i, place in enumerate(features.rows) if rows[place].split in parts], np.int64)


def _labels(run: _Run, rows: list[ImageRow], features: PictureFeatures) -> Any:
    """Class numbers of the usable pictures in output order: int64 [n]."""
    number = {label.id: i for i, label in enumerate(run.config.classes)}
    return np.array([number[rows[place].class_id] for place in features.rows], np.int64)
