"""Figures of a classifier on images that it has never seen, with their uncertainty.

numpy alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from training.earlier_metrics import completed
from training.phrases import verdict
from training.run_folder import RunError, Split, View, read_json

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

# How rarely guessing may do as well for a model to count as better. Cross-validated predictions
# depend on each other, so that in noise a p-value is small a little more often than it should be.
CHANCE_P = 0.001
# What guessing does more rarely hints at a weak model, which is not to be called no better.
_HINT_P = 0.05
# Of the way from guessing to certainty: a model below is of no use. Two classes: 60 % right.
_LEAST_USE = 0.2
# Independent images below which a model that is right on 60 % cannot be told from one that guesses.
_FEW_UNITS = 60
_PERMUTATIONS = 10_000
_PERMUTED_AT_ONCE = 500
_ROUNDING = 1e-9
ECE_MINIMUM = 100  # test images below which a calibration error says nothing
_ECE_BINS = 15
_Z = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


Verdict = Literal["better", "not_shown", "no_better"]
"""Better than guessing; not shown to be, with so few images; no better than guessing."""


class AccuracyShare(TypedDict):
    """A share of images predicted rightly."""

    accuracy: float
    """Share of the images predicted rightly."""
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
    """Figures of one class."""

    precision: float
    recall: float
    support: int
    """Number of its images."""


class Confusion(TypedDict):
    """How often each class was predicted as each."""

    labels: list[str]
    matrix: list[list[int]]
    """Rows are true classes, columns predicted ones."""


class ClassificationMetrics(AccuracyShare):
    """The figures that predictions of images by models that have not seen them give."""

    balanced_accuracy: float
    """Mean of the recalls of the classes."""
    macro_f1: float
    """Mean of the F1 scores of the classes."""
    per_class: dict[str, ClassMetrics]
    """By name of the class."""
    confusion: Confusion
    ece_before: float | None
    """Expected calibration error without the temperature; None below 100 images."""
    ece_after: float | None
    """The same with the temperature."""


class CrossValidated(ClassificationMetrics):
    """Figures over all images, each judged by a head that saw neither it nor a near-duplicate."""

    n: int
    """Number of images: those of train, val and test."""


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


class ZeroShot(AccuracyShare):
    """Figures of a text-image model that knows the classes' names alone.

    They are those of the images that the headline comes from.
    """

    n: int
    model: str
    license: str


class FalseAlarms(TypedDict):
    """Test images, which do show the classes, that are called none of them."""

    refused: int
    tested: int
    share: float
    interval: list[float]


class Strangers(TypedDict):
    """Pictures of none of the classes that were shown to the finished model."""

    refused: int
    n: int
    how: str
    """What was shown, in sentences."""


class LeftOutClass(TypedDict):
    """Images of a class shown to a classifier that was fitted without it, class by class."""

    refused: int
    n: int
    classes: int
    """How many were left out in turn."""


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


class Shortcuts(TypedDict):
    """The part of metrics.json that says how well the classes are told apart without looking."""

    shortcuts: dict[str, float]
    """Attribute to the balanced accuracy of predicting the class from it alone."""
    shortcut_warning: str | None
    """Of an attribute that is about as good as the model."""
    shortcut_sentence: str
    """What report and card say of shortcuts."""


class VerdictMetrics(TypedDict):
    """The part of metrics.json that says how good the model is, and how that was found."""

    verdict: Verdict
    """Better than guessing; not shown to be, with so few images; or no better."""
    better_than_chance: bool
    """Whether the verdict is "better"."""
    verdict_sentence: str
    """By `training.phrases.verdict`."""
    headline: Headline
    cross_validated: CrossValidated | None
    verified: Verified
    label_noise: LabelNoise | None
    zero_shot: ZeroShot | None
    """None without a text-image model."""


class ViewMetrics(TypedDict):
    """What the network sees of an image, and why."""

    chosen: View
    sentence: str
    losses: dict[View, float]
    """Out-of-fold log loss in nats of those that were compared."""


class Metrics(ClassificationMetrics, VerdictMetrics, UnseenSourceMetrics, Shortcuts):
    """All of metrics.json. The figures at the top are those of the test images."""

    majority_baseline: float
    """Share of the largest class in test."""
    temperature: float
    """By which the logits are divided before the softmax, so that confidence means accuracy."""
    reject_threshold: float
    """Novelty above which an image counts as none of the classes."""
    split: dict[Split, int]
    """Images in each split."""
    own_test: bool
    """Whether the test images are those that whoever asked has marked for it."""
    near_duplicate_leaks: int
    """Near-duplicates of test images outside test; always 0."""
    label_issues: int
    """Images outside test whose label is suspected; 0 unless the verdict is "better"."""
    off_topic: int
    """Images outside test that look like a page, screen, packet or drawing."""
    curation: Curation
    regularisation: float
    """C of the linear head: the inverse of the regularisation's strength."""
    delivered: Literal["head", "network"]
    """The linear head on the pretrained network, or the fine-tuned network."""
    choice: str
    """The sentence why."""
    head: CandidateMetrics
    network: CandidateMetrics | None
    by_source: dict[str, SourceMetrics]
    """Accuracy by the source of the test images."""
    unknown: FalseAlarms
    strangers: Strangers | None
    """None where it was not measured."""
    left_out_class: LeftOutClass | None
    """None with two classes, for the fine-tuned network, and without time."""
    learning_curve: LearningCurve | None
    view: ViewMetrics
    seed: int
    """Of split and folds."""
    seconds: dict[str, float]
    """By stage."""
    device: str
    """What the network ran on."""
    backbone: str
    """Name of the pretrained network."""
    weights: str
    """Which of its weights."""
    arithmetic: str
    """Precision in which features were computed."""
    notices: list[str]
    """What went otherwise than asked for, in sentences."""


def read_metrics(run_dir: Path) -> Metrics:
    """Read `metrics.json` of a finished run; raises RunError where it is unreadable or not whole.

    A run of an earlier version may lack keys that came later; it must have those of the summary.
    """
    metrics = read_json(run_dir / "metrics.json")
    summary = ("accuracy", "interval", "macro_f1", "majority_baseline", "better_than_chance")
    for key in sorted((*summary, "split", "seconds")):
        if key not in metrics:
            raise RunError.unusable(f"metrics.json lacks “{key}”")
    whole = completed(metrics)
    whole["verdict_sentence"] = verdict(whole)
    return cast(Metrics, whole)


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
    logits: Floats,
    labels: Labels,
    names: Sequence[str],
    temperature: float | Floats,
    groups: Labels | None = None,
) -> ClassificationMetrics:
    """Return the figures of logits [n, classes], by models that saw none of the images, on labels.

    The temperature is one for all images or one for each: [n, 1]. Without `groups` [n] every image
    is a near-duplicate group of its own.
    """
    if groups is None:
        groups = np.arange(len(labels))
    predicted = logits.argmax(axis=1)
    right = predicted == labels

    matrix = confusion_matrix(predicted, labels, len(names))
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
    return ClassificationMetrics(
        accuracy=float(right.mean()),
        interval=list(grouped_interval(right, groups)),
        balanced_accuracy=float(recall[occurs].mean()),
        macro_f1=float(f1[occurs].mean()),
        per_class=per_class,
        confusion=Confusion(labels=list(names), matrix=matrix.tolist()),
        ece_before=expected_calibration_error(softmax(logits), labels),
        ece_after=expected_calibration_error(softmax(logits / temperature), labels),
    )


def headline_of(figures: ClassificationMetrics) -> Headline:
    """Return the headline of the figures of the test images, or of the cross-validated ones."""
    matrix = np.array(figures["confusion"]["matrix"])
    # Only the cross-validated figures of all images say how many these are.
    cross_validated = "n" in figures
    return Headline(
        value=figures["accuracy"],
        interval=figures["interval"],
        n=int(matrix.sum()),
        hits=int(matrix.trace()),
        how="cross_validated" if cross_validated else "test",
    )


def measured_headline(metrics: Metrics) -> Headline:
    """Return the first figure as it is with the labels as they were found."""
    return headline_of(metrics["cross_validated"] or metrics)


def confusion_matrix(predicted: Labels, labels: Labels, classes: int) -> Labels:
    """Return how often each class was predicted as each: [true, predicted]."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def majority_baseline(labels: Labels) -> float:
    """Return the share of the largest class."""
    return int(np.bincount(labels).max()) / len(labels)


@dataclass(frozen=True)
class Judged:
    """Images that were judged by models which saw neither them nor a near-duplicate."""

    predicted: Labels
    """[n]."""
    labels: Labels
    """[n] in 0..classes-1."""
    groups: Labels
    """[n]: near-duplicates share a number."""
    classes: int

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which images [n] were judged rightly."""
        return self.predicted == self.labels

    def units(self) -> Judged:
        """Return one vote for each group and label: the most frequent prediction.

        Near-duplicates are judged alike, so that each says nothing new. Of equally frequent
        predictions that of the lowest class number counts.
        """
        pairs = np.column_stack([self.groups, self.labels])
        kept, unit_of = np.unique(pairs, axis=0, return_inverse=True)
        shape = (len(kept), self.classes)
        votes = np.zeros(shape, np.int64)
        cells = (unit_of.reshape(-1), self.predicted)
        np.add.at(votes, cells, 1)
        groups = kept[:, 0]
        labels = kept[:, 1]
        return Judged(votes.argmax(axis=1), labels, groups, self.classes)

    def faultless(self) -> Judged:
        """Return the same images judged without a mistake."""
        return Judged(self.labels, self.labels, self.groups, self.classes)


def judge(evidence: Judged, everything: Judged, seed: int = 0) -> Verdict:
    """Return whether a model is better than guessing, by images that it has not seen.

    `evidence` is what its figure comes from, `everything` the out-of-fold predictions of all
    images: a model is called no better only where neither hints at more, the evidence excludes a
    model that is of use, and would have shown a faultless one.
    """
    p_value = association_p_value(evidence, seed)
    if p_value < CHANCE_P:
        return "better"
    if min(p_value, association_p_value(everything, seed)) < _HINT_P:
        return "not_shown"
    if association_p_value(evidence.faultless(), seed) >= CHANCE_P:
        return "not_shown"
    if len(evidence.units().labels) < _FEW_UNITS:
        return "not_shown"
    chance = 1 / evidence.classes
    of_use = chance + _LEAST_USE * (1 - chance)
    _, highest = balanced_interval(evidence)
    return "no_better" if highest < of_use else "not_shown"


def association_p_value(judged: Judged, seed: int = 0) -> float:
    """Return how rarely predictions that know nothing of the labels would agree with them so well.

    One vote of each near-duplicate group and label counts. Two classes: Fisher's exact test,
    one-sided. More: balanced accuracy among random permutations of the predictions. Neither is
    moved by how unequal the classes are, nor by a favourite of the model.
    """
    units = judged.units()
    if units.classes == 2:
        return fisher_p_value(confusion_matrix(units.predicted, units.labels, 2))
    return _permutation_p_value(units, seed)


def fisher_p_value(matrix: Labels) -> float:
    """Return the one-sided p-value of a 2 x 2 table (R. A. Fisher 1935): of so many hits or more.

    The sums of rows and columns are held fixed.
    """
    first_row, second_row = (int(count) for count in matrix.sum(axis=1))
    first_column = int(matrix[:, 0].sum())
    hits = int(matrix[0, 0])
    most_hits = min(first_row, first_column)
    tables = _log_choices(first_row + second_row, first_column)
    p_value = 0.0
    for first_hits in range(hits, most_hits + 1):
        rest = first_column - first_hits
        ways = _log_choices(first_row, first_hits) + _log_choices(second_row, rest)
        p_value += math.exp(ways - tables)
    # Of thousands of images it may be smaller than a float can tell from 0, which it never is.
    return min(1.0, max(p_value, sys.float_info.min))


def balanced_interval(judged: Judged) -> tuple[float, float]:
    """Return the 95 % interval of the balanced accuracy, with groups as what is counted.

    That of as many independent images as would leave the same uncertainty: a small class makes the
    mean of the recalls uncertain, however large the others are.
    """
    present = np.unique(judged.labels)
    variance = 0.0
    for label in present:
        of_class = judged.groups[judged.labels == label]
        variance += 1 / len(np.unique(of_class))
    trials = len(present) ** 2 / variance
    return score_interval(balanced_accuracy(judged.predicted, judged.labels), trials)


def _log_choices(total: int, chosen: int) -> float:
    """Return the logarithm of how many ways there are to choose so many of a total."""
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def _permutation_p_value(units: Judged, seed: int) -> float:
    """Return (1 + k) / (1 + N): k of N permutations have no lower a balanced accuracy."""
    random = np.random.default_rng(seed)
    counts = np.bincount(units.labels, minlength=units.classes)
    present = np.count_nonzero(counts)
    # A hit counts as much as its class is small: the sum of weights is the balanced accuracy.
    weights = 1 / (counts[units.labels] * present)
    reached = weights[units.right].sum()
    as_good = 0
    for _ in range(_PERMUTATIONS // _PERMUTED_AT_ONCE):
        copies = np.tile(units.predicted, (_PERMUTED_AT_ONCE, 1))
        permuted = random.permuted(copies, axis=1)
        hits = permuted == units.labels
        accuracies = hits @ weights
        as_good += int((accuracies >= reached - _ROUNDING).sum())
    return (1 + as_good) / (1 + _PERMUTATIONS)


def candidate_metrics(
    test: Floats, test_labels: Labels, val: Floats, val_labels: Labels, groups: Labels | None = None
) -> CandidateMetrics:
    """Return the figures of a model with these logits [n, classes] on test and on val.

    `groups` are those of the test images, each its own where they are not given. The val logits
    must be by a model that has not learned from those images, and scaled by its temperature.
    """
    test_predicted = test.argmax(axis=1)
    if groups is None:
        groups = np.arange(len(test_labels))
    share = _accuracy(test_predicted == test_labels, groups)
    val_predicted = val.argmax(axis=1)
    val_hits = val_predicted == val_labels
    return CandidateMetrics(
        accuracy=share["accuracy"],
        interval=share["interval"],
        val_loss=log_loss(val, val_labels),
        val_accuracy=float(val_hits.mean()),
    )


def accuracy_by_source(
    predicted: Labels, labels: Labels, sources: Sequence[str], groups: Labels | None = None
) -> dict[str, SourceMetrics]:
    """Return accuracy, interval and support of the test images [n] of each source, by name.

    Without `groups` [n] every image is a near-duplicate group of its own.
    """
    if groups is None:
        groups = np.arange(len(labels))
    hits = predicted == labels
    source_of = np.array(sources, dtype=object)
    found = {}
    for source in sorted(set(sources)):
        of_source = source_of == source
        share = _accuracy(hits[of_source], groups[of_source])
        found[source] = SourceMetrics(
            accuracy=share["accuracy"],
            interval=share["interval"],
            support=int(of_source.sum()),
        )
    return found


def zero_shot(
    predicted: Labels, labels: Labels, groups: Labels, model: str, license_name: str
) -> ZeroShot:
    """Return the figures of a text-image model that predicted these classes [n] by their names."""
    share = _accuracy(predicted == labels, groups)
    return ZeroShot(**share, n=len(labels), model=model, license=license_name)


def false_alarms(novelty: Floats, threshold: float, groups: Labels | None = None) -> FalseAlarms:
    """Count test images [n] that "none of these" would refuse, though they show the classes.

    Without `groups` [n] every image is a near-duplicate group of its own.
    """
    if groups is None:
        groups = np.arange(len(novelty))
    beyond = novelty > threshold
    refused = int(beyond.sum())
    tested = len(novelty)
    return FalseAlarms(
        refused=refused,
        tested=tested,
        share=refused / tested,
        interval=list(grouped_interval(beyond, groups)),
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


def score_interval(share: float, trials: float) -> tuple[float, float]:
    """Return the 95 % interval of a share of so many independent trials (E. B. Wilson 1927)."""
    squared = _Z**2
    scale = 1 + squared / trials
    shift = squared / (2 * trials)
    centre = (share + shift) / scale
    of_share = share * (1 - share) / trials
    of_trials = squared / (4 * trials**2)
    deviation = math.sqrt(of_share + of_trials)
    reach = _Z * deviation / scale
    # Rounding must not leave an end just inside of 0 or 1.
    low = centre - reach if share > 0 else 0.0
    high = centre + reach if share < 1 else 1.0
    return max(0.0, low), min(1.0, high)


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


def _accuracy(hits: NDArray[np.bool_], groups: Labels) -> AccuracyShare:
    interval = grouped_interval(hits, groups)
    return AccuracyShare(accuracy=float(hits.mean()), interval=list(interval))
