"""N9: from the confirmation to the first prediction, while pictures are still being collected.

The request is that of ``manage.py demo``, on a gallery site that hands out two pictures a second,
as slow sources do. Web server, workers and collection are the real ones. The first prediction is by
the newest first model, opened and asked as the site does it. The table shows it beside the delivery
of the same request, and beside the 60 seconds that it may take.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("mammal", "plant")
WANTED_SECONDS = 60.0
LIMIT_SECONDS = 300.0
MOST_WAITING = 40  # at two a second the last of them waits 20 seconds; readers give up after 30
RETRY_SECONDS = 15
HOP_HEADERS = ("transfer-encoding", "connection", "server", "date")


class SlowSite(ThreadingHTTPServer):
    """Hands on what another site on this machine answers; pictures one after the other."""

    daemon_threads = True

    def __init__(self, site: str, pictures_a_second: float) -> None:
        super().__init__(("127.0.0.1", 0), _SlowHandler)
        self.site = urlsplit(site).netloc
        self.pause = 1 / pictures_a_second
        self.turn = threading.Lock()
        self.waiting = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _SlowHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowSite

    def do_GET(self) -> None:
        # The browser that searches shows small copies, which real sources do not hold back.
        is_browser = "Chrome" in self.headers.get("User-Agent", "")
        if self.path.startswith("/pictures/") and not is_browser:
            if self.server.waiting >= MOST_WAITING:
                self._send_away()
                return
            self.server.waiting += 1
            with self.server.turn:
                time.sleep(self.server.pause)
            self.server.waiting -= 1
        connection = http.client.HTTPConnection(self.server.site, timeout=30)
        # With the reader's own host, so that links lead through here again.
        connection.request("GET", self.path, headers={"Host": self.headers["Host"]})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_HEADERS:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _send_away(self) -> None:
        """Ask to come back later, before a reader gives up on an answer that waits too long."""
        self.send_response(429)
        self.send_header("Retry-After", str(RETRY_SECONDS))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the output is a table."""


def set_up_django() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "picaisso_site.settings")
    import django

    django.setup()


def measure(folder: Path, images: int, pictures_a_second: float) -> dict[str, Any]:
    """Run one request in a folder of its own, in a process with the demo's settings."""
    from requests_app.demo import scenario

    environment = scenario.clean_environment() | scenario.own_settings(folder)
    command = [sys.executable, "-m", "benchmarks.first_model", "--inside", str(folder)]
    command += ["--images", str(images), "--rate", str(pictures_a_second)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_inside(folder: Path, images: int, pictures_a_second: float) -> dict[str, Any]:
    """Run one request to its delivery; return the seconds from its confirmation to each event."""
    from django.conf import settings

    from requests_app import first_model
    from requests_app.demo import scenario
    from requests_app.demo.visitor import DemoFailed, Visitor
    from requests_app.models import Status
    from training.predict import open_model, read_image

    photographs = scenario.PHOTOGRAPHS
    plan = scenario.Plan(folder, photographs, CLASSES, images, "efficientnet_lite0", LIMIT_SECONDS)
    processes = scenario.ChildProcesses(Path(settings.DATA_DIR), LIMIT_SECONDS)
    try:
        slow = SlowSite(scenario.start_gallery(plan, processes), pictures_a_second)
        threading.Thread(target=slow.serve_forever, daemon=True).start()
        visitor = Visitor(scenario.start_site(plan, slow.url, processes))
        classifier = scenario.submit(visitor, plan)
        scenario.confirm(visitor, processes)
        begun = time.monotonic()
        found: dict[str, Any] = {"due": None, "first": None, "images": 0, "collected": None}

        def is_delivered() -> bool:
            classifier.refresh_from_db()
            now = time.monotonic() - begun
            if (
                found["due"] is None
                and (classifier.folder / "first" / "20" / "manifest.jsonl").exists()
            ):
                found["due"] = now
            if found["collected"] is None and classifier.versions.exists():
                found["collected"] = now
            model_folder = first_model.newest_folder(classifier)
            if found["first"] is None and model_folder is not None:
                picture = next((classifier.folder / "collect" / "images").glob("*.jpg"))
                open_model(model_folder).predict(read_image(picture))
                found["first"] = time.monotonic() - begun
                found["images"] = first_model.rounds(classifier)[-1].images
            if not classifier.is_open and classifier.status != Status.DELIVERED:
                raise DemoFailed(f"The request is {classifier.status}: {classifier.error}")
            return classifier.status == Status.DELIVERED

        processes.wait_for("the delivery", is_delivered, LIMIT_SECONDS)
        found["delivery"] = time.monotonic() - begun
        return found
    finally:
        processes.stop()


def _shown(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def table(rounds: Sequence[dict[str, Any]]) -> Table:
    """Return the one table: a row for each request."""
    result = Table("request")
    headings = ("20 a class", "first prediction", "of pictures", "collected", "delivery", "wanted")
    for heading in headings:
        result.add_column(heading, justify="right")
    for number, found in enumerate(rounds, 1):
        result.add_row(
            str(number),
            _shown(found["due"]),
            _shown(found["first"]),
            str(found["images"]),
            _shown(found["collected"]),
            _shown(found["delivery"]),
            f"under {WANTED_SECONDS:.0f} s",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Times the first prediction of a request beside its delivery."
    )
    parser.add_argument("--rounds", type=int, default=1, help="requests one by one, default 1")
    parser.add_argument("--images", type=int, default=38, help="pictures per class, default 38")
    parser.add_argument("--rate", type=float, default=2.0, help="pictures a second, default 2")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    set_up_django()
    if options.inside:
        print(json.dumps(run_inside(options.inside, options.images, options.rate)))
        return
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            rounds.append(measure(Path(name) / "site", options.images, options.rate))
    console = Console(width=100)
    title = f"{options.images} pictures a class, {options.rate:g} a second, {os.cpu_count()} cores"
    console.print(title, highlight=False)
    console.print(table(rounds))


if __name__ == "__main__":
    main()
