"""Every page in every state: one table for the test that looks for barriers and for the command
that makes screenshots (`python -m tests.web.screenshots`).

A new page is one line in `PAGES`: its name, and what makes its state and returns its address. Where
something is done on the page before it is looked at, a third value does it.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from selenium import webdriver
from selenium.webdriver.common.by import By

from requests_app import curation, lifecycle, mail, pipeline, result_mail, sharing
from requests_app.delivery import contact_strip
from requests_app.models import (
    ClassifierRequest,
    DatasetVersion,
    ImageUrl,
    Job,
    JobState,
    OutgoingMail,
    Status,
    TrainingRun,
)
from tests.web.conftest import (
    STRANGER,
    delivered,
    keep_picture,
    metrics,
    operations,
    running,
    stopped,
    submitted,
)
from tests.web.test_browser import wait
from tests.web.test_first_model import add_round


@dataclass
class States:
    """The requests that the pages are about, each made when a page first asks for it.

    :param finished: delivered, with a model that answers
    :param twice: delivered, with two versions that were compared
    :param pictures: files by class, shown where a state needs pictures; drawn ones where there are
        none
    :param given: a file for the try page
    """

    finished: ClassifierRequest
    twice: ClassifierRequest
    pictures: Sequence[Sequence[Path]]
    given: Path

    @property
    def names(self) -> list[str]:
        return [image_class.name for image_class in self.finished.classes.all()]

    def show_pictures(self, classifier: ClassifierRequest, number: int) -> ClassifierRequest:
        """Keep so many pictures of each class."""
        for image_class in classifier.classes.all():
            files: Sequence[Path] = ()
            if image_class.number <= len(self.pictures):
                files = self.pictures[image_class.number - 1]
            for rank in range(1, number + 1):
                file = files[rank - 1] if rank <= len(files) else None
                keep_picture(image_class, rank, picture=file)
            image_class.found = number + 3
            image_class.kept = number
            image_class.save()
        return classifier

    @cached_property
    def unconfirmed(self) -> ClassifierRequest:
        return submitted(*self.names)

    @cached_property
    def queued(self) -> ClassifierRequest:
        made = submitted(*self.names)
        pipeline.confirm(made)
        return made

    @cached_property
    def begun(self) -> ClassifierRequest:
        return running(*self.names)

    @cached_property
    def collecting(self) -> ClassifierRequest:
        return self.show_pictures(running(*self.names), 8)

    @cached_property
    def first(self) -> ClassifierRequest:
        made = self.show_pictures(running(*self.names), 20)
        add_round(made, 20, 40, 36)
        add_round(made, 40, 83, 77)
        return made

    @cached_property
    def training(self) -> ClassifierRequest:
        made = self.show_pictures(running(*self.names), 12)
        now = timezone.now()
        made.jobs.update(state=JobState.DONE, finished=now)
        Job.objects.create(
            request=made,
            stage=pipeline.TRAIN.name,
            queue=pipeline.TRAIN.queue,
            state=JobState.RUNNING,
            attempt=1,
            started=now - timedelta(seconds=40),
            lease_until=now + timedelta(hours=1),
            progress={"done": 30, "total": 80, "message": "Training", "eta_seconds": 90},
        )
        return made

    @cached_property
    def short(self) -> ClassifierRequest:
        return self.show_pictures(stopped("needs_attention", names=self.names), 3)

    @cached_property
    def failed(self) -> ClassifierRequest:
        return self.show_pictures(stopped("failed", names=self.names), 8)

    @cached_property
    def cancelled(self) -> ClassifierRequest:
        made = self.show_pictures(running(*self.names), 8)
        lifecycle.cancel(made)
        made.jobs.update(state=JobState.CANCELLED, finished=timezone.now())
        made.refresh_from_db()
        if made.status != Status.CANCELLED:
            made.move(Status.CANCELLED, reason="cancelled")
        return made

    @cached_property
    def once(self) -> ClassifierRequest:
        """One version, whose pictures are few and whose figures are made up."""
        return delivered(*self.names)

    @cached_property
    def deleted(self) -> ClassifierRequest:
        made = delivered(*self.names)
        lifecycle.delete(made)
        return made

    @cached_property
    def damaged(self) -> ClassifierRequest:
        """A request whose page breaks."""
        made = delivered(*self.names)
        TrainingRun.objects.filter(version__request=made).update(metrics={"headline": "damaged"})
        return made

    @cached_property
    def shared(self) -> ClassifierRequest:
        sharing.switch_on(self.finished, "person")
        self.finished.refresh_from_db()
        return self.finished

    @cached_property
    def boss(self) -> str:
        """The session of a superuser; with it, what the dashboard shows."""
        operations()
        client = Client()
        client.force_login(User.objects.create_superuser("boss", "boss@example.org", "a secret"))
        return client.cookies["sessionid"].value

    @cached_property
    def clerk(self) -> str:
        """The session of staff without any permission."""
        client = Client()
        client.force_login(User.objects.create_user("clerk", is_staff=True))
        return client.cookies["sessionid"].value

    def picture_path(self, split: str) -> str:
        images = ImageUrl.objects.of_request(self.finished).filter(state="kept", split=split)
        return f"{self.finished.get_absolute_url()}images/{images.order_by('pk')[0].pk}/"


def second_version(made: ClassifierRequest) -> ClassifierRequest:
    """Give a delivered request a second version by rows, which has one more picture right."""
    version = DatasetVersion.objects.create(request=made, number=2, images=3)
    image = ImageUrl.objects.of_request(made).first()
    assert image is not None
    names = [image_class.name for image_class in made.classes.all()]
    matrix = (10 * np.eye(len(names), dtype=int)).tolist()
    TrainingRun.objects.create(
        version=version,
        backbone="efficientnet_lite0",
        finished=timezone.now(),
        metrics=metrics(names, matrix),
        comparison={
            "against": 1, "images": 100, "right_before": 88, "right_after": 89,
            "mended": [image.file], "broken": [], "p_value": 1.0,
        },
    )  # fmt: skip
    return made


Act = Callable[[webdriver.Chrome, States], None]


@dataclass(frozen=True)
class Page:
    """A page in one state."""

    name: str
    make: Callable[[States], str]
    """Makes the state and returns the path."""
    then: Act | None = None
    """What is done on the page before it is looked at."""
    who: str = ""
    """What gives the session of whoever looks at it, where that is somebody of the staff."""

    def open(self, driver: webdriver.Chrome, states: States, site: str) -> None:
        """Show the page of this site, and do what is to be done on it."""
        driver.get(f"{site}/robots.txt")
        driver.delete_all_cookies()
        if self.who:
            driver.add_cookie({"name": "sessionid", "value": getattr(states, self.who)})
        address = self.make(states)
        driver.get(site + address if address.startswith("/") else address)
        if self.then:
            self.then(driver, states)


def opened(driver: webdriver.Chrome, states: States) -> None:
    for fold in driver.find_elements(By.TAG_NAME, "summary"):
        fold.click()


def sent_empty(driver: webdriver.Chrome, states: States) -> None:
    driver.find_element(By.NAME, "email").send_keys("not an address")
    driver.find_element(By.CSS_SELECTOR, "button.wide").click()
    wait(driver, lambda d: d.find_elements(By.ID, "errors"))


def answered(driver: webdriver.Chrome, states: States) -> None:
    driver.find_element(By.ID, "id_pictures").send_keys(str(states.given))
    wait(driver, lambda d: d.find_elements(By.CSS_SELECTOR, ".answer[data-result]"), seconds=60)


def panel_open(driver: webdriver.Chrome, states: States) -> None:
    driver.find_elements(By.CSS_SELECTOR, ".tile-open")[0].click()
    wait(driver, lambda d: d.find_element(By.CSS_SELECTOR, "#panel[open] h2").text)


def chosen(driver: webdriver.Chrome, states: States) -> None:
    for box in driver.find_elements(By.CSS_SELECTOR, ".tile .check")[1:4]:
        box.click()


def without_cookie(driver: webdriver.Chrome, states: States) -> None:
    driver.delete_all_cookies()
    driver.find_element(By.CSS_SELECTOR, "button.wide").click()
    wait(driver, lambda d: "session expired" in d.title)


def write_mail(row: OutgoingMail, picture: bytes | None = None) -> str:
    """Write a mail's HTML to a file as a mail program shows it, and return its address."""
    shown = row.html
    if picture is not None:
        code = base64.b64encode(picture).decode()
        shown = shown.replace("cid:pictures", f"data:image/jpeg;base64,{code}")
    folder = settings.DATA_DIR / "mail-pages"
    folder.mkdir(exist_ok=True)
    file = folder / f"{row.pk}.html"
    file.write_text(shown, encoding="utf-8")
    return file.as_uri()


def confirmation_mail(states: States) -> str:
    return write_mail(OutgoingMail.objects.get(request=states.unconfirmed))


def delivery_mail(name: str) -> Callable[[States], str]:
    """Return what writes the mail about the newest version of this state's request."""

    def write(states: States) -> str:
        version = getattr(states, name).versions.order_by("number").last()
        key = f"request:{version.request_id}:delivered:{version.number}"
        OutgoingMail.objects.filter(key=key).delete()  # when it was sent its text was emptied
        row = result_mail.put_delivered(version.request, version)
        return write_mail(row, contact_strip.strip(version))

    return write


def expiry_mail(states: States) -> str:
    row = result_mail.put_expiring(states.finished)
    assert row is not None
    return write_mail(row)


def stop_mail(name: str, kind: str) -> Callable[[States], str]:
    """Return what writes the mail that asks for help, or says what failed."""

    def write(states: States) -> str:
        classifier = getattr(states, name)
        key = f"page:{classifier.pk}"
        return write_mail(mail.put(classifier, kind, key, {"error": classifier.error}))

    return write


def of(name: str, path: str = "") -> Callable[[States], str]:
    """Return what gives the address below the request of this state."""
    return lambda states: getattr(states, name).get_absolute_url() + path


def shared_path(path: str = "") -> Callable[[States], str]:
    return lambda states: f"/s/{states.shared.share_token}/{path}"


def admin(model: str) -> Callable[[States], str]:
    return lambda states: reverse(f"admin:requests_app_{model}_changelist")


def judged(states: States) -> str:
    """The review after the last answer."""
    images = ImageUrl.objects.of_request(states.once)
    images.filter(state="kept").update(split="test")
    for image in images.filter(split="test"):
        curation.judge(states.once, image.pk, "right", None, "person")
    return f"{states.once.get_absolute_url()}review/"


PAGES = (
    Page("form", lambda states: "/"),
    Page("form-options", lambda states: "/", opened),
    Page("form-errors", lambda states: "/", sent_empty),
    Page("unconfirmed", of("unconfirmed")),
    Page("confirm", lambda states: pipeline.confirmation_path(states.unconfirmed)),
    Page("confirm-invalid", lambda states: "/confirm/nothing/"),
    Page("queued", of("queued")),
    Page("collecting", of("collecting")),
    Page("first-model", of("first")),
    Page("training", of("training")),
    Page("needs-attention", of("short")),
    Page("failed", of("failed")),
    Page("cancelled", of("cancelled")),
    Page("result", of("finished")),
    Page("result-open", of("finished"), opened),
    Page("gallery", of("finished", "images/")),
    Page("gallery-chosen", of("finished", "images/"), chosen),
    Page("gallery-doubtful", of("finished", "images/?order=doubtful")),
    Page("gallery-test", of("finished", "images/?split=test")),
    Page("gallery-left-out", of("finished", "images/?state=rejected")),
    Page("gallery-removed", of("finished", "images/?state=removed")),
    Page("gallery-empty", of("begun", "images/")),
    Page("panel", of("finished", "images/?split=train"), panel_open),
    Page("picture", lambda states: states.picture_path(split="train")),
    Page("picture-test", lambda states: states.picture_path(split="test")),
    Page("review", of("finished", "review/")),
    Page("review-done", judged),
    Page("review-none", of("begun", "review/")),
    Page("versions-none", of("begun", "versions/")),
    Page("versions-one", of("once", "versions/")),
    Page("versions-two", of("twice", "versions/")),
    Page("try", of("finished", "try/")),
    Page("try-answer", of("finished", "try/"), answered),
    Page("try-none", of("queued", "try/")),
    Page("share-off", of("once", "share/")),
    Page("share-on", lambda s: f"{s.shared.get_absolute_url()}share/"),
    Page("share-none", of("begun", "share/")),
    Page("shared", shared_path()),
    Page("shared-try", shared_path("try/")),
    Page("credits", shared_path("credits/")),
    Page("delete", of("finished", "delete/")),
    Page("deleted", of("deleted")),
    Page("mail-confirm", confirmation_mail),
    Page("mail-delivered", delivery_mail("finished")),
    Page("mail-delivered-again", delivery_mail("twice")),
    Page("mail-expiring", expiry_mail),
    Page("mail-failed", stop_mail("failed", "failed")),
    Page("mail-needs-attention", stop_mail("short", "needs_attention")),
    Page("error-404", lambda states: f"/r/{STRANGER}/"),
    Page("error-403", lambda states: "/", without_cookie),
    Page("error-403-staff", lambda states: "/admin/requests_app/job/", who="clerk"),
    Page("error-500", of("damaged")),
    Page("admin-login", lambda states: "/admin/"),
    Page("admin", lambda states: "/admin/", who="boss"),
    Page("admin-requests", admin("classifierrequest"), who="boss"),
    Page("admin-pictures", admin("imageurl"), who="boss"),
    Page("admin-jobs", admin("job"), who="boss"),
    Page("admin-runs", admin("trainingrun"), who="boss"),
    Page("admin-sources", admin("sourcehealth"), who="boss"),
    Page("admin-mails", admin("outgoingmail"), who="boss"),
    Page(
        "admin-request",
        lambda s: reverse("admin:requests_app_classifierrequest_change", args=[s.finished.pk]),
        who="boss",
    ),
)
