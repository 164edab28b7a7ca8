"""A person with a browser, as far as the site can tell."""

import hashlib
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from email import message_from_bytes, policy
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from pathlib import Path

HTTP_SECONDS = 30.0
BLOCK_BYTES = 1 << 20


class DemoFailed(Exception):
    """The demo cannot go on; the message is one sentence for the person at the terminal."""


class HiddenFields(HTMLParser):
    """Collects the hidden inputs of a page, the CSRF token among them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "input":
            return
        attributes = dict(attrs)
        name = attributes.get("name")
        if name and attributes.get("type") == "hidden":
            self.fields[name] = attributes.get("value") or ""


class Visitor:
    """Keeps cookies, and sends forms with their hidden fields."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),  # the site is on this machine: no proxy in between
            urllib.request.HTTPCookieProcessor(CookieJar()),
        )

    def page(self, path: str) -> str:
        """Return the text of a page."""
        url = urllib.parse.urljoin(self.base_url, path)
        with self._opener.open(url, timeout=HTTP_SECONDS) as response:
            body = response.read()
        return str(body.decode())

    def send_form(self, path: str, fields: Sequence[tuple[str, str]] = ()) -> str:
        """Open the page at ``path``, fill in its form, send it; return the URL where that led.

        :raises DemoFailed: the site refuses the form
        """
        page = self.page(path)
        hidden = HiddenFields(page).fields
        body = urllib.parse.urlencode([*hidden.items(), *fields])
        url = urllib.parse.urljoin(self.base_url, path)
        request = urllib.request.Request(url, body.encode())
        try:
            with self._opener.open(request, timeout=HTTP_SECONDS) as response:
                return str(response.geturl())
        except urllib.error.HTTPError as error:
            raise DemoFailed(f"The site answered {error.code} to the form at {url}.") from error

    def download(self, path: str, target: Path) -> str:
        """Fetch a file; return the sha256 of what arrived."""
        digest = hashlib.sha256()
        url = urllib.parse.urljoin(self.base_url, path)
        with self._opener.open(url, timeout=HTTP_SECONDS) as response, target.open("wb") as file:
            while block := response.read(BLOCK_BYTES):
                digest.update(block)
                file.write(block)
        return digest.hexdigest()


def find_link(mail_folder: Path, pattern: str) -> str | None:
    """Return the first link that matches in the plain text of any mail of the folder."""
    for file in sorted(mail_folder.glob("*.eml")):
        message = message_from_bytes(file.read_bytes(), policy=policy.default)
        body = message.get_body(("plain",))
        if body is None:
            continue
        link = re.search(pattern, body.get_content())
        if link is not None:
            return link[0]
    return None
