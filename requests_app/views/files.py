"""Sending a file so that an interrupted download goes on: single byte ranges, HEAD and a strong
ETag (RFC 9110).
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header, parse_etags

CHUNK = 256 * 1024  # bytes read at once
MOST_DIGITS = 18  # of a position in a file: an exabyte
SINGLE_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
CONTENT_TYPES = {
    ".zip": "application/zip",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
}


@dataclass(frozen=True)
class Span:
    """Bytes ``first`` to ``last`` inclusive; empty when the range lies outside the file."""

    first: int
    last: int

    @property
    def length(self) -> int:
        return max(0, self.last - self.first + 1)


def send_file(http: HttpRequest, path: Path, *, name: str, sha256: str) -> HttpResponseBase:
    """The file as an attachment, or the asked part of it (206), or 304, or 416.

    :param name: the file name that the browser suggests
    :param sha256: of the whole file; makes the strong ETag by which a resumed part is known to fit
    """
    size, etag = path.stat().st_size, f'"{sha256}"'
    if _matches(http.headers.get("If-None-Match", ""), etag):
        return _with_headers(HttpResponse(status=304), etag)
    span = asked_span(http.headers.get("Range", ""), size) if _may_resume(http, etag) else None
    if span is not None and not span.length:
        return _with_headers(
            HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"}), etag
        )
    response = _body(http, path, span or Span(0, size - 1), status=206 if span else 200)
    if span is not None:
        response.headers["Content-Range"] = f"bytes {span.first}-{span.last}/{size}"
    response.headers["Content-Type"] = CONTENT_TYPES.get(path.suffix, "application/octet-stream")
    response.headers["Content-Disposition"] = str(content_disposition_header(True, name))
    return _with_headers(response, etag)


def asked_span(header: str, size: int) -> Span | None:
    """The one range of a Range header; None (send everything) for none, several or nonsense."""
    match = SINGLE_RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = (_position(digits) for digits in match.groups())
    if first is None:  # the last so many bytes
        return Span(max(0, size - (last or 0)), size - 1)
    if last is not None and last < first:
        return None
    return Span(first, size - 1 if last is None else min(last, size - 1))


def _position(digits: str) -> int | None:
    """The number typed, None for nothing; one that no file reaches is as good as the largest,
    however long it is.
    """
    if not digits:
        return None
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= MOST_DIGITS else sys.maxsize


def _may_resume(http: HttpRequest, etag: str) -> bool:
    """A range counts for GET alone, and not when the file has changed since the first part
    (If-Range).
    """
    return http.method == "GET" and http.headers.get("If-Range", etag) == etag


def _matches(header: str, etag: str) -> bool:
    return bool(header) and any(tag in ("*", etag) for tag in parse_etags(header))


def _body(
    http: HttpRequest, path: Path, span: Span, status: int
) -> HttpResponse | StreamingHttpResponse:
    response: HttpResponse | StreamingHttpResponse
    if http.method == "HEAD":
        response = HttpResponse(status=status)
    else:
        response = StreamingHttpResponse(_pieces(path, span), status=status)
    response.headers["Content-Length"] = str(span.length)
    return response


def _pieces(path: Path, span: Span) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(span.first)
        left = span.length
        while left > 0 and (piece := file.read(min(CHUNK, left))):
            left -= len(piece)
            yield piece


def _with_headers(response: HttpResponseBase, etag: str) -> HttpResponseBase:
    response.headers["ETag"] = etag
    response.headers["Accept-Ranges"] = "bytes"
    return response
