"""N5: one prediction by web address through the site, beside the network alone in one process.

A ResNet50 (random weights: the time is the same) is trained and delivered; the site's own web
server answers the API's call and the try page's action for a 640 x 480 JPEG on a picture host on
loopback. Beside it, in this process, Pillow decodes the same bytes and ONNX Runtime runs the same
file; they alternate. The page's answer also has a map and the nearest training pictures; "fetched,
checked, classified" is what the site does for a program, in this process. Wanted: 1.3 times at the
median, under twice at the 95th percentile.

    python -m benchmarks.prediction [--answers 30] [--rounds 3]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.pages import ROOT, environment, percentile, served

if TYPE_CHECKING:
    from requests_app.models import ClassifierRequest

PHOTOGRAPHS = Path("/usr/share/tuxpaint/stamps/animals")
CLASSES = ("birds", "mammals")
PICTURES = 15  # of each class
WARM_UP = 8  # both processes of the web server have the model in memory then
PAUSE_SECONDS = 30  # before each round: a link has 120 pictures a minute by each process
WANTED_MEDIAN = 1.3
WANTED_95 = 2.0


def picture() -> bytes:
    """Return a JPEG of 640 x 480 pixels with something of every size in it."""
    random = np.random.default_rng(0)
    image = Image.new("RGB", (640, 480))
    for side in (4, 16, 64):
        noise = random.integers(0, 256, (side * 3 // 4, side, 3), np.uint8)
        layer = Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)
        image = Image.blend(image, layer, 0.5)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


@contextmanager
def picture_host(data: bytes) -> Iterator[str]:
    """Serve the picture on loopback; yield host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_picture = self.path.endswith(".jpg")
            body = data if is_picture else b""
            self.send_response(200 if is_picture else 404)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def train(scratch: Path) -> Path:
    """Train a ResNet50 on a few photographs; return its run folder."""
    images = scratch / "images"
    for name in CLASSES:
        folder = images / name
        folder.mkdir(parents=True)
        for file in sorted((PHOTOGRAPHS / name).rglob("*.png"))[:PICTURES]:
            shutil.copyfile(file, folder / file.name)
    out = scratch / "run"
    command = [sys.executable, "-m", "training", "fit", "--images", str(images), "--out", str(out)]
    command += ["--backbone", "resnet50", "--weights", "random", "--finetune", "never"]
    command += ["--device", "cpu", "--data-dir", str(scratch / "cache"), "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return out


def deliver(run: Path) -> ClassifierRequest:
    """Make a delivered request of a run folder in this process's data folder."""
    import django

    django.setup()
    from django.core.management import call_command

    from requests_app.models import Artifact, ClassifierRequest, DatasetVersion, TrainingRun

    call_command("migrate", interactive=False, verbosity=0)
    queries = [(name, "") for name in CLASSES]
    request = ClassifierRequest.create(class_queries=queries, email="a@example.org")
    ClassifierRequest.objects.filter(pk=request.pk).update(status="delivered")
    version = DatasetVersion.objects.create(request=request, number=1, images=2 * PICTURES)
    shutil.copytree(run, version.folder)
    metrics = json.loads((run / "metrics.json").read_text())
    TrainingRun.objects.create(version=version, backbone="resnet50", metrics=metrics)
    Artifact.objects.create(version=version, kind="model", path="model.zip", bytes=1, sha256="")
    return request


def asker(page: str, url: str) -> Callable[[], None]:
    """Return what sends an address to the try page as its script does."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    text = opener.open(page).read().decode()
    token = text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    fields = urllib.parse.urlencode({"csrfmiddlewaretoken": token, "url": url})
    headers = {"Accept": "application/json", "Referer": page}

    def ask() -> None:
        question = urllib.request.Request(page, fields.encode(), headers)
        with opener.open(question) as reply:
            (answer,) = json.load(reply)["answers"]
        assert not answer["problem"], answer["problem"]

    return ask


def api_asker(call: str, url: str) -> Callable[[], None]:
    """Return what asks the API about an address, as the client does."""
    body = json.dumps({"url": url}).encode()

    def ask() -> None:
        question = urllib.request.Request(call, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(question) as reply:
            answer = json.load(reply)
        assert abs(sum(answer["probabilities"].values()) - 1) < 1e-3, answer

    return ask


def network_alone(run: Path, data: bytes, threads: int) -> Callable[[], None]:
    """Return what decodes and classifies the bytes with nothing else."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(run / "model" / "model.onnx", options)

    def predict() -> None:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        session.run(["probabilities"], {"image": pixels})

    return predict


def seconds(function: Callable[[], None]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure(scratch: Path, answers: int, rounds: int) -> Table:
    data = picture()
    run = train(scratch)
    with picture_host(data) as host:
        settings = environment(scratch / "site")
        settings["PICAISSO_ALLOWED_PRIVATE_HOSTS"] = host
        settings["DJANGO_SETTINGS_MODULE"] = "picaisso_site.settings"
        os.environ.update(settings)
        request = deliver(run)
        from requests_app import prediction

        usable = prediction.usable_model(request)
        assert usable is not None
        url = f"http://{host}/picture.jpg"

        def plain() -> None:
            answer = prediction.classify_url(usable, url, explained=False)
            assert isinstance(answer, prediction.Answer), answer

        alone = network_alone(run, data, prediction.THREADS)
        with served(settings) as site:
            ways = {
                "the network alone": alone,
                "fetched, checked, classified": plain,
                "the API": api_asker(f"{site}/api/v1/requests/{request.token}/predict", url),
                "the try page's action": asker(f"{site}{request.get_absolute_url()}try/", url),
            }
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for way in ways.values():
                for _ in range(WARM_UP):
                    way()
            for _ in range(rounds):
                time.sleep(PAUSE_SECONDS)
                for _ in range(answers):
                    for name, way in ways.items():
                        taken[name].append(seconds(way))
    return table(taken)


def table(taken: dict[str, list[float]]) -> Table:
    """Return the figures of each way and their ratios to the network alone."""
    shown = Table("way", "median", "p95", "median ratio", "p95 ratio", title="N5")
    base = taken["the network alone"]
    for name, values in taken.items():
        median = statistics.median(values)
        high = percentile(values)
        to_median = median / statistics.median(base)
        to_high = high / percentile(base)
        cells = (f"{1000 * median:.0f} ms", f"{1000 * high:.0f} ms")
        shown.add_row(name, *cells, f"{to_median:.2f}", f"{to_high:.2f}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=30, help="of each way in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not PHOTOGRAPHS.is_dir():
        sys.exit("This needs the photographs of the package tuxpaint-stamps-default.")
    with tempfile.TemporaryDirectory(prefix="picaisso-prediction-") as scratch:
        shown = measure(Path(scratch), options.answers, options.rounds)
    console = Console()
    console.print(shown)
    one, five, _ = os.getloadavg()
    wanted = f"wanted: {WANTED_MEDIAN} at the median, under {WANTED_95:.0f} at the 95th percentile"
    console.print(f"{wanted}; load {one:.1f} ({five:.1f})")


if __name__ == "__main__":
    main()
