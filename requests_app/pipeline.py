"""The way of a request: submission → URLs → images → dataset → model → delivery.

One function per arrow, from top to bottom. Every stage may be repeated: it looks at what is on
disk, goes on from there, and ends with one transaction that holds its consequences.
"""

import json
import logging
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import signing
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from requests_app import mail, takedowns, versions
from requests_app.delivery import dataset_zip
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    ImageClass,
    Job,
    Kind,
    License,
    SourceHealth,
    Status,
    TrainingRun,
)
from requests_app.workers import collection_sync, jobs
from requests_app.workers.collection_sync import BrowserGrant, CollectionSync, JsonLines
from requests_app.workers.jobs import CancelRequested, Lease, StageFailed
from training import run_folder
from training.run_folder import RunError

logger = logging.getLogger(__name__)

CONFIRM_WITHIN = timedelta(hours=24)
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


def stage_of(job: Job) -> Stage:
    """Return the stage that a job runs."""
    return next(stage for stage in STAGES if stage.name == job.stage)


def run_stage(lease: Lease) -> None:
    """Run the stage that the job names, within that stage's own limit."""
    stage = stage_of(lease.job)
    lease.limit_seconds = stage.limit_seconds()
    stage.run(lease)


# --- submission ----------------------------------------------------------------------------------


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


@transaction.atomic
def submit(submission: Submission) -> ClassifierRequest:
    """Make the request; heavy work starts only when the address is confirmed (or need not be)."""
    classifier = ClassifierRequest.create(
        class_queries=list(submission.classes),
        email=submission.email,
        images_per_class=submission.images_per_class,
        license=submission.license,
        backbone=submission.backbone,
        sources=list(submission.sources),
        locale=submission.locale,
    )
    if not settings.CONFIRM_EMAIL:
        confirm(classifier)
        return classifier
    link = confirmation_link(classifier)
    mail.put(classifier, "confirm", f"request:{classifier.pk}:confirm", {"confirm_link": link})
    if settings.DEBUG and settings.EMAIL_IN_FOLDER:
        logger.info("request %d is confirmed at %s", classifier.pk, link)
    return classifier


def confirmation_link(classifier: ClassifierRequest) -> str:
    """Return the absolute address that proves the person reads the mailbox; good for a day."""
    value = f"{classifier.pk}-{classifier.link_version}"
    signer = signing.TimestampSigner(salt="confirm")
    path = reverse("confirm", args=[signer.sign(value)])
    return settings.BASE_URL + path


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
    """
    if classifier.status != Status.UNCONFIRMED:
        return False
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
    sync = CollectionSync(classifier, folder)
    browser_grant = BrowserGrant(lease, folder)

    def poll() -> dict[str, Any]:
        is_waiting = browser_grant.poll()
        progress = sync.poll()
        if is_waiting:
            message = "Waiting for the browser: another request uses it."
            return {**progress, "message": message}
        return progress

    command = [sys.executable, "-m", "scraping", "collect", str(folder), "--json"]
    try:
        code = lease.run_child(command, folder / "log.txt", poll, collection_sync.credentials())
    finally:
        browser_grant.release()
    result = _read_child_result(folder, code)
    sync.store_result(result)
    lease.beat()
    short = [c for c in classifier.classes.all() if c.kept < settings.MIN_IMAGES]
    with lease.finishing():
        if short and not classifier.accept_fewer:
            _ask_for_help(classifier, short)
        else:
            version = versions.create_version(classifier)
            logger.info("%s has %d images", version, version.images)
            TRAIN.enqueue(classifier)


def _prepare_collection(classifier: ClassifierRequest, folder: Path, job: Job) -> None:
    """Write the effective configuration, and discard what a changed search has made invalid.

    The configuration is complete but for secrets, so that the command works by hand.
    """
    classes = [
        {"id": c.class_id, "name": c.name, "query": c.query} for c in classifier.classes.all()
    ]
    _discard_reworded(folder, {c["id"]: c["query"] for c in classes})
    if (folder / SEARCH_AGAIN).exists():
        (folder / "result.json").unlink(missing_ok=True)
        (folder / SEARCH_AGAIN).unlink()
    config = {
        "classes": classes,
        "limit": classifier.images_per_class,
        "minimum": settings.MIN_IMAGES,
        "sources": classifier.sources or list(settings.SOURCES),
        "license": classifier.license,
        "locale": classifier.locale,
        "min_side": settings.MIN_SIDE,
        "max_side": settings.MAX_SIDE,
        "refused_digests": settings.REFUSED_DIGESTS,
        "nudity_model": settings.NUDITY_MODEL,
        "ai_made": settings.AI_MADE,
        "closed_sources": SourceHealth.closed_for(job.pk),
        "taken_down": takedowns.taken_down_digests(),
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
    run_folder.write_json(folder / "config.json", config)
    _discard_failed_result(folder)


def _discard_reworded(folder: Path, queries: dict[str, str]) -> None:
    """Drop what the earlier query of a class found, now that no child can be writing any more.

    :param queries: class id -> its query of now
    """
    try:
        earlier = json.loads((folder / "config.json").read_text())["classes"]
    except FileNotFoundError:
        return
    reworded = {c["id"] for c in earlier if queries.get(c["id"]) != c["query"]}
    if not reworded:
        return
    for name in ("images.jsonl", "searches.jsonl"):
        lines = []
        for row in JsonLines(folder / name).new():
            if row.get("class") not in reworded:
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        run_folder.write_text(folder / name, "".join(lines))


def _ask_for_help(classifier: ClassifierRequest, short: list[ImageClass]) -> None:
    """Too few images: nothing is trained on them until the person has decided."""
    found = ", ".join(f"“{c.name}” {c.kept}" for c in short)
    needed = f"{settings.MIN_IMAGES} per class are needed"
    error = {
        "stage": COLLECT.name,
        "reason": f"Too few usable pictures were found ({found}; {needed}).",
        "remedy": _remedy_for_too_few(classifier),
    }
    if classifier.move(Status.NEEDS_ATTENTION, reason="too few pictures", error=error):
        key = f"request:{classifier.pk}:attention:{classifier.events.count()}"
        mail.put(classifier, "needs_attention", key, {"error": error})


def _remedy_for_too_few(classifier: ClassifierRequest) -> str:
    ways = ["try another wording"]
    if classifier.license == License.OPEN:
        ways.append("allow any licence")
    if len(classifier.sources or settings.SOURCES) < len(settings.KNOWN_SOURCES):
        ways.append("ask more sources")
    return f"{', '.join(ways)} or go on with fewer pictures.".capitalize()


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

    def poll() -> dict[str, Any]:
        for step in steps.new():
            progress.update(step)
        return progress

    command = [sys.executable, "-m", "training", "fit", str(folder), "--json"]
    code = lease.run_child(command, folder / "log.txt", poll)
    result = _read_child_result(folder, code)
    takedowns.remove_from_run(version)
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = run_folder.read_manifest(folder)
    lease.beat()
    with lease.finishing():
        versions.freeze_split(version, rows)
        TrainingRun.objects.filter(version=version).update(
            finished=timezone.now(),
            backbone=metrics["backbone"],
            metrics=metrics,
            seconds=result["seconds"],
            notices=result.get("notices", []),
        )
        PACKAGE.enqueue(classifier)


# --- delivery ------------------------------------------------------------------------------------


def package(lease: Lease) -> None:
    """Build the files that are delivered."""
    classifier = _begin(lease)
    version = versions.latest_version(classifier)
    images = versions.dataset_images(version, run_folder.read_manifest(version.folder))
    folder = classifier.folder / "artifacts" / str(version.number)
    beat = lease.beat_if_due
    files = {
        Kind.DATASET: dataset_zip.build_dataset(version, images, folder / "dataset.zip", beat),
        Kind.MODEL: dataset_zip.build_model(version, folder / "model.zip", beat),
    }
    with lease.finishing():
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
        DELIVER.enqueue(classifier)


def deliver(lease: Lease) -> None:
    """Put the mail into the outbox in the same transaction that makes the request delivered."""
    classifier = _begin(lease)
    version = versions.latest_version(classifier)
    artifacts = list(version.artifacts.all())
    is_attached = mail.fits_in_mail(artifacts)
    context = {
        "run": version.run,
        "attached": is_attached,
        "artifacts": [_mail_entry(classifier, artifact) for artifact in artifacts],
    }
    key = f"request:{classifier.pk}:delivered:{version.number}"
    reason = f"version {version.number}"
    with lease.finishing():
        if classifier.move(Status.DELIVERED, reason=reason, actor=f"job:{lease.job.pk}"):
            attachments = artifacts if is_attached else []
            mail.put(classifier, "delivered", key, context, attachments)


def _mail_entry(classifier: ClassifierRequest, artifact: Artifact) -> dict[str, Any]:
    """Return an artifact as the mail shows it."""
    path = reverse("download", args=[classifier.token, artifact.kind])
    return {
        "kind": artifact.kind,
        "label": artifact.get_kind_display(),
        "file_name": artifact.file_name,
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
        "url": settings.BASE_URL + path,
    }


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
    return classifier


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
    classifier = ClassifierRequest.objects.get(pk=job.request_id)
    error = {
        "stage": job.stage,
        "reason": failure.reason,
        "remedy": failure.remedy,
    }
    actor = f"job:{job.pk}"
    if classifier.move(Status.FAILED, reason=failure.reason, actor=actor, error=error):
        key = f"request:{classifier.pk}:failed:{job.pk}"
        mail.put(classifier, "failed", key, {"error": error})


HANDLERS = jobs.Handlers(run=run_stage, failed=report_failure)
