"""The learning curve: how accuracy grows with pictures, and what more of them would bring.

Heads are fitted on nested shares of each fold's pictures and tested on those held out. Through the
errors goes an inverse power law, error = a + b * n ** -c, whose form learning curves of many kinds
follow (Hestness et al. 2017). Five points on one set are few for three parameters, so none is
picked: every exponent's best law has a say in proportion to its likelihood, and the whole is
repeated on resampled pictures to see how far the answer can be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import InTime, LinearHead, always_in_time
from training.images.split import cut_folds
from training.metrics import Floats, Labels
from training.progress import Progress

MINIMUM_PICTURES = 300  # below this the points lie within each other's noise
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
MORE_PER_CLASS = 200

_EXPONENTS = np.linspace(
    0.1, 1.5, 29
)  # c: published curves lie between 0.1 and 0.7, easy sets fall faster
_RESAMPLED = 200
_NOTHING = 0.005  # a gain that is not worth collecting for
_DOUBT = (10, 90)  # percentiles of the resampled gains
# standard errors above the largest class's share, for a curve to be about more than guessing
_CLEARLY = 2.0

Fit = Callable[[Labels], LinearHead]
"""Fits a head on the pictures at the given places, always with the same strength."""


@dataclass(frozen=True)
class Sample:
    """The pictures to learn from: those of train and val."""

    embeddings: NDArray[np.float32]
    """[n, d]."""
    labels: Labels
    """Class numbers [n]."""
    groups: Sequence[int]
    """[n]: near copies share one and stand on one side of a fold."""
    classes: int
    seed: int


def learning_curve(
    sample: Sample, fit: Fit, report: Progress, in_time: InTime = always_in_time
) -> dict[str, Any] | None:
    """`learning_curve` of metrics.json; None with too few pictures, and where the time ended before
    the last fit.
    """
    if len(sample.labels) < MINIMUM_PICTURES:
        return None
    hits, sizes = np.zeros((len(SHARES), len(sample.labels)), np.bool_), np.zeros(len(SHARES))
    folds = cut_folds(sample.labels, sample.groups, sample.seed)
    steps = len(folds) * len(SHARES)
    for done, (place, learned, held_out) in enumerate(_fits(sample, folds)):
        if not in_time():
            return None
        hits[place, held_out] = (
            fit(learned).logits(sample.embeddings[held_out]).argmax(1) == sample.labels[held_out]
        )
        sizes[place] += len(learned) / sample.classes / len(folds)
        report(done + 1, steps)
    return _told(hits, sizes, sample)


def extrapolate(sizes: Floats, errors: Floats, weights: Floats, wanted: Floats) -> Floats:
    """Errors [k, m] that power laws through errors [k, p] at sizes [p] predict for the wanted sizes
    [m].

    `weights` [p] are inverse variances of the points. For each exponent a and b are fitted by least
    squares, neither below 0, so that a law never rises and never promises less than no error.
    """
    predicted, misfits = zip(
        *(_law(sizes, errors, weights, wanted, c) for c in _EXPONENTS), strict=True
    )
    misfit = np.array(misfits)  # [exponents, k]
    says = np.exp(-0.5 * (misfit - misfit.min(axis=0)))
    result: Floats = np.einsum("ckm,ck->km", np.array(predicted), says / says.sum(axis=0))
    return result


def _fits(
    sample: Sample, folds: Sequence[tuple[Labels, Labels]]
) -> Iterator[tuple[int, Labels, Labels]]:
    """(place in SHARES, places to learn from, places held out) of every fit; a share contains the
    smaller ones.
    """
    random = np.random.default_rng(sample.seed)
    for learned, held_out in folds:
        order = _evenly(sample, learned, random)
        for place, share in enumerate(SHARES):
            yield place, np.sort(order[: round(share * len(order))]), held_out


def _evenly(sample: Sample, places: Labels, random: np.random.Generator) -> Labels:
    """The places in an order whose every beginning has the classes in the same proportions, near
    copies together.

    Each group stands at a random share of the way through its class, and all classes are walked
    through side by side.
    """
    labels, groups = sample.labels[places], np.asarray(sample.groups)[places]
    share = np.zeros(len(places))
    for label in np.unique(labels):
        ours = np.flatnonzero(labels == label)
        _, number = np.unique(groups[ours], return_inverse=True)
        walk = np.argsort(random.permutation(number.max() + 1)[number], kind="stable")
        share[ours[walk]] = (np.arange(len(ours)) + 0.5) / len(ours)
    return places[np.argsort(share, kind="stable")]


def _told(hits: NDArray[np.bool_], sizes: Floats, sample: Sample) -> dict[str, Any]:
    """Points, gain and sentence from hits [shares, n] of heads that learned from so many pictures
    per class [shares].

    More pictures would come to all of the sample, from which the delivered head learned.
    """
    accuracy = hits.mean(axis=1)
    error = np.sqrt(np.maximum(accuracy * (1 - accuracy), 1 / hits.shape[1]) / hits.shape[1])
    gains = _gains(hits, sizes, len(sample.labels) / sample.classes, sample.seed)
    points = [
        {"per_class": round(float(size)), "accuracy": float(share), "error": float(doubt)}
        for size, share, doubt in zip(sizes, accuracy, error, strict=True)
    ]
    guessing = np.bincount(sample.labels).max() / len(sample.labels)
    knows = bool(accuracy[-1] > guessing + _CLEARLY * error[-1])
    return {
        "points": points,
        "more_per_class": MORE_PER_CLASS,
        "gain": float(np.median(gains)),
        "sentence": _sentence(gains)
        if knows
        else "With these pictures too little was learned to say what more would bring.",
    }


def _gains(hits: NDArray[np.bool_], sizes: Floats, present: float, seed: int) -> Floats:
    """The gain in accuracy [200] on resampled pictures; all points share a sample, as they share
    their pictures.

    For the same reason the points are surer of each other than each is of itself: that some
    pictures are hard for all heads moves the whole curve, and only what is left without it is noise
    between the points.
    """
    between = (hits - hits.mean(axis=0)).var(axis=1) / hits.shape[1]
    weights = 1 / np.maximum(between, 1 / hits.shape[1] ** 2)
    random = np.random.default_rng(seed)
    drawn = random.multinomial(
        hits.shape[1], np.full(hits.shape[1], 1 / hits.shape[1]), size=_RESAMPLED
    )
    errors = 1 - drawn @ hits.T / hits.shape[1]
    wanted = np.array([present, present + MORE_PER_CLASS])
    predicted = extrapolate(sizes, errors, weights, wanted)
    result: Floats = predicted[:, 0] - predicted[:, 1]
    return result


def _law(
    sizes: Floats, errors: Floats, weights: Floats, wanted: Floats, exponent: float
) -> tuple[Floats, Floats]:
    """Predictions [k, m] and misfit [k] of the best a and b, both at least 0, for one exponent."""
    falling = sizes**-exponent
    share = weights / weights.sum()
    middle, average = share @ falling, errors @ share
    slope = np.maximum(
        0,
        ((errors - average[:, None]) * share)
        @ (falling - middle)
        / (share @ (falling - middle) ** 2),
    )
    floor = average - slope * middle
    through_zero = (
        errors @ (share * falling) / (share @ falling**2)
    )  # the best slope where the floor is 0
    slope, floor = np.where(floor < 0, through_zero, slope), np.maximum(0, floor)
    misfit = (errors - floor[:, None] - slope[:, None] * falling) ** 2 @ weights
    return floor[:, None] + slope[:, None] * wanted**-exponent, misfit


def _sentence(gains: Floats) -> str:
    gain, (low, high) = np.median(gains), np.percentile(gains, _DOUBT)
    if gain < _NOTHING or low <= 0:
        return "More pictures of the same kind would hardly help."
    if high - low > 2 * gain:
        return f"{MORE_PER_CLASS} more pictures per class would probably help, but by how much cannot be said."
    return f"{MORE_PER_CLASS} more pictures per class would give about {100 * gain:+.1f} points."
