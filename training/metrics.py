"""Measures a trained head on pictures it has never seen, with the uncertainty that their number
leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

CHANCE_P = 0.01  # how rarely guessing may do as well for a model to count as better
ECE_MINIMUM = 100  # test pictures below which a calibration error says nothing
_ECE_BINS = 15
_NORMAL_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def softmax(logits: Floats) -> Floats:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result


def log_loss(logits: Floats, labels: Labels, smoothing: float = 0.0) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(logits, labels, smoothing).mean())


def log_losses(logits: Floats, labels: Labels, smoothing: float = 0.0) -> Floats:
    """Negative log likelihood in nats of each label [n], `smoothing` of each spread over the other
    classes.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    own = logs[np.arange(len(labels)), labels]
    others = (logs.sum(axis=1) - own) / (logits.shape[1] - 1)
    result: Floats = -((1 - smoothing) * own + smoothing * others)
    return result


def balanced_accuracy(predicted: Labels, labels: Labels) -> float:
    """The mean, over the classes that occur in labels [n], of the share of their pictures predicted
    as such.
    """
    hits = predicted == labels
    return float(np.mean([hits[labels == label].mean() for label in np.unique(labels)]))


def measure(
    logits: Floats, labels: Labels, names: Sequence[str], temperature: float
) -> dict[str, Any]:
    """Everything of metrics.json that test logits [n, classes] and labels [n] tell."""
    predicted = logits.argmax(axis=1)
    hits = int((predicted == labels).sum())
    matrix = _confusion(labels, predicted, len(names))
    recall, precision, f1 = _per_class(matrix)
    majority = int(matrix.sum(axis=1).max())
    known = matrix.sum(axis=1) > 0
    return {
        "accuracy": hits / len(labels),
        "interval": list(wilson_interval(hits, len(labels))),
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
        "better_than_chance": binomial_p_value(hits, len(labels), majority / len(labels))
        < CHANCE_P,
        "ece_before": expected_calibration_error(softmax(logits), labels),
        "ece_after": expected_calibration_error(softmax(logits / temperature), labels),
    }


def candidate(test: Floats, test_labels: Labels, val: Floats, val_labels: Labels) -> dict[str, Any]:
    """What `head` and `network` of metrics.json say of a model with these logits [n, classes] on
    test and on val.

    The val logits must be by a model that has not learned from those pictures, and scaled by its
    temperature.
    """
    hits = test.argmax(axis=1) == test_labels
    return _share(hits) | {
        "val_loss": log_loss(val, val_labels),
        "val_accuracy": float((val.argmax(axis=1) == val_labels).mean()),
    }


def by_source(
    predicted: Labels, labels: Labels, sources: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Accuracy, interval and support of the test pictures [n] of each source, by name."""
    hits, named = predicted == labels, np.asarray(sources, dtype=object)
    found = {name: hits[named == name] for name in sorted(set(sources))}
    return {name: _share(ours) | {"support": len(ours)} for name, ours in found.items()}


def unknown(novelty: Floats, threshold: float) -> dict[str, Any]:
    """False alarms of "none of these": how many of the test pictures [n], which show the classes,
    would be refused.
    """
    refused = int((novelty > threshold).sum())
    tested = len(novelty)
    interval = list(wilson_interval(refused, tested))
    return {"refused": refused, "tested": tested, "share": refused / tested, "interval": interval}


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (E. B. Wilson 1927)."""
    z2 = _NORMAL_95**2
    centre = (hits + z2 / 2) / (trials + z2)
    reach = _NORMAL_95 / (trials + z2) * math.sqrt(hits * (trials - hits) / trials + z2 / 4)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def binomial_p_value(hits: int, trials: int, rate: float) -> float:
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


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float | None:
    """Expected calibration error of the likeliest class in 15 equal bins; None below 100
    pictures.
    """
    if len(labels) < ECE_MINIMUM:
        return None
    sureness = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((sureness * _ECE_BINS).astype(int), _ECE_BINS - 1)
    gaps = [
        abs(float(right[bins == b].sum() - sureness[bins == b].sum())) for b in range(_ECE_BINS)
    ]
    return sum(gaps) / len(labels)


def _share(hits: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "accuracy": float(hits.mean()),
        "interval": list(wilson_interval(int(hits.sum()), len(hits))),
    }


def _confusion(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def _per_class(matrix: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Recall, precision and F1 [classes]; 0 where nothing was there to be found or was
    predicted.
    """
    hits = matrix.diagonal().astype(np.float64)
    recall = hits / np.maximum(matrix.sum(axis=1), 1)
    precision = hits / np.maximum(matrix.sum(axis=0), 1)
    f1 = 2 * hits / np.maximum(matrix.sum(axis=0) + matrix.sum(axis=1), 1)
    return recall, precision, f1
