"""Find the metadata inside an image file, without decoding the image and without Pillow.

Each file format is walked from part to part by the lengths it states. What is damaged ends the walk
and costs only what lies behind it. Formats:

- JPEG: ITU-T T.81, B.1.1; XMP in APP1 and IPTC in APP13: XMP specification part 3, 1.1.3; C2PA in
  APP11: ISO 19566-5, annex D.
- PNG: https://www.w3.org/TR/png-3/#5Chunk-layout; C2PA's chunk is `caBX`.
- WebP: https://developers.google.com/speed/webp/docs/riff_container; C2PA's chunk is `C2PA`.
- GIF: application extensions, https://www.w3.org/Graphics/GIF/spec-gif89a.txt, section 26.
- AVIF: boxes of ISO 14496-12; C2PA's is a `uuid` box. In it and in GIF an XMP packet stands in one
  piece, so it is found by its first and last element.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_PARTS = 20_000  # of one file; an image of 20 MB in chunks of 8 kB has 2,500
MAX_XMP_BYTES = 1 << 20
MAX_TEXT_BYTES = 1 << 16  # of one text chunk, which may be compressed
MAX_TEXTS = 64
MAX_PHOTOSHOP_BYTES = 1 << 20

PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
PNG_COLORS = frozenset({b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"eXIf"})  # and how it is turned
CHECKSUM_BYTES = 4
PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
ENTROPY_CODED = frozenset({0xDA, 0xD9})  # start of scan and end of image: no metadata follows
ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\x00"
XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\x00"
XMP_DIGEST_BYTES = 32
PHOTOSHOP_SEGMENT = b"Photoshop 3.0\x00"
JUMBF_SEGMENT = b"JP"
SEGMENT_STARTS = {  # by marker: APP1, APP11 and APP13
    0xE1: (XMP_SEGMENT, XMP_EXTENSION),
    0xEB: (JUMBF_SEGMENT,),
    0xED: (PHOTOSHOP_SEGMENT,),
}
BOX_HEAD_BYTES = 8
XMP_KEYWORD = b"XML:com.adobe.xmp"
GIF_CREDENTIALS = b"\x21\xff\x0bC2PA_GIF\x01\x00\x00"
XMP_FIRST = b"<x:xmpmeta"
XMP_LAST = b"</x:xmpmeta>"
# https://spec.c2pa.org, "Embedding manifests into BMFF-based assets"
CREDENTIALS_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
CREDENTIALS_PURPOSE = b"manifest\x00"
OFFSET_BYTES = 8

Data = bytes | bytearray | memoryview


@dataclass
class Embedded:
    """What a file carries besides its image, as bytes.

    `xmp`: packets; `texts`: keyword and value of PNG's text chunks; `photoshop`: image resource
    blocks, which hold IPTC; `credentials`: C2PA's manifest store, a JUMBF box.
    """

    xmp: list[bytes] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    photoshop: bytes = b""
    credentials: bytes = b""


def find_embedded(data: Data) -> Embedded:
    """Return the metadata of an image file. Never raises for what the bytes hold."""
    found = Embedded()
    view = memoryview(data)
    start = bytes(view[:16])
    try:
        if start.startswith(JPEG_START):
            _read_jpeg(view, found)
        elif start.startswith(PNG_START):
            _read_png(view, found)
        elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            _read_webp(view, found)
        elif start.startswith(b"GIF8"):
            _read_packet(data, found)
            _read_gif(data, found)
        elif start[4:8] == b"ftyp":
            _read_packet(data, found)
            _read_bmff(view, found)
    except (struct.error, IndexError, zlib.error):
        pass  # what came before the damage counts
    return found


def _read_jpeg(view: memoryview, found: Embedded) -> None:
    extensions: list[bytes] = []
    boxes: list[bytes] = []
    try:
        for start, segment in _jpeg_segments(view):
            content = segment.removeprefix(start)
            if start == XMP_SEGMENT:
                found.xmp.append(content)
            elif start == XMP_EXTENSION:
                extensions.append(content)
            elif start == JUMBF_SEGMENT:
                boxes.append(content)
            elif len(found.photoshop) < MAX_PHOTOSHOP_BYTES:
                found.photoshop += content
    finally:
        _join_extensions(extensions, found)
        _join_boxes(boxes, found)


def _jpeg_segments(view: memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Yield the application segments that are read, each after the bytes that it starts with."""
    position = len(JPEG_START)
    for _ in range(MAX_PARTS):
        if view[position] != 0xFF:  # decoders skip what stands between segments
            position += 1
            continue
        marker = view[position + 1]
        if marker in ENTROPY_CODED:
            return
        if marker == 0xFF:
            position += 1
            continue
        position += 2
        if marker in ALONE or marker == 0:
            continue
        (length,) = struct.unpack_from(">H", view, position)
        content = view[position + 2 : position + length]
        for start in SEGMENT_STARTS.get(marker, ()):
            if content[: len(start)] == start:
                yield start, bytes(content)
        position += max(length, 2)


def _join_extensions(contents: list[bytes], found: Embedded) -> None:
    """Add the XMP that did not fit into one segment, as far as it has no gap.

    Each content has a digest, the whole length, an offset and a part.
    """
    head = XMP_DIGEST_BYTES + 8
    parts = []
    for content in contents:
        if len(content) < head:
            continue
        _total, offset = struct.unpack_from(">II", content, XMP_DIGEST_BYTES)
        parts.append((offset, content[head:]))
    parts.sort()
    packet = b""
    for offset, part in parts:
        if offset == len(packet) < MAX_XMP_BYTES:
            packet += part
    if packet:
        found.xmp.append(packet)


def _join_boxes(contents: list[bytes], found: Embedded) -> None:
    """Join the JUMBF boxes.

    Each content has the number of its box, its own number, the head of the box and a part.
    """
    head = 6
    parts = []
    for content in contents:
        if len(content) < head:
            continue
        box, number = struct.unpack_from(">HI", content)
        parts.append((box, number, content[head:]))
    parts.sort()
    pieces: list[bytes] = []
    last_box = None
    for box, _number, content in parts:
        piece = content[BOX_HEAD_BYTES:] if box == last_box else content
        pieces.append(piece)
        last_box = box
    found.credentials = b"".join(pieces)


def _read_png(view: memoryview, found: Embedded) -> None:
    position = len(PNG_START)
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", view, position)
        start = position + 8
        end = start + length
        if kind in PNG_TEXTS:
            _read_png_text(kind, bytes(view[start:end]), found)
        elif kind == b"caBX":
            found.credentials = bytes(view[start:end])
        position = end + CHECKSUM_BYTES


def bare_png(png: bytes) -> bytes:
    """Return a PNG with the chunks alone that its pixels and colors need.

    A capital first letter names a chunk that no decoder may pass over
    (https://www.w3.org/TR/png-3/#5Chunk-naming-conventions). What follows damage stays out.
    """
    kept = [PNG_START]
    position = len(PNG_START)
    while position + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        end = position + 8 + length + CHECKSUM_BYTES
        if kind[:1].isupper() or kind in PNG_COLORS:
            kept.append(png[position:end])
        position = end
    return b"".join(kept)


def _read_png_text(kind: bytes, chunk: bytes, found: Embedded) -> None:
    keyword, _, rest = chunk.partition(b"\x00")
    is_xmp = keyword == XMP_KEYWORD
    limit = MAX_XMP_BYTES if is_xmp else MAX_TEXT_BYTES
    is_compressed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]  # the method, of which there is one
    elif kind == b"iTXt":
        is_compressed = rest[:1] == b"\x01"
        _language, _, rest = rest[2:].partition(b"\x00")
        _translated, _, rest = rest.partition(b"\x00")
    if is_compressed:
        try:
            rest = zlib.decompressobj().decompress(rest, limit)
        except zlib.error:
            return
    if is_xmp:
        found.xmp.append(rest)
    elif len(found.texts) < MAX_TEXTS:
        encoding = "utf-8" if kind == b"iTXt" else "latin-1"
        text = rest[:limit].decode(encoding, "replace")
        found.texts.append((keyword.decode("latin-1"), text))


def _read_webp(view: memoryview, found: Embedded) -> None:
    position = 12
    for _ in range(MAX_PARTS):
        kind, length = struct.unpack_from("<4sI", view, position)
        start = position + 8
        end = start + length
        if kind == b"XMP ":
            found.xmp.append(bytes(view[start:end]))
        elif kind == b"C2PA":
            found.credentials = bytes(view[start:end])
        position = end + length % 2


def _read_packet(data: Data, found: Embedded) -> None:
    """Find an XMP packet that stands in one piece."""
    whole = data if isinstance(data, bytes | bytearray) else bytes(data)
    start = whole.find(XMP_FIRST)
    if start < 0:
        return
    end = whole.find(XMP_LAST, start, start + MAX_XMP_BYTES)
    if end >= 0:
        end += len(XMP_LAST)
        found.xmp.append(bytes(whole[start:end]))


def _read_gif(data: Data, found: Embedded) -> None:
    """Join the manifest from blocks of at most 255 bytes, each after its length."""
    whole = bytes(data)
    start = whole.find(GIF_CREDENTIALS)
    if start < 0:
        return
    position = start + len(GIF_CREDENTIALS)
    pieces: list[bytes] = []
    while length := whole[position]:
        pieces.append(whole[position + 1 : position + 1 + length])
        position += 1 + length
    found.credentials = b"".join(pieces)


def _read_bmff(view: memoryview, found: Embedded) -> None:
    """Find the manifest among the boxes of an AVIF file."""
    position = 0
    while position < len(view):
        length, kind = struct.unpack_from(">I4s", view, position)
        head = BOX_HEAD_BYTES
        if length == 1:
            (length,) = struct.unpack_from(">Q", view, position + BOX_HEAD_BYTES)
            head += 8
        if length < head:
            return
        start = position + head
        if kind == b"uuid" and view[start : start + 16] == CREDENTIALS_BOX:
            content = bytes(view[start + 16 + 4 : position + length])  # after version and flags
            if content.startswith(CREDENTIALS_PURPOSE):
                skipped = len(CREDENTIALS_PURPOSE) + OFFSET_BYTES
                found.credentials = content[skipped:]
        position += length
