"""One training from its run folder to the model folder: the stages in order, and what makes it safe
to stop.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from training.evaluation.results import Results, collect_results, suspects_as_lines
from training.explanations import write_neighbours
from training.export.model_folder import Predict, TrainedModel, export_model
from training.export.report import Origin, write_report
from training.finetuning.distributed import SINGLE_PROCESS, DistributedContext, process_group
from training.finetuning.trainer import TrainConfig, TrainContext, shutdown_workers
from training.fitting.linear_head import C_VALUES
from training.fitting.selection import (
    CHOICE_MINIMUM,
    HeadCandidate,
    NetworkCandidate,
    SplitImages,
    choose_candidate,
    finetune_network,
    train_head,
)
from training.images.decode import BrokenImageError, as_array, read_image
from training.images.split import (
    HELD_OUT_SHARE,
    NearDuplicates,
    assign_groups,
    count_leaks,
    find_near_duplicates,
    split_rows,
)
from training.metrics import read_metrics
from training.networks.backbones import BACKBONES, LoadedBackbone, load_backbone
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import FeatureExtractor, ImageFeatures
from training.networks.image_cache import ImageCache, open_cache
from training.networks.precision import PRECISIONS, Precision, choose_precision
from training.networks.weights import DOWNLOAD_URL, WeightSources
from training.progress import Progress, RowListener, Run, Stopped, StopRequest, no_progress
from training.run_folder import (
    ImageRow,
    RunConfig,
    RunError,
    check_manifest,
    disk_error,
    read_manifest,
    read_result,
    stopped_result,
    write_config,
    write_json,
    write_manifest,
    write_text,
)

DEFAULTS: Mapping[str, Any] = {
    "backbone": "resnet50",
    "seed": 0,
    "device": "auto",
    "time_budget_seconds": 600.0,
    "finetune": "auto",
    "epochs": 0,
    "weights": "pretrained",
    "weights_dir": "",
    "weights_cache": "data/cache/weights",
    "weights_url": DOWNLOAD_URL,
    "threads": 0,
}

_CHOICES = {
    "backbone": tuple(BACKBONES),
    "device": ("auto", "cpu", "cuda"),
    "finetune": ("auto", "never"),
    "weights": ("pretrained", "random"),
}
_COMPARED_PICTURES = (
    3  # test pictures that the exported files are compared on, besides the synthetic ones
)
_NAMED_FILES = 3  # unusable pictures that a notice names

_log = logging.getLogger("training")


@dataclass(frozen=True)
class Control:
    """Who else takes part in a run, and how it is asked to stop."""

    distributed: DistributedContext = SINGLE_PROCESS
    stop: StopRequest = dataclasses.field(default_factory=StopRequest)


@dataclass(frozen=True)
class _Sight:
    """The network that looks at the pictures, how it computes, and what it saw."""

    loaded: LoadedBackbone
    network: ClassifierNetwork
    extractor: FeatureExtractor
    features: ImageFeatures


def fit(
    folder: Path,
    config: RunConfig,
    listen: RowListener | None = None,
    control: Control | None = None,
) -> dict[str, Any]:
    """Train what the run folder describes and return its `result.json`; a folder that is done
    returns at once.

    Killed anywhere and started again it goes on from what is on the disk and ends the same. Raises
    RunError or OSError only where the run folder cannot be read or not even `result.json` be
    written.
    """
    result = read_result(folder)
    if result and result["ok"]:
        _clear(folder)
        return result
    run = Run(folder, config.with_defaults(DEFAULTS), listen)
    try:
        _tidy(folder)
        run.recall_seconds()
        _run_stages(run, control or Control())
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
        unexpected = RunError(
            run.stage, reason, "Start it again; if it fails the same way, the log tells more.", True
        )
        result = {"ok": False, "error": unexpected.as_json()}
    write_json(folder / "result.json", result)
    if result["ok"]:
        _clear(folder)
    return result


def fit_among(
    folder: Path, config: RunConfig, listen: RowListener | None, control: Control
) -> dict[str, Any]:
    """`fit` in the first of several processes; the others take part in its fine-tuning until it has
    ended.
    """
    distributed = control.distributed
    with process_group(distributed):
        result = fit(folder, config, listen, control)
        if (
            result["ok"] or result["error"]["stage"] != "finetune"
        ):  # else they may be waiting for something else
            shutdown_workers(distributed)
    return result


def _run_stages(run: Run, control: Control) -> None:
    """The table of contents."""
    rows = _open(run)
    with run.during("features", "Looking at the pictures"):
        sight = _look(run, rows, control)
    with run.during("split", "Grouping near copies and splitting"):
        features = sight.features
        pretrained = run.config.weights == "pretrained"
        duplicates = find_near_duplicates(
            features.rows, features.fingerprints, features.embeddings if pretrained else None
        )
        rows = _split(run, rows, duplicates)
        pictures = _usable(run, rows, features, count_leaks(rows, duplicates))
    with run.during("train", "Training the classifier"):
        head = _train(run, pictures)
    with run.during("finetune", "Fine-tuning the network"), control.stop.deferred():
        tuned = _finetune(run, pictures, sight, head, control)
    with run.during("evaluate", "Testing on pictures it has not seen"):
        delivered, results = _evaluate(run, pictures, sight, (head, tuned))
    with run.during("export", "Writing and checking the model"):
        _export(run, delivered, results, sight.loaded)


def _tidy(folder: Path) -> None:
    """Remove what an earlier attempt left: its refusal, and files that it died over."""
    (folder / "result.json").unlink(missing_ok=True)
    for half_written in (*folder.glob(".*.tmp"), *folder.glob("checkpoints/**/.*.tmp")):
        if half_written.is_dir():
            shutil.rmtree(half_written)
        else:
            half_written.unlink()


def _clear(folder: Path) -> None:
    """Remove what only an unfinished run needs, and what is large."""
    with suppress(OSError):  # the run is done either way
        for pattern in ("*.squares", "*.done", "finetune.pt"):
            for path in (folder / "checkpoints").glob(pattern):
                path.unlink(missing_ok=True)


def _open(run: Run) -> list[ImageRow]:
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
    for name in ("seed", "epochs", "threads"):
        _check_whole_number(name, getattr(run.config, name))
    rows = read_manifest(run.folder)
    check_manifest(run.config, rows)
    write_config(run.folder, run.config)
    torch.set_num_threads(run.config.threads or _processors())
    return rows


def _check_whole_number(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        reason = f"“{value}” is no whole number for {name}."
        raise RunError("features", reason, f"Give {name} as 0 or more, or not at all.", retry=False)


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


def _look(run: Run, rows: list[ImageRow], control: Control) -> _Sight:
    """Choose the network and its arithmetic as the run began, and compute the features of every
    picture.
    """
    note = run.folder / "checkpoints" / "backbone.json"
    loaded, earlier = _choose_backbone(run, note)
    network = _network(run, loaded, control.distributed)
    run.report(0, 0, "Measuring how this machine computes fastest")
    precision = _precision(run, network, earlier)
    choice = {"wanted": _wanted(run), "used": loaded.backbone.name, "notice": loaded.notice}
    write_json(note, {**choice, "arithmetic": precision.name})
    squares = _squares(run, rows, network)
    extractor = FeatureExtractor(
        network, precision, run.folder, run.folder / "checkpoints" / "features", squares
    )
    run.report(0, len(rows), "Looking at the pictures")
    features = extractor.extract(rows, run.report)
    _note_broken(run, features)
    return _Sight(loaded, network, extractor, features)


def _choose_backbone(run: Run, note: Path) -> tuple[LoadedBackbone, dict[str, Any] | None]:
    """The wanted backbone, or the one that stood in for it when the run began, so that a resumed
    run ends the same.

    With what the note of an earlier attempt says, where there was one that wanted the same.
    """
    found = json.loads(note.read_text(encoding="utf-8")) if note.exists() else None
    earlier = found if found and found["wanted"] == _wanted(run) else None
    name = earlier["used"] if earlier else str(run.config.backbone)
    weights = cast(Any, run.config.weights)
    loaded = load_backbone(BACKBONES[name], weights, _weight_places(run), _in_megabytes(run))
    if earlier and earlier["used"] == loaded.backbone.name:
        loaded = dataclasses.replace(loaded, notice=earlier["notice"])
    if loaded.notice:
        run.notices.append(loaded.notice)
    return loaded, earlier


def _wanted(run: Run) -> list[str]:
    return [str(run.config.backbone), str(run.config.weights)]


def _weight_places(run: Run) -> WeightSources:
    config = run.config
    folder = Path(config.weights_dir) if config.weights_dir else None
    return WeightSources(folder, Path(config.weights_cache or ""), config.weights_url or "")


def _in_megabytes(run: Run) -> Progress:
    def report(done: int, total: int, message: str = "", /) -> None:
        message = message or "Downloading pretrained weights (MB)"
        run.report(done >> 20, max(done, total) >> 20, message)

    return report


def _network(
    run: Run, loaded: LoadedBackbone, distributed: DistributedContext
) -> ClassifierNetwork:
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
    network = ClassifierNetwork(loaded.backbone, loaded.network, len(run.config.classes))
    return network.to(distributed.device(str(device)))


def _precision(
    run: Run, network: ClassifierNetwork, earlier: Mapping[str, Any] | None
) -> Precision:
    """That of the earlier attempt, or the fastest of this machine, which is noted beside the cached
    weights.
    """
    chosen = PRECISIONS.get(str((earlier or {}).get("arithmetic")))
    if chosen is None:
        chosen = choose_precision(
            network, Path(run.config.weights_cache or "").parent / "arithmetic.json"
        )
    layout = torch.channels_last if chosen.channels_last else torch.contiguous_format
    network.to(memory_format=cast(Any, layout))
    return chosen


def _squares(run: Run, rows: list[ImageRow], network: ClassifierNetwork) -> ImageCache | None:
    """Where pictures are kept decoded, if there will be enough of them for a fine-tuned network to
    be delivered.
    """
    if run.config.finetune == "never" or len(rows) * HELD_OUT_SHARE < CHOICE_MINIMUM:
        return None
    return open_cache(run.folder / "checkpoints", rows, network.backbone.resize)


def _note_broken(run: Run, features: ImageFeatures) -> None:
    if not features.broken:
        return
    named = [f"{file} ({reason})" for file, reason in list(features.broken.items())[:_NAMED_FILES]]
    more = len(features.broken) - len(named)
    run.notices.append(
        f"Left out because unusable: {', '.join(named)}{f' and {more} more' if more else ''}."
    )


def _split(run: Run, rows: list[ImageRow], duplicates: NearDuplicates) -> list[ImageRow]:
    """Freeze groups and parts in the manifest."""
    grouped = assign_groups(rows, duplicates)
    # A manifest with all groups has been split by an earlier attempt: what it left out must stay
    # out.
    done = all(
        row.group is not None
        for row, new in zip(rows, grouped, strict=True)
        if new.group is not None
    )
    split = rows if done else split_rows(run.config, grouped)
    left_out = sum(1 for row in split if row.group is not None and row.split is None)
    if left_out:
        run.notices.append(
            f"Pictures left out because they are near copies of pictures in another part: {left_out}."
        )
    write_manifest(run.folder, split)
    run.report(len(split), len(split))
    return split


def _usable(run: Run, rows: list[ImageRow], features: ImageFeatures, leaks: int) -> SplitImages:
    """The pictures that have features, with their places in the split; refuses a split with
    leaks.
    """
    if leaks:
        raise RunError(
            "split",
            "Near copies stand in different parts of the split.",
            "Start again without a split in the manifest.",
            retry=False,
        )
    number = {label.id: i for i, label in enumerate(run.config.classes)}
    usable = [rows[place] for place in features.rows]
    return SplitImages(
        rows=usable,
        embeddings=features.embeddings,
        labels=np.array([number[row.class_id] for row in usable], np.int64),
        groups=np.array([row.group for row in usable], np.int64),
        statistics=features.statistics,
        manifest_indices=np.array(features.rows, np.int64),
        manifest=rows,
        classes=len(number),
        seed=run.config.seed or 0,
    )


def _train(run: Run, pictures: SplitImages) -> HeadCandidate:
    """The head on everything but the test part, searched for as long as the time budget lasts."""
    budget = cast(float, run.config.time_budget_seconds)
    head = train_head(pictures, run.report, lambda: time.monotonic() - run.started < budget)
    if head.fitted.tried < len(C_VALUES):
        run.notices.append(
            f"The time budget of {budget:g} seconds ended the search for the best regularisation after "
            f"{head.fitted.tried} of {len(C_VALUES)} values."
        )
    return head


def _finetune(
    run: Run, pictures: SplitImages, sight: _Sight, head: HeadCandidate, control: Control
) -> NetworkCandidate | str:
    """The fine-tuned network, or the sentence why there is none."""
    if run.config.finetune == "never":
        return "Fine-tuning was switched off."
    context = TrainContext(
        folder=run.folder / "checkpoints",
        budget=cast(float, run.config.time_budget_seconds) - run.latest,
        precision=sight.extractor.precision,
        distributed=control.distributed,
        report=run.report,
        should_stop=lambda: control.stop.asked,
    )
    train_config = TrainConfig(seed=pictures.seed)
    if run.config.epochs:
        train_config = dataclasses.replace(
            train_config, max_epochs=run.config.epochs, max_epochs_cpu=run.config.epochs
        )
    return finetune_network(pictures, sight.extractor, head, train_config, context)


def _evaluate(
    run: Run,
    pictures: SplitImages,
    sight: _Sight,
    candidates: tuple[HeadCandidate, NetworkCandidate | str],
) -> tuple[ClassifierNetwork, Results]:
    """The network to deliver, with its head in place, and all that is known of it."""
    choice = choose_candidate(pictures, sight.extractor, *candidates)
    names = [label.name for label in run.config.classes]
    results, suspicions = collect_results(pictures, choice, names, run.report)
    results.metrics.update(
        weights=sight.loaded.weights,
        backbone=sight.loaded.backbone.name,
        device=str(sight.network.temperature.device),
        arithmetic=sight.extractor.precision.name,
        notices=run.notices,
    )
    write_text(run.folder / "suspects.jsonl", suspects_as_lines(results, suspicions, names))
    return choice.model.network, results


def _pictures_to_compare(run: Run, results: Results) -> list[Any]:
    """A few test pictures, uint8 [h, w, 3]; those that have gone since they were looked at are not
    needed.
    """
    compared = []
    for row in [row for row in results.rows if row.split == "test"][:_COMPARED_PICTURES]:
        with suppress(BrokenImageError):
            compared.append(as_array(read_image(run.folder / row.file)))
    return compared


def _export(run: Run, network: ClassifierNetwork, results: Results, loaded: LoadedBackbone) -> None:
    network = network.to("cpu").to(memory_format=cast(Any, torch.contiguous_format))
    compared = _pictures_to_compare(run, results)

    def report_page(path: Path, predict: Predict) -> None:
        backbone = loaded.backbone
        origin = Origin(backbone.title, backbone.license, backbone.resize, run.spent())
        write_report(path, results, run.config, run.folder, predict, origin, no_progress)

    learned = results.embeddings[results.learned_indices()]
    write_neighbours(run.folder, results.learned_images(), learned)
    trained = TrainedModel(
        network, run.config.classes, run.config, results.metrics, run.spent, report_page
    )
    export_model(trained, run.folder / "model", compared, run.report)
    write_text(
        run.folder / "metrics.json",
        (run.folder / "model" / "metrics.json").read_text(encoding="utf-8"),
    )
