"""Measure how often unrelated pictures are refused, and whether a bank of other pictures helps.

A bank is a set of pictures of nothing in particular. Two terms are compared with the novelty as it
is: likeness to the bank's nearest ten pictures, taken off or added, and the probability by a
linear classifier that a picture belongs to the bank rather than to the learned ones. The threshold
is set by cross-validation for 5 % false alarms each time. The kinds of strangers that are shown are
never in the bank.

    python -m benchmarks.strangers --features FOLDER [--seeds 5]

`FOLDER` holds what `python -m benchmarks.image_sets --features FOLDER` writes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from training.fitting.linear_head import Samples, fit_head
from training.fitting.relevance import FALSE_ALARMS, out_of_fold_novelty
from training.images.split import cut_folds
from training.metrics import Floats, softmax
from training.networks.novelty import References, choose_references
from training.progress import no_progress

SETS = ("stamps6", "alive_or_not", "household", "background6", "clip2", "clip6")
STRANGERS = ("strangers-stamps", "strangers-drawings", "strangers-signs", "strangers-scenes")
TERMS = ("as it is", "− ½ likeness", "+ ½ likeness", "+ ½ probability")
_HALVES = 2  # of the kinds: one is the bank, the other is shown
_NEIGHBOURS = 10
_SHARE = 0.5  # of a term in the score
_C = 0.001
_TEST_SHARE = 5  # one group in so many is not learned from


@dataclass(frozen=True)
class Scores:
    """A term's scores of learned and of shown images."""

    learned: Floats
    """[n], by a model without the image."""
    shown: Floats
    """[m]."""

    def refused(self) -> float:
        """Return the share of shown images above the threshold that learned ones set."""
        threshold = np.quantile(self.learned, 1 - FALSE_ALARMS)
        is_refused = self.shown > threshold
        return float(is_refused.mean())


def read_set(folder: Path, name: str) -> Samples:
    """Read the features of a set by the middle of each image."""
    with np.load(folder / f"{name}.npz") as arrays:
        labels = arrays["labels"].astype(np.int64)
        classes = int(labels.max()) + 1
        return Samples(arrays["crop"], labels, arrays["groups"], classes)


def measure(clean: Samples, folder: Path, seed: int) -> dict[tuple[str, int], list[float]]:
    """Return by strangers and half of their kinds the share refused with each of TERMS."""
    random = np.random.default_rng(seed)
    every_group = random.permutation(np.unique(clean.groups))
    held_out = every_group[: len(every_group) // _TEST_SHARE]
    learned = clean.take(~np.isin(clean.groups, held_out))
    fitted = fit_head(learned, seed, no_progress, lambda: False)
    unseen = softmax(fitted.out_of_fold / fitted.temperature)
    own = out_of_fold_novelty(learned, unseen, seed)
    references = choose_references(learned.embeddings, learned.labels, learned.classes, seed)
    everything = {name: read_set(folder, name) for name in STRANGERS}
    refused = {}
    for half in range(_HALVES):
        parts = []
        for strangers in everything.values():
            other_kinds = strangers.labels % _HALVES != half
            parts.append(strangers.embeddings[other_kinds])
        bank = np.concatenate(parts)
        for name, strangers in everything.items():
            shown = strangers.embeddings[strangers.labels % _HALVES == half]
            if not len(shown):
                continue
            logits = fitted.head.logits(shown)
            probabilities = softmax(logits / fitted.temperature)
            today = Scores(own, references.novelty(shown, probabilities))
            terms = _terms(learned, references, bank, shown, seed)
            figures = [today.refused()]
            for sign, term in terms:
                with_term = _added(today, term, sign * _SHARE)
                figures.append(with_term.refused())
            refused[name, half] = figures
    return refused


def _terms(
    learned: Samples,
    references: References,
    bank: NDArray[np.float32],
    shown: NDArray[np.float32],
    seed: int,
) -> list[tuple[int, Scores]]:
    """Return what a bank says of the images, and with which sign it is added."""
    of_learned = _likeness(references, bank, learned.embeddings)
    likeness = Scores(of_learned, _likeness(references, bank, shown))
    probability = _bank_probability(learned, references, bank, shown, seed)
    return [(-1, likeness), (1, likeness), (1, probability)]


def _added(scores: Scores, term: Scores, share: float) -> Scores:
    learned = scores.learned + share * term.learned
    shown = scores.shown + share * term.shown
    return Scores(learned, shown)


def _likeness(
    references: References, bank: NDArray[np.float32], embeddings: NDArray[np.float32]
) -> Floats:
    """Return the mean cosine [n] to the nearest images of the bank."""
    bank_vectors = _unit(bank * references.scale)
    vectors = _unit(embeddings * references.scale)
    cosines = vectors @ bank_vectors.T
    nearest = np.partition(cosines, -_NEIGHBOURS, axis=1)[:, -_NEIGHBOURS:]
    mean: Floats = nearest.mean(axis=1)
    return mean


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / lengths
    return unit


def _bank_probability(
    learned: Samples,
    references: References,
    bank: NDArray[np.float32],
    shown: NDArray[np.float32],
    seed: int,
) -> Scores:
    """Return the probability of the bank by a linear classifier that has not seen the image."""
    own = learned.embeddings * references.scale
    other = bank * references.scale
    of_learned = np.zeros(len(own))
    for train, held_out in cut_folds(learned.labels, learned.groups, seed):
        of_learned[held_out] = _told_apart(own[train], other, own[held_out])
    return Scores(of_learned, _told_apart(own, other, shown * references.scale))


def _told_apart(own: NDArray[Any], other: NDArray[Any], judged: NDArray[Any]) -> Floats:
    """Return the probability [m] that judged images are of the other ones."""
    together = np.concatenate([own, other])
    center = together.mean(axis=0)
    labels = np.repeat([0, 1], [len(own), len(other)])
    classifier = LogisticRegression(C=_C, class_weight="balanced", max_iter=200)
    classifier.fit(together - center, labels)
    probability: Floats = classifier.predict_proba(judged - center)[:, 1]
    return probability


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table: per cent refused, and the difference to it that each term makes."""
    parser = argparse.ArgumentParser(description="Refusal with and without a bank.")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(arguments)
    print(f"| set, strangers | {' | '.join(TERMS)} |")
    print(f"|---|{'---|' * len(TERMS)}")
    by_seed: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for name in SETS:
        clean = read_set(options.features, name)
        for seed in range(options.seeds):
            refused = measure(clean, options.features, seed)
            for strangers in STRANGERS:
                halves = [row for (of, _), row in refused.items() if of == strangers]
                mean = 100 * np.mean(halves, axis=0)
                by_seed.setdefault((name, strangers), []).append(mean)
    for (name, strangers), rows in by_seed.items():
        kind = strangers.removeprefix("strangers-")
        print(f"| {name}, {kind} | {_cells(np.array(rows))} |", flush=True)
    everything = np.mean([np.array(rows) for rows in by_seed.values()], axis=0)
    print(f"| mean | {_cells(everything)} |")


def _cells(rows: NDArray[np.float64]) -> str:
    """Return the mean of seeds [s, terms] as it is, and of the differences, with errors."""
    differences = rows - rows[:, :1]
    errors = differences.std(axis=0, ddof=1) / np.sqrt(len(rows))
    means = differences.mean(axis=0)
    cells = [f"{rows[:, 0].mean():.1f}"]
    for mean, error in zip(means[1:], errors[1:], strict=True):
        cells.append(f"{mean:+.1f} ± {error:.1f}")
    return " | ".join(cells)


if __name__ == "__main__":
    main()
