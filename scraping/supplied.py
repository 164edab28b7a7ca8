"""Read what the person supplies who asks: a folder or zip of pictures, and a table of addresses.

The folder that a picture lies in, and the cell beside an address, say which class it shows. What
cannot be used gets a sentence, and never stops the rest.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from scraping import ConfigError
from scraping.outside import address_fault, clean_address, clean_text, parsed_json
from scraping.picture_zip import (
    LARGEST_PICTURE,
    LONGEST_NAME,
    START_BYTES,
    Limits,
    ZipRefusedError,
    content_of,
    divides,
    folder_key,
    folder_names,
    list_pictures,
    open_zip,
    picture_fault,
    start_of,
)
from scraping.sources.base import Candidate
from scraping.sources.supplied import BASIS, UPLOAD, URL_LIST
from training.text_files import csv_rows, decoded, delimited

MOST_PICTURES = 5000  # of a zip or folder, and rows of a table
MOST_LINES = 10_000  # of a table, those that cannot be used included
LARGEST_TABLE = 10_000_000  # bytes
LIMITS = Limits(entries=20_000, pictures=MOST_PICTURES, unpacked=2_000_000_000)
ADDRESS_TITLES = ("image_url", "url", "image", "address", "link", "src", "uri", "urls")
LABEL_TITLES = ("label", "class", "class_name", "classname", "category", "name", "target", "tag")
TITLES = "classes.json"  # in a dataset of ours: names of classes by their folders
LARGEST_TITLES = 100_000  # bytes
SCHEME = "upload:"  # of what has no address: the path of a picture in the folder or zip
FROM_REQUESTER = "Supplied by the requester."
NO_TEXT = "This is no table that can be read. Save it as CSV with the columns url and label."
NO_TITLES = (
    "The table needs a first line that names two columns, url and label, separated by a comma,"
    " semicolon or tab."
)


class SuppliedError(ConfigError):
    """What was supplied cannot be read as a whole; `sentence` does not name the file."""

    def __init__(self, sentence: str, file: str = "") -> None:
        super().__init__(f"{file}: {sentence}" if file else sentence)
        self.sentence = sentence


@dataclass(frozen=True)
class Unused:
    """What was supplied and cannot be used, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class LabelledAddress:
    """A row of a table of addresses; `line` counts its rows from 2, below the titles."""

    line: int
    url: str
    label: str


@dataclass
class AddressTable:
    """The rows of a table, and those that cannot be used."""

    rows: list[LabelledAddress] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)


@dataclass
class Supplied:
    """What was supplied for the classes of a collection.

    `candidates` are by source and name of the class.
    """

    candidates: dict[tuple[str, str], tuple[Candidate, ...]] = field(default_factory=dict)
    unused: list[Unused] = field(default_factory=list)
    _files: dict[str, Path | zipfile.ZipInfo] = field(default_factory=dict)
    _archive: zipfile.ZipFile | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that have something, in the order of their candidates."""
        return tuple(dict.fromkeys(source for source, _name in self.candidates))

    def content(self, image_url: str) -> bytes | None:
        """Return the bytes of a supplied picture; None where it is damaged or gone."""
        file = self._files.get(image_url)
        if isinstance(file, zipfile.ZipInfo):
            assert self._archive is not None
            return content_of(self._archive, file)
        try:
            if file is None or file.stat().st_size > LARGEST_PICTURE:
                return None
            return file.read_bytes()
        except OSError:
            return None


def read_supplied(own: str, own_urls: str, names: Sequence[str]) -> Supplied:
    """Read a folder or zip of pictures and a table of addresses; "" for none.

    `names` are those of the classes. Raises SuppliedError for what cannot be read as a whole.
    """
    supplied = Supplied()
    if own:
        path = Path(own)
        if path.is_dir():
            _add_folder(supplied, path, names)
        else:
            _add_zip(supplied, path, names)
    if own_urls:
        table = read_table(_bytes_of(Path(own_urls)))
        supplied.unused += table.unused
        _add_addresses(supplied, table.rows, names)
    return supplied


def named_classes(own: str, own_urls: str) -> list[str]:
    """Return the names of the classes that folders and labels give, in their order.

    Raises SuppliedError for what cannot be read as a whole.
    """
    names: list[str] = []
    if own and Path(own).is_dir():
        titles = _titles_beside(Path(own))
        for sub_folder in _class_folders(Path(own), ()):
            names.append(titles.get(sub_folder.name, sub_folder.name))
    elif own:
        try:
            with open_zip(Path(own), LIMITS) as archive:
                titles = _titles_inside(archive)
                names += [titles.get(name, name) for name in folder_names(archive)]
        except ZipRefusedError as error:
            raise SuppliedError(str(error), Path(own).name) from error
    if own_urls:
        names += [row.label for row in read_table(_bytes_of(Path(own_urls))).rows]
    by_key: dict[str, str] = {}
    for name in names:
        by_key.setdefault(folder_key(name), clean_text(name))
    return list(by_key.values())


def _add_folder(supplied: Supplied, folder: Path, names: Sequence[str]) -> None:
    keys = {folder_key(name): name for name in names}
    for class_id, title in _titles_beside(folder).items():
        if folder_key(title) in keys:
            keys.setdefault(folder_key(class_id), keys[folder_key(title)])
    found: dict[str, list[Path]] = {}
    for sub_folder in _class_folders(folder, keys):
        name = keys.get(folder_key(sub_folder.name))
        if name is None:
            what = sub_folder.relative_to(folder).as_posix()
            supplied.unused.append(Unused(what, "No class is called so."))
            continue
        for path in sorted(sub_folder.rglob("*")):
            if not _is_visible_file(path):
                continue
            if fault := picture_fault(_start_of(path)):
                what = path.relative_to(folder).as_posix()
                supplied.unused.append(Unused(what, fault))
            else:
                found.setdefault(name, []).append(path)
    for name, files in found.items():
        _add(supplied, name, {path.relative_to(folder).as_posix(): path for path in files})


def _folders(folder: Path) -> list[Path]:
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(path for path in visible if path.is_dir() and not path.is_symlink())


def _class_folders(folder: Path, class_keys: Collection[str]) -> list[Path]:
    """Return the folders that may be classes, looking through those that divide a dataset."""
    found = _folders(folder)
    is_class = any(folder_key(path.name) in class_keys for path in found)
    if is_class or not divides([path.name for path in found]):
        return found
    return [inner for path in found for inner in _folders(path)]


def _is_visible_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and not path.name.startswith(".")


def _start_of(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(START_BYTES)
    except OSError:
        return None


def _titles_beside(folder: Path) -> dict[str, str]:
    """Return the names of classes by their folders, if a file of a dataset of ours says them."""
    file = folder / TITLES
    try:
        is_small = not file.is_symlink() and file.stat().st_size <= LARGEST_TITLES
        return _titles_of(file.read_bytes()) if is_small else {}
    except OSError:
        return {}


def _titles_inside(archive: zipfile.ZipFile) -> dict[str, str]:
    for entry in archive.infolist():
        if PurePosixPath(entry.filename).name == TITLES and entry.file_size <= LARGEST_TITLES:
            return _titles_of(content_of(archive, entry) or b"")
    return {}


def _titles_of(data: bytes) -> dict[str, str]:
    try:
        titles = parsed_json(data)
    except ValueError:
        return {}
    if not isinstance(titles, dict):
        return {}
    return {key: title for key, title in titles.items() if isinstance(title, str)}


def _add_zip(supplied: Supplied, path: Path, names: Sequence[str]) -> None:
    numbers = {folder_key(name): number for number, name in enumerate(names)}
    try:
        archive = open_zip(path, LIMITS)
        for class_id, title in _titles_inside(archive).items():
            if folder_key(title) in numbers:
                numbers.setdefault(folder_key(class_id), numbers[folder_key(title)])
        listing = list_pictures(archive, numbers, LIMITS)
    except ZipRefusedError as error:
        raise SuppliedError(str(error), path.name) from error
    supplied._archive = archive
    supplied.unused += [Unused(name, why) for name, why in listing.refused]
    found: dict[str, dict[str, Path | zipfile.ZipInfo]] = {}
    for entry in listing.entries:
        of_class = found.setdefault(names[entry.class_number], {})
        fault = picture_fault(start_of(archive, entry.info))
        if not fault and entry.path in of_class:
            fault = "Another picture in it has the same path."
        if fault:
            supplied.unused.append(Unused(entry.path[-LONGEST_NAME:], fault))
        else:
            of_class[entry.path] = entry.info
    for name, files in found.items():
        if files:
            _add(supplied, name, files)


def _add(supplied: Supplied, name: str, files: Mapping[str, Path | zipfile.ZipInfo]) -> None:
    """Add the pictures of a class, by their paths as people read them."""
    candidates = []
    for path, file in files.items():
        address = _address_of(path)
        supplied._files[address] = file
        candidate = Candidate(address, license_basis=BASIS, attribution=FROM_REQUESTER)
        candidates.append(candidate)
    supplied.candidates[UPLOAD, name] = tuple(candidates)


def _address_of(path: str) -> str:
    """Return what stands for the address of a file: its path, as no two have the same.

    What `clean_address` would change or leave out, and what means something in an address, is
    escaped.
    """
    characters = []
    for character in path:
        is_plain = character.isprintable() and character not in "%?#"
        characters.append(character if is_plain else _escaped(character))
    if characters[-1] == " ":
        characters[-1] = _escaped(" ")
    return clean_address(SCHEME + "".join(characters))


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))


def _add_addresses(
    supplied: Supplied, rows: Iterable[LabelledAddress], names: Sequence[str]
) -> None:
    keys = {folder_key(name): name for name in names}
    found: dict[str, list[Candidate]] = {}
    for row in rows:
        name = keys.get(folder_key(row.label))
        if name is None:
            why = f"No class is called “{row.label}”."
            supplied.unused.append(Unused(f"row {row.line}", why))
            continue
        credit = f"Supplied by the requester, from {urlsplit(row.url).hostname}."
        candidate = Candidate(row.url, license_basis=BASIS, attribution=credit)
        found.setdefault(name, []).append(candidate)
    for name, candidates in found.items():
        supplied.candidates[URL_LIST, name] = tuple(candidates)


def _bytes_of(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST_TABLE + 1)
    except OSError as error:
        raise SuppliedError(f"{file} cannot be read: {error.strerror}.") from error
    return data


def read_table(data: bytes) -> AddressTable:
    """Read a table of addresses and labels, however a program wrote it.

    The first line names the columns. Raises SuppliedError for what is no such table.
    """
    if len(data) > LARGEST_TABLE:
        raise SuppliedError(f"The table is larger than {LARGEST_TABLE // 1_000_000} MB.")
    try:
        text = decoded(data)
    except ValueError as error:
        raise SuppliedError(NO_TEXT) from error
    if data.startswith(b"PK\x03\x04"):
        raise SuppliedError(NO_TEXT)
    beginning, further = _beginning(text.lstrip())
    lines, delimiter = delimited(beginning)
    rows = csv_rows(lines, delimiter)
    titles = [folder_key(cell) for cell in next(rows, [])]
    url_column = _column(titles, ADDRESS_TITLES)
    label_column = _column(titles, LABEL_TITLES)
    if url_column is None or label_column is None:
        raise SuppliedError(NO_TITLES)
    table = AddressTable()
    for line, cells in enumerate(rows, start=2):
        row = _labelled(line, cells, url_column, label_column)
        if isinstance(row, Unused):
            table.unused.append(row)
        elif len(table.rows) >= MOST_PICTURES:
            why = f"Only {MOST_PICTURES} rows are taken."
            table.unused.append(Unused(f"row {line}", why))
        else:
            table.rows.append(row)
    if further:
        what = "1 further line" if further == 1 else f"{further} further lines"
        table.unused.append(Unused(what, f"Only {MOST_LINES} lines are read."))
    return table


def _beginning(text: str) -> tuple[str, int]:
    """Return the first lines of a table, and how many others there are, without splitting those."""
    ends = re.finditer(r"\r\n|\r|\n", text)
    last = next(islice(ends, MOST_LINES - 1, None), None)
    if last is None:
        return text, 0
    further = max(text.count(end, last.end()) for end in "\r\n")
    further += last.end() < len(text) and text[-1] not in "\r\n"
    return text[: last.end()], further


def _column(titles: Sequence[str], known: Iterable[str]) -> int | None:
    for title in known:
        if title in titles:
            return titles.index(title)
    return None


def _labelled(
    line: int, cells: Sequence[str], url_column: int, label_column: int
) -> LabelledAddress | Unused:
    """Return a row, or why it cannot be used."""
    what = f"row {line}"
    if len(cells) <= max(url_column, label_column):
        return Unused(what, "It has fewer cells than the first line.")
    url = clean_address(cells[url_column])
    label = clean_text(cells[label_column])
    if not url:
        return Unused(what, "It has no address.")
    if not label:
        return Unused(what, "It has no label.")
    if fault := address_fault(url):
        return Unused(what, f"Its address cannot be asked for: {fault}.")
    return LabelledAddress(line, url, label)
