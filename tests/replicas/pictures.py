"""Synthetic pictures: each seed its own, far from all others for the near-duplicate test."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Large soft blobs of colour, drawn from a seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@lru_cache(maxsize=512)
def jpeg(seed: int, size: tuple[int, int] = (320, 240)) -> bytes:
    return encoded(picture(seed, size), "JPEG", quality=85)
