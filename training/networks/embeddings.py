"""Embeddings and fingerprints of every picture of a run, computed in batches and cached by
content.
"""

from __future__ import annotations

import hashlib
import io
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.duplicates import Fingerprint, fingerprint
from training.images.decode import BrokenImageError, as_array, read_image
from training.images.statistics import image_statistics
from training.networks.catalogue import CROP
from training.networks.classifier import PREPROCESSING, ClassifierNetwork
from training.networks.image_cache import ImageCache
from training.networks.precision import FP32, Precision
from training.progress import Progress
from training.run_folder import ImageRow, atomic_write

_BATCH = 16  # pictures computed and cached together

# What reading a cut or damaged entry ends in, found by cutting and flipping bits at every place of
# one: the zip around it (RuntimeError: a flag of encryption or of an unknown compression), the
# array's header, its data.
_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, IndexError, RuntimeError, SyntaxError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class ImageFeatures:
    """What is known of a run's usable pictures, in the order of the manifest."""

    rows: list[int]
    """Their indices in the manifest."""
    embeddings: NDArray[np.float32]
    """[n, d], n = len(rows)."""
    fingerprints: list[Fingerprint]
    statistics: NDArray[np.float32]
    """[n, 4], see `training.metrics.IMAGE_STATISTICS`."""
    broken: dict[str, str]
    """File to reason for the pictures that could not be used."""


@dataclass(frozen=True)
class _Decoded:
    """One picture read from the disk, or why not."""

    picture: Image.Image | None
    reason: str = ""


@dataclass(frozen=True)
class _Known:
    """All that is kept of one picture."""

    embedding: NDArray[np.float32]
    fingerprint: Fingerprint
    statistics: NDArray[np.float32]


_Result = _Known | str
"""What is known of a picture, or the reason why nothing is."""


@dataclass(frozen=True)
class FeatureExtractor:
    """Computes features of a run's pictures by one network in one precision."""

    network: ClassifierNetwork
    precision: Precision
    run_dir: Path
    cache: Path
    """A folder for what has been computed. Entries found there are not computed again."""
    image_cache: ImageCache | None = None
    """Takes every picture's middle square, so that fine-tuning need not decode it a second time."""

    def extract(self, rows: Sequence[ImageRow], report: Progress) -> ImageFeatures:
        """Features of all pictures of the manifest.

        Batches are cut at fixed places, so a run that was killed and goes on computes the very same
        numbers.
        """
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        results: list[_Result] = []
        for batch in self._in_batches(rows, folder):
            results += batch
            report(len(results), len(rows))
        return _collected(rows, results, self.network.backbone.dimension)

    def _folder(self) -> Path:
        made_by = (
            f"{_body_digest(self.network)}-{self.precision.name.replace(', ', '-')}-{PREPROCESSING}"
        )
        return self.cache / f"{self.network.backbone.name}-{made_by}"

    def _in_batches(self, rows: Sequence[ImageRow], folder: Path) -> Iterator[list[_Result]]:
        """Results batch by batch, each decoded while the one before is computed."""
        starts = range(0, len(rows), _BATCH)
        with ThreadPoolExecutor(max_workers=2) as reader:
            coming = [self._submit(reader, rows, start, folder) for start in starts[:1]]
            for number, start in enumerate(starts):
                reading = coming.pop()
                coming = [
                    self._submit(reader, rows, next_, folder)
                    for next_ in starts[number + 1 : number + 2]
                ]
                if isinstance(reading[0], Future):
                    decoded = [future.result() for future in reading]
                    yield self._compute(rows, start, decoded, folder)
                else:
                    yield reading

    def _submit(
        self, reader: ThreadPoolExecutor, rows: Sequence[ImageRow], start: int, folder: Path
    ) -> list[Future[_Decoded]] | list[_Result]:
        """The results of a batch if the cache has them all, else its pictures being decoded."""
        batch = rows[start : start + _BATCH]
        lacking = self.image_cache is not None and not self.image_cache.has(
            range(start, start + len(batch))
        )
        gone = not all((self.run_dir / row.file).is_file() for row in batch)
        known = None if lacking or gone else _cached(folder, batch)
        return known or [
            reader.submit(_decode, self.run_dir / row.file, row.sha256) for row in batch
        ]

    def _compute(
        self, rows: Sequence[ImageRow], start: int, decoded: Sequence[_Decoded], folder: Path
    ) -> list[_Result]:
        places = [start + i for i, item in enumerate(decoded) if item.picture]
        vectors = iter(self._embed(places, [item.picture for item in decoded if item.picture]))
        results: list[_Result] = []
        for row, item in zip(rows[start:], decoded, strict=False):
            if item.picture is None:
                results.append(item.reason)
                continue
            known = _Known(next(vectors), fingerprint(item.picture), image_statistics(item.picture))
            _store(folder, row, known)
            results.append(known)
        return results

    def _embed(self, places: Sequence[int], pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Embeddings [n, d] of the pictures at these places of the manifest; their squares are kept
        on the way.
        """
        if self.image_cache is None:
            return embed_images(self.network, pictures, self.precision)
        side, device = self.image_cache.side, self.network.temperature.device
        with torch.inference_mode():
            squares = [
                self.network.center_crop(torch.from_numpy(as_array(picture)).to(device), side)
                for picture in pictures
            ]
            self.image_cache.put(places, squares)
            edge = (side - CROP) // 2
            crops = [
                self.network.normalize(square[:, edge : edge + CROP, edge : edge + CROP])
                for square in squares
            ]
            return _embed_crops(self.network, crops, self.precision)


def embed_images(
    network: ClassifierNetwork, pictures: Sequence[Image.Image], precision: Precision = FP32
) -> NDArray[np.float32]:
    """Embeddings [n, d] of decoded pictures of any size, as one batch."""
    device = network.temperature.device
    with torch.inference_mode():
        crops = [
            network.prepare(torch.from_numpy(as_array(picture)).to(device)) for picture in pictures
        ]
        return _embed_crops(network, crops, precision)


def _embed_crops(
    network: ClassifierNetwork, crops: Sequence[torch.Tensor], precision: Precision
) -> NDArray[np.float32]:
    if not crops:
        return np.empty((0, network.backbone.dimension), np.float32)
    with precision.autocast(network.temperature.device):
        return (
            network.embed(precision.to_memory_format(torch.stack(list(crops))))
            .float()
            .cpu()
            .numpy()
        )


def _decode(path: Path, sha256: str) -> _Decoded:
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BrokenImageError("not the file that the manifest describes")
        return _Decoded(read_image(data))
    except OSError:
        return _Decoded(None, "missing")
    except BrokenImageError as error:
        return _Decoded(None, str(error))


def _collected(
    rows: Sequence[ImageRow], results: Sequence[_Result], dimension: int
) -> ImageFeatures:
    known = [result for result in results if isinstance(result, _Known)]
    return ImageFeatures(
        rows=[place for place, result in enumerate(results) if isinstance(result, _Known)],
        embeddings=np.array([item.embedding for item in known], np.float32).reshape(-1, dimension),
        fingerprints=[item.fingerprint for item in known],
        statistics=np.array([item.statistics for item in known], np.float32).reshape(
            len(known), -1
        ),
        broken={
            row.file: result
            for row, result in zip(rows, results, strict=True)
            if isinstance(result, str)
        },
    )


def _entry(folder: Path, row: ImageRow) -> Path:
    return folder / f"{row.sha256[:32]}.npz"


def _store(folder: Path, row: ImageRow, known: _Known) -> None:
    """One picture's entry, renamed into place; not flushed, because an unreadable entry is simply
    made again.
    """
    stream = io.BytesIO()
    hashes = np.array([known.fingerprint.hash, known.fingerprint.mirror_hash], np.uint64)
    thumbnails = np.frombuffer(known.fingerprint.thumbnails, np.uint8)
    np.savez(
        stream,
        embedding=known.embedding,
        hashes=hashes,
        thumbnails=thumbnails,
        traits=known.statistics,
    )
    with atomic_write(_entry(folder, row), durable=False) as file:
        file.write(stream.getvalue())


def _cached(folder: Path, batch: Sequence[ImageRow]) -> list[_Result] | None:
    """The results of a batch that is complete in the cache, else None; an unreadable entry counts
    as not there.
    """
    results: list[_Result] = []
    for row in batch:
        try:
            with np.load(_entry(folder, row), allow_pickle=False) as entry:
                hashes = entry["hashes"]
                known = Fingerprint(int(hashes[0]), int(hashes[1]), entry["thumbnails"].tobytes())
                results.append(_Known(entry["embedding"], known, entry["traits"]))
        except _UNREADABLE:
            return None
    return results


def _body_digest(network: ClassifierNetwork) -> str:
    """Tells apart the weights that embeddings were made with: the first eight digits over all
    tensors' sums.
    """
    digest = hashlib.sha256()
    for name, tensor in network.body.state_dict().items():
        digest.update(f"{name} {tensor.double().sum().item():.9e}\n".encode())
    return digest.hexdigest()[:8]
