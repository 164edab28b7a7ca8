"""The web server under attack: half-sent requests, slow readers, bodies that are too large.

One `manage.py up --only web`, and sockets that behave badly.
"""

import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from requests_app.workers.processes import PROJECT
from tests.system.mariadb import free_port
from tests.system.site import told_by_logs

pytestmark = pytest.mark.system
SIZE = 12_000_000
HEADER_SECONDS = 2
# A delivered request with a file that is large enough for nobody to have it in a buffer.
MAKE_REQUEST = f"""
import hashlib, json
from requests_app.models import Artifact, ClassifierRequest, DatasetVersion, Status
row = ClassifierRequest.objects.create(email="ada@example.org", status=Status.DELIVERED)
row = ClassifierRequest.objects.get(pk=row.pk)
ClassifierRequest.objects.renew_tokens()
version = DatasetVersion.objects.create(request=row, number=1)
path = row.folder / "artifacts" / "1" / "dataset.zip"
path.parent.mkdir(parents=True)
content = bytes(range(256)) * ({SIZE} // 256)
path.write_bytes(content)
from django.conf import settings
Artifact.objects.create(version=version, kind="dataset", bytes=len(content),
    path=str(path.relative_to(settings.DATA_DIR)), sha256=hashlib.sha256(content).hexdigest())
print(json.dumps(dict(token=row.token)))
"""


@dataclass
class Door:
    """A running web server."""

    port: int
    token: str
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def download(self) -> str:
        return f"/r/{self.token}/download/dataset/"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def front_page(self) -> int:
        with urllib.request.urlopen(f"{self.url}/", timeout=20) as answer:
            return answer.status

    def arriving(self) -> int:
        """Bytes that lie in the folder for uploads, or in unlinked files of it."""
        total = 0
        place = str(self.folder / "data" / "arriving")
        for opened in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):
                if str(opened.readlink()).startswith(place):
                    total += opened.stat().st_size
        return total


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    folder = tmp_path_factory.mktemp("door")
    port = free_port()
    own = {name: value for name, value in os.environ.items() if not name.startswith("PICAISSO_")}
    own |= {
        "PICAISSO_ENV_FILE": os.devnull,
        "DATABASE_URL": "",
        "PICAISSO_DATA_DIR": str(folder / "data"),
        "PICAISSO_SOURCES": "openverse",
        "PICAISSO_DEBUG": "1",  # static files need not be collected
        "PICAISSO_HEADER_SECONDS": str(HEADER_SECONDS),
        "DJANGO_SETTINGS_MODULE": "picaisso_site.settings",
    }
    up = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--only", "web", "--port", str(port)],
        cwd=PROJECT,
        env=own,
        stdin=subprocess.DEVNULL,
        stderr=(folder / "up.log").open("wb"),
    )
    try:
        found = Door(port, "", folder)
        deadline = time.monotonic() + 60
        while True:
            try:
                found.front_page()
                break
            except OSError:
                assert time.monotonic() < deadline and up.poll() is None
                time.sleep(0.2)
        command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", MAKE_REQUEST]
        made = subprocess.run(command, cwd=PROJECT, env=own, capture_output=True, check=True)
        found.token = json.loads(made.stdout.splitlines()[-1])["token"]
        yield found
    finally:
        up.terminate()
        up.wait(40)


HALVES = {
    "headers": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: ",
    "body": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc",
    "chunk": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nabc",
    "nothing": b"",
}


@pytest.mark.parametrize("half", HALVES)
def test_a_hundred_half_sent_requests_hold_nobody_up(door, half):
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(door.connect()).sendall(HALVES[half])
        for _ in range(5):
            assert door.front_page() == 200


def test_a_visitor_who_drips_a_request_is_cut_off(door):
    for half in ("headers", "body"):
        with door.connect() as visitor:
            visitor.sendall(HALVES[half])
            begun = time.monotonic()
            with pytest.raises(OSError):
                while time.monotonic() - begun < 30:
                    visitor.sendall(b"a")
                    time.sleep(0.2)
            assert time.monotonic() - begun > HEADER_SECONDS


@pytest.mark.parametrize("path", ["/", "/admin/login/", "/r/{token}/retry/", "/api/v1/requests"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["declared", "chunked"])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(door, path, is_chunked):
    """It is refused with an answer that the sender can read, although it sends on and on."""
    large = 450 * (1 << 20)
    content = b"application/json" if "api" in path else b"multipart/form-data; boundary=b"
    headers = b"Host: 127.0.0.1\r\nContent-Type: " + content + b"\r\n"
    length = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % large
    head = b"POST %s HTTP/1.1\r\n" % path.format(token=door.token).encode()
    piece = b"a" * (1 << 20)
    if is_chunked:
        piece = b"100000\r\n" + piece + b"\r\n"
    with door.connect() as visitor:
        visitor.sendall(head + headers + length + b"\r\n\r\n")
        sent = 0
        most_arriving = 0
        visitor.setblocking(False)
        answer = b""
        while sent < large and not answer:
            with suppress(BlockingIOError):
                answer = visitor.recv(65_536)
            try:
                sent += visitor.send(piece) if not is_chunked else _send_all(visitor, piece)
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                break
            if sent % (64 << 20) < len(piece):
                most_arriving = max(most_arriving, door.arriving())
        visitor.setblocking(True)
        answer = answer or visitor.recv(65_536)
    assert b" 413 " in answer.split(b"\r\n")[0]
    takes_files = path == "/"
    assert most_arriving < (420_000_000 if takes_files and is_chunked else 3_000_000)


def _send_all(visitor: socket.socket, piece: bytes) -> int:
    visitor.settimeout(20)
    try:
        visitor.sendall(piece)
    finally:
        visitor.setblocking(False)
    return len(piece)


def test_seventy_slow_readers_leave_the_site_answering(door):
    """Those for whom there is no turn are told when to come again."""
    statuses = Counter()
    with ExitStack() as held:
        readers = []
        for _ in range(140):
            reader = held.enter_context(door.connect())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.sendall(f"GET {door.download} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            readers.append(reader)
        for reader in readers:
            head = reader.recv(2000)
            statuses[head.split()[1]] += 1
            if b" 429 " in head:
                assert b"\r\nRetry-After: " in head
        for _ in range(5):
            assert door.front_page() == 200
    assert set(statuses) == {b"200", b"429"}
    assert statuses[b"200"] >= 60


def test_f29_fifty_parallel_downloads_are_whole_and_an_interrupted_one_goes_on(door):
    whole = hashlib.sha256(bytes(range(256)) * (SIZE // 256)).hexdigest()

    def digest_of(number: int) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=60)
        connection.request("GET", door.download)
        answer = connection.getresponse()
        part = answer.read(100_000 + number)
        connection.close()  # in the middle
        connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=60)
        headers = {"Range": f"bytes={len(part)}-", "If-Range": answer.headers["ETag"]}
        connection.request("GET", door.download, headers=headers)
        rest = connection.getresponse()
        assert rest.status == 206
        connection_body = rest.read()
        connection.close()
        return hashlib.sha256(part + connection_body).hexdigest()

    with ThreadPoolExecutor(50) as visitors:
        found = visitors.map(digest_of, range(50))
        assert door.front_page() == 200
        assert set(found) == {whole}


def test_no_refusal_tells_the_log_what_is_a_permission(door):
    """Whatever is refused below a link, its token stands in no log, nor does an address."""
    token = door.token
    paths = [
        f"/r/{token}/images/99.jpg",
        f"/r/{token}/nothing/",
        f"/r/{token}/download/model/",
        f"/api/v1/requests/{token}/nothing",
        f"/api/v1/requests/{token}/images?class=nothing",
        f"/s/{token}/",
        f"/confirm/{token}:ada@example.org/",
    ]
    statuses = Counter()
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE"):
            connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
            page = f"https://elsewhere.example/r/{token}/"
            headers = {"Referer": page, "Origin": "https://elsewhere.example"}
            connection.request(method, path, headers=headers)
            statuses[connection.getresponse().status] += 1
            connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    connection.request("GET", door.download, headers={"Range": "bytes=999999999-"})
    assert connection.getresponse().status == 416
    connection.close()
    with door.connect() as visitor:
        visitor.sendall(f"GET /r/{token}/ HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
        assert b" 400 " in visitor.recv(100)
    assert {403, 404, 405} <= set(statuses) and 500 not in statuses
    log = (door.folder / "up.log").read_text()
    assert "Not Found: /r/(hidden)/" in log and "/confirm/(hidden)/" in log
    assert told_by_logs(door.folder, token, "ada@example.org") == []
    assert "Traceback" not in log


def test_head_and_keep_alive_answer_one_after_the_other(door):
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    for _ in range(3):
        connection.request("HEAD", door.download)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert int(answer.headers["Content-Length"]) == SIZE // 256 * 256
        connection.request("GET", "/robots.txt")
        answer = connection.getresponse()
        assert answer.status == 200 and b"Disallow: /r/" in answer.read()
    connection.close()
