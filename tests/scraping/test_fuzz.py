"""Files of strangers, damaged at random: pictures, zips, tables and recipes end in a sentence."""

import asyncio
import io
import json
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scraping.config import CollectConfig, ConfigError
from scraping.picture_zip import ZippedPicture, ZipRefusedError, read_zip
from scraping.reasons import Reason
from scraping.recipe import read_recipe
from scraping.screening.pool import PoolSettings, ScreenPool
from scraping.screening.screen import CleanImage, ScreenSettings
from scraping.supplied import SuppliedError, named_classes, read_supplied
from tests.hostile import changed_json, damaged, fuzz
from tests.memory import forget_peak, peak
from tests.replicas.pictures import encoded, jpeg, picture

SETTINGS = ScreenSettings(min_side=16, max_side=256)
MOST_SECONDS = 10.0


def seeds() -> dict[str, bytes]:
    """Return a picture of every format and mode that is read."""
    small = picture(3, (96, 64))
    found = {kind: encoded(small, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")}
    for mode in ("L", "P", "RGBA", "LA", "I;16", "1"):
        converted = Image.new("I;16", (96, 64), 999) if mode == "I;16" else small.convert(mode)
        found[f"PNG {mode}"] = encoded(converted, "PNG")
    found["JPEG CMYK"] = encoded(small.convert("CMYK"), "JPEG")
    found["JPEG progressive"] = encoded(small, "JPEG", progressive=True)
    frames = [small.rotate(angle) for angle in (0, 90, 180)]
    for kind in ("GIF", "WEBP", "PNG"):
        body = io.BytesIO()
        frames[0].save(body, kind, save_all=True, append_images=frames[1:])
        found[f"{kind} moving"] = body.getvalue()
    return found


SEEDS = seeds()


@fuzz(40)
@given(data=st.data())
def test_no_damaged_picture_ends_the_screening_or_its_worker(data):
    """In the worker, ten at a time; what is not damaged comes through after them."""
    bodies = []
    for _ in range(10):
        seed = SEEDS[data.draw(st.sampled_from(sorted(SEEDS)))]
        bodies.append(damaged(data.draw, seed))

    async def answers() -> list:
        async with ScreenPool(SETTINGS, PoolSettings(1, image_seconds=MOST_SECONDS)) as pool:
            found = await asyncio.gather(*(pool.screen(body) for body in bodies))
            return [*found, await pool.screen(jpeg(1))]

    *found, last = asyncio.run(answers())
    for answer in found:
        assert isinstance(answer, CleanImage) or answer.reason in Reason
        assert isinstance(answer, CleanImage) or "decoder failed" not in answer.detail
    assert isinstance(last, CleanImage)


NAMES = [
    "cat/a.jpg", "dog/b.png", "../../etc/passwd", "/cat/abs.jpg", "C:\\cat\\a.jpg", "cat\\x.jpg",
    "cat/" + "x" * 70_000, "cat/\ud83d.jpg".encode("utf-8", "replace").decode(), "cat/", "", "cat",
    "cat/a.jpg/", "CAT/é.jpg", "cat/e\u0301.jpg", "__MACOSX/cat/a.jpg", "train/cat/a.jpg",
    "cat/inner.zip", "cat/con.jpg", "cat/a\x00b.jpg", "labels.csv", "classes.json",
]  # fmt: skip


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    """Return zips with odd names, links, growth, other methods and damaged bytes."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=6)):
            info = zipfile.ZipInfo("x")
            info.filename = name[:65_000]
            methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]
            info.compress_type = draw(st.sampled_from(methods))
            if draw(st.integers(0, 4)) == 0:
                info.external_attr = 0o120777 << 16  # a link
            content = draw(st.sampled_from([b"", b"/etc/passwd", bytes(2_000_000), SEEDS["PNG"]]))
            archive.writestr(info, content)
    data = body.getvalue()
    return damaged(draw, data) if draw(st.booleans()) else data


def refused_in_words(read: Callable[[], object]) -> None:
    try:
        read()
    except SuppliedError as error:
        assert str(error)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@fuzz(150)
@given(data=zips())
def test_no_zip_is_an_exception_or_leaves_its_limits(tmp_path_factory, data):
    begun = time.monotonic()
    taken: list[ZippedPicture] = []
    try:
        found = read_zip(data, {"cat": 1, "dog": 2}, taken.append)
    except ZipRefusedError as error:
        assert str(error).endswith(".")
    else:
        assert found.taken == len(taken)
        assert all(sentence.endswith(".") for _, sentence in found.refused)
    assert all(len(each.content) < 20_000_000 for each in taken)
    folder = tmp_path_factory.getbasetemp() / "zips"
    folder.mkdir(exist_ok=True)
    path = folder / "own.zip"
    path.write_bytes(data)
    for read in (
        lambda: named_classes(str(path), ""),
        lambda: read_supplied(str(path), "", ["cat"]),
    ):
        try:
            read()
        except SuppliedError as error:
            assert str(error)
    assert [file.name for file in folder.iterdir()] == ["own.zip"]
    assert time.monotonic() - begun < MOST_SECONDS


TABLE = 'url,label\nhttp://a.example/1.jpg,cat\n"http://a.example/2.jpg","d""og"\n'
CELLS = ["url", "label", '"', '""', ",", ";", "\t", "\r", "\n", "\r\n", "\x00"]
CELLS += ["=1+1", "x" * 9000, "http://a.example/1.jpg", "cat", "\ufeff", "é", "\u2028", "http://["]


@fuzz(150)
@given(data=st.data())
def test_no_table_of_addresses_is_an_exception(tmp_path_factory, data):
    parts = data.draw(st.lists(st.sampled_from(CELLS), max_size=20))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-16", "latin-1", "utf-8-sig", "utf-32"]))
    text = data.draw(st.sampled_from([TABLE, ""])) + "".join(parts)
    body = text.encode(encoding, "replace")
    if data.draw(st.booleans()):
        body = damaged(data.draw, body)
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_bytes(body)
    for read in (
        lambda: named_classes("", str(path)),
        lambda: read_supplied("", str(path), ["cat"]),
    ):
        try:
            read()
        except SuppliedError as error:
            assert str(error)


IMAGE = {
    "class": "c001", "split": "train", "source": "bing", "image_url": "http://a.example/1.jpg",
    "page_url": "", "title": "A cat", "creator": "Ada", "license": "cc0", "license_version": "1.0",
    "license_url": "", "license_basis": "per-item", "attribution": "", "sha256": "a" * 64,
    "source_sha256": "b" * 64, "dhash": "0" * 16, "width": 300, "height": 200, "group": 1,
    "file": "train/c001/aaaaaaaaaaaaaaaa.jpg", "query": "cat", "rank": 1,
}  # fmt: skip
RECIPE = {
    "format": "picaisso-recipe", "format_version": 1, "min_side": 200, "max_side": 1024,
    "classes": [{"id": "c001", "name": "cat"}, {"id": "c002", "name": "dog"}],
    "images": [IMAGE, IMAGE | {"image_url": "http://a.example/2.jpg", "class": "c002"}],
}  # fmt: skip


@fuzz(200)
@given(data=st.data())
def test_no_recipe_is_an_exception(tmp_path_factory, data):
    value = changed_json(data.draw, RECIPE)
    body = json.dumps(value).encode()
    if data.draw(st.booleans()):
        body = damaged(data.draw, body)
    path = tmp_path_factory.getbasetemp() / "recipe.json"
    path.write_bytes(body)
    try:
        recipe = read_recipe(path)
    except ConfigError as error:
        assert str(error).endswith(".") and len(str(error)) < 1000
    else:
        assert json.dumps([vars(image) for image in recipe.images], default=str).encode()


CONFIG = {
    "classes": [{"id": "c001", "name": "cat", "query": "cat"}], "limit": 10, "minimum": 5,
    "sources": ["openverse"], "license": "any", "locale": "en-US", "min_side": 64, "max_side": 512,
    "taken_down": {"urls": ["a" * 64], "hashes": []}, "source_urls": {"bing": "http://a.example"},
    "contact": "a@example.org", "robots": "respect", "allowed_private_hosts": ["127.0.0.1:1"],
    "deadline_seconds": 60, "kind": None, "ai_made": "keep",
}  # fmt: skip


@fuzz(200)
@given(data=st.data())
def test_no_configuration_of_a_collection_is_an_exception(data):
    value = json.loads(json.dumps(changed_json(data.draw, CONFIG)))
    if not isinstance(value, dict):
        return
    try:
        CollectConfig.of(value)
    except ConfigError as error:
        assert str(error)


def test_what_is_read_over_and_over_does_not_grow_in_memory(tmp_path):
    """A thousand damaged zips and recipes, one after the other, take no more than the first."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("cat/a.png", SEEDS["PNG"])
        archive.writestr("cat/b.png", bytes(3_000_000), zipfile.ZIP_DEFLATED)
    data = bytearray(body.getvalue())
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(RECIPE))

    def read(times: int) -> None:
        for number in range(times):
            data[number % len(data)] ^= 255
            with suppress(ZipRefusedError):
                read_zip(bytes(data), {"cat": 1}, lambda picture: None)
            data[number % len(data)] ^= 255
            read_recipe(path)

    read(50)
    before = forget_peak()
    read(1000)
    assert peak() - before < 50_000, "kilobytes"


@pytest.mark.parametrize("kind", sorted(SEEDS))
def test_the_seeds_are_pictures_that_are_kept(kind):
    from scraping.screening.screen import screen

    assert isinstance(screen(SEEDS[kind], SETTINGS), CleanImage)
