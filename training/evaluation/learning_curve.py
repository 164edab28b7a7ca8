"""The learning curve: how accuracy grows with images, and what more of them would bring.

Heads are fitted on nested shares of each fold's images and tested on those held out. Through the
errors goes an inverse power law, error = a + b * n ** -c, whose form learning curves of many kinds
follow (Hestness et al. 2017, "Deep Learning Scaling is Predictable, Empirically"). Five points on
one set are few for three parameters, so none is picked: the best laws of all exponents are averaged
in proportion to their likelihoods, and the whole is repeated on resampled images to see how far
the answer can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import LinearHead, Samples
from training.images.split import cut_folds
from training.metrics import CurvePoint, Floats, Labels, LearningCurve
from training.progress import Progress

MINIMUM_IMAGES = 300  # below this the points lie within each other's noise
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
MORE_PER_CLASS = 200

# c: published curves lie between 0.1 and 0.7, easy sets fall faster
_EXPONENTS = np.linspace(0.1, 1.5, 29)
_RESAMPLINGS = 200
_LEAST_GAIN = 0.005  # a smaller gain in accuracy is not worth collecting for
_GAIN_PERCENTILES = (10, 90)  # of the resampled gains
# standard errors above guessing, for a curve to be about more than that
_CLEAR_STANDARD_ERRORS = 2.0

Fit = Callable[[Labels], LinearHead]
"""Fits a head on the samples at the given indices, always with the same C."""


def learning_curve(samples: Samples, seed: int, fit: Fit, report: Progress) -> LearningCurve | None:
    """Return `learning_curve` of metrics.json; None with too few images."""
    labels = samples.labels
    if len(labels) < MINIMUM_IMAGES:
        return None
    folds = cut_folds(labels, samples.groups, seed)
    fits = len(folds) * len(SHARES)
    fits_done = 0
    hits = np.zeros((len(SHARES), len(labels)), np.bool_)
    sizes = np.zeros(len(SHARES))
    random = np.random.default_rng(seed)
    for train, held_out in folds:
        order = _stratified_order(samples, train, random)
        unseen = samples.embeddings[held_out]
        for index, share in enumerate(SHARES):
            count = round(share * len(order))
            subset = np.sort(order[:count])  # contains those of the smaller shares
            head = fit(subset)
            logits = head.logits(unseen)
            predicted = logits.argmax(axis=1)
            hits[index, held_out] = predicted == labels[held_out]
            per_class = count / samples.classes
            sizes[index] += per_class / len(folds)
            fits_done += 1
            report(fits_done, fits)
    return _summary(hits, sizes, samples, seed)


def extrapolate(sizes: Floats, errors: Floats, weights: Floats, targets: Floats) -> Floats:
    """Return the errors [k, m] that power laws predict at the target sizes [m].

    The laws go through errors [k, p] at sizes [p]; `weights` [p] are inverse variances of the
    points. For each exponent a and b are fitted by least squares, neither below 0, so that a law
    never rises and never promises less than no error.
    """
    predictions = []
    misfits = []
    for exponent in _EXPONENTS:
        predicted, misfit = _fit_power_law(sizes, errors, weights, targets, exponent)
        predictions.append(predicted)
        misfits.append(misfit)
    misfit_of = np.array(misfits)  # [exponents, k]
    least = misfit_of.min(axis=0)
    excess = misfit_of - least
    likelihoods = np.exp(-0.5 * excess)
    shares = likelihoods / likelihoods.sum(axis=0)
    by_exponent = np.array(predictions)  # [exponents, k, m]
    averages: Floats = np.einsum("ckm,ck->km", by_exponent, shares)
    return averages


def _fit_power_law(
    sizes: Floats, errors: Floats, weights: Floats, targets: Floats, exponent: float
) -> tuple[Floats, Floats]:
    """Return predictions [k, m] and misfit [k] of the best a and b, both at least 0."""
    falling = sizes**-exponent
    shares = weights / weights.sum()
    # weighted least squares with an intercept
    mean_falling = shares @ falling
    mean_error = errors @ shares
    deviation = falling - mean_falling
    weighted_errors = (errors - mean_error[:, None]) * shares
    covariance = weighted_errors @ deviation
    variance = shares @ deviation**2
    slope = np.maximum(0, covariance / variance)
    floor = mean_error - slope * mean_falling
    # and through zero, where the intercept would lie below
    mean_product = errors @ (shares * falling)
    mean_square = shares @ falling**2
    slope = np.where(floor < 0, mean_product / mean_square, slope)
    floor = np.maximum(0, floor)

    a = floor[:, None]
    b = slope[:, None]
    residuals = errors - a - b * falling
    squares = residuals**2
    misfit = squares @ weights
    predicted = a + b * targets**-exponent
    return predicted, misfit


def _stratified_order(samples: Samples, train: Labels, random: np.random.Generator) -> Labels:
    """Return the indices `train` shuffled so that every beginning has the classes in proportion.

    Each near-duplicate group stands together at a random share of the way through its class, and
    all classes are walked through side by side.
    """
    labels = samples.labels[train]
    groups = samples.groups[train]
    position = np.zeros(len(train))  # share of the way through the class
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        _, numbers = np.unique(groups[members], return_inverse=True)
        ranks = random.permutation(numbers.max() + 1)
        order = np.argsort(ranks[numbers], kind="stable")
        members = members[order]
        count = len(members)
        position[members] = (np.arange(count) + 0.5) / count
    order = np.argsort(position, kind="stable")
    return train[order]


def _summary(hits: NDArray[np.bool_], sizes: Floats, samples: Samples, seed: int) -> LearningCurve:
    """Return points, gain and sentence.

    `hits` [shares, n] are those of heads that learned from so many images per class [shares]. More
    images would be added to all samples, from which the delivered head learned.
    """
    count = len(samples.labels)
    accuracies = hits.mean(axis=1)
    variances = accuracies * (1 - accuracies)  # of a Bernoulli variable
    variances = np.maximum(variances, 1 / count)
    errors = np.sqrt(variances / count)
    points = []
    for size, accuracy, error in zip(sizes, accuracies, errors, strict=True):
        point = CurvePoint(
            per_class=round(float(size)), accuracy=float(accuracy), error=float(error)
        )
        points.append(point)
    gains = _resampled_gains(hits, sizes, count / samples.classes, seed)
    if _tells_apart(hits[-1], samples):
        sentence = _sentence(gains)
    else:
        sentence = "With these pictures too little was learned to say what more would bring."
    return LearningCurve(
        points=points,
        more_per_class=MORE_PER_CLASS,
        gain=float(np.median(gains)),
        sentence=sentence,
    )


def _tells_apart(hits: NDArray[np.bool_], samples: Samples) -> bool:
    """Return whether hits [n] are clearly more than guessing, when every class counts the same.

    Of unequal classes a good head need not be right more often than the name of the largest.
    """
    recalls = []
    variance = 0.0
    for label in np.unique(samples.labels):
        of_class = hits[samples.labels == label]
        recalls.append(of_class.mean())
        variance += 1 / len(of_class)
    chance = 1 / len(recalls)
    error = math.sqrt(chance * (1 - chance) * variance) / len(recalls)
    return bool(np.mean(recalls) > chance + _CLEAR_STANDARD_ERRORS * error)


def _resampled_gains(hits: NDArray[np.bool_], sizes: Floats, per_class: float, seed: int) -> Floats:
    """Return the gain in accuracy [200] on resampled images.

    All points share a resample, as they share their images. For the same reason the points are
    surer of each other than each is of itself: that some images are hard for all heads moves the
    whole curve, and only what is left without it is noise between the points.
    """
    count = hits.shape[1]
    hit_rates = hits.mean(axis=0)  # of each image over all points
    residuals = hits - hit_rates
    variances = residuals.var(axis=1) / count
    least = 1 / count**2  # points that agree in all images have no variance
    weights = 1 / np.maximum(variances, least)
    random = np.random.default_rng(seed)
    uniform = np.full(count, 1 / count)
    resamples = random.multinomial(count, uniform, size=_RESAMPLINGS)
    accuracies = resamples @ hits.T / count
    errors = 1 - accuracies
    targets = np.array([per_class, per_class + MORE_PER_CLASS])
    predicted = extrapolate(sizes, errors, weights, targets)
    now, with_more = predicted.T
    gains: Floats = now - with_more
    return gains


def _sentence(gains: Floats) -> str:
    gain = np.median(gains)
    low, high = np.percentile(gains, _GAIN_PERCENTILES)
    if gain < _LEAST_GAIN or low <= 0:
        return "More pictures of the same kind would hardly help."
    more = f"{MORE_PER_CLASS} more pictures per class"
    if high - low > 2 * gain:
        return f"{more} would probably help, but by how much cannot be said."
    return f"{more} would give about {100 * gain:+.1f} points."
