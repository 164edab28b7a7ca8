"""Shortcuts: whether an image's size, brightness, sharpness or source alone predicts its class.

Images of one class often come from one place, in one size and light. A network then scores well on
the test images, which come from there too, and fails on others. A small decision tree on those
attributes alone shows it: where it does about as well as the network, nobody can know which of the
two the network has learned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import Samples
from training.images.split import cut_folds
from training.metrics import Floats, Labels, balanced_accuracy

_LEAVES_PER_CLASS = 4  # enough to find an interval, too few to learn images by heart
_SMALLEST_LEAF = 0.02  # share of the images
# standard errors above guessing, for a shortcut or a model to count as knowing something
_CLEAR_STANDARD_ERRORS = 3.0
_NOTABLE = 0.25  # of the way from guessing to certainty, below which a shortcut explains little
_ALIKE_STANDARD_ERRORS = 2.0  # within which a shortcut is as good as the model
_ALIKE_AT_MOST = 0.1  # and no more than this below it, however few the images

_ATTRIBUTES = ("size", "brightness", "sharpness", "source")
# attribute: what predicts, and what the model may have learned
_WORDS = {
    "size": ("The size of a picture alone predicts", "where pictures come from"),
    "brightness": ("The brightness of a picture alone predicts", "how bright pictures are"),
    "sharpness": ("The sharpness of a picture alone predicts", "how sharp pictures are"),
    "source": ("The source of a picture alone predicts", "where pictures come from"),
    "all": (
        "Size, brightness, sharpness and source of a picture together predict",
        "where pictures come from",
    ),
}


def shortcut_accuracies(
    statistics: NDArray[np.float32], sources: Sequence[str], samples: Samples, seed: int
) -> dict[str, float]:
    """Return the balanced accuracy of predicting the class from each attribute alone and from all.

    `statistics` [n, 4] are those of `training.images.statistics`, `sources` [n] where each image
    was found. Each image is predicted by a tree that has not seen it.
    """
    columns = _attribute_columns(statistics, sources)
    columns["all"] = np.hstack([columns[name] for name in _ATTRIBUTES])
    folds = cut_folds(samples.labels, samples.groups, seed)
    accuracies = {}
    for name, values in columns.items():
        predicted = _cross_validated(values, samples, folds, seed)
        accuracies[name] = balanced_accuracy(predicted, samples.labels)
    return accuracies


def shortcut_warning(
    accuracies: Mapping[str, float], model_accuracy: float, class_counts: Labels
) -> str | None:
    """Return a sentence about the strongest attribute that predicts about as well as the model.

    None without one. `model_accuracy` is the model's balanced accuracy on images that it has not
    seen. An attribute counts when it is clearly better than guessing, is worth mentioning, and is
    no worse than the model by more than two standard errors of their difference. A model that knows
    nothing has learned no shortcut either.
    """
    if not _better_than_guessing(model_accuracy, class_counts):
        return None
    found = {}
    for name, accuracy in accuracies.items():
        if _as_good_as_model(accuracy, model_accuracy, class_counts):
            found[name] = accuracy
    if not found:
        return None
    # All together are named only where none of them is enough by itself.
    alone = {name: accuracy for name, accuracy in found.items() if name != "all"} or found
    strongest = max(alone, key=lambda name: alone[name])
    subject, learned = _WORDS[strongest]
    return (
        f"{subject} its class in {100 * found[strongest]:.0f} % of cases "
        f"(the model: {100 * model_accuracy:.0f} %): "
        f"the model may have learned {learned} instead of what they show."
    )


def _attribute_columns(
    statistics: NDArray[np.float32], sources: Sequence[str]
) -> dict[str, Floats]:
    """Return the columns [n, k] of each attribute."""
    width, height, brightness, sharpness = statistics.T.astype(np.float64)
    names = sorted(set(sources))
    one_hot = np.zeros((len(sources), len(names)))
    for row, source in zip(one_hot, sources, strict=True):
        row[names.index(source)] = 1.0
    area = width * height
    aspect = width / height
    return {
        "size": np.column_stack([width, height, area, aspect]),
        "brightness": np.column_stack([brightness]),
        "sharpness": np.column_stack([sharpness]),
        "source": one_hot,
    }


def _cross_validated(
    values: Floats, samples: Samples, folds: Sequence[tuple[Labels, Labels]], seed: int
) -> Labels:
    """Return the classes [n] that small decision trees on values [n, k] predict out-of-fold."""
    from sklearn.tree import DecisionTreeClassifier

    predicted = np.zeros(len(values), np.int64)
    for train, held_out in folds:
        tree = DecisionTreeClassifier(
            max_leaf_nodes=_LEAVES_PER_CLASS * samples.classes,
            min_samples_leaf=max(3, int(_SMALLEST_LEAF * len(train))),
            class_weight="balanced",
            random_state=seed,
        )
        tree.fit(values[train], samples.labels[train])
        predicted[held_out] = tree.predict(values[held_out])
    return predicted


def _better_than_guessing(accuracy: float, class_counts: Labels) -> bool:
    chance = 1 / len(class_counts)
    error = _standard_error(chance, class_counts)
    return accuracy - chance > _CLEAR_STANDARD_ERRORS * error


def _as_good_as_model(accuracy: float, model_accuracy: float, class_counts: Labels) -> bool:
    if not _better_than_guessing(accuracy, class_counts):
        return False
    chance = 1 / len(class_counts)
    if accuracy - chance < _NOTABLE * (1 - chance):
        return False
    own_error = _standard_error(accuracy, class_counts)
    model_error = _standard_error(model_accuracy, class_counts)
    noise = math.hypot(own_error, model_error)
    margin = min(_ALIKE_STANDARD_ERRORS * noise, _ALIKE_AT_MOST)
    return accuracy >= model_accuracy - margin


def _standard_error(accuracy: float, class_counts: Labels) -> float:
    """Return the standard error of a balanced accuracy: small classes count as much as large ones.

    The mean of the recalls of the classes, each binomial.
    """
    inverse_counts = 1 / np.maximum(class_counts, 1)
    variance = accuracy * (1 - accuracy)
    summed = variance * float(inverse_counts.sum())
    return math.sqrt(summed) / len(class_counts)
