"""The Google adapter, driven by the real Chromium against a replica of the site."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from scraping.net.browser import Browser, BrowserSettings
from scraping.sources import google
from scraping.sources.catalogue import CATALOGUE, Outcome, in_order
from scraping.sources.google import (
    GooglePage,
    GoogleReader,
    Original,
    Panel,
    is_original,
    parse_panel,
    search_url,
)
from tests.replicas.google import NEVER_SHOWN, GoogleReplica
from tests.replicas.pictures import jpeg
from tests.replicas.server import Replica, Response
from tests.scraping.source_client import SourceClient

pytestmark = pytest.mark.timeout(120)
EMPTY_PAGE = GooglePage(
    count=0,
    results=False,
    search_box=False,
    url="https://www.google.com/search",
    text="",
    status=200,
    tiles=[],
    panels=0,
    reject=False,
    captcha=False,
)


@pytest.fixture
def browsers():
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def site():
    with GoogleReplica() as replica:
        yield replica


@pytest.fixture(scope="module")
def google_client(site):
    with ExitStack() as stack:
        yield SourceClient("google", site, stack)


@pytest.mark.browser
def test_each_tile_is_clicked_once_and_gives_its_original_with_page_and_caption(
    google_client, site, monkeypatch
):
    monkeypatch.setattr(google, "GROWTH_SECONDS", 0.5)
    monkeypatch.setattr(google, "OPEN_SECONDS", 2.0)
    result = google_client.search("corgi", limit=50)
    assert result.outcome is Outcome.PARTIAL, result
    numbers = [
        int(candidate.image_url.rpartition("/")[2].removesuffix(".jpg"))
        for candidate in result.candidates
    ]
    assert numbers == [number for number in range(12) if number != NEVER_SHOWN]
    first = result.candidates[0]
    assert (first.page_url, first.title) == ("https://pages.example/0", "caption & 0")
    assert (first.width, first.height, first.license_basis) == (320, 240, "unknown")
    assert (result.stats.seen, result.stats.dropped) == (12, 1)
    clicked = [int(request.query["number"]) for request in site.asked("/clicked")]
    assert clicked == list(range(12))
    assert site.asked("/search")[0].query["safe"] == "active"
    assert google_client.paces.count(1.0) == 12


@pytest.mark.browser
def test_scrolling_brings_more_tiles_and_it_stops_when_enough_is_found(browsers, monkeypatch):
    monkeypatch.setattr(google, "OPEN_SECONDS", 2.0)
    with GoogleReplica(total=40) as site:
        result = SourceClient("google", site, browsers).search("corgi", limit=15)
        assert result.outcome is Outcome.OK, result
        assert len(site.asked("/clicked")) == 16


class PictureHost(Replica):
    def respond(self, request):
        return Response(jpeg(int(request.path.strip("/.jpg"))), "image/jpeg")


@pytest.mark.browser
@pytest.mark.parametrize(
    ("allowed", "outcome"), [(True, Outcome.OK), (False, Outcome.LAYOUT_CHANGED)]
)
def test_originals_are_loaded_from_other_hosts_but_never_from_private_ones(
    allowed, outcome, monkeypatch
):
    monkeypatch.setattr(google, "OPEN_SECONDS", 2.0)
    monkeypatch.setattr(google, "GROWTH_SECONDS", 0.3)
    with PictureHost() as host, GoogleReplica(total=3, pictures=host.url + "/{}.jpg") as site:
        hosts = (host.host,) if allowed else ()
        settings = BrowserSettings(allowed_hosts=(site.url,), allowed_private_hosts=hosts)
        with Browser(settings) as browser:
            result = SourceClient("google", site, browser=browser).search("corgi", limit=3)
        assert result.outcome is outcome, result
        assert bool(host.requests) == allowed
        assert [candidate.image_url for candidate in result.candidates] == (
            [f"{host.url}/{number}.jpg" for number in range(3)] if allowed else []
        )


@pytest.mark.browser
@pytest.mark.parametrize("words", ["consent", "dialog"])
def test_the_question_about_cookies_is_answered_with_no(browsers, words):
    with GoogleReplica() as site:
        result = SourceClient("google", site, browsers).search(words, limit=2)
        assert (result.outcome, len(result.candidates)) == (Outcome.OK, 2), result
        assert site.choices == (["reject"] if words == "consent" else [])


@pytest.mark.browser
@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ("sorry", Outcome.BLOCKED),
        ("noscript", Outcome.BLOCKED),
        ("forbidden", Outcome.BLOCKED),
        ("overloaded", Outcome.NETWORK),
        ("noresults", Outcome.NO_RESULTS),
    ],
)
def test_each_way_it_can_end_has_its_outcome_and_its_sentence(google_client, words, outcome):
    result = google_client.search(words, limit=5)
    assert (result.outcome, result.candidates) == (outcome, ()), result
    assert result.message.endswith(".")
    assert "Google Images" in result.message
    assert result.cool_down_seconds == {Outcome.BLOCKED: 3600, Outcome.NETWORK: 60}.get(outcome)


@pytest.mark.browser
def test_a_question_about_cookies_that_never_ends_is_a_block(google_client, monkeypatch):
    monkeypatch.setattr(google, "CONSENT_SECONDS", 1.0)
    assert google_client.search("wall", limit=5).outcome is Outcome.BLOCKED


@pytest.mark.browser
@pytest.mark.parametrize("words", ["changed", "dead", "previews"])
def test_a_page_that_works_otherwise_now_is_saved_with_a_screenshot(
    google_client, words, tmp_path, monkeypatch
):
    monkeypatch.setattr(google, "OPEN_SECONDS", 0.5)
    result = google_client.search(words, limit=5, snapshot_dir=str(tmp_path))
    assert result.outcome is Outcome.LAYOUT_CHANGED, result
    page = Path(result.snapshot)
    assert f"<title>{words}" in page.read_text()
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.browser
def test_pictures_found_before_the_time_ran_out_are_kept(google_client):
    result = google_client.search("corgi", limit=50, seconds=4)
    assert result.outcome is Outcome.TIMEOUT
    assert 0 < len(result.candidates) < 11


def test_robots_rules_that_exclude_the_search_are_respected(browsers):
    with GoogleReplica(robots="User-agent: *\nDisallow: /search\n") as site:
        result = SourceClient("google", site, browsers).search("corgi")
        assert result.outcome is Outcome.NOT_APPLICABLE
        assert "robots" in result.message
        assert site.asked("/search") == []


def test_it_is_off_unless_asked_for_and_then_the_last():
    assert not CATALOGUE["google"].default
    assert in_order(["google", "bing", "openverse", "bing"]) == ("bing", "openverse", "google")


def test_words_of_the_human_check_in_the_source_of_a_good_page_are_no_block():
    page = replace(
        EMPTY_PAGE,
        url="https://www.google.com/search?q=/sorry/index",
        text="nothing",
        results=True,
        search_box=True,
    )
    assert GoogleReader.classify_empty(page) is Outcome.NO_RESULTS


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("https://www.google.com/sorry/index?continue=x", Outcome.BLOCKED),
        ("https://ipv4.google.com/search", Outcome.BLOCKED),
        ("https://consent.google.com/ml?continue=x", Outcome.BLOCKED),
        ("https://www.google.com/httpservice/retry/enablejs?sei=1", Outcome.BLOCKED),
        ("https://www.google.com/search", Outcome.LAYOUT_CHANGED),
    ],
)
def test_the_address_tells_a_block_from_a_changed_page(url, outcome):
    assert GoogleReader.classify_empty(replace(EMPTY_PAGE, url=url)) is outcome


def test_previews_are_never_taken_for_the_original():
    preview = ["https://encrypted-tbn0.gstatic.com/images?q=tbn:1", 200, 150]
    icon = ["https://shop.example/icon.png", 16, 16]
    assert (
        parse_panel(Panel(1, [preview, icon, ["data:image/jpeg;base64,x", 300, 200]], "", ""))
        is None
    )
    original = ["https://a.example/x.jpg", 800, 600]
    assert parse_panel(Panel(1, [preview, original], "", "")) == Original(*original)
    link = (
        "https://www.google.com/imgres?imgurl=https%3A%2F%2Fa.example%2Fx.jpg%3Fa%3D1&w=800&h=6oo"
    )
    assert parse_panel(Panel(1, [preview], link, "")) == Original(
        "https://a.example/x.jpg?a=1", 800, None
    )
    assert not is_original("https://lh3.googleusercontent.com/abc")


def test_the_address_of_the_search_names_language_country_and_strict_filter():
    assert search_url("https://g.example", "shiba inu", "pt-BR") == (
        "https://g.example/search?q=shiba%20inu&udm=2&hl=pt&safe=active&gl=br"
    )
