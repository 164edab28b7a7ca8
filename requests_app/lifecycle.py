"""What may happen to a request at any time: cancel, finish early, retry, delete, expire."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.db import transaction
from django.db.models import Count
from django.db.models.functions import Coalesce
from django.utils import timezone

from requests_app import (
    health,
    limits,
    own_check,
    pipeline,
    privacy,
    repeats,
    result_mail,
    shortage,
    supplied,
    versions,
)
from requests_app.models import (
    ALLOWED_MOVES,
    OWN_SOURCE,
    ClassifierRequest,
    Event,
    ImageClass,
    Job,
    JobState,
    Status,
    WorkerBeat,
)
from training.phrases import listed
from training.run_folder import MINIMUM_PER_CLASS, MINIMUM_PER_SPLIT, SPLITS

logger = logging.getLogger(__name__)

RETRYABLE = (Status.FAILED, Status.CANCELLED, Status.NEEDS_ATTENTION)
ENDED = (Status.DELIVERED, *RETRYABLE)
FINISHABLE = (pipeline.COLLECT.name, pipeline.TRAIN.name)  # stages that may end early
SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}
PERSON = "person"  # whoever has the link, as an Event row names them
REBUILD_PAUSE = timedelta(hours=1)
BUILT_AGAIN = "It is built again. Try again in some minutes."
NOT_BUILT_AGAIN = (
    "It cannot be built again, because what it is made of is damaged too. Remove or relabel a"
    " picture and train again."
)
WARN_DAYS = 5  # before a result is deleted; where results are kept for less than 20, a quarter


@transaction.atomic
def cancel(classifier: ClassifierRequest, actor: str = "person") -> bool:
    """End all work on the request; return False if it cannot be cancelled now.

    What was collected stays, so that a retry goes on from it; what was delivered stays delivered.
    """
    is_cancellable = Status.CANCELLED in ALLOWED_MOVES[classifier.status]
    new = Status.DELIVERED if versions.finished_versions(classifier) else Status.CANCELLED
    if not is_cancellable or not classifier.move(new, reason="cancelled", actor=actor):
        return False
    _stop_jobs(classifier)
    if not classifier.jobs.exists():  # it was never confirmed, and cannot be retried
        transaction.on_commit(lambda: supplied.forget_of(classifier))
    return True


def _stop_jobs(classifier: ClassifierRequest) -> None:
    jobs = Job.objects.filter(request=classifier)
    waiting = jobs.filter(state=JobState.QUEUED)
    waiting.update(state=JobState.CANCELLED, finished=timezone.now())
    jobs.filter(state=JobState.RUNNING).update(cancel_requested=True)


def obstacle_to_finishing(classifier: ClassifierRequest) -> str:
    """Return why the work that goes on cannot be ended early with what there is, "" if it can."""
    job = classifier.jobs.filter(state=JobState.RUNNING).first()
    if job is None or job.stage not in FINISHABLE or job.cancel_requested:
        return "There is nothing that could be ended early just now."
    if job.stage == pipeline.TRAIN.name:
        is_late = job.progress.get("stage") in ("evaluate", "export")
        return "Fine-tuning has ended: what it came to is being measured." if is_late else ""
    counts = _kept_per_class(classifier)
    kept = {}
    for image_class in classifier.classes.all():
        kept[image_class.name] = counts.get(image_class.pk, 0)
    return too_few_to_finish(classifier, kept)


def too_few_to_finish(classifier: ClassifierRequest, kept: Mapping[str, int]) -> str:
    """Return why a collection cannot be ended with these counts by class name, "" if it can."""
    needed = min(settings.MIN_IMAGES, classifier.images_per_class)
    if classifier.accept_fewer:
        needed = MINIMUM_PER_CLASS
    short = []
    for name, count in kept.items():
        if count < needed:
            short.append(f"“{name}” has {count}")
    if not short:
        return ""
    return f"Training needs at least {needed} pictures of each class; {listed(short)} so far."


@transaction.atomic
def finish(classifier: ClassifierRequest, actor: str = "person") -> bool:
    """End the collection with the pictures that are there, or fine-tuning with the best so far.

    All that comes after it goes on as always. Asked for twice it is done once.

    :returns: False where that cannot be; see ``obstacle_to_finishing``
    """
    if obstacle_to_finishing(classifier):
        return False
    running = classifier.jobs.filter(state=JobState.RUNNING, stage__in=FINISHABLE)
    if running.filter(finish_requested=False).update(finish_requested=True):
        status = classifier.status
        reason = "finish early"
        Event.objects.create(request=classifier, old=status, new=status, reason=reason, actor=actor)
    return True


def _check_limits(classifier: ClassifierRequest, actor: str) -> None:
    """Let a person start a request again beside their others; staff and timers always may.

    :raises LimitReached: others of this address, or of all, come first
    """
    if actor == PERSON:
        limits.check_open(classifier)
        limits.check_queue()
        limits.check_disk()


@transaction.atomic
def retry(
    classifier: ClassifierRequest,
    *,
    images_per_class: int | None = None,
    license: str | None = None,
    sources: list[str] | None = None,
    accept_fewer: bool = False,
    class_queries: dict[int, str] | None = None,
    kind: str | None = None,
    actor: str = "person",
) -> bool:
    """Go on after a failure, a cancel or too few images.

    The last stage is repeated; what is to be searched for otherwise makes that the collection.

    :param class_queries: class number -> new query; the images of that class's old query are
        dropped
    :param kind: what kind of things the classes are, "" for their plain names; the images of
        classes that are then asked for in other words are dropped
    :returns: False in any other state, or without a confirmed address
    """
    if classifier.status not in RETRYABLE or not classifier.jobs.exists():
        return False
    _check_limits(classifier, actor)
    others = [stage.name for stage in pipeline.NO_ARROWS]
    arrows = classifier.jobs.exclude(stage__in=others)
    stage = pipeline.stage_of(arrows.latest("pk"))
    search_again = classifier.status == Status.NEEDS_ATTENTION and not accept_fewer
    wishes = {"images_per_class": images_per_class, "license": license, "sources": sources}
    search_again |= _change_search(classifier, wishes)
    classifier.accept_fewer = accept_fewer or classifier.accept_fewer
    classifier.save(update_fields=[*wishes, "accept_fewer"])
    search_again |= _change_kind(classifier, kind)
    for number, query in (class_queries or {}).items():
        search_again |= _reword(classifier, number, query)
    if not classifier.move(Status.QUEUED, reason="retry", actor=actor):
        transaction.set_rollback(True)
        return False
    if search_again:
        stage = pipeline.COLLECT
        _ask_sources_again(classifier)
    stage.enqueue(classifier)
    return True


def obstacle_to_training(classifier: ClassifierRequest) -> str:
    """Return the sentence that says why the request cannot be trained again now, "" if it can."""
    if classifier.status != Status.DELIVERED or not versions.finished_versions(classifier):
        return "This can be trained again when the work that goes on has ended."
    if not versions.changes(classifier).count:
        return "Nothing has changed since the last training. Remove or relabel pictures first."
    counts = _kept_per_class(classifier)
    for image_class in classifier.classes.all():
        count = counts.get(image_class.pk, 0)
        if count < MINIMUM_PER_CLASS:
            return (
                f"“{image_class.name}” has {count} pictures left; a class needs at least"
                f" {MINIMUM_PER_CLASS}. Take some back first."
            )
    return _lack_in_a_split(classifier)


def _lack_in_a_split(classifier: ClassifierRequest) -> str:
    """Return the sentence that says in which split too few images of a class are left, "" if none.

    Images keep their split; only new ones, which have none yet, can fill what is missing.
    """
    kept = versions.kept_images(classifier).annotate(now=Coalesce("label", "image_class"))
    counts: Counter[tuple[int, str]] = Counter()
    for now, split, count in kept.order_by().values_list("now", "split").annotate(Count("pk")):
        counts[now, split] = count
    for image_class in classifier.classes.all():
        new = counts[image_class.pk, ""]
        for split in SPLITS:
            count = counts[image_class.pk, split]
            new -= max(0, MINIMUM_PER_SPLIT - count)
            if new < 0:
                title = SPLIT_TITLES[split]
                return (
                    f"“{image_class.name}” has {count} {title} pictures left; a class needs at"
                    f" least {MINIMUM_PER_SPLIT}. Take some back, or search for more pictures."
                )
    return ""


def _kept_per_class(classifier: ClassifierRequest) -> dict[int, int]:
    """Return how many images count as each class now, by its primary key."""
    kept = versions.kept_images(classifier).annotate(now=Coalesce("label", "image_class"))
    return dict(kept.order_by().values_list("now").annotate(Count("pk")))


@transaction.atomic
def retrain(classifier: ClassifierRequest, actor: str = "person") -> bool:
    """Make the next version of the decisions and train on it; return False if that is not to be.

    The versions before stay as they are.
    """
    if obstacle_to_training(classifier):
        return False
    _check_limits(classifier, actor)
    if not classifier.move(Status.QUEUED, reason="train again", actor=actor):
        return False
    versions.create_version(classifier)
    pipeline.TRAIN.enqueue(classifier)
    return True


@transaction.atomic
def count_judgements(classifier: ClassifierRequest) -> bool:
    """Have the judgements of test images counted; return False if there is nothing to count in."""
    waiting = classifier.jobs.filter(stage=pipeline.RECOUNT.name, state=JobState.QUEUED)
    if classifier.status != Status.DELIVERED or not versions.finished_versions(classifier):
        return False
    if not waiting.exists():
        pipeline.RECOUNT.enqueue(classifier)
    return True


@transaction.atomic
def build_again(classifier: ClassifierRequest) -> str:
    """Have delivered files that are damaged on the disk built again; return what comes of it.

    However many ask, they are built once an hour at most.
    """
    jobs = classifier.jobs.filter(stage=pipeline.REBUILD.name)
    last = jobs.filter(created__gt=timezone.now() - REBUILD_PAUSE).last()
    if last is not None and last.state == JobState.FAILED:
        return NOT_BUILT_AGAIN
    if last is None:
        pipeline.REBUILD.enqueue(classifier)
    return BUILT_AGAIN


@transaction.atomic
def collect_again(classifier: ClassifierRequest, actor: str = "person") -> bool:
    """Ask the sources again and fetch what is missing, after any end but a deletion.

    What was delivered stays until its next version is.

    :returns: False in any other state, or without a confirmed address
    """
    if classifier.status not in ENDED or not classifier.jobs.exists():
        return False
    _check_limits(classifier, actor)
    if not classifier.move(Status.QUEUED, reason="download again", actor=actor):
        return False
    _ask_sources_again(classifier)
    pipeline.COLLECT.enqueue(classifier)
    return True


@transaction.atomic
def fill_up(classifier: ClassifierRequest, number: int, words: str, actor: str = "person") -> bool:
    """Search one class with other words, for as many images as it lacks, and train again.

    What is kept stays, and what was removed does not come back.

    :returns: False where there is no such class, or nothing can be collected now
    """
    image_class = classifier.classes.filter(number=number).first()
    if image_class is None or not collect_again(classifier, actor):
        return False
    image_class.query = words
    image_class.keeps_earlier = True
    image_class.save(update_fields=["query", "keeps_earlier"])
    return True


@transaction.atomic
def leave_out(
    classifier: ClassifierRequest, numbers: Collection[int], actor: str = "person"
) -> bool:
    """Drop classes with their images; return False if they cannot go, or are gone already.

    Two classes must remain. Nothing is searched again: where the others have enough images, work
    goes on; else the page asks about those that are left.

    :param numbers: of the classes, within the request
    """
    if classifier.status not in RETRYABLE or not classifier.jobs.exists():
        return False
    if versions.finished_versions(classifier):  # their figures and files name this class
        return False
    _check_limits(classifier, actor)
    # Two people who press at the same time must not leave one class.
    ClassifierRequest.objects.select_for_update().get(pk=classifier.pk)
    leaving = list(classifier.classes.filter(number__in=numbers))
    left = classifier.classes.count() - len(leaving)
    if not leaving or left < shortage.FEWEST_CLASSES:
        return False
    note = f"left out {listed([f'“{each.name}”' for each in leaving])}"
    for image_class in leaving:
        image_class.delete()
    lack = shortage.shortage_of(classifier)
    if lack.short and classifier.status == Status.NEEDS_ATTENTION:
        error = pipeline.too_few_error(classifier, lack)
        ClassifierRequest.objects.filter(pk=classifier.pk).update(error=error)
        classifier.error = error
        return True
    if not classifier.move(Status.QUEUED, reason=note, actor=actor):
        transaction.set_rollback(True)
        return False
    pipeline.COLLECT.enqueue(classifier)
    return True


def _ask_sources_again(classifier: ClassifierRequest) -> None:
    """Have a finished collection ask its sources once more."""
    folder = classifier.folder / "collect"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / pipeline.SEARCH_AGAIN).touch()


def retry_after_outages() -> None:
    """Ask the sources again for requests whose time for that has come."""
    waiting = ClassifierRequest.objects.filter(status=Status.NEEDS_ATTENTION)
    for classifier in waiting.exclude(error=None):
        again_at = (classifier.error or {}).get("again_at")
        if again_at and datetime.fromisoformat(again_at) <= timezone.now():
            retry(classifier, actor="timer")


def _change_search(classifier: ClassifierRequest, wishes: dict[str, Any]) -> bool:
    """Set what the person wants otherwise, without saving; return False if that is nothing.

    :param wishes: field -> value, None for "as before"
    """
    current = {
        "images_per_class": classifier.images_per_class,
        "license": classifier.license,
        "sources": pipeline.sources_of(classifier),
    }
    is_changed = False
    for name, wish in wishes.items():
        if wish is not None and wish != current[name]:
            setattr(classifier, name, wish)
            is_changed = True
    return is_changed


def _change_kind(classifier: ClassifierRequest, kind: str | None) -> bool:
    """Set another kind of things; return False if it is none or the one that was searched for."""
    if kind is None or kind == classifier.search_kind:
        return False
    classes = list(classifier.classes.all())
    earlier = {image_class.pk: image_class.search_words for image_class in classes}
    classifier.kind = kind
    classifier.find_kind = False
    classifier.kind_found = {}
    classifier.save(update_fields=["kind", "find_kind", "kind_found"])
    for image_class in classes:
        if image_class.search_words != earlier[image_class.pk]:
            _drop_found(image_class)
    return True


def _reword(classifier: ClassifierRequest, number: int, query: str) -> bool:
    """Give a class another query and drop what the old one found; return False if it is not new."""
    image_class = classifier.classes.filter(number=number).first()
    # Compared here: some databases take other accents, capitals and emoji for the same.
    if image_class is None or image_class.query == query:
        return False
    image_class.query = query
    image_class.save(update_fields=["query"])
    _drop_found(image_class)
    return True


def _drop_found(image_class: ImageClass) -> None:
    """Delete what earlier words found, unless there is a version, which holds some of it."""
    has_version = bool(versions.finished_versions(image_class.request))
    image_class.keeps_earlier = has_version
    image_class.save(update_fields=["keeps_earlier"])
    if not has_version:
        image_class.images.exclude(source=OWN_SOURCE).delete()


def delete(classifier: ClassifierRequest, reason: str = "deleted by its owner") -> bool:
    """Delete all that is stored of a request; return False if it was deleted before.

    The row stays, so that its link can say that it is gone. Where a child is still being stopped,
    `erased` is None, and the rest goes as soon as that has ended.
    """
    while not _mark_deleted(classifier, reason):
        classifier.refresh_from_db()  # a worker moved it meanwhile
        if classifier.status == Status.EXPIRED:
            return False
    privacy.erase(classifier)
    classifier.refresh_from_db()
    return True


@transaction.atomic
def _mark_deleted(classifier: ClassifierRequest, reason: str) -> bool:
    cancel(classifier)
    if not classifier.move(Status.EXPIRED, reason=reason):
        return False
    _stop_jobs(classifier)  # what is counted or measured of a delivered one as well
    return True


def warn_of_expiry() -> int:
    """Write one mail about each result that is deleted soon; return how many were written."""
    warn_days = min(WARN_DAYS, settings.RETENTION_DAYS // 4)
    kept_days = settings.RETENTION_DAYS - warn_days
    delivered_before = timezone.now() - timedelta(days=kept_days)
    delivered = ClassifierRequest.objects.filter(status=Status.DELIVERED)
    written = 0
    if warn_days:
        for classifier in delivered.filter(moved__lt=delivered_before):
            written += result_mail.put_expiring(classifier) is not None
    return written


def expire() -> None:
    """Delete what is past its time, and the rest of what was deleted before."""
    own_check.expire()
    now = timezone.now()
    ended_before = now - timedelta(days=settings.RETENTION_DAYS)
    for classifier in ClassifierRequest.objects.filter(status__in=ENDED, moved__lt=ended_before):
        _expire(classifier, ended_before)
    submitted_before = now - 2 * pipeline.CONFIRM_WITHIN
    unconfirmed = ClassifierRequest.objects.filter(status=Status.UNCONFIRMED)
    for classifier in unconfirmed.filter(created__lt=submitted_before):
        _forget_unconfirmed(classifier)
    limits.forget_old()
    repeats.forget_old()
    supplied.forget_ownerless()
    supplied.forget_old_drafts()
    for classifier in ClassifierRequest.objects.filter(status=Status.EXPIRED):
        if classifier.erased is None or classifier.folder.exists():
            privacy.erase(classifier)
    WorkerBeat.objects.filter(at__lt=now - timedelta(days=1)).delete()
    failed_log_ins = AccessAttempt.objects.filter(attempt_time__lt=now - timedelta(days=1))
    failed_log_ins.delete()
    complaint = health.waiting_too_long()
    if complaint:
        logger.warning(complaint)


def _expire(classifier: ClassifierRequest, ended_before: datetime) -> None:
    """Delete a request that ended so long ago, unless a person has taken it up meanwhile."""
    with transaction.atomic():
        reason = f"{settings.RETENTION_DAYS} days old"
        if not classifier.move(Status.EXPIRED, reason=reason, moved_before=ended_before):
            return
        _stop_jobs(classifier)
    privacy.erase(classifier)


def _forget_unconfirmed(classifier: ClassifierRequest) -> None:
    """Delete a request whose address nobody has confirmed, row and all."""
    if not classifier.move(Status.EXPIRED, reason="never confirmed"):
        return
    if privacy.erase(classifier):  # else the row says to the next round what is left
        privacy.forget_in_log(classifier)
        classifier.delete()
