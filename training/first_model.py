"""A first model of few images, while more are still being collected: the linear head alone.

In: a run folder with `config.json` and `manifest.jsonl`, of which a split is ignored. Out: `model/`
with `model.onnx`, `classes.json` and `config.json`, and last of all `first.json`, the FirstModel.
Killed anywhere and started again it ends the same. Nothing of it is used by the training that
follows when all images are there.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch

from training.evaluation.cross_validation import cross_validate, cross_validated_metrics
from training.export.model_folder import (
    graphs_folder,
    largest_difference,
    model_config,
    onnx_file,
    outputs_of,
    synthetic_images,
)
from training.fitting.linear_head import FittedHead, Samples, fit_head
from training.fitting.relevance import out_of_fold_novelty, reject_threshold
from training.images.split import FOLDS, find_near_duplicates
from training.metrics import softmax
from training.networks.backbones import BACKBONES, LoadedBackbone, load_backbone
from training.networks.catalogue import DEFAULT as DEFAULT_BACKBONE
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import FeatureExtractor, ImageFeatures
from training.networks.novelty import choose_references
from training.networks.onnx_graph import forget_cached_graph
from training.networks.precision import FP32, exact_float32
from training.networks.weights import DOWNLOAD_URL, WeightSources
from training.predict import open_model
from training.progress import no_progress
from training.run_folder import (
    ImageRow,
    RunConfig,
    RunError,
    atomic_write,
    check_manifest,
    read_json,
    read_manifest,
    write_json,
)

RESULT_FILE = "first.json"

_SEARCH_SECONDS = 20.0  # for the best regularisation in cross-validation; few images need one
_TOLERANCE = 1e-3  # of a probability or the novelty, between torch and model.onnx


class FirstModel(TypedDict):
    """`first.json`: the accuracy by cross-validation, over all images."""

    images: int
    per_class: dict[str, int]
    """By name, in output order."""
    accuracy: float
    interval: list[float]
    """Low and high end of the 95 % interval."""
    hits: int
    """Images predicted rightly, each by a head that saw neither it nor a near-duplicate."""
    n: int
    """Images judged: all."""
    backbone: str
    seconds: float


def fit_first_model(folder: Path, config: RunConfig, cache: Path | None = None) -> FirstModel:
    """Fit a linear head on the images of a run folder, and return what `first.json` says of it.

    A folder that is done returns at once. `cache` is a folder for the features of single images: a
    later run that has the same images first, in the same order, computes only the others. Raises
    RunError or OSError.
    """
    if (folder / RESULT_FILE).exists():
        return cast(FirstModel, read_json(folder / RESULT_FILE))
    begun = time.monotonic()
    rows = read_manifest(folder)
    check_manifest(config, rows)
    if config.threads:
        torch.set_num_threads(config.threads)
    loaded = _load_backbone(config)
    exact_float32()
    network = ClassifierNetwork(loaded.backbone, loaded.network, len(config.classes))
    extractor = FeatureExtractor(
        network=network,
        precision=FP32,  # what model.onnx computes in
        run_dir=folder,
        cache=cache or folder / "checkpoints" / "features",
    )
    features = extractor.extract(rows, no_progress)
    samples = _samples(config, rows, features)
    seed = config.seed or 0
    fitted = fit_head(samples, seed, no_progress)
    reject = _put_in_place(network, fitted, samples, seed)
    _write_model(folder / "model", network, config, loaded, reject)
    names = [label.name for label in config.classes]
    searching = time.monotonic()
    validation = cross_validate(
        samples, fitted.c, seed, no_progress, lambda: time.monotonic() - searching < _SEARCH_SECONDS
    )
    figures = cross_validated_metrics(validation, samples, names)
    counts = Counter(samples.labels.tolist())
    per_class = {}
    for number, name in enumerate(names):
        per_class[name] = counts[number]
    found = FirstModel(
        images=len(samples.labels),
        per_class=per_class,
        accuracy=figures["accuracy"],
        interval=figures["interval"],
        hits=int((validation.predicted() == samples.labels).sum()),
        n=figures["n"],
        backbone=loaded.backbone.name,
        seconds=round(time.monotonic() - begun, 2),
    )
    write_json(folder / RESULT_FILE, found)
    return found


def _load_backbone(config: RunConfig) -> LoadedBackbone:
    """Load the pretrained network. Raises RunError for a name that is no backbone's."""
    name = config.backbone or DEFAULT_BACKBONE
    if name not in BACKBONES:
        raise RunError(
            "features",
            f"“{name}” is not a backbone that Picaisso knows.",
            f"Choose one of {', '.join(BACKBONES)}.",
            retry=False,
        )
    sources = WeightSources(
        folder=Path(config.weights_dir) if config.weights_dir else None,
        cache=Path(config.weights_cache or "data/cache/weights"),
        url=config.weights_url or DOWNLOAD_URL,
    )
    weights = config.weights or "pretrained"
    return load_backbone(BACKBONES[name], cast(Any, weights), sources)


def _samples(config: RunConfig, rows: Sequence[ImageRow], features: ImageFeatures) -> Samples:
    """Return the usable images, near-duplicates grouped. Raises RunError where a class has few."""
    duplicates = find_near_duplicates(features.rows, features.fingerprints, features.embeddings)
    class_ids = [label.id for label in config.classes]
    labels = np.array([class_ids.index(rows[index].class_id) for index in features.rows], np.int64)
    groups = np.array([duplicates.groups[index] for index in features.rows], np.int64)
    for number, label in enumerate(config.classes):
        different = len(np.unique(groups[labels == number]))
        if different < FOLDS:
            raise RunError(
                "split",
                f"The class “{label.name}” has {different} different pictures;"
                f" a first model needs at least {FOLDS}.",
                "Wait for more pictures.",
                retry=False,
            )
    return Samples(features.embeddings, labels, groups, len(class_ids))


def _put_in_place(
    network: ClassifierNetwork, fitted: FittedHead, samples: Samples, seed: int
) -> float:
    """Complete the network; return the novelty above which an image is none of the classes."""
    weight = torch.from_numpy(fitted.head.weight)
    bias = torch.from_numpy(fitted.head.bias)
    network.set_head(weight, bias, fitted.temperature)
    references = choose_references(samples.embeddings, samples.labels, samples.classes, seed)
    network.set_references(references)
    unseen = softmax(fitted.out_of_fold / fitted.temperature)
    return reject_threshold(out_of_fold_novelty(samples, unseen, seed))


def _write_model(
    model_dir: Path,
    network: ClassifierNetwork,
    config: RunConfig,
    loaded: LoadedBackbone,
    reject: float,
) -> None:
    """Write the model folder beside its place, compare it with the network, and name it.

    Raises RunError where model.onnx says something else.
    """
    draft = model_dir.with_name(f".{model_dir.name}.tmp")
    for earlier in (draft, model_dir):
        if earlier.exists():
            shutil.rmtree(earlier)
    draft.mkdir()
    graphs = graphs_folder(config)
    content = onnx_file(network, config.classes, reject, graphs)
    with atomic_write(draft / "model.onnx") as file:
        file.write(content)
    write_json(draft / "classes.json", {label.id: label.name for label in config.classes})
    write_json(draft / "config.json", model_config(network, config, loaded.weights, reject))
    exported = open_model(draft, threads=torch.get_num_threads())
    images = synthetic_images()[:2]
    expected = [outputs_of(network, image) for image in images]
    found = [exported.run(image) for image in images]
    difference = largest_difference(expected, found)
    if not difference < _TOLERANCE:  # true of NaN too
        forget_cached_graph(network, graphs)
        raise RunError(
            "export",
            "model.onnx predicts otherwise than the trained network:"
            f" it differs by {difference:.2g}.",
            "Start it again.",
            retry=True,
        )
    draft.rename(model_dir)
