"""The card about the first model: its accuracy in a sentence, and as a curve over the pictures.

Read from the files of the finished rounds at each poll; a request has a handful of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from requests_app import first_model as rounds_of_request
from requests_app import phrases, pipeline
from requests_app.first_model import Round
from requests_app.models import ClassifierRequest, Job
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

    title: str
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


def first_model(classifier: ClassifierRequest, job: Job | None) -> FirstModel | None:
    """Return the card of a request; None before the first round and once there is a result.

    :param job: the one that is queued or running
    """
    if not classifier.is_open:
        return None
    rounds = rounds_of_request.rounds(classifier)
    title = "A first model is ready"
    name = "the first model"
    outlook = _trend(rounds)
    is_collecting = job is not None and job.stage == pipeline.COLLECT.name
    head = None if is_collecting else rounds_of_request.head_of_training(classifier)
    if head is not None:
        rounds.append(head)
        title = "Version 1 is ready"
        name = "it"
        outlook = _what_follows(job)
    elif classifier.versions.exists():
        outlook = "All pictures are here now: the final model is next."
    if not rounds:
        return None
    newest = rounds[-1]
    lowest = min(found.interval[0] for found in rounds)
    floor = min(0.9, math.floor(lowest * 10) / 10)
    return FirstModel(
        title=title,
        sentence=(
            f"With {newest.images} pictures {name} is right on {newest.hits} of"
            f" {newest.images} ({_share_in_words(newest)}) by cross-validation."
        ),
        outlook=outlook,
        points=_points(rounds, floor),
        grid=_grid(floor),
        in_words="; ".join(
            f"{found.images} pictures: {_share_in_words(found)}" for found in rounds
        ),
    )


def _what_follows(job: Job | None) -> str:
    """Say what comes after the linear head."""
    if job is None or job.progress.get("stage") != "finetune":
        return "The final model is being measured and packed."
    if job.finish_requested:
        return "The best so far is being measured and packed."
    seconds = job.progress.get("eta_seconds")
    if seconds is None:
        return "A better one may follow in a few minutes."
    return f"A better one may follow in {phrases.time_left(float(seconds))}."


def _trend(rounds: Sequence[Round]) -> str:
    """Say whether the last round was better than the one before, or worse."""
    if len(rounds) < 2:
        return "It is trained again as more pictures come in."
    before = rounds[-2]
    newest = rounds[-1]
    earlier = f"with {before.images} pictures it was {whole_percent(before.accuracy)} %"
    low, high = newest.interval
    if low <= before.accuracy <= high:
        return f"It stays about as good ({earlier}, within the interval)."
    if newest.accuracy > before.accuracy:
        return f"It improves as pictures come in ({earlier})."
    why = "the later pictures are harder, or less to the point"
    return f"It is worse than before ({earlier}): {why}."


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
