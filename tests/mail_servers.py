"""Real SMTP servers on loopback that behave as some do: silent, slow, or refusing one address."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message

from aiosmtpd.controller import Controller

from tests.system.mariadb import free_port


class Recorder:
    """Takes every mail but those to a refused address, and remembers over which connection."""

    def __init__(self, refused: str = "", think_seconds: float = 0.0) -> None:
        self.refused = refused
        self.think_seconds = think_seconds
        self.messages: list[Message] = []
        self.connections: set[int] = set()

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:
        if address == self.refused:
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:
        self.messages.append(message_from_bytes(envelope.content))
        self.connections.add(session.peer[1])
        await asyncio.sleep(self.think_seconds)
        return "250 OK"


@contextmanager
def smtp_server(recorder: Recorder, port: int = 0) -> Iterator[int]:
    """Run a server that hands its mail to a recorder; yields its port."""
    server = Controller(recorder, hostname="127.0.0.1", port=port or free_port())
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


class SilentServer:
    """Accepts connections and never says a word, as a closed mail port of a cloud provider does."""

    def __init__(self, port: int = 0) -> None:
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self.socket.getsockname()[1]
        self.accepted: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.accepted.append(connection)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        for opened in (self.socket, *self.accepted):
            opened.close()


@contextmanager
def silent_server(port: int = 0) -> Iterator[SilentServer]:
    server = SilentServer(port)
    try:
        yield server
    finally:
        server.close()
