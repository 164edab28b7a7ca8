"""Where a run is: its stage, how long each has taken over all attempts, and the rows of
progress.jsonl.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.run_folder import STAGES, RunConfig, append_json_line, write_json

_REPORT_SECONDS = 0.5  # between two rows of progress.jsonl at least, within a stage
_SECONDS_NOTE = Path(
    "checkpoints", "seconds.json"
)  # in the run folder: {stage: seconds} of all attempts

Listener = Callable[[Mapping[str, Any]], None]
"""Gets every row of progress.jsonl as it is written."""


def no_listener(row: Mapping[str, Any]) -> None:
    """For callers that only want the result."""


@dataclass
class Run:
    """The run folder, its configuration, the present stage, and what to tell the user."""

    folder: Path
    config: RunConfig
    listen: Listener
    notices: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Spent on each stage, in earlier attempts too; see `spent` for the present stage."""
    stage: str = STAGES[0]
    message: str = ""
    started: float = field(default_factory=time.monotonic)
    reported: float = 0.0
    latest: float = 0.0
    """Seconds that this attempt spent on the stage before."""
    base: tuple[float, int] | None = None
    """When the stage first had something done, and how much: work of earlier attempts says nothing of the pace."""

    @contextmanager
    def during(self, stage: str, message: str) -> Iterator[None]:
        """Time a stage and announce its beginning."""
        self.stage, self.started, self.reported, self.base = stage, time.monotonic(), 0.0, None
        try:
            self.report(0, 0, message)
            yield
        finally:
            self.seconds = self.spent()
            self.latest = time.monotonic() - self.started
            with suppress(OSError):  # what ended the stage matters more than how long it took
                self._keep_seconds()

    def spent(self) -> dict[str, float]:
        """Seconds of each stage up to now, those of earlier attempts included."""
        present = self.seconds.get(self.stage, 0.0) + time.monotonic() - self.started
        return {**self.seconds, self.stage: round(present, 3)}

    def recall_seconds(self) -> None:
        """Take over what attempts that did not come to the end have spent; nothing where their note
        is unreadable.
        """
        with suppress(OSError, ValueError, TypeError):
            note = json.loads((self.folder / _SECONDS_NOTE).read_text(encoding="utf-8"))
            self.seconds = {stage: float(note[stage]) for stage in STAGES if stage in note}

    def report(self, done: int, total: int, message: str = "") -> None:
        """A row of progress.jsonl, at most about two a second, but always a stage's first and
        last.
        """
        now = time.monotonic()
        if now - self.reported < _REPORT_SECONDS and done < total:
            return
        self.reported, self.message = now, message or self.message
        row = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "stage": self.stage,
            "done": done,
            "total": total,
            "message": self.message,
            "eta_seconds": self._seconds_left(now, done, total),
        }
        append_json_line(self.folder / "progress.jsonl", row)
        write_json(self.folder / _SECONDS_NOTE, self.spent())
        self.listen(row)

    def _seconds_left(self, now: float, done: int, total: int) -> float | None:
        """By the pace since the first report with something done; None while nothing is known."""
        if done and self.base is None:
            self.base = now, done
        if done >= total > 0:
            return 0.0
        since, before = self.base or (now, 0)
        return round((now - since) / (done - before) * (total - done), 1) if done > before else None

    def _keep_seconds(self) -> None:
        """Note the seconds where the next attempt finds them, should this one be killed."""
        write_json(self.folder / _SECONDS_NOTE, self.seconds)
