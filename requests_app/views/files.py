"""Files: downloads that an interrupted browser can resume, thumbnails, robots.txt, the icon.

A download answers single byte ranges, HEAD and conditional requests with a strong ETag (RFC 9110).
"""

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.utils.http import content_disposition_header, parse_etags
from django.views.decorators.http import require_safe

from requests_app import prediction
from requests_app.delivery import names, thumbnails
from requests_app.models import Artifact, ClassifierRequest, ImageState, ImageUrl, Kind
from requests_app.views.access import require_token
from requests_app.views.errors import page_not_found

CHUNK_BYTES = 256 * 1024
MAX_POSITION_DIGITS = 18  # an exabyte
SINGLE_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)
PICTURE_TYPES = {".jpg": "image/jpeg", ".png": "image/png"}
CONTENT_TYPES = {
    ".zip": "application/zip",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
}


@require_token
@require_safe
def thumbnail(request: HttpRequest, classifier: ClassifierRequest, pk: int) -> HttpResponseBase:
    """Send a small copy of an image that lies on disk."""
    image = _image(classifier, pk)
    response = thumbnail_response(image) if image else None
    return response or page_not_found(request)


def thumbnail_response(image: ImageUrl) -> HttpResponseBase | None:
    """Return a small copy of an image as an answer; None if it is not on disk."""
    path = thumbnails.thumbnail(image)
    return None if path is None else _picture_response(path, "image/jpeg")


@require_token
@require_safe
def picture(request: HttpRequest, classifier: ClassifierRequest, pk: int) -> HttpResponseBase:
    """Send an image as it was collected."""
    image = _image(classifier, pk)
    path = thumbnails.original(image) if image else None
    if path is None:
        return page_not_found(request)
    content_type = PICTURE_TYPES.get(path.suffix, "application/octet-stream")
    return _picture_response(path, content_type)


def _image(classifier: ClassifierRequest, pk: int) -> ImageUrl | None:
    """Return an image of a request that is kept, or that a person has removed."""
    images = ImageUrl.objects.of_request(classifier).exclude(state=ImageState.REJECTED)
    return images.select_related("image_class__request").filter(pk=pk).first()


def _picture_response(path: Path, content_type: str) -> HttpResponseBase:
    # The only answers below a token that a browser may keep: the polled page shows the same images
    # again and again.
    headers = {"Cache-Control": "private, max-age=3600"}
    return FileResponse(path.open("rb"), content_type=content_type, headers=headers)


@require_token
@require_safe
def download(request: HttpRequest, classifier: ClassifierRequest, kind: str) -> HttpResponseBase:
    """Send a file of the latest version, or of the one that ``?version=`` names."""
    artifacts = Artifact.objects.filter(version__request=classifier, kind=kind)
    if "version" in request.GET:
        number = request.GET["version"]
        if not NUMBER.fullmatch(number):
            return page_not_found(request)
        artifacts = artifacts.filter(version__number=int(number))
    artifact = artifacts.order_by("-version__number").first()
    if artifact is None and kind == Kind.REPORT:
        return _report(request, classifier)
    if artifact is None or not artifact.file.is_file():
        return page_not_found(request)
    name = names.file_name(artifact)
    return send_file(request, artifact.file, name=name, sha256=artifact.sha256)


def _report(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponseBase:
    """Send the report as it is now: a takedown writes it again."""
    version = prediction.delivered_version(classifier)
    if version is None:
        return page_not_found(request)
    path = version.folder / "model" / "report.html"
    if not path.is_file():
        return page_not_found(request)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = names.download_name(classifier, Kind.REPORT, version.number, path.suffix)
    return send_file(request, path, name=name, sha256=digest)


@require_safe
def robots(request: HttpRequest) -> HttpResponse:
    lines = ["User-agent: *", "Disallow: /r/", "Disallow: /confirm/", "Disallow: /admin/", ""]
    return HttpResponse("\n".join(lines), content_type="text/plain; charset=utf-8")


@require_safe
def llms(request: HttpRequest) -> HttpResponse:
    """Say to a language model what the site is and how programs use it (llmstxt.org)."""
    context = {"site": settings.BASE_URL, "confirms": settings.CONFIRM_EMAIL}
    return render(request, "llms.txt", context, content_type="text/plain; charset=utf-8")


@require_safe
def favicon(request: HttpRequest) -> HttpResponse:
    """Redirect to the icon: browsers ask for this path whatever the page says."""
    return redirect(static("img/favicon.svg"), permanent=False)


# --- resumable downloads ---


@dataclass(frozen=True)
class Span:
    """Bytes ``first`` to ``last`` inclusive; empty when the range lies outside the file."""

    first: int
    last: int

    @property
    def length(self) -> int:
        return max(0, self.last - self.first + 1)


def send_file(request: HttpRequest, path: Path, *, name: str, sha256: str) -> HttpResponseBase:
    """Send the file as an attachment (200), the requested part of it (206), 304 or 416.

    :param name: the file name that the browser suggests
    :param sha256: of the whole file; becomes the strong ETag, which proves that a resumed part
        belongs to the same file
    """
    etag = f'"{sha256}"'
    response = _conditional_response(request, path, name, etag)
    response.headers["ETag"] = etag
    response.headers["Accept-Ranges"] = "bytes"
    return response


def _conditional_response(
    request: HttpRequest, path: Path, name: str, etag: str
) -> HttpResponseBase:
    headers = request.headers
    known_etags = parse_etags(headers.get("If-None-Match", ""))
    if etag in known_etags or "*" in known_etags:
        return HttpResponse(status=304)
    size = path.stat().st_size
    span = None
    # A range counts for GET alone, and not when the file has changed since the first part.
    if request.method == "GET" and headers.get("If-Range", etag) == etag:
        span = parse_range(headers.get("Range", ""), size)
    if span is None:
        whole = Span(0, size - 1)
        response = _body_response(request, path, whole, status=200)
    elif span.length == 0:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    else:
        response = _body_response(request, path, span, status=206)
        response.headers["Content-Range"] = f"bytes {span.first}-{span.last}/{size}"
    content_type = CONTENT_TYPES.get(path.suffix, "application/octet-stream")
    response.headers["Content-Type"] = content_type
    disposition = content_disposition_header(as_attachment=True, filename=name)
    response.headers["Content-Disposition"] = str(disposition)
    return response


def _body_response(request: HttpRequest, path: Path, span: Span, status: int) -> HttpResponseBase:
    response: HttpResponseBase
    if request.method == "HEAD":
        response = HttpResponse(status=status)
    else:
        response = StreamingHttpResponse(_chunks(path, span), status=status)
    response.headers["Content-Length"] = str(span.length)
    return response


def _chunks(path: Path, span: Span) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(span.first)
        left = span.length
        while left > 0:
            chunk = file.read(min(CHUNK_BYTES, left))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk


def parse_range(header: str, size: int) -> Span | None:
    """Return the one range of a Range header; None (send the whole file) for none, several or an
    invalid one.
    """
    match = SINGLE_RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return None
    first = _parse_position(match[1])
    last = _parse_position(match[2])
    end = size - 1
    if first is None:  # "bytes=-500": the last 500 bytes
        return Span(max(0, size - (last or 0)), end)
    if last is None:  # "bytes=500-": all from byte 500 on
        return Span(first, end)
    if last < first:
        return None
    return Span(first, min(last, end))


def _parse_position(digits: str) -> int | None:
    """Return the number, None for no digits, and the largest integer for one of endless length."""
    if not digits:
        return None
    significant = digits.lstrip("0") or "0"
    if len(significant) > MAX_POSITION_DIGITS:
        return sys.maxsize
    return int(significant)
