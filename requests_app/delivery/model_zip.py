"""``model.zip`` and ``model.pth``: put together when they are read, of the run's model folder.

The large files of the model folder are in the zip as they are, so that only the small ones and the
zip's own words lie on disk a second time, in a splice (see ``training.spliced``). What is read has
one size and one sha256, and can be resumed. Versions before 0.2 left a whole ``model.zip``.
"""

import hashlib
import zipfile
from datetime import date
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from requests_app.delivery.dataset_zip import Beat, PublishedFile, no_beat, publish
from requests_app.delivery.names import top_folder
from requests_app.models import Artifact, DatasetVersion, Kind
from training.spliced import (
    PTH_SPLICE,
    SPLICE_SUFFIX,
    Piece,
    SpliceError,
    open_splice,
    parts_of_zip,
    spliced,
    write_splice,
)

# The files that nothing changes once they are written. A takedown or judgement writes the others
# again, so that the zip has copies of those.
LARGE_FILES = ("model.onnx", "model.safetensors", "model.pth", "novelty.safetensors", "try.html")
MODEL_SPLICE = f"model.zip{SPLICE_SUFFIX}"


def build_model(version: DatasetVersion, target: Path, beat: Beat = no_beat) -> PublishedFile:
    """Write the splice ``target`` that stands for the ``model.zip`` of a version's model folder.

    :raises OSError: it could not be written
    """
    folder = version.folder / "model"
    entries = [(path.name, path) for path in sorted(folder.iterdir()) if path.is_file()]
    whole = target.with_suffix(".whole")
    try:
        made = publish(entries, whole, top_folder(version.request, Kind.MODEL), beat, LARGE_FILES)
        cut = write_splice(target, parts_of_zip(whole, _large_file), folder)
    finally:
        whole.unlink(missing_ok=True)
    if cut.sha256 != made.sha256:
        raise OSError(f"{folder} changed while it was packed")
    return PublishedFile(target, made.bytes, made.sha256)


def _large_file(entry: zipfile.ZipInfo, content: bytes) -> Piece | None:
    """Return the file of the model folder that an entry is a copy of, if it is a large one."""
    name = Path(entry.filename).name
    return Piece(name, 0, len(content)) if name in LARGE_FILES else None


def published_pth(version: DatasetVersion) -> PublishedFile | None:
    """Return the ``model.pth`` of a version; None where its training left none."""
    path = version.folder / PTH_SPLICE
    if not path.is_file():
        return None
    made = spliced(path, version.folder / "model")
    return PublishedFile(path, made.bytes, made.sha256)


class DamagedError(OSError):
    """A delivered file has other bytes than when it was made."""


def open_artifact(artifact: Artifact) -> BinaryIO:
    """Open a delivered file, to read and to seek in.

    :raises OSError: it, or what it is put together of, is not there
    :raises DamagedError: it is not what it was made as
    """
    folder = artifact.version.folder / "model"
    try:
        digest = _digest_now(artifact.file, folder)
    except SpliceError as error:
        raise DamagedError(f"{artifact.path} is damaged") from error
    if digest != artifact.sha256:
        raise DamagedError(f"{artifact.path} is damaged")
    return _open(artifact.file, folder)


def is_damaged(artifact: Artifact) -> bool:
    """Return whether a delivered file is gone or not what it was made as."""
    try:
        open_artifact(artifact).close()
    except OSError:
        return True
    return False


def damaged_model_files(version: DatasetVersion) -> list[str]:
    """Return the large files of a version's model folder that its SHA256SUMS do not describe."""
    folder = version.folder / "model"
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        return []
    damaged = []
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        if name not in LARGE_FILES:
            continue
        if not path.is_file() or _digest_now(path, folder) != digest:
            damaged.append(name)
    return damaged


def _open(path: Path, folder: Path) -> BufferedReader:
    if path.suffix == SPLICE_SUFFIX:
        return open_splice(path, folder)
    return path.open("rb")


def _digest_now(path: Path, folder: Path) -> str:
    """Return the sha256 of a file; it is read again when a file has changed, and every day."""
    marks = [_mark(path)]
    if path.suffix == SPLICE_SUFFIX:
        pieces = [folder / name for name in LARGE_FILES]
        marks += [_mark(piece) for piece in pieces if piece.exists()]
    return _digest(path, folder, tuple(marks), date.today())


def _mark(path: Path) -> tuple[str, int, int, int]:
    facts = path.stat()
    return path.name, facts.st_ino, facts.st_size, facts.st_mtime_ns


@lru_cache(maxsize=512)
def _digest(
    path: Path, folder: Path, marks: tuple[tuple[str, int, int, int], ...], day: date
) -> str:
    with _open(path, folder) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
