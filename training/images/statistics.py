"""Image statistics: size, brightness and sharpness of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGE_STATISTICS = ("width", "height", "brightness", "sharpness")

# Pixels of the shorter side of the copy that is measured: size must not look like sharpness.
_SIDE = 128
_LONGEST = 4  # the longer side of the copy is at most so many times as long


def image_statistics(image: Image.Image) -> NDArray[np.float32]:
    """Return the IMAGE_STATISTICS of an RGB image: float32 [4].

    Width and height are in pixels and brightness is the mean of 0 to 255. Sharpness is the variance
    of the Laplacian of a grey copy whose shorter side has 128 pixels, so that large and small
    images can be compared.
    """
    width, height = image.size
    scale = _SIDE / min(width, height)
    longest = _LONGEST * _SIDE
    small_sides = []
    for side in image.size:
        scaled = max(1, round(side * scale))
        small_sides.append(min(longest, scaled))
    bilinear = Image.Resampling.BILINEAR
    small = image.resize(small_sides, bilinear, reducing_gap=1.5)
    grey_image = small.convert("L")
    grey = np.asarray(grey_image, dtype=np.float32)

    # The Laplacian: how much each pixel differs from its four neighbours; edges are repeated.
    padded = np.pad(grey, 1, mode="edge")
    before = slice(None, -2)
    inside = slice(1, -1)
    after = slice(2, None)
    above = padded[before, inside]
    below = padded[after, inside]
    left = padded[inside, before]
    right = padded[inside, after]
    neighbours = above + below + left + right
    laplacian = neighbours - 4 * grey

    brightness = grey.mean()
    sharpness = laplacian.var()
    statistics = (width, height, brightness, sharpness)
    return np.array(statistics, np.float32)
