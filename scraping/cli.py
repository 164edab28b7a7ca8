"""The commands that ask sources: `collect` and `check`. Apart from `__main__`, because they load
all of the sources.
"""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bars
from rich.table import Table

from scraping import ConfigError
from scraping.collect import Interrupted, Progress, collect, read_result
from scraping.config import CollectConfig, read_values
from scraping.files import write_json
from scraping.health import Health, check_sources
from scraping.search.searcher import Stopped
from scraping.sources.catalogue import DEFAULT_ORDER, Outcome
from scraping.sources.registry import REGISTRY
from scraping.terminal import (
    DONE,
    FAILED,
    Values,
    add_common,
    bars_on_stderr,
    flags_of,
    print_line,
    reasons_in_words,
)


def add_collect(parser: argparse.ArgumentParser) -> None:
    """The flags of `collect`."""
    parser.description = (
        "Asks the sources in their order until each class has its pictures, and says what happened. The folder gets "
        "images/, images.jsonl (a row per candidate) and result.json; the same command goes on where it was stopped."
    )
    parser.add_argument(
        "names", nargs="+", metavar="NAME|DIR", help="class names, or a folder with a config.json"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to collect, when names are given"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="usable, unique pictures wanted per class (100)"
    )
    parser.add_argument(
        "--minimum", type=int, metavar="N", help="fewer per class are pointed out (20)"
    )
    parser.add_argument(
        "--license",
        choices=("any", "open"),
        help="open: only CC0, public domain, BY and BY-SA (any)",
    )
    parser.add_argument(
        "--max-side", type=int, metavar="PX", help="scale pictures to this longer side (1024)"
    )
    parser.add_argument(
        "--min-side",
        type=int,
        metavar="PX",
        help="refuse pictures whose shorter side is below (200)",
    )
    parser.add_argument(
        "--deadline",
        dest="deadline_seconds",
        type=float,
        metavar="SECONDS",
        help="end after so long (1800)",
    )
    _add_sources(parser)


def add_check(parser: argparse.ArgumentParser) -> None:
    """The flags of `check`."""
    parser.description = (
        "Asks each source one small real question and shows how it answers. 1 when none answers."
    )
    _add_sources(parser)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """What both commands that ask sources are told."""
    default = ", ".join(DEFAULT_ORDER)
    parser.add_argument(
        "--source",
        dest="sources",
        action="append",
        choices=sorted(REGISTRY),
        help=f"repeatable; in order ({default})",
    )
    parser.add_argument(
        "--source-url", dest="urls", action="append", metavar="NAME=URL", help="base of a source"
    )
    parser.add_argument("--locale", help="language and region of the search (en-US)")
    parser.add_argument(
        "--robots",
        choices=("respect", "operator"),
        help="robots rules of scraped sources (respect)",
    )
    parser.add_argument("--chrome", metavar="FILE", help="path of the browser (looked for)")
    parser.add_argument("--chromedriver", metavar="FILE", help="path of its driver (looked for)")
    parser.add_argument("--selenium-remote-url", metavar="URL", help="a Selenium Grid instead")
    add_common(parser)


SOURCE_FLAGS = (
    "sources", "locale", "robots", "chrome", "chromedriver", "selenium_remote_url", "contact", "allowed_private_hosts",
)  # fmt: skip
COLLECT_FLAGS = (
    *SOURCE_FLAGS,
    "limit",
    "minimum",
    "license",
    "deadline_seconds",
    "min_side",
    "max_side",
)


def _source_flags(
    parser: argparse.ArgumentParser, given: argparse.Namespace, names: Sequence[str]
) -> Values:
    flags = flags_of(given, names)
    if given.urls:
        pairs = [text.partition("=") for text in given.urls]
        if not all(equals and name in REGISTRY for name, equals, _ in pairs):
            parser.error("--source-url wants NAME=URL with the name of a source")
        flags["source_urls"] = {name: url for name, _, url in pairs}
    return flags


def run_collect(
    parser: argparse.ArgumentParser, given: argparse.Namespace, environment: Callable[[], Values]
) -> int:
    """The command `collect`. `environment` reads the settings; what is wrong with them is left in
    the folder, too.
    """
    flags = _source_flags(parser, given, COLLECT_FLAGS)
    if given.out is None and len(given.names) > 1:
        parser.error("class names need --out DIR")
    folder = given.out or Path(given.names[0])
    if given.out is None and not folder.is_dir():
        parser.error(f"{folder} is no folder; class names need --out DIR")
    try:
        stored = _named(given.names) if given.out is not None else read_values(folder)
        config = CollectConfig.of(environment() | stored | flags)
    except ConfigError as error:
        return _refused(folder, str(error))
    config.write(folder)
    return _run_collect(folder, config, given.json or not sys.stdout.isatty())


def _named(names: Sequence[str]) -> Values:
    classes = [
        {"id": f"c{place:03d}", "name": name, "query": name}
        for place, name in enumerate(names, start=1)
    ]
    return {"classes": classes}


def _refused(
    folder: Path, reason: str, remedy: str = "Correct the configuration.", retry: bool = False
) -> int:
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
            result = collect(folder, config, lambda progress: print_line(asdict(progress)), stop)
            print_line(result)
        else:
            with bars_on_stderr() as bars:
                result = collect(folder, config, _bar_of(bars), stop)
            _print_collected(result)
    except Interrupted:
        print("Stopped before the end; the same command goes on from here.", file=sys.stderr)
        return FAILED
    except OSError as error:
        return _refused(
            folder,
            f"The folder cannot be written: {error.strerror}.",
            "Make room, then retry.",
            True,
        )
    except (
        Exception
    ):  # the stage's boundary: the log says everything, the result a neutral sentence
        logging.getLogger(__name__).exception("the collection failed")
        return _refused(
            folder, "The collection failed unexpectedly.", "Try again; the log says more.", True
        )
    return DONE


def _bar_of(bars: Bars) -> Callable[[Progress], None]:
    task = bars.add_task("Searching", total=None)

    def show(progress: Progress) -> None:
        bars.update(
            task, completed=progress.done, total=progress.total, description=progress.message
        )

    return show


def _print_collected(result: Mapping[str, Any]) -> None:
    console = Console()
    names = {entry["id"]: entry["name"] for entry in result["classes"]}
    classes = Table("class", "asked", "found", "kept", "rejected", title="Classes")
    for entry in result["classes"]:
        kept = f"{entry['kept']} (too few)" if entry["too_few"] else str(entry["kept"])
        classes.add_row(
            entry["name"],
            str(entry["asked"]),
            str(entry["found"]),
            kept,
            reasons_in_words(entry["rejected"]),
        )
    sources = Table("source", "class", "outcome", "found", "kept", "what it said", title="Sources")
    for entry in result["sources"]:
        label, outcome = REGISTRY[entry["name"]].label, Outcome(entry["outcome"]).in_words
        numbers = (str(entry["found"]), str(entry["kept"]))
        sources.add_row(
            label, names.get(entry["class"], entry["class"]), outcome, *numbers, entry["message"]
        )
    console.print(classes, sources)


def run_check(
    parser: argparse.ArgumentParser, given: argparse.Namespace, environment: Callable[[], Values]
) -> int:
    """The command `check`."""
    values = environment() | _source_flags(parser, given, SOURCE_FLAGS)
    config = CollectConfig.of(values | _named(["check"]))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    as_json = given.json or not sys.stdout.isatty()
    try:
        rows = check_sources(
            config, stop, (lambda health: print_line(asdict(health))) if as_json else None
        )
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
        outcome = Outcome(row.outcome).in_words
        table.add_row(
            REGISTRY[row.name].label, outcome, str(row.found), f"{row.seconds:.1f}", row.message
        )
    Console().print(table)
