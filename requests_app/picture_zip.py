"""Read a zip of pictures, one folder per class, as people send them; nothing goes to the disk.

Names inside are only compared with those of the classes; no path is ever made of them. What is
refused has a sentence; what systems put in by themselves is passed over.
"""

import io
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

MOST_ENTRIES = 5000
MOST_PICTURES = 500
LARGEST_PICTURE = 20_000_000  # bytes
MOST_UNPACKED = 300_000_000  # bytes
MOST_GROWTH = 20  # times that an entry may grow: pictures hardly shrink
GROWTH_FROM = 100_000  # bytes from which that is asked
LONGEST_NAME = 120  # characters shown

ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz")
OF_SYSTEMS = {"__macosx", "thumbs.db", "desktop.ini"}
UNREADABLE = (
    OSError, EOFError, ValueError, RuntimeError, NotImplementedError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class ZipRefusedError(Exception):
    """The whole zip is refused; the message is a sentence for the person."""


@dataclass(frozen=True)
class ZippedPicture:
    """One picture of a zip; its content has not been looked at."""

    class_number: int
    name: str
    content: bytes


@dataclass
class PicturesOfZip:
    """What came of a zip."""

    taken: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Name and why."""


def read_zip(
    data: bytes, class_numbers: Mapping[str, int], take: Callable[[ZippedPicture], None]
) -> PicturesOfZip:
    """Hand on the pictures of a zip one after the other, so that one is in memory at a time.

    :param class_numbers: number by name, for names as ``folder_key`` returns them
    :param take: called with each picture; with none where the zip is refused
    :raises ZipRefusedError: it cannot be read, or holds more than pictures do
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = archive.infolist()
    except UNREADABLE as error:
        raise ZipRefusedError("This file is not a zip that can be read.") from error
    if len(entries) > MOST_ENTRIES:
        raise ZipRefusedError(
            f"This zip has {len(entries)} entries; at most {MOST_ENTRIES} are read."
        )
    found = PicturesOfZip()
    of_classes = _of_classes(entries, class_numbers, found)
    unpacked = sum(entry.file_size for entry, _number in of_classes)  # no entry yields more
    if unpacked > MOST_UNPACKED:
        raise ZipRefusedError(
            f"This zip holds more than {MOST_UNPACKED // 1_000_000} MB. Give fewer pictures."
        )
    for entry, number in of_classes:
        name = entry.filename[-LONGEST_NAME:]
        content = _content(archive, entry)
        if content is None:
            found.refused.append((name, "This file is damaged, or larger than the zip says."))
            continue
        take(ZippedPicture(number, name, content))
        found.taken += 1
    return found


def _of_classes(
    entries: list[zipfile.ZipInfo], class_numbers: Mapping[str, int], found: PicturesOfZip
) -> list[tuple[zipfile.ZipInfo, int]]:
    """Return the entries that may be pictures of a class, with its number; note the others."""
    chosen: list[tuple[zipfile.ZipInfo, int]] = []
    for entry in _files(entries):
        problem = _problem(entry)
        number = class_numbers.get(folder_key(_folder(entry)))
        if not problem and number is None:
            problem = _no_class(_folder(entry))
        if not problem and len(chosen) >= MOST_PICTURES:
            problem = f"Only {MOST_PICTURES} pictures are taken."
        if problem or number is None:
            found.refused.append((entry.filename[-LONGEST_NAME:], problem))
        else:
            chosen.append((entry, number))
    return chosen


def folder_key(name: str) -> str:
    """Return the name of a folder or class so that different spellings of it are equal."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def _files(entries: list[zipfile.ZipInfo]) -> Iterator[zipfile.ZipInfo]:
    """Yield the entries that a person put in."""
    for entry in entries:
        path = PurePosixPath(entry.filename)
        name = path.name
        if not name or entry.is_dir():
            continue
        is_hidden = name.startswith(".") and name != ".."
        lower = {part.lower() for part in path.parts}
        if not is_hidden and not lower & OF_SYSTEMS:
            yield entry


def _folder(entry: zipfile.ZipInfo) -> str:
    return PurePosixPath(entry.filename).parent.name


def _problem(entry: zipfile.ZipInfo) -> str:
    """Return why an entry is not even unpacked, "" if it may be."""
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return "Its path leads out of the zip."
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "It is a link, not a picture."
    if entry.flag_bits & 1:
        return "It is locked with a password."
    if path.suffix.lower() in ARCHIVES:
        return "It is an archive inside the zip. Put its pictures into the folders themselves."
    if entry.file_size > LARGEST_PICTURE:
        return f"It is larger than {LARGEST_PICTURE // 1_000_000} MB."
    grows = entry.file_size > MOST_GROWTH * max(1, entry.compress_size)
    if grows and entry.file_size > GROWTH_FROM:
        return "It grows far more than a picture does when it is unpacked."
    return ""


def _no_class(folder: str) -> str:
    if not folder:
        return "It lies in no folder; the folder says which class it shows."
    return f"No class is called “{folder[:LONGEST_NAME]}”."


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | None:
    """Return the bytes of an entry; None if it is damaged or lies about its size."""
    try:
        with archive.open(entry) as file:
            content = file.read(LARGEST_PICTURE + 1)
    except UNREADABLE:
        return None
    return content if len(content) <= LARGEST_PICTURE else None
