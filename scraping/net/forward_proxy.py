"""A forward proxy on loopback through which the browser reaches public addresses alone.

Some result pages give an image's URL only after loading the image from wherever it lies. Such a
browser cannot be limited to named hosts; through this proxy, behind the rule of
`scraping.net.http`, it reaches public addresses on the usual ports and nothing else.
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

MAX_HEAD_BYTES = 1 << 16
MAX_BYTES = 64 << 20  # per connection and direction
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
    """The proxy, served by a daemon thread. `with ForwardProxy(settings) as proxy: proxy.port`."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._rule = AddressRule(settings.allowed_private_hosts)
        self._resolver = GuardedResolver(self._rule, settings.lookup)
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="forward-proxy", daemon=True)

    @property
    def port(self) -> int:
        """Return the loopback port it listens at."""
        return int(self._listener.getsockname()[1])

    def start(self) -> Self:
        """Start to serve, and return when it does."""
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
            asyncio.start_server(self._answer, sock=self._listener, limit=MAX_HEAD_BYTES)
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
            pass  # one of the two sides has hung up, and both know
        finally:
            writer.close()

    async def _pass_on(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request_line = head.split(b"\r\n", 1)[0].decode("latin-1")
        method, target, _version = request_line.split(" ")
        tunnel = method == "CONNECT"
        url = URL(f"https://{target}" if tunnel else target)
        if self._rule.rejection_reason(url) or (url.scheme == "https") is not tunnel:
            writer.write(REFUSED)
            return
        try:
            far_reader, far_writer = await asyncio.wait_for(self._connect(url), IDLE_SECONDS)
        except (OSError, TimeoutError):
            writer.write(UNREACHABLE)
            return
        try:
            if tunnel:
                writer.write(CONNECTED)
            else:
                far_writer.write(_origin_request(head, method, url))
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            far_writer.close()

    async def _connect(self, url: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first address of the host that answers. Raises OSError.

        That may be AddressRefused.
        """
        problem = OSError("no address")
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


def _origin_request(head: bytes, method: str, url: URL) -> bytes:
    """Return the request as the origin wants it: its path alone, one request per connection."""
    _request_line, rest = head.split(b"\r\n", 1)
    headers = HOP_HEADERS.sub(b"", b"\r\n" + rest)
    request_line = f"{method} {url.raw_path_qs} HTTP/1.1\r\nConnection: close"
    return request_line.encode("latin-1") + headers


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until the end, a long silence or the limit."""
    passed = 0
    while passed < MAX_BYTES:
        chunk = await asyncio.wait_for(source.read(CHUNK_BYTES), IDLE_SECONDS)
        if not chunk:
            break
        passed += len(chunk)
        sink.write(chunk)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
