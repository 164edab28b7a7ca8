"""N1: a thousand images fetched, screened, hashed, shrunk and written, beside other tools and the
limit.

All fetch the same 1,000 JPEG (640 to 1280 px, 178 MB) from one loopback server in its own process
that waits 100 ms before each answer, 64 connections at once where a tool lets one choose. Ours is
the ordinary command ``python -m scraping download --max-side 256``; the limit is a bare aiohttp and
Pillow loop that checks nothing. Each run is a process of its own, and its rate is that of the whole
run; beside it stands the rate from its first request on, which leaves out how long each takes to
import. Rounds are interleaved, figures are medians; a ratio is the median of the rounds' ratios,
because a neighbor's load falls on a whole round. The bare loop shrinks with the same filter as
ours. A download of a list computes the difference hash, not the thumbnails by which a collection
verifies near-duplicates.

``--peers`` adds img2dataset and icrawler, each installed into a throw-away environment of its own.
``--memory`` measures instead the peak of our whole process tree at 1,000 and at 10,000 images.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.downloading.corpus import corpus

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(tempfile.gettempdir()) / "picaisso-benchmarks"
IMAGES = 1000
DELAY_SECONDS = 0.1
CONNECTIONS = 64
MEMORY_POLL_SECONDS = 0.05
IMG2DATASET = "img2dataset==1.47.0"
ICRAWLER = "icrawler==0.6.10"
CRAWL = """
import sys
from icrawler.builtin import UrlListCrawler
_, urls, out, threads = sys.argv
crawler = UrlListCrawler(
    downloader_threads=int(threads), log_level=40, storage={"root_dir": out}
)
crawler.crawl(urls)
"""

# The command line from the list of URLs and an empty folder.
Command = Callable[[Path, Path], list[str]]


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    `wanted` is the least ratio of our rate to this one's that N1 asks for.
    """

    name: str
    command: Command
    wanted: float | None = None


@dataclass(frozen=True)
class Run:
    """Seconds as a whole process and from its first request, processor seconds, images left."""

    whole: float
    working: float
    processor: float
    images: int


class Server:
    """The server's process; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        module = "benchmarks.downloading.server"
        command = [sys.executable, "-m", module, str(folder), str(DELAY_SECONDS)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.host = f"127.0.0.1:{self._process.stdout.readline().strip()}"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def write_urls(self, count: int, file: Path) -> None:
        """Write so many URLs to a file, one a line."""
        lines = [f"http://{self.host}/p/{number}.jpg\n" for number in range(count)]
        file.write_text("".join(lines))

    def first_request(self) -> float:
        """Return when the first image was asked for since this was last called.

        The moment is on the monotonic clock.
        """
        with urllib.request.urlopen(f"http://{self.host}/clock") as answer:
            return float(answer.read())


def ours(host: str) -> Command:
    """Return our command, with everything switched on."""

    def command(urls: Path, out: Path) -> list[str]:
        words = f"--max-side 256 --concurrency {CONNECTIONS} --allow-private-host {host} --json"
        flags = ["--out", str(out), *words.split()]
        return [sys.executable, "-m", "scraping", "download", str(urls), *flags]

    return command


def bare(processes: int, threads: int) -> Command:
    """Return the command of the bare loop."""

    def command(urls: Path, out: Path) -> list[str]:
        words = f"--processes {processes} --threads {threads} --connections {CONNECTIONS}"
        module = "benchmarks.downloading.bare"
        return [sys.executable, "-m", module, str(urls), str(out), *words.split()]

    return command


def img2dataset(program: Path, processes: int) -> Command:
    """Scale to 256 px on the longer side as ours does, in as many shards as processes."""

    def command(urls: Path, out: Path) -> list[str]:
        size = "--image_size 256 --resize_mode keep_ratio_largest --resize_only_if_bigger True"
        speed = f"--thread_count {CONNECTIONS} --processes_count {processes} --encode_quality 90"
        shards = f"--number_sample_per_shard {IMAGES // processes} --output_format files"
        flags = f"{size} {speed} {shards}".split()
        return [str(program), "--url_list", str(urls), "--output_folder", str(out), *flags]

    return command


def icrawler(python: Path, threads: int) -> Command:
    """Return a command that only downloads."""
    return lambda urls, out: [str(python), "-c", CRAWL, str(urls), str(out), str(threads)]


def contenders(host: str, peers: bool) -> list[Contender]:
    """Return all rows: ours, the limit in the settings that may suit it best, the other tools."""
    rows = [Contender("Picaisso, all screening", ours(host))]
    for processes, threads in ((1, 2), (2, 1), (2, 2)):
        name = f"bare loop, {processes} x {threads} threads"
        rows.append(Contender(name, bare(processes, threads), wanted=0.85))
    if not peers:
        return rows
    if folder := environment("img2dataset", IMG2DATASET):
        program = folder / "bin" / "img2dataset"
        rows.append(Contender("img2dataset, 1 process", img2dataset(program, 1)))
        rows.append(Contender("img2dataset, 2 processes", img2dataset(program, 2), wanted=2.0))
    if folder := environment("icrawler", ICRAWLER):
        python = folder / "bin" / "python"
        rows.append(Contender("icrawler, 4 threads", icrawler(python, 4)))
        rows.append(Contender("icrawler, 32 threads", icrawler(python, 32), wanted=1.8))
    return rows


def environment(name: str, requirement: str) -> Path | None:
    """Return a throw-away environment with one tool, None where it cannot be installed."""
    folder = CACHE / name
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "pip"), "install", "-q", requirement],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            print(f"{requirement} cannot be installed:\n{done.stderr[-1500:]}", file=sys.stderr)
            return None
    (folder / "complete").touch()
    return folder


def run(contender: Contender, server: Server, urls: Path, out: Path) -> Run:
    """Run one contender into a folder that is not there yet.

    Folders stay until all runs are over: file systems make files slowly for a while after many have
    been deleted.
    """
    quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
    errors = out.with_suffix(".errors")
    started = time.monotonic()
    processor_before = _children_seconds()
    with errors.open("w") as stream:
        done = subprocess.run(
            contender.command(urls, out),
            cwd=ROOT,
            env=os.environ | quiet,
            stdout=subprocess.DEVNULL,
            stderr=stream,
        )
    ended = time.monotonic()
    if done.returncode:
        sys.exit(f"{contender.name} failed:\n{errors.read_text()[-3000:]}")
    return Run(
        whole=ended - started,
        working=ended - server.first_request(),
        processor=_children_seconds() - processor_before,
        images=sum(1 for _ in out.rglob("*.jpg")),
    )


def _children_seconds() -> float:
    """Return the processor seconds of all children that have ended, with theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(rows: Sequence[Contender], server: Server, urls: Path, rounds: int) -> list[list[Run]]:
    """Return the runs of each row; interleaved, so that a neighbor's load falls on all alike."""
    runs: list[list[Run]] = [[] for _ in rows]
    for number in range(rounds):
        for row, row_runs in zip(rows, runs, strict=True):
            one = run(row, server, urls, urls.parent / f"{number} {row.name}")
            row_runs.append(one)
            rate = one.images / one.whole
            line = f"{row.name}: {rate:.0f}/s, {one.processor:.1f} s of processor"
            print(line, file=sys.stderr, flush=True)
    return runs


def table(rows: Sequence[Contender], runs: Sequence[Sequence[Run]], rounds: int) -> Table:
    """Return the table of rates."""
    delay = f"{DELAY_SECONDS * 1000:.0f} ms each"
    result = Table(title=f"{IMAGES:,} JPEG, {delay}, medians of {rounds}, {os.cpu_count()} cores")
    result.add_column("")
    for heading in (
        "images/s",
        "lowest",
        "highest",
        "ours / this",
        "wanted",
        "working",
        "ours / this",
        "processor",
    ):
        result.add_column(heading, justify="right")
    ours_whole = [one.images / one.whole for one in runs[0]]
    ours_working = [one.images / one.working for one in runs[0]]
    for row, row_runs in zip(rows, runs, strict=True):
        whole = [one.images / one.whole for one in row_runs]
        working = [one.images / one.working for one in row_runs]
        processor = statistics.median(one.processor for one in row_runs)
        result.add_row(
            row.name,
            f"{statistics.median(whole):.0f}",
            f"{min(whole):.0f}",
            f"{max(whole):.0f}",
            _ratio(ours_whole, whole),
            f"{row.wanted:.2f}" if row.wanted else "",
            f"{statistics.median(working):.0f}/s",
            _ratio(ours_working, working),
            f"{processor:.1f} s",
        )
    return result


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f}"


def peak_memory(command: list[str]) -> tuple[float, float, float]:
    """Return the peak of the process tree and of its main process in MB, and the seconds, of one
    run. Pages that processes share are counted by their share.
    """
    tree_peak = 0.0
    main_peak = 0.0
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    main = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            main_size = _megabytes(main)
            children = sum(map(_megabytes, main.children(recursive=True)))
            main_peak = max(main_peak, main_size)
            tree_peak = max(tree_peak, main_size + children)
        time.sleep(MEMORY_POLL_SECONDS)
    if process.returncode:
        sys.exit("The download failed.")
    return tree_peak, main_peak, time.monotonic() - started


def _megabytes(process: psutil.Process) -> float:
    """Return the memory of one process in MB, 0 when it has ended."""
    with contextlib.suppress(psutil.Error):
        return float(process.memory_full_info().pss) / 1e6
    return 0.0


def memory_table(server: Server, scratch: Path) -> Table:
    """Return the table of peak memory against the number of images."""
    result = Table(title="peak memory of our process tree")
    for heading in ("images", "kept", "whole tree", "main process", "images/s"):
        result.add_column(heading, justify="right")
    for count in (IMAGES, 10 * IMAGES):
        urls = scratch / f"{count}.txt"
        out = scratch / str(count)
        server.write_urls(count, urls)
        tree, main, seconds = peak_memory(ours(server.host)(urls, out))
        records = [json.loads(line) for line in (out / "images.jsonl").open()]
        kept = sum(record["state"] == "kept" for record in records)
        rate = count / seconds
        result.add_row(f"{count}", f"{kept}", f"{tree:.0f} MB", f"{main:.0f} MB", f"{rate:.0f}")
    return result


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description="Times the download engine beside other tools and the limit."
    )
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (3)")
    parser.add_argument(
        "--peers", action="store_true", help="install and run img2dataset and icrawler as well"
    )
    parser.add_argument("--only", help="rows whose name holds this word, and ours")
    parser.add_argument(
        "--memory", action="store_true", help="measure memory at 1,000 and 10,000 images instead"
    )
    given = parser.parse_args()
    corpus(CACHE / "pictures", IMAGES)
    with Server(CACHE / "pictures") as server, tempfile.TemporaryDirectory(dir=CACHE) as name:
        scratch = Path(name)
        if given.memory:
            result = memory_table(server, scratch)
        else:
            first, *others = contenders(server.host, given.peers)
            rows = [first, *(row for row in others if not given.only or given.only in row.name)]
            urls = scratch / "urls.txt"
            server.write_urls(IMAGES, urls)
            result = table(rows, measure(rows, server, urls, given.rounds), given.rounds)
        Console(width=120).print(result)


if __name__ == "__main__":
    main()
