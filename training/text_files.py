"""Text files that people make with whatever program they have: lists and tables."""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterator

_DELIMITERS = (",", ";", "\t")  # of the cells of tables
_ZERO_SHARE = 100  # one of so many characters may be zero: a damaged byte, not a picture
_MOST_ROW_LINES = 100  # that one row of a table may take, line breaks inside its cells

_BYTE_ORDER_MARKS = {  # that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

# Where a spreadsheet program begins a cell, after a semicolon too where that is its separator, and
# what it takes for the beginning of a formula, a full-width sign included.
# https://owasp.org/www-community/attacks/CSV_Injection
_CELL_THAT_COMPUTES = re.compile(r"""(^|;)(?=[\s"]*[=+\-@＝＋－＠]|')""")
_GUARD = re.compile("(^|;)'")


def safe_cell(text: str) -> str:
    """Return text as one line for a cell of a table that no spreadsheet program computes.

    An apostrophe stands before what it would compute, and before an apostrophe in the same place,
    so that `original_cell` gives back the text. Control characters and line ends become spaces.
    """
    characters = []
    for character in text:
        is_control = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        characters.append(" " if is_control else character)
    return _CELL_THAT_COMPUTES.sub(r"\1'", "".join(characters))


def original_cell(cell: str) -> str:
    """Return the text that `safe_cell` has guarded."""
    return _GUARD.sub(r"\1", cell)


def decoded(data: bytes) -> str:
    """Return the text of a file, by its byte order mark or else by what its bytes can be.

    Raises ValueError for what is no text.
    """
    encoding = "utf-8"
    if data[:1] == b"\0":
        encoding = "utf-16-be"
    elif data[1:2] == b"\0":
        encoding = "utf-16-le"
    for mark, marked_encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            encoding = marked_encoding
            break
    try:
        text = data.decode(encoding)
    except ValueError:
        # What Windows writes where nobody asks for anything else.
        text = data.decode("cp1252", errors="replace")
    if text.count("\0") * _ZERO_SHARE > len(text):
        raise ValueError("it is no text")
    return text.replace("\0", "")


def table_rows(text: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a table by the titles in its first line; cells without a title are left."""
    table, delimiter = delimited(text)
    rows = csv_rows(table, delimiter)
    titles = next(rows, [])
    for row in rows:
        yield dict(zip(titles, row, strict=False))


def csv_rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """Yield the rows of a table, whatever their line ends and however long their cells.

    A quote that is never closed, as in a torn file, spoils its own line and no other.
    """
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    lines = io.StringIO(text.replace("\0", " "), newline="").readlines()
    position = 0
    while position < len(lines):
        end = position + 1
        if '"' in lines[position]:
            end = position + _MOST_ROW_LINES
        row, taken = _first_row(lines[position:end], delimiter)
        position += taken
        if row:
            yield row


def _first_row(lines: list[str], delimiter: str) -> tuple[list[str], int]:
    """Return the row at the beginning of some lines, and how many of them it takes."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        row = next(reader, [])
        return row, reader.line_num
    except csv.Error:
        plain = csv.reader(lines[:1], delimiter=delimiter, quoting=csv.QUOTE_NONE)
        cells = next(plain, [])
        return [cell.strip('"') for cell in cells], 1


def delimited(text: str) -> tuple[str, str]:
    """Return a table, and what its cells are separated by: a comma, semicolon or tab.

    That is told by the titles. A line `sep=;` before them, the hint of a spreadsheet program, is
    left out.
    """
    lines = text.splitlines(keepends=True)
    if lines and lines[0].lower().startswith("sep="):
        del lines[0]
    titles = lines[0] if lines else ""
    delimiter = max(_DELIMITERS, key=titles.count)
    return "".join(lines), delimiter
