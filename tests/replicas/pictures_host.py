"""A picture host that behaves, and on request misbehaves in every way that a stranger's server
can.
"""

import contextlib
import gzip
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from tests.replicas.pictures import encoded, jpeg, picture
from tests.replicas.server import Replica, Request, Response, json_response

Statement = Response | Callable[[BaseHTTPRequestHandler], None]

PICTURE = "image/jpeg"
STATEMENTS = ("/robots.txt", "/.well-known/tdmrep.json")


class PictureHost(Replica):
    """`/pic/<seed>.jpg` is always good. `delay` in seconds holds every good answer back, `pace`
    sends them one after the other, so many seconds apart.

    `/redirect?to=URL`, `/loop`, `/hops/<n>` redirect, `/cookie` until its cookie comes back,
    `/cookie?to=URL` with one to elsewhere; `/endless`, `/drip`, `/short`, `/huge`,
    `/gzip` lie about or never finish their bodies; `/html`, `/empty`, `/gone`, `/forbidden`,
    `/nothing`, `/busy` are no pictures; `/noai`, `/otherbot`, `/ourbot`, `/tags`, `/usage`,
    `/mining`, `/hotlink` set conditions. `/squeezed` is compressed though nobody asked, `/verbose`
    has a long header line. `/flaky/<n>/<status>` answers with that status n times before it has
    a picture, `/breaks/<n>` breaks the connection off n times, `/patience/<seconds>` asks once for
    so much time, `/tired` always for a second.

    `requests` are those for pictures, `times` tells when they came, by the monotonic clock. What
    the host states about the use of its pictures is in `statements` by path, answers or what
    misbehaves; `statement_requests` are those for it.
    """

    def __init__(
        self, delay: float = 0.0, tls: ssl.SSLContext | None = None, pace: float = 0.0
    ) -> None:
        super().__init__()
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.delay = delay
        self.pace = pace
        self._sending = threading.Lock()
        self.files: dict[str, bytes] = {}
        self.times: list[float] = []
        self.statements: dict[str, Statement] = {}
        self.statement_requests: list[Request] = []

    def add(self, path: str, body: bytes) -> str:
        """Serve these bytes at a path as image/jpeg, whatever they are; returns the address."""
        self.files[path] = body
        return self.url + path

    def picture_url(self, seed: int) -> str:
        return f"{self.url}/pic/{seed}.jpg"

    def record(self, request: Request) -> None:
        if request.path in STATEMENTS:
            self.statement_requests.append(request)
            return
        super().record(request)
        self.times.append(time.monotonic())

    def state(self, robots: str = "", tdm: object = None) -> None:
        """State this in robots.txt and in tdmrep.json."""
        if robots:
            self.statements["/robots.txt"] = Response(robots.encode(), "text/plain")
        if tdm is not None:
            self.statements["/.well-known/tdmrep.json"] = json_response(tdm)

    def answer(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        misbehave = MISBEHAVIOUR.get(request.path)
        statement = self.statements.get(request.path)
        if callable(statement):
            misbehave = statement
        if request.path.startswith("/breaks/") and self._still(request):
            misbehave = _short
        if misbehave is None:
            super().answer(request, handler)
            return
        handler.close_connection = True
        with contextlib.suppress(OSError):  # the client had enough
            misbehave(handler)

    def respond(self, request: Request) -> Response:
        statement = self.statements.get(request.path)
        if isinstance(statement, Response):
            return statement
        if request.path in self.files:
            return Response(self.files[request.path], PICTURE)
        first = "/" + request.path.split("/")[1]
        return getattr(self, "_" + first[1:].replace("-", "_"), self._gone)(request)

    def _still(self, request: Request) -> bool:
        """Whether this path has been asked for at most as often as its number says."""
        return len(self.asked(request.path)) <= int(request.path.split("/")[2])

    def _flaky(self, request: Request) -> Response:
        if self._still(request):
            return Response(b"later", "text/plain", int(request.path.split("/")[3]))
        return Response(jpeg(11), PICTURE)

    def _breaks(self, request: Request) -> Response:
        return Response(jpeg(12), PICTURE)

    def _patience(self, request: Request) -> Response:
        if len(self.asked(request.path)) == 1:
            return Response(
                b"later", "text/plain", 429, {"Retry-After": request.path.split("/")[2]}
            )
        return Response(jpeg(13), PICTURE)

    def _tired(self, request: Request) -> Response:
        return Response(b"later", "text/plain", 429, {"Retry-After": "1"})

    def _pic(self, request: Request) -> Response:
        time.sleep(self.delay)
        if self.pace:
            with self._sending:
                time.sleep(self.pace)
        return Response(jpeg(int(request.path.split("/")[2].partition(".")[0])), PICTURE)

    def _redirect(self, request: Request) -> Response:
        return Response(status=302, headers={"Location": request.query["to"]})

    def _loop(self, request: Request) -> Response:
        return Response(status=301, headers={"Location": "/loop"})

    def _cookie(self, request: Request) -> Response:
        if "to" not in request.query and "seen=yes" in request.headers.get("Cookie", ""):
            return Response(jpeg(14), PICTURE)
        target = request.query.get("to", "/cookie")
        headers = {"Location": target, "Set-Cookie": "seen=yes; Path=/; HttpOnly"}
        return Response(status=302, headers=headers)

    def _hops(self, request: Request) -> Response:
        left = int(request.path.split("/")[2])
        target = f"/hops/{left - 1}" if left else "/pic/1.jpg"
        return Response(status=307, headers={"Location": target})

    def _html(self, request: Request) -> Response:
        return Response(b"<!doctype html><title>Not found</title><p>Sorry", PICTURE)

    def _empty(self, request: Request) -> Response:
        return Response(b"", PICTURE)

    def _gone(self, request: Request) -> Response:
        return Response(b"no", "text/plain", 404)

    def _forbidden(self, request: Request) -> Response:
        return Response(b"no", "text/plain", 403)

    def _nothing(self, request: Request) -> Response:
        return Response(status=204)

    def _busy(self, request: Request) -> Response:
        return Response(b"later", "text/plain", 429, {"Retry-After": "17"})

    def _gzip(self, request: Request) -> Response:
        bomb = gzip.compress(b"\0" * (8 << 20))
        return Response(bomb, PICTURE, headers={"Content-Encoding": "gzip"})

    def _squeezed(self, request: Request) -> Response:
        body = gzip.compress(jpeg(15))
        return Response(body, PICTURE, headers={"Content-Encoding": "gzip"})

    def _verbose(self, request: Request) -> Response:
        return Response(jpeg(16), PICTURE, headers={"Content-Security-Policy": "x " * 10_000})

    def _noai(self, request: Request) -> Response:
        return Response(jpeg(2), PICTURE, headers={"X-Robots-Tag": "noarchive, noai"})

    def _otherbot(self, request: Request) -> Response:
        return Response(jpeg(3), PICTURE, headers={"X-Robots-Tag": "otherbot: noai, noindex"})

    def _ourbot(self, request: Request) -> Response:
        return Response(jpeg(4), PICTURE, headers={"X-Robots-Tag": "picaisso: noimageai"})

    def _hotlink(self, request: Request) -> Response:
        allowed = request.headers.get("Referer", "").startswith("https://pages.example/")
        return Response(jpeg(5), PICTURE) if allowed else Response(b"no", "text/plain", 403)

    def _usage(self, request: Request) -> Response:
        return Response(jpeg(17), PICTURE, headers={"Content-Usage": "search=y, train-ai=n"})

    def _mining(self, request: Request) -> Response:
        terms = {"tdm-reservation": "1", "tdm-policy": "https://example.org/terms"}
        return Response(jpeg(18), PICTURE, headers=terms)

    def _png(self, request: Request) -> Response:
        return Response(encoded(picture(6), "PNG"), "image/png")


def _start(handler: BaseHTTPRequestHandler, length: int | None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", PICTURE)
    handler.send_header("Connection", "close")
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()


def _endless(handler: BaseHTTPRequestHandler) -> None:
    _start(handler, None)
    while True:
        handler.wfile.write(b"x" * 65536)


def _drip(handler: BaseHTTPRequestHandler) -> None:
    _start(handler, 100_000)
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


def _tags(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    for tag in (
        "otherbot: noindex",
        "noarchive, nosnippet",
        "unavailable_after: 25 Jun 2030 15:00:00 PST, NoImageAI",
    ):
        handler.send_header("X-Robots-Tag", tag)
    handler.send_header("Content-Length", str(len(jpeg(14))))
    handler.end_headers()
    handler.wfile.write(jpeg(14))


def _short(handler: BaseHTTPRequestHandler) -> None:
    _start(handler, 100_000)
    handler.wfile.write(jpeg(1)[:500])


def _huge(handler: BaseHTTPRequestHandler) -> None:
    _start(handler, 10 << 30)
    handler.wfile.write(b"x" * 65536)


MISBEHAVIOUR = {
    "/endless": _endless,
    "/drip": _drip,
    "/short": _short,
    "/huge": _huge,
    "/tags": _tags,
}
