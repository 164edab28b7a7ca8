"""What may happen to a request at any time: cancel, retry, delete, expire."""

import json
import logging
import os
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone
from django_q.models import OrmQ

from requests_app import (
    curation,
    dashboard,
    health,
    lifecycle,
    mail,
    pipeline,
    supplied,
    tasks,
)
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    ImageUrl,
    Job,
    JobState,
    MailState,
    OutgoingMail,
    Status,
)
from requests_app.workers import collection_sync, jobs
from tests.pipeline.folders import write_collection
from tests.pipeline.stages import (
    ask_nobody,
    drain,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_person_may_go_on_with_fewer_pictures(confirmed):
    write_collection(confirmed, 12)  # the trainer takes no fewer than 9
    drain("collect")
    confirmed.refresh_from_db()
    assert lifecycle.retry(confirmed, accept_fewer=True)
    drain("collect")
    assert Job.objects.filter(stage="train", state=JobState.QUEUED).count() == 1
    assert confirmed.versions.get().images == 24


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


def test_filling_up_keeps_what_earlier_words_found_and_counts_no_removed_image(delivered):
    images = ImageUrl.objects.filter(image_class__number=1, state="kept")
    removed = list(images.order_by("sha256")[:4])
    curation.remove(delivered, [image.pk for image in removed], "person", group_of="cat")
    assert not lifecycle.fill_up(delivered, 9, "cat animal")
    assert lifecycle.fill_up(delivered, 1, "cat animal")
    assert not lifecycle.fill_up(delivered, 1, "cat animal")  # work goes on
    ask_nobody()
    drain("collect")
    config = json.loads((delivered.folder / "collect" / "config.json").read_text())
    assert config["classes"][0]["query"] == "cat animal"
    assert config["set_aside"] == [image.sha256 for image in removed]
    assert delivered.versions.get(number=2).images == 62
    assert (images.count(), delivered.classes.first().kept) == (29, 29)
    assert Job.objects.filter(stage="train", state=JobState.QUEUED).count() == 1


def test_filling_up_that_finds_too_little_leaves_the_version_and_says_what_helps(
    delivered, settings
):
    settings.MIN_IMAGES = 35  # there are 33 of each
    assert lifecycle.fill_up(delivered, 1, "cat animal")
    ask_nobody()
    drain("collect")
    delivered.refresh_from_db()
    assert delivered.status == Status.DELIVERED
    assert "stays as it is" in delivered.error["remedy"]
    assert delivered.versions.count() == 1
    assert OutgoingMail.objects.filter(key__contains=":attention:").count() == 1
    curation.remove(delivered, [ImageUrl.objects.filter(state="kept").first().pk], "person")
    assert lifecycle.obstacle_to_training(delivered) == ""


def test_deleting_a_delivered_request_ends_what_is_measured_of_it(delivered):
    pipeline.MEASURE.enqueue(delivered)
    measured = delivered.jobs.filter(stage=pipeline.MEASURE.name)
    measured.update(state=JobState.RUNNING)
    pipeline.RECOUNT.enqueue(delivered)
    assert lifecycle.delete(delivered)
    assert measured.get().cancel_requested
    recounted = Job.objects.get(stage=pipeline.RECOUNT.name)
    assert recounted.state == JobState.CANCELLED


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


def test_a_delivered_request_searches_again_and_becomes_the_next_version(delivered):
    assert lifecycle.collect_again(delivered, actor="admin:boss")
    assert (delivered.folder / "collect" / pipeline.SEARCH_AGAIN).exists()
    assert Job.objects.latest("pk").stage == "collect"
    assert delivered.events.last().actor == "admin:boss"
    assert Artifact.objects.exists(), "what was delivered stays"
    assert not lifecycle.collect_again(delivered), "it is in work"
    ask_nobody()
    drain("collect")
    assert [version.number for version in delivered.versions.all()] == [1, 2]


def test_a_request_that_was_never_confirmed_or_is_deleted_does_not_search_again(
    submitted, settings
):
    assert not lifecycle.collect_again(submitted)
    assert lifecycle.cancel(submitted)
    assert not lifecycle.collect_again(submitted)
    assert lifecycle.delete(submitted)
    assert not lifecycle.collect_again(submitted)
    assert not Job.objects.exists()


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


def bring(classifier: ClassifierRequest) -> Path:
    """Let pictures lie with a request as if they had come with it."""
    folder = classifier.folder / "supplied"
    folder.mkdir(parents=True)
    (folder / "pictures.zip").write_bytes(b"a stranger's pictures")
    return folder


def lay_back(folder: Path, **past: float) -> None:
    then = (timezone.now() - timedelta(**past)).timestamp()
    os.utime(folder, (then, then))


def test_pictures_of_an_address_never_confirmed_go_with_it(submitted):
    bring(submitted)
    ClassifierRequest.objects.update(created=timezone.now() - timedelta(days=2, seconds=1))
    lifecycle.expire()
    assert not ClassifierRequest.objects.exists() and not submitted.folder.exists()


def test_pictures_of_a_request_cancelled_before_it_was_confirmed_go_at_once(submitted):
    folder = bring(submitted)
    assert lifecycle.cancel(submitted)
    assert not folder.exists() and not lifecycle.retry(submitted)


def test_pictures_of_a_request_cancelled_in_work_stay_for_its_retry(confirmed):
    folder = bring(confirmed)
    assert lifecycle.cancel(confirmed)
    assert folder.exists() and lifecycle.retry(confirmed)


def test_uploads_for_a_form_that_nobody_sends_go_after_a_day(data_dir, db):
    draft = supplied.Draft("0" * 32)
    draft.folder.mkdir(parents=True)
    (draft.folder / "pictures.zip").write_bytes(b"pictures")
    lifecycle.expire()
    assert draft.folder.exists()
    lay_back(draft.folder, days=1, seconds=1)
    lifecycle.expire()
    assert not draft.folder.exists()


def test_pictures_whose_request_was_never_made_go_after_a_day(submitted, confirmed):
    folder = bring(submitted).parent
    results = bring(confirmed).parent
    (results / "collect").mkdir()
    ClassifierRequest.objects.all().delete()
    lifecycle.expire()
    assert folder.exists(), "its request may be about to be stored"
    lay_back(folder, days=2)
    lay_back(results, days=2)
    lifecycle.expire()
    assert not folder.exists()
    assert results.exists(), "the database may be another one for a moment"


def test_a_retry_may_ask_other_sources(confirmed):
    write_collection(confirmed, 7)
    jobs.drain("collect", pipeline.HANDLERS)
    confirmed.refresh_from_db()
    assert lifecycle.retry(confirmed, sources=["wikimedia", "bing"])
    confirmed.refresh_from_db()
    assert confirmed.sources == ["wikimedia", "bing"]
    assert (
        Job.objects.latest("pk").stage == "collect"
        and Job.objects.latest("pk").state == JobState.QUEUED
    )


def age(classifier: ClassifierRequest, **past: float) -> None:
    moved = timezone.now() - timedelta(**past)
    ClassifierRequest.objects.filter(pk=classifier.pk).update(moved=moved)


def test_a_result_that_is_deleted_soon_is_written_about_once(delivered, settings):
    settings.RETENTION_DAYS = 30
    reminders = OutgoingMail.objects.filter(key__contains=":expiring:")
    age(delivered, days=24)
    assert lifecycle.warn_of_expiry() == 0
    age(delivered, days=26)
    tasks.prune("picaisso")
    tasks.prune("picaisso")
    assert reminders.get().to == delivered.email
    age(delivered, days=31)
    tasks.prune("picaisso")
    assert not OutgoingMail.objects.exclude(to="").exists()


def test_a_result_that_was_made_anew_after_a_reminder_gets_another_later(delivered, settings):
    settings.RETENTION_DAYS = 30
    age(delivered, days=27)
    assert lifecycle.warn_of_expiry() == 1
    age(delivered, days=26)
    assert lifecycle.warn_of_expiry() == 1


def test_nobody_is_reminded_of_what_was_not_delivered_or_is_kept_for_days_only(delivered, settings):
    settings.RETENTION_DAYS = 30
    age(delivered, days=27)
    ClassifierRequest.objects.update(status=Status.FAILED)
    assert lifecycle.warn_of_expiry() == 0
    ClassifierRequest.objects.update(status=Status.DELIVERED)
    settings.RETENTION_DAYS = 3
    age(delivered, days=2.9)
    assert lifecycle.warn_of_expiry() == 0


def test_retention_leaves_a_request_that_was_taken_up_meanwhile(collected, settings):
    long_ago = timezone.now() - timedelta(days=settings.RETENTION_DAYS, seconds=1)
    lifecycle.cancel(collected)
    ClassifierRequest.objects.update(moved=long_ago)
    stale = ClassifierRequest.objects.get()
    assert lifecycle.retry(ClassifierRequest.objects.get())
    lifecycle._expire(stale, long_ago + timedelta(seconds=1))
    assert ClassifierRequest.objects.get().status == Status.QUEUED
    assert Job.objects.filter(state=JobState.QUEUED).count() == 1
    lifecycle.cancel(ClassifierRequest.objects.get())  # and ended again, as the round saw it
    lifecycle._expire(stale, long_ago + timedelta(seconds=1))
    assert ClassifierRequest.objects.get().status == Status.CANCELLED
    lifecycle.expire()
    assert ClassifierRequest.objects.get().status == Status.CANCELLED


def test_a_mail_that_is_being_sent_while_its_request_is_deleted_goes_with_the_next_round(delivered):
    OutgoingMail.objects.update(state=MailState.SENDING)
    assert lifecycle.delete(delivered)
    assert delivered.erased is None
    (Path(settings.MAIL_DIR)).mkdir(exist_ok=True)
    copy = Path(settings.MAIL_DIR) / f"request-{delivered.pk}-delivered-1.eml"
    copy.write_text("as its sender leaves it a moment later")
    OutgoingMail.objects.update(state=MailState.WAITING)  # as after a sender that died
    assert mail.send_waiting() == 0
    tasks.reap("picaisso")
    assert ClassifierRequest.objects.get().erased
    assert not OutgoingMail.objects.exists() and not copy.exists()


def test_an_address_never_confirmed_leaves_neither_mail_nor_copy(submitted, settings):
    settings.EMAIL_BACKEND = "requests_app.mail.FolderBackend"
    assert mail.send_waiting() == 1
    assert list(Path(settings.MAIL_DIR).glob("*.eml"))
    ClassifierRequest.objects.update(created=timezone.now() - timedelta(days=2, seconds=1))
    lifecycle.expire()
    assert not list(Path(settings.MAIL_DIR).iterdir())
    assert not OutgoingMail.objects.exists()


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
def test_a_request_that_waits_for_a_day_is_noticed(confirmed, status, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("requests_app"), "propagate", True)
    ClassifierRequest.objects.update(status=status)
    lifecycle.expire()
    assert health.waiting_too_long() == "" and caplog.text == ""
    ClassifierRequest.objects.update(moved=timezone.now() - timedelta(days=1, seconds=1))
    sentence = health.waiting_too_long()
    assert sentence.startswith("1 request has waited for more than a day; request ")
    assert dashboard.first_page()["late"] == sentence
    lifecycle.expire()
    assert sentence in caplog.text
