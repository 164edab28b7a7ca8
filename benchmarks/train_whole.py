"""From a folder of two classes to a finished ResNet50 on the CPU, as a whole process, beside
fastai's.

Both get the same 204 JPEG, of which 143 or so are learned from. Ours is the ordinary command
``python -m training fit --images``: near-duplicates grouped, a linear head searched and calibrated,
tested, explained, exported and compared. fastai's is a script of its own API,
``vision_learner(resnet50).fine_tune(3)``: one epoch of its head, three of everything, nothing
exported. Neither has the network's weights to download, so both start from random ones, which takes
as long; accuracy is another benchmark's matter. ``first run`` starts without anything that Picaisso
keeps on a machine between runs (the measured arithmetic, exported graphs); the rows below it name
where the time of later runs went.

Rounds are interleaved and figures are medians; a ratio is the median of the rounds' ratios.
Processor seconds stand beside those of the clock, because a neighbour's load hardly moves them.
``--peers`` installs fastai into a folder of its own, beside the torch that is there, and runs it as
well.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.photographs import ALIVE_OR_NOT, class_folders
from training.metrics import read_metrics
from training.run_folder import STAGES

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(tempfile.gettempdir()) / "picaisso-benchmarks"
WANTED = 2.5
# What `import fastai.vision.all` needs beyond this project's own packages; torch itself is not
# installed again, so that both compute with the same one.
FASTAI = (
    "fastai==2.8.12",
    "fastcore==2.2.39",
    "fastdownload==0.0.8",
    "fastprogress==1.0.5",
    "fasttransform==0.0.5",
    "plum-dispatch==2.9.0",
    "beartype==0.23.1",
    "cloudpickle==3.1.2",
    "pandas==3.1.1",
    "requests==2.34.2",
    "urllib3==2.8.0",
    "charset-normalizer==3.5.2",
    "certifi",
    "idna",
)
FINE_TUNE = """
import sys, warnings
warnings.simplefilter("ignore")
from fastai.vision.all import *
loaders = ImageDataLoaders.from_folder(
    sys.argv[1], valid_pct=0.3, seed=0, item_tfms=Resize(224), device="cpu"
)
learner = vision_learner(loaders, resnet50, pretrained=False, metrics=accuracy)
with learner.no_bar(), learner.no_logging():
    learner.fine_tune(3)
assert len(loaders.train_ds) >= 140 and learner.recorder.values
"""


@dataclass(frozen=True)
class Process:
    """Seconds of one process by the clock, and of all processors together."""

    whole: float
    processor: float


@dataclass(frozen=True)
class Ours:
    """One run of ours: the whole process, and the seconds of each stage inside it."""

    process: Process
    stages: Mapping[str, float]
    learned_from: int


def ours(images: Path, data_dir: Path, out: Path) -> Ours:
    """Train into a new run folder, with what `data_dir` keeps from earlier runs."""
    command = [sys.executable, "-m", "training", "fit", "--images", str(images), "--out", str(out)]
    command += ["--backbone", "resnet50", "--weights", "random", "--device", "cpu"]
    command += ["--data-dir", str(data_dir), "--json"]
    process = timed(command, os.environ)
    metrics = read_metrics(out)
    return Ours(process, metrics["seconds"], metrics["split"]["train"])


def theirs(images: Path, packages: Path) -> Process:
    """Run and time fastai's whole process."""
    return timed(
        [sys.executable, "-c", FINE_TUNE, str(images)], {**os.environ, "PYTHONPATH": str(packages)}
    )


def timed(command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Run a process to its end and time it; exit with its errors where it fails."""
    started = time.monotonic()
    before = _children_seconds()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} failed:\n{done.stderr[-3000:]}")
    return Process(time.monotonic() - started, _children_seconds() - before)


def _children_seconds() -> float:
    """Return the processor seconds of all children that have ended, with theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def fastai() -> Path | None:
    """Install fastai and return its folder; None, with a message, where that fails."""
    folder = CACHE / "fastai"
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    command += ["--target", str(folder), *FASTAI]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"fastai cannot be installed:\n{done.stderr[-1500:]}", file=sys.stderr)
        return None
    (folder / "complete").touch()
    return folder


def table(first: Ours, runs: Sequence[Ours], peer: Sequence[Process]) -> Table:
    """Return the one table."""
    learned_from = f"{runs[0].learned_from} training pictures"
    result = Table(
        title=f"{learned_from}, ResNet50, {os.cpu_count()} cores, medians of {len(runs)}"
    )
    result.add_column("", no_wrap=True)
    for heading in (
        "seconds",
        "lowest",
        "highest",
        "fastai / this",
        "wanted",
        "processor",
        "fastai / this",
    ):
        result.add_column(heading, justify="right")
    processes = [run.process for run in runs]
    result.add_row("Picaisso", *_cells(processes, peer, f"{WANTED:.1f}"))
    if peer:
        result.add_row("fastai, fine_tune(3)", *_cells(peer, [], ""))
    result.add_row("Picaisso, first run", *_cells([first.process], peer[:1], ""))
    for stage in STAGES:
        result.add_row(f"  of it {stage}", *_spread([run.stages.get(stage, 0.0) for run in runs]))
    outside = [run.process.whole - sum(run.stages.values()) for run in runs]
    result.add_row("  of it starting, importing, the rest", *_spread(outside))
    return result


def _cells(processes: Sequence[Process], peer: Sequence[Process], wanted: str) -> tuple[str, ...]:
    whole = [one.whole for one in processes]
    processor = [one.processor for one in processes]
    return (
        *_spread(whole),
        _ratio([one.whole for one in peer], whole),
        wanted,
        f"{statistics.median(processor):.1f}",
        _ratio([one.processor for one in peer], processor),
    )


def _spread(seconds: Sequence[float]) -> tuple[str, str, str]:
    """Return median, lowest and highest."""
    return f"{statistics.median(seconds):.1f}", f"{min(seconds):.1f}", f"{max(seconds):.1f}"


def _ratio(peer: Sequence[float], whole: Sequence[float]) -> str:
    if not peer:
        return ""
    return f"{statistics.median(one / other for one, other in zip(peer, whole, strict=True)):.2f}"


def measured(
    images: Path, scratch: Path, rounds: int, packages: Path | None
) -> tuple[Ours, list[Ours], list[Process]]:
    """Return our first run, our later runs, and fastai's, which alternate with them."""
    first = ours(images, scratch / "data", scratch / "first")
    runs: list[Ours] = []
    peer: list[Process] = []
    for number in range(rounds):
        runs.append(ours(images, scratch / "data", scratch / str(number)))
        print(
            f"Picaisso: {runs[-1].process} {json.dumps(runs[-1].stages)}",
            file=sys.stderr,
            flush=True,
        )
        if packages:
            peer.append(theirs(images, packages))
            print(f"fastai: {peer[-1]}", file=sys.stderr, flush=True)
    return first, runs, peer


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description="Times a whole training on the CPU beside fastai's."
    )
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (3)")
    parser.add_argument("--peers", action="store_true", help="install and run fastai as well")
    given = parser.parse_args()
    packages = fastai() if given.peers else None
    if not given.peers:
        print(
            "Ours alone; --peers installs fastai into a folder of its own and runs it as well.",
            file=sys.stderr,
        )
    CACHE.mkdir(exist_ok=True)
    images = class_folders(ALIVE_OR_NOT, CACHE / "alive-or-not")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        result = table(*measured(images, Path(scratch), given.rounds, packages))
    Console(width=120).print(result)


if __name__ == "__main__":
    main()
