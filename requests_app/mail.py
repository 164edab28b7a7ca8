"""The outbox: mails are rows, written in the transaction that makes them true and sent afterwards.

A crash between the server's acceptance and our mark sends a mail twice at most, with the same
Message-ID, so that mail programs show it once. What cannot be sent is tried again with growing
pauses and given up after a day.

Mail is sent in rounds: one at a time, over one connection, that end at the first failure of the
connection. A mail server that is silent thus holds up one worker, and nothing but mail.
"""

import contextlib
import fcntl
import logging
import smtplib
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from email.message import Message
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.utils import parseaddr
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.core.mail import EmailMessage, EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db.models import QuerySet
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from requests_app.delivery import contact_strip, model_zip, names
from requests_app.models import Artifact, ClassifierRequest, MailState, OutgoingMail, Status
from requests_app.workers import jobs

logger = logging.getLogger(__name__)

GIVE_UP_AFTER = timedelta(hours=24)
LONGEST_PAUSE_SECONDS = 3600.0  # between two attempts
ROUND_SECONDS = 60.0  # after these no further mail is begun; another round goes on
SERVICE_ENDS = 421  # an SMTP server closes the connection with this code, whatever it was asked
SUBJECT_CHARACTERS = 200  # of the column; mail programs show about 70
PICTURE_ID = "pictures"
PICTURE_MARKS = ("<!--pictures-->", "<!--/pictures-->")


class FolderBackend(BaseEmailBackend):
    """Writes each mail as an ``.eml`` file that any mail program opens.

    This is the default where no server is configured.
    """

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        folder = Path(settings.MAIL_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        for message in email_messages:
            key = message.extra_headers.get("X-Picaisso-Key", "mail")
            name = key.replace(":", "-")
            unfinished = folder / f"{name}.part"
            unfinished.write_bytes(message.message().as_bytes())
            unfinished.replace(folder / f"{name}.eml")
        return len(email_messages)


class MailWithPicture(EmailMultiAlternatives):
    """A mail whose HTML shows a picture that it brings along; None for one without."""

    picture: bytes | None = None

    def message(self, **options: Any) -> Any:
        whole = super().message(**options)
        if self.picture is not None:
            _put_beside_html(whole, self.picture)
        return whole


def _put_beside_html(whole: Message, picture: bytes) -> None:
    """Make the HTML part one that is related to a picture, as mail programs expect it."""
    for part in whole.walk():
        if part.get_content_type() != "multipart/alternative":
            continue
        alternatives = cast(list[Message], part.get_payload())
        image = MIMEImage(picture, "jpeg")
        image.add_header("Content-ID", f"<{PICTURE_ID}>")
        image.add_header("Content-Disposition", "inline", filename=f"{PICTURE_ID}.jpg")
        related = MIMEMultipart("related", type="text/html")
        related.attach(alternatives.pop())
        related.attach(image)
        alternatives.append(related)
        return


def put(
    classifier: ClassifierRequest,
    template: str,
    key: str,
    context: dict[str, Any],
    attachments: Sequence[Artifact] = (),
    goes_at: datetime | None = None,
) -> OutgoingMail:
    """Write one mail into the outbox and have it sent.

    A second mail with the same key changes nothing.

    :param template: name below ``templates/mail``: subject, text and HTML lie side by side
    :param goes_at: when it is sent at the earliest, None for at once
    """
    classes = list(classifier.classes.all())
    variables = {
        "classes": classes,
        "names": names.short_names(image_class.name for image_class in classes),
        "link": classifier.url,
        "delete_link": settings.BASE_URL + reverse("delete", args=[classifier.token]),
        "privacy_link": settings.BASE_URL + reverse("privacy"),
        "kept_until": classifier.moved + timedelta(days=settings.RETENTION_DAYS),
        "kind_note": str(classifier.kind_found.get("sentence", "")),
        **context,
    }
    subject = render_to_string(f"mail/{template}.subject.txt", variables)
    text = render_to_string(f"mail/{template}.txt", variables)
    foot = render_to_string("mail/_foot.txt", variables)
    content = {
        "request": classifier,
        "to": classifier.email,
        "subject": " ".join(subject.split())[:SUBJECT_CHARACTERS],
        "text": text + foot,
        "html": render_to_string(f"mail/{template}.html", variables),
        "not_before": goes_at or timezone.now(),
    }
    row, is_new = OutgoingMail.objects.get_or_create(key=key, defaults=content)
    if is_new and attachments:
        row.attachments.set(attachments)
    jobs.notify(jobs.MAIN_QUEUE, "send_mail")
    return row


def fitting(artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Return the files that are attached, the smallest first; of others a mail has links.

    Together they are under the operator's limit.
    """
    chosen = []
    room = settings.MAIL_ATTACH_MB * 1e6
    for artifact in sorted(artifacts, key=lambda artifact: artifact.bytes):
        room -= artifact.bytes
        if room < 0:
            break
        chosen.append(artifact)
    return chosen


def sending_limit() -> timedelta:
    """Return after how long a silent sender has died, so that another takes its mail over.

    These are five minutes by default.
    """
    return timedelta(seconds=2.5 * settings.LEASE_SECONDS)


class ServerFailed(Exception):
    """The connection to the mail server failed: the next mail would meet the same."""


def send_waiting() -> int:
    """Send the mails whose time has come, in one round; return how many were sent.

    Where a round is under way already, nothing is done: it takes what has come meanwhile.
    """
    with _right_to_send() as is_held:
        if not is_held:
            return 0
        now = timezone.now()
        sending = OutgoingMail.objects.filter(state=MailState.SENDING)
        for row in sending.filter(not_before__lt=now - sending_limit()):
            _try_later(row, "the sender ended while it was sending")
        sent, has_failed = _send_round()
    if not has_failed and _due().exists():  # it came too late for this round, or time was up
        jobs.notify(jobs.MAIN_QUEUE, "send_mail")
    return sent


@contextlib.contextmanager
def _right_to_send() -> Iterator[bool]:
    """Yield whether nobody else sends from this data folder, and keep others from it.

    The lock is the kernel's, so that a killed sender leaves none behind.
    """
    path = Path(settings.DATA_DIR) / "mail.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _due() -> QuerySet[OutgoingMail]:
    """Return the mails whose time has come, the one that has waited longest first."""
    waiting = OutgoingMail.objects.filter(state=MailState.WAITING, not_before__lte=timezone.now())
    waiting = waiting.exclude(request__status=Status.EXPIRED)  # it is being deleted
    return waiting.order_by("not_before", "pk")


def _send_round() -> tuple[int, bool]:
    """Send what is due over one connection, until that fails or the time is up.

    :returns: how many were sent, and whether the connection failed
    """
    server = get_connection()
    ends = time.monotonic() + ROUND_SECONDS
    sent = 0
    try:
        while time.monotonic() < ends:
            row = _due().first()
            if row is None:
                break
            sent += _send(row, server)
    except ServerFailed as failure:
        logger.warning("the mail server fails, other mail waits: %s", failure)
        return sent, True
    finally:
        with contextlib.suppress(OSError):
            server.close()
    return sent, False


def _send(row: OutgoingMail, server: BaseEmailBackend) -> bool:
    """Claim and send one mail; return False if it was claimed by another sender or not accepted.

    :raises ServerFailed: the connection failed; the mail is sent later
    """
    row.attempts += 1
    waiting = OutgoingMail.objects.filter(pk=row.pk, state=MailState.WAITING)
    claimed = waiting.update(
        state=MailState.SENDING, attempts=row.attempts, not_before=timezone.now()
    )
    if not claimed:
        return False
    try:
        message = _message(row)
    except Exception as error:  # whatever is wrong with one mail, the others still go
        _try_later(row, str(error))
        return False
    try:
        server.open()  # unless it is open from the mail before
        server.send_messages([message])
    except Exception as error:
        if is_of_the_connection(error):
            # The server may be back soon, and this mail is as good as any.
            _try_later(row, str(error), longest=5 * settings.REAP_SECONDS)
            raise ServerFailed(str(error)) from error
        _try_later(row, str(error))
        return False
    sending = OutgoingMail.objects.filter(pk=row.pk, state=MailState.SENDING)
    sending.update(state=MailState.SENT, sent=timezone.now(), text="", html="", error="")
    return True


def is_of_the_connection(error: Exception) -> bool:
    """Return whether an error concerns the server or the way to it, not the one mail."""
    if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code == SERVICE_ENDS:
        return True
    refusals = (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError)
    return isinstance(error, OSError) and not isinstance(error, refusals)


def _try_later(row: OutgoingMail, error: str, longest: float = LONGEST_PAUSE_SECONDS) -> None:
    """Return a mail to the outbox for a later attempt, or give it up after a day.

    :param longest: seconds until then at most
    """
    now = timezone.now()
    is_too_old = now - row.created > GIVE_UP_AFTER
    first_pause = settings.REAP_SECONDS / 4
    pause = min(longest, first_pause * 2 ** min(row.attempts, 10))
    sending = OutgoingMail.objects.filter(pk=row.pk, state=MailState.SENDING)
    sending.update(
        state=MailState.GIVEN_UP if is_too_old else MailState.WAITING,
        not_before=now + timedelta(seconds=pause),
        error=error[:2000],
    )
    logger.warning("mail %s was not accepted (attempt %d)", row.key, row.attempts)


def _message(row: OutgoingMail) -> MailWithPicture:
    """Return a mail of the outbox as Django sends it."""
    _, sender = parseaddr(settings.DEFAULT_FROM_EMAIL)
    domain = sender.rpartition("@")[2] or "localhost"
    # Keys count requests, and a new database counts from one again; the time does not come again.
    identity = f"{row.key.replace(':', '.')}.{row.created:%Y%m%d.%H%M%S.%f}"
    message = MailWithPicture(
        subject=row.subject,
        body=row.text,
        to=[row.to],
        headers={
            "Message-ID": f"<{identity}@{domain}>",
            "Auto-Submitted": "auto-generated",
            "X-Picaisso-Key": row.key,
        },
    )
    html = row.html
    if PICTURE_MARKS[0] in html:
        message.picture = _strip_of(row)
        if message.picture is None:
            html = _without_picture(html)
    message.attach_alternative(html, "text/html")
    for artifact in row.attachments.all():
        try:
            with model_zip.open_artifact(artifact) as file:
                content = file.read()
        except model_zip.DamagedError:  # its link says so too, and has it built again
            logger.exception("a file is not attached")
            continue
        message.attach(names.file_name(artifact), content, "application/zip")
    return message


def _strip_of(row: OutgoingMail) -> bytes | None:
    """Return some pictures of the request's newest version, None if there are none any more."""
    version = row.request.versions.order_by("-number").first()
    return None if version is None else contact_strip.strip(version)


def _without_picture(html: str) -> str:
    first, last = PICTURE_MARKS
    before, _, rest = html.partition(first)
    _, _, after = rest.partition(last)
    return before + after


def copies_of(classifier: ClassifierRequest) -> list[Path]:
    """Return the copies of a request's mails that lie in the folder, unfinished ones too."""
    return sorted(Path(settings.MAIL_DIR).glob(f"request-{classifier.pk}-*"))
