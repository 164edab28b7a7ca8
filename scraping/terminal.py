"""What the commands of this library share on a terminal: common flags, progress bars, stopping."""

import argparse
import signal
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.terminal import FAILED, INTERRUPTED, whole_number

Values = dict[str, Any]
"""Keys of the configuration and their values, from flags or from the environment."""


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the flags of all commands that ask others for anything."""
    parser.add_argument(
        "--contact", help="your contact, for the User-Agent (none; PICAISSO_CONTACT)"
    )
    parser.add_argument(
        "--allow-private-host",
        dest="allowed_private_hosts",
        action="append",
        metavar="HOST:PORT",
        help="lift the address rule for a host of your own; repeatable "
        "(none; PICAISSO_ALLOWED_PRIVATE_HOSTS)",
    )


def add_sides(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the sizes of pictures."""
    pixels = whole_number(1, unit="pixels")
    parser.add_argument(
        "--max-side",
        type=pixels,
        metavar="PX",
        help="scale pictures to this longer side (1024; PICAISSO_MAX_SIDE)",
    )
    parser.add_argument(
        "--min-side",
        type=pixels,
        metavar="PX",
        help="refuse pictures whose shorter side is below (200; PICAISSO_MIN_SIDE)",
    )


def add_refusals(parser: argparse.ArgumentParser) -> None:
    """Add the flags for what the operator refuses."""
    parser.add_argument(
        "--refused-digests",
        metavar="FILE",
        help="SHA-256 digests of pictures to refuse, one a line, logged by digest alone "
        "(none; PICAISSO_REFUSED_DIGESTS)",
    )
    parser.add_argument(
        "--nudity-model",
        metavar="FILE",
        help="ONNX model that refuses pictures, see docs/sources.md (none; PICAISSO_NUDITY_MODEL)",
    )
    parser.add_argument(
        "--ai-made",
        choices=("leave_out", "keep"),
        help="pictures whose file says that AI made them (leave_out; PICAISSO_AI_MADE)",
    )


def given_flags(given: argparse.Namespace, names: Sequence[str]) -> Values:
    """Return those of the named flags that were given."""
    flags = {}
    for name in names:
        value = getattr(given, name, None)
        if value is not None:
            flags[name] = value
    return flags


class StopSignal(threading.Event):
    """Is set by SIGTERM and Ctrl-C, once it listens for them."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    def listen(self) -> None:
        """Handle both signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    @property
    def exit_code(self) -> int:
        """Return the exit code of a command that was stopped so."""
        return INTERRUPTED if self._number == signal.SIGINT else FAILED

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        self.set()


def progress_bars(quiet: bool = False) -> Progress:
    """Return progress bars for standard error, where that is a terminal.

    Standard output holds the result.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )


def reasons_in_words(rejected: Mapping[str, int]) -> str:
    """Return the numbers of rejections by reason as people read them: `2 too small`."""
    parts = []
    for reason, count in sorted(rejected.items()):
        parts.append(f"{count} {reason.replace('_', ' ')}")
    return ", ".join(parts)
