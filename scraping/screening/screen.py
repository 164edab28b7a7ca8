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
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from scraping.files import atomic_write
from scraping.reasons import Reason
from scraping.screening.embedded import PNG_START, bare_png
from scraping.screening.marks import NO_MARKS, Marks, read_marks
from training.duplicates import Fingerprint, difference_hash, fingerprint

# Recent holes of decoders sit in the rarer formats. JPEG includes MPO, the JPEG of several images.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
MAX_PIXELS = 50_000_000  # that are decoded, as many as `training` reads of one image
MAX_SIDE = 10_000
# JPEG is decoded at a reduced scale, so a telephone's 200 megapixels need not be refused.
REDUCIBLE_FORMATS = frozenset({"JPEG", "MPO"})
MAX_REDUCIBLE_PIXELS = 256_000_000
MAX_REDUCIBLE_SIDE = 32_000
JPEG_SCALES = (1, 2, 4, 8)  # a decoder can divide the sides by these
JPEG_START = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
PROBE = bytes(range(1, 128)) * 4  # entropy-coded data, if the decoder still wants any
MAX_ASPECT = 5.0  # longer side to shorter; beyond are banners, strips and rulers
JPEG_QUALITY = 90
MAX_PROFILE_BYTES = 1 << 20
HASH_WORKING_SIDE = 64
ORIENTATION_TAG = 0x0112  # of Exif
UPRIGHT = 1
# How to turn an image upright, by the orientation in its Exif (CIPA DC-008-2019, 4.6.4).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

AI_MADE_CHOICES = ("leave_out", "keep")

_SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True)
class ScreenSettings:
    """What is accepted and how it is stored.

    `min_side`: shortest side accepted, in pixels; `max_side`: longest side stored, in pixels.
    `taken_down`: SHA-256 in hexadecimal of received or stored bytes that must not be kept.
    `thumbnails`: whether images get the fingerprint that verifies near-duplicates; without it they
    have the difference hash alone. `nudity_model`: path of the operator's model, empty for none.
    `ai_made`, `leave_out` or `keep`: what becomes of images whose file says that AI made them.
    `digests`: whether rejected images get digests too, for who refuses images by them.
    """

    min_side: int = 200
    max_side: int = 1024
    taken_down: frozenset[str] = frozenset()
    thumbnails: bool = True
    nudity_model: str = ""
    ai_made: str = "leave_out"
    digests: bool = False


@dataclass(frozen=True)
class Rejection:
    """Why the bytes are no usable image, with a detail for the record.

    `sha256` is that of the image as it would be stored, `source_sha256` that of the received bytes;
    both are empty unless they were asked for and the image can be decoded.
    """

    reason: Reason
    detail: str = ""
    sha256: str = ""
    source_sha256: str = ""


@dataclass(frozen=True)
class CleanImage:
    """A screened image. `width` and `height` are those of `jpeg`, `mime` is that of the received
    bytes.

    `jpeg` is empty when a worker has already stored it; `difference_hash` has 64 bits. `marks` is
    what the received file says of itself.
    """

    jpeg: bytes
    width: int
    height: int
    mime: str
    sha256: str
    source_sha256: str
    difference_hash: int
    optional_fingerprint: Fingerprint | None
    marks: Marks = NO_MARKS

    @property
    def fingerprint(self) -> Fingerprint:
        """Return what verifies near-duplicates. Raises ValueError when it was not asked for."""
        if self.optional_fingerprint is None:
            raise ValueError("this image was screened without thumbnails")
        return self.optional_fingerprint


Judge = Callable[[Image.Image], str]
"""Looks at an upright RGB image and returns why it must be refused, empty when it need not."""


def screen(
    data: bytes | bytearray | memoryview, settings: ScreenSettings, judge: Judge | None = None
) -> CleanImage | Rejection:
    """Decode, judge and encode anew. Never raises for what the bytes hold.

    `judge` is the operator's model, if any; it sees the image as it would be stored.
    """
    source_sha256 = hashlib.sha256(data).hexdigest()
    if source_sha256 in settings.taken_down:
        return Rejection(Reason.TAKEN_DOWN)
    clean = _clean(data, data, settings, source_sha256, judge)
    if isinstance(clean, Rejection) and clean.reason == Reason.NOT_A_PICTURE:
        mended = _mended(data, settings.max_side)
        if mended is not None:
            clean = _clean(mended, data, settings, source_sha256, judge)
    if isinstance(clean, Rejection):
        return clean
    if clean.sha256 in settings.taken_down:
        return Rejection(Reason.TAKEN_DOWN)
    return clean


def _clean(
    data: bytes | bytearray | memoryview,
    received: bytes | bytearray | memoryview,
    settings: ScreenSettings,
    source_sha256: str,
    judge: Judge | None,
) -> CleanImage | Rejection:
    """Decode, judge by the header before any pixel, and encode anew.

    `received` is the file before it was mended: it may carry marks that `data` no longer has.
    """
    rejection = None
    try:
        with _open(data) as image:
            rejection = _judge_size(image, settings)
            marks = NO_MARKS if rejection is not None else _marks(received, image)
            rejection = rejection or _judge_marks(marks, settings)
            if rejection is not None and not _wants_digests(rejection, settings):
                return rejection
            mime = _mime(image)
            upright = _decode(image, settings.max_side)
        rgb = _convert_to_srgb(_shrink(upright, settings.max_side))
        refusal = "" if judge is None or rejection is not None else judge(rgb)
        if refusal:
            rejection = Rejection(Reason.NUDITY, refusal)
        if rejection is not None and not _wants_digests(rejection, settings):
            return rejection
        clean = _encode(rgb, settings, mime, source_sha256)
        if rejection is not None:
            return replace(rejection, sha256=clean.sha256, source_sha256=source_sha256)
        return replace(clean, marks=marks)
    except Exception as error:  # a decoder fed with hostile bytes may raise anything
        return rejection or _rejection_of(error)


def _wants_digests(rejection: Rejection, settings: ScreenSettings) -> bool:
    """Return whether a rejected image is decoded all the same, to learn its digests."""
    return settings.digests and rejection.reason != Reason.TOO_LARGE


def _rejection_of(error: Exception) -> Rejection:
    """Say what an exception of a decoder means."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return Rejection(Reason.TOO_LARGE, "more pixels than its header says")
    if isinstance(error, MemoryError):
        return Rejection(Reason.TOO_LARGE, "needs too much memory")
    return Rejection(Reason.NOT_A_PICTURE, type(error).__name__)


def _open(data: bytes | bytearray | memoryview) -> Image.Image:
    """Read the header. Its size is for `_judge_size`; Pillow's own limit is for what comes then."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _mended(data: bytes | bytearray | memoryview, max_side: int) -> bytes | None:
    """Return a JPEG of which only the end mark is missing with that mark, and a PNG without the
    texts that may have made it unreadable; None for other data.

    Where pixels are missing too, the decoder takes what is appended for them: two different ends
    then give two images.
    """
    body = bytes(data)
    if body.startswith(PNG_START):
        bare = bare_png(body)
        return bare if len(bare) < len(body) else None
    if not body.startswith(JPEG_START) or body.endswith(JPEG_END):
        return None
    body = body.removesuffix(JPEG_END[:1])
    try:
        shown = []
        for end in (JPEG_END, PROBE + JPEG_END):
            with _open(body + end) as image:
                if image.format not in REDUCIBLE_FORMATS or _is_too_large(image):
                    return None
                image.draft(None, _reduced(image.size, max_side))
                shown.append(image.tobytes())
    except Exception:  # the reason of the first attempt stands
        return None
    return body + JPEG_END if shown[0] == shown[1] else None


def _is_too_large(image: Image.Image) -> bool:
    """Return whether more pixels would have to be decoded than is allowed."""
    longer = max(image.size)
    pixels = image.width * image.height
    if image.format in REDUCIBLE_FORMATS:
        return longer > MAX_REDUCIBLE_SIDE or pixels > MAX_REDUCIBLE_PIXELS
    return longer > MAX_SIDE or pixels > MAX_PIXELS


def _judge_size(image: Image.Image, settings: ScreenSettings) -> Rejection | None:
    width, height = image.size
    shorter = min(image.size)
    longer = max(image.size)
    if _is_too_large(image):
        return Rejection(Reason.TOO_LARGE, f"{width}x{height}")
    if shorter < settings.min_side:
        return Rejection(Reason.TOO_SMALL, f"{width}x{height}")
    if longer > shorter * MAX_ASPECT:
        return Rejection(Reason.BAD_SHAPE, f"{width}x{height}, over {MAX_ASPECT:g}:1")
    return None


def _marks(data: bytes | bytearray | memoryview, image: Image.Image) -> Marks:
    """Return what the file says of itself, nothing where that cannot be read."""
    exif = image.info.get("exif", b"")
    try:
        return read_marks(data, exif if isinstance(exif, bytes) else b"")
    except Exception:  # metadata of strangers, which says nothing about the pixels
        return NO_MARKS


def _judge_marks(marks: Marks, settings: ScreenSettings) -> Rejection | None:
    if marks.reservation:
        return Rejection(Reason.OPTED_OUT, marks.reservation)
    if marks.ai_made and settings.ai_made == "leave_out":
        return Rejection(Reason.AI_MADE, marks.ai_made)
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


def _reduced(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Return the smallest size in which a JPEG can be decoded and still fill `max_side`.

    An image of very many pixels is reduced further.
    """
    width, height = size
    wanted_width, wanted_height = _fit(size, max_side)
    reduced = size
    for scale in JPEG_SCALES:
        smaller = (max(1, width // scale), max(1, height // scale))
        is_enough = smaller[0] >= wanted_width and smaller[1] >= wanted_height
        if is_enough or reduced[0] * reduced[1] > MAX_PIXELS:
            reduced = smaller
    return reduced


def _decode(image: Image.Image, max_side: int) -> Image.Image:
    """Decode the first frame, upright, with 8 bits a channel and alpha laid on white.

    JPEG is decoded at a reduced scale where that suffices.
    """
    image.draft(None, _reduced(image.size, max_side))
    image.load()
    turn = TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    return _flatten(_to_eight_bits(image))


def _orientation(image: Image.Image) -> int:
    """Return the orientation that Exif or XMP states; upright where they cannot be read."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, UPRIGHT)
    except Exception:  # metadata of strangers, which says nothing about the pixels
        return UPRIGHT
    return orientation if isinstance(orientation, int) else UPRIGHT


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit gray to 8 bits. A plain conversion would clip: 300 and 65535 became white."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.clip(np.asarray(image), 0, 65535)
    if image.mode == "F":
        values = np.nan_to_num(values).astype(np.uint16)
    scaled = Image.fromarray((values >> 8).astype(np.uint8))
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
        except Exception:
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
