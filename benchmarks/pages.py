"""N7: pages with 10,000 pictures in a request and 10,000 requests, beside the same with 100.

Two data folders of rows alone (SQLite), each served by the site's own web server. For every page
the number of SQL queries, and the 95th percentile of its time with 50 clients at once; the clients
ask both sites in turn, so that both have the same share of the machine. Wanted: as many queries,
and under twice the time.

    python -m benchmarks.pages [--small 100] [--large 10000] [--clients 50] [--rounds 4]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "tests" / "recorded" / "picaisso-0.1.0.tar.xz"
WANTED_RATIO = 2.0
BATCH = 1000
# Below the address of the request; the first two stand alone.
PAGES = {
    "form": "/",
    "request": "{request}",
    "live part": "{request}progress/",
    "gallery": "{request}images/",
    "gallery, doubtful first": "{request}images/?order=doubtful",
    "gallery, last page": "{request}images/?page=9999",
    "one picture": "{request}images/{picture}/",
    "review": "{request}review/",
    "versions": "{request}versions/",
    "delete": "{request}delete/",
}
Filled = dict[str, dict[str, int | str]]


def environment(folder: Path) -> dict[str, str]:
    """Return settings of a site of its own in this folder."""
    own = {}
    for name, value in os.environ.items():
        if not name.startswith(("PICAISSO_", "DATABASE_URL", "EMAIL_URL", "DJANGO_")):
            own[name] = value
    own["PICAISSO_ENV_FILE"] = os.devnull
    own["PICAISSO_DATA_DIR"] = str(folder)
    return own


@contextmanager
def served(settings: dict[str, str]) -> Iterator[str]:
    """Run the site's web server alone; yield its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "manage.py", "up", "--only", "web", "--port", str(port)]
    settings = {**settings, "PICAISSO_BASE_URL": address}
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=quiet, stderr=quiet)
    try:
        wait_for(address)
        yield address
    finally:
        server.terminate()
        server.wait()


def wait_for(address: str) -> None:
    """Return once a server answers; exit where none does."""
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=30).close()
            return
        except OSError:
            time.sleep(0.5)
    sys.exit("The web server did not start.")


def fill(count: int) -> Filled:
    """Make the tables and their rows; return path and number of queries of each page.

    Runs in a process of its own, whose settings name the data folder.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = "picaisso_site.settings"
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from requests_app.models import ImageUrl

    call_command("migrate", interactive=False, verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)  # pages name static files
    add_requests(count)
    request = add_pictures(count)
    picture = ImageUrl.objects.filter(state="kept", split="train").earliest("pk").pk
    client = Client(SERVER_NAME="localhost")
    pages: Filled = {}
    for name, pattern in PAGES.items():
        path = pattern.format(request=request, picture=picture)
        client.get(path)  # what is only done once
        with CaptureQueriesContext(connection) as queries:
            answer = client.get(path)
        assert answer.status_code < 300, (name, answer.status_code)
        pages[name] = {"path": path, "queries": len(queries)}
    return pages


def add_requests(count: int) -> None:
    """Add requests of other people, some in every state."""
    from requests_app.models import ClassifierRequest, ImageClass, Job, Status

    states = [Status.DELIVERED, Status.FAILED, Status.EXPIRED, Status.UNCONFIRMED]
    requests = []
    for number in range(count):
        state = states[number % len(states)]
        digest = f"{number:064x}"
        request = ClassifierRequest(email="a@example.org", status=state, token_sha256=digest)
        requests.append(request)
    made = ClassifierRequest.objects.bulk_create(requests, batch_size=BATCH)
    classes = []
    jobs = []
    for request in made:
        for number, name in ((1, "cat"), (2, "dog")):
            classes.append(ImageClass(request=request, number=number, name=name, query=name))
        jobs.append(Job(request=request, stage="collect", queue="collect", state="done"))
    ImageClass.objects.bulk_create(classes, batch_size=BATCH)
    Job.objects.bulk_create(jobs, batch_size=BATCH)


def add_pictures(count: int) -> str:
    """Add a delivered request with so many pictures; return the path of its page."""
    from django.utils import timezone

    from requests_app.models import ClassifierRequest, DatasetVersion, ImageUrl, TrainingRun

    queries = [("cat", ""), ("dog", "")]
    request = ClassifierRequest.create(class_queries=queries, email="b@example.org")
    ClassifierRequest.objects.filter(pk=request.pk).update(status="delivered")
    classes = list(request.classes.all())
    splits = ("train", "train", "train", "val", "test")
    images = []
    for number in range(count):
        image_class = classes[number % 2]
        url = f"https://pictures.example/{number}.jpg"
        image = ImageUrl(image_class=image_class, source="bing", query="cat", rank=number)
        image.image_url = url
        image.url_sha256 = f"{number:064x}"
        image.sha256 = image.url_sha256
        image.state = "kept"
        image.file = f"images/{number:016x}.jpg"
        image.fetched_at = timezone.now()
        image.split = splits[number // 2 % len(splits)]
        image.version_number = image_class.number
        if number % 10 == 0 and image.split != "test":
            image.suspect = 0.9
        images.append(image)
    ImageUrl.objects.bulk_create(images, batch_size=BATCH)
    for image_class in classes:
        image_class.found = image_class.kept = count // 2
        image_class.save()
    version = DatasetVersion.objects.create(request=request, number=1, images=count)
    with tarfile.open(RECORDED) as archive:
        file = archive.extractfile("requests/1/runs/1/metrics.json")
        assert file is not None
        metrics = json.load(file)
    now = timezone.now()
    TrainingRun.objects.create(version=version, backbone="resnet50", finished=now, metrics=metrics)
    return request.get_absolute_url()


def ask(address: str) -> float:
    """Return the seconds of one answer, read to its end."""
    started = time.perf_counter()
    with urllib.request.urlopen(address, timeout=120) as answer:
        answer.read()
    return time.perf_counter() - started


def percentile(values: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=100)
    parser.add_argument("--large", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=4, help="requests of each client, each page")
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        print(json.dumps(fill(options.fill)))
        return
    with tempfile.TemporaryDirectory(prefix="picaisso-pages-") as scratch:
        measure(Path(scratch), options)


def measure(scratch: Path, options: argparse.Namespace) -> None:
    """Fill two sites, ask both, and print the table."""
    settings = {}
    filled = {}
    for count in (options.small, options.large):
        folder = scratch / str(count)
        folder.mkdir()
        settings[count] = environment(folder)
        command = [sys.executable, "-m", "benchmarks.pages", "--fill", str(count)]
        output = subprocess.check_output(command, cwd=ROOT, env=settings[count], text=True)
        filled[count] = json.loads(output.splitlines()[-1])
    table = Table("page", "queries", "p95, small", "p95, large", "ratio", title="N7")
    small = filled[options.small]
    large = filled[options.large]
    with (
        served(settings[options.small]) as small_site,
        served(settings[options.large]) as large_site,
        ThreadPoolExecutor(options.clients) as clients,
    ):
        for name in PAGES:
            both: tuple[list[float], list[float]] = ([], [])
            for _ in range(options.rounds):
                for seconds, site, pages in zip(
                    both, (small_site, large_site), (small, large), strict=True
                ):
                    address = site + str(pages[name]["path"])
                    seconds += list(clients.map(ask, [address] * options.clients))
            before = percentile(both[0])
            after = percentile(both[1])
            ratio = after / before
            queries = f"{small[name]['queries']} / {large[name]['queries']}"
            mark = "" if ratio < WANTED_RATIO else " (!)"
            row = (f"{before:.2f} s", f"{after:.2f} s", f"{ratio:.2f}{mark}")
            table.add_row(name, queries, *row)
    console = Console()
    console.print(table)
    one, five, _ = os.getloadavg()
    counts = f"{options.small:,} and {options.large:,} pictures and requests"
    console.print(f"{counts}, {options.clients} clients; load {one:.1f} ({five:.1f})")


if __name__ == "__main__":
    main()
