"""`python -m scraping`: collect, check, download, gallery. The only place here that reads environment settings."""

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
from scraping.health import Health, check_sources
from scraping.rows import write_json
from scraping.screen import ScreenSettings
from scraping.searching import Stopped
from scraping.sources import DEFAULT_ORDER, REGISTRY
from scraping.sources.contract import Outcome

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
    ("PICAISSO_MIN_IMAGES", "minimum", int),
    ("PICAISSO_MIN_SIDE", "min_side", int),
    ("PICAISSO_MAX_SIDE", "max_side", int),
    ("PICAISSO_COLLECT_MINUTES", "deadline_seconds", lambda text: float(text) * 60),
)

# Environment variable and the credential that it holds. These have no flags: a command line is seen by all.
CREDENTIALS = {
    "PICAISSO_OPENVERSE_CLIENT_ID": "openverse_client_id",
    "PICAISSO_OPENVERSE_CLIENT_SECRET": "openverse_client_secret",
    "PICAISSO_PIXABAY_KEY": "pixabay_key",
}

OUTCOMES_IN_WORDS = {
    Outcome.OK: "answered",
    Outcome.PARTIAL: "had fewer than asked",
    Outcome.NO_RESULTS: "found nothing",
    Outcome.NOT_APPLICABLE: "skipped",
    Outcome.BLOCKED: "blocked us",
    Outcome.RATE_LIMITED: "asked us to wait",
    Outcome.LAYOUT_CHANGED: "changed its pages",
    Outcome.TIMEOUT: "did not answer in time",
    Outcome.NETWORK: "could not be reached",
    Outcome.UNAVAILABLE: "could not be used",
}


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
    secrets = {key: text for name, key in CREDENTIALS.items() if (text := variables.get(name, "").strip())}
    if "sources" not in values and (more := _with_account(secrets)):
        values["sources"] = [*DEFAULT_ORDER, *more]
    return values | ({"source_urls": urls} if urls else {}) | ({"credentials": secrets} if secrets else {})


def _with_account(secrets: Mapping[str, str]) -> list[str]:
    """The sources that are asked only with an account, and have one."""
    keyed = ((name, source.credentials) for name, source in REGISTRY.items() if name not in DEFAULT_ORDER)
    return [name for name, keys in keyed if keys and all(key in secrets for key in keys)]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scraping",
        description="Turns words into picture files. Every flag has a PICAISSO_ variable; a flag wins.",
    )
    parser.add_argument("--version", action="version", version=f"picaisso {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_collect(commands.add_parser("collect", help="fill a quota of pictures for each class"))
    _add_check(commands.add_parser("check", help="ask each source one small question"))
    _add_download(commands.add_parser("download", help="download and screen a list of addresses"))
    _add_gallery(commands.add_parser("gallery", help="serve a search site over a folder of pictures"))
    return parser


def _add_collect(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Asks the sources in their order until each class has its pictures, and says what happened. The folder gets "
        "images/, images.jsonl (a row per candidate) and result.json; the same command goes on where it was stopped."
    )
    parser.add_argument("names", nargs="+", metavar="NAME|DIR", help="class names, or a folder with a config.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to collect, when names are given")
    parser.add_argument("--limit", type=int, metavar="N", help="usable, unique pictures wanted per class (100)")
    parser.add_argument("--minimum", type=int, metavar="N", help="fewer per class are pointed out (20)")
    parser.add_argument("--license", choices=("any", "open"), help="open: only CC0, public domain, BY and BY-SA (any)")
    parser.add_argument("--max-side", type=int, metavar="PX", help="scale pictures to this longer side (1024)")
    parser.add_argument("--min-side", type=int, metavar="PX", help="refuse pictures whose shorter side is below (200)")
    parser.add_argument(
        "--deadline", dest="deadline_seconds", type=float, metavar="SECONDS", help="end after so long (1800)"
    )
    _add_sources(parser)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.description = "Asks each source one small real question and shows how it answers. 1 when none answers."
    _add_sources(parser)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """What both commands that ask sources are told."""
    default = ", ".join(DEFAULT_ORDER)
    parser.add_argument(
        "--source", dest="sources", action="append", choices=sorted(REGISTRY), help=f"repeatable; in order ({default})"
    )
    parser.add_argument("--source-url", dest="urls", action="append", metavar="NAME=URL", help="base of a source")
    parser.add_argument("--locale", help="language and region of the search (en-US)")
    parser.add_argument("--robots", choices=("respect", "operator"), help="robots rules of scraped sources (respect)")
    parser.add_argument("--chrome", metavar="FILE", help="path of the browser (looked for)")
    parser.add_argument("--chromedriver", metavar="FILE", help="path of its driver (looked for)")
    parser.add_argument("--selenium-remote-url", metavar="URL", help="a Selenium Grid instead")
    _add_common(parser)


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("list", type=Path, metavar="URLS.txt", help="an address per line")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument("--per-host", type=int, default=4, help="connections to one host (4)")
    parser.add_argument("--concurrency", type=int, default=64, help="connections in all (64)")
    parser.add_argument("--min-side", type=int, metavar="PX", help="refuse pictures whose shorter side is below (200)")
    parser.add_argument("--max-side", type=int, metavar="PX", help="scale pictures to this longer side (1024)")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
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
        if given.command == "check":
            return _check(parser, given, variables)
        if given.command == "download":
            return _download(given, variables)
        return _gallery(given)
    except (ConfigError, OSError) as error:
        print(str(error), file=sys.stderr)
        return FAILED


def _flags(given: argparse.Namespace, names: Sequence[str]) -> Values:
    return {name: getattr(given, name) for name in names if getattr(given, name, None) is not None}


SOURCE_FLAGS = (
    "sources", "locale", "robots", "chrome", "chromedriver", "selenium_remote_url", "contact", "allowed_private_hosts",
)  # fmt: skip
COLLECT_FLAGS = (*SOURCE_FLAGS, "limit", "minimum", "license", "deadline_seconds", "min_side", "max_side")


def _source_flags(parser: argparse.ArgumentParser, given: argparse.Namespace, names: Sequence[str]) -> Values:
    flags = _flags(given, names)
    if given.urls:
        pairs = [text.partition("=") for text in given.urls]
        if not all(equals and name in REGISTRY for name, equals, _ in pairs):
            parser.error("--source-url wants NAME=URL with the name of a source")
        flags["source_urls"] = {name: url for name, _, url in pairs}
    return flags


def _collect(parser: argparse.ArgumentParser, given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    flags = _source_flags(parser, given, COLLECT_FLAGS)
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
    names = {entry["id"]: entry["name"] for entry in result["classes"]}
    classes = Table("class", "asked", "found", "kept", "rejected", title="Classes")
    for entry in result["classes"]:
        kept = f"{entry['kept']} (too few)" if entry["too_few"] else str(entry["kept"])
        classes.add_row(entry["name"], str(entry["asked"]), str(entry["found"]), kept, _reasons(entry["rejected"]))
    sources = Table("source", "class", "outcome", "found", "kept", "what it said", title="Sources")
    for entry in result["sources"]:
        label, outcome = REGISTRY[entry["name"]].label, OUTCOMES_IN_WORDS[Outcome(entry["outcome"])]
        numbers = (str(entry["found"]), str(entry["kept"]))
        sources.add_row(label, names.get(entry["class"], entry["class"]), outcome, *numbers, entry["message"])
    console.print(classes, sources)


def _reasons(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(rejected.items()))


def _check(parser: argparse.ArgumentParser, given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    values = environment_values(variables) | _source_flags(parser, given, SOURCE_FLAGS)
    config = CollectConfig.of(values | _named(["check"]))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    as_json = given.json or not sys.stdout.isatty()
    try:
        rows = check_sources(config, stop, (lambda health: _print_line(asdict(health))) if as_json else None)
    except Stopped:
        print("Stopped before all sources had answered.", file=sys.stderr)
        return FAILED
    if not as_json:
        _print_health(rows)
    if any(row.outcome in (Outcome.OK, Outcome.PARTIAL) for row in rows):
        return DONE
    print("No source answers.", file=sys.stderr)
    return FAILED


def _print_health(rows: Sequence[Health]) -> None:
    table = Table("source", "outcome", "found", "seconds", "what it said", title="Sources")
    for row in rows:
        outcome = OUTCOMES_IN_WORDS[Outcome(row.outcome)]
        table.add_row(REGISTRY[row.name].label, outcome, str(row.found), f"{row.seconds:.1f}", row.message)
    Console().print(table)


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
        summary = _run_download(urls, given.out.resolve(), settings, given.json or not sys.stdout.isatty())
    except KeyboardInterrupt:
        print("Stopped before the end; the same command goes on from here.", file=sys.stderr)
        return FAILED
    if not given.json and sys.stdout.isatty():
        reasons = _reasons(summary.rejected)
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
