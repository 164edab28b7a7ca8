"""How well pictures that do not belong are found among those that are learned from.

`python -m benchmarks.outliers [--seeds 5] [--sets SET...] [--features FOLDER]`

Sets and features are those of `benchmarks.image_sets`, of the whole picture. To four folds of five
strangers are added, 30 % of each class's own number: the same kinds to all classes, or another kind
to each. Figures are the shares, in %, of the strangers among the first 30 % of a ranking: of the
label scores alone, of the novelty that was ranked before, and of a run's own; then the shares of
strangers and of the set's own pictures that are called outliers. "±" is the standard error over
the seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import PLANTED, planted_in
from benchmarks.image_sets import Places, image_set
from benchmarks.paired import of_repetitions
from training.fitting.label_issues import (
    find_label_issues,
    label_issue_scores,
    out_of_fold_probabilities,
)
from training.fitting.linear_head import Samples, fit_head
from training.fitting.relevance import (
    OUTLIER_DISTANCE,
    combined_doubt,
    core_distances,
    doubt_by_distance,
    out_of_fold_novelty,
)
from training.images.split import cut_folds
from training.metrics import Floats, softmax
from training.progress import no_progress

SETS = ("stamps6", "background6", "alive_or_not", "clip2", "household")
LOOKED_AT = 0.3  # share of the ranking that a person looks at
_FOLDS = 5


def trial(everything: Samples, kinds: Samples, planted: str, seed: int) -> dict[str, float]:
    """Return the figures of one seed; those of strangers are missing where none are planted."""
    learned, _ = cut_folds(everything.labels, everything.groups, seed, _FOLDS)[0]
    own = everything.take(learned)
    given = planted_in(own, kinds, planted, seed)
    is_stranger = np.arange(len(given.labels)) >= len(own.labels)
    fitted = fit_head(given, seed, no_progress)
    pred_probs = out_of_fold_probabilities(given, fitted.c, seed)
    by_label = label_issue_scores(pred_probs, given.labels)
    probabilities = softmax(fitted.out_of_fold / fitted.temperature)
    distances = core_distances(given)
    issues = find_label_issues(pred_probs, given.labels)
    is_outlier = (distances > OUTLIER_DISTANCE) & ~issues
    figures = {"own called outliers": float(is_outlier[~is_stranger].mean())}
    if is_stranger.any():
        novelty = out_of_fold_novelty(given, probabilities, seed)
        rankings = {
            "label score": by_label,
            "novelty": novelty,
            "a run's ranking": combined_doubt(by_label, doubt_by_distance(distances)),
        }
        for name, scores in rankings.items():
            figures[name] = _found(scores, is_stranger)
        figures["strangers called outliers"] = float(is_outlier[is_stranger].mean())
    return figures


def _found(scores: Floats, is_stranger: NDArray[np.bool_]) -> float:
    """Return the share of the strangers that stand in the part of the ranking looked at."""
    order = np.argsort(-scores, kind="stable")
    looked_at = order[: round(LOOKED_AT * len(order))]
    return float(is_stranger[looked_at].sum() / is_stranger.sum())


def table_row(name: str, planted: str, rows: Sequence[dict[str, float]]) -> str:
    """Return a row of the table in Markdown."""
    cells = [f"{name}, {planted}"]
    for figure in _FIGURES:
        values = [row[figure] for row in rows if figure in row]
        measure = of_repetitions(values)
        cells.append(f"{100 * measure.mean:.0f} ± {100 * measure.error:.0f}" if values else "")
    return f"| {' | '.join(cells)} |"


_FIGURES = (
    "label score",
    "novelty",
    "a run's ranking",
    "strangers called outliers",
    "own called outliers",
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measures how well strangers are found.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=SETS, metavar="SET")
    parser.add_argument("--features", type=Path, metavar="FOLDER", help="kept between runs here")
    given = parser.parse_args()
    print(f"| set, strangers | {' | '.join(_FIGURES)} |\n|{'---|' * (len(_FIGURES) + 1)}")
    for name in given.sets:
        everything = image_set(name, Places(), given.features).samples(True)
        strangers = "strangers-drawings" if name.startswith("clip") else "strangers-stamps"
        kinds = image_set(strangers, Places(), given.features).samples(True)
        for planted in PLANTED:
            rows = [trial(everything, kinds, planted, seed) for seed in range(given.seeds)]
            print(table_row(name, planted, rows), flush=True)


if __name__ == "__main__":
    main()
