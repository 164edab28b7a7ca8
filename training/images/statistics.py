"""Image statistics: size, brightness and sharpness of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGE_STATISTICS = (
    "width",
    "height",
    "brightness",
    "sharpness",
)  # the columns of Results.statistics
# pixels of the shorter side of the copy that is looked at; size itself must not look like sharpness
_SIDE = 128
_LONGEST = 4  # the longer side of the copy is at most so many times as long


def image_statistics(picture: Image.Image) -> NDArray[np.float32]:
    """Width and height in pixels, mean brightness (0 to 255) and sharpness of an RGB picture:
    float32 [4].

    Sharpness is the variance of the Laplacian of a grey copy whose shorter side has 128 pixels, so
    that large and small pictures can be compared.
    """
    width, height = picture.size
    scale = _SIDE / min(width, height)
    wanted = tuple(min(_LONGEST * _SIDE, max(1, round(side * scale))) for side in (width, height))
    small = picture.resize(
        (wanted[0], wanted[1]), Image.Resampling.BILINEAR, reducing_gap=1.5
    ).convert("L")
    grey = np.asarray(small, dtype=np.float32)
    return np.array([width, height, grey.mean(), _laplacian(grey).var()], np.float32)


def _laplacian(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Second differences [h, w]: how much each pixel stands out from its four neighbours; edges are
    repeated.
    """
    padded = np.pad(grey, 1, mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    result: NDArray[np.float32] = around - 4 * grey
    return result
