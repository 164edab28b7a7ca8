"""The download links: who gets the files, in one piece or resumed."""

import hashlib

import pytest

from requests_app.models import DatasetVersion
from tests.web.conftest import MODEL_ZIP, add_artifact, delivered, running

SIZE = len(MODEL_ZIP)


@pytest.fixture
def link(db) -> str:
    return f"{delivered().get_absolute_url()}download/model/"


def body(response) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


def test_a_file_comes_whole_with_its_name_length_and_checksum(client, link):
    response = client.get(link)
    assert response.status_code == 200
    assert body(response) == MODEL_ZIP
    headers = response.headers
    digest = hashlib.sha256(MODEL_ZIP).hexdigest()
    assert headers["Content-Length"] == str(SIZE)
    assert headers["Content-Disposition"] == 'attachment; filename="picaisso-cat-dog-model.zip"'
    assert headers["Content-Type"] == "application/zip"
    assert headers["ETag"] == f'"{digest}"'
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Cache-Control"] == "private, no-store"
    assert headers["X-Robots-Tag"] == "noindex, nofollow"
    assert headers["Referrer-Policy"] == "no-referrer"


RANGES = {
    "bytes=0-0": (0, 0),
    "bytes=100-": (100, SIZE - 1),
    "bytes=100-199": (100, 199),
    "bytes=2000-99999": (2000, SIZE - 1),
    "bytes=-10": (SIZE - 10, SIZE - 1),
    "bytes=-99999": (0, SIZE - 1),
    f"bytes=100-{'9' * 5000}": (100, SIZE - 1),
    f"bytes=-{'9' * 5000}": (0, SIZE - 1),
    f"bytes={'0' * 5000}7-{'0' * 5000}9": (7, 9),
}


@pytest.mark.parametrize("asked", RANGES, ids=lambda asked: asked[:24])
def test_a_part_is_exactly_the_part_that_was_asked_for(client, link, asked):
    first, last = RANGES[asked]
    part = MODEL_ZIP[first : last + 1]
    response = client.get(link, headers={"Range": asked})
    headers = response.headers
    assert response.status_code == 206
    assert body(response) == part
    assert headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert headers["Content-Length"] == str(len(part))


OUTSIDE = [
    f"bytes={SIZE}-",
    "bytes=999999-1000000",
    "bytes=-0",
    f"bytes={'9' * 5000}-",
    f"bytes={'9' * 5000}-{'9' * 5000}",
]


@pytest.mark.parametrize("asked", OUTSIDE, ids=lambda asked: asked[:24])
def test_a_part_outside_the_file_cannot_be_had(client, link, asked):
    response = client.get(link, headers={"Range": asked})
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{SIZE}"
    assert body(response) == b""


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=a-b", "bytes=-", "lines=1-2", "bytes=0-1,5-6", "", "bytes=٣-"]
)
def test_what_is_no_single_range_gets_the_whole_file(client, link, asked):
    response = client.get(link, headers={"Range": asked})
    assert response.status_code == 200
    assert body(response) == MODEL_ZIP


def test_an_interrupted_download_goes_on_to_the_same_file(client, link):
    whole = client.get(link)
    part = b"".join(whole.streaming_content)[:777]
    headers = {"Range": f"bytes={len(part)}-", "If-Range": whole.headers["ETag"]}
    rest = client.get(link, headers=headers)
    assert rest.status_code == 206
    assert part + body(rest) == MODEL_ZIP


def test_a_part_of_an_older_file_is_not_mixed_with_the_new_one(client, link):
    response = client.get(link, headers={"Range": "bytes=100-", "If-Range": '"another"'})
    assert response.status_code == 200
    assert body(response) == MODEL_ZIP


def test_head_answers_with_all_headers_and_no_bytes(client, link):
    response = client.head(link, headers={"Range": "bytes=0-9"})
    assert response.status_code == 200
    assert response.headers["Content-Length"] == str(SIZE)
    assert body(response) == b""


def test_a_download_of_the_same_file_is_answered_with_304(client, link):
    head = client.head(link)
    etag = head.headers["ETag"]
    response = client.get(link, headers={"If-None-Match": f'"other", {etag}'})
    assert response.status_code == 304
    assert body(response) == b""


def test_the_latest_version_is_served(client):
    classifier = delivered()
    newer = DatasetVersion.objects.create(request=classifier, number=2)
    add_artifact(newer, "model", b"newer")
    assert body(client.get(f"{classifier.get_absolute_url()}download/model/")) == b"newer"
    assert body(client.get(f"{classifier.get_absolute_url()}download/dataset/")).startswith(b"PK")


@pytest.mark.parametrize("kind", ["croissant", "secret_key", "MODEL"])
def test_a_kind_that_was_not_made_is_a_404(client, kind):
    assert client.get(f"{delivered().get_absolute_url()}download/{kind}/").status_code == 404


def test_nothing_can_be_downloaded_before_it_is_there(client):
    assert client.get(f"{running().get_absolute_url()}download/model/").status_code == 404


def test_another_requests_token_opens_only_its_own_files(client):
    mine = delivered()
    other = running()
    assert mine.versions.get().artifacts.exists()
    assert client.get(f"{other.get_absolute_url()}download/model/").status_code == 404


def test_a_file_that_has_left_the_disk_is_a_404(client, site):
    classifier = delivered()
    classifier.versions.get().artifacts.get(kind="model").file.unlink()
    assert client.get(f"{classifier.get_absolute_url()}download/model/").status_code == 404


def test_an_empty_file_is_sent_as_it_is(client):
    classifier = delivered()
    version = DatasetVersion.objects.create(request=classifier, number=2)
    add_artifact(version, "model", b"")
    response = client.get(f"{classifier.get_absolute_url()}download/model/")
    assert (response.status_code, body(response)) == (200, b"")
    assert response.headers["Content-Length"] == "0"


def test_sending_to_a_download_link_is_refused(client, link):
    assert client.post(link).status_code == 405
