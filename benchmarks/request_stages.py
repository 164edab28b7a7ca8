"""N6: a whole request from the form to the delivery, beside the sum of its stages run alone.

The whole is ``manage.py demo`` with two classes of 60 images. The stages alone are the same work by
the libraries' own commands, on what that request found: ``python -m scraping collect``, ``python -m
training fit``, and the packing of both zips. What the whole takes beyond their sum is the price of
queueing, polling and handing over. Rounds alternate between whole and stages; the table shows
medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPHS = "/usr/share/tuxpaint/stamps"
CLASSES = ("mammal", "symbol")  # the folders there with at least 60 different photographs each
WANTED_RATIO = 1.15

Seconds = dict[str, float]


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run ``python ARGUMENTS`` to its end and return its output; show its errors if it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


@contextmanager
def gallery() -> Iterator[str]:
    """Serve the demo's photographs as a gallery site; yield its URL."""
    command = [sys.executable, "-m", "scraping", "gallery", PHOTOGRAPHS, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("gallery: ").strip()
        finally:
            process.terminate()


def timed(*arguments: str) -> float:
    """Run ``python ARGUMENTS`` to its end and return the seconds it took."""
    started = time.monotonic()
    run(*arguments)
    return time.monotonic() - started


def collect_alone(outcome: Mapping[str, Any], scratch: Path) -> float:
    """Return the seconds of the same collection by the command line."""
    original = Path(outcome["request_folder"], "collect", "config.json")
    config = json.loads(original.read_text())
    folder = scratch / "collect"
    folder.mkdir()
    with gallery() as url:
        config["source_urls"] = {"bing": url}
        config["allowed_private_hosts"] = [url.removeprefix("http://")]
        (folder / "config.json").write_text(json.dumps(config))
        return timed("-m", "scraping", "collect", str(folder), "--json")


def train_alone(outcome: Mapping[str, Any], scratch: Path) -> float:
    """Return the seconds of the same training by the command line.

    It gets the same images without their split.
    """
    source = Path(outcome["request_folder"], "runs", "1")
    target = scratch / "run"
    target.mkdir()
    shutil.copytree(source / "images", target / "images")
    shutil.copy(source / "config.json", target / "config.json")
    manifest = (source / "manifest.jsonl").read_text()
    unsplit = ""
    for line in manifest.splitlines():
        row = json.loads(line)
        row["split"] = None
        row["group"] = None
        unsplit += json.dumps(row) + "\n"
    (target / "manifest.jsonl").write_text(unsplit)
    return timed("-m", "training", "fit", str(target), "--json")


def package_alone(outcome: Mapping[str, Any], scratch: Path) -> float:
    """Return the seconds of packing both zips again.

    They are measured inside a process that has already loaded everything.
    """
    database = Path(outcome["folder"], "db.sqlite3")
    environment = {
        "PICAISSO_DATA_DIR": outcome["folder"],
        "DATABASE_URL": "sqlite:///" + quote(str(database)),
    }
    arguments = ("-m", "benchmarks.request_stages", "--package-into", str(scratch))
    return float(run(*arguments, environment=environment))


def package_into(scratch: Path) -> float:
    """Pack the only request of the configured database; return the seconds it took."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "picaisso_site.settings")
    import django

    django.setup()
    from requests_app import versions
    from requests_app.delivery import dataset_zip, model_zip
    from requests_app.models import DatasetVersion
    from training import run_folder

    version = DatasetVersion.objects.get()
    started = time.monotonic()
    images = versions.dataset_images(version, run_folder.read_manifest(version.folder))
    dataset_zip.build_dataset(version, images, scratch / "dataset.zip")
    model_zip.build_model(version, scratch / model_zip.MODEL_SPLICE)
    return time.monotonic() - started


def one_round(images: int) -> tuple[Seconds, Seconds, dict[str, int]]:
    """Measure a request and its stages once.

    :returns: seconds within the request, seconds of the stages alone, images kept per class
    """
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        options = ["--folder", str(scratch / "site"), "--images", str(images)]
        answer = run("manage.py", "demo", "--json", *options, "--classes", *CLASSES)
        outcome = json.loads(answer)
        alone = {
            "collect": collect_alone(outcome, scratch),
            "train": train_alone(outcome, scratch),
            "package": package_alone(outcome, scratch),
        }
        return outcome["seconds"], alone, outcome["kept"]


def table(whole: Seconds, alone: Seconds) -> Table:
    """Return the one table: a row for each stage, then total, sum and ratio."""
    result = Table("stage")
    for heading in ("in the request", "alone", "ratio"):
        result.add_column(heading, justify="right")
    for stage, seconds in whole.items():
        if stage == "total":
            continue
        cells = [stage, f"{seconds:.1f} s"]
        if stage in alone:
            ratio = seconds / alone[stage]
            cells += [f"{alone[stage]:.1f} s", f"{ratio:.2f}"]
        result.add_row(*cells)
    total = whole["total"]
    sum_alone = sum(alone.values())
    ratio = total / sum_alone
    result.add_section()
    label = "whole / sum of parts"
    result.add_row(label, f"{total:.1f} s", f"{sum_alone:.1f} s", f"{ratio:.2f}")
    result.add_row("wanted at most", "", "", f"{WANTED_RATIO:.2f}")
    return result


def medians(rounds: list[Seconds]) -> Seconds:
    """Return the median seconds of each stage."""
    result = {}
    for stage in rounds[0]:
        result[stage] = statistics.median(seconds[stage] for seconds in rounds)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Times a whole request beside its parts run alone."
    )
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many, default 3")
    parser.add_argument("--images", type=int, default=60, help="pictures per class, default 60")
    parser.add_argument("--package-into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.package_into:
        print(package_into(options.package_into))
        return
    whole = []
    alone = []
    for _ in range(options.rounds):
        whole_seconds, alone_seconds, kept = one_round(options.images)
        whole.append(whole_seconds)
        alone.append(alone_seconds)
    sizes = ", ".join(f"{name} {count}" for name, count in kept.items())
    title = f"a request of {sizes} pictures, medians of {options.rounds}, {os.cpu_count()} cores"
    console = Console(width=100)
    console.print(title, highlight=False)
    console.print(table(medians(whole), medians(alone)))


if __name__ == "__main__":
    main()
