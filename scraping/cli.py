"""The commands `collect` and `check`: their flags, and their work.

The sources are loaded when a command works; wrong usage is told before.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from scraping import ConfigError, SettingError
from scraping.files import write_json
from scraping.kinds import MAX_KIND_LENGTH
from scraping.refused_digests import RefusedDigests
from scraping.sources.catalogue import CATALOGUE, DEFAULT_ORDER, Outcome
from scraping.terminal import (
    StopSignal,
    Values,
    add_common,
    add_refusals,
    add_sides,
    given_flags,
    progress_bars,
    reasons_in_words,
)
from training.class_names import casefold_key, find_problem, normalize
from training.environment import EnvironmentFileError
from training.terminal import (
    DONE,
    FAILED,
    WRONG_USAGE,
    add_example,
    add_output_flags,
    print_json,
    print_progress,
    seconds,
    whole_number,
)

if TYPE_CHECKING:
    from scraping.collect import Progress
    from scraping.config import CollectConfig
    from scraping.health import Health

_COLLECT_EXAMPLE = """\
python -m scraping collect corgi "shiba inu" --limit 100 --out pictures
python -m training fit --images pictures --out run"""
_CHECK_EXAMPLE = "python -m scraping check --source openverse"

SHOWN_UNUSED = 10  # of what was supplied and cannot be used


def add_collect(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `collect`."""
    parser.description = (
        "Asks the sources in their order until each class has its pictures, and says what "
        "happened. The folder gets images/, images.jsonl (a row per candidate) and result.json; "
        "the same command goes on where it was stopped."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME|DIR",
        help="class names, or a folder with a config.json; left out, the folders of --own and the "
        "labels of --urls name the classes",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to collect, when names are given"
    )
    parser.add_argument(
        "--kind",
        type=_kind,
        metavar="WORD",
        help="what kind of things these are, such as animal or car: added to each name in a "
        'search; "" for the plain names (found out where it is sure)',
    )
    parser.add_argument(
        "--limit",
        type=whole_number(1),
        metavar="N",
        help="usable, unique pictures wanted per class (100)",
    )
    parser.add_argument(
        "--minimum",
        type=whole_number(0),
        metavar="N",
        help="warn where a class has fewer (20; PICAISSO_MIN_IMAGES)",
    )
    parser.add_argument(
        "--license",
        choices=("any", "open"),
        help="open: only CC0, public domain, BY and BY-SA (any)",
    )
    add_sides(parser)
    parser.add_argument(
        "--deadline",
        dest="deadline_seconds",
        type=seconds,
        metavar="SECONDS",
        help="stop searching after so long (1800; PICAISSO_COLLECT_MINUTES)",
    )
    _add_supplied(parser)
    add_refusals(parser)
    _add_sources(parser)
    add_output_flags(parser, "print result.json; progress as JSON lines on standard error")
    add_example(parser, _COLLECT_EXAMPLE)


def _add_supplied(parser: argparse.ArgumentParser) -> None:
    """Add the flags for what one brings along; they have no variables."""
    parser.add_argument(
        "--own",
        type=_absolute,
        metavar="FOLDER|ZIP",
        help="your own pictures, a folder per class, besides what is searched; with --source "
        "upload instead of it",
    )
    parser.add_argument(
        "--urls",
        dest="own_urls",
        type=_absolute,
        metavar="FILE.csv",
        help="addresses of pictures, with the columns url and label; with --source url_list "
        "instead of a search",
    )
    parser.add_argument(
        "--own-as-test",
        action="store_true",
        default=None,
        help="test on what --own and --urls bring, and on nothing else",
    )


def _absolute(text: str) -> str:
    """Read a path that must be there, for a configuration that may be read elsewhere."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no {text}")
    return str(path.resolve())


def _kind(text: str) -> str:
    """Read the flag `--kind` by the rules for names of classes."""
    problem = find_problem(text, MAX_KIND_LENGTH)
    if problem:
        raise argparse.ArgumentTypeError(problem)
    return normalize(text)


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `check`."""
    parser.description = (
        "Asks each source one small real question and shows how it answers. 1 when none answers."
    )
    _add_sources(parser)
    add_output_flags(parser, "print a line of JSON for each source")
    add_example(parser, _CHECK_EXAMPLE)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the flags that both commands have."""
    parser.add_argument(
        "--source",
        dest="sources",
        action="append",
        choices=sorted(CATALOGUE),
        help=f"repeatable; they are asked in order ({', '.join(DEFAULT_ORDER)}; PICAISSO_SOURCES)",
    )
    parser.add_argument(
        "--source-url",
        dest="urls",
        action="append",
        metavar="NAME=URL",
        help="base of a source (its own; PICAISSO_OPENVERSE_URL and so on)",
    )
    parser.add_argument(
        "--locale", help="language and region of the search (en-US; PICAISSO_LOCALE)"
    )
    parser.add_argument(
        "--robots",
        choices=("respect", "operator"),
        help="robots rules of scraped sources (respect; PICAISSO_ROBOTS)",
    )
    parser.add_argument(
        "--chrome", metavar="FILE", help="path of Chromium (looked for; PICAISSO_CHROME)"
    )
    parser.add_argument(
        "--chromedriver",
        metavar="FILE",
        help="path of its driver (looked for; PICAISSO_CHROMEDRIVER)",
    )
    parser.add_argument(
        "--selenium-remote-url",
        metavar="URL",
        help="a Selenium Grid instead (none; PICAISSO_SELENIUM_REMOTE_URL)",
    )
    add_common(parser)


SOURCE_FLAGS = (
    "sources",
    "locale",
    "robots",
    "chrome",
    "chromedriver",
    "selenium_remote_url",
    "contact",
    "allowed_private_hosts",
)
COLLECT_FLAGS = (
    *SOURCE_FLAGS,
    "kind",
    "own",
    "own_urls",
    "own_as_test",
    "limit",
    "minimum",
    "license",
    "deadline_seconds",
    "min_side",
    "ai_made",
    "max_side",
    "refused_digests",
    "nudity_model",
)


def run_collect(given: argparse.Namespace, environment: Callable[[], Values]) -> int:
    """Run `collect` and return the exit code.

    `environment` reads the settings; what is wrong with them is left in the folder, too.
    """
    parser: argparse.ArgumentParser = given.parser
    flags = _source_flags(given, COLLECT_FLAGS)
    if given.out is not None:
        folder = given.out
        stored = _classes(_names(parser, given))
    else:
        if len(given.names) != 1:
            parser.error("class names need --out DIR")
        folder = Path(given.names[0])
        if not folder.is_dir():
            parser.error(f"{folder} is no folder; class names need --out DIR")
        stored = None
    from scraping.config import CollectConfig, read_values
    from scraping.screening.nudity import check_model

    try:
        if stored is None:
            stored = read_values(folder)
        config = CollectConfig.of(environment() | stored | flags)
        RefusedDigests.read(config.refused_digests)
        check_model(config.nudity_model)
    except SettingError as error:
        _fail(folder, str(error), "Correct the file.", retry=False)
        return WRONG_USAGE
    except ConfigError as error:
        return _fail(folder, str(error), "Correct the configuration.", retry=False)
    except EnvironmentFileError as error:
        _fail(folder, str(error), "Correct the settings.", retry=False)
        return WRONG_USAGE
    config.write(folder)
    return _collect(folder, config, given)


def _names(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[str]:
    """Return the names of the classes: those given, else those of what was brought along."""
    from scraping.supplied import named_classes

    names = given.names or named_classes(given.own or "", given.own_urls or "")
    if not names and given.own:
        text = "has no folder per class: put the pictures of each class into a folder called as the"
        parser.error(f"{given.own} {text} class, or name the classes")
    if not names:
        parser.error("name a class, or bring pictures along with --own or --urls")
    numbers: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        first = numbers.setdefault(casefold_key(name), number)
        if first != number:
            parser.error(f"classes {first} and {number} have the same name")
    return names


def _source_flags(given: argparse.Namespace, names: Sequence[str]) -> Values:
    flags = given_flags(given, names)
    urls = {}
    for text in given.urls or ():
        name, equals, url = text.partition("=")
        if not equals or name not in CATALOGUE:
            given.parser.error("--source-url wants NAME=URL with the name of a source")
        urls[name] = url
    if urls:
        flags["source_urls"] = urls
    return flags


def _classes(names: Sequence[str]) -> Values:
    classes = []
    for number, name in enumerate(names, start=1):
        classes.append({"id": f"c{number:03d}", "name": name, "query": name})
    return {"classes": classes}


def _collect(folder: Path, config: "CollectConfig", given: argparse.Namespace) -> int:
    from scraping.collect import Interrupted, collect
    from scraping.screening.pool import ScreeningUnavailable

    stop = StopSignal()
    stop.listen()
    try:
        with _progress(given) as show:
            result = collect(folder, config, show, stop)
        if given.json:
            print_json(result)
        else:
            _print_collected(result)
        if given.out is not None and not any(entry["kept"] for entry in result["classes"]):
            print(_why_nothing(result), file=sys.stderr)
            return FAILED
    except Interrupted:
        print("Stopped before the end; the same command goes on from here.", file=sys.stderr)
        return stop.exit_code
    except ScreeningUnavailable as error:
        return _fail(folder, str(error), "Try again; the log says more.", retry=True)
    except OSError as error:
        reason = f"The folder cannot be written: {error.strerror}."
        return _fail(folder, reason, "Make room, then retry.", retry=True)
    except Exception:  # the boundary of a stage: the log gets everything, the result a sentence
        logging.getLogger(__name__).exception("the collection failed")
        reason = "The collection failed unexpectedly."
        return _fail(folder, reason, "Try again; the log says more.", retry=True)
    return DONE


def _why_nothing(result: Mapping[str, Any]) -> str:
    """Return the sentence for a collection without a picture."""
    outcomes = {Outcome(entry["outcome"]) for entry in result["sources"]}
    if outcomes & {Outcome.OK, Outcome.PARTIAL, Outcome.NO_RESULTS, Outcome.NOT_APPLICABLE}:
        return "No usable picture was found. Try other words, or other sources with --source."
    return (
        "No source could be reached, so nothing was collected. Check the connection, and give the"
        " same command again."
    )


def _fail(folder: Path, reason: str, remedy: str, *, retry: bool) -> int:
    """Leave the failure in the folder, where whoever started this looks for it, and print it."""
    from scraping.collect import read_result

    earlier = read_result(folder) or {}
    if folder.is_dir() and not earlier.get("ok"):
        error = {"stage": "collect", "reason": reason, "remedy": remedy, "retry": retry}
        write_json(folder / "result.json", {"ok": False, "error": error})
    print(reason, file=sys.stderr)
    return FAILED


@contextmanager
def _progress(given: argparse.Namespace) -> "Iterator[Callable[[Progress], None] | None]":
    """Yield what shows progress: bars, JSON lines, or nothing."""
    if given.json:
        yield None if given.quiet else lambda progress: print_progress(asdict(progress))
        return
    with progress_bars(given.quiet) as bars:
        task = bars.add_task("Searching", total=None)

        def show(progress: "Progress") -> None:
            bars.update(
                task,
                completed=progress.done,
                total=progress.total,
                description=progress.message,
            )

        yield show


def _print_collected(result: Mapping[str, Any]) -> None:
    classes = Table("class", "asked", "found", "kept", "rejected", title="Classes")
    names = {}
    for entry in result["classes"]:
        names[entry["id"]] = entry["name"]
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
        sources.add_row(
            CATALOGUE[entry["name"]].label,
            names.get(entry["class"], entry["class"]),
            Outcome(entry["outcome"]).in_words,
            str(entry["found"]),
            str(entry["kept"]),
            entry["message"],
        )
    console = Console()
    console.print(classes, sources)
    sentence = result.get("kind", {}).get("sentence", "")  # not in folders of version 0.1.0
    if sentence:
        console.print(sentence, markup=False, highlight=False)
    unused = result.get("unused", [])
    for entry in unused[:SHOWN_UNUSED]:
        console.print(f"{entry['what']}: {entry['why']}", markup=False, highlight=False)
    if len(unused) > SHOWN_UNUSED:
        console.print(f"{len(unused) - SHOWN_UNUSED} more are in result.json.")


def run_check(given: argparse.Namespace, environment: Callable[[], Values]) -> int:
    """Run `check` and return the exit code."""
    from scraping.config import CollectConfig
    from scraping.health import check_sources
    from scraping.search.searcher import Stopped

    values = environment() | _source_flags(given, SOURCE_FLAGS)
    config = CollectConfig.of(values | _classes(["check"]))
    stop = StopSignal()
    stop.listen()
    as_json = given.json
    shows_bars = not as_json and not given.quiet
    try:
        with progress_bars(quiet=not shows_bars) as bars:
            task = bars.add_task("Asking the sources", total=len(config.sources))

            def hear(health: "Health") -> None:
                bars.advance(task)
                if as_json:
                    print_json(asdict(health))

            answers = check_sources(config, stop, hear)
    except Stopped:
        print("Stopped before all sources had answered.", file=sys.stderr)
        return stop.exit_code
    if not as_json:
        _print_answers(answers)
    if any(answer.outcome in (Outcome.OK, Outcome.PARTIAL) for answer in answers):
        return DONE
    if any(answer.outcome == Outcome.NO_RESULTS for answer in answers):
        print("No source found anything.", file=sys.stderr)
    else:
        print("No source answers.", file=sys.stderr)
    return FAILED


def _print_answers(answers: "Sequence[Health]") -> None:
    table = Table("source", "outcome", "found", "seconds", "what it said", title="Sources")
    for answer in answers:
        table.add_row(
            CATALOGUE[answer.name].label,
            Outcome(answer.outcome).in_words,
            str(answer.found),
            f"{answer.seconds:.1f}",
            answer.message,
        )
    Console().print(table)
