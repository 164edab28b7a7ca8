"""Files: downloads that an interrupted browser can resume, thumbnails, robots.txt, the icon.

A download answers single byte ranges, HEAD and conditional requests with a strong ETag (RFC 9110).
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_safe

from requests_app import lifecycle, prediction
from requests_app.delivery import names, thumbnails
from requests_app.delivery.model_zip import DamagedError, open_artifact
from requests_app.models import Artifact, ClassifierRequest, ImageState, ImageUrl, Kind
from requests_app.views.access import require_token
from requests_app.views.errors import page_not_found, too_many_downloads
from requests_app.views.etags import has_already
from requests_app.views.turns import downloads
from requests_app.visitors import address_of
from training.spliced import SPLICE_SUFFIX

CHUNK_BYTES = 256 * 1024
REBUILD_SECONDS = 120
MAX_POSITION_DIGITS = 18  # an exabyte
SINGLE_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII | re.IGNORECASE)
NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)
PICTURE_TYPES = {".jpg": "image/jpeg", ".png": "image/png"}
OF_MODEL_FOLDER: dict[str, str] = {Kind.REPORT: "report.html", Kind.PTH: "model.pth"}
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
    number = None
    if "version" in request.GET:
        asked = request.GET["version"]
        if not NUMBER.fullmatch(asked):
            return page_not_found(request)
        number = int(asked)
        artifacts = artifacts.filter(version__number=number)
    artifact = artifacts.order_by("-version__number").first()
    if artifact is None and kind in OF_MODEL_FOLDER:
        return _file_of_model(request, classifier, kind, number)
    if artifact is None:
        return page_not_found(request)
    try:
        file = open_artifact(artifact)
    except DamagedError:
        return _damaged(request, classifier)
    except OSError:
        return page_not_found(request)
    path = None if artifact.file.suffix == SPLICE_SUFFIX else artifact.file
    name = names.file_name(artifact)
    return send_file(request, file, name=name, sha256=artifact.sha256, path=path)


def _damaged(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Say that a file is damaged, and have it built again."""
    context = {"classifier": classifier, "outcome": lifecycle.build_again(classifier)}
    response = render(request, "download_damaged.html", context, status=503)
    response.headers["Retry-After"] = str(REBUILD_SECONDS)
    return response


def _file_of_model(
    request: HttpRequest, classifier: ClassifierRequest, kind: str, number: int | None
) -> HttpResponseBase:
    """Send a file of the model folder as it is now: a takedown writes the report again.

    Versions before 0.2 have `model.pth` there.

    :param number: of the version; None for the newest that was delivered
    """
    if number is None:
        version = prediction.delivered_version(classifier)
    else:
        version = prediction.delivered_version_of(classifier, number)
    if version is None:
        return page_not_found(request)
    path = version.folder / "model" / OF_MODEL_FOLDER[kind]
    if not path.is_file():
        return page_not_found(request)
    file = path.open("rb")
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = names.download_name(classifier, kind, version.number, path.suffix)
    return send_file(request, file, name=name, sha256=digest, path=path)


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


def send_file(
    request: HttpRequest, file: BinaryIO, *, name: str, sha256: str, path: Path | None = None
) -> HttpResponseBase:
    """Send the file as an attachment (200), the requested part of it (206), 304 or 416.

    Where as many are being sent as are at once, the answer is 429. The file is closed when it has
    been sent.

    :param name: the file name that the browser suggests
    :param sha256: of the whole file; becomes the strong ETag, which proves that a resumed part
        belongs to the same file
    :param path: where it lies, for a proxy that sends it itself; None where it does not lie there
        in one piece
    """
    etag = f'"{sha256}"'
    if settings.ACCEL_REDIRECT and path is not None and path.is_relative_to(settings.DATA_DIR):
        file.close()
        return _redirect_in_proxy(path, name)
    response = _conditional_response(request, file, name, etag)
    if response.streaming:
        give_back = downloads.take(address_of(request))
        if give_back is None:
            file.close()
            return too_many_downloads(request)
        response._resource_closers.append(give_back)  # type: ignore[attr-defined]
    else:
        file.close()
    response.headers["ETag"] = etag
    response.headers["Accept-Ranges"] = "bytes"
    return response


def _redirect_in_proxy(path: Path, name: str) -> HttpResponse:
    """Return the answer by which nginx sends a file: ranges and ETags are its own then."""
    inside = path.relative_to(settings.DATA_DIR).as_posix()
    response = HttpResponse()
    _name_content(response, name)
    response.headers["X-Accel-Redirect"] = settings.ACCEL_REDIRECT + quote(inside)
    return response


def _conditional_response(
    request: HttpRequest, file: BinaryIO, name: str, etag: str
) -> HttpResponseBase:
    headers = request.headers
    if has_already(request, etag):
        return HttpResponse(status=304)
    size = file.seek(0, os.SEEK_END)
    span = None
    # A range counts for GET alone, and not when the file has changed since the first part.
    if request.method == "GET" and headers.get("If-Range", etag) == etag:
        span = parse_range(headers.get("Range", ""), size)
    if span is None:
        whole = Span(0, size - 1)
        response = _body_response(request, file, whole, status=200)
    elif span.length == 0:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    else:
        response = _body_response(request, file, span, status=206)
        response.headers["Content-Range"] = f"bytes {span.first}-{span.last}/{size}"
    _name_content(response, name)
    return response


def _name_content(response: HttpResponseBase, name: str) -> None:
    content_type = CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")
    response.headers["Content-Type"] = content_type
    disposition = content_disposition_header(as_attachment=True, filename=name)
    response.headers["Content-Disposition"] = str(disposition)


def _body_response(
    request: HttpRequest, file: BinaryIO, span: Span, status: int
) -> HttpResponseBase:
    response: HttpResponseBase
    if request.method == "HEAD":
        response = HttpResponse(status=status)
    else:
        response = _FileAnswer(_Chunks(file, span), status=status)
        response.file_to_stream = file
    response.headers["Content-Length"] = str(span.length)
    return response


class _FileAnswer(StreamingHttpResponse):
    """An answer that the server may take from the file itself, from where the file stands.

    Django hands these two on as `wsgi.file_wrapper`; waitress then needs no thread for it.
    """

    file_to_stream: BinaryIO
    block_size = CHUNK_BYTES


class _Chunks:
    """The bytes of a span of an open file, which is closed with this."""

    def __init__(self, file: BinaryIO, span: Span) -> None:
        file.seek(span.first)
        self._file = file
        self._left = span.length
        self.close = file.close  # Django replaces the file's own by that of the answer

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = self._file.read(min(CHUNK_BYTES, self._left))
        if not chunk:
            raise StopIteration
        self._left -= len(chunk)
        return chunk


def parse_range(header: str, size: int) -> Span | None:
    """Return the one range of a Range header; None (send the whole file) for none, several or an
    invalid one.
    """
    match = SINGLE_RANGE.fullmatch(header.replace(" ", ""))
    if match is None or not match[1] + match[2]:
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
