"""Labels that are probably wrong, and outliers.

Nothing is ever removed here. Suspected training pictures count less only where cross-validation
shows that it helps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import find_temperature, fit_strength
from training.images.split import cut_folds
from training.metrics import Floats, Labels, log_losses, softmax
from training.phrases import counted

# cross-validations whose predictions are averaged: one alone depends on how its folds were cut
_SHUFFLES = 3
_VOTERS = 10  # learned pictures that vote on each picture
# suspicion that needs no further claim: three quarters of what is said is for another class
_PLAIN = 0.75
_MOST_OF_A_CLASS = 0.5  # share of its pictures that may count less
_CLEARLY = 2.0  # standard errors of a gain
_MORE_HITS = 2  # that a treatment must bring
_OUTLIER = 4.0  # robust standard deviations of novelty beyond the median
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution


@dataclasses.dataclass(frozen=True)
class Samples:
    """Pictures whose labels are looked at together."""

    embeddings: NDArray[np.float32]
    """[n, d]."""
    labels: Labels
    """[n] in 0..classes-1."""
    groups: NDArray[np.int64]
    """[n]: near copies share a number."""
    classes: int

    def taken(self, places: Labels | NDArray[np.bool_]) -> Samples:
        """Only the pictures at these places."""
        return Samples(
            self.embeddings[places], self.labels[places], self.groups[places], self.classes
        )


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A picture whose label is probably wrong, or that is unlike all others."""

    place: int
    """Index into the rows of the results."""
    score: float
    """0 (in order) to 1 (certainly not)."""
    kind: Literal["label", "outlier"]
    suggested: int | None
    """The class number that it looks like; None for an outlier."""
    reason: str
    """A sentence."""


@dataclasses.dataclass(frozen=True)
class Treatment:
    """How much each learned picture counts, and why."""

    name: Literal["none", "down-weighted", "left out"]
    weights: Floats
    """[n]."""
    sentence: str

    @property
    def pictures(self) -> int:
        """How many pictures count less than others."""
        return int((self.weights < 1).sum())


_TREATMENTS: tuple[tuple[Literal["down-weighted", "left out"], float], ...] = (
    ("down-weighted", 0.25),
    ("left out", 0),
)


def unseen_opinions(
    learned: Samples, strength: float, seed: int, shuffles: int = _SHUFFLES
) -> Floats:
    """What others say about each learned picture's class: probabilities [n, classes] that its own
    label had no part in.

    The mean of cross-validated predictions, averaged over several ways of cutting the folds, and of
    the votes of the pictures that look most alike. The first sees what separates the classes, the
    second what a few pictures share.
    """
    predictions = [_out_of_fold(learned, strength, seed + shuffle) for shuffle in range(shuffles)]
    calibrated = [
        softmax(logits / find_temperature(logits, learned.labels)) for logits in predictions
    ]
    result: Floats = (np.mean(calibrated, axis=0) + neighbour_votes(learned, learned)) / 2
    return result


def neighbour_votes(voters: Samples, pictures: Samples) -> Floats:
    """Shares [n, classes] of the votes of the ten most alike voters, near copies of the picture
    itself excluded.
    """
    spread = voters.embeddings.std(axis=0)
    scale = 1 / (spread + spread.mean() + 1e-12)
    cosines = _unit(pictures.embeddings * scale) @ _unit(voters.embeddings * scale).T
    cosines[pictures.groups[:, None] == voters.groups[None, :]] = 0.0
    count = min(_VOTERS, len(voters.labels))
    nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    weights = np.maximum(np.take_along_axis(cosines, nearest, axis=1), 0.0).astype(np.float64) ** 2
    chosen = voters.labels[nearest]
    votes = (
        np.stack(
            [(weights * (chosen == label)).sum(axis=1) for label in range(voters.classes)], axis=1
        )
        + 1e-6
    )
    result: Floats = votes / votes.sum(axis=1, keepdims=True)
    return result


def suspicion(opinions: Floats, labels: Labels) -> Floats:
    """0 (in order) to 1 (certainly wrong) for each label [n]: the strongest other class beside its
    own [n, classes].
    """
    own, other, _ = _own_and_strongest_other(opinions, labels)
    return (other - own + 1) / 2


def suspected_labels(opinions: Floats, labels: Labels) -> NDArray[np.bool_]:
    """Which pictures [n] probably have a wrong label, by what others say about them [n, classes].

    Confident learning (Northcutt, Jiang and Chuang 2021): a class is claimed for a picture when its
    probability reaches the mean that pictures labelled so have; a picture is suspected when its
    strongest claim is by another class, and that is likelier than its label's. So is one whose
    label most opinions plainly speak against, which matters where the others of the class are too
    sure to be reached.
    """
    classes = opinions.shape[1]
    usual = np.array(
        [opinions[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(classes)]
    )
    claims = np.where(opinions >= usual, opinions, -np.inf)
    strongest = claims.argmax(axis=1)
    own = opinions[np.arange(len(labels)), labels]
    claimed = (strongest != labels) & (claims.max(axis=1) > own)
    result: NDArray[np.bool_] = claimed | (suspicion(opinions, labels) >= _PLAIN)
    return result


def rank_suspects(
    opinions: Floats, labels: Labels, novelty: Floats, names: Sequence[str]
) -> list[Suspect]:
    """Suspected labels and outliers with reasons in words, the most suspicious first."""
    _, _, strongest = _own_and_strongest_other(opinions, labels)
    scores, wrong = suspicion(opinions, labels), suspected_labels(opinions, labels)
    distance = _robust_distance(novelty)
    suspects = [
        Suspect(
            int(i),
            float(scores[i]),
            "label",
            int(strongest[i]),
            _label_reason(opinions[i], labels[i], strongest[i], names),
        )
        for i in np.flatnonzero(wrong)
    ] + [
        Suspect(
            int(i),
            float(distance[i] / (distance[i] + _OUTLIER)),
            "outlier",
            None,
            "Looks unlike every other picture.",
        )
        for i in np.flatnonzero((distance > _OUTLIER) & ~wrong)
    ]
    return sorted(suspects, key=lambda suspect: -suspect.score)


def choose_treatment(
    learned: Samples, opinions: Floats, in_training: NDArray[np.bool_], strength: float, seed: int
) -> Treatment:
    """Whether suspected training pictures had better count less: decided by cross-validation, in
    doubt no.

    In each fold the suspects are found without the held-out pictures. A treatment is taken when it
    lowers the held-out loss by more than twice its standard error and brings at least two more
    hits: one is often chance.
    """
    suspected = _treatable(opinions, learned.labels) & in_training
    plain = no_treatment(learned, "No training picture is suspected, so all count alike.")
    if not suspected.any():
        return plain
    trials = _trials(learned, strength, seed)
    base_losses, base_hits = _judged(trials.pop("none"), learned.labels)
    best, best_gain = plain, 0.0
    for name, weight in _TREATMENTS:
        losses, hits = _judged(trials[name], learned.labels)
        gains = base_losses - losses
        error = float(gains.std() / np.sqrt(len(gains)))
        if gains.mean() > max(_CLEARLY * error, best_gain) and hits >= base_hits + _MORE_HITS:
            best_gain = float(gains.mean())
            best = Treatment(
                name,
                np.where(suspected, weight, 1.0),
                _treated(name, int(suspected.sum()), hits - base_hits),
            )
    if best is plain:
        return dataclasses.replace(plain, sentence=_untreated(int(suspected.sum())))
    return best


def no_treatment(learned: Samples, sentence: str) -> Treatment:
    """All pictures count alike, for the reason given."""
    return Treatment("none", np.ones(len(learned.labels)), sentence)


def _treatable(opinions: Floats, labels: Labels) -> NDArray[np.bool_]:
    """The suspected labels [n], without those of a class of which more than half are suspected: it
    would vanish.
    """
    suspected = suspected_labels(opinions, labels)
    share = [
        suspected[labels == label].mean() if (labels == label).any() else 0.0
        for label in range(opinions.shape[1])
    ]
    result: NDArray[np.bool_] = suspected & (np.array(share)[labels] <= _MOST_OF_A_CLASS)
    return result


def _trials(learned: Samples, strength: float, seed: int) -> dict[str, Floats]:
    """Out-of-fold logits [n, classes] of each treatment."""
    options: tuple[tuple[str, float], ...] = (("none", 1.0), *_TREATMENTS)
    results = {name: np.zeros((len(learned.labels), learned.classes)) for name, _ in options}
    for train, held_out in cut_folds(learned.labels, learned.groups, seed):
        part = learned.taken(train)
        suspected = _treatable(unseen_opinions(part, strength, seed, shuffles=1), part.labels)
        for name, weight in options:
            weights = np.where(suspected, weight, 1.0)
            head = fit_strength(part.embeddings, part.labels, part.classes, strength, weights)
            results[name][held_out] = head.logits(learned.embeddings[held_out])
    return results


def _judged(logits: Floats, labels: Labels) -> tuple[Floats, int]:
    """Loss of each picture [n] after calibration, and hits."""
    return log_losses(logits / find_temperature(logits, labels), labels), int(
        (logits.argmax(axis=1) == labels).sum()
    )


def _treated(name: str, count: int, more_hits: int) -> str:
    pictures = (
        "1 suspected training picture was"
        if count == 1
        else f"{count} suspected training pictures were"
    )
    how = "left out" if name == "left out" else "given a quarter of the weight"
    return f"{pictures} {how}, because cross-validation showed that it helps: {counted(more_hits, 'more hit')}."


def _untreated(count: int) -> str:
    pictures = "1 training picture is" if count == 1 else f"{count} training pictures are"
    return f"{pictures} suspected; all count alike, because cross-validation did not show that leaving them out helps."


def _out_of_fold(learned: Samples, strength: float, seed: int) -> Floats:
    logits = np.zeros((len(learned.labels), learned.classes))
    for train, held_out in cut_folds(learned.labels, learned.groups, seed):
        part = learned.taken(train)
        head = fit_strength(part.embeddings, part.labels, part.classes, strength)
        logits[held_out] = head.logits(learned.embeddings[held_out])
    return logits


def _own_and_strongest_other(opinions: Floats, labels: Labels) -> tuple[Floats, Floats, Labels]:
    """Of each picture the probability of its label, the highest of the other classes, and which
    that is: [n] each.
    """
    everyone = np.arange(len(labels))
    others = opinions.copy()
    others[everyone, labels] = -1.0
    strongest = others.argmax(axis=1)
    return opinions[everyone, labels], others[everyone, strongest], strongest


def _robust_distance(values: Floats) -> Floats:
    """How many robust standard deviations each value [n] lies above the median."""
    middle = np.median(values)
    deviation = _MAD_TO_DEVIATION * float(np.median(np.abs(values - middle)))
    result: Floats = (values - middle) / max(deviation, 1e-9)
    return result


def _label_reason(opinion: Floats, label: int, strongest: int, names: Sequence[str]) -> str:
    return (
        f"Looks like “{names[strongest]}” ({opinion[strongest]:.0%}) rather than its label “{names[label]}” "
        f"({opinion[label]:.0%})."
    )


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    return result
