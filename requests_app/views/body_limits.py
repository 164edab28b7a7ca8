"""How much may be sent to each page, and in what, known before any of it is read."""

import re
from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.http import parse_header_parameters

from requests_app.prediction import MAX_BYTES, MAX_TOGETHER_BYTES
from requests_app.supplied import FILES, MOST_BYTES
from requests_app.views.errors import bad_request, too_large

PLAIN_BYTES = 2_500_000  # of a form or JSON without files; Django reads no more of one either
AROUND_BYTES = 1_000_000  # of the other fields beside files, and of what separates them

SUPPLIED_BYTES = len(FILES) * MOST_BYTES + AROUND_BYTES
PICTURES_BYTES = MAX_TOGETHER_BYTES + AROUND_BYTES
PICTURE_BYTES = MAX_BYTES + AROUND_BYTES
# The pages that take files; all others take none.
LIMITS = (
    (re.compile(r"/"), SUPPLIED_BYTES),
    (re.compile(r"/api/v1/requests/with-pictures"), SUPPLIED_BYTES),
    (re.compile(r"/r/[^/]+/own/"), PICTURES_BYTES),
    (re.compile(r"/[rs]/[^/]+/try/"), PICTURES_BYTES),
    (re.compile(r"/r/[^/]+/try/correct/"), PICTURE_BYTES),
    (re.compile(r"/api/v1/requests/[^/]+/predict"), PICTURE_BYTES),
)
CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252")
GetResponse = Callable[[HttpRequest], HttpResponseBase]


def most_bytes(path: str) -> int:
    """Return how many bytes a request of this path may bring along."""
    for pattern, limit in LIMITS:
        if pattern.fullmatch(path):
            return limit
    return PLAIN_BYTES


def refuse_large_bodies(get_response: GetResponse) -> GetResponse:
    """Middleware: answer 413 to what says of itself that it is too large, and 400 to what cannot be
    read, without reading any of it.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        length = request.headers.get("Content-Length", "")
        if length.isdecimal() and int(length[:18]) > most_bytes(request.path):
            return too_large(request)
        if not is_readable(request):
            return bad_request(request)
        return get_response(request)

    return middleware


def is_readable(request: HttpRequest) -> bool:
    """Return whether what is sent says that it is text as people write it.

    Python knows more encodings than those of text ("hex"), and fails where Django reads by them.
    """
    return is_text(request.headers.get("Content-Type", ""))


def is_text(content_type: str) -> bool:
    """Return whether a Content-Type names an encoding of text, or none."""
    _, parameters = parse_header_parameters(content_type)
    return parameters.get("charset", "utf-8").strip().lower() in CHARSETS
