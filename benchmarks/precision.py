"""How fast this machine turns images into features in each precision, and which one is chosen.

The rate is ResNet50's forward pass on batches of 16 images of 224 pixels, without decoding. Each
round times all precisions in turn after a pass of each that warms up, so that a neighbor's load
falls on all alike; rates are medians. Beside them stands how good the features are: the out-of-fold
accuracy of the linear head on features of two classes of photographs, and the smallest cosine
between an image's features and its plain float32 ones. Those come from efficientnet_lite0, whose
trained weights come with an installed package; ResNet50's would have to be downloaded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.photographs import PAIRS, photographs
from training.fitting.linear_head import Samples, fit_head
from training.images.decode import read_image
from training.networks.backbones import BACKBONES, Weights, load_backbone
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.networks.precision import (
    FP32_CONTIGUOUS,
    PRECISIONS,
    Precision,
    choose_precision,
    time_precisions,
)
from training.networks.weights import WeightSources
from training.progress import no_progress

BATCH_SIZE = 16
PLAIN = FP32_CONTIGUOUS.name


@dataclass(frozen=True)
class Quality:
    """How good one precision's features are."""

    accuracy: float
    """Share of the photographs that the head predicts rightly out of fold."""
    cosine: float
    """The smallest to the plain float32 features of the same image."""


def new_network(backbone: str, weights: Weights) -> ClassifierNetwork:
    """Return a network of two classes on the CPU."""
    sources = WeightSources(None, Path(), "")
    loaded = load_backbone(BACKBONES[backbone], weights, sources)
    return ClassifierNetwork(loaded.backbone, loaded.network, 2)


def measure_rates(rounds: int) -> dict[str, list[float]]:
    """Return the images per second of each precision in each round."""
    resnet = new_network("resnet50", "random")
    precisions = tuple(PRECISIONS.values())
    rates: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for _ in range(rounds):
        seconds = time_precisions(resnet, precisions, batch_size=BATCH_SIZE, rounds=2)
        for name in PRECISIONS:
            rates[name].append(BATCH_SIZE / seconds[name])
    return rates


def chosen_precision() -> Precision:
    """Return what a run on this machine would choose, measured anew."""
    network = new_network("resnet50", "random")
    with tempfile.TemporaryDirectory() as folder:
        return choose_precision(network, Path(folder) / "arithmetic.json")


def measure_qualities() -> dict[str, Quality]:
    """Return how good the features of two classes of photographs are in each precision."""
    images = []
    labels = []
    for label, folders in enumerate(PAIRS[0].values()):
        for path in photographs(folders):
            images.append(read_image(path))
            labels.append(label)
    network = new_network("efficientnet_lite0", "pretrained")
    features = {}
    for name, precision in PRECISIONS.items():
        batches = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = images[start : start + BATCH_SIZE]
            batches.append(embed_images(network, batch, precision))
        features[name] = np.concatenate(batches)
    plain = features[PLAIN]
    return {name: _quality(ours, plain, np.array(labels)) for name, ours in features.items()}


def _quality(
    features: NDArray[np.float32], plain: NDArray[np.float32], labels: NDArray[np.int64]
) -> Quality:
    samples = Samples(features, labels, groups=np.arange(len(labels)), classes=2)
    fitted = fit_head(samples, 0, no_progress)
    hits = fitted.out_of_fold.argmax(axis=1) == labels
    products = (features * plain).sum(axis=1)
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(plain, axis=1)
    cosines = products / lengths
    return Quality(float(hits.mean()), float(cosines.min()))


def table_of(
    rates: Mapping[str, Sequence[float]], qualities: Mapping[str, Quality], chosen: Precision
) -> Table:
    """Return the one table."""
    rounds = len(rates[PLAIN])
    table = Table(
        title=f"ResNet50 forward, batch {BATCH_SIZE}, {os.cpu_count()} cores, medians of {rounds}"
    )
    table.add_column("")
    for heading in (
        "pictures/s",
        "lowest",
        "highest",
        "this / plain",
        "chosen",
        "head's accuracy",
        "cosine at least",
    ):
        table.add_column(heading, justify="right")
    for name, rounds_of_one in rates.items():
        ratios = []
        for rate, plain in zip(rounds_of_one, rates[PLAIN], strict=True):
            ratios.append(rate / plain)
        table.add_row(
            name,
            f"{statistics.median(rounds_of_one):.1f}",
            f"{min(rounds_of_one):.1f}",
            f"{max(rounds_of_one):.1f}",
            f"{statistics.median(ratios):.2f}",
            "yes" if name == chosen.name else "",
            f"{qualities[name].accuracy:.1%}",
            f"{qualities[name].cosine:.5f}",
        )
    return table


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description="Times feature extraction in each precision.")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (3)")
    options = parser.parse_args()
    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    else:
        torch.set_num_threads(os.cpu_count() or 1)
    rates = measure_rates(options.rounds)
    table = table_of(rates, measure_qualities(), chosen_precision())
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
