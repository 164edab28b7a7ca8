"""Ended early with what there is: real children are told while they work, and delivery follows."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from django.db import connection

from requests_app import first_model, lifecycle, prediction, versions
from requests_app.models import (
    ClassifierRequest,
    DatasetVersion,
    ImageState,
    ImageUrl,
    Job,
    OutgoingMail,
    Status,
)
from scraping.sources.catalogue import Outcome
from tests.pipeline.stages import drain
from tests.pipeline.test_first_model import finish_collection, keep
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures_host import PictureHost
from training import run_folder
from training.predict import open_model

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def when(holds: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """Do something once, between two signs of life of the job, as soon as a condition holds."""
    acting: list[bool] = []
    table = Job._meta.db_table

    def watch(execute, sql, params, many, context):
        answer = execute(sql, params, many, context)
        if not acting and sql.startswith("UPDATE") and table in sql:
            acting.append(True)
            if holds():
                act()
            else:
                acting.clear()
        return answer

    with connection.execute_wrapper(watch):
        yield
    assert acting, "it never came to that"


def kept(classifier: ClassifierRequest) -> list[int]:
    counts = []
    for image_class in classifier.classes.all():
        images = ImageUrl.objects.of_class(image_class).filter(state=ImageState.KEPT)
        counts.append(images.count())
    return counts


def test_a_collection_is_ended_with_the_pictures_that_are_there(confirmed, settings):
    settings.MIN_IMAGES = 10
    settings.SOURCES = ("openverse",)
    with (
        PictureHost(pace=0.15) as host,
        OpenverseReplica(host.url + "/pic/{}.jpg") as source,
    ):
        settings.SOURCE_URLS = {"openverse": source.url}
        settings.ALLOWED_PRIVATE_HOSTS = [urlsplit(s.url).netloc for s in (host, source)]
        # Both classes would find the same pictures.
        confirmed.classes.filter(number=2).delete()
        answers: list[bool] = []
        with (
            when(lambda: True, lambda: press(confirmed, answers)),
            when(lambda: min(kept(confirmed)) >= 10, lambda: press(confirmed, answers)),
        ):
            drain("collect")
    assert answers == [False, True]
    result = run_folder.read_json(confirmed.folder / "collect" / "result.json")
    assert result["ok"] and 10 <= kept(confirmed)[0] < confirmed.images_per_class
    assert {entry["outcome"] for entry in result["sources"]} <= {Outcome.OK, Outcome.PARTIAL}
    assert confirmed.versions.get().images == kept(confirmed)[0]
    assert Job.objects.get(stage="train").state == "queued"
    assert not Job.objects.get(stage="train").finish_requested


def press(classifier: ClassifierRequest, answers: list[bool]) -> None:
    answers.append(lifecycle.finish(classifier))


def test_fine_tuning_is_ended_and_what_was_best_is_delivered_with_one_mail(
    confirmed, settings, tmp_path
):
    settings.DEVICE = "cpu"
    keep(confirmed, 20)
    finish_collection(confirmed)
    drain("collect")
    version = confirmed.versions.get()
    untrained = replace(
        versions.run_config(confirmed),
        backbone="resnet18",
        weights="random",  # the real ones would be tuned for minutes
        epochs=100,
        time_budget_seconds=1e6,
        weights_cache=str(tmp_path / "cache" / "weights"),
    )
    versions.write_run_folder(version)
    run_folder.write_config(version.folder, untrained)
    found: list[object] = []

    def finish() -> None:
        found.append(prediction.usable_model(confirmed))
        newest = first_model.newest_folder(confirmed)
        assert newest is not None
        found.append(open_model(newest).classes)
        press(confirmed, found)

    with when(lambda: is_fine_tuned(version), finish):
        drain("train")
    usable, classes, answer = found
    assert usable.folder == version.folder / "head" and usable.number == 1
    assert classes == ("cat", "dog") and answer is True
    metrics = json.loads((version.folder / "metrics.json").read_text())
    assert "ended on request" in metrics["choice"]
    assert not (version.folder / "head").exists()
    drain("train")
    drain("picaisso")
    confirmed.refresh_from_db()
    assert confirmed.status == Status.DELIVERED
    mails = OutgoingMail.objects.exclude(key__contains="confirm")
    assert mails.count() == 1
    assert prediction.usable_model(confirmed).folder == version.folder


def is_fine_tuned(version: DatasetVersion) -> bool:
    """Return whether the first steps of fine-tuning are reported."""
    try:
        lines = (version.folder / "progress.jsonl").read_text().splitlines()
    except OSError:
        return False
    return any('"finetune"' in line and "epoch 1" in line for line in lines)
