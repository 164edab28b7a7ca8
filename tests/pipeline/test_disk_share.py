"""A request that takes more of the disk than it may ends in time, and says what to do."""

import pytest

from requests_app import limits
from requests_app.models import ClassifierRequest, Status
from tests.pipeline.folders import write_collection
from tests.pipeline.stages import drain

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_files_of_a_request_are_counted(confirmed):
    folder = confirmed.folder / "collect" / "images"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(bytes(1000))
    assert limits.count_disk(confirmed) == ""
    confirmed.refresh_from_db()
    assert confirmed.disk_bytes == 1000
    assert ClassifierRequest.objects.used_bytes() == 1000


def test_one_that_takes_too_much_is_told_and_so_are_others_when_all_do(confirmed, settings):
    confirmed.folder.mkdir(parents=True)
    (confirmed.folder / "large").write_bytes(bytes(600_000))
    settings.REQUEST_GB = 0.001
    assert limits.count_disk(confirmed) == (
        "The room that one request may take here (1.0 MB) is used up."
    )
    settings.REQUEST_GB = 0
    settings.DISK_GB = 0.0005
    assert "all requests is used up" in limits.count_disk(confirmed)
    settings.DISK_GB = 0
    assert limits.count_disk(confirmed) == ""


def test_a_collection_that_ends_for_want_of_room_says_what_to_do(confirmed, settings):
    settings.REQUEST_GB = 0.000001
    settings.MIN_IMAGES = 100
    write_collection(confirmed, 33)
    drain("collect")
    confirmed.refresh_from_db()
    assert confirmed.status == Status.FAILED
    assert confirmed.error["remedy"] == limits.ASK_FOR_LESS
    assert "is used up" in confirmed.error["reason"]
