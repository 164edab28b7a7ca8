"""Embeddings and fingerprints of every picture of a run, computed in batches and cached by content."""

from __future__ import annotations

import hashlib
import io
import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.data import BrokenPictureError, as_array, read_picture
from training.manifest import ImageRow
from training.nearcopies import Fingerprint, fingerprint
from training.network import PREPROCESSING, PictureNetwork

_BATCH = 16  # pictures computed and cached together

# What reading a cut or damaged entry ends in, found by cutting and flipping bits at every place of one: the zip
# around it (RuntimeError: a flag of encryption or of an unknown compression), the array's header, its data.
_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, IndexError, RuntimeError, SyntaxError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip

Report = Callable[[int, int], None]
"""Called with pictures done and pictures in all."""


@dataclass(frozen=True)
class PictureFeatures:
    """What is known of a run's usable pictures, in the order of the manifest."""

    rows: list[int]
    """Their places in the manifest."""
    embeddings: NDArray[np.float32]
    """[n, d], n = len(rows)."""
    fingerprints: list[Fingerprint]
    broken: dict[str, str]
    """File to reason for the pictures that could not be used."""


@dataclass(frozen=True)
class _Decoded:
    """One picture read from the disk, or why not."""

    picture: Image.Image | None
    reason: str = ""


def extract(
    network: PictureNetwork, rows: Sequence[ImageRow], run_dir: Path, cache: Path, report: Report
) -> PictureFeatures:
    """Features of all pictures of the manifest. Batches found complete in the cache are not computed again.

    Batches are cut at fixed places, so a run that was killed and goes on computes the very same numbers.
    """
    folder = cache / f"{network.backbone.name}-{_body_digest(network)}-{PREPROCESSING}"
    folder.mkdir(parents=True, exist_ok=True)
    results: list[_Result] = []
    for batch in _in_batches(network, rows, run_dir, folder):
        results += batch
        report(len(results), len(rows))
    vectors = [vector for vector, _, _ in results if vector is not None]
    return PictureFeatures(
        rows=[place for place, (vector, _, _) in enumerate(results) if vector is not None],
        embeddings=np.stack(vectors) if vectors else np.empty((0, network.backbone.dimension), np.float32),
        fingerprints=[known for _, known, _ in results if known is not None],
        broken={row.file: reason for row, (_, _, reason) in zip(rows, results, strict=True) if reason},
    )


_Result = tuple[NDArray[np.float32] | None, Fingerprint | None, str]
"""Embedding and fingerprint of a picture, or the reason why it has none."""


def _in_batches(
    network: PictureNetwork, rows: Sequence[ImageRow], run_dir: Path, folder: Path
) -> Iterator[list[_Result]]:
    """Results batch by batch, each decoded while the one before is computed."""
    batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    with ThreadPoolExecutor(max_workers=2) as reader:
        coming = [_submit(reader, batch, run_dir, folder) for batch in batches[:1]]
        for number, batch in enumerate(batches):
            reading = coming.pop()
            coming = [_submit(reader, following, run_dir, folder) for following in batches[number + 1 : number + 2]]
            if isinstance(reading[0], Future):
                decoded = [future.result() for future in reading]
                yield _compute(network, batch, decoded, folder)
            else:
                yield reading


def _submit(
    reader: ThreadPoolExecutor, batch: Sequence[ImageRow], run_dir: Path, folder: Path
) -> list[Future[_Decoded]] | list[_Result]:
    """The results of a batch if the cache has them all, else its pictures being decoded."""
    return _cached(folder, batch) or [reader.submit(_decode, run_dir / row.file, row.sha256) for row in batch]


def _decode(path: Path, sha256: str) -> _Decoded:
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BrokenPictureError("not the file that the manifest describes")
        return _Decoded(read_picture(data))
    except OSError:
        return _Decoded(None, "missing")
    except BrokenPictureError as error:
        return _Decoded(None, str(error))


def _compute(
    network: PictureNetwork, batch: Sequence[ImageRow], decoded: Sequence[_Decoded], folder: Path
) -> list[_Result]:
    pictures = [item.picture for item in decoded if item.picture]
    vectors = iter(embed_pictures(network, pictures))
    results: list[_Result] = []
    for row, item in zip(batch, decoded, strict=True):
        if item.picture is None:
            results.append((None, None, item.reason))
            continue
        vector, known = next(vectors), fingerprint(item.picture)
        _store(folder, row, vector, known)
        results.append((vector, known, ""))
    return results


def embed_pictures(network: PictureNetwork, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
    """Embeddings [n, d] of decoded pictures of any size, as one batch."""
    if not pictures:
        return np.empty((0, network.backbone.dimension), np.float32)
    device = network.temperature.device
    with torch.inference_mode():
        crops = [network.prepare(torch.from_numpy(as_array(picture)).to(device)) for picture in pictures]
        # Convolutions on processors run about a fifth faster in this layout; the numbers stay the same.
        batch = torch.stack(crops).contiguous(memory_format=torch.channels_last)
        return network.embed(batch).float().cpu().numpy()


def _entry(folder: Path, row: ImageRow) -> Path:
    return folder / f"{row.sha256[:32]}.npz"


def _store(folder: Path, row: ImageRow, vector: NDArray[np.float32], known: Fingerprint) -> None:
    """One picture's entry, renamed into place; not flushed, because an unreadable entry is simply made again."""
    stream = io.BytesIO()
    hashes = np.array([known.hash, known.mirror_hash], np.uint64)
    np.savez(stream, embedding=vector, hashes=hashes, thumbnails=np.frombuffer(known.thumbnails, np.uint8))
    beside = folder / f".{row.sha256[:32]}.{os.getpid()}.tmp"
    beside.write_bytes(stream.getvalue())
    beside.replace(_entry(folder, row))


def _cached(folder: Path, batch: Sequence[ImageRow]) -> list[_Result] | None:
    """The results of a batch that is complete in the cache, else None; an unreadable entry counts as not there."""
    results: list[_Result] = []
    for row in batch:
        try:
            with np.load(_entry(folder, row), allow_pickle=False) as entry:
                hashes = entry["hashes"]
                known = Fingerprint(int(hashes[0]), int(hashes[1]), entry["thumbnails"].tobytes())
                results.append((entry["embedding"], known, ""))
        except _UNREADABLE:
            return None
    return results


def _body_digest(network: PictureNetwork) -> str:
    """Tells apart the weights that embeddings were made with: the first eight digits over all tensors' sums."""
    digest = hashlib.sha256()
    for name, tensor in network.body.state_dict().items():
        digest.update(f"{name} {tensor.double().sum().item():.9e}\n".encode())
    return digest.hexdigest()[:8]
