"""A private MariaDB server on a loopback port, in a folder of its own."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SERVER = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
INSTALLER = shutil.which("mariadb-install-db")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MariaDb:
    """A server with an empty database ``picaisso``, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.port = free_port()
        self.socket_path = folder / "s.sock"
        self.url = f"mysql://picaisso:secret@127.0.0.1:{self.port}/picaisso"
        self.process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [
                INSTALLER,
                "--no-defaults",
                f"--datadir={folder / 'data'}",
                "--auth-root-authentication-method=normal",
                "--user=root",
            ],
            check=True,
            capture_output=True,
        )
        self.start()
        sql = (
            "CREATE DATABASE picaisso CHARACTER SET utf8mb4;"
            "CREATE USER picaisso@'127.0.0.1' IDENTIFIED BY 'secret';"
            "GRANT ALL ON *.* TO picaisso@'127.0.0.1';"
        )
        connect = ["mariadb", "--no-defaults", f"--socket={self.socket_path}", "-uroot"]
        subprocess.run([*connect, "-e", sql], check=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    SERVER,
                    "--no-defaults",
                    f"--datadir={self.folder / 'data'}",
                    f"--socket={self.socket_path}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    "--user=root",
                    f"--pid-file={self.folder / 'pid'}",
                    "--innodb-buffer-pool-size=32M",
                    "--innodb-flush-log-at-trx-commit=2",
                ],
                stdout=log,
                stderr=log,
            )
        _wait(self.process, self.socket_path)

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def run(self, sql: str) -> str:
        """Run a statement as root; return what it prints."""
        connect = ["mariadb", "--no-defaults", f"--socket={self.socket_path}", "-uroot", "-N"]
        done = subprocess.run([*connect, "-e", sql], capture_output=True, text=True, check=True)
        return done.stdout

    def kill_connections(self) -> int:
        """Break off every connection of the site; return how many there were."""
        query = "SELECT id FROM information_schema.processlist WHERE user = 'picaisso'"
        connections = self.run(query).split()
        for connection in connections:
            with suppress(subprocess.CalledProcessError):  # it has just ended by itself
                self.run(f"KILL CONNECTION {connection}")
        return len(connections)


@contextmanager
def mariadb_server(folder: Path) -> Iterator[MariaDb]:
    """Run a server with an empty database ``picaisso``."""
    server = MariaDb(folder)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def mariadb(folder: Path) -> Iterator[str]:
    """Run such a server; yields its DATABASE_URL."""
    with mariadb_server(folder) as server:
        yield server.url


def _wait(server: subprocess.Popen[bytes], socket_path: Path) -> None:
    for _ in range(300):
        if server.poll() is not None:
            raise RuntimeError("mariadbd ended at once")
        ping = ["mariadb-admin", "--no-defaults", f"--socket={socket_path}", "-uroot", "ping"]
        if subprocess.run(ping, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError("mariadbd did not answer within 30 seconds")
