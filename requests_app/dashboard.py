"""What the dashboard shows: the state of the site on its first page, and rows in words.

The first page costs a fixed number of queries, however many rows there are.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Count, Min, Q
from django.utils import timezone
from django_q.models import Schedule

from requests_app import health, phrases, pipeline
from requests_app.models import (
    ClassifierRequest,
    Event,
    ImageState,
    ImageUrl,
    Job,
    JobState,
    MailState,
    OutgoingMail,
    SourceHealth,
    Status,
    WorkerBeat,
)

FAILURE_DAYS = 7
LOW_DISK_SHARE = 0.1  # of the disk; below this the free room is shown as a problem
LOG_BYTES = 8000
LOG_LINES = 40


@dataclass(frozen=True)
class QueueLine:
    """One queue: what is in it, and its workers' last sign of life."""

    name: str
    running: int
    waiting: int
    oldest: datetime | None
    """When the job that waits longest was put in."""
    last_sign: datetime | None
    is_alive: bool


@dataclass(frozen=True)
class DiskLine:
    free_bytes: int
    total_bytes: int
    is_low: bool


@dataclass(frozen=True)
class MailLine:
    """Mails that are not sent: those that wait, since when, and those given up."""

    waiting: int
    oldest: datetime | None
    given_up: int


def first_page() -> dict[str, Any]:
    """Return what the first page shows above the tables."""
    unfinished = Job.objects.filter(state__in=(JobState.QUEUED, JobState.RUNNING))
    beats = list(WorkerBeat.objects.all())
    last_hour, last_day = pictures_kept()
    return {
        "requests": request_counts(),
        "jobs": unfinished.select_related("request")[:20],
        "beats": beats,
        "queues": queue_lines(beats),
        "pictures_last_hour": last_hour,
        "pictures_per_hour": round(last_day / 24),
        "sources": source_lines(),
        "mail": mail_line(),
        "disk": disk_line(),
        "wrong": health.sentence(),
        "late": health.waiting_too_long(),
        "failures": failures_by_day(),
        "schedules": Schedule.objects.order_by("pk"),  # asked for only where they are shown
    }


def request_counts() -> list[tuple[str, str, int]]:
    """Return (status, label, number of requests) of each status that occurs."""
    rows = ClassifierRequest.objects.order_by().values_list("status").annotate(Count("pk"))
    number_by_status = dict(rows)
    counts = []
    for status, label in Status.choices:
        if status in number_by_status:
            counts.append((status, label, number_by_status[status]))
    return counts


def pictures_kept() -> tuple[int, int]:
    """Return how many pictures were fetched and kept in the last hour and in the last day."""
    now = timezone.now()
    a_day_ago = now - timedelta(days=1)
    an_hour_ago = now - timedelta(hours=1)
    kept = ImageUrl.objects.filter(state=ImageState.KEPT)
    last_day = kept.filter(fetched_at__gt=a_day_ago)
    last_hour = kept.filter(fetched_at__gt=an_hour_ago)
    return last_hour.count(), last_day.count()


def queue_lines(beats: Sequence[WorkerBeat]) -> list[QueueLine]:
    """Return a line per queue, in the order of the work."""
    waiting = Q(state=JobState.QUEUED)
    unfinished = Job.objects.filter(state__in=(JobState.QUEUED, JobState.RUNNING)).order_by()
    rows = unfinished.values("queue").annotate(
        running=Count("pk", filter=Q(state=JobState.RUNNING)),
        waiting=Count("pk", filter=waiting),
        oldest=Min("created", filter=waiting),
    )
    by_queue = {row["queue"]: row for row in rows}
    lines = []
    for queue in dict.fromkeys(stage.queue for stage in pipeline.STAGES):
        row: Any = by_queue.get(queue, {})
        own_beats = [beat for beat in beats if beat.queue == queue]
        line = QueueLine(
            name=queue,
            running=row.get("running", 0),
            waiting=row.get("waiting", 0),
            oldest=row.get("oldest"),
            last_sign=max((beat.at for beat in own_beats), default=None),
            is_alive=any(beat.is_fresh for beat in own_beats),
        )
        lines.append(line)
    return lines


def source_lines() -> list[tuple[str, str, SourceHealth | None]]:
    """Return (title, outcome in words, health) of each source.

    First those in use, in the order of asking, then others that were asked once.
    """
    healths = {health.name: health for health in SourceHealth.objects.all()}
    lines = []
    for name in dict.fromkeys([*settings.SOURCES, *healths]):
        health = healths.get(name)
        outcome = phrases.outcome(health.outcome) if health else "not asked yet"
        lines.append((phrases.source_title(name), outcome, health))
    return lines


def mail_line() -> MailLine:
    unsent = OutgoingMail.objects.exclude(state=MailState.SENT)
    is_given_up = Q(state=MailState.GIVEN_UP)
    counts = unsent.aggregate(
        waiting=Count("pk", filter=~is_given_up),
        oldest=Min("created", filter=~is_given_up),
        given_up=Count("pk", filter=is_given_up),
    )
    return MailLine(**counts)


def disk_line() -> DiskLine:
    """Return how much room there is where pictures and models are written."""
    usage = shutil.disk_usage(settings.DATA_DIR)
    is_low = usage.free < LOW_DISK_SHARE * usage.total
    return DiskLine(usage.free, usage.total, is_low)


def failures_by_day() -> list[tuple[date, int]]:
    """Return (day in UTC, number of requests that failed) of the last days, today first."""
    now = timezone.now()
    today = now.date()
    longest_ago = timedelta(days=FAILURE_DAYS)
    failed = Event.objects.filter(new=Status.FAILED, at__gt=now - longest_ago)
    number_on: Counter[date] = Counter()
    for event in failed.only("at"):
        day = event.at.date()
        number_on[day] += 1
    lines = []
    for back in range(FAILURE_DAYS):
        day = today - timedelta(days=back)
        lines.append((day, number_on[day]))
    return lines


# --- rows in words ---


def problem(classifier: ClassifierRequest) -> str:
    """Return why a request has stopped and what helps, "" for one that has not."""
    error = classifier.error or {}
    sentences = [error.get("reason", ""), error.get("remedy", "")]
    return " ".join(sentence for sentence in sentences if sentence)


def wishes(classifier: ClassifierRequest) -> str:
    """Return what a request asks for, in one line."""
    sources = classifier.sources or settings.SOURCES
    titles = [phrases.source_title(name) for name in sources]
    parts = [
        f"{phrases.counted(classifier.images_per_class, 'picture')} per class",
        classifier.get_license_display().lower(),
        f"from {', '.join(titles)}",
        f"network {phrases.backbone_title(classifier.backbone)}",
    ]
    if classifier.accept_fewer:
        parts.append("also with fewer pictures")
    return "; ".join(parts)


def outcomes(reports: Sequence[dict[str, Any]]) -> list[str]:
    """Return a sentence per source that was asked for a class."""
    lines = []
    for report in reports:
        title = phrases.source_title(report["name"])
        line = f"{title} {phrases.outcome(report['outcome'])}: {report.get('found', 0)} found"
        message = report.get("message")
        lines.append(f"{line}. {message}" if message else f"{line}.")
    return lines


def progress(job: Job) -> str:
    """Return how far a running job is; a dash for others, whose last progress says nothing."""
    total = job.progress.get("total")
    if job.state != JobState.RUNNING or not total:
        return "–"
    done = job.progress.get("done") or 0
    return phrases.percent(min(1.0, done / total))


def log_tail(classifier: ClassifierRequest) -> str:
    """Return the last lines of the newest log of a request's work, "" without any."""
    logs = [classifier.folder / "collect" / "log.txt", *classifier.folder.glob("runs/*/log.txt")]
    written = [log for log in logs if log.is_file()]
    if not written:
        return ""
    newest = max(written, key=lambda log: log.stat().st_mtime_ns)
    lines = _last_bytes(newest).decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:])


def _last_bytes(file: Path) -> bytes:
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - LOG_BYTES))
        return opened.read()
