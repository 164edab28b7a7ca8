"""Which images are known, which of two duplicates is kept, and what belongs to two classes.

Duplicates are exact ones or verified near-duplicates, within a class and across classes. Of those
in one class the one with the best-known licence is kept, then the largest. What shows up in two
classes belongs to neither.
"""

import base64
import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from PIL import Image

from scraping.files import read_json_lines
from scraping.records.image_log import ImageRecord
from scraping.records.provenance import license_rank
from scraping.screening.screen import CleanImage
from scraping.sources.catalogue import is_supplied
from training.duplicates import DuplicateIndex, Fingerprint, fingerprint

MIN_GAIN = 1.25  # times the pixels; a frame adds some, and is no reason to change


@dataclass(frozen=True)
class Duplicate:
    """The known image that a new one duplicates.

    `class_id` is where it was kept, or would have been; `withdrawn` when it was found in two
    classes.
    """

    class_id: str
    sha256: str
    exact: bool
    withdrawn: bool


@dataclass
class KnownImages:
    """The images of all classes, by their content.

    An image that was withdrawn or given up for a better one stays known, so that its further
    duplicates are recognised too. Digests are SHA-256 of the stored bytes.
    """

    _index: DuplicateIndex = field(default_factory=DuplicateIndex)
    _class_of: dict[str, str] = field(default_factory=dict)
    _replaced_by: dict[str, str] = field(default_factory=dict)
    _withdrawn: set[str] = field(default_factory=set)

    def add(self, class_id: str, sha256: str, fingerprint: Fingerprint) -> None:
        """Remember a kept image."""
        self._class_of[sha256] = class_id
        self._replaced_by.pop(sha256, None)
        self._index.add(sha256, fingerprint)

    def withdraw(self, class_id: str, sha256: str, fingerprint: Fingerprint | None = None) -> None:
        """Mark an image as one that belongs to no class, with all its duplicates."""
        self._class_of.setdefault(sha256, class_id)
        self._withdrawn.add(sha256)
        if fingerprint is not None:
            self._index.add(sha256, fingerprint)

    def replace(self, old: str, new: str) -> None:
        """Take what duplicates the old image for a duplicate of the new one from now on."""
        if old != new:
            self._replaced_by[old] = new

    def duplicate_of(self, image: CleanImage) -> Duplicate | None:
        """Return the known image that this one duplicates, or None."""
        sha256: str | None = image.sha256
        if sha256 not in self._class_of:
            sha256 = self._index.find(image.fingerprint)
        if sha256 is None:
            return None
        while sha256 in self._replaced_by:
            sha256 = self._replaced_by[sha256]
        return Duplicate(
            class_id=self._class_of[sha256],
            sha256=sha256,
            exact=sha256 == image.sha256,
            withdrawn=sha256 in self._withdrawn,
        )


def is_better(new: ImageRecord, old: ImageRecord) -> bool:
    """Return whether a new duplicate is to be kept instead of the old one.

    What whoever asks has supplied stays. Of others the one with the more open licence is kept, and
    at equal licences the new one only where it has `MIN_GAIN` times the pixels.
    """
    if is_supplied(old["source"]):
        return False
    new_rank = license_rank(new["license"], new["license_basis"])
    old_rank = license_rank(old["license"], old["license_basis"])
    if new_rank != old_rank:
        return new_rank > old_rank
    return _pixels(new) > MIN_GAIN * _pixels(old)


def _pixels(record: ImageRecord) -> int:
    width = record["width"] or 0
    height = record["height"] or 0
    return width * height


class FingerprintLog:
    """marks.jsonl: fingerprints of images while a collection runs, for when it is resumed.

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

    def append(self, sha256: str, fingerprint: Fingerprint) -> None:
        """Record one image's fingerprint by the SHA-256 of its stored bytes."""
        assert self._stream is not None
        entry = {
            "sha256": sha256,
            "hash": fingerprint.hash,
            "mirror_hash": fingerprint.mirror_hash,
            "thumbnails": base64.b64encode(fingerprint.thumbnails).decode(),
        }
        self._stream.write(json.dumps(entry) + "\n")
        self._stream.flush()

    def read(self) -> dict[str, Fingerprint]:
        """Return all fingerprints by SHA-256; what another version wrote is passed over."""
        found = {}
        for entry in read_json_lines(self._path):
            with contextlib.suppress(ValueError, KeyError):
                thumbnails = base64.b64decode(entry["thumbnails"])
                stored = Fingerprint(entry["hash"], entry["mirror_hash"], thumbnails)
                found[entry["sha256"]] = stored
        return found

    def remove(self) -> None:
        """Delete the file: a finished collection needs it no more."""
        self._path.unlink(missing_ok=True)


def stored_fingerprint(file: Path) -> Fingerprint | None:
    """Return the fingerprint of a stored image, None when the file is missing or damaged."""
    try:
        with Image.open(file, formats=("JPEG",)) as image:
            return fingerprint(image.convert("RGB"))
    except (OSError, ValueError):
        return None
