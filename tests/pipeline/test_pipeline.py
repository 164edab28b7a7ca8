"""The way of a request, stage by stage, with a real database and a real outbox."""

import csv
import dataclasses
import hashlib
import io
import json
import zipfile
from collections import Counter
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.utils import timezone
from django_q.models import OrmQ

from requests_app import lifecycle, pipeline
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    ImageUrl,
    Job,
    JobState,
    OutgoingMail,
    SourceHealth,
    Status,
    TrainingRun,
)
from requests_app.workers import collection_sync, jobs
from tests.pipeline.folders import METRICS, write_collection, write_run
from tests.replicas.pixabay import KEY, PixabayReplica
from training import run_folder
from training.run_folder import ImageRow

pytestmark = pytest.mark.django_db(transaction=True)


def drain(queue: str) -> None:
    jobs.drain(queue, pipeline.HANDLERS)


def rows_of(request: ClassifierRequest) -> list[ImageRow]:
    kept = ImageUrl.objects.filter(image_class__request=request, state="kept").select_related(
        "image_class"
    )
    return [ImageRow(i.file, i.image_class.class_id, i.sha256, i.source, i.license) for i in kept]


def ask_nobody() -> None:
    """Close all sources, so that a collection asks nobody and ends at once."""
    for name in settings.SOURCES:
        SourceHealth.record(name, "blocked", "A human check.", cool_down_seconds=3600)


@pytest.fixture
def collected(confirmed) -> ClassifierRequest:
    write_collection(confirmed, 33)
    drain("collect")
    confirmed.refresh_from_db()
    return confirmed


@pytest.fixture
def trained(collected) -> ClassifierRequest:
    write_run(collected.versions.get(), rows_of(collected))
    drain("train")
    return collected


@pytest.fixture
def packaged(trained) -> ClassifierRequest:
    drain("train")
    return trained


@pytest.fixture
def delivered(packaged) -> ClassifierRequest:
    drain("picaisso")
    packaged.refresh_from_db()
    return packaged


# --- submission
# -------------------------------------------------------------------------------------------


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


def test_the_token_is_derived_and_only_its_digest_is_stored(submitted):
    token = submitted.token
    assert len(token) == 32
    assert ClassifierRequest.objects.by_token(token) == submitted
    assert token not in json.dumps(list(ClassifierRequest.objects.values()), default=str)
    other_end = "A" if token[-1] != "A" else "B"
    assert ClassifierRequest.objects.by_token(token[:-1] + other_end) is None


@pytest.mark.parametrize(
    "status", [Status.DELIVERED, Status.CANCELLED, Status.FAILED, Status.NEEDS_ATTENTION]
)
def test_a_used_confirmation_starts_nothing_again(submitted, status):
    ClassifierRequest.objects.update(status=status)
    assert not pipeline.confirm(ClassifierRequest.objects.get())
    assert not Job.objects.exists()


def test_after_a_new_secret_key_old_links_end_and_new_ones_work(submitted, settings):
    old = submitted.token
    settings.SECRET_KEY = "x" * 60
    assert ClassifierRequest.objects.by_token(submitted.token) is None
    assert ClassifierRequest.objects.renew_tokens() == 1
    assert ClassifierRequest.objects.by_token(old) is None
    assert ClassifierRequest.objects.by_token(submitted.token) == submitted
    assert ClassifierRequest.objects.renew_tokens() == 0


def test_a_move_is_won_once_and_leaves_a_row(confirmed):
    first, second = ClassifierRequest.objects.get(), ClassifierRequest.objects.get()
    assert first.move(Status.RUNNING, reason="collect", actor="job:1")
    assert not second.move(Status.CANCELLED)
    assert not first.move(Status.EXPIRED), "a running request cannot expire"
    assert [(e.old, e.new) for e in confirmed.events.all()] == [
        ("", "unconfirmed"),
        ("unconfirmed", "queued"),
        ("queued", "running"),
    ]


# --- collect
# ----------------------------------------------------------------------------------------------


def test_a_collection_becomes_rows_counts_and_a_version(collected):
    cat = collected.classes.first()
    assert (cat.found, cat.kept, cat.rejected) == (34, 33, {"too_small": 1})
    assert cat.outcomes == [
        {
            "name": "bing",
            "outcome": "partial",
            "found": 34,
            "kept": None,
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


def test_collecting_twice_adds_nothing(collected):
    lease = jobs.Lease(Job.objects.get(stage="collect"))
    Job.objects.filter(pk=lease.job.pk).update(state=JobState.RUNNING)
    sync = collection_sync.CollectionSync(collected, collected.folder / "collect")
    sync.poll()
    assert ImageUrl.objects.count() == 68


def test_too_few_pictures_ask_the_person_and_train_nothing(confirmed):
    write_collection(confirmed, 7)
    drain("collect")
    confirmed.refresh_from_db()
    assert confirmed.status == Status.NEEDS_ATTENTION
    assert "“cat” 7" in confirmed.error["reason"]
    assert not Job.objects.filter(stage="train").exists()
    assert OutgoingMail.objects.filter(key__contains="attention").count() == 1


def test_a_person_may_go_on_with_fewer_pictures(confirmed):
    write_collection(confirmed, 7)
    drain("collect")
    confirmed.refresh_from_db()
    assert lifecycle.retry(confirmed, accept_fewer=True)
    drain("collect")
    assert Job.objects.filter(stage="train", state=JobState.QUEUED).count() == 1
    assert confirmed.versions.get().images == 14


def test_another_wording_drops_what_the_old_one_found_and_asks_again(confirmed):
    folder = write_collection(confirmed, 7)
    drain("collect")
    confirmed.refresh_from_db()
    assert lifecycle.retry(confirmed, class_queries={1: "cat animal", 2: "dog animal"})
    assert confirmed.classes.first().query == "cat animal"
    assert not ImageUrl.objects.filter(image_class__number=1).exists()
    assert ImageUrl.objects.filter(image_class__number=2).count() == 8
    ask_nobody()
    drain("collect")
    assert {
        json.loads(line)["class"] for line in (folder / "images.jsonl").read_text().splitlines()
    } == {"c002"}
    assert json.loads((folder / "result.json").read_text())["classes"][0]["kept"] == 0, (
        "asked once more"
    )


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


# --- train
# ------------------------------------------------------------------------------------------------


def test_a_training_freezes_the_split_and_is_recorded(trained):
    version = trained.versions.get()
    manifest_file = version.folder / "manifest.jsonl"
    assert version.manifest_sha256 == hashlib.sha256(manifest_file.read_bytes()).hexdigest()
    run = TrainingRun.objects.get()
    assert (run.metrics, run.backbone, run.notices) == (
        METRICS,
        "efficientnet_lite0",
        ["A notice."],
    )
    assert {i.split for i in ImageUrl.objects.filter(state="kept")} == {"train", "val", "test"}
    assert Job.objects.get(stage="package").queue == "train"


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


# --- package
# ----------------------------------------------------------------------------------------------


def dataset_of(request: ClassifierRequest) -> zipfile.ZipFile:
    return zipfile.ZipFile(Artifact.objects.get(kind="dataset").file)


def test_the_dataset_zip_is_complete_and_its_checksums_hold(packaged):
    with dataset_of(packaged) as archive:
        names = archive.namelist()
        for line in archive.read("SHA256SUMS").decode().splitlines():
            digest, _, name = line.partition("  ")
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest
        assert len(archive.read("SHA256SUMS").decode().splitlines()) == len(names) - 1
        assert json.loads(archive.read("classes.json")) == {"c001": "cat", "c002": "dog"}
        rows = list(csv.DictReader(io.StringIO(archive.read("images.csv").decode())))
        assert {row["file_name"] for row in rows} == {
            name for name in names if name.endswith(".jpg")
        }
        for row in rows:
            split, class_id, name = row["file_name"].split("/")
            assert (
                row["split"] == split and row["class"] == {"c001": "cat", "c002": "dog"}[class_id]
            )
            assert name == row["sha256"][:16] + ".jpg"
            assert hashlib.sha256(archive.read(row["file_name"])).hexdigest() == row["sha256"]
            assert (row["license"], row["license_basis"], row["creator"]) == (
                "by-sa",
                "per-item",
                "Ada",
            )
        rejected = list(csv.DictReader(io.StringIO(archive.read("rejected.csv").decode())))
        assert [row["reason"] for row in rejected] == ["too_small", "too_small"]
        assert "metadata.csv" not in names
        card = archive.read("README.md").decode()
        assert card.startswith("---\n") and "| `c001` | cat |" in card
        attribution = archive.read("ATTRIBUTION.md").decode()
        assert attribution.count("“A title” by Ada") == len(rows)


def test_building_a_zip_again_gives_the_same_bytes(packaged):
    artifact = Artifact.objects.get(kind="dataset")
    before = artifact.sha256
    Job.objects.filter(stage="package").update(state=JobState.QUEUED)
    drain("train")
    artifact.refresh_from_db()
    assert artifact.sha256 == before == hashlib.sha256(artifact.file.read_bytes()).hexdigest()
    assert Artifact.objects.count() == 2


def test_the_model_zip_is_the_model_folder(packaged):
    with zipfile.ZipFile(Artifact.objects.get(kind="model").file) as archive:
        assert sorted(archive.namelist()) == ["SHA256SUMS", "model.onnx"]


# --- deliver
# ----------------------------------------------------------------------------------------------


def test_a_delivery_is_one_mail_with_figures_links_and_small_files_attached(delivered):
    assert delivered.status == Status.DELIVERED
    mail = OutgoingMail.objects.get(key__contains=":delivered:")
    for text in (mail.text, mail.html):
        assert delivered.url in text
        assert "A notice." in text
        assert "/download/model/" in text
    assert "60" in mail.text and "98" in mail.text, "the interval belongs to the number"
    assert {a.kind for a in mail.attachments.all()} == {"dataset", "model"}


def test_large_files_are_linked_not_attached(packaged, settings):
    settings.MAIL_ATTACH_MB = 0.001
    drain("picaisso")
    assert OutgoingMail.objects.get(key__contains=":delivered:").attachments.count() == 0


def test_a_delivery_run_twice_is_still_one_mail(delivered):
    Job.objects.filter(stage="deliver").update(state=JobState.QUEUED)
    drain("picaisso")
    assert OutgoingMail.objects.filter(key__contains=":delivered:").count() == 1
    assert Job.objects.get(stage="deliver").state == JobState.CANCELLED


def test_every_stage_enqueues_the_next_in_its_own_transaction(delivered):
    stages = list(Job.objects.order_by("pk").values_list("stage", "state"))
    assert stages == [(stage.name, "done") for stage in pipeline.STAGES]
    assert set(OrmQ.objects.values_list("key", flat=True)) == {"collect", "train", "picaisso"}


# --- at any time
# ------------------------------------------------------------------------------------------


def test_a_cancelled_request_waits_for_nothing_and_a_second_cancel_does_nothing(confirmed):
    assert lifecycle.cancel(confirmed)
    assert not lifecycle.cancel(ClassifierRequest.objects.get())
    drain("collect")
    assert Job.objects.get().state == JobState.CANCELLED
    assert OutgoingMail.objects.count() == 0


def test_a_cancelled_request_can_be_taken_up_again(collected):
    assert lifecycle.cancel(collected)
    assert lifecycle.retry(collected)
    assert collected.status == Status.QUEUED
    assert Job.objects.filter(state=JobState.QUEUED).get().stage == "train"


def test_a_request_cancelled_before_its_address_was_confirmed_cannot_be_taken_up(submitted):
    assert lifecycle.cancel(submitted)
    assert not lifecycle.retry(submitted)
    assert not Job.objects.exists()


def test_a_person_may_change_the_licence_when_too_few_pictures_were_found(confirmed):
    ClassifierRequest.objects.update(license="open")
    write_collection(confirmed, 7)
    drain("collect")
    confirmed.refresh_from_db()
    assert lifecycle.retry(confirmed, license="any")
    assert Job.objects.latest("pk").stage == "collect"
    assert (confirmed.folder / "collect" / pipeline.SEARCH_AGAIN).exists()
    confirmed.refresh_from_db()
    assert confirmed.license == "any"


def test_a_request_in_work_cannot_be_retried(collected):
    assert not lifecycle.retry(collected)


def test_deleting_removes_pictures_files_and_the_address(delivered):
    lifecycle.delete(delivered)
    delivered.refresh_from_db()
    assert (delivered.status, delivered.email) == (Status.EXPIRED, "")
    assert not delivered.folder.exists()
    assert not ImageUrl.objects.exists() and not Artifact.objects.exists()
    assert not OutgoingMail.objects.exclude(to="").exists()


def test_a_deletion_wins_against_a_worker_that_moves_the_request_meanwhile(confirmed):
    stale = ClassifierRequest.objects.get()
    assert ClassifierRequest.objects.get().move(Status.RUNNING)
    assert lifecycle.delete(stale)
    assert ClassifierRequest.objects.get().status == Status.EXPIRED
    assert not lifecycle.delete(stale)


def test_rows_that_a_worker_still_stored_after_a_deletion_go_with_the_next_round(collected):
    folder = collected.folder / "collect"
    sync = collection_sync.CollectionSync(collected, folder)
    jobs.claim("train")
    lifecycle.delete(collected)
    assert folder.exists(), "its child may still be writing"
    sync.poll()
    assert ImageUrl.objects.exists()
    Job.objects.update(state=JobState.CANCELLED)
    lifecycle.expire()
    assert not ImageUrl.objects.exists() and not folder.exists()


def test_a_retry_that_waited_for_a_stopping_job_is_notified_of_when_that_ends(collected):
    lease = jobs.claim("train")
    lifecycle.cancel(collected)
    ClassifierRequest.objects.update(status=Status.CANCELLED)
    assert lifecycle.retry(collected, images_per_class=200)
    OrmQ.objects.all().delete()
    assert jobs.claim("collect") is None
    with pytest.raises(jobs.CancelRequested):
        lease.beat()
    with lease.finishing(JobState.CANCELLED):
        pass
    jobs.notify_after(lease.job)
    assert OrmQ.objects.get().key == "collect"


def test_a_picture_that_the_split_left_out_is_listed_with_its_reason(collected):
    rows = rows_of(collected)
    folder = write_run(collected.versions.get(), rows)
    frozen = run_folder.read_manifest(folder)
    frozen[0] = dataclasses.replace(frozen[0], split=None)
    frozen[1] = dataclasses.replace(frozen[1], split=None, group=None)
    run_folder.write_manifest(folder, frozen)
    drain("train")
    drain("train")
    with dataset_of(collected) as archive:
        rejected = list(csv.DictReader(io.StringIO(archive.read("rejected.csv").decode())))
        assert Counter(row["reason"] for row in rejected) == {
            "too_small": 2,
            "near_duplicate": 1,
            "not_a_picture": 1,
        }
        assert len([name for name in archive.namelist() if name.endswith(".jpg")]) == 64
    cat = collected.classes.first()
    assert (cat.kept, cat.rejected) == (
        31,
        {"too_small": 1, "near_duplicate": 1, "not_a_picture": 1},
    )


def test_what_is_past_its_time_is_deleted_and_the_rest_stays(delivered, settings):
    young = pipeline.submit(
        pipeline.Submission(classes=(("a", ""), ("b", "")), email="b@example.org")
    )
    lifecycle.expire()
    assert delivered.folder.exists()
    old = timezone.now() - timedelta(days=settings.RETENTION_DAYS, seconds=1)
    ClassifierRequest.objects.filter(pk=delivered.pk).update(moved=old)
    lifecycle.expire()
    delivered.refresh_from_db()
    young.refresh_from_db()
    assert (delivered.status, young.status) == (Status.EXPIRED, Status.QUEUED)
    assert not delivered.folder.exists()


def test_an_address_never_confirmed_is_forgotten_after_two_days(submitted):
    lifecycle.expire()
    assert ClassifierRequest.objects.exists()
    ClassifierRequest.objects.update(created=timezone.now() - timedelta(days=2, seconds=1))
    lifecycle.expire()
    assert not ClassifierRequest.objects.exists()


def test_lines_are_read_once_whole_and_again_when_the_file_is_replaced(tmp_path):
    path = tmp_path / "lines.jsonl"
    reader = collection_sync.JsonLines(path)
    assert list(reader.new()) == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert list(reader.new()) == [{"a": 1}, {"a": 2}]
    with path.open("a") as file:
        file.write(": 3}\n")
    assert list(reader.new()) == [{"a": 3}]
    (tmp_path / "new").write_text('{"a": "longer than before"}\n{"a": 5}\n')
    (tmp_path / "new").replace(path)
    assert list(reader.new()) == [{"a": "longer than before"}, {"a": 5}]
    with path.open("a") as file:
        file.write('{"torn{"a": 6}\n{"a": 7}\n')
    assert list(reader.new()) == [{"a": 7}]


def test_a_sources_credential_reaches_the_child_but_no_file_and_no_command_line(
    confirmed, settings
):
    settings.PIXABAY_KEY = KEY  # as read from the file that PICAISSO_PIXABAY_KEY_FILE names
    ClassifierRequest.objects.update(sources=["pixabay"])
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
