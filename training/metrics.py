"""Figures of a classifier on images that it has never seen, with their uncertainty.

numpy alone, but for exact tests, which load scipy when they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from training.run_folder import RunError, Split, read_json

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

CHANCE_P = 0.01  # how rarely guessing may do as well for a model to count as better
ECE_MINIMUM = 100  # test images below which a calibration error says nothing
_ECE_BINS = 15
_Z = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


Verdict = Literal["better", "not_shown", "no_better"]
"""Better than guessing; not shown to be, with so few images; no better than guessing."""


class AccuracyShare(TypedDict):
    """A share of images predicted rightly."""

    accuracy: float
    interval: list[float]
    """Low and high end of the 95 % Wilson interval."""


class SourceMetrics(AccuracyShare):
    """Figures of the test images from one source."""

    support: int
    """Number of test images."""


class CandidateMetrics(AccuracyShare):
    """Figures of one of the two models that may be delivered, on test and on val."""

    val_loss: float
    """Log loss in nats."""
    val_accuracy: float
    epochs: NotRequired[int]
    """Of the fine-tuning; the linear head has none."""


class ClassMetrics(TypedDict):
    """Figures of one class on test."""

    precision: float
    recall: float
    support: int
    """Number of test images."""


class Confusion(TypedDict):
    """How often each class was predicted as each."""

    labels: list[str]
    matrix: list[list[int]]
    """Rows are true classes, columns predicted ones."""


class CrossValidated(AccuracyShare):
    """Figures over all images, each judged by a head that saw neither it nor a near-duplicate."""

    n: int
    """Number of images: those of train, val and test."""
    balanced_accuracy: float
    macro_f1: float
    per_class: dict[str, ClassMetrics]
    confusion: Confusion
    ece_before: float | None
    ece_after: float | None


class Headline(TypedDict):
    """The figure that is said first, and how it was found."""

    value: float
    interval: list[float]
    n: int
    """Number of images judged."""
    hits: int
    """Number of them judged rightly."""
    how: Literal["test", "cross_validated", "verified"]


class Verified(TypedDict):
    """Test images whose label a person has checked."""

    n: int
    right: int
    wrong: int
    """Their label is another class's."""
    off_topic: int
    """They show none of the classes."""


class LabelNoise(TypedDict):
    """Share of the checked test images whose label is not right."""

    share: float
    interval: list[float]


class UnseenSource(AccuracyShare):
    """Figures of the images of one source, judged by a head fitted without that source."""

    source: str
    n: int


class UnseenSources(AccuracyShare):
    """The same of all sources together."""

    n: int


class UnseenSourceMetrics(TypedDict):
    """The part of metrics.json that tells how the model does on images from elsewhere."""

    unseen_source: list[UnseenSource]
    unseen_sources: UnseenSources | None
    unseen_sentence: str
    """What report and card say of images from a source not seen in training."""


class FalseAlarms(TypedDict):
    """Test images, which do show the classes, that are called none of them."""

    refused: int
    tested: int
    share: float
    interval: list[float]


class CurvePoint(TypedDict):
    """A point of the learning curve."""

    per_class: int
    """Images per class learned from."""
    accuracy: float
    error: float
    """Standard error of the accuracy."""


class LearningCurve(TypedDict):
    """How accuracy grows with the number of images."""

    points: list[CurvePoint]
    more_per_class: int
    gain: float
    """Of accuracy with so many images more per class."""
    sentence: str


class Curation(TypedDict):
    """How suspected images were treated."""

    suspects: int
    treatment: Literal["none", "down-weighted", "left out"]
    pictures: int
    """Number of training images that count less than others."""
    sentence: str


class ClassificationMetrics(TypedDict):
    """The part of metrics.json that test predictions alone give."""

    accuracy: float
    interval: list[float]
    balanced_accuracy: float
    macro_f1: float
    per_class: dict[str, ClassMetrics]
    confusion: Confusion
    majority_baseline: float
    """Share of the largest class in test."""
    better_than_chance: bool
    ece_before: float | None
    """Expected calibration error without the temperature; None with few test images."""
    ece_after: float | None


class Shortcuts(TypedDict):
    """The part of metrics.json that says how well the classes are told apart without looking."""

    shortcuts: dict[str, float]
    """Attribute to the balanced accuracy of predicting the class from it alone."""
    shortcut_warning: str | None
    """Of an attribute that is about as good as the model."""
    shortcut_sentence: str
    """What report and card say of shortcuts."""


class Metrics(ClassificationMetrics, UnseenSourceMetrics, Shortcuts):
    """All of metrics.json."""

    verdict: Verdict
    verdict_sentence: str
    """By `training.phrases.verdict`."""
    headline: Headline
    cross_validated: CrossValidated | None
    verified: Verified
    label_noise: LabelNoise | None
    temperature: float
    reject_threshold: float
    """Novelty above which an image counts as none of the classes."""
    split: dict[Split, int]
    """Images in each split."""
    near_duplicate_leaks: int
    label_issues: int
    """Images outside test whose label is suspected; 0 unless the verdict is "better"."""
    curation: Curation
    regularisation: float
    """C of the linear head: the inverse of the regularisation's strength."""
    delivered: Literal["head", "network"]
    choice: str
    """The sentence why."""
    head: CandidateMetrics
    network: CandidateMetrics | None
    by_source: dict[str, SourceMetrics]
    unknown: FalseAlarms
    learning_curve: LearningCurve | None
    seed: int
    seconds: dict[str, float]
    """By stage."""
    device: str
    backbone: str
    weights: str
    arithmetic: str
    notices: list[str]


def read_metrics(run_dir: Path) -> Metrics:
    """Read `metrics.json` of a finished run; raises RunError where it is unreadable or not whole.

    A run of an earlier version may lack keys that came later; it must have those of the summary.
    """
    metrics = read_json(run_dir / "metrics.json")
    summary = ("accuracy", "interval", "macro_f1", "majority_baseline", "better_than_chance")
    for key in sorted((*summary, "split", "seconds")):
        if key not in metrics:
            raise RunError.unusable(f"metrics.json lacks “{key}”")
    return cast(Metrics, metrics)


def softmax(logits: Floats) -> Floats:
    """Return probabilities along the last axis."""
    highest = logits.max(axis=-1, keepdims=True)
    powers = np.exp(logits - highest)
    total = powers.sum(axis=-1, keepdims=True)
    probabilities: Floats = powers / total
    return probabilities


def log_loss(logits: Floats, labels: Labels, smoothing: float = 0.0) -> float:
    """Return the mean of `log_losses`."""
    losses = log_losses(logits, labels, smoothing)
    return float(losses.mean())


def log_losses(logits: Floats, labels: Labels, smoothing: float = 0.0) -> Floats:
    """Return the negative log likelihood [n] in nats of labels [n] under logits [n, classes].

    `smoothing` of each label is spread over the other classes.
    """
    count, classes = logits.shape
    highest = logits.max(axis=1, keepdims=True)
    shifted = logits - highest
    powers = np.exp(shifted)
    sums = powers.sum(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(sums)

    row = np.arange(count)
    own = log_probabilities[row, labels]
    rest = log_probabilities.sum(axis=1) - own
    others = rest / (classes - 1)
    own_share = 1 - smoothing
    smoothed = own_share * own + smoothing * others
    losses: Floats = -smoothed
    return losses


def balanced_accuracy(predicted: Labels, labels: Labels) -> float:
    """Return the mean recall [0, 1] of the classes that occur in labels [n]."""
    hits = predicted == labels
    recalls = []
    for label in np.unique(labels):
        of_class = labels == label
        recalls.append(hits[of_class].mean())
    return float(np.mean(recalls))


def classification_metrics(
    logits: Floats, labels: Labels, names: Sequence[str], temperature: float
) -> ClassificationMetrics:
    """Return the figures of a model with test logits [n, classes] on labels [n]."""
    tested = len(labels)
    predicted = logits.argmax(axis=1)
    right = predicted == labels
    hits = int(right.sum())

    classes = len(names)
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    support = matrix.sum(axis=1)
    found = matrix.sum(axis=0)
    true_positives = matrix.diagonal().astype(np.float64)
    # 0 where nothing was there to be found, or nothing was predicted.
    recall = true_positives / support.clip(min=1)
    precision = true_positives / found.clip(min=1)
    support_and_found = support + found
    f1 = 2 * true_positives / support_and_found.clip(min=1)

    per_class = {}
    for index, name in enumerate(names):
        per_class[name] = ClassMetrics(
            precision=float(precision[index]),
            recall=float(recall[index]),
            support=int(support[index]),
        )
    occurs = support > 0
    largest_class = int(support.max())
    majority = largest_class / tested
    return ClassificationMetrics(
        accuracy=hits / tested,
        interval=list(wilson_interval(hits, tested)),
        balanced_accuracy=float(recall[occurs].mean()),
        macro_f1=float(f1[occurs].mean()),
        per_class=per_class,
        confusion=Confusion(labels=list(names), matrix=matrix.tolist()),
        majority_baseline=majority,
        better_than_chance=binomial_p_value(hits, tested, majority) < CHANCE_P,
        ece_before=expected_calibration_error(softmax(logits), labels),
        ece_after=expected_calibration_error(softmax(logits / temperature), labels),
    )


def candidate_metrics(
    test: Floats, test_labels: Labels, val: Floats, val_labels: Labels
) -> CandidateMetrics:
    """Return the figures of a model with these logits [n, classes] on test and on val.

    The val logits must be by a model that has not learned from those images, and scaled by its
    temperature.
    """
    test_predicted = test.argmax(axis=1)
    share = _accuracy(test_predicted == test_labels)
    val_predicted = val.argmax(axis=1)
    val_hits = val_predicted == val_labels
    return CandidateMetrics(
        accuracy=share["accuracy"],
        interval=share["interval"],
        val_loss=log_loss(val, val_labels),
        val_accuracy=float(val_hits.mean()),
    )


def accuracy_by_source(
    predicted: Labels, labels: Labels, sources: Sequence[str]
) -> dict[str, SourceMetrics]:
    """Return accuracy, interval and support of the test images [n] of each source, by name."""
    hits = predicted == labels
    source_of = np.array(sources, dtype=object)
    found = {}
    for source in sorted(set(sources)):
        of_source = source_of == source
        share = _accuracy(hits[of_source])
        found[source] = SourceMetrics(
            accuracy=share["accuracy"],
            interval=share["interval"],
            support=int(of_source.sum()),
        )
    return found


def false_alarms(novelty: Floats, threshold: float) -> FalseAlarms:
    """Count test images [n] that "none of these" would refuse, though they show the classes."""
    beyond = novelty > threshold
    refused = int(beyond.sum())
    tested = len(novelty)
    return FalseAlarms(
        refused=refused,
        tested=tested,
        share=refused / tested,
        interval=list(wilson_interval(refused, tested)),
    )


def grouped_interval(hits: NDArray[np.bool_], groups: Labels) -> tuple[float, float]:
    """Return the 95 % interval of the share of hits among images [n] in near-duplicate groups [n].

    The images of a group stand or fall together, so that the groups are what is counted: an
    interval as for so many independent images with the same share of hits.
    """
    return score_interval(float(hits.mean()), len(np.unique(groups)))


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion of independent trials."""
    return score_interval(hits / trials, trials)


def score_interval(share: float, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of so many independent trials (E. B. Wilson 1927)."""
    squared = _Z**2
    scale = 1 + squared / trials
    centre = (share + squared / (2 * trials)) / scale
    variance = share * (1 - share) / trials + squared / (4 * trials**2)
    reach = _Z * math.sqrt(variance) / scale
    # Rounding must not leave an end just inside of 0 or 1.
    low = centre - reach if share > 0 else 0.0
    high = centre + reach if share < 1 else 1.0
    return max(0.0, low), min(1.0, high)


def binomial_p_value(hits: int, trials: int, rate: float) -> float:
    """Return the exact probability of at least `hits` of `trials` that each succeed with `rate`."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    test = binomtest(hits, trials, rate, alternative="greater")
    return float(test.pvalue)


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float | None:
    """Return the gap between confidence and accuracy in 15 equal bins; None below 100 images.

    The measure of Naeini, Cooper and Hauskrecht 2015, on the likeliest class.
    """
    if len(labels) < ECE_MINIMUM:
        return None
    confidence = probabilities.max(axis=1)
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    bins = (confidence * _ECE_BINS).astype(int)
    bins = bins.clip(max=_ECE_BINS - 1)
    gap = 0.0
    for number in range(_ECE_BINS):
        inside = bins == number
        hits = right[inside].sum()
        expected_hits = confidence[inside].sum()
        gap += abs(float(hits - expected_hits))
    return gap / len(labels)


def _accuracy(hits: NDArray[np.bool_]) -> AccuracyShare:
    count = int(hits.sum())
    interval = wilson_interval(count, len(hits))
    accuracy = float(hits.mean())
    return AccuracyShare(accuracy=accuracy, interval=list(interval))
