"""Measure a finished model on a person's own pictures, and calibrate it for them.

The folder has one sub-folder per class, called by the class's id or name. Pictures that say nothing
of their own are left out: copies of each other, of pictures of the dataset, and those that stand in
two classes. The temperature and the reject threshold that suit these pictures are fitted on all of
them, and the figures that are given with them come from five-fold cross-fitting, so that no picture
is judged by what was fitted on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from training.duplicates import (
    DuplicateIndex,
    Fingerprint,
    fingerprint,
    group_by_pairs,
    near_duplicate_pairs,
)
from training.fitting.linear_head import find_temperature
from training.fitting.relevance import reject_threshold
from training.images.decode import BrokenImageError, read_image
from training.images.split import cut_folds
from training.metrics import (
    ClassificationMetrics,
    Floats,
    Labels,
    classification_metrics,
    log_loss,
    softmax,
)
from training.networks.embeddings import read_cached_features
from training.networks.strangers import FOLDER as STRANGERS_FOLDER
from training.networks.strangers import read_strangers, unrelated
from training.predict import Model, open_model
from training.progress import Progress, no_progress
from training.run_folder import ClassLabel, ImageRow, RunError, read_config, read_manifest

FEWEST_TO_CALIBRATE = 20  # pictures; below, a threshold would be one or two pictures' chance
SEED = 0
_SMALLEST = 1e-9  # probability, of which the logarithm is still a number to compute with


class Refused(TypedDict):
    """A picture that is not judged."""

    file: str
    reason: str
    """not_a_picture, near_duplicate, in_two_classes, or known: it is in the dataset."""


class JudgedPicture(TypedDict):
    """A picture with the model's answer."""

    file: str
    class_id: str
    predicted: str
    """Id of the class."""
    sure: float
    """Probability of the predicted class."""
    novelty: float


class RefusedStrangers(TypedDict):
    """How many of the bundled pictures of other things are refused."""

    n: int
    before: int
    after: int


class Calibration(TypedDict):
    """What suits a person's pictures; each pair is before and after, the latter cross-fitted."""

    sharpness: float
    """Power to which probabilities are raised before they are made to sum to 1 again."""
    reject: float
    model_reject: float
    confidence: list[float]
    """Mean probability of the predicted class: the accuracy, if it is calibrated."""
    loss: list[float]
    """Log loss."""
    refused: list[int]
    """Pictures called "none of these"."""
    strangers: RefusedStrangers | None


class Measured(TypedDict):
    """The outcome; figures is None where no picture is left to judge."""

    pictures: list[JudgedPicture]
    refused: list[Refused]
    figures: ClassificationMetrics | None
    calibration: Calibration | None
    """None where there are too few pictures for it."""


@dataclass(frozen=True)
class _Picture:
    file: str
    label: int
    fingerprint: Fingerprint
    probabilities: NDArray[np.float32]
    novelty: float


@dataclass(frozen=True)
class _Answers:
    """What the model says of n pictures."""

    logits: Floats
    """[n, classes], calibrated by the model's own temperature."""
    labels: Labels
    novelty: Floats


def measure(run_dir: Path, folder: Path, report: Progress = no_progress) -> Measured:
    """Judge the model of a finished run on the pictures of a folder.

    Raises RunError or ModelError where the run cannot be used.
    """
    classes = read_config(run_dir).classes
    model = open_model(run_dir)
    files = _find(folder, classes)
    known = _known(run_dir, report)
    pictures: list[_Picture] = []
    refused: list[Refused] = []
    for number, (label, path) in enumerate(files):
        report(number, len(files), "Classifying your pictures")
        name = path.relative_to(folder).as_posix()
        picture = _look(path, name, label, model, known)
        if isinstance(picture, _Picture):
            pictures.append(picture)
        else:
            refused.append(picture)
    pictures, copies = _without_copies(pictures)
    refused += copies
    if not pictures:
        return Measured(pictures=[], refused=refused, figures=None, calibration=None)

    answers = _answers(pictures)
    names = [label.name for label in classes]
    figures = classification_metrics(answers.logits, answers.labels, names, temperature=1.0)
    calibration = None
    if len(pictures) >= FEWEST_TO_CALIBRATE:
        report(len(files), len(files), "Fitting temperature and threshold")
        calibration = _calibrate(answers, model, names)
    judged = [_judged(picture, classes) for picture in pictures]
    return Measured(pictures=judged, refused=refused, figures=figures, calibration=calibration)


def _find(folder: Path, classes: Sequence[ClassLabel]) -> list[tuple[int, Path]]:
    """Return number of the class and path of every file. Raises RunError where there is none."""
    found = []
    entries = sorted(folder.glob("*"))
    for number, label in enumerate(classes):
        for entry in entries:
            if entry.name not in (label.id, label.name):  # what is no name of a file is no path
                continue
            for path in sorted(entry.glob("*")):
                if path.is_file() and not path.name.startswith("."):
                    found.append((number, path))
    if not found:
        reason = "The folder has no pictures in sub-folders called as the classes."
        names = ", ".join(label.name for label in classes)
        raise RunError("evaluate", reason, f"Make a sub-folder for each of: {names}.", retry=False)
    return found


def _known(run_dir: Path, report: Progress) -> DuplicateIndex:
    """Return the fingerprints of the pictures of a run's dataset."""
    index = DuplicateIndex()
    computed = sorted((run_dir / "checkpoints" / "features").glob("*"))
    rows = read_manifest(run_dir)
    for number, row in enumerate(rows):
        report(number, len(rows), "Looking at the pictures of the dataset")
        path = run_dir / row.file
        if row.split is None or not path.is_file():  # taken down since
            continue
        mark = _computed(row, computed)
        if mark is None:
            try:
                image = read_image(path)
            except BrokenImageError:
                continue
            mark = fingerprint(image)
        index.add(row.file, mark)
    return index


def _computed(row: ImageRow, folders: Sequence[Path]) -> Fingerprint | None:
    """Return a picture's fingerprint from the features that a run computed, if they are there."""
    for folder in folders:
        features = read_cached_features(folder, [row])
        if features:
            return features[0].fingerprint
    return None


def _look(
    path: Path, name: str, label: int, model: Model, known: DuplicateIndex
) -> _Picture | Refused:
    """Classify one picture, unless it cannot be read or is in the dataset."""
    try:
        image = read_image(path)
    except BrokenImageError:
        return Refused(file=name, reason="not_a_picture")
    mark = fingerprint(image)
    if known.find(mark) is not None:
        return Refused(file=name, reason="known")
    outputs = model.predict(image).outputs
    return _Picture(name, label, mark, outputs.probabilities, outputs.novelty)


def _without_copies(pictures: Sequence[_Picture]) -> tuple[list[_Picture], list[Refused]]:
    """Return the first of every group of near-duplicates, and none of a group of two classes."""
    marks = [picture.fingerprint for picture in pictures]
    pairs = near_duplicate_pairs(marks)
    numbers = group_by_pairs(len(pictures), pairs)
    groups: dict[int, list[_Picture]] = defaultdict(list)
    for picture, number in zip(pictures, numbers, strict=True):
        groups[number].append(picture)
    kept = []
    refused = []
    for group in groups.values():
        labels = {picture.label for picture in group}
        reason = "in_two_classes"
        if len(labels) == 1:
            reason = "near_duplicate"
            kept.append(group.pop(0))
        for picture in group:
            refusal = Refused(file=picture.file, reason=reason)
            refused.append(refusal)
    return kept, refused


def _answers(pictures: Sequence[_Picture]) -> _Answers:
    rows = []
    labels = []
    novelty = []
    for picture in pictures:
        rows.append(picture.probabilities)
        labels.append(picture.label)
        novelty.append(picture.novelty)
    probabilities = np.array(rows, np.float64)
    positive = probabilities.clip(min=_SMALLEST)
    return _Answers(
        logits=np.log(positive),
        labels=np.array(labels, np.int64),
        novelty=np.array(novelty, np.float64),
    )


def _judged(picture: _Picture, classes: Sequence[ClassLabel]) -> JudgedPicture:
    predicted = int(picture.probabilities.argmax())
    return JudgedPicture(
        file=picture.file,
        class_id=classes[picture.label].id,
        predicted=classes[predicted].id,
        sure=float(picture.probabilities[predicted]),
        novelty=picture.novelty,
    )


def _calibrate(answers: _Answers, model: Model, names: Sequence[str]) -> Calibration:
    """Fit temperature and threshold on all pictures, and judge such fits by cross-fitting."""
    labels = answers.labels
    logits = answers.logits
    novelty = answers.novelty
    fitted = np.zeros_like(logits)
    thresholds = np.zeros(len(labels))
    groups = np.arange(len(labels))
    for learned, held_out in cut_folds(labels, groups, SEED):
        temperature = find_temperature(logits[learned], labels[learned])
        fitted[held_out] = logits[held_out] / temperature
        thresholds[held_out] = reject_threshold(novelty[learned])
    reject = reject_threshold(novelty)
    refused_before = np.count_nonzero(novelty > model.reject)
    refused_after = np.count_nonzero(novelty > thresholds)
    return Calibration(
        sharpness=1 / find_temperature(logits, labels),
        reject=reject,
        model_reject=model.reject,
        confidence=[_confidence(logits), _confidence(fitted)],
        loss=[log_loss(logits, labels), log_loss(fitted, labels)],
        refused=[int(refused_before), int(refused_after)],
        strangers=_strangers(model, names, reject),
    )


def _confidence(logits: Floats) -> float:
    """Return the mean probability of the likeliest class."""
    probabilities = softmax(logits)
    likeliest = probabilities.max(axis=1)
    return float(likeliest.mean())


def _strangers(model: Model, names: Sequence[str], reject: float) -> RefusedStrangers | None:
    """Show the model pictures of other things, with its own threshold and with another."""
    shown = unrelated(read_strangers(), names)
    if not shown:
        return None
    before = 0
    after = 0
    for stranger in shown:
        image = read_image(STRANGERS_FOLDER / stranger.file)
        novelty = model.predict(image).novelty
        before += novelty > model.reject
        after += novelty > reject
    return RefusedStrangers(n=len(shown), before=before, after=after)
