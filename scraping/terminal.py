"""What all commands share on a terminal: exit codes, common flags, progress bars, JSON lines."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

DONE, FAILED = 0, 1
Values = dict[str, Any]


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--contact", help="your contact, for the User-Agent")
    parser.add_argument(
        "--allow-private-host",
        dest="allowed_private_hosts",
        action="append",
        metavar="HOST:PORT",
        help="lift the address rule for a host of your own; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="JSON lines instead of bars and tables")


def flags_of(given: argparse.Namespace, names: Sequence[str]) -> Values:
    return {name: getattr(given, name) for name in names if getattr(given, name, None) is not None}


def bars_on_stderr() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def print_line(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def reasons_in_words(rejected: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(rejected.items())
    )
