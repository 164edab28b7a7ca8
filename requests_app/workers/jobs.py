"""Jobs that survive: claim, lease, fence, reap, and the child process that does the heavy work.

A ``Job`` row is the record of work. A django-q2 task is only the notice that there may be some: it
means "claim the oldest queued job of this queue, run that one, notify again". Lost, doubled and
late notices are therefore harmless. A job is held by a lease that its holder renews every second or
so; a holder whose fence is not the row's any more has lost the job, and its result is thrown away.
While the database is away the child works on, for as long as the lease lasts, and such an attempt
does not count.
"""

import errno
import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone
from django_q.exceptions import TimeoutException
from django_q.models import OrmQ
from django_q.tasks import async_task

from requests_app.models import ClassifierRequest, Job, JobState, Status, WorkerBeat
from requests_app.workers import outages, processes
from requests_app.workers.outages import refresh_connection
from training import log_lines
from training.environment import ENV_FILE

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
MAIN_QUEUE = "picaisso"  # of tasks that take seconds
QUEUES = (MAIN_QUEUE, "collect", "train")
POLL_SECONDS = 1.0  # how often a running job reads its progress, stop flag and cancel flag
CHECK_JOB = 0  # stands for a job where `check_sources` asks; its fence is the pid of the command

TaskName = Literal["drain", "reap", "send_mail", "prune", "beat"]  # functions of requests_app.tasks


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
        self.reason = reason
        self.remedy = remedy
        self.retry = retry


UNEXPECTED = StageFailed(
    "Something went wrong on our side.", "Press retry; what was done so far is kept.", retry=True
)
DISK_FULL = StageFailed(
    "The server's disk is full.", "Retry later; the operator has to make room.", retry=True
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
    renewed: float = field(default_factory=time.monotonic)

    @property
    def marker(self) -> processes.Marker:
        return processes.Marker(str(settings.DATA_DIR), self.job.pk, self.job.fence)

    def names(self) -> dict[str, str]:
        """Return what a child's environment adds to its marker for the lines of its log."""
        return {log_lines.REQUEST: str(self.job.request_id)}

    def _own_row(self) -> QuerySet[Job]:
        """Return the job's row; an empty set if the job is someone else's now."""
        return Job.objects.filter(pk=self.job.pk, state=JobState.RUNNING, fence=self.job.fence)

    def beat(self, progress: dict[str, Any] | None = None) -> None:
        """Renew the lease and check whether to go on.

        :raises LeaseLost: the job is someone else's
        :raises CancelRequested: a person wants it ended
        :raises StopRequested: this cluster is going down
        :raises StageFailed: the job's own time limit is over
        """
        refresh_connection()
        now = time.monotonic()
        values: dict[str, Any] = {"lease_until": lease_end()}
        if progress is not None:
            values["progress"] = progress
        if not self._own_row().update(**values):
            raise LeaseLost
        self.renewed = now
        if self._own_row().filter(cancel_requested=True).exists():
            raise CancelRequested
        if not record_beat():
            raise StopRequested
        if time.monotonic() - self.started > self.limit_seconds:
            minutes = self.limit_seconds / 60
            raise StageFailed(
                f"This stage took longer than its limit of {minutes:g} minutes.",
                "Try fewer pictures, or retry.",
            )

    def beat_if_due(self) -> None:
        """Call ``beat`` at most once a second, however often this is called."""
        if time.monotonic() - self.renewed >= POLL_SECONDS:
            self.beat()

    @contextmanager
    def enduring_outages(self) -> Iterator[None]:
        """Let the body fail for want of the database while the lease lasts.

        :raises DatabaseError: for longer, when another may hold the job; or it is no outage
        """
        try:
            yield
        except DatabaseError as error:
            is_held = time.monotonic() - self.renewed < settings.LEASE_SECONDS
            if not is_held or not outages.is_outage(error):
                raise
            logger.warning("%s goes on without the database: %s", self.job, error)
            connection.close()

    @contextmanager
    def finishing(self, state: str = JobState.DONE, error: str = "") -> Iterator[None]:
        """Open the one transaction that ends the job and holds all its consequences.

        :raises LeaseLost: the job is someone else's; the body does not run
        """
        refresh_connection()
        with transaction.atomic():
            ended = self._own_row().update(
                state=state, finished=timezone.now(), error=error[:5000], lease_until=None
            )
            if not ended:
                raise LeaseLost
            yield

    def put_back(self, *, counted: bool) -> None:
        """Return the job to its queue for another holder, unless it was lost meanwhile.

        :param counted: whether this attempt counts
        """
        refresh_connection()
        attempt = F("attempt") if counted else F("attempt") - 1
        with transaction.atomic():
            returned = self._own_row().update(
                state=JobState.QUEUED, attempt=attempt, lease_until=None, owner=""
            )
            if returned and counted:
                notify(self.job.queue)

    def run_child(
        self,
        command: Sequence[str],
        log: Path,
        poll: Callable[[], dict[str, Any] | None],
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run a command as this job's child, renewing the lease while it works.

        :param log: where its output goes
        :param poll: called about once a second; what it returns becomes the job's progress
        :param environment: variables that this child gets on top of ``child_environment``
        :returns: its exit code, after its whole tree is gone
        """
        variables = {**child_environment(), **(environment or {}), **self.names()}
        supervisor = processes.start_supervised(command, self.marker, variables, log)
        progress = None
        try:
            while True:
                try:
                    return supervisor.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    with self.enduring_outages():
                        # The beat comes first: nothing is stored for a request that has ended.
                        self.beat(progress)
                        progress = poll()
        finally:
            processes.stop_supervised(supervisor, self.marker)


def lease_end() -> datetime:
    """Return when a lease that is taken or renewed now runs out."""
    return timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)


def forgive_silence(queues: Sequence[str]) -> None:
    """Give the holders of all jobs, and the clusters of these queues, time to report again.

    After an outage of the database their silence means nothing.
    """
    WorkerBeat.objects.filter(queue__in=queues).update(at=timezone.now())
    running = Job.objects.filter(state=JobState.RUNNING, lease_until__lt=lease_end())
    running.update(lease_until=lease_end())


def record_beat() -> bool:
    """Record that this cluster is alive; return False if `up` has asked it to put its work back."""
    if not settings.CLUSTER_ID:
        return True
    wanted = WorkerBeat.objects.filter(cluster=settings.CLUSTER_ID, stop=False)
    return wanted.update(at=timezone.now()) == 1


def child_environment() -> dict[str, str]:
    """Return all that a child's environment holds: what it must know of the machine.

    A child reads pages and pictures of strangers; what it works on is in its folder's
    configuration. It reads no settings file either. Only a child that asks sources gets their
    credentials, by ``collection_sync.credentials``.
    """
    return {
        **settings.MACHINE_VARIABLES,
        "PICAISSO_DATA_DIR": str(settings.DATA_DIR),
        ENV_FILE: "",
        log_lines.LOG: settings.LOG,
    }


def training_environment() -> dict[str, str]:
    """Return the environment of a child that may have to download weights."""
    return settings.PROXY_VARIABLES | child_environment()


@contextmanager
def busy(seconds: float) -> Iterator[None]:
    """Announce work with a limit of its own, so that `up` does not take silence for death."""
    beats = WorkerBeat.objects.filter(cluster=settings.CLUSTER_ID)
    beats.update(busy_until=timezone.now() + timedelta(seconds=seconds))
    try:
        yield
    finally:
        refresh_connection()
        beats.update(busy_until=None, at=timezone.now())


def notify(queue: str, task: TaskName = "drain") -> None:
    """Enqueue a task for a queue's cluster; inside a transaction, if and only if it commits."""
    async_task(f"requests_app.tasks.{task}", queue, cluster=queue, save=False)


def is_notified(queue: str) -> bool:
    """Return whether a task is waiting that no cluster has taken yet."""
    return OrmQ.objects.filter(key=queue, lock__lte=timezone.now()).exists()


def enqueue(classifier: ClassifierRequest, stage: str, queue: str) -> Job:
    """Make a job and notify its queue; to be called in the transaction that justifies it."""
    job = Job.objects.create(request=classifier, stage=stage, queue=queue)
    notify(queue)
    return job


def claim(queue: str) -> Lease | None:
    """Claim the oldest waiting job of a queue; return None if there is none.

    Two jobs of one request never run side by side, and no more requests of one address than may.
    """
    waiting = Job.objects.filter(queue=queue, state=JobState.QUEUED)
    waiting = waiting.exclude(request__jobs__state=JobState.RUNNING)
    busy = ClassifierRequest.objects.busy_mailboxes()
    waiting = waiting.exclude(request__status=Status.QUEUED, request__mailbox__in=busy)
    for job in waiting.order_by("pk")[:20]:
        unclaimed = Job.objects.filter(pk=job.pk, state=JobState.QUEUED, fence=job.fence)
        won = unclaimed.update(
            state=JobState.RUNNING,
            fence=F("fence") + 1,
            attempt=F("attempt") + 1,
            owner=settings.CLUSTER_ID,
            lease_until=lease_end(),
            started=Coalesce("started", timezone.now()),
            progress={},
        )
        if won:
            job.refresh_from_db()
            kill_orphans()  # an older holder's child would write into the same folder
            return Lease(job)
    return None


def drain(queue: str, handlers: Handlers) -> None:
    """Claim one job of the queue, run it, and notify the queue of the next."""
    if not record_beat():
        return
    lease = claim(queue)
    if lease is None:
        return
    with log_lines.about(request=lease.job.request_id, job=lease.job.pk):
        _run_claimed(lease, handlers)


def _run_claimed(lease: Lease, handlers: Handlers) -> None:
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
        _cancel(lease)
    except StageFailed as failure:
        if failure.retry and job.attempt < MAX_ATTEMPTS:
            lease.put_back(counted=True)
        else:
            _fail(lease, handlers, failure)
    except BaseException as error:  # a stage boundary
        if outages.is_outage(error):
            logger.warning("%s is put back when the database is there again: %s", job, error)
            outages.outlast(partial(lease.put_back, counted=False))
            notify_after(job)
            return
        logger.exception("%s stopped unexpectedly", job)
        if job.attempt >= MAX_ATTEMPTS:
            _fail(lease, handlers, DISK_FULL if _is_of_full_disk(error) else UNEXPECTED)
        else:
            lease.put_back(counted=True)
        # A stage that exits has failed as any other; django-q2's own time-out it must see itself.
        is_of_the_stage = isinstance(error, Exception | SystemExit)
        if isinstance(error, TimeoutException) or not is_of_the_stage:
            raise
    notify_after(job)


def _is_of_full_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def notify_after(job: Job) -> None:
    """Notify of what waited for a job to end: the next of its queue, request and address."""
    waited = Q(queue=job.queue) | Q(request=job.request_id)
    requests = ClassifierRequest.objects.filter(pk=job.request_id)
    mailbox = requests.values_list("mailbox", flat=True).first()
    if mailbox:
        waited |= Q(request__mailbox=mailbox)
    waiting = Job.objects.filter(waited, state=JobState.QUEUED)
    for queue in set(waiting.values_list("queue", flat=True)):
        if not is_notified(queue):
            notify(queue)


def _cancel(lease: Lease) -> None:
    try:
        with lease.finishing(JobState.CANCELLED):
            pass
    except LeaseLost:
        logger.warning("%s had been taken over", lease.job)


def _fail(lease: Lease, handlers: Handlers, failure: StageFailed) -> None:
    logger.warning("%s failed; the dashboard says why", lease.job)  # in words of the person's
    try:
        with lease.finishing(JobState.FAILED, failure.reason):
            handlers.failed(lease.job, failure)
    except LeaseLost:
        logger.warning("%s had been taken over", lease.job)


def reap(handlers: Handlers) -> None:
    """Put back the jobs whose holder is gone, notify of forgotten ones, kill orphans."""
    for job in Job.objects.filter(state=JobState.RUNNING, lease_until__lt=timezone.now()):
        with log_lines.about(request=job.request_id, job=job.pk):
            _reap_job(job, handlers)
    forgotten = timezone.now() - timedelta(seconds=settings.LEASE_SECONDS)
    for queue in QUEUES:
        waiting = Job.objects.filter(queue=queue, state=JobState.QUEUED, created__lt=forgotten)
        if waiting.exists() and not is_notified(queue):
            notify(queue)
    kill_orphans()


def _reap_job(job: Job, handlers: Handlers) -> None:
    """End or put back a job whose lease has run out, unless its holder renewed it meanwhile."""
    unchanged = Job.objects.filter(
        pk=job.pk, state=JobState.RUNNING, fence=job.fence, lease_until=job.lease_until
    )
    taken: dict[str, Any] = {"fence": F("fence") + 1, "lease_until": None}
    now = timezone.now()
    with transaction.atomic():
        if job.cancel_requested:
            unchanged.update(state=JobState.CANCELLED, finished=now, **taken)
        elif job.attempt >= MAX_ATTEMPTS:
            reason = f"The worker was lost {job.attempt} times."
            if unchanged.update(state=JobState.FAILED, finished=now, error=reason, **taken):
                handlers.failed(job, UNEXPECTED)
        elif unchanged.update(state=JobState.QUEUED, owner="", **taken):
            logger.warning("%s lost its worker and is put back", job)
            notify(job.queue)


def kill_orphans() -> None:
    """Kill the trees of this installation whose job has moved on."""
    killed = processes.kill_orphans(str(settings.DATA_DIR), _is_current)
    if killed:
        logger.warning("killed %d processes left over from lost work", killed)


def _is_current(job: int, fence: int) -> bool:
    """Return whether a child that carries this job and fence may go on."""
    if job == CHECK_JOB:
        return psutil.pid_exists(fence)
    return Job.objects.filter(pk=job, fence=fence, state=JobState.RUNNING).exists()
