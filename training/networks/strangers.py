"""Bundled strangers: pictures of many things, to measure how often a model refuses what it must.

They belong to no request, except where a class is about what one of them shows: such a picture is
left out by its words.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from training.class_names import names_in
from training.images.decode import read_image
from training.metrics import Strangers
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.phrases import counted, listed

FOLDER = Path(__file__).with_name("stranger_pictures")
TABLE = FOLDER / "pictures.csv"
COLUMNS = ("file", "kind", "words", "source", "licence")

_BATCH = 16
_NOUNS = {
    "photograph": ("photograph", "photographs"),
    "drawing": ("drawing", "drawings"),
    "page": ("page or screen", "pages and screens"),
    "texture": ("texture", "textures"),
}


@dataclass(frozen=True)
class Stranger:
    """A bundled picture."""

    file: str
    kind: str
    words: tuple[str, ...]
    """What a class that it could belong to may be called."""


def read_strangers() -> list[Stranger]:
    """Return the bundled pictures, in the order of their table."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    strangers = []
    for row in rows:
        words = tuple(row["words"].split())
        strangers.append(Stranger(row["file"], row["kind"], words))
    return strangers


def unrelated(strangers: Sequence[Stranger], names: Sequence[str]) -> list[Stranger]:
    """Return the strangers none of whose words stands in the name of a class."""
    found = []
    for stranger in strangers:
        named = [name for name in names if names_in(name, stranger.words)]
        if not named:
            found.append(stranger)
    return found


def measure_refusal(
    network: ClassifierNetwork, threshold: float, names: Sequence[str]
) -> Strangers | None:
    """Return how many strangers a finished network refuses; None where all could be of a class."""
    everything = read_strangers()
    shown = unrelated(everything, names)
    if not shown:
        return None
    refused = 0
    for start in range(0, len(shown), _BATCH):
        batch = shown[start : start + _BATCH]
        refused += _count_refused(network, threshold, batch)
    left_out = len(everything) - len(shown)
    return Strangers(refused=refused, n=len(shown), how=_in_words(shown, left_out))


def _count_refused(
    network: ClassifierNetwork, threshold: float, strangers: Sequence[Stranger]
) -> int:
    images = []
    for stranger in strangers:
        image = read_image(FOLDER / stranger.file)
        images.append(image)
    features = embed_images(network, images)
    embeddings = torch.from_numpy(features).to(network.device)
    with torch.inference_mode():
        logits = network.head(embeddings)
        calibrated = logits / network.temperature
        probabilities = torch.softmax(calibrated, dim=1)
        novelty = network.novelty(embeddings, probabilities)
    is_refused = novelty > threshold
    return int(is_refused.sum())


def _in_words(shown: Sequence[Stranger], left_out: int) -> str:
    """Return what was shown, by kind, and how many were left out for the classes' names."""
    kinds = Counter(stranger.kind for stranger in shown)
    parts = []
    for kind, count in kinds.items():
        one, several = _NOUNS[kind]
        parts.append(counted(count, one, several))
    pictures = counted(len(shown), "picture")
    sentence = f"Shown {pictures} that come with Picaisso: {listed(parts)}."
    if left_out:
        sentence += f" {left_out} more were left out because a class may be about them."
    return sentence
