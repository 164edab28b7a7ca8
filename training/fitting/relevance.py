"""Which images belong to the classes: out-of-fold novelty, its threshold, and outliers."""

from __future__ import annotations

import numpy as np

from training.fitting.linear_head import Samples
from training.images.split import cut_folds
from training.metrics import Floats
from training.networks.novelty import choose_references

FALSE_ALARMS = 0.05  # share of images of the classes themselves that may be called unknown
OUTLIER_DISTANCE = 4.0  # robust standard deviations of novelty above the median

_FOLDS = 10
_FEW = 200  # images below which the tail itself says less than mean and deviation do
_NORMAL_95 = 1.6448536269514722  # one-sided 95 % quantile of the normal distribution
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


def robust_distances(novelty: Floats) -> Floats:
    """Return how many robust standard deviations each novelty [n] lies above the median."""
    median = np.median(novelty)
    differences = novelty - median
    absolute = np.abs(differences)
    median_absolute = float(np.median(absolute))
    deviation = max(_DEVIATION_PER_MAD * median_absolute, 1e-9)
    distances: Floats = differences / deviation
    return distances
