"""How unlike all classes a picture is: its distance from the pictures that were learned, and the
model's unsureness.

The score is 1 minus the cosine to the three nearest learned pictures of the nearest class, plus a
share of what the highest probability lacks to 1. Embeddings are scaled first, number by number, so
that what hardly varies among the learned pictures weighs more when a stranger shows it. numpy
alone: the network computes the same inside its graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from training.metrics import Floats, Labels

NEIGHBOURS = 3  # learned pictures of a class that a picture is compared with
UNSURENESS_SHARE = 0.1

_MOST_REFERENCES = 1000  # they travel in the model: 2.6 MB with 1,280 numbers each


@dataclass(frozen=True)
class References:
    """The learned pictures that others are compared with."""

    scale: NDArray[np.float32]
    """[d]: factor of each number of an embedding."""
    vectors: NDArray[np.float16]
    """[m, d]: scaled embeddings of length 1, class after class."""
    bounds: tuple[int, ...]
    """Where each class's vectors begin, and where the last ends."""

    def novelty(self, embeddings: NDArray[np.float32], probabilities: Floats) -> Floats:
        """Scores [n] of embeddings [n, d] with calibrated probabilities [n, classes]."""
        cosines = _unit(embeddings * self.scale) @ self.vectors.astype(np.float32).T
        by_class = [
            _mean_of_highest(cosines[:, start:end])
            for start, end in pairwise(self.bounds)
            if end > start
        ]
        likeness = np.max(by_class, axis=0)
        result: Floats = 1 - likeness + UNSURENESS_SHARE * (1 - probabilities.max(axis=1))
        return result


def choose_references(
    embeddings: NDArray[np.float32], labels: Labels, classes: int, seed: int
) -> References:
    """References from learned embeddings [n, d] with labels [n]; an even sample where there are too
    many.
    """
    spread = embeddings.std(axis=0)
    scale = (1 / (spread + spread.mean() + 1e-12)).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(labels))
    most = max(NEIGHBOURS, _MOST_REFERENCES // classes)
    chosen = [np.sort(order[labels[order] == label][:most]) for label in range(classes)]
    vectors = _unit(embeddings[np.concatenate(chosen)] * scale).astype(np.float16)
    bounds = np.concatenate([[0], np.cumsum([len(places) for places in chosen])])
    return References(scale, vectors, tuple(int(bound) for bound in bounds))


def _mean_of_highest(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, m] to the mean [n] of each row's highest three, or of all where there are fewer."""
    count = min(NEIGHBOURS, cosines.shape[1])
    result: NDArray[np.float32] = np.partition(cosines, -count, axis=1)[:, -count:].mean(axis=1)
    return result


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    return result
