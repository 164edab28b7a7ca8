"""The download links: who gets the files, in one piece or resumed."""

import hashlib

import pytest

from requests_app import lifecycle
from requests_app.models import DatasetVersion
from requests_app.views import files
from requests_app.views.turns import Turns
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


def test_a_weak_etag_says_as_well_that_the_file_is_there_already(client, link):
    """Such as nginx makes of ours where it compresses."""
    etag = client.head(link).headers["ETag"]
    assert client.get(link, headers={"If-None-Match": f"W/{etag}"}).status_code == 304
    resumed = {"Range": "bytes=100-", "If-Range": f"W/{etag}"}
    assert client.get(link, headers=resumed).status_code == 200  # RFC 9110, 13.1.5


def test_the_unit_of_a_range_may_be_written_in_capitals(client, link):
    response = client.get(link, headers={"Range": "BYTES=5-9"})
    assert (response.status_code, body(response)) == (206, MODEL_ZIP[5:10])


def test_of_too_many_downloads_the_last_is_told_when_to_come_again(
    client, link, settings, monkeypatch
):
    monkeypatch.setattr(files, "downloads", Turns())  # earlier tests have not read what they got
    settings.DOWNLOADS_AT_ONCE = 2
    first = client.get(link)
    busy = client.get(link)  # one address has not all of them
    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "30")
    assert client.head(link).status_code == 200
    elsewhere = client.get(link, REMOTE_ADDR="203.0.113.7")
    assert elsewhere.status_code == 200
    assert client.get(link, REMOTE_ADDR="203.0.113.8").status_code == 429
    assert body(first) == body(elsewhere) == MODEL_ZIP
    for sent in (first, elsewhere, first):
        sent.close()
    again = [client.get(link, REMOTE_ADDR=address) for address in ("203.0.113.7", "203.0.113.8")]
    assert [response.status_code for response in again] == [200, 200]
    for response in again:
        response.close()


def test_nginx_sends_the_files_where_a_setting_says_so(client, link, settings):
    settings.ACCEL_REDIRECT = "/files/"
    response = client.get(link, headers={"Range": "bytes=5-9"})
    place = response.headers["X-Accel-Redirect"]
    assert place.startswith("/files/requests/") and place.endswith("/artifacts/1/model.zip")
    assert (settings.DATA_DIR / place.removeprefix("/files/")).read_bytes() == MODEL_ZIP
    assert response.headers["Content-Disposition"].startswith("attachment; filename=")
    assert response.headers["Cache-Control"] == "private, no-store"
    assert response.content == b""


def test_f29_a_link_that_opens_nothing_says_the_same_whatever_it_was(client, link):
    """Wrong, one letter off, revoked, of another request, deleted: no answer tells them apart,
    but that who has the right link of a deleted request learns that it is gone.
    """
    token = link.split("/")[2]
    other = delivered()
    one_off = token[:-1] + ("A" if token[-1] != "A" else "B")
    revoked = delivered()
    old = revoked.token
    revoked.link_version += 1
    revoked.save()
    type(revoked).objects.renew_tokens()
    pages = []
    for wrong in ("A" * 32, one_off, old, token.upper(), f"{token}A"):
        for kind in ("model", "dataset", "report"):
            response = client.get(f"/r/{wrong}/download/{kind}/")
            assert response.status_code == 404
            assert response.headers["Cache-Control"] == "private, no-store"
            assert response.headers["X-Robots-Tag"] == "noindex, nofollow"
            pages.append(response.content)
    assert len(set(pages)) == 1
    gone = other.get_absolute_url()
    other.versions.get().artifacts.all().delete()
    assert client.get(f"{gone}download/model/").content == pages[0]
    assert lifecycle.delete(other)
    assert client.get(f"{gone}download/model/").status_code == 410
