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


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
    """Answer a web request; all lines of the log about it have the same mark."""
    with log_lines.about(visit=secrets.token_hex(4)):
        return _site(environ, start_response)
