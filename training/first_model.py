"""A first model of few images, while more are still being collected: the linear head alone.

In: a run folder with `config.json` and `manifest.jsonl`, of which a split is ignored. Out: `model/`
with `model.onnx`, `classes.json` and `config.json`, and last of all `first.json`, the FirstModel.
Killed anywhere and started again it ends the same. Nothing of it is used by the training that
follows when all images are there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import numpy as np
import torch

from training.export.head_model import FirstModel, write_first_model, write_head_model
from training.export.model_folder import graphs_folder
from training.fitting.linear_head import Samples, fit_head
from training.images.split import FOLDS, find_near_duplicates
from training.networks.classifier import ClassifierNetwork
from training.networks.configured import DEFAULTS, load_configured
from training.networks.embeddings import FeatureExtractor, ImageFeatures
from training.networks.onnx_graph import cached_graph
from training.networks.precision import FP32, exact_float32
from training.progress import no_progress
from training.run_folder import (
    FIRST_MODEL_FILE,
    ImageRow,
    RunConfig,
    RunError,
    check_manifest,
    read_json,
    read_manifest,
)

_READ_TOGETHER = 8  # images, before the manifest is looked for again
_WAIT_SECONDS = 0.2  # for further images


def fit_first_model(
    folder: Path, config: RunConfig, cache: Path | None = None, wait: bool = False
) -> FirstModel:
    """Fit a linear head on the images of a run folder, and return what `first.json` says of it.

    A folder that is done returns at once. `cache` is a folder for the features of single images: a
    later run that has the same images first, in the same order, computes only the others. With
    `wait` it gets ready first: it does what takes long, and the features of the images that are
    there, until there is a manifest. Raises RunError or OSError.
    """
    if (folder / FIRST_MODEL_FILE).exists():
        return cast(FirstModel, read_json(folder / FIRST_MODEL_FILE))
    config = config.with_defaults(DEFAULTS)
    if config.threads:
        torch.set_num_threads(config.threads)
    loaded = load_configured(config)
    exact_float32()
    network = ClassifierNetwork(loaded.backbone, loaded.network, len(config.classes))
    extractor = FeatureExtractor(
        network=network,
        precision=FP32,  # what model.onnx computes in
        run_dir=folder,
        cache=cache or folder / "checkpoints" / "features",
    )
    if wait:
        cached_graph(network, graphs_folder(config))
        _wait_for_manifest(folder, extractor)
    begun = time.monotonic()
    rows = read_manifest(folder)
    check_manifest(config, rows)
    features = extractor.extract(rows, no_progress)
    samples = _samples(config, rows, features)
    fitted = fit_head(samples, config.seed or 0, no_progress)
    write_head_model(folder / "model", network, fitted, samples, config, loaded.weights)
    name = loaded.backbone.name
    return write_first_model(
        folder, samples, fitted, config, name, lambda: time.monotonic() - begun
    )


def _wait_for_manifest(folder: Path, extractor: FeatureExtractor) -> None:
    """Compute the features of the images that appear, until the manifest does."""
    known: set[str] = set()
    while not (folder / "manifest.jsonl").exists():
        rows: list[ImageRow] = []
        for path in sorted((folder / "images").glob("*.jpg")):  # others are being written
            if path.name not in known and len(rows) < _READ_TOGETHER:
                known.add(path.name)
                with suppress(OSError):  # it was not wanted after all
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    rows.append(ImageRow(f"images/{path.name}", "", digest))
        if rows:
            extractor.extract(rows, no_progress)
        else:
            time.sleep(_WAIT_SECONDS)


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
