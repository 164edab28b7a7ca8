"""The outbox: mails are rows, written in the transaction that makes them true and sent afterwards.

A crash between the server's acceptance and our mark sends a mail twice at most, with the same
Message-ID, so that mail programs show it once. What cannot be sent is tried again with growing
pauses and given up after a day.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from email.utils import parseaddr
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage, EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.template.loader import render_to_string
from django.utils import timezone

from requests_app.models import Artifact, ClassifierRequest, MailState, OutgoingMail
from requests_app.workers import jobs

logger = logging.getLogger(__name__)

GIVE_UP_AFTER = timedelta(hours=24)


class FolderBackend(BaseEmailBackend):
    """Writes each mail as an ``.eml`` file that any mail program opens: the default where no server
    is configured.
    """

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        folder = Path(settings.MAIL_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        for message in email_messages:
            name = message.extra_headers.get("X-Picaisso-Key", "mail").replace(":", "-")
            part = folder / f"{name}.part"
            part.write_bytes(message.message().as_bytes())
            part.replace(folder / f"{name}.eml")
        return len(email_messages)


def put(
    request: ClassifierRequest,
    template: str,
    key: str,
    context: dict[str, Any],
    attachments: Sequence[Artifact] = (),
) -> OutgoingMail:
    """Write one mail into the outbox and have it sent; a second with the same key changes nothing.

    :param template: name below ``templates/mail``: subject, text and HTML lie side by side
    """
    context = {
        "request": request,
        "classes": list(request.classes.all()),
        "link": request.url,
        **context,
    }
    subject = " ".join(render_to_string(f"mail/{template}.subject.txt", context).split())
    row, made = OutgoingMail.objects.get_or_create(
        key=key,
        defaults={
            "request": request,
            "to": request.email,
            "subject": subject,
            "text": render_to_string(f"mail/{template}.txt", context),
            "html": render_to_string(f"mail/{template}.html", context),
        },
    )
    if made and attachments:
        row.attachments.set(attachments)
    jobs.notify(jobs.MAIN_QUEUE, "send_mail")
    return row


def fits_in_mail(artifacts: Sequence[Artifact]) -> bool:
    """Whether these files go along as attachments; otherwise the mail has links only."""
    return sum(artifact.bytes for artifact in artifacts) <= settings.MAIL_ATTACH_MB * 1e6


def sending_limit() -> timedelta:
    """A sender that is silent for longer has died, and another one takes its mail over (five
    minutes by default).
    """
    return timedelta(seconds=2.5 * settings.LEASE_SECONDS)


def send_waiting() -> int:
    """Send every mail whose time has come; returns how many were sent."""
    abandoned = timezone.now() - sending_limit()
    for row in OutgoingMail.objects.filter(state=MailState.SENDING, not_before__lt=abandoned):
        _try_later(row, "the sender ended while it was sending")
    sent = 0
    for row in OutgoingMail.objects.filter(state=MailState.WAITING, not_before__lte=timezone.now())[
        :50
    ]:
        with jobs.busy(sending_limit().total_seconds()):
            sent += _send(row)
    return sent


def _send(row: OutgoingMail) -> bool:
    claimed = OutgoingMail.objects.filter(pk=row.pk, state=MailState.WAITING).update(
        state=MailState.SENDING, attempts=row.attempts + 1, not_before=timezone.now()
    )
    if not claimed:
        return False
    row.attempts += 1
    try:
        get_connection().send_messages([_message(row)])
    except Exception as error:  # whatever is wrong with one mail, the others still go
        _try_later(row, str(error))
        return False
    OutgoingMail.objects.filter(pk=row.pk, state=MailState.SENDING).update(
        state=MailState.SENT, sent=timezone.now(), text="", html="", error=""
    )
    return True


def _try_later(row: OutgoingMail, error: str) -> None:
    over = timezone.now() - row.created > GIVE_UP_AFTER
    pause = timedelta(seconds=min(3600, settings.REAP_SECONDS / 4 * 2 ** min(row.attempts, 10)))
    OutgoingMail.objects.filter(pk=row.pk, state=MailState.SENDING).update(
        state=MailState.GIVEN_UP if over else MailState.WAITING,
        not_before=timezone.now() + pause,
        error=error[:2000],
    )
    logger.warning("mail %s was not accepted (attempt %d)", row.key, row.attempts)


def _message(row: OutgoingMail) -> EmailMultiAlternatives:
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    message = EmailMultiAlternatives(
        subject=row.subject,
        body=row.text,
        to=[row.to],
        headers={
            "Message-ID": f"<{row.key.replace(':', '.')}@{domain}>",
            "Auto-Submitted": "auto-generated",
            "X-Picaisso-Key": row.key,
        },
    )
    message.attach_alternative(row.html, "text/html")
    for artifact in row.attachments.all():
        message.attach(artifact.file_name, artifact.file.read_bytes(), "application/zip")
    return message


def forget(request: ClassifierRequest) -> None:
    """Drop a request's unsent mails, and the copies of sent ones that lie in the folder."""
    OutgoingMail.objects.filter(request=request).exclude(state=MailState.SENT).delete()
    for file in Path(settings.MAIL_DIR).glob(f"request-{request.pk}-*.eml"):
        file.unlink(missing_ok=True)
