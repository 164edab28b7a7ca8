"""Labels that are probably wrong, by cross-validation and by the most similar images.

Nothing is ever removed here. Suspected training images count less only where cross-validation
shows that it helps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import Samples, find_temperature, fit_with_c
from training.fitting.relevance import OUTLIER_DISTANCE, robust_distances
from training.images.split import cut_folds
from training.metrics import Curation, Floats, Labels, log_losses, softmax
from training.phrases import counted, whole_percent

# cross-validations whose predictions are averaged: one alone depends on how its folds were cut
_REPEATS = 3
_NEIGHBOURS = 10  # learned images that vote on each image
# score that needs no further evidence: three quarters of the probability is on another class
_CERTAIN_ISSUE = 0.75
_MOST_OF_A_CLASS = 0.5  # share of its images that may count less
_CLEAR_STANDARD_ERRORS = 2.0  # of the gain in loss
_LEAST_MORE_HITS = 2  # that a weighting must bring

WeightingName = Literal["none", "down-weighted", "left out"]
# how much a suspected image counts under each weighting
_WEIGHTINGS: dict[WeightingName, float] = {"none": 1.0, "down-weighted": 0.25, "left out": 0.0}


@dataclasses.dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong, or that is unlike all others."""

    index: int
    """Into the rows of the results."""
    score: float
    """0 (in order) to 1 (certainly not)."""
    kind: Literal["label", "outlier"]
    suggested: int | None
    """The class number that it looks like; None for an outlier."""
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
    deviation = voters.embeddings.std(axis=0)
    typical = deviation.mean() + 1e-12
    scale = 1 / (deviation + typical)
    directions = _unit(images.embeddings * scale)
    towards = _unit(voters.embeddings * scale)
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
    own, strongest_other, _ = _own_and_strongest_other(pred_probs, labels)
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
    own, _, _ = _own_and_strongest_other(pred_probs, labels)
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
    novelty: Floats,
    names: Sequence[str],
    groups: Labels | None = None,
) -> list[Suspect]:
    """Return label issues and outliers with reasons in words, the highest score first.

    An image [n] of which both may be said is a label issue. So are near-duplicates, which share a
    group [n], with different labels.
    """
    _, _, suggested = _own_and_strongest_other(pred_probs, labels)
    scores = label_issue_scores(pred_probs, labels)
    issues = find_label_issues(pred_probs, labels)
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
    distances = robust_distances(novelty)
    outliers = (distances > OUTLIER_DISTANCE) & ~issues
    for index in np.flatnonzero(outliers):
        distance = float(distances[index])
        suspect = Suspect(
            index=int(index),
            score=distance / (distance + OUTLIER_DISTANCE),
            kind="outlier",
            suggested=None,
            reason="Looks unlike every other picture.",
        )
        suspects.append(suspect)
    return sorted(suspects, key=lambda suspect: -suspect.score)


def muted_curation(curation: Curation) -> Curation:
    """Return how suspects were treated, for a model that does not tell the classes apart."""
    muted = curation.copy()
    muted["suspects"] = 0
    if curation["treatment"] == "none":
        muted["sentence"] = (
            "No label is called doubtful, because this model was not shown to tell the classes"
            " apart: what it disagrees with says nothing about the labels."
        )
    return muted


def choose_weighting(
    samples: Samples, pred_probs: Floats, in_train: NDArray[np.bool_], c: float, seed: int
) -> SampleWeighting:
    """Choose by cross-validation whether suspected training images count less than others.

    In each fold the label issues are found without the held-out images. A weighting is chosen when
    it lowers the held-out loss by more than twice its standard error and brings at least two more
    hits: one is often chance. In doubt all images count alike.
    """
    suspected = _weightable_issues(pred_probs, samples.labels) & in_train
    count = int(suspected.sum())
    if not count:
        return equal_weighting(samples, "No training picture is suspected, so all count alike.")
    logits = _out_of_fold_logits_by_weighting(samples, c, seed)
    plain_losses, plain_hits = _losses_and_hits(logits["none"], samples.labels)
    best: WeightingName = "none"
    best_gain = 0.0
    best_more_hits = 0
    for name in _WEIGHTINGS:
        losses, hits = _losses_and_hits(logits[name], samples.labels)
        gains = plain_losses - losses
        gain = float(gains.mean())
        standard_error = float(gains.std() / np.sqrt(len(gains)))
        clear = gain > _CLEAR_STANDARD_ERRORS * standard_error
        more_hits = hits - plain_hits
        if clear and gain > best_gain and more_hits >= _LEAST_MORE_HITS:
            best = name
            best_gain = gain
            best_more_hits = more_hits
    weights = np.where(suspected, _WEIGHTINGS[best], 1.0)
    return SampleWeighting(best, weights, _sentence(best, count, best_more_hits))


def equal_weighting(samples: Samples, sentence: str) -> SampleWeighting:
    """Let all images count alike, for the reason given."""
    return SampleWeighting("none", np.ones(len(samples.labels)), sentence)


def _sentence(name: WeightingName, count: int, more_hits: int) -> str:
    """Say what became of `count` suspected training images, and why."""
    if name == "none":
        images = "1 training picture is" if count == 1 else f"{count} training pictures are"
        return (
            f"{images} suspected; all count alike, because cross-validation did not show that "
            "leaving them out helps."
        )
    images = "1 suspected training picture was"
    if count > 1:
        images = f"{count} suspected training pictures were"
    how = "left out" if name == "left out" else "given a quarter of the weight"
    more = counted(more_hits, "more hit")
    return f"{images} {how}, because cross-validation showed that it helps: {more}."


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


def _losses_and_hits(logits: Floats, labels: Labels) -> tuple[Floats, int]:
    """Return the loss of each image [n] after calibration, and the number of hits."""
    temperature = find_temperature(logits, labels)
    losses = log_losses(logits / temperature, labels)
    predicted = logits.argmax(axis=1)
    hits = int((predicted == labels).sum())
    return losses, hits


def _out_of_fold_logits(samples: Samples, c: float, seed: int) -> Floats:
    labels = samples.labels
    logits = np.zeros((len(labels), samples.classes))
    for train, held_out in cut_folds(labels, samples.groups, seed):
        learned = samples.take(train)
        head = fit_with_c(learned, c)
        unseen = samples.embeddings[held_out]
        logits[held_out] = head.logits(unseen)
    return logits


def _own_and_strongest_other(pred_probs: Floats, labels: Labels) -> tuple[Floats, Floats, Labels]:
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


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the rows to length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths = np.maximum(lengths, 1e-12)
    directions: NDArray[np.float32] = vectors / lengths
    return directions
