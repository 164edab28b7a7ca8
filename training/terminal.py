"""What all command lines have in common: exit codes, flags, kinds of numbers, what is printed.

`scraping`, `training` and the commands of `manage.py` use it. On consoles that lack characters,
others are shown for them.
"""

from __future__ import annotations

import argparse
import codecs
import errno
import io
import json
import math
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

DONE = 0
FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 128 + signal.SIGINT  # by Ctrl-C, as shells say it

_EXAMPLE = "example:\n"
_EXIT_CODES = "exit codes: 0 done, 1 refused or failed with one sentence, 2 wrong usage"


class HelpFormatter(argparse.HelpFormatter):
    """Folds the description, and leaves the example below it as it is written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(_EXAMPLE):
            return text
        return super()._fill_text(text, width, indent)


def add_example(parser: argparse.ArgumentParser, example: str) -> None:
    """End the help with an example, of one or more lines, and what the exit codes mean."""
    block = textwrap.indent(example.rstrip(), "  ")
    parser.epilog = f"{_EXAMPLE}{block}\n\n{_EXIT_CODES}"
    parser.formatter_class = HelpFormatter


def add_output_flags(parser: argparse.ArgumentParser, as_json: str = "print JSON") -> None:
    """Add the flags that every command has; `as_json` says what `--json` prints."""
    parser.add_argument("--json", action="store_true", help=as_json)
    parser.add_argument(
        "--quiet", action="store_true", help="show no progress: results and errors alone"
    )


def whole_number(least: int, most: int | None = None, unit: str = "") -> Callable[[str], int]:
    """Return how a flag reads a whole number from `least` to `most`, as argparse wants it."""
    of_unit = f" of {unit}" if unit else ""
    bounds = f"{least} or more" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            message = f"must be a whole number{of_unit}, {bounds}, not {text}"
            raise argparse.ArgumentTypeError(message)
        return value

    return read


def seconds(text: str) -> float:
    """Read a flag's number of seconds, as argparse wants it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text}")
    return value


def system_sentence(error: OSError) -> str:
    """Return what the operating system refused as a sentence that names the file or address."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return f"The system refused: {reason}."
    name = os.fsdecode(error.filename)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"There is no {name}."
    return f"{name} cannot be used: {reason}."


def address_sentence(host: str, port: int, error: OSError) -> str:
    """Return why a server cannot listen at an address, and what to do."""
    address = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{address} is taken by another program: choose another with --port."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"You may not listen at {address}: choose a --port above 1023."
    return f"{address} is no address of this machine: {error.strerror or error}."


def replace_unknown_characters() -> None:
    """Have standard output replace what its encoding does not know, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, at once: in ASCII unless standard output is UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    # Names of files can hold halves of surrogate pairs, which UTF-8 does not know either.
    if not is_utf8 or not _is_encodable(text):
        text = json.dumps(value)
    print(text, flush=True)


def print_progress(row: Mapping[str, Any]) -> None:
    """Print a row of progress as one line of JSON on standard error: the result comes on output."""
    print(json.dumps(row), file=sys.stderr, flush=True)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
