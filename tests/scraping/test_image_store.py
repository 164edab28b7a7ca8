"""Which images of a collection are kept: duplicates, images of two classes, and takedowns."""

import hashlib
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from scraping.collect import Interrupted, collect
from scraping.urls import normalized_url
from tests.replicas.commons import CommonsReplica
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures import encoded, picture
from tests.replicas.pictures_host import PictureHost
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
    wait_until,
)

pytestmark = pytest.mark.timeout(120)


def test_duplicates_are_kept_once_and_every_rejection_has_its_reason(tmp_path):
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
        entry["rejected"].pop("over_quota")  # it was asked again for what the duplicates had cost
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
            "the same when it is resumed"
        )
        assert len(host.requests) == before


def captioned(image: Image.Image) -> Image.Image:
    copy = image.copy()
    ImageDraw.Draw(copy).rectangle(
        (0, copy.height * 9 // 10, copy.width, copy.height), fill=(10, 10, 10)
    )
    return copy


def test_of_duplicates_the_one_with_the_best_known_licence_is_kept_then_the_largest(tmp_path):
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
        assert found["1-small"]["detail"] == f"{urls[1]} is kept instead"
        assert found["1-captioned"]["detail"] == f"like {urls[1]}"
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


def test_a_near_duplicate_in_another_class_takes_both_out_and_each_names_the_other(tmp_path):
    with PictureHost() as host, PictureHost() as later:
        later.statements["/robots.txt"] = lambda _handler: time.sleep(2)  # so that it comes second
        one = host.add("/one.jpg", encoded(picture(1, (640, 480))))
        two = later.add(
            "/two.png", encoded(picture(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG")
        )
        three = later.add("/three.jpg", encoded(captioned(picture(1)), quality=70))
        named = {
            "wolf": [listed(one)],
            "dog": [listed(two), listed(three), listed(host.picture_url(8))],
        }
        with Listing(named) as site:
            config = configuration(
                {"openverse": site},
                [host, later],
                sources=["openverse"],
                classes=classes("wolf", "dog"),
            )
            result = collect(tmp_path, config)
        check_folder(tmp_path, result)
        assert [entry["kept"] for entry in result["classes"]] == [0, 1]
        found = by_url(tmp_path)
        assert {found[url]["reason"] for url in (one, two, three)} == {"in_two_classes"}
        assert found[one]["detail"] == "found for “dog” too"
        assert found[two]["detail"] == "found for “wolf” too"


def test_duplicates_of_a_withdrawn_picture_are_recognised_after_a_restart(tmp_path):
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


def test_what_a_person_removed_is_replaced_and_does_not_come_back(tmp_path):
    with PictureHost() as host:
        seen = [host.add(f"/{n}.jpg", encoded(picture(n, (320, 240)))) for n in range(4)]
        larger = host.add("/0-larger.jpg", encoded(picture(0, (640, 480)), quality=85))
        new = [host.add(f"/{n}.jpg", encoded(picture(n, (320, 240)))) for n in (4, 5, 6)]
        items = {
            "thing": [listed(url) for url in seen],
            # Better words begin with what is known.
            "thing animal": [listed(url) for url in (seen[1], larger, *new)],
        }
        with Listing(items) as site:
            first = configuration({"openverse": site}, [host], sources=["openverse"], limit=4)
            collect(tmp_path, first)
            removed = [by_url(tmp_path)[url]["sha256"] for url in seen[:2]]
            (tmp_path / "result.json").unlink()
            reworded = classes("thing")
            reworded[0]["query"] = "thing animal"
            again = configuration(
                {"openverse": site},
                [host],
                sources=["openverse"],
                limit=4,
                classes=reworded,
                set_aside=removed,
            )
            collect(tmp_path, again)
    found = by_url(tmp_path)
    kept = {url for url, row in found.items() if row["state"] == "kept"}
    assert kept == {*seen, *new[:2]}  # those that were removed stay where they are
    assert found[larger]["reason"] == "near_duplicate"
    assert found[larger]["detail"] == "like one that was removed"
