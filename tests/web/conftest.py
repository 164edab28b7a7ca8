"""Requests in every state, made by the real pipeline and by rows, with real files below a data
folder per test.
"""

import hashlib
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone
from PIL import Image

from requests_app import pipeline
from requests_app.models import (
    Artifact,
    BrowserTurn,
    ClassifierRequest,
    DatasetVersion,
    ImageClass,
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

MODEL_ZIP = bytes(range(256)) * 8  # 2048 bytes in which every offset is recognised


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
    request = submitted(*names)
    pipeline.confirm(request)
    now = timezone.now()
    progress = {"done": 20, "total": 80, "message": "Bing: 20 of 40", "eta_seconds": 130}
    request.jobs.update(
        state=JobState.RUNNING,
        attempt=1,
        started=now - timedelta(seconds=75),
        lease_until=now + timedelta(hours=1),
        progress=progress,
    )
    assert request.move(Status.RUNNING, reason="collect")
    return request


def keep_picture(image_class: ImageClass, number: int, source: str = "bing") -> ImageUrl:
    """A kept picture: its row, and its file in the collection folder."""
    folder = image_class.request.folder / "collect" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{image_class.number:08x}{number:08x}.jpg"
    Image.new("RGB", (800, 400), (number % 256, 80, 160)).save(file, "JPEG")
    url = f"https://pictures.example/{image_class.pk}/{number}.jpg"
    return ImageUrl.objects.create(
        image_class=image_class,
        source=source,
        query=image_class.query,
        rank=number,
        image_url=url,
        url_sha256=sha256_hex(url),
        state="kept",
        file=f"images/{file.name}",
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        fetched_at=timezone.now(),
    )


def metrics(names: list[str], matrix: list[list[int]], *, better: bool = True) -> dict:
    """metrics.json of a model with this confusion matrix."""
    tested = sum(map(sum, matrix))
    hits = sum(matrix[i][i] for i in range(len(names)))
    scores = {
        name: {"precision": 0.9, "recall": matrix[i][i] / sum(matrix[i]), "support": sum(matrix[i])}
        for i, name in enumerate(names)
    }
    return {
        "accuracy": hits / tested, "interval": [0.8, 0.97], "balanced_accuracy": 0.9, "macro_f1": 0.912,
        "per_class": scores, "confusion": {"labels": names, "matrix": matrix},
        "majority_baseline": max(map(sum, matrix)) / tested, "better_than_chance": better, "ece_before": None,
        "ece_after": None, "temperature": 1.0, "reject_threshold": None, "label_issues": 0, "near_duplicate_leaks": 0,
        "split": {"train": 56, "val": 12, "test": tested}, "seconds": {"features": 2.0, "train": 1.5},
        "device": "cpu", "backbone": "efficientnet_lite0", "weights": "bundled", "seed": 0,
    }  # fmt: skip


def delivered(*names: str, better: bool = True) -> ClassifierRequest:
    """A finished request: pictures, a measured model, two files to download."""
    request = running(*names)
    classes = list(request.classes.all())
    for image_class in classes:
        keep_picture(image_class, 1)
        keep_picture(image_class, 2, source="openverse")
        image_class.found, image_class.kept = 20, 2
        image_class.rejected = {"duplicate": 9, "unreachable": 5, "too_small": 1}
        image_class.outcomes = [
            {
                "name": "bing",
                "outcome": "partial",
                "found": 10,
                "message": "Bing asked for a human check.",
            },
            {"name": "openverse", "outcome": "ok", "found": 10, "message": ""},
        ]
        image_class.save()
    request.jobs.update(state=JobState.DONE, finished=timezone.now())
    for stage in pipeline.STAGES[1:]:
        now = timezone.now()
        Job.objects.create(
            request=request,
            stage=stage.name,
            queue=stage.queue,
            state="done",
            attempt=1,
            started=now,
            finished=now,
        )
    version = DatasetVersion.objects.create(request=request, number=1, images=4)
    n = len(classes)
    matrix = [[9 if row == column else 1 for column in range(n)] for row in range(n)]
    TrainingRun.objects.create(
        version=version,
        backbone="efficientnet_lite0",
        finished=timezone.now(),
        metrics=metrics([c.name for c in classes], matrix, better=better),
        seconds={"features": 2.0, "train": 1.5},
        notices=["The bundled backbone was used."],
    )
    add_artifact(version, "model", MODEL_ZIP)
    add_artifact(version, "dataset", b"PK" + bytes(100))
    assert request.move(Status.DELIVERED)
    return request


def add_artifact(version: DatasetVersion, kind: str, content: bytes) -> Artifact:
    path = (
        Path("requests")
        / str(version.request_id)
        / "artifacts"
        / str(version.number)
        / f"{kind}.zip"
    )
    file = version.request.folder.parents[1] / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return Artifact.objects.create(
        version=version, kind=kind, path=str(path), bytes=len(content), sha256=digest
    )


def stopped(status: str, **fields) -> ClassifierRequest:
    """A request that ended in collecting: failed, or short of pictures."""
    request = running()
    request.jobs.update(state=JobState.FAILED, finished=timezone.now())
    error = {
        "stage": "collect",
        "reason": "Only 3 pictures of “dog”.",
        "remedy": "Try another wording.",
    }
    assert request.move(status, error=error)
    for name, value in fields.items():
        setattr(request, name, value)
    request.save()
    return request


@contextmanager
def overtaken(**columns):
    """The first change that is made to a request finds that someone else has just changed its row.

    A real race in slow motion: the other change happens between reading the row and the UPDATE that
    would have won.
    """
    overtaking = []

    def wedge(execute, sql, params, many, context):
        if not overtaking and sql.startswith("UPDATE") and ClassifierRequest._meta.db_table in sql:
            overtaking.append(sql)
            ClassifierRequest.objects.update(**columns)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wedge):
        yield
    assert overtaking


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
    token = client.cookies["csrftoken"].value if "csrftoken" in client.cookies else ""
    return client.post(path, {**fields, "csrfmiddlewaretoken": token})
