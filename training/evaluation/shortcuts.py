"""Shortcuts: whether a picture's size, brightness, sharpness or source alone gives its class away.

Pictures of one class often come from one place, in one size and light. A network then scores well
on the test pictures, which come from there too, and fails on others. A small decision tree on those
traits alone shows it: where it does about as well as the network, nobody can tell which of the two
the network has learned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.images.split import cut_folds
from training.metrics import Floats, Labels, balanced_accuracy

_LEAVES_PER_CLASS = 4  # enough to find an interval, too few to learn pictures by heart
_SMALLEST_LEAF = 0.02  # share of the pictures
_CLEARLY = (
    3.0  # standard errors above guessing, for a shortcut or a model to count as knowing something
)
_NOTABLE = 0.25  # of the way from guessing to certainty, below which a shortcut explains little
_ALIKE = 2.0  # standard errors within which a shortcut is as good as the model
_ALIKE_AT_MOST = 0.1  # and no more than this below it, however few the pictures

_TRAITS = ("size", "brightness", "sharpness", "source")
_LEARNED = {
    "size": ("The size of a picture alone predicts", "where pictures come from"),
    "brightness": ("The brightness of a picture alone predicts", "how bright pictures are"),
    "sharpness": ("The sharpness of a picture alone predicts", "how sharp pictures are"),
    "source": ("The source of a picture alone predicts", "where pictures come from"),
    "all": (
        "Size, brightness, sharpness and source of a picture together predict",
        "where pictures come from",
    ),
}


@dataclass(frozen=True)
class Labelled:
    """The pictures' classes, and what cross-validation must know of them."""

    labels: Labels
    """Class numbers [n]."""
    groups: Sequence[int]
    """[n]: near copies share one and never stand on both sides of a fold."""
    classes: int
    seed: int


def shortcuts(
    found: NDArray[np.float32], sources: Sequence[str], labelled: Labelled
) -> dict[str, float]:
    """Balanced accuracy of predicting the class from each trait alone and from all, each picture
    predicted unseen.

    `found` [n, 4] holds a picture's traits as `traits` gives them, `sources` [n] where each was
    found.
    """
    columns = _columns(found, sources)
    columns["all"] = np.concatenate([columns[name] for name in _TRAITS], axis=1)
    folds = cut_folds(labelled.labels, labelled.groups, labelled.seed)
    return {name: _told_by(values, labelled, folds) for name, values in columns.items()}


def shortcut_warning(
    figures: Mapping[str, float], model: float, labels: Labels, classes: int
) -> str | None:
    """A sentence about the strongest trait that predicts the class about as well as the model does;
    None without one.

    `model` is the model's balanced accuracy on pictures that it has not seen. A trait counts when
    it is clearly better than guessing, is worth mentioning, and is no worse than the model by more
    than two standard errors of their difference. A model that knows nothing has learned no shortcut
    either.
    """
    chance = 1 / classes
    if model - chance <= _CLEARLY * _standard_error(chance, labels, classes):
        return None
    telling = {
        name: figure for name, figure in figures.items() if _tells(figure, model, labels, classes)
    }
    if not telling:
        return None
    # All together are named only where none of them is enough by itself.
    name = max(telling, key=lambda one: (one != "all", telling[one]))
    subject, learned = _LEARNED[name]
    return (
        f"{subject} its class in {100 * telling[name]:.0f} % of cases (the model: {100 * model:.0f} %): "
        f"the model may have learned {learned} instead of what they show."
    )


def _columns(found: NDArray[np.float32], sources: Sequence[str]) -> dict[str, Floats]:
    """The numbers [n, k] that each trait is told by."""
    width, height = found[:, 0].astype(np.float64), found[:, 1].astype(np.float64)
    names = sorted(set(sources))
    return {
        "size": np.stack([width, height, width * height, width / height], axis=1),
        "brightness": found[:, 2:3].astype(np.float64),
        "sharpness": found[:, 3:4].astype(np.float64),
        "source": np.array([[float(source == name) for name in names] for source in sources]),
    }


def _told_by(values: Floats, labelled: Labelled, folds: Sequence[tuple[Labels, Labels]]) -> float:
    """Cross-validated balanced accuracy of a small decision tree on values [n, k]."""
    from sklearn.tree import DecisionTreeClassifier

    predicted = np.zeros(len(values), np.int64)
    for learned, held_out in folds:
        tree = DecisionTreeClassifier(
            max_leaf_nodes=_LEAVES_PER_CLASS * labelled.classes,
            min_samples_leaf=max(3, int(_SMALLEST_LEAF * len(learned))),
            class_weight="balanced",
            random_state=labelled.seed,
        )
        tree.fit(values[learned], labelled.labels[learned])
        predicted[held_out] = tree.predict(values[held_out])
    return balanced_accuracy(predicted, labelled.labels)


def _tells(figure: float, model: float, labels: Labels, classes: int) -> bool:
    chance = 1 / classes
    if figure - chance <= _CLEARLY * _standard_error(chance, labels, classes):
        return False
    if figure - chance < _NOTABLE * (1 - chance):
        return False
    noise = math.hypot(
        _standard_error(figure, labels, classes), _standard_error(model, labels, classes)
    )
    return figure >= model - min(_ALIKE * noise, _ALIKE_AT_MOST)


def _standard_error(share: float, labels: Labels, classes: int) -> float:
    """Of a balanced accuracy on the pictures with labels [n]: small classes count as much as large
    ones.
    """
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return math.sqrt(share * (1 - share) * float((1 / counts).sum())) / classes
