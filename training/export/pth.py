"""`model.pth` as a splice: torch's own file, whose tensors stay where they are already, in
`model.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from training.spliced import Piece, Spliced, parts_of_zip, write_splice

_SMALLEST_PIECE = 256  # bytes; smaller tensors are kept in the splice


def write_pth_splice(path: Path, state: Mapping[str, Tensor], model_dir: Path) -> Spliced:
    """Write the splice that stands for the `model.pth` of a state dict.

    `model_dir` has the same tensors in `model.safetensors`. Raises OSError.
    """
    whole = model_dir / "model.pth"  # torch names what is inside after the file
    weights = model_dir / "model.safetensors"
    known = _tensors(weights)

    def piece_of(_entry: zipfile.ZipInfo, content: bytes) -> Piece | None:
        offset = known.get(hashlib.sha256(content).digest())
        return None if offset is None else Piece(weights.name, offset, len(content))

    try:
        torch.save(dict(state), whole)
        parts = parts_of_zip(whole, piece_of)
        digest = hashlib.sha256(whole.read_bytes()).hexdigest()
    finally:
        whole.unlink(missing_ok=True)
    spliced = write_splice(path, parts, model_dir)
    if spliced.sha256 != digest:
        raise OSError("model.pth cannot be put together from model.safetensors.")
    return spliced


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
