"""A few worker processes that screen pictures, so that decoding neither blocks the network loop nor takes it
down.

Each worker is driven by one thread that owns its pipe. A worker that dies, hangs or runs out of memory costs
one picture and is replaced. Workers read until their pipe closes, so none outlives the process that started
it.
"""

import asyncio
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scraping.screen import Picture, Rejection, ScreenSettings, read_answer, write_request

PICTURE_SECONDS = 10.0  # no honest picture within the limits takes so long to decode
START_SECONDS = 60.0
WATCH_SECONDS = 0.5
PACKAGE_ROOT = Path(__file__).resolve().parent.parent

Job = tuple[Future[Any], bytes | bytearray, Callable[[Picture], Any] | None]


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ScreenPool:
    """Screens pictures in `workers` processes.

    Use as a context manager; `screen` is awaited from an event loop.
    """

    def __init__(self, settings: ScreenSettings, workers: int | None = None) -> None:
        self._settings = settings
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._slots = [_Slot() for _ in range(workers or available_cores())]
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._drive, args=(slot,), name="screen", daemon=True) for slot in self._slots
        ]
        self._threads.append(threading.Thread(target=self._watch, name="screen-watch", daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._slots:
            self._jobs.put(None)
        self._closed.set()
        for slot in self._slots:
            slot.discard()  # what it is still working on, nobody waits for any more
        for thread in self._threads:
            thread.join(PICTURE_SECONDS)

    async def screen(
        self, data: bytes | bytearray, store: Callable[[Picture], Any] | None = None
    ) -> Picture | Rejection:
        """Screen one picture.

        `store`, when given, is called with a good one in the worker's thread, off the loop.
        """
        future: Future[Picture | Rejection] = Future()
        self._jobs.put((future, data, store))
        return await asyncio.wrap_future(future)

    def _drive(self, slot: "_Slot") -> None:
        """One thread's life: take a picture, have the worker screen it, replace the worker when it failed."""
        while (job := self._jobs.get()) is not None:
            future, data, store = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                answer = slot.screen(data, self._settings)
                if store is not None and isinstance(answer, Picture):
                    store(answer)
                future.set_result(answer)
            except (EOFError, ValueError, BrokenPipeError) as error:
                slot.discard()
                future.set_result(Rejection("not_a_picture", f"its decoder failed: {type(error).__name__}"))
            except Exception as error:  # the waiting side must hear of it, whatever it is
                slot.discard()
                future.set_exception(error)
        slot.discard()

    def _watch(self) -> None:
        """Kill workers that sit on one picture for too long; their threads then see the pipe close."""
        while not self._closed.wait(WATCH_SECONDS):
            for slot in self._slots:
                if time.monotonic() > slot.give_up_at:
                    slot.discard()


class _Slot:
    """Place of one screening process, which is started when needed and again after a failure."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._warm = False
        self.give_up_at = math.inf

    def screen(self, data: bytes | bytearray, settings: ScreenSettings) -> Picture | Rejection:
        """Send, wait, read.

        Raises EOFError, ValueError or BrokenPipeError when the process died or was killed.
        """
        process = self._process = self._process or _started()
        assert process.stdin is not None and process.stdout is not None
        self.give_up_at = time.monotonic() + (PICTURE_SECONDS if self._warm else START_SECONDS)
        try:
            write_request(process.stdin, data, settings)
            answer = read_answer(process.stdout)
        finally:
            self.give_up_at = math.inf
        self._warm = True
        return answer

    def discard(self) -> None:
        """Kill the process, which holds nothing worth saving."""
        process, self._process, self._warm = self._process, None, False
        if process is None:
            return
        process.kill()
        process.wait()


def _started() -> subprocess.Popen[bytes]:
    # From the package's parent folder, so that the worker finds the packages wherever the caller stands.
    return subprocess.Popen(
        [sys.executable, "-m", "scraping.screen"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=PACKAGE_ROOT,
    )
