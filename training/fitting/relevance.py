"""Which images belong to the classes: novelty and its threshold, and distance from the core."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import Samples
from training.images.split import cut_folds
from training.metrics import Floats
from training.networks.novelty import balancing_scale, choose_references, to_unit_length

FALSE_ALARMS = 0.05  # share of images of the classes themselves that may be called unknown
OUTLIER_DISTANCE = 3.0  # deviations of its class's core at which an image is called an outlier

_FOLDS = 10
_FEW = 200  # images below which the tail itself says less than mean and deviation do
_NORMAL_95 = 1.6448536269514722  # one-sided 95 % quantile of the normal distribution
_CORE = 0.8  # share of a class that its core is
_LEAST_OF_CLASS = 8  # images; fewer have no core to speak of
_ROUNDS = 5  # of finding the core's mean and its nearest images; it settles after two or three
_HALF_DOUBTFUL = 4.0  # deviations at which distance alone makes an image half doubtful
# of a normal distribution: standard deviation / median absolute deviation
_DEVIATION_PER_MAD = 1.4826


def out_of_fold_novelty(samples: Samples, probabilities: Floats, seed: int) -> Floats:
    """Return the novelty [n] of learned images by references without their own fold.

    Near-duplicates of theirs are in it too. `probabilities` [n, classes] are out-of-fold as well.
    """
    labels = samples.labels
    novelty = np.zeros(len(labels))
    folds = cut_folds(labels, samples.groups, seed, _FOLDS)
    for train, held_out in folds:
        learned = samples.take(train)
        references = choose_references(learned.embeddings, learned.labels, samples.classes, seed)
        unseen = samples.embeddings[held_out]
        novelty[held_out] = references.novelty(unseen, probabilities[held_out])
    return novelty


def reject_threshold(novelty: Floats) -> float:
    """Return the novelty above which an image is called unknown.

    5 % of these novelties [n] of unseen images lie above it. Of few images the tail is mostly
    chance: below 200 it only counts half, and half what a normal distribution of their mean and
    standard deviation says.
    """
    tail = float(np.quantile(novelty, 1 - FALSE_ALARMS))
    if len(novelty) >= _FEW:
        return tail
    above_mean = _NORMAL_95 * float(novelty.std())
    of_normal = float(novelty.mean()) + above_mean
    return (tail + of_normal) / 2


def core_distances(samples: Samples) -> Floats:
    """Return how far each image [n] lies from the core of its class, in deviations of that core.

    The core is the 80 % nearest to its own mean, by the angle between embeddings that are scaled
    number by number. Images that do not belong stay outside while they are the fewer: they neither
    move the mean nor widen the spread. Negative within the core; 0 for classes of few images.
    """
    scaled = samples.embeddings * balancing_scale(samples.embeddings)
    directions = to_unit_length(scaled)
    distances = np.zeros(len(samples.labels))
    for label in np.unique(samples.labels):
        members = np.flatnonzero(samples.labels == label)
        if len(members) >= _LEAST_OF_CLASS:
            distances[members] = _distances_of_class(directions[members])
    return distances


def _distances_of_class(directions: NDArray[np.float32]) -> Floats:
    """Return the distances [m] of the images of one class, whose directions are [m, d]."""
    count = len(directions)
    size = round(_CORE * count)
    core = np.arange(count)
    for _ in range(_ROUNDS):
        mean = directions[core].mean(axis=0, keepdims=True)
        (towards,) = to_unit_length(mean)
        cosines = directions @ towards
        nearest_first = np.argsort(-cosines, kind="stable")
        core = nearest_first[:size]
    # An image of the core has no part in the mean that it is compared with.
    own_part = np.zeros((count, 1), np.float32)
    own_part[core] = 1
    total = directions[core].sum(axis=0)
    others = total - own_part * directions
    towards = to_unit_length(others)
    products = directions * towards
    angles = 1 - products.sum(axis=1, dtype=np.float64)
    ordered = np.sort(angles)
    of_core = ordered[:size]
    median = np.median(of_core)
    absolute = np.abs(of_core - median)
    median_absolute = float(np.median(absolute))
    spread = max(_DEVIATION_PER_MAD * median_absolute, 1e-9)
    distances: Floats = (angles - median) / spread
    return distances


def doubt_by_distance(distances: Floats) -> Floats:
    """Return 0 (in the core) to 1 (far from it) for distances [n] from the core of a class."""
    beyond = np.maximum(distances, 0.0)
    doubt: Floats = beyond / (beyond + _HALF_DOUBTFUL)
    return doubt


def combined_doubt(doubt: Floats, other: Floats) -> Floats:
    """Return the doubt [n] that follows from two that are independent of each other."""
    trust = 1 - doubt
    other_trust = 1 - other
    together: Floats = 1 - trust * other_trust
    return together
