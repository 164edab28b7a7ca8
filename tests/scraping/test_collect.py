"""The orchestrator, end to end over replicas of the sources: quotas, copies, honest counts, and
every way to stop.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from scraping.collect import Interrupted, collect
from scraping.config import CollectConfig
from tests.replicas.bing import BingReplica
from tests.replicas.commons import CommonsReplica
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures import encoded, picture
from tests.replicas.pictures_host import PictureHost
from tests.scraping.conftest import (
    alive,
    config_for,
    descendants,
    environment,
    repository,
    wait_until,
)

pytestmark = pytest.mark.timeout(120)

ROW_KEYS = {
    *(
        "class",
        "source",
        "query",
        "rank",
        "image_url",
        "page_url",
        "title",
        "creator",
        "creator_url",
        "attribution",
    ),
    *(
        "license",
        "license_version",
        "license_url",
        "license_basis",
        "state",
        "reason",
        "detail",
        "file",
    ),
    *(
        "sha256",
        "source_sha256",
        "width",
        "height",
        "source_width",
        "source_height",
        "bytes",
        "stored_bytes",
    ),
    *("mime", "http_status", "fetched_at"),
}


def classes(*queries: str) -> list[dict]:
    return [
        {"id": f"c{n:03d}", "name": query, "query": query}
        for n, query in enumerate(queries, start=1)
    ]


def configuration(replicas: dict, hosts: list[PictureHost], **values) -> CollectConfig:
    values = {"min_side": 64, "limit": 10, "classes": classes("thing")} | values
    return config_for(replicas, allowed_private_hosts=[host.host for host in hosts], **values)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]


def check_folder(folder: Path, result: dict) -> None:
    """What must hold for every finished folder."""
    all_rows = rows(folder)
    assert len({(row["class"], row["image_url"]) for row in all_rows}) == len(all_rows)
    assert all(set(row) == ROW_KEYS for row in all_rows)
    kept = [row for row in all_rows if row["state"] == "kept"]
    assert {row["file"] for row in kept} == {
        f"images/{file.name}" for file in (folder / "images").iterdir()
    }
    for row in kept:
        data = (folder / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert row["file"] == f"images/{row['sha256'][:16]}.jpg"
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size) == ("JPEG", (row["width"], row["height"]))
    for entry in result["classes"]:
        assert entry["found"] == entry["kept"] + sum(entry["rejected"].values())
        assert entry["kept"] == sum(row["class"] == entry["id"] for row in kept) <= entry["asked"]
    assert json.loads((folder / "result.json").read_text()) == result
    assert all(row["reason"] for row in all_rows if row["state"] == "rejected")


def test_the_quota_is_filled_from_the_sources_in_their_order(tmp_path):
    with (
        PictureHost() as host,
        OpenverseReplica(host.url + "/pic/{}.jpg") as first,
        CommonsReplica(host.url + "/pic/{}.jpg", first=1000) as second,
    ):
        config = configuration(
            {"openverse": first, "wikimedia": second}, [host], sources=["openverse", "wikimedia"],
            classes=classes("few corgi"), limit=12,
        )  # fmt: skip
        result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert result["classes"][0]["kept"] == 12
        by_source = [row["source"] for row in rows(tmp_path) if row["state"] == "kept"]
        assert (by_source.count("openverse"), by_source.count("wikimedia")) == (3, 9)
        said = [(entry["name"], entry["outcome"], entry["message"]) for entry in result["sources"]]
        assert said == [
            ("openverse", "partial", "Openverse had only 3."),
            ("wikimedia", "ok", "12 from Wikimedia Commons."),
        ]
        kept = next(row for row in rows(tmp_path) if row["state"] == "kept")
        assert (kept["license"], kept["license_version"], kept["license_basis"]) == (
            "cc-by-sa",
            "4.0",
            "per-item",
        )
        assert kept["http_status"] == 200 and kept["mime"] == "image/jpeg" and kept["bytes"] > 1000


def test_the_same_answers_make_the_same_dataset(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        kept = []
        for name in ("one", "two"):
            folder = tmp_path / name
            collect(folder, configuration({"openverse": site}, [host], sources=["openverse"]))
            kept.append(
                [(row["rank"], row["sha256"]) for row in rows(folder) if row["state"] == "kept"]
            )
        assert kept[0] == kept[1]
        assert [rank for rank, _ in kept[0]] == list(range(1, 11))


def test_a_source_that_may_have_more_is_asked_again_when_much_was_rejected(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        for number in range(30):
            host.add(f"/pic/{number}.jpg", b"no picture")
        config = configuration({"openverse": site}, [host], sources=["openverse"], limit=10)
        result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert result["classes"][0]["kept"] == 10
        assert result["classes"][0]["rejected"]["not_a_picture"] == 29
        assert len(result["sources"]) == 1


def test_copies_are_kept_once_and_every_rejection_has_its_reason(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        original = picture(0, (640, 480))
        host.add(
            "/pic/1.jpg", encoded(picture(0), "JPEG", quality=85)
        )  # the same bytes as /pic/0.jpg
        host.add("/pic/2.jpg", encoded(original.resize((500, 375)), "JPEG", quality=60))
        host.add("/pic/3.jpg", encoded(original.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG"))
        host.add("/pic/4.jpg", b"<html>gone</html>")
        host.add("/pic/6.jpg", encoded(picture(77, (1200, 100)), "JPEG"))
        config = configuration({"openverse": site}, [host], sources=["openverse"], limit=8)
        result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        entry = result["classes"][0]
        entry["rejected"].pop("over_quota")  # it was asked again for what the copies had cost
        assert entry["kept"] == 8
        assert entry["rejected"] == {
            "duplicate": 1,
            "near_duplicate": 2,
            "not_a_picture": 1,
            "bad_shape": 1,
        }


def test_the_same_picture_in_two_classes_goes_to_neither_and_is_replaced(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration(
            {"openverse": site}, [host], sources=["openverse"], classes=classes("few a", "few b")
        )
        result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert [entry["kept"] for entry in result["classes"]] == [0, 0]
        assert [entry["rejected"] for entry in result["classes"]] == [{"in_two_classes": 3}] * 2


def test_a_withdrawn_picture_makes_room_for_another(tmp_path):
    with (
        PictureHost() as host,
        OpenverseReplica(host.url + "/pic/{}.jpg", first=100) as first,
        CommonsReplica(host.url + "/pic/{}.jpg") as second,
    ):
        config = configuration(
            {"openverse": first, "wikimedia": second}, [host], sources=["openverse", "wikimedia"],
            classes=classes("thing", "few nothing"), limit=6,
        )  # fmt: skip
        result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert [entry["kept"] for entry in result["classes"]] == [6, 0]
        assert result["classes"][0]["rejected"]["in_two_classes"] == 3
        assert result["classes"][1]["rejected"] == {"in_two_classes": 3}
        (tmp_path / "result.json").unlink()
        before = len(host.requests)
        assert collect(tmp_path, config)["classes"] == result["classes"], (
            "the same when taken up again"
        )
        assert len(host.requests) == before


@pytest.mark.browser
@pytest.mark.parametrize(
    ("words", "commons_outcome"),
    [("captcha lagged", "rate_limited"), ("captcha refused", "layout_changed")],
)
def test_failing_sources_are_named_and_the_last_one_fills_the_quota(
    tmp_path, words, commons_outcome
):
    with (
        PictureHost() as host,
        OpenverseReplica(host.url + "/pic/{}.jpg") as openverse,
        CommonsReplica(host.url + "/pic/{}.jpg") as commons,
        BingReplica(total=100, pictures=host.url + "/pic/{}.jpg") as bing,
    ):
        replicas = {"openverse": openverse, "wikimedia": commons, "bing": bing}
        values = {
            "classes": classes(words, "corgi"),
            "sources": ["bing", "wikimedia", "openverse"],
            "limit": 15,
        }
        result = collect(tmp_path, configuration(replicas, [host], **values))
        check_folder(tmp_path, result)
        said = {(entry["class"], entry["name"]): entry for entry in result["sources"]}
        assert said["c001", "bing"]["outcome"] == said["c002", "bing"]["outcome"] == "blocked"
        assert said["c001", "bing"]["message"] == "Bing asked for a human check."
        assert said["c001", "wikimedia"]["outcome"] == commons_outcome
        assert len(bing.asked("/images/search")) == 1, "a human check ends the source for this run"
        assert (
            result["classes"][0]["kept"] + result["classes"][0]["rejected"].get("in_two_classes", 0)
            >= 15
        )


def test_what_was_found_before_a_source_said_stop_is_kept(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration(
            {"openverse": site},
            [host],
            classes=classes("throttled"),
            sources=["openverse"],
            limit=60,
        )
        result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert (result["classes"][0]["kept"], result["sources"][0]["outcome"]) == (
            37,
            "rate_limited",
        )
        assert result["sources"][0]["retry_after"] == 42.0


def test_closed_sources_are_skipped_with_their_sentence(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        sentence = "Openverse asked us to wait until 14:00."
        config = configuration(
            {"openverse": site},
            [host],
            sources=["openverse"],
            closed_sources={"openverse": sentence},
        )
        result = collect(tmp_path, config)
        assert [(entry["outcome"], entry["message"]) for entry in result["sources"]] == [
            ("not_applicable", sentence)
        ]
        assert site.requests == []
        assert result["ok"] and result["classes"][0]["kept"] == 0


def test_open_licences_only_keeps_what_is_known_per_picture(tmp_path):
    with (
        PictureHost() as host,
        CommonsReplica(host.url + "/pic/{}.jpg") as site,
        BingReplica() as bing,
    ):
        config = configuration(
            {"wikimedia": site, "bing": bing},
            [host],
            sources=["bing", "wikimedia"],
            license="open",
            limit=12,
        )
        result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert result["classes"][0]["kept"] == 12
        assert result["classes"][0]["rejected"]["license"] == 1
        assert all(row["license"] == "cc-by-sa" for row in rows(tmp_path) if row["state"] == "kept")
        assert bing.requests == []
        assert result["sources"][0]["outcome"] == "not_applicable"


def test_a_finished_folder_is_returned_at_once(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration({"openverse": site}, [host], sources=["openverse"])
        result = collect(tmp_path, config)
        asked = len(site.requests), len(host.requests)
        assert collect(tmp_path, config) == result
        assert (len(site.requests), len(host.requests)) == asked


def test_at_the_deadline_what_there_is_is_delivered_with_honest_counts(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/drip?{}") as site:
        config = configuration(
            {"openverse": site}, [host], sources=["openverse"], deadline_seconds=1.5
        )
        started = time.monotonic()
        result = collect(tmp_path, config)
        assert time.monotonic() - started < 8
        assert result["ok"] and result["classes"][0]["kept"] == 0


def test_a_source_that_is_cut_off_by_the_deadline_is_named(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration(
            {"openverse": site},
            [host],
            classes=classes("down"),
            sources=["openverse"],
            deadline_seconds=1,
        )
        result = collect(tmp_path, config)
        assert result["ok"]
        assert result["sources"][0]["outcome"] in ("timeout", "network")
        assert "Openverse" in result["sources"][0]["message"]


def test_stopping_leaves_a_folder_that_goes_on(tmp_path):
    with PictureHost(delay=0.5) as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration({"openverse": site}, [host], sources=["openverse"], limit=150)
        stop = threading.Event()
        with pytest.raises(Interrupted):
            collect(tmp_path, config, lambda progress: stop.set() if progress.done else None, stop)
        stopped = time.monotonic()
        assert not (tmp_path / "result.json").exists()
        assert 0 < len(decided(tmp_path)) < 150
        host.delay = 0.0
        result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert result["classes"][0]["kept"] == 150
        assert time.monotonic() - stopped < 20


def test_progress_is_written_seldom_and_counts_over_all_classes(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        seen = []
        config = configuration({"openverse": site}, [host], sources=["openverse"], limit=30)
        collect(tmp_path, config, seen.append)
        written = [
            json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()
        ]
        assert [entry["done"] for entry in written] == [progress.done for progress in seen]
        assert (written[0]["done"], written[-1]["done"], written[-1]["total"]) == (0, 30, 30)
        assert set(written[0]) == {"time", "stage", "done", "total", "message", "eta_seconds"}
        assert len(written) < 12


def start(folder: Path, **variables: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "scraping", "collect", str(folder), "--json"]
    return subprocess.Popen(
        command,
        cwd=repository(),
        env=environment(**variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def decided(folder: Path) -> set[str]:
    """Addresses whose row had reached the file."""
    path = folder / "images.jsonl"
    found = set()
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
        row = json.loads(line)
        found |= {row["image_url"]} if row["reason"] != "over_quota" else set()
    return found


def test_killed_in_the_middle_it_goes_on_and_fetches_nothing_decided_again(tmp_path):
    with PictureHost(delay=0.15) as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration({"openverse": site}, [host], sources=["openverse"], limit=120)
        config.write(tmp_path)
        process = start(tmp_path)
        wait_until(lambda: len(decided(tmp_path)) > 20)
        below = descendants(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(alive, below)))
        known, searches, before = decided(tmp_path), len(site.requests), len(host.requests)
        assert 20 < len(known) < 120
        with (tmp_path / "images.jsonl").open("ab") as stream:
            stream.write(
                b'{"class": "c001", "image_url": "http://torn'
            )  # a line that was being written
        (tmp_path / "images" / "0000000000000000.jpg").write_bytes(b"never recorded")

        second = start(tmp_path)
        assert second.wait(60) == 0, second.stderr.read().decode()
        result = json.loads((tmp_path / "result.json").read_text())
        check_folder(tmp_path, result)
        assert result["classes"][0]["kept"] == 120
        again = {host.url + request.target for request in host.requests[before:]}
        assert not again & known
        assert len(site.requests) == searches, "a finished search is not repeated"


def test_a_picture_that_vanished_is_fetched_again(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration({"openverse": site}, [host], sources=["openverse"])
        collect(tmp_path, config)
        (tmp_path / "result.json").unlink()
        lost = next(row for row in rows(tmp_path) if row["state"] == "kept")
        (tmp_path / lost["file"]).unlink()
        before = len(host.requests)
        result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert result["classes"][0]["kept"] == 10
        assert lost["image_url"] in {
            host.url + request.target for request in host.requests[before:]
        }


@pytest.mark.browser
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_browser_is_left_however_the_collector_ends(tmp_path, number):
    with PictureHost() as host, BingReplica(total=3000, pictures=host.url + "/pic/{}.jpg") as site:
        config = configuration({"bing": site}, [host], sources=["bing"], limit=2000)
        config.write(tmp_path)
        process = start(tmp_path)
        wait_until(lambda: site.asked("/images/async"))
        below = descendants(process.pid)
        names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in below if alive(pid)}
        assert {"chromedriver", "chromium"} <= names
        started = time.monotonic()
        os.kill(process.pid, number)
        assert process.wait(15) != 0
        wait_until(lambda: not any(map(alive, below)), 10)
        assert time.monotonic() - started < 10
        assert not (tmp_path / "result.json").exists()


def test_an_unknown_key_is_an_error_that_the_folder_tells(tmp_path):
    values = {"classes": classes("x"), "colour": "red"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    process = start(tmp_path)
    assert process.wait(30) == 1
    assert b"colour" in process.stderr.read()
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["ok"], result["error"]["stage"], result["error"]["retry"]) == (
        False,
        "collect",
        False,
    )
    assert "colour" in result["error"]["reason"]


@pytest.mark.browser
@pytest.mark.skipif(
    not Path("/usr/share/tuxpaint/stamps").is_dir(),
    reason="the demo's photographs are not installed",
)
def test_the_demo_s_gallery_gives_both_classes_their_quota(tmp_path):
    command = [
        sys.executable,
        "-m",
        "scraping",
        "gallery",
        "/usr/share/tuxpaint/stamps",
        "--port",
        "0",
    ]
    gallery = subprocess.Popen(command, cwd=repository(), stdout=subprocess.PIPE, text=True)
    try:
        url = gallery.stdout.readline().strip().removeprefix("gallery: ")
        process = subprocess.run(
            [sys.executable, "-m", "scraping", "collect", "mammal", "plant", "--limit", "38", "--source", "bing",
             "--out", str(tmp_path / "out")],
            cwd=repository(), capture_output=True, text=True, timeout=100, check=False,
            env=environment(
                PICAISSO_BING_URL=url, PICAISSO_MIN_SIDE="64",
                PICAISSO_ALLOWED_PRIVATE_HOSTS=url.removeprefix("http://"),
            ),
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        result = json.loads((tmp_path / "out" / "result.json").read_text())
        check_folder(tmp_path / "out", result)
        assert [entry["kept"] for entry in result["classes"]] == [38, 38]
    finally:
        gallery.kill()
        gallery.wait()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
