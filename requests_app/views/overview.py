"""What a request's page shows, computed from its rows: the stages, the classes, the result.

Nothing here is stored. The same frozen values make the first page, its polled part and the ETag of
that part.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from django.conf import settings
from django.db.models import Count
from django.utils import timezone

from requests_app import phrases, pipeline
from requests_app.models import (
    ClassifierRequest,
    DatasetVersion,
    ImageClass,
    ImageState,
    ImageUrl,
    Job,
    JobState,
    Kind,
    Status,
    TrainingRun,
    WorkerBeat,
)
from scraping.sources.catalogue import Outcome
from training.earlier_metrics import completed
from training.metrics import ClassMetrics, Confusion, Metrics

THUMBNAILS_PER_CLASS = 12
VERDICT_CLASSES = {"better": "", "not_shown": "unsure", "no_better": "weak"}

HEADLINES = {
    Status.UNCONFIRMED: "One click is missing",
    Status.QUEUED: "Waiting in the queue",
    Status.RUNNING: "At work",
    Status.DELIVERED: "Your classifier is ready",
    Status.NEEDS_ATTENTION: "Your help is needed",
    Status.FAILED: "This did not work",
    Status.CANCELLED: "Cancelled",
}
EXPLANATIONS = {
    Status.UNCONFIRMED: (
        "A mail with a link is on its way to the address you gave. Work starts when you have"
        " confirmed it."
    ),
    Status.CANCELLED: (
        "Nothing more happens here. What was collected so far is kept for a while and used if you"
        " try again."
    ),
    Status.DELIVERED: "Dataset and model are below; a mail with the same links was sent to you.",
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
# A source with any other outcome gave less than it could have.
GOOD_OUTCOMES = (Outcome.OK, Outcome.NO_RESULTS, Outcome.NOT_APPLICABLE)
DOWNLOAD_ORDER = (Kind.MODEL, Kind.DATASET, Kind.CROISSANT, Kind.REPORT)


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
    """What one source gave for one class.

    ``kept`` counts while it is asked; ``outcome`` and ``message`` come when it has finished.
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
        """The value of the progress bar, which cannot be more than full."""
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
    title: str
    """What the first figure is."""
    accuracy: str
    counts: str
    """The counts behind it."""
    verdict: str
    verdict_class: str
    """For the style sheet."""
    judged: str
    """Which pictures the tables are about."""
    macro_f1: str
    scores: tuple[ClassScore, ...]
    matrix: tuple[MatrixRow, ...]
    facts: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]
    elsewhere: str
    """How it does on images from a source that it has not seen."""


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
    active_job = _active_job(jobs)
    version = classifier.versions.order_by("-number").first()
    percent = None
    time_left = ""
    kept_until = None
    if classifier.is_open:
        percent = _percent(active_job)
        time_left = _time_left(active_job)
    else:
        kept_until = classifier.moved + timedelta(days=settings.RETENTION_DAYS)
    error = classifier.error
    return Overview(
        status=classifier.status,
        headline=_headline(classifier, active_job),
        explanation=_explanation(classifier, active_job),
        percent=percent,
        time_left=time_left,
        stages=_stage_lines(classifier, jobs),
        classes=_class_lines(classifier),
        result=_result(version),
        downloads=_downloads(version),
        error=(error.get("reason", ""), error.get("remedy", "")) if error else None,
        confirmation_link=_confirmation_link(classifier),
        kept_until=kept_until,
        is_open=classifier.is_open,
        may_retry=may_retry(classifier),
    )


def may_retry(classifier: ClassifierRequest) -> bool:
    """Return True when work can start again: it has ended, and the address was confirmed (only then
    are there jobs).
    """
    if classifier.status not in (Status.NEEDS_ATTENTION, Status.FAILED, Status.CANCELLED):
        return False
    return classifier.jobs.exists()


def current_jobs(jobs: Sequence[Job]) -> dict[str, Job]:
    """Return the latest job of each stage, in order.

    A job that is older than the current one of an earlier stage belongs to the past.
    """
    current: dict[str, Job] = {}
    newest = 0
    for stage in pipeline.STAGES:
        later = [job for job in jobs if job.stage == stage.name and job.pk > newest]
        if later:
            latest = max(later, key=lambda job: job.pk)
            current[stage.name] = latest
            newest = latest.pk
    return current


def _active_job(jobs: dict[str, Job]) -> Job | None:
    for job in jobs.values():
        if job.state in (JobState.QUEUED, JobState.RUNNING):
            return job
    return None


def _confirmation_link(classifier: ClassifierRequest) -> str:
    """Return the link of the mail where mails end up in a folder, else ""."""
    if classifier.status != Status.UNCONFIRMED:
        return ""
    if not settings.DEBUG or not settings.EMAIL_IN_FOLDER:
        return ""
    return pipeline.confirmation_link(classifier)


# --- what is going on ---


def _headline(classifier: ClassifierRequest, job: Job | None) -> str:
    if classifier.status == Status.RUNNING and job is not None and job.stage in STAGE_HEADLINES:
        return STAGE_HEADLINES[job.stage]
    status = Status(classifier.status)
    return HEADLINES.get(status, "")


def _explanation(classifier: ClassifierRequest, job: Job | None) -> str:
    status = Status(classifier.status)
    if status in (Status.QUEUED, Status.RUNNING) and job is not None:
        return _queue_note(job)
    return EXPLANATIONS.get(status, "")


def _queue_note(job: Job) -> str:
    """Say what the current job waits for: others in the queue, a missing or a silent worker."""
    if job.cancel_requested:
        return "Stopping …"
    if job.is_stalled:
        return (
            "The worker has stopped answering; another one takes over shortly, with nothing lost."
        )
    if job.state == JobState.RUNNING:
        return str(job.progress.get("message") or "")
    workers = WorkerBeat.objects.filter(queue=job.queue)
    if not any(worker.is_fresh for worker in workers):
        return "No worker is running at the moment. It starts by itself as soon as one is."
    ahead = job.ahead
    if ahead == 0:
        return "It is next."
    pieces = phrases.counted(ahead, "other piece", "other pieces")
    return f"{pieces} of work before this one."


def _percent(job: Job | None) -> int | None:
    """Return percent done of a running job; None when it has not said how much there is to do."""
    if job is None or job.state != JobState.RUNNING:
        return None
    total = job.progress.get("total")
    if not total:
        return None
    done = job.progress.get("done") or 0
    return min(100, int(100 * done / total))


def _time_left(job: Job | None) -> str:
    if job is None or job.state != JobState.RUNNING:
        return ""
    seconds = job.progress.get("eta_seconds")
    if seconds is None:
        return ""
    return phrases.time_left(float(seconds))


# --- stages ---


def _stage_lines(classifier: ClassifierRequest, jobs: dict[str, Job]) -> tuple[StageLine, ...]:
    state = "running" if classifier.status == Status.UNCONFIRMED else "done"
    lines = [StageLine("confirm", STAGE_TITLES["confirm"], state)]
    for stage in pipeline.STAGES:
        job = jobs.get(stage.name)
        lines.append(_stage_line(classifier, stage.name, job))
    return tuple(lines)


def _stage_line(classifier: ClassifierRequest, name: str, job: Job | None) -> StageLine:
    title = STAGE_TITLES.get(name, name.capitalize())
    if job is None:
        # A stage without a job is ahead, unless the request was delivered: then it needed none.
        state = "done" if classifier.status == Status.DELIVERED else "waiting"
        return StageLine(name, title, state)
    state = "waiting" if job.state == JobState.QUEUED else str(job.state)
    error = classifier.error or {}
    if error.get("stage") == name and not classifier.is_open:
        state = "failed"
    return StageLine(
        name=name,
        title=title,
        state=state,
        detail=f"attempt {job.attempt}" if job.attempt > 1 else "",
        time=phrases.duration(job.seconds) if job.seconds is not None else "",
        percent=_percent(job),
    )


# --- classes ---


def _class_lines(classifier: ClassifierRequest) -> tuple[ClassLine, ...]:
    kept = ImageUrl.objects.filter(image_class__request=classifier, state=ImageState.KEPT)
    counts = kept.order_by().values_list("image_class", "source").annotate(Count("pk"))
    kept_by_class: dict[int, dict[str, int]] = defaultdict(dict)
    for class_pk, source, count in counts:
        kept_by_class[class_pk][source] = count
    lines = []
    for image_class in classifier.classes.all():
        kept_by_source = kept_by_class[image_class.pk]
        lines.append(_class_line(image_class, kept_by_source, classifier.images_per_class))
    return tuple(lines)


def _class_line(image_class: ImageClass, kept_by_source: dict[str, int], asked: int) -> ClassLine:
    kept = sum(kept_by_source.values())
    images = image_class.images.filter(state=ImageState.KEPT).order_by("-pk")
    newest = images.values_list("pk", flat=True)[:THUMBNAILS_PER_CLASS]
    return ClassLine(
        number=image_class.number,
        name=image_class.name,
        query=image_class.query if image_class.query != image_class.name else "",
        asked=asked,
        found=image_class.found,
        kept=kept,
        rejected=phrases.rejections(image_class.rejected),
        sources=_source_lines(image_class, kept_by_source, full=kept >= asked),
        thumbnails=tuple(newest),
    )


def _source_lines(
    image_class: ImageClass, kept_by_source: dict[str, int], *, full: bool
) -> tuple[SourceLine, ...]:
    """Return a line per source; one that gave too little matters only where the class is not
    full.
    """
    reports = {report["name"]: report for report in image_class.outcomes}
    lines = []
    for name in dict.fromkeys([*reports, *sorted(kept_by_source)]):
        title = phrases.source_title(name)
        kept = kept_by_source.get(name, 0)
        report = reports.get(name)
        if report is None:  # it is still being asked
            lines.append(SourceLine(title, kept))
            continue
        line = SourceLine(
            title=title,
            kept=kept,
            outcome=phrases.outcome(report["outcome"]),
            message=report.get("message") or "",
            good=full or report["outcome"] in GOOD_OUTCOMES,
        )
        lines.append(line)
    return tuple(lines)


# --- the result ---


def _downloads(version: DatasetVersion | None) -> tuple[Download, ...]:
    if version is None:
        return ()
    artifacts = {artifact.kind: artifact for artifact in version.artifacts.all()}
    downloads = []
    for kind in DOWNLOAD_ORDER:
        artifact = artifacts.get(kind)
        if artifact is None:
            continue
        download = Download(
            kind=artifact.kind,
            title=artifact.get_kind_display(),
            file_name=artifact.file_name,
            bytes=artifact.bytes,
            sha256=artifact.sha256,
        )
        downloads.append(download)
    return tuple(downloads)


def _result(version: DatasetVersion | None) -> Result | None:
    if version is None:
        return None
    run = TrainingRun.objects.filter(version=version).first()
    if run is None or not run.metrics:
        return None
    metrics = cast(Metrics, completed(run.metrics))
    cross_validated = metrics["cross_validated"]
    figures = cross_validated or metrics
    tested = phrases.counted(metrics["split"]["test"], "test picture")
    judged = f"The {tested}."
    if cross_validated:
        pictures = phrases.counted(cross_validated["n"], "picture")
        on_test = phrases.figure_on_test(metrics)
        judged = f"All {pictures}, by cross-validation. On the test pictures alone: {on_test}."
    return Result(
        version=version.number,
        title=phrases.headline_title(metrics),
        accuracy=phrases.percent(metrics["headline"]["value"]),
        counts=phrases.headline_counts(metrics),
        verdict=phrases.verdict(metrics),
        verdict_class=VERDICT_CLASSES[metrics["verdict"]],
        judged=judged,
        macro_f1=f"{figures['macro_f1']:.3f}",
        scores=_scores(figures["per_class"]),
        matrix=_matrix(figures["confusion"]),
        facts=_facts(run, metrics),
        notices=tuple(run.notices),
        elsewhere=metrics.get("unseen_sentence", ""),  # not in runs of version 0.1.0
    )


def _scores(per_class: dict[str, ClassMetrics]) -> tuple[ClassScore, ...]:
    scores = []
    for name, figures in per_class.items():
        precision = phrases.percent(figures["precision"])
        recall = phrases.percent(figures["recall"])
        scores.append(ClassScore(name, precision, recall, figures["support"]))
    return tuple(scores)


def _matrix(confusion: Confusion) -> tuple[MatrixRow, ...]:
    """Return the rows of the confusion matrix: true classes down, predicted ones across."""
    labels = confusion["labels"]
    rows = []
    for truth, counts in enumerate(confusion["matrix"]):
        tested = sum(counts)
        cells = []
        for predicted, count in enumerate(counts):
            heat = round(10 * count / tested) if tested else 0
            pictures = phrases.counted(count, "picture")
            title = f"{pictures} of {labels[truth]} called {labels[predicted]}"
            cells.append(Cell(count, heat, truth == predicted, title))
        rows.append(MatrixRow(truth + 1, labels[truth], tuple(cells)))
    return tuple(rows)


def _facts(run: TrainingRun, metrics: Metrics) -> tuple[tuple[str, str], ...]:
    """Return (name, value) of what else is known about the training."""
    split = metrics["split"]
    seconds = sum(run.seconds.values())
    facts = {
        "Pictures": (
            f"{split['train']} to train, {split['val']} to check, {split['test']} to test"
        ),
        "Network": f"{phrases.backbone_title(run.backbone)}, pretrained on ImageNet",
        "Trained on": phrases.device_title(metrics["device"]),
        "Training took": phrases.duration(seconds) if seconds else "",
        "Seed": str(metrics["seed"]),
        "Finished": "",
    }
    if run.finished:
        finished = timezone.localtime(run.finished)
        facts["Finished"] = f"{finished:%d %B %Y, %H:%M} UTC"
    return tuple((name, value) for name, value in facts.items() if value)
