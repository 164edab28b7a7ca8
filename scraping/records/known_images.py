"""Which pictures are known, which of two copies is kept, and what belongs to two classes.

Copies are exact or near ones by verified pairs, within a class and across classes. Of the copies of
one picture in one class the one with the best-known licence is kept, then the largest. What shows
up in two classes belongs to neither.
"""

import base64
import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from PIL import Image

from scraping.files import read_json_lines
from scraping.records.image_log import ImageRecord
from scraping.records.provenance import license_rank
from scraping.screening.screen import CleanImage
from training.duplicates import DuplicateIndex, Fingerprint, fingerprint

LARGER = 1.25  # times the pixels; a frame adds some, and is no reason to change


@dataclass(frozen=True)
class Copy:
    """A known picture that a new one is a copy of. `class_id` is where it was kept, or would have
    been.
    """

    class_id: str
    sha256: str
    exact: bool
    withdrawn: bool


@dataclass
class KnownPictures:
    """The pictures of all classes by content. A picture that was withdrawn or given up for a better
    copy stays known, so that its further copies are recognised too.
    """

    _index: DuplicateIndex = field(default_factory=DuplicateIndex)
    _class_of: dict[str, str] = field(default_factory=dict)
    _kept_instead: dict[str, str] = field(default_factory=dict)
    _withdrawn: set[str] = field(default_factory=set)

    def add(self, class_id: str, sha256: str, marks: Fingerprint) -> None:
        """Remember a kept picture."""
        self._class_of[sha256] = class_id
        self._kept_instead.pop(sha256, None)
        self._index.add(sha256, marks)

    def withdraw(self, class_id: str, sha256: str, marks: Fingerprint | None = None) -> None:
        """Mark a picture as one that belongs to no class, with all its copies."""
        self._class_of.setdefault(sha256, class_id)
        self._withdrawn.add(sha256)
        if marks is not None:
            self._index.add(sha256, marks)

    def replace(self, old: str, new: str) -> None:
        """From now on the copies of one picture are copies of another."""
        if old != new:
            self._kept_instead[old] = new

    def copy_of(self, picture: CleanImage) -> Copy | None:
        """The known picture that this is a copy of."""
        exact = picture.sha256 in self._class_of
        found = picture.sha256 if exact else self._index.find(picture.fingerprint)
        if found is None:
            return None
        while (instead := self._kept_instead.get(found)) is not None:
            found = instead
        return Copy(
            self._class_of[found],
            found,
            exact and found == picture.sha256,
            found in self._withdrawn,
        )


def is_better(new: ImageRecord, old: ImageRecord) -> bool:
    """Whether a new copy is to be kept instead of the old one."""
    new_rank, old_rank = (license_rank(row["license"], row["license_basis"]) for row in (new, old))
    if new_rank != old_rank:
        return new_rank > old_rank
    return _pixels(new) > LARGER * _pixels(old)


def _pixels(record: ImageRecord) -> int:
    return (record["width"] or 0) * (record["height"] or 0)


class MarkLog:
    """marks.jsonl: fingerprints of pictures while a collection runs, so that one taken up again
    finds the same copies.

    The stored file would do for what is kept, but not for what was withdrawn. Use as a context
    manager to append.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[str] | None = None

    def __enter__(self) -> Self:
        self._stream = self._path.open("a", encoding="utf-8")
        self._stream.write("\n")  # a line that a kill tore must not swallow the next one
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, sha256: str, marks: Fingerprint) -> None:
        """Record one picture's fingerprint."""
        assert self._stream is not None
        thumbnails = base64.b64encode(marks.thumbnails).decode()
        entry = {
            "sha256": sha256,
            "hash": marks.hash,
            "mirror_hash": marks.mirror_hash,
            "thumbnails": thumbnails,
        }
        self._stream.write(json.dumps(entry) + "\n")
        self._stream.flush()

    def read(self) -> dict[str, Fingerprint]:
        """All fingerprints by SHA-256 of the stored picture; what another version wrote is passed
        over.
        """
        return dict(_parsed(read_json_lines(self._path)))

    def remove(self) -> None:
        """Delete the file: a finished collection needs it no more."""
        self._path.unlink(missing_ok=True)


def _parsed(entries: Iterable[Any]) -> Iterator[tuple[str, Fingerprint]]:
    for entry in entries:
        with contextlib.suppress(ValueError, KeyError):
            thumbnails = base64.b64decode(entry["thumbnails"])
            yield entry["sha256"], Fingerprint(entry["hash"], entry["mirror_hash"], thumbnails)


def stored_marks(folder: Path, row: ImageRecord) -> Fingerprint | None:
    """Fingerprint of a stored picture, None when the file is missing or damaged."""
    try:
        with Image.open(folder / str(row["file"]), formats=("JPEG",)) as image:
            return fingerprint(image.convert("RGB"))
    except (OSError, ValueError):
        return None
