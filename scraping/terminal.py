"""What all commands share on a terminal: exit codes, common flags, progress bars, JSON lines."""

import argparse
import codecs
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

DONE = 0
FAILED = 1
WRONG_USAGE = 2

Values = dict[str, Any]
"""Keys of the configuration and their values, from flags or from the environment."""


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all commands but `gallery` have."""
    parser.add_argument("--contact", help="your contact, for the User-Agent")
    parser.add_argument(
        "--allow-private-host",
        dest="allowed_private_hosts",
        action="append",
        metavar="HOST:PORT",
        help="lift the address rule for a host of your own; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="JSON lines instead of bars and tables")


def add_refusals(parser: argparse.ArgumentParser) -> None:
    """Add the flags for what the operator refuses."""
    parser.add_argument(
        "--refused-digests",
        metavar="FILE",
        help="SHA-256 digests of pictures to refuse, one a line, logged by digest alone",
    )
    parser.add_argument(
        "--nudity-model", metavar="FILE", help="ONNX model that refuses pictures (see the README)"
    )
    parser.add_argument(
        "--ai-made",
        choices=("leave_out", "keep"),
        help="pictures whose file says that AI made them (leave_out)",
    )


def given_flags(given: argparse.Namespace, names: Sequence[str]) -> Values:
    """Return those of the named flags that were given."""
    flags = {}
    for name in names:
        value = getattr(given, name, None)
        if value is not None:
            flags[name] = value
    return flags


def progress_bars() -> Progress:
    """Return progress bars for standard error: standard output holds the result."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def replace_unknown_characters() -> None:
    """Have standard output replace what its encoding does not know, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def print_line(value: Any) -> None:
    """Print a value as one line of JSON, at once: in ASCII unless standard output is UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    print(json.dumps(value, ensure_ascii=not is_utf8), flush=True)


def reasons_in_words(rejected: Mapping[str, int]) -> str:
    """Return the numbers of rejections by reason as people read them: `2 too small`."""
    parts = []
    for reason, count in sorted(rejected.items()):
        parts.append(f"{count} {reason.replace('_', ' ')}")
    return ", ".join(parts)
