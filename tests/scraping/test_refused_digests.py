"""Images that the operator refuses by the digest of their bytes, and what is left of them."""

import asyncio
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scraping.collect import collect
from scraping.download_list import DownloadSettings, download_list
from scraping.net.http import FetchSettings
from scraping.records.image_log import ImageRecord
from scraping.refused_digests import RefusedDigests, SettingError
from scraping.screening.screen import ScreenSettings, screen
from tests.replicas.marked_pictures import AI_MADE, NO_TRAINING, xmp
from tests.replicas.pictures import encoded, jpeg, picture
from tests.replicas.pictures_host import PictureHost
from tests.scraping.collect_folder import (
    Listing,
    by_url,
    classes,
    configuration,
    listed,
    rows,
)
from tests.scraping.conftest import environment

RECEIVED = hashlib.sha256(jpeg(1)).hexdigest()
SMALL = ScreenSettings(64, 256)


def stored_digest(data: bytes, screening: ScreenSettings) -> str:
    return screen(data, screening).sha256


def traces(folder: Path, *texts: str) -> list[str]:
    """Return the files below a folder that hold one of the texts."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file() and any(text.encode() in file.read_bytes() for text in texts):
            found.append(file.name)
    return found


def write(file: Path, *lines: str) -> str:
    file.write_text("\n".join(lines) + "\n")
    return str(file)


@pytest.mark.parametrize(
    "text",
    [
        RECEIVED,
        RECEIVED.upper() + "\r\n",
        f"\ufeff# what we refuse\n\n  {RECEIVED}  \n",
        f"sha256,source\n{RECEIVED},police\n",
        f'"SHA-256";"note"\n"{RECEIVED}";"x;y"\n',
        f"{RECEIVED}\tnote\n{RECEIVED}",
    ],
)
def test_a_list_is_read_as_people_write_it(text, tmp_path):
    file = tmp_path / "refused.txt"
    file.write_text(text, encoding="utf-8")
    refused = RefusedDigests.read(str(file))
    assert len(refused.digests) == 1 and refused.has(None, RECEIVED)
    assert not refused.has(None, "0" * 64)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{RECEIVED}\nabc\n", "Line 2 "),
        (f"# x\n\n{RECEIVED}x\n", "Line 3 "),
        (f"note,sha256\n1,{RECEIVED}\n", "Line 1 "),
        (f"{RECEIVED}\nsha256\n", "Line 2 "),
        ("\udcff", "UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_a_line_that_is_no_digest_is_named_at_the_start(text, words, tmp_path):
    file = tmp_path / "refused.txt"
    if text is not None:
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(SettingError, match=words):
        RefusedDigests.read(str(file))
    for command in (
        ["collect", "x", "--out", str(tmp_path / "o")],
        ["download", str(tmp_path / "urls"), "--out", "o"],
    ):
        (tmp_path / "urls").write_text("")
        done = subprocess.run(
            [sys.executable, "-m", "scraping", *command],
            cwd=tmp_path,
            env=environment(PICAISSO_REFUSED_DIGESTS="refused.txt"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300))
def test_whatever_a_list_holds_it_is_read_or_refused_in_a_sentence(data):
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            assert all(len(digest) == 32 for digest in RefusedDigests.read(file.name).digests)
        except SettingError as error:
            assert str(error).endswith((".", "f."))


MARKED = {
    "opted_out": encoded(picture(1), "JPEG", xmp=xmp(plus__DataMining=NO_TRAINING)),
    "ai_made": encoded(picture(1), "JPEG", xmp=xmp(Iptc4xmpExt__DigitalSourceType=AI_MADE)),
    "too_small": encoded(picture(1).resize((40, 30)), "JPEG"),
    "bad_shape": encoded(picture(1).resize((900, 80)), "JPEG"),
}


@pytest.mark.parametrize("reason", MARKED)
def test_a_picture_refused_by_its_stored_digest_has_no_other_reason(reason, tmp_path):
    data = MARKED[reason]
    rejection = screen(data, replace(SMALL, digests=True))
    assert (rejection.reason, len(rejection.sha256)) == (reason, 64)
    with PictureHost() as host:
        fetching = FetchSettings(allowed_private_hosts=frozenset({host.host}))
        address = host.add("/unspeakable.jpg", data)
        refused = RefusedDigests(frozenset({bytes.fromhex(rejection.sha256)}))
        values = DownloadSettings(fetching, SMALL, refused=refused)
        summary = asyncio.run(download_list([address], tmp_path, values))
    assert summary.rejected == {"refused_digest": 1}
    assert traces(tmp_path, "unspeakable") == []
    [row] = rows(tmp_path)
    assert row["sha256"] == rejection.sha256
    assert row["source_sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("of", ["received", "stored"])
def test_a_collection_logs_a_refused_picture_by_its_digest_alone(of, tmp_path):
    folder = tmp_path / "out"
    with PictureHost() as host:
        secret = host.add("/unspeakable.jpg", jpeg(1))
        items = [
            listed(secret, title="terrible title", foreign_landing_url="https://bad.example/page"),
            listed(host.picture_url(2)),
        ]
        with Listing({"thing": items, "other": [listed(host.picture_url(3)), items[0]]}) as site:
            config = configuration(
                {"openverse": site},
                [host],
                sources=["openverse"],
                classes=classes("thing", "other"),
                limit=2,
            )
            digest = RECEIVED
            if of == "stored":
                digest = stored_digest(jpeg(1), ScreenSettings(config.min_side, config.max_side))
            values = {name: getattr(config, name) for name in config.__dataclass_fields__}
            values["refused_digests"] = write(tmp_path / "refused.txt", digest)
            config = type(config)(**values)
            result = collect(folder, config)
            assert traces(folder, "unspeakable", "terrible title", "bad.example") == []
            found = [row for row in rows(folder) if row["reason"] == "refused_digest"]
            assert {row["class"] for row in found} >= {"c001"}
            for row in found:
                assert row["image_url"] == row["page_url"] == row["title"] == row["creator"] == ""
                assert row["attribution"] == "" and row["file"] is None
                assert set(row) - set(ImageRecord.__required_keys__) == {"url_sha256"}
            digests = {row["sha256"] for row in found} | {row["source_sha256"] for row in found}
            assert digest in digests
            assert result["classes"][0]["rejected"] == {"refused_digest": 1}
            assert result["classes"][0]["found"] == result["sources"][0]["found"] == 2
            assert len(list((folder / "images").iterdir())) == sum(
                entry["kept"] for entry in result["classes"]
            )
            (folder / "result.json").unlink()
            before = len(host.asked("/unspeakable.jpg"))
            collect(folder, config)
            assert len(host.asked("/unspeakable.jpg")) == before, "it is not fetched again"
            assert traces(folder, "unspeakable", "terrible title") == []


def test_a_picture_that_is_kept_already_is_taken_out_when_its_digest_comes_on_the_list(tmp_path):
    folder = tmp_path / "out"
    with PictureHost() as host:
        big = host.add("/unspeakable.jpg", encoded(picture(1, (640, 480))))
        small = host.add("/like-it.jpg", encoded(picture(1)))
        items = [listed(small), listed(big), listed(host.picture_url(2))]
        with Listing({"thing": items}) as site:
            config = configuration({"openverse": site}, [host], sources=["openverse"], limit=2)
            collect(folder, config)
            kept = by_url(folder)[big]
            assert kept["state"] == "kept" and "unspeakable" in by_url(folder)[small]["detail"]
            values = {name: getattr(config, name) for name in config.__dataclass_fields__}
            values["refused_digests"] = write(tmp_path / "refused.txt", kept["sha256"])
            result = collect(folder, type(config)(**values))
            assert not (folder / kept["file"]).exists()
            assert traces(folder, "unspeakable") == []
            assert result["classes"][0]["rejected"]["refused_digest"] == 1


def test_a_list_of_addresses_refuses_by_digest_and_does_not_ask_again(tmp_path):
    with PictureHost() as host:
        urls = [host.picture_url(number) for number in (1, 2, 3)]
        fetching = FetchSettings(allowed_private_hosts=frozenset({host.host}))
        digests = frozenset(map(bytes.fromhex, (RECEIVED, stored_digest(jpeg(2), without(SMALL)))))
        values = DownloadSettings(fetching, SMALL, refused=RefusedDigests(digests))
        seen = []
        summary = asyncio.run(
            download_list(urls, tmp_path, values, lambda row, _: seen.append(row))
        )
        assert (summary.kept, summary.rejected) == (1, {"refused_digest": 2})
        assert sum(row["image_url"] == "" for row in seen) == 2
        assert traces(tmp_path, "/pic/1.jpg", "/pic/2.jpg") == []
        assert len(list((tmp_path / "images").iterdir())) == 1
        again = asyncio.run(download_list(urls, tmp_path, values))
        assert (again.already, again.kept, len(host.requests)) == (3, 1, 3)
        third = frozenset({bytes.fromhex(hashlib.sha256(jpeg(3)).hexdigest())})
        values = DownloadSettings(fetching, SMALL, refused=RefusedDigests(digests | third))
        later = asyncio.run(download_list(urls, tmp_path, values))
        assert (later.kept, later.rejected) == (0, {"refused_digest": 3})
        assert list((tmp_path / "images").iterdir()) == [] and len(host.requests) == 3
        lines = (tmp_path / "images.jsonl").read_text().splitlines()
        assert len(lines) == 3 and all(json.loads(line)["url_sha256"] for line in lines)


def without(screening: ScreenSettings) -> ScreenSettings:
    """Return the settings as a list is screened: without thumbnails."""
    return ScreenSettings(screening.min_side, screening.max_side, thumbnails=False)
