"""`python -m scraping`: collect, check, download, screen, gallery. It alone reads settings."""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from scraping import ConfigError, SettingError, __version__
from scraping.download_list import DownloadSettings, DownloadSummary, download_list, read_urls
from scraping.net.http import FetchSettings
from scraping.records.image_log import ImageRecord
from scraping.refused_digests import RefusedDigests
from scraping.screening.nudity import check_model
from scraping.screening.screen import AI_MADE_CHOICES, ScreenSettings
from scraping.sources.catalogue import (
    DEFAULT_ORDER,
    SEARCHED,
    credential_settings,
    url_setting,
    usual_sources,
)
from scraping.terminal import (
    DONE,
    FAILED,
    WRONG_USAGE,
    Values,
    add_common,
    add_refusals,
    given_flags,
    print_line,
    progress_bars,
    reasons_in_words,
    replace_unknown_characters,
)
from training.environment import EnvironmentFileError, read_environment


def _split_list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


# Environment variable, key of the configuration, and how its text is read.
ENVIRONMENT: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("PICAISSO_SOURCES", "sources", _split_list),
    ("PICAISSO_ROBOTS", "robots", str),
    ("PICAISSO_CONTACT", "contact", str),
    ("PICAISSO_LOCALE", "locale", str),
    ("PICAISSO_CHROME", "chrome", str),
    ("PICAISSO_CHROMEDRIVER", "chromedriver", str),
    ("PICAISSO_SELENIUM_REMOTE_URL", "selenium_remote_url", str),
    ("PICAISSO_ALLOWED_PRIVATE_HOSTS", "allowed_private_hosts", _split_list),
    ("PICAISSO_MIN_IMAGES", "minimum", int),
    ("PICAISSO_MIN_SIDE", "min_side", int),
    ("PICAISSO_MAX_SIDE", "max_side", int),
    ("PICAISSO_AI_MADE", "ai_made", str),
    ("PICAISSO_REFUSED_DIGESTS", "refused_digests", str),
    ("PICAISSO_NUDITY_MODEL", "nudity_model", str),
    ("PICAISSO_COLLECT_MINUTES", "deadline_seconds", lambda text: float(text) * 60),
)


DOWNLOAD_FLAGS = (
    "min_side",
    "max_side",
    "contact",
    "allowed_private_hosts",
    "refused_digests",
    "nudity_model",
    "ai_made",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    replace_unknown_characters()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if arguments is None:
        arguments = sys.argv[1:]
    command = next((word for word in arguments if not word.startswith("-")), "")
    parser = build_parser(command)
    given = parser.parse_args(arguments)
    try:
        variables = read_environment(os.environ, Path(".env"))
        _forget_credentials()
        if given.command == "download":
            return _download(given, variables)
        if given.command == "gallery":
            return _gallery(given)
        if given.command == "screen":
            return _screen(given, variables)
        from scraping import cli

        run = cli.run_collect if given.command == "collect" else cli.run_check
        return run(parser, given, partial(environment_values, variables))
    except (EnvironmentFileError, SettingError) as error:
        print(str(error), file=sys.stderr)
        return WRONG_USAGE
    except (ConfigError, OSError) as error:
        print(str(error), file=sys.stderr)
        return FAILED


def _forget_credentials() -> None:
    """Take the credentials out of the environment: browser and screening inherit it."""
    for name in credential_settings().values():
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)


def environment_values(variables: Mapping[str, str]) -> Values:
    """Return the configuration keys that the environment sets.

    Raises ConfigError for a value that cannot be read.
    """
    values = _plain_values(variables)
    urls = {}
    for source in SEARCHED:
        url = variables.get(url_setting(source), "").strip()
        if url:
            urls[source] = url
    if urls:
        values["source_urls"] = urls
    # Credentials have no flags: everybody on the machine can read a command line.
    credentials = {}
    for credential, name in credential_settings().items():
        value = variables.get(name, "").strip()
        if value:
            credentials[credential] = value
    if credentials:
        values["credentials"] = credentials
    usual = usual_sources(credentials)
    if "sources" not in values and usual != DEFAULT_ORDER:
        values["sources"] = list(usual)
    return values


def _plain_values(variables: Mapping[str, str]) -> Values:
    values: Values = {}
    for name, key, read in ENVIRONMENT:
        text = variables.get(name, "").strip()
        if not text:
            continue
        try:
            values[key] = read(text)
        except ValueError as error:
            raise ConfigError(f"{name} cannot be read: {text!r}.") from error
    return values


def build_parser(command: str) -> argparse.ArgumentParser:
    """Return the command line's parser.

    The flags of `collect` and `check` are there only when `command` is one of them, because they
    load all sources.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scraping",
        description="Turns words into picture files. "
        "Every flag has a PICAISSO_ variable; a flag wins.",
    )
    parser.add_argument("--version", action="version", version=f"picaisso {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    collect = commands.add_parser("collect", help="fill a quota of pictures for each class")
    check = commands.add_parser("check", help="ask each source one small question")
    _add_download(commands.add_parser("download", help="download and screen a list of addresses"))
    _add_gallery(
        commands.add_parser("gallery", help="serve a search site over a folder of pictures")
    )
    _add_screen(commands.add_parser("screen", help="screen the files of a folder"))
    if command in ("collect", "check"):
        from scraping import cli

        cli.add_collect(collect)
        cli.add_check(check)
    return parser


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "list",
        type=Path,
        metavar="URLS.txt",
        help="an address per line, or a CSV with a column of them",
    )
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
    add_refusals(parser)
    add_common(parser)


def _add_gallery(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--port", type=int, default=8001, help="0 picks a free one (8001)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")


def _add_screen(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Stores what is a usable picture clean, in sub-folders of the same names, and writes "
        "screened.jsonl: a row per file. A screening.json in the folder says how; flags win."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with a sub-folder per class")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument("--min-side", type=int, metavar="PX")
    parser.add_argument("--max-side", type=int, metavar="PX")
    add_refusals(parser)


def _screen(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    from scraping.screen_folder import screen_folder

    config = given.folder / "screening.json"
    written = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    flags = given_flags(given, DOWNLOAD_FLAGS)
    values = _plain_values(variables) | written | flags
    screening = _screen_settings(values)
    screening = replace(screening, taken_down=frozenset(values.get("taken_down", ())))
    refused = RefusedDigests.read(values.get("refused_digests", ""))
    if not given.folder.is_dir():
        print(f"{given.folder} is no folder.", file=sys.stderr)
        return FAILED
    work = screen_folder(given.folder, given.out.resolve(), screening, refused)
    print_line({"rejected": asyncio.run(work)})
    return DONE


def _download(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    flags = given_flags(given, DOWNLOAD_FLAGS)
    values = _plain_values(variables) | flags
    fetching = FetchSettings(
        contact=values.get("contact", ""),
        allowed_private_hosts=frozenset(values.get("allowed_private_hosts", ())),
        connections=given.concurrency,
        per_host=given.per_host,
    )
    screening = _screen_settings(values)
    refused = RefusedDigests.read(values.get("refused_digests", ""))
    settings = DownloadSettings(fetching, screening, refused=refused)
    urls = read_urls(given.list)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    as_json = given.json or not sys.stdout.isatty()
    try:
        summary = _run_download(urls, given.out.resolve(), settings, as_json)
    except KeyboardInterrupt:
        print("Stopped before the end; the same command goes on from here.", file=sys.stderr)
        return FAILED
    if not as_json:
        reasons = reasons_in_words(summary.rejected)
        ending = f": {reasons}" if reasons else ""
        print(f"{summary.kept} of {summary.total} kept{ending}")
    return DONE


def _screen_settings(values: Values) -> ScreenSettings:
    """Return how a list is screened. Raises ConfigError for what cannot be done."""
    keys = ("min_side", "max_side", "nudity_model", "ai_made")
    settings = ScreenSettings(**{key: values[key] for key in keys if key in values})
    check_model(settings.nudity_model)
    if settings.ai_made not in AI_MADE_CHOICES:
        raise ConfigError(f"PICAISSO_AI_MADE is neither {' nor '.join(AI_MADE_CHOICES)}.")
    return settings


def _run_download(
    urls: list[str], folder: Path, settings: DownloadSettings, as_json: bool
) -> DownloadSummary:
    if as_json:
        summary = asyncio.run(
            download_list(urls, folder, settings, lambda record, _decided: print_line(record))
        )
        print_line(asdict(summary))
        return summary
    with progress_bars() as bars:
        task = bars.add_task("Downloading", total=len(urls))

        def show(_record: ImageRecord, decided: int) -> None:
            bars.update(task, completed=decided)

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
