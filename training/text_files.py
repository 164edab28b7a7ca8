"""Text files that people make with whatever program they have: lists and tables."""

from __future__ import annotations

import codecs
import csv
import io

_DELIMITERS = (",", ";", "\t")  # of the cells of tables

_BYTE_ORDER_MARKS = {  # that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


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
    if "\0" in text:
        raise ValueError("it is no text")
    return text


def table_rows(text: str) -> csv.DictReader[str]:
    """Return the rows of a table by the titles in its first line.

    Reading raises csv.Error for a cell larger than a book.
    """
    table, delimiter = delimited(text)
    stream = io.StringIO(table, newline="")
    return csv.DictReader(stream, delimiter=delimiter)


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
