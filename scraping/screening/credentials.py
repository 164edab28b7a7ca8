"""Read what a C2PA manifest asserts: a walk through JUMBF boxes (ISO 19566-5) with CBOR or JSON.

Signatures are not verified, and nothing is asked of any network: a reservation counts whether or
not one trusts who signed it, and a manifest that no longer fits its picture still tells where the
picture comes from. c2pa's own library fetches remote manifests unless told otherwise, refuses
manifests that are damaged elsewhere and weighs 55 MB, so that it serves as the tests' oracle only.
https://spec.c2pa.org/specifications/specifications/2.2/specs/C2PA_Specification.html#_use_of_jumbf
"""

import json
import re
import struct
from collections.abc import Iterator
from typing import Any

import cbor2

MAX_DEPTH = 8  # store, manifest, assertion store, assertion are 4
MAX_BOXES = 5000
MAX_ASSERTION_BYTES = 1 << 18
LABEL_FOLLOWS = 2  # of the toggles in a description box
LABEL_OFFSET = 17  # after a UUID and the toggles
MAX_LABEL_BYTES = 256
MAX_CBOR_DEPTH = 32
VERSION = re.compile(r"(?:\.v\d+)?(?:__\d+)?$")


def assertions(store: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield label and content of the assertions of all manifests in a store, oldest first.

    The manifests of what an image was made from count as well. Labels are without version and
    instance: `c2pa.actions` for `c2pa.actions.v2__1`. What is damaged is left out.
    """
    for label, kind, content in _content_boxes(memoryview(store)):
        if len(content) > MAX_ASSERTION_BYTES:
            continue
        value = _decoded(kind, bytes(content))
        if isinstance(value, dict):
            yield VERSION.sub("", label), value


def _decoded(kind: bytes, content: bytes) -> object:
    """Return what a box of CBOR or JSON holds, None where it is damaged."""
    try:
        if kind == b"json":
            return json.loads(content)
        return cbor2.loads(content, max_depth=MAX_CBOR_DEPTH, str_errors="replace")
    except Exception:  # decoders fed with hostile bytes
        return None


def _content_boxes(store: memoryview) -> Iterator[tuple[str, bytes, memoryview]]:
    """Yield label, type and content of each box of CBOR or JSON, in the order of the file."""
    waiting: list[tuple[memoryview, str, int]] = [(store, "", 0)]  # boxes, their label, depth
    boxes = 0
    while waiting:
        view, label, depth = waiting.pop()
        inner: list[memoryview] = []
        for kind, content in _boxes(view):
            boxes += 1
            if boxes > MAX_BOXES:
                return
            if kind == b"jumd":
                label = _label(content)
            elif kind == b"jumb" and depth < MAX_DEPTH:
                inner.append(content)
            elif kind in (b"cbor", b"json"):
                yield label, kind, content
        waiting += [(content, "", depth + 1) for content in reversed(inner)]


def _boxes(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield type and content of the boxes in a row; the last may be cut off."""
    position = 0
    while position + 8 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, position)
        head = 8
        if length == 1 and position + 16 <= len(view):
            (length,) = struct.unpack_from(">Q", view, position + 8)
            head = 16
        if length == 0:  # to the end
            length = len(view) - position
        if length < head:
            return
        end = position + length
        yield kind, view[position + head : end]
        position = end


def _label(description: memoryview) -> str:
    """Return the label in a description box: after a UUID and toggles, up to a zero byte."""
    content = bytes(description[: LABEL_OFFSET + MAX_LABEL_BYTES])
    if len(content) < LABEL_OFFSET:
        return ""
    toggles = content[LABEL_OFFSET - 1]
    if not toggles & LABEL_FOLLOWS:
        return ""
    label, _, _ = content[LABEL_OFFSET:].partition(b"\x00")
    return label.decode("utf-8", "replace")
