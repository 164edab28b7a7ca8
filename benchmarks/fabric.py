"""Woven fabric, drawn by formula."""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIDE = 224


def fabric(count: int, coarse: bool) -> Iterator[Image.Image]:
    """Yield images of plain-woven fabric, each of its own yarn, colour, turn and light."""
    random = np.random.default_rng(int(coarse))
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    for _ in range(count):
        turn = random.uniform(-0.6, 0.6)
        along = columns * math.cos(turn) + rows * math.sin(turn)
        across = rows * math.cos(turn) - columns * math.sin(turn)
        yarn = random.uniform(7.0, 10.0)
        if coarse:
            yarn *= 1.8
        warp = np.sin(2 * np.pi * along / yarn + random.uniform(0, 6.3))
        weft = np.sin(2 * np.pi * across / yarn + random.uniform(0, 6.3))
        over = np.where(warp * weft > 0, warp, weft)
        fibres = random.normal(0, random.uniform(0.1, 0.4), over.shape)
        light = columns * random.uniform(-0.004, 0.004) + rows * random.uniform(-0.004, 0.004)
        height = 0.5 + random.uniform(0.12, 0.3) * over + 0.2 * fibres + light
        colour = random.uniform(60, 255, 3)
        pixels = np.clip(height[..., None] * colour, 0, 255)
        yield Image.fromarray(pixels.astype(np.uint8))
