"""Turns for downloads, so that classes fill side by side however slow the hosts are.

The class that was searched first would otherwise send all its downloads at once, and on a slow host
those of every other class would wait behind them to the end.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable

AT_ONCE = 8  # downloads of a class at its beginning, and while another class has fewer images


class DownloadTurns:
    """Says how many downloads of each class are under way.

    A class may have one more for each that has ended, as fast hosts allow. While another class that
    is downloading has kept fewer images, it has `AT_ONCE`.
    """

    def __init__(self, class_ids: Iterable[str], kept: Callable[[str], int]) -> None:
        """`kept` returns how many images of a class are kept by now."""
        self._kept = kept
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        for class_id in class_ids:
            self._waiting[class_id] = deque()
        self._running: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def turn(self, class_id: str) -> AsyncIterator[None]:
        """Wait for a turn of this class, in the order of asking, and hold it."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting[class_id].append(turn)
        self._grant()
        try:
            await turn
            yield
        finally:
            has_come = turn.done() and not turn.cancelled()
            if has_come:
                self._running[class_id] -= 1
                self._ended[class_id] += 1
            self._grant()

    def _grant(self) -> None:
        """Give out all turns that are free."""
        for class_id, waiting in self._waiting.items():
            limit = self._limit(class_id)
            while waiting and self._running[class_id] < limit:
                turn = waiting.popleft()
                if not turn.cancelled():  # nobody waits for such a one any more
                    self._running[class_id] += 1
                    turn.set_result(None)

    def _limit(self, class_id: str) -> int:
        """Return how many downloads of a class may be under way now."""
        own = self._kept(class_id)
        for other, waiting in self._waiting.items():
            is_downloading = bool(waiting) or self._running[other] > 0
            if is_downloading and self._kept(other) < own:
                return AT_ONCE
        return AT_ONCE + self._ended[class_id]
