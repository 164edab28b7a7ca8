"""Read the properties of an XMP packet (ISO 16684-1), as far as it is well-formed.

Properties are known by their usual prefix and name, `dc:creator`, whatever prefix the packet
chooses. A value is what stands next to it: the text of an element or of its list items, or an
attribute. Document types and entities end the reading, and so do depth and number.
"""

import contextlib
from collections.abc import Mapping
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

Properties = dict[str, list[str]]
"""Values by prefix and name."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_ELEMENTS = 10_000
MAX_VALUES = 32  # of one property
MAX_VALUE_CHARACTERS = 8192
PREFIXES: Mapping[str, str] = {
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://purl.org/dc/terms/": "dcterms",
    "http://creativecommons.org/ns#": "cc",
    "http://web.resource.org/cc/": "cc",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/xap/1.0/rights/": "xmpRights",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.useplus.org/ldf/xmp/1.0/": "plus",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
    "http://www.w3.org/ns/tdmrep/": "tdm",
    "http://www.w3.org/ns/tdmrep#": "tdm",
    "http://www.w3.org/ns/tdmrep": "tdm",
    "http://www.tc260.org.cn/ns/AIGC/1.0/": "TC260",
}
PADDING = b"\x00 \r\n\t"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
RESOURCE = f"{RDF}resource"
# What an image was made from is described in here, with creators and rights of its own.
MEDIA_MANAGEMENT = "{http://ns.adobe.com/xap/1.0/mm/}"


class _Enough(Exception):
    """The packet is deeper or longer than any that is meant."""


FAULTS = (ParseError, DefusedXmlException, _Enough, ValueError, LookupError)


class _Reader:
    """Takes the events of the parser and keeps the values."""

    def __init__(self) -> None:
        self.properties: Properties = {}
        self._names: list[str] = []  # of the open elements, each as its property
        self._texts: list[str] = []
        self._elements = 0
        self._skipped_depth = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Open an element and keep its attributes."""
        self._elements += 1
        if self._elements > MAX_ELEMENTS or len(self._names) >= MAX_DEPTH:
            raise _Enough
        if self._skipped_depth or tag.startswith(MEDIA_MANAGEMENT):
            self._skipped_depth += 1
        name = _property(tag)
        if not name and tag.startswith(RDF) and self._names:
            name = self._names[-1]  # a list and its items belong to the property around them
        self._names.append(name)
        self._texts = []
        for key, value in attributes.items():
            stated = name if key == RESOURCE else _property(key)
            self._keep(stated, value)

    def data(self, text: str) -> None:
        """Take a part of a text."""
        self._texts.append(text)

    def end(self, _tag: str) -> None:
        """Close an element and keep its text."""
        name = self._names.pop()
        text = "".join(self._texts)
        self._keep(name, text)
        self._texts = []
        if self._skipped_depth:
            self._skipped_depth -= 1

    def close(self) -> Properties:
        """Return what was found."""
        return self.properties

    def _keep(self, name: str, value: str) -> None:
        value = value[:MAX_VALUE_CHARACTERS].strip()
        if not name or not value or self._skipped_depth:
            return
        values = self.properties.setdefault(name, [])
        if len(values) < MAX_VALUES and value not in values:
            values.append(value)


def _property(tag: str) -> str:
    """Return prefix and name of a `{namespace}name`, empty for what is not read."""
    namespace, _, name = tag.rpartition("}")
    prefix = PREFIXES.get(namespace[1:])
    if prefix is None:
        return ""
    return f"{prefix}:{name}"


def read_xmp(packet: bytes) -> Properties:
    """Return the properties of a packet. Never raises for what it holds."""
    reader = _Reader()
    parser = DefusedXMLParser(target=reader, forbid_dtd=True)
    with contextlib.suppress(*FAULTS):  # what came before counts
        parser.feed(packet[:MAX_BYTES].strip(PADDING))
    return reader.properties
