"""Progress that never goes back: what a child reports, made fit for people.

A training has phases with steps of their own, each of which begins at nought again, and a
collection gives pictures back that turn up in a second class. Estimates are worst at the beginning.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

# How much of a training each phase usually is, in their order; together 1.
TRAINING_SHARES = {
    "features": 0.35,
    "split": 0.02,
    "train": 0.13,
    "finetune": 0.3,
    "evaluate": 0.1,
    "export": 0.1,
}
COLLECTION_SHARES = {"collect": 1.0}
LEAST_SHARE = 0.1  # of a step's work before its estimate is shown
LEAST_SECONDS = 20.0  # after the step's beginning
HOPELESS = 1.5  # an estimate that grows by more than this factor is not shown until it falls again


class SteadyProgress:
    """Takes the rows of a child's ``progress.jsonl`` one after the other."""

    def __init__(self, shares: Mapping[str, float], since: datetime | None) -> None:
        """
        :param shares: how much of the whole each phase usually is, in their order
        :param since: rows from before, of another job, are not counted
        """
        self._shares = shares
        self._since = since
        self._percent: int | None = None
        self._step: tuple[str, int] | None = None
        self._began: datetime | None = None
        self._left: float | None = None

    def shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row with ``percent``, and with ``eta_seconds`` None where it is not sure.

        ``eta_seconds`` is that of the step which the message names. A row of an earlier job shows
        nothing.
        """
        at = datetime.fromisoformat(row["time"])
        if self._since is not None and at < self._since:
            return {}
        self._advance(row)
        return {**row, "percent": self._percent, "eta_seconds": self._seconds_left(row, at)}

    def _advance(self, row: Mapping[str, Any]) -> None:
        """Move the percentage forward; a phase that is not known moves nothing."""
        if row["stage"] not in self._shares:
            return
        before = 0.0
        for phase, share in self._shares.items():
            if phase == row["stage"]:
                break
            before += share
        reached = before
        if row["total"]:
            reached += self._shares[row["stage"]] * min(1.0, row["done"] / row["total"])
        percent = int(100 * reached + 1e-9)
        if percent or self._percent is not None:
            self._percent = max(percent, self._percent or 0)

    def _seconds_left(self, row: Mapping[str, Any], at: datetime) -> float | None:
        """Return the estimate of the present step, never more than before; None while unknown."""
        step = (row["stage"], row["total"])
        if step != self._step or self._began is None:
            self._step = step
            self._began = at
            self._left = None
        estimate = row.get("eta_seconds")
        is_early = (at - self._began).total_seconds() < LEAST_SECONDS
        if estimate is None or is_early or row["done"] < LEAST_SHARE * row["total"]:
            return None
        if self._left is None:
            self._left = float(estimate)
        elif estimate > HOPELESS * self._left:
            return None
        self._left = min(self._left, float(estimate))
        return self._left
