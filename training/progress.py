"""Progress of a run: its stage, the seconds of each, rows of progress.jsonl, requests to stop."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypedDict

from training.run_folder import (
    CURVES_FILE,
    HEAD_SEARCH,
    STAGES,
    RunConfig,
    append_json_line,
    write_json,
)

_REPORT_SECONDS = 0.5  # between two rows of progress.jsonl at least, within a stage
_SECONDS_FILE = Path("checkpoints", "seconds.json")  # {stage: seconds} of all attempts


class Stopped(BaseException):
    """The run was asked to stop, by a signal with this number.

    Not an Exception: nothing on the way may swallow it.
    """


class Progress(Protocol):
    """Is called with the steps done, the steps in all (0 while unknown) and perhaps a message."""

    def __call__(self, done: int, total: int, message: str = "", /) -> None: ...


def no_progress(done: int, total: int, message: str = "", /) -> None:
    """Report nothing: for callers that only want the result."""


class ProgressRow(TypedDict):
    """One line of progress.jsonl."""

    time: str
    """ISO 8601 in UTC, to the millisecond."""
    stage: str
    done: int
    total: int
    """0 while the number of steps is unknown."""
    message: str
    eta_seconds: float | None
    """None while nothing is known of the stage's pace."""


class CurvePoint(TypedDict):
    """One line of curves.jsonl: what an epoch of fine-tuning came to."""

    training: int
    """From 1: each fold that is held out has a training of its own, and so has the whole.

    HEAD_SEARCH is the search for the linear head's regularisation; its epochs are the values tried.
    """
    trainings: int
    """How many there may be."""
    epoch: int
    epochs: int
    """How many are planned."""
    train_loss: float | None
    """None where it left all bounds."""
    val_loss: float | None
    """On the images held out; None where there are none."""
    val_accuracy: float | None
    head_loss: float | None
    """Of the linear head, fitted on the same images and judged on the same ones."""
    head_accuracy: float | None


Record = Callable[[CurvePoint], None]
"""Takes the point of an epoch once it is done."""


def no_record(_: CurvePoint, /) -> None:
    """Keep nothing: for callers that draw no curves."""


RowListener = Callable[[ProgressRow], None]
"""Gets every row of progress.jsonl once it is written."""


@dataclass
class Run:
    """A run under way: the run folder, its configuration, the present stage and its notices."""

    folder: Path
    config: RunConfig
    listen: RowListener | None = None
    notices: list[str] = field(default_factory=list)
    """Sentences for the user."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Spent on each stage, in earlier attempts too; see `spent` for the present stage."""
    stage: str = STAGES[0]
    message: str = ""
    started: float = field(default_factory=time.monotonic)
    reported: float = 0.0
    latest: float = 0.0
    """Seconds that this attempt spent on the stage before."""
    pace_since: tuple[float, int] | None = None
    """When the stage first had steps done, and how many.

    Steps that an earlier attempt did say nothing of the pace of this one.
    """
    pace_total: int = 0
    """The steps in all that it is the pace of: other steps have another."""

    @contextmanager
    def during(self, stage: str, message: str) -> Iterator[None]:
        """Time a stage and announce its beginning."""
        self.stage = stage
        self.started = time.monotonic()
        self.reported = 0.0
        self.pace_since = None
        try:
            self.report(0, 0, message)
            yield
        finally:
            self.seconds = self.spent()
            self.latest = time.monotonic() - self.started
            with suppress(OSError):  # what ended the stage matters more than how long it took
                write_json(self.folder / _SECONDS_FILE, self.seconds)

    def spent(self) -> dict[str, float]:
        """Return the seconds of each stage up to now, those of earlier attempts included."""
        earlier = self.seconds.get(self.stage, 0.0)
        present = earlier + time.monotonic() - self.started
        return {**self.seconds, self.stage: round(present, 6)}

    def recall_seconds(self) -> None:
        """Take over what attempts that did not come to the end have spent.

        Where their file is missing or damaged, nothing is taken over.
        """
        with suppress(OSError, ValueError, TypeError):
            text = (self.folder / _SECONDS_FILE).read_text(encoding="utf-8")
            found = json.loads(text)
            seconds = {}
            for stage in STAGES:
                if stage in found:
                    seconds[stage] = float(found[stage])
            self.seconds = seconds

    def report(self, done: int, total: int, message: str = "", /) -> None:
        """Write a row of progress.jsonl: two a second at most, but a stage's first and last."""
        now = time.monotonic()
        elapsed = now - self.reported
        if message:  # kept also where no row is written: the next one says what is done by then
            self.message = message
        if elapsed < _REPORT_SECONDS and done < total:
            return
        self.reported = now
        row = ProgressRow(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            stage=self.stage,
            done=done,
            total=total,
            message=self.message,
            eta_seconds=self._seconds_left(now, done, total),
        )
        append_json_line(self.folder / "progress.jsonl", row)
        # Not flushed: a slow disk would keep a GPU waiting, and `during` flushes at the end.
        write_json(self.folder / _SECONDS_FILE, self.spent(), durable=False)
        if self.listen:
            self.listen(row)

    def record_head(self, search: Sequence[tuple[float, float]]) -> None:
        """Write the loss and accuracy of each linear head that was tried to curves.jsonl."""
        for number, (loss, accuracy) in enumerate(search, start=1):
            point = CurvePoint(
                training=HEAD_SEARCH,
                trainings=0,
                epoch=number,
                epochs=len(search),
                train_loss=None,
                val_loss=loss,
                val_accuracy=accuracy,
                head_loss=None,
                head_accuracy=None,
            )
            self.record(point)

    def record(self, point: CurvePoint, /) -> None:
        """Write a row of curves.jsonl."""
        append_json_line(self.folder / CURVES_FILE, point)

    def _seconds_left(self, now: float, done: int, total: int) -> float | None:
        """Return the seconds left at the pace of this attempt; None while that is unknown."""
        if total != self.pace_total:
            self.pace_total = total
            self.pace_since = None
        if done and self.pace_since is None:
            self.pace_since = (now, done)
        if done >= total > 0:
            return 0.0
        if self.pace_since is None:
            return None
        since, done_before = self.pace_since
        if done <= done_before:
            return None
        seconds_per_step = (now - since) / (done - done_before)
        return round(seconds_per_step * (total - done), 1)


class StopRequest:
    """A request to stop by SIGTERM or Ctrl-C: heeded at once, or at the next good moment."""

    def __init__(self) -> None:
        self.asked = False
        self.number = 0  # of the signal
        self._deferring = False

    def listen(self) -> None:
        """Handle both signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal meanwhile, and raise Stopped at the end.

        The work inside may look at `asked` and end early by itself.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.asked:
            raise Stopped(self.number)

    def _receive(self, number: int, frame: object) -> None:
        already_asked = self.asked
        self.asked = True
        if already_asked:
            return
        self.number = number
        if not self._deferring:
            raise Stopped(number)
