"""What the pool and a worker say to each other over a pair of pipes.

First comes the order: a length and JSON. Then requests: a flag that says whether the body is a
place on disk, its length, and the place as JSON or the bytes themselves. Each answer has three
lengths, then facts as JSON, the thumbnails and the JPEG. The first answer is empty and says that
the worker is ready.
"""

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from scraping.reasons import Reason
from scraping.screening.marks import Marks
from scraping.screening.screen import CleanImage, Rejection, ScreenSettings
from scraping.screening.spool import Extent
from training.duplicates import Fingerprint

_REQUEST = struct.Struct("<?I")
_ANSWER = struct.Struct("<III")
ANSWER_HEAD_BYTES = _ANSWER.size
READY = _ANSWER.pack(0, 0, 0)
FACTS = ("width", "height", "mime", "sha256", "source_sha256", "difference_hash")


@dataclass(frozen=True)
class WorkOrder:
    """What a worker is told at the start. With a folder it stores clean images there itself."""

    settings: ScreenSettings
    folder: str | None = None


def order_message(order: WorkOrder) -> bytes:
    """Return the first message to a worker."""
    values = asdict(order.settings)
    values["taken_down"] = sorted(order.settings.taken_down)
    values["folder"] = order.folder
    return _frame(json.dumps(values).encode())


def read_order(stream: IO[bytes]) -> WorkOrder:
    """Read the first message. Raises EOFError when the other side is gone."""
    values = json.loads(read_request(stream))
    folder = values.pop("folder")
    values["taken_down"] = frozenset(values["taken_down"])
    return WorkOrder(ScreenSettings(**values), folder)


def request_head(data: bytes | bytearray | Extent) -> bytes:
    """Return what precedes the bytes of one image; for one on disk, the whole request."""
    if isinstance(data, Extent):
        place = json.dumps([str(data.segment), data.offset, data.size])
        return _frame(place.encode(), on_disk=True)
    return _REQUEST.pack(False, len(data))


def read_request(stream: IO[bytes]) -> bytes:
    """Return the next body, read from disk where the request names a place.

    Raises EOFError when the other side is gone.
    """
    on_disk, length = _REQUEST.unpack(_read_exactly(stream, _REQUEST.size))
    data = _read_exactly(stream, length)
    if not on_disk:
        return data
    segment, offset, size = json.loads(data)
    return Extent(Path(segment), offset, size).read()


def write_answer(stream: IO[bytes], answer: CleanImage | Rejection) -> None:
    """Send what became of one image."""
    thumbnails = b""
    jpeg = b""
    facts: dict[str, Any]
    if isinstance(answer, Rejection):
        facts = asdict(answer)
    else:
        facts = {name: getattr(answer, name) for name in FACTS}
        facts["marks"] = asdict(answer.marks)
        facts["mirror_hash"] = None
        jpeg = answer.jpeg
        fingerprint = answer.optional_fingerprint
        if fingerprint is not None:
            facts["mirror_hash"] = fingerprint.mirror_hash
            thumbnails = fingerprint.thumbnails
    head = json.dumps(facts).encode()
    lengths = _ANSWER.pack(len(head), len(thumbnails), len(jpeg))
    stream.write(b"".join((lengths, head, thumbnails, jpeg)))
    stream.flush()


def answer_lengths(head: bytes) -> tuple[int, int, int]:
    """Return the lengths of an answer's parts from its first ANSWER_HEAD_BYTES bytes."""
    facts_length, thumbnails_length, jpeg_length = _ANSWER.unpack(head)
    return facts_length, thumbnails_length, jpeg_length


def parse_answer(lengths: tuple[int, int, int], body: bytes) -> CleanImage | Rejection:
    """Return what became of one image, from the answer's parts in one piece."""
    facts_length, thumbnails_length, _jpeg_length = lengths
    facts_end = facts_length
    thumbnails_end = facts_end + thumbnails_length
    facts = json.loads(body[:facts_end])
    if "reason" in facts:
        return Rejection(**facts | {"reason": Reason(facts["reason"])})
    fingerprint = None
    facts["marks"] = Marks.of(facts["marks"])
    mirror_hash = facts.pop("mirror_hash")
    if mirror_hash is not None:
        thumbnails = body[facts_end:thumbnails_end]
        fingerprint = Fingerprint(facts["difference_hash"], mirror_hash, thumbnails)
    return CleanImage(jpeg=body[thumbnails_end:], optional_fingerprint=fingerprint, **facts)


def _frame(data: bytes, *, on_disk: bool = False) -> bytes:
    return _REQUEST.pack(on_disk, len(data)) + data


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("the other side is gone")
    return data
