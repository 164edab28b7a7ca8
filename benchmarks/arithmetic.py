"""How fast this machine turns pictures into features in each precision, and which one Picaisso
chooses.

The rate is ResNet50's forward pass on batches of 16 pictures of 224 pixels, without decoding. Each
round times all candidates in turn after a pass of each that warms up, so that a neighbour's load
falls on all alike; rates are medians. Beside them stands what the features are worth: the
out-of-fold accuracy of the linear head on features of two classes of photographs, and the smallest
cosine between a picture's features and its plain float32 ones. Those come from efficientnet_lite0,
whose trained weights come with an installed package; ResNet50's would have to be downloaded.
"""

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
    PLAIN,
    PRECISIONS,
    Precision,
    choose_precision,
    time_precisions,
)
from training.networks.weights import WeightSources
from training.progress import no_progress

BATCH = 16


@dataclass(frozen=True)
class Worth:
    """What one precision's features are worth."""

    accuracy: float
    """Share of the photographs that the head predicts rightly out of fold."""
    closeness: float
    """The smallest cosine to the plain float32 features of the same picture."""


def network(backbone: str, weights: Weights) -> ClassifierNetwork:
    """A network of two classes on the CPU."""
    loaded = load_backbone(BACKBONES[backbone], weights, WeightSources(None, Path(), ""))
    return ClassifierNetwork(loaded.backbone, loaded.network, 2)


def rates(rounds: int) -> dict[str, list[float]]:
    """Pictures per second of each precision in each round."""
    resnet = network("resnet50", "random")
    tried = tuple(PRECISIONS.values())
    found = [time_precisions(resnet, tried, batch=BATCH, rounds=2) for _ in range(rounds)]
    return {name: [BATCH / seconds[name] for seconds in found] for name in PRECISIONS}


def chosen() -> Precision:
    """What a run on this machine would choose, measured anew."""
    with tempfile.TemporaryDirectory() as folder:
        return choose_precision(network("resnet50", "random"), Path(folder) / "arithmetic.json")


def worths() -> dict[str, Worth]:
    """What the features of two classes of photographs are worth in each precision."""
    paths = [photographs(folders) for folders in PAIRS[0].values()]
    labels = np.repeat(np.arange(len(paths)), [len(found) for found in paths])
    pictures = [read_image(path) for found in paths for path in found]
    trained = network("efficientnet_lite0", "pretrained")
    features = {
        precision.name: np.concatenate(
            [
                embed_images(trained, pictures[at : at + BATCH], precision)
                for at in range(0, len(pictures), BATCH)
            ]
        )
        for precision in PRECISIONS.values()
    }
    return {name: _worth(ours, features[PLAIN.name], labels) for name, ours in features.items()}


def _worth(
    features: NDArray[np.float32], plain: NDArray[np.float32], labels: NDArray[np.int64]
) -> Worth:
    samples = Samples(features, labels, groups=np.arange(len(labels)), classes=2)
    fitted = fit_head(samples, 0, no_progress)
    cosines = (
        (features * plain).sum(axis=1)
        / np.linalg.norm(features, axis=1)
        / np.linalg.norm(plain, axis=1)
    )
    return Worth(float((fitted.out_of_fold.argmax(axis=1) == labels).mean()), float(cosines.min()))


def table(
    found: Mapping[str, Sequence[float]], worth: Mapping[str, Worth], choice: Precision
) -> Table:
    """The one table."""
    rounds = len(found[PLAIN.name])
    result = Table(
        title=f"ResNet50 forward, batch {BATCH}, {os.cpu_count()} cores, medians of {rounds}"
    )
    result.add_column("")
    for heading in (
        "pictures/s",
        "lowest",
        "highest",
        "this / plain",
        "chosen",
        "head's accuracy",
        "cosine at least",
    ):
        result.add_column(heading, justify="right")
    for name, rate in found.items():
        ratio = statistics.median(
            one / other for one, other in zip(rate, found[PLAIN.name], strict=True)
        )
        numbers = (statistics.median(rate), min(rate), max(rate))
        result.add_row(
            name,
            *(f"{number:.1f}" for number in numbers),
            f"{ratio:.2f}",
            "yes" if name == choice.name else "",
            f"{worth[name].accuracy:.1%}",
            f"{worth[name].closeness:.5f}",
        )
    return result


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description="Times feature extraction in each precision.")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (3)")
    given = parser.parse_args()
    torch.set_num_threads(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    Console(width=120).print(table(rates(given.rounds), worths(), chosen()))


if __name__ == "__main__":
    main()
