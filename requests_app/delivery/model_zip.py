"""``model.zip`` and ``model.pth``: put together when they are read, of the run's model folder.

The large files of the model folder are in the zip as they are, so that only the small ones and the
zip's own words lie on disk a second time, in a splice (see ``training.spliced``). What is read has
one size and one sha256, and can be resumed. Versions before 0.2 left a whole ``model.zip``.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from requests_app.delivery.dataset_zip import Beat, PublishedFile, no_beat
from requests_app.delivery.names import top_folder
from requests_app.models import Artifact, DatasetVersion, Kind
from training.spliced import (
    PTH_SPLICE,
    SPLICE_SUFFIX,
    Part,
    Piece,
    open_splice,
    spliced,
    write_splice,
)

# The files that nothing changes once they are written. A takedown or judgement writes the others
# again, so that the zip has copies of those.
LARGE_FILES = ("model.onnx", "model.safetensors", "model.pth", "novelty.safetensors", "try.html")
MODEL_SPLICE = f"model.zip{SPLICE_SUFFIX}"
DATE = (1 << 5) | 1  # 1 January 1980 as a zip has it; the time is 0
MADE_ON_UNIX = 3 << 8 | 20
FORMAT = 20  # version of the format that a reader needs
FILE_MODE = 0o100644 << 16
STORED = 0
DEFLATED = 8
# PKWARE's APPNOTE.TXT, 4.3.7, 4.3.12 and 4.3.16.
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
END = struct.Struct("<4s4H2LH")


@dataclass(frozen=True)
class Entry:
    """One file of the zip."""

    name: bytes
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    """Where its header begins."""

    @property
    def local_header(self) -> bytes:
        sizes = (self.crc, self.packed, self.size, len(self.name), 0)
        fields = LOCAL_HEADER.pack(b"PK\3\4", FORMAT, 0, self.method, 0, DATE, *sizes)
        return fields + self.name

    @property
    def central_header(self) -> bytes:
        versions = (MADE_ON_UNIX, FORMAT, 0, self.method, 0, DATE)
        sizes = (self.crc, self.packed, self.size, len(self.name))
        places = (0, 0, 0, 0, FILE_MODE, self.offset)
        return CENTRAL_HEADER.pack(b"PK\1\2", *versions, *sizes, *places) + self.name


def build_model(version: DatasetVersion, target: Path, beat: Beat = no_beat) -> PublishedFile:
    """Write the splice ``target`` that stands for the ``model.zip`` of a version's model folder.

    :raises OSError: it could not be written
    """
    folder = version.folder / "model"
    top = top_folder(version.request, Kind.MODEL)
    parts: list[Part] = []
    entries: list[Entry] = []
    done = 0
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        beat()
        entry, content = _entry(path, f"{top}/{path.name}".encode(), done)
        entries.append(entry)
        parts += [entry.local_header, content]
        done += len(entry.local_header) + entry.packed
    central = b"".join(entry.central_header for entry in entries)
    count = len(entries)
    end = END.pack(b"PK\5\6", 0, 0, count, count, len(central), done, 0)
    parts.append(central + end)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = write_splice(target, parts, folder)
    return PublishedFile(target, made.bytes, made.sha256)


def _entry(path: Path, name: bytes, offset: int) -> tuple[Entry, Part]:
    """Return a file as an entry of the zip that begins at an offset, and its content there."""
    content = path.read_bytes()
    crc = zlib.crc32(content)
    size = len(content)
    if path.name in LARGE_FILES:
        piece = Piece(path.name, 0, size)
        return Entry(name, STORED, crc, size, size, offset), piece
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = deflate.compress(content) + deflate.flush()
    return Entry(name, DEFLATED, crc, len(packed), size, offset), packed


def published_pth(version: DatasetVersion) -> PublishedFile | None:
    """Return the ``model.pth`` of a version; None where its training left none."""
    path = version.folder / PTH_SPLICE
    if not path.is_file():
        return None
    made = spliced(path, version.folder / "model")
    return PublishedFile(path, made.bytes, made.sha256)


def open_artifact(artifact: Artifact) -> BinaryIO:
    """Open a delivered file, to read and to seek in.

    :raises OSError: it, or what it is put together of, is not there
    """
    if artifact.file.suffix == SPLICE_SUFFIX:
        return open_splice(artifact.file, artifact.version.folder / "model")
    return artifact.file.open("rb")
