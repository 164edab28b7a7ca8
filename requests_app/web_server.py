"""The web server of ``manage.py up``: ``python -m requests_app.web_server HOST PORT``.

Waitress reads requests and sends answers in one loop, and its threads do nothing but answer whole
requests: who sends half of one, or reads slowly, holds a connection and no thread. What it leaves
open is closed here. Headers and bodies have a time-out, bodies the limit of their page, the oldest
of too many connections makes room for a new one, and no download keeps the loop to itself.
"""

import logging
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import Error

from requests_app.workers.processes import die_with_parent

logger = logging.getLogger(__name__)

PROCESSES = 2
THREADS = 32  # of each process
MOST_CONNECTIONS = 4000  # of each process, where the system allows so many open files
MOST_OPEN_FILES = 2 * MOST_CONNECTIONS
HEADER_BYTES = 32_768
SLOWEST_PACE = 20_000  # bytes a second of a body
QUIET_SECONDS = 60  # without a byte, either way
LARGE_BYTES = 2_500_000  # a body that counts among those that arrive
ARRIVING_BYTES = 1_000_000_000  # of all large bodies that one process is being sent
AT_ONCE_BYTES = 262_144  # sent to one visitor before the others have their turn
READ_BYTES = 65_536
LINGER_SECONDS = 10.0  # in which a visitor whose body is refused can read why
STOP_SECONDS = 8.0  # in which answers that are being sent are sent to their end
PAUSE_SECONDS = 1.0  # before a process that is gone is started again

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Limit = Callable[[str], int]  # a path, and how many bytes a request of it may bring along


class TooMuchArrivesError(Error):
    """The answer to one more large body while others are still being sent."""

    code = 503
    reason = "Service Unavailable"


class RequestParser(HTTPRequestParser):
    """Reads no more of a body than its page takes."""

    most: int | None = None
    """Bytes of the body; None before the headers are known."""

    def __init__(self, adj: Adjustments, channel: "Channel") -> None:
        super().__init__(adj)
        self._channel = channel

    def received(self, data: bytes) -> int:
        """Take the next bytes; return how many of them belong to this request."""
        consumed = super().received(data)
        if self.headers_finished and self.error is None:
            if self.most is None:
                self._know_limit()
            if max(self.content_length, self.body_bytes_received) > (self.most or 0):
                self._refuse()
                consumed = len(data)
        if self.error is not None:
            self._channel.was_refused = True
        return consumed

    @property
    def expected_bytes(self) -> int:
        """Return how large the body says it is, or may become."""
        return (self.most or 0) if self.chunked else self.content_length

    def _know_limit(self) -> None:
        server = self._channel.server
        self.most = server.limit(self.path)
        is_large = LARGE_BYTES < self.expected_bytes <= self.most
        if is_large and server.arriving_bytes() > ARRIVING_BYTES:
            self.error = TooMuchArrivesError("Too many uploads arrive at once. Try again later.")
            self.expect_continue = False
            self.completed = True

    def _refuse(self) -> None:
        """Have the application answer what says that it is too large, without a body."""
        self.close()
        size = max(self.content_length, self.body_bytes_received)
        self.headers["CONTENT_LENGTH"] = str(size)
        self.headers["CONNECTION"] = "close"
        self.body_rcv = None
        self._channel.was_refused = True
        self.expect_continue = False
        self.completed = True


class Channel(HTTPChannel):
    """One visitor's connection."""

    server: "WebServer"
    sendbuf_len: int
    was_refused = False
    """Whether it may still be sending what nobody reads."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.sendbuf_len = min(self.sendbuf_len, AT_ONCE_BYTES)
        self.begun = time.time()
        """When the first byte of the request came that is being read."""
        self._allowance = 0
        self._lingers_until = 0.0

    def parser_class(self, adj: Adjustments) -> RequestParser:
        return RequestParser(adj, self)

    # --- reading ---

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self.begun = time.time()
        return bool(super().received(data))

    def readable(self) -> bool:
        return bool(self._lingers_until or super().readable())

    def writable(self) -> bool:
        return bool(not self._lingers_until and super().writable())

    def handle_read(self) -> None:
        if not self._lingers_until:
            super().handle_read()
            return
        try:
            self.recv(READ_BYTES)  # of what was refused
        except OSError:
            self.handle_close()

    def handle_close(self) -> None:
        """Close; to a visitor who is still sending, only after the answer could be read.

        Closing a socket that holds unread bytes takes back what was sent (RFC 9112, 9.6).
        """
        if self.was_refused and self.connected and not self._lingers_until:
            self._lingers_until = time.time() + LINGER_SECONDS
            self.will_close = False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.handle_close()
            return
        if self.request is not None:
            self.request.close()
        super().handle_close()

    # --- sending ---

    def _flush_some(self, do_close: bool = True) -> bool:
        self._allowance = AT_ONCE_BYTES
        return bool(super()._flush_some(do_close=do_close))

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send some; nothing where this visitor has had a turn's share."""
        if self._allowance <= 0:
            return 0
        sent = super().send(data, do_close=do_close)
        self._allowance -= sent
        return int(sent)

    # --- how long ---

    def is_overdue(self, now: float) -> bool:
        """Return whether its visitor has had the time for what is being done."""
        if self._lingers_until:
            return now > self._lingers_until
        if self.total_outbufs_len:
            return now - self.last_activity > QUIET_SECONDS
        if self.requests or self.request is None:
            return False
        if not self.request.headers_finished:
            return now - self.begun > settings.HEADER_SECONDS
        allowed = 2 * settings.HEADER_SECONDS + self.request.body_bytes_received / SLOWEST_PACE
        return now - self.begun > allowed

    @property
    def is_waiting(self) -> bool:
        """Return whether nothing is lost by closing it: it holds no whole request, no answer."""
        return not (self.requests or self.total_outbufs_len or self.will_close)


class WebServer(TcpWSGIServer):
    """Accepts connections and closes those that are overdue."""

    active_channels: dict[int, Channel]
    limit: Limit

    def channel_class(
        self, server: "WebServer", sock: socket.socket, *arguments: Any, **named: Any
    ) -> Channel | None:
        """Return the channel of a new connection, for which the oldest waiting one makes room."""
        channels = list(self.active_channels.values())
        if len(channels) >= most_connections():
            waiting = [channel for channel in channels if channel.is_waiting]
            if not waiting:
                sock.close()
                return None
            oldest = min(waiting, key=lambda channel: channel.begun)
            oldest.will_close = True
        return Channel(server, sock, *arguments, **named)

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if not channel.is_overdue(now):
                continue
            if channel._lingers_until:
                channel.handle_close()
            channel.will_close = True

    def arriving_bytes(self) -> int:
        """Return how large the bodies are together that are being sent and count as large."""
        whole = 0
        for channel in list(self.active_channels.values()):
            for request in (channel.request, *channel.requests):
                if request is not None and request.expected_bytes > LARGE_BYTES:
                    whole += request.expected_bytes
        return whole

    @property
    def is_busy(self) -> bool:
        channels = list(self.active_channels.values())
        return any(channel.requests or channel.total_outbufs_len for channel in channels)


def most_connections() -> int:
    """Return how many connections a process holds: files are open too."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST_CONNECTIONS, open_files // 2)


def without_body_for_head(application: Application) -> Application:
    """Return the application with what a server does for it (RFC 9110, 9.3.2)."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = application(environ, start_response)
        if environ["REQUEST_METHOD"] != "HEAD":
            return body
        close = getattr(body, "close", None)
        if close is not None:
            close()
        return []

    return answer


def serve(application: Application, limit: Limit, listener: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT, then send what is being sent to its end."""
    adjustments = Adjustments(
        sockets=[listener],
        threads=THREADS,
        connection_limit=MOST_OPEN_FILES,
        cleanup_interval=1,
        channel_timeout=QUIET_SECONDS,
        max_request_header_size=HEADER_BYTES,
        max_request_body_size=sys.maxsize,  # each page has its own
        recv_bytes=READ_BYTES,
        clear_untrusted_proxy_headers=False,  # settings say whom to believe
        ident=None,
        log_socket_errors=False,
    )
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(THREADS)
    family = (listener.family, listener.type, listener.proto, listener.getsockname())
    server = WebServer(
        without_body_for_head(application),
        {},
        True,
        listener,
        dispatcher=dispatcher,
        adj=adjustments,
        bind_socket=False,
        sockinfo=family,
    )
    server.limit = limit
    is_stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        is_stopping = True
        server.pull_trigger()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while not is_stopping:
        wasyncore.loop(timeout=1.0, use_poll=True, map=server._map, count=1)
    server.accepting = False
    deadline = time.monotonic() + STOP_SECONDS
    while server.is_busy and time.monotonic() < deadline:
        wasyncore.loop(timeout=0.1, use_poll=True, map=server._map, count=1)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _kind, _protocol, _name, address = found[0]
    return socket.create_server(address, family=family, backlog=1024)


def run_processes(work: Callable[[], None]) -> None:
    """Keep the processes that do this work running, until SIGTERM or SIGINT."""
    running: set[int] = set()
    is_stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        is_stopping = True
        for pid in running:
            os.kill(pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while running or not is_stopping:
        while len(running) < PROCESSES and not is_stopping:
            running.add(_started(work))
        pid, status = os.wait()
        running.discard(pid)
        if not is_stopping:
            code = os.waitstatus_to_exitcode(status)
            logger.warning("a web process is gone (code %s) and is started again", code)
            time.sleep(PAUSE_SECONDS)


def _started(work: Callable[[], None]) -> int:
    """Return the id of a new process that works, and dies with this one."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        die_with_parent(parent=parent)
        work()
        code = 0
    except BaseException:
        logger.exception("a web process ends")
    finally:
        os._exit(code)


def main(arguments: list[str]) -> None:
    host, port = arguments
    # These need the settings, which the first of them reads.
    from picaisso_site.wsgi import application
    from requests_app.views.body_limits import most_bytes

    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    # What arrives lies with all else that Picaisso writes, not in a memory that looks like a disk.
    folder = Path(settings.FILE_UPLOAD_TEMP_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)
    listener = listen(host, int(port))
    run_processes(partial(serve, application, most_bytes, listener))


if __name__ == "__main__":
    main(sys.argv[1:])
