"""How long a request takes: told by the last ones that were finished here and by those at work.

Only a bounded number of the newest jobs is read, by the index of queue and state.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from requests_app import phrases
from requests_app.models import ClassifierRequest, ImageClass, Job, JobState, WorkerBeat

RECENT_JOBS = 30  # of each stage
MOST_WAITING = 200
USUAL = "usually 3 to 15 minutes"
COLLECT = "collect"
TRAIN = "train"
PACKAGE = "package"
QUEUES = {COLLECT: COLLECT, TRAIN: TRAIN, PACKAGE: TRAIN}
NO_WORKER = "No worker is running at the moment. Requests wait until one is."


@dataclass(frozen=True)
class Pace:
    """Seconds per picture asked for, of collecting and of all that follows."""

    collect: float
    train: float

    def to_collect(self, images: int) -> float:
        """Return the seconds of collecting, which ends at its limit."""
        limit = 60 * settings.COLLECT_MINUTES
        return min(limit, self.collect * images)

    def to_train(self, images: int) -> float:
        """Return the seconds of training and packing, which end at their limit."""
        limit = 60 * settings.TRAIN_MINUTES
        return min(limit, self.train * images)


class Workers:
    """The workers of one queue, and when each is free, in seconds from now."""

    def __init__(self, queue: str) -> None:
        clusters: Any = settings.Q_CLUSTER["ALT_CLUSTERS"]
        cluster = clusters[queue]
        count = cluster["workers"]
        self.free_at = [0.0] * count

    def work(self, seconds: float, ready_at: float = 0.0) -> float:
        """Give a job to the worker that is free first; return when it is done."""
        free_at = min(self.free_at)
        worker = self.free_at.index(free_at)
        start = max(free_at, ready_at)
        end = start + max(0.0, seconds)
        self.free_at[worker] = end
        return end


def of_size(classes: int, images_per_class: int) -> str:
    """Return in a sentence how long a new request of this size takes."""
    if not _has_workers():
        return NO_WORKER
    ahead = _open_jobs()
    time = _time(classes * images_per_class, ahead)
    if time and not ahead:
        return f"{time.capitalize()}: nothing is ahead of yours."
    if time:
        verb = "is" if len(ahead) == 1 else "are"
        return f"{time.capitalize()}: {_counted(ahead)} {verb} ahead of yours."
    if ahead:
        return f"No request was finished here yet: {USUAL}, after {_counted(ahead)}."
    return f"The first request here: {USUAL}."


def time_of(classifier: ClassifierRequest) -> str:
    """Return how long a request takes from now on that has not begun yet, "" where unknown."""
    if not _has_workers():
        return ""
    ahead = []
    for job in _open_jobs():
        if job.request_id == classifier.pk:
            break
        ahead.append(job)
    images = classifier.classes.count() * classifier.images_per_class
    return _time(images, ahead)


def seconds_to_empty() -> float | None:
    """Return the seconds until all that waits now is done; None before a request was finished."""
    ahead = _open_jobs()
    recent = {stage: _recent_jobs(stage) for stage in QUEUES}
    jobs = list(ahead)
    for done in recent.values():
        jobs += done
    sizes = _images_by_request(jobs)
    pace = _pace(recent, sizes)
    return None if pace is None else _seconds(0, ahead, sizes, pace)


def _has_workers() -> bool:
    queues = (COLLECT, TRAIN)
    workers = WorkerBeat.objects.filter(queue__in=queues)
    return any(worker.is_fresh for worker in workers[:20])


def _time(images: int, ahead: Sequence[Job]) -> str:
    """Return an estimate such as "about 6 minutes", "" before a request was finished here."""
    recent = {}
    jobs = list(ahead)
    for stage in QUEUES:
        recent[stage] = _recent_jobs(stage)
        jobs += recent[stage]
    sizes = _images_by_request(jobs)
    pace = _pace(recent, sizes)
    if pace is None:
        return ""
    seconds = _seconds(images, ahead, sizes, pace)
    return phrases.time_left(seconds)


def _counted(ahead: Sequence[Job]) -> str:
    count = len(ahead)
    words = phrases.counted(count, "request")
    if count == MOST_WAITING:
        return f"at least {words}"
    return words


def _seconds(images: int, ahead: Sequence[Job], sizes: Counter[int], pace: Pace) -> float:
    """Return when a request is done that comes after these, which the workers take in order."""
    collectors = Workers(COLLECT)
    trainers = Workers(TRAIN)
    for job in ahead:
        had = job.seconds or 0.0
        size = sizes[job.request_id]
        to_collect = pace.to_collect(size)
        to_train = pace.to_train(size)
        if job.stage == COLLECT:
            collected_at = collectors.work(to_collect - had)
            trainers.work(to_train, collected_at)
        elif job.stage == TRAIN:
            trainers.work(to_train - had)
    to_collect = pace.to_collect(images)
    to_train = pace.to_train(images)
    collected_at = collectors.work(to_collect)
    return trainers.work(to_train, collected_at)


def _pace(recent: dict[str, list[Job]], sizes: Counter[int]) -> Pace | None:
    """Return the medians of the last requests; None before the first was finished."""
    medians = {}
    for stage, jobs in recent.items():
        paces = []
        for job in jobs:
            seconds = job.seconds
            size = sizes[job.request_id]
            if seconds and size:
                paces.append(seconds / size)
        if paces:
            medians[stage] = statistics.median(paces)
    if COLLECT not in medians or TRAIN not in medians:
        return None
    package = medians.get(PACKAGE, 0.0)
    train = medians[TRAIN] + package
    return Pace(medians[COLLECT], train)


def _recent_jobs(stage: str) -> list[Job]:
    done = Job.objects.filter(
        queue=QUEUES[stage],
        state=JobState.DONE,
        stage=stage,
    )
    newest_first = done.order_by("-pk")
    newest = newest_first[:RECENT_JOBS]
    return list(newest)


def _open_jobs() -> list[Job]:
    """Return the jobs at work and in the queues, as they came."""
    queues = (COLLECT, TRAIN)
    states = (JobState.QUEUED, JobState.RUNNING)
    jobs = Job.objects.filter(
        queue__in=queues,
        state__in=states,
    )
    in_order = jobs.order_by("pk")
    first = in_order[:MOST_WAITING]
    return list(first)


def _images_by_request(jobs: Iterable[Job]) -> Counter[int]:
    """Return how many pictures the requests of these jobs ask for."""
    requests = {job.request_id for job in jobs}
    classes = ImageClass.objects.filter(request__in=requests)
    sizes: Counter[int] = Counter()
    columns = classes.values_list("request", "request__images_per_class")
    for request, images in columns:
        sizes[request] += images
    return sizes
