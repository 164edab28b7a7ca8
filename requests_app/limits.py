"""How much one person, one network and all together may ask for.

What was taken is counted in the database, in one row for each rule and each mailbox or network, so
that all processes count together. The row is locked while it is counted: of calls at the same time
none is overlooked. Who it was is known by salted digests alone (``digests.py``).
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from requests_app import estimate, phrases
from requests_app.digests import mailbox_digest, network_digest
from requests_app.models import Allowance, ClassifierRequest, Status

GIGABYTE = 1e9
IMAGE_BYTES = 250_000  # of a stored image, generously
MODEL_BYTES = 600_000_000  # of run folder, model and zips of one version, generously
FEWEST_SECONDS = 60  # that anybody is asked to wait
AT_WORK = (Status.QUEUED, Status.RUNNING)
LINKS_FACTOR = 4  # so many times as often as a form, a network may ask for links

FROM_NETWORK = (
    "From your network {count} were sent within an hour, which is the most."
    " Send it again in {wait}."
)
FROM_ADDRESS = (
    "{count} were sent for this address within a day, which is the most. Send it again in {wait}."
)
OPEN_REQUESTS = (
    "{count} of this address are at work or wait, which is the most at a time."
    " Send it again when one of them is finished or cancelled."
)
MAILS = (
    "{count} with links to confirm went to this address within a day, which is the most."
    " Look for them, in spam too, or send this again in {wait}."
)
MAIL_AGAIN = (
    "A mail went to this address a short while ago, and {count} go there a day at most."
    " Look for it, in spam too, or ask again in {wait}."
)
QUEUE_FULL = (
    "{count} wait here already, which is as many as this site takes.{time}"
    " Send it again in {wait}; what you typed stays on this page."
)
DISK_FULL = (
    "The room that this site gives to pictures and models is full. It frees itself as old requests"
    " are deleted. Send it again in {wait}."
)
REQUEST_FULL = "The room that one request may take here ({most}) is used up."
ALL_FULL = "The room that this site gives to all requests is used up."
ASK_FOR_LESS = "Ask for fewer pictures per class or fewer classes, then retry."
TOO_LARGE = (
    "That would take about {size}; one request may take {most} here."
    " Ask for at most {images} pictures per class."
)


class LimitReached(Exception):
    """Somebody asks for more than they may; the message says what to do.

    :param seconds: after which it may be tried again
    :param status: of the answer: 429 where it is theirs, 503 where it is the whole site's
    """

    def __init__(self, sentence: str, seconds: float, status: int = 429) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.retry_after = max(FEWEST_SECONDS, round(seconds))


@dataclass(frozen=True)
class Rule:
    """At most ``most`` within a period; 0 is no limit."""

    name: str
    most: int
    period: timedelta
    pause: timedelta = timedelta()  # from one to the next


# --- counting ---


@transaction.atomic
def take(rule: Rule, digest: str) -> datetime | None:
    """Count one more of a rule; return when there may be another, None if this one is counted.

    To be called in the transaction of what is counted, so that what fails is not.
    """
    if rule.most <= 0:
        return None
    row, now, taken = _locked(rule, digest)
    again_at = _again_at(rule, taken)
    if again_at is not None and again_at > now:
        return again_at
    _count(rule, row, [*taken, now])
    return None


def _locked(rule: Rule, digest: str) -> tuple[Allowance, datetime, list[datetime]]:
    """Return the row of a rule, locked until the transaction ends, now, and what counts of it."""
    now = timezone.now()
    Allowance.objects.get_or_create(rule=rule.name, digest=digest, defaults={"until": now})
    row = Allowance.objects.select_for_update().get(rule=rule.name, digest=digest)
    now = timezone.now()  # others may have held the row for a while
    taken = [datetime.fromtimestamp(seconds, tz=now.tzinfo) for seconds in row.taken]
    return row, now, [moment for moment in taken if moment > now - rule.period]


def _again_at(rule: Rule, taken: list[datetime]) -> datetime | None:
    """Return when one more is allowed by what was taken, None for at any time."""
    moments = []
    if taken and rule.pause:
        moments.append(taken[-1] + rule.pause)
    if len(taken) >= rule.most:
        moments.append(taken[-rule.most] + rule.period)
    return max(moments, default=None)


def _count(rule: Rule, row: Allowance, taken: list[datetime]) -> None:
    row.taken = [moment.timestamp() for moment in taken]
    row.until = taken[-1] + rule.period
    row.save(update_fields=["taken", "until"])


def forget_old() -> None:
    """Delete the rows that limit nothing any more."""
    Allowance.objects.filter(until__lt=timezone.now()).delete()


# --- what is limited ---


@transaction.atomic
def admit(email: str, visitor: str | None) -> None:
    """Count a new request of this address and network.

    :param visitor: the address of the machine it comes from; None for one of the operator's own
    :raises LimitReached: it is one too many
    """
    check_queue()
    check_disk()
    if visitor is not None:
        hourly = Rule("network", settings.SUBMISSIONS_PER_HOUR, timedelta(hours=1))
        again_at = take(hourly, network_digest(visitor))
        if again_at is not None:
            raise _too_many(FROM_NETWORK, hourly.most, again_at)
    mailbox = mailbox_digest(email)
    _check_open(mailbox)
    daily = Rule("mailbox", settings.SUBMISSIONS_PER_DAY, timedelta(days=1))
    again_at = take(daily, mailbox)
    if again_at is not None:
        raise _too_many(FROM_ADDRESS, daily.most, again_at)


def _too_many(sentence: str, count: int, again_at: datetime, noun: str = "request") -> LimitReached:
    seconds = (again_at - timezone.now()).total_seconds()
    wait = phrases.time_left(seconds)
    counted = phrases.counted(count, noun)
    return LimitReached(sentence.format(count=counted, wait=wait), seconds)


def check_open(classifier: ClassifierRequest) -> None:
    """Let a request begin, or begin again, beside the others of its address.

    :raises LimitReached: as many as may be are at work or wait
    """
    _check_open(classifier.mailbox, but=classifier.pk)


def _check_open(mailbox: str, but: int = 0) -> None:
    running = settings.RUNNING_PER_ADDRESS
    waiting = settings.WAITING_PER_ADDRESS
    if running <= 0 or waiting <= 0 or not mailbox:
        return
    others = ClassifierRequest.objects.filter(mailbox=mailbox, status__in=AT_WORK).exclude(pk=but)
    count = others.count()
    if count >= running + waiting:
        sentence = OPEN_REQUESTS.format(count=phrases.counted(count, "request"))
        raise LimitReached(sentence, 600)


def check_queue() -> None:
    """Take one more request into the queue.

    :raises LimitReached: it is full; the sentence says how long a request takes now
    """
    if settings.QUEUE_LIMIT <= 0:
        return
    count = ClassifierRequest.objects.filter(status=Status.QUEUED).count()
    if count < settings.QUEUE_LIMIT:
        return
    seconds = estimate.seconds_to_empty()
    time = ""
    wait = 900.0  # nothing was finished here yet, by which it could be told
    if seconds is not None:
        time = f" A request that comes now takes {phrases.time_left(seconds)}."
        wait = seconds / count
    wait = max(wait, FEWEST_SECONDS)
    sentence = QUEUE_FULL.format(
        count=phrases.counted(count, "request"), time=time, wait=phrases.time_left(wait)
    )
    raise LimitReached(sentence, wait, 503)


def mail_time(email: str) -> datetime:
    """Count a mail that anybody can cause by typing this address; return when it may go.

    That is at once, or when the pause after the one before is over.

    :raises LimitReached: the day's mails have gone to this address
    """
    return _reserve(_mail_rule(), mailbox_digest(email))


@transaction.atomic
def _reserve(rule: Rule, digest: str) -> datetime:
    if rule.most <= 0:
        return timezone.now()
    row, now, taken = _locked(rule, digest)
    if len(taken) >= rule.most:
        raise _too_many(MAILS, rule.most, taken[-rule.most] + rule.period, "mail")
    moment = max(now, taken[-1] + rule.pause) if taken else now
    _count(rule, row, [*taken, moment])
    return moment


def take_mail(email: str) -> None:
    """Count a mail that somebody asks for once more, which goes at once.

    :raises LimitReached: one went a short while ago, or the day's mails have gone
    """
    again_at = take(_mail_rule(), mailbox_digest(email))
    if again_at is not None:
        raise _too_many(MAIL_AGAIN, settings.MAILS_PER_DAY, again_at, "mail")


def _mail_rule() -> Rule:
    pause = timedelta(minutes=settings.MAIL_MINUTES)
    return Rule("mail", settings.MAILS_PER_DAY, timedelta(days=1), pause)


def admit_links_wish(visitor: str) -> None:
    """Count a wish for links of this network.

    :raises LimitReached: it is one too many
    """
    most = LINKS_FACTOR * settings.SUBMISSIONS_PER_HOUR
    rule = Rule("links", most, timedelta(hours=1))
    again_at = take(rule, network_digest(visitor))
    if again_at is not None:
        raise _too_many(FROM_NETWORK, most, again_at)


# --- disk ---


def problem_of_size(classes: int, images_per_class: int) -> str:
    """Return why a request of this size is too large for this site, "" where it is not."""
    if settings.REQUEST_GB <= 0:
        return ""
    room = settings.REQUEST_GB * GIGABYTE - MODEL_BYTES
    needed = classes * images_per_class * IMAGE_BYTES
    if needed <= room:
        return ""
    return TOO_LARGE.format(
        size=phrases.size(needed + MODEL_BYTES),
        most=phrases.size(settings.REQUEST_GB * GIGABYTE),
        images=max(0, int(room // (classes * IMAGE_BYTES))),
    )


def check_disk() -> None:
    """Take one more request onto the disk.

    :raises LimitReached: the files of all requests take as much as they may
    """
    if disk_is_full():
        seconds = 3600.0
        sentence = DISK_FULL.format(wait=phrases.time_left(seconds))
        raise LimitReached(sentence, seconds, 503)


def count_disk(classifier: ClassifierRequest) -> str:
    """Count the files of a request and store the sum; return why it must stop, "" where not."""
    used = 0
    for folder, _, names in os.walk(classifier.folder):
        for name in names:
            with suppress(FileNotFoundError):  # children write and rename meanwhile
                used += (Path(folder) / name).lstat().st_size
    ClassifierRequest.objects.filter(pk=classifier.pk).update(disk_bytes=used)
    most = settings.REQUEST_GB * GIGABYTE
    if most > 0 and used >= max(most - MODEL_BYTES, most / 2):
        return REQUEST_FULL.format(most=phrases.size(most))
    if disk_is_full():
        return ALL_FULL
    return ""


def disk_is_full() -> bool:
    """Return whether the files of all requests take as much as they may."""
    if settings.DISK_GB <= 0:
        return False
    return ClassifierRequest.objects.used_bytes() >= settings.DISK_GB * GIGABYTE
