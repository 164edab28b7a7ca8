"""Requests in every state, made by the real pipeline and by rows, with real files below a data
folder per test.
"""

import hashlib
import json
import re
import tarfile
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone
from PIL import Image

from requests_app import pipeline, tasks
from requests_app.models import (
    Artifact,
    BrowserTurn,
    ClassifierRequest,
    DatasetVersion,
    ImageClass,
    ImageState,
    ImageUrl,
    Job,
    JobState,
    SourceHealth,
    Status,
    TakenDown,
    TrainingRun,
    WorkerBeat,
    sha256_hex,
)
from requests_app.workers import jobs
from scraping.reasons import Reason
from scraping.sources.catalogue import Outcome
from training.earlier_metrics import completed
from training.metrics import (
    Judged,
    Metrics,
    classification_metrics,
    headline_of,
    judge,
    majority_baseline,
)
from training.phrases import verdict as verdict_in_words

RECORDED = Path(__file__).resolve().parents[1] / "recorded" / "picaisso-0.1.0.tar.xz"
MODEL_ZIP = bytes(range(256)) * 8  # 2048 bytes in which every offset is recognised
NOTICE = "The bundled backbone was used."
STRANGER = "A" * 32  # a token of the right length that opens nothing


@pytest.fixture(autouse=True)
def site(tmp_path: Path, settings, db) -> Path:
    """A data folder of the test's own, and static files under their plain names (nothing is
    collected in tests).
    """
    settings.DATA_DIR = tmp_path
    settings.MAIL_DIR = tmp_path / "mail"
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}
    return tmp_path


def submitted(*names: str, email: str = "ada@example.org") -> ClassifierRequest:
    names = names or ("cat", "dog")
    classes = tuple((name, "") for name in names)
    return pipeline.submit(pipeline.Submission(classes=classes, email=email, images_per_class=40))


def running(*names: str) -> ClassifierRequest:
    """Confirmed, and claimed by a worker that is collecting."""
    classifier = submitted(*names)
    pipeline.confirm(classifier)
    now = timezone.now()
    classifier.jobs.update(
        state=JobState.RUNNING,
        attempt=1,
        started=now - timedelta(seconds=75),
        lease_until=now + timedelta(hours=1),
        progress={"done": 20, "total": 80, "message": "Bing: 20 of 40", "eta_seconds": 130},
    )
    assert classifier.move(Status.RUNNING, reason="collect")
    return classifier


def keep_picture(
    image_class: ImageClass, number: int, source: str = "bing", picture: Path | None = None
) -> ImageUrl:
    """A kept picture: its row, and its file in the collection folder, drawn or a copy."""
    folder = image_class.request.folder / "collect" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{image_class.number:08x}{number:08x}.jpg"
    if picture is None:
        image = Image.new("RGB", (800, 400), (number % 256, 80, 160))
        image.save(file, "JPEG")
    else:
        file.write_bytes(picture.read_bytes())
    url = f"https://pictures.example/{image_class.pk}/{number}.jpg"
    return ImageUrl.objects.create(
        image_class=image_class,
        source=source,
        query=image_class.query,
        rank=number,
        image_url=url,
        url_sha256=sha256_hex(url),
        state=ImageState.KEPT,
        file=f"images/{file.name}",
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        fetched_at=timezone.now(),
    )


@cache
def recorded_metrics() -> Metrics:
    """metrics.json of a real training."""
    with tarfile.open(RECORDED) as archive:
        file = archive.extractfile("requests/1/runs/1/metrics.json")
        return json.load(file)


def metrics(names: list[str], matrix: list[list[int]]) -> Metrics:
    """metrics.json of a real training, with the figures and the verdict of this confusion matrix
    (true classes down, predicted ones across) of test images.
    """
    true = []
    predicted = []
    for truth, counts in enumerate(matrix):
        for answer, count in enumerate(counts):
            true += [truth] * count
            predicted += [answer] * count
    logits = np.eye(len(names))[predicted]
    figures = classification_metrics(logits, np.array(true), names, temperature=1.0)
    judged = Judged(np.array(predicted), np.array(true), np.arange(len(true)), len(names))
    verdict = judge(judged, judged)
    changes = {
        "verdict": verdict,
        "better_than_chance": verdict == "better",
        "headline": headline_of(figures),
        "majority_baseline": majority_baseline(judged.labels),
        "split": {"train": 56, "val": 12, "test": len(true)},
    }
    whole = {**completed(recorded_metrics()), **figures, **changes}
    return cast(Metrics, {**whole, "verdict_sentence": verdict_in_words(whole)})


def trained(*names: str, better: bool = True) -> ClassifierRequest:
    """A request that only waits for its delivery: pictures, a measured model, two zip files.

    :param better: the model is right on 9 of 10 test pictures; otherwise it always names class 1,
        on so many that this is no lack of pictures
    """
    classifier = running(*names)
    classes = list(classifier.classes.all())
    for image_class in classes:
        keep_picture(image_class, 1)
        keep_picture(image_class, 2, source="openverse")
        image_class.found = 20
        image_class.kept = 2
        image_class.rejected = {Reason.DUPLICATE: 9, Reason.UNREACHABLE: 5, Reason.TOO_SMALL: 1}
        image_class.outcomes = [
            {
                "name": "bing",
                "outcome": Outcome.PARTIAL,
                "found": 10,
                "message": "Bing asked for a human check.",
            },
            {"name": "openverse", "outcome": Outcome.OK, "found": 10, "message": ""},
        ]
        image_class.save()
    now = timezone.now()
    classifier.jobs.update(state=JobState.DONE, finished=now)
    for stage in (pipeline.TRAIN, pipeline.PACKAGE):
        Job.objects.create(
            request=classifier,
            stage=stage.name,
            queue=stage.queue,
            state=JobState.DONE,
            attempt=1,
            started=now,
            finished=now,
        )
    version = DatasetVersion.objects.create(request=classifier, number=1, images=4)
    number = len(classes)
    matrix = np.ones((number, number), int) + 8 * np.eye(number, dtype=int)
    if not better:
        matrix = np.zeros((number, number), int)
        matrix[:, 0] = 60
    TrainingRun.objects.create(
        version=version,
        backbone="efficientnet_lite0",
        finished=now,
        metrics=metrics([image_class.name for image_class in classes], matrix.tolist()),
        seconds={"features": 2.0, "train": 1.5},
        notices=[NOTICE],
    )
    add_artifact(version, "model", MODEL_ZIP)
    add_artifact(version, "dataset", b"PK" + bytes(100))
    return classifier


def delivered(*names: str, better: bool = True) -> ClassifierRequest:
    """A finished request, delivered by the pipeline's own last stage, its mail in the outbox."""
    classifier = trained(*names, better=better)
    stage = pipeline.DELIVER
    jobs.enqueue(classifier, stage.name, stage.queue)
    tasks.drain(stage.queue)
    classifier.refresh_from_db()
    assert classifier.status == Status.DELIVERED
    return classifier


def add_artifact(version: DatasetVersion, kind: str, content: bytes) -> Artifact:
    file = version.request.folder / "artifacts" / str(version.number) / f"{kind}.zip"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return Artifact.objects.create(
        version=version,
        kind=kind,
        path=str(file.relative_to(settings.DATA_DIR)),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def stopped(status: str, names=(), **fields) -> ClassifierRequest:
    """A request that ended in collecting: failed, or short of pictures."""
    classifier = running(*names)
    classifier.jobs.update(state=JobState.FAILED, finished=timezone.now())
    short = classifier.classes.last()
    assert short is not None
    error = {
        "stage": "collect",
        "reason": f"Only 3 pictures of “{short.name}”.",
        "remedy": "Try another wording.",
    }
    assert classifier.move(status, error=error)
    for name, value in fields.items():
        setattr(classifier, name, value)
    classifier.save()
    return classifier


@contextmanager
def overtaken(**columns):
    """The first change that is made to a request finds that someone else has just changed its row.

    A real race in slow motion: the other change happens between reading the row and the UPDATE that
    would have won.
    """
    updates = []

    def change_first(execute, sql, params, many, context):
        table = ClassifierRequest._meta.db_table
        if not updates and sql.startswith("UPDATE") and table in sql:
            updates.append(sql)
            ClassifierRequest.objects.update(**columns)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(change_first):
        yield
    assert updates


def operations() -> None:
    """Rows of the tables that belong to no request."""
    SourceHealth.record("bing", "blocked", "Bing asked for a human check.")
    WorkerBeat.objects.create(cluster="collect-1", queue="collect")
    assert BrowserTurn.acquire(1, 1, timezone.now() + timedelta(minutes=2))
    TakenDown.objects.create(
        what=TakenDown.What.SHA256, digest="a" * 64, reason="asked for by its author"
    )


@pytest.fixture
def holder(client):
    """A browser that keeps cookies and whose posts must carry the CSRF token, as real ones must."""
    client.handler.enforce_csrf_checks = True
    client.get("/")
    return client


def post(client, path: str, **fields):
    """Send a form with the CSRF token that the page before it gave."""
    token = ""
    if "csrftoken" in client.cookies:
        token = client.cookies["csrftoken"].value
    return client.post(path, {**fields, "csrfmiddlewaretoken": token})


def page_of(client, classifier: ClassifierRequest) -> str:
    response = client.get(classifier.get_absolute_url())
    assert response.status_code == 200
    return response.content.decode()


def words(page: str) -> str:
    """The text of a page as one line."""
    text = re.sub(r"<[^>]*>", " ", page)
    return " ".join(text.split())
