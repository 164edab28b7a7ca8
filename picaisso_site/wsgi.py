"""WSGI entry point, which `requests_app/web_server.py` serves."""

import logging
import os
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.core.wsgi import get_wsgi_application

from training import log_lines

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "picaisso_site.settings")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

logging.captureWarnings(True)  # they are lines of the log like others
_site = get_wsgi_application()

from requests_app.views.body_limits import is_text  # noqa: E402 - it needs the settings


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
    """Answer a web request; all lines of the log about it have the same mark.

    Django reads the query by the encoding of the body, before any middleware, and fails by some. A
    request in an encoding that is not one of text is refused by `body_limits` in any case.
    """
    if not is_text(environ.get("CONTENT_TYPE", "")):
        environ["QUERY_STRING"] = ""
    with log_lines.about(visit=secrets.token_hex(4)):
        return _site(environ, start_response)
