"""What is wrong with the site at this moment: database, workers, disk, mail.

The page `/healthz`, the command `check_workers` and the dashboard ask here. It costs four small
queries and two calls of the system, and names nothing that only the operator may know. A worker
counts as lost only by its silence: the beat is a task like any other, so that a cluster that runs
nothing any more cannot answer, however alive its processes look.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import Error, connection
from django.utils import timezone

from requests_app.models import (
    ClassifierRequest,
    Job,
    JobState,
    MailState,
    OutgoingMail,
    Status,
    WorkerBeat,
)
from requests_app.phrases import counted
from requests_app.workers import jobs

# By the usual settings these are 150 seconds, 5 minutes and 10 minutes; tests shorten them.
SILENT_BEATS = 10
FORGOTTEN_BEATS = 20
LATE_ROUNDS = 10
LONGEST_WAIT = timedelta(days=1)  # of a request for a worker, or for the end of a stage
LEAST_FREE_BYTES = 500e6  # below 200 MB no stage starts


@dataclass(frozen=True)
class QueueHealth:
    """How the workers of one queue are.

    `silent_seconds` is the age of the last sign of life, None where there never was one. `waiting`
    counts the jobs that nobody takes although a worker is free. `wrong` is a sentence, "" where all
    is well.
    """

    queue: str
    silent_seconds: float | None
    running: int
    waiting: int
    wrong: str


def problems() -> dict[str, str]:
    """Return a sentence for each of database, workers, disk and mail that is not as it should be.

    Nothing is raised where the database does not answer: then nobody knows how workers and mail
    are, and the database alone is named.
    """
    checks: dict[str, Callable[[], str]] = {"workers": _workers, "mail": _mail}
    found = {}
    try:
        for name, check in checks.items():
            found[name] = check()
    except Error:
        connection.close()
        found = {"database": "The database does not answer, or its tables are not up to date."}
    found["disk"] = _disk()
    return {name: sentence for name, sentence in found.items() if sentence}


def sentence() -> str:
    """Return what is wrong in a line, "" where nothing is."""
    return " ".join(problems().values())


# --- workers ---


def queues() -> list[QueueHealth]:
    """Return how the workers of each queue are, in the order of `jobs.QUEUES`.

    :raises django.db.Error: the database does not answer
    """
    now = timezone.now()
    beats = list(WorkerBeat.objects.all())
    at_work = list(
        Job.objects.filter(state=JobState.RUNNING, lease_until__gt=now).defer("progress")
    )
    forgotten = _forgotten(now)
    found = []
    for queue in jobs.QUEUES:
        own_beats = [beat for beat in beats if beat.queue == queue]
        own_jobs = [job for job in at_work if job.queue == queue]
        alive = [beat for beat in own_beats if _is_alive(beat, own_jobs, now)]
        has_free_worker = len(alive) * workers_of(queue) > len(own_jobs)
        waiting = forgotten.get(queue, 0) if has_free_worker else 0
        silent_seconds = None
        if own_beats:
            last_sign = max(beat.at for beat in own_beats)
            silent_seconds = (now - last_sign).total_seconds()
        wrong = ""
        if not alive and not own_jobs:
            wrong = _silence(queue, silent_seconds)
        elif waiting:
            verb = "waits" if waiting == 1 else "wait"
            number = counted(waiting, "job")
            wrong = f"In the queue {queue} {number} {verb} although a worker is free."
        found.append(QueueHealth(queue, silent_seconds, len(own_jobs), waiting, wrong))
    return found


def _is_alive(beat: WorkerBeat, own_jobs: Sequence[Job], now: datetime) -> bool:
    """Return whether a cluster has shown life: by its beat, or by a job whose lease it renews."""
    if beat.busy_until is not None and beat.busy_until > now:
        return True
    if any(job.owner == beat.cluster for job in own_jobs):
        return True
    return now - beat.at < timedelta(seconds=SILENT_BEATS * settings.BEAT_SECONDS)


def _silence(queue: str, seconds: float | None) -> str:
    if seconds is None:
        return f"The queue {queue} has no worker."
    return f"No worker of the queue {queue} has answered for {counted(round(seconds), 'second')}."


def workers_of(queue: str) -> int:
    """Return how many jobs one cluster of a queue runs at the same time."""
    usual: dict[str, Any] = settings.Q_CLUSTER
    own = usual["ALT_CLUSTERS"].get(queue, {})
    return int(own.get("workers", usual["workers"]))


def _forgotten(now: datetime) -> Counter[str]:
    """Return by queue how many jobs wait for longer than a free worker would let them.

    One whose request has another job at work has to wait. Of one that was begun before nobody knows
    since when it waits again; the reaper rings for it.
    """
    since = now - timedelta(seconds=FORGOTTEN_BEATS * settings.BEAT_SECONDS)
    waiting = Job.objects.filter(state=JobState.QUEUED, started=None, created__lt=since)
    waiting = waiting.exclude(request__jobs__state=JobState.RUNNING)
    return Counter(waiting.order_by().values_list("queue", flat=True))


def _workers() -> str:
    sentences = [queue.wrong for queue in queues()]
    return " ".join(each for each in sentences if each)


# --- disk and mail ---


def _disk() -> str:
    folder = settings.DATA_DIR
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return "The data folder cannot be reached."
    if not os.access(folder, os.W_OK | os.X_OK):  # also where it is mounted read-only
        return "The data folder cannot be written."
    if free < LEAST_FREE_BYTES:
        return f"The disk has {free / 1e6:.0f} MB left; make room."
    return ""


def _mail() -> str:
    """Return what is wrong where mails wait for long and none has left since.

    An address that its server refuses is no fault of ours: such a mail alone says nothing.
    """
    now = timezone.now()
    limit = timedelta(seconds=LATE_ROUNDS * settings.REAP_SECONDS)
    unsent = OutgoingMail.objects.filter(state__in=(MailState.WAITING, MailState.SENDING))
    late = unsent.filter(created__lt=now - limit).exclude(error__startswith="{")
    oldest = late.order_by("created").first()
    if oldest is None:
        return ""
    if OutgoingMail.objects.filter(sent__gt=max(oldest.created, now - limit)).exists():
        return ""
    minutes = round((now - oldest.created).total_seconds() / 60)
    return f"No mail leaves; the oldest has waited for {counted(minutes, 'minute')}."


# --- requests ---


def waiting_too_long() -> str:
    """Return a sentence about requests that have waited or been at work for a day, "" for none.

    No stage may take so long: their workers are gone, or far too few.
    """
    a_day_ago = timezone.now() - LONGEST_WAIT
    unfinished = ClassifierRequest.objects.filter(status__in=(Status.QUEUED, Status.RUNNING))
    late = unfinished.filter(moved__lt=a_day_ago).order_by("moved")
    oldest = late.first()
    if oldest is None:
        return ""
    number = late.count()
    verb = "has" if number == 1 else "have"
    since = f"{oldest.moved:%Y-%m-%d %H:%M} UTC"
    return (
        f"{counted(number, 'request')} {verb} waited for more than a day; request {oldest.pk} has"
        f" since {since}. See whether each queue has a worker, and the jobs in the dashboard."
    )
