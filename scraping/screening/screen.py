"""Turn received bytes into a clean image, or say why not.

Whatever arrives is judged by its content, never by its name or declared type. Everything that can
be refused from the header alone is refused before a pixel is decoded. What passes is always encoded
anew as RGB JPEG, so that no metadata, no second image and no hidden payload of the original
survives.

`scraping.screening.worker` runs this for `scraping.screening.pool`: files of strangers are decoded
there, in a process with limited memory that may be killed at any time.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from scraping.files import atomic_write
from scraping.reasons import Reason
from training.duplicates import Fingerprint, difference_hash, fingerprint

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # recent holes of decoders sit in the rarer ones
MAX_PIXELS = 30_000_000
MAX_SIDE = 10_000
MAX_ASPECT = 5.0  # longer side to shorter; beyond are banners, strips and rulers
JPEG_QUALITY = 90
MAX_PROFILE_BYTES = 1 << 20
HASH_WORKING_SIDE = 64
ORIENTATION_TAG = 0x0112  # of Exif
UPRIGHT = 1

_SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True)
class ScreenSettings:
    """What is accepted and how it is stored.

    `min_side`: shortest side accepted, in pixels; `max_side`: longest side stored, in pixels.
    `taken_down`: SHA-256 in hexadecimal of received or stored bytes that must not be kept.
    `thumbnails`: whether images get the fingerprint that verifies near-duplicates; without it they
    have the difference hash alone.
    """

    min_side: int = 200
    max_side: int = 1024
    taken_down: frozenset[str] = frozenset()
    thumbnails: bool = True


@dataclass(frozen=True)
class Rejection:
    """Why the bytes are no usable image, with a detail for the record."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class CleanImage:
    """A screened image. `width` and `height` are those of `jpeg`, `mime` is that of the received
    bytes.

    `jpeg` is empty when a worker has already stored it; `difference_hash` has 64 bits.
    """

    jpeg: bytes
    width: int
    height: int
    mime: str
    sha256: str
    source_sha256: str
    difference_hash: int
    optional_fingerprint: Fingerprint | None

    @property
    def fingerprint(self) -> Fingerprint:
        """Return what verifies near-duplicates. Raises ValueError when it was not asked for."""
        if self.optional_fingerprint is None:
            raise ValueError("this image was screened without thumbnails")
        return self.optional_fingerprint


def screen(
    data: bytes | bytearray | memoryview, settings: ScreenSettings
) -> CleanImage | Rejection:
    """Decode, judge and encode anew. Never raises for what the bytes hold."""
    source_sha256 = hashlib.sha256(data).hexdigest()
    if source_sha256 in settings.taken_down:
        return Rejection(Reason.TAKEN_DOWN)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            rejection = _judge_size(image.size, settings)
            if rejection is not None:
                return rejection
            mime = _mime(image)
            upright = _decode(image, settings.max_side)
        rgb = _convert_to_srgb(_shrink(upright, settings.max_side))
        clean = _encode(rgb, settings, mime, source_sha256)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Rejection(Reason.TOO_LARGE, "more pixels than its header says")
    except MemoryError:
        return Rejection(Reason.TOO_LARGE, "needs too much memory")
    except Exception as error:  # a decoder fed with hostile bytes may raise anything
        return Rejection(Reason.NOT_A_PICTURE, type(error).__name__)
    if clean.sha256 in settings.taken_down:
        return Rejection(Reason.TAKEN_DOWN)
    return clean


def _judge_size(size: tuple[int, int], settings: ScreenSettings) -> Rejection | None:
    width, height = size
    shorter = min(size)
    longer = max(size)
    if longer > MAX_SIDE or shorter * longer > MAX_PIXELS:
        return Rejection(Reason.TOO_LARGE, f"{width}x{height}")
    if shorter < settings.min_side:
        return Rejection(Reason.TOO_SMALL, f"{width}x{height}")
    if longer > shorter * MAX_ASPECT:
        return Rejection(Reason.BAD_SHAPE, f"{width}x{height}, over {MAX_ASPECT:g}:1")
    return None


def _mime(image: Image.Image) -> str:
    """Return the type of the bytes. A JPEG with more images behind it, as cameras make, is one."""
    if image.format == "MPO":
        return "image/jpeg"
    return Image.MIME.get(image.format or "", "")


def _fit(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Scale a size down, never up, to the longest side allowed."""
    width, height = size
    longer = max(size)
    if longer <= max_side:
        return size
    scaled_width = max(1, round(width * max_side / longer))
    scaled_height = max(1, round(height * max_side / longer))
    return scaled_width, scaled_height


def _decode(image: Image.Image, max_side: int) -> Image.Image:
    """Decode the first frame, upright, with 8 bits a channel and alpha laid on white.

    JPEG is decoded at a reduced scale where that suffices.
    """
    image.draft(None, _fit(image.size, max_side))
    image.load()
    # Turning by nothing would still copy.
    if image.getexif().get(ORIENTATION_TAG, UPRIGHT) != UPRIGHT:
        image = ImageOps.exif_transpose(image)
    return _flatten(_to_eight_bits(image))


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit gray to 8 bits. A plain conversion would clip: 300 and 65535 became white."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.int64)
    eight_bits = np.clip(values, 0, 65535) >> 8
    scaled = Image.fromarray(eight_bits.astype(np.uint8))
    scaled.info = image.info
    return scaled


def _flatten(image: Image.Image) -> Image.Image:
    """Lay a transparent image on white: dropping alpha would show the colors beneath."""
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    flat = Image.alpha_composite(white, rgba).convert("RGB")
    flat.info = {"icc_profile": image.info.get("icc_profile")}
    return flat


def _shrink(image: Image.Image, max_side: int) -> Image.Image:
    if image.mode in ("P", "1"):
        profile = image.info.get("icc_profile")
        image = image.convert("RGB")
        image.info = {"icc_profile": profile}
    size = _fit(image.size, max_side)
    if size == image.size:
        return image
    small = image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
    small.info = image.info
    return small


def _convert_to_srgb(image: Image.Image) -> Image.Image:
    """Convert by the embedded color profile when it is usable and not sRGB, else plainly."""
    profile = image.info.get("icc_profile")
    if profile and len(profile) <= MAX_PROFILE_BYTES and image.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(source).lower():
                converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a broken profile says nothing about the pixels
    return image if image.mode == "RGB" else image.convert("RGB")


def _encode(
    image: Image.Image, settings: ScreenSettings, mime: str, source_sha256: str
) -> CleanImage:
    image.info = {}  # the encoder would copy comments and resolutions from here
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    jpeg = buffer.getvalue()
    known = fingerprint(image) if settings.thumbnails else None
    return CleanImage(
        jpeg=jpeg,
        width=image.width,
        height=image.height,
        mime=mime,
        sha256=hashlib.sha256(jpeg).hexdigest(),
        source_sha256=source_sha256,
        difference_hash=_quick_hash(image) if known is None else known.hash,
        optional_fingerprint=known,
    )


def _quick_hash(image: Image.Image) -> int:
    """Return the difference hash of an image first averaged to about HASH_WORKING_SIDE."""
    factor = max(1, min(image.size) // HASH_WORKING_SIDE)
    return difference_hash(image.reduce(factor))


def file_name(sha256: str) -> str:
    """Return the name of a stored image's file, from the SHA-256 of its bytes."""
    return f"{sha256[:16]}.jpg"


def store(image: CleanImage, folder: Path) -> None:
    """Publish the JPEG under its content's name, unless that file is already there."""
    target = folder / file_name(image.sha256)
    if not target.exists():
        atomic_write(target, image.jpeg)
