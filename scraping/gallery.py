"""A search site over a folder of images, answering with the result markup of Bing's image search.

For the demonstration and for tests: the source and a real browser use it as they use the real
site. A query matches the name of any folder above an image, singular or plural, and a longer one
what has all its words in names above it: `jaguar animal` finds `animals/jaguar`. Folders with
`cartoon` in their name are left out. Only images found at the start are ever served, by name, so
no request can reach another file.
"""

import hashlib
import html
import json
import mimetypes
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from PIL import Image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp"})
LEFT_OUT = "cartoon"
PAGE_SIZE = 35
MAX_PAGE_SIZE = 100
LOADS_BEFORE_SEE_MORE = 3
LOADS_PER_SEE_MORE = 2
LOAD_DELAY_MS = 120
HOST_TEXT = re.compile(r"[A-Za-z0-9.\-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?")


@dataclass(frozen=True)
class Entry:
    """One image: where it lies under the folder, and the words it is found by."""

    path: str
    words: frozenset[str]

    def matches(self, key: str) -> bool:
        """Return whether a search key finds it: as a folder's name, or word for word in several."""
        if key in self.words:
            return True
        single_words = key.split()
        return len(single_words) > 1 and set(single_words) <= set(" ".join(self.words).split())


def _search_key(name: str) -> str:
    """Return a name in lower case, its words separated by single spaces."""
    return re.sub(r"[\W_]+", " ", name).strip().casefold()


def word_forms(name: str) -> frozenset[str]:
    """Return a name with its likely English singular and plural.

    `mammals` is found by `mammal`, and the reverse.
    """
    key = _search_key(name)
    forms = {key, f"{key}s", f"{key}es"}
    for ending, other in (("ies", "y"), ("es", ""), ("s", ""), ("y", "ies")):
        stem = key.removesuffix(ending)
        if stem != key and len(stem) > 1:
            forms.add(stem + other)
    return frozenset(forms)


class Collection:
    """The images of a folder tree, read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: dict[str, Entry] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() not in IMAGE_SUFFIXES or not file.is_file():
                continue
            relative = file.relative_to(folder)
            folders = relative.parts[:-1]
            if any(LEFT_OUT in name.casefold() for name in folders):
                continue
            words: set[str] = set()
            for name in folders:
                words |= word_forms(name)
            path = relative.as_posix()
            self._entries[path] = Entry(path, frozenset(words))

    def __len__(self) -> int:
        return len(self._entries)

    def search(self, query: str) -> list[Entry]:
        """Return matching images, mixed in an order that never changes: by their path's hash."""
        key = _search_key(query)
        if not key:
            return []
        found = [entry for entry in self._entries.values() if entry.matches(key)]
        return sorted(found, key=lambda entry: hashlib.sha256(entry.path.encode()).digest())

    def file_of(self, path: str) -> Path | None:
        """Return the file of a served path, None for any other."""
        if path not in self._entries:
            return None
        return self.folder / path

    def size_of(self, path: str) -> tuple[int, int]:
        """Return width and height in pixels, (0, 0) for what is no image."""
        if path not in self._sizes:
            try:
                with Image.open(self.folder / path) as image:
                    self._sizes[path] = image.size
            except (OSError, ValueError):
                self._sizes[path] = (0, 0)
        return self._sizes[path]


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f5f6f8;color:#1c2733}
header{padding:16px 24px;background:#fff;border-bottom:1px solid #dde2e8}
input{font:inherit;padding:8px 12px;width:min(420px,60vw);
  border:1px solid #b9c2cc;border-radius:8px}
ul{list-style:none;display:flex;flex-wrap:wrap;gap:16px;margin:0;padding:16px 24px 0}
li{background:#fff;border:1px solid #dde2e8;border-radius:10px;
  width:220px;height:280px;padding:12px;overflow:hidden}
.img_cont{height:190px;display:flex;align-items:center;justify-content:center}
.mimg{max-width:196px;max-height:190px}
.img_info,.lnkw,.infopt{font-size:13px;color:#5b6875;white-space:nowrap;
  overflow:hidden;text-overflow:ellipsis}
.invis{display:none}.mm_seemore{text-align:center;padding:24px}main{padding:24px}
"""

SCRIPT = """
(function () {
  var control = document.querySelector('.dgControl');
  var bottom = document.getElementById('bop_container');
  if (!control) { return; }
  var allowed = FREE_LOADS, busy = false;
  function nearEnd() {
    return window.innerHeight + window.scrollY > document.body.scrollHeight - 400;
  }
  function load() {
    var next = control.getAttribute('data-nextUrl');
    if (busy || !next || !nearEnd()) { return; }
    if (allowed === 0) { bottom.classList.remove('invis'); return; }
    busy = true;
    setTimeout(function () {
      fetch(next).then(function (answer) { return answer.text(); }).then(function (text) {
        var box = document.createElement('div');
        box.innerHTML = text;
        var part = box.querySelector('.dgControl');
        if (part) {
          part.querySelectorAll('ul').forEach(function (list) { control.appendChild(list); });
          control.setAttribute('data-nextUrl', part.getAttribute('data-nextUrl') || '');
        } else { control.setAttribute('data-nextUrl', ''); }
        allowed -= 1; busy = false; load();
      }).catch(function () { busy = false; });
    }, LOAD_DELAY);
  }
  bottom.querySelector('.btn_seemore').addEventListener('click', function (event) {
    event.preventDefault(); bottom.classList.add('invis'); allowed = MORE_LOADS; load();
  });
  window.addEventListener('scroll', load);
  load();
})();
"""


@dataclass(frozen=True)
class Search:
    """One search as its address words it; `first` counts from 1."""

    query: str
    first: int
    count: int

    @classmethod
    def of(cls, query_string: str) -> "Search":
        """Read the parameters, taking the nearest sensible value for what is missing or odd."""
        given = parse_qs(query_string)
        [query] = given.get("q", [""])[:1]
        first = max(1, _number(given, "first", 1))
        count = max(1, _number(given, "count", PAGE_SIZE))
        return cls(query, first, min(MAX_PAGE_SIZE, count))


def _number(given: Mapping[str, list[str]], name: str, default: int) -> int:
    if name not in given:
        return default
    text = given[name][0]
    if not text.isdecimal() or len(text) > 8:
        return default
    return int(text)


def tile(entry: Entry, index: int, size: tuple[int, int], site: str) -> str:
    """Return the markup of one result. `site` is scheme, host and port of this site."""
    width, height = size
    name = Path(entry.path).stem.replace("_", " ").replace("-", " ")
    kind = Path(entry.path).suffix[1:]
    image_url = f"{site}/pictures/{quote(entry.path)}"
    page_url = f"{site}/about/{quote(entry.path)}"
    facts = {"murl": image_url, "turl": image_url, "purl": page_url, "t": name, "desc": ""}
    detail = urlencode({"view": "detailV2", "mediaurl": image_url, "exph": height, "expw": width})
    title = html.escape(name)
    source = html.escape(image_url)
    page = html.escape(page_url)
    return (
        f'<li data-idx="{index}"><div class="iuscp isv"><div class="imgpt">'
        f'<a class="iusc" m="{html.escape(json.dumps(facts))}" '
        f'href="/images/search?{html.escape(detail)}" h="ID=images,{index}.1">'
        f'<div class="img_cont hoff"><img class="mimg" loading="lazy" alt="{title}" '
        f'src="{source}"></div></a>'
        f'<div class="img_info hon"><span class="nowrap">{width} x {height} · {kind}</span></div>'
        f'<div class="lnkw"><a title="{page}" href="{page}">the picture</a></div></div>'
        f'<div class="infopt"><a title="{title}" href="{page}">{title}</a>'
        "</div></div></li>"
    )


def result_control(collection: Collection, search: Search, site: str) -> str:
    """Return a block of results, as a page and its later loads hold one; empty past the end."""
    found = collection.search(search.query)
    start = search.first - 1
    batch = found[start : start + search.count]
    if not batch:
        return ""
    next_url = ""
    after = search.first + len(batch)
    if after <= len(found):
        more = {"q": search.query, "async": 1, "first": after, "count": search.count, "mmasync": 1}
        next_url = html.escape(f"/images/async?{urlencode(more)}")
    number = start // PAGE_SIZE + 1
    tiles = ""
    for index, entry in enumerate(batch, start=search.first):
        tiles += tile(entry, index, collection.size_of(entry.path), site)
    return (
        f'<div id="mmComponent_images_{number}" class="dgControl hover" '
        f'data-nextUrl="{next_url}" '
        f'data-iid="images.{5000 + number}" data-layout="row" data-postData="">'
        f'<ul class="dgControl_list " data-row="{number}">{tiles}</ul></div>'
    )


def result_page(collection: Collection, search: Search, site: str) -> str:
    """Return the whole page of a search."""
    control = result_control(collection, search, site)
    query = html.escape(search.query)
    if not control:
        body = f'<main><p class="b_no">There are no results for <strong>{query}</strong></p></main>'
    else:
        body = (
            f'<div class="dg_b" role="main">{control}</div>'
            '<div id="bop_container" class="invis"><div class="mm_seemore">'
            '<a class="btn_seemore cbtn" href="#">See more images</a></div></div>'
        )
    return _page(f"{search.query} - pictures", query, body + f"<script>{_script()}</script>")


def _script() -> str:
    values = {
        "FREE_LOADS": LOADS_BEFORE_SEE_MORE,
        "MORE_LOADS": LOADS_PER_SEE_MORE,
        "LOAD_DELAY": LOAD_DELAY_MS,
    }
    text = SCRIPT
    for name, value in values.items():
        text = text.replace(name, str(value))
    return text


def _page(title: str, query: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>"
        f'<style>{STYLE}</style></head><body><header><form action="/images/search"><label>Search '
        f'<input id="sb_form_q" name="q" type="search" value="{query}"></label></form></header>'
        f"{body}</body></html>"
    )


class GalleryServer(ThreadingHTTPServer):
    """Serves one collection. Port 0 picks a free one; `url` says where it listens."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self.collection = Collection(folder)
        super().__init__((host, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors as usual, except readers who hang up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Return scheme, host and port."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GalleryServer

    def do_GET(self) -> None:
        """Answer a request."""
        parts = urlsplit(self.path)
        collection = self.server.collection
        site = self._site()
        if parts.path == "/robots.txt":
            self._send("User-agent: *\nAllow: /\n", "text/plain; charset=utf-8")
        elif parts.path == "/":
            text = f"<main>{len(collection)} pictures. Search for the name of a folder.</main>"
            self._send(_page("Gallery", "", text))
        elif parts.path == "/images/search":
            self._send(result_page(collection, Search.of(parts.query), site))
        elif parts.path == "/images/async":
            self._send(result_control(collection, Search.of(parts.query), site))
        elif parts.path.startswith(("/pictures/", "/about/")):
            _empty, kind, path = parts.path.split("/", 2)
            self._send_image(kind, unquote(path))
        else:
            self._send_missing()

    def _site(self) -> str:
        """Return scheme, host and port as the reader wrote them, where that makes sense."""
        host = self.headers.get("Host", "")
        if HOST_TEXT.fullmatch(host) is None:
            return self.server.url
        return f"http://{host}"

    def _send_image(self, kind: str, path: str) -> None:
        file = self.server.collection.file_of(path)
        if file is None:
            self._send_missing()
        elif kind == "pictures":
            mime, _encoding = mimetypes.guess_type(path)
            self._send_bytes(file.read_bytes(), mime or "application/octet-stream")
        else:
            image = f'<img alt="" src="/pictures/{quote(path)}"><p>{html.escape(path)}</p>'
            self._send(_page(path, "", f"<main>{image}</main>"))

    def _send(self, text: str, kind: str = "text/html; charset=utf-8") -> None:
        self._send_bytes(text.encode(), kind)

    def _send_missing(self) -> None:
        self._send_bytes(b"Not here.\n", "text/plain; charset=utf-8", HTTPStatus.NOT_FOUND)

    def _send_bytes(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the terminal belongs to whoever started the site."""
