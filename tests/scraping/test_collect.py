"""A collection from end to end over replicas of the sources: quotas, counts, every way to stop."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from scraping.collect import Interrupted, collect
from tests.replicas.bing import BingReplica
from tests.replicas.commons import CommonsReplica
from tests.replicas.inaturalist import InaturalistReplica
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures import encoded, picture
from tests.replicas.pictures_host import PictureHost
from tests.replicas.server import Replica, Request, Response, json_response
from tests.scraping.collect_folder import (
    Listing,
    by_url,
    check_folder,
    classes,
    configuration,
    listed,
    rows,
)
from tests.scraping.conftest import (
    alive,
    descendants,
    environment,
    repository,
    wait_until,
)

pytestmark = pytest.mark.timeout(120)


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
            ("openverse", "partial", "Openverse found 3 in all."),
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


class Refusing(InaturalistReplica):
    """Asks everybody to come back in a minute and a half."""

    def respond(self, request: Request) -> Response:
        return json_response({"error": "too many"}, 429, {"Retry-After": "90"})


@pytest.mark.browser
def test_one_answering_source_fills_the_quota_and_the_three_others_are_named_in_words(tmp_path):
    with (
        PictureHost() as host,
        BingReplica() as blocked,
        CommonsReplica(refuses_all=True) as changed,
        Refusing() as limited,
        OpenverseReplica(host.url + "/pic/{}.jpg") as answering,
    ):
        replicas = {
            "bing": blocked,
            "wikimedia": changed,
            "inaturalist": limited,
            "openverse": answering,
        }
        values = {"sources": list(replicas), "classes": classes("captcha refused"), "limit": 40}
        result = collect(tmp_path, configuration(replicas, [host], **values))
        check_folder(tmp_path, result)
        assert result["classes"][0]["kept"] == 40
        assert {row["source"] for row in rows(tmp_path) if row["state"] == "kept"} == {"openverse"}
        said = {entry["name"]: (entry["outcome"], entry["message"]) for entry in result["sources"]}
        assert said["bing"] == ("blocked", "Bing asked for a human check.")
        assert (
            said["wikimedia"][0] == "layout_changed"
            and "Wikimedia Commons changed" in said["wikimedia"][1]
        )
        assert said["inaturalist"] == ("rate_limited", "iNaturalist asks us to wait 90 seconds.")
        assert said["openverse"][0] == "ok"
        cool_downs = {entry["name"]: entry["cool_down_seconds"] for entry in result["sources"]}
        assert cool_downs == {
            "bing": 3600.0,
            "wikimedia": 21600.0,
            "inaturalist": 90.0,
            "openverse": None,
        }


class Odd(Replica):
    """An Openverse whose entries hold what strangers wrote into them, beside good ones."""

    def __init__(self, host: PictureHost) -> None:
        super().__init__()
        self._host = host

    def respond(self, request: Request) -> Response:
        odd_addresses = [
            "http://[URL=x",
            "http://a.example:99999/x.jpg",
            "http://xn--/x.jpg",
            "http://\ud83d.example/?q=\ud83d&utm_source=1",
            "http://a.example/" + "x" * 100_000,
        ]
        entries = [{"url": address} for address in odd_addresses]
        for number in range(6):
            entry = {
                "url": self._host.picture_url(number),
                "title": "Sunset \ud83d\0\r" + "x" * 50_000,
                "foreign_landing_url": odd_addresses[number % 5],
                "creator_url": odd_addresses[0],
                "license": "z" * 500,
                "width": 10**30,
                "height": float("nan"),
            }
            entries.append(entry)
        return json_response({"results": entries, "page_count": 10**400})


def test_nothing_that_a_source_states_of_its_pictures_stops_the_others(tmp_path):
    with PictureHost() as host, Odd(host) as site:
        config = configuration({"openverse": site}, [host], sources=["openverse"], limit=6)
        result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert result["classes"][0]["kept"] == 6
        assert result["classes"][0]["rejected"] == {"refused_address": 5}
        kept = [row for row in rows(tmp_path) if row["state"] == "kept"]
        assert {row["title"][:10] for row in kept} == {"Sunset \ufffd x"}
        assert {(row["page_url"], row["source_width"]) for row in kept} == {("", None)}


def test_an_answer_that_is_not_understood_is_kept_for_the_operator(tmp_path):
    with InaturalistReplica(scenario="changed") as site:
        config = configuration(
            {"inaturalist": site}, [], sources=["inaturalist"], classes=classes("jaguar")
        )
        entry = collect(tmp_path, config)["sources"][0]
        assert entry["outcome"] == "layout_changed"
        assert json.loads((tmp_path / entry["evidence"]).read_text())["total_results"] == 9


def test_the_numbers_of_each_source_add_up(tmp_path):
    with (
        PictureHost() as host,
        OpenverseReplica(host.url + "/pic/{}.jpg") as first,
        CommonsReplica(host.url + "/pic/{}.jpg", first=1000) as second,
    ):
        host.add("/pic/1.jpg", b"no picture")
        config = configuration(
            {"openverse": first, "wikimedia": second}, [host], sources=["openverse", "wikimedia"],
            classes=classes("few corgi", "shiba"), limit=12,
            closed_sources={"bing": "not asked anyway"},
        )  # fmt: skip
        result = collect(tmp_path, config)
        for entry in result["classes"]:
            of_class = [source for source in result["sources"] if source["class"] == entry["id"]]
            assert sum(source["kept"] for source in of_class) == entry["kept"]
            for reason, count in entry["rejected"].items():
                assert sum(source["rejected"].get(reason, 0) for source in of_class) == count
            assert all(
                source["found"] >= source["kept"] + sum(source["rejected"].values())
                for source in of_class
            )
            assert all(source["asked"] > 0 for source in of_class)


def test_too_few_is_stated_and_no_error(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration(
            {"openverse": site}, [host], sources=["openverse"], limit=50, minimum=20
        )
        result = collect(tmp_path, replace(config, classes=config.classes[:1]))
        assert result["ok"] and result["classes"][0]["too_few"] is False
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration(
            {"openverse": site}, [host], sources=["openverse"], classes=classes("few"), limit=50
        )
        result = collect(tmp_path / "few", config)
        assert result["ok"] and result["classes"][0]["too_few"] is True


def test_what_the_sources_said_outlives_a_kill_just_before_the_end(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration({"openverse": site}, [host], sources=["openverse"])
        result = collect(tmp_path, config)
        (tmp_path / "result.json").unlink()
        again = collect(tmp_path, config)
        assert again["sources"] == result["sources"]
        assert len(site.asked("/v1/images/")) == 1


def test_a_short_class_is_asked_for_in_other_words(tmp_path):
    with PictureHost() as host:
        named = {
            words: [listed(host.picture_url(10 * number + n)) for n in range(3)]
            for number, words in enumerate(["corgi", "corgis", "corgi photo"])
        }
        with Listing(named) as site:
            config = configuration(
                {"openverse": site}, [host], sources=["openverse"], classes=classes("corgi")
            )
            result = collect(tmp_path, config)
            check_folder(tmp_path, result)
            entry, source = result["classes"][0], result["sources"][0]
            assert (entry["kept"], entry["wordings"]) == (9, ["corgi", "corgis", "corgi photo"])
            assert [row["query"] for row in rows(tmp_path) if row["state"] == "kept"] == [
                words for words in named for _ in range(3)
            ]
            assert source["message"] == "9 from Openverse (3 different searches)."


def test_no_other_words_are_tried_while_the_own_ones_suffice(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        result = collect(
            tmp_path, configuration({"openverse": site}, [host], sources=["openverse"], limit=30)
        )
        assert result["classes"][0]["wordings"] == ["thing"]
        assert {request.query["q"] for request in site.asked("/v1/images/")} == {"thing"}


def test_names_that_one_source_knows_are_asked_of_the_others(tmp_path):
    with PictureHost() as host:
        named = {"Felis catus": [listed(host.picture_url(n)) for n in range(4)]}
        with Listing(named) as site, InaturalistReplica(scenario="empty") as names:
            replicas = {"openverse": site, "inaturalist": names}
            config = configuration(
                replicas,
                [host],
                sources=["openverse", "inaturalist"],
                classes=classes("house cat"),
                limit=4,
            )
            result = collect(tmp_path, config)
            assert result["classes"][0]["kept"] == 4
            assert result["classes"][0]["wordings"][-2:] == ["Domestic Cat", "Felis catus"]


def test_a_row_says_where_a_picture_is_from_and_what_came(tmp_path):
    with PictureHost() as host:
        body = encoded(picture(1, (640, 480)), "PNG")
        url = host.add("/one.png", body)
        item = listed(
            url,
            title="A corgi",
            creator="Ada",
            license="by-sa",
            license_version="3.0",
            attribution=None,
        )
        item |= {
            "license_url": "http://creativecommons.org/licenses/by-sa/3.0/",
            "width": 1280,
            "height": 960,
        }
        with Listing(
            {"thing": [item | {"foreign_landing_url": "https://pages.example/1"}]}
        ) as site:
            collect(
                tmp_path,
                configuration({"openverse": site}, [host], sources=["openverse"], max_side=320),
            )
        row = by_url(tmp_path)[url]
        assert (row["source"], row["query"], row["rank"]) == ("openverse", "thing", 1)
        assert (row["page_url"], row["title"], row["creator"]) == (
            "https://pages.example/1",
            "A corgi",
            "Ada",
        )
        assert (row["license"], row["license_version"], row["license_basis"]) == (
            "cc-by-sa",
            "3.0",
            "per-item",
        )
        assert row["license_url"] == "http://creativecommons.org/licenses/by-sa/3.0/"
        assert all(
            words in row["attribution"]
            for words in ("A corgi", "Ada", "CC BY-SA 3.0", "pages.example")
        )
        assert (row["http_status"], row["mime"], row["bytes"]) == (200, "image/png", len(body))
        assert (row["width"], row["height"], row["source_width"], row["source_height"]) == (
            320,
            240,
            1280,
            960,
        )
        assert row["stored_bytes"] == (tmp_path / row["file"]).stat().st_size
        assert row["source_sha256"] == hashlib.sha256(body).hexdigest()
        assert row["fetched_at"].endswith("Z")


def test_open_means_free_for_any_purpose_and_known_for_the_very_picture(tmp_path):
    licenses = ["cc0", "pdm", "by", "by-sa", "by-nc", "by-nd", "by-nc-sa", "all rights reserved"]
    with PictureHost() as host:
        items = [
            listed(host.picture_url(n), license=name, license_version="4.0", license_url="")
            for n, name in enumerate(licenses)
        ]
        with Listing({"thing": items}) as site:
            config = configuration(
                {"openverse": site}, [host], sources=["openverse"], license="open"
            )
            result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        kept = {row["license"] for row in rows(tmp_path) if row["state"] == "kept"}
        assert kept == {"cc0", "pdm", "cc-by", "cc-by-sa"}
        assert result["classes"][0]["rejected"] == {"license": 4}
        details = {row["detail"] for row in rows(tmp_path) if row["reason"] == "license"}
        assert {"cc-by-nc is not open", "cc-by-nd is not open"} <= details
        assert len(host.requests) == 4, "what may not be kept is not even fetched"


def test_pictures_whose_host_opted_out_are_counted_and_left_alone(tmp_path):
    with PictureHost() as host:
        items = [listed(host.url + path) for path in ("/noai", "/ourbot", "/otherbot")]
        with Listing({"thing": items}) as site:
            result = collect(
                tmp_path, configuration({"openverse": site}, [host], sources=["openverse"])
            )
        check_folder(tmp_path, result)
        assert result["classes"][0]["rejected"] == {"opted_out": 2}
        assert result["sources"][0]["rejected"] == {"opted_out": 2}
        assert result["classes"][0]["kept"] == 1


def test_previews_and_small_pictures_are_refused(tmp_path):
    with PictureHost() as host:
        small = host.add("/small.jpg", encoded(picture(1, (100, 80))))
        preview = "https://encrypted-tbn0.gstatic.com/images?q=tbn:ANd9"
        stated = host.add("/stated.jpg", encoded(picture(2)))
        items = [listed(small), listed(preview), listed(stated, width=120, height=90)]
        with Listing({"thing": items}) as site:
            config = configuration({"openverse": site}, [host], sources=["openverse"], min_side=200)
            result = collect(tmp_path, config)
        assert result["classes"][0]["rejected"] == {"too_small": 3}
        found = by_url(tmp_path)
        assert found[preview]["detail"] == "the address of a preview"
        assert [request.target for request in host.requests] == ["/small.jpg"]


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
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
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
        if number != signal.SIGKILL:
            said = [line for line in process.stderr.read().splitlines() if b'"stage"' not in line]
            assert said == [b"Stopped before the end; the same command goes on from here."]
        if number == signal.SIGINT:
            assert process.returncode == 130


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
            [sys.executable, "-m", "scraping", "collect", "mammal", "plant", "--limit", "38",
             "--source", "bing", "--out", str(tmp_path / "out")],
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


def test_classes_fill_side_by_side_where_pictures_come_slowly(tmp_path):
    with PictureHost(pace=0.03) as host:
        items = {}
        for first, words in ((100, "corgi"), (200, "poodle"), (300, "pug")):
            items[words] = [listed(host.picture_url(first + n)) for n in range(45)]
        shared = host.picture_url(7)  # found for two classes, so in neither
        items["corgi"][3] = listed(shared)
        items["pug"][9] = listed(shared)
        with Listing(items) as site:
            kept = []
            for name, order in (("one", items), ("two", ("pug", "poodle", "corgi"))):
                config = configuration(
                    {"openverse": site}, [host], sources=["openverse"], classes=classes(*order),
                    limit=30,
                )  # fmt: skip
                check_folder(tmp_path / name, collect(tmp_path / name, config))
                found = rows(tmp_path / name)
                kept.append({row["image_url"] for row in found if row["state"] == "kept"})
        of_each = Counter()
        for request in host.requests[:75]:
            of_each[request.path[5]] += 1
        assert min(of_each[first] for first in "123") >= 15, of_each
        assert len(kept[0]) == 90
        assert kept[0] == kept[1], "the order of the classes decides nothing"
