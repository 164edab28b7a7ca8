"""N1: a thousand pictures fetched, screened, hashed, shrunk and written, beside other tools and the
limit.

All fetch the same 1,000 JPEG (640 to 1280 px, 178 MB) from one loopback server in its own process
that waits 100 ms before each answer, 64 connections at once where a tool lets one choose. Ours is
the ordinary command ``python -m scraping download --max-side 256``; the limit is a bare aiohttp and
Pillow loop that checks nothing. Each run is a process of its own, and its rate is that of the whole
run; beside it stands the rate from its first request on, which leaves out how long each takes to
import. Rounds are interleaved, figures are medians; a ratio is the median of the rounds' ratios,
because a neighbour's load falls on a whole round. The bare loop shrinks with the same filter as
ours. A download of a list computes the near-copy hash, not the thumbnails by which a collection
verifies pairs.

``--peers`` adds img2dataset and icrawler, each installed into a throw-away environment of its own.
``--memory`` measures instead the peak of our whole process tree at 1,000 and at 10,000 pictures.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.downloading.corpus import corpus

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(tempfile.gettempdir()) / "picaisso-benchmarks"
PICTURES = 1000
DELAY_SECONDS = 0.1
CONNECTIONS = 64
MEMORY_POLL_SECONDS = 0.05
IMG2DATASET, ICRAWLER = "img2dataset==1.47.0", "icrawler==0.6.10"
CRAWL = """
import sys
from icrawler.builtin import UrlListCrawler
UrlListCrawler(downloader_threads=int(sys.argv[3]), log_level=40, storage={"root_dir": sys.argv[2]}).crawl(sys.argv[1])
"""


@dataclass(frozen=True)
class Contender:
    """One row of the table. `command` makes the command line from the list of addresses and an
    empty folder.

    `wanted` is the least ratio of our rate to this one's that N1 asks for.
    """

    name: str
    command: Callable[[Path, Path], list[str]]
    wanted: float | None = None


@dataclass(frozen=True)
class Measured:
    """One run: seconds as a whole process and from its first request, processor seconds, pictures
    that it left.
    """

    whole: float
    working: float
    processor: float
    pictures: int


class Server:
    """The server's process; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.downloading.server",
            str(folder),
            str(DELAY_SECONDS),
        ]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.host = f"127.0.0.1:{self._process.stdout.readline().strip()}"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def addresses(self, count: int, file: Path) -> Path:
        """Write so many addresses to a file, one a line."""
        file.write_text("".join(f"http://{self.host}/p/{number}.jpg\n" for number in range(count)))
        return file

    def first_request(self) -> float:
        """When the first picture was asked for since this was last called, by the monotonic
        clock.
        """
        with urllib.request.urlopen(f"http://{self.host}/clock") as answer:
            return float(answer.read())


def ours(host: str) -> Callable[[Path, Path], list[str]]:
    """Our command, with everything switched on."""
    flags = [
        "--max-side",
        "256",
        "--concurrency",
        str(CONNECTIONS),
        "--allow-private-host",
        host,
        "--json",
    ]
    return lambda urls, out: [
        sys.executable,
        "-m",
        "scraping",
        "download",
        str(urls),
        "--out",
        str(out),
        *flags,
    ]


def bare(processes: int, threads: int) -> Callable[[Path, Path], list[str]]:
    """The bare loop."""
    flags = [
        "--processes",
        str(processes),
        "--threads",
        str(threads),
        "--connections",
        str(CONNECTIONS),
    ]
    return lambda urls, out: [
        sys.executable,
        "-m",
        "benchmarks.downloading.bare",
        str(urls),
        str(out),
        *flags,
    ]


def img2dataset(program: Path, processes: int) -> Callable[[Path, Path], list[str]]:
    """Scaled to 256 px on the longer side as ours, in as many shards as processes."""
    flags = [
        *(
            "--image_size",
            "256",
            "--resize_mode",
            "keep_ratio_largest",
            "--resize_only_if_bigger",
            "True",
        ),
        *(
            "--thread_count",
            str(CONNECTIONS),
            "--processes_count",
            str(processes),
            "--encode_quality",
            "90",
        ),
        *("--number_sample_per_shard", str(PICTURES // processes), "--output_format", "files"),
    ]
    return lambda urls, out: [
        str(program),
        "--url_list",
        str(urls),
        "--output_folder",
        str(out),
        *flags,
    ]


def icrawler(python: Path, threads: int) -> Callable[[Path, Path], list[str]]:
    """It only downloads."""
    return lambda urls, out: [str(python), "-c", CRAWL, str(urls), str(out), str(threads)]


def contenders(host: str, peers: bool) -> list[Contender]:
    """All rows: ours, the limit in the settings that may suit it best, and the other tools."""
    rows = [Contender("Picaisso, all screening", ours(host))]
    settings = ((1, 2), (2, 1), (2, 2))
    rows += [Contender(f"bare loop, {p} x {t} threads", bare(p, t), 0.85) for p, t in settings]
    if peers and (folder := environment("img2dataset", IMG2DATASET)):
        program = folder / "bin" / "img2dataset"
        rows.append(Contender("img2dataset, 1 process", img2dataset(program, 1)))
        rows.append(Contender("img2dataset, 2 processes", img2dataset(program, 2), 2.0))
    if peers and (folder := environment("icrawler", ICRAWLER)):
        python = folder / "bin" / "python"
        rows.append(Contender("icrawler, 4 threads", icrawler(python, 4)))
        rows.append(Contender("icrawler, 32 threads", icrawler(python, 32), 1.8))
    return rows


def environment(name: str, requirement: str) -> Path | None:
    """A throw-away environment with one tool; None, said on stderr, where it cannot be
    installed.
    """
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


def run(contender: Contender, server: Server, urls: Path, out: Path) -> Measured:
    """One run into a folder that is not there yet.

    Folders stay until all runs are over: file systems make files slowly for a while after many have
    been deleted.
    """
    started, before = time.monotonic(), _children_seconds()
    quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
    errors = out.with_suffix(".errors")
    with errors.open("w") as stream:
        command, environment = contender.command(urls, out), os.environ | quiet
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=stream
        )
    ended = time.monotonic()
    if done.returncode:
        sys.exit(f"{contender.name} failed:\n{errors.read_text()[-3000:]}")
    processor = _children_seconds() - before
    pictures = sum(1 for _ in out.rglob("*.jpg"))
    return Measured(ended - started, ended - server.first_request(), processor, pictures)


def _children_seconds() -> float:
    """Processor seconds of all children that have ended, with theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measured(
    rows: Sequence[Contender], server: Server, urls: Path, rounds: int
) -> list[list[Measured]]:
    """Runs of each row; interleaved, so that a neighbour's load falls on all alike."""
    runs: list[list[Measured]] = [[] for _ in rows]
    for number in range(rounds):
        for row, found in zip(rows, runs, strict=True):
            found.append(run(row, server, urls, urls.parent / f"{number} {row.name}"))
            rate, processor = found[-1].pictures / found[-1].whole, found[-1].processor
            print(
                f"{row.name}: {rate:.0f}/s, {processor:.1f} s of processor",
                file=sys.stderr,
                flush=True,
            )
    return runs


def table(rows: Sequence[Contender], runs: Sequence[Sequence[Measured]], rounds: int) -> Table:
    """The one table."""
    title = f"{PICTURES:,} JPEG, {DELAY_SECONDS * 1000:.0f} ms each, medians of {rounds}, {os.cpu_count()} cores"
    result = Table(title=title)
    result.add_column("")
    for heading in (
        "pictures/s",
        "lowest",
        "highest",
        "ours / this",
        "wanted",
        "working",
        "ours / this",
        "processor",
    ):
        result.add_column(heading, justify="right")
    ours_whole, ours_working = _rates(runs[0])
    for row, found in zip(rows, runs, strict=True):
        whole, working = _rates(found)
        processor = statistics.median(one.processor for one in found)
        result.add_row(
            row.name,
            *(f"{number:.0f}" for number in (statistics.median(whole), min(whole), max(whole))),
            _ratio(ours_whole, whole),
            f"{row.wanted:.2f}" if row.wanted else "",
            f"{statistics.median(working):.0f}/s",
            _ratio(ours_working, working),
            f"{processor:.1f} s",
        )
    return result


def _rates(runs: Sequence[Measured]) -> tuple[list[float], list[float]]:
    """Pictures per second of each run: as a whole, and from its first request on."""
    return [one.pictures / one.whole for one in runs], [one.pictures / one.working for one in runs]


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    return f"{statistics.median(one / other for one, other in zip(ours, theirs, strict=True)):.2f}"


def peak_memory(command: list[str]) -> tuple[float, float, float]:
    """(peak of the tree in MB with shared pages counted by share, peak of the main process,
    seconds) of one run.
    """
    started, tree, main = time.monotonic(), 0.0, 0.0
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        sizes = [_megabytes(pid) for pid in _tree(process.pid)]
        tree, main = max(tree, sum(sizes)), max(main, sizes[0])
        time.sleep(MEMORY_POLL_SECONDS)
    if process.returncode:
        sys.exit("The download failed.")
    return tree, main, time.monotonic() - started


def _tree(pid: int) -> list[int]:
    """The process, then its descendants."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _megabytes(pid: int) -> float:
    """Memory of one process, pages that it shares counted by its share; 0 when it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1000
    return 0.0


def memory_rows(server: Server, scratch: Path) -> Iterator[tuple[str, ...]]:
    """A row each for 1,000 and 10,000 pictures."""
    for count in (PICTURES, 10 * PICTURES):
        urls = server.addresses(count, scratch / f"{count}.txt")
        tree, main, seconds = peak_memory(ours(server.host)(urls, scratch / str(count)))
        kept = sum(
            json.loads(line)["state"] == "kept"
            for line in (scratch / str(count) / "images.jsonl").open()
        )
        yield f"{count}", f"{kept}", f"{tree:.0f} MB", f"{main:.0f} MB", f"{count / seconds:.0f}"


def memory_table(server: Server, scratch: Path) -> Table:
    """Peak memory against the number of pictures."""
    result = Table(title="peak memory of our process tree")
    for heading in ("pictures", "kept", "whole tree", "main process", "pictures/s"):
        result.add_column(heading, justify="right")
    for row in memory_rows(server, scratch):
        result.add_row(*row)
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
        "--memory", action="store_true", help="measure memory at 1,000 and 10,000 pictures instead"
    )
    given = parser.parse_args()
    corpus(CACHE / "pictures", PICTURES)
    with Server(CACHE / "pictures") as server, tempfile.TemporaryDirectory(dir=CACHE) as name:
        if given.memory:
            result = memory_table(server, Path(name))
        else:
            rows = contenders(server.host, given.peers)
            rows = [
                row for row in rows if row is rows[0] or not given.only or given.only in row.name
            ]
            urls = server.addresses(PICTURES, Path(name) / "urls.txt")
            result = table(rows, measured(rows, server, urls, given.rounds), given.rounds)
        Console(width=120).print(result)


if __name__ == "__main__":
    main()
