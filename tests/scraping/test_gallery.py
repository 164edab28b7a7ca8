"""The search site over a folder: what matches, what is served, and what is not."""

import html
import json
import re
import threading
import urllib.error
import urllib.request

import pytest

from scraping.gallery import GalleryServer, word_forms
from tests.replicas.pictures import encoded, picture


@pytest.fixture
def gallery(tmp_path):
    for number in range(40):
        kind = ("bears", "cats/wild", "Cats/cartoon")[number % 3]
        folder = tmp_path / "animals" / "mammals" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"one & {number}.png").write_bytes(encoded(picture(number, (90, 70)), "PNG"))
    (tmp_path / "animals" / "mammals" / "note.txt").write_text("no picture")
    (tmp_path / "cherries").mkdir()
    (tmp_path / "cherries" / "a.jpg").write_bytes(encoded(picture(50), "JPEG"))
    (tmp_path / "secret.txt").write_text("secret")
    with GalleryServer(tmp_path) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def facts(page: str) -> list[dict]:
    return [
        json.loads(html.unescape(text)) for text in re.findall(r'class="iusc" m="([^"]*)"', page)
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("mammal", 27),
        ("Mammals", 27),
        ("bear", 14),
        ("CAT", 13),
        ("cats", 13),
        ("cherry", 1),
        ("animal", 27),
        ("bear animal", 14),
        ("wild cats", 13),
        ("bear cat", 0),
        ("bear photo", 0),
        ("cartoon", 0),
        ("mam", 0),
        ("", 0),
    ],
)
def test_a_query_finds_the_folders_of_that_name_in_either_number(gallery, query, found):
    assert len(gallery.collection.search(query)) == found


@pytest.mark.parametrize(
    ("one", "many"), [("plant", "plants"), ("box", "boxes"), ("berry", "berries"), ("bus", "buses")]
)
def test_singular_and_plural_find_each_other(one, many):
    assert one in word_forms(many)
    assert many in word_forms(one)


def test_the_page_and_its_fragments_hold_each_image_once_with_its_size(gallery):
    page = read(f"{gallery.url}/images/search?q=mammal&count=10").decode()
    found, fragment = facts(page), page
    assert len(found) == 10
    while following := html.unescape(re.search(r'data-nextUrl="([^"]*)"', fragment)[1]):
        fragment = read(gallery.url + following).decode()
        found += facts(fragment)
    addresses = [each["murl"] for each in found]
    assert len(set(addresses)) == len(addresses) == 27
    assert "exph=70&amp;expw=90" in page
    assert read(addresses[0])[:4] == b"\x89PNG"
    assert b"<img" in read(found[0]["purl"])


def test_without_results_the_page_says_so_and_a_fragment_is_empty(gallery):
    assert b"There are no results for <strong>&lt;b&gt;" in read(
        f"{gallery.url}/images/search?q=%3Cb%3E"
    )
    assert read(f"{gallery.url}/images/async?q=mammal&first=999") == b""


def test_robots_are_allowed(gallery):
    assert b"Allow: /" in read(f"{gallery.url}/robots.txt")


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "//etc/passwd",
        "/animals",
    ],
)
def test_nothing_but_its_images_is_served(gallery, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        read(f"{gallery.url}/pictures{path}")
    assert caught.value.code == 404
