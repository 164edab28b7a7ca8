"""The way of a request: submission → URLs → images → dataset → model → delivery.

One function per arrow, from top to bottom. Every stage may be repeated: it looks at what is on
disk, goes on from there, and ends with one transaction that holds its consequences.
"""

import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.core import signing
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from requests_app import (
    class_policy,
    curation,
    first_model,
    limits,
    mail,
    own_check,
    result_mail,
    shortage,
    supplied,
    takedowns,
    versions,
)
from requests_app.delivery import dataset_zip, model_zip
from requests_app.delivery.croissant import build_croissant
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    DatasetVersion,
    Job,
    Kind,
    SourceHealth,
    Status,
    TrainingRun,
)
from requests_app.shortage import Shortage
from requests_app.steady import TRAINING_SHARES, SteadyProgress
from requests_app.text_rules import holds_address
from requests_app.workers import collection_sync, jobs
from requests_app.workers.collection_sync import BrowserGrant, CollectionSync, JsonLines
from requests_app.workers.jobs import CancelRequested, Lease, StageFailed
from scraping.kinds import search_words
from scraping.sources.catalogue import CATALOGUE, SEARCHED
from training import run_folder
from training.run_folder import RunError

logger = logging.getLogger(__name__)

CONFIRM_WITHIN = timedelta(hours=24)
MOST_CONFIRMATION_MAILS = 4  # to one address for one request: nobody can be flooded with them
LOOPBACK = ("127.0.0.1", "localhost", "::1")
COUNT_DISK_SECONDS = 10.0
SEARCH_AGAIN = "ask-again"  # a file in a finished collection that must ask its sources once more


@dataclass(frozen=True)
class Stage:
    """One arrow: its queue, its own time limit, and the function that does it."""

    name: str
    queue: str
    limit_seconds: Callable[[], float]
    run: Callable[[Lease], None]

    def enqueue(self, classifier: ClassifierRequest) -> None:
        """Have this stage done; to be called in the transaction that justifies it."""
        jobs.enqueue(classifier, self.name, self.queue)


# The functions come further down, in this order; lambdas let them be named here already.
COLLECT = Stage(
    "collect",
    queue="collect",
    limit_seconds=lambda: settings.COLLECT_MINUTES * 60,
    run=lambda lease: collect(lease),
)
TRAIN = Stage(
    "train",
    queue="train",
    limit_seconds=lambda: settings.TRAIN_MINUTES * 60,
    run=lambda lease: train(lease),
)
PACKAGE = Stage(
    "package",
    queue="train",
    limit_seconds=lambda: 1800,
    run=lambda lease: package(lease),
)
DELIVER = Stage(
    "deliver",
    queue=jobs.MAIN_QUEUE,
    limit_seconds=lambda: 300,
    run=lambda lease: deliver(lease),
)
STAGES = (COLLECT, TRAIN, PACKAGE, DELIVER)
# No arrow: what was delivered is counted anew with a person's judgements.
RECOUNT = Stage(
    "recount",
    queue="train",
    limit_seconds=lambda: 900,
    run=lambda lease: recount(lease),
)
# No arrow either: a person's own pictures are measured.
MEASURE = Stage(
    own_check.STAGE,
    queue=own_check.QUEUE,
    limit_seconds=lambda: own_check.LIMIT_SECONDS,
    run=lambda lease: own_check.measure(lease),
)
# Nor this: files that the disk has damaged are built again.
REBUILD = Stage(
    "rebuild",
    queue="train",
    limit_seconds=lambda: 1800,
    run=lambda lease: rebuild(lease),
)
NO_ARROWS = (RECOUNT, MEASURE, REBUILD)
STAGES_OF_A_VERSION = (COLLECT.name, TRAIN.name)  # before there is a model of it


def stage_of(job: Job) -> Stage:
    """Return the stage that a job runs."""
    return next(stage for stage in (*STAGES, *NO_ARROWS) if stage.name == job.stage)


def run_stage(lease: Lease) -> None:
    """Run the stage that the job names, within that stage's own limit."""
    stage = stage_of(lease.job)
    lease.limit_seconds = stage.limit_seconds()
    stage.run(lease)


# --- submission ----------------------------------------------------------------------------------


class HarmlessClass(NamedTuple):
    """A class as the confirmation mail says it."""

    name: str
    search_words: str


@dataclass(frozen=True)
class Submission:
    """What a person asks for; the form and the API have checked it."""

    classes: tuple[tuple[str, str], ...]  # (name, query); an empty query means the name
    email: str
    images_per_class: int = 100
    license: str = "any"
    backbone: str = field(default_factory=lambda: settings.BACKBONE)
    sources: tuple[str, ...] = ()
    locale: str = field(default_factory=lambda: settings.LOCALE)
    kind: str = ""  # of things that the classes are; empty to find it out
    draft: supplied.Draft | None = None  # what the person brings along
    brought: Mapping[str, Any] = field(default_factory=dict)  # and what ``supplied.facts`` says
    visitor: str | None = None  # address of the machine it comes from; None: the operator's own


@transaction.atomic
def submit(submission: Submission) -> ClassifierRequest:
    """Make the request; heavy work starts only when the address is confirmed (or need not be).

    :raises LimitReached: this person, network or site has as many as there may be
    """
    limits.admit(submission.email, submission.visitor)
    classifier = ClassifierRequest.create(
        class_queries=list(submission.classes),
        email=submission.email,
        images_per_class=submission.images_per_class,
        license=submission.license,
        backbone=submission.backbone,
        sources=list(submission.sources),
        locale=submission.locale,
        kind=submission.kind,
        accept_fewer=bool(submission.brought.get("alone")),  # there is nowhere to find more
        supplied=dict(submission.brought),
    )
    with supplied.given(submission.draft, classifier):
        if settings.CONFIRM_EMAIL:
            goes_at = limits.mail_time(classifier.email)
            _mail_confirmation(classifier, f"request:{classifier.pk}:confirm", goes_at)
        else:
            confirm(classifier)
    return classifier


def _mail_confirmation(
    classifier: ClassifierRequest, key: str, goes_at: datetime | None = None
) -> None:
    link = confirmation_link(classifier)
    context = {"confirm_link": link, "classes": _harmless(classifier)}
    mail.put(classifier, "confirm", key, context, goes_at=goes_at)
    if confirms_on_the_page():
        shown = {"shows_links": True}
        logger.info("request %d is confirmed at %s", classifier.pk, link, extra=shown)


def _harmless(classifier: ClassifierRequest) -> list[HarmlessClass]:
    """Return the classes as a mail may say them to somebody who may not have asked for it.

    Whoever fills in the form chooses both words and address: a name that holds an address of its
    own is not said, or the site would send everybody's links to anybody.
    """
    harmless = []
    for image_class in classifier.classes.all():
        name = image_class.name
        if holds_address(name):
            name = f"class {image_class.number} (its name looks like an address)"
        words = image_class.search_words
        if holds_address(words) or words == image_class.name:
            words = name
        harmless.append(HarmlessClass(name, words))
    return harmless


def sources_of(classifier: ClassifierRequest) -> list[str]:
    """Return the sources that a request asks: of those it chose what the operator names, else all
    of these.
    """
    chosen = [name for name in classifier.sources if name in settings.SOURCES]
    return chosen or list(settings.SOURCES)


def confirms_on_the_page() -> bool:
    """Return True where the link of the mail is shown on the page and in the log as well.

    That is where mails are only files and either the site is on loopback, so that whoever sees the
    page sits at the machine, or debugging is on.
    """
    if not settings.EMAIL_IN_FOLDER:
        return False
    return settings.DEBUG or urlsplit(settings.BASE_URL).hostname in LOOPBACK


def where_mails_are() -> str:
    """Return what to say at the start of a site whose mails are only files."""
    note = f"Mails are only written to {settings.MAIL_DIR} (EMAIL_URL is not set)"
    if confirms_on_the_page():
        return f"{note}; the page of a request shows its confirmation link."
    return f"{note}."


def confirmation_mails_left(classifier: ClassifierRequest) -> int:
    """Return how often the confirmation mail of a request may still be sent."""
    prefix = f"request:{classifier.pk}:confirm"
    sent = classifier.mails.filter(key__startswith=prefix).count()
    return max(0, MOST_CONFIRMATION_MAILS - sent)


@transaction.atomic
def send_confirmation_again(classifier: ClassifierRequest) -> bool:
    """Send another mail with a fresh link; return False where none is wanted or left.

    Two presses at the same time are one mail, because both make the same key.

    :raises LimitReached: one went to this address a short while ago
    """
    left = confirmation_mails_left(classifier)
    if classifier.status != Status.UNCONFIRMED or not left:
        return False
    limits.take_mail(classifier.email)
    number = MOST_CONFIRMATION_MAILS - left + 1
    _mail_confirmation(classifier, f"request:{classifier.pk}:confirm:{number}")
    return True


def confirmation_link(classifier: ClassifierRequest) -> str:
    """Return the absolute address that proves the person reads the mailbox; good for a day."""
    return settings.BASE_URL + confirmation_path(classifier)


def confirmation_path(classifier: ClassifierRequest) -> str:
    """Return the same address within the site."""
    value = f"{classifier.pk}-{classifier.link_version}"
    signer = signing.TimestampSigner(salt="confirm")
    return reverse("confirm", args=[signer.sign(value)])


def request_of_confirmation(signed: str) -> ClassifierRequest | None:
    """Return the request of a confirmation link; None if it is forged, revoked or too old."""
    signer = signing.TimestampSigner(salt="confirm")
    try:
        value = signer.unsign(signed, max_age=CONFIRM_WITHIN)
    except signing.BadSignature:
        return None
    pk, _, version = value.partition("-")
    return ClassifierRequest.objects.filter(pk=pk, link_version=version).first()


@transaction.atomic
def confirm(classifier: ClassifierRequest) -> bool:
    """Start the work; return False if it was started (or ended) before.

    A confirmation counts once.

    :raises LimitReached: others of this address, or of all, come first; it stays unconfirmed
    """
    if classifier.status != Status.UNCONFIRMED:
        return False
    limits.check_open(classifier)
    limits.check_queue()
    if not classifier.move(Status.QUEUED, reason="address confirmed", actor="person"):
        return False
    COLLECT.enqueue(classifier)
    return True


# --- URLs and images -----------------------------------------------------------------------------


def collect(lease: Lease) -> None:
    """Ask the sources, download and screen in a child process.

    Then the images are a dataset version, or too few to be one.
    """
    classifier = _begin(lease)
    folder = classifier.folder / "collect"
    _prepare_collection(classifier, folder, lease.job)
    sync = CollectionSync(classifier, folder, lease.job.started)
    browser_grant = BrowserGrant(lease, folder)
    rounds = first_model.Rounds(lease, classifier, versions.run_config(classifier))

    room = Room(lease, classifier)

    def poll() -> dict[str, Any]:
        room.watch()
        _pass_finish_on(lease, folder)
        is_waiting = browser_grant.poll()
        progress = sync.poll()
        rounds.poll()
        if is_waiting:
            message = "Waiting: another request is searching right now."
            return {**progress, "message": message}
        return progress

    _pass_finish_on(lease, folder)
    command = [sys.executable, "-m", "scraping", "collect", str(folder), "--json"]
    try:
        code = lease.run_child(command, folder / "log.txt", poll, collection_sync.credentials())
        if code == 0:
            sync.poll()
            rounds.wait_for_the_first()
    finally:
        rounds.close()
        browser_grant.release()
    result = _read_child_result(folder, code)
    sync.store_result(result)
    room.count()
    takedowns.enforce(classifier)
    lease.beat()
    lack = shortage.shortage_of(classifier)
    has_enough = not lack.short or (classifier.accept_fewer and lack.can_train)
    if room.problem and not has_enough:
        raise StageFailed(room.problem, limits.ASK_FOR_LESS)
    with lease.finishing():
        if not has_enough:
            _ask_for_help(classifier, lack)
        else:
            version = versions.create_version(classifier)
            logger.info("%s has %d images", version, version.images)
            TRAIN.enqueue(classifier)


@dataclass
class Room:
    """Ends a collection with what there is before it takes more of the disk than it may."""

    lease: Lease
    classifier: ClassifierRequest
    problem: str = ""
    counted: float = 0.0  # on the monotonic clock

    def count(self) -> None:
        self.problem = self.problem or limits.count_disk(self.classifier)

    def watch(self) -> None:
        """Count the files now and then; too many are told to the child as "finish"."""
        now = time.monotonic()
        if self.problem or now - self.counted < COUNT_DISK_SECONDS:
            return
        self.counted = now
        self.count()
        if self.problem:
            logger.warning("%s ends early: %s", self.lease.job, self.problem)
            Job.objects.filter(pk=self.lease.job.pk).update(finish_requested=True)


def _prepare_collection(classifier: ClassifierRequest, folder: Path, job: Job) -> None:
    """Write the effective configuration, and discard what a changed search has made invalid.

    The configuration is complete but for secrets, so that the command works by hand.
    """
    classes = [
        {"id": c.class_id, "name": c.name, "query": c.query} for c in classifier.classes.all()
    ]
    kind: str | None = classifier.kind
    if not kind and classifier.find_kind:
        kind = None
    keeping = {c.class_id for c in classifier.classes.filter(keeps_earlier=True)}
    _discard_reworded(folder, classes, kind, keeping)
    if (folder / SEARCH_AGAIN).exists():
        (folder / "result.json").unlink(missing_ok=True)
        (folder / SEARCH_AGAIN).unlink()
    config = {
        "classes": classes,
        "kind": kind,
        "limit": classifier.images_per_class,
        "minimum": settings.MIN_IMAGES,
        "sources": sources_of(classifier),
        "license": classifier.license,
        "locale": classifier.locale,
        "min_side": settings.MIN_SIDE,
        "max_side": settings.MAX_SIDE,
        "refused_digests": settings.REFUSED_DIGESTS,
        "nudity_model": settings.NUDITY_MODEL,
        "ai_made": settings.AI_MADE,
        "closed_sources": SourceHealth.closed_for(job.pk) | _unsafe_sources(classifier),
        "taken_down": takedowns.taken_down_digests(),
        "set_aside": curation.removed_digests(classifier),
        "source_urls": settings.SOURCE_URLS,
        "contact": settings.CONTACT,
        "robots": settings.ROBOTS,
        "allowed_private_hosts": list(settings.ALLOWED_PRIVATE_HOSTS),
        "chrome": settings.CHROME,
        "chromedriver": settings.CHROMEDRIVER,
        "selenium_remote_url": settings.SELENIUM_REMOTE_URL,
        "browser_turns": True,
        "deadline_seconds": settings.COLLECT_MINUTES * 60 * 0.9,
    }
    config |= supplied.collection_values(classifier)
    run_folder.write_json(folder / "config.json", config)
    _discard_failed_result(folder)


def _unsafe_sources(classifier: ClassifierRequest) -> dict[str, str]:
    """Return the sources that are not asked because people are searched for: name -> why."""
    words = [f"{each.name} {each.search_words}" for each in classifier.classes.all()]
    if not any(class_policy.is_careful(text) for text in words):
        return {}
    closed = {}
    for name in SEARCHED:
        if not CATALOGUE[name].safe_search:
            label = CATALOGUE[name].label
            closed[name] = f"{label} was skipped: it has no safe search, and people are asked for."
    return closed


def _discard_reworded(
    folder: Path, classes: list[dict[str, str]], kind: str | None, keeping: set[str]
) -> None:
    """Drop what the earlier words of a class found, now that no child can be writing any more.

    :param classes: the entries of now for ``config.json``
    :param kind: of things; None for what was found out before
    :param keeping: ids of the classes that keep what their earlier words found
    """
    try:
        earlier = json.loads((folder / "config.json").read_text())["classes"]
    except FileNotFoundError:
        return
    earlier_kind = str(collection_sync.read_kind(folder).get("word", ""))
    if kind is None:
        kind = earlier_kind
    elif kind != earlier_kind:
        (folder / "kind.json").unlink(missing_ok=True)
    words = {c["id"]: search_words(c["name"], c["query"], kind) for c in classes}
    reworded = set()
    for c in earlier:
        if words.get(c["id"]) != search_words(c["name"], c["query"], earlier_kind):
            reworded.add(c["id"])
    reworded -= keeping
    if not reworded:
        return
    for name in ("images.jsonl", "searches.jsonl"):
        lines = []
        for row in JsonLines(folder / name).new():
            if row.get("class") not in reworded:
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        run_folder.write_text(folder / name, "".join(lines))


def _ask_for_help(classifier: ClassifierRequest, lack: Shortage) -> None:
    """Too few images: nothing is trained on them until the person has decided.

    Where sources could not be reached they are asked again without the person, a few times; only
    then a mail is sent. A request that has a version is delivered again, as it was.
    """
    if versions.finished_versions(classifier):
        again_at = None
        error = too_few_error(classifier, lack)
        error["remedy"] = shortage.REMEDY_WITH_A_VERSION
        status = Status.DELIVERED
    else:
        again_at = shortage.next_try(classifier, lack)
        error = too_few_error(classifier, lack, again_at)
        status = Status.NEEDS_ATTENTION
    reason = "too few pictures" if again_at is None else shortage.OUTAGE
    moved = classifier.move(status, reason=reason, error=error)
    if moved and again_at is None:
        key = f"request:{classifier.pk}:attention:{classifier.events.count()}"
        mail.put(classifier, "needs_attention", key, {"error": error})


def too_few_error(
    classifier: ClassifierRequest, lack: Shortage, again_at: datetime | None = None
) -> dict[str, Any]:
    """Return what is stored of a request that lacks images.

    :param again_at: when the sources are asked again without the person
    """
    error: dict[str, Any] = {
        "stage": COLLECT.name,
        "reason": shortage.reason(lack),
        "remedy": shortage.remedy(classifier, lack, again_at),
    }
    if again_at is not None:
        error["again_at"] = again_at.isoformat()
    return error


# --- dataset and model ---------------------------------------------------------------------------


def train(lease: Lease) -> None:
    """Split, train, measure and export in a child process; its run folder explains itself."""
    classifier = _begin(lease)
    version = versions.latest_version(classifier)
    folder = version.folder
    try:
        _discard_failed_result(folder)
        versions.write_run_folder(version)
    except RunError as error:
        raise StageFailed(str(error), error.remedy, error.retry) from error
    steps = JsonLines(folder / "progress.jsonl")
    progress: dict[str, Any] = {}

    steady = SteadyProgress(TRAINING_SHARES, lease.job.started)

    def poll() -> dict[str, Any]:
        _pass_finish_on(lease, folder)
        for step in steps.new():
            progress.update(steady.shown(step))
        return progress

    _pass_finish_on(lease, folder)
    command = [sys.executable, "-m", "training", "fit", str(folder), "--json"]
    environment = jobs.training_environment()
    code = lease.run_child(command, folder / "log.txt", poll, environment)
    result = _read_child_result(folder, code)
    takedowns.remove_from_run(version)
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = run_folder.read_manifest(folder)
    comparison = versions.comparison(version)
    lease.beat()
    with lease.finishing():
        versions.freeze_split(version, rows)
        versions.store_answers(version)
        TrainingRun.objects.filter(version=version).update(
            finished=timezone.now(),
            backbone=metrics["backbone"],
            metrics=metrics,
            seconds=result["seconds"],
            notices=result.get("notices", []),
            comparison=comparison,
        )
        PACKAGE.enqueue(classifier)
    first_model.discard(classifier)


# --- delivery ------------------------------------------------------------------------------------


def package(lease: Lease) -> None:
    """Build the files that are delivered; a model that is damaged already is trained again."""
    classifier = _begin(lease)
    first_model.discard(classifier)  # a worker that was killed after the training did not
    with takedowns.held_off(classifier, lease.beat_if_due):
        _package(lease, classifier)


def _package(lease: Lease, classifier: ClassifierRequest) -> None:
    version = versions.latest_version(classifier)
    if damaged := model_zip.damaged_model_files(version):
        trainings = classifier.jobs.filter(stage=TRAIN.name, created__gte=version.created)
        if trainings.count() >= jobs.MAX_ATTEMPTS:
            reason = f"The server's disk has damaged the model again: {damaged[0]}."
            raise StageFailed(reason, "Retry later; the operator has to look at the disk.")
        logger.warning("%s is trained again: %s damaged", version, ", ".join(damaged))
        with lease.finishing():
            (version.folder / "result.json").unlink(missing_ok=True)
            TRAIN.enqueue(classifier)
        return
    files = _build_files(version, lease.beat_if_due)
    with lease.finishing():
        _store_files(version, files)
        DELIVER.enqueue(classifier)


def _build_files(
    version: DatasetVersion, beat: dataset_zip.Beat
) -> dict[Kind, dataset_zip.PublishedFile]:
    """Build what is delivered of a version, of files that are what they were when it was made.

    :raises StageFailed: an image is damaged
    """
    rows = run_folder.read_manifest(version.folder)
    images = versions.dataset_images(version, rows)
    if damaged := versions.damaged_image(version, images):
        raise StageFailed(
            f"A picture of this dataset is damaged on the server's disk: {damaged}.",
            "Remove it in the gallery and train again.",
        )
    folder = version.request.folder / "artifacts" / str(version.number)
    dataset = dataset_zip.build_dataset(version, images, folder / "dataset.zip", beat)
    files = {
        Kind.DATASET: dataset,
        Kind.CROISSANT: build_croissant(version, images, dataset),
        Kind.RECIPE: dataset_zip.take_out_recipe(dataset, version),
        Kind.MODEL: model_zip.build_model(version, folder / model_zip.MODEL_SPLICE, beat),
    }
    pth = model_zip.published_pth(version)
    if pth is not None:
        files[Kind.PTH] = pth
    return files


def _store_files(version: DatasetVersion, files: Mapping[Kind, dataset_zip.PublishedFile]) -> None:
    for kind, file in files.items():
        Artifact.objects.update_or_create(
            version=version,
            kind=kind,
            defaults={
                "path": str(file.path.relative_to(settings.DATA_DIR)),
                "bytes": file.bytes,
                "sha256": file.sha256,
            },
        )


def rebuild(lease: Lease) -> None:
    """Build delivered files again that are damaged on the disk, of what they were made of."""
    classifier = ClassifierRequest.objects.get(pk=lease.job.request_id)
    for version in versions.finished_versions(classifier):
        if not any(map(model_zip.is_damaged, version.artifacts.all())):
            continue
        if damaged := model_zip.damaged_model_files(version):
            raise StageFailed(f"The model of version {version.number} is damaged: {damaged[0]}.")
        files = _build_files(version, lease.beat_if_due)
        with transaction.atomic():
            _store_files(version, files)
    with lease.finishing():
        pass


def deliver(lease: Lease) -> None:
    """Put the mail into the outbox in the same transaction that makes the request delivered."""
    classifier = _begin(lease)
    version = versions.latest_version(classifier)
    reason = f"version {version.number}"
    with lease.finishing():
        if classifier.move(Status.DELIVERED, reason=reason, actor=f"job:{lease.job.pk}"):
            result_mail.put_delivered(classifier, version)


def recount(lease: Lease) -> None:
    """Count a person's judgements of test images into the figures of the newest model."""
    classifier = ClassifierRequest.objects.get(pk=lease.job.request_id)
    version = versions.finished_versions(classifier)[0]
    with takedowns.held_off(classifier, lease.beat_if_due):
        try:
            metrics = versions.count_judgements(version)
        except RunError as error:
            raise StageFailed(str(error), error.remedy, error.retry) from error
        for artifact in version.artifacts.filter(kind=Kind.MODEL):
            versions.build_model_again(artifact)
    comparison = versions.comparison(version)
    with lease.finishing():
        runs = TrainingRun.objects.filter(version=version)
        runs.update(metrics=metrics, comparison=comparison)


# --- what all stages share -----------------------------------------------------------------------


def _begin(lease: Lease) -> ClassifierRequest:
    """Return the job's request, now running.

    :raises CancelRequested: a person has ended the request meanwhile
    :raises StageFailed: there is no room on the disk
    """
    classifier = ClassifierRequest.objects.get(pk=lease.job.request_id)
    if classifier.status == Status.QUEUED:
        classifier.move(Status.RUNNING, reason=lease.job.stage, actor=f"job:{lease.job.pk}")
    if classifier.status != Status.RUNNING:
        raise CancelRequested
    classifier.folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(classifier.folder).free < 200e6:
        remedy = "Retry later; the operator has to make room."
        raise StageFailed("The server's disk is full.", remedy)
    takedowns.enforce(classifier)
    return classifier


def _pass_finish_on(lease: Lease, folder: Path) -> None:
    """Tell the child by a file in its folder whether it is to end early, with what there is."""
    file = folder / run_folder.FINISH_FILE
    if Job.objects.filter(pk=lease.job.pk, finish_requested=True).exists():
        file.touch()
    else:
        file.unlink(missing_ok=True)


def _read_child_result(folder: Path, code: int) -> dict[str, Any]:
    """Return the ``result.json`` of a library's child that ended with exit code ``code``.

    :raises StageFailed: the child reports that it failed, in its own words
    :raises RuntimeError: it left no result, so that the job is tried again
    """
    try:
        result = run_folder.read_result(folder)
    except RunError as error:
        raise StageFailed(str(error), error.remedy, error.retry) from error
    if result is None:
        log = folder / "log.txt"
        raise RuntimeError(f"the child ended with code {code} and left no result; see {log}")
    if not result["ok"]:
        failure = result["error"]
        remedy = failure.get("remedy", "")
        raise StageFailed(failure["reason"], remedy, failure.get("retry", False))
    return result


def _discard_failed_result(folder: Path) -> None:
    """Remove the result of a failed try, so that the next one begins; a good result stays."""
    result = run_folder.read_result(folder)
    if result is not None and not result["ok"]:
        (folder / "result.json").unlink()


def report_failure(job: Job, failure: StageFailed) -> None:
    """Show on the page and in one mail why a job failed and what helps."""
    if stage_of(job) in NO_ARROWS:  # what was delivered is as good as before
        return
    classifier = ClassifierRequest.objects.get(pk=job.request_id)
    error = {
        "stage": job.stage,
        "reason": failure.reason,
        "remedy": failure.remedy,
    }
    actor = f"job:{job.pk}"
    status = Status.FAILED
    if job.stage in STAGES_OF_A_VERSION and versions.finished_versions(classifier):
        status = Status.DELIVERED  # the version before stays; its pictures can be changed again
    if classifier.move(status, reason=failure.reason, actor=actor, error=error):
        key = f"request:{classifier.pk}:failed:{job.pk}"
        mail.put(classifier, "failed", key, {"error": error})


HANDLERS = jobs.Handlers(run=run_stage, failed=report_failure)
