"""Leave one class out: how often images are refused by a classifier that lacks their class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import HasTime, Samples, fit_head
from training.fitting.relevance import out_of_fold_novelty, reject_threshold
from training.metrics import LeftOutClass, softmax
from training.networks.novelty import choose_references
from training.progress import no_progress

_FEWEST = 3  # classes, so that two are left
_MOST = 5  # classes that are left out, so that the time stays bounded


def leave_classes_out(
    samples: Samples, c: float, seed: int, has_time: HasTime
) -> LeftOutClass | None:
    """Return how many images of each class are refused by a head of C that lacks it.

    References, temperature and threshold lack it too. None with fewer than three classes, and
    without time for one of them.
    """
    if samples.classes < _FEWEST:
        return None
    random = np.random.default_rng(seed)
    chosen = random.permutation(samples.classes)[:_MOST]
    refused = 0
    shown = 0
    left_out = 0
    for label in chosen:
        if not has_time():
            break
        of_class = samples.labels == label
        refused += _count_refused(samples, of_class, c, seed)
        shown += int(of_class.sum())
        left_out += 1
    if not left_out:
        return None
    return LeftOutClass(refused=refused, n=shown, classes=left_out)


def _count_refused(samples: Samples, of_class: NDArray[np.bool_], c: float, seed: int) -> int:
    """Return how many of a class's images are refused by a head on the others alone."""
    others = _without(samples, of_class)
    fitted = fit_head(others, seed, no_progress, c_values=[c])
    unseen = softmax(fitted.out_of_fold / fitted.temperature)
    threshold = reject_threshold(out_of_fold_novelty(others, unseen, seed))
    references = choose_references(others.embeddings, others.labels, others.classes, seed)
    strangers = samples.embeddings[of_class]
    logits = fitted.head.logits(strangers)
    probabilities = softmax(logits / fitted.temperature)
    novelty = references.novelty(strangers, probabilities)
    is_refused = novelty > threshold
    return int(is_refused.sum())


def _without(samples: Samples, of_class: NDArray[np.bool_]) -> Samples:
    """Return the images of the other classes, which are numbered anew."""
    rest = samples.take(~of_class)
    _, numbers = np.unique(rest.labels, return_inverse=True)
    labels = numbers.astype(np.int64)
    return Samples(
        embeddings=rest.embeddings,
        labels=labels,
        groups=rest.groups,
        classes=samples.classes - 1,
    )
