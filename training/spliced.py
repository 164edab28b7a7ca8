"""Files that are read as one and lie on disk in pieces, so that nothing lies there twice.

`model.zip` and `model.pth` are mostly bytes that the model folder has already. What they have of
their own lies in a *splice*: a line of JSON that lists all parts in order, then those bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from training.run_folder import atomic_write

SPLICE_SUFFIX = ".splice"
PTH_SPLICE = "model.pth.splice"  # in a run folder, of files of its model folder
# Of the header before each file in a zip: the lengths of its name and its extra field, which lie
# between the header and the content. PKWARE's APPNOTE.TXT, 4.3.7.
_ZIP_HEADER = struct.Struct("<26xHH")
ZIP_HEADER_BYTES = _ZIP_HEADER.size
_LONGEST_LIST = 1 << 24  # bytes of the line of JSON
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Piece:
    """Bytes of a file of the folder that a splice belongs to."""

    file: str
    offset: int
    length: int


Part = bytes | Piece


@dataclass(frozen=True)
class Spliced:
    """A spliced file, as whoever reads it sees it."""

    bytes: int
    sha256: str


class SpliceError(OSError):
    """A splice is damaged, or a file that it takes pieces from is not what it was."""


def zip_content_start(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Return where in an opened zip the packed bytes of an entry begin."""
    file.seek(entry.header_offset)
    lengths = _ZIP_HEADER.unpack(file.read(_ZIP_HEADER.size))
    return entry.header_offset + _ZIP_HEADER.size + sum(lengths)


def parts_of_zip(
    path: Path, piece_of: Callable[[zipfile.ZipInfo, bytes], Piece | None]
) -> list[Part]:
    """Return a zip as pieces of other files, and its bytes before, between and after them.

    `piece_of` is given each entry with its packed bytes, and returns where else those lie, if they
    do.
    """
    parts: list[Part] = []
    done = 0
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
            start = zip_content_start(file, entry)
            file.seek(start)
            piece = piece_of(entry, file.read(entry.compress_size))
            if piece is None:
                continue
            file.seek(done)
            parts.append(file.read(start - done))
            parts.append(piece)
            done = start + piece.length
        file.seek(done)
        parts.append(file.read())
    return parts


def write_splice(path: Path, parts: Sequence[Part], folder: Path) -> Spliced:
    """Write a splice of files in a folder; return size and digest of what it stands for.

    Raises OSError where a file is missing or too short.
    """
    rows: list[list[str | int]] = []
    for part in parts:
        if isinstance(part, Piece):
            rows.append([part.file, part.offset, part.length])
        else:
            rows.append(["", 0, len(part)])
    with atomic_write(path) as file:
        file.write(json.dumps(rows).encode() + b"\n")
        for part in parts:
            if isinstance(part, bytes):
                file.write(part)
    return spliced(path, folder)


def spliced(path: Path, folder: Path) -> Spliced:
    """Return size and digest of what a splice stands for. Raises OSError."""
    with open_splice(path, folder) as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
        return Spliced(whole.tell(), digest)


def open_splice(path: Path, folder: Path) -> io.BufferedReader:
    """Open what a splice stands for, to read and to seek in; all of its files are open then.

    Raises OSError, or SpliceError where its files are not those that it was made of.
    """
    return io.BufferedReader(_SplicedReader(path, folder), _BUFFER_BYTES)


class _SplicedReader(io.RawIOBase):
    """The bytes of all parts, one after the other."""

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__()
        self._files = ExitStack()
        try:
            own = self._files.enter_context(path.open("rb"))
            self._parts = _parts_of(own, path)
            self._opened: dict[str, BinaryIO] = {"": own}
            for name in {part.file for part in self._parts if part.file}:
                self._opened[name] = self._files.enter_context((folder / name).open("rb"))
            self._check_lengths(path)
        except BaseException:
            self._files.close()
            raise
        self._ends = list(accumulate(part.length for part in self._parts))
        self._position = 0

    def _check_lengths(self, path: Path) -> None:
        for part in self._parts:
            length = self._opened[part.file].seek(0, io.SEEK_END)
            if part.offset + part.length > length:
                raise SpliceError(f"{path.name} does not match {part.file or 'its own bytes'}.")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        starts = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: self._ends[-1] if self._ends else 0,
        }
        self._position = max(0, starts[whence] + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        index = bisect_right(self._ends, self._position)
        if index == len(self._parts):
            return 0
        part = self._parts[index]
        left = self._ends[index] - self._position
        file = self._opened[part.file]
        file.seek(part.offset + part.length - left)
        content = file.read(min(left, len(buffer)))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        self._files.close()
        super().close()


def _parts_of(own: BinaryIO, path: Path) -> list[Piece]:
    """Return the parts of an opened splice; those without a file are pieces of itself."""
    line = own.readline(_LONGEST_LIST)
    try:
        rows = [(str(file), int(offset), int(length)) for file, offset, length in json.loads(line)]
    except (ValueError, TypeError, RecursionError) as error:
        raise SpliceError(f"{path.name} is damaged.") from error
    parts = []
    start = len(line)
    for file, offset, length in rows:
        if "/" in file or length < 0 or offset < 0:
            raise SpliceError(f"{path.name} is damaged.")
        if file:
            parts.append(Piece(file, offset, length))
            continue
        parts.append(Piece("", start, length))
        start += length
    return [part for part in parts if part.length]
