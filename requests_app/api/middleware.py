"""What holds for every call of the API, whatever it does."""

import hashlib
import json
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from requests_app.api.errors import CODES, ApiError, error_response
from requests_app.views.access import make_private

PREFIX = "/api/"
JSON = "application/json"
WITH_BODY = ("POST", "PUT", "PATCH")
MULTIPART = "multipart/form-data"
GetResponse = Callable[[HttpRequest], HttpResponseBase]


def api_answers(get_response: GetResponse) -> GetResponse:
    """Middleware: refuse bodies that are no JSON, give errors their envelope and answers an ETag.

    An answer that the caller has already (`If-None-Match`) is a 304. No cache keeps any.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if not request.path.startswith(PREFIX):
            return get_response(request)
        if not _is_readable(request):
            return make_private(error_response(ApiError(415)))
        response = get_response(request)
        if response.status_code >= 400:
            response = _in_envelope(response)
        elif request.method in ("GET", "HEAD") and isinstance(response, HttpResponse):
            response = _conditional(request, response)
        return make_private(response)

    return middleware


def _is_readable(request: HttpRequest) -> bool:
    """Return whether what is sent is JSON, or a form with a picture."""
    if request.method not in WITH_BODY:
        return True
    is_empty = request.headers.get("Content-Length", "0") in ("", "0")
    if is_empty or request.content_type == JSON:
        return True
    return request.content_type == MULTIPART and request.path.endswith(
        ("/predict", "/with-pictures")
    )


def _in_envelope(response: HttpResponseBase) -> HttpResponseBase:
    if isinstance(response, HttpResponse) and _has_envelope(response):
        return response
    status = response.status_code if response.status_code in CODES else 400
    answer = error_response(ApiError(status))
    for name in ("Allow", "Retry-After"):
        if response.has_header(name):
            answer.headers[name] = response.headers[name]
    return answer


def _has_envelope(response: HttpResponse) -> bool:
    if not response.headers.get("Content-Type", "").startswith(JSON):
        return False
    try:
        return "error" in json.loads(response.content)
    except ValueError:
        return False


def _conditional(request: HttpRequest, response: HttpResponse) -> HttpResponseBase:
    if "ETag" not in response.headers:
        digest = hashlib.sha256(response.content).hexdigest()
        response.headers["ETag"] = f'"{digest[:32]}"'
    etag = response.headers["ETag"]
    return get_conditional_response(request, etag, None, response) or response
