"""Decode image files to upright RGB, transparency on white."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_PIXEL_LIMIT = 50_000_000  # 600 MB while such an image is resized
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


class BrokenImageError(Exception):
    """An image that cannot be used; the message is its reason."""


def read_image(source: Path | bytes) -> Image.Image:
    """Return a file or its bytes as an upright RGB image; raises BrokenImageError."""
    try:
        data = source
        if isinstance(data, Path):
            data = data.read_bytes()
        stream = io.BytesIO(data)
        with Image.open(stream, formats=_FORMATS) as opened:
            if opened.width * opened.height > _PIXEL_LIMIT:
                raise BrokenImageError("too large")
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            plain = _eight_bits(upright)
            return _on_white(plain)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BrokenImageError("not a picture that can be read") from error


def as_array(image: Image.Image) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3], the form that the network takes."""
    return np.array(image, dtype=np.uint8)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale an image with 16 or 32 bits a pixel to 8; converting alone would clip it to white."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        clipped = values.clip(0, 65535)
        rounded = clipped / 257 + 0.5
        return Image.fromarray(rounded.astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        low = float(values.min())
        high = float(values.max())
        span = max(high - low, 1e-9)
        scaled = (values - low) * (255 / span)
        return Image.fromarray(scaled.astype(np.uint8))
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    flattened = Image.alpha_composite(white, layer)
    return flattened.convert("RGB")
