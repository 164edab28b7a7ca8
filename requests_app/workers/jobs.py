"""Jobs that survive: claim, lease, fence, reap, and the child process that does the heavy work.

A ``Job`` row is the record of work and django-q2 only its doorbell: a ring means "claim the oldest
queued job of this queue, run that one, ring again". Lost, doubled and late rings are therefore
harmless. A job is held by a lease that its holder renews every second or so; a holder whose fence
is not the row's any more has lost the job, and its result is thrown away.
"""

import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import close_old_connections, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce
from django.utils import timezone
from django_q.models import OrmQ
from django_q.tasks import async_task

from requests_app.models import ClassifierRequest, Job, JobState, WorkerBeat
from requests_app.workers import processes

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
QUEUES = ("picaisso", "collect", "train")
WATCH_SECONDS = (
    1.0  # how often a running job looks for progress, for the stop flag and for a cancel
)


class LeaseLost(Exception):
    """Someone else holds the job now: stop quietly, the result does not count."""


class StopRequested(Exception):
    """The cluster is going down: put the job back, the attempt does not count."""


class CancelRequested(Exception):
    """A person cancelled the request."""


class StageFailed(Exception):
    """A stage cannot go on.

    :param reason: what happened, a sentence that a person reads
    :param remedy: what that person can do about it
    :param retry: whether trying again at once may help; then that happens, up to the last attempt
    """

    def __init__(self, reason: str, remedy: str = "", retry: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.remedy, self.retry = reason, remedy, retry


UNEXPECTED = StageFailed(
    "Something went wrong on our side.", "Press retry; what was done so far is kept.", retry=True
)


@dataclass(frozen=True)
class Handlers:
    """What the pipeline does with a job; called by ``drain`` and ``reap``."""

    run: Callable[["Lease"], None]
    failed: Callable[[Job, StageFailed], None]


@dataclass
class Lease:
    """The right to work on one job, until someone else takes it over."""

    job: Job
    limit_seconds: float = 900.0
    started: float = field(default_factory=time.monotonic)

    @property
    def marker(self) -> processes.Marker:
        return processes.Marker(str(settings.DATA_DIR), self.job.pk, self.job.fence)

    def _mine(self) -> Any:
        return Job.objects.filter(pk=self.job.pk, state=JobState.RUNNING, fence=self.job.fence)

    def beat(self, progress: dict[str, Any] | None = None) -> None:
        """Renew the lease and look whether to go on.

        :raises LeaseLost: the job is someone else's
        :raises CancelRequested: a person wants it ended
        :raises StopRequested: this cluster is going down
        :raises StageFailed: the job's own time limit is over
        """
        refresh_connection()
        values: dict[str, Any] = {"lease_until": lease_end()}
        if progress is not None:
            values["progress"] = progress
        if not self._mine().update(**values):
            raise LeaseLost
        if self._mine().filter(cancel_requested=True).exists():
            raise CancelRequested
        if not still_wanted():
            raise StopRequested
        if time.monotonic() - self.started > self.limit_seconds:
            minutes = self.limit_seconds / 60
            raise StageFailed(
                f"This stage took longer than its limit of {minutes:g} minutes.",
                "Try fewer pictures, or retry.",
            )

    @contextmanager
    def finishing(self, state: str = JobState.DONE, error: str = "") -> Iterator[None]:
        """One transaction that ends the job and holds all its consequences; LeaseLost if it is not
        ours any more.
        """
        refresh_connection()
        with transaction.atomic():
            if not self._mine().update(
                state=state, finished=timezone.now(), error=error[:5000], lease_until=None
            ):
                raise LeaseLost
            yield

    def put_back(self, *, counted: bool) -> None:
        """Return the job to its queue for another holder; nothing happens if it was lost
        meanwhile.
        """
        refresh_connection()
        attempt = F("attempt") if counted else F("attempt") - 1
        with transaction.atomic():
            if (
                self._mine().update(
                    state=JobState.QUEUED, attempt=attempt, lease_until=None, owner=""
                )
                and counted
            ):
                ring(self.job.queue)

    def run_child(
        self, command: Sequence[str], log: Path, watch: Callable[[], dict[str, Any] | None]
    ) -> int:
        """Run a command as this job's child, renewing the lease while it works.

        :param log: where its output goes
        :param watch: called about once a second; what it returns becomes the job's progress
        :returns: its exit code, after its whole tree is gone
        """
        keeper = processes.start_kept(command, self.marker, child_environment(), log)
        progress = None
        try:
            while True:
                try:
                    return keeper.wait(WATCH_SECONDS)
                except subprocess.TimeoutExpired:
                    self.beat(
                        progress
                    )  # first: nothing is taken in for a request that has been ended
                    progress = watch()
        finally:
            processes.stop_kept(keeper, self.marker)


def refresh_connection() -> None:
    """A stage may outlast an idle connection: drop a stale one, but never inside a transaction."""
    if not connection.in_atomic_block:
        close_old_connections()


def lease_end() -> datetime:
    return timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)


def still_wanted() -> bool:
    """Show that this cluster lives; False if `up` has asked it to put its work back."""
    if not settings.CLUSTER_ID:
        return True
    return (
        WorkerBeat.objects.filter(cluster=settings.CLUSTER_ID, stop=False).update(at=timezone.now())
        == 1
    )


def child_environment() -> dict[str, str]:
    """The worker's environment without what ties it to its cluster, and without the site's secrets.

    A child reads pages and pictures of strangers; all it needs is in its folder's configuration.
    """
    own = ("PICAISSO_TETHERED", "PICAISSO_CLUSTER", "PICAISSO_PARENT", "Q_CLUSTER_NAME")
    secret = ("PICAISSO_SECRET_KEY", "DATABASE_URL", "EMAIL_URL")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in own and not name.startswith(secret)
    }


@contextmanager
def busy(seconds: float) -> Iterator[None]:
    """Tell `up` not to take this cluster's silence for death: what it does has a limit of its
    own.
    """
    mine = WorkerBeat.objects.filter(cluster=settings.CLUSTER_ID)
    mine.update(busy_until=timezone.now() + timedelta(seconds=seconds))
    try:
        yield
    finally:
        refresh_connection()
        mine.update(busy_until=None, at=timezone.now())


def ring(queue: str, task: str = "drain") -> None:
    """Ring a queue's bell; inside a transaction the ring happens if and only if it commits."""
    async_task(f"requests_app.tasks.{task}", queue, cluster=queue, save=False)


def is_rung(queue: str) -> bool:
    """Whether a ring is waiting that no cluster has taken yet."""
    return OrmQ.objects.filter(key=queue, lock__lte=timezone.now()).exists()


def enqueue(request: ClassifierRequest, stage: str, queue: str) -> Job:
    """Make a job and ring, to be called in the transaction that justifies it."""
    job = Job.objects.create(request=request, stage=stage, queue=queue)
    ring(queue)
    return job


def claim(queue: str) -> Lease | None:
    """Take the oldest waiting job of a queue, or None. Two jobs of one request never run side by
    side.
    """
    waiting = Job.objects.filter(queue=queue, state=JobState.QUEUED).exclude(
        request__jobs__state=JobState.RUNNING
    )
    for job in waiting.order_by("pk")[:20]:
        now = timezone.now()
        won = Job.objects.filter(pk=job.pk, state=JobState.QUEUED, fence=job.fence).update(
            state=JobState.RUNNING,
            fence=F("fence") + 1,
            attempt=F("attempt") + 1,
            owner=settings.CLUSTER_ID,
            lease_until=lease_end(),
            started=Coalesce("started", now),
            progress={},
        )
        if won:
            job.refresh_from_db()
            sweep()  # an older holder's child would write into the same folder
            return Lease(job)
    return None


def drain(queue: str, handlers: Handlers) -> None:
    """Claim one job of the queue, run it, ring again."""
    if not still_wanted():
        return
    lease = claim(queue)
    if lease is None:
        return
    job = lease.job
    logger.info("%s, attempt %d, starts", job, job.attempt)
    try:
        handlers.run(lease)
    except LeaseLost:
        logger.warning("%s was taken over by another worker; this result is dropped", job)
    except StopRequested:
        lease.put_back(counted=False)
        return
    except CancelRequested:
        _end(lease, JobState.CANCELLED)
    except StageFailed as failure:
        if failure.retry and job.attempt < MAX_ATTEMPTS:
            lease.put_back(counted=True)
        else:
            _fail(lease, handlers, failure)
    except (
        BaseException
    ) as error:  # a stage boundary; the queue's own time-out arrives as a SystemExit
        logger.exception("%s stopped unexpectedly", job)
        if job.attempt >= MAX_ATTEMPTS:
            _fail(lease, handlers, UNEXPECTED)
        else:
            lease.put_back(counted=True)
        if not isinstance(error, Exception):
            raise
    _ring_for_the_next(job)


def _ring_for_the_next(job: Job) -> None:
    """Ring for what waits behind this job: in its queue, and of its request, which had to wait for
    it to end.
    """
    waiting = Job.objects.filter(
        Q(queue=job.queue) | Q(request=job.request_id), state=JobState.QUEUED
    )
    for queue in set(waiting.values_list("queue", flat=True)):
        if not is_rung(queue):
            ring(queue)


def _end(lease: Lease, state: str) -> None:
    try:
        with lease.finishing(state):
            pass
    except LeaseLost:
        logger.warning("%s had been taken over", lease.job)


def _fail(lease: Lease, handlers: Handlers, failure: StageFailed) -> None:
    logger.warning("%s failed: %s", lease.job, failure.reason)
    try:
        with lease.finishing(JobState.FAILED, failure.reason):
            handlers.failed(lease.job, failure)
    except LeaseLost:
        logger.warning("%s had been taken over", lease.job)


def reap(handlers: Handlers) -> None:
    """Put back the jobs whose holder is gone, ring for forgotten ones, and kill what no valid job
    owns.
    """
    for job in Job.objects.filter(state=JobState.RUNNING, lease_until__lt=timezone.now()):
        _reap_job(job, handlers)
    forgotten = timezone.now() - timedelta(seconds=settings.LEASE_SECONDS)
    for queue in QUEUES:
        waiting = Job.objects.filter(queue=queue, state=JobState.QUEUED, created__lt=forgotten)
        if waiting.exists() and not is_rung(queue):
            ring(queue)
    sweep()


def _reap_job(job: Job, handlers: Handlers) -> None:
    held = Job.objects.filter(
        pk=job.pk, state=JobState.RUNNING, fence=job.fence, lease_until=job.lease_until
    )
    ended: dict[str, Any] = {
        "fence": F("fence") + 1,
        "lease_until": None,
        "finished": timezone.now(),
    }
    with transaction.atomic():
        if job.cancel_requested:
            held.update(state=JobState.CANCELLED, **ended)
        elif job.attempt >= MAX_ATTEMPTS:
            reason = f"The worker was lost {job.attempt} times."
            if held.update(state=JobState.FAILED, error=reason, **ended):
                handlers.failed(job, UNEXPECTED)
        elif held.update(state=JobState.QUEUED, fence=F("fence") + 1, lease_until=None, owner=""):
            logger.warning("%s lost its worker and is put back", job)
            ring(job.queue)


def sweep() -> None:
    """Kill the trees of this installation whose job has moved on."""
    killed = processes.sweep(
        str(settings.DATA_DIR),
        lambda job, fence: Job.objects.filter(pk=job, fence=fence, state=JobState.RUNNING).exists(),
    )
    if killed:
        logger.warning("killed %d processes left over from lost work", killed)
