"""Asking the sources for the operator, with the same lock and care as a collection."""

import time
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.utils import timezone

from requests_app.models import BrowserTurn
from requests_app.workers import source_check
from tests.replicas.pixabay import KEY, PixabayReplica

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_check_of_a_browser_source_waits_until_no_collection_has_the_browser(data_dir, settings):
    settings.CHROME = "/nonexistent/chrome"  # its answer is not the point
    started = time.monotonic()
    BrowserTurn.acquire(7, 1, timezone.now() + timedelta(seconds=3))
    (row,) = source_check.check_sources(["bing"])
    assert time.monotonic() - started > 3
    assert row["name"] == "bing"
    assert BrowserTurn.acquire(7, 2, timezone.now() + timedelta(seconds=60)), "it was given back"


def test_a_check_of_other_sources_needs_no_browser_and_has_the_sites_credentials(
    data_dir, settings
):
    BrowserTurn.acquire(7, 1, timezone.now() + timedelta(seconds=600))
    # As read from the file that PICAISSO_PIXABAY_KEY_FILE names.
    settings.SOURCE_CREDENTIALS = {**settings.SOURCE_CREDENTIALS, "pixabay_key": KEY}
    with PixabayReplica() as replica:
        settings.SOURCE_URLS = {"pixabay": replica.url}
        settings.ALLOWED_PRIVATE_HOSTS = [urlsplit(replica.url).netloc]
        (row,) = source_check.check_sources(["pixabay"])
    assert row["outcome"] == "ok"
