"""How unlike all classes an image is: its distance from the learned images, and the uncertainty.

The score is 1 minus the mean cosine to the three nearest learned images of the nearest class, plus
a share of what the highest probability lacks to 1. Embeddings are scaled first, number by number,
so that what hardly varies among the learned images weighs more where another image shows it. The
module needs numpy alone: the network computes the same inside its graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from training.metrics import Floats, Labels

NEIGHBOURS = 3  # learned images of a class that an image is compared with
UNCERTAINTY_SHARE = 0.1

_MAX_REFERENCES = 1000  # they travel in the model: 2.6 MB with 1,280 numbers each


@dataclass(frozen=True)
class References:
    """The learned images that others are compared with."""

    scale: NDArray[np.float32]
    """[d]: factor of each number of an embedding."""
    vectors: NDArray[np.float16]
    """[m, d]: scaled embeddings of length 1, class after class."""
    bounds: tuple[int, ...]
    """Where each class's vectors begin, and where the last ends."""

    def novelty(self, embeddings: NDArray[np.float32], probabilities: Floats) -> Floats:
        """Return scores [n] of embeddings [n, d] with calibrated probabilities [n, classes]."""
        scaled = embeddings * self.scale
        unit = to_unit_length(scaled)
        vectors = self.vectors.astype(np.float32)
        cosines = unit @ vectors.T
        by_class = []
        for start, end in pairwise(self.bounds):
            count = min(NEIGHBOURS, end - start)
            if count > 0:
                of_class = cosines[:, start:end]
                partitioned = np.partition(of_class, -count, axis=1)
                nearest = partitioned[:, -count:]
                similarity = nearest.mean(axis=1)
                by_class.append(similarity)
        highest_similarity = np.max(by_class, axis=0)
        confidence = probabilities.max(axis=1)
        uncertainty = 1 - confidence
        penalty = UNCERTAINTY_SHARE * uncertainty
        result: Floats = 1 - highest_similarity + penalty
        return result


def choose_references(
    embeddings: NDArray[np.float32], labels: Labels, classes: int, seed: int
) -> References:
    """Return references from learned embeddings [n, d] with labels [n].

    Where there are too many, each class is sampled.
    """
    scale = balancing_scale(embeddings)
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    ordered_labels = labels[order]
    most = max(NEIGHBOURS, _MAX_REFERENCES // classes)
    chosen: list[int] = []
    bounds = [0]
    for label in range(classes):
        of_class = order[ordered_labels == label]
        sampled = of_class[:most]
        chosen += sorted(sampled)
        bounds.append(len(chosen))
    scaled = embeddings[chosen] * scale
    vectors = to_unit_length(scaled).astype(np.float16)
    return References(scale, vectors, tuple(bounds))


def balancing_scale(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return factors [d] by which each number of embeddings [n, d] counts more like the others."""
    deviations = embeddings.std(axis=0)
    divisor = deviations + deviations.mean() + 1e-12
    scale: NDArray[np.float32] = (1 / divisor).astype(np.float32)
    return scale


def to_unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors [n, d] scaled to length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    divisors = np.maximum(lengths, 1e-12)
    result: NDArray[np.float32] = vectors / divisors
    return result
