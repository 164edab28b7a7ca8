"""The curves of a fine-tuning, read from the run folder while it grows and afterwards."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from requests_app.models import ClassifierRequest
from training.phrases import counted, percent
from training.run_folder import CURVES_FILE, HEAD_SEARCH

MOST_BYTES = 1_000_000  # of hundreds of epochs
Point = dict[str, Any]


@dataclass(frozen=True)
class CurveRow:
    """One epoch in the table: numbers in words, "" for one that is not known."""

    epoch: int
    train_loss: str
    val_loss: str
    accuracy: str


@dataclass(frozen=True)
class Curves:
    """What is drawn and said of a fine-tuning."""

    sentence: str
    of_head: bool
    """Whether it is the search for the linear head, which comes first."""
    points: str
    """For the script that draws: JSON with a list for each line, and the epochs planned."""
    rows: tuple[CurveRow, ...]
    head_accuracy: str
    """Of the linear head on the same pictures, "" where it is not known."""
    in_words: str
    """The curve of accuracy for those who do not see it."""


def curves_of(classifier: ClassifierRequest) -> Curves | None:
    """Return the curves of the newest version; None while there is nothing to draw."""
    version = classifier.versions.order_by("-number").first()
    if version is None:
        return None
    points = _present_points(_rows(version.folder / CURVES_FILE))
    judged = [point for point in points if point["val_loss"] is not None]
    if not judged:
        return None
    latest = points[-1]
    drawn = [point for point in judged if point["training"] == judged[-1]["training"]]
    return Curves(
        sentence=_sentence(latest),
        of_head=drawn[-1]["training"] == HEAD_SEARCH,
        points=_json(drawn),
        rows=tuple(_table_row(point) for point in drawn),
        head_accuracy=_percent(drawn[-1]["head_accuracy"]),
        in_words=_in_words(drawn),
    )


def _rows(path: Path) -> Iterable[Point]:
    """Yield the whole lines of a file that may still be growing."""
    try:
        with path.open("rb") as file:
            lines = file.read(MOST_BYTES).splitlines(keepends=True)
    except OSError:
        return
    for line in lines:
        if not line.endswith(b"\n"):
            return
        try:
            yield json.loads(line)
        except ValueError:  # torn by a power cut
            continue


def _present_points(rows: Iterable[Point]) -> list[Point]:
    """Return the epochs that count: one that is done again replaces itself and all after it."""
    points: dict[tuple[int, int], Point] = {}
    for row in rows:
        present = (row["training"], row["epoch"])
        for place in list(points):
            # A run that goes on fits the head again, and its network goes on where it was.
            is_same_kind = (place[0] == HEAD_SEARCH) == (present[0] == HEAD_SEARCH)
            if is_same_kind and place >= present:
                del points[place]
        points[present] = row
    return [points[place] for place in sorted(points)]


def _sentence(latest: Point) -> str:
    if latest["training"] == HEAD_SEARCH:
        tried = counted(latest["epochs"], "strength")
        return (
            f"The linear head was fitted with {tried} of regularisation, the strongest first, each"
            " judged by cross-validation; the one with the lowest loss is used."
        )
    of_epochs = f"epoch {latest['epoch']} of at most {latest['epochs']}"
    if latest["val_loss"] is None:
        return f"The network learns once more, from all pictures: {of_epochs}."
    if latest["trainings"] == 1:
        return f"The network learns your classes: {of_epochs}."
    part = f"part {latest['training']} of up to {latest['trainings']}"
    return f"The network learns your classes: {part}, {of_epochs}."


def _json(points: Sequence[Point]) -> str:
    newest = points[-1]
    lines = {
        "epochs": [point["epoch"] for point in points],
        "train_loss": [point["train_loss"] for point in points],
        "val_loss": [point["val_loss"] for point in points],
        "accuracy": [point["val_accuracy"] for point in points],
        "head_loss": newest["head_loss"],
        "head_accuracy": newest["head_accuracy"],
        "planned": newest["epochs"],
    }
    return json.dumps(lines)


def _table_row(point: Point) -> CurveRow:
    return CurveRow(
        epoch=point["epoch"],
        train_loss=_loss(point["train_loss"]),
        val_loss=_loss(point["val_loss"]),
        accuracy=_percent(point["val_accuracy"]),
    )


def _in_words(points: Sequence[Point]) -> str:
    first = points[0]
    newest = points[-1]
    noun = "strength" if newest["training"] == HEAD_SEARCH else "epoch"
    words = f"{_percent(first['val_accuracy'])} at {noun} {first['epoch']}"
    if newest is not first:
        words += f", {_percent(newest['val_accuracy'])} at {noun} {newest['epoch']}"
    if newest["head_accuracy"] is not None:
        words += f"; the linear head reaches {_percent(newest['head_accuracy'])}"
    return words


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "" if share is None else percent(share)
