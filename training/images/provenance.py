"""Where images of a folder come from: `images.csv` of a dataset.zip, `images.jsonl` of a
collection. People edit both, so each value is read as text, bounded, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.class_names import shown_name
from training.run_folder import file_format
from training.text_files import decoded, original_cell, table_rows

_MAX_CHARACTERS = 2000


@dataclass(frozen=True)
class Provenance:
    """Source, licence and author of an image."""

    source: str = "folder"
    license: str = ""
    credit: str = ""
    """Who made the image and under which licence, as a sentence."""
    page_url: str = ""
    format: str = ""
    """Of the file as it was found; see `ImageRow`."""
    title: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Provenance:
        """Read a row of images.csv or a record of images.jsonl; they have the same columns."""
        page_url = _text(values, "page_url")
        if not page_url.startswith(("http://", "https://")):
            page_url = ""
        license_name = _text(values, "license")
        title = _text(values, "title")
        credit = _text(values, "attribution")
        if not credit:
            credit = title
            creator = _text(values, "creator")
            if creator:
                credit = f"{credit or 'A picture'} by {creator}"
        if credit and license_name and not _says(credit, license_name):
            terms = f"{license_name} {_text(values, 'license_version')}".strip()
            credit = f"{credit} Licence: {terms}"
        source = _text(values, "source") or "folder"
        found_as = file_format(_text(values, "mime"), _text(values, "image_url"))
        return cls(source, license_name, credit, page_url, found_as, title)


def read_image_table(path: Path) -> dict[str, Provenance]:
    """Return the rows of images.csv by `file_name`; what cannot be read is passed over."""
    try:
        text = _text_in(path)
    except OSError:
        return {}
    found = {}
    for cells in table_rows(text):
        row = {title: original_cell(cell) for title, cell in cells.items()}
        name = row.get("file_name")
        if name is None:
            continue
        provenance = Provenance.of(row)
        found[name] = provenance
        # As Windows writes it.
        plain = name.replace("\\", "/").removeprefix("./")
        found.setdefault(plain, provenance)
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file of JSON, empty where there is none."""
    try:
        value = json.loads(_text_in(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects in a file of JSON lines; lines that hold none are passed over."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return
    for line in text.split("\n"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value


def _text_in(path: Path) -> str:
    """Return the text of a file in whatever encoding; raises OSError."""
    data = path.read_bytes()
    try:
        return decoded(data)
    except ValueError:
        return data.decode("utf-8", errors="replace")


def _says(credit: str, license_name: str) -> bool:
    """Return whether a line of credit names the licence already, as cc-by-sa or as CC BY-SA."""
    words = license_name.casefold().replace("-", " ")
    return words in credit.casefold().replace("-", " ")


def _text(values: Mapping[str, Any], key: str) -> str:
    """Return a value as one line of text, empty for anything else."""
    value = values.get(key)
    if not isinstance(value, str):
        return ""
    bounded = value[:_MAX_CHARACTERS]
    words = bounded.split()
    return shown_name(" ".join(words))
