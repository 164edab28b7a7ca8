"""What a request's page shows, computed from its rows: the stages, the classes, the result.

Nothing here is stored. The same frozen values make the first page, its polled part and the ETag of
that part.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import Count
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from requests_app import estimate, phrases, pipeline, shortage, versions
from requests_app.models import (
    ClassifierRequest,
    ImageClass,
    ImageState,
    ImageUrl,
    Job,
    JobState,
    MailState,
    Status,
    WorkerBeat,
)
from requests_app.views.curves import Curves, curves_of
from requests_app.views.finish import Finish, finish_of
from requests_app.views.first_model import FirstModel, first_model
from requests_app.views.meanings import Question, questions
from requests_app.views.result import Download, Result, downloads_of, result_of
from scraping.sources.catalogue import Outcome

THUMBNAILS_PER_CLASS = 12

HEADLINES = {
    Status.UNCONFIRMED: "Check your inbox",
    Status.QUEUED: "Waiting in the queue",
    Status.RUNNING: "Working",
    Status.DELIVERED: "Your classifier is ready",
    Status.NEEDS_ATTENTION: "We found too few pictures",
    Status.FAILED: "This request failed",
    Status.CANCELLED: "Cancelled",
}
EXPLANATIONS = {
    Status.DELIVERED: "Dataset and model are below; a mail with the same links was sent to you.",
}
OUTAGE_HEADLINE = "The picture sources could not be reached"
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
AT_WORK = (Status.QUEUED, Status.RUNNING)
HELD_BACK = "One went there a short while ago, and they go one after the other."
LEAVE_NOTE = "You may close this page: a mail comes when it is ready, or when we need you."
# A source with any other outcome gave less than it could have.
GOOD_OUTCOMES = (Outcome.OK, Outcome.NO_RESULTS, Outcome.NOT_APPLICABLE)


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

    ``kept`` counts while it is asked; ``note`` says afterwards why it gave no more. ``state`` is
    good, empty (it gave nothing, which is no fault) or off (it gave less than it could have).
    """

    title: str
    kept: int
    note: str = ""
    state: str = "good"


@dataclass(frozen=True)
class ClassLine:
    """One class with its counts, sources and newest pictures (primary keys of ImageUrl).

    ``query`` is what is searched for, "" where that is the name.
    """

    number: int
    name: str
    query: str
    asked: int
    found: int
    kept: int
    rejected: str
    sources: tuple[SourceLine, ...]
    thumbnails: tuple[int, ...]
    is_short: bool
    """Whether the person is asked because of this class."""

    @property
    def shown_kept(self) -> int:
        """The value of the progress bar, which cannot be more than full."""
        return min(self.kept, self.asked)


@dataclass(frozen=True)
class Help:
    """What a person can do about too few pictures.

    ``counts`` has (number, name, kept) of the classes that are short; one of them can be left out
    where ``can_leave_out``.
    """

    needed: int
    counts: tuple[tuple[int, str, int], ...]
    can_train: bool
    can_leave_out: bool


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
    network: str
    """The one that was asked for."""
    kind_note: str
    """How the classes are asked for, and why."""
    first_model: FirstModel | None
    curves: Curves | None
    """Of the newest version's fine-tuning."""
    questions: tuple[Question, ...]
    """The groups that each class's pictures fall into."""
    finish: Finish | None
    """How the work that goes on can be ended early."""
    result: Result | None
    downloads: tuple[Download, ...]
    error: tuple[str, str] | None
    again_at: datetime | None
    """When the sources are asked again without the person."""
    help: Help | None
    """What the person can decide where pictures are too few."""
    leave_note: str
    """That nobody has to wait here; "" where nothing goes on."""
    polls: bool
    """Whether the page asks for news: something will happen without the person."""
    confirmation_link: str
    """The link of the mail, where mails are only files on this machine; else ""."""
    may_send_again: bool
    """Whether the confirmation mail may be sent once more."""
    form_again: str
    """The address of the form with the same classes; "" once the address is confirmed."""
    kept_until: datetime | None
    is_open: bool
    may_retry: bool

    @property
    def short_numbers(self) -> tuple[int, ...]:
        """Return the numbers of the classes that are short."""
        return tuple(line.number for line in self.classes if line.is_short)

    @property
    def has_other_classes(self) -> bool:
        """Return whether some class has pictures enough."""
        return len(self.short_numbers) < len(self.classes)


def overview(classifier: ClassifierRequest) -> Overview:
    """Compute the page of a request from its rows."""
    jobs = current_jobs(list(classifier.jobs.all()))
    job = unfinished_job(jobs)
    version = next(iter(versions.finished_versions(classifier)), None)
    help_wanted = _help(classifier)
    class_lines = _class_lines(classifier, help_wanted)
    again_at = _again_at(classifier)
    percent = None
    time_left = ""
    kept_until = None
    if classifier.is_open:
        percent = _percent(job)
        time_left = _time_left(job)
    else:
        kept_until = classifier.moved + timedelta(days=settings.RETENTION_DAYS)
    error = classifier.error
    return Overview(
        status=classifier.status,
        headline=_headline(classifier, job),
        explanation=_explanation(classifier, job),
        percent=percent,
        time_left=time_left,
        stages=_stage_lines(classifier, jobs),
        classes=class_lines,
        network=phrases.backbone_title(classifier.backbone),
        kind_note=str(classifier.kind_found.get("sentence", "")),
        first_model=first_model(classifier, job),
        curves=curves_of(classifier),
        questions=questions(classifier),
        finish=finish_of(classifier, job, {line.name: line.kept for line in class_lines}),
        result=result_of(version),
        downloads=downloads_of(version),
        error=(error.get("reason", ""), error.get("remedy", "")) if error else None,
        again_at=again_at,
        help=help_wanted,
        leave_note=LEAVE_NOTE if classifier.status in AT_WORK else "",
        polls=classifier.is_open or again_at is not None,
        confirmation_link=_confirmation_link(classifier),
        may_send_again=_may_send_again(classifier),
        form_again=_form_again(classifier),
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


def _again_at(classifier: ClassifierRequest) -> datetime | None:
    """Return when the sources are asked again by themselves."""
    again_at = (classifier.error or {}).get("again_at")
    if classifier.status != Status.NEEDS_ATTENTION or not again_at:
        return None
    return datetime.fromisoformat(again_at)


def _help(classifier: ClassifierRequest) -> Help | None:
    """Return what the person can decide, where a class of an ended request is short."""
    stage = (classifier.error or {}).get("stage")
    has_failed_training = classifier.status == Status.FAILED and stage == pipeline.TRAIN.name
    if classifier.status != Status.NEEDS_ATTENTION and not has_failed_training:
        return None
    if versions.finished_versions(classifier):
        return None
    lack = shortage.shortage_of(classifier)
    if not lack.short:
        return None
    counts = [(each.number, each.name, each.kept) for each in lack.short]
    is_asked = classifier.status == Status.NEEDS_ATTENTION
    return Help(lack.needed, tuple(counts), lack.can_train and is_asked, lack.can_leave_out)


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


def unfinished_job(jobs: dict[str, Job]) -> Job | None:
    for job in jobs.values():
        if job.state in (JobState.QUEUED, JobState.RUNNING):
            return job
    return None


def _confirmation_link(classifier: ClassifierRequest) -> str:
    """Return the link of the mail where mails end up in a folder, else ""."""
    if classifier.status != Status.UNCONFIRMED:
        return ""
    if not pipeline.confirms_on_the_page():
        return ""
    return pipeline.confirmation_path(classifier)


def _form_again(classifier: ClassifierRequest) -> str:
    if classifier.status != Status.UNCONFIRMED:
        return ""
    fields = [("classes", image_class.name) for image_class in classifier.classes.all()]
    fields.append(("kind", classifier.kind))
    return f"{reverse('home')}?{urlencode(fields)}"


def _may_send_again(classifier: ClassifierRequest) -> bool:
    if classifier.status != Status.UNCONFIRMED:
        return False
    return pipeline.confirmation_mails_left(classifier) > 0


# --- what is going on ---


def _headline(classifier: ClassifierRequest, job: Job | None) -> str:
    if classifier.status == Status.RUNNING and job is not None and job.stage in STAGE_HEADLINES:
        return STAGE_HEADLINES[job.stage]
    if _again_at(classifier) is not None:
        return OUTAGE_HEADLINE
    status = Status(classifier.status)
    return HEADLINES.get(status, "")


def _explanation(classifier: ClassifierRequest, job: Job | None) -> str:
    status = Status(classifier.status)
    if status == Status.UNCONFIRMED:
        address = phrases.masked_address(classifier.email)
        if held_back := _held_back(classifier):
            return f"A mail with a link goes to {address} in {held_back}. {HELD_BACK}"
        link = f"We sent a link to {address}. Click it and we start."
        time = estimate.time_of(classifier)
        return f"{link} It then takes {time}." if time else link
    if status in AT_WORK and job is not None:
        note = _queue_note(job)
        is_first_stage = job.state == JobState.QUEUED and job.stage == pipeline.COLLECT.name
        time = estimate.time_of(classifier) if is_first_stage else ""
        return f"{note} It takes {time}." if time else note
    if status == Status.CANCELLED:
        return _stopped_note(classifier)
    return EXPLANATIONS.get(status, "")


def _held_back(classifier: ClassifierRequest) -> str:
    """Return the time until the confirmation mail goes that waits for its turn, "" for none."""
    now = timezone.now()
    waiting = classifier.mails.filter(state=MailState.WAITING, attempts=0, not_before__gt=now)
    row = waiting.order_by("not_before").first()
    if row is None:
        return ""
    seconds = (row.not_before - now).total_seconds()
    return phrases.time_left(seconds)


def _stopped_note(classifier: ClassifierRequest) -> str:
    if not classifier.jobs.exists():
        return "Stopped. Nothing was collected."
    until = classifier.moved + timedelta(days=settings.RETENTION_DAYS)
    return format_html(
        "Stopped. The pictures collected so far are kept until"
        ' <time datetime="{}" data-day>{}</time>; you can continue any time.',
        until.isoformat(),
        f"{until:%-d %B %Y}",
    )


def _queue_note(job: Job) -> str:
    """Say what the current job waits for: others in the queue, a missing or a silent worker."""
    if job.cancel_requested:
        return "Stopping …"
    if job.is_stalled:
        return (
            "The worker has stopped answering; another one takes over shortly, with nothing lost."
        )
    if job.state == JobState.RUNNING:
        message = str(job.progress.get("message") or "")
        # The counts stand in the cards, which may be a second ahead.
        return "" if message.endswith(" kept") else message
    workers = WorkerBeat.objects.filter(queue=job.queue)
    if not any(worker.is_fresh for worker in workers):
        return "No worker is running at the moment. It starts by itself as soon as one is."
    busy = ClassifierRequest.objects.busy_mailboxes()
    if job.request.status == Status.QUEUED and job.request.mailbox in busy:
        return "It begins when your other request is finished."
    ahead = job.ahead
    if ahead == 0:
        return "Yours is next."
    if ahead == 1:
        return "1 request is ahead of yours."
    return f"{ahead} requests are ahead of yours."


def _percent(job: Job | None) -> int | None:
    """Return percent done of a running job; None when it has not said how much there is to do."""
    if job is None or job.state != JobState.RUNNING:
        return None
    percent = job.progress.get("percent")
    if percent is not None:
        return int(percent)
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
    elif state == "running" and not classifier.is_open:
        state = "cancelled"  # its worker is told at its next sign of life; the page waits no longer
    return StageLine(
        name=name,
        title=title,
        state=state,
        detail=f"attempt {job.attempt}" if job.attempt > 1 else "",
        time=phrases.duration(job.seconds) if job.seconds is not None else "",
        percent=_percent(job),
    )


# --- classes ---


def _class_lines(classifier: ClassifierRequest, help_wanted: Help | None) -> tuple[ClassLine, ...]:
    kept = ImageUrl.objects.filter(image_class__request=classifier, state=ImageState.KEPT)
    counts = kept.order_by().values_list("image_class", "source").annotate(Count("pk"))
    kept_by_class: dict[int, dict[str, int]] = defaultdict(dict)
    for class_pk, source, count in counts:
        kept_by_class[class_pk][source] = count
    short = {number for number, _, _ in help_wanted.counts} if help_wanted else set()
    lines = []
    for image_class in classifier.classes.all():
        kept_by_source = kept_by_class[image_class.pk]
        asked = classifier.images_per_class
        is_short = image_class.number in short
        lines.append(_class_line(image_class, kept_by_source, asked, is_short=is_short))
    return tuple(lines)


def _class_line(
    image_class: ImageClass, kept_by_source: dict[str, int], asked: int, *, is_short: bool
) -> ClassLine:
    kept = sum(kept_by_source.values())
    images = image_class.images.filter(state=ImageState.KEPT).order_by("-pk")
    newest = images.values_list("pk", flat=True)[:THUMBNAILS_PER_CLASS]
    words = image_class.search_words
    return ClassLine(
        number=image_class.number,
        name=image_class.name,
        query=words if words != image_class.name else "",
        asked=asked,
        found=image_class.found,
        kept=kept,
        rejected=phrases.rejections(image_class.rejected),
        sources=_source_lines(image_class, kept_by_source, full=kept >= asked),
        thumbnails=tuple(newest),
        is_short=is_short,
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
        note = ""
        if not full:
            note = report.get("message") or ""
            if not note and report["outcome"] not in GOOD_OUTCOMES:
                note = f"{title} {phrases.outcome(report['outcome'])}."
        state = _source_state(report["outcome"], kept, full=full)
        lines.append(SourceLine(title, kept, note, state))
    return tuple(lines)


def _source_state(outcome: str, kept: int, *, full: bool) -> str:
    if outcome not in GOOD_OUTCOMES and not full:
        return "off"
    return "good" if kept else "empty"
