"""From a growing collection into the database, and the browser lock that it asks for."""

from datetime import timedelta

import pytest
from django.utils import timezone

from requests_app import versions
from requests_app.delivery import thumbnails
from requests_app.models import (
    BrowserTurn,
    ImageUrl,
    Job,
    JobState,
    SourceHealth,
)
from requests_app.workers import collection_sync, jobs
from scraping.files import json_line
from scraping.records.image_log import read_records, refused_record

pytestmark = pytest.mark.django_db(transaction=True)


def test_collecting_twice_adds_nothing(collected):
    lease = jobs.Lease(Job.objects.get(stage="collect"))
    Job.objects.filter(pk=lease.job.pk).update(state=JobState.RUNNING)
    sync = collection_sync.CollectionSync(collected, collected.folder / "collect")
    sync.poll()
    assert ImageUrl.objects.count() == 68


def test_a_picture_that_is_refused_now_loses_all_but_its_digests(collected):
    image = ImageUrl.objects.filter(state="kept").first()
    folder = collected.folder / "collect"
    small = thumbnails.thumbnail(image)
    assert small.exists()
    records = list(read_records(folder / "images.jsonl"))
    row = next(row for row in records if row["image_url"] == image.image_url)
    refused = refused_record(row, row["sha256"], row["source_sha256"])
    with (folder / "images.jsonl").open("ab") as file:
        file.write(json_line(refused))
    sync = collection_sync.CollectionSync(collected, folder)
    sync.poll()
    after = ImageUrl.objects.get(pk=image.pk)
    assert (after.image_url, after.page_url, after.title, after.attribution) == ("", "", "", "")
    assert (after.reason, after.sha256, after.file) == ("refused_digest", image.sha256, "")
    assert not small.exists()
    assert ImageUrl.objects.count() == 68


def test_what_a_person_marked_as_test_set_is_tested_on_and_nothing_else(collected):
    folder = collected.folder / "collect"
    records = list(read_records(folder / "images.jsonl"))
    own = next(row for row in records if row["state"] == "kept")
    changes = {"source": "upload", "image_url": "upload:cat/1.jpg", "split": "test"}
    with (folder / "images.jsonl").open("ab") as file:
        file.write(json_line({**own, **changes}))
    collection_sync.CollectionSync(collected, folder).poll()
    assert list(ImageUrl.objects.filter(split="test").values_list("source", flat=True)) == [
        "upload"
    ]
    assert versions.run_config(collected).own_test is None
    collected.supplied = {"pictures": 1, "as_test": True}
    assert versions.run_config(collected).own_test is True


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


def test_one_run_counts_as_one_failure_however_many_classes_asked():
    row = {
        "name": "bing",
        "outcome": "blocked",
        "message": "A human check.",
        "cool_down_seconds": 3600,
    }
    collection_sync.record_health([{**row, "class": "c001"}, {**row, "class": "c002"}])
    assert SourceHealth.objects.get().failures == 1


def test_what_all_are_told_of_a_source_quotes_nobody(db):
    row = {"name": "bing", "outcome": "no_results", "message": "Bing found nothing for “my “cat””."}
    collection_sync.record_health([row])
    assert SourceHealth.objects.get().message == "Bing found nothing for these words."


def test_a_child_is_granted_the_browser_when_it_asks_and_gives_it_back(confirmed, data_dir):
    lock = collection_sync.BrowserGrant(jobs.claim("collect"), data_dir)
    assert not lock.poll() and not lock.granted.exists()
    lock.wanted.touch()
    assert not lock.poll() and lock.granted.exists()
    assert BrowserTurn.objects.get().job == confirmed.jobs.get().pk
    lock.wanted.unlink()
    lock.poll()
    assert BrowserTurn.objects.get().job is None


def test_a_child_waits_while_another_request_has_the_browser(confirmed, data_dir):
    BrowserTurn.acquire(999, 1, timezone.now() + timedelta(seconds=60))
    lock = collection_sync.BrowserGrant(jobs.claim("collect"), data_dir)
    lock.wanted.touch()
    assert lock.poll() and not lock.granted.exists()
    BrowserTurn.release(999, 1)
    assert not lock.poll() and lock.granted.exists()
