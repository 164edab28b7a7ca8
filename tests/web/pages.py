"""Every page in every state: one table for the test that looks for barriers and for the command
that makes screenshots (`python -m tests.web.screenshots`).

A new page is one line in `PAGES`: its name, and what makes its state and returns its address. Where
something is done on the page before it is looked at, a third value does it.
"""

import base64
import json
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

from requests_app import (
    curation,
    lifecycle,
    mail,
    meanings,
    own_check,
    pipeline,
    result_mail,
    sharing,
)
from requests_app.delivery import contact_strip
from requests_app.models import (
    ClassifierRequest,
    DatasetVersion,
    ImageUrl,
    Job,
    JobState,
    OutgoingMail,
    OwnCheck,
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
from tests.web.test_meanings import group_pictures
from training import run_folder


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
        begin_training(made)
        return made

    @cached_property
    def tuning(self) -> ClassifierRequest:
        """The head is delivered to the page; the network is being fine-tuned."""
        made = self.show_pictures(running(*self.names), 20)
        begin_training(made)
        version = DatasetVersion.objects.create(request=made, number=1, images=40)
        version.folder.mkdir(parents=True)
        (version.folder / run_folder.CURVES_FILE).write_text(curve_lines())
        TrainingRun.objects.create(version=version, backbone="efficientnet_lite0")
        (version.folder / "head").mkdir()
        first = {"images": 40, "hits": 35, "accuracy": 0.875, "interval": [0.74, 0.95]}
        run_folder.write_json(version.folder / "head" / "first.json", first)
        return made

    @cached_property
    def again(self) -> ClassifierRequest:
        """A version is delivered, and the next is being trained."""
        made = delivered(*self.names)
        made.move(Status.QUEUED, reason="trained again")
        made.move(Status.RUNNING, reason="train")
        begin_training(made)
        return made

    @cached_property
    def weak(self) -> ClassifierRequest:
        return delivered(*self.names, better=False)

    @cached_property
    def grouped(self) -> ClassifierRequest:
        """The pictures of the first class fall clearly into groups."""
        made = delivered(*self.names)
        self.put_in_groups(made, clear=True)
        return made

    @cached_property
    def thinned(self) -> ClassifierRequest:
        """Of two groups of a class one was removed."""
        made = delivered(*self.names)
        self.put_in_groups(made, clear=False)
        meanings.remove_groups(made, 1, 1, {2}, "person")
        return made

    def put_in_groups(self, made: ClassifierRequest, clear: bool) -> None:
        """Show each class with pictures of its own and of the next."""
        for image_class in made.classes.all():
            for number in range(20):
                group, place = divmod(number, 10)
                files: Sequence[Path] = ()
                if self.pictures:
                    files = self.pictures[(image_class.number - 1 + group) % len(self.pictures)]
                file = files[place] if place < len(files) else None
                keep_picture(image_class, 100 * group + 10 + place, picture=file)
        group_pictures(made, clear)

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


def begin_training(made: ClassifierRequest) -> None:
    """Let a worker train, with nothing else left to do."""
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


def curve_lines() -> str:
    """Return curves.jsonl of a network that has six epochs behind it."""
    lines = ""
    for epoch in range(1, 7):
        point = {
            "training": 1, "trainings": 3, "epoch": epoch, "epochs": 12,
            "train_loss": 1.2 / epoch, "val_loss": 0.9 / epoch**0.6,
            "val_accuracy": 0.93 - 0.33 / epoch, "head_loss": 0.38, "head_accuracy": 0.88,
        }  # fmt: skip
        lines += json.dumps(point) + "\n"
    return lines


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
    is_sandboxed: bool = False
    """Whether its policy lets no script run, those that look for barriers included."""

    def open(self, driver: webdriver.Chrome, states: States, site: str) -> None:
        """Show the page of this site, and do what is to be done on it."""
        driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
        driver.get(f"{site}/robots.txt")
        driver.delete_all_cookies()
        if self.who:
            driver.add_cookie({"name": "sessionid", "value": getattr(states, self.who)})
        address = self.make(states)
        driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": self.is_sandboxed})
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


def corrected(driver: webdriver.Chrome, states: States) -> None:
    answered(driver, states)
    driver.find_element(By.CSS_SELECTOR, ".correct summary").click()


def refused(driver: webdriver.Chrome, states: States) -> None:
    file = states.given.with_name("notes.txt")
    file.write_text("no picture")
    driver.find_element(By.ID, "id_pictures").send_keys(str(file))
    wait(driver, lambda d: d.find_elements(By.CSS_SELECTOR, ".answer.refused"))
    driver.find_element(By.ID, "id_url").send_keys("https://localhost/picture.jpg")
    driver.find_element(By.CSS_SELECTOR, "#give > button").click()
    wait(driver, lambda d: d.find_element(By.ID, "url_error").is_displayed())


def on_device(driver: webdriver.Chrome, states: States) -> None:
    driver.find_element(By.ID, "on_device").click()
    ready = '#device[data-state="ready"]'
    wait(driver, lambda d: d.find_elements(By.CSS_SELECTOR, ready), seconds=60)


def without_connection(driver: webdriver.Chrome, states: States) -> None:
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/progress/*"]})
    wait(driver, lambda d: d.find_element(By.ID, "connection").text)


def retried_badly(driver: webdriver.Chrome, states: States) -> None:
    opened(driver, states)
    field = driver.find_element(By.ID, "id_images_per_class")
    field.clear()
    field.send_keys("5")
    driver.find_element(By.CSS_SELECTOR, ".retry > button").click()
    wait(driver, lambda d: d.find_elements(By.ID, "errors"))


def keys_shown(driver: webdriver.Chrome, states: States) -> None:
    driver.find_element(By.TAG_NAME, "body").send_keys("?")
    wait(driver, lambda d: d.find_element(By.ID, "keys").is_displayed())


def group_chosen(driver: webdriver.Chrome, states: States) -> None:
    driver.find_element(By.CSS_SELECTOR, "label.strip .check").click()


def taking_down(driver: webdriver.Chrome, states: States) -> None:
    driver.find_element(By.CSS_SELECTOR, ".action-select").click()
    driver.find_element(By.CSS_SELECTOR, "option[value=take_down]").click()
    driver.find_element(By.CSS_SELECTOR, ".actions [type=submit]").click()
    wait(driver, lambda d: d.find_elements(By.ID, "reason"))


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


def unsure(states: States) -> str:
    """The review where every test picture was put off."""
    images = ImageUrl.objects.of_request(states.finished).filter(state="kept", split="test")
    skipped = ",".join(str(image.pk) for image in images)
    return f"{states.finished.get_absolute_url()}review/?skip={skipped}"


def own_check_of(states: States) -> OwnCheck:
    """Give one's own pictures of two classes, and one file that is none."""
    check = OwnCheck.objects.create(request=states.finished)
    for number in (1, 2):
        for count in range(12):
            name = f"mine-{number}-{count}.jpg"
            own_check.receive(check, number, name, states.given.read_bytes())
    own_check.refuse(check, "notes.txt", "This is no picture.")
    return check


def own_given(states: States) -> str:
    own_check_of(states)
    return f"{states.finished.get_absolute_url()}own/"


def own_waiting(states: States) -> str:
    assert own_check.ask(own_check_of(states))
    return f"{states.finished.get_absolute_url()}own/"


def own_measured(states: States) -> str:
    """The figures of pictures of which it has 22 of 24 right."""
    states.finished.jobs.filter(stage=own_check.STAGE).update(state=JobState.DONE)
    check = own_check_of(states)
    matrix = np.zeros((len(states.names), len(states.names)), int)
    matrix[:2, :2] = [[11, 1], [1, 11]]
    pictures = []
    for truth, row in enumerate(matrix):
        for predicted, count in enumerate(row):
            class_ids = {"class_id": f"c{truth + 1:03d}", "predicted": f"c{predicted + 1:03d}"}
            for number in range(count):
                pictures.append({"file": f"{truth}-{predicted}-{number}.jpg", **class_ids})
    check.result = {
        "pictures": pictures,
        "refused": [],
        "figures": metrics(states.names, matrix.tolist()),
        "calibration": {
            "sharpness": 0.7, "reject": 0.5, "model_reject": 0.4, "confidence": [0.98, 0.93],
            "loss": [0.4, 0.3], "refused": [5, 1], "strangers": None,
        },
    }  # fmt: skip
    check.asked = timezone.now()
    check.measured = timezone.now()
    check.version_number = states.finished.versions.order_by("number").last().number
    check.save()
    return f"{states.finished.get_absolute_url()}own/"


PAGES = (
    Page("form", lambda states: "/"),
    Page("form-options", lambda states: "/", opened),
    Page("form-errors", lambda states: "/", sent_empty),
    Page("privacy", lambda states: "/privacy/"),
    Page("links", lambda states: "/links/"),
    Page("unconfirmed", of("unconfirmed")),
    Page("confirm", lambda states: pipeline.confirmation_path(states.unconfirmed)),
    Page("confirm-invalid", lambda states: "/confirm/nothing/"),
    Page("queued", of("queued")),
    Page("collecting", of("collecting")),
    Page("first-model", of("first")),
    Page("training", of("training")),
    Page("fine-tuning", of("tuning")),
    Page("training-again", of("again")),
    Page("connection-lost", of("training"), without_connection),
    Page("needs-attention", of("short")),
    Page("needs-attention-errors", of("short"), retried_badly),
    Page("failed", of("failed")),
    Page("cancelled", of("cancelled")),
    Page("result", of("finished")),
    Page("result-open", of("finished"), opened),
    Page("result-weak", of("weak")),
    Page("which-do-you-mean", of("grouped")),
    Page("groups", of("grouped", "images/groups/"), group_chosen),
    Page("groups-fill-up", of("thinned", "images/groups/")),
    Page("groups-none", of("begun", "images/groups/")),
    Page("gallery", of("finished", "images/")),
    Page("gallery-history", of("thinned", "images/"), opened),
    Page("gallery-keys", of("finished", "images/"), keys_shown),
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
    Page("review-unsure", unsure),
    Page("review-done", judged),
    Page("review-none", of("begun", "review/")),
    Page("versions-none", of("begun", "versions/")),
    Page("versions-one", of("once", "versions/")),
    Page("versions-two", of("twice", "versions/")),
    Page("try", of("finished", "try/")),
    Page("try-answer", of("finished", "try/"), answered),
    Page("try-correct", of("finished", "try/"), corrected),
    Page("try-refused", of("finished", "try/"), refused),
    Page("try-on-device", of("finished", "try/"), on_device),
    Page("try-none", of("queued", "try/")),
    Page("own", of("finished", "own/")),
    Page("own-given", own_given),
    Page("own-waiting", own_waiting),
    Page("own-measured", own_measured, opened),
    Page("own-none", of("begun", "own/")),
    Page("report", of("finished", "report/"), is_sandboxed=True),
    Page("report-none", of("begun", "report/")),
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
    Page("admin-classes", admin("imageclass"), who="boss"),
    Page("admin-pictures", admin("imageurl"), who="boss"),
    Page("admin-versions", admin("datasetversion"), who="boss"),
    Page("admin-jobs", admin("job"), who="boss"),
    Page("admin-runs", admin("trainingrun"), who="boss"),
    Page("admin-files", admin("artifact"), who="boss"),
    Page("admin-events", admin("event"), who="boss"),
    Page("admin-decisions", admin("decision"), who="boss"),
    Page("admin-own-pictures", admin("owncheck"), who="boss"),
    Page("admin-sources", admin("sourcehealth"), who="boss"),
    Page("admin-browser-turns", admin("browserturn"), who="boss"),
    Page("admin-taken-down", admin("takendown"), who="boss"),
    Page("admin-workers", admin("workerbeat"), who="boss"),
    Page("admin-mails", admin("outgoingmail"), who="boss"),
    Page("admin-take-down", admin("imageurl"), taking_down, who="boss"),
    Page(
        "admin-request",
        lambda s: reverse("admin:requests_app_classifierrequest_change", args=[s.finished.pk]),
        who="boss",
    ),
)
