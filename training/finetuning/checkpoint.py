"""The state of a fine-tuning in one file that is either whole or not there."""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

import torch

from training.run_folder import atomic_write

_DIGEST_BYTES = 32  # of sha256, at the end of the file
_WRITING_SHARE = 0.1  # of the time, at most, that goes into writing checkpoints

# What loading raises where the bytes are whole but another program's: no zip, no tensors,
# forbidden classes.
_FOREIGN = (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError)


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, texts, lists and dicts: beside the name, flushed, renamed.

    The sha256 of the content ends the file. Raises OSError where the disk does not take it.
    """
    with atomic_write(path) as file:
        hashing = _HashingWriter(file)
        try:
            torch.save(dict(state), cast(IO[bytes], hashing))
        except RuntimeError as error:  # what torch makes of a disk that is full
            if hashing.refusal is not None:
                raise hashing.refusal from error
            raise
        file.write(hashing.digest.digest())


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the state in a file, its tensors on the CPU; run no code from it.

    None where the file is missing, damaged or another program's.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    content = memoryview(data)[:-_DIGEST_BYTES]
    digest = data[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _FOREIGN:
        return None
    return state if isinstance(state, dict) else None


class CheckpointWriter:
    """Writes checkpoints, on wish in a thread of its own while the training goes on.

    Only an `active` one writes: that of the main process. As a context manager it waits for the
    thread, and raises what the last write ended in unless there is an error already.
    """

    def __init__(self, path: Path, active: bool, min_seconds: float) -> None:
        self._path = path
        self._active = active
        self._min_seconds = min_seconds
        self._interval = min_seconds
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self._finish_writing()

    def due(self) -> bool:
        """Return whether the last checkpoint is old enough; longer where writing takes long."""
        if not self._active:
            return False
        if self._writing is not None and not self._writing.done():
            return False
        return time.monotonic() - self._last >= self._interval

    def write_in_background(self, state: Mapping[str, Any]) -> None:
        """Write a state that nobody changes; raise what the write before ended in."""
        self._finish_writing()
        self._last = time.monotonic()
        self._writing = self._thread.submit(self._write, state)

    def write(self, make_state: Callable[[], Mapping[str, Any]]) -> None:
        """Have the state on the disk on return."""
        if self._active:
            self._finish_writing()
            self._write(make_state())

    def _finish_writing(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, state: Mapping[str, Any]) -> None:
        started = time.monotonic()
        write_checkpoint(self._path, state)
        seconds = time.monotonic() - started
        self._interval = max(self._min_seconds, seconds / _WRITING_SHARE)


class _HashingWriter:
    """A file for writing that hashes what passes."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.refusal: OSError | None = None

    def write(self, data: Any) -> int:
        """Pass bytes on to the file."""
        self.digest.update(data)
        try:
            return int(self._file.write(data))
        except OSError as error:
            self.refusal = error
            raise

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()
