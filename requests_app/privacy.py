"""What is stored about people: where, for how long, how they get it, and how it is deleted.

The page `/privacy/` is made of the table below, and a test compares it with the database, the data
folder and the mails: each table and each file has its line, and of a request that was deleted or
has expired nothing is left but what the line about that says.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Model, QuerySet
from django.utils import timezone

from requests_app import mail
from requests_app.digests import same_address
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    DatasetVersion,
    Decision,
    Event,
    IdempotencyKey,
    ImageClass,
    ImageUrl,
    Job,
    JobState,
    MailState,
    OutgoingMail,
    OwnCheck,
    Status,
    TrainingRun,
)


@dataclass(frozen=True)
class Stored:
    """One line of the page. `tables` and `files` (below the data folder) are where it lies."""

    what: str
    why: str
    until: str
    tables: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


STAFF_LINKS = ("User_groups", "User_user_permissions", "Group_permissions")
WITH_THE_REQUEST = "Until the request is deleted."
STORED = (
    Stored(
        "Your e-mail address, and what you typed: names, search words, kind of things, options",
        "To do what you asked for, and to tell you what came of it.",
        WITH_THE_REQUEST,
        ("ClassifierRequest", "ImageClass"),
        ("requests/*/collect",),
    ),
    Stored(
        "The pictures that were found, with address, page, title, author and licence of each",
        "They are your dataset; its credits name the authors.",
        WITH_THE_REQUEST,
        ("ImageUrl",),
        ("requests/*/collect", "requests/*/thumbnails"),
    ),
    Stored(
        "What you brought along: a zip of pictures, a table of addresses",
        "To collect from it. A picture loses what its file says of place and camera.",
        "Until the request is deleted; a day where the form was never sent.",
        (),
        ("requests/*/supplied", "uploads", "arriving"),
    ),
    Stored(
        "Pictures of your own that you gave to measure a model",
        "To measure it.",
        "As given until they are measured; the cleaned ones for a day, or with the request where"
        " you added some to the dataset.",
        ("OwnCheck",),
        ("requests/*/own",),
    ),
    Stored(
        "Datasets, models, figures and files to download",
        "They are what you asked for.",
        WITH_THE_REQUEST,
        ("DatasetVersion", "TrainingRun", "Artifact"),
        ("requests/*/runs", "requests/*/artifacts", "requests/*/first"),
    ),
    Stored(
        "What you decided about pictures: removed, moved, judged",
        "So that it can be undone, and counts in the next training.",
        WITH_THE_REQUEST,
        ("Decision",),
    ),
    Stored(
        "What happened to the request and when, and the jobs that worked on it",
        "To show you how far it is, and to go on after a failure.",
        "What happened: until the request is deleted. Of the jobs stage and times remain, and"
        " nothing that you typed.",
        ("Event", "Job"),
    ),
    Stored(
        "Mails to you: address and subject, and the text until it is sent",
        "To send them, once each.",
        WITH_THE_REQUEST,
        ("OutgoingMail", "OutgoingMail_attachments"),
        ("mail", "mail.lock"),
    ),
    Stored(
        "Digests of your network's address with a call of the API that may be repeated, and of a"
        " filled form",
        "So that what is sent twice is done once.",
        "A day.",
        ("IdempotencyKey",),
    ),
    Stored(
        "Salted digests of your address and of your network, with the times at which they asked",
        "So that nobody asks for more than others can.",
        "A day.",
        ("Allowance",),
    ),
    Stored(
        "Failed log-ins of the staff: name, network address and browser",
        "To lock out whoever guesses passwords.",
        "A day.",
        ("AccessAttempt", "AccessAttemptExpiration", "AccessFailureLog", "AccessLog"),
    ),
    Stored(
        "An address for which somebody asks for its links",
        "To look whether it has any.",
        "Some seconds.",
        ("LinksWish",),
    ),
    Stored(
        "What the staff did in the dashboard, and their accounts and sessions",
        "So that the operator knows who did what. What names a request's words is deleted with it.",
        "As long as the operator wants.",
        ("LogEntry", "User", "Group", "Permission", "ContentType", "Session", *STAFF_LINKS),
    ),
    Stored(
        "Digests of pictures that somebody wants taken down, and why",
        "So that they never come back.",
        "For good.",
        ("TakenDown",),
    ),
    Stored(
        "Whether sources and workers are well",
        "To leave a source alone that does not want to be asked. It holds nothing of people.",
        "Until it changes.",
        ("SourceHealth", "BrowserTurn", "WorkerBeat", "OrmQ", "Schedule", "Task"),
        ("cache", "qstat", "secret_key", "db.sqlite3*", "up-*.lock", "check-sources"),
    ),
)
REMAINS = (
    "its number, dates and options, and a digest of its link, so that the link can say that it is"
    " gone",
    "that it was deleted, and when",
    "stage and times of the jobs that worked on it",
)
# How a row of a table is found from its request. The order is that of an export.
RELATED: dict[type[Model], str] = {
    ImageClass: "request",
    ImageUrl: "image_class__request",
    Decision: "request",
    OwnCheck: "request",
    DatasetVersion: "request",
    TrainingRun: "version__request",
    Artifact: "version__request",
    Job: "request",
    Event: "request",
    OutgoingMail: "request",
    IdempotencyKey: "request",
}
KEYS = {"token_sha256", "mailbox", "share_sha256", "key_sha256", "wish_sha256"}  # in no export


# --- what a person may have ----------------------------------------------------------------------


def requests_of(address: str) -> list[ClassifierRequest]:
    """Return the requests of an address, the newest first.

    They are compared here: a database may take other addresses for the same.
    """
    wanted = address.strip()
    requests = ClassifierRequest.objects.exclude(email="")
    return [each for each in requests if same_address(each.email, wanted)]


def stored_about(classifier: ClassifierRequest) -> dict[str, Any]:
    """Return all that is stored about a request: its rows by table, and what files there are."""
    document: dict[str, Any] = {"request": _values(classifier)}
    for model, path in RELATED.items():
        rows = model._default_manager.filter(**{path: classifier}).order_by("pk")
        document[str(model._meta.verbose_name_plural)] = [_values(row) for row in rows]
    document["files"] = [
        {"file": str(file.relative_to(settings.DATA_DIR)), "bytes": file.stat().st_size}
        for file in _files_of(classifier)
    ]
    return document


def _values(row: Model) -> dict[str, Any]:
    values = {}
    for field in row._meta.concrete_fields:
        if field.name in KEYS:
            continue
        value = field.value_from_object(row)
        values[field.name] = value.isoformat() if isinstance(value, datetime) else value
    return values


def _files_of(classifier: ClassifierRequest) -> Iterator[Path]:
    for file in sorted(classifier.folder.rglob("*")):
        if file.is_file() and not file.is_symlink():
            yield file
    yield from mail.copies_of(classifier)


# --- what is deleted -----------------------------------------------------------------------------


def erase(classifier: ClassifierRequest) -> bool:
    """Delete what is stored about a request that has expired; return whether all of it is gone.

    Rows that a child may still be writing, and a mail that is being sent, are left to the next call
    after that has ended.
    """
    with transaction.atomic():
        _erase_rows(classifier)
    is_at_work = classifier.jobs.filter(state=JobState.RUNNING).exists()
    is_being_written_to = classifier.mails.filter(state=MailState.SENDING).exists()
    if is_at_work or is_being_written_to:
        return False
    classifier.classes.all().delete()
    remove_files(classifier)
    if classifier.folder.exists():
        return False
    expired = ClassifierRequest.objects.filter(pk=classifier.pk)
    return bool(expired.update(erased=timezone.now()))


def erase_the_rest() -> None:
    """Go on with requests of which something had to be left."""
    for classifier in ClassifierRequest.objects.filter(status=Status.EXPIRED, erased=None):
        erase(classifier)


def empty_journal() -> None:
    """Write SQLite's journal into the database and empty it: it may hold what was deleted since.

    Where others are reading just now it stays for the next time.
    """
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def remove_files(classifier: ClassifierRequest) -> None:
    """Remove the folder of a request, and the copies of its mails."""
    shutil.rmtree(classifier.folder, ignore_errors=True)
    for file in mail.copies_of(classifier):
        file.unlink(missing_ok=True)


def _erase_rows(classifier: ClassifierRequest) -> None:
    """Delete rows, and of those that stay what a person typed or is told by it.

    Classes keep their numbers for as long as a child may find pictures of them.
    """
    own = ClassifierRequest.objects.filter(pk=classifier.pk)
    own.update(email="", mailbox="", disk_bytes=0, kind="", kind_found={}, supplied={}, error=None)
    forget_in_log(classifier)
    classifier.classes.update(name="", query="", outcomes=[], rejected={})
    ImageUrl.objects.filter(image_class__request=classifier).delete()
    classifier.decisions.all().delete()
    classifier.own_checks.all().delete()
    classifier.versions.all().delete()
    last = classifier.events.last()
    if last is not None:
        classifier.events.exclude(pk=last.pk).delete()
    classifier.mails.exclude(state=MailState.SENDING).delete()
    IdempotencyKey.objects.filter(request=classifier).delete()
    waiting = classifier.jobs.filter(state=JobState.QUEUED)
    waiting.update(state=JobState.CANCELLED, finished=timezone.now())
    classifier.jobs.update(progress={}, error="")


def forget_in_log(classifier: ClassifierRequest) -> None:
    """Leave of what the staff did with a request that they did it, without its words."""
    rows: list[tuple[type[Model], QuerySet[Any]]] = [
        (ClassifierRequest, ClassifierRequest.objects.filter(pk=classifier.pk))
    ]
    for model, path in RELATED.items():
        rows.append((model, model._default_manager.filter(**{path: classifier})))
    for model, found in rows:
        entries = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(model))
        about = set(entries.exclude(object_repr="").values_list("object_id", flat=True))
        if about:
            deleted = {str(pk) for pk in found.values_list("pk", flat=True)} & about
            entries.filter(object_id__in=deleted).update(object_repr="", change_message="")
