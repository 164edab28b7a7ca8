"""A few worker processes that screen pictures, so that decoding neither blocks the network loop nor
takes it down.

Each worker has one picture in work and a few waiting, so that it does not idle between them; the
rest waits here. A worker that dies, hangs or runs out of memory costs one picture and is replaced.
Workers read until their pipe closes, so none outlives the process that started it.
"""

import asyncio
import contextlib
import os
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from scraping.reasons import Reason
from scraping.screening.screen import (
    ANSWER_HEAD_BYTES,
    CleanImage,
    Rejection,
    ScreenSettings,
    WorkOrder,
    answer_lengths,
    order_message,
    read_answer,
    request_head,
)
from scraping.screening.spool import Extent

PICTURE_SECONDS = 10.0  # no honest picture within the limits takes so long to decode
START_SECONDS = 60.0
AT_A_WORKER = 4  # pictures
STILLBORN_LIMIT = (
    3  # workers in a row that ended without one answer: then screening is broken, not the pictures
)
PIPE_BYTES = 1 << 20
PACKAGE_ROOT = Path(__file__).resolve().parents[2]

Data = bytes | bytearray | Extent


class ScreeningUnavailable(OSError):
    """Workers end before they have answered anything: this installation cannot decode pictures."""


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class PoolSettings:
    """`workers`: processes, by default one per core; `folder`: where they store good pictures, if they are to;
    `picture_seconds`: how long one picture may take.
    """

    workers: int | None = None
    folder: Path | None = None
    picture_seconds: float = PICTURE_SECONDS


@dataclass(eq=False)
class _Job:
    data: Data
    answer: asyncio.Future[CleanImage | Rejection]


@dataclass(eq=False)
class _Worker:
    """One process, what it has been given in order, and the alarm for the first of these."""

    process: asyncio.subprocess.Process
    jobs: deque[_Job] = field(default_factory=deque)
    alarm: asyncio.TimerHandle | None = None
    too_slow: bool = False


class ScreenPool:
    """Screens pictures in worker processes. Use as `async with`; `screen` is awaited in the same
    event loop.
    """

    def __init__(self, screening: ScreenSettings, settings: PoolSettings | None = None) -> None:
        self._settings = settings or PoolSettings()
        folder = self._settings.folder
        self._order = order_message(WorkOrder(screening, str(folder.resolve()) if folder else None))
        self._waiting: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        self._lives: list[asyncio.Task[None]] = []
        self._stillborn = 0

    async def __aenter__(self) -> Self:
        count = self._settings.workers or available_cores()
        self._lives = [asyncio.ensure_future(self._keep_one()) for _ in range(count)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for life in self._lives:
            life.cancel()
        await asyncio.wait(self._lives)

    async def screen(self, data: Data) -> CleanImage | Rejection:
        """Screen the bytes of one picture, or those that lie on disk.

        Raises ScreeningUnavailable when no worker can be had.
        """
        if self._stillborn >= STILLBORN_LIMIT:
            raise ScreeningUnavailable(
                "Pictures cannot be decoded: the screening process does not start."
            )
        job = _Job(data, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._hand_out()
        return await job.answer

    async def _keep_one(self) -> None:
        """One place in the pool: a worker, and another when that one has ended."""
        while self._stillborn < STILLBORN_LIMIT:
            worker = await self._started()
            if worker is None:
                self._stillborn += 1
                continue
            self._stillborn = 0
            self._workers.append(worker)
            try:
                self._hand_out()
                await self._read_answers(worker)
            finally:
                self._workers.remove(worker)
                self._blame(worker)
                await _bury(worker.process)
        self._fail_all()

    async def _started(self) -> _Worker | None:
        """A worker that has said that it is ready, or None."""
        try:
            # From the package's parent folder, so that it finds the packages wherever the caller
            # stands.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "scraping.screening.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=PACKAGE_ROOT,
                limit=PIPE_BYTES,
            )
        except OSError:
            return None
        ready = False
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(self._order)
            async with asyncio.timeout(START_SECONDS):
                await process.stdout.readexactly(ANSWER_HEAD_BYTES)
            ready = True
            return _Worker(process)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return None
        finally:
            if not ready:
                await _bury(process)

    def _hand_out(self) -> None:
        """Give what waits to the workers that have least to do."""
        while self._waiting and self._workers:
            worker = min(self._workers, key=lambda one: len(one.jobs))
            if len(worker.jobs) >= AT_A_WORKER:
                return
            job = self._waiting.popleft()
            if job.answer.done():  # nobody waits for it any more
                continue
            worker.jobs.append(job)
            _send(worker.process, job.data)
            if len(worker.jobs) == 1:
                self._set_alarm(worker)

    async def _read_answers(self, worker: _Worker) -> None:
        """Pass answers on until the worker ends."""
        stream = worker.process.stdout
        assert stream is not None
        with contextlib.suppress(
            asyncio.IncompleteReadError, ConnectionError, ValueError, TypeError, LookupError
        ):
            while True:
                lengths = answer_lengths(await stream.readexactly(ANSWER_HEAD_BYTES))
                answer = read_answer(lengths, await stream.readexactly(sum(lengths)))
                job = worker.jobs.popleft()
                self._set_alarm(worker)
                _settle(job, answer)
                self._hand_out()

    def _set_alarm(self, worker: _Worker) -> None:
        """Start the clock for the picture now in work; a worker that lets it run out is killed."""
        if worker.alarm is not None:
            worker.alarm.cancel()
            worker.alarm = None
        if worker.jobs:
            seconds = self._settings.picture_seconds
            worker.alarm = asyncio.get_running_loop().call_later(seconds, self._stop_slow, worker)

    def _stop_slow(self, worker: _Worker) -> None:
        worker.too_slow = True
        _kill(worker.process)

    def _blame(self, worker: _Worker) -> None:
        """A worker has ended: the picture that it was at is to blame, the one behind it is not."""
        if worker.alarm is not None:
            worker.alarm.cancel()
        if worker.jobs:
            why = "it took too long" if worker.too_slow else "it ended"
            _settle(
                worker.jobs.popleft(), Rejection(Reason.NOT_A_PICTURE, f"its decoder failed: {why}")
            )
        self._waiting.extendleft(reversed(worker.jobs))

    def _fail_all(self) -> None:
        """Nothing will be answered any more; say so to all who wait."""
        while self._waiting:
            job = self._waiting.popleft()
            if not job.answer.done():
                job.answer.set_exception(
                    ScreeningUnavailable("Pictures cannot be decoded: no screening process starts.")
                )


def _settle(job: _Job, answer: CleanImage | Rejection) -> None:
    if not job.answer.done():
        job.answer.set_result(answer)


def _send(process: asyncio.subprocess.Process, data: Data) -> None:
    assert process.stdin is not None
    process.stdin.write(request_head(data))
    if not isinstance(data, Extent):
        process.stdin.write(data)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _bury(process: asyncio.subprocess.Process) -> None:
    """End a worker, which holds nothing worth saving, and collect it."""
    _kill(process)
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()
