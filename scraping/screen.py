"""Received bytes become a clean picture or a reason.

Whatever arrives is judged by its content, never by its name or declared type. Everything that can be refused
from the header alone is refused before a pixel is decoded. What passes is always encoded anew as RGB JPEG, so
that no metadata, no second picture and no hidden payload of the original survives.

`python -m scraping.screen` is the worker of `scraping.screenpool`: decoding strangers' files happens there,
in a process with limited memory that may be killed at any time.
"""

import hashlib
import io
import json
import mmap
import struct
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from training.nearcopies import Fingerprint, fingerprint

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # recent holes of decoders sit in the rarer ones
MAX_PIXELS = 30_000_000
MAX_SIDE = 10_000
MAX_ASPECT = 5.0  # longer side to shorter; beyond are banners, strips and rulers
JPEG_QUALITY = 90
MAX_PROFILE_BYTES = 1 << 20
MEMORY_LIMIT_BYTES = 2 << 30
_LENGTH = struct.Struct("<IIII")

_SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True)
class ScreenSettings:
    """`min_side`: shortest side accepted, in pixels; `max_side`: longest side stored, in pixels."""

    min_side: int = 200
    max_side: int = 1024


@dataclass(frozen=True)
class Rejection:
    """Why the bytes are no usable picture: a reason of the product's list, and a detail for the record."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Picture:
    """A clean picture. `width` and `height` are those of `jpeg`; `mime` is what the received bytes were."""

    jpeg: bytes
    width: int
    height: int
    mime: str
    sha256: str
    source_sha256: str
    fingerprint: Fingerprint


def screen(data: bytes | bytearray | memoryview, settings: ScreenSettings) -> Picture | Rejection:
    """Decode, judge and encode anew. Never raises for what the bytes hold."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if refusal := _refused_by_header(image.size, settings):
                return refusal
            mime = Image.MIME.get(image.format or "", "")
            upright = _decoded(image, settings.max_side)
        clean = _in_srgb(_shrunk(upright, settings.max_side))
        return _stored(clean, mime, data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Rejection("too_large", "more pixels than its header says")
    except MemoryError:
        return Rejection("too_large", "needs too much memory")
    except Exception as error:  # a decoder fed with hostile bytes may raise anything
        return Rejection("not_a_picture", type(error).__name__)


def _refused_by_header(size: tuple[int, int], settings: ScreenSettings) -> Rejection | None:
    shorter, longer = min(size), max(size)
    named = f"{size[0]}x{size[1]}"
    if longer > MAX_SIDE or shorter * longer > MAX_PIXELS:
        return Rejection("too_large", named)
    if shorter < settings.min_side:
        return Rejection("too_small", named)
    if longer > shorter * MAX_ASPECT:
        return Rejection("bad_shape", named)
    return None


def _fitting(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The size scaled down, never up, to the longest side allowed."""
    longer = max(size)
    if longer <= max_side:
        return size
    return max(1, round(size[0] * max_side / longer)), max(1, round(size[1] * max_side / longer))


def _decoded(image: Image.Image, max_side: int) -> Image.Image:
    """First frame, decoded at reduced scale where JPEG allows it, turned upright, 8 bits, alpha on white."""
    image.draft(None, _fitting(image.size, max_side))
    image.load()
    return _on_white(_eight_bit(ImageOps.exif_transpose(image)))


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits. A plain conversion would clip: 300 and 65535 both became white."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
    scaled = Image.fromarray(values.astype(np.uint8))
    scaled.info = image.info
    return scaled


def _on_white(image: Image.Image) -> Image.Image:
    """Lay transparent pictures on white: dropping alpha would show whatever colour hides beneath."""
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    flat = Image.alpha_composite(white, rgba).convert("RGB")
    flat.info = {"icc_profile": image.info.get("icc_profile")}
    return flat


def _shrunk(image: Image.Image, max_side: int) -> Image.Image:
    if image.mode in ("P", "1"):
        profile = image.info.get("icc_profile")
        image = image.convert("RGB")
        image.info = {"icc_profile": profile}
    size = _fitting(image.size, max_side)
    if size == image.size:
        return image
    small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    small.info = image.info
    return small


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert by the embedded colour profile when there is a usable one other than sRGB, else plainly."""
    profile = image.info.get("icc_profile")
    if profile and len(profile) <= MAX_PROFILE_BYTES and image.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(source).lower():
                converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
                return converted if converted is not None else image.convert("RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a broken profile says nothing about the pixels
    return image if image.mode == "RGB" else image.convert("RGB")


def _stored(image: Image.Image, mime: str, data: bytes | bytearray | memoryview) -> Picture:
    image.info = {}  # the encoder would copy comments and resolutions from here
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    jpeg = buffer.getvalue()
    return Picture(
        jpeg=jpeg,
        width=image.width,
        height=image.height,
        mime=mime,
        sha256=hashlib.sha256(jpeg).hexdigest(),
        source_sha256=hashlib.sha256(data).hexdigest(),
        fingerprint=fingerprint(image),
    )


# The worker's protocol, both ways: four lengths (of which a request uses three), then the parts. A request is
# settings as JSON and the bytes; an answer is facts as JSON, the thumbnails and the JPEG.


def write_request(stream: IO[bytes], data: bytes | bytearray, settings: ScreenSettings) -> None:
    """Send one picture to a worker."""
    head = json.dumps(asdict(settings)).encode()
    stream.write(_LENGTH.pack(len(head), len(data), 0, 0))
    stream.write(head)
    stream.write(data)
    stream.flush()


def read_answer(stream: IO[bytes]) -> Picture | Rejection:
    """Read a worker's answer. Raises EOFError when the worker is gone."""
    lengths = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    facts = json.loads(_exactly(stream, lengths[0]))
    thumbnails, jpeg = _exactly(stream, lengths[1]), _exactly(stream, lengths[2])
    if "reason" in facts:
        return Rejection(**facts)
    marks = Fingerprint(facts.pop("hash"), facts.pop("mirror_hash"), thumbnails)
    return Picture(jpeg=jpeg, fingerprint=marks, **facts)


def _write_answer(stream: IO[bytes], answer: Picture | Rejection) -> None:
    thumbnails, jpeg = b"", b""
    if isinstance(answer, Rejection):
        facts: dict[str, object] = asdict(answer)
    else:
        thumbnails, jpeg, marks = answer.fingerprint.thumbnails, answer.jpeg, answer.fingerprint
        facts = {name: getattr(answer, name) for name in ("width", "height", "mime", "sha256", "source_sha256")}
        facts |= {"hash": marks.hash, "mirror_hash": marks.mirror_hash}
    head = json.dumps(facts).encode()
    stream.write(_LENGTH.pack(len(head), len(thumbnails), len(jpeg), 0))
    stream.write(head)
    stream.write(thumbnails)
    stream.write(jpeg)
    stream.flush()


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("the other side is gone")
    return data


def _limit_decoding() -> None:
    """The header is checked by hand; these limits hold should a decoder want more than its header says."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        import resource
    except ImportError:  # not a Unix system
        return
    limit = _address_space() + MEMORY_LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _address_space() -> int:
    """Bytes reserved already; libraries reserve much on machines with many cores."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * mmap.PAGESIZE if statm.exists() else 0


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until the other side closes: so the worker ends with its parent, however that ended."""
    while True:
        try:
            head, body, _, _ = _LENGTH.unpack(_exactly(requests, _LENGTH.size))
            settings = ScreenSettings(**json.loads(_exactly(requests, head)))
            data = _exactly(requests, body)
        except EOFError:
            return
        _write_answer(answers, screen(data, settings))


if __name__ == "__main__":
    _limit_decoding()
    serve(sys.stdin.buffer, sys.stdout.buffer)
