"""The pictures that fine-tuning looks at: decoded once into a memory-mapped file, seen through two
views.

`eval_view` shows what `ClassifierNetwork.prepare` shows; `train_view` varies every picture, a batch at
a time on the device, by numbers drawn beforehand, so that the result depends on those numbers
alone.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.images.decode import BrokenImageError, as_array, read_image
from training.networks.catalogue import CROP
from training.networks.classifier import PREPROCESSING, ClassifierNetwork
from training.progress import Progress
from training.run_folder import ImageRow, RunError, atomic_write

Normalise = Callable[[Tensor], Tensor]
"""RGB in 0..255 [..., 3, h, w] to what the backbone was trained on: `ClassifierNetwork.normalise`."""

_FLUSHED_TOGETHER = 32  # pictures
_READERS = 4  # threads that decode, at most
_FREE_SHARE = 1 / 3  # of a GPU's free memory that the pictures may take
_GREY = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R BT.601)

_DRAWN = ("area", "shape", "left", "top", "turn", "mirror", "brightness", "contrast", "saturation",
          "erase", "erase_area", "erase_shape", "erase_left", "erase_top")  # fmt: skip
RANDOM_PARAMETERS = len(_DRAWN)
"""Random numbers in 0..1 that `train_view` needs for each picture."""


@dataclass(frozen=True)
class Augmentation:
    """How far the training view may depart from a picture."""

    least_area: float = 0.5
    """Share of the square that a random crop shows at least."""
    stretch: float = 4 / 3
    """A crop's longer side over its shorter one, at most."""
    turn: float = 10.0
    """Degrees to either side."""
    mirror: float = 0.5
    """Share of pictures that are mirrored."""
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    """Factors are drawn from 1 - x to 1 + x."""
    erase: float = 0.0
    """Share of pictures of which a rectangle of 2 to 20 % of the area becomes plain."""


@dataclass(frozen=True)
class ImageCache:
    """The middle squares of a run's pictures in two files: the pixels, and a byte for each that is
    there.
    """

    path: Path
    squares: NDArray[np.uint8]
    """[n, side, side, 3], mapped."""
    done: NDArray[np.uint8]
    """[n], mapped; 1 where the square is there."""

    def fill(
        self, network: ClassifierNetwork, rows: Sequence[ImageRow], run_dir: Path, report: Progress
    ) -> None:
        """Decode what is not there yet. Raises RunError where a picture can no longer be read."""
        missing = [place for place in range(len(rows)) if not self.done[place]]
        before = len(rows) - len(missing)
        for start in range(0, len(missing), _FLUSHED_TOGETHER):
            batch = missing[start : start + _FLUSHED_TOGETHER]
            for place, pixels in zip(
                batch, _decoded([run_dir / rows[place].file for place in batch]), strict=True
            ):
                self.squares[place] = _square(network, pixels, self.squares.shape[1])
            _flush(
                self.squares
            )  # before the flags, so that a power cut leaves no flag without its pixels
            self.done[batch] = 1
            _flush(self.done)
            report(before + start + len(batch), len(rows))

    @property
    def side(self) -> int:
        """Pixels."""
        return int(self.squares.shape[1])

    def has(self, places: Sequence[int]) -> bool:
        """Whether all of these squares are there."""
        return bool(self.done[list(places)].all())

    def put(self, places: Sequence[int], squares: Sequence[Tensor]) -> None:
        """Keep squares as `ClassifierNetwork.resized` gives them: float32 [3, side, side] in
        0..255.
        """
        for place, square in zip(places, squares, strict=True):
            self.squares[place] = (
                square.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            )
        _flush(
            self.squares
        )  # before the flags, so that a power cut leaves no flag without its pixels
        self.done[list(places)] = 1
        _flush(self.done)

    def remove(self) -> None:
        """Delete both files; what is mapped of them stays usable until it is forgotten."""
        self.path.unlink(missing_ok=True)
        _flags(self.path).unlink(missing_ok=True)


def open_cache(folder: Path, rows: Sequence[ImageRow], side: int) -> ImageCache:
    """The cache of these pictures in this folder, as full as earlier attempts left it.

    Its name tells pictures, order, side in pixels and preprocessing, so that other pictures never
    meet these squares.
    """
    digest = hashlib.sha256(f"{PREPROCESSING} {side}".encode())
    for row in rows:
        digest.update(row.sha256.encode())
    path = folder / f"{digest.hexdigest()[:16]}.squares"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.stat().st_size != len(rows) * side * side * 3:
        _flags(path).unlink(
            missing_ok=True
        )  # first, so that no flag speaks of pixels that are not there
        _make(path, len(rows) * side * side * 3)
    if not _flags(path).exists() or _flags(path).stat().st_size != len(rows):
        _make(_flags(path), len(rows))
    return _mapped(path, len(rows), side, "r+")


def attach_cache(path: Path, pictures: int, side: int) -> ImageCache:
    """A filled cache for another process, for reading."""
    return _mapped(
        path, pictures, side, "c"
    )  # what would be written stays in this process; torch warns of mode "r"


def eval_view(squares: Tensor, normalise: Normalise) -> Tensor:
    """The middle crops of uint8 squares [b, side, side, 3], normalised: float32 [b, 3, 224, 224].

    They equal `ClassifierNetwork.prepare` but for the rounding to whole brightness values.
    """
    margin = (squares.shape[1] - CROP) // 2
    crops = squares[:, margin : margin + CROP, margin : margin + CROP]
    return normalise(crops.permute(0, 3, 1, 2).float())


def train_view(
    squares: Tensor, draws: Tensor, augmentation: Augmentation, normalise: Normalise
) -> Tensor:
    """Varied crops of uint8 squares [b, side, side, 3], normalised: float32 [b, 3, 224, 224].

    `draws` [b, RANDOM_PARAMETERS] in 0..1 decide everything; the same ones give the same crops.
    """
    drawn = dict(zip(_DRAWN, draws.unbind(dim=1), strict=True))
    grid = functional.affine_grid(
        _placement(drawn, augmentation), [len(squares), 3, CROP, CROP], align_corners=False
    )
    pictures = squares.permute(0, 3, 1, 2).float()
    crops = functional.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    return _erased(normalise(_coloured(crops, drawn, augmentation)), drawn, augmentation)


class Feed:
    """Hands out batches of squares on the device, each there before it is asked for.

    The whole cache moves to the GPU once where it takes at most a third of the free memory. Else a
    thread copies the coming batch through pinned memory while the present one is computed.
    """

    def __init__(
        self, squares: NDArray[np.uint8], device: torch.device, resident: bool | None = None
    ) -> None:
        """`resident` says whether to move the whole cache; None decides by the free memory."""
        self._squares, self._device = squares, device
        whole = _fits(squares, device) if resident is None else resident
        self._resident = torch.from_numpy(squares).to(device) if whole else None

    def batches(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        """Yield the squares uint8 [b, side, side, 3] at each batch of places [b] in turn."""
        if self._resident is None:
            yield from self._prefetched(batches)
            return
        # Moved all at once: a copy to a GPU in every step would wait for the computing of the one
        # before.
        places = (
            torch.from_numpy(np.concatenate(batches)).to(self._device)
            if len(batches)
            else torch.empty(0)
        )
        for part in places.split([len(batch) for batch in batches]) if len(batches) else ():
            yield self._resident[part]

    def _prefetched(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        largest = max((len(batch) for batch in batches), default=0)
        lanes = [_Lane(self._squares, largest, self._device) for _ in range(2)]
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming: deque[tuple[_Lane, Future[Tensor]]] = deque()
            for number, batch in enumerate(batches):
                lane = lanes[number % 2]
                coming.append((lane, reader.submit(lane.load, batch)))
                if number:
                    yield _arrived(*coming.popleft())
            while coming:
                yield _arrived(*coming.popleft())


class _Lane:
    """One of two ways to the device that take turns: a buffer, and on a GPU a stream that copies
    from it.
    """

    def __init__(self, squares: NDArray[np.uint8], largest: int, device: torch.device) -> None:
        self._squares, self._device = squares, device
        self._on_gpu = device.type == "cuda"
        self._buffer = torch.empty(
            (largest, *squares.shape[1:]), dtype=torch.uint8, pin_memory=self._on_gpu
        )
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None

    def load(self, places: NDArray[np.int64]) -> Tensor:
        """Copy squares to the device; with a stream the copy may still be under way on return."""
        if self._stream is None:
            return torch.from_numpy(self._squares)[torch.from_numpy(places)]
        self._stream.synchronize()  # the buffer's last content must have left it
        buffer = self._buffer[: len(places)]
        np.take(self._squares, places, axis=0, out=buffer.numpy(), mode="clip")
        with torch.cuda.stream(self._stream):
            return buffer.to(self._device, non_blocking=True)

    def join(self, squares: Tensor) -> None:
        """Let the present stream use the squares once they are there."""
        if self._stream is not None:
            present = torch.cuda.current_stream(self._device)
            present.wait_stream(self._stream)
            squares.record_stream(present)


def _arrived(lane: _Lane, loading: Future[Tensor]) -> Tensor:
    squares = loading.result()
    lane.join(squares)
    return squares


def _fits(squares: NDArray[np.uint8], device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return squares.nbytes <= _FREE_SHARE * free


def _placement(drawn: dict[str, Tensor], augmentation: Augmentation) -> Tensor:
    """Affine maps [b, 2, 3] from a crop's coordinates to the square's, both from -1 to 1: crop,
    turn and mirror.
    """
    area = augmentation.least_area + (1 - augmentation.least_area) * drawn["area"]
    shape = torch.exp((2 * drawn["shape"] - 1) * math.log(augmentation.stretch) / 2)
    width, height = (area.sqrt() * shape).clamp(max=1), (area.sqrt() / shape).clamp(max=1)
    left, top = (2 * drawn["left"] - 1) * (1 - width), (2 * drawn["top"] - 1) * (1 - height)
    angle = (2 * drawn["turn"] - 1) * math.radians(augmentation.turn)
    sign = torch.where(drawn["mirror"] < augmentation.mirror, -1.0, 1.0)
    across = torch.stack([angle.cos() * width * sign, -angle.sin() * height, left], dim=1)
    down = torch.stack([angle.sin() * width * sign, angle.cos() * height, top], dim=1)
    return torch.stack([across, down], dim=1)


def _coloured(crops: Tensor, drawn: dict[str, Tensor], augmentation: Augmentation) -> Tensor:
    """Crops [b, 3, h, w] in 0..255 with brightness, contrast and saturation changed."""
    bright = crops * _factor(drawn["brightness"], augmentation.brightness)
    grey = (bright * bright.new_tensor(_GREY)[:, None, None]).sum(dim=1, keepdim=True)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    coloured = torch.lerp(grey, bright, _factor(drawn["saturation"], augmentation.saturation))
    return torch.lerp(mean, coloured, _factor(drawn["contrast"], augmentation.contrast)).clamp(
        0, 255
    )


def _factor(drawn: Tensor, reach: float) -> Tensor:
    return (1 + (2 * drawn - 1) * reach)[:, None, None, None]


def _erased(crops: Tensor, drawn: dict[str, Tensor], augmentation: Augmentation) -> Tensor:
    """Some of the normalised crops with a rectangle in the mean colour."""
    if not augmentation.erase:
        return crops
    area, shape = (
        0.02 + 0.18 * drawn["erase_area"],
        torch.exp((2 * drawn["erase_shape"] - 1) * math.log(2)),
    )
    inside = torch.ones((), dtype=torch.bool, device=crops.device)
    for axis, extent, start in (
        (3, (area * shape).sqrt(), "erase_left"),
        (2, (area / shape).sqrt(), "erase_top"),
    ):
        first = drawn[start] * (1 - extent)
        line = (torch.arange(CROP, device=crops.device) + 0.5) / CROP
        within = (line >= first[:, None]) & (line < (first + extent)[:, None])
        inside = inside & within.reshape(len(crops), 1, *((1, CROP) if axis == 3 else (CROP, 1)))
    chosen = (drawn["erase"] < augmentation.erase)[:, None, None, None]
    return crops.masked_fill(inside & chosen, 0.0)


def _mapped(path: Path, pictures: int, side: int, mode: Literal["r+", "c"]) -> ImageCache:
    squares = np.memmap(path, np.uint8, mode, shape=(pictures, side, side, 3))
    return ImageCache(path, squares, np.memmap(_flags(path), np.uint8, mode, shape=(pictures,)))


def _make(path: Path, size: int) -> None:
    """A file of so many zeros."""
    with atomic_write(path, durable=False) as file:
        if hasattr(
            os, "posix_fallocate"
        ):  # a full disk is told now, and not by a crash when the file is written to
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _flags(path: Path) -> Path:
    return path.with_suffix(".done")


def _flush(array: NDArray[np.uint8]) -> None:
    assert isinstance(array, np.memmap)
    array.flush()


def _decoded(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Pixels uint8 [h, w, 3] of each file in turn, decoded by several threads."""
    with ThreadPoolExecutor(max_workers=min(_READERS, os.cpu_count() or 1)) as readers:
        yield from readers.map(_pixels, paths)


def _pixels(path: Path) -> NDArray[np.uint8]:
    try:
        return as_array(read_image(path))
    except (OSError, BrokenImageError) as error:
        reason = f"The picture {path.name} can no longer be read."
        raise RunError(
            "finetune", reason, "See that the run folder is whole, and start again.", retry=True
        ) from error


def _square(network: ClassifierNetwork, pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    with torch.inference_mode():
        resized = network.resized(torch.from_numpy(pixels).to(network.temperature.device), side)
        square: NDArray[np.uint8] = (
            resized.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        )
    return square
