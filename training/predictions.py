"""What a finished run said of each of its images: `predictions.csv` and `suspects.jsonl`.

numpy alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.metrics import Floats
from training.run_folder import SPLITS, RunError, Split

PREDICTIONS_FILE = "predictions.csv"  # in the run folder
SUSPECTS_FILE = "suspects.jsonl"  # likewise
SUSPICION_KEYS = ("kind", "suggested", "reason")
FIT_AGAIN = (
    "Delete its result.json and run `python -m training fit` on it again: its split stays as it is."
)


@dataclass(frozen=True)
class PredictedImage:
    """A row of `predictions.csv`: what was said of an image by a model that had not seen it."""

    file: str
    """As in the manifest."""
    class_id: str
    """Its label."""
    split: Split
    fold: int | None
    """Of the cross-validation; None where the image had no part in one."""
    group: int
    """Near-duplicates share one."""
    predicted: str
    """Id of the likeliest class."""
    probabilities: Floats
    """[classes] in output order: of a test image by the delivered model, else out-of-fold."""
    cross_validated: Floats | None
    """[classes], by a head that saw neither it nor a near-duplicate; None without one."""
    zero_shot: str = ""
    """Id of the class whose name alone fits best; "" without a text-image model."""


def read_predictions(run_dir: Path, class_ids: Sequence[str]) -> list[PredictedImage]:
    """Read `predictions.csv`: what was said of each image of a split.

    `class_ids` are in output order. Raises RunError where the file is damaged, or missing as in
    runs of version 0.1.0.
    """
    path = run_dir / PREDICTIONS_FILE
    predicted = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for values in csv.DictReader(file, strict=True):
                image = _predicted_image(values, class_ids)
                predicted.append(image)
    except FileNotFoundError as error:
        reason = "This run has no predictions.csv: an earlier version of Picaisso made it."
        raise RunError("evaluate", reason, FIT_AGAIN, retry=False) from error
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"The run folder's {PREDICTIONS_FILE} cannot be read."
        raise RunError("evaluate", reason, FIT_AGAIN, retry=False) from error
    return predicted


def read_suspects(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of `suspects.jsonl`; raises RunError where they cannot be read."""
    path = folder / SUSPECTS_FILE
    rows = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            row = {"file": row["file"], **row}
            for key in SUSPICION_KEYS:
                row.setdefault(key, None)
            rows.append(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"The run folder's {path.name} cannot be read."
        raise RunError("evaluate", reason, FIT_AGAIN, retry=False) from error
    return rows


def _predicted_image(values: Mapping[str, str | None], class_ids: Sequence[str]) -> PredictedImage:
    """Return a row of `predictions.csv`; raises ValueError, KeyError or TypeError."""
    cells = {name: value or "" for name, value in values.items()}
    split = cells["split"]
    if split not in SPLITS:
        raise ValueError(f"{split} is no split")
    for class_id in (cells["class"], cells["predicted"]):
        if class_id not in class_ids:
            raise ValueError(f"{class_id} is no class")
    named = cells.get("zero_shot", "")
    if named not in ("", *class_ids):
        raise ValueError(f"{named} is no class")
    cross_validated = None
    if f"cv_{class_ids[0]}" in cells:
        cross_validated = _numbers(cells, [f"cv_{class_id}" for class_id in class_ids])
    return PredictedImage(
        file=cells["file"],
        class_id=cells["class"],
        split=split,
        fold=int(cells["fold"]) if cells["fold"] else None,
        group=int(cells["group"]),
        predicted=cells["predicted"],
        probabilities=_numbers(cells, class_ids),
        cross_validated=cross_validated,
        zero_shot=named,
    )


def _numbers(cells: Mapping[str, str], columns: Sequence[str]) -> Floats:
    return np.array([float(cells[column]) for column in columns])
