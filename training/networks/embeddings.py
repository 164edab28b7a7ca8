"""Feature extraction: embeddings, fingerprints and statistics of every image of a run.

They are computed in batches and cached by the images' content.
"""

from __future__ import annotations

import hashlib
import io
import os
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
from torch import Tensor

from training.duplicates import Fingerprint, fingerprint
from training.images.decode import BrokenImageError, as_array, read_file, read_image
from training.images.statistics import IMAGE_STATISTICS, image_statistics
from training.networks.classifier import PREPROCESSING, ClassifierNetwork
from training.networks.devices import in_halves
from training.networks.precision import FP32, Precision
from training.progress import Progress
from training.run_folder import ImageRow, RunError, atomic_write

_BATCH_SIZE = 16  # images computed and cached together

# What reading a cut or damaged entry raises, found by cutting and flipping bits everywhere in one:
# from the zip around it (RuntimeError: a flag of encryption or of an unknown compression), from the
# array's header, from its data.
_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, IndexError, RuntimeError, SyntaxError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class ImageFeatures:
    """The features of a run's usable images, in the order of the manifest."""

    rows: list[int]
    """Their indices in the manifest."""
    embeddings: NDArray[np.float32]
    """[n, d], n = len(rows)."""
    fingerprints: list[Fingerprint]
    statistics: NDArray[np.float32]
    """[n, k], see `training.images.statistics.IMAGE_STATISTICS`."""
    broken: dict[str, str]
    """File to reason for the images that could not be used."""

    def whole(self, stage: str) -> NDArray[np.float32]:
        """Return all embeddings [n, d] of images that were read once already in this run.

        Raises RunError, for this stage, where one of them has gone since.
        """
        if not self.broken:
            return self.embeddings
        file = next(iter(self.broken))
        raise RunError(
            stage,
            f"The picture {file} can no longer be read.",
            "Start again: the run then goes on without it.",
            retry=True,
        )


@dataclass(frozen=True)
class Features:
    """The features of one image."""

    embedding: NDArray[np.float32]
    """[d]."""
    fingerprint: Fingerprint
    statistics: NDArray[np.float32]
    """[k], the IMAGE_STATISTICS; raises ValueError for others."""

    def __post_init__(self) -> None:
        if self.statistics.shape != (len(IMAGE_STATISTICS),):  # kept by another version
            raise ValueError("the statistics are other ones")


_Result = Features | str
"""The features of an image, or the reason why it has none."""


@dataclass(frozen=True)
class _Batch:
    """Images that are computed together: their features from the cache, or their decoding."""

    start: int
    """Index of the first in the manifest."""
    rows: Sequence[ImageRow]
    cached: Sequence[_Result] | None
    """Of all images; None where one is lacking."""
    decoding: Sequence[Future[Image.Image | str]]
    """The images, or the reasons why they cannot be used."""


@dataclass(frozen=True)
class FeatureExtractor:
    """Computes features of a run's images by one network in one precision."""

    network: ClassifierNetwork
    precision: Precision
    run_dir: Path
    cache: Path
    """A folder for what has been computed. Entries found there are not computed again."""

    def extract(self, rows: Sequence[ImageRow], report: Progress) -> ImageFeatures:
        """Return the features of all images of the manifest.

        Batches are cut at fixed indices, so a run that was killed and goes on computes the very
        same numbers.
        """
        folder = self._cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        results: list[_Result] = []
        for batch in self._batches(rows, folder):
            results += batch.cached or self._compute(batch, folder)
            report(len(results), len(rows))
        return _collect(rows, results, self.network.backbone.dimension)

    def _cache_folder(self) -> Path:
        backbone = self.network.backbone.name
        weights = _body_digest(self.network)
        precision = self.precision.name.replace(", ", "-")
        view = self.network.view
        name = f"{backbone}-{weights}-{precision}-{view}-{PREPROCESSING}"
        return self.cache / name

    def _batches(self, rows: Sequence[ImageRow], folder: Path) -> Iterator[_Batch]:
        """Yield the batches in turn, each while the next one is being decoded."""
        with ThreadPoolExecutor(max_workers=2) as readers:
            waiting: _Batch | None = None
            for start in range(0, len(rows), _BATCH_SIZE):
                batch = self._start_reading(readers, rows, start, folder)
                if waiting:
                    yield waiting
                waiting = batch
            if waiting:
                yield waiting

    def _start_reading(
        self, readers: ThreadPoolExecutor, rows: Sequence[ImageRow], start: int, folder: Path
    ) -> _Batch:
        """Return a batch from the cache if it is all there, else start to decode its images."""
        batch = rows[start : start + _BATCH_SIZE]
        paths = [self.run_dir / row.file for row in batch]
        complete = all(path.is_file() for path in paths)
        if complete:
            cached = read_cached_features(folder, batch)
            if cached:
                return _Batch(start, batch, cached, decoding=[])
        decoding = []
        for path, row in zip(paths, batch, strict=True):
            future = readers.submit(_decode, path, row.sha256)
            decoding.append(future)
        return _Batch(start, batch, None, decoding)

    def _compute(self, batch: _Batch, folder: Path) -> list[_Result]:
        """Return the features of a batch, and keep them in the cache."""
        decoded = [future.result() for future in batch.decoding]
        images = [image for image in decoded if isinstance(image, Image.Image)]
        embeddings = iter(embed_images(self.network, images, self.precision))
        results: list[_Result] = []
        for row, image in zip(batch.rows, decoded, strict=True):
            if isinstance(image, str):
                results.append(image)
                continue
            features = Features(
                embedding=next(embeddings),
                fingerprint=fingerprint(image),
                statistics=image_statistics(image),
            )
            _store(folder, row, features)
            results.append(features)
        return results


def embed_images(
    network: ClassifierNetwork, images: Sequence[Image.Image], precision: Precision = FP32
) -> NDArray[np.float32]:
    """Return embeddings [n, d] of decoded images of any size, computed as one batch."""
    with torch.inference_mode():
        crops = []
        for image in images:
            pixels = _on_device(image, network)
            crops.append(network.prepare(pixels))
        return _embed_crops(network, crops, precision)


def _on_device(image: Image.Image, network: ClassifierNetwork) -> Tensor:
    """Return an image as the network takes it: uint8 [h, w, 3] on its device."""
    pixels = torch.from_numpy(as_array(image))
    return pixels.to(network.device)


def _embed_crops(
    network: ClassifierNetwork, crops: list[Tensor], precision: Precision
) -> NDArray[np.float32]:
    """Return embeddings [n, d] of normalized crops float32 [3, 224, 224]."""
    if not crops:
        return np.empty((0, network.backbone.dimension), np.float32)
    batch = precision.to_memory_format(torch.stack(crops))
    with precision.autocast(network.device):
        embeddings = in_halves(network.embed, batch)
    return embeddings.float().cpu().numpy()


def _decode(path: Path, sha256: str) -> Image.Image | str:
    """Return the image in a file, or the reason why it cannot be used."""
    if not os.path.lexists(path):
        return "missing"
    try:
        data = read_file(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            return "not the file that the manifest describes"
        return read_image(data)
    except BrokenImageError as error:
        return str(error)


def _collect(rows: Sequence[ImageRow], results: Sequence[_Result], dimension: int) -> ImageFeatures:
    usable: list[Features] = []
    indices: list[int] = []
    broken: dict[str, str] = {}
    for index, result in enumerate(results):
        if isinstance(result, str):
            file = rows[index].file
            broken[file] = result
        else:
            usable.append(result)
            indices.append(index)
    embeddings = np.array([features.embedding for features in usable], np.float32)
    statistics = np.array([features.statistics for features in usable], np.float32)
    return ImageFeatures(
        rows=indices,
        embeddings=embeddings.reshape(-1, dimension),
        fingerprints=[features.fingerprint for features in usable],
        statistics=statistics.reshape(len(usable), len(IMAGE_STATISTICS)),
        broken=broken,
    )


def _entry_path(folder: Path, row: ImageRow) -> Path:
    return folder / f"{row.sha256[:32]}.npz"


def _store(folder: Path, row: ImageRow, features: Features) -> None:
    """Write one image's entry; not flushed, because an unreadable entry is simply made again."""
    hashes = [features.fingerprint.hash, features.fingerprint.mirror_hash]
    stream = io.BytesIO()
    np.savez(
        stream,
        embedding=features.embedding,
        hashes=np.array(hashes, np.uint64),
        thumbnails=np.frombuffer(features.fingerprint.thumbnails, np.uint8),
        statistics=features.statistics,
    )
    with atomic_write(_entry_path(folder, row), durable=False) as file:
        file.write(stream.getvalue())


def read_cached_features(folder: Path, batch: Sequence[ImageRow]) -> list[Features] | None:
    """Return the features of a batch that is complete in the cache, else None.

    An unreadable entry counts as lacking.
    """
    features = []
    for row in batch:
        try:
            with np.load(_entry_path(folder, row), allow_pickle=False) as entry:
                hashes = entry["hashes"]
                thumbnails = entry["thumbnails"].tobytes()
                known = Fingerprint(int(hashes[0]), int(hashes[1]), thumbnails)
                embedding = entry["embedding"]
                statistics = entry["statistics"]
                features.append(Features(embedding, known, statistics))
        except _UNREADABLE:
            return None
    return features


def _body_digest(network: ClassifierNetwork) -> str:
    """Return eight digits that tell apart the weights of bodies, by all tensors' sums."""
    digest = hashlib.sha256()
    for name, tensor in network.body.state_dict().items():
        total = tensor.double().sum().item()
        line = f"{name} {total:.9e}\n"
        digest.update(line.encode())
    return digest.hexdigest()[:8]
