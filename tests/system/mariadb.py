"""A private MariaDB server on a loopback port, in a folder of its own."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
INSTALLER = shutil.which("mariadb-install-db")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def mariadb(folder: Path) -> Iterator[str]:
    """Run a server with an empty database ``picaisso``; yields its DATABASE_URL."""
    folder.mkdir(parents=True)
    data = folder / "data"
    socket_path = folder / "s.sock"
    port = free_port()
    subprocess.run(
        [
            INSTALLER,
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--user=root",
        ],
        check=True,
        capture_output=True,
    )
    log = (folder / "log.txt").open("wb")
    server = subprocess.Popen(
        [
            SERVER,
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={socket_path}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--user=root",
            f"--pid-file={folder / 'pid'}",
            "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=2",
        ],
        stdout=log,
        stderr=log,
    )
    try:
        _wait(server, socket_path)
        sql = (
            "CREATE DATABASE picaisso CHARACTER SET utf8mb4;"
            "CREATE USER picaisso@'127.0.0.1' IDENTIFIED BY 'secret';"
            "GRANT ALL ON *.* TO picaisso@'127.0.0.1';"
        )
        subprocess.run(
            ["mariadb", "--no-defaults", f"--socket={socket_path}", "-uroot", "-e", sql], check=True
        )
        yield f"mysql://picaisso:secret@127.0.0.1:{port}/picaisso"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        log.close()


def _wait(server: subprocess.Popen[bytes], socket_path: Path) -> None:
    for _ in range(300):
        if server.poll() is not None:
            raise RuntimeError("mariadbd ended at once")
        ping = ["mariadb-admin", "--no-defaults", f"--socket={socket_path}", "-uroot", "ping"]
        if subprocess.run(ping, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError("mariadbd did not answer within 30 seconds")
