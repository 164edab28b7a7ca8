"""What a request's page shows, computed from its rows: the stages, the classes, the result.

Nothing here is stored. The same frozen values make the first page, the polled fragment and its
ETag.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count
from django.utils import timezone

from requests_app import phrases, pipeline
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    DatasetVersion,
    ImageClass,
    ImageState,
    ImageUrl,
    Job,
    JobState,
    Status,
    TrainingRun,
    WorkerBeat,
)

THUMBNAILS_PER_CLASS = 12

HEADLINES = {
    Status.UNCONFIRMED: "One click is missing",
    Status.QUEUED: "Waiting in the queue",
    Status.RUNNING: "At work",
    Status.DELIVERED: "Your classifier is ready",
    Status.NEEDS_ATTENTION: "Your help is needed",
    Status.FAILED: "This did not work",
    Status.CANCELLED: "Cancelled",
}
STAGE_TITLES = {
    "confirm": "Confirm the address",
    "collect": "Collect pictures",
    "train": "Train and measure",
    "package": "Pack the files",
    "deliver": "Send the result",
}
STAGE_HEADLINES = {
    "collect": "Collecting pictures",
    "train": "Training the classifier",
    "package": "Packing the files",
    "deliver": "Sending the result",
}
GOOD_OUTCOMES = frozenset({"ok", "no_results", "not_applicable"})


@dataclass(frozen=True)
class StageLine:
    """One stage: ``state`` is done, running, waiting, failed or cancelled."""

    name: str
    title: str
    state: str
    detail: str = ""
    time: str = ""
    percent: int | None = None


@dataclass(frozen=True)
class SourceLine:
    """What one source gave for one class; ``kept`` counts live, ``message`` comes when it has
    finished.
    """

    title: str
    kept: int
    outcome: str = ""
    message: str = ""
    good: bool = True


@dataclass(frozen=True)
class ClassLine:
    """One class with its counts, sources and newest pictures (primary keys of ImageUrl)."""

    number: int
    name: str
    query: str
    asked: int
    found: int
    kept: int
    rejected: str
    sources: tuple[SourceLine, ...]
    thumbnails: tuple[int, ...]

    @property
    def shown_kept(self) -> int:
        """For the progress bar, which cannot be more than full."""
        return min(self.kept, self.asked)


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix; ``heat`` 0 to 10 is its share of the row."""

    count: int
    heat: int
    right: bool
    title: str


@dataclass(frozen=True)
class MatrixRow:
    number: int
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ClassScore:
    name: str
    precision: str
    recall: str
    support: int


@dataclass(frozen=True)
class Download:
    kind: str
    title: str
    file_name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Result:
    """The measured model of one dataset version."""

    version: int
    accuracy: str
    interval: str
    verdict: str
    convincing: bool
    macro_f1: str
    baseline: str
    scores: tuple[ClassScore, ...]
    matrix: tuple[MatrixRow, ...]
    facts: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """Everything that the page of a request shows."""

    status: str
    headline: str
    explanation: str
    percent: int | None
    time_left: str
    stages: tuple[StageLine, ...]
    classes: tuple[ClassLine, ...]
    result: Result | None
    downloads: tuple[Download, ...]
    error: tuple[str, str] | None
    confirmation_link: str
    kept_until: datetime | None
    is_open: bool
    may_retry: bool


def overview(classifier: ClassifierRequest) -> Overview:
    """Compute the page of a request from its rows."""
    jobs = current_jobs(list(classifier.jobs.all()))
    active = next(
        (job for job in jobs.values() if job.state in (JobState.QUEUED, JobState.RUNNING)), None
    )
    version = classifier.versions.order_by("-number").first()
    open_now = classifier.is_open
    return Overview(
        status=classifier.status,
        headline=_headline(classifier, active),
        explanation=_explanation(classifier, active),
        percent=_percent(active) if open_now else None,
        time_left=_time_left(active) if open_now else "",
        stages=_stage_lines(classifier, jobs),
        classes=_class_lines(classifier),
        result=_result(version),
        downloads=_downloads(version),
        error=(classifier.error.get("reason", ""), classifier.error.get("remedy", ""))
        if classifier.error
        else None,
        confirmation_link=_confirmation_link(classifier),
        kept_until=None if open_now else classifier.moved + timedelta(days=settings.RETENTION_DAYS),
        is_open=open_now,
        may_retry=may_retry(classifier),
    )


def may_retry(classifier: ClassifierRequest) -> bool:
    """Whether work can start again: it has ended, and the address was confirmed (only then were
    there jobs).
    """
    ended = classifier.status in (Status.NEEDS_ATTENTION, Status.FAILED, Status.CANCELLED)
    return ended and classifier.jobs.exists()


def current_jobs(jobs: Sequence[Job]) -> dict[str, Job]:
    """The latest job of each stage, in order; one from before a repeated earlier stage is past."""
    current: dict[str, Job] = {}
    newest = 0
    for stage in pipeline.STAGES:
        later = [job for job in jobs if job.stage == stage.name and job.pk > newest]
        if later:
            current[stage.name] = max(later, key=lambda job: job.pk)
            newest = current[stage.name].pk
    return current


def _confirmation_link(classifier: ClassifierRequest) -> str:
    """The link of the mail, where mails end up in a folder and nobody would see it."""
    shown = settings.DEBUG and settings.EMAIL_IN_FOLDER and classifier.status == Status.UNCONFIRMED
    return pipeline.confirmation_link(classifier) if shown else ""


def _headline(classifier: ClassifierRequest, active: Job | None) -> str:
    if classifier.status == Status.RUNNING and active is not None:
        return STAGE_HEADLINES.get(active.stage, HEADLINES[Status.RUNNING])
    return HEADLINES.get(Status(classifier.status), "")


def _explanation(classifier: ClassifierRequest, active: Job | None) -> str:
    match classifier.status:
        case Status.UNCONFIRMED:
            return "A mail with a link is on its way to the address you gave. Work starts when you have confirmed it."
        case Status.CANCELLED:
            return "Nothing more happens here. What was collected so far is kept for a while and used if you try again."
        case Status.DELIVERED:
            return "Dataset and model are below; a mail with the same links was sent to you."
        case Status.QUEUED | Status.RUNNING if active is not None:
            return _queue_note(active)
    return ""


def _queue_note(job: Job) -> str:
    """What the current job waits for, computed: its place in the queue, a missing or a silent
    worker.
    """
    if job.cancel_requested:
        return "Stopping …"
    if job.is_stalled:
        return (
            "The worker has stopped answering; another one takes over shortly, with nothing lost."
        )
    if job.state == JobState.RUNNING:
        return str(job.progress.get("message") or "")
    if not any(beat.is_fresh for beat in WorkerBeat.objects.filter(queue=job.queue)):
        return "No worker is running at the moment. It starts by itself as soon as one is."
    if job.ahead:
        return (
            f"{phrases.counted(job.ahead, 'other piece', 'other pieces')} of work before this one."
        )
    return "It is next."


def _percent(job: Job | None) -> int | None:
    """Percent done of the running job; None when it has not said how much there is to do."""
    if job is None or job.state != JobState.RUNNING or not job.progress.get("total"):
        return None
    return min(100, int(100 * (job.progress.get("done") or 0) / job.progress["total"]))


def _time_left(job: Job | None) -> str:
    if job is None or job.state != JobState.RUNNING or job.progress.get("eta_seconds") is None:
        return ""
    return phrases.time_left(float(job.progress["eta_seconds"]))


def _stage_lines(classifier: ClassifierRequest, jobs: dict[str, Job]) -> tuple[StageLine, ...]:
    confirmed = classifier.status != Status.UNCONFIRMED
    first = StageLine("confirm", STAGE_TITLES["confirm"], "done" if confirmed else "running")
    return (
        first,
        *(_stage_line(classifier, stage.name, jobs.get(stage.name)) for stage in pipeline.STAGES),
    )


def _stage_line(classifier: ClassifierRequest, name: str, job: Job | None) -> StageLine:
    title = STAGE_TITLES.get(name, name.capitalize())
    if job is None:
        # A stage without a job is ahead, unless the request was delivered: then it needed none.
        return StageLine(
            name, title, "done" if classifier.status == Status.DELIVERED else "waiting"
        )
    state = {JobState.QUEUED: "waiting"}.get(JobState(job.state), job.state)
    failed_here = classifier.error and classifier.error.get("stage") == name
    return StageLine(
        name=name,
        title=title,
        state="failed" if failed_here and not classifier.is_open else str(state),
        detail=f"attempt {job.attempt}" if job.attempt > 1 else "",
        time=phrases.duration(job.seconds) if job.seconds is not None else "",
        percent=_percent(job),
    )


def _class_lines(classifier: ClassifierRequest) -> tuple[ClassLine, ...]:
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    kept = ImageUrl.objects.filter(
        image_class__request=classifier, state=ImageState.KEPT
    ).order_by()
    for row in kept.values("image_class", "source").annotate(number=Count("pk")):
        counts[row["image_class"]][row["source"]] = row["number"]
    return tuple(
        _class_line(classifier, each, counts[each.pk]) for each in classifier.classes.all()
    )


def _class_line(
    classifier: ClassifierRequest, image_class: ImageClass, kept: dict[str, int]
) -> ClassLine:
    newest = image_class.images.filter(state=ImageState.KEPT).order_by("-pk")[:THUMBNAILS_PER_CLASS]
    return ClassLine(
        number=image_class.number,
        name=image_class.name,
        query=image_class.query if image_class.query != image_class.name else "",
        asked=classifier.images_per_class,
        found=image_class.found,
        kept=sum(kept.values()),
        rejected=phrases.rejections(image_class.rejected),
        sources=_source_lines(
            image_class, kept, full=sum(kept.values()) >= classifier.images_per_class
        ),
        thumbnails=tuple(newest.values_list("pk", flat=True)),
    )


def _source_lines(
    image_class: ImageClass, kept: dict[str, int], *, full: bool
) -> tuple[SourceLine, ...]:
    """A line per source; one that gave less than asked matters only where the class is not full."""
    outcomes = {row["name"]: row for row in image_class.outcomes}
    return tuple(
        SourceLine(
            title=phrases.source_title(name),
            kept=kept.get(name, 0),
            outcome=phrases.outcome(outcomes[name]["outcome"]) if name in outcomes else "",
            message=outcomes.get(name, {}).get("message") or "",
            good=full or name not in outcomes or outcomes[name]["outcome"] in GOOD_OUTCOMES,
        )
        for name in dict.fromkeys([*outcomes, *sorted(kept)])
    )


def _downloads(version: DatasetVersion | None) -> tuple[Download, ...]:
    if version is None:
        return ()
    order = ["model", "dataset", "croissant", "report"]
    rows = sorted(
        version.artifacts.all(), key=lambda row: order.index(row.kind) if row.kind in order else 9
    )
    return tuple(map(_download, rows))


def _download(artifact: Artifact) -> Download:
    return Download(
        artifact.kind,
        artifact.get_kind_display(),
        artifact.file_name,
        artifact.bytes,
        artifact.sha256,
    )


def _result(version: DatasetVersion | None) -> Result | None:
    run = TrainingRun.objects.filter(version=version).first() if version else None
    if version is None or run is None or not run.metrics:
        return None
    metrics = run.metrics
    return Result(
        version=version.number,
        accuracy=phrases.percent(metrics["accuracy"]),
        interval=phrases.interval(metrics["interval"]),
        verdict=phrases.verdict(metrics),
        convincing=bool(metrics["better_than_chance"]),
        macro_f1=f"{metrics['macro_f1']:.3f}",
        baseline=phrases.percent(metrics["majority_baseline"]),
        scores=tuple(_score(name, row) for name, row in metrics["per_class"].items()),
        matrix=_matrix(metrics["confusion"]),
        facts=_facts(run, metrics),
        notices=tuple(run.notices),
    )


def _score(name: str, row: dict[str, Any]) -> ClassScore:
    return ClassScore(
        name, phrases.percent(row["precision"]), phrases.percent(row["recall"]), row["support"]
    )


def _matrix(confusion: dict[str, Any]) -> tuple[MatrixRow, ...]:
    labels = confusion["labels"]
    return tuple(
        MatrixRow(
            number,
            label,
            tuple(_cell(labels, number - 1, column, row) for column in range(len(row))),
        )
        for number, (label, row) in enumerate(
            zip(labels, confusion["matrix"], strict=True), start=1
        )
    )


def _cell(labels: list[str], truth: int, answer: int, row: list[int]) -> Cell:
    heat = round(10 * row[answer] / sum(row)) if sum(row) else 0
    pictures = phrases.counted(row[answer], "picture")
    return Cell(
        row[answer], heat, truth == answer, f"{pictures} of {labels[truth]} called {labels[answer]}"
    )


def _facts(run: TrainingRun, metrics: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    split = metrics["split"]
    spent = sum(value for value in run.seconds.values() if isinstance(value, int | float))
    facts = [
        (
            "Pictures",
            f"{split['train']} to train, {split['val']} to check, {split['test']} to test",
        ),
        ("Network", f"{phrases.NETWORKS.get(run.backbone, run.backbone)}, pretrained on ImageNet"),
        ("Trained on", phrases.DEVICES.get(metrics["device"], str(metrics["device"]))),
        ("Training took", phrases.duration(spent) if spent else ""),
        ("Seed", str(metrics["seed"])),
        (
            "Finished",
            f"{timezone.localtime(run.finished):%d %B %Y, %H:%M} UTC" if run.finished else "",
        ),
    ]
    return tuple((name, value) for name, value in facts if value)
