"""A linear head as a model that can be tried before the run has ended, and what it is worth.

Out: `model/` with `model.onnx`, `classes.json` and `config.json`, and last of all `first.json`.
The first model that is fitted while images are collected has the same files.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from training.evaluation.cross_validation import cross_validate, cross_validated_metrics
from training.export.model_folder import (
    graphs_folder,
    largest_difference,
    model_config,
    onnx_file,
    outputs_of,
    synthetic_images,
)
from training.fitting.linear_head import FittedHead, Samples
from training.fitting.relevance import out_of_fold_novelty, reject_threshold
from training.metrics import Labels, softmax
from training.networks.classifier import ClassifierNetwork
from training.networks.novelty import choose_references
from training.networks.onnx_graph import forget_cached_graph
from training.predict import open_model
from training.progress import no_progress
from training.run_folder import (
    FIRST_MODEL_FILE,
    ClassLabel,
    RunConfig,
    RunError,
    atomic_write,
    write_json,
)

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


def write_first_model(
    folder: Path,
    samples: Samples,
    fitted: FittedHead,
    config: RunConfig,
    backbone: str,
    seconds: Callable[[], float],
) -> FirstModel:
    """Judge a head by nested cross-validation, write `first.json`, and return what it says.

    `seconds` returns what it took in all, once it is judged.
    """
    begun = time.monotonic()

    def has_time() -> bool:
        return time.monotonic() - begun < _SEARCH_SECONDS

    names = [label.name for label in config.classes]
    validation = cross_validate(samples, fitted.c, config.seed or 0, no_progress, has_time)
    figures = cross_validated_metrics(validation, samples, names)
    hits = validation.predicted() == samples.labels
    found = FirstModel(
        images=len(samples.labels),
        per_class=_count_per_class(samples.labels, config.classes),
        accuracy=figures["accuracy"],
        interval=figures["interval"],
        hits=int(hits.sum()),
        n=figures["n"],
        backbone=backbone,
        seconds=round(seconds(), 2),
    )
    write_json(folder / FIRST_MODEL_FILE, found)
    return found


def _count_per_class(labels: Labels, classes: Sequence[ClassLabel]) -> dict[str, int]:
    """Return the number of images by class name, in output order."""
    counts = Counter(labels.tolist())
    per_class = {}
    for number, label in enumerate(classes):
        per_class[label.name] = counts[number]
    return per_class


def write_head_model(
    model_dir: Path,
    network: ClassifierNetwork,
    fitted: FittedHead,
    samples: Samples,
    config: RunConfig,
    weights: str,
    ordinary: NDArray[np.bool_] | None = None,
) -> None:
    """Put a fitted head in its place in a network on the CPU, and write the model folder.

    `weights` says where the pretrained ones come from. `ordinary` are the samples [n] that the
    reject threshold is taken from: all, where it is None. Raises RunError where model.onnx says
    something else than the network.
    """
    seed = config.seed or 0
    weight = torch.from_numpy(fitted.head.weight)
    bias = torch.from_numpy(fitted.head.bias)
    network.set_head(weight, bias, fitted.temperature)
    references = choose_references(samples.embeddings, samples.labels, samples.classes, seed)
    network.set_references(references)
    unseen = softmax(fitted.out_of_fold / fitted.temperature)
    novelty = out_of_fold_novelty(samples, unseen, seed)
    if ordinary is not None:
        novelty = novelty[ordinary]
    _write(model_dir, network, config, weights, reject_threshold(novelty))


def _write(
    model_dir: Path, network: ClassifierNetwork, config: RunConfig, weights: str, reject: float
) -> None:
    """Write the model folder beside its place, compare it with the network, and name it."""
    draft = model_dir.with_name(f".{model_dir.name}.tmp")
    for earlier in (draft, model_dir):
        if earlier.exists():
            shutil.rmtree(earlier)
    draft.mkdir(parents=True)
    graphs = graphs_folder(config)
    content = onnx_file(network, config.classes, reject, graphs)
    with atomic_write(draft / "model.onnx") as file:
        file.write(content)
    write_json(draft / "classes.json", {label.id: label.name for label in config.classes})
    write_json(draft / "config.json", model_config(network, config, weights, reject))
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
