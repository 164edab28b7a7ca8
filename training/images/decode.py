"""Pictures from files: decoded to upright RGB on white; a folder of class folders as a run folder.
No torch.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_PIXEL_LIMIT = 50_000_000  # 600 MB while such a picture is resized
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


class BrokenImageError(Exception):
    """A picture that cannot be used; the message is its reason."""


def read_image(source: Path | bytes) -> Image.Image:
    """A file or its bytes as an upright RGB picture, transparency on white. Raises
    BrokenImageError.
    """
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            if opened.width * opened.height > _PIXEL_LIMIT:
                raise BrokenImageError("too large")
            opened.load()
            return _on_white(_eight_bits(ImageOps.exif_transpose(opened)))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BrokenImageError("not a picture that can be read") from error


def as_array(picture: Image.Image) -> NDArray[np.uint8]:
    """uint8 [height, width, 3], the form that the network takes."""
    return np.array(picture, dtype=np.uint8)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Pictures with 16 or 32 bits a pixel scaled to 8; converting alone would clip them to
    white.
    """
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.float64)
        return Image.fromarray((np.clip(values, 0, 65535) / 257 + 0.5).astype(np.uint8))
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture))
        low, high = float(values.min()), float(values.max())
        return Image.fromarray(((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))
    return picture


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")
