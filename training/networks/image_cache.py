"""The center crops of a run's images, decoded once into a memory-mapped file for fine-tuning."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.images.decode import BrokenImageError, as_array, read_image
from training.networks.classifier import PREPROCESSING, ClassifierNetwork
from training.progress import Progress
from training.run_folder import ImageRow, RunError, View, atomic_write

_FLUSHED_TOGETHER = 32  # images
_MAX_READERS = 4  # threads that decode


@dataclass(frozen=True)
class ImageCache:
    """The center crops of a run's images in two files: the pixels, and a flag for each image."""

    path: Path
    """Of the pixels."""
    center_crops: NDArray[np.uint8]
    """[n, side, side, 3], mapped."""
    done: NDArray[np.uint8]
    """[n], mapped; 1 where the center crop is there."""

    @property
    def side(self) -> int:
        """Return the side of a center crop in pixels."""
        return int(self.center_crops.shape[1])

    def fill(
        self, network: ClassifierNetwork, rows: Sequence[ImageRow], run_dir: Path, report: Progress
    ) -> None:
        """Decode what is not there yet; raise RunError where an image can no longer be read."""
        (missing,) = np.nonzero(self.done == 0)
        device = network.device
        done = len(rows) - len(missing)
        for start in range(0, len(missing), _FLUSHED_TOGETHER):
            end = start + _FLUSHED_TOGETHER
            indices = missing[start:end].tolist()
            files = [rows[index].file for index in indices]
            paths = [run_dir / file for file in files]
            center_crops = []
            for pixels in _decoded(paths):
                image = torch.from_numpy(pixels).to(device)
                with torch.inference_mode():
                    square = network.square(image, self.side)
                center_crops.append(square)
            self.put(indices, center_crops)
            done += len(indices)
            report(done, len(rows))

    def put(self, indices: Sequence[int], center_crops: Sequence[Tensor]) -> None:
        """Keep center crops as `ClassifierNetwork.square` gives them.

        They are float32 [3, side, side] in 0..255.
        """
        for index, crop in zip(indices, center_crops, strict=True):
            rounded = crop.round()
            in_range = rounded.clamp(0, 255)
            channels_last = in_range.permute(1, 2, 0)
            pixels = channels_last.to(torch.uint8).cpu()
            self.center_crops[index] = pixels.numpy()
        # Flushed before the flags, so that a power cut leaves no flag without its pixels.
        _flush(self.center_crops)
        self.done[list(indices)] = 1
        _flush(self.done)


def open_cache(
    folder: Path, rows: Sequence[ImageRow], side: int, view: View = "crop"
) -> ImageCache:
    """Return the cache of these images in this folder, as full as earlier attempts left it.

    Its file name depends on images, order, side in pixels, view and preprocessing, so that these
    squares are never taken for those of other images.
    """
    described = [f"{PREPROCESSING} {view} {side}"]
    described += [row.sha256 for row in rows]
    digest = hashlib.sha256("".join(described).encode())
    name = digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.squares"
    flags_path = _flags_path(path)
    size_of_crop = side * side * 3
    size = len(rows) * size_of_crop
    if _size(path) != size:
        flags_path.unlink(missing_ok=True)  # first, so that no flag stands for pixels not there
        _make_file(path, size)
    if _size(flags_path) != len(rows):
        _make_file(flags_path, len(rows))
    return _map(path, len(rows), side, "r+")


def attach_cache(path: Path, images: int, side: int) -> ImageCache:
    """Return a filled cache for reading in another process."""
    # Mode "c" keeps what would be written in this process; torch warns of arrays of mode "r".
    return _map(path, images, side, "c")


def _map(path: Path, images: int, side: int, mode: Literal["r+", "c"]) -> ImageCache:
    flags_path = _flags_path(path)
    return ImageCache(
        path=path,
        center_crops=np.memmap(path, np.uint8, mode, shape=(images, side, side, 3)),
        done=np.memmap(flags_path, np.uint8, mode, shape=(images,)),
    )


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes, None where there is none."""
    return path.stat().st_size if path.exists() else None


def _make_file(path: Path, size: int) -> None:
    """Make a file of so many zeros."""
    with atomic_write(path, durable=False) as file:
        if hasattr(os, "posix_fallocate"):
            # A full disk raises OSError now; later, writing into the map would crash the process.
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _flags_path(path: Path) -> Path:
    return path.with_suffix(".done")


def _flush(array: NDArray[np.uint8]) -> None:
    assert isinstance(array, np.memmap)
    array.flush()


def _decoded(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Yield the pixels uint8 [h, w, 3] of each file in turn, decoded by several threads."""
    cores = os.cpu_count() or 1
    readers = min(_MAX_READERS, cores)
    with ThreadPoolExecutor(max_workers=readers) as executor:
        yield from executor.map(_read_pixels, paths)


def _read_pixels(path: Path) -> NDArray[np.uint8]:
    try:
        return as_array(read_image(path))
    except (OSError, BrokenImageError) as error:
        raise RunError(
            "finetune",
            f"The picture {path.name} can no longer be read.",
            "See that the run folder is whole, and start again.",
            retry=True,
        ) from error
