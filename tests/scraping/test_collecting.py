"""What a collection promises beyond its quota: words for every failure, provenance, one of each, no
opt-outs.
"""

import asyncio
import hashlib
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from scraping.collect import Interrupted, collect
from scraping.search.searcher import SourceThread
from scraping.sources.registry import REGISTRY
from scraping.urls import normalized_url
from tests.replicas.bing import BingReplica
from tests.replicas.commons import CommonsReplica
from tests.replicas.google import GoogleReplica
from tests.replicas.inaturalist import InaturalistReplica
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures import encoded, picture
from tests.replicas.pictures_host import PictureHost
from tests.replicas.server import Request, Response, json_response
from tests.scraping.conftest import descendants, wait_until
from tests.scraping.test_collect import check_folder, classes, configuration, rows

pytestmark = pytest.mark.timeout(120)


class Listing(OpenverseReplica):
    """Names the pictures that it is given, by the words asked for; an item may set what it
    likes.
    """

    def __init__(self, items: dict[str, list[dict]]) -> None:
        super().__init__()
        self.items = items

    def respond(self, request: Request) -> Response:
        found = [
            self._item(n) | item
            for n, item in enumerate(self.items.get(request.query.get("q", ""), []))
        ]
        page = int(request.query.get("page", "1"))
        answer = {
            "result_count": len(found),
            "page_count": 1,
            "page_size": 20,
            "page": page,
            "results": found,
        }
        return json_response(answer if page == 1 else answer | {"results": []})


def listed(url: str, **values: object) -> dict:
    return {"url": url, "width": None, "height": None, "license_url": ""} | values


def by_url(folder: Path) -> dict[str, dict]:
    return {row["image_url"]: row for row in rows(folder)}


class Refusing(InaturalistReplica):
    """Asks everybody to come back in a minute and a half."""

    def respond(self, request: Request) -> Response:
        return json_response({"error": "too many"}, 429, {"Retry-After": "90"})


# --- outcomes


@pytest.mark.browser
def test_one_answering_source_fills_the_quota_and_the_three_others_are_named_in_words(tmp_path):
    with (
        PictureHost() as host,
        BingReplica() as blocked,
        CommonsReplica() as changed,
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
            classes=classes("few corgi", "shiba"), limit=12, closed_sources={"bing": "not asked anyway"},
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


# --- quota


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
            assert source["message"] == "9 from Openverse, asked in 3 wordings."


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


# --- copies


def captioned(image: Image.Image) -> Image.Image:
    copy = image.copy()
    ImageDraw.Draw(copy).rectangle(
        (0, copy.height * 9 // 10, copy.width, copy.height), fill=(10, 10, 10)
    )
    return copy


def test_of_copies_the_one_with_the_best_known_licence_is_kept_then_the_largest(tmp_path):
    with PictureHost() as host:
        big, small = picture(1, (640, 480)), picture(1, (320, 240))
        urls = [
            host.add("/1-small.jpg", encoded(small, quality=80)),
            host.add("/1-big.jpg", encoded(big, quality=85)),
            host.add("/1-captioned.jpg", encoded(captioned(small), quality=85)),
            host.add("/2-big.jpg", encoded(picture(2, (640, 480)), quality=85)),
            host.add("/2-free.jpg", encoded(picture(2, (320, 240)), quality=80)),
            host.add("/3-big.jpg", encoded(picture(3, (640, 480)), quality=85)),
            host.add("/3-small.jpg", encoded(picture(3, (320, 240)), quality=85)),
        ]
        items = [listed(url, license="cc0" if "free" in url else "by-nc") for url in urls]
        with Listing({"thing": items}) as site:
            result = collect(
                tmp_path, configuration({"openverse": site}, [host], sources=["openverse"])
            )
        check_folder(tmp_path, result)
        found = {Path(url).stem: row for url, row in by_url(tmp_path).items()}
        assert {name for name, row in found.items() if row["state"] == "kept"} == {
            "1-big",
            "2-free",
            "3-big",
        }
        assert {row["reason"] for name, row in found.items() if row["state"] != "kept"} == {
            "near_duplicate"
        }
        assert found["1-small"]["detail"] == "a better copy is kept"
        assert found["1-captioned"]["detail"] == ""
        assert result["classes"][0]["rejected"] == {"near_duplicate": 4}


def test_the_same_bytes_with_a_better_licence_change_the_record_and_keep_the_file(tmp_path):
    with PictureHost() as host:
        one, two = (host.add(f"/{name}.jpg", encoded(picture(1))) for name in ("unfree", "free"))
        items = [listed(one, license="by-nd"), listed(two, license="by")]
        with Listing({"thing": items}) as site:
            result = collect(
                tmp_path, configuration({"openverse": site}, [host], sources=["openverse"])
            )
        check_folder(tmp_path, result)
        assert (by_url(tmp_path)[one]["reason"], by_url(tmp_path)[two]["state"]) == (
            "duplicate",
            "kept",
        )


def test_a_near_copy_in_another_class_takes_both_out_and_each_names_the_other(tmp_path):
    with PictureHost() as host:
        one = host.add("/one.jpg", encoded(picture(1, (640, 480))))
        two = host.add(
            "/two.png", encoded(picture(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG")
        )
        three = host.add("/three.jpg", encoded(captioned(picture(1)), quality=70))
        named = {
            "wolf": [listed(one)],
            "dog": [listed(two), listed(three), listed(host.picture_url(8))],
        }
        with Listing(named) as site:
            config = configuration(
                {"openverse": site}, [host], sources=["openverse"], classes=classes("wolf", "dog")
            )
            result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert [entry["kept"] for entry in result["classes"]] == [0, 1]
        found = by_url(tmp_path)
        assert {found[url]["reason"] for url in (one, two, three)} == {"in_two_classes"}
        assert found[one]["detail"] == "found for “dog” too"
        assert found[two]["detail"] == "found for “wolf” too"


def test_copies_of_a_withdrawn_picture_are_recognised_after_a_restart(tmp_path):
    with PictureHost(delay=4) as host:
        one = host.add("/one.jpg", encoded(picture(1)))
        again = host.add("/again.jpg", encoded(picture(1, (640, 480))))
        late = host.add("/late.jpg", encoded(captioned(picture(1, (500, 375))), quality=70))
        named = {
            "wolf": [listed(one)],
            "dog": [listed(again), listed(host.picture_url(9)), listed(late)],
        }
        with Listing(named) as site:
            config = configuration(
                {"openverse": site}, [host], sources=["openverse"], classes=classes("wolf", "dog")
            )
            stop = threading.Event()
            (tmp_path / "images.jsonl").touch()

            def stop_after_the_conflict() -> None:
                wait_until(
                    lambda: (tmp_path / "images.jsonl").read_text().count("in_two_classes") == 2, 10
                )
                stop.set()

            watcher = threading.Thread(target=stop_after_the_conflict)
            watcher.start()
            with pytest.raises(Interrupted):
                collect(tmp_path, config, stop=stop)
            watcher.join()
            assert late not in by_url(tmp_path)
            host.delay = 0.0
            result = collect(tmp_path, config)
        assert by_url(tmp_path)[late]["reason"] == "in_two_classes"
        assert [entry["kept"] for entry in result["classes"]] == [0, 1]
        assert not (tmp_path / "marks.jsonl").exists() and not (tmp_path / "incoming").exists()


# --- provenance


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


# --- takedown


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_was_taken_down_by_address_page_or_content_stays_out(tmp_path):
    with PictureHost() as host:
        bodies = [encoded(picture(n)) for n in range(4)]
        urls = [host.add(f"/{n}.jpg", body) for n, body in enumerate(bodies)]
        items = [
            listed(url, foreign_landing_url=f"https://pages.example/{n}")
            for n, url in enumerate(urls)
        ]
        with Listing({"thing": items}) as site:
            taken_down = {
                "urls": [
                    digest(normalized_url(text).encode())
                    for text in (urls[0] + "#x", "https://PAGES.example/1")
                ],
                "hashes": [digest(bodies[2])],
            }
            config = configuration(
                {"openverse": site}, [host], sources=["openverse"], taken_down=taken_down
            )
            result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert result["classes"][0]["rejected"] == {"taken_down": 3}
        assert by_url(tmp_path)[urls[3]]["state"] == "kept"
        assert sorted(request.path for request in host.requests) == ["/2.jpg", "/3.jpg"]


def test_what_is_taken_down_while_a_collection_pauses_is_removed_when_it_goes_on(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration({"openverse": site}, [host], sources=["openverse"])
        collect(tmp_path, config)
        (tmp_path / "result.json").unlink()
        gone = next(row for row in rows(tmp_path) if row["state"] == "kept")
        result = collect(tmp_path, replace(config, taken_down={"hashes": [gone["sha256"]]}))
        check_folder(tmp_path, result)
        assert by_url(tmp_path)[gone["image_url"]]["reason"] == "taken_down"
        assert not (tmp_path / gone["file"]).exists()
        assert result["classes"][0]["kept"] == 10


# --- the browser's turn


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
            {"bing": site, "openverse": other}, [host], sources=["bing", "openverse"], browser_turns=True,
            deadline_seconds=4,
        )  # fmt: skip
        result = collect(tmp_path, config)
        said = {entry["name"]: entry for entry in result["sources"]}
        assert said["bing"]["outcome"] == "not_applicable"
        assert "the browser was in use" in said["bing"]["message"]
        assert site.requests == []
        assert said["bing"]["cool_down_seconds"] is None
        assert not list(tmp_path.glob("browser.*"))


# --- secrets and order


def test_keys_of_sources_are_not_written_into_the_folder(tmp_path):
    config = configuration(
        {}, [], sources=["openverse"], credentials={"openverse_client_secret": "do not tell"}
    )
    config.write(tmp_path)
    assert "do not tell" not in (tmp_path / "config.json").read_text()
    assert "do not tell" not in repr(config)


@pytest.mark.skipif("google" not in REGISTRY, reason="there is no source that is always last")
def test_a_source_that_is_always_last_is_last_whatever_the_order_says():
    assert configuration({}, [], sources=["google", "openverse", "openverse"]).sources == (
        "openverse",
        "google",
    )
