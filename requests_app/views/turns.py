"""How many downloads are sent at once, to all and to one address."""

import threading
from collections import Counter
from collections.abc import Callable

from django.conf import settings

ONE_ADDRESS = 0.6  # of all turns, so that nobody takes them all


class Turns:
    """The downloads that this process is sending."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    def take(self, address: str) -> Callable[[], None] | None:
        """Return what gives the turn back, and does so once; None where none is free."""
        most = settings.DOWNLOADS_AT_ONCE
        share = max(1, int(most * ONE_ADDRESS))
        with self._lock:
            if self._held.total() >= most or self._held[address] >= share:
                return None
            self._held[address] += 1
        is_held = True

        def give_back() -> None:
            nonlocal is_held
            with self._lock:
                if is_held:
                    is_held = False
                    self._held[address] -= 1
                    self._held += Counter()  # forgets addresses that hold none

        return give_back


downloads = Turns()
