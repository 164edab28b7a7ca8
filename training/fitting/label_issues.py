"""Labels that are probably wrong, by cross-validation and by the most similar images.

Nothing is ever removed here. Suspected images count less in training where cross-validation shows
that it helps, or where they are very many.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import Samples, find_temperature, fit_with_c
from training.fitting.relevance import OUTLIER_DISTANCE, doubt_by_distance
from training.images.split import cut_folds
from training.metrics import Curation, Floats, Labels, log_losses, softmax
from training.networks.novelty import balancing_scale, to_unit_length
from training.phrases import counted, whole_percent

# cross-validations whose predictions are averaged: one alone depends on how its folds were cut
_REPEATS = 3
_NEIGHBOURS = 10  # learned images that vote on each image
# score that needs no further evidence: three quarters of the probability is on another class
_CERTAIN_ISSUE = 0.75
_MOST_OF_A_CLASS = 0.5  # share of its images that may count less
# Shares of the learned images that are suspected: below the first they are few enough to be hard
# images alone; from the second on most are wrong labels, unless the classes themselves are hard
# (measured with 0, 10, 20 and 30 % of swapped labels: 0 to 9 %, 7 to 13 %, 13 to 25 % and 17 to
# 38 %; with 20 images of each of six much alike classes 12 to 22 % of right labels).
_MANY = 0.05
_VERY_MANY = 0.12
_MORE_THAN_HARD = 0.25  # more than hard classes alone explain

WeightingName = Literal["none", "down-weighted", "left out"]
# how much a suspected image counts under each weighting
_WEIGHTINGS: dict[WeightingName, float] = {"none": 1.0, "down-weighted": 0.25, "left out": 0.0}


@dataclasses.dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong, that is unlike all others, or that is off-topic."""

    index: int
    """Into the rows of the results."""
    score: float
    """0 (in order) to 1 (certainly not)."""
    kind: Literal["label", "outlier", "off_topic"]
    """The first two are by the model's head, the last by evidence from outside it."""
    suggested: int | None
    """The class number that it looks like; None unless the kind is "label"."""
    reason: str
    """A sentence."""


@dataclasses.dataclass(frozen=True)
class SampleWeighting:
    """How much each learned image counts, and why."""

    name: WeightingName
    weights: Floats
    """[n]."""
    sentence: str

    @property
    def lighter(self) -> int:
        """How many images count less than others."""
        return int((self.weights < 1).sum())


def out_of_fold_probabilities(
    samples: Samples, c: float, seed: int, repeats: int = _REPEATS
) -> Floats:
    """Return probabilities [n, classes] of each image that its own label had no part in.

    The mean of cross-validated predictions, averaged over several ways of cutting the folds, and of
    the votes of the most similar images. The first sees what separates the classes, the second what
    a few images share.
    """
    predictions = []
    for repeat in range(repeats):
        logits = _out_of_fold_logits(samples, c, seed + repeat)
        temperature = find_temperature(logits, samples.labels)
        predictions.append(softmax(logits / temperature))
    by_heads = np.mean(predictions, axis=0)
    by_neighbours = neighbour_votes(samples, samples)
    mean: Floats = (by_heads + by_neighbours) / 2
    return mean


def neighbour_votes(voters: Samples, images: Samples) -> Floats:
    """Return the shares [n, classes] of the votes of the ten most similar voters.

    Near-duplicates of the image itself have no vote. A vote counts with the square of the cosine.
    """
    scale = balancing_scale(voters.embeddings)
    directions = to_unit_length(images.embeddings * scale)
    towards = to_unit_length(voters.embeddings * scale)
    cosines = directions @ towards.T
    is_duplicate = np.equal.outer(images.groups, voters.groups)
    cosines[is_duplicate] = 0.0
    count = min(_NEIGHBOURS, len(voters.labels))
    partitioned = np.argpartition(-cosines, count - 1, axis=1)
    nearest = partitioned[:, :count]
    similarities = np.take_along_axis(cosines, nearest, axis=1)
    positive = np.maximum(similarities, 0.0)
    weights = positive.astype(np.float64) ** 2
    labels = voters.labels[nearest]
    votes = np.full((len(cosines), voters.classes), 1e-6)
    for label in range(voters.classes):
        is_label = labels == label
        of_label = weights * is_label
        votes[:, label] += of_label.sum(axis=1)
    totals = votes.sum(axis=1, keepdims=True)
    shares: Floats = votes / totals
    return shares


def label_issue_scores(pred_probs: Floats, labels: Labels) -> Floats:
    """Return 0 (in order) to 1 (certainly wrong) for each label [n].

    1 minus the label-quality score "normalized margin" (Kuan and Mueller 2022, "Model-agnostic
    label quality scoring to detect real-world label errors"), which sets the probability of the
    label against the highest of the other classes, both out-of-fold [n, classes].
    """
    own, strongest_other, _ = own_and_strongest_other(pred_probs, labels)
    margin = own - strongest_other
    return (1 - margin) / 2


def find_label_issues(pred_probs: Floats, labels: Labels) -> NDArray[np.bool_]:
    """Return which labels [n] are probably wrong, by out-of-fold probabilities [n, classes].

    Confident learning (Northcutt, Jiang and Chuang 2021): a class is claimed for an image when its
    probability reaches the mean that images labelled so have; a label is an issue when the
    strongest claim is by another class, and that is likelier than the label's. So is one whose
    score alone is high, which matters where the other images of the class are predicted so
    confidently that their mean is out of reach.
    """
    classes = pred_probs.shape[1]
    thresholds = np.full(classes, np.inf)
    for label in np.unique(labels):
        members = labels == label
        thresholds[label] = pred_probs[members, label].mean()
    claims = np.where(pred_probs >= thresholds, pred_probs, -np.inf)
    strongest = claims.argmax(axis=1)
    own, _, _ = own_and_strongest_other(pred_probs, labels)
    likelier = claims.max(axis=1) > own
    certain = label_issue_scores(pred_probs, labels) >= _CERTAIN_ISSUE
    claimed_by_other = (strongest != labels) & likelier
    issues: NDArray[np.bool_] = claimed_by_other | certain
    return issues


def contradicting_labels(labels: Labels, groups: Labels) -> dict[int, int]:
    """Return the images [n] of which a near-duplicate has another label, and that label."""
    labels_of: dict[int, set[int]] = {}
    for label, group in zip(labels.tolist(), groups.tolist(), strict=True):
        labels_of.setdefault(group, set()).add(label)
    contradicted = {}
    for index, label in enumerate(labels.tolist()):
        others = labels_of[int(groups[index])] - {label}
        if others:
            contradicted[index] = min(others)
    return contradicted


def rank_suspects(
    pred_probs: Floats,
    labels: Labels,
    distances: Floats,
    names: Sequence[str],
    groups: Labels | None = None,
) -> list[Suspect]:
    """Return label issues and outliers with reasons in words, the highest score first.

    `distances` [n] are those from the core of the class that an image is labelled with.
    An image [n] of which both may be said is a label issue. So are near-duplicates, which share a
    group [n], with different labels.
    """
    _, _, suggested = own_and_strongest_other(pred_probs, labels)
    scores = label_issue_scores(pred_probs, labels)
    issues = find_label_issues(pred_probs, labels)
    doubt = doubt_by_distance(distances)
    suspects = []
    for index in np.flatnonzero(issues):
        label = labels[index]
        other = int(suggested[index])
        likely = whole_percent(pred_probs[index, other])
        unlikely = whole_percent(pred_probs[index, label])
        reason = (
            f"Looks like “{names[other]}” ({likely}%) rather than its label "
            f"“{names[label]}” ({unlikely}%)."
        )
        suspect = Suspect(
            index=int(index),
            score=float(scores[index]),
            kind="label",
            suggested=other,
            reason=reason,
        )
        suspects.append(suspect)
    if groups is not None:
        for copy, other in contradicting_labels(labels, groups).items():
            if issues[copy]:
                continue
            issues[copy] = True
            reason = f"A near-duplicate of it is labelled “{names[other]}”."
            suspect = Suspect(copy, _CERTAIN_ISSUE, "label", other, reason)
            suspects.append(suspect)
    outliers = (distances > OUTLIER_DISTANCE) & ~issues
    for index in np.flatnonzero(outliers):
        label = labels[index]
        suspect = Suspect(
            index=int(index),
            score=float(doubt[index]),
            kind="outlier",
            suggested=None,
            reason=f"Looks unlike nearly all pictures labelled “{names[label]}”.",
        )
        suspects.append(suspect)
    return sorted(suspects, key=lambda suspect: -suspect.score)


def muted_curation(curation: Curation, off_topic: int = 0) -> Curation:
    """Return how suspects were treated, for a model that does not tell the classes apart.

    What it thinks of labels is not counted; `off_topic` images are suspected without it.
    """
    muted = curation.copy()
    muted["suspects"] = off_topic
    if curation["treatment"] == "none":
        muted["sentence"] = (
            "No label is called doubtful, because this model was not shown to tell the classes"
            " apart: what it disagrees with says nothing about the labels."
        )
    return muted


def choose_weighting(samples: Samples, pred_probs: Floats, c: float, seed: int) -> SampleWeighting:
    """Choose by cross-validation whether suspected images count less than others.

    In each fold the label issues are found without the held-out images. Judged are the images whose
    own label is not suspected: the others would be held against the weighting that sees through
    them. A quarter of the weight needs one standard error of gain in loss. Where very many are
    suspected they are left out, unless that costs a standard error, as it does where classes are
    hard and labels right; from a quarter on unless it costs two. In doubt all count alike.
    """
    issues = find_label_issues(pred_probs, samples.labels)
    in_doubt = int(issues.sum())
    if not in_doubt:
        return equal_weighting(samples, "No picture is suspected, so all count alike.")
    suspected = _weightable_issues(pred_probs, samples.labels)
    count = int(suspected.sum())
    if not count:
        most = f"{_suspected(in_doubt)}, most of a class, so all count alike."
        return equal_weighting(samples, most)
    share = count / len(suspected)
    if share < _MANY:
        few = f"{_suspected(count)}, too few to make a difference, so all count alike."
        return equal_weighting(samples, few)
    trusted = ~issues
    logits = _out_of_fold_logits_by_weighting(samples, c, seed)
    trusted_labels = samples.labels[trusted]
    losses: dict[WeightingName, Floats] = {}
    for weighting, of_weighting in logits.items():
        of_trusted = of_weighting[trusted]
        losses[weighting] = _losses(of_trusted, trusted_labels)
    name: WeightingName = "none"
    if _gain(losses, "down-weighted") > 1:
        name = "down-weighted"
    bearable = -2 if share >= _MORE_THAN_HARD else -1
    if share >= _VERY_MANY and _gain(losses, "left out") > bearable:
        name = "left out"
    weights = np.where(suspected, _WEIGHTINGS[name], 1.0)
    before = float(losses["none"].mean())
    after = float(losses[name].mean())
    sentence = _sentence(name, count, (before, after))
    return SampleWeighting(name, weights, sentence)


def _gain(losses: Mapping[WeightingName, Floats], name: WeightingName) -> float:
    """Return by how much a weighting lowers the mean loss, in standard errors of that."""
    gains = losses["none"] - losses[name]
    mean = float(gains.mean())
    deviation = float(gains.std())
    standard_error = deviation / math.sqrt(len(gains))
    return mean / max(standard_error, 1e-12)


def equal_weighting(samples: Samples, sentence: str) -> SampleWeighting:
    """Let all images count alike, for the reason given."""
    return SampleWeighting("none", np.ones(len(samples.labels)), sentence)


def _suspected(count: int) -> str:
    return f"{counted(count, 'picture')} {'is' if count == 1 else 'are'} suspected"


def _sentence(name: WeightingName, count: int, losses: tuple[float, float]) -> str:
    """Say what became of `count` suspected images, and why.

    `losses` are those of the images that nobody suspects, without and with the weighting.
    """
    if name == "none":
        return (
            f"{_suspected(count)}; all count alike, because cross-validation did not show that"
            " giving them less weight helps."
        )
    how = "left out" if name == "left out" else "given a quarter of the weight"
    verb = "was" if count == 1 else "were"
    before, after = losses
    predicted = "predicted better" if after < before else "hardly predicted worse"
    return (
        f"{counted(count, 'suspected picture')} {verb} {how} in training: the pictures that nobody"
        f" suspects are then {predicted} (loss {after:.3f} instead of {before:.3f},"
        " cross-validated)."
    )


def _weightable_issues(pred_probs: Floats, labels: Labels) -> NDArray[np.bool_]:
    """Return the label issues [n] that may count less.

    Not those of a class of which more than half are issues: it would vanish.
    """
    issues = find_label_issues(pred_probs, labels)
    weightable = issues.copy()
    for label in np.unique(labels):
        members = labels == label
        if issues[members].mean() > _MOST_OF_A_CLASS:
            weightable[members] = False
    return weightable


def _out_of_fold_logits_by_weighting(
    samples: Samples, c: float, seed: int
) -> dict[WeightingName, Floats]:
    """Return the out-of-fold logits [n, classes] under each weighting."""
    labels = samples.labels
    shape = (len(labels), samples.classes)
    logits = {name: np.zeros(shape) for name in _WEIGHTINGS}
    for train, held_out in cut_folds(labels, samples.groups, seed):
        learned = samples.take(train)
        pred_probs = out_of_fold_probabilities(learned, c, seed, repeats=1)
        suspected = _weightable_issues(pred_probs, learned.labels)
        unseen = samples.embeddings[held_out]
        for name, weight in _WEIGHTINGS.items():
            weights = np.where(suspected, weight, 1.0)
            head = fit_with_c(learned, c, weights)
            logits[name][held_out] = head.logits(unseen)
    return logits


def _losses(logits: Floats, labels: Labels) -> Floats:
    """Return the loss of each image [n] after calibration."""
    temperature = find_temperature(logits, labels)
    return log_losses(logits / temperature, labels)


def _out_of_fold_logits(samples: Samples, c: float, seed: int) -> Floats:
    labels = samples.labels
    logits = np.zeros((len(labels), samples.classes))
    for train, held_out in cut_folds(labels, samples.groups, seed):
        learned = samples.take(train)
        head = fit_with_c(learned, c)
        unseen = samples.embeddings[held_out]
        logits[held_out] = head.logits(unseen)
    return logits


def own_and_strongest_other(pred_probs: Floats, labels: Labels) -> tuple[Floats, Floats, Labels]:
    """Return the probability of each label, the highest of the other classes, and which that is.

    [n] each.
    """
    rows = np.arange(len(labels))
    own = pred_probs[rows, labels]
    others = pred_probs.copy()
    others[rows, labels] = -1.0
    strongest = others.argmax(axis=1)
    strongest_other = others[rows, strongest]
    return own, strongest_other, strongest
