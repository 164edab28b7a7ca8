"""How a run is asked to stop: at once, or where that would lose work, at the next good moment."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from training.run_folder import Stopped


class StopRequest:
    """What SIGTERM and Ctrl-C turn into."""

    def __init__(self) -> None:
        self.asked = False
        self._deferring = False

    def listen(self) -> None:
        """Be the handler of both signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only take note meanwhile: whoever works asks `asked` and stops by itself; else it happens
        at the end.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.asked:
            raise Stopped

    def _receive(self, number: int, frame: object) -> None:
        first, self.asked = not self.asked, True
        if first and not self._deferring:
            raise Stopped
