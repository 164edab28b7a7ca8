"""The way of a request, stage by stage, with a real database and a real outbox."""

import json
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django_q.models import OrmQ

from requests_app import lifecycle, pipeline
from requests_app.delivery import names
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    ImageUrl,
    Job,
    JobState,
    OutgoingMail,
    SourceHealth,
    Status,
)
from requests_app.workers import jobs
from tests.pipeline.folders import write_collection, write_run
from tests.pipeline.stages import (
    drain,
    rows_of,
)
from tests.replicas.pixabay import KEY, PixabayReplica

pytestmark = pytest.mark.django_db(transaction=True)


def test_nothing_heavy_starts_before_the_address_is_confirmed(submitted):
    assert submitted.status == Status.UNCONFIRMED
    assert not Job.objects.exists()
    mail = OutgoingMail.objects.get()
    assert (
        f"{settings.BASE_URL}/confirm/" in mail.text
        and f"{settings.BASE_URL}/confirm/" in mail.html
    )
    assert "cat" not in mail.subject


def test_a_confirmation_link_opens_its_request_and_works_once(submitted):
    signed = pipeline.confirmation_link(submitted).rstrip("/").rpartition("/")[2]
    assert pipeline.request_of_confirmation(signed) == submitted
    assert (
        pipeline.request_of_confirmation(signed[:-1] + ("a" if signed[-1] != "a" else "b")) is None
    )
    assert pipeline.confirm(submitted)
    assert not pipeline.confirm(ClassifierRequest.objects.get())
    assert Job.objects.count() == 1


@pytest.mark.parametrize(
    "status", [Status.DELIVERED, Status.CANCELLED, Status.FAILED, Status.NEEDS_ATTENTION]
)
def test_a_used_confirmation_starts_nothing_again(submitted, status):
    ClassifierRequest.objects.update(status=status)
    assert not pipeline.confirm(ClassifierRequest.objects.get())
    assert not Job.objects.exists()


def test_a_collection_becomes_rows_counts_and_a_version(collected):
    cat = collected.classes.first()
    assert (cat.found, cat.kept, cat.rejected) == (34, 33, {"too_small": 1})
    assert cat.outcomes == [
        {
            "name": "bing",
            "outcome": "partial",
            "found": 34,
            "kept": 33,
            "message": "Bing had only 34.",
        }
    ]
    assert ImageUrl.objects.filter(state="kept").count() == 66
    assert ImageUrl.objects.get(image_class=cat, state="rejected").reason == "too_small"
    assert collected.versions.get().images == 66
    assert SourceHealth.objects.get(name="bing").failures == 0
    assert Job.objects.get(stage="train").state == JobState.QUEUED
    config = json.loads((collected.folder / "collect" / "config.json").read_text())
    assert [c["query"] for c in config["classes"]] == ["cat", "dog animal"]


def test_too_few_pictures_ask_the_person_and_train_nothing(confirmed):
    write_collection(confirmed, 7)
    drain("collect")
    confirmed.refresh_from_db()
    assert confirmed.status == Status.NEEDS_ATTENTION
    assert "“cat” 7" in confirmed.error["reason"]
    assert not Job.objects.filter(stage="train").exists()
    assert OutgoingMail.objects.filter(key__contains="attention").count() == 1


def test_a_collection_that_refuses_fails_the_request_with_its_own_words(confirmed):
    folder = confirmed.folder / "collect"
    folder.mkdir(parents=True)
    (folder / "images.jsonl").mkdir()  # what the command cannot read
    for _ in range(jobs.MAX_ATTEMPTS):
        drain("collect")
    confirmed.refresh_from_db()
    assert confirmed.status == Status.FAILED
    assert confirmed.error["stage"] == "collect" and confirmed.error["remedy"]
    assert OutgoingMail.objects.filter(key__contains=":failed:").count() == 1


def test_a_training_that_refuses_fails_the_request_and_a_retry_trains_again(collected):
    rows = [row for row in rows_of(collected) if row.class_id == "c001"][:2] + [
        row for row in rows_of(collected) if row.class_id == "c002"
    ]
    ImageUrl.objects.exclude(sha256__in=[row.sha256 for row in rows]).filter(state="kept").update(
        state="removed"
    )
    drain("train")
    collected.refresh_from_db()
    assert collected.status == Status.FAILED
    assert "cat" in collected.error["reason"]
    assert OutgoingMail.objects.filter(key__contains=":failed:").count() == 1
    assert lifecycle.retry(collected)
    assert Job.objects.last().stage == "train"
    write_run(collected.versions.get(), rows_of(collected))
    drain("train")
    assert Job.objects.last().stage == "package"


def test_a_delivery_is_one_mail_with_figures_links_and_small_files_attached(delivered):
    assert delivered.status == Status.DELIVERED
    mail = OutgoingMail.objects.get(key__contains=":delivered:")
    for text in (mail.text, mail.html):
        assert delivered.url in text
        assert "A notice." in text
        assert "/download/model/" in text
    assert "59.6 % to 98.2 %" in mail.text, "the interval belongs to the number"
    assert {a.kind for a in mail.attachments.all()} == {"dataset", "model"}


def test_large_files_are_linked_not_attached(packaged, settings):
    settings.MAIL_ATTACH_MB = 0.0001
    drain("picaisso")
    mail = OutgoingMail.objects.get(key__contains=":delivered:")
    assert mail.attachments.count() == 0
    assert "attached" not in mail.text + mail.html


def test_of_a_small_and_a_large_file_the_small_one_is_attached_and_the_mail_says_so(
    packaged, settings
):
    small, large = Artifact.objects.filter(kind__in=("dataset", "model")).order_by("bytes")
    settings.MAIL_ATTACH_MB = large.bytes / 1e6
    drain("picaisso")
    mail = OutgoingMail.objects.get(key__contains=":delivered:")
    assert list(mail.attachments.all()) == [small]
    for text in (mail.text, mail.html):
        assert text.count("also attached") == 1
        assert names.file_name(small) in text.partition(", also attached")[0][-60:]


def test_a_delivery_run_twice_is_still_one_mail(delivered):
    Job.objects.filter(stage="deliver").update(state=JobState.QUEUED)
    drain("picaisso")
    assert OutgoingMail.objects.filter(key__contains=":delivered:").count() == 1
    assert Job.objects.get(stage="deliver").state == JobState.CANCELLED


def test_every_stage_enqueues_the_next_in_its_own_transaction(delivered):
    stages = list(Job.objects.order_by("pk").values_list("stage", "state"))
    assert stages == [(stage.name, "done") for stage in pipeline.STAGES]
    assert set(OrmQ.objects.values_list("key", flat=True)) == {"collect", "train", "picaisso"}


def test_a_sources_credential_reaches_the_child_but_no_file(confirmed, settings):
    # As read from the file that PICAISSO_PIXABAY_KEY_FILE names.
    settings.SOURCE_CREDENTIALS = {**settings.SOURCE_CREDENTIALS, "pixabay_key": KEY}
    settings.SOURCES = ["pixabay"]
    folder = confirmed.folder / "collect"
    with PixabayReplica() as replica:
        host = urlsplit(replica.url).netloc
        settings.SOURCE_URLS = {"pixabay": replica.url}
        settings.ALLOWED_PRIVATE_HOSTS = [host]
        drain("collect")
        assert replica.requests[0].query["key"] == KEY
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / "config.json" in written
    assert not any(KEY.encode() in path.read_bytes() for path in written)


def test_closed_sources_reach_the_collection_in_its_config(confirmed):
    SourceHealth.record("bing", "blocked", "Bing asked for a human check.", cool_down_seconds=3600)
    write_collection(confirmed, 33)
    drain("collect")
    config = json.loads((confirmed.folder / "collect" / "config.json").read_text())
    assert "human check" in config["closed_sources"]["bing"]
