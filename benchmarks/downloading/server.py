"""The loopback server of N1, in its own process: every image after a wait, from memory.

``python -m benchmarks.downloading.server FOLDER DELAY`` prints its port. Connections are kept.
`/p/<n>.jpg` is image n; beyond the number of files it starts again with one entry of the
quantization table changed, so that the pixels differ each time. There is nothing else
but `/clock`, which answers when the first image since the last `/clock` was asked for, by the
system's monotonic clock.
"""

import asyncio
import sys
import time
from pathlib import Path

TABLE = b"\xff\xdb"  # marker of the quantization tables
# Offset from there: marker and length, table number, then the lowest frequency but one, which
# reduced scales use.
TABLE_ENTRY = 4 + 1 + 1


class Images:
    """The files in memory, and the time of the first request."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*.jpg"))
        self._bodies = [file.read_bytes() for file in files]
        self.first_asked: float | None = None

    def body(self, number: int) -> bytes:
        """Return image `number`, in another variation each time round."""
        if self.first_asked is None:
            self.first_asked = time.monotonic()
        round_number, index = divmod(number, len(self._bodies))
        body = self._bodies[index]
        if not round_number:
            return body
        varied = bytearray(body)
        entry = body.index(TABLE) + TABLE_ENTRY
        varied[entry] = min(255, body[entry] + round_number)
        return bytes(varied)

    def clock(self) -> bytes:
        """Return the time of the first request as text, and start anew."""
        text = repr(self.first_asked)
        self.first_asked = None
        return text.encode()


class Connection(asyncio.Protocol):
    """One kept connection; requests without bodies, one at a time."""

    def __init__(self, images: Images, delay: float) -> None:
        self._images = images
        self._delay = delay
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            if path == "/clock":
                self._send(self._images.clock(), "text/plain")
                continue
            loop = asyncio.get_running_loop()
            if not path.startswith("/p/"):  # what hosts state about the use of their images
                loop.call_later(self._delay, self._send, b"", "text/plain", "404 Not Found")
                continue
            number = int(path.removeprefix("/p/").removesuffix(".jpg"))
            body = self._images.body(number)
            loop.call_later(self._delay, self._send, body, "image/jpeg")

    def _send(self, body: bytes, kind: str, status: str = "200 OK") -> None:
        assert self._transport is not None
        facts = f"Content-Type: {kind}\r\nContent-Length: {len(body)}"
        head = f"HTTP/1.1 {status}\r\n{facts}\r\n\r\n"
        self._transport.writelines((head.encode(), body))


async def serve(folder: Path, delay: float) -> None:
    """Serve until killed."""
    images = Images(folder)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(images, delay), "127.0.0.1", 0, backlog=1024
    )
    _host, port = server.sockets[0].getsockname()
    print(port, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
