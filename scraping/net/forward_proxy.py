"""A way out of the browser to public addresses alone: a forward proxy on loopback behind the rule
of `scraping.net.http`.

Some result pages show a picture's address only after loading the picture from wherever it lies.
Such a browser cannot be limited to named hosts; through this proxy it reaches public addresses on
the usual ports and nothing else.
"""

import asyncio
import contextlib
import re
import socket
import threading
from types import TracebackType
from typing import Self

from aiohttp.abc import ResolveResult
from yarl import URL

from scraping.net.http import AddressRule, FetchSettings, GuardedResolver

MOST_HEAD_BYTES = 1 << 16
MOST_BYTES = 64 << 20  # per connection and direction
CHUNK_BYTES = 1 << 16
IDLE_SECONDS = 20.0
START_SECONDS = 5.0
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
HOP_HEADERS = re.compile(
    rb"\r\n(?:proxy-connection|proxy-authorization|connection):[^\r]*", re.IGNORECASE
)


class ForwardProxy:
    """The proxy, served by a daemon thread. `port` says where; `with ForwardProxy(settings) as
    forwarder`.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._rule = AddressRule(settings.allowed_private_hosts)
        self._resolver = GuardedResolver(self._rule, settings.lookup)
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="forwarder", daemon=True)

    @property
    def port(self) -> int:
        """The loopback port it listens at."""
        return int(self._listener.getsockname()[1])

    def start(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        self._ready.wait(START_SECONDS)
        return self

    def stop(self) -> None:
        """End all connections and the thread."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._answer, sock=self._listener, limit=MOST_HEAD_BYTES)
        )
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the browser: one tunnel or one request."""
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE_SECONDS)
            await self._pass_on(head, reader, writer)
        except (
            OSError,
            ValueError,
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ):
            pass  # whoever asked has gone, or what was asked for does; both know
        finally:
            writer.close()

    async def _pass_on(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        url = URL(f"https://{target}" if method == "CONNECT" else target)
        if self._rule.rejection_reason(url) or (url.scheme == "https") is not (method == "CONNECT"):
            writer.write(REFUSED)
            return
        try:
            far_reader, far_writer = await asyncio.wait_for(self._connect(url), IDLE_SECONDS)
        except (OSError, TimeoutError):
            writer.write(UNREACHABLE)
            return
        try:
            if method == "CONNECT":
                writer.write(CONNECTED)
            else:
                far_writer.write(_for_origin(head, method, url))
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            far_writer.close()

    async def _connect(self, url: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first address of the host that answers. Raises OSError, AddressRefused
        among them.
        """
        problem: OSError = OSError("no address")
        for answer in await self._resolver.resolve(url.host or "", url.port or 0):
            try:
                return await self._connect_to(answer)
            except OSError as error:
                problem = error
        raise problem

    async def _connect_to(
        self, answer: ResolveResult
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        target = (answer["host"], answer["port"])
        connection = self._rule.open_socket(
            (answer["family"], socket.SOCK_STREAM, answer["proto"], "", target)
        )
        connection.setblocking(False)
        try:
            await self._loop.sock_connect(connection, target)
        except BaseException:
            connection.close()
            raise
        return await asyncio.open_connection(sock=connection)


def _for_origin(head: bytes, method: str, url: URL) -> bytes:
    """The request as the origin wants it: its path alone, and one request per connection."""
    _, rest = head.split(b"\r\n", 1)
    headers = HOP_HEADERS.sub(b"", b"\r\n" + rest)
    return f"{method} {url.raw_path_qs} HTTP/1.1\r\nConnection: close".encode("latin-1") + headers


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until the end, a long silence or the limit."""
    passed = 0
    while passed < MOST_BYTES:
        chunk = await asyncio.wait_for(source.read(CHUNK_BYTES), IDLE_SECONDS)
        if not chunk:
            break
        passed += len(chunk)
        sink.write(chunk)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
