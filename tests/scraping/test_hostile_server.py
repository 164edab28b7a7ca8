"""A server that answers with whatever its owner likes: sources and pictures end with a reason."""

import asyncio
import gzip
import json
import resource
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scraping.collect import collect
from scraping.download import RetrySettings
from scraping.download_list import DownloadSettings, download_list
from scraping.net.http import FetchSettings, JsonReply, JsonRequest, NotJson, request
from scraping.outside import MAX_ADDRESS_CHARACTERS, MAX_PIXELS_OF_A_SIDE, MAX_WAIT_SECONDS
from scraping.screening.screen import ScreenSettings
from scraping.search.searcher import Searcher
from scraping.sources.base import TEXT_LIMITS, SearchResult
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures import jpeg
from tests.replicas.pictures_host import PictureHost
from tests.scraping.collect_folder import check_folder, configuration
from tests.scraping.conftest import config_for

Answer = bytes | Callable[[socket.socket], None]

SOURCES = ("openverse", "wikimedia", "inaturalist", "gbif", "pixabay", "nasa", "artic", "met")
MAX_GROWTH_BYTES = 400 << 20


class HostileServer:
    """Sends raw bytes, or lets a function do what it likes to the connection.

    `answers` holds them by the first part of the path; others get `anything`.
    """

    def __init__(self, anything: Answer = b"") -> None:
        self.anything = anything
        self.answers: dict[str, Answer] = {}
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> "HostileServer":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(5)
            request = b""
            while b"\r\n\r\n" not in request:
                received = connection.recv(65536)
                if not received:
                    return
                request += received
            path = request.split(b" ", 2)[1].decode("latin-1")
            answer = self.answers.get(path.split("/")[1].split("?")[0], self.anything)
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer)


def raw(
    body: bytes = b"", *headers: bytes, status: bytes = b"200 OK", length: int | None = None
) -> bytes:
    """Return an answer; its Content-Length is the true one unless another is given."""
    said = len(body) if length is None else length
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % said, b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def forever(start: bytes, part: bytes) -> Callable[[socket.socket], None]:
    """Return what sends one part after the other until the client hangs up."""

    def send(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(part)

    return send


def silence(connection: socket.socket) -> None:
    """Say nothing for longer than anybody waits."""
    time.sleep(4)


def redirect(target: bytes) -> bytes:
    return raw(b"", b"Location: " + target, status=b"302 Found")


LISTS = ("results", "hits", "data", "objectIDs")


def answer_of(items: str) -> bytes:
    """Return JSON in which every source finds these items where it looks for its own."""
    lists = ",".join(f'"{name}":{items}' for name in LISTS)
    text = (
        f'{{{lists},"query":{{"pages":{items}}},"collection":{{"items":{items},"links":{items}}},'
        f'"config":{{"iiif_url":"http://x/"}},"continue":{{"a":{items}}},"page_count":9,'
        '"totalHits":9,"usageKey":9,"matchType":"EXACT","canonicalName":"thing",'
        '"rank":"SPECIES","isPublicDomain":true,"primaryImage":"http://x/\\ud83d"}'
    )
    return text.encode("utf-8", "surrogatepass")


NAMES = """
url title width height license creator filetype index imageinfo thumburl extmetadata
webformatURL largeImageURL user tags image_id is_public_domain id artist_display data
links href media identifier photos license_code attribution taxon name matched_term
references type rel nasa_id vernacularNames vernacularName key nubKey mime
"""

ODD_VALUES = {
    "null": "null",
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "beyond a float": "1e999",
    "huge": "9" * 5000,
    "an object for a list": '{"a":{"b":[1]}}',
    "nested": "[" * 100_000 + "]" * 100_000,
    "a text for a number": '"12"',
    "half an emoji": '"http://x/\\ud83d.jpg"',
    "true": "true",
    "numbers": "[0,-1,1e400,9007199254740993,true]",
    "no object": '[[],"x",null,{}]',
}


def entry(value: str) -> str:
    """Return an entry with the names that the sources look for, all with the same value."""
    names = NAMES.split()
    pairs = ",".join(f'"{name}":{value},"{name}":{value}' for name in names)
    return f"{{{pairs}}}"


JSON_KIND = b"Content-Type: application/json; charset=klingon"
GOOD = answer_of("[]")
ANSWERS: dict[str, Answer] = {
    "empty": raw(),
    "HTML": raw(b"<!doctype html><h1>Welcome", b"Content-Type: text/html"),
    "invalid UTF-8": raw(b'{"results":["\xff\xfe\xc3"]}', JSON_KIND),
    "UTF-16": raw('{"results":[]}'.encode("utf-16"), JSON_KIND),
    "only brackets": raw(b"[" * 500_000),
    "a broken number": raw(b'{"results":[1.e+]}'),
    "millions of entries": raw(answer_of("[" + "1," * 400_000 + "1]")),
    "gzip of gzip": raw(gzip.compress(gzip.compress(GOOD)), b"Content-Encoding: gzip"),
    "gzip, gzip": raw(gzip.compress(gzip.compress(GOOD)), b"Content-Encoding: gzip, gzip"),
    "broken gzip": raw(gzip.compress(GOOD)[:40], b"Content-Encoding: gzip"),
    "no gzip": raw(GOOD, b"Content-Encoding: gzip"),
    "no deflate": raw(b"\x78\x9c\xff\xff", b"Content-Encoding: deflate"),
    "no brotli": raw(b"\xff\x00brrr", b"Content-Encoding: br"),
    "unknown coding": raw(GOOD, b"Content-Encoding: klingon"),
    "gzip bomb": raw(gzip.compress(b" " * (200 << 20), 1), b"Content-Encoding: gzip"),
    "deflate bomb": raw(zlib.compress(b" " * (200 << 20), 1), b"Content-Encoding: deflate"),
    "more promised": raw(b'{"results":[]}', length=10_000),
    "less promised": raw(b'{"results":[]}', length=3),
    "exabytes promised": raw(b'{"results":[]}', length=10**18),
    "negative length": raw(b"{}", length=-5),
    "two lengths": raw(b"{}", b"Content-Length: 7"),
    "endless headers": forever(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"a" * 8000 + b"\r\n"),
    "endless short headers": forever(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 1000),
    "endless header line": forever(b"HTTP/1.1 200 OK\r\nX-More: ", b"a" * 65536),
    "endless status line": forever(b"HTTP/1.1 200 ", b"a" * 65536),
    "endless body": forever(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
    "bare CR in a header": raw(GOOD, b"X-Odd: a\rSet-Cookie: b=c"),
    "folded header": raw(GOOD, b"X-Odd: a\r\n b"),
    "bytes in a header": raw(GOOD, b"X-Odd: \xff\xfe\x80", b"Retry-After: \xff"),
    "zero byte in a header": raw(GOOD, b"X-Odd: a\x00b"),
    "no header at all": b"hello\r\n\r\n",
    "HTTP/9": b"HTTP/9.9 999 Never\r\n\r\n",
    "status of letters": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "odd cookies": raw(GOOD, *[b"Set-Cookie: a\xff=;=; Domain=.; Max-Age=1e99; \x01=2"] * 50),
    "torn chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1,2,\r\n3\r\n1",
    "no chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    "a chunk of exabytes": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"f" * 15
    + b"\r\n{}",
    "1xx storm": forever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
    "silence": silence,
    "hangs up": lambda connection: connection.close(),
    "busy": raw(b"", b"Retry-After: 1e99", status=b"503 Busy"),
    "204": raw(status=b"204 Nothing"),
    "304": raw(status=b"304 Same"),
}
for waiting in (b"-5", b"1e99", b"9" * 400, b"NaN", b"Thu, 01 Jan 1970 00:00:00 GMT"):
    ANSWERS[f"wait {waiting[:9]!r}"] = raw(b"", b"Retry-After: " + waiting, status=b"429 Too Many")
for waiting in (b"Fri, 31 Dec 9999 23:59:59 GMT", b"Mon, 99 Foo 99999", b"Thu, 01 Jan 1970"):
    ANSWERS[f"until {waiting!r}"] = raw(b"", b"Retry-After: " + waiting, status=b"503 Busy")
for target in (
    b"/",
    b"//",
    b"http://",
    b"http://a..b/",
    b"http://" + b"a" * 300 + b".example/",
    b"http://xn--\xff/",
    b"http://xn--a-ecp.ru:0/",
    b"http://127.0.0.1:99999/",
    b"http://127.0.0.1:0/",
    b"http://127.0.0.1:22/",
    b"http://169.254.169.254/latest",
    b"http://[::1]/",
    b"http://[::1",
    b"http://2130706433/",
    b"http://user:word@127.0.0.1/",
    b"file:///etc/passwd",
    b"gopher://127.0.0.1:70/",
    b"javascript:alert(1)",
    b"data:application/json,{}",
    b"\xff\xfe",
    b"?" + b"a" * 60_000,
    b"http://\xed\xa0\xbd.example/",
):
    ANSWERS[f"to {target[:40]!r}"] = redirect(target)
for name, value in ODD_VALUES.items():
    ANSWERS[f"JSON {name}"] = raw(value.encode())
    ANSWERS[f"list {name}"] = raw(answer_of(value))
    if name != "nested":
        ANSWERS[f"entry {name}"] = raw(answer_of(f"[{entry(value)},{entry(f'[{value}]')}]"))


@contextmanager
def little_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MAX_GROWTH_BYTES, f"{grown >> 10} MB more"


def ask_all(server: HostileServer, seconds: float = 0.9) -> list[SearchResult]:
    """Put a question to all sources at this server, at the same time."""
    urls = dict.fromkeys(SOURCES, server.url)
    values = {"pixabay_key": "key", "openverse_client_id": "a", "openverse_client_secret": "b"}
    config = config_for(
        {}, source_urls=urls, allowed_private_hosts=[server.host], credentials=values
    )
    fetching = FetchSettings(
        contact="operator@example.org",
        allowed_private_hosts=frozenset({server.host}),
        deadline_seconds=1.5,
    )
    searcher = Searcher(config, fetching, threading.Event())

    async def run() -> list[SearchResult]:
        deadline = time.monotonic() + seconds
        questions = [searcher.search(name, "thing", 20, deadline) for name in SOURCES]
        return list(await asyncio.gather(*questions))

    try:
        return asyncio.run(run())
    finally:
        searcher.close()


def check_bounded(result: SearchResult) -> None:
    """Check that a result can be stored and shown whatever was answered."""
    assert result.message.encode() and len(result.message) < 500
    assert result.detail is not None
    cool_down = result.cool_down_seconds
    assert cool_down is None or 0 <= cool_down <= MAX_WAIT_SECONDS
    for candidate in result.candidates:
        assert candidate.image_url.encode()
        assert len(candidate.image_url) <= MAX_ADDRESS_CHARACTERS + 20
        for field, limit in TEXT_LIMITS.items():
            text = getattr(candidate, field)
            assert text.encode() is not None and len(text) <= limit and "\n" not in text
        for side in (candidate.width, candidate.height):
            assert side is None or 0 < side <= MAX_PIXELS_OF_A_SIDE


def test_the_hostile_answers_are_of_the_shape_that_sources_read():
    ordinary = answer_of('[{"url":"http://x.example/1.jpg","license":"by"}]')
    with HostileServer(raw(ordinary)) as server:
        found = ask_all(server)
    assert len(found[0].candidates) == 1
    assert all("not JSON" not in result.detail for result in found)


def test_an_answer_to_an_account_is_unpacked_but_not_without_end():
    small = gzip.compress(b'{"a":1}' + b" " * 100_000)
    bomb = gzip.compress(b" " * (200 << 20), 1)
    with HostileServer() as server:
        server.answers["small"] = raw(small, b"Content-Encoding: gzip")
        server.answers["bomb"] = raw(bomb, b"Content-Encoding: gzip")
        fetching = FetchSettings(
            contact="operator@example.org", allowed_private_hosts=frozenset({server.host})
        )
        account = {"Authorization": "Bearer of a key"}
        understood = request(JsonRequest(f"{server.url}/small", {}, account), fetching)
        with little_memory():
            refused = request(JsonRequest(f"{server.url}/bomb", {}, account), fetching)
    assert isinstance(understood, JsonReply) and understood.data == {"a": 1}
    assert isinstance(refused, NotJson)


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_a_server_answers_each_source_ends_with_an_outcome(name):
    with HostileServer(ANSWERS[name]) as server, little_memory():
        started = time.monotonic()
        for result in ask_all(server):
            check_bounded(result)
        assert time.monotonic() - started < 20, "one deadline for each request, and no more"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [*LISTS, "url", "photos", "media", "imageinfo", "links", "error", "code"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=25)
@given(JSON)
def test_any_json_in_the_place_of_entries_ends_with_an_outcome(value):
    with HostileServer(raw(answer_of(f"[{json.dumps(value)}]"))) as server:
        for result in ask_all(server, seconds=0.5):
            check_bounded(result)


def test_pages_without_end_that_bring_nothing_new_come_to_an_end():
    page = b'{"batchcomplete":true,"continue":{"gsroffset":50},"query":{"pages":[]}}'
    with HostileServer(raw(page)) as server:
        started = time.monotonic()
        for result in ask_all(server, seconds=60):
            check_bounded(result)
        assert time.monotonic() - started < 40


def test_f21_no_answer_keeps_the_other_pictures_of_a_list_from_coming(tmp_path):
    with HostileServer() as server, PictureHost() as host, little_memory():
        urls = []
        for number, answer in enumerate(ANSWERS.values()):
            server.answers[str(number)] = answer
            urls += [f"{server.url}/{number}/x.jpg", host.picture_url(number)]
        good = jpeg(3000)
        for number, header in enumerate((b"Last-Modified: never\xff", b"Date: \x80", b"Age: -1")):
            server.answers[f"good{number}"] = raw(good, header, b"Content-Type: \xff/\xfe")
        urls.append(f"{server.url}/good0/x.jpg")
        hosts = frozenset({server.host, host.host})
        fetching = FetchSettings(allowed_private_hosts=hosts, deadline_seconds=3)
        values = DownloadSettings(fetching, ScreenSettings(64, 256), RetrySettings(times=0))
        summary = asyncio.run(download_list(urls, tmp_path, values))
        assert (summary.total, summary.kept) == (len(urls), len(ANSWERS) + 1)
        rows = [json.loads(line) for line in (tmp_path / "images.jsonl").read_text().splitlines()]
        assert len(rows) == len(urls)
        for row in rows:
            assert row["state"] == "kept" or row["reason"], row


@pytest.mark.parametrize("name", ["list nested", "entry huge", "endless headers"])
def test_a_hostile_source_leaves_the_request_to_the_others(name, tmp_path):
    with ExitStack() as stack:
        server = stack.enter_context(HostileServer(ANSWERS[name]))
        host = stack.enter_context(PictureHost())
        good = stack.enter_context(OpenverseReplica(host.url + "/pic/{}.jpg"))
        config = configuration(
            {"openverse": good, "gbif": server},
            [host, server],
            sources=["gbif", "openverse"],
            limit=10,
        )
        result = collect(Path(tmp_path), config)
        check_folder(tmp_path, result)
        assert result["classes"][0]["kept"] == 10
