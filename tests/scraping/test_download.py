"""The download engine alone: a list of addresses to files or reasons, resumable."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scraping.download import DownloadSettings, download_list, opted_out, read_urls
from scraping.fetch import FetchSettings
from scraping.screen import ScreenSettings
from tests.replicas.pictures_host import PictureHost
from tests.scraping.conftest import environment, repository, wait_until


def settings(*hosts: PictureHost, **values) -> DownloadSettings:
    fetching = FetchSettings(allowed_private_hosts=frozenset(host.host for host in hosts), deadline_seconds=2, **values)
    return DownloadSettings(fetching, ScreenSettings(min_side=64, max_side=256))


def rows(folder: Path) -> dict[str, dict]:
    lines = (folder / "images.jsonl").read_text().splitlines()
    return {row["image_url"]: row for row in map(json.loads, lines)}


def test_every_address_ends_as_a_file_or_a_reason(tmp_path):
    with PictureHost() as host:
        expected = {
            "/pic/1.jpg": None,
            "/otherbot": None,
            "/png/x": None,
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
        assert (summary.total, summary.kept) == (15, 3)
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


def test_killed_in_the_middle_each_picture_is_fetched_once(tmp_path):
    with PictureHost(delay=0.1) as host:
        urls = [host.picture_url(number) for number in range(150)]
        (tmp_path / "urls.txt").write_text("# a list\n\n" + "\n".join(urls))
        command = [
            *(sys.executable, "-m", "scraping", "download", str(tmp_path / "urls.txt"), "--out", str(tmp_path / "out")),
            *("--concurrency", "8", "--min-side", "64", "--allow-private-host", host.host),
        ]

        def start() -> subprocess.Popen:
            return subprocess.Popen(command, cwd=repository(), env=environment(), stdout=subprocess.DEVNULL)

        def decided() -> set[str]:
            path = tmp_path / "out" / "images.jsonl"
            lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
            return {json.loads(line)["image_url"] for line in lines}

        process = start()
        wait_until(lambda: len(decided()) > 30)
        process.kill()
        process.wait()
        known, before = decided(), len(host.requests)
        assert 30 < len(known) < 150
        assert start().wait(60) == 0
        again = {host.url + request.target for request in host.requests[before:]}
        assert not again & known
        final = rows(tmp_path / "out")
        assert set(final) == set(urls)
        assert all(row["state"] == "kept" for row in final.values())


def test_a_slow_host_does_not_hold_up_the_others(tmp_path):
    with PictureHost() as fast, PictureHost(delay=1.0) as slow:
        urls = [slow.picture_url(number) for number in range(4)]
        urls += [fast.picture_url(number) for number in range(100, 160)]
        order: list[str] = []
        started = time.monotonic()
        done = download_list(urls, tmp_path, settings(fast, slow), lambda row, _: order.append(row["image_url"]))
        asyncio.run(done)
        assert time.monotonic() - started < 10
        assert {url.startswith(slow.url) for url in order[-4:]} == {True}


def test_a_list_is_read_without_comments_and_repetitions(tmp_path):
    (tmp_path / "list").write_text(" http://a/1 \n\n# no\nhttp://a/2\nhttp://a/1\n")
    assert read_urls(tmp_path / "list") == ["http://a/1", "http://a/2"]


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
    assert opted_out(headers) is out
