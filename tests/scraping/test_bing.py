"""The Bing adapter, driven by the real Chromium against a replica of the site."""

import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from scraping.net.browser import Browser, BrowserSettings
from scraping.sources.bing import BingPage, BingReader, parse_tile, search_url
from scraping.sources.catalogue import Outcome
from tests.replicas.bing import BingReplica
from tests.replicas.server import Replica, Response
from tests.scraping.conftest import config_for, descendants, wait_until
from tests.scraping.source_client import SourceClient

pytestmark = pytest.mark.timeout(90)


@pytest.mark.browser
def test_scrolling_and_see_more_reach_every_picture_and_end_when_nothing_new_comes(ask):
    with BingReplica(total=196) as site:
        result = ask("bing", config_for({"bing": site}), "corgi", limit=500)
        assert result.outcome is Outcome.PARTIAL, result
        assert [candidate.rank for candidate in result.candidates] == list(range(1, 197))
        assert len({candidate.image_url for candidate in result.candidates}) == 196
        assert result.stats.ended_by == "nothing new"
        first = result.candidates[0]
        assert first.title == "corgi & friends 1"
        assert first.page_url == "https://pages.example/1"
        assert all(
            (candidate.width, candidate.height) == (320, 240) for candidate in result.candidates
        )
        assert site.asked("/images/search")[0].query["adlt"] == "strict"


@pytest.mark.browser
def test_it_stops_as_soon_as_enough_is_found(ask):
    with BingReplica(total=400) as site:
        result = ask("bing", config_for({"bing": site}), "corgi", limit=50)
        assert result.outcome is Outcome.OK
        assert len(result.candidates) == 50
        assert len(site.asked("/images/async")) <= 2


@pytest.mark.browser
@pytest.mark.parametrize(
    ("words", "outcome", "found"),
    [
        ("noresults", Outcome.NO_RESULTS, 0),
        ("captcha", Outcome.BLOCKED, 0),
        ("shell", Outcome.BLOCKED, 0),
        ("forbidden", Outcome.BLOCKED, 0),
        ("overloaded", Outcome.NETWORK, 0),
        ("changed", Outcome.LAYOUT_CHANGED, 0),
        ("drifted", Outcome.LAYOUT_CHANGED, 12),
        ("throttled", Outcome.RATE_LIMITED, 70),
        ("broken", Outcome.NETWORK, 70),
        ("flaky", Outcome.PARTIAL, 80),
        ("silent", Outcome.PARTIAL, 80),
    ],
)
def test_each_way_it_can_end_has_its_outcome_and_its_sentence(ask, words, outcome, found):
    total = 35 if words == "drifted" else 80
    with BingReplica(total=total) as site:
        result = ask("bing", config_for({"bing": site}), words, limit=90)
        assert (result.outcome, len(result.candidates)) == (outcome, found), result
        assert result.message.endswith(".")
        assert "Bing" in result.message


@pytest.mark.browser
def test_a_filter_reaches_the_server_with_a_plain_plus():
    with BingReplica(total=35) as site:
        address = search_url(site.url, "shiba inu", "en-US", ("photo-photo", "license-L2_L3"))
        with Browser(BrowserSettings(allowed_hosts=(site.host,))) as browser:
            browser.run(lambda driver: driver.get(address))
        assert (
            "&qft=+filterui:photo-photo+filterui:license-L2_L3"
            in site.asked("/images/search")[0].target
        )


@pytest.mark.browser
@pytest.mark.parametrize("victim", ["chromedriver", "chromium"])
def test_a_killed_browser_is_built_once_more_and_the_query_repeated(ask, victim):
    with BingReplica(total=150) as site:
        killed = []

        def kill_when_scrolling() -> None:
            wait_until(lambda: site.asked("/images/async"))
            drivers = [pid for pid in descendants(os.getpid()) if _name(pid) == "chromedriver"]
            below = [
                pid for driver in drivers for pid in descendants(driver) if _name(pid) == "chromium"
            ]
            killed.extend(drivers if victim == "chromedriver" else [min(below)])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_when_scrolling)
        killer.start()
        result = ask("bing", config_for({"bing": site}), "corgi", limit=140)
        killer.join()
        assert killed
        assert result.outcome is Outcome.OK, result
        assert len(site.asked("/images/search")) == 2


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.mark.browser
@pytest.mark.parametrize("words", ["changed", "drifted"])
def test_a_page_that_is_not_understood_is_saved_with_a_screenshot(words, tmp_path):
    with BingReplica(total=35) as site, ExitStack() as browsers:
        result = SourceClient("bing", site, browsers).search(
            words, limit=60, snapshot_dir=str(tmp_path / "evidence")
        )
        assert result.outcome is Outcome.LAYOUT_CHANGED
        assert result.cool_down_seconds == 6 * 3600
        page = Path(result.snapshot)
        assert page.parent == tmp_path / "evidence"
        assert f"<title>{words}" in page.read_text()
        assert page.stat().st_size <= 1 << 20
        assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.browser
def test_a_page_that_does_not_come_in_time_is_no_block_and_never_the_page_before():
    with BingReplica(total=35) as site, ExitStack() as browsers:
        browser = browsers.enter_context(Browser(BrowserSettings(allowed_hosts=(site.host,))))
        client = SourceClient("bing", site, browser=browser)
        assert client.search("corgi", limit=10).outcome is Outcome.OK
        started = time.monotonic()
        result = client.search("slow", limit=10, seconds=2)
        assert (result.outcome, result.candidates) == (Outcome.TIMEOUT, ()), result
        assert result.message == "Bing did not answer in time."
        assert time.monotonic() - started < 10


@pytest.mark.browser
@pytest.mark.parametrize(("words", "choices"), [("corgi", ["reject"]), ("nocookies", [])])
def test_the_question_about_cookies_is_answered_with_no_where_it_is_asked(words, choices):
    with BingReplica(total=80) as site, ExitStack() as browsers:
        assert SourceClient("bing", site, browsers).search(words, limit=60).outcome is Outcome.OK
        assert [request.query["choice"] for request in site.asked("/cookies")] == choices


class _Tripwire(Replica):
    def respond(self, request):
        return Response(b"caught")


@pytest.mark.browser
def test_the_browser_reaches_nothing_but_the_hosts_of_its_source(ask):
    with _Tripwire() as other, BingReplica(total=35) as site:
        port = other.host.partition(":")[2]
        names = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "127.1")
        addresses = [f"http://{name}:{port}/caught" for name in names] + [
            f"ws://127.0.0.1:{port}/caught"
        ]
        site.extra = (
            "".join(
                f'<iframe src="{a}"></iframe><link rel=stylesheet href="{a}">'
                f'<script src="{a}"></script>'
                for a in addresses
            )
            + '<iframe src="file:///etc/passwd"></iframe>'
        )
        result = ask("bing", config_for({"bing": site}), "corgi", limit=60)
        assert len(result.candidates) == 35
        assert other.requests == []


@pytest.mark.browser
def test_a_browser_that_cannot_start_makes_the_source_unavailable_with_the_reason(ask):
    with BingReplica() as site:
        missing = ask("bing", config_for({"bing": site}, chrome="/nowhere/chromium"), "corgi")
        assert missing.outcome is Outcome.UNAVAILABLE
        assert "/nowhere/chromium" in missing.message
        started = time.monotonic()
        broken = ask("bing", config_for({"bing": site}, chrome="/bin/false"), "corgi")
        assert broken.outcome is Outcome.UNAVAILABLE
        assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("robots", "mode", "outcome"),
    [
        ("User-agent: *\nDisallow: /images/search\n", "respect", Outcome.NOT_APPLICABLE),
        ("User-agent: *\nDisallow: /*?q=\n", "respect", Outcome.NOT_APPLICABLE),
        ("User-agent: *\nDisallow: /images/async\n", "respect", Outcome.NOT_APPLICABLE),
        (
            "User-agent: picaisso\nDisallow: /\n\nUser-agent: *\nAllow: /\n",
            "respect",
            Outcome.NOT_APPLICABLE,
        ),
    ],
)
def test_robots_rules_that_exclude_the_result_page_are_respected(ask, robots, mode, outcome):
    with BingReplica(robots=robots) as site:
        result = ask("bing", config_for({"bing": site}, robots=mode), "corgi")
        assert result.outcome is outcome
        assert "robots" in result.message
        assert site.asked("/images/search") == []


@pytest.mark.browser
def test_an_operator_who_answers_for_the_source_is_not_stopped_by_robots_rules(ask):
    with BingReplica(total=35, robots="User-agent: *\nDisallow: /\n") as site:
        result = ask("bing", config_for({"bing": site}, robots="operator"), "corgi", limit=20)
        assert result.outcome is Outcome.OK
        assert site.asked("/robots.txt") == []


def test_with_open_licences_only_bing_is_skipped_in_words(ask):
    with BingReplica() as site:
        result = ask("bing", config_for({"bing": site}, license="open"), "corgi")
        assert result.outcome is Outcome.NOT_APPLICABLE
        assert "licence" in result.message
        assert site.requests == []


@pytest.mark.parametrize(
    ("facts", "address"),
    [
        ('{"murl": "https://a.example/x y.jpg"}', "https://a.example/x%20y.jpg"),
        ('{"murl": "HTTP://a.example/x.webp", "t": null, "purl": 5}', "HTTP://a.example/x.webp"),
        ('{"murl": "x-raw-image:///abc"}', None),
        ('{"murl": 7}', None),
        ("[]", None),
        ("null", None),
        ("", None),
    ],
)
def test_a_tile_is_a_candidate_or_nothing(facts, address):
    candidate = parse_tile(facts, "", "")
    assert (candidate.image_url if candidate else None) == address


def test_words_of_a_block_in_a_page_with_results_container_do_not_make_it_blocked():
    page = BingPage(
        count=0,
        results=True,
        search_box=True,
        url="https://b.example/images/search",
        text="nothing",
        status=200,
        tiles=[],
        see_more=False,
        length=9000,
        fragment_status=0,
    )
    assert BingReader.classify_empty(page) is Outcome.NO_RESULTS
