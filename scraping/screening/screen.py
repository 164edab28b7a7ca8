"""Received bytes become a clean picture or a reason.

Whatever arrives is judged by its content, never by its name or declared type. Everything that can
be refused from the header alone is refused before a pixel is decoded. What passes is always encoded
anew as RGB JPEG, so that no metadata, no second picture and no hidden payload of the original
survives.

`scraping.screening.worker` runs this for `scraping.screening.pool`: decoding strangers' files happens
there, in a process with limited memory that may be killed at any time.
"""

import contextlib
import hashlib
import io
import json
import mmap
import os
import struct
import sys
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from scraping.reasons import Reason
from scraping.screening.spool import Extent
from training.duplicates import Fingerprint, difference_hash, fingerprint

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # recent holes of decoders sit in the rarer ones
MAX_PIXELS = 30_000_000
MAX_SIDE = 10_000
MAX_ASPECT = 5.0  # longer side to shorter; beyond are banners, strips and rulers
JPEG_QUALITY = 90
MAX_PROFILE_BYTES = 1 << 20
MEMORY_LIMIT_BYTES = 2 << 30
HASH_WORKING_SIDE = 64
ORIENTATION = 0x0112  # tag of Exif
_REQUEST = struct.Struct("<?I")
_ANSWER = struct.Struct("<III")

_SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True)
class ScreenSettings:
    """`min_side`: shortest side accepted, in pixels; `max_side`: longest side stored, in pixels.

    `taken_down`: SHA-256 in hexadecimal of source or stored bytes that somebody wants gone.
    `thumbnails`: whether pictures get the fingerprint that verifies near copies; without, they have
    the difference hash alone.
    """

    min_side: int = 200
    max_side: int = 1024
    taken_down: frozenset[str] = frozenset()
    thumbnails: bool = True


@dataclass(frozen=True)
class Rejection:
    """Why the bytes are no usable picture: a reason of the product's list, and a detail for the
    record.
    """

    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class CleanImage:
    """A clean picture. `width` and `height` are those of `jpeg`; `mime` is what the received bytes
    were.

    `jpeg` is empty when a worker has already stored it; `hash` is the 64-bit difference hash.
    """

    jpeg: bytes
    width: int
    height: int
    mime: str
    sha256: str
    source_sha256: str
    hash: int
    marks: Fingerprint | None

    @property
    def fingerprint(self) -> Fingerprint:
        """What verifies near copies. Raises ValueError when the settings did not ask for it."""
        if self.marks is None:
            raise ValueError("this picture was screened without thumbnails")
        return self.marks


def screen(
    data: bytes | bytearray | memoryview, settings: ScreenSettings
) -> CleanImage | Rejection:
    """Decode, judge and encode anew. Never raises for what the bytes hold."""
    source_sha256 = hashlib.sha256(data).hexdigest()
    if source_sha256 in settings.taken_down:
        return Rejection(Reason.TAKEN_DOWN)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if refusal := _refused_by_header(image.size, settings):
                return refusal
            mime = _mime(image)
            upright = _decoded(image, settings.max_side)
        clean = _in_srgb(_shrunk(upright, settings.max_side))
        marks = fingerprint(clean) if settings.thumbnails else None
        picture = _encoded(clean, marks, mime, source_sha256)
        return Rejection(Reason.TAKEN_DOWN) if picture.sha256 in settings.taken_down else picture
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Rejection(Reason.TOO_LARGE, "more pixels than its header says")
    except MemoryError:
        return Rejection(Reason.TOO_LARGE, "needs too much memory")
    except Exception as error:  # a decoder fed with hostile bytes may raise anything
        return Rejection(Reason.NOT_A_PICTURE, type(error).__name__)


def _mime(image: Image.Image) -> str:
    """What the bytes are; a JPEG with further pictures behind it, as cameras make them, is a
    JPEG.
    """
    return "image/jpeg" if image.format == "MPO" else Image.MIME.get(image.format or "", "")


def _refused_by_header(size: tuple[int, int], settings: ScreenSettings) -> Rejection | None:
    shorter, longer = min(size), max(size)
    named = f"{size[0]}x{size[1]}"
    if longer > MAX_SIDE or shorter * longer > MAX_PIXELS:
        return Rejection(Reason.TOO_LARGE, named)
    if shorter < settings.min_side:
        return Rejection(Reason.TOO_SMALL, named)
    if longer > shorter * MAX_ASPECT:
        return Rejection(Reason.BAD_SHAPE, named)
    return None


def _fitting(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The size scaled down, never up, to the longest side allowed."""
    longer = max(size)
    if longer <= max_side:
        return size
    return max(1, round(size[0] * max_side / longer)), max(1, round(size[1] * max_side / longer))


def _decoded(image: Image.Image, max_side: int) -> Image.Image:
    """First frame, decoded at reduced scale where JPEG allows it, turned upright, 8 bits, alpha on
    white.
    """
    image.draft(None, _fitting(image.size, max_side))
    image.load()
    turned = image.getexif().get(ORIENTATION, 1) != 1  # turning by 0 would still copy
    return _on_white(_eight_bit(ImageOps.exif_transpose(image) if turned else image))


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits. A plain conversion would clip: 300 and 65535 both became
    white.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
    scaled = Image.fromarray(values.astype(np.uint8))
    scaled.info = image.info
    return scaled


def _on_white(image: Image.Image) -> Image.Image:
    """Lay transparent pictures on white: dropping alpha would show whatever colour hides
    beneath.
    """
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
    small = image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
    small.info = image.info
    return small


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert by the embedded colour profile when there is a usable one other than sRGB, else
    plainly.
    """
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


def _quick_hash(image: Image.Image) -> int:
    """The hash from a picture averaged to about HASH_WORKING_SIDE: nine columns need no more."""
    return difference_hash(image.reduce(max(1, min(image.size) // HASH_WORKING_SIDE)))


def _encoded(
    image: Image.Image, marks: Fingerprint | None, mime: str, source_sha256: str
) -> CleanImage:
    image.info = {}  # the encoder would copy comments and resolutions from here
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    jpeg = buffer.getvalue()
    return CleanImage(
        jpeg=jpeg,
        width=image.width,
        height=image.height,
        mime=mime,
        sha256=hashlib.sha256(jpeg).hexdigest(),
        source_sha256=source_sha256,
        hash=_quick_hash(image) if marks is None else marks.hash,
        marks=marks,
    )


def picture_name(sha256: str) -> str:
    """File name of a stored picture, from the sum of its bytes."""
    return f"{sha256[:16]}.jpg"


def _store(picture: CleanImage, folder: Path) -> CleanImage:
    """Publish the JPEG under its content's name; the same content is already complete if it is
    there.
    """
    target = folder / picture_name(picture.sha256)
    if not target.exists():
        beside = folder / f".{target.name}.{os.getpid()}"
        beside.write_bytes(picture.jpeg)
        beside.replace(target)
    return replace(picture, jpeg=b"")


# The worker's protocol. First the order: a length, and JSON. Then requests: whether what follows
# tells a place on disk, its length, and the place as JSON or the bytes. Answers: three lengths,
# then facts as JSON, the thumbnails and the JPEG. The first answer is empty and says that the
# worker is ready.


@dataclass(frozen=True)
class WorkOrder:
    """What a worker needs to know from the start; with a folder it stores good pictures there
    itself.
    """

    settings: ScreenSettings
    folder: str | None = None


def order_message(order: WorkOrder) -> bytes:
    """The first message to a worker."""
    values = asdict(order.settings) | {
        "taken_down": sorted(order.settings.taken_down),
        "folder": order.folder,
    }
    return _frame(False, json.dumps(values).encode())


def request_head(data: bytes | bytearray | Extent) -> bytes:
    """What precedes the bytes of one picture; for one on disk, the whole request."""
    if isinstance(data, Extent):
        return _frame(True, json.dumps([str(data.segment), data.offset, data.size]).encode())
    return _REQUEST.pack(False, len(data))


def answer_lengths(head: bytes) -> tuple[int, int, int]:
    """Lengths of the parts of an answer, from its first ANSWER_HEAD_BYTES bytes."""
    facts, thumbnails, jpeg = _ANSWER.unpack(head)
    return facts, thumbnails, jpeg


ANSWER_HEAD_BYTES = _ANSWER.size


def read_answer(lengths: tuple[int, int, int], body: bytes) -> CleanImage | Rejection:
    """A worker's answer from its parts in one piece."""
    facts = json.loads(body[: lengths[0]])
    if "reason" in facts:
        return Rejection(Reason(facts["reason"]), facts["detail"])
    thumbnails, jpeg = body[lengths[0] : lengths[0] + lengths[1]], body[lengths[0] + lengths[1] :]
    mirror_hash = facts.pop("mirror_hash")
    marks = None if mirror_hash is None else Fingerprint(facts["hash"], mirror_hash, thumbnails)
    return CleanImage(jpeg=jpeg, marks=marks, **facts)


def _frame(on_disk: bool, data: bytes) -> bytes:
    return _REQUEST.pack(on_disk, len(data)) + data


def _write_answer(stream: IO[bytes], answer: CleanImage | Rejection) -> None:
    thumbnails, jpeg = b"", b""
    if isinstance(answer, Rejection):
        facts: dict[str, object] = asdict(answer)
    else:
        jpeg, marks = answer.jpeg, answer.marks
        facts = {
            name: getattr(answer, name)
            for name in ("width", "height", "mime", "sha256", "source_sha256", "hash")
        }
        facts["mirror_hash"] = None
        if marks is not None:
            thumbnails, facts["mirror_hash"] = marks.thumbnails, marks.mirror_hash
    head = json.dumps(facts).encode()
    stream.write(
        b"".join((_ANSWER.pack(len(head), len(thumbnails), len(jpeg)), head, thumbnails, jpeg))
    )
    stream.flush()


def _received(stream: IO[bytes]) -> bytes:
    """The next message: bytes as they came, or those whose place was told. Raises EOFError at the
    end.
    """
    on_disk, length = _REQUEST.unpack(_exactly(stream, _REQUEST.size))
    data = _exactly(stream, length)
    if not on_disk:
        return data
    name, offset, size = json.loads(data)
    return Extent(Path(name), offset, size).read()


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("the other side is gone")
    return data


def _limit_decoding() -> None:
    """The header is checked by hand; these limits hold should a decoder want more than its header
    says.
    """
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


def _read_order(stream: IO[bytes]) -> WorkOrder:
    values = json.loads(_received(stream))
    folder = values.pop("folder")
    return WorkOrder(
        ScreenSettings(**values | {"taken_down": frozenset(values["taken_down"])}), folder
    )


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until the other side closes: so the worker ends with its parent, however that
    ended.
    """
    with contextlib.suppress(EOFError):
        order = _read_order(requests)
        answers.write(_ANSWER.pack(0, 0, 0))
        answers.flush()
        while True:
            answer = screen(_received(requests), order.settings)
            if isinstance(answer, CleanImage) and order.folder is not None:
                answer = _store(answer, Path(order.folder))
            _write_answer(answers, answer)


def work() -> None:
    """A worker's whole life, on its standard input and output."""
    _limit_decoding()
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(
            sys.stderr.fileno(), sys.stdout.fileno()
        )  # a decoder that prints must not print into an answer
        serve(sys.stdin.buffer, answers)
