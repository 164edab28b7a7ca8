"""The browser lock: one collection of an installation uses the browser at a time.

A collection knows nothing of the others. It asks by a file `browser.wanted` in its folder, and
begins when whoever started it has laid `browser.granted` beside it; it removes both when it is
done.
"""

import time
from collections.abc import Callable
from pathlib import Path

POLL_SECONDS = 0.2


class BrowserLock:
    """The lock as one collection sees it.

    `wait` waits for some seconds and raises when the collection is being stopped.
    """

    def __init__(self, folder: Path, wait: Callable[[float], None]) -> None:
        self._wanted = folder / "browser.wanted"
        self._granted = folder / "browser.granted"
        self._wait = wait

    def acquire(self, deadline: float) -> bool:
        """Wait until the deadline on the monotonic clock; return whether the lock was granted."""
        self._wanted.touch()
        while not self._granted.exists():
            if time.monotonic() >= deadline:
                self.release()
                return False
            self._wait(POLL_SECONDS)
        return True

    def release(self) -> None:
        """Let others have it; nothing happens when it was not acquired."""
        self._granted.unlink(missing_ok=True)
        self._wanted.unlink(missing_ok=True)
