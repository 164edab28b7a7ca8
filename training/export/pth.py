"""`model.pth` as a splice: torch's own file, whose tensors stay where they are already, in
`model.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from training.spliced import Part, Piece, Spliced, write_splice

_SMALLEST_PIECE = 256  # bytes; smaller tensors are kept in the splice
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip's entry: the lengths of its name and extra field


def write_pth_splice(path: Path, state: Mapping[str, Tensor], model_dir: Path) -> Spliced:
    """Write the splice that stands for the `model.pth` of a state dict.

    `model_dir` has the same tensors in `model.safetensors`. Raises OSError.
    """
    whole = model_dir / "model.pth"  # torch names what is inside after the file
    try:
        torch.save(dict(state), whole)
        content = whole.read_bytes()
        parts = _parts(whole, content, model_dir / "model.safetensors")
    finally:
        whole.unlink(missing_ok=True)
    spliced = write_splice(path, parts, model_dir)
    if spliced.sha256 != hashlib.sha256(content).hexdigest():
        raise OSError("model.pth cannot be put together from model.safetensors.")
    return spliced


def _parts(pth: Path, content: bytes, safetensors: Path) -> list[Part]:
    """Return torch's file in parts: pieces of the other file where it has the same bytes."""
    known = _tensors(safetensors)
    parts: list[Part] = []
    done = 0
    with zipfile.ZipFile(pth) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    for entry in entries:
        header = entry.header_offset
        lengths = _LOCAL_HEADER.unpack_from(content, header)
        start = header + _LOCAL_HEADER.size + sum(lengths)
        end = start + entry.file_size
        offset = known.get(hashlib.sha256(content[start:end]).digest())
        if offset is None:
            continue
        parts.append(content[done:start])
        parts.append(Piece(safetensors.name, offset, end - start))
        done = end
    parts.append(content[done:])
    return parts


def _tensors(path: Path) -> dict[bytes, int]:
    """Return where in a safetensors file each larger tensor begins, by the sha256 of its bytes."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    head = 8 + size
    places = {}
    for name, entry in json.loads(content[8:head]).items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        if last - first < _SMALLEST_PIECE:
            continue
        tensor = content[head + first : head + last]
        places[hashlib.sha256(tensor).digest()] = head + first
    return places
