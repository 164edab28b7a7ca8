"""The loopback server of N1, in its own process: every picture after a wait, from memory, over kept
connections.

``python -m benchmarks.downloading.server FOLDER DELAY`` prints its port. `/p/<n>.jpg` is picture n; beyond the number
of files it goes round again with one entry of the quantisation table changed, so that the pixels differ each time.
`/clock` answers when the first picture since the last `/clock` was asked for, by the system's monotonic clock.
"""

import asyncio
import sys
import time
from pathlib import Path

TABLE = b"\xff\xdb"  # marker of the quantisation tables
TABLE_ENTRY = (
    4 + 1 + 1
)  # marker and length, table number, then the lowest frequency but one, which reduced scales use


class Pictures:
    """The files in memory, and the time of the first request."""

    def __init__(self, folder: Path) -> None:
        self._bodies = [file.read_bytes() for file in sorted(folder.glob("*.jpg"))]
        self.first_asked: float | None = None

    def body(self, number: int) -> bytes:
        """Picture `number`, in another variation each time round."""
        if self.first_asked is None:
            self.first_asked = time.monotonic()
        round_number, place = divmod(number, len(self._bodies))
        body = self._bodies[place]
        if not round_number:
            return body
        at = body.index(TABLE) + TABLE_ENTRY
        return body[:at] + bytes([min(255, body[at] + round_number)]) + body[at + 1 :]

    def clock(self) -> bytes:
        """The time of the first request as text, and a new beginning."""
        text, self.first_asked = repr(self.first_asked), None
        return text.encode()


class Connection(asyncio.Protocol):
    """One kept connection; requests without bodies, one at a time."""

    def __init__(self, pictures: Pictures, delay: float) -> None:
        self._pictures = pictures
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
                self._send(self._pictures.clock(), "text/plain")
                continue
            body = self._pictures.body(int(path.removeprefix("/p/").removesuffix(".jpg")))
            asyncio.get_running_loop().call_later(self._delay, self._send, body, "image/jpeg")

    def _send(self, body: bytes, kind: str) -> None:
        assert self._transport is not None
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.writelines((head.encode(), body))


async def serve(folder: Path, delay: float) -> None:
    """Serve until killed."""
    pictures = Pictures(folder)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(pictures, delay), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
