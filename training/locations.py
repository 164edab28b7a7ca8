"""The images that a command line names: files, folders, addresses, and lists of them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import sys
import threading
import time
import unicodedata
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable
from concurrent.futures import Future
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from PIL import Image

from training.images.decode import BrokenImageError, read_image
from training.images.walk import files_below
from training.text_files import csv_rows, decoded, delimited

# Of formats that Picaisso does not read as well: it says so of each.
_IMAGE_SUFFIX = re.compile(
    r"\.(jpe?g|jpe|jfif|a?png|webp|gif|bmp|dib|tiff?|avifs?|jp2|j2k|jpx|p[bgnp]m"
    r"|hei[cf]|jxl|svg|psd|dng|cr[23]|nef|arw|raf|orf)",
    re.IGNORECASE,
)
_URL_SECONDS = 20.0  # for the connection and for each read
DOWNLOAD_SECONDS = 60.0  # for all of an answer
_URL_BYTES = 30_000_000
_CHUNK_BYTES = 65_536
_COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda")  # how gzip and zlib begin
_LARGEST_LIST = 100_000_000  # bytes
# Names of the column of a table that is meant, in the order of preference.
_COLUMNS = (
    "image_url",
    "image url",
    "url",
    "urls",
    "address",
    "file",
    "file_name",
    "filename",
    "path",
    "image",
    "picture",
    "link",
    "src",
)
_OTHER_SCHEME = re.compile(r"<?[a-z][a-z0-9+.-]+:|www\.", re.IGNORECASE)
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_LABELS = re.compile("([.:@])")  # between the labels of a host's name, and around it


class ListError(Exception):
    """A list of images that cannot be read; the message is a sentence for the user."""


def find_images(arguments: Iterable[str], lists: Iterable[str] = ()) -> list[str]:
    """Return the paths and URLs of all images that arguments and lists name, in order.

    An argument is an image, a URL, a folder, `@FILE` for a list, or `-` for a list on standard
    input. A list has an image, URL or folder in each line, or in a column with a title. What does
    not exist stays in, and so does a folder without images. Raises ListError.
    """
    locations: list[str] = []
    for argument in arguments:
        if argument == "-" or argument.startswith("@"):
            locations += _read_list(argument.removeprefix("@"))
        else:
            locations.append(argument)
    for name in lists:
        locations += _read_list(name)

    found: list[str] = []
    for location in locations:
        if is_url(location) or not _is_folder(location):
            found.append(location)
        else:
            found += _images_below(Path(location)) or [location]
    return found


def load_image(location: str, seconds: float = DOWNLOAD_SECONDS) -> tuple[Image.Image | None, str]:
    """Return the image of a file or URL and "", or None and why it cannot be used.

    A URL is waited for so many seconds.
    """
    try:
        if is_url(location):
            data = _fetch(location, seconds)
            return read_image(data), ""
        if _is_folder(location):
            raise BrokenImageError("a folder without a picture that can be read")
        path = Path(location)
        if _OTHER_SCHEME.match(location) and not os.path.lexists(path):
            raise BrokenImageError("no such file, and addresses begin with http:// or https://")
        return read_image(path), ""
    except BrokenImageError as error:
        return None, str(error)
    except urllib.error.HTTPError as error:
        error.close()
        return None, f"the server answered {error.code}"
    except (OSError, ValueError, http.client.HTTPException, zlib.error) as error:
        return None, f"cannot be read ({_detail(error)})"


def _detail(error: Exception) -> str:
    """Return why an address cannot be read, without what a server sent in place of an answer."""
    if isinstance(error, http.client.HTTPException):
        return "the server's answer is broken"
    if isinstance(error, UnicodeError):
        return "no host can be called so"
    cause = getattr(error, "reason", None) or error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def is_url(location: str) -> bool:
    """Return whether a location is an address of the web."""
    return location.lower().startswith(("http://", "https://"))


def stem_of(location: str) -> str:
    """Return the last part of a path or URL without its suffix."""
    path = location
    if is_url(location):
        path = unquote(urlsplit(location).path)
    return Path(path).stem


def ascii_url(url: str) -> str:
    """Return a URL as it is asked for: a host's name in Punycode, the rest percent-encoded.

    What is percent-encoded already stays. Raises ValueError for what is no URL.
    """
    # Where a console's encoding lacks a character, its bytes come as halves of surrogate pairs.
    if not _is_text(url):
        url = os.fsencode(url).decode(errors="replace")
    parts = urlsplit(url.strip())
    if parts.username is not None:
        raise ValueError("an address must not hold a user name or password")
    path = _percent_encoded(parts.path) or "/"
    query = _percent_encoded(parts.query)
    return urlunsplit((parts.scheme, _ascii_host(parts.netloc), path, query, ""))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _percent_encoded(text: str) -> str:
    whole = _STRAY_PERCENT.sub("%25", text)
    return quote(whole, safe="%/?:@!$&'()*+,;=~")


def _ascii_host(netloc: str) -> str:
    """Return a host and port with each label in Punycode (RFC 3492), as browsers send it."""
    composed = unicodedata.normalize("NFKC", netloc.replace("。", "."))
    labels = []
    for label in _LABELS.split(composed.lower()):
        if not label.isascii():
            label = "xn--" + label.encode("punycode").decode("ascii")
        labels.append(label)
    return "".join(labels)


def _fetch(url: str, seconds: float) -> bytes:
    """Return what an address answers; raises BrokenImageError where that takes too long.

    No limit on single reads ends a server that sends a byte now and then, or a name that is never
    found; so the wait ends here, and the thread with the process.
    """
    answer: Future[bytes] = Future()

    def ask() -> None:
        try:
            data = _answer(url, seconds)
            answer.set_result(data)
        except Exception as error:  # raised again by whoever waits
            answer.set_exception(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    if not answer.done():
        raise BrokenImageError(f"took longer than {seconds:.0f} seconds")
    return answer.result()


def _answer(url: str, seconds: float) -> bytes:
    headers = {"User-Agent": "Picaisso", "Accept": "image/*"}
    request = urllib.request.Request(ascii_url(url), headers=headers)
    deadline = time.monotonic() + seconds
    # Some hosts set a cookie and redirect until it comes back.
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(), _WebRedirects())
    with opener.open(request, timeout=_URL_SECONDS) as response:
        data = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            data += chunk
            if len(data) > _URL_BYTES:
                break
            if time.monotonic() > deadline:
                break  # nobody waits any longer
    if data.startswith(_COMPRESSED):  # some servers compress unasked
        body = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        data = bytearray(body.decompress(data, _URL_BYTES + 1))
    if len(data) > _URL_BYTES:
        raise BrokenImageError("larger than 30 MB")
    return bytes(data)


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses of the web alone; urllib would follow them to FTP as well."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request that follows; raises BrokenImageError."""
        if not is_url(newurl):
            raise BrokenImageError("the server leads to an address that is not of the web")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_folder(location: str) -> bool:
    return os.path.isdir(location)  # noqa: PTH112 - Path.is_dir raises for odd names


def _images_below(folder: Path) -> list[str]:
    """Return the files below a folder that are images by their suffix, or by content without one.

    Linked folders are followed; hidden files and what programs leave are passed over.
    """
    found = []
    for file in files_below(folder, folder):
        if file.reason:
            continue
        suffix = file.path.suffix
        if _IMAGE_SUFFIX.fullmatch(suffix) or (not suffix and _begins_like_an_image(file.path)):
            found.append(str(file.path))
    return found


def _begins_like_an_image(path: Path) -> bool:
    try:
        with path.open("rb") as file, Image.open(file):
            return True
    except Exception:  # a decoder fed with odd bytes may raise anything
        return False


def _read_list(name: str) -> list[str]:
    """Return what the lines of a list, or the cells of a table's column, name.

    Raises ListError where there is no list.
    """
    title = "on standard input" if name == "-" else name
    try:
        if name == "-" and sys.stdin is None:
            raise ValueError("it is closed")
        if name == "-":
            data = sys.stdin.buffer.read(_LARGEST_LIST + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_LARGEST_LIST + 1)
        if len(data) > _LARGEST_LIST:
            raise ValueError("it is larger than 100 MB")
        entries = _entries(decoded(data))
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or error
        raise ListError(f"The list {title} cannot be read: {detail}.") from error
    stripped = [entry.strip() for entry in entries]
    return [_as_on_disk(entry) for entry in stripped if entry and not entry.startswith("#")]


def _entries(text: str) -> list[str]:
    """Return the lines of a list, or the cells below the header of a table."""
    table, delimiter = delimited(text)
    lines = table.splitlines()
    first = lines[0] if lines else ""
    header = [cell.strip(' "').lower() for cell in first.split(delimiter)]
    for column in _COLUMNS:
        if column in header:
            position = header.index(column)
            rows = csv_rows(table, delimiter)
            next(rows)
            return [row[position] for row in rows if len(row) > position]
    return [_without_quotes(line.strip()) for line in lines]


def _without_quotes(line: str) -> str:
    is_quoted = len(line) > 1 and line[0] == line[-1] == '"'
    return line[1:-1] if is_quoted else line


def _as_on_disk(entry: str) -> str:
    """Return the name of a file that is not UTF-8, where a list was read as if Windows wrote it."""
    with contextlib.suppress(ValueError):
        name = os.fsdecode(entry.encode("cp1252"))
        if not os.path.lexists(entry) and os.path.lexists(name):
            return name
    return entry
