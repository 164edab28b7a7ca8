"""The way of a request, from top to bottom: submission → URLs → pictures → dataset → model →
delivery.

One function per arrow, in order, then what may happen at any time: cancel, retry, fail, delete,
expire. Every stage may be repeated: it looks at what is on disk, goes on from there, and ends with
one transaction that holds its consequences.
"""

import json
import logging
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import signing
from django.db import transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from requests_app import mail
from requests_app.delivery import dataset_zip
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    DatasetVersion,
    Event,
    ImageClass,
    ImageState,
    ImageUrl,
    Job,
    JobState,
    Kind,
    License,
    OutgoingMail,
    SourceHealth,
    Status,
    TakenDown,
    TrainingRun,
    WorkerBeat,
    sha256_hex,
)
from requests_app.workers import jobs
from requests_app.workers.collection_sync import BrowserDoor, Intake, JsonLines
from requests_app.workers.jobs import CancelRequested, Lease, StageFailed
from scraping.reasons import Reason
from scraping.urls import normalized_url
from training import run_folder, takedown
from training.run_folder import ClassLabel, ImageRow, RunConfig, RunError

logger = logging.getLogger(__name__)

CONFIRM_WITHIN = timedelta(hours=24)
SEED = 0
ASK_AGAIN = (
    "ask-again"  # lies in a collection folder that is finished but must ask its sources once more
)


@dataclass(frozen=True)
class Submission:
    """What a person asks for; the form and the API have checked it."""

    classes: tuple[tuple[str, str], ...]  # (name, query); an empty query means the name
    email: str
    images_per_class: int = 100
    license: str = "any"
    backbone: str = settings.BACKBONE
    sources: tuple[str, ...] = ()
    locale: str = settings.LOCALE


@dataclass(frozen=True)
class Stage:
    """One arrow: its queue, its own time limit, and the function that does it."""

    name: str
    queue: str
    limit_seconds: float
    run: Callable[[Lease], None]


# --- submission
# -------------------------------------------------------------------------------------------


@transaction.atomic
def submit(submission: Submission) -> ClassifierRequest:
    """Make the request; heavy work starts only when the address is confirmed (or need not be)."""
    request = ClassifierRequest.create(
        class_queries=list(submission.classes),
        email=submission.email,
        images_per_class=submission.images_per_class,
        license=submission.license,
        backbone=submission.backbone,
        sources=list(submission.sources),
        locale=submission.locale,
    )
    if settings.CONFIRM_EMAIL:
        link = confirmation_link(request)
        _mail(request, "confirm", f"request:{request.pk}:confirm", {"confirm_link": link})
        if settings.DEBUG and settings.EMAIL_IN_FOLDER:
            logger.info("request %d is confirmed at %s", request.pk, link)
    else:
        confirm(request)
    return request


def confirmation_link(request: ClassifierRequest) -> str:
    """The absolute address that proves the person reads the mailbox; good for a day."""
    signed = signing.TimestampSigner(salt="confirm").sign(f"{request.pk}-{request.link_version}")
    return settings.BASE_URL + reverse("confirm", args=[signed])


def request_of_confirmation(signed: str) -> ClassifierRequest | None:
    """The request a confirmation link belongs to; None if it is forged, revoked or too old."""
    try:
        value = signing.TimestampSigner(salt="confirm").unsign(signed, max_age=CONFIRM_WITHIN)
    except signing.BadSignature:
        return None
    pk, _, version = value.partition("-")
    return ClassifierRequest.objects.filter(pk=pk, link_version=version).first()


@transaction.atomic
def confirm(request: ClassifierRequest) -> bool:
    """Start the work; False if it was started (or ended) before: a confirmation counts once."""
    if request.status != Status.UNCONFIRMED or not request.move(
        Status.QUEUED, reason="address confirmed", actor="person"
    ):
        return False
    jobs.enqueue(request, COLLECT.name, COLLECT.queue)
    return True


# --- URLs and pictures
# ------------------------------------------------------------------------------------


def collect(lease: Lease) -> None:
    """Ask the sources, download, screen; then the pictures are a dataset version, or too few to be
    one.
    """
    request = _begin(lease)
    folder = request.folder / "collect"
    _write_collect_config(request, folder, lease.job)
    intake, door = Intake(request, folder), BrowserDoor(lease, folder)

    def look() -> dict[str, Any]:
        waits = door.look()
        progress = intake.look()
        return (
            {**progress, "message": "Waiting for the browser: another request uses it."}
            if waits
            else progress
        )

    try:
        code = lease.run_child(
            [sys.executable, "-m", "scraping", "collect", str(folder), "--json"],
            folder / "log.txt",
            look,
        )
    finally:
        door.close()
    result = _result_of(folder, code)
    intake.take_final(result)
    lease.beat()
    short = [c for c in request.classes.all() if c.kept < settings.MIN_IMAGES]
    with lease.finishing():
        if short and not request.accept_fewer:
            _ask_for_help(request, short)
        else:
            version = _new_version(request)
            logger.info("%s has %d pictures", version, version.images)
            jobs.enqueue(request, TRAIN.name, TRAIN.queue)


def _write_collect_config(request: ClassifierRequest, folder: Path, job: Job) -> None:
    """The effective configuration of a collection: complete but for secrets, so that the command
    works by hand.
    """
    classes = [{"id": c.class_id, "name": c.name, "query": c.query} for c in request.classes.all()]
    _drop_reworded(folder, {c["id"]: c["query"] for c in classes})
    if (folder / ASK_AGAIN).exists():
        (folder / "result.json").unlink(missing_ok=True)
        (folder / ASK_AGAIN).unlink()
    config = {
        "classes": classes,
        "limit": request.images_per_class,
        "minimum": settings.MIN_IMAGES,
        "sources": request.sources or list(settings.SOURCES),
        "license": request.license,
        "locale": request.locale,
        "min_side": settings.MIN_SIDE,
        "max_side": settings.MAX_SIDE,
        "closed_sources": SourceHealth.closed_for(job.pk),
        "taken_down": taken_down(),
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
    _forget_failure(folder)


def _drop_reworded(folder: Path, queries: Mapping[str, str]) -> None:
    """Forget what a class's earlier wording found: only now the child that looked for it is surely
    gone.
    """
    try:
        before = json.loads((folder / "config.json").read_text())["classes"]
    except FileNotFoundError:
        return
    reworded = {c["id"] for c in before if queries.get(c["id"]) != c["query"]}
    if not reworded:
        return
    for name in ("images.jsonl", "searches.jsonl"):
        rows = [row for row in JsonLines(folder / name).new() if row.get("class") not in reworded]
        run_folder.write_text(
            folder / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        )


def taken_down() -> dict[str, list[str]]:
    """What must be kept out, as a collection's ``config.json`` takes it."""
    rows = TakenDown.objects.values_list("what", "digest")
    return {
        "urls": [digest for what, digest in rows if what == TakenDown.What.URL],
        "hashes": [digest for what, digest in rows if what == TakenDown.What.SHA256],
    }


def _ask_for_help(request: ClassifierRequest, short: list[ImageClass]) -> None:
    """Too few pictures: nothing is trained on them until the person has decided."""
    found = ", ".join(f"“{c.name}” {c.kept}" for c in short)
    error = {
        "stage": COLLECT.name,
        "reason": f"Too few usable pictures were found ({found}; {settings.MIN_IMAGES} per class are needed).",
        "remedy": _remedy_for_too_few(request),
    }
    if request.move(Status.NEEDS_ATTENTION, reason="too few pictures", error=error):
        _mail(
            request,
            "needs_attention",
            f"request:{request.pk}:attention:{_moves(request)}",
            {"error": error},
        )


def _remedy_for_too_few(request: ClassifierRequest) -> str:
    ways = ["try another wording", "go on with fewer pictures"]
    if request.license == License.OPEN:
        ways.insert(1, "allow any licence")
    if len(request.sources or settings.SOURCES) < len(settings.KNOWN_SOURCES):
        ways.insert(-1, "ask more sources")
    return f"{', '.join(ways[:-1])} or {ways[-1]}.".capitalize()


# --- dataset
# ----------------------------------------------------------------------------------------------


def _new_version(request: ClassifierRequest) -> DatasetVersion:
    """The next dataset version: every picture that is kept now. Training freezes its split."""
    number = request.versions.count() + 1
    kept = ImageUrl.objects.filter(image_class__request=request, state=ImageState.KEPT).count()
    version = DatasetVersion.objects.create(request=request, number=number, images=kept)
    TrainingRun.objects.create(version=version, backbone=request.backbone)
    return version


def _write_run(version: DatasetVersion) -> None:
    """Make the run folder, once: afterwards its manifest is the version."""
    _forget_failure(version.folder)
    if (version.folder / "manifest.jsonl").exists():
        return
    request = version.request
    kept = ImageUrl.objects.filter(image_class__request=request, state=ImageState.KEPT)
    rows = [
        ImageRow(
            file=image.file,
            class_id=image.image_class.class_id,
            sha256=image.sha256,
            source=image.source,
            license=image.license,
            credit=dataset_zip.credit(image),
            page_url=image.page_url,
        )
        for image in kept.select_related("image_class").order_by("image_class__number", "sha256")
    ]
    config = RunConfig(
        classes=tuple(ClassLabel(c.class_id, c.name) for c in request.classes.all()),
        backbone=request.backbone,
        seed=SEED,
        device=settings.DEVICE,
        weights_dir=settings.WEIGHTS_DIR or None,
        weights_cache=str(settings.DATA_DIR / "cache" / "weights"),
        weights_url=settings.WEIGHTS_URL or None,
    )
    rows = run_folder.inherit_splits(rows, _earlier_rows(version))
    run_folder.write_run(version.folder, config, rows, images_from=request.folder / "collect")


def _earlier_rows(version: DatasetVersion) -> list[ImageRow]:
    """The manifest of the newest earlier version that was trained on; none for a first version."""
    earlier = (
        version.request.versions.filter(number__lt=version.number)
        .exclude(manifest_sha256="")
        .order_by("-number")
    )
    return next((run_folder.read_manifest(one.folder) for one in earlier), [])


# --- model
# ------------------------------------------------------------------------------------------------


def train(lease: Lease) -> None:
    """Split, train, measure and export, in a child process; its run folder explains itself."""
    request = _begin(lease)
    version = _latest(request)
    folder = version.folder
    try:
        _write_run(version)
    except RunError as error:
        raise StageFailed(str(error), error.remedy, error.retry) from error
    steps, progress = JsonLines(folder / "progress.jsonl"), dict[str, Any]()

    def look() -> dict[str, Any]:
        for step in steps.new():
            progress.update(step)
        return progress

    code = lease.run_child(
        [sys.executable, "-m", "training", "fit", str(folder), "--json"], folder / "log.txt", look
    )
    result = _result_of(folder, code)
    metrics = json.loads((folder / "metrics.json").read_text())
    _forget_taken_down(version)
    rows = run_folder.read_manifest(folder)
    lease.beat()
    with lease.finishing():
        _freeze(version, rows)
        TrainingRun.objects.filter(version=version).update(
            finished=timezone.now(),
            backbone=metrics["backbone"],
            metrics=metrics,
            seconds=result["seconds"],
            notices=result.get("notices", []),
        )
        jobs.enqueue(request, PACKAGE.name, PACKAGE.queue)


def _forget_taken_down(version: DatasetVersion) -> None:
    """What was taken down while it was being learned from leaves the finished run too."""
    known = set(
        ImageUrl.objects.filter(image_class__request=version.request).values_list("file", flat=True)
    )
    gone = {row.file for row in run_folder.read_manifest(version.folder)} - known
    if gone:
        takedown.remove_images(version.folder, gone)


def _freeze(version: DatasetVersion, rows: list[ImageRow]) -> None:
    """Remember which picture went into which part, and that this manifest is the version."""
    digest = sha256_hex((version.folder / "manifest.jsonl").read_text())
    DatasetVersion.objects.filter(pk=version.pk).update(
        manifest_sha256=digest, images=sum(row.split is not None for row in rows)
    )
    by_key = {(row.class_id, row.file): row for row in rows}
    kept = ImageUrl.objects.filter(image_class__request=version.request, state=ImageState.KEPT)
    images = list(kept.select_related("image_class"))
    for image in images:
        if (row := by_key.get((image.image_class.class_id, image.file))) is None:
            continue
        image.split, image.group = row.split or "", row.group
        if (
            row.split is None
        ):  # unreadable to the trainer, or a near copy of a picture in another part
            image.state = ImageState.REJECTED
            image.reason = Reason.NOT_A_PICTURE if row.group is None else Reason.NEAR_DUPLICATE
            image.detail = "left out when the pictures were split"
    ImageUrl.objects.bulk_update(
        images, ["split", "group", "state", "reason", "detail"], batch_size=200
    )
    _count_again([image for image in images if image.state == ImageState.REJECTED])


def _count_again(dropped: list[ImageUrl]) -> None:
    """Let the counts of the classes say what was dropped after their collection had ended."""
    reasons: dict[ImageClass, Counter[str]] = defaultdict(Counter)
    for image in dropped:
        reasons[image.image_class][image.reason] += 1
    for image_class, counts in reasons.items():
        image_class.refresh_from_db()
        image_class.kept -= counts.total()
        image_class.rejected = dict(Counter(image_class.rejected) + counts)
        image_class.save(update_fields=["kept", "rejected"])


# --- delivery
# ---------------------------------------------------------------------------------------------


def package(lease: Lease) -> None:
    """Build the files that are delivered."""
    request = _begin(lease)
    version = _latest(request)
    folder = request.folder / "artifacts" / str(version.number)
    rows = run_folder.read_manifest(version.folder)
    beat = Paced(lease)
    made = {
        Kind.DATASET: dataset_zip.build_dataset(
            version, _pictures(version, rows), folder / "dataset.zip", beat
        ),
        Kind.MODEL: dataset_zip.build_model(version, folder / "model.zip", beat),
    }
    with lease.finishing():
        for kind, file in made.items():
            Artifact.objects.update_or_create(
                version=version,
                kind=kind,
                defaults={
                    "path": str(file.path.relative_to(settings.DATA_DIR)),
                    "bytes": file.bytes,
                    "sha256": file.sha256,
                },
            )
        jobs.enqueue(request, DELIVER.name, DELIVER.queue)


def _pictures(version: DatasetVersion, rows: list[ImageRow]) -> list[dataset_zip.Picture]:
    """The manifest's pictures in a fixed order, each with its row of the database, without those
    left out.
    """
    kept = ImageUrl.objects.filter(image_class__request=version.request, state=ImageState.KEPT)
    images = {
        (image.image_class.class_id, image.file): image
        for image in kept.select_related("image_class")
    }
    parts = sorted(
        (row.split, row.class_id, row.file, row.group) for row in rows if row.split is not None
    )
    return [
        dataset_zip.Picture(images[class_id, file], split, group)
        for split, class_id, file, group in parts
    ]


def deliver(lease: Lease) -> None:
    """Say so: the request is delivered in the same transaction that puts the mail into the
    outbox.
    """
    request = _begin(lease)
    version = _latest(request)
    artifacts = list(version.artifacts.all())
    attached = mail.fit_into_a_mail(artifacts)
    context = {
        "run": version.run,
        "attached": attached,
        "artifacts": [_offer(request, a) for a in artifacts],
    }
    with lease.finishing():
        if request.move(
            Status.DELIVERED, reason=f"version {version.number}", actor=f"job:{lease.job.pk}"
        ):
            key = f"request:{request.pk}:delivered:{version.number}"
            _mail(request, "delivered", key, context, artifacts if attached else [])


def _offer(request: ClassifierRequest, artifact: Artifact) -> dict[str, Any]:
    """An artifact as the mail shows it."""
    return {
        "kind": artifact.kind,
        "label": artifact.get_kind_display(),
        "file_name": artifact.file_name,
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
        "url": settings.BASE_URL + reverse("download", args=[request.token, artifact.kind]),
    }


class Paced:
    """Calls a lease's beat at most once a second, however often it is called itself."""

    def __init__(self, lease: Lease) -> None:
        self.lease, self.last = lease, timezone.now()

    def __call__(self) -> None:
        if (timezone.now() - self.last).total_seconds() >= jobs.WATCH_SECONDS:
            self.lease.beat()
            self.last = timezone.now()


# --- what all stages share
# --------------------------------------------------------------------------------

COLLECT = Stage("collect", "collect", settings.COLLECT_MINUTES * 60, collect)
TRAIN = Stage("train", "train", settings.TRAIN_MINUTES * 60, train)
PACKAGE = Stage("package", "train", 1800, package)
DELIVER = Stage("deliver", "picaisso", 300, deliver)
STAGES = (COLLECT, TRAIN, PACKAGE, DELIVER)
_BY_NAME = {stage.name: stage for stage in STAGES}


def run_stage(lease: Lease) -> None:
    """Run the stage that the job names, within that stage's own limit."""
    stage = _BY_NAME[lease.job.stage]
    lease.limit_seconds = stage.limit_seconds
    stage.run(lease)


def _begin(lease: Lease) -> ClassifierRequest:
    """The job's request, now running; a request that a person has ended meanwhile ends the job."""
    request = ClassifierRequest.objects.get(pk=lease.job.request_id)
    if request.status == Status.QUEUED:
        request.move(Status.RUNNING, reason=lease.job.stage, actor=f"job:{lease.job.pk}")
    if request.status != Status.RUNNING:
        raise CancelRequested
    _check_disk(request.folder)
    return request


def _check_disk(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < 200e6:
        raise StageFailed(
            "The server's disk is full.", "Retry later; the operator has to make room."
        )


def _result_of(folder: Path, code: int) -> dict[str, Any]:
    """What a library's child wrote as its last word.

    :raises StageFailed: it says that it failed, in its own words
    :raises RuntimeError: it ended without a word, so that the job is tried again
    """
    try:
        result = run_folder.read_result(folder)
    except RunError as error:
        raise StageFailed(str(error), error.remedy, error.retry) from error
    if result is None:
        raise RuntimeError(
            f"the child ended with code {code} and left no result; see {folder / 'log.txt'}"
        )
    if not result["ok"]:
        said = result["error"]
        raise StageFailed(said["reason"], said.get("remedy", ""), said.get("retry", False))
    return result


def _forget_failure(folder: Path) -> None:
    """Remove the last word of a failed try, so that the next one begins; a good result stays."""
    result = run_folder.read_result(folder)
    if result is not None and not result["ok"]:
        (folder / "result.json").unlink()


def _latest(request: ClassifierRequest) -> DatasetVersion:
    return (
        DatasetVersion.objects.select_related("request", "run")
        .filter(request=request)
        .latest("number")
    )


def _moves(request: ClassifierRequest) -> int:
    return request.events.count()


def _mail(
    request: ClassifierRequest,
    template: str,
    key: str,
    context: dict[str, Any],
    attachments: Iterable[Artifact] = (),
) -> OutgoingMail:
    row = mail.put(request, template, key, context, list(attachments))
    jobs.ring(DELIVER.queue, "send_mail")
    return row


# --- at any time
# ------------------------------------------------------------------------------------------


@transaction.atomic
def cancel(request: ClassifierRequest, actor: str = "person") -> bool:
    """End all work on the request; what was collected stays, so that a retry goes on from it."""
    if not request.move(Status.CANCELLED, reason="cancelled", actor=actor):
        return False
    open_jobs = Job.objects.filter(request=request)
    open_jobs.filter(state=JobState.QUEUED).update(
        state=JobState.CANCELLED, finished=timezone.now()
    )
    open_jobs.filter(state=JobState.RUNNING).update(cancel_requested=True)
    return True


@transaction.atomic
def retry(
    request: ClassifierRequest,
    *,
    images_per_class: int | None = None,
    license: str | None = None,
    sources: list[str] | None = None,
    accept_fewer: bool = False,
    class_queries: dict[int, str] | None = None,
    actor: str = "person",
) -> bool:
    """Go on after a failure, a cancel or too few pictures; False in any other state, or without a
    confirmed address.

    :param class_queries: class number -> new wording; the pictures of that class's old wording are
    dropped
    """
    if (
        request.status not in (Status.FAILED, Status.CANCELLED, Status.NEEDS_ATTENTION)
        or not request.jobs.exists()
    ):
        return False
    stage = _stage_to_repeat(request)
    asks_again = request.status == Status.NEEDS_ATTENTION and not accept_fewer
    asks_again |= _change_search(
        request, images_per_class=images_per_class, license=license, sources=sources
    )
    request.accept_fewer = accept_fewer or request.accept_fewer
    request.save(update_fields=["images_per_class", "license", "sources", "accept_fewer"])
    for number, query in (class_queries or {}).items():
        asks_again |= _reword(request, number, query)
    if not request.move(Status.QUEUED, reason="retry", actor=actor):
        transaction.set_rollback(True)
        return False
    if asks_again:
        stage, folder = COLLECT, request.folder / "collect"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ASK_AGAIN).touch()
    jobs.enqueue(request, stage.name, stage.queue)
    return True


def _change_search(request: ClassifierRequest, **wishes: Any) -> bool:
    """Set what the person wants otherwise (None: as before), without saving; False if that is
    nothing.
    """
    now = {
        "images_per_class": request.images_per_class,
        "license": request.license,
        "sources": request.sources or list(settings.SOURCES),
    }
    changes = {
        name: wish for name, wish in wishes.items() if wish is not None and wish != now[name]
    }
    for name, wish in changes.items():
        setattr(request, name, wish)
    return bool(changes)


def _stage_to_repeat(request: ClassifierRequest) -> Stage:
    return _BY_NAME[request.jobs.latest("pk").stage]


def _reword(request: ClassifierRequest, number: int, query: str) -> bool:
    """Give a class another query and drop what the old one found; False if it is the same."""
    image_class = request.classes.filter(number=number).exclude(query=query).first()
    if image_class is None:
        return False
    image_class.query = query
    image_class.save(update_fields=["query"])
    image_class.images.all().delete()
    return True


def failed(job: Job, failure: StageFailed) -> None:
    """A job ended badly: say what happened and what helps, on the page and in one mail."""
    request = ClassifierRequest.objects.get(pk=job.request_id)
    error = {"stage": job.stage, "reason": failure.reason, "remedy": failure.remedy}
    if request.move(Status.FAILED, reason=failure.reason, actor=f"job:{job.pk}", error=error):
        _mail(request, "failed", f"request:{request.pk}:failed:{job.pk}", {"error": error})


HANDLERS = jobs.Handlers(run=run_stage, failed=failed)


def delete(request: ClassifierRequest, reason: str = "deleted by its owner") -> bool:
    """Delete pictures, files, mails and the address; the row stays, so that its link can say that
    it is gone.

    :returns: False if it was deleted before
    """
    while not _expire_now(request, reason):
        request.refresh_from_db()  # a worker moved it meanwhile
        if request.status == Status.EXPIRED:
            return False
    mail.forget(request)
    _remove_folder(request)
    return True


@transaction.atomic
def _expire_now(request: ClassifierRequest, reason: str) -> bool:
    cancel(request)
    if not request.move(Status.EXPIRED, reason=reason):
        return False
    ClassifierRequest.objects.filter(pk=request.pk).update(email="")
    OutgoingMail.objects.filter(request=request).update(to="")
    _remove_rows(request)
    return True


def _remove_rows(request: ClassifierRequest) -> None:
    request.versions.all().delete()
    ImageUrl.objects.filter(image_class__request=request).delete()


def _remove_folder(request: ClassifierRequest) -> None:
    """Remove the files unless a child that is being stopped may still write; `expire` comes by
    again.
    """
    if not request.jobs.filter(state=JobState.RUNNING).exists():
        shutil.rmtree(request.folder, ignore_errors=True)


def take_down(*, url: str = "", sha256: str = "", reason: str = "") -> int:
    """Remove a picture everywhere and keep it out for good; returns how many candidates it was.

    :param url: its address, however it is spelt
    :param sha256: the digest of its bytes, as received or as delivered
    """
    images = ImageUrl.objects.select_related("image_class__request")
    if url:
        digest = sha256_hex(normalized_url(url))
        found = [
            image
            for image in images.iterator()
            if sha256_hex(normalized_url(image.image_url)) == digest
        ]
    else:
        digest = sha256
        found = list(images.filter(Q(sha256=sha256) | Q(source_sha256=sha256)))
    what = TakenDown.What.URL if url else TakenDown.What.SHA256
    TakenDown.objects.get_or_create(what=what, digest=digest, defaults={"reason": reason})
    # The same picture under another address is the same picture.
    contents = {image.sha256 for image in found if image.sha256}
    found += [image for image in images.filter(sha256__in=contents) if image not in found]
    for content in contents:
        TakenDown.objects.get_or_create(
            what=TakenDown.What.SHA256, digest=content, defaults={"reason": reason}
        )
    for request in {image.image_class.request for image in found}:
        _remove_pictures(
            request, [image for image in found if image.image_class.request_id == request.pk]
        )
    return len(found)


def _remove_pictures(request: ClassifierRequest, images: list[ImageUrl]) -> None:
    """Take pictures out of a request: rows, files, frozen manifests, and the datasets built from
    them.
    """
    files = {image.file for image in images if image.file}
    kept = [image for image in images if image.state == ImageState.KEPT]
    for image in images:
        image.state, image.reason, image.file, image.split = (
            ImageState.REJECTED,
            Reason.TAKEN_DOWN,
            "",
            "",
        )
    ImageUrl.objects.bulk_update(images, ["state", "reason", "file", "split"], batch_size=200)
    _count_again(kept)
    for file in files:
        for folder in (request.folder / "collect", *request.folder.glob("runs/*")):
            (folder / file).unlink(missing_ok=True)
    for image in images:
        (request.folder / "thumbnails" / f"{image.pk}.jpg").unlink(missing_ok=True)
    for version in request.versions.all():
        _rebuild_without(version, files)
    Event.objects.create(
        request=request, old=request.status, new=request.status, reason="a picture was taken down"
    )


def _rebuild_without(version: DatasetVersion, files: set[str]) -> None:
    """The version's run folder, dataset and model without these files; the model's report showed
    them too.
    """
    if not (version.folder / "manifest.jsonl").exists():
        return
    takedown.remove_images(version.folder, files)
    rows = run_folder.read_manifest(version.folder)
    for artifact in version.artifacts.filter(kind__in=(Kind.DATASET, Kind.MODEL)):
        if artifact.kind == Kind.DATASET:
            _freeze(version, rows)
            made = dataset_zip.build_dataset(
                version, _pictures(version, rows), artifact.file, lambda: None
            )
        else:
            made = dataset_zip.build_model(version, artifact.file, lambda: None)
        Artifact.objects.filter(pk=artifact.pk).update(bytes=made.bytes, sha256=made.sha256)


def expire() -> None:
    """Delete what is past its time, and the files that a deletion had to leave."""
    now = timezone.now()
    kept_until = now - timedelta(days=settings.RETENTION_DAYS)
    ended = (Status.DELIVERED, Status.NEEDS_ATTENTION, Status.FAILED, Status.CANCELLED)
    for request in ClassifierRequest.objects.filter(status__in=ended, moved__lt=kept_until):
        delete(request, reason=f"{settings.RETENTION_DAYS} days old")
    unconfirmed = ClassifierRequest.objects.filter(
        status=Status.UNCONFIRMED, created__lt=now - 2 * CONFIRM_WITHIN
    )
    unconfirmed.delete()
    for request in ClassifierRequest.objects.filter(status=Status.EXPIRED):
        if request.folder.exists():
            _remove_rows(request)
            _remove_folder(request)
    WorkerBeat.objects.filter(at__lt=now - timedelta(days=1)).delete()
