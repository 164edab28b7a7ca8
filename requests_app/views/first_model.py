"""The card about the first model: its accuracy in a sentence, and as a curve over the pictures.

Read from the files of the finished rounds at each poll; a request has a handful of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from requests_app import first_model as rounds_of_request
from requests_app.first_model import Round
from requests_app.models import ClassifierRequest
from training.phrases import whole_percent

WIDTH = 340
HEIGHT = 170
LEFT = 46  # of the drawing's first column, right of the percentages
RIGHT = 330
TOP = 14
BOTTOM = 128
LEAST_COLUMNS = 4  # a curve of one point says by its empty room that more will come
CAP = 4  # half the width of the line that ends an interval


@dataclass(frozen=True)
class Point:
    """One round in the drawing: its accuracy, its interval, and the number below it."""

    x: float
    y: float
    top: float
    bottom: float
    images: int

    @property
    def left(self) -> float:
        return self.x - CAP

    @property
    def right(self) -> float:
        return self.x + CAP


@dataclass(frozen=True)
class GridLine:
    y: float
    label: str


@dataclass(frozen=True)
class FirstModel:
    """What the card shows."""

    sentence: str
    outlook: str
    """What comes next."""
    points: tuple[Point, ...]
    grid: tuple[GridLine, ...]
    in_words: str
    """The curve for those who do not see it."""

    @property
    def line(self) -> str:
        """The points of the line through all rounds."""
        return " ".join(f"{point.x},{point.y}" for point in self.points)


def first_model(classifier: ClassifierRequest) -> FirstModel | None:
    """Return the card of a request; None before the first round and once there is a result."""
    if not classifier.is_open:
        return None
    rounds = rounds_of_request.rounds(classifier)
    if not rounds:
        return None
    newest = rounds[-1]
    outlook = "It improves as pictures come in."
    if classifier.versions.exists():
        outlook = "All pictures are here now: the final model is next."
    lowest = min(found.interval[0] for found in rounds)
    floor = min(0.9, math.floor(lowest * 10) / 10)
    return FirstModel(
        sentence=(
            f"With {newest.images} pictures the first model is right on {newest.hits} of"
            f" {newest.images} ({_share_in_words(newest)}) by cross-validation."
        ),
        outlook=outlook,
        points=_points(rounds, floor),
        grid=_grid(floor),
        in_words="; ".join(
            f"{found.images} pictures: {_share_in_words(found)}" for found in rounds
        ),
    )


def _share_in_words(found: Round) -> str:
    """Return accuracy and interval: ``90 %, 77 to 96 %``."""
    low, high = found.interval
    return f"{whole_percent(found.accuracy)} %, {whole_percent(low)} to {whole_percent(high)} %"


def _points(rounds: Sequence[Round], floor: float) -> tuple[Point, ...]:
    """Return the rounds from left to right at even steps: each has about twice the pictures."""
    columns = max(LEAST_COLUMNS, len(rounds))
    step = (RIGHT - LEFT) / columns
    points = []
    for number, found in enumerate(rounds):
        low, high = found.interval
        x = LEFT + (number + 0.5) * step
        point = Point(
            x=round(x, 1),
            y=_height(found.accuracy, floor),
            top=_height(high, floor),
            bottom=_height(low, floor),
            images=found.images,
        )
        points.append(point)
    return tuple(points)


def _grid(floor: float) -> tuple[GridLine, ...]:
    middle = (floor + 1) / 2
    lines = []
    for share in (1.0, middle, floor):
        label = f"{round(100 * share)} %"
        lines.append(GridLine(_height(share, floor), label))
    return tuple(lines)


def _height(share: float, floor: float) -> float:
    """Return where a share is drawn: 1 at the top, the floor at the bottom."""
    part = (share - floor) / (1 - floor)
    return round(BOTTOM - part * (BOTTOM - TOP), 1)
