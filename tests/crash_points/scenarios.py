"""What is torn apart: one small request on its way, and what may happen to one at any time.

Each scenario begins with a prepared site and acts as persons, pages and workers do. What the
workers of a site do by themselves is ``work`` and, with the clock of `up`, ``upkeep``.
"""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q.brokers import get_broker
from django_q.models import OrmQ
from django_q.signing import SignedPackage

from requests_app import curation, lifecycle, pipeline, takedowns
from requests_app.models import (
    ClassifierRequest,
    ImageUrl,
    Job,
    JobState,
    MailState,
    OutgoingMail,
    Status,
    TakenDown,
)
from requests_app.workers import jobs
from tests import books

MOST_ROUNDS = 12  # of upkeep, until everything must be quiet
PER_CLASS = 10  # images: one more than the fewest that can be trained on
OPEN_JOBS = (JobState.QUEUED, JobState.RUNNING)
OPEN_MAILS = (MailState.WAITING, MailState.SENDING)


class Clock:
    """Moves the time that this process sees."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def install(self) -> None:
        now = timezone.now
        seconds = time.time

        def later() -> datetime:
            return now() + self.offset

        timezone.now = later
        time.time = lambda: seconds() + self.offset.total_seconds()

    def jump(self, seconds: float) -> None:
        self.offset += timedelta(seconds=seconds)


def work() -> None:
    """Do what notices ask for until there is none, as the workers of three clusters would."""
    while True:
        waiting = OrmQ.objects.filter(lock__lt=timezone.now()).order_by("pk").first()
        if waiting is None:
            return
        broker = get_broker(waiting.key)
        for pk, payload in broker.dequeue() or []:
            task = SignedPackage.loads(payload)
            try:
                import_string(task["func"])(*task["args"])
            except Exception:  # recorded and acknowledged, as by a cluster
                logging.exception("a task failed")
            broker.acknowledge(pk)


def upkeep(clock: Clock) -> None:
    """Let time pass with `up` running, until nothing goes on and nothing waits."""
    for _ in range(MOST_ROUNDS):
        clock.jump(3 * settings.LEASE_SECONDS)
        for task in ("reap", "send_mail", "prune"):
            jobs.notify(jobs.MAIN_QUEUE, task)
        work()
        is_busy = Job.objects.filter(state__in=OPEN_JOBS).exists()
        if not is_busy and not OutgoingMail.objects.filter(state__in=OPEN_MAILS).exists():
            break
    clock.jump(90_000)  # a day and an hour, after which the rest is cleared away
    jobs.notify(jobs.MAIN_QUEUE, "prune")
    work()


# --- scenarios ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """What is done, from which state on, and what must be true in the end."""

    prepare: Callable[[], None]
    act: Callable[[], None]
    finish: Callable[[Clock], None]
    check: Callable[[], list[str]]


def the_request() -> ClassifierRequest:
    return ClassifierRequest.objects.latest("pk")


def nothing() -> None:
    pass


def submit() -> None:
    pipeline.submit(
        pipeline.Submission(
            classes=(("cat", ""), ("dog", "")),
            email="ada@example.org",
            images_per_class=PER_CLASS,
            backbone="efficientnet_lite0",
        )
    )


def confirm_all() -> None:
    """Press the button of each confirmation mail that has come."""
    for classifier in ClassifierRequest.objects.filter(status=Status.UNCONFIRMED):
        if classifier.mails.filter(state=MailState.SENT).exists():
            pipeline.confirm(classifier)


def whole_request() -> None:
    submit()
    work()
    confirm_all()
    work()


def let_it_end(clock: Clock) -> None:
    upkeep(clock)
    if ClassifierRequest.objects.filter(status=Status.UNCONFIRMED).exists():
        confirm_all()
        upkeep(clock)


def delivered_once() -> list[str]:
    """Return what is wrong unless nothing was ever sent in, or all of it was delivered."""
    found = []
    for classifier in ClassifierRequest.objects.all():
        if classifier.status != Status.DELIVERED:
            found.append(f"request {classifier.pk} is {classifier.status}: {classifier.error}")
        written = sorted(mail.key.split(":")[2] for mail in classifier.mails.all())
        if written != ["confirm", "delivered"]:
            found.append(f"its mails are {written}")
    return found


def doubled_mails() -> list[str]:
    """Return mails that the server has accepted more than twice, or twice under different ids."""
    accepted = Counter((Path(settings.DATA_DIR).parent / "accepted.txt").read_text().split())
    found = [f"{one} was sent {count} times" for one, count in accepted.items() if count > 2]
    if sum(count - 1 for count in accepted.values()) > 1:
        found.append("two mails were sent twice, after one crash")
    unsent = OutgoingMail.objects.filter(state=MailState.SENT).count() - len(accepted)
    if unsent > 0:
        found.append(f"{unsent} mails are marked as sent that never were")
    return found


def begin_collecting() -> None:
    """Leave a request whose collection has just been claimed by a worker, who does nothing yet."""
    submit()
    work()
    pipeline.confirm(the_request())


def cancel() -> None:
    lifecycle.cancel(the_request())
    work()


def ended() -> list[str]:
    """Return what is wrong unless it is cancelled or delivered."""
    status = the_request().status
    if status in (Status.CANCELLED, Status.DELIVERED):
        return []
    return [f"the request is {status}"]


def leave_cancelled() -> None:
    whole_request()
    first = the_request()
    begin_collecting()
    assert first.pk != the_request().pk
    lifecycle.cancel(the_request())
    work()


def retry() -> None:
    lifecycle.retry(the_request())
    work()


def leave_a_mail_unsent() -> None:
    whole_request()
    result = the_request().mails.filter(key__contains=":delivered:")
    result.update(state=MailState.WAITING, text="Dear Ada", sent=None)
    accepted = Path(settings.DATA_DIR).parent / "accepted.txt"
    lines = accepted.read_text().splitlines(keepends=True)
    accepted.write_text("".join(line for line in lines if "delivered" not in line))


def delete() -> None:
    lifecycle.delete(the_request())
    work()


def deleted_or_whole() -> list[str]:
    status = the_request().status
    if status in (Status.EXPIRED, Status.DELIVERED):
        return []
    return [f"the request is {status}"]


def retrain() -> None:
    classifier = the_request()
    image = ImageUrl.objects.filter(state="kept", split="train").order_by("pk").first()
    curation.relabel(classifier, [image.pk], 3 - image.image_class.number, "person")
    assert lifecycle.retrain(classifier), lifecycle.obstacle_to_training(classifier)
    work()


def take_down() -> None:
    image = ImageUrl.objects.exclude(image_url="").order_by("pk").first()
    takedowns.take_down(url=image.image_url, reason="its author asked")
    work()


def take_down_again(clock: Clock) -> None:
    """Give the command once more, as an operator does who saw it break off."""
    upkeep(clock)
    takedowns.take_down(url=TAKEN_DOWN, reason="its author asked")
    upkeep(clock)


TAKEN_DOWN = "http://pictures.example/1/1.jpg"


def gone_for_good() -> list[str]:
    found = []
    if ImageUrl.objects.filter(image_url=TAKEN_DOWN, state="kept").exists():
        found.append("what was taken down is kept")
    assert TakenDown.objects.exists()
    kept = set(ImageUrl.objects.exclude(file="").values_list("file", flat=True))
    for path in Path(settings.DATA_DIR).glob("requests/*/**/images/*.jpg"):
        if f"images/{path.name}" not in kept:
            found.append(f"{path.parent.parent.name}/{path.name} was taken down and is there")
    for image_class in the_request().classes.all():
        counted = image_class.images.filter(state="kept").count()
        if image_class.kept != counted:
            found.append(f"{image_class} counts {image_class.kept} and has {counted}")
    return found


def expire(clock: Clock) -> None:
    clock.jump(86_400 * (settings.RETENTION_DAYS + 1))
    upkeep(clock)


def let_it_expire() -> None:
    """Make what there is old, and clear away."""
    old = timezone.now() - timedelta(days=settings.RETENTION_DAYS + 1)
    ClassifierRequest.objects.update(moved=old)
    jobs.notify(jobs.MAIN_QUEUE, "prune")
    work()


def expired() -> list[str]:
    status = the_request().status
    return [] if status == Status.EXPIRED else [f"the request is {status}"]


SCENARIOS = {
    "request": Scenario(nothing, whole_request, let_it_end, delivered_once),
    "cancel": Scenario(begin_collecting, cancel, upkeep, ended),
    "retry": Scenario(leave_cancelled, retry, upkeep, ended),
    "retrain": Scenario(whole_request, retrain, upkeep, deleted_or_whole),
    "delete": Scenario(leave_a_mail_unsent, delete, upkeep, deleted_or_whole),
    "expire": Scenario(whole_request, let_it_expire, expire, expired),
    "takedown": Scenario(whole_request, take_down, take_down_again, gone_for_good),
}


def imbalances(scenario: Scenario) -> list[str]:
    return [*books.imbalances(), *doubled_mails(), *scenario.check()]


def use_stub_children(program: Path) -> None:
    """Have the site start this program instead of its interpreter."""
    sys.executable = str(program)
    jobs.POLL_SECONDS = 0.2
