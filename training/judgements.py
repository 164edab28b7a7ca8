"""A person's judgements of test images: read from a table, and kept in the run folder.

`verified.csv` has a row for each judged image: its file, the judgement, and the id of the class
that it shows where that is known.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from training.class_names import casefold_key, normalize, shown_name
from training.phrases import counted, listed, shortened
from training.run_folder import (
    ClassLabel,
    ImageRow,
    RunError,
    read_config,
    read_manifest,
    write_text,
)
from training.text_files import decoded

State = Literal["right", "other class", "off-topic"]
"""Its label is right; it shows another class; it shows none of the classes."""

JUDGEMENTS_FILE = "verified.csv"  # in the run folder
STATES: tuple[State, ...] = get_args(State)

_HEADER = ("file", "verified", "label")
_FILE_COLUMNS = ("file", "file_name", "filename", "path", "image")
_STATE_COLUMNS = ("verified", "state")
_LABEL_COLUMN = "label"
_DELIMITERS = (",", ";", "\t")
# In small letters, whatever stands between the words: a blank, an underscore or any dash.
_SPELLINGS: Mapping[str, State] = {
    "right": "right",
    "correct": "right",
    "other class": "other class",
    "otherclass": "other class",
    "other": "other class",
    "wrong": "other class",
    "off topic": "off-topic",
    "offtopic": "off-topic",
    "none of these": "off-topic",
}
_LARGEST_TABLE = 50_000_000  # bytes
_PROBLEMS_SHOWN = 5
_SHOWN_COLUMNS = 60  # of a value that an error names
_SPLIT_TITLES = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class Judgement:
    """What a person says of an image."""

    state: State
    label: str = ""
    """Id of the class that it shows; "" where that is not known, or none."""


@dataclass(frozen=True)
class _Columns:
    """Where in a table's rows the values stand."""

    count: int
    file: int
    state: int | None
    label: int | None


class _RowError(ValueError):
    """A row that cannot be used; the message is a clause for the user."""

    def __init__(self, clause: str, *values: str) -> None:
        """`clause` has a pair of braces for each value of the table that it names."""
        shown = map(_shown, values)
        super().__init__(clause.format(*shown))


def read_labels(
    table: Path, rows: Sequence[ImageRow], classes: Sequence[ClassLabel]
) -> dict[str, Judgement | None]:
    """Return what a table says of test images: file of the manifest to judgement.

    None takes a judgement back. Raises RunError with the lines that cannot be used, and what may
    stand there.
    """
    lines = _read_lines(table)
    columns = _find_columns(lines, _shown(table.name))
    images = _ImageNames(rows)
    meanings = _Meanings(classes)
    found: dict[str, Judgement | None] = {}
    problems = []
    for number, cells in lines:
        try:
            row = images.find(_cell(cells, columns.file))
            judgement = _judgement(cells, columns, row, meanings)
            if judgement is not None:
                _check_tested(row)
            if row.split == "test":
                earlier = found.setdefault(row.file, judgement)
                if earlier != judgement:
                    raise _RowError("{} is judged otherwise further up", row.file)
        except _RowError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise _refusal(_shown(table.name), problems, meanings)
    if not found:
        raise _unusable(f"{_shown(table.name)} judges no picture")
    return found


def read_judgements(run_dir: Path) -> dict[str, Judgement]:
    """Read `verified.csv`: file to judgement; empty where nothing was judged.

    Raises RunError where it cannot be read.
    """
    path = run_dir / JUDGEMENTS_FILE
    judgements = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, strict=True)
            if tuple(table.fieldnames or ()) != _HEADER:
                raise ValueError("it does not begin as it was written")
            for values in table:
                state = _known_state(values["verified"])
                judgements[values["file"]] = Judgement(state, values["label"] or "")
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, csv.Error) as error:
        reason = f"The run folder's {JUDGEMENTS_FILE} cannot be read."
        remedy = "Delete it and give the labels again."
        raise RunError("evaluate", reason, remedy, retry=False) from error
    return judgements


def write_judgements(run_dir: Path, judgements: Mapping[str, Judgement]) -> None:
    """Write `verified.csv`, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for file, judgement in sorted(judgements.items()):
        writer.writerow((file, judgement.state, judgement.label))
    write_text(run_dir / JUDGEMENTS_FILE, text.getvalue())


def inherit_judgements(
    previous: Path, rows: Sequence[ImageRow], classes: Sequence[ClassLabel]
) -> dict[str, Judgement]:
    """Return the judgements of an earlier run for those of its test images that still are.

    The same image is one of the same bytes; the same class is one of the same name. What an image
    shows does not change with its label, so one that was relabelled meanwhile is judged anew by
    what it is known to show, and not at all where that is not known. Raises RunError where the
    earlier run cannot be read.
    """
    earlier_judgements = read_judgements(previous)
    if not earlier_judgements:
        return {}
    earlier_names = {label.id: label.name for label in read_config(previous).classes}
    ids = {label.name: label.id for label in classes}
    earlier_rows = {}
    for row in read_manifest(previous):
        if row.file in earlier_judgements:
            earlier_rows[row.sha256] = row
    inherited = {}
    for row in rows:
        earlier = earlier_rows.get(row.sha256)
        if earlier is None or row.split != "test":
            continue
        judgement = earlier_judgements[earlier.file]
        label = ids.get(earlier_names.get(judgement.label, ""), "")
        earlier_label = ids.get(earlier_names.get(earlier.class_id, ""), "")
        if judgement.state == "off-topic":
            inherited[row.file] = judgement
        elif label:
            inherited[row.file] = _judged_by_class(label, row)
        elif judgement.state == "other class" and earlier_label == row.class_id:
            inherited[row.file] = Judgement("other class")
    return inherited


class _ImageNames:
    """Finds the image that a table means.

    It may be named as in the manifest, by its name alone or without the suffix, as the report
    does, and with any folder in front.
    """

    def __init__(self, rows: Sequence[ImageRow]) -> None:
        self._of_file: dict[str, ImageRow] = {}
        self._of_name: dict[str, list[ImageRow]] = defaultdict(list)
        for row in rows:
            path = PurePosixPath(row.file)
            self._of_file[row.file] = row
            self._of_name[path.name].append(row)
            if path.suffix:
                self._of_name[path.stem].append(row)

    def find(self, text: str) -> ImageRow:
        """Return the row of an image; raises _RowError where it is none or not clear."""
        if not text:
            raise _RowError("the picture is missing")
        path = text.replace("\\", "/")
        if path in self._of_file:
            return self._of_file[path]
        name = path.rpartition("/")[2]
        named = self._of_name.get(name, [])
        whole = [row for row in named if path.endswith(f"/{row.file}")]
        if whole:
            return max(whole, key=lambda row: len(row.file))
        if not named:
            raise _RowError("the run has no picture {}", text)
        if len(named) > 1:
            raise _RowError("several pictures are called {}: give their folder too", name)
        return named[0]


class _Meanings:
    """Reads judgements and the names of classes, in any letter case."""

    def __init__(self, classes: Sequence[ClassLabel]) -> None:
        self.classes = classes

    def state(self, text: str) -> State | None:
        """Return the judgement that a text is, if it is one."""
        words = re.split(r"[\W_]+", casefold_key(text))
        return _SPELLINGS.get(" ".join(words).strip())

    def class_id(self, text: str) -> str | None:
        """Return the class that a text names, if it names one; raises _RowError for several."""
        exact = normalize(text)
        folded = casefold_key(text)
        same = set()
        alike = set()
        for label in self.classes:
            if exact in (label.id, normalize(label.name)):
                same.add(label.id)
            if folded in (casefold_key(label.id), casefold_key(label.name)):
                alike.add(label.id)
        named = same or alike
        if len(named) > 1:
            raise _RowError("{} names several classes: write the id of one", text)
        return named.pop() if named else None

    def allowed(self) -> str:
        """Return what may stand in a cell, as a sentence."""
        names = []
        for label in self.classes:
            name = shortened(normalize(label.name), _SHOWN_COLUMNS)
            names.append(f"“{name}”")
        ids = [label.id for label in self.classes]
        return (
            f"Allowed are “right”, “other class”, “off-topic”, a class ({listed(names)})"
            f" or its id ({listed(ids)}), and nothing, which takes a judgement back."
        )


def _check_tested(row: ImageRow) -> None:
    """Raise _RowError for an image that no figure comes from."""
    if row.split == "test":
        return
    if row.split is None:
        raise _RowError("{} takes no part in the run", row.file)
    title = _SPLIT_TITLES[row.split]
    raise _RowError(
        f"{{}} is a {title} picture; only test pictures are verified, because the figures come"
        " from them",
        row.file,
    )


def _judgement(
    cells: Sequence[str], columns: _Columns, row: ImageRow, meanings: _Meanings
) -> Judgement | None:
    """Return what the cells say of an image; raises _RowError where that cannot be told."""
    if len(cells) < columns.count:
        raise _RowError("the judgement of {} is missing", row.file)
    if any(cells[columns.count :]):
        raise _RowError("it has more cells than the first line; quote a value with commas in it")
    label_text = "" if columns.label is None else cells[columns.label]
    if columns.state is None or not cells[columns.state]:
        return _by_label(label_text, row, meanings) if label_text else None
    text = cells[columns.state]
    if columns.label is not None:
        return _by_state_and_label(text, label_text, row, meanings)
    state = meanings.state(text)
    named = meanings.class_id(text)
    if state is None and named is None:
        raise _RowError("{} is no judgement", text)
    if state is None or (state == "right" and named == row.class_id):
        return _judged_by_class(str(named), row)
    if named is not None:
        raise _RowError(
            "{} is a judgement, and a class here too: write the class's id {}, or use the"
            " columns verified and label",
            text,
            named,
        )
    return _judged_by_state(state, row, meanings)


def _by_label(text: str, row: ImageRow, meanings: _Meanings) -> Judgement:
    """Return the judgement of a cell in which the names of classes come first."""
    named = meanings.class_id(text)
    if named is not None:
        return _judged_by_class(named, row)
    state = meanings.state(text)
    if state is None:
        raise _RowError("{} is no judgement", text)
    return _judged_by_state(state, row, meanings)


def _by_state_and_label(
    state_text: str, label_text: str, row: ImageRow, meanings: _Meanings
) -> Judgement:
    """Return the judgement of two cells, of which the second may name the true class."""
    state = meanings.state(state_text)
    if state is None:
        by_name = _by_label(state_text, row, meanings)
        if label_text and meanings.class_id(label_text) != by_name.label:
            raise _RowError("{} and {} contradict each other", state_text, label_text)
        return by_name
    if state == "off-topic" or not label_text:
        return _judged_by_state(state, row, meanings)
    named = meanings.class_id(label_text)
    if named is None:
        raise _RowError("{} is no class", label_text)
    judgement = _judged_by_class(named, row)
    if judgement.state != state:
        raise _RowError("{} and {} contradict each other", state_text, label_text)
    return judgement


def _judged_by_class(class_id: str, row: ImageRow) -> Judgement:
    """Return the judgement of an image that shows this class."""
    if class_id == row.class_id:
        return Judgement("right", class_id)
    return Judgement("other class", class_id)


def _judged_by_state(state: State, row: ImageRow, meanings: _Meanings) -> Judgement:
    """Return the judgement with the class that it implies: of two classes, the other one."""
    if state == "right":
        return Judgement("right", row.class_id)
    others = [label.id for label in meanings.classes if label.id != row.class_id]
    if state == "other class" and len(others) == 1:
        return Judgement("other class", others[0])
    return Judgement(state)


def _read_lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table that are not empty, with the number of the line they begin on.

    The first is the header. The delimiter is the one that its columns are found with.
    """
    text = _text_of(table)
    delimiter = _delimiter(text, _shown(table.name))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    number = 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            is_hint = number == 1 and stripped[:1] and stripped[0].lower().startswith("sep=")
            if any(stripped) and not is_hint:
                yield number, stripped
            number = reader.line_num + 1
    except csv.Error as error:
        raise _unusable(
            f"line {number} of {_shown(table.name)} cannot be read as CSV: {error}"
        ) from error


def _text_of(table: Path) -> str:
    """Return the text of a table. Raises RunError."""
    try:
        with table.open("rb") as file:
            data = file.read(_LARGEST_TABLE + 1)
        if len(data) > _LARGEST_TABLE:
            raise _unusable(f"{_shown(table.name)} is larger than any table of labels")
        return decoded(data)
    except OSError as error:
        raise _unusable(
            f"{_shown(table.name)} cannot be read: {error.strerror or error}"
        ) from error
    except ValueError as error:
        raise _unusable(f"{_shown(table.name)} is no text: save the table as CSV") from error


def _delimiter(text: str, name: str) -> str:
    for line in text.splitlines():
        if not line.strip() or line.lower().startswith("sep="):
            continue
        for delimiter in _DELIMITERS:
            header = [cell.strip(' "').lower() for cell in line.split(delimiter)]
            if _position(header, _FILE_COLUMNS) is not None and len(header) > 1:
                return delimiter
        break
    raise _no_header(name)


def _find_columns(lines: Iterator[tuple[int, list[str]]], name: str) -> _Columns:
    """Return where the values stand by the header, which is the first of the lines."""
    _, cells = next(lines, (0, []))
    header = [cell.lower() for cell in cells]
    while header and not header[-1]:
        header.pop()
    file = _position(header, _FILE_COLUMNS)
    state = _position(header, _STATE_COLUMNS)
    label = _position(header, (_LABEL_COLUMN,))
    if file is None or (state is None and label is None):
        raise _no_header(name)
    return _Columns(len(header), file, state, label)


def _position(header: Sequence[str], names: Sequence[str]) -> int | None:
    for name in names:
        if name in header:
            return header.index(name)
    return None


def _cell(cells: Sequence[str], position: int) -> str:
    return cells[position] if position < len(cells) else ""


def _known_state(text: str | None) -> State:
    for state in STATES:
        if text == state:
            return state
    raise ValueError(f"{text} is no judgement")


def _shown(text: str) -> str:
    """Return a value from a table, or a file's name, as an error may print it."""
    printable = normalize(shown_name(text))
    return f"“{shortened(printable, _SHOWN_COLUMNS)}”"


def _refusal(name: str, problems: Sequence[str], meanings: _Meanings) -> RunError:
    """Return the error for bad rows: the first few of them, and what is allowed."""
    shown = "; ".join(problems[:_PROBLEMS_SHOWN])
    more = len(problems) - _PROBLEMS_SHOWN
    if more > 0:
        shown = f"{shown}; and {counted(more, 'more line')}"
    reason = f"Nothing was changed, because {name} has lines that cannot be used: {shown}."
    return RunError("evaluate", reason, meanings.allowed(), retry=False)


def _no_header(name: str) -> RunError:
    return _unusable(f"the first line of {name} must name its columns, such as file,verified")


def _unusable(clause: str) -> RunError:
    """Return the error for a table that cannot be read at all."""
    remedy = "Nothing was changed; see `python -m training verify --help` for an example."
    return RunError("evaluate", f"{clause[0].upper()}{clause[1:]}.", remedy, retry=False)
