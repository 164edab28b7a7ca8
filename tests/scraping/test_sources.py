"""What all sources have in common: the registry, their order, their outcomes and what is never a
picture.
"""

from pathlib import Path

import pytest

from scraping.net.http import FetchFailure, NotJson
from scraping.reasons import Reason
from scraping.sources.base import (
    COOL_DOWN_SECONDS,
    Query,
    SearchOptions,
    SearchResult,
    SearchStats,
    failed,
    rate_limited,
)
from scraping.sources.catalogue import (
    CATALOGUE,
    DEFAULT_ORDER,
    Outcome,
    credential_settings,
    in_order,
    url_setting,
    usual_sources,
)
from scraping.sources.registry import REGISTRY, THUMBNAIL_HOSTS, is_thumbnail
from scraping.sources.snapshots import save_page


def test_the_default_order_is_the_documented_one():
    assert DEFAULT_ORDER == ("openverse", "wikimedia", "inaturalist", "gbif", "bing")
    assert set(REGISTRY) - set(DEFAULT_ORDER) == {"nasa", "met", "artic", "pixabay", "google"}
    assert in_order(["google", "nasa", "google", "bing"]) == ("nasa", "bing", "google")
    assert list(REGISTRY)[-1] == "google"


def test_a_source_with_a_key_is_on_when_the_key_is_there():
    assert usual_sources({}) == usual_sources({"pixabay_key": ""}) == DEFAULT_ORDER
    assert usual_sources({"pixabay_key": "x"}) == (*DEFAULT_ORDER, "pixabay")


def test_a_saved_page_is_capped_and_without_a_folder_nothing_is_saved(tmp_path):
    bing = REGISTRY["bing"]
    query = Query("a/../b corgi", 5, SearchOptions(snapshot_dir=str(tmp_path / "new")), 0.0)
    page = Path(save_page(bing, query, "ä" * (2 << 20), b"png"))
    assert page.stat().st_size == 1 << 20
    assert page.parent == tmp_path / "new"
    assert page.name.startswith("bing-a-b-corgi-")
    assert page.with_suffix(".png").read_bytes() == b"png"
    assert save_page(bing, Query("corgi", 5, SearchOptions(), 0.0), "x", b"") == ""


@pytest.mark.parametrize("name", REGISTRY)
def test_every_source_says_all_that_others_rely_on(name):
    source = REGISTRY[name]
    assert source.name == name
    assert source.default_url.startswith("https://")
    assert source.min_interval_s >= 1.0
    assert source.label == CATALOGUE[name].label
    assert source.sample_words


def test_the_registry_and_the_catalogue_name_the_same_sources_in_the_same_order():
    assert list(REGISTRY) == list(CATALOGUE)


def test_each_outcome_is_said_in_words():
    words = [outcome.in_words for outcome in Outcome]
    assert all(words) and len(set(words)) == len(words)


def test_a_source_and_its_credentials_have_settings_of_their_own():
    assert url_setting("bing") == "PICAISSO_BING_URL"
    assert credential_settings() == {
        "openverse_client_id": "PICAISSO_OPENVERSE_CLIENT_ID",
        "openverse_client_secret": "PICAISSO_OPENVERSE_CLIENT_SECRET",
        "pixabay_key": "PICAISSO_PIXABAY_KEY",
    }


@pytest.mark.parametrize(
    "url",
    [
        "https://encrypted-tbn0.gstatic.com/images?q=tbn:abc",
        "https://tse1.mm.bing.net/th?id=OIP.abc&pid=15.1",
        "https://th.bing.com/th/id/OIP.abc?w=200",
        "https://ts2.mm.bing.net/th/id/OIP.abc",
        "https://api.openverse.org/v1/images/abc/thumb/",
        "https://cdn.pixabay.com/photo/2020/01/01/dog_150.jpg",
        "https://images-assets.nasa.gov/image/A/A~thumb.jpg",
        "https://inaturalist-open-data.s3.amazonaws.com/photos/7/square.jpg",
        "https://upload.wikimedia.org/wikipedia/commons/thumb/a/ab/X.jpg/120px-X.jpg",
    ],
)
def test_previews_of_sources_are_known_by_their_address(url):
    assert is_thumbnail(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://www.bing.com/search?q=th",
        "https://upload.wikimedia.org/wikipedia/commons/thumb/a/ab/X.jpg/1280px-X.jpg",
        "https://inaturalist-open-data.s3.amazonaws.com/photos/7/large.jpg",
        "https://images-assets.nasa.gov/image/A/A~medium.jpg",
        "https://pages.example/th?id=OIP.abc",
        "https://pixabay.com/get/g1_1280.jpg",
        "http://127.0.0.1:8001/th/1.jpg",
        "http://[::bad",
        "",
    ],
)
def test_other_addresses_are_no_previews(url):
    assert not is_thumbnail(url)


def test_patterns_of_previews_name_a_host_each():
    assert THUMBNAIL_HOSTS
    assert all("." in pattern.partition("/")[0] for pattern in THUMBNAIL_HOSTS)


@pytest.mark.parametrize(
    ("failure", "outcome", "retry_after", "cool_down"),
    [
        (
            FetchFailure(Reason.HTTP_ERROR, "status 429", 429, 42.0),
            Outcome.RATE_LIMITED,
            42.0,
            42.0,
        ),
        (FetchFailure(Reason.HTTP_ERROR, "status 429", 429), Outcome.RATE_LIMITED, 180.0, 180.0),
        (FetchFailure(Reason.HTTP_ERROR, "status 403", 403), Outcome.BLOCKED, None, 3600.0),
        (
            FetchFailure(Reason.HTTP_ERROR, "status 403", 403, 9000.0),
            Outcome.BLOCKED,
            9000.0,
            9000.0,
        ),
        (FetchFailure(Reason.HTTP_ERROR, "status 401", 401), Outcome.BLOCKED, None, 3600.0),
        (
            FetchFailure(Reason.HTTP_ERROR, "status 400", 400),
            Outcome.LAYOUT_CHANGED,
            None,
            21_600.0,
        ),
        (NotJson(Reason.HTTP_ERROR, "", 200), Outcome.LAYOUT_CHANGED, None, 21_600.0),
        (FetchFailure(Reason.HTTP_ERROR, "status 503", 503, 120.0), Outcome.NETWORK, 120.0, 120.0),
        (FetchFailure(Reason.UNREACHABLE, "ClientConnectorError"), Outcome.NETWORK, None, 60.0),
        (FetchFailure(Reason.UNREACHABLE, "deadline"), Outcome.TIMEOUT, None, 60.0),
    ],
)
def test_each_failure_has_an_outcome_a_sentence_and_a_cool_down(
    failure, outcome, retry_after, cool_down
):
    for source in REGISTRY.values():
        result = failed(source, failure)
        assert (result.outcome, result.retry_after, result.cool_down_seconds) == (
            outcome,
            retry_after,
            cool_down,
        )
        assert source.label in result.message
        assert result.message.endswith(".")


def test_ends_that_are_no_failure_need_no_cool_down():
    calm = {Outcome.OK, Outcome.PARTIAL, Outcome.NO_RESULTS, Outcome.NOT_APPLICABLE}
    assert {
        outcome for outcome in Outcome if SearchResult(outcome).cool_down_seconds is None
    } == calm
    assert set(COOL_DOWN_SECONDS) == set(Outcome) - calm


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 second"),
        (42, "42 seconds"),
        (119, "119 seconds"),
        (180, "3 minutes"),
        (7200, "2 hours"),
    ],
)
def test_a_wait_is_said_in_words(seconds, words):
    result = rate_limited(REGISTRY["openverse"], (), SearchStats(), seconds)
    assert result.message == f"Openverse asks us to wait {words}."


def test_credentials_stand_in_no_text():
    assert "hidden" not in repr(SearchOptions(credentials={"pixabay_key": "hidden"}))
