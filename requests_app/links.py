"""“Send me my links again”: one mail with all links of an address.

What is typed is only written down; the next round of mails looks whether it is known. So the page's
answer, and how long it takes, are the same for every address.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from requests_app import limits, mail
from requests_app.digests import mailbox_digest, same_address
from requests_app.limits import LimitReached
from requests_app.models import ClassifierRequest, LinksWish, MailState, OutgoingMail, Status
from requests_app.workers import jobs
from training.phrases import listed

AT_A_TIME = 50  # wishes answered in one round


@dataclass(frozen=True)
class Link:
    """One request as the mail lists it."""

    url: str
    created: datetime
    names: str  # "" before the address was confirmed: a stranger may have typed them


def wish(email: str, visitor: str) -> None:
    """Write down that somebody wants the links of an address.

    :raises LimitReached: this network asks too often
    """
    limits.admit_links_wish(visitor)
    LinksWish.objects.create(email=email)
    jobs.notify(jobs.MAIN_QUEUE, "send_mail")


def answer_wishes() -> None:
    """Put a mail into the outbox for each wish about an address that has requests."""
    for row in LinksWish.objects.order_by("pk")[:AT_A_TIME]:
        with transaction.atomic():
            deleted, _ = LinksWish.objects.filter(pk=row.pk).delete()
            if deleted:
                _answer(row.email)


def _answer(email: str) -> None:
    """Write to the addresses as they are stored, never to one as it was typed."""
    of_mailbox = ClassifierRequest.objects.filter(mailbox=mailbox_digest(email))
    by_address = defaultdict(list)
    for classifier in of_mailbox.exclude(status=Status.EXPIRED).order_by("-pk"):
        if same_address(classifier.email, email):
            by_address[classifier.email].append(classifier)
    for requests in by_address.values():
        if not _was_written_to(requests):
            _write(requests)


def _was_written_to(requests: list[ClassifierRequest]) -> bool:
    """Return whether the same mail waits to be sent, or went a short while ago."""
    mails = OutgoingMail.objects.filter(request__in=requests, key__contains=":links:")
    if mails.filter(state__in=(MailState.WAITING, MailState.SENDING)).exists():
        return True
    pause = timedelta(minutes=settings.MAIL_MINUTES)
    return mails.filter(sent__gt=timezone.now() - pause).exists()


def _write(requests: list[ClassifierRequest]) -> None:
    newest = requests[0]
    try:
        goes_at = limits.mail_time(newest.email)
    except LimitReached:
        return  # enough mails have gone there today
    links = [_link(classifier) for classifier in requests]
    prefix = f"request:{newest.pk}:links:"
    number = newest.mails.filter(key__startswith=prefix).count() + 1
    key = f"{prefix}{number}"
    mail.put(newest, "links", key, {"links": links}, goes_at=goes_at)


def _link(classifier: ClassifierRequest) -> Link:
    names = ""
    if classifier.jobs.exists():
        names = listed([f"“{each.name}”" for each in classifier.classes.all()])
    return Link(classifier.url, classifier.created, names)
