"""images.jsonl: what became of every candidate, one row each.

Rows are appended as they are decided, so a killed run loses at most the last line; a later row of
the same class and address supersedes the earlier one. At the end the file is written anew with one
row per candidate.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from scraping.files import atomic_write, now, read_json_lines
from scraping.reasons import Reason
from scraping.records.provenance import attribution, license_fields
from scraping.screening.screen import Picture
from scraping.sources.base import Candidate

Row = dict[str, Any]
Key = tuple[str, str]


def picture_file(picture: Picture) -> str:
    """Where a picture is stored, relative to the folder."""
    return f"images/{picture.sha256[:16]}.jpg"


def store_picture(folder: Path, picture: Picture) -> None:
    """Publish the JPEG under its content's name; the same content is already complete if it is
    there.
    """
    target = folder / picture_file(picture)
    if not target.exists():
        atomic_write(target, picture.jpeg)


def candidate_row(candidate: Candidate, class_id: str) -> Row:
    """A row that says where a picture was found and nothing yet of its fate.

    Sides and kind are at first what the source states and later what came; `source_width` and
    `source_height` stay.
    """
    return {
        "class": class_id,
        "source": candidate.source,
        "query": candidate.query,
        "rank": candidate.rank,
        "image_url": candidate.image_url,
        "page_url": candidate.page_url,
        "title": candidate.title,
        "creator": candidate.creator,
        "creator_url": candidate.creator_url,
        **license_fields(candidate),
        "license_basis": candidate.license_basis,
        "attribution": attribution(candidate),
        "state": "rejected",
        "reason": None,
        "detail": "",
        "file": None,
        "sha256": None,
        "source_sha256": None,
        "width": candidate.width,
        "height": candidate.height,
        "source_width": candidate.width,
        "source_height": candidate.height,
        "bytes": None,
        "stored_bytes": None,
        "mime": candidate.mime or None,
        "http_status": None,
        "found_at": now(),
        "fetched_at": None,
    }


def rejected(row: Row, reason: Reason, detail: str = "") -> Row:
    """The row with its fate: not kept, and why."""
    return row | {"state": "rejected", "reason": reason, "detail": detail, "file": None}


class RowLog:
    """The rows of one folder, in memory and in the file. Use as a context manager to append."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[bytes] | None = None
        self.rows: dict[Key, Row] = {}
        for row in read_json_lines(path):
            if isinstance(row, dict) and "image_url" in row:
                self.rows[self.key(row)] = row

    @staticmethod
    def key(row: Row) -> Key:
        """What a later row supersedes an earlier one by."""
        return str(row.get("class", "")), str(row["image_url"])

    def __enter__(self) -> "RowLog":
        self.rewrite(self.rows.values())  # a torn line must not swallow the next one
        self._stream = self._path.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, row: Row) -> None:
        """Record a decision; handed to the operating system before this returns."""
        assert self._stream is not None
        self.rows[self.key(row)] = row
        self._stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()

    def forget(self, key: Key) -> None:
        """Drop a row from memory; the file follows when it is written anew."""
        self.rows.pop(key, None)

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Write the file anew, atomically."""
        lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
        atomic_write(self._path, b"".join(lines))
