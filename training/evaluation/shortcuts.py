"""Shortcuts: whether what an image is, rather than shows, predicts its class.

Images of one class often come from one place, in one size, light, frame or file type. A network
then scores well on the test images, which come from there too, and fails on others. A small
decision tree on one such attribute alone shows it: where it does about as well as the network,
nobody can know which of the two the network has learned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import Samples
from training.images.split import cut_folds
from training.images.statistics import IMAGE_STATISTICS
from training.metrics import Floats, Labels, Shortcuts, balanced_accuracy
from training.phrases import percent, whole_percent
from training.run_folder import ImageRow

_LEAVES_PER_CLASS = 4  # enough to find an interval, too few to learn images by heart
_SMALLEST_LEAF = 0.02  # share of the images
_CLEAR_STANDARD_ERRORS = 3.0  # above guessing, for a model to count as knowing something
# The same for an attribute. Nine are tried, and trees predict noise by chance more often than the
# binomial distribution says: in simulations this called at most 1 of 20 clean sets suspicious.
_CLEAR_OF_CHANCE = 3.5
_NOTABLE = 0.25  # of the way from guessing to certainty, below which a shortcut explains little
# Of guessing: with many classes a figure far above it is still a small part of that way.
_NOTABLE_MULTIPLE = 2.5
_STRIKING = 0.5  # of the way, from which on even an unclear figure is not passed over
_ALIKE_STANDARD_ERRORS = 2.0  # within which a shortcut is as good as the model
_ALIKE_AT_MOST = 0.1  # and no more than this below it, however few the images


@dataclass(frozen=True)
class Attribute:
    """Something that an image is, rather than shows, in words."""

    title: str
    """In a list."""
    subject: str
    """At the beginning of a sentence that goes on with a verb."""
    learned: str
    """What a model that uses it knows of images."""


_PLACE = "where pictures come from"

ATTRIBUTES = {
    "size": Attribute("the size of a picture", "The size of a picture alone predicts", _PLACE),
    "brightness": Attribute(
        "its brightness", "The brightness of a picture alone predicts", "how bright pictures are"
    ),
    "sharpness": Attribute(
        "its sharpness", "The sharpness of a picture alone predicts", "how sharp pictures are"
    ),
    "colourfulness": Attribute(
        "how colourful it is",
        "How colourful a picture is alone predicts",
        "how colourful pictures are",
    ),
    "border": Attribute(
        "its border", "The border of a picture alone predicts", "how pictures are framed"
    ),
    "text": Attribute(
        "text in it",
        "Whether text stands in a picture alone predicts",
        "captions and marks on pictures",
    ),
    "file_type": Attribute(
        "its file type", "The file type of a picture alone predicts", "how pictures were saved"
    ),
    "source": Attribute(
        "where it was found", "The source of a picture alone predicts", "where pictures come from"
    ),
    "all": Attribute(
        "all of these together",
        "Size, light, colours, border, text, file type and source of a picture together predict",
        _PLACE,
    ),
}
"""Attribute of `shortcuts` in metrics.json to how it is called."""


def shortcut_accuracies(
    statistics: NDArray[np.float32], rows: Sequence[ImageRow], samples: Samples, seed: int
) -> dict[str, float]:
    """Return the balanced accuracy of predicting the class from each attribute alone and from all.

    `statistics` [n, k] are the IMAGE_STATISTICS of the images in `rows` [n]. Each image is
    predicted by a tree that has not seen it.
    """
    columns = _attribute_columns(statistics, rows)
    columns["all"] = np.hstack(list(columns.values()))
    folds = cut_folds(samples.labels, samples.groups, seed)
    accuracies = {}
    for name, values in columns.items():
        predicted = _cross_validated(values, samples, folds, seed)
        accuracies[name] = balanced_accuracy(predicted, samples.labels)
    return accuracies


def independent_counts(labels: Labels, groups: Labels, classes: int) -> Labels:
    """Return how many near-duplicate groups each class has: [classes], of n images."""
    _, firsts = np.unique(groups, return_index=True)
    counts: Labels = np.bincount(labels[firsts], minlength=classes)
    return counts


def shortcuts_in_words(
    accuracies: Mapping[str, float],
    model_accuracy: float,
    class_counts: Labels,
    tells_apart: bool,
) -> Shortcuts:
    """Return the part of metrics.json about shortcuts; `tells_apart` is whether the model does."""
    return Shortcuts(
        shortcuts=dict(accuracies),
        shortcut_warning=shortcut_warning(accuracies, model_accuracy, class_counts, tells_apart),
        shortcut_sentence=shortcut_sentence(accuracies, model_accuracy, class_counts, tells_apart),
    )


def shortcut_warning(
    accuracies: Mapping[str, float],
    model_accuracy: float,
    class_counts: Labels,
    tells_apart: bool | None = None,
) -> str | None:
    """Return a sentence about the strongest attribute that predicts about as well as the model.

    None without one. `model_accuracy` is the model's balanced accuracy on images that it has not
    seen, `class_counts` how many independent images each class has. An attribute counts when it is
    clearly better than guessing, is worth mentioning, and is no worse than the model by more than
    two standard errors of their difference. A model that knows nothing has learned no shortcut
    either: whether it does is what the verdict says, or, where `tells_apart` is not given, whether
    its accuracy is clearly above guessing.
    """
    if tells_apart is None:
        tells_apart = _better_than_guessing(model_accuracy, class_counts)
    if not tells_apart:
        return None
    found = {}
    for name, accuracy in accuracies.items():
        if _as_good_as_model(accuracy, model_accuracy, class_counts):
            found[name] = accuracy
    if not found:
        return None
    strongest = _strongest(found)
    attribute = ATTRIBUTES[strongest]
    return (
        f"{attribute.subject} its class in {whole_percent(found[strongest])} % of cases "
        f"(the model: {whole_percent(model_accuracy)} %): "
        f"the model may have learned {attribute.learned} instead of what they show."
    )


def shortcut_sentence(
    accuracies: Mapping[str, float],
    model_accuracy: float,
    class_counts: Labels,
    tells_apart: bool | None = None,
) -> str:
    """Return what report and card say of shortcuts.

    That is the warning; or what an attribute predicts that is weaker than the model, but clearly
    better than guessing; or that none does. Arguments as of `shortcut_warning`.
    """
    if tells_apart is None:
        tells_apart = _better_than_guessing(model_accuracy, class_counts)
    warning = shortcut_warning(accuracies, model_accuracy, class_counts, tells_apart)
    if warning:
        return warning
    clear = {}
    unclear = {}
    for name, accuracy in accuracies.items():
        if _is_notable(accuracy, class_counts):
            clear[name] = accuracy
        elif _stands_out(accuracy, class_counts):
            unclear[name] = accuracy
    if clear:
        return _notable_sentence(clear, model_accuracy, tells_apart)
    if unclear:
        return _unclear_sentence(unclear, class_counts)
    return (
        "No sign of a shortcut: nothing that a picture is, rather than shows, predicts its class"
        " much better than guessing."
    )


def _unclear_sentence(found: Mapping[str, float], class_counts: Labels) -> str:
    """Return what attributes predict that few images cannot tell from chance."""
    strongest = _strongest(found)
    says = _says(strongest, found)
    says = f"{says[0].lower()}{says[1:]}"
    if _part_of_the_way(found[strongest], class_counts) >= _STRIKING:
        return (
            f"With so few pictures it cannot be said whether there is a shortcut: {says},"
            " which may be chance. More pictures of each class would tell."
        )
    return (
        f"No sign of a shortcut that could not be chance: {says}, which with so few pictures is"
        " not clearly more than guessing."
    )


def _notable_sentence(found: Mapping[str, float], model_accuracy: float, tells_apart: bool) -> str:
    strongest = _strongest(found)
    learned = ATTRIBUTES[strongest].learned
    if not tells_apart:
        return (
            f"{_says(strongest, found)}, and this model was not shown to be better than guessing:"
            f" from these pictures it could only have learned {learned}."
            " Collect the pictures of all classes in the same way."
        )
    return (
        f"{_says(strongest, found)}; the model: {percent(model_accuracy)}."
        f" It may lean on it, that is, in part have learned {learned},"
        " and then be wrong more often where that is different. Collect the pictures of all classes"
        " in the same way, or test the model on pictures of your own."
    )


def _says(name: str, found: Mapping[str, float]) -> str:
    return f"{ATTRIBUTES[name].subject} its class in {percent(found[name])} of cases"


def _strongest(found: Mapping[str, float]) -> str:
    """Return the strongest attribute; all together only where none alone is found."""
    alone = {name: accuracy for name, accuracy in found.items() if name != "all"} or found
    return max(alone, key=lambda name: alone[name])


def _attribute_columns(
    statistics: NDArray[np.float32], rows: Sequence[ImageRow]
) -> dict[str, Floats]:
    """Return the columns [n, k] of each attribute."""
    columns = dict(zip(IMAGE_STATISTICS, statistics.T.astype(np.float64), strict=True))
    width = columns["width"]
    height = columns["height"]
    border = [columns[f"border_{part}"] for part in ("flatness", "brightness", "spread")]
    return {
        "size": np.column_stack([width, height, width * height, width / height]),
        "brightness": np.column_stack([columns["brightness"]]),
        "sharpness": np.column_stack([columns["sharpness"]]),
        "colourfulness": np.column_stack([columns["colourfulness"]]),
        "border": np.column_stack(border),
        "text": np.column_stack([columns["text"]]),
        "file_type": _one_hot([row.format for row in rows]),
        "source": _one_hot([row.source for row in rows]),
    }


def _one_hot(values: Sequence[str]) -> Floats:
    """Return [n, different values]."""
    names = sorted(set(values))
    columns = np.zeros((len(values), len(names)))
    for row, value in zip(columns, values, strict=True):
        row[names.index(value)] = 1.0
    return columns


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


def _better_than_guessing(
    accuracy: float, class_counts: Labels, errors: float = _CLEAR_STANDARD_ERRORS
) -> bool:
    """Return whether a balanced accuracy lies by so many standard errors above guessing."""
    chance = 1 / len(class_counts)
    error = _standard_error(chance, class_counts)
    return accuracy - chance > errors * error


def _is_notable(accuracy: float, class_counts: Labels) -> bool:
    """Return whether an attribute is clearly better than guessing, and worth mentioning."""
    if not _better_than_guessing(accuracy, class_counts, _CLEAR_OF_CHANCE):
        return False
    return _stands_out(accuracy, class_counts)


def _stands_out(accuracy: float, class_counts: Labels) -> bool:
    """Return whether a balanced accuracy is worth mentioning, should it not be chance."""
    if _part_of_the_way(accuracy, class_counts) >= _NOTABLE:
        return True
    return accuracy * len(class_counts) >= _NOTABLE_MULTIPLE


def _part_of_the_way(accuracy: float, class_counts: Labels) -> float:
    """Return how far a balanced accuracy is on the way from guessing, 0, to certainty, 1."""
    chance = 1 / len(class_counts)
    return (accuracy - chance) / (1 - chance)


def _as_good_as_model(accuracy: float, model_accuracy: float, class_counts: Labels) -> bool:
    if not _is_notable(accuracy, class_counts):
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
