"""The linear head: logistic regression on embeddings, its strength and temperature
cross-validated.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.images.split import cut_folds
from training.metrics import Floats, Labels, log_loss
from training.progress import Progress

InTime = Callable[[], bool]
"""Whether there is time left to go on searching."""

# Inverse regularisation on standardised embeddings, from a nearly constant answer to a nearly free
# one.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

_ITERATIONS = 300
_FEW_PREDICTIONS = 100  # below this a temperature must earn its place
_WORTHWHILE = 0.02  # by lowering the loss by this share
_TEMPERATURES = (0.1, 10.0)
# Share of the usual spread below which a number is not enlarged further: one that hardly ever
# differs from 0 in training would let a single held-out picture that shows it drown all others.
_LEAST_SPREAD = 0.1
_UNSEEN = -30.0  # logit of a class that a fold's training part does not contain


def always_in_time() -> bool:
    """For a search without a limit."""
    return True


@dataclass(frozen=True)
class LinearHead:
    """logits = embedding @ weight.T + bias."""

    weight: Floats
    """[classes, d]."""
    bias: Floats
    """[classes]."""

    def logits(self, embeddings: NDArray[np.float32]) -> Floats:
        """[n, d] to [n, classes]."""
        result: Floats = embeddings @ self.weight.T + self.bias
        return result


@dataclass(frozen=True)
class FittedHead:
    """The head, and what cross-validation says about it."""

    head: LinearHead
    strength: float
    temperature: float
    out_of_fold: Floats
    """Logits [n, classes] of each training picture by a head that never saw it or a near copy of it."""
    tried: int
    """How many of STRENGTHS the search came to, from the first on."""


def fit_head(
    embeddings: NDArray[np.float32],
    labels: Labels,
    groups: Sequence[int] | Labels,
    classes: int,
    seed: int,
    report: Progress,
    in_time: InTime = always_in_time,
    weights: Floats | None = None,
) -> FittedHead:
    """Fit on embeddings [n, d] with labels [n] in 0..classes-1; near copies share a group and a
    fold.

    `weights` [n] say how much each picture counts in every fit; all pictures are predicted and
    judged alike.

    Once `in_time` says no, the search ends with the best of the strengths that every fold has
    tried, at least one; only the final fit with that strength follows. A search that was in time is
    the same every time.
    """
    folds = cut_folds(labels, groups, seed)
    steps = len(folds) * len(STRENGTHS) + 1
    counts = np.ones(len(labels)) if weights is None else weights
    search = _Search(embeddings, labels, counts, classes)
    tried = list(search.run(folds, lambda done: report(done, steps), in_time))
    best = int(np.argmin([log_loss(logits, labels) for logits in tried]))
    *_, head = _path(embeddings, labels, classes, STRENGTHS[: best + 1], counts)
    report(steps, steps)
    return FittedHead(
        head, STRENGTHS[best], find_temperature(tried[best], labels), tried[best], len(tried)
    )


def find_temperature(logits: Floats, labels: Labels) -> float:
    """The divisor of logits [n, classes] that makes held-out predictions as sure as they are right.

    Minimises the log loss, with targets smoothed by one imagined miss so that faultless predictions
    do not become certainties. With fewer than 100 predictions the answer is 1 unless the loss falls
    by more than 2 %.
    """
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    miss = 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        return log_loss(logits / np.exp(log_temperature), labels, smoothing=miss)

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded")
    if len(labels) < _FEW_PREDICTIONS and loss(float(found.x)) > (1 - _WORTHWHILE) * loss(0.0):
        return 1.0
    return float(np.exp(found.x))


def fit_strength(
    embeddings: NDArray[np.float32],
    labels: Labels,
    classes: int,
    strength: float,
    weights: Floats | None = None,
) -> LinearHead:
    """The head of one strength on embeddings [n, d] with labels [n]; pictures of weight 0 are not
    looked at.
    """
    counts = np.ones(len(labels)) if weights is None else weights
    (head,) = _path(embeddings, labels, classes, (strength,), counts)
    return head


@dataclass(frozen=True)
class _Search:
    """What the strengths are tried on."""

    embeddings: NDArray[np.float32]
    labels: Labels
    weights: Floats
    classes: int

    def run(
        self, folds: Sequence[tuple[Labels, Labels]], report: Callable[[int], None], in_time: InTime
    ) -> Iterator[Floats]:
        """Yield the out-of-fold logits [n, classes] of each strength in rising order, of the first
        in any case.

        A strength is tried in all folds before the next, so that a search cut short has whole ones
        to choose from.
        """
        paths = [self._path(train) for train, _ in folds]
        for place in range(len(STRENGTHS)):
            logits = np.full((len(self.labels), self.classes), _UNSEEN)
            for number, (path, (_, held_out)) in enumerate(zip(paths, folds, strict=True), 1):
                if place and not in_time():
                    return
                logits[held_out] = next(path).logits(self.embeddings[held_out])
                report(place * len(folds) + number)
            yield logits

    def _path(self, train: Labels) -> Iterator[LinearHead]:
        return _path(
            self.embeddings[train], self.labels[train], self.classes, STRENGTHS, self.weights[train]
        )


def _path(
    embeddings: NDArray[np.float32],
    labels: Labels,
    classes: int,
    strengths: Sequence[float],
    weights: Floats,
) -> Iterator[LinearHead]:
    """Yield a head for each strength in rising order, each fit starting where the one before
    ended.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    counting = weights > 0
    embeddings, labels, weights = embeddings[counting], labels[counting], weights[counting]
    if len(np.unique(labels)) == 1:  # a fold of few groups may leave a single class to learn from
        yield from (_certain(labels[0], classes, embeddings.shape[1]) for _ in strengths)
        return
    centre = embeddings.mean(axis=0, dtype=np.float64)
    spread = embeddings.std(axis=0, dtype=np.float64)
    spread = np.maximum(
        spread, _LEAST_SPREAD * np.median(spread[spread > 0]) if spread.any() else 1.0
    )
    coordinates, back = _rotated((embeddings - centre) / spread)
    # Balanced: every class has the same say, however few its pictures. On unequal photograph sets
    # that gave 2 to 8 points of balanced accuracy and cost no loss.
    model = LogisticRegression(
        solver="newton-cg", max_iter=_ITERATIONS, warm_start=True, class_weight="balanced"
    )
    for strength in strengths:
        # The products are small: a second thread would mostly wait for the first.
        with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
            # The weakest regularisations need not converge to be compared honestly on held-out
            # pictures.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=strength).fit(coordinates, labels, sample_weight=weights)
        yield _folded(model, np.asarray(model.coef_) @ back, centre, spread, classes)


def _certain(label: int, classes: int, dimension: int) -> LinearHead:
    """A head that always names the one class it knows."""
    head = LinearHead(np.zeros((classes, dimension)), np.full(classes, _UNSEEN))
    head.bias[label] = 0.0
    return head


def _rotated(pictures: Floats) -> tuple[Floats, Floats]:
    """Coordinates [n, r] of pictures [n, d] in the space that they span, and the way back [r, d].

    A penalised linear model never leaves that space, so with fewer pictures than numbers this gives
    the same model many times faster.
    """
    if len(pictures) >= pictures.shape[1]:
        return pictures, np.eye(pictures.shape[1])
    squares, directions = np.linalg.eigh(pictures @ pictures.T)
    real = squares > squares[-1] * 1e-10
    lengths = np.sqrt(squares[real])
    return directions[:, real] * lengths, (directions[:, real] / lengths).T @ pictures


def _folded(model: Any, weight: Floats, centre: Floats, spread: Floats, classes: int) -> LinearHead:
    """The fitted model as one linear layer on plain embeddings, with a row for every class."""
    bias = np.asarray(model.intercept_)
    if (
        len(weight) == 1
    ):  # two classes: one vector decides; half of it for each gives the same probabilities
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / spread
    bias = bias - weight @ centre
    full = LinearHead(np.zeros((classes, len(centre))), np.full(classes, _UNSEEN))
    full.weight[model.classes_], full.bias[model.classes_] = weight, bias
    return full
