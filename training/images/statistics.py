"""Image statistics: what an image is rather than shows, such as size, light, frame and captions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.metrics import Floats

IMAGE_STATISTICS = (
    "width",
    "height",
    "brightness",
    "sharpness",
    "colourfulness",
    "border_flatness",
    "border_brightness",
    "border_spread",
    "text",
)

# Pixels of the shorter side of the copy that is measured, which has less than twice as many, and
# of the one that sharpness is measured on: size must not look like sharpness.
_SIDE = 160
_SHARPNESS_SIDE = 128
_LONGEST = 4  # the longer side of a copy is at most so many times as long
_COLOUR_REDUCTION = 4  # colours are measured on a copy so many times smaller
_BORDER_TOLERANCE = 24  # difference of 255, in any channel, of one colour saved as JPEG
_THIRDS = np.full(3, 1 / 3, np.float32)
# A stroke of a letter: brightness rises by so much of 255 from a pixel to the next and falls again
# within so many pixels, or the other way round.
_STROKE_CONTRAST = 24
_STROKE_WIDTH = 4
_LINE_HEIGHTS = (4, 6, 9, 13, 19)  # pixels of lines of text on the copy


def image_statistics(image: Image.Image) -> NDArray[np.float32]:
    """Return the IMAGE_STATISTICS of an RGB image: float32 [9].

    Width and height are in pixels. All others are measured on small copies, so that large and small
    images can be compared: brightness is the mean of 0 to 255, sharpness the variance of the
    Laplacian. For colourfulness, the border and text see the functions of those names.
    """
    width, height = image.size
    small = image.reduce(max(1, min(image.size) // _SIDE))
    longest = _LONGEST * min(2 * _SIDE, max(_SIDE, *small.size))
    if max(small.size) > longest:
        small.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    grey_image = small.convert("L")
    even = grey_image.resize(_even_size(image.size), Image.Resampling.BOX)
    grey = np.asarray(even, dtype=np.float32)
    statistics = (
        width,
        height,
        grey.mean(),
        sharpness(grey),
        colourfulness(small.reduce(_COLOUR_REDUCTION)),
        *border(np.asarray(small)),
        text(np.asarray(grey_image)),
    )
    return np.array(statistics, np.float32)


def sharpness(grey: NDArray[np.float32]) -> float:
    """Return the variance of the Laplacian of a grey image [h, w]; its edges are repeated."""
    padded = np.pad(grey, 1, mode="edge")
    middle_columns = padded[:, 1:-1]
    middle_rows = padded[1:-1]
    above = middle_columns[:-2]
    below = middle_columns[2:]
    left = middle_rows[:, :-2]
    right = middle_rows[:, 2:]
    laplacian = above + below + left + right
    laplacian -= 4 * grey
    return float(laplacian.var())


def colourfulness(image: Image.Image) -> float:
    """Return how colourful an RGB image is: 0 for grey ones, about 100 for gaudy ones.

    The metric M3 of Hasler and Suesstrunk 2003, "Measuring colourfulness in natural images".
    """
    pixels = np.asarray(image, dtype=np.float32)
    red, green, blue = pixels.reshape(-1, 3).T
    red_green = red - green
    yellow = (red + green) / 2
    yellow_blue = yellow - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    strength = np.hypot(red_green.mean(), yellow_blue.mean())
    return float(spread + 0.3 * strength)


def border(pixels: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return the flatness, mean brightness and spread of the outermost pixels of [h, w, RGB].

    Flatness is the share of them in about the colour of the corners: 1 for a frame or a plain
    background, half and more for bars above and below. Mean and standard deviation are of 0 to 255.
    """
    top = pixels[0]
    bottom = pixels[-1]
    left = pixels[:, 0]
    right = pixels[:, -1]
    edges = np.concatenate([top, bottom, left, right])
    ring = edges.astype(np.int16)
    ends = [0, -1]
    corners = np.concatenate([top[ends], bottom[ends]])
    in_order = np.sort(corners.astype(np.int16), axis=0)
    median = (in_order[1] + in_order[2]) // 2
    differences = np.abs(ring - median)
    is_alike = differences.max(axis=1) <= _BORDER_TOLERANCE
    alike = np.count_nonzero(is_alike) / len(ring)
    brightness = ring @ _THIRDS
    return alike, float(brightness.mean()), float(brightness.std())


def text(grey: NDArray[np.uint8]) -> float:
    """Return how much a grey image [h, w] looks as if a line of text stood in it: 0 to 1.

    Lines of text are bands of rows in which strokes are dense, between rows in which they are not
    (compare the spatial variance of Zhong, Karu and Jain 1995, "Locating text in complex color
    images"); grass, fur and foliage are dense all over. Returned is the largest difference between
    the share of strokes in such a band and in the rows above or below it.
    """
    rows = _stroke_shares(grey)
    count = len(rows)
    sums = np.concatenate([[0.0], np.cumsum(rows)])
    clearest = 0.0
    for height in _LINE_HEIGHTS:
        gap = max(2, height // 3)  # rows above and below that are compared
        if count < height + 2 * gap:
            break
        lines = (sums[height:] - sums[:-height]) / height
        gaps = (sums[gap:] - sums[:-gap]) / gap
        beside = np.maximum(gaps[: -height - gap], gaps[height + gap :])
        contrasts = lines[gap:-gap] - beside
        clearest = max(clearest, float(contrasts.max()))
    return clearest


def _stroke_shares(grey: NDArray[np.uint8]) -> Floats:
    """Return the share of pixels in each row [h] at which a stroke of a letter may begin."""
    height, width = grey.shape
    columns = width - 1 - _STROKE_WIDTH
    if columns < 1:
        return np.zeros(height)
    steps = np.diff(grey.astype(np.int16), axis=1)
    rises = steps > _STROKE_CONTRAST
    falls = steps < -_STROKE_CONTRAST
    rises_later = np.zeros((height, columns), np.bool_)
    falls_later = np.zeros((height, columns), np.bool_)
    for distance in range(1, _STROKE_WIDTH + 1):
        later = slice(distance, distance + columns)
        rises_later |= rises[:, later]
        falls_later |= falls[:, later]
    light = rises[:, :columns] & falls_later
    dark = falls[:, :columns] & rises_later
    shares: Floats = np.count_nonzero(light | dark, axis=1) / columns
    return shares


def _even_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of a copy whose shorter side is always the same."""
    scale = _SHARPNESS_SIDE / min(size)
    width, height = size
    longest = _LONGEST * _SHARPNESS_SIDE
    scaled_width = min(longest, max(1, round(width * scale)))
    scaled_height = min(longest, max(1, round(height * scale)))
    return scaled_width, scaled_height
