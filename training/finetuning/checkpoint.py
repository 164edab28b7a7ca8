"""Where a fine-tuning stands, in one file that is either whole or not there."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from training.run_folder import atomic_write

_DIGEST_BYTES = 32

# What loading ends in where the bytes are whole but another program's: no zip, no tensors,
# forbidden classes.
_FOREIGN = (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError)


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, texts, lists and dicts: beside the name, flushed, renamed. A sha256
    ends the file.
    """
    with atomic_write(path) as file:
        hashing = _Hashing(file)
        torch.save(dict(state), cast(IO[bytes], hashing))
        file.write(hashing.digest.digest())


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state in a file on the CPU, or None where it is missing, damaged or foreign. Runs no code
    from it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    content, digest = memoryview(data)[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _FOREIGN:
        return None
    return state if isinstance(state, dict) else None


class _Hashing:
    """A file for writing that sums up what passes."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Pass bytes on."""
        self.digest.update(data)
        return int(self._file.write(data))

    def flush(self) -> None:
        """Pass it on."""
        self._file.flush()
