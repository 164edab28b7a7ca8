"""Where the browser may go, how long one serves, and a Selenium Grid instead of a local one."""

import http.client
import os
import selectors
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from scraping.net.browser import Browser, BrowserSettings, BrowserUnavailable
from tests.replicas.bing import BingReplica
from tests.replicas.google import GoogleReplica
from tests.replicas.server import Replica, Response
from tests.scraping.conftest import descendants, wait_until
from tests.scraping.source_client import SourceClient

pytestmark = [pytest.mark.timeout(120), pytest.mark.browser]

# Every way by which a page can make a browser speak to somebody else.
PROBE = """
<meta http-equiv="x-dns-prefetch-control" content="on"><link rel="preconnect" href="ADDRESS">
<link rel="prefetch" href="ADDRESS/prefetch"><link rel="stylesheet" href="ADDRESS/style">
<img src="ADDRESS/image">
<script src="ADDRESS/script"></script><iframe src="ADDRESS/frame"></iframe>
<object data="ADDRESS/object"></object>
<video src="ADDRESS/video" preload="auto"></video><embed src="ADDRESS/embed">
<form id="f" action="ADDRESS/form" method="post" target="_blank"><input name="a" value="b"></form>
<script>
fetch('ADDRESS/fetch', {mode: 'no-cors'}).catch(() => {});
navigator.sendBeacon('ADDRESS/beacon', 'x');
try { new EventSource('ADDRESS/events'); } catch (e) {}
try { new WebSocket('ADDRESS/socket'.replace('http', 'ws')); } catch (e) {}
try { new Worker('ADDRESS/worker'); } catch (e) {}
try { window.open('ADDRESS/window'); } catch (e) {}
document.getElementById('f').submit();
</script>
"""
WEBRTC = """
<script>
const peer = new RTCPeerConnection({iceServers: [{urls: 'stun:HOST'},
  {urls: ['turn:HOST?transport=tcp', 'turn:HOST'], username: 'a', credential: 'b'}]});
peer.createDataChannel('x');
peer.createOffer().then((offer) => peer.setLocalDescription(offer));
</script>
"""


class Tripwire:
    """Counts TCP connections and UDP packets to one port of every local address."""

    def __init__(self) -> None:
        self.caught: list[str] = []
        self._selector = selectors.DefaultSelector()
        first = self._listen(socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", 0))
        self.port = first.getsockname()[1]
        self._listen(socket.AF_INET, socket.SOCK_DGRAM, ("0.0.0.0", self.port))
        if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
            self._listen(socket.AF_INET6, socket.SOCK_STREAM, ("::1", self.port))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _listen(self, family: int, kind: int, address: tuple[str, int]) -> socket.socket:
        listener = socket.socket(family, kind)
        listener.bind(address)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        self._selector.register(listener, selectors.EVENT_READ)
        return listener

    def _watch(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.1):
                listener = key.fileobj
                if listener.type == socket.SOCK_STREAM:
                    connection, peer = listener.accept()
                    connection.settimeout(0.5)
                    try:
                        self.caught.append(f"tcp {peer} {connection.recv(200)!r}")
                    except OSError:
                        self.caught.append(f"tcp {peer}")
                    connection.close()
                else:
                    self.caught.append(f"udp {listener.recvfrom(200)}")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()


def own_address() -> str:
    """Return an address of this machine, not loopback unless it has no other. No packet is
    sent.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def hostile_page(port: int, schemes: tuple[str, ...]) -> str:
    names = [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "127.1",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ]
    names += ["foo.localhost", own_address()]
    pages = "".join(PROBE.replace("ADDRESS", f"http://{name}:{port}") for name in names)
    others = "".join(f'<iframe src="{scheme}://127.0.0.1:{port}/x"></iframe>' for scheme in schemes)
    local = '<iframe src="file:///etc/passwd"></iframe><iframe src="chrome://version"></iframe>'
    return pages + others + local + WEBRTC.replace("HOST", f"127.0.0.1:{port}")


def test_the_tripwire_of_these_tests_catches_whoever_comes():
    with Tripwire() as wire:
        for name in ("127.0.0.1", own_address()):
            socket.create_connection((name, wire.port), timeout=5).close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", wire.port))
        wait_until(lambda: len(wire.caught) == 3)


@pytest.mark.parametrize(
    ("source", "schemes"),
    [
        ("bing", ("https", "ftp", "wss", "gopher")),
        ("google", ("https", "wss")),
    ],  # a frame of ftp stops all clicks
)
def test_a_hostile_result_page_reaches_no_private_address_no_other_port_and_no_other_scheme(
    source, schemes
):
    with Tripwire() as wire, _replica(source) as site:
        site.extra = hostile_page(wire.port, schemes)
        with Browser(BrowserSettings(allowed_hosts=(site.url,))) as browser:
            result = SourceClient(source, site, browser=browser).search("corgi", limit=5)
            assert len(result.candidates) == 5, result
            time.sleep(1.0)
        assert wire.caught == []


def _replica(source: str) -> Replica:
    return GoogleReplica() if source == "google" else BingReplica(total=35)


def test_redirects_do_not_lead_out_of_the_allowed_hosts():
    with Tripwire() as wire, _Redirecting(f"http://127.0.0.1:{wire.port}/caught") as site:
        with Browser(BrowserSettings(allowed_hosts=(site.url,))) as browser:
            browser.run(_visits(f"{site.url}/go"))
        assert {request.path for request in site.requests} == {"/go"}
        assert wire.caught == []


class _Downloading(Replica):
    """A page that starts downloads, of its own and of an attachment."""

    def respond(self, request):
        if request.path == "/file":
            attachment = {"Content-Disposition": 'attachment; filename="attached"'}
            return Response(b"x", "application/octet-stream", headers=attachment)
        link = '<a id="a" download="linked" href="data:text/plain,x">x</a>'
        script = "<script>document.getElementById('a').click(); location = '/file';</script>"
        return Response(f"<!doctype html>{link}{script}".encode(), "text/html")


def test_no_page_can_make_the_browser_save_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with _Downloading() as site:
        with Browser(BrowserSettings(allowed_hosts=(site.url,))) as browser:
            browser.run(_visits(f"{site.url}/page"))
            wait_until(lambda: site.asked("/file"))
            time.sleep(1.0)
        saved = [path for path in tmp_path.glob("[!.]*/*") if path.is_file()]
        assert saved == []


class _Redirecting(Replica):
    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target

    def respond(self, request):
        return Response(status=302, headers={"Location": self._target})


def _visits(address: str) -> Callable:
    def visit(driver):
        try:
            driver.get(address)
        except Exception as error:  # the refusal is what is wanted
            return str(error)
        return driver.title

    return visit


def _browser_pids() -> set[int]:
    return {pid for pid in descendants(os.getpid()) if _name(pid) == "chromedriver"}


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return ""


def test_a_browser_starts_where_the_path_of_temporary_files_is_long(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with Browser(BrowserSettings()) as browser:
        assert browser.run(lambda driver: driver.title)


def test_a_browser_is_replaced_after_a_number_of_visits_and_for_one_that_shows_images():
    with Browser(BrowserSettings(recycled_after=2)) as browser:
        seen = []
        for images in (False, False, False, True, True):
            browser.run(lambda driver: driver.get("about:blank"), images=images)
            pids = _browser_pids()
            assert len(pids) == 1, "never two at once"
            seen.append(pids.pop())
        assert seen[0] == seen[1] != seen[2] != seen[3] == seen[4]
    wait_until(lambda: not _browser_pids())


class Grid:
    """A Selenium Grid of one node: passes everything on to a chromedriver of its own.

    Like the nodes of the real one it adds what its own machine needs, here the flag that root
    needs.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._log = (folder / "grid.log").open("wb")
        self._process = subprocess.Popen(
            ["chromedriver", f"--port={self._port}"],
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        wait_until(self._ready)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        grid = self

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if self.path == "/session":
                    body = body.replace(b'"args": [', b'"args": ["--no-sandbox", ')
                node = http.client.HTTPConnection("127.0.0.1", grid._port, timeout=60)
                node.request(
                    self.command, self.path, body or None, {"Content-Type": "application/json"}
                )
                answer = node.getresponse()
                text = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = pass_on

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def browsers(self) -> set[int]:
        return {pid for pid in descendants(self._process.pid) if _name(pid).startswith("chrom")}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for pid in (*descendants(self._process.pid), self._process.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.wait(10)
        self._log.close()


def test_a_search_through_a_selenium_grid_finds_the_same_and_leaves_no_session_there(tmp_path):
    grid = Grid(tmp_path)
    try:
        with BingReplica(total=35) as site:
            settings = BrowserSettings(
                chrome="/nowhere", remote_url=grid.url, allowed_hosts=(site.url,)
            )
            with Browser(settings) as browser:
                result = SourceClient("bing", site, browser=browser).search("corgi", limit=20)
                assert len(result.candidates) == 20, result
                assert grid.browsers()
            wait_until(lambda: not grid.browsers())
    finally:
        grid.stop()


def test_a_grid_that_does_not_answer_is_named_as_a_browser_that_cannot_start():
    settings = BrowserSettings(remote_url="http://127.0.0.1:9")
    with Browser(settings) as browser, pytest.raises(BrowserUnavailable, match="cannot start"):
        browser.run(lambda driver: driver.title)
