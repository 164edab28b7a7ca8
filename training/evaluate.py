"""Measures a trained head on pictures it has never seen, with the uncertainty that their number leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.head import Floats, Labels, softmax

CHANCE_P = 0.01  # how rarely guessing may do as well for a model to count as better
ECE_MINIMUM = 100  # test pictures below which a calibration error says nothing
_ECE_BINS = 15
_NORMAL_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def measure(logits: Floats, labels: Labels, names: Sequence[str], temperature: float) -> dict[str, Any]:
    """Everything of metrics.json that test logits [n, classes] and labels [n] tell."""
    predicted = logits.argmax(axis=1)
    hits = int((predicted == labels).sum())
    matrix = _confusion(labels, predicted, len(names))
    recall, precision, f1 = _per_class(matrix)
    majority = int(matrix.sum(axis=1).max())
    known = matrix.sum(axis=1) > 0
    return {
        "accuracy": hits / len(labels),
        "interval": list(wilson(hits, len(labels))),
        "balanced_accuracy": float(recall[known].mean()),
        "macro_f1": float(f1[known].mean()),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "support": int(matrix[i].sum()),
            }
            for i, name in enumerate(names)
        },
        "confusion": {"labels": list(names), "matrix": matrix.tolist()},
        "majority_baseline": majority / len(labels),
        "better_than_chance": chance_of_as_many(hits, len(labels), majority / len(labels)) < CHANCE_P,
        "ece_before": calibration_error(softmax(logits), labels),
        "ece_after": calibration_error(softmax(logits / temperature), labels),
    }


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (E. B. Wilson 1927)."""
    z2 = _NORMAL_95**2
    centre = (hits + z2 / 2) / (trials + z2)
    reach = _NORMAL_95 / (trials + z2) * math.sqrt(hits * (trials - hits) / trials + z2 / 4)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def chance_of_as_many(hits: int, trials: int, rate: float) -> float:
    """Exact binomial probability of at least `hits` of `trials` when each succeeds with `rate`."""
    if hits <= 0 or rate >= 1:
        return 1.0
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(rate)
        + (trials - k) * math.log1p(-rate)
        for k in range(hits, trials + 1)
    )
    return min(1.0, math.fsum(math.exp(log) for log in logs))


def calibration_error(probabilities: Floats, labels: Labels) -> float | None:
    """Expected calibration error of the likeliest class in 15 equal bins; None below 100 pictures."""
    if len(labels) < ECE_MINIMUM:
        return None
    sureness = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((sureness * _ECE_BINS).astype(int), _ECE_BINS - 1)
    gaps = [abs(float(right[bins == b].sum() - sureness[bins == b].sum())) for b in range(_ECE_BINS)]
    return sum(gaps) / len(labels)


def suspected_labels(probabilities: Floats, labels: Labels) -> NDArray[np.bool_]:
    """Which pictures [n] probably have a wrong label, by out-of-sample probabilities [n, classes].

    Confident learning (Northcutt, Jiang and Chuang 2021): a class is claimed for a picture when its probability
    reaches the mean that pictures labelled so have; a picture is suspected when its strongest claim is by another
    class, and that is likelier than its label's.
    """
    classes = probabilities.shape[1]
    usual = np.array([probabilities[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(classes)])
    claims = np.where(probabilities >= usual, probabilities, -np.inf)
    strongest = claims.argmax(axis=1)
    own = probabilities[np.arange(len(labels)), labels]
    result: NDArray[np.bool_] = (strongest != labels) & (claims.max(axis=1) > own)
    return result


def _confusion(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def _per_class(matrix: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Recall, precision and F1 [classes]; 0 where nothing was there to be found or was predicted."""
    hits = matrix.diagonal().astype(np.float64)
    recall = hits / np.maximum(matrix.sum(axis=1), 1)
    precision = hits / np.maximum(matrix.sum(axis=0), 1)
    f1 = 2 * hits / np.maximum(matrix.sum(axis=0) + matrix.sum(axis=1), 1)
    return recall, precision, f1
