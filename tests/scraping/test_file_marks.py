"""What files say of themselves, on its way into rows, counts and folders."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scraping.records.file_marks import with_marks
from scraping.records.image_log import new_record
from scraping.records.provenance import is_open, license_rank
from scraping.screening.marks import Marks
from scraping.sources.base import Candidate
from tests.replicas.marked_pictures import (
    AI_MADE,
    CC_BY,
    NO_TRAINING,
    marked,
    photoshop_segment,
    png_with_texts,
    reserving,
    signed,
    with_segments,
    xmp,
)
from tests.replicas.pictures import encoded, jpeg, picture
from tests.replicas.pictures_host import PictureHost
from tests.scraping.collect_folder import Listing, by_url, listed
from tests.scraping.conftest import environment

RIGHTS_STATEMENT = "https://ada.example/terms"
CREDITED = Marks(creator="Ada Example", rights="© 2020 Ada", terms=(CC_BY,), license_url=CC_BY)


def record(**values: str):
    facts = {"page_url": "https://pages.example/1"} | values
    return new_record(Candidate("https://pictures.example/1.jpg", "test", "corgi", 1, **facts), "c")


def test_a_file_fills_what_the_source_left_empty():
    row = with_marks(record(title="A corgi"), CREDITED)
    assert (row["creator"], row["license"], row["license_version"]) == (
        "Ada Example",
        "cc-by",
        "4.0",
    )
    assert (row["license_url"], row["license_basis"]) == (CC_BY, "file")
    assert row["attribution"] == (
        f"“A corgi” by Ada Example, CC BY 4.0 ({CC_BY}), via pages.example. © 2020 Ada"
    )
    assert "ai_made" not in row and row["detail"] == ""


@pytest.mark.parametrize("source", ["upload", "url_list"])
def test_what_was_supplied_by_whoever_asks_stays_so(source):
    supplied = record() | {"source": source, "license_basis": "requester"}
    row = with_marks(supplied, CREDITED)
    assert (row["creator"], row["license"]) == ("Ada Example", "cc-by")
    assert row["license_basis"] == "requester"


def test_what_the_source_states_stays():
    stated = {
        "creator": "Bob",
        "license": "by-sa",
        "license_version": "3.0",
        "license_basis": "per-item",
        "attribution": "By Bob.",
    }
    row = record(**stated)
    assert with_marks(row, CREDITED) == row


def test_a_licence_and_a_creator_are_filled_each_alone():
    row = with_marks(record(creator="Bob"), CREDITED)
    assert (row["creator"], row["license"], row["license_basis"]) == ("Bob", "cc-by", "file")
    row = with_marks(record(license="by-nc", license_basis="per-item"), CREDITED)
    assert (row["creator"], row["license"], row["license_basis"]) == (
        "Ada Example",
        "cc-by-nc",
        "per-item",
    )


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (Marks(terms=("© Ada. All rights reserved",)), ("", "", "unknown")),
        (
            Marks(terms=(RIGHTS_STATEMENT,), license_url=RIGHTS_STATEMENT),
            ("", RIGHTS_STATEMENT, "file"),
        ),
        (
            Marks(terms=(RIGHTS_STATEMENT, "CC BY-NC 2.0"), license_url=RIGHTS_STATEMENT),
            ("cc-by-nc", "https://creativecommons.org/licenses/by-nc/2.0/", "file"),
        ),
        (
            Marks(terms=("Public domain",)),
            ("pdm", "https://creativecommons.org/publicdomain/mark/1.0/", "file"),
        ),
    ],
)
def test_only_a_known_licence_or_an_address_of_terms_is_taken(marks, expected):
    row = with_marks(record(), marks)
    assert (row["license"], row["license_url"], row["license_basis"]) == expected


def test_a_licence_from_a_file_is_known_better_than_none_and_opens_nothing():
    assert not is_open("cc-by", "file")
    assert license_rank("", "unknown") < license_rank("cc-by", "file")
    assert license_rank("cc-by", "file") < license_rank("cc-by-nc", "per-item")
    assert license_rank("", "file") == license_rank("", "unknown")


def test_an_image_that_ai_made_and_that_is_kept_says_so():
    row = with_marks(record(), Marks(ai_made="its file says trainedAlgorithmicMedia"))
    assert row["ai_made"] is True
    assert row["detail"] == "its file says trainedAlgorithmicMedia"


def credited(seed: int) -> bytes:
    """Return a JPEG with a creator in IPTC and a licence in XMP."""
    content = f'<cc:license rdf:resource="{CC_BY}"/>'
    data = encoded(picture(seed), "JPEG", xmp=xmp(content))
    return with_segments(data, photoshop_segment((2, 80, b"Ada Example")))


def gallery(host: PictureHost) -> dict[str, str]:
    """Serve pictures of each kind; returns their addresses."""
    assertion = {"cawg.training-mining": reserving()}
    files = {
        "/no-training.jpg": marked(1, plus__DataMining=NO_TRAINING),
        "/signed.png": signed(encoded(picture(2), "PNG"), "image/png", assertion),
        "/generated.png": png_with_texts(picture(3), parameters="a cat\nSteps: 20, Seed: 1"),
        "/generated.jpg": signed(jpeg(4), "image/jpeg", {}, AI_MADE),
        "/credited.jpg": credited(5),
        "/plain.jpg": jpeg(6),
    }
    return {path: host.add(path, data) for path, data in files.items()}


def run(*arguments: str, folder: Path) -> list[dict]:
    """Run a command and return the JSON lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "scraping", *arguments, "--min-side", "64", "--json"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # A collection of which nothing may be kept is told as one that failed, beside its result.
    assert done.returncode == 0 or "No usable picture was found" in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_credited(row: dict) -> None:
    assert (row["state"], row["creator"], row["license"]) == ("kept", "Ada Example", "cc-by")
    assert (row["license_url"], row["license_basis"]) == (CC_BY, "file")
    assert "by Ada Example, CC BY 4.0" in row["attribution"]


@pytest.mark.timeout(180)
def test_a_collection_obeys_counts_and_credits_what_files_say(tmp_path):
    with PictureHost() as host:
        urls = gallery(host)
        silent = {"license": "", "license_version": "", "creator": "", "attribution": ""}
        items = [listed(url, **silent) for url in urls.values()]
        with Listing({"cat": items}) as site:
            lines = run(
                *("collect", "cat", "--limit", "6", "--out", "found", "--source", "openverse"),
                *("--source-url", f"openverse={site.url}", "--allow-private-host", site.host),
                *("--allow-private-host", host.host),
                folder=tmp_path,
            )
    result = lines[-1]
    expected = {"opted_out": 2, "ai_made": 2}
    assert result["classes"][0]["rejected"] == result["sources"][0]["rejected"] == expected
    rows = by_url(tmp_path / "found")
    assert rows[urls["/no-training.jpg"]]["detail"] == "its file says DMI-PROHIBITED-AIMLTRAINING"
    assert rows[urls["/signed.png"]]["detail"] == "its file says ai_training: notAllowed"
    assert rows[urls["/generated.jpg"]]["detail"] == "its file says trainedAlgorithmicMedia"
    check_credited(rows[urls["/credited.jpg"]])
    assert rows[urls["/plain.jpg"]]["license_basis"] == "unknown"
    for file in (tmp_path / "found" / "images").iterdir():
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            assert not image.getexif() and "xmp" not in image.info


@pytest.mark.timeout(180)
def test_a_download_may_keep_what_ai_made_and_says_so(tmp_path):
    with PictureHost() as host:
        urls = gallery(host)
        (tmp_path / "list.txt").write_text("\n".join(urls.values()))
        download = ("download", "list.txt", "--allow-private-host", host.host)
        summary = run(*download, "--out", "left", folder=tmp_path)[-1]
        assert summary["rejected"] == {"opted_out": 2, "ai_made": 2}
        summary = run(*download, "--out", "kept", "--ai-made", "keep", folder=tmp_path)[-1]
        assert summary["rejected"] == {"opted_out": 2}
    rows = by_url(tmp_path / "kept")
    assert rows[urls["/generated.jpg"]]["ai_made"] is True
    assert rows[urls["/generated.jpg"]]["detail"] == "its file says trainedAlgorithmicMedia"
    assert "ai_made" not in rows[urls["/plain.jpg"]]
    check_credited(rows[urls["/credited.jpg"]])


@pytest.mark.timeout(180)
def test_who_wants_open_licences_gets_none_that_only_a_file_states(tmp_path):
    with PictureHost() as host:
        url = host.add("/credited.jpg", credited(5))
        with Listing({"cat": [listed(url, license="", license_version="")]}) as site:
            lines = run(
                *("collect", "cat", "--limit", "1", "--out", "found", "--source", "openverse"),
                *("--source-url", f"openverse={site.url}", "--allow-private-host", site.host),
                *("--allow-private-host", host.host, "--license", "open"),
                folder=tmp_path,
            )
        assert not host.requests
    assert lines[-1]["classes"][0]["rejected"] == {"license": 1}


def test_a_setting_that_is_none_of_the_two_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("http://127.0.0.1:9/1.jpg")
    for command in (["download", "list.txt"], ["collect", "cat"]):
        done = subprocess.run(
            [sys.executable, "-m", "scraping", *command, "--out", "found"],
            cwd=tmp_path,
            env=environment(PICAISSO_AI_MADE="maybe"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1 and "neither leave_out nor keep" in done.stderr
