"""`python -m scraping`: collect, download, gallery. The only place here that reads environment settings."""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from scraping import __version__
from scraping.collect import Interrupted, Progress, collect, read_result
from scraping.config import CollectConfig, ConfigError, read_values
from scraping.download import DownloadSettings, DownloadSummary, download_list, read_urls
from scraping.fetch import FetchSettings
from scraping.gallery import serve
from scraping.rows import write_json
from scraping.screen import ScreenSettings
from scraping.sources import REGISTRY

DONE, FAILED = 0, 1
Values = dict[str, Any]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


# Environment variable, key of the configuration, and how its text is read.
ENVIRONMENT: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("PICAISSO_SOURCES", "sources", _words),
    ("PICAISSO_ROBOTS", "robots", str),
    ("PICAISSO_CONTACT", "contact", str),
    ("PICAISSO_LOCALE", "locale", str),
    ("PICAISSO_CHROME", "chrome", str),
    ("PICAISSO_CHROMEDRIVER", "chromedriver", str),
    ("PICAISSO_SELENIUM_REMOTE_URL", "selenium_remote_url", str),
    ("PICAISSO_ALLOWED_PRIVATE_HOSTS", "allowed_private_hosts", _words),
    ("PICAISSO_MIN_SIDE", "min_side", int),
    ("PICAISSO_MAX_SIDE", "max_side", int),
    ("PICAISSO_COLLECT_MINUTES", "deadline_seconds", lambda text: float(text) * 60),
)


def read_dotenv(path: Path) -> dict[str, str]:
    """Variables of a `.env` file: `NAME=value` lines, optionally quoted or exported; `#` lines are comments."""
    if not path.is_file():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            found[name.strip()] = value[1:-1] if quoted else value
    return found


def environment_values(variables: Mapping[str, str]) -> Values:
    """Configuration keys that the environment sets. Raises ConfigError for a value that cannot be read."""
    values: Values = {}
    for name, key, read in ENVIRONMENT:
        if text := variables.get(name, "").strip():
            try:
                values[key] = read(text)
            except ValueError as error:
                raise ConfigError(f"{name} cannot be read: {text!r}.") from error
    names = {source: variables.get(f"PICAISSO_{source.upper()}_URL", "").strip() for source in REGISTRY}
    urls = {source: url for source, url in names.items() if url}
    return values | ({"source_urls": urls} if urls else {})


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scraping",
        description="Turns words into picture files. Every flag has a PICAISSO_ variable; a flag wins.",
    )
    parser.add_argument("--version", action="version", version=f"picaisso {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_collect(commands.add_parser("collect", help="fill a quota of pictures for each class"))
    _add_download(commands.add_parser("download", help="download and screen a list of addresses"))
    _add_gallery(commands.add_parser("gallery", help="serve a search site over a folder of pictures"))
    return parser


def _add_collect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME|DIR", help="class names, or a folder with a config.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to collect, when names are given")
    parser.add_argument("--limit", type=int, help="pictures wanted per class (100)")
    parser.add_argument("--source", dest="sources", action="append", choices=sorted(REGISTRY), help="repeatable")
    parser.add_argument("--license", choices=("any", "open"), help="open: only pictures of known licence")
    parser.add_argument("--locale", help="language and region of the search (en-US)")
    parser.add_argument("--robots", choices=("respect", "operator"), help="robots rules of scraped sources")
    parser.add_argument("--source-url", dest="urls", action="append", metavar="NAME=URL", help="base of a source")
    parser.add_argument("--chrome", help="path of the browser")
    parser.add_argument("--chromedriver", help="path of its driver")
    parser.add_argument("--selenium-remote-url", help="a Selenium Grid instead")
    parser.add_argument("--deadline", dest="deadline_seconds", type=float, metavar="SECONDS", help="(1800)")
    _add_common(parser)


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("list", type=Path, metavar="URLS.txt", help="an address per line")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument("--per-host", type=int, default=4, help="connections to one host (4)")
    parser.add_argument("--concurrency", type=int, default=64, help="connections in all (64)")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--min-side", type=int, metavar="PX", help="refuse pictures whose shorter side is below")
    parser.add_argument("--max-side", type=int, metavar="PX", help="scale pictures to this longer side (1024)")
    parser.add_argument("--contact", help="your contact, for the User-Agent")
    parser.add_argument(
        "--allow-private-host",
        dest="allowed_private_hosts",
        action="append",
        metavar="HOST:PORT",
        help="lift the address rule for a host of your own; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="JSON lines instead of bars and tables")


def _add_gallery(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--port", type=int, default=8001, help="0 picks a free one (8001)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    parser = build_parser()
    given = parser.parse_args(arguments)
    variables = read_dotenv(Path(".env")) | dict(os.environ)
    try:
        if given.command == "collect":
            return _collect(parser, given, variables)
        if given.command == "download":
            return _download(given, variables)
        return _gallery(given)
    except (ConfigError, OSError) as error:
        print(str(error), file=sys.stderr)
        return FAILED


def _flags(given: argparse.Namespace, names: Sequence[str]) -> Values:
    return {name: getattr(given, name) for name in names if getattr(given, name, None) is not None}


COLLECT_FLAGS = (
    "limit", "sources", "license", "locale", "robots", "chrome", "chromedriver", "selenium_remote_url",
    "deadline_seconds", "min_side", "max_side", "contact", "allowed_private_hosts",
)  # fmt: skip


def _collect(parser: argparse.ArgumentParser, given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    flags = _flags(given, COLLECT_FLAGS)
    if given.urls:
        pairs = [text.partition("=") for text in given.urls]
        if not all(equals and name in REGISTRY for name, equals, _ in pairs):
            parser.error("--source-url wants NAME=URL with the name of a source")
        flags["source_urls"] = {name: url for name, _, url in pairs}
    if given.out is None and len(given.names) > 1:
        parser.error("class names need --out DIR")
    folder = given.out or Path(given.names[0])
    if given.out is None and not folder.is_dir():
        parser.error(f"{folder} is no folder; class names need --out DIR")
    try:
        stored = _named(given.names) if given.out is not None else read_values(folder)
        config = CollectConfig.of(environment_values(variables) | stored | flags)
    except ConfigError as error:
        return _refused(folder, str(error))
    config.write(folder)
    return _run_collect(folder, config, given.json or not sys.stdout.isatty())


def _named(names: Sequence[str]) -> Values:
    classes = [{"id": f"c{place:03d}", "name": name, "query": name} for place, name in enumerate(names, start=1)]
    return {"classes": classes}


def _refused(folder: Path, reason: str, remedy: str = "Correct the configuration.", retry: bool = False) -> int:
    """Leave the failure in the folder, where whoever started this looks for it, and say it."""
    error = {"stage": "collect", "reason": reason, "remedy": remedy, "retry": retry}
    if folder.is_dir() and not (read_result(folder) or {}).get("ok"):
        write_json(folder / "result.json", {"ok": False, "error": error})
    print(reason, file=sys.stderr)
    return FAILED


def _run_collect(folder: Path, config: CollectConfig, as_json: bool) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        if as_json:
            result = collect(folder, config, lambda progress: _print_line(asdict(progress)), stop)
            _print_line(result)
        else:
            with _bars() as bars:
                result = collect(folder, config, _bar_of(bars), stop)
            _print_collected(result)
    except Interrupted:
        print("Stopped before the end; the same command goes on from here.", file=sys.stderr)
        return FAILED
    except OSError as error:
        return _refused(folder, f"The folder cannot be written: {error.strerror}.", "Make room, then retry.", True)
    except Exception:  # the stage's boundary: the log says everything, the result a neutral sentence
        logging.getLogger(__name__).exception("the collection failed")
        return _refused(folder, "The collection failed unexpectedly.", "Try again; the log says more.", True)
    return DONE


def _bars() -> Bars:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bars(*columns, console=Console(stderr=True))


def _bar_of(bars: Bars) -> Callable[[Progress], None]:
    task = bars.add_task("Searching", total=None)

    def show(progress: Progress) -> None:
        bars.update(task, completed=progress.done, total=progress.total, description=progress.message)

    return show


def _print_line(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def _print_collected(result: Mapping[str, Any]) -> None:
    console = Console()
    classes = Table("class", "asked", "found", "kept", "rejected", title="Classes")
    for entry in result["classes"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(entry["rejected"].items()))
        numbers = (str(entry[name]) for name in ("asked", "found", "kept"))
        classes.add_row(entry["name"], *numbers, reasons)
    names = {entry["id"]: entry["name"] for entry in result["classes"]}
    sources = Table("source", "class", "outcome", "found", "", title="Sources")
    for entry in result["sources"]:
        name = names.get(entry["class"], entry["class"])
        sources.add_row(entry["name"], name, entry["outcome"], str(entry["found"]), entry["message"])
    console.print(classes, sources)


def _download(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    names = ("min_side", "max_side", "contact", "allowed_private_hosts")
    values = environment_values(variables) | _flags(given, names)
    sides = {name: values[name] for name in ("min_side", "max_side") if name in values}
    fetching = FetchSettings(
        contact=values.get("contact", ""),
        allowed_private_hosts=frozenset(values.get("allowed_private_hosts", ())),
        connections=given.concurrency,
        per_host=given.per_host,
    )
    settings = DownloadSettings(fetching, ScreenSettings(**sides))
    urls = read_urls(given.list)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        summary = _run_download(urls, given.out, settings, given.json or not sys.stdout.isatty())
    except KeyboardInterrupt:
        print("Stopped before the end; the same command goes on from here.", file=sys.stderr)
        return FAILED
    if not given.json and sys.stdout.isatty():
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.rejected.items()))
        print(f"{summary.kept} of {summary.total} kept{': ' + reasons if reasons else ''}")
    return DONE


def _run_download(urls: list[str], folder: Path, settings: DownloadSettings, as_json: bool) -> DownloadSummary:
    if as_json:
        summary = asyncio.run(download_list(urls, folder, settings, lambda row, _done: _print_line(row)))
        _print_line(asdict(summary))
        return summary
    with _bars() as bars:
        task = bars.add_task("Downloading", total=len(urls))
        show: Callable[[Values, int], None] = lambda _row, done: bars.update(task, completed=done)  # noqa: E731
        return asyncio.run(download_list(urls, folder, settings, show))


def _gallery(given: argparse.Namespace) -> int:
    if not given.folder.is_dir():
        print(f"{given.folder} is no folder.", file=sys.stderr)
        return FAILED
    with contextlib.suppress(KeyboardInterrupt):
        serve(given.folder, given.host, given.port)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
