"""What letting suspected labels count less brings, beside leaving out exactly the wrong ones.

`python -m benchmarks.suspects [--seeds 10] [--sets SET...] [--features FOLDER]`

Sets and features are those of `benchmarks.image_sets`, of the whole picture. Each seed holds one
fold of five out, with its labels as they are; 0 to 30 % of the other labels are swapped. Figures
are balanced accuracies on the held-out fold when all count alike, and the differences that a run's
own weighting makes and that leaving out exactly the wrong ones makes (the oracle), as means over
the seeds with the standard error of the mean.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.accuracy import right, swapped, wrong_labels
from benchmarks.image_sets import Places, image_set
from training.fitting.label_issues import choose_weighting, out_of_fold_probabilities
from training.fitting.linear_head import LinearHead, Samples, fit_head
from training.images.split import cut_folds
from training.metrics import Floats
from training.phrases import percent
from training.progress import no_progress

SETS = ("stamps6", "alive_or_not", "household", "clip2")
SWAPPED = (0.0, 0.1, 0.2, 0.3)  # shares of the labels learned from
_FOLDS = 5

Row = dict[str, float]


def accuracy(head: LinearHead, held_out: Samples) -> float:
    """Return the balanced accuracy."""
    hits = right(head, held_out)
    of_classes = []
    for label in np.unique(held_out.labels):
        is_label = held_out.labels == label
        of_classes.append(hits[is_label].mean())
    return float(np.mean(of_classes))


def trial(everything: Samples, share: float, seed: int) -> Row:
    """Return the accuracy when all count alike, what rule and oracle add, and if the rule acts."""
    learned, unseen = cut_folds(everything.labels, everything.groups, seed, _FOLDS)[0]
    truth = everything.take(learned)
    held_out = everything.take(unseen)
    wrong = swapped(truth, share, seed)
    labels = wrong_labels(truth, wrong, seed)
    given = Samples(truth.embeddings, labels, truth.groups, truth.classes)
    fitted = fit_head(given, seed, no_progress)
    pred_probs = out_of_fold_probabilities(given, fitted.c, seed)
    weighting = choose_weighting(given, pred_probs, fitted.c, seed)
    weighted = fit_head(given, seed, no_progress, weights=weighting.weights)
    without = fit_head(given, seed, no_progress, weights=np.where(wrong, 0.0, 1.0))
    alike = accuracy(fitted.head, held_out)
    return {
        "alike": alike,
        "rule": accuracy(weighted.head, held_out) - alike,
        "oracle": accuracy(without.head, held_out) - alike,
        "acts": float(weighting.lighter > 0),
    }


def with_error(values: Floats) -> str:
    """Return a mean in points with its standard error."""
    error = math.nan
    if len(values) > 1:
        deviation = float(values.std(ddof=1))
        error = 100 * deviation / math.sqrt(len(values))
    return f"{100 * values.mean():+.1f} ± {error:.1f}"


def table_row(name: str, share: float, rows: Sequence[Row]) -> str:
    """Return a row of the table in Markdown."""
    columns = {}
    for figure in rows[0]:
        columns[figure] = np.array([row[figure] for row in rows])
    cells = [
        f"{name}, {percent(share)} swapped",
        f"{100 * columns['alike'].mean():.1f}",
        with_error(columns["rule"]),
        percent(columns["acts"].mean()),
        with_error(columns["oracle"]),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measures what suspects that count less bring.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sets", nargs="+", default=SETS, metavar="SET")
    parser.add_argument("--features", type=Path, metavar="FOLDER", help="kept between runs here")
    given = parser.parse_args()
    print("| set | all alike | the rule | it acts in | oracle |\n|---|---|---|---|---|")
    for name in given.sets:
        everything = image_set(name, Places(), given.features).samples(True)
        for share in SWAPPED:
            rows = [trial(everything, share, seed) for seed in range(given.seeds)]
            print(table_row(name, share, rows), flush=True)


if __name__ == "__main__":
    main()
