"""Every page, form and call of the site is sent what nobody means: no 500, and nothing hangs."""

import re
import time
from pathlib import Path

import pytest
from django.db import transaction
from django.urls import URLPattern
from hypothesis import given
from hypothesis import strategies as st

import requests_app
from picaisso_site.wsgi import application
from requests_app import sharing
from requests_app.api import endpoints
from requests_app.forms import RetryForm, SubmissionForm
from requests_app.models import ImageUrl
from requests_app.urls import urlpatterns
from tests.hostile import (
    FORM_TYPES,
    MULTIPART,
    NUMBERS,
    bodies,
    encoded,
    fuzz,
    json_documents,
    pairs,
    texts,
    urlencoded,
)
from tests.web.conftest import STRANGER, delivered, running, stopped, submitted
from tests.web.test_access import DO, DO_SHARED

ROOT = Path(requests_app.__file__).parent
READ_BY_A_VIEW = re.compile(r'(?:POST|GET|FILES|data|query)(?:\.get|\.getlist)?[(\[]f?"([\w-]+)')
LONGEST_SECONDS = 10.0


def names_read() -> list[str]:
    """Return every name that some view reads of a form or of an address, and each form's fields."""
    found = {*SubmissionForm.base_fields, *RetryForm.base_fields, "csrfmiddlewaretoken"}
    for file in (ROOT / "forms.py", *(ROOT / "views").glob("*.py")):
        found.update(READ_BY_A_VIEW.findall(file.read_text()))
    return sorted(found | {"pictures-1", "zip", "files", "page", "version", "state", "class"})


NAMES = names_read()
PATHS = sorted(str(pattern.pattern) for pattern in urlpatterns if isinstance(pattern, URLPattern))
TAKE_FORMS = ["", "confirm/<str:signed>/", *(f"r/<str:token>/{path}" for path in DO.values())]
TAKE_FORMS += [f"s/<str:token>/{path}" for path in DO_SHARED.values()]
API = ["requests", "requests/with-pictures", "requests/{}", "requests/{}/cancel"]
API += ["requests/{}/finish", "requests/{}/retrain", "requests/{}/retry", "requests/{}/images"]
API += ["requests/{}/images/1", "requests/{}/predict", "requests/{}/versions", "requests/{}/share"]
API += ["requests/{}/versions/1", "requests/{}/versions/1/report", "openapi.json", "nothing"]
FIELDS = ["classes", "email", "images_per_class", "license", "backbone", "sources", "locale"]
FIELDS += ["kind", "accept_fewer", "leave_out", "state", "class", "url", "name", "query"]
FIELDS += ["own_as_test", "own_alone", "request"]


@pytest.fixture
def tokens(monkeypatch) -> list[str]:
    """Return the tokens of requests in several states, of a shared one, and of none."""
    for throttle in (endpoints.READS, endpoints.CHANGES):
        monkeypatch.setattr(throttle, "num_requests", 10_000_000)
    shared = delivered()
    ImageUrl.objects.update(license="by-sa")
    sharing.switch_on(shared, "person")
    others = [submitted(), running(), stopped("failed"), stopped("needs_attention"), delivered()]
    found = [classifier.token for classifier in others]
    return [*found, shared.token, shared.share_token, STRANGER]


def answered(client, method: str, path: str, *arguments, **named) -> int:
    """Send a request and read the answer whole; an exception of a view comes through here."""
    begun = time.monotonic()
    with transaction.atomic():  # what one example does is not there for the next
        response = client.generic(method, path, *arguments, **named)
        if response.streaming:
            b"".join(response.streaming_content)
        transaction.set_rollback(True)
    assert response.status_code < 500 or response.status_code == 503, (method, path)
    assert time.monotonic() - begun < LONGEST_SECONDS
    return int(response.status_code)


# What people send; the pictures are those of the requests below.
ORDINARY = {
    "classes": ["cat", "dog", "owl"],
    "queries": ["cat animal", ""],
    "email": ["ada@example.org"],
    "images_per_class": ["40"],
    "license": ["open", "any"],
    "sources": ["bing", "openverse"],
    "action": ["remove", "restore", "relabel", "1", "2"],
    "image": ["1", "2", "3"],
    "number": ["1", "2"],
    "answer": ["right", "1", "2", "off-topic"],
    "do": ["start", "measure", "delete", "train", "use"],
    "share": ["on", "off"],
    "group": ["1", "2"],
    "url": ["http://127.0.0.1:1/x.jpg"],
    "own_alone": ["on"],
}


@st.composite
def addresses(draw: st.DrawFn, paths: list[str]) -> tuple[str, int]:
    """Return a path of the site with odd numbers in it, and which token stands there."""
    path = draw(st.sampled_from(paths))
    number = draw(st.sampled_from(["1", "2", *NUMBERS]))
    word = draw(st.sampled_from(["model", "dataset", "report", "pth", "x"]))
    path = re.sub(r"<int:\w+>", number, path)
    path = path.replace("<slug:kind>", word).replace("<str:signed>", draw(st.sampled_from(WORDS)))
    return f"/{path}", draw(st.integers(0, 7))


WORDS = ["1-1:abc:def", "a:b", "%00", "%ED%A0%BD", "x" * 3000, "%2e%2e", "1-1", "²-1:a:b"]


@fuzz(250)
@given(
    address=addresses(PATHS),
    query=pairs(NAMES, ORDINARY).map(urlencoded),
    method=st.sampled_from(["GET", "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"]),
)
def test_no_address_of_a_page_is_an_error_of_ours(client, tokens, address, query, method):
    path, which = address
    path = path.replace("<str:token>", tokens[which])
    answered(client, method, path, QUERY_STRING=query.decode())


@fuzz(500)
@given(address=addresses(TAKE_FORMS), body=bodies(NAMES, ORDINARY), is_script=st.booleans())
def test_no_form_is_an_error_of_ours(client, tokens, address, body, is_script):
    path, which = address
    path = path.replace("<str:token>", tokens[which])
    accept = "application/json" if is_script else "text/html"
    content, kind = body
    answered(client, "POST", path, content, content_type=kind, HTTP_ACCEPT=accept)


# Of each header, beside any text: what is nearly right.
HEADERS = {
    "Accept-Language": ["en;q=9e999", "de-" * 500, "*", "en-US,zz;q=x", "\xff"],
    "Accept": ["*/*;q=²", "application/json;" * 200, "text/html;q=9e9999", "/", "a/b;q=nan"],
    "Range": ["bytes=9-1", "bytes=-", "bytes=0-0,2-", "bytes=" + "9" * 5000 + "-", "bytes=²-"],
    "If-None-Match": ['W/"x"', '"' * 99, "*", '"a", W/"b', ",".join(['"x"'] * 3000)],
    "If-Range": ['W/"x"', "Fri, 99 Foo 9999", "x"],
    "If-Modified-Since": ["Thu, 99 Foo 99999 99:99:99 GMT", "Mon, 01 Jan 0000 00:00:00 GMT"],
    "Cookie": ["sessionid=\xff", "csrftoken=; =; ;;", "messages=x$y", "a=" + "b" * 5000],
    "Idempotency-Key": ["x" * 16, "\x80" * 20, "y" * 255, "z" * 256, "\u00e9" * 40],
    "X-Forwarded-For": ["1.2.3.4, \xff", "," * 500, "::1%eth0"],
    "X-Forwarded-Proto": ["https,http", "\xff"],
    "HX-Request": ["true", "\xff"],
    "HX-Current-URL": ["http://[", "%zz", "\xff"],
    "X-Fragment": ["1"],
    "Referer": ["http://[::", "\xff", "https://127.0.0.1:x/"],
    "Origin": ["http://[", "null", "\xff"],
    "Authorization": ["Basic =", "Bearer \xff"],
    "Content-Length": ["-1", "x", "9" * 50, "1e3", ""],
    "Content-Encoding": ["gzip", "\xff"],
    "Transfer-Encoding": ["chunked", "\xff"],
    "X-Requested-With": ["\xff"],
    "User-Agent": ["x" * 8000, "\xff"],
}  # fmt: skip
LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"), max_size=20)


@st.composite
def headers(draw: st.DrawFn) -> dict[str, str]:
    """Return some headers as a server hands them on: bytes as Latin-1, no line breaks."""
    found = {}
    for name in draw(st.lists(st.sampled_from(sorted(HEADERS)), min_size=1, max_size=4)):
        value = draw(st.sampled_from(HEADERS[name]) | LATIN)
        is_content = name == "Content-Length"
        found["CONTENT_LENGTH" if is_content else f"HTTP_{name.upper().replace('-', '_')}"] = value
    return found


HEADER_PATHS = ["/", "/r/{}/", "/r/{}/progress/", "/r/{}/download/model/", "/r/{}/images/"]
HEADER_PATHS += ["/s/{}/", "/s/{}/card.png", "/estimate/", "/words/", "/favicon.ico"]
HEADER_PATHS += ["/api/v1/requests", "/api/v1/requests/{}", "/api/v1/openapi.json", "/admin/login/"]


@fuzz(400)
@given(
    path=st.sampled_from(HEADER_PATHS),
    which=st.integers(0, 7),
    sent=headers(),
    method=st.sampled_from(["GET", "GET", "HEAD", "POST"]),
)
def test_no_header_is_an_error_of_ours(client, tokens, path, which, sent, method):
    client.cookies.clear()
    answered(client, method, path.format(tokens[which]), b"", **sent)


@fuzz(400)
@given(
    path=st.sampled_from(API),
    which=st.integers(0, 7),
    body=json_documents(FIELDS),
    is_usual=st.booleans(),
    kind=st.sampled_from(
        ["application/json"] * 30 + ["application/json; charset=utf-7", *FORM_TYPES]
    ),
    key=st.none() | st.sampled_from(HEADERS["Idempotency-Key"]),
)
def test_no_json_is_an_error_of_the_api(client, tokens, path, which, body, is_usual, kind, key):
    method = "PATCH" if "images/" in path and is_usual else "POST"
    more = {} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}
    address = "/api/v1/" + path.format(tokens[which])
    answered(client, method, address, body, content_type=kind, **more)


@fuzz(150)
@given(
    path=st.sampled_from(["requests/with-pictures", "requests/{}/predict"]),
    which=st.integers(0, 7),
    body=bodies(["request", "pictures", "addresses", "image", "url"]),
    query=st.dictionaries(st.sampled_from(["version", "page", "wait", "state"]), texts()),
)
def test_no_form_is_an_error_of_the_api(client, tokens, path, which, body, query):
    content, kind = body
    fields = [(name, encoded(value)) for name, value in query.items()]
    address = "/api/v1/" + path.format(tokens[which])
    asked = urlencoded(fields).decode()
    answered(client, "POST", address, content, content_type=kind, QUERY_STRING=asked)


@fuzz(150)
@given(
    path=st.sampled_from([path for path in API if "{}" in path]),
    which=st.integers(0, 7),
    query=pairs(["page", "state", "class", "version", "wait"]).map(urlencoded),
)
def test_no_question_is_an_error_of_the_api(client, tokens, path, which, query):
    if b"wait=" in query:
        query = re.sub(rb"wait=\d", b"wait=0", query)
    address = "/api/v1/" + path.format(tokens[which])
    answered(client, "GET", address, QUERY_STRING=query.decode())


def test_the_names_are_those_that_the_views_read():
    assert {"classes", "queries", "email", "number", "sources", "own_pictures"} <= set(NAMES)
    assert len(PATHS) > 40 and MULTIPART


@pytest.mark.parametrize("query", ["", "version=", "a=%ff"])
@pytest.mark.parametrize(
    "charset", ["undefined", "hex", "idna", "zip", "base64", "rot13", "punycode", "klingon"]
)
def test_no_encoding_of_a_body_is_an_error_of_ours(rf, charset, query):
    """Through the door that the web server uses: Django reads the query before any middleware."""
    kind = f"application/x-www-form-urlencoded; charset={charset}"
    environ = rf._base_environ(
        PATH_INFO="/",
        REQUEST_METHOD="POST",
        QUERY_STRING=query,
        CONTENT_TYPE=kind,
        HTTP_HOST="127.0.0.1",
    )
    answers = []
    list(application(environ, lambda status, headers: answers.append(status)))
    assert answers[0].startswith("400")
