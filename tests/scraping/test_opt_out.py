"""What hosts state about the use of their images, parsed and obeyed."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from scraping.download import RetrySettings
from scraping.download_list import DownloadSettings, download_list
from scraping.net.http import FetchSettings
from scraping.net.opt_out import (
    HostStatements,
    header_objection,
    robots_statements,
    robots_tag_objection,
    tdm_statements,
    usage_preferences,
)
from scraping.screening.screen import ScreenSettings
from tests.replicas.pictures_host import MISBEHAVIOUR, PictureHost
from tests.replicas.server import Response

SIGNAL = "robots.txt: Content-Signal ai-train=no"
USAGE = "robots.txt: Content-Usage train-ai=n"
USAGE_HEADER = "header Content-Usage: train-ai=n"
MINING = "tdmrep.json: text and data mining is reserved"


def robots(text: str, path: str = "/a/b.jpg") -> str:
    return robots_statements(text.encode()).objection(path)


def entry(location: str, reservation: object, **others: object) -> dict:
    return {"location": location, "tdm-reservation": reservation} | others


def tdm(entries: object, path: str = "/a/b.jpg") -> str:
    return tdm_statements(json.dumps(entries).encode()).objection(path)


@pytest.mark.parametrize(
    ("text", "objection"),
    [
        ("", ""),
        ("User-agent: *\nDisallow: /", ""),
        ("User-Agent: *\nContent-Signal: search=yes, ai-input=no, ai-train=no\nAllow: /", SIGNAL),
        ("user-agent:*\r\ncontent-signal:search=yes,ai-train=NO", SIGNAL),
        ("User-agent: *\rContent-Signal: ai-train=no # as of today", SIGNAL),
        ("\ufeffUser-agent: *\nContent-Signal: ai-train=no", SIGNAL),
        ("User-agent: *\nContent-Signal: search=no, ai-input=no", ""),
        ("User-agent: *\nContent-Signal: ai-train=yes", ""),
        ("Content-Signal: ai-train=no\nUser-agent: *\nAllow: /", SIGNAL),
        ("User-agent: GPTBot\nContent-Signal: ai-train=no", ""),
        ("User-agent: GPTBot\nUser-agent: *\nContent-Signal: ai-train=no", SIGNAL),
        ("User-agent: Picaisso/1.0\nContent-Signal: ai-train=no", SIGNAL),
        ("User-agent: picaisso\nAllow: /\nUser-agent: *\nContent-Signal: ai-train=no", ""),
        ("User-agent: *\nAllow: /\nUser-agent: x\nContent-Signal: ai-train=no", ""),
        ("User-agent: *\nAllow: /\n\nUser-agent: *\nContent-Usage: train-ai=n", USAGE),
        ("User-agent: *\nContent-Signal: /a/ ai-train=no", SIGNAL),
        ("User-agent: *\nContent-Signal: /c/ ai-train=no", ""),
        ("User-agent: *\nContent-Usage: train-ai=n", USAGE),
        ("User-agent: *\nContent-Usage\t:\t/a/\ttrain-ai=n", USAGE),
        ("User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /a/ train-ai=y", ""),
        ("User-agent: *\nContent-Usage: /a/ train-ai=n\nContent-Usage: train-ai=y", USAGE),
        ("User-agent: *\nContent-Usage: /a/ search=n\nContent-Usage: train-ai=n", ""),
        ("User-agent: *\nContent-Usage: /a/ train-ai=y\nContent-Usage: /a/ train-ai=n", USAGE),
        ("User-agent: *\nContent-Usage: /a/ train-ai=n\nContent-Usage: /a/ train-ai=y", USAGE),
        ("User-agent: *\nContent-Usage: /*.jpg$ train-ai=n\nContent-Usage: / train-ai=y", USAGE),
        ("User-agent: *\nContent-Usage: /a/b train-ai=n\nContent-Usage: /a/b.jpg$ bots=y", ""),
        ("User-agent: *\nContent-Usage: bots=n", USAGE),
        ("User-agent: *\nContent-Usage: bots=n, train-ai=y", ""),
        ("User-agent: *\nContent-Usage: all=n;since=2025", USAGE),
        ("User-agent: *\nContent-Usage: train-genai=n, search=n, ai-use=n", ""),
        ("User-agent: *\nContent-Usage: train-ai=n, train-ai=y", ""),
        ("User-agent: *\nContent-Usage: Train-AI=n", ""),
        ("User-agent: *\nContent-Usage: train-ai=n,", ""),
        ("User-agent: *\nContent-Usage: train-ai=y\nContent-Signal: ai-train=no", SIGNAL),
        ("<!doctype html>\nUser-agent: *\nContent-Signal: ai-train=no", ""),
        ("Content-Signal ai-train=no", ""),
    ],
)
def test_a_robots_file_is_read_as_its_groups_paths_and_labels_say(text, objection):
    assert robots(text) == objection


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/", "/x.jpg", True),
        ("/fish", "/fish.html?id=1", True),
        ("/fish/", "/fish", False),
        ("/fish*.php", "/fishheads/catfish.php?parameters", True),
        ("/*.jpg$", "/a.jpg?size=2", False),
        ("/*.jpg", "/a.jpg?size=2", True),
        ("/a$", "/a", True),
        ("/a$", "/ab", False),
        ("/foo/bar/%62%61%7A", "/foo/bar/baz", True),
        ("/foo/bar/%E3%83%84", "/foo/bar/ツ", True),
        ("/foo/bar/ツ", "/foo/bar/%e3%83%84", True),
        ("/star-%2A.jpg", "/star-*.jpg", True),
        ("/star-%2A.jpg", "/star-x.jpg", False),
        ("/path/foo-%24", "/path/foo-$", True),
        ("/Case", "/case", False),
        ("/*a*a*a$", "/" + "a" * 5000, True),
        ("/*a*b*c", "/" + "ab" * 4000, False),
    ],
)
def test_a_pattern_matches_a_path_however_either_is_written(pattern, path, matches):
    text = f"User-agent: *\nContent-Usage: {pattern} train-ai=n"
    assert bool(robots(text, path)) is matches
    assert bool(tdm([{"location": pattern, "tdm-reservation": 1}], path)) is matches


@pytest.mark.parametrize(
    ("entries", "objection"),
    [
        ([], ""),
        ([entry("/", 1)], MINING),
        ([entry("/", 0)], ""),
        (
            [
                entry("/a/*.jpg", 0),
                entry("/", 1),
            ],
            "",
        ),
        (
            [entry("/a", 1), entry("/a/", 0)],
            MINING,
        ),
        (
            [{"location": "/", "tdm-reservation": 1, "tdm-policy": "https://example.org/p"}],
            MINING + ", terms at https://example.org/p",
        ),
        ([{"location": "/", "tdm-reservation": 1, "tdm-policy": "javascript:x"}], MINING),
        ([entry("/", True)], ""),
        ([entry("/", 10**30)], ""),
        ([{"location": "/"}], ""),
        ([{"location": 7, "tdm-reservation": 1}, None, "x", [], {}], ""),
        (entry("/", 1), ""),
        ("x", ""),
    ],
)
def test_the_first_match_of_a_tdm_file_decides(entries, objection):
    assert tdm(entries) == objection


@pytest.mark.parametrize(
    ("headers", "objection"),
    [
        ([], ""),
        ([("X-Robots-Tag", "noarchive, noai")], "header X-Robots-Tag: noai"),
        ([("Content-Usage", "train-ai=n")], USAGE_HEADER),
        (
            [("Content-Usage", "search=y"), ("content-usage", "bots=n")],
            "header Content-Usage: train-ai=n",
        ),
        (
            [("Content-Usage", "train-ai=n"), ("Content-Usage", "???")],
            "header Content-Usage: train-ai=n",
        ),
        ([("Content-Usage", "train-ai=n"), ("Content-Usage", "train-ai=y")], ""),
        ([("Content-Usage", 'train-ai="n"')], ""),
        ([("Content-Usage", "x=(a b;c=1), train-ai=n;q=0.5")], USAGE_HEADER),
        ([("TDM-Reservation", "1")], "header tdm-reservation: text and data mining is reserved"),
        ([("tdm-reservation", "0")], ""),
        ([("tdm-reservation", "yes")], ""),
        (
            [("tdm-reservation", " 1 "), ("tdm-policy", "https://example.org/p")],
            "header tdm-reservation: text and data mining is reserved, terms at https://example.org/p",
        ),
    ],
)
def test_the_headers_of_a_picture_are_read(headers, objection):
    assert header_objection(CIMultiDictProxy(CIMultiDict(headers))) == objection


@pytest.mark.parametrize(
    ("headers", "out"),
    [
        ([], False),
        (["all"], False),
        (["noai"], True),
        (["NoImageAI"], True),
        (["noarchive, noindex"], True),
        (["googlebot: noindex"], False),
        (["googlebot: nofollow, noindex"], False),
        (["picaisso: noai"], True),
        (["googlebot: noai", "noimageindex"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], True),
        (["max-image-preview: none"], False),
    ],
)
def test_opt_outs_count_when_they_are_for_everybody_or_for_us(headers, out):
    assert bool(robots_tag_objection(headers)) is out


LINES = ("User-agent: *", "user-agent", "content-usage:", "Content-Signal:", "\n", "\r", "\ufeff")
SIGNS = (":", " ", "/", "*", "$", "%", "%2A", "=", "n", "no", ",", ";", "(", '"')
PARTS = st.sampled_from([*LINES, *SIGNS, "train-ai=n", "ai-train=no"])
FILES = st.binary(max_size=300) | st.lists(PARTS | st.text(max_size=5), max_size=60).map(
    lambda parts: "".join(parts).encode(errors="surrogatepass")
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["location", "tdm-reservation", "tdm-policy"]), inner, max_size=3
        )
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=100)
@given(
    FILES,
    FILES | VALUES.map(lambda value: json.dumps(value).encode()),
    st.lists(
        st.tuples(st.sampled_from(["X-Robots-Tag", "Content-Usage", "tdm-reservation"]), st.text())
    ),
    st.text(max_size=50),
)
def test_whatever_hosts_write_only_a_verdict_comes_out(robots_file, tdm_file, headers, path):
    of_robots = robots_statements(robots_file)
    statements = HostStatements(of_robots.usage, of_robots.signals, tdm_statements(tdm_file).tdm)
    objection = statements.objection("/" + path)
    assert objection in ("", SIGNAL, USAGE) or objection.startswith(MINING)
    assert isinstance(header_objection(CIMultiDictProxy(CIMultiDict(headers))), str)


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(max_codepoint=127), max_size=200))
def test_a_dictionary_is_read_or_refused_in_little_time(text):
    started = time.monotonic()
    for value in (text, "a=(" + text * 8, "a;" * 500 + text):
        members = usage_preferences(value)
        assert members is None or all(isinstance(name, str) for name in members)
    assert time.monotonic() - started < 0.5


def listing(*hosts: PictureHost, seconds: float = 30) -> DownloadSettings:
    allowed = frozenset(host.host for host in hosts)
    fetching = FetchSettings(allowed_private_hosts=allowed, deadline_seconds=seconds)
    return DownloadSettings(fetching, ScreenSettings(64, 256), RetrySettings(first_seconds=0.05))


def fates(folder: Path, urls: list[str], values: DownloadSettings) -> dict[str, tuple[str, str]]:
    """Download and return reason and detail of each URL."""
    asyncio.run(download_list(urls, folder, values))
    rows = map(json.loads, (folder / "images.jsonl").read_text().splitlines())
    return {row["image_url"]: (row["reason"], row["detail"]) for row in rows}


@pytest.mark.parametrize(
    ("robots_file", "tdm_file", "detail"),
    [
        ("User-agent: *\nContent-Signal: ai-train=no", None, SIGNAL),
        ("User-agent: *\nContent-Usage: /pic/ train-ai=n", None, USAGE),
        ("", [entry("/pic/*.jpg", 1)], MINING),
    ],
)
def test_a_host_that_reserves_is_asked_for_its_statements_and_for_no_picture(
    robots_file, tdm_file, detail, tmp_path
):
    with PictureHost() as host:
        host.state(robots_file, tdm_file)
        urls = [host.picture_url(number) for number in range(20)]
        found = fates(tmp_path, urls, listing(host))
        assert set(found.values()) == {("opted_out", detail)}
        assert host.requests == []
        asked = sorted(request.target for request in host.statement_requests)
        assert asked == ["/.well-known/tdmrep.json", "/robots.txt"], "once each, for 20 pictures"


def test_what_is_reserved_for_some_paths_leaves_the_others(tmp_path):
    with PictureHost() as host:
        host.state("User-agent: *\nContent-Usage: /pic/1 train-ai=n\nDisallow: /")
        urls = [host.picture_url(1), host.picture_url(2), host.url + "/usage", host.url + "/mining"]
        found = fates(tmp_path, urls, listing(host))
        assert [found[url][0] for url in urls] == ["opted_out", None, "opted_out", "opted_out"]
        assert found[urls[3]][1].endswith("terms at https://example.org/terms")


def test_a_redirect_does_not_lead_around_the_statement_of_the_host_behind_it(tmp_path):
    with PictureHost() as host, PictureHost() as other:
        other.state("User-agent: *\nContent-Signal: ai-train=no")
        url = f"{host.url}/redirect?to={other.picture_url(1)}"
        assert fates(tmp_path, [url], listing(host, other)) == {url: ("opted_out", SIGNAL)}
        assert other.requests == []


def slow(handler) -> None:
    time.sleep(3)


def endless(handler) -> None:
    MISBEHAVIOUR["/endless"](handler)


RESERVED = b"User-agent: *\nContent-Signal: ai-train=no\n"


@pytest.mark.parametrize(
    "statement",
    [
        Response(b"gone", "text/plain", 404),
        Response(RESERVED, "text/plain", 500),
        Response(RESERVED, "text/plain", 403),
        Response(b"later", "text/plain", 429, {"Retry-After": "600"}),
        Response(b"<html><body>" + RESERVED, "text/html"),
        Response(bytes(range(256)) * 50, "application/octet-stream"),
        Response(b"[" * 200_000, "application/json"),
        Response(status=302, headers={"Location": "/robots.txt"}),
        Response(status=302, headers={"Location": "http://169.254.169.254/"}),
        Response(status=302, headers={"Location": "ftp://[::1"}),
        slow,
        endless,
        MISBEHAVIOUR["/short"],
        MISBEHAVIOUR["/huge"],
        MISBEHAVIOUR["/drip"],
    ],
)
def test_a_statement_that_cannot_be_had_states_nothing(statement, tmp_path):
    with PictureHost() as host:
        host.statements = dict.fromkeys(["/robots.txt", "/.well-known/tdmrep.json"], statement)
        started = time.monotonic()
        urls = [host.picture_url(1), host.picture_url(2)]
        found = fates(tmp_path, urls, listing(host, seconds=1.5))
        assert {reason for reason, _ in found.values()} == {None}
        assert time.monotonic() - started < 10


def test_a_long_robots_file_is_read_to_its_limit(tmp_path):
    with PictureHost() as host:
        host.state(RESERVED.decode() + "# padding\n" * 200_000)
        found = fates(tmp_path, [host.picture_url(1)], listing(host))
        assert set(found.values()) == {("opted_out", SIGNAL)}
