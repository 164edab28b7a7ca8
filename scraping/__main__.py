"""`python -m scraping`: collect, check, download, gallery. The only place here that reads
environment settings.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from scraping import ConfigError, __version__
from scraping.download_list import DownloadSettings, DownloadSummary, download_list, read_urls
from scraping.net.http import FetchSettings
from scraping.screening.screen import ScreenSettings
from scraping.sources.catalogue import CATALOGUE, DEFAULT_ORDER, usual_sources
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

# Environment variable and the credential that it holds. These have no flags: a command line is seen
# by all.
CREDENTIALS = {
    "PICAISSO_OPENVERSE_CLIENT_ID": "openverse_client_id",
    "PICAISSO_OPENVERSE_CLIENT_SECRET": "openverse_client_secret",
    "PICAISSO_PIXABAY_KEY": "pixabay_key",
}


def read_dotenv(path: Path) -> dict[str, str]:
    """Variables of a `.env` file: `NAME=value` lines, optionally quoted or exported; `#` lines are
    comments.
    """
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
    """Configuration keys that the environment sets. Raises ConfigError for a value that cannot be
    read.
    """
    return _plain_values(variables) | _source_values(variables)


def _plain_values(variables: Mapping[str, str]) -> Values:
    values: Values = {}
    for name, key, read in ENVIRONMENT:
        if text := variables.get(name, "").strip():
            try:
                values[key] = read(text)
            except ValueError as error:
                raise ConfigError(f"{name} cannot be read: {text!r}.") from error
    return values


def _source_values(variables: Mapping[str, str]) -> Values:
    """Where the sources are, with which accounts, and which of them are asked where nobody has
    said.
    """
    names = {
        source: variables.get(f"PICAISSO_{source.upper()}_URL", "").strip() for source in CATALOGUE
    }
    urls = {source: url for source, url in names.items() if url}
    secrets = {
        key: text for name, key in CREDENTIALS.items() if (text := variables.get(name, "").strip())
    }
    values: Values = {}
    named = variables.get("PICAISSO_SOURCES", "").strip()
    if not named and (usual := usual_sources(secrets)) != DEFAULT_ORDER:
        values["sources"] = list(usual)
    return (
        values
        | ({"source_urls": urls} if urls else {})
        | ({"credentials": secrets} if secrets else {})
    )


def build_parser(command: str) -> argparse.ArgumentParser:
    """The command line. The flags of the commands that ask sources are there only where ``command``
    is one of them.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scraping",
        description="Turns words into picture files. Every flag has a PICAISSO_ variable; a flag wins.",
    )
    parser.add_argument("--version", action="version", version=f"picaisso {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    collect = commands.add_parser("collect", help="fill a quota of pictures for each class")
    check = commands.add_parser("check", help="ask each source one small question")
    _add_download(commands.add_parser("download", help="download and screen a list of addresses"))
    _add_gallery(
        commands.add_parser("gallery", help="serve a search site over a folder of pictures")
    )
    if command in ("collect", "check"):
        from scraping import cli

        cli.add_collect(collect)
        cli.add_check(check)
    return parser


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("list", type=Path, metavar="URLS.txt", help="an address per line")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument("--per-host", type=int, default=4, help="connections to one host (4)")
    parser.add_argument("--concurrency", type=int, default=64, help="connections in all (64)")
    parser.add_argument(
        "--min-side",
        type=int,
        metavar="PX",
        help="refuse pictures whose shorter side is below (200)",
    )
    parser.add_argument(
        "--max-side", type=int, metavar="PX", help="scale pictures to this longer side (1024)"
    )
    add_common(parser)


def _add_gallery(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--port", type=int, default=8001, help="0 picks a free one (8001)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = build_parser(next((word for word in arguments if not word.startswith("-")), ""))
    given = parser.parse_args(arguments)
    variables = read_dotenv(Path(".env")) | dict(os.environ)
    try:
        if given.command == "download":
            return _download(given, variables)
        if given.command == "gallery":
            return _gallery(given)
        from scraping import cli

        run = cli.run_collect if given.command == "collect" else cli.run_check
        return run(parser, given, partial(environment_values, variables))
    except (ConfigError, OSError) as error:
        print(str(error), file=sys.stderr)
        return FAILED


def _download(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    names = ("min_side", "max_side", "contact", "allowed_private_hosts")
    values = _plain_values(variables) | flags_of(given, names)
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
        summary = _run_download(
            urls, given.out.resolve(), settings, given.json or not sys.stdout.isatty()
        )
    except KeyboardInterrupt:
        print("Stopped before the end; the same command goes on from here.", file=sys.stderr)
        return FAILED
    if not given.json and sys.stdout.isatty():
        reasons = reasons_in_words(summary.rejected)
        print(f"{summary.kept} of {summary.total} kept{': ' + reasons if reasons else ''}")
    return DONE


def _run_download(
    urls: list[str], folder: Path, settings: DownloadSettings, as_json: bool
) -> DownloadSummary:
    if as_json:
        summary = asyncio.run(
            download_list(urls, folder, settings, lambda row, _done: print_line(row))
        )
        print_line(asdict(summary))
        return summary
    with bars_on_stderr() as bars:
        task = bars.add_task("Downloading", total=len(urls))
        show: Callable[[Any, int], None] = lambda _row, done: bars.update(task, completed=done)  # noqa: E731
        return asyncio.run(download_list(urls, folder, settings, show))


def _gallery(given: argparse.Namespace) -> int:
    if not given.folder.is_dir():
        print(f"{given.folder} is no folder.", file=sys.stderr)
        return FAILED
    from scraping.gallery import serve

    with contextlib.suppress(KeyboardInterrupt):
        serve(given.folder, given.host, given.port)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
