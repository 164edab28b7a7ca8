"""Notice that a folder of pictures has changed since a run folder was made from it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from training.class_names import shown_name
from training.images.provenance import read_json
from training.images.walk import files_below, is_litter
from training.run_folder import write_json

_NOTE = "imported.json"
_CHUNK = 1 << 20  # bytes


def record_folder(images: Path, run_dir: Path, digests: Mapping[Path, str]) -> None:
    """Write down what the folder holds; `digests` has SHA-256 of files that were read already."""
    note = {
        "folder": shown_name(str(images)),
        "listing": _listing(images, run_dir),
        "contents": _contents(images, run_dir, digests),
    }
    write_json(run_dir / _NOTE, note)


def has_changed(images: Path, run_dir: Path) -> bool:
    """Return whether the folder holds other files than when the run folder was made from it.

    False where that is not known. Files are read only where size, time or name of one differs.
    """
    note = read_json(run_dir / _NOTE)
    if not note or not images.is_dir():
        return False
    if note.get("listing") == _listing(images, run_dir):
        return False
    return note.get("contents") != _contents(images, run_dir, {})


def _listing(images: Path, run_dir: Path) -> str:
    """Return a digest of names, sizes and times."""
    digest = hashlib.sha256()
    for path in _files(images, run_dir):
        facts = ""
        with contextlib.suppress(OSError):  # a link to nowhere, a path too long, a closed folder
            status = path.stat()
            facts = f"{status.st_size} {status.st_mtime_ns}"
        digest.update(_name(path, images) + facts.encode() + b"\n")
    return digest.hexdigest()


def _contents(images: Path, run_dir: Path, digests: Mapping[Path, str]) -> str:
    """Return a digest of names and contents."""
    digest = hashlib.sha256()
    for path in _files(images, run_dir):
        known = digests.get(path) or _sha256(path)
        digest.update(_name(path, images) + known.encode() + b"\n")
    return digest.hexdigest()


def _files(images: Path, run_dir: Path) -> Iterator[Path]:
    """Yield what may be of concern: no litter, nothing of the run folder itself."""
    run_dir = run_dir.resolve()
    for file in files_below(images, images):
        parts = file.path.relative_to(images).parts
        if any(is_litter(part) for part in parts):
            continue
        if not file.path.parent.resolve().is_relative_to(run_dir):
            yield file.path


def _name(path: Path, images: Path) -> bytes:
    return os.fsencode(path.relative_to(images)) + b"\0"


def _sha256(path: Path) -> str:
    """Return the digest of a regular file, empty where there is none that can be read."""
    digest = hashlib.sha256()
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()
