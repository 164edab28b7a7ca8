"""One training, from its run folder to the model folder: the stages in order, safe to stop."""

from __future__ import annotations

import copy
import dataclasses
import logging
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

from training.evaluation.results import (
    OutsideEvidence,
    Results,
    RunMetrics,
    collect_results,
    predictions_as_csv,
    suspects_as_lines,
    without_suspects,
)
from training.explanations import write_neighbours
from training.export.head_model import write_first_model, write_head_model
from training.export.model_folder import TrainedModel, export_model, resize_side
from training.export.report import Origin, write_report
from training.finetuning.distributed import SINGLE_PROCESS, DistributedContext, process_group
from training.finetuning.trainer import (
    CHECKPOINT_FILE,
    TrainConfig,
    TrainContext,
    shutdown_workers,
)
from training.fitting.linear_head import C_VALUES, HasTime
from training.fitting.meanings import groups_by_class
from training.fitting.selection import (
    Choice,
    DeliveredModel,
    HeadCandidate,
    NetworkCandidate,
    SplitImages,
    choose_candidate,
    finetune_network,
    train_head,
)
from training.fitting.view import choose_view, crop_alone
from training.images.decode import BrokenImageError, as_array, read_image
from training.images.split import (
    NearDuplicates,
    assign_groups,
    check_enough,
    contradictions,
    count_leaks,
    find_near_duplicates,
    split_rows,
)
from training.judgements import read_judgements
from training.meanings import write_meanings
from training.metrics import Strangers, ViewMetrics, read_metrics
from training.networks.backbones import BACKBONES, LoadedBackbone
from training.networks.classifier import ClassifierNetwork
from training.networks.configured import DEFAULTS, load_configured
from training.networks.devices import choose_device, try_convolution, why_unusable
from training.networks.embeddings import FeatureExtractor, ImageFeatures
from training.networks.precision import PRECISIONS, choose_precision, exact_float32
from training.networks.strangers import measure_refusal
from training.phrases import shortened
from training.predict import Predict
from training.predictions import PREDICTIONS_FILE, SUSPECTS_FILE, read_predictions
from training.progress import RowListener, Run, Stopped, StopRequest, no_progress
from training.run_folder import (
    FINISH_FILE,
    FIRST_MODEL_FILE,
    HEAD_FOLDER,
    ImageRow,
    RunConfig,
    RunError,
    check_manifest,
    disk_error,
    read_json,
    read_manifest,
    read_result,
    stopped_result,
    write_config,
    write_json,
    write_manifest,
    write_text,
)
from training.text_image import TextImageModel
from training.verification import with_judgements

_CHOICES = {
    "backbone": tuple(BACKBONES),
    "device": ("auto", "cpu", "cuda"),
    "finetune": ("auto", "never"),
    "weights": ("pretrained", "random"),
}
_MOST_SECONDS = 10**9  # 31 years
_SHOWN_COLUMNS = 60  # of a value that somebody else wrote
_MOST = {"seed": 2**32 - 1, "epochs": 100_000, "threads": 4096}
# test images that the exported files are compared on, besides the synthetic ones
_COMPARED_IMAGES = 3
_LEAST_VAL_ON_CPU = 60  # a trial takes minutes there, where a run of so few takes one
_LEAST_SHARE = 0.1  # of the time budget, for the head's search and for the evaluation each
_EXPORT_SECONDS = 10.0  # for writing and checking a model
_NAMED_FILES = 3  # unusable images that a notice names

_log = logging.getLogger("training")


@dataclass(frozen=True)
class Control:
    """The processes that take part in a run, and how it is asked to stop."""

    distributed: DistributedContext = SINGLE_PROCESS
    stop: StopRequest = dataclasses.field(default_factory=StopRequest)


def fit(
    folder: Path,
    config: RunConfig,
    listen: RowListener | None = None,
    control: Control | None = None,
) -> dict[str, Any]:
    """Train what the run folder describes and return its `result.json`.

    A folder that is done returns at once. Killed anywhere and started again it goes on from what is
    on the disk and ends the same. Raises RunError or OSError only where the run folder cannot be
    read or not even `result.json` be written.
    """
    result = read_result(folder)
    if result and result["ok"]:
        _remove_checkpoints(folder)
        return result
    run = Run(folder, config.with_defaults(DEFAULTS), listen)
    try:
        _remove_leftovers(folder)
        run.recall_seconds()
        _run_stages(run, control or Control())
        seconds = read_metrics(folder)["seconds"]
        result = {"ok": True, "seconds": seconds, "notices": run.notices}
    except RunError as error:
        result = {"ok": False, "error": error.as_json()}
    except OSError as error:
        _log.info("the disk refused in stage %s", run.stage, exc_info=True)
        result = {"ok": False, "error": disk_error(run.stage, error).as_json()}
    except Stopped:
        result = stopped_result(run.stage)
    except Exception:
        _log.exception("training failed in stage %s", run.stage)
        unexpected = RunError(
            run.stage,
            f"Training failed unexpectedly while it was at the stage “{run.stage}”.",
            "Start it again; if it fails the same way, the log tells more.",
            retry=True,
        )
        result = {"ok": False, "error": unexpected.as_json()}
    write_json(folder / "result.json", result)
    if result["ok"]:
        _remove_checkpoints(folder)
    return result


def fit_distributed(
    folder: Path, config: RunConfig, listen: RowListener | None, control: Control
) -> dict[str, Any]:
    """Run `fit` in the first of several processes; the others take part in its fine-tuning."""
    with process_group(control.distributed) as distributed:
        control = dataclasses.replace(control, distributed=distributed)
        result = fit(folder, config, listen, control)
        # A failed fine-tuning leaves the workers waiting for each other, not for a message.
        if result["ok"] or result["error"]["stage"] != "finetune":
            shutdown_workers(distributed)
    return result


def _run_stages(run: Run, control: Control) -> None:
    """Run the stages: the table of contents of a training."""
    rows = _check_input(run)
    with run.during("features", "Extracting features of the pictures"):
        _check_text_image_model(run)
        loaded, extractor = _load_network(run, rows, control.distributed)
        features = _extract_features(run, rows, extractor)
    with run.during("split", "Grouping near-duplicates and splitting"):
        images = _split_images(run, rows, features)
        _write_meanings(run, images)
    with run.during("train", "Training the classifier"):
        images, view = _choose_view(run, images, extractor)
        head = _train_head(run, images)
    with run.during("finetune", "Fine-tuning the network"), control.stop.deferred():
        tuned = _finetune(run, images, loaded, extractor, head, control)
    with run.during("evaluate", "Testing on pictures it has not seen"):
        begun = time.monotonic()
        choice = choose_candidate(images, extractor, head, tuned)
        outside = _outside_evidence(run, images, loaded)
        results = _evaluate(
            run,
            images,
            loaded,
            extractor,
            choice,
            view,
            outside,
            lambda: _has_time(run, begun),
        )
    with run.during("export", "Writing and checking the model"):
        _export(run, loaded, choice.model.network, results)


def _check_input(run: Run) -> list[ImageRow]:
    """Check configuration and manifest, and write the effective configuration down."""
    config = run.config
    seconds: Any = config.time_budget_seconds
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= _MOST_SECONDS:
        shown = shortened(repr(seconds), _SHOWN_COLUMNS)
        raise RunError(
            "features",
            f"The time budget is {shown}, which is no number of seconds above 0"
            f" and up to {_MOST_SECONDS:,}.",
            "Give another time budget, or none.",
            retry=False,
        )
    for name, choices in _CHOICES.items():
        value = getattr(config, name)
        if value not in choices:
            raise RunError(
                "features",
                f"“{shortened(str(value), _SHOWN_COLUMNS)}” is not a {name} that Picaisso knows.",
                f"Choose one of {', '.join(choices)}.",
                retry=False,
            )
    for name, most in _MOST.items():
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise RunError(
                "features",
                f"“{shortened(str(value), _SHOWN_COLUMNS)}” is no whole number for {name}.",
                f"Give {name} as 0 to {most}, or not at all.",
                retry=False,
            )
    rows = read_manifest(run.folder)
    check_manifest(config, rows)
    write_config(run.folder, config)
    torch.set_num_threads(config.threads or _available_processors())
    return rows


def _available_processors() -> int:
    """Return how many processors this process may use; more threads only wait for each other."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load_network(
    run: Run, rows: list[ImageRow], distributed: DistributedContext
) -> tuple[LoadedBackbone, FeatureExtractor]:
    """Load the pretrained network, and choose the precision that this machine computes fastest in.

    Both are noted when the run begins, so that a resumed run ends the same.
    """
    config = run.config
    checkpoints = run.folder / "checkpoints"
    note = checkpoints / "backbone.json"
    wanted = [str(config.backbone), str(config.weights)]
    earlier = _noted_backbone(note, wanted)
    loaded = _load_backbone(run, earlier)
    network = ClassifierNetwork(loaded.backbone, loaded.network, len(config.classes))
    exact_float32()
    network = network.to(_device(run, distributed))
    run.report(0, 0, "Getting ready")
    precision = PRECISIONS.get(earlier.get("arithmetic", ""))
    if precision is None:
        cache_folder = Path(config.weights_cache or "").parent
        measured = cache_folder / "arithmetic.json"
        precision = choose_precision(network, measured)
    network.to(memory_format=cast(Any, precision.memory_format))
    chosen = {
        "wanted": wanted,
        "used": loaded.backbone.name,
        "notice": loaded.notice,
        "arithmetic": precision.name,
    }
    write_json(note, chosen)
    extractor = FeatureExtractor(
        network=network,
        precision=precision,
        run_dir=run.folder,
        cache=checkpoints / "features",
    )
    return loaded, extractor


def _noted_backbone(note: Path, wanted: list[str]) -> dict[str, str]:
    """Return what an earlier attempt noted that wanted the same; {} where nothing can be used."""
    try:
        noted = read_json(note)
    except RunError:
        return {}
    texts = {key: text for key, text in noted.items() if isinstance(text, str)}
    if noted.get("wanted") != wanted or texts.get("used") not in BACKBONES:
        return {}
    return texts


def _load_backbone(run: Run, earlier: Mapping[str, Any]) -> LoadedBackbone:
    """Load the wanted backbone, or the one that replaced it when the run began."""

    def report(done: int, total: int, message: str = "", /) -> None:
        megabytes = max(done, total) // 1_000_000
        run.report(done // 1_000_000, megabytes, message or "Downloading pretrained weights (MB)")

    loaded = load_configured(run.config, earlier.get("used"), report)
    if earlier and earlier["used"] == loaded.backbone.name:
        loaded = dataclasses.replace(loaded, notice=earlier.get("notice", ""))
    if loaded.notice:
        run.notices.append(loaded.notice)
    return loaded


def _device(run: Run, distributed: DistributedContext) -> torch.device:
    """Return the device to compute on. Raises RunError where the wanted GPU is not there."""
    device = str(run.config.device)
    if device == "cuda" and why_unusable("cuda", try_convolution):
        raise RunError(
            "features",
            "This machine has no GPU that torch can use.",
            "Set the device to auto or cpu.",
            retry=False,
        )
    if device == "auto":
        device, notice = choose_device(torch.cuda.is_available(), try_convolution)
        if notice:
            run.notices.append(notice)
    return distributed.device(device)


def _extract_features(run: Run, rows: list[ImageRow], extractor: FeatureExtractor) -> ImageFeatures:
    """Compute the features of every image, and note which images are unusable."""
    run.report(0, len(rows), "Extracting features of the pictures")
    features = extractor.extract(rows, run.report)
    if features.broken:
        reasons = [f"{file} ({reason})" for file, reason in features.broken.items()]
        named = ", ".join(reasons[:_NAMED_FILES])
        more = len(reasons) - _NAMED_FILES
        if more > 0:
            named += f" and {more} more"
        run.notices.append(f"Left out because unusable: {named}.")
    return features


def _split_images(run: Run, rows: list[ImageRow], features: ImageFeatures) -> SplitImages:
    """Group near-duplicates, split the groups, and return the usable images."""
    # Embeddings by random weights say nothing about what an image shows.
    embeddings = features.embeddings if run.config.weights == "pretrained" else None
    duplicates = find_near_duplicates(features.rows, features.fingerprints, embeddings)
    _note_contradictions(run, rows, duplicates)
    manifest = _freeze_split(run, rows, duplicates)
    if count_leaks(manifest, duplicates):
        raise RunError(
            "split",
            "Near-duplicates are in different splits.",
            "Start again without a split in the manifest.",
            retry=False,
        )
    class_ids = [label.id for label in run.config.classes]
    usable = [manifest[index] for index in features.rows]
    check_enough(run.config, usable)
    labels = [class_ids.index(row.class_id) for row in usable]
    groups = [row.group for row in usable]
    return SplitImages(
        rows=usable,
        embeddings=features.embeddings,
        labels=np.array(labels, np.int64),
        groups=np.array(groups, np.int64),
        statistics=features.statistics,
        manifest_indices=np.array(features.rows, np.int64),
        manifest=manifest,
        classes=len(class_ids),
        seed=run.config.seed or 0,
        own_test=bool(run.config.own_test),
    )


def _write_meanings(run: Run, images: SplitImages) -> None:
    """Write the groups that each class falls into. They are for people, so they stop no run."""
    if run.config.weights == "random":
        return
    names = [label.name for label in run.config.classes]
    try:
        write_meanings(run.folder, groups_by_class(images, names))
    except Exception:
        _log.exception("the pictures were not grouped")


def _note_contradictions(run: Run, rows: list[ImageRow], duplicates: NearDuplicates) -> None:
    """Notice near-duplicates of different classes: one of the two labels is wrong."""
    pairs = contradictions(rows, duplicates)
    if not pairs:
        return
    names = {label.id: label.name for label in run.config.classes}
    shown = []
    for index in pairs[0]:
        row = rows[index]
        shown.append(f"{row.file} (“{names[row.class_id]}”)")
    several = f" and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
    run.notices.append(
        f"Near-duplicates stand in different classes: {' and '.join(shown)}{several}."
        " One of the two labels is probably wrong."
    )


def _freeze_split(run: Run, rows: list[ImageRow], duplicates: NearDuplicates) -> list[ImageRow]:
    """Write groups and splits into the manifest, unless an earlier attempt has, and return it."""
    grouped = assign_groups(rows, duplicates)
    # What an earlier attempt left out must stay out, so all groups there mean that it has split.
    split = rows
    for row, new in zip(rows, grouped, strict=True):
        if row.group is None and new.group is not None:
            split = split_rows(run.config, grouped)
            break
    left_out = sum(row.group is not None and row.split is None for row in split)
    if left_out:
        run.notices.append(
            "Pictures left out because they are near-duplicates of pictures in another split: "
            f"{left_out}."
        )
    write_manifest(run.folder, split)
    run.report(len(split), len(split))
    return split


def _choose_view(
    run: Run, images: SplitImages, extractor: FeatureExtractor
) -> tuple[SplitImages, ViewMetrics]:
    """Choose whether the network looks at the middle of each image or at all of it."""
    if run.config.weights == "random":
        return images, crop_alone()
    run.report(0, 0, "Looking at the whole of each picture")
    return choose_view(images, extractor, run.report)


def _train_head(run: Run, images: SplitImages) -> HeadCandidate:
    """Fit the head on train and val, searching for as long as the time budget lasts."""
    budget = cast(float, run.config.time_budget_seconds)
    begun = time.monotonic()
    head = train_head(images, run.report, lambda: _has_time(run, begun))
    run.record_head(head.fitted.search)
    tried = head.fitted.tried
    if tried < len(C_VALUES):
        run.notices.append(
            f"The time budget of {budget:g} seconds ended the search for the best regularisation "
            f"after {tried} of {len(C_VALUES)} values."
        )
    return head


def _finetune(
    run: Run,
    images: SplitImages,
    loaded: LoadedBackbone,
    extractor: FeatureExtractor,
    head: HeadCandidate,
    control: Control,
) -> NetworkCandidate | str:
    """Return the fine-tuned network, or the sentence why there is none.

    While it is trained, the head can be used. A file in the run folder ends the training early.
    """
    if run.config.finetune == "never":
        return "Fine-tuning was switched off."
    finish = run.folder / FINISH_FILE
    checkpoints = run.folder / "checkpoints"
    has_begun = (checkpoints / CHECKPOINT_FILE).exists()
    if finish.exists() and not has_begun:
        return "The network was not fine-tuned, because the training was to end early."
    config = TrainConfig(seed=images.seed)
    epochs = run.config.epochs
    val_images = len(images.indices("val"))
    if not epochs and extractor.network.device.type == "cpu" and val_images < _LEAST_VAL_ON_CPU:
        return (
            f"The network was not fine-tuned: {val_images} validation pictures are too few (fewer"
            f" than {_LEAST_VAL_ON_CPU}) for the minutes that it takes without a GPU."
        )
    if epochs:
        config = dataclasses.replace(config, max_epochs=epochs, max_epochs_cpu=epochs)
    context = TrainContext(
        folder=checkpoints,
        budget=_seconds_for_finetuning(run),
        precision=extractor.precision,
        distributed=control.distributed,
        report=run.report,
        record=run.record,
        should_stop=lambda: control.stop.asked,
        should_finish=finish.exists,
        prepare=lambda: _write_head(run, images, loaded, extractor, head),
    )
    return finetune_network(images, extractor, head, config, context, asked=bool(epochs))


def _write_head(
    run: Run,
    images: SplitImages,
    loaded: LoadedBackbone,
    extractor: FeatureExtractor,
    head: HeadCandidate,
) -> None:
    """Write the head as a model that can be tried meanwhile, unless it is there.

    The run goes on without it where that fails: nothing else needs it.
    """
    folder = run.folder / HEAD_FOLDER
    with suppress(RunError):  # there is none yet
        if read_json(folder / FIRST_MODEL_FILE)["backbone"] == loaded.backbone.name:
            return
    samples = images.samples("train", "val")
    network = copy.deepcopy(extractor.network).to("cpu")
    network.to(memory_format=cast(Any, torch.contiguous_format))
    try:
        write_head_model(
            folder / "model",
            network,
            head.fitted,
            samples,
            run.config,
            loaded.weights,
            head.ordinary,
        )
        name = loaded.backbone.name
        write_first_model(
            folder, samples, head.fitted, run.config, name, lambda: sum(run.spent().values())
        )
    except Exception:  # whatever ONNX raises
        _log.exception("the head cannot be tried while the network is fine-tuned")


def _has_time(run: Run, begun: float) -> bool:
    """Return whether something is left of the time budget, which is that of the whole run.

    A task that began at this moment of the monotonic clock has a tenth of the budget in any case:
    without it, features that take long would leave a head that nothing was searched for.
    """
    budget = cast(float, run.config.time_budget_seconds)
    taken = time.monotonic() - begun
    return sum(run.spent().values()) < budget or taken < _LEAST_SHARE * budget


def _seconds_for_finetuning(run: Run) -> float:
    """Return what is left of the run's time budget for fine-tuning, in seconds.

    A fine-tuned network computes the features of all images again, and is written and checked.
    """
    budget = cast(float, run.config.time_budget_seconds)
    spent = {**run.spent(), "finetune": 0.0}  # its checkpoint counts what it took before
    again = spent.get("features", 0.0)
    return budget - sum(spent.values()) - again - _EXPORT_SECONDS


def _check_text_image_model(run: Run) -> None:
    """Raise RunError for a text-image model of no use, before anything is computed.

    It is loaded again when it is needed: until then the memory is the training's.
    """
    if run.config.text_image_model:
        TextImageModel(Path(run.config.text_image_model))


def _outside_evidence(run: Run, images: SplitImages, loaded: LoadedBackbone) -> OutsideEvidence:
    """Return what the network's ImageNet classifier and a text-image model say of the images."""
    page_share = None
    if loaded.imagenet is not None:
        page_share = loaded.imagenet.page_share(images.embeddings)
    folder = run.config.text_image_model
    if not folder:
        return OutsideEvidence(page_share)
    names = [label.name for label in run.config.classes]
    threads = run.config.threads or _available_processors()
    try:
        model = TextImageModel(Path(folder), threads)
        scores = model.score(run.folder, images.rows, names, run.report)
    except Exception:  # whatever the operator's model does, the trained one is delivered
        _log.exception("the text-image model failed")
        run.notices.append("The text-image model failed on these pictures, so it says nothing.")
        return OutsideEvidence(page_share)
    return OutsideEvidence(page_share, scores)


def _evaluate(
    run: Run,
    images: SplitImages,
    loaded: LoadedBackbone,
    extractor: FeatureExtractor,
    choice: Choice,
    view: ViewMetrics,
    outside: OutsideEvidence,
    has_time: HasTime,
) -> Results:
    """Return what is known of the chosen model; write `suspects.jsonl` and `predictions.csv`."""
    names = [label.name for label in run.config.classes]
    run_metrics = RunMetrics(
        weights=loaded.weights,
        view=view,
        strangers=_measure_refusal(run, choice.model),
        backbone=loaded.backbone.name,
        device=str(extractor.network.device),
        arithmetic=extractor.precision.name,
        notices=run.notices,
        seconds=run.spent(),
    )
    results, scores = collect_results(
        images, choice, names, run_metrics, run.report, has_time, outside
    )
    class_ids = [label.id for label in run.config.classes]
    write_text(run.folder / PREDICTIONS_FILE, predictions_as_csv(results, class_ids))
    results = _count_judgements(run, results, class_ids)
    write_text(run.folder / SUSPECTS_FILE, suspects_as_lines(results, scores, names))
    return results


def _measure_refusal(run: Run, model: DeliveredModel) -> Strangers | None:
    """Show pictures of other things to the finished model."""
    names = [label.name for label in run.config.classes]
    run.report(0, 0, "Showing it pictures of other things")
    return measure_refusal(model.network, model.reject_threshold, names)


def _count_judgements(run: Run, results: Results, class_ids: list[str]) -> Results:
    """Count what a person said of test images when they belonged to an earlier version."""
    try:
        judgements = read_judgements(run.folder)
    except RunError as error:
        run.notices.append(f"{error.reason} Nothing in it was counted.")
        return results
    if not judgements:
        return results
    predicted = read_predictions(run.folder, class_ids)
    metrics = with_judgements(results.metrics, predicted, judgements, class_ids)
    counted = dataclasses.replace(results, metrics=metrics)
    return counted if metrics["verdict"] == "better" else without_suspects(counted)


def _export(run: Run, loaded: LoadedBackbone, network: ClassifierNetwork, results: Results) -> None:
    """Write the model folder, the nearest images for later predictions, and the metrics."""
    config = run.config
    folder = run.folder / "model"
    network.to("cpu")
    network.to(memory_format=cast(Any, torch.contiguous_format))
    compared = []
    tested = [row for row in results.rows if row.split == "test"]
    for row in tested[:_COMPARED_IMAGES]:
        with suppress(BrokenImageError):  # it has gone since its features were extracted
            compared.append(as_array(read_image(run.folder / row.file)))

    def write_report_page(path: Path, predict: Predict) -> None:
        backbone = loaded.backbone
        origin = Origin(backbone.title, backbone.license, resize_side(network), run.spent())
        write_report(path, results, config, run.folder, predict, origin, no_progress)

    learned = results.learned_indices()
    others = {}
    for index in set(range(len(results.rows))) - set(learned.tolist()):
        others[results.rows[index].file] = results.embeddings[index]
    embeddings = results.embeddings[learned]
    write_neighbours(run.folder, results.learned_images(), embeddings, others)
    trained = TrainedModel(
        network, config.classes, config, results.metrics, run.spent, write_report_page
    )
    export_model(trained, folder, compared, run.report)
    metrics = (folder / "metrics.json").read_text(encoding="utf-8")
    write_text(run.folder / "metrics.json", metrics)


def _remove_leftovers(folder: Path) -> None:
    """Remove what an earlier attempt left: its refusal, and files that it died over."""
    (folder / "result.json").unlink(missing_ok=True)
    for half_written in (*folder.glob(".*.tmp"), *folder.glob("checkpoints/**/.*.tmp")):
        if half_written.is_dir():
            shutil.rmtree(half_written)
        else:
            half_written.unlink()


def _remove_checkpoints(folder: Path) -> None:
    """Remove what only an unfinished run needs, and what is large."""
    shutil.rmtree(folder / HEAD_FOLDER, ignore_errors=True)
    with suppress(OSError):  # the run is done either way
        (folder / FINISH_FILE).unlink(missing_ok=True)
        for pattern in ("*.squares", "*.done", f"**/{CHECKPOINT_FILE}"):
            for path in (folder / "checkpoints").glob(pattern):
                path.unlink(missing_ok=True)
