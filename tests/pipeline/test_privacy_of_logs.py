"""What logs say: no link that is a key, no address, no password."""

import logging
import sys

import pytest

from picaisso_site.redaction import RedactingFormatter

TOKEN = "o8H8phPG81dxQrnGn3LrPCZ2ZbatGs-p"
LINES = {
    f"Not Found: /r/{TOKEN}/images/99.jpg": "Not Found: /r/(hidden)/images/99.jpg",
    f"Gone: /s/{TOKEN}/": "Gone: /s/(hidden)/",
    f"Not Found: /api/v1/requests/{TOKEN}": "Not Found: /api/v1/requests/(hidden)",
    "Too Large: /api/v1/requests/with-pictures": "Too Large: /api/v1/requests/with-pictures",
    "Method Not Allowed: /confirm/19-1:1xXCWV:4escECj0sAb/": (
        "Method Not Allowed: /confirm/(hidden)/"
    ),
    f"Referer checking failed - https://x.example/r/{TOKEN}/ is not": (
        "Referer checking failed - https://x.example/r/(hidden)/ is not"
    ),
    f"KeyError: '{TOKEN}'": "KeyError: '(hidden)'",
    "refused for ada.l+x@mail.example.org now": "refused for (address) now",
    "smtp://me:pass%40word@mail.example:25": "smtp://(address):25",
    "key 0123456789secret": "key (hidden)",
    "images/00000001000000ab.jpg of train": "images/00000001000000ab.jpg of train",
    "requests_app.workers.supervisor: web started (pid 7)": (
        "requests_app.workers.supervisor: web started (pid 7)"
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_keys_addresses_and_passwords_are_hidden(line):
    hides = RedactingFormatter(secrets=("0123456789secret", "", "short"))
    assert hides.hidden(line) == LINES[line]


def written(record: logging.LogRecord) -> str:
    return RedactingFormatter().format(record)


def test_a_traceback_is_redacted_too():
    try:
        raise ValueError(f"no /r/{TOKEN}/ for ada@example.org")
    except ValueError:
        failed = logging.LogRecord("a", logging.ERROR, "", 1, "it broke", (), sys.exc_info())
    text = written(failed)
    assert "ValueError: no /r/(hidden)/ for (address)" in text and "Traceback" in text
    assert TOKEN not in RedactingFormatter(as_json=True).format(failed)


def test_what_django_refuses_as_suspicious_is_one_line():
    try:
        raise ValueError("Invalid HTTP_HOST header")
    except ValueError:
        name = "django.security.DisallowedHost"
        refused = logging.LogRecord(name, logging.ERROR, "", 1, "bad host", (), sys.exc_info())
    assert written(refused).endswith(f" ERROR {name}: bad host")
    assert "\n" not in written(refused)


def test_the_link_that_a_site_without_mail_prints_stays_whole():
    record = logging.LogRecord("a", logging.INFO, "", 1, f"at /confirm/{TOKEN}/", (), None)
    record.shows_links = True
    assert written(record).endswith(f"at /confirm/{TOKEN}/")
