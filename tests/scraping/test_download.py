"""The download engine alone: a list of addresses to files or reasons, resumable."""

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scraping import ConfigError
from scraping.download import Downloader, EngineSettings, RetrySettings
from scraping.download_list import DownloadSettings, download_list, read_urls
from scraping.net.http import FetchFailure, FetchSettings
from scraping.outside import clean_address
from scraping.reasons import Reason
from scraping.records.image_log import ImageRecord
from scraping.screening.screen import ScreenSettings
from scraping.screening.spool import Spool
from scraping.urls import url_digest
from tests.memory import PRINT_PEAK
from tests.replicas.pictures import jpeg
from tests.replicas.pictures_host import PictureHost
from tests.replicas.server import Request, Response
from tests.scraping.conftest import environment, repository, wait_until
from training.text_files import csv_rows

SOON = RetrySettings(first_seconds=0.05, longest_seconds=2.0)


def settings(*hosts: PictureHost, **values) -> DownloadSettings:
    fetching = FetchSettings(
        allowed_private_hosts=frozenset(host.host for host in hosts), deadline_seconds=2, **values
    )
    return DownloadSettings(fetching, ScreenSettings(min_side=64, max_side=256), SOON)


def rows(folder: Path) -> dict[str, dict]:
    lines = (folder / "images.jsonl").read_text().splitlines()
    return {row["image_url"]: row for row in map(json.loads, lines)}


def test_every_url_ends_as_a_file_or_a_reason(tmp_path):
    with PictureHost() as host:
        expected = {
            "/pic/1.jpg": None,
            "/otherbot": None,
            "/png/x": None,
            "/squeezed": None,
            "/verbose": None,
            "/hops/2": "duplicate",  # leads to /pic/1.jpg; whichever comes second
            "/html": "not_a_picture",
            "/empty": "not_a_picture",
            "/gzip": "not_a_picture",
            "/gone": "http_error",
            "/busy": "http_error",
            "/noai": "opted_out",
            "/ourbot": "opted_out",
            "/drip": "unreachable",
            "/short": "unreachable",
            "/huge": "too_large",
            "/redirect?to=http://169.254.169.254/": "refused_address",
        }
        urls = [host.url + path for path in expected]
        summary = asyncio.run(download_list(urls, tmp_path, settings(host)))
        found = {url.removeprefix(host.url): row["reason"] for url, row in rows(tmp_path).items()}
        if found["/hops/2"] is None:
            found["/hops/2"], found["/pic/1.jpg"] = found["/pic/1.jpg"], None
        assert found == expected
        assert (summary.total, summary.kept) == (17, 5)
        for row in rows(tmp_path).values():
            assert (row["state"] == "kept") == bool(row["file"])
            if row["file"]:
                assert (tmp_path / row["file"]).exists() and max(row["width"], row["height"]) <= 256
            if row["reason"] in ("unreachable", "refused_address"):
                assert row["detail"] == "This address could not be fetched."


def test_a_second_run_asks_for_nothing_that_is_decided(tmp_path):
    with PictureHost() as host:
        urls = [host.picture_url(number) for number in range(20)] + [host.url + "/gone"]
        asyncio.run(download_list(urls[:10] + urls[-1:], tmp_path, settings(host)))
        first = len(host.requests)
        summary = asyncio.run(download_list(urls, tmp_path, settings(host)))
        assert len(host.requests) - first == 10
        assert (summary.kept, summary.already, summary.rejected) == (20, 11, {"http_error": 1})


def _decided(folder: Path) -> set[str]:
    """Return the URLs with a complete record."""
    path = folder / "images.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {json.loads(line)["image_url"] for line in lines}


def _received(folder: Path) -> set[str]:
    """Return the keys under which the spool keeps complete bodies."""
    path = folder / "incoming" / "index"
    lines = path.read_bytes().split(b"\n")[1:-1] if path.exists() else []
    return {line.split()[0].decode() for line in lines}


def _spool_name(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def test_killed_twice_in_the_middle_of_a_thousand_each_is_fetched_successfully_once(tmp_path):
    with PictureHost(delay=0.05) as host:
        urls = [host.add(f"/small/{number}.jpg", jpeg(number, (72, 64))) for number in range(1000)]
        (tmp_path / "urls.txt").write_text("# a list\n\n" + "\n".join(urls))
        out = tmp_path / "out"
        command = [
            *(
                sys.executable,
                "-m",
                "scraping",
                "download",
                str(tmp_path / "urls.txt"),
                "--out",
                str(out),
            ),
            *("--concurrency", "16", "--min-side", "64", "--allow-private-host", host.host),
        ]

        def start() -> subprocess.Popen:
            return subprocess.Popen(
                command, cwd=repository(), env=environment(), stdout=subprocess.DEVNULL
            )

        fetched: set[str] = set()
        for least in (250, 600):
            process, before = start(), len(host.requests)
            wait_until(lambda least=least: len(_decided(out)) > least, 60)
            process.kill()
            process.wait()
            asked = {host.url + request.target for request in host.requests[before:]}
            assert not asked & fetched, "what had come completely is not asked for again"
            received = _received(out)
            fetched = _decided(out) | {url for url in urls if _spool_name(url) in received}
            assert least < len(fetched) < 1000
        before = len(host.requests)
        assert start().wait(120) == 0
        asked = {host.url + request.target for request in host.requests[before:]}
        assert not asked & fetched
        assert asked | fetched == set(urls), "nothing is lost"
        again = [
            url
            for url, count in Counter(request.target for request in host.requests).items()
            if count > 1
        ]
        assert len(again) <= 2 * 16, "only what was on the wire when it was killed"
        lines = (out / "images.jsonl").read_text().splitlines()
        assert len(lines) == 1000
        final = rows(out)
        assert set(final) == set(urls)
        assert all((out / row["file"]).exists() for row in final.values() if row["state"] == "kept")
        assert {row["reason"] for row in final.values()} <= {None, "duplicate"}
        assert not (out / "incoming").exists()


def test_a_body_that_had_arrived_before_a_kill_is_screened_without_asking_again(tmp_path):
    with PictureHost() as host:
        url = host.picture_url(1)
        Spool(tmp_path / "incoming").add(url, jpeg(1))
        summary = asyncio.run(download_list([url], tmp_path, settings(host)))
        assert (summary.kept, host.requests) == (1, [])
        assert rows(tmp_path)[url]["http_status"] == 200


def test_a_spool_of_before_the_machine_went_down_is_not_trusted(tmp_path):
    Spool(tmp_path).add("http://a.example/1", b"x")
    assert Spool(tmp_path).earlier("http://a.example/1") is not None
    index = tmp_path / "index"
    index.write_bytes(b"another boot\n" + index.read_bytes().partition(b"\n")[2])
    assert Spool(tmp_path).earlier("http://a.example/1") is None
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


def test_the_spool_s_segments_are_used_again_and_survivors_are_not_overwritten(tmp_path):
    first = Spool(tmp_path)
    first.add("http://a.example/undecided", b"u" * 100)
    spool = Spool(tmp_path)
    for number in range(50):
        extent = spool.add(f"http://a.example/{number}", b"%d" % number * (4 << 20))
        assert extent.read().startswith(b"%d" % number)
        spool.settled(extent)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 64 << 20
    undecided = spool.earlier("http://a.example/undecided")
    assert undecided is not None and undecided.read() == b"u" * 100


def asked_in(
    host: PictureHost, path: str, tmp_path: Path, retrying: RetrySettings = SOON
) -> tuple[str | None, int]:
    """Return the reason in the end, and how often it was asked for."""
    values = replace(settings(host), retrying=retrying)
    asyncio.run(download_list([host.url + path], tmp_path, values))
    return rows(tmp_path)[host.url + path]["reason"], len(host.asked(path))


@pytest.mark.parametrize(
    ("path", "reason", "requests"),
    [
        ("/flaky/2/503", None, 3),
        ("/flaky/3/429", None, 4),
        ("/flaky/4/500", "http_error", 4),
        ("/flaky/1/502", None, 2),
        ("/flaky/1/404", "http_error", 1),
        ("/flaky/1/403", "http_error", 1),
        ("/flaky/1/410", "http_error", 1),
        ("/flaky/1/408", "http_error", 1),
        ("/flaky/1/501", "http_error", 1),
        ("/breaks/2", None, 3),
        ("/breaks/9", "unreachable", 4),
        ("/drip", "unreachable", 1),
        ("/huge", "too_large", 1),
        ("/noai", "opted_out", 1),
        ("/tags", "opted_out", 1),
        ("/redirect?to=http://169.254.169.254/", "refused_address", 0),
    ],
)
def test_only_what_may_pass_is_asked_for_again_and_three_times_at_most(
    path, reason, requests, tmp_path
):
    with PictureHost() as host:
        assert asked_in(host, path, tmp_path) == (reason, requests)


def test_a_host_that_asks_for_time_is_given_it_and_all_its_urls_wait(tmp_path):
    with PictureHost() as host:
        urls = [host.url + "/patience/1"] + [host.picture_url(number) for number in range(8)]
        values = settings(host, connections=1)
        asyncio.run(download_list(urls, tmp_path, values))
        assert host.requests[0].target == "/patience/1"
        assert host.times[1] - host.times[0] >= 1.0
        assert {row["reason"] for row in rows(tmp_path).values()} == {None}


def test_a_host_that_asks_for_too_much_time_is_not_asked_again(tmp_path):
    with PictureHost() as host:
        started = time.monotonic()
        assert asked_in(host, "/patience/3600", tmp_path) == ("http_error", 1)
        assert time.monotonic() - started < 5


def test_a_host_that_always_asks_for_time_does_not_hold_up_a_list_for_long(tmp_path):
    with PictureHost() as host, PictureHost() as other:
        urls = [f"{host.url}/tired?{number}" for number in range(30)] + [other.picture_url(1)]
        started = time.monotonic()
        asyncio.run(download_list(urls, tmp_path, settings(host, other, connections=4)))
        assert 3 <= time.monotonic() - started < 10
        reasons = Counter(row["reason"] for row in rows(tmp_path).values())
        assert reasons == {"http_error": 30, None: 1}
        assert len(host.requests) <= 30 + 3 * 4


def test_hosts_take_turns_whatever_the_order_of_the_list(tmp_path):
    with PictureHost(delay=0.05) as first, PictureHost(delay=0.05) as second:
        urls = [first.picture_url(number) for number in range(120)]
        urls += [second.picture_url(number) for number in range(200, 210)]
        order: list[str] = []
        values = settings(first, second, connections=4)
        asyncio.run(
            download_list(urls, tmp_path, values, lambda row, _: order.append(row["image_url"]))
        )
        assert {url for url in order if url.startswith(second.url)} <= set(order[:40])


def test_waits_double_and_are_never_the_same_for_all():
    failure = FetchFailure(Reason.UNREACHABLE, "reset", transient=True)
    retrying = RetrySettings(first_seconds=1.0)
    waits = [[retrying.wait_after(failure, tries) for _ in range(50)] for tries in (1, 2, 3)]
    for place, drawn in enumerate(waits):
        assert len(set(drawn)) > 10
        assert all(0.5 * 2**place <= wait <= 2**place for wait in drawn)
    assert retrying.wait_after(failure, 4) is None
    assert retrying.wait_after(FetchFailure(Reason.HTTP_ERROR, status=404), 1) is None


def test_a_taken_down_url_is_never_asked_for():
    async def run(host: PictureHost) -> list[str | None]:
        gone = frozenset({url_digest(host.picture_url(1))})
        fetching = settings(host).fetching
        async with Downloader(
            fetching, ScreenSettings(64, 256), EngineSettings(taken_down_urls=gone)
        ) as downloader:
            return [(await downloader.get(host.picture_url(number))).reason for number in (1, 2)]

    with PictureHost() as host:
        assert asyncio.run(run(host)) == ["taken_down", None]
        assert [request.target for request in host.requests] == ["/pic/2.jpg"]


def test_a_taken_down_image_is_refused_wherever_it_turns_up(tmp_path):
    with PictureHost() as host:
        urls = [
            host.add("/a.jpg", jpeg(1)),
            host.add("/b.jpg", jpeg(1)),
            host.add("/c.jpg", jpeg(2)),
        ]
        screening = ScreenSettings(64, 256, frozenset({hashlib.sha256(jpeg(1)).hexdigest()}))
        asyncio.run(download_list(urls, tmp_path, replace(settings(host), screening=screening)))
        assert [row["reason"] for row in rows(tmp_path).values()].count("taken_down") == 2
        assert len(list((tmp_path / "images").iterdir())) == 1


def test_f21_hostile_hosts_at_the_same_time_keep_memory_flat_and_the_others_go_on(tmp_path):
    """F21 as a whole: in its own process, so that its peak is its own."""
    with PictureHost() as host:
        bad = [
            f"{host.url}/{kind}?{number}"
            for kind in ("endless", "huge", "drip")
            for number in range(20)
        ]
        good = [host.picture_url(number) for number in range(40)]
        mixed = [url for pair in zip(bad, good, strict=False) for url in pair] + bad[len(good) :]
        script = tmp_path / "run.py"
        script.write_text(HOSTILE_RUN + PRINT_PEAK)
        command = [sys.executable, str(script), str(tmp_path / "out"), host.host, *mixed]
        done = subprocess.run(
            command, cwd=repository(), env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        reasons = Counter(row["reason"] for row in rows(tmp_path / "out").values())
        assert reasons == {None: 40, "too_large": 40, "unreachable": 20}
        assert int(done.stdout) < 350_000, "kilobytes"


HOSTILE_RUN = """
import asyncio, sys
from pathlib import Path
from scraping.download_list import DownloadSettings, download_list
from scraping.net.http import FetchSettings
from scraping.screening.screen import ScreenSettings
_, folder, host, *urls = sys.argv
fetching = FetchSettings(
    allowed_private_hosts=frozenset({host}), deadline_seconds=4, connections=100
)
settings = DownloadSettings(fetching, ScreenSettings(64, 256))
asyncio.run(download_list(urls, Path(folder), settings))
"""


class HeldHost(PictureHost):
    """Holds back every picture until `released` is set; or for so long that the test has failed."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def _pic(self, request: Request) -> Response:
        self.released.wait(60)
        return super()._pic(request)


def test_a_slow_host_does_not_hold_up_the_others(tmp_path):
    with PictureHost() as fast, HeldHost() as slow:
        slow_urls = [slow.picture_url(number) for number in range(4)]
        fast_urls = [fast.picture_url(number) for number in range(100, 160)]
        order: list[str] = []

        def note(row: ImageRecord, _decided: int) -> None:
            order.append(row["image_url"])
            if len(order) == len(fast_urls):
                slow.released.set()

        values = settings(fast, slow)
        patient = replace(values, fetching=replace(values.fetching, deadline_seconds=90))
        asyncio.run(download_list([*slow_urls, *fast_urls], tmp_path, patient, note))
        assert set(order[:60]) == set(fast_urls), "the slow host answered only after these"
        assert set(order[60:]) == set(slow_urls)


def _bytes_of(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def test_a_list_is_read_without_comments_and_repetitions(tmp_path):
    (tmp_path / "list").write_text(" http://a/1 \n\n# no\nhttp://a/2\nhttp://a/1\n")
    assert read_urls(tmp_path / "list") == ["http://a/1", "http://a/2"]


LINES = "http://a.example/1\nhttps://b.example/käse.jpg\n"


@pytest.mark.parametrize(
    "data",
    [
        LINES.encode("utf-8-sig"),
        LINES.encode("utf-16"),
        LINES.encode("utf-16-le"),
        b"\xfe\xff" + LINES.encode("utf-16-be"),
        LINES.encode("utf-32"),
        LINES.encode("latin-1"),
        LINES.replace("\n", "\r\n").encode(),
        LINES.replace("\n", "\r").encode(),
        '"http://a.example/1"\n"https://b.example/käse.jpg"'.encode(),
        f"url\n{LINES}".encode("utf-8-sig"),
        "Name;Image URL\nKatze;http://a.example/1\nHund;https://b.example/käse.jpg\n".encode(
            "cp1252"
        ),
        "sep=;\r\nbild;wo\r\n1;http://a.example/1\r\n2;https://b.example/käse.jpg\r\n".encode(),
        b'page_url,image_url,title\nhttp://p/,http://a.example/1,"a, b\nc"\n'
        + "x,https://b.example/käse.jpg\n".encode(),
        "label\tphoto\ncat\thttp://a.example/1\ndog\thttps://b.example/käse.jpg".encode("utf-16"),
    ],
)
def test_a_list_is_read_as_windows_and_spreadsheets_write_it(tmp_path, data):
    (tmp_path / "list").write_bytes(data)
    assert read_urls(tmp_path / "list") == ["http://a.example/1", "https://b.example/käse.jpg"]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"PK\x03\x04\x14\0\x06\0", "no text"),
        (b"\x00\x01\x02http://a.example", "no text"),
        (b"name,kind\ncat,animal\ndog,animal\n", "image_url"),
        (b"name,url\n" + b'"' + b"x" * 200_000, "CSV"),
    ],
)
def test_what_is_no_list_is_said_in_one_sentence(tmp_path, data, word):
    (tmp_path / "list").write_bytes(data)
    command = [sys.executable, "-m", "scraping", "download", "list", "--out", "found"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@given(st.binary(max_size=300) | st.text(st.characters(), max_size=200).map(_bytes_of))
def test_whatever_a_list_holds_its_addresses_are_clean_or_it_is_refused(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any list"
    file.write_bytes(data)
    try:
        urls = read_urls(file)
    except ConfigError:
        return
    assert [clean_address(url) for url in urls] == urls
    assert len(set(urls)) == len(urls)


HEADER = "title,image_url,page\n"
GOOD = [f"http://a.example/{number}.jpg" for number in range(1, 4)]
ROWS = [f"picture,{url},http://p.example/\n" for url in GOOD]


@pytest.mark.parametrize(
    "odd",
    [
        '"torn title, http://a.ex',
        '"torn title,http://a.example/x.jpg\n',
        'a 5" pipe,http://a.example/x.jpg,\n',
        '"said "so" twice",http://a.example/x.jpg,\n',
        '"over\r\nthree\nlines",http://a.example/x.jpg,\n',
        f'"{"x" * 200_000}",http://a.example/x.jpg,\n',
        f"{'x' * 200_000},http://a.example/x.jpg,\n",
        "zero \0 byte,http://a.example/x.jpg,\n",
        "half \ud83d,http://a.example/x.jpg,\n",
        "too short\n",
        "too,http://a.example/x.jpg,long,,,,\n",
        "\n\n,,\n",
        '"',
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_an_odd_row_of_a_table_costs_no_other(tmp_path, odd, line_end):
    for text in (
        HEADER + odd.rstrip("\n") + "\n" + "".join(ROWS),
        HEADER + ROWS[0] + odd.rstrip("\n") + "\n" + ROWS[1] + ROWS[2],
        HEADER + "".join(ROWS) + odd,
    ):
        written = text.replace("\r\n", "\n").replace("\n", line_end)
        (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbf" + _bytes_of(written))
        found = read_urls(tmp_path / "list.csv")
        assert [url for url in found if url in GOOD] == GOOD
        assert set(found) - set(GOOD) <= {"http://a.example/x.jpg", "http://a.ex"}
        (tmp_path / "list.csv").write_bytes(_bytes_of(written))
        assert [url for url in read_urls(tmp_path / "list.csv") if url in GOOD] == GOOD


@given(st.lists(st.text(st.characters(), max_size=30), max_size=6), st.sampled_from(",;\t"))
def test_any_lines_are_rows_and_none_is_lost_behind_a_quote(lines, delimiter):
    text = "\n".join(line.replace('"', "") for line in lines)
    torn = f'"torn{delimiter}\n{text}\nlast{delimiter}row'
    assert list(csv_rows(torn, delimiter))[-1] == ["last", "row"]


ODD_LINES = [
    "http://[URL=x",
    "http://a.example:99999/x.jpg",
    "http://xn--/x.jpg",
    "http://\u2100.example/x.jpg",
    "http://user:secret@a.example/x.jpg",
    "javascript:alert(1)",
    "just words",
    "data:image/png;base64," + "A" * 100_000,
    "http://a.example/" + "x" * 100_000,
    "http://\ud83d.example/x.jpg",
]


def test_no_line_stops_the_others_and_each_gets_a_row_with_a_reason(tmp_path):
    with PictureHost() as host:
        good = [host.picture_url(1), host.url.replace("http:", "HTTP:") + "/pic/2.jpg"]
        urls = [good[0], *ODD_LINES, good[1]]
        summary = asyncio.run(download_list(urls, tmp_path, settings(host)))
        assert (summary.total, summary.kept) == (len(urls), 2)
        assert summary.rejected == {"refused_address": len(ODD_LINES)}
        found = rows(tmp_path)
        assert set(found) == {clean_address(url) for url in urls}
        assert found["http://[URL=x"]["detail"] == "not a web address"
        again = asyncio.run(download_list(urls, tmp_path, settings(host)))
        assert again.already == len(urls)


def test_the_same_command_tries_again_what_may_have_passed_and_nothing_else(tmp_path):
    with PictureHost() as host:
        decided = ["/pic/1.jpg", "/gone", "/noai", "/html", "/redirect?to=http://169.254.169.254/"]
        open_ends = ["/short", "/drip", "/flaky/1/503"]
        urls = [host.url + path for path in decided + open_ends]
        once = replace(settings(host), retrying=RetrySettings(times=0))
        assert asyncio.run(download_list(urls, tmp_path, once)).kept == 1
        before = len(host.requests)
        summary = asyncio.run(download_list(urls, tmp_path, once))
        assert (summary.kept, summary.already) == (2, len(decided))
        asked = [request.path for request in host.requests[before:]]
        assert sorted(asked) == sorted(open_ends)
        assert rows(tmp_path)[host.url + "/flaky/1/503"]["state"] == "kept"
        assert len((tmp_path / "images.jsonl").read_text().splitlines()) == len(urls)


def test_a_host_that_was_down_is_asked_when_it_is_up(tmp_path):
    with PictureHost() as host:
        url = host.picture_url(1)
        nobody = "http://127.0.0.1:9/1.jpg"
        allowed = replace(
            settings(host).fetching,
            allowed_private_hosts=frozenset({host.host, "127.0.0.1:9"}),
        )
        offline = replace(settings(host), fetching=allowed, retrying=RetrySettings(times=0))
        summary = asyncio.run(download_list([nobody, url], tmp_path, offline))
        assert (summary.kept, summary.rejected) == (1, {"unreachable": 1})
        summary = asyncio.run(download_list([nobody, url], tmp_path, offline))
        assert (summary.kept, summary.already) == (1, 1)
