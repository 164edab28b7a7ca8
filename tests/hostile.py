"""What strangers send: texts, numbers, JSON, forms and bytes that nobody means.

The tests of this kind (`test_fuzz.py`) are the same each time, and together take about two minutes.
With FUZZ_TIMES=20 in the environment each tries twenty times as much, other things each time.
"""

import json
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote_from_bytes

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]

TEXTS = [
    "", " ", "\x00", "a\x00b", "\ud83d", "x\udfff\ud800", "x" * 20_000, "\u202e\u2066", "\u2028",
    "\r\nSet-Cookie: a=b", "../../etc/passwd", "<script>", "'; DROP TABLE x;--", "{{ 7|add:7 }}",
    "%s%n%", "cat", "dog", "Cat", " cat ", "\ufeff", "e\u0301", "🐶", "a@b", "ada@example.org",
    "on", "true", "null", "[]", "{}", "c001", "kept", "remove", "relabel", "http://[", "http://\x00",
    "http://127.0.0.1:1/", "//", "\\", "CON", "K",
]  # fmt: skip
NUMBERS = [
    "0", "-1", "1", "2", "3", "20", "500", "1e9", "1_0", "+1", "0x10", "²", "٣", "NaN", "-inf",
    "9" * 18, "9" * 19, str(2**63), str(2**31), str(10**20), "9" * 5000, "0" * 5000 + "1", "1.5",
]  # fmt: skip


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Return the decorator for a test with so many examples."""
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        suppress_health_check=QUIET,
        database=None,
    )


def texts() -> st.SearchStrategy[str]:
    """Return texts, among them what no file, database or header holds."""
    return st.sampled_from(TEXTS) | st.sampled_from(NUMBERS) | st.text(st.characters(), max_size=30)


def encoded(text: str) -> bytes:
    """Return a text in UTF-8, half an emoji as the three bytes that it would have."""
    return text.encode("utf-8", "surrogatepass")


def pairs(
    names: list[str], ordinary: Mapping[str, list[str]] = MappingProxyType({})
) -> st.SearchStrategy[list[tuple[str, bytes]]]:
    """Return the fields of a form: any of these names, some repeated, with any content.

    `ordinary` has what people send, by name; half of those fields have that.
    """
    content = texts().map(encoded) | st.binary(max_size=12)
    field = st.tuples(st.sampled_from(names) | st.sampled_from(["", "\x00", "classes[]"]), content)
    known = [(name, encoded(text)) for name, texts in ordinary.items() for text in texts]
    if known:
        field = field | st.sampled_from(known)
    return st.lists(field, max_size=12)


def urlencoded(fields: list[tuple[str, bytes]]) -> bytes:
    """Return a form as browsers send it without files."""
    parts = []
    for name, content in fields:
        parts.append(f"{quote_from_bytes(encoded(name))}={quote_from_bytes(content)}")
    return "&".join(parts).encode()


def multipart(fields: list[tuple[str, bytes]], boundary: bytes = b"limit") -> bytes:
    """Return a form with files; every second field is one."""
    body = b""
    for number, (name, content) in enumerate(fields):
        plain = encoded(name).replace(b"\r\n", b"").replace(b'"', b"%22")
        header = b'Content-Disposition: form-data; name="%s"' % plain
        if number % 2:
            header += b'; filename="a.zip"\r\nContent-Type: image/png'
        body += b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary, header, content)
    return body + b"--%s--\r\n" % boundary


MULTIPART = [
    "multipart/form-data; boundary=limit",
    "multipart/form-data; boundary=limit; charset=utf-16",
    "multipart/form-data; boundary=limit; charset=klingon",
    "multipart/form-data; boundary=" + "x" * 300,
    "multipart/form-data; boundary=\u00e9",
    "multipart/form-data",
    "Multipart/Form-Data; boundary=",
    "multipart/mixed; boundary=limit",
]
FORM_TYPES = [
    "application/x-www-form-urlencoded",
    "application/x-www-form-urlencoded; charset=latin-1",
    "application/x-www-form-urlencoded; charset=utf-7",
    "application/json",
    "text/plain",
    "",
    "x" * 5000,
]


@st.composite
def bodies(
    draw: st.DrawFn, names: list[str], ordinary: Mapping[str, list[str]] = MappingProxyType({})
) -> tuple[bytes, str]:
    """Return the body and the type of a form, now and then damaged; see `pairs`."""
    fields = draw(pairs(names, ordinary))
    if draw(st.booleans()):
        body = urlencoded(fields)
        kind = draw(st.sampled_from([FORM_TYPES[0], *FORM_TYPES]))
    else:
        body = multipart(fields)
        kind = draw(st.sampled_from([MULTIPART[0], *MULTIPART]))
    if draw(st.integers(0, 5)) == 0:
        body = damaged(draw, body)
    return body, kind


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Return bytes with some changed, repeated, left out, or cut off."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 5))):
        if not changed:
            break
        at = draw(st.integers(0, len(changed) - 1))
        what = draw(st.integers(0, 4))
        if what == 0:
            changed[at] = draw(st.integers(0, 255))
        elif what == 1:
            changed[at:at] = draw(st.binary(max_size=6))
        elif what == 2:
            del changed[at : at + draw(st.integers(1, 40))]
        elif what == 3:
            changed[at : at + 4] = draw(
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
            )
        else:
            del changed[at:]
    return bytes(changed)


ODD_JSON = [
    "null", "true", "NaN", "-Infinity", "1e999", str(10**20), "9" * 5000, "-0.0", '"\\ud83d"',
    '"a\\u0000b"', '"' + "x" * 20_000 + '"', "[]", "{}", "[[]]", '{"a":1,"a":2}', '["\\udfff"]',
    "[" * 2000 + "]" * 2000, '{"a":' * 500 + "1" + "}" * 500, '"2"', "2", "1.5", '"cat"',
]  # fmt: skip


def json_documents(names: list[str]) -> st.SearchStrategy[bytes]:
    """Return JSON objects with these names, some twice, and with what JSON can hold of oddities."""
    plain = st.recursive(
        st.none() | st.booleans() | st.integers() | texts(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
        max_leaves=5,
    )
    value = st.sampled_from(ODD_JSON) | plain.map(json.dumps)
    member = st.tuples(st.sampled_from(names), value)

    def written(members: list[tuple[str, str]]) -> bytes:
        inside = ",".join(f"{json.dumps(name)}:{value}" for name, value in members)
        return f"{{{inside}}}".encode("utf-8", "surrogatepass")

    whole = st.lists(member, max_size=8).map(written)
    return whole | st.sampled_from(ODD_JSON).map(str.encode) | st.binary(max_size=20)


HOSTILE_VALUES: list[Any] = [
    None, True, -1, 0, 10**20, 10**400, 2**63, 1.5, "", "x" * 20_000, "\ud83d", "a\x00b",
    "9" * 5000, "http://[", "http://a.example/\ud83d", "//", [], {}, [[]], [None], {"a": None},
]  # fmt: skip


def changed_json(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with one to three of its parts replaced, or without them."""
    for _ in range(draw(st.integers(1, 3))):
        value = _changed_once(draw, value)
    return value


def _changed_once(draw: st.DrawFn, value: Any) -> Any:
    is_parent = isinstance(value, dict | list) and len(value)
    if not is_parent or draw(st.integers(0, 7)) == 0:
        other = draw(st.sampled_from(HOSTILE_VALUES))
        return nested(60) if other == {"a": None} else other
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    changed = value.copy()
    if draw(st.integers(0, 9)) == 0:
        del changed[key]
    else:
        changed[key] = _changed_once(draw, value[key])
    return changed


def nested(depth: int) -> list[Any]:
    """Return lists within lists."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found
