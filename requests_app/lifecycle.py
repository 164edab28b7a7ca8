"""What may happen to a request at any time: cancel, retry, delete, expire."""

import shutil
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from requests_app import mail, pipeline
from requests_app.models import (
    ClassifierRequest,
    ImageUrl,
    Job,
    JobState,
    OutgoingMail,
    Status,
    WorkerBeat,
)

RETRYABLE = (Status.FAILED, Status.CANCELLED, Status.NEEDS_ATTENTION)
ENDED = (Status.DELIVERED, *RETRYABLE)


@transaction.atomic
def cancel(classifier: ClassifierRequest, actor: str = "person") -> bool:
    """End all work on the request; return False if it cannot be cancelled now.

    What was collected stays, so that a retry goes on from it.
    """
    if not classifier.move(Status.CANCELLED, reason="cancelled", actor=actor):
        return False
    jobs = Job.objects.filter(request=classifier)
    waiting = jobs.filter(state=JobState.QUEUED)
    waiting.update(state=JobState.CANCELLED, finished=timezone.now())
    jobs.filter(state=JobState.RUNNING).update(cancel_requested=True)
    return True


@transaction.atomic
def retry(
    classifier: ClassifierRequest,
    *,
    images_per_class: int | None = None,
    license: str | None = None,
    sources: list[str] | None = None,
    accept_fewer: bool = False,
    class_queries: dict[int, str] | None = None,
    actor: str = "person",
) -> bool:
    """Go on after a failure, a cancel or too few images.

    The last stage is repeated; what is to be searched for otherwise makes that the collection.

    :param class_queries: class number -> new query; the images of that class's old query are
        dropped
    :returns: False in any other state, or without a confirmed address
    """
    if classifier.status not in RETRYABLE or not classifier.jobs.exists():
        return False
    stage = pipeline.stage_of(classifier.jobs.latest("pk"))
    search_again = classifier.status == Status.NEEDS_ATTENTION and not accept_fewer
    wishes = {"images_per_class": images_per_class, "license": license, "sources": sources}
    search_again |= _change_search(classifier, wishes)
    classifier.accept_fewer = accept_fewer or classifier.accept_fewer
    classifier.save(update_fields=[*wishes, "accept_fewer"])
    for number, query in (class_queries or {}).items():
        search_again |= _reword(classifier, number, query)
    if not classifier.move(Status.QUEUED, reason="retry", actor=actor):
        transaction.set_rollback(True)
        return False
    if search_again:
        stage = pipeline.COLLECT
        folder = classifier.folder / "collect"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / pipeline.SEARCH_AGAIN).touch()
    stage.enqueue(classifier)
    return True


def _change_search(classifier: ClassifierRequest, wishes: dict[str, Any]) -> bool:
    """Set what the person wants otherwise, without saving; return False if that is nothing.

    :param wishes: field -> value, None for "as before"
    """
    current = {
        "images_per_class": classifier.images_per_class,
        "license": classifier.license,
        "sources": classifier.sources or list(settings.SOURCES),
    }
    is_changed = False
    for name, wish in wishes.items():
        if wish is not None and wish != current[name]:
            setattr(classifier, name, wish)
            is_changed = True
    return is_changed


def _reword(classifier: ClassifierRequest, number: int, query: str) -> bool:
    """Give a class another query and drop what the old one found; return False if it is not new."""
    image_class = classifier.classes.filter(number=number).exclude(query=query).first()
    if image_class is None:
        return False
    image_class.query = query
    image_class.save(update_fields=["query"])
    image_class.images.all().delete()
    return True


def delete(classifier: ClassifierRequest, reason: str = "deleted by its owner") -> bool:
    """Delete images, files, mails and the address; return False if it was deleted before.

    The row stays, so that its link can say that it is gone.
    """
    while not _mark_expired(classifier, reason):
        classifier.refresh_from_db()  # a worker moved it meanwhile
        if classifier.status == Status.EXPIRED:
            return False
    mail.forget(classifier)
    _remove_folder(classifier)
    return True


@transaction.atomic
def _mark_expired(classifier: ClassifierRequest, reason: str) -> bool:
    cancel(classifier)
    if not classifier.move(Status.EXPIRED, reason=reason):
        return False
    ClassifierRequest.objects.filter(pk=classifier.pk).update(email="")
    OutgoingMail.objects.filter(request=classifier).update(to="")
    _remove_rows(classifier)
    return True


def _remove_rows(classifier: ClassifierRequest) -> None:
    classifier.versions.all().delete()
    ImageUrl.objects.filter(image_class__request=classifier).delete()


def _remove_folder(classifier: ClassifierRequest) -> None:
    """Remove the files, unless a child that is being stopped may still write.

    Then the next ``expire`` removes them.
    """
    if not classifier.jobs.filter(state=JobState.RUNNING).exists():
        shutil.rmtree(classifier.folder, ignore_errors=True)


def expire() -> None:
    """Delete what is past its time, and the files that a deletion had to leave."""
    now = timezone.now()
    ended_before = now - timedelta(days=settings.RETENTION_DAYS)
    for classifier in ClassifierRequest.objects.filter(status__in=ENDED, moved__lt=ended_before):
        delete(classifier, reason=f"{settings.RETENTION_DAYS} days old")
    submitted_before = now - 2 * pipeline.CONFIRM_WITHIN
    unconfirmed = ClassifierRequest.objects.filter(status=Status.UNCONFIRMED)
    unconfirmed.filter(created__lt=submitted_before).delete()
    for classifier in ClassifierRequest.objects.filter(status=Status.EXPIRED):
        if classifier.folder.exists():
            _remove_rows(classifier)
            _remove_folder(classifier)
    WorkerBeat.objects.filter(at__lt=now - timedelta(days=1)).delete()
