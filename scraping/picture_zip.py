"""Read a zip of pictures, one folder per class, as people send them; nothing goes to the disk.

Names inside are only compared with those of the classes; no path is ever made of them. What is
refused has a sentence; what systems put in by themselves is passed over.
"""

import io
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

MOST_ENTRIES = 5000
MOST_PICTURES = 500
LARGEST_PICTURE = 20_000_000  # bytes
MOST_UNPACKED = 300_000_000  # bytes
MOST_GROWTH = 20  # times that an entry may grow: pictures hardly shrink
GROWTH_FROM = 100_000  # bytes from which that is asked
LONGEST_NAME = 120  # characters shown
# Of the directory at the end of a zip, which has an entry for each file (APPNOTE.TXT, 4.3.12).
DIRECTORY_BYTES = 1000  # for each entry that is read
ENTRY_BYTES = 46  # besides what has these lengths: name, extra field, comment
LENGTHS = struct.Struct("<3H")
LENGTHS_AT = 28
DIRECTORY_START = b"PK\x01\x02"

ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz")
# How names are written where a zip does not say so; the first that gives names of classes counts.
ENCODINGS = (
    "utf-8", "cp437", "cp850", "cp852", "cp1252", "cp1250", "cp866", "cp1251", "cp932", "gb18030",
    "big5", "cp949",
)  # fmt: skip
UTF8_FLAG = 0x800
OF_SYSTEMS = {"__macosx", "thumbs.db", "desktop.ini"}
DAMAGED = "This file is damaged, or larger than the zip says."
UNREADABLE = (
    OSError, EOFError, ValueError, RuntimeError, NotImplementedError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# The others unpack a whole block before anybody can stop them.
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
PACKED_OTHERWISE = "It is packed in a way that is not read here. Make the zip anew with Deflate."

START_BYTES = 16
# How the formats begin that pictures are read in. What begins as mif1 or msf1 may be AVIF or HEIC:
# that is found out when it is decoded.
PICTURE_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|BM|RIFF....WEBP|....ftyp(avif|avis|mif1|msf1)", re.DOTALL
)
HEIC_START = re.compile(rb"....ftyphe", re.DOTALL)
NO_PICTURE = "It is no picture of a format that is read here: JPEG, PNG, WebP, GIF, BMP or AVIF."
HEIC = "HEIC pictures cannot be read here. Save it as JPEG."
# What folders are called that divide a dataset; each holds a folder for each class.
SPLIT_FOLDERS = {
    "train", "training", "val", "valid", "validation", "dev", "test", "testing",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What is read of a zip at most; what is unpacked is in bytes."""

    entries: int = MOST_ENTRIES
    pictures: int = MOST_PICTURES
    unpacked: int = MOST_UNPACKED


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


@dataclass(frozen=True)
class Entry:
    """A file in a zip that may be a picture of a class; nothing of it was unpacked."""

    info: zipfile.ZipInfo
    path: str
    class_number: int


@dataclass
class Listing:
    """The entries of a zip that may be pictures, and why the others are none."""

    entries: list[Entry] = field(default_factory=list)
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
    archive = open_zip(io.BytesIO(data))
    listing = list_pictures(archive, class_numbers)
    found = PicturesOfZip(refused=listing.refused)
    for entry in listing.entries:
        name = entry.path[-LONGEST_NAME:]
        content = content_of(archive, entry.info)
        if content is None:
            found.refused.append((name, DAMAGED))
            continue
        take(ZippedPicture(entry.class_number, name, content))
        found.taken += 1
    return found


def open_zip(file: Path | io.BytesIO, limits: Limits | None = None) -> zipfile.ZipFile:
    """Open a zip. Raises ZipRefusedError where it cannot be read or has far too many entries."""
    most = (limits or Limits()).entries
    try:
        with _opened(file) as opened:
            zipfile.ZipFile(cast(BinaryIO, _CountedZip(opened, most)))
        return zipfile.ZipFile(file)
    except UNREADABLE as error:
        raise ZipRefusedError("This file is not a zip that can be read.") from error


def _opened(file: Path | io.BytesIO) -> AbstractContextManager[BinaryIO]:
    return file.open("rb") if isinstance(file, Path) else nullcontext(file)


@dataclass
class _CountedZip:
    """A file as `zipfile` opens it, which reads no directory of far too many entries.

    The directory is looked at as it is read, so that nobody can disagree about where it lies and
    what is in it, whatever number of entries the zip says.
    """

    file: BinaryIO
    most: int

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        """Read; raises ZipRefusedError for a directory that is far too large."""
        if size > self.most * DIRECTORY_BYTES:
            raise ZipRefusedError(
                f"This zip has far too many entries; at most {self.most} are read."
            )
        data = self.file.read(size)
        if data.startswith(DIRECTORY_START):
            count = sum(1 for _start, _lengths in directory_entries(data))
            if count > self.most:
                raise ZipRefusedError(
                    f"This zip has {count} entries; at most {self.most} are read."
                )
        return data


def directory_entries(directory: bytes) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Yield where each entry of a zip's directory begins, and how long its three texts are.

    These are its name, extra field and comment; they follow its `ENTRY_BYTES` bytes.
    """
    position = 0
    while directory.startswith(DIRECTORY_START, position):
        lengths = LENGTHS.unpack_from(directory, position + LENGTHS_AT)
        yield position, lengths
        position += ENTRY_BYTES + sum(lengths)


def list_pictures(
    archive: zipfile.ZipFile, class_numbers: Mapping[str, int], limits: Limits | None = None
) -> Listing:
    """Return the entries that lie in a folder called as a class, the nearest such folder counts.

    Raises ZipRefusedError where they hold more than pictures do, or none can be unpacked.
    """
    limits = limits or Limits()
    listing = Listing()
    for info, path in _files(archive.infolist(), class_numbers):
        problem = _problem(info, path)
        number = _number_of(path, class_numbers)
        if not problem and number is None:
            problem = _no_class(_folder(path))
        if not problem and len(listing.entries) >= limits.pictures:
            problem = f"Only {limits.pictures} pictures are taken."
        if problem or number is None:
            listing.refused.append((path[-LONGEST_NAME:], problem))
        else:
            listing.entries.append(Entry(info, path, number))
    if not listing.entries and PACKED_OTHERWISE in [why for _name, why in listing.refused]:
        raise ZipRefusedError(PACKED_OTHERWISE)
    unpacked = sum(entry.info.file_size for entry in listing.entries)  # no entry yields more
    if unpacked > limits.unpacked:
        megabytes = limits.unpacked // 1_000_000
        raise ZipRefusedError(f"This zip holds more than {megabytes} MB. Give fewer pictures.")
    return listing


def folder_names(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the folders that hold pictures, for classes that nobody has named.

    Folders around all of them are passed over, and so are those that divide a dataset.
    """
    folders: set[tuple[str, ...]] = set()
    for info, path in _files(archive.infolist(), ()):
        parts = PurePosixPath(path).parent.parts
        if not parts or parts in folders or _problem(info, path):
            continue
        if not picture_fault(start_of(archive, info)):
            folders.add(parts)
    folders = _within_one_around(folders)
    if divides({parts[0] for parts in folders}):
        folders = _within_one_around({parts[1:] for parts in folders if len(parts) > 1})
    return sorted({parts[0] for parts in folders})


def _within_one_around(folders: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Return the folders without those that lie around all of them."""
    while len(folders) > 1 and min(map(len, folders)) > 1:
        if len({parts[0] for parts in folders}) > 1:
            break
        folders = {parts[1:] for parts in folders}
    return folders


def divides(names: Collection[str]) -> bool:
    """Return whether all of these folders divide a dataset, and none is a class."""
    return {folder_key(name) for name in names} <= SPLIT_FOLDERS


def start_of(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | None:
    """Return the first bytes of an entry; None if it is damaged."""
    try:
        with archive.open(entry) as file:
            return file.read(START_BYTES)
    except UNREADABLE:
        return None


def picture_fault(start: bytes | None) -> str:
    """Return why a file that begins so is no picture, "" where it may be one; None is damaged."""
    if start is None:
        return DAMAGED
    if PICTURE_START.match(start):
        return ""
    return HEIC if HEIC_START.match(start) else NO_PICTURE


def folder_key(name: str) -> str:
    """Return the name of a folder or class so that different spellings of it are equal."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def _files(
    entries: Sequence[zipfile.ZipInfo], class_keys: Collection[str]
) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Yield the entries that a person put in, each with its path as it was meant."""
    encoding = _encoding_of(entries, class_keys)
    for entry in entries:
        text = _path_of(entry, encoding)
        path = PurePosixPath(text)
        name = path.name
        if not name or entry.is_dir():
            continue
        is_hidden = name.startswith(".") and name != ".."
        lower = {part.lower() for part in path.parts}
        if not is_hidden and not lower & OF_SYSTEMS:
            yield entry, text


def _encoding_of(entries: Sequence[zipfile.ZipInfo], class_keys: Collection[str]) -> str:
    """Return how the names are written that do not say so: with most folders called as classes."""
    unsaid = [entry for entry in entries if not entry.flag_bits & UTF8_FLAG]
    best = ""
    most = -1
    for encoding in ENCODINGS:
        try:
            paths = [_path_of(entry, encoding) for entry in unsaid]
        except UnicodeError:
            continue
        hits = sum(folder_key(_folder(path)) in class_keys for path in paths)
        if hits > most:
            best = encoding
            most = hits
    return best or "cp437"


def _path_of(entry: zipfile.ZipInfo, encoding: str) -> str:
    """Return the path of an entry. Raises UnicodeError where it is not written so."""
    name = entry.filename
    if not entry.flag_bits & UTF8_FLAG and not name.isascii():
        name = name.encode("cp437").decode(encoding)
    return name.replace("\\", "/")


def _folder(path: str) -> str:
    return PurePosixPath(path).parent.name


def _number_of(path: str, class_numbers: Mapping[str, int]) -> int | None:
    for folder in reversed(PurePosixPath(path).parent.parts):
        number = class_numbers.get(folder_key(folder))
        if number is not None:
            return number
    return None


def _problem(entry: zipfile.ZipInfo, text: str) -> str:
    """Return why an entry is not even unpacked, "" if it may be."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        return "Its path leads out of the zip."
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "It is a link, not a picture."
    if entry.flag_bits & 1:
        return "It is locked with a password."
    if entry.compress_type not in METHODS:
        return PACKED_OTHERWISE
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


def content_of(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | None:
    """Return the bytes of an entry; None if it is damaged or lies about its size."""
    try:
        with archive.open(entry) as file:
            content = file.read(LARGEST_PICTURE + 1)
    except UNREADABLE:
        return None
    return content if len(content) <= LARGEST_PICTURE else None
