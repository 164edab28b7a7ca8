"""The pages that say what went wrong."""

import logging
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string

from requests_app.limits import LimitReached
from requests_app.workers import outages

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30
GetResponse = Callable[[HttpRequest], HttpResponseBase]


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return HttpResponse(_error_page(request, 400), status=400)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return HttpResponse(_error_page(request, 403), status=403)


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return HttpResponse(_error_page(request, 404), status=404)


def gone(request: HttpRequest) -> HttpResponse:
    return HttpResponse(_error_page(request, 410), status=410)


def too_large(request: HttpRequest) -> HttpResponse:
    return HttpResponse(_error_page(request, 413), status=413)


def locked_out(request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponse:
    """Answer a log-in of somebody who has tried too many passwords."""
    context = {"status": 423}
    return HttpResponse(render_to_string("error.html", context, request), status=429)


def too_many_downloads(request: HttpRequest) -> HttpResponse:
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return HttpResponse(_error_page(request, 429), status=429, headers=headers)


def too_much(request: HttpRequest, error: LimitReached) -> HttpResponse:
    """Say why something is not done now, and when it can be; nothing has been changed."""
    page = _error_page(request, error.status, sentence=error.sentence)
    headers = {"Retry-After": str(error.retry_after)}
    return HttpResponse(page, status=error.status, headers=headers)


def server_error(request: HttpRequest) -> HttpResponse:
    """Return the page for a defect of ours: it needs no database, session or static file."""
    return HttpResponse(render_to_string("500.html"), status=500)


def database_away(request: HttpRequest) -> HttpResponse:
    """Return the page for an outage of the database; it needs none."""
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return HttpResponse(render_to_string("503.html"), status=503, headers=headers)


def outage_page(get_response: GetResponse) -> GetResponse:
    """Middleware: answer 503 while the database is away: that is no defect, and it will be back."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return get_response(request)

    def process_exception(request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not outages.is_outage(error):
            return None
        logger.warning("the database does not answer: %s", error)
        connection.close()
        return database_away(request)

    middleware.process_exception = process_exception  # type: ignore[attr-defined]
    return middleware


def not_allowed_page(get_response: GetResponse) -> GetResponse:
    """Middleware: give the blank 405 answer of ``require_http_methods`` a page.

    Django calls a handler of the site for 400, 403, 404 and 500 only.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if isinstance(response, HttpResponseNotAllowed):
            response.content = _error_page(request, 405).encode()
        return response

    return middleware


def _error_page(request: HttpRequest, status: int, **more: str) -> str:
    """Render the error page, or only its main part when htmx asks for the live part of a page."""
    template = "_error.html" if request.headers.get("HX-Request") else "error.html"
    context = {"status": status, "retention_days": settings.RETENTION_DAYS, **more}
    return render_to_string(template, context, request)
