"""Decode image files to upright RGB with 8 bits a channel, transparency on white.

`export/assets/predict.py` reads in the same way; a test compares the two over formats and modes.
"""

from __future__ import annotations

import io
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

# The formats that photographs and figures come in. Left to others: what holds programs (PDF, EPS),
# layers (PSD) or several icons, and what has no mark at its start (TGA).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
_FILE_LIMIT = 500_000_000  # bytes
_PIXEL_LIMIT = 50_000_000  # 600 MB while such an image is resized
_JPEG_PIXEL_LIMIT = 256_000_000  # telephones make photographs of 200 megapixels
_PROGRESSIVE_PIXEL_LIMIT = 100_000_000  # all coefficients are held: 600 MB at most
_REDUCTION = 4  # of the sides of a JPEG beyond _PIXEL_LIMIT; a decoder can divide them by 2, 4, 8

_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_PROBE = bytes(range(1, 128)) * 4  # entropy-coded data, if the decoder still wants any
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

_ORIENTATION_TAG = 0x0112  # of EXIF
# How to turn an image upright, by the orientation in its EXIF (CIPA DC-008-2019, 4.6.4).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHOLE_NUMBERS = (0.0, 65535.0)
_GAP = 1e30  # elevation models mark what they do not know by numbers beyond, or by NaN
_BAND = 256  # rows that are scaled at a time, as numbers take 8 bytes then

# What people take for pictures too, by the first bytes; `....` stands for any four.
_OTHER_FORMATS = {
    b"....ftypheic": "HEIC",
    b"....ftypheix": "HEIC",
    b"....ftyphevc": "HEIC",
    b"....ftypheim": "HEIC",
    b"....ftypheis": "HEIC",
    b"....ftypmif1": "HEIC",
    b"....ftypmsf1": "HEIC",
    b"....ftypcrx ": "a camera's raw format (CR3)",
    b"....ftypisom": "a video",
    b"....ftypmp4": "a video",
    b"....ftypqt": "a video",
    b"\x1aE\xdf\xa3": "a video",
    b"....JXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"8BPS": "Photoshop",
    b"\0\0\1\0": "an icon",
    b"<svg": "SVG",
    b"<?xml": "SVG or XML",
    b"FUJIFILMCCD-RAW": "a camera's raw format (RAF)",
}
# What stands where a picture was meant to be, by its first bytes in small letters, and what to do.
_NO_PICTURES = {
    b"<!doctype html": "a web page; save the picture itself",
    b"<html": "a web page; save the picture itself",
    b"pk\3\4": "a zip archive; unpack it",
    b"version https://git-lfs": "a Git LFS pointer; run git lfs pull",
}
_FIRST_BYTES = 64


class BrokenImageError(Exception):
    """An image that cannot be used; the message is its reason."""


def read_image(source: Path | bytes) -> Image.Image:
    """Return a file or its bytes as an upright RGB image; raises BrokenImageError and no other.

    A JPEG of more than 50 megapixels is decoded at a quarter of its sides. Metadata that cannot be
    read is passed over, and so is a missing end mark.
    """
    data = read_file(source) if isinstance(source, Path) else source
    try:
        return _decode(data)
    except BrokenImageError:
        raise
    except MemoryError as error:
        raise BrokenImageError("needs too much memory") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BrokenImageError("too large: more than 50 megapixels") from error
    except Exception as error:  # a decoder fed with odd bytes may raise anything
        mended = _mended(data)
        if mended is None:
            raise BrokenImageError(_reason(data)) from error
        return mended


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file of at most 500 MB; raises BrokenImageError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImageError("not a regular file")
        if status.st_size > _FILE_LIMIT:
            raise BrokenImageError(f"larger than {_FILE_LIMIT // 1_000_000} MB")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or error
        raise BrokenImageError(f"cannot be read ({detail})") from error
    except MemoryError as error:
        raise BrokenImageError("needs too much memory") from error


def as_array(image: Image.Image) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3], the form that the network takes."""
    return np.array(image, dtype=np.uint8)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any of Pillow's modes as RGB, transparency on white.

    Whole numbers of more than 8 bits are scaled from 0..65535, other numbers from their lowest to
    their highest; `convert` would clip both. Raises ValueError where there is no number at all.
    """
    if image.mode[0] in "IF":
        image = _eight_bits(image)
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    flattened = Image.alpha_composite(white, layer)
    return flattened.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale the numbers of an image of mode I, I;16 or F to 0..255; what is no number becomes 0."""
    numbers = np.asarray(image)
    ends = _WHOLE_NUMBERS
    if image.mode == "F":
        known = numbers[np.abs(numbers) < _GAP]
        ends = (float(known.min()), float(known.max()))
    scaled = np.empty(numbers.shape, np.uint8)
    for top in range(0, len(numbers), _BAND):
        band = slice(top, top + _BAND)
        with np.errstate(invalid="ignore"):  # what is no number
            values = np.interp(numbers[band], ends, (0, 255))
        scaled[band] = np.nan_to_num(values).round()
    return Image.fromarray(scaled)


def _decode(data: bytes) -> Image.Image:
    """Return the image; raises BrokenImageError, or whatever Pillow raises."""
    with _open(data) as opened:
        _reduce(opened)
        opened.load()
        return to_rgb(_upright(opened))


def _open(data: bytes) -> Image.Image:
    """Read the header."""
    stream = io.BytesIO(data)
    if data.startswith(_JPEG_START):
        # Image.open refuses 180 megapixels, also where fewer are decoded, and reads more metadata.
        return JpegImageFile(stream)
    return Image.open(stream, formats=_FORMATS)


def _reduce(image: Image.Image) -> None:
    """Have a large JPEG decoded at a reduced scale; raises BrokenImageError if it is too large."""
    pixels = image.width * image.height
    if pixels <= _PIXEL_LIMIT:
        return
    if not isinstance(image, JpegImageFile):
        raise BrokenImageError("too large: more than 50 megapixels, which only a JPEG may have")
    limit = _JPEG_PIXEL_LIMIT
    if image.info.get("progressive"):
        limit = _PROGRESSIVE_PIXEL_LIMIT
    if pixels > limit:
        raise BrokenImageError(f"too large: more than {limit // 1_000_000} megapixels")
    reduced = (image.width // _REDUCTION, image.height // _REDUCTION)
    image.draft(None, reduced)


def _upright(image: Image.Image) -> Image.Image:
    """Turn a decoded image by its orientation.

    ImageOps.exif_transpose writes the other metadata anew, which fails where a value is odd.
    """
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        turn = _TURNS.get(orientation)
    except Exception:  # metadata that cannot be read says nothing about the pixels
        return image
    return image if turn is None else image.transpose(turn)


def _mended(data: bytes) -> Image.Image | None:
    """Return the image of a file of which only metadata or the end mark is faulty, else None."""
    try:
        if data.startswith(_PNG_START):
            return _decode(_without_metadata(data))
        if not data.startswith(_JPEG_START) or data.endswith(_JPEG_END):
            return None
        # Where pixels are missing the decoder takes what follows for them, and two ends differ.
        body = data.removesuffix(_JPEG_END[:1])
        image = _decode(body + _JPEG_END)
        probed = _decode(body + _PROBE + _JPEG_END)
        return image if image.tobytes() == probed.tobytes() else None
    except Exception:  # the reason of the first attempt stands
        return None


def _without_metadata(png: bytes) -> bytes:
    """Return a PNG with the chunks alone that its pixels need.

    Each chunk is its length in 4 bytes, its name in 4, its data and a checksum of 4; a capital
    first letter marks what no decoder may pass over (PNG specification, section 5). The last chunk,
    which is empty, is added.
    """
    kept = [_PNG_START]
    start = len(_PNG_START)
    while start < len(png):
        length = int.from_bytes(png[start : start + 4])
        name = png[start + 4 : start + 8]
        end = start + length + 12
        if name[:1].isupper() or name == b"tRNS":
            kept.append(png[start:end])
        start = end
    kept.append(_PNG_END)
    return b"".join(kept)


def _reason(data: bytes) -> str:
    """Return why a file cannot be read, and what to do where it is of another format."""
    beginning = data[:_FIRST_BYTES].lstrip().lower()
    for mark, what in _NO_PICTURES.items():
        if beginning.startswith(mark):
            return f"not a picture that can be read, but {what}"
    for mark, name in _OTHER_FORMATS.items():
        compared = mark
        if mark.startswith(b"...."):
            compared = data[:4] + mark[4:]
        if data.startswith(compared):
            return f"{name}, which Picaisso does not read; save it as JPEG"
    unread = "not a picture that can be read"
    return unread if data else f"{unread}, but empty"
