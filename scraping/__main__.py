"""`python -m scraping`: its commands. It alone reads settings."""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scraping import ConfigError, SettingError, __version__, cli
from scraping.refused_digests import RefusedDigests
from scraping.sources.catalogue import (
    CATALOGUE,
    DEFAULT_ORDER,
    credential_settings,
    url_setting,
    usual_sources,
)
from scraping.terminal import (
    Values,
    add_common,
    add_refusals,
    add_sides,
    given_flags,
    progress_bars,
    reasons_in_words,
)
from training import log_lines
from training.environment import EnvironmentFileError, read_environment
from training.terminal import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    add_example,
    add_output_flags,
    address_sentence,
    print_json,
    replace_unknown_characters,
    system_sentence,
    whole_number,
)

# What works is loaded when a command works: wrong usage is told before.
if TYPE_CHECKING:
    from scraping.download_list import DownloadSettings, DownloadSummary
    from scraping.records.image_log import ImageRecord
    from scraping.replay import Replayed
    from scraping.screening.screen import ScreenSettings

    OnRecord = Callable[[ImageRecord, int], None]

Result = TypeVar("Result")

_DOWNLOAD_EXAMPLE = "python -m scraping download urls.txt --out pictures --per-host 4"
_REPLAY_EXAMPLE = """\
python -m scraping replay recipe.json --out pictures
python -m training fit --images pictures --out run"""
_SCREEN_EXAMPLE = """\
python -m scraping screen received --out clean
python -m training measure run clean"""
_GALLERY_EXAMPLE = """\
python -m scraping gallery /usr/share/tuxpaint/stamps --port 8001
python -m scraping collect animals food --out pictures --source bing \\
    --source-url bing=http://127.0.0.1:8001 --allow-private-host 127.0.0.1:8001 --min-side 64"""


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
    # It reports each try to reach a browser that has been ended; we say what came of it.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    given = build_parser().parse_args(arguments)
    try:
        variables = read_environment(os.environ, Path(".env"))
        log_lines.set_up(variables)
        _forget_credentials()
        return int(given.run(given, variables))
    except (EnvironmentFileError, SettingError) as error:
        print(str(error), file=sys.stderr)
        return WRONG_USAGE
    except ConfigError as error:
        print(str(error), file=sys.stderr)
    except OSError as error:
        print(system_sentence(error), file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped. Give the same command again to finish it.", file=sys.stderr)
        return INTERRUPTED
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
    for source, info in CATALOGUE.items():
        url = variables.get(url_setting(source), "").strip()
        if url and not info.supplied:
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


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m scraping",
        description="Turns words into picture files. A flag wins over the PICAISSO_ variable that "
        "stands beside its default.",
    )
    parser.add_argument("--version", action="version", version=f"picaisso {__version__}")
    add_example(parser, 'python -m scraping collect corgi "shiba inu" --limit 100 --out pictures')
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text)
        added.set_defaults(parser=added, run=run)
        return added

    cli.add_collect(command("collect", _collect, "fill a quota of pictures for each class"))
    cli.add_check(command("check", _check, "ask each source one small question"))
    _add_download(command("download", _download, "download and screen a list of addresses"))
    _add_replay(command("replay", _replay, "download the pictures of a recipe again"))
    _add_gallery(command("gallery", _gallery, "serve a search site over a folder of pictures"))
    _add_screen(command("screen", _screen, "screen the files of a folder"))
    return parser


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Downloads and screens a list of addresses. The folder gets images/ and images.jsonl, a "
        "row per address; the same command goes on where it was stopped."
    )
    parser.add_argument(
        "list",
        type=Path,
        metavar="URLS.txt",
        help="an address per line, or a CSV with a column of them",
    )
    _add_downloading(parser)
    add_output_flags(parser, "print a line of JSON for each address, then the counts")
    add_example(parser, _DOWNLOAD_EXAMPLE)


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Downloads the pictures that a recipe.json names (it lies in every dataset), says which "
        "are still the same, and leaves a folder that trains with the same split. What has "
        "changed is kept apart. The same command goes on where it was stopped."
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE.json")
    _add_downloading(parser)
    add_output_flags(parser, "print what became of the pictures as a line of JSON")
    add_example(parser, _REPLAY_EXAMPLE)


def _add_downloading(parser: argparse.ArgumentParser) -> None:
    """Add the flags of what downloads a list."""
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument(
        "--per-host",
        type=whole_number(1),
        default=4,
        metavar="N",
        help="connections to one host (4)",
    )
    parser.add_argument(
        "--concurrency",
        type=whole_number(1),
        default=64,
        metavar="N",
        help="connections in all (64)",
    )
    add_sides(parser)
    add_refusals(parser)
    add_common(parser)


def _add_gallery(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serves a search site over a folder of pictures until Ctrl-C: its sub-folders are what can "
        "be searched for. `collect --source bing --source-url bing=URL` takes it for Bing."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--port", type=whole_number(0, 65535), default=8001, help="0 picks a free one (8001)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    add_output_flags(parser, 'print {"url": ...} instead of "gallery: URL"')
    add_example(parser, _GALLERY_EXAMPLE)


def _add_screen(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Stores what is a usable picture clean, in sub-folders of the same names, and writes "
        "screened.jsonl: a row per file. A screening.json in the folder says how; flags win."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with a sub-folder per class")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    add_sides(parser)
    add_refusals(parser)
    add_output_flags(parser, "print the numbers of files, by reason, as a line of JSON")
    add_example(parser, _SCREEN_EXAMPLE)


def _collect(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    return cli.run_collect(given, partial(environment_values, variables))


def _check(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    return cli.run_check(given, partial(environment_values, variables))


def _screen(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    if not given.folder.is_dir():
        raise ConfigError(f"{given.folder} is no folder.")
    from scraping.screen_folder import screen_folder

    values = _plain_values(variables) | _written_screening(given.folder)
    values |= given_flags(given, DOWNLOAD_FLAGS)
    screening = _screen_settings(values)
    screening = replace(screening, taken_down=frozenset(values.get("taken_down", ())))
    refused = RefusedDigests.read(values.get("refused_digests", ""))
    with progress_bars(given.quiet or given.json) as bars:
        task = bars.add_task("Screening", total=None)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        work = screen_folder(given.folder, given.out.resolve(), screening, refused, show)
        counts = asyncio.run(work)
    if given.json:
        print_json({"kept": counts.kept, "rejected": counts.rejected})
    else:
        _print_counts(counts.kept, counts.kept + counts.rejected.total(), counts.rejected)
    return DONE


def _written_screening(folder: Path) -> Values:
    """Return the settings that a `screening.json` in the folder holds. Raises ConfigError."""
    path = folder / "screening.json"
    if not path.exists():
        return {}
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON.") from error
    if not isinstance(written, dict):
        raise ConfigError(f"{path} holds no object.")
    return written


def _print_counts(kept: int, total: int, rejected: Mapping[str, int]) -> None:
    reasons = reasons_in_words(rejected)
    ending = f": {reasons}" if reasons else ""
    print(f"{kept} of {total} kept{ending}")


def _download(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    from scraping.download_list import download_list, read_urls

    values = _plain_values(variables) | given_flags(given, DOWNLOAD_FLAGS)
    settings = _download_settings(given, values)
    urls = read_urls(given.list)
    folder = given.out.resolve()

    def work(show: "OnRecord") -> "DownloadSummary":
        return asyncio.run(download_list(urls, folder, settings, show))

    summary, code = _run_download(work, given, len(urls), rows_are_results=True)
    if summary is None:
        return code
    if given.json:
        print_json(asdict(summary))
    else:
        _print_counts(summary.kept, summary.total, summary.rejected)
    return DONE


def _replay(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    from scraping.replay import prepare, replay

    recipe = prepare(given.recipe, given.out)
    values = _plain_values(variables)
    for name in ("min_side", "max_side"):  # as the pictures of the recipe were stored
        side = getattr(recipe, name)
        if side is not None:
            values[name] = side
    values |= given_flags(given, DOWNLOAD_FLAGS)
    settings = _download_settings(given, values)
    folder = given.out.resolve()

    def work(show: "OnRecord") -> "Replayed":
        return replay(recipe, folder, settings, show)

    replayed, code = _run_download(work, given, len(recipe.images), rows_are_results=False)
    if replayed is None:
        return code
    if given.json:
        print_json(replayed.as_json())
        return DONE
    print(replayed.sentence)
    for number, reason in list(replayed.unusable.items())[:10]:
        print(f"Picture {number} of the recipe: {reason}.", file=sys.stderr)
    return DONE


def _download_settings(given: argparse.Namespace, values: Values) -> "DownloadSettings":
    """Return how a list is downloaded. Raises ConfigError for what cannot be done."""
    from scraping.download_list import DownloadSettings
    from scraping.net.http import FetchSettings

    fetching = FetchSettings(
        contact=values.get("contact", ""),
        allowed_private_hosts=frozenset(values.get("allowed_private_hosts", ())),
        connections=given.concurrency,
        per_host=given.per_host,
    )
    screening = _screen_settings(values)
    refused = RefusedDigests.read(values.get("refused_digests", ""))
    return DownloadSettings(fetching, screening, refused=refused)


def _run_download(
    work: "Callable[[OnRecord], Result]",
    given: argparse.Namespace,
    total: int,
    *,
    rows_are_results: bool,
) -> "tuple[Result | None, int]":
    """Do the work with its progress shown; return its result, or None and the exit code of a stop.

    With `--json` the rows go to standard output where they are results, else nowhere.
    """
    stopped_by = signal.SIGINT

    def stop_as_ctrl_c_does(number: int, _frame: object) -> None:
        nonlocal stopped_by
        stopped_by = signal.Signals(number)
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, stop_as_ctrl_c_does)
    with progress_bars(given.quiet or given.json) as bars:
        task = bars.add_task("Downloading", total=total)

        def show(record: "ImageRecord", decided: int) -> None:
            bars.update(task, completed=decided)
            if given.json and rows_are_results:
                print_json(record)

        try:
            return work(show), DONE
        except KeyboardInterrupt:
            pass
    print("Stopped before the end; the same command goes on from here.", file=sys.stderr)
    return None, INTERRUPTED if stopped_by == signal.SIGINT else FAILED


def _screen_settings(values: Values) -> "ScreenSettings":
    """Return how a list is screened. Raises ConfigError for what cannot be done."""
    from scraping.screening.nudity import check_model
    from scraping.screening.screen import AI_MADE_CHOICES, ScreenSettings

    keys = ("min_side", "max_side", "nudity_model", "ai_made")
    settings = ScreenSettings(**{key: values[key] for key in keys if key in values})
    check_model(settings.nudity_model)
    if settings.ai_made not in AI_MADE_CHOICES:
        raise ConfigError(f"PICAISSO_AI_MADE is neither {' nor '.join(AI_MADE_CHOICES)}.")
    return settings


def _gallery(given: argparse.Namespace, variables: Mapping[str, str]) -> int:
    if not given.folder.is_dir():
        raise ConfigError(f"{given.folder} is no folder.")
    from scraping.gallery import GalleryServer

    try:
        server = GalleryServer(given.folder, given.host, given.port)
    except OSError as error:
        raise ConfigError(address_sentence(given.host, given.port, error)) from error
    with server:
        # The first line says where, for programs that asked for any free port.
        if given.json:
            print_json({"url": server.url})
        else:
            print(f"gallery: {server.url}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            if not given.quiet:
                print("The gallery has stopped.", file=sys.stderr)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
