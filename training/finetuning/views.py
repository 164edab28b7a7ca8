"""What fine-tuning shows of the images: the eval view, the varied training view, and their loader.

`eval_view` shows what `ClassifierNetwork.prepare` shows. `train_view` varies a batch of images on
the device by numbers drawn beforehand, so that the result depends on those numbers alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.networks.catalogue import CROP
from training.networks.devices import free_memory, is_out_of_memory

Normalize = Callable[[Tensor], Tensor]
"""RGB in 0..255 [..., 3, h, w] to what the backbone expects: `ClassifierNetwork.normalize`."""


class _Draws(NamedTuple):
    """The random numbers [b] that decide about a batch of views."""

    area: Tensor
    aspect: Tensor
    left: Tensor
    top: Tensor
    angle: Tensor
    flip: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    erase: Tensor
    erase_area: Tensor
    erase_aspect: Tensor
    erase_left: Tensor
    erase_top: Tensor


RANDOM_PARAMETERS = len(_Draws._fields)
"""Random numbers in 0..1 that `train_view` needs for each image."""

_FREE_MEMORY_SHARE = 1 / 3  # of a GPU's free memory that the images may take
# Weights in gray (ITU-R BT.601).
_RED_LUMA = 0.299
_GREEN_LUMA = 0.587
_BLUE_LUMA = 0.114
_MIN_ERASED_AREA = 0.02  # share of the view, as in random erasing (Zhong et al. 2017)
_MAX_ERASED_AREA = 0.2
_MAX_ERASED_LOG_ASPECT = math.log(2)  # of the rectangle's longer side over its shorter one


@dataclass(frozen=True)
class Augmentation:
    """How far the training view may depart from an image."""

    min_area: float = 0.5
    """Share of the center crop that a random crop shows at least."""
    max_aspect_ratio: float = 4 / 3
    """A random crop's longer side over its shorter one, at most."""
    degrees: float = 10.0
    """Largest rotation to either side."""
    flip_probability: float = 0.5
    """Of a horizontal flip."""
    brightness: float = 0.2
    """Factors are drawn from 1 - x to 1 + x; so for contrast and saturation."""
    contrast: float = 0.2
    saturation: float = 0.2
    erase_probability: float = 0.0
    """Of a rectangle of 2 to 20 % of the area that becomes plain."""


def eval_view(center_crops: Tensor, normalize: Normalize) -> Tensor:
    """Return the middle of uint8 [b, side, side, 3], normalized: float32 [b, 3, 224, 224].

    The result equals `ClassifierNetwork.prepare` but for the rounding to whole brightness values.
    """
    side = center_crops.shape[1]
    start = (side - CROP) // 2
    middle = slice(start, start + CROP)
    crops = center_crops[:, middle, middle]
    channels_first = crops.permute(0, 3, 1, 2)
    return normalize(channels_first.float())


@dataclass(frozen=True)
class Variations:
    """How each of n images is varied, on the device."""

    maps: Tensor
    """float32 [n, 2, 3]: from a view's coordinates to those of the center crop, both in -1..1."""
    brightness: Tensor
    """float32 [n, 1, 1, 1]: a factor; so are the next two."""
    contrast: Tensor
    saturation: Tensor
    erased: Tensor | None
    """float32 [n, 4]: top, bottom, left and right in 0..1 of what becomes plain; None for none."""

    @classmethod
    def draw(cls, parameters: Tensor, augmentation: Augmentation) -> Variations:
        """Return the variations that float32 [n, RANDOM_PARAMETERS] in 0..1 decide."""
        uniform = _Draws(*parameters.unbind(dim=1))
        signed_parameters = 2 * parameters - 1
        signed = _Draws(*signed_parameters.unbind(dim=1))
        erased = None
        if augmentation.erase_probability:
            erased = _erased_rectangles(uniform, signed, augmentation)
        return cls(
            maps=_affine_maps(uniform, signed, augmentation),
            brightness=_factors(signed.brightness, augmentation.brightness),
            contrast=_factors(signed.contrast, augmentation.contrast),
            saturation=_factors(signed.saturation, augmentation.saturation),
            erased=erased,
        )

    def __getitem__(self, part: slice | Tensor) -> Variations:
        """Return the variations of some of the images."""
        return Variations(
            maps=self.maps[part],
            brightness=self.brightness[part],
            contrast=self.contrast[part],
            saturation=self.saturation[part],
            erased=None if self.erased is None else self.erased[part],
        )


def train_view(center_crops: Tensor, variations: Variations, normalize: Normalize) -> Tensor:
    """Return varied crops of uint8 [b, side, side, 3], normalized: float32 [b, 3, 224, 224]."""
    size = [len(center_crops), 3, CROP, CROP]
    grid = functional.affine_grid(variations.maps, size, align_corners=False)
    channels_first = center_crops.permute(0, 3, 1, 2)
    images = channels_first.float()
    crops = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    colored = _vary_colors(crops, variations)
    normalized = normalize(colored)
    if variations.erased is None:
        return normalized
    return normalized.masked_fill(_inside(variations.erased), 0.0)  # the mean color


def _affine_maps(uniform: _Draws, signed: _Draws, augmentation: Augmentation) -> Tensor:
    """Return the maps [b, 2, 3] of crop, rotation and flip.

    They take a view's coordinates to those of the center crop, both from -1 to 1. `uniform` holds
    numbers in 0..1, `signed` the same ones scaled to -1..1.
    """
    min_area = augmentation.min_area
    area_range = 1 - min_area
    area = min_area + area_range * uniform.area
    side = area.sqrt()
    max_log_aspect = math.log(augmentation.max_aspect_ratio)
    log_aspect = signed.aspect * max_log_aspect
    stretch = torch.exp(log_aspect / 2)
    width = side * stretch
    height = side / stretch
    width = width.clamp(max=1)
    height = height.clamp(max=1)

    free_width = 1 - width
    free_height = 1 - height
    left = signed.left * free_width
    top = signed.top * free_height

    max_angle = math.radians(augmentation.degrees)
    angle = signed.angle * max_angle
    cosine = angle.cos()
    sine = angle.sin()
    flipped = uniform.flip < augmentation.flip_probability
    signed_width = torch.where(flipped, -width, width)

    x_across = cosine * signed_width
    x_down = -sine * height
    y_across = sine * signed_width
    y_down = cosine * height
    entries = [x_across, x_down, left, y_across, y_down, top]
    maps = torch.stack(entries, dim=1)
    return maps.reshape(-1, 2, 3)


def _vary_colors(crops: Tensor, variations: Variations) -> Tensor:
    """Change brightness, contrast and saturation of crops [b, 3, h, w] in 0..255."""
    crops = crops * variations.brightness
    red, green, blue = crops.split(1, dim=1)
    gray = _RED_LUMA * red
    gray = gray + _GREEN_LUMA * green
    gray = gray + _BLUE_LUMA * blue
    mean_gray = gray.mean(dim=(2, 3), keepdim=True)
    crops = torch.lerp(gray, crops, variations.saturation)
    crops = torch.lerp(mean_gray, crops, variations.contrast)
    return crops.clamp(0, 255)


def _factors(signed: Tensor, strength: float) -> Tensor:
    """Take numbers [b] in -1..1 to factors [b, 1, 1, 1] from 1 - strength to 1 + strength."""
    factors = 1 + signed * strength
    return factors[:, None, None, None]


def _erased_rectangles(uniform: _Draws, signed: _Draws, augmentation: Augmentation) -> Tensor:
    """Return top, bottom, left and right in 0..1 of what is erased: [b, 4]; empty in most views."""
    area_range = _MAX_ERASED_AREA - _MIN_ERASED_AREA
    area = _MIN_ERASED_AREA + area_range * uniform.erase_area
    log_aspect = signed.erase_aspect * _MAX_ERASED_LOG_ASPECT
    aspect = torch.exp(log_aspect)
    width = torch.sqrt(area * aspect)
    height = torch.sqrt(area / aspect)

    chosen = uniform.erase < augmentation.erase_probability
    free_height = 1 - height
    free_width = 1 - width
    top = uniform.erase_top * free_height
    left = uniform.erase_left * free_width
    bottom = torch.where(chosen, top + height, top)
    right = left + width
    return torch.stack([top, bottom, left, right], dim=1)


def _inside(rectangles: Tensor) -> Tensor:
    """Return which of 224 x 224 pixels lie in rectangles [b, 4]: bool [b, 1, 224, 224]."""
    top, bottom, left, right = rectangles.split(1, dim=1)
    indices = torch.arange(CROP, device=rectangles.device)
    pixels = (indices + 0.5) / CROP
    below_top = pixels >= top
    rows = below_top & (pixels < bottom)
    after_left = pixels >= left
    columns = after_left & (pixels < right)
    inside = rows[:, :, None] & columns[:, None, :]
    return inside[:, None]


class Loader:
    """Hands out batches of center crops on the device, each there before it is asked for.

    The whole cache moves to the GPU once where it takes at most a third of the free memory. Else a
    thread copies the next batch through pinned memory while the present one is computed.
    """

    def __init__(
        self, center_crops: NDArray[np.uint8], device: torch.device, resident: bool | None = None
    ) -> None:
        """Take uint8 [n, side, side, 3].

        `resident` says whether to move the whole cache; None decides by the free memory.
        """
        if resident is None:
            resident = _fits(center_crops, device)
        self.device = device
        self._center_crops = center_crops
        self._resident: Tensor | None = None
        if resident:
            self._resident = _moved(center_crops, device)

    def batches(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        """Yield the center crops uint8 [b, side, side, 3] at each batch of indices [b] in turn."""
        if not batches:
            return
        if self._resident is None:
            yield from self._prefetched(batches)
            return
        # All indices move at once: a copy to the GPU in every step would wait for the step before.
        sizes = [len(batch) for batch in batches]
        joined = torch.from_numpy(np.concatenate(batches))
        on_device = joined.to(self.device)
        for indices in on_device.split(sizes):
            yield self._resident[indices]

    def _prefetched(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        largest = max(map(len, batches))
        first = _Prefetcher(self._center_crops, largest, self.device)
        second = _Prefetcher(self._center_crops, largest, self.device)
        with ThreadPoolExecutor(max_workers=1) as thread:
            first.start(thread, batches[0])
            for batch in batches[1:]:
                second.start(thread, batch)
                yield first.receive()
                first, second = second, first
            yield first.receive()


class _Prefetcher:
    """A buffer on the way to the device, and on a GPU a stream that copies from it.

    Two of them take turns.
    """

    def __init__(
        self, center_crops: NDArray[np.uint8], largest_batch: int, device: torch.device
    ) -> None:
        on_gpu = device.type == "cuda"
        shape_of_crop = center_crops.shape[1:]
        shape = (largest_batch, *shape_of_crop)
        self._loading: Future[Tensor]
        self._center_crops = center_crops
        self.device = device
        self._buffer = torch.empty(shape, dtype=torch.uint8, pin_memory=on_gpu)
        self._stream = torch.cuda.Stream(device) if on_gpu else None

    def start(self, thread: ThreadPoolExecutor, indices: NDArray[np.int64]) -> None:
        """Load the center crops at these indices in a thread."""
        self._loading = thread.submit(self._load, indices)

    def receive(self) -> Tensor:
        """Return what was loaded last, once the present stream may use it."""
        center_crops = self._loading.result()
        if self._stream is not None:
            present = torch.cuda.current_stream(self.device)
            present.wait_stream(self._stream)
            center_crops.record_stream(present)
        return center_crops

    def _load(self, indices: NDArray[np.int64]) -> Tensor:
        """Copy center crops to the device; a stream may still be copying on return."""
        if self._stream is None:
            center_crops = self._center_crops[indices]
            return torch.from_numpy(center_crops)
        self._stream.synchronize()  # the buffer's last content must have left it
        buffer = self._buffer[: len(indices)]
        array = buffer.numpy()
        np.take(self._center_crops, indices, axis=0, out=array, mode="clip")
        with torch.cuda.stream(self._stream):
            return buffer.to(self.device, non_blocking=True)


def _moved(center_crops: NDArray[np.uint8], device: torch.device) -> Tensor | None:
    """Return all center crops on the device; None where another process took its room."""
    on_cpu = torch.from_numpy(center_crops)
    try:
        return on_cpu.to(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    free_memory()
    return None


def _fits(center_crops: NDArray[np.uint8], device: torch.device) -> bool:
    """Tell whether all center crops may move to the device."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return center_crops.nbytes <= _FREE_MEMORY_SHARE * free
