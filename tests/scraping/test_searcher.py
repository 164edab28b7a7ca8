"""How sources are asked: one question at a time, and one browser for all."""

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from scraping.collect import collect
from scraping.search.searcher import SourceThread
from scraping.sources.catalogue import Outcome
from tests.replicas.bing import BingReplica
from tests.replicas.google import GoogleReplica
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures_host import PictureHost
from tests.replicas.server import Request, Response, json_response
from tests.scraping.collect_folder import (
    check_folder,
    classes,
    configuration,
    rows,
)
from tests.scraping.conftest import (
    config_for,
    descendants,
    wait_until,
)

pytestmark = pytest.mark.timeout(120)


def test_the_question_for_the_shortest_class_is_put_first():
    thread = SourceThread("test")
    kept = {"full": 9, "short": 1, "half": 5}
    begin, order = threading.Event(), []

    async def run() -> None:
        first = asyncio.ensure_future(thread.run(lambda: begin.wait(10), lambda: 0.0))
        await asyncio.sleep(0.05)
        waiting = [
            asyncio.ensure_future(
                thread.run(lambda n=name: order.append(n), lambda n=name: kept[n])
            )
            for name in kept
        ]
        await asyncio.sleep(0.05)
        kept["half"] = 0  # what counts is how it stands when the source is free
        begin.set()
        await asyncio.gather(first, *waiting)

    asyncio.run(run())
    thread.finish(lambda: None, 5)
    assert order == ["half", "short", "full"]


@pytest.mark.browser
def test_a_browser_source_waits_for_its_turn_and_gives_it_back(tmp_path):
    with PictureHost() as host, BingReplica(pictures=host.url + "/pic/{}.jpg") as site:
        config = configuration(
            {"bing": site}, [host], sources=["bing"], limit=5, browser_turns=True
        )
        asked_before_granted, done = [], threading.Event()

        def grant() -> None:
            wait_until((tmp_path / "browser.wanted").exists, 20)
            time.sleep(0.5)
            asked_before_granted.append(len(site.requests))
            while not done.wait(0.1):
                if (tmp_path / "browser.wanted").exists():
                    (tmp_path / "browser.granted").touch()

        granting = threading.Thread(target=grant)
        granting.start()
        try:
            result = collect(tmp_path, config)
        finally:
            done.set()
            granting.join()
        (tmp_path / "browser.granted").unlink(missing_ok=True)  # a grant that crossed the end
        assert asked_before_granted == [0]
        assert result["classes"][0]["kept"] == 5
        assert not list(tmp_path.glob("browser.*"))


@pytest.mark.browser
def test_two_browser_sources_and_two_classes_share_one_browser(tmp_path):
    with (
        PictureHost() as host,
        BingReplica(total=5, pictures=host.url + "/pic/9{}.jpg") as bing,
        GoogleReplica() as google,
    ):
        config = configuration(
            {"bing": bing, "google": google}, [host], sources=["google", "bing"], limit=8,
            classes=classes("cat", "noresults fish photo"),
        )  # fmt: skip
        most, done = [0], threading.Event()

        def count() -> None:
            while not done.wait(0.05):
                names = [process_name(pid) for pid in descendants(os.getpid())]
                most[0] = max(most[0], names.count("chromedriver"))

        counting = threading.Thread(target=count)
        counting.start()
        try:
            result = collect(tmp_path, config)
        finally:
            done.set()
            counting.join()
        check_folder(tmp_path, result)
        assert most == [1]
        assert [entry["kept"] for entry in result["classes"]] == [8, 0]
        assert {row["source"] for row in rows(tmp_path) if row["state"] == "kept"} == {
            "bing",
            "google",
        }


def process_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_a_turn_that_never_comes_skips_the_source_in_words(tmp_path):
    with (
        PictureHost() as host,
        BingReplica() as site,
        OpenverseReplica(host.url + "/pic/{}.jpg") as other,
    ):
        config = configuration(
            {"bing": site, "openverse": other}, [host], sources=["bing", "openverse"],
            browser_turns=True, deadline_seconds=4,
        )  # fmt: skip
        result = collect(tmp_path, config)
        said = {entry["name"]: entry for entry in result["sources"]}
        assert said["bing"]["outcome"] == "not_applicable"
        assert "the browser was in use" in said["bing"]["message"]
        assert site.requests == []
        assert said["bing"]["cool_down_seconds"] is None
        assert not list(tmp_path.glob("browser.*"))


HTML = Response(b"<html><h1>Not acceptable", "text/html")
PROVOKED = [
    Response(b"no", "text/plain", 400),
    Response(b"no", "text/plain", 403),
    Response(b"no", "text/plain", 405),
    Response(b"no", "text/plain", 406),
    Response(b"no", "text/plain", 418),
    Response(b"no", "text/plain", 451),
    Response(b"no", "text/plain", 500),
    Response(status=302, headers={"Location": "/"}),
    Response(status=302, headers={"Location": "http://169.254.169.254/"}),
    HTML,
    json_response({"error": "bad words"}),
    json_response([]),
    json_response({"results": [{}] * 20, "page_count": 1}),
]


class Guarded(OpenverseReplica):
    """An Openverse behind a program that answers odd words, or after a while all, in its way."""

    def __init__(self, provoked: Response, always: bool = False) -> None:
        super().__init__()
        self.provoked = provoked
        self.always = always

    def respond(self, request: Request) -> Response:
        words = request.query.get("q", "")
        if self.always or "insource" in words or not words:
            return self.provoked
        return super().respond(request)


@pytest.mark.parametrize("provoked", PROVOKED, ids=lambda answer: f"{answer.status}")
def test_what_one_person_s_words_provoke_ends_that_search_and_never_the_source(provoked, ask):
    with Guarded(provoked) as site:
        config = config_for({"openverse": site})
        result = ask("openverse", config, "insource:/[/")
        assert result.cool_down_seconds is None
        assert "changed its pages" not in result.message
        assert ask("openverse", config, "insource:/]/").cool_down_seconds is None
        assert ask("openverse", config, "insource:/)/").cool_down_seconds is None
        assert len([request for request in site.requests if request.query.get("q") == "cat"]) <= 1
        assert ask("openverse", config, "owl").outcome is Outcome.OK


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Response(b"no", "text/plain", 403), Outcome.BLOCKED),
        (HTML, Outcome.LAYOUT_CHANGED),
        (Response(status=302, headers={"Location": "/"}), Outcome.NETWORK),
    ],
)
def test_a_source_that_fails_for_its_own_words_too_is_left_alone(answer, outcome, ask):
    with Guarded(answer, always=True) as site:
        config = config_for({"openverse": site})
        ask("openverse", config, "owl")
        result = ask("openverse", config, "cow")
        assert result.outcome is outcome and result.cool_down_seconds
        ask("openverse", config, "hen")
        control = {request.target for request in site.requests if request.query.get("q") == "cat"}
        assert len(control) == 1, "its own words are not asked again"


def test_a_source_that_asks_for_time_when_it_is_checked_is_given_it(ask):
    class Tired(Guarded):
        def respond(self, request: Request) -> Response:
            if request.query.get("q") == "cat":
                return Response(b"later", "text/plain", 429, {"Retry-After": "77"})
            return super().respond(request)

    with Tired(HTML) as site:
        result = ask("openverse", config_for({"openverse": site}), "insource:/x/")
        assert (result.outcome, result.cool_down_seconds) == (Outcome.RATE_LIMITED, 77)
