"""The linear head: logistic regression on embeddings; C and temperature by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.images.split import cut_folds
from training.metrics import Floats, Labels, log_loss
from training.progress import Progress

HasTime = Callable[[], bool]
"""Returns whether there is time left to go on searching."""

# Inverse regularisation strengths (scikit-learn's C) on standardised embeddings, from a nearly
# constant answer to a nearly free one.
C_VALUES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

_ITERATIONS = 300
_FEW_PREDICTIONS = 100  # below this a temperature must lower the loss
_LEAST_IMPROVEMENT = 0.02  # by this share
_TEMPERATURES = (0.1, 10.0)
# Share of the median deviation below which a number is not enlarged further: one that hardly ever
# differs from 0 in training would let a single held-out image that shows it drown all others.
_LEAST_DEVIATION = 0.1
_NEVER = -30.0  # logit of a class that the images learned from do not contain


@dataclass(frozen=True)
class Samples:
    """Images with labels that are learned from together."""

    embeddings: NDArray[np.float32]
    """[n, d]."""
    labels: Labels
    """[n] in 0..classes-1."""
    groups: Labels
    """[n]: near-duplicates share a number."""
    classes: int

    def take(self, indices: Labels | NDArray[np.bool_]) -> Samples:
        """Return only the images at these indices."""
        return Samples(
            embeddings=self.embeddings[indices],
            labels=self.labels[indices],
            groups=self.groups[indices],
            classes=self.classes,
        )


@dataclass(frozen=True)
class LinearHead:
    """logits = embedding @ weight.T + bias."""

    weight: Floats
    """[classes, d]."""
    bias: Floats
    """[classes]."""

    def logits(self, embeddings: NDArray[np.float32]) -> Floats:
        """Return logits [n, classes] of embeddings [n, d]."""
        logits: Floats = embeddings @ self.weight.T + self.bias
        return logits


@dataclass(frozen=True)
class FittedHead:
    """The head, and what cross-validation says about it."""

    head: LinearHead
    c: float
    """The best of those tried."""
    temperature: float
    out_of_fold: Floats
    """Logits [n, classes] of each sample by a head that saw neither it nor a near-duplicate."""
    tried: int
    """How many values of C the search came to, from the first on."""
    search: tuple[tuple[float, float], ...] = ()
    """Of each of them the cross-validated loss and accuracy."""


def fit_head(
    samples: Samples,
    seed: int,
    report: Progress,
    has_time: HasTime = lambda: True,
    weights: Floats | None = None,
    c_values: Sequence[float] = C_VALUES,
) -> FittedHead:
    """Search for the best C by cross-validation and fit the head with it.

    `c_values` rise.

    `weights` [n] say how much each image counts in every fit; all images are predicted and judged
    alike. Near-duplicates share a fold.

    Once `has_time` returns False, the search ends with the best C that every fold has tried, at
    least one; only the final fit with it follows. A search that had time is the same every time.
    """
    labels = samples.labels
    folds = cut_folds(labels, samples.groups, seed)
    steps = len(folds) * len(c_values) + 1
    if weights is None:
        weights = np.ones(len(labels))

    def report_fits(done: int) -> None:
        report(done, steps)

    tried = []
    losses = []
    search = []
    for logits in _search(samples, weights, folds, c_values, report_fits, has_time):
        loss = log_loss(logits, labels)
        right = logits.argmax(axis=1) == labels
        tried.append(logits)
        losses.append(loss)
        search.append((loss, float(right.mean())))
    best = int(np.argmin(losses))
    path = _fit_path(samples, weights, c_values[: best + 1])
    *_, head = path
    report(steps, steps)
    out_of_fold = tried[best]
    return FittedHead(
        head=head,
        c=c_values[best],
        temperature=find_temperature(out_of_fold, labels),
        out_of_fold=out_of_fold,
        tried=len(tried),
        search=tuple(search),
    )


def fit_with_c(samples: Samples, c: float, weights: Floats | None = None) -> LinearHead:
    """Fit the head of one C; images of weight 0 are left out."""
    if weights is None:
        weights = np.ones(len(samples.labels))
    return next(_fit_path(samples, weights, [c]))


def find_temperature(logits: Floats, labels: Labels) -> float:
    """Find the divisor of logits [n, classes] that makes confidence agree with accuracy.

    Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks"): minimises the
    log loss of held-out predictions. The targets are smoothed by one imagined miss, so that
    faultless predictions do not become certainties (compare Platt 1999). With fewer than 100
    predictions the answer is 1 unless the loss falls by more than 2 %.
    """
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    one_miss = 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return log_loss(scaled, labels, smoothing=one_miss)

    lowest, highest = np.log(_TEMPERATURES)
    found = minimize_scalar(loss, bounds=(lowest, highest), method="bounded")
    best = float(found.x)
    if len(labels) < _FEW_PREDICTIONS:
        least_loss = (1 - _LEAST_IMPROVEMENT) * loss(0.0)
        if loss(best) > least_loss:
            return 1.0
    return float(np.exp(best))


def _search(
    samples: Samples,
    weights: Floats,
    folds: Sequence[tuple[Labels, Labels]],
    c_values: Sequence[float],
    report: Callable[[int], None],
    has_time: HasTime,
) -> Iterator[Floats]:
    """Yield the out-of-fold logits [n, classes] of each C in rising order, of the first always.

    A C is tried in all folds before the next, so that a search cut short has whole ones to choose
    from.
    """
    paths = []
    for train, _ in folds:
        learned = samples.take(train)
        paths.append(_fit_path(learned, weights[train], c_values))
    fits_done = 0
    for c in c_values:
        logits = np.full((len(samples.labels), samples.classes), _NEVER)
        for path, (_, held_out) in zip(paths, folds, strict=True):
            if c != c_values[0] and not has_time():
                return
            head = next(path)
            unseen = samples.embeddings[held_out]
            logits[held_out] = head.logits(unseen)
            fits_done += 1
            report(fits_done)
        yield logits


def _fit_path(samples: Samples, weights: Floats, c_values: Sequence[float]) -> Iterator[LinearHead]:
    """Yield a head for each C in rising order, each fit starting where the one before ended."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    counting = weights > 0
    weights = weights[counting]
    samples = samples.take(counting)
    labels = samples.labels
    embeddings = samples.embeddings
    classes = np.unique(labels)
    if len(classes) == 1:  # a fold of few groups may leave a single class to learn from
        weight = np.zeros((1, embeddings.shape[1]))
        bias = np.zeros(1)
        for _ in c_values:
            yield _head_of(classes, weight, bias, samples.classes)
        return
    mean = embeddings.mean(axis=0, dtype=np.float64)
    deviation = embeddings.std(axis=0, dtype=np.float64)
    least = 1.0
    if deviation.any():
        least = _LEAST_DEVIATION * float(np.median(deviation[deviation > 0]))
    deviation = np.maximum(deviation, least)
    # Not named: this generator would keep it while it waits.
    coordinates, basis = _rotate((embeddings - mean) / deviation)
    # Balanced: every class counts the same, however few its images. On unequal photograph sets
    # that gave 2 to 8 points of balanced accuracy and cost no loss.
    model = LogisticRegression(
        solver="newton-cg", max_iter=_ITERATIONS, warm_start=True, class_weight="balanced"
    )
    for c in c_values:
        # The products are small: a second thread would mostly wait for the first.
        with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
            # The largest C need not converge to be compared honestly on held-out images.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=c)
            model.fit(coordinates, labels, sample_weight=weights)
        weight = np.asarray(model.coef_) @ basis
        bias = np.asarray(model.intercept_)
        if len(weight) == 1:
            # Two classes share one vector; half of it for each gives the same probabilities.
            weight = np.concatenate([-weight, weight]) / 2
            bias = np.concatenate([-bias, bias]) / 2
        weight = weight / deviation  # undo the standardisation
        bias = bias - weight @ mean
        yield _head_of(classes, weight, bias, samples.classes)


def _rotate(rows: Floats) -> tuple[Floats, Floats]:
    """Return coordinates [n, r] of rows [n, d] in the space that they span, and its basis [r, d].

    A penalised linear model never leaves that space, so with fewer images than numbers this gives
    the same model many times faster.
    """
    count, dimension = rows.shape
    if count >= dimension:
        return rows, np.eye(dimension)
    gram = rows @ rows.T
    eigenvalues, vectors = np.linalg.eigh(gram)
    positive = eigenvalues > eigenvalues[-1] * 1e-10
    lengths = np.sqrt(eigenvalues[positive])
    vectors = vectors[:, positive]
    basis = (vectors / lengths).T @ rows
    return vectors * lengths, basis


def _head_of(present: Labels, weight: Floats, bias: Floats, classes: int) -> LinearHead:
    """Return a head over all classes from the rows of those present; the others are never named."""
    full_weight = np.zeros((classes, weight.shape[1]))
    full_weight[present] = weight
    full_bias = np.full(classes, _NEVER)
    full_bias[present] = bias
    return LinearHead(full_weight, full_bias)
