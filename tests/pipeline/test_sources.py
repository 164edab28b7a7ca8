"""The breakers of the sources, the turn at the browser, and taking pictures down."""

import hashlib
import json
import zipfile
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from requests_app import lifecycle, pipeline, takedowns
from requests_app.models import (
    Artifact,
    BrowserTurn,
    ClassifierRequest,
    ImageUrl,
    Job,
    JobState,
    SourceHealth,
    TakenDown,
)
from requests_app.workers import collection_sync, jobs
from tests.pipeline.folders import write_collection, write_run
from training.run_folder import ImageRow

pytestmark = pytest.mark.django_db(transaction=True)


def blocked(name: str = "bing") -> None:
    SourceHealth.record(name, "blocked", "Bing asked for a human check.", cool_down_seconds=3600)


def let_the_cool_down_pass() -> None:
    SourceHealth.objects.update(closed_until=timezone.now() - timedelta(seconds=1))


# --- breakers
# ---------------------------------------------------------------------------------------------


def test_a_blocked_source_is_closed_for_everyone_and_says_why():
    blocked()
    closed = SourceHealth.closed_for(job_id=1)
    assert closed["bing"].startswith("Bing asked for a human check. It is not asked again before ")
    assert "openverse" not in closed


def test_after_the_cool_down_one_job_tries_and_the_others_wait():
    blocked()
    let_the_cool_down_pass()
    assert SourceHealth.closed_for(job_id=1) == {}
    assert (
        "trying" in SourceHealth.closed_for(job_id=2)["bing"]
        or "not asked" in SourceHealth.closed_for(2)["bing"]
    )
    assert SourceHealth.closed_for(job_id=1) == {}, "the trying job, started again, still may"


def test_a_trial_that_never_reports_is_given_to_another_job():
    blocked()
    let_the_cool_down_pass()
    SourceHealth.closed_for(job_id=1)
    let_the_cool_down_pass()
    assert SourceHealth.closed_for(job_id=2) == {}


def test_each_failed_trial_doubles_the_cool_down_up_to_a_day():
    pauses = []
    for _ in range(7):
        blocked()
        row = SourceHealth.objects.get()
        pauses.append(round((row.closed_until - row.asked).total_seconds()))
    assert pauses == [3600, 7200, 14400, 28800, 57600, 86400, 86400]


def test_an_answer_opens_the_source_and_forgets_the_failures():
    blocked()
    SourceHealth.record("bing", "partial", "Bing had only 3.")
    row = SourceHealth.objects.get()
    assert (row.failures, row.closed_until, SourceHealth.closed_for(1)) == (0, None, {})


def test_a_source_that_does_not_apply_says_nothing_about_its_health():
    blocked("gbif")
    SourceHealth.record("gbif", "not_applicable", "Skipped: not a species.")
    assert SourceHealth.objects.get().outcome == "blocked"


def test_one_run_counts_as_one_failure_however_many_classes_asked():
    row = {
        "name": "bing",
        "outcome": "blocked",
        "message": "A human check.",
        "cool_down_seconds": 3600,
    }
    collection_sync.record_health([{**row, "class": "c001"}, {**row, "class": "c002"}])
    assert SourceHealth.objects.get().failures == 1


def test_closed_sources_reach_the_collection_in_its_config(confirmed):
    blocked()
    write_collection(confirmed, 33)
    jobs.drain("collect", pipeline.HANDLERS)
    config = json.loads((confirmed.folder / "collect" / "config.json").read_text())
    assert "human check" in config["closed_sources"]["bing"]


# --- the browser's turn
# -----------------------------------------------------------------------------------


def test_one_job_at_a_time_uses_the_browser():
    soon = timezone.now() + timedelta(seconds=60)
    assert BrowserTurn.acquire(1, 1, soon)
    assert BrowserTurn.acquire(1, 1, soon), "renewed"
    assert not BrowserTurn.acquire(2, 1, soon)
    BrowserTurn.release(2, 1)
    assert not BrowserTurn.acquire(2, 1, soon), "only its holder gives it back"
    BrowserTurn.release(1, 1)
    assert BrowserTurn.acquire(2, 1, soon)


def test_a_turn_whose_holder_is_gone_ends_with_its_lease():
    assert BrowserTurn.acquire(1, 1, timezone.now() - timedelta(seconds=1))
    assert BrowserTurn.acquire(2, 1, timezone.now() + timedelta(seconds=60))


def test_a_child_is_granted_the_browser_when_it_asks_and_gives_it_back(confirmed, data_dir):
    lock = collection_sync.BrowserLock(jobs.claim("collect"), data_dir)
    assert not lock.poll() and not lock.granted.exists()
    lock.wanted.touch()
    assert not lock.poll() and lock.granted.exists()
    assert BrowserTurn.objects.get().job == confirmed.jobs.get().pk
    lock.wanted.unlink()
    lock.poll()
    assert BrowserTurn.objects.get().job is None


def test_a_child_waits_while_another_request_has_the_browser(confirmed, data_dir):
    BrowserTurn.acquire(999, 1, timezone.now() + timedelta(seconds=60))
    lock = collection_sync.BrowserLock(jobs.claim("collect"), data_dir)
    lock.wanted.touch()
    assert lock.poll() and not lock.granted.exists()
    BrowserTurn.release(999, 1)
    assert not lock.poll() and lock.granted.exists()


# --- taking down
# ------------------------------------------------------------------------------------------


@pytest.fixture
def packaged(confirmed) -> ClassifierRequest:
    write_collection(confirmed, 33)
    jobs.drain("collect", pipeline.HANDLERS)
    kept = ImageUrl.objects.filter(state="kept").select_related("image_class")
    rows = [ImageRow(i.file, i.image_class.class_id, i.sha256, i.source, i.license) for i in kept]
    write_run(confirmed.versions.get(), rows)
    jobs.drain("train", pipeline.HANDLERS)
    jobs.drain("train", pipeline.HANDLERS)
    confirmed.refresh_from_db()
    return confirmed


@pytest.mark.parametrize("by", ["url", "sha256"])
def test_a_picture_taken_down_is_gone_everywhere_and_stays_out(packaged, by):
    image = ImageUrl.objects.filter(state="kept").first()
    places = list(packaged.folder.rglob(image.file.split("/")[1]))
    assert len(places) == 2, "the collection and the run"
    spelt = (
        image.image_url.replace("http://pictures.example", "HTTP://Pictures.Example:80") + "#top"
    )
    call_command(
        "takedown", spelt if by == "url" else image.sha256.upper(), reason="its author asked"
    )
    assert list(packaged.folder.rglob(image.file.split("/")[1])) == []
    image.refresh_from_db()
    assert (image.state, image.reason) == ("rejected", "taken_down")
    assert (image.image_class.kept, image.image_class.rejected) == (
        32,
        {"too_small": 1, "taken_down": 1},
    )
    artifact = Artifact.objects.get(kind="dataset")
    assert artifact.sha256 == hashlib.sha256(artifact.file.read_bytes()).hexdigest()
    with zipfile.ZipFile(artifact.file) as archive:
        assert image.sha256 not in archive.read("images.csv").decode()
        assert not any(image.sha256[:16] in name for name in archive.namelist())
        assert "taken_down" in archive.read("rejected.csv").decode()
        assert len([name for name in archive.namelist() if name.endswith(".jpg")]) == 65
    assert image.sha256 in takedowns.taken_down_digests()["hashes"]
    assert bool(takedowns.taken_down_digests()["urls"]) == (by == "url")


def test_taking_down_what_nobody_has_still_keeps_it_out():
    call_command("takedown", "https://pictures.example/never-seen.jpg")
    assert TakenDown.objects.get().what == "url"


def test_taking_down_needs_an_address_or_a_digest():
    with pytest.raises(CommandError, match="http"):
        call_command("takedown", "cat.jpg")
    assert not TakenDown.objects.exists()


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
