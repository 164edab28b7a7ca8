"""How this library writes and reads its files: atomically, as JSON and as JSON lines."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any


def now() -> str:
    """Return the present time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def atomic_writer(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """Open a file beside the target and rename it at the end: a file that exists is complete.

    With `durable` the data has reached the disk before the rename.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a whole file, see `atomic_writer`."""
    with atomic_writer(path, durable=durable) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically and durably."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    atomic_write(path, text.encode(errors="replace"), durable=True)


def json_line(value: Any) -> bytes:
    """Return a value as one line of a JSON-lines file, with its newline.

    Half a surrogate pair, which no encoding can write, becomes a question mark.
    """
    return json.dumps(value, ensure_ascii=False).encode(errors="replace") + b"\n"


def read_json_lines(path: Path) -> Iterator[Any]:
    """Yield the values of a JSON-lines file; nothing when there is no such file.

    A line that cannot be parsed is skipped: a killed process may leave its last one torn.
    """
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            try:
                yield json.loads(line)
            except ValueError:
                continue
