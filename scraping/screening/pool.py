"""A few worker processes that screen images, so that decoding does not block the network loop.

Each worker has one image in work and a few waiting, so that it does not idle between them; the
rest waits here. A worker that dies, hangs or runs out of memory costs one image and is replaced.
Workers read until their pipe closes, so none outlives the process that started it.
"""

import asyncio
import contextlib
import os
import sys
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from scraping.reasons import Reason
from scraping.screening.protocol import (
    ANSWER_HEAD_BYTES,
    WorkOrder,
    answer_lengths,
    order_message,
    parse_answer,
    request_head,
)
from scraping.screening.screen import CleanImage, Rejection, ScreenSettings
from scraping.screening.spool import Extent
from training.environment import job_variables, machine_variables

IMAGE_SECONDS = 10.0  # no honest image within the limits takes so long to decode
START_SECONDS = 60.0
IMAGES_PER_WORKER = 4  # in work and waiting
FAILED_STARTS_LIMIT = 3  # in a row; then the installation is broken, not the images
PIPE_BYTES = 1 << 20
PACKAGE_ROOT = Path(__file__).resolve().parents[2]

Data = bytes | bytearray | Extent


class ScreeningUnavailable(OSError):
    """Workers end before they have answered anything: this installation cannot decode images."""


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class PoolSettings:
    """How many workers, and what they may do.

    `workers`: processes, by default one per core; `folder`: where they store clean images, if at
    all; `image_seconds`: how long one image may take.
    """

    workers: int | None = None
    folder: Path | None = None
    image_seconds: float = IMAGE_SECONDS


@dataclass(eq=False)
class _Job:
    data: Data
    answer: asyncio.Future[CleanImage | Rejection]

    def settle(self, answer: CleanImage | Rejection) -> None:
        """Pass the answer on, unless nobody waits for it anymore."""
        if not self.answer.done():
            self.answer.set_result(answer)


@dataclass(eq=False)
class _Worker:
    """One process, its jobs in order, and the timer for the first of these."""

    process: asyncio.subprocess.Process
    jobs: deque[_Job] = field(default_factory=deque)
    timer: asyncio.TimerHandle | None = None
    too_slow: bool = False


class ScreenPool:
    """Screens images in worker processes. Use as `async with`, in one event loop."""

    def __init__(self, screening: ScreenSettings, settings: PoolSettings | None = None) -> None:
        self._settings = settings or PoolSettings()
        folder = self._settings.folder
        if screening.nudity_model:  # workers stand in another folder
            model = str(Path(screening.nudity_model).resolve())
            screening = replace(screening, nudity_model=model)
        order = WorkOrder(screening, None if folder is None else str(folder.resolve()))
        self._order = order_message(order)
        self._waiting: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        self._supervisors: list[asyncio.Task[None]] = []
        self._failed_starts = 0

    async def __aenter__(self) -> Self:
        count = self._settings.workers or available_cores()
        self._supervisors = [asyncio.ensure_future(self._supervise()) for _ in range(count)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for supervisor in self._supervisors:
            supervisor.cancel()
        await asyncio.wait(self._supervisors)

    async def screen(self, data: Data) -> CleanImage | Rejection:
        """Screen the bytes of one image, or those that lie on disk.

        Raises ScreeningUnavailable when no worker can be had.
        """
        if self._failed_starts >= FAILED_STARTS_LIMIT:
            raise ScreeningUnavailable(
                "Pictures cannot be decoded: the screening process does not start."
            )
        job = _Job(data, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._hand_out()
        return await job.answer

    async def _supervise(self) -> None:
        """Keep one worker running, and start another when it has ended."""
        while self._failed_starts < FAILED_STARTS_LIMIT:
            worker = await self._start_worker()
            if worker is None:
                self._failed_starts += 1
                continue
            self._failed_starts = 0
            self._workers.append(worker)
            try:
                self._hand_out()
                await self._read_answers(worker)
            finally:
                self._workers.remove(worker)
                self._take_back_jobs(worker)
                await _end(worker.process)
        self._fail_waiting()

    async def _start_worker(self) -> _Worker | None:
        """Return a worker that has said that it is ready, None when it does not come up."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "scraping.screening.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=PACKAGE_ROOT,  # so that it finds the package from wherever this was started
                limit=PIPE_BYTES,
                env=machine_variables(os.environ) | job_variables(os.environ),
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
                await _end(process)

    def _hand_out(self) -> None:
        """Give what waits to the workers that have least to do."""
        while self._waiting and self._workers:
            worker = min(self._workers, key=lambda one: len(one.jobs))
            if len(worker.jobs) >= IMAGES_PER_WORKER:
                return
            job = self._waiting.popleft()
            if job.answer.done():  # nobody waits for it anymore
                continue
            worker.jobs.append(job)
            _send(worker.process, job.data)
            if len(worker.jobs) == 1:
                self._restart_timer(worker)

    async def _read_answers(self, worker: _Worker) -> None:
        """Pass answers on until the worker ends."""
        stream = worker.process.stdout
        assert stream is not None
        with contextlib.suppress(
            asyncio.IncompleteReadError, ConnectionError, ValueError, TypeError, LookupError
        ):
            while True:
                lengths = answer_lengths(await stream.readexactly(ANSWER_HEAD_BYTES))
                answer = parse_answer(lengths, await stream.readexactly(sum(lengths)))
                job = worker.jobs.popleft()
                self._restart_timer(worker)
                job.settle(answer)
                self._hand_out()

    def _restart_timer(self, worker: _Worker) -> None:
        """Start the clock for the image now in work; a worker that lets it run out is killed."""
        if worker.timer is not None:
            worker.timer.cancel()
            worker.timer = None
        if worker.jobs:
            loop = asyncio.get_running_loop()
            worker.timer = loop.call_later(self._settings.image_seconds, _stop_slow, worker)

    def _take_back_jobs(self, worker: _Worker) -> None:
        """Reject the image at which a worker ended; those behind it are tried again."""
        if worker.timer is not None:
            worker.timer.cancel()
        if worker.jobs:
            why = "it took too long" if worker.too_slow else "it ended"
            rejection = Rejection(Reason.NOT_A_PICTURE, f"its decoder failed: {why}")
            worker.jobs.popleft().settle(rejection)
        self._waiting.extendleft(reversed(worker.jobs))

    def _fail_waiting(self) -> None:
        """Tell all who wait that nothing will be answered anymore."""
        while self._waiting:
            job = self._waiting.popleft()
            if not job.answer.done():
                job.answer.set_exception(
                    ScreeningUnavailable("Pictures cannot be decoded: no screening process starts.")
                )


def _send(process: asyncio.subprocess.Process, data: Data) -> None:
    assert process.stdin is not None
    process.stdin.write(request_head(data))
    if not isinstance(data, Extent):
        process.stdin.write(data)


def _stop_slow(worker: _Worker) -> None:
    worker.too_slow = True
    _kill(worker.process)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a worker, which holds nothing that needs saving, and wait for it."""
    _kill(process)
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()
