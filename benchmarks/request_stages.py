"""N6: a whole request from the form to the delivery, beside the sum of its parts run alone.

The whole is ``manage.py demo`` with two classes of 60 pictures. The parts are the same work by the
libraries' own commands, on what that request found: ``python -m scraping collect``, ``python -m
training fit``, and the packing of both zips. What the whole takes beyond their sum is the price of
queueing, polling and handing over. Rounds alternate between whole and parts; the table shows
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
PARTS = ("collect", "train", "package")
WANTED_RATIO = 1.15

Seconds = dict[str, float]


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run ``python ARGUMENTS`` to its end; returns its standard output, and shows its errors only
    when it fails.
    """
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


def whole_request(folder: Path, images: int) -> dict[str, Any]:
    """One request through the whole site; returns the demo's outcome."""
    options = ["--json", "--folder", str(folder), "--images", str(images), "--classes", *CLASSES]
    return dict(json.loads(run("manage.py", "demo", *options)))


@contextmanager
def gallery() -> Iterator[str]:
    """The gallery site over the demo's photographs; yields its URL."""
    command = [sys.executable, "-m", "scraping", "gallery", PHOTOGRAPHS, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("gallery: ").strip()
        finally:
            process.terminate()


def timed(*arguments: str) -> float:
    started = time.monotonic()
    run(*arguments)
    return time.monotonic() - started


def collect_alone(outcome: Mapping[str, Any], scratch: Path) -> float:
    """Seconds of the same collection by the command line."""
    config = json.loads(Path(outcome["request_folder"], "collect", "config.json").read_text())
    with gallery() as url:
        config |= {
            "source_urls": {"bing": url},
            "allowed_private_hosts": [url.removeprefix("http://")],
        }
        folder = scratch / "collect"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        return timed("-m", "scraping", "collect", str(folder), "--json")


def train_alone(outcome: Mapping[str, Any], scratch: Path) -> float:
    """Seconds of the same training by the command line, from the same pictures without their
    split.
    """
    source, target = Path(outcome["request_folder"], "runs", "1"), scratch / "run"
    target.mkdir()
    shutil.copytree(source / "images", target / "images")
    shutil.copy(source / "config.json", target / "config.json")
    rows = [json.loads(line) for line in (source / "manifest.jsonl").read_text().splitlines()]
    unsplit = (json.dumps(row | {"split": None, "group": None}) + "\n" for row in rows)
    (target / "manifest.jsonl").write_text("".join(unsplit))
    return timed("-m", "training", "fit", str(target), "--json")


def package_alone(outcome: Mapping[str, Any], scratch: Path) -> float:
    """Seconds of packing both zips again, measured inside a process that has already loaded
    everything.
    """
    database = {
        "PICAISSO_DATA_DIR": outcome["folder"],
        "DATABASE_URL": "sqlite:///" + quote(str(Path(outcome["folder"], "db.sqlite3"))),
    }
    return float(
        run("-m", "benchmarks.request_stages", "--package-into", str(scratch), environment=database)
    )


def package_into(scratch: Path) -> float:
    """Pack the only request of the configured database into ``scratch``; returns the seconds it
    took.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "picaisso_site.settings")
    import django

    django.setup()
    from requests_app import versions
    from requests_app.delivery import dataset_zip
    from requests_app.models import DatasetVersion
    from training import run_folder

    version = DatasetVersion.objects.get()
    started = time.monotonic()
    images = versions.dataset_images(version, run_folder.read_manifest(version.folder))
    dataset_zip.build_dataset(version, images, scratch / "dataset.zip")
    dataset_zip.build_model(version, scratch / "model.zip")
    return time.monotonic() - started


def one_round(images: int) -> tuple[Seconds, Seconds, dict[str, int]]:
    """(seconds within the request, seconds of the parts alone, pictures kept per class)."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        outcome = whole_request(scratch / "site", images)
        alone = {
            "collect": collect_alone(outcome, scratch),
            "train": train_alone(outcome, scratch),
            "package": package_alone(outcome, scratch),
        }
        return outcome["seconds"], alone, outcome["kept"]


def table(whole: Seconds, alone: Seconds) -> Table:
    """The one table: a row for each stage, then total, sum and ratio."""
    result = Table()
    for heading in ("stage", "in the request", "alone", "ratio"):
        result.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, seconds in whole.items():
        beside = (
            (f"{alone[stage]:.1f} s", f"{seconds / alone[stage]:.2f}")
            if stage in alone
            else ("", "")
        )
        if stage != "total":
            result.add_row(stage, f"{seconds:.1f} s", *beside)
    total, parts = whole["total"], sum(alone.values())
    result.add_section()
    result.add_row(
        "whole / sum of parts", f"{total:.1f} s", f"{parts:.1f} s", f"{total / parts:.2f}"
    )
    result.add_row("wanted at most", "", "", f"{WANTED_RATIO:.2f}")
    return result


def medians(rounds: list[Seconds]) -> Seconds:
    return {stage: statistics.median(seconds[stage] for seconds in rounds) for stage in rounds[0]}


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
    rounds = [one_round(options.images) for _ in range(options.rounds)]
    kept = ", ".join(f"{name} {count}" for name, count in rounds[0][2].items())
    title = f"a request of {kept} pictures, medians of {options.rounds}, {os.cpu_count()} cores"
    console = Console(width=100)
    console.print(title, highlight=False)
    console.print(table(medians([r[0] for r in rounds]), medians([r[1] for r in rounds])))


if __name__ == "__main__":
    main()
