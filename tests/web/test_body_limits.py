"""What each page takes, and that nothing larger is read."""

import io

import pytest
from django.urls import get_resolver

from requests_app.views import body_limits
from requests_app.views.body_limits import PLAIN_BYTES, most_bytes
from tests.web.conftest import delivered

TAKES_FILES = {
    "/": body_limits.SUPPLIED_BYTES,
    "/api/v1/requests/with-pictures": body_limits.SUPPLIED_BYTES,
    "/r/token/own/": body_limits.PICTURES_BYTES,
    "/r/token/try/": body_limits.PICTURES_BYTES,
    "/s/token/try/": body_limits.PICTURES_BYTES,
    "/r/token/try/correct/": body_limits.PICTURE_BYTES,
    "/api/v1/requests/token/predict": body_limits.PICTURE_BYTES,
}


def paths(resolver, before: str = "/"):
    """Every path of the site, with something in the place of each variable."""
    for pattern in resolver.url_patterns:
        text = str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from paths(pattern, before + text)
        else:
            path = before + text
            for variable in ("<str:token>", "<token>"):
                path = path.replace(variable, "token")
            yield path


def test_only_the_pages_that_take_files_take_more_than_a_form():
    every = set(paths(get_resolver()))
    assert set(TAKES_FILES) <= every
    for path in every:
        assert most_bytes(path) == TAKES_FILES.get(path, PLAIN_BYTES), path


class Unread(io.RawIOBase):
    """A body that must not be read."""

    def readable(self):
        return True

    def readinto(self, buffer):
        raise AssertionError("the body was read")


@pytest.mark.parametrize("path", ["/", "{page}own/", "{page}retry/", "/admin/login/", "/nowhere/"])
def test_a_page_refuses_what_is_too_large_without_reading_it(client, path):
    place = path.format(page=delivered().get_absolute_url())
    size = most_bytes(place) + 1
    kind = "multipart/form-data; boundary=b"
    headers = {"CONTENT_TYPE": kind, "CONTENT_LENGTH": str(size), "wsgi.input": Unread()}
    response = client.generic("POST", place, **headers)
    assert response.status_code == 413
    assert "larger than this page takes" in response.content.decode()


def test_the_api_refuses_it_in_its_envelope(client):
    length = str(PLAIN_BYTES + 1)
    headers = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": length}
    response = client.generic("POST", "/api/v1/requests", **headers, **{"wsgi.input": Unread()})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"
