"""Read what an image file says of itself: whose it is, on what terms, and whether AI made it.

Read are XMP, IPTC-IIM, Exif, the text chunks of PNG and C2PA manifests. All of it is written by
strangers: what is damaged says nothing, the rest counts, and nothing but a `Marks` leaves this
module. No signature is verified: whoever reserves a use need not prove who they are, and whoever
admits to having used AI hardly lies.

A reservation is any mark that excludes data mining or the training of models:

- PLUS `DataMining` (IPTC Photo Metadata Standard 2023.1), each value that begins with
  `DMI-PROHIBITED`: http://ns.useplus.org/ldf/vocab/.
- TDMRep's `tdm-reservation: 1`, in XMP `tdm:reservation`: https://www.w3.org/community/reports/tdmrep/.
- The training and data mining assertion of C2PA 1.x and of CAWG, with `data_mining`, `ai_training`
  or `ai_generative_training` `notAllowed` or `constrained`: https://cawg.io/training-and-data-mining/.

What is reserved for generative models alone counts too: the dataset is handed on, and whoever has
it may train any model. `ai_inference` alone does not count: it is about asking a finished model
about an image.

AI-made are images whose digital source type (https://cv.iptc.org/newscodes/digitalsourcetype) is
one of `AI_SOURCE_TYPES`, which name an AI system, have the label of the Chinese standard
GB 45438-2025, or hold what generators write into their files.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from PIL import Image

from scraping.outside import clean_text, page_address
from scraping.screening.credentials import assertions
from scraping.screening.embedded import Data, Embedded, find_embedded
from scraping.screening.xmp import MAX_VALUES, Properties, read_xmp

CREATOR_CHARACTERS = 1000
RIGHTS_CHARACTERS = 1000
MAX_CREATORS = 5
MAX_TERMS = 8

# Where each is looked for, the best first.
CREATORS = (
    "dc:creator",
    "iptc:byline",
    "exif:artist",
    "tiff:Artist",
    "cc:attributionName",
    "dcterms:creator",
    "png:author",
)
RIGHTS = (
    "dc:rights",
    "iptc:copyright",
    "exif:copyright",
    "tiff:Copyright",
    "dcterms:rights",
    "plus:CopyrightOwnerName",
    "png:copyright",
)
LICENSE_ADDRESSES = (
    "cc:license",
    "dcterms:license",
    "xmpRights:WebStatement",
    "plus:TermsAndConditionsURL",
)
TERMS = (*LICENSE_ADDRESSES, "xmpRights:UsageTerms", "plus:TermsAndConditionsText", *RIGHTS)
DESCRIPTIONS = ("exif:comment", "exif:description", "png:description", "dc:description")
SOFTWARE = (
    "xmp:CreatorTool",
    "exif:software",
    "tiff:Software",
    "iptc:program",
    "png:software",
    "png:source",
    "photoshop:Credit",
    "iptc:credit",
    "c2pa:agent",
)
AI_LABELS = ("TC260:AIGC", "png:aigc")

PROHIBITED = re.compile(r"DMI-PROHIBITED(?:-[A-Z]+)*")
RESERVED_USES = frozenset({"data_mining", "ai_training", "ai_generative_training"})
RESERVING = frozenset({"notAllowed", "constrained"})
AI_SOURCE_TYPES = frozenset(
    {
        "trainedAlgorithmicMedia",
        "compositeWithTrainedAlgorithmicMedia",  # edited with generative AI
        "compositeSynthetic",  # elements of it are generated
        "trainedAlgorithmicData",  # C2PA's own
    }
)
GENERATORS = re.compile(
    r"\b(?:stable[ -]?diffusion|midjourney|novelai|dall[-·• ]?e\b|comfyui|invokeai"
    r"|fooocus|automatic1111|easy diffusion|draw things|dreamstudio|adobe firefly|swarmui"
    r"|leonardo\.ai|ideogram|made with google ai)",
    re.IGNORECASE,
)
GENERATOR_KEYWORDS = frozenset(  # of PNG's text chunks
    {"invokeai_metadata", "invokeai_graph", "sd-metadata", "fooocus_scheme", "sui_image_params"}
)
STEPS = re.compile(r"\bSteps: ?\d+")  # of the web interfaces for Stable Diffusion
SAMPLING = re.compile(r"\b(?:Sampler|CFG scale|Seed): ?\w")
JOB = re.compile(r"\bJob ID: ?[0-9a-f]{8}-[0-9a-f]{4}-")  # of Midjourney
AI_LABEL = re.compile(r'"Label"\s*:\s*"?1')  # the content is made by AI (GB 45438-2025, annex E)

EXIF_TEXTS: Mapping[int, str] = {
    0x010E: "exif:description",
    0x0131: "exif:software",
    0x013B: "exif:artist",
    0x8298: "exif:copyright",
}
EXIF_DIRECTORY = 0x8769
USER_COMMENT = 0x9286
COMMENT_CODES = {b"UNICODE\x00": "utf-16", b"ASCII\x00\x00\x00": "utf-8", b"\x00" * 8: "utf-8"}
MAX_EXIF_BYTES = 1 << 20

IPTC_BLOCK = 0x0404  # among the image resources of Photoshop
IPTC_TEXTS: Mapping[tuple[int, int], str] = {  # record and data set (IIM 4.2)
    (2, 65): "iptc:program",
    (2, 80): "iptc:byline",
    (2, 110): "iptc:credit",
    (2, 116): "iptc:copyright",
}
IPTC_CHARACTER_SET = (1, 90)
UTF8_ESCAPE = b"\x1b%G"
DATA_SET_START = b"\x1c"
LONGER = 0x8000  # its length follows; nothing that is read here is so long
MAX_DATA_SETS = 1000


@dataclass(frozen=True)
class Marks:
    """What a file says of itself, cleaned and bounded; empty where it says nothing.

    `rights` is the copyright notice. `terms` are the texts and addresses in which a licence may be
    named, the best first. `reservation` and `ai_made` hold the mark that says so.
    """

    creator: str = ""
    rights: str = ""
    terms: tuple[str, ...] = ()
    license_url: str = ""
    reservation: str = ""
    ai_made: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `dataclasses.asdict` made and JSON carried."""
        return cls(**{**values, "terms": tuple(values["terms"])})


NO_MARKS = Marks()


@dataclass
class _Statements:
    """All that was found, before it is weighed."""

    properties: Properties = field(default_factory=dict)
    reservations: list[str] = field(default_factory=list)
    ai_marks: list[str] = field(default_factory=list)

    def add(self, name: str, value: object) -> None:
        """Keep a value of a property, if it is a text."""
        text = clean_text(value)
        values = self.properties.setdefault(name, [])
        if text and len(values) < MAX_VALUES:
            values.append(text)

    def values(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the values of properties, in that order."""
        for name in names:
            yield from self.properties.get(name, ())


def read_marks(data: Data, exif: bytes = b"") -> Marks:
    """Return the marks in the bytes of an image file. Never raises for what they hold.

    `exif` is the Exif block that the image's decoder has found.
    """
    embedded = find_embedded(data)
    if not exif and embedded == Embedded():
        return NO_MARKS
    said = _Statements()
    for packet in embedded.xmp:
        for name, values in read_xmp(packet).items():
            for value in values:
                said.add(name, value)
    _read_iptc(embedded.photoshop, said)
    _read_exif(exif[:MAX_EXIF_BYTES], said)
    _read_png_texts(embedded.texts, said)
    for label, content in assertions(embedded.credentials):
        _read_assertion(label, content, said)
    return _weigh(said)


def _weigh(said: _Statements) -> Marks:
    _weigh_reservations(said)
    _weigh_source(said)
    creators = ", ".join(_first(said, CREATORS)[:MAX_CREATORS])
    rights = [*_first(said, RIGHTS), ""]
    terms = dict.fromkeys(said.values(TERMS))
    addresses = [page_address(text) for text in said.values(LICENSE_ADDRESSES)]
    return Marks(
        creator=clean_text(creators, CREATOR_CHARACTERS),
        rights=clean_text(rights[0], RIGHTS_CHARACTERS),
        terms=tuple(terms)[:MAX_TERMS],
        license_url=next(filter(None, addresses), ""),
        reservation=next(iter(said.reservations), ""),
        ai_made=next(iter(said.ai_marks), ""),
    )


def _first(said: _Statements, names: Iterable[str]) -> list[str]:
    """Return the values of the first property that has any."""
    for name in names:
        values = said.properties.get(name)
        if values:
            return values
    return []


def _weigh_reservations(said: _Statements) -> None:
    for value in said.values(["plus:DataMining"]):
        found = PROHIBITED.search(value)
        if found:
            said.reservations.append(f"its file says {found.group()}")
    if "1" in said.values(["tdm:reservation", "tdm:tdm-reservation"]):
        said.reservations.append("its file says tdm-reservation: 1")


def _weigh_source(said: _Statements) -> None:
    """Note what says that AI made the image."""
    for value in said.values(["Iptc4xmpExt:DigitalSourceType"]):
        _note_source_type(value, said)
    if any(said.values(["Iptc4xmpExt:AISystemUsed"])):
        said.ai_marks.append("its file names the AI system used")
    for value in said.values(AI_LABELS):
        if AI_LABEL.search(value):
            said.ai_marks.append("its file says AIGC")
    for value in said.values(SOFTWARE):
        found = GENERATORS.search(value)
        if found:
            said.ai_marks.append(f"its file says {found.group()}")
    for value in said.values(DESCRIPTIONS):
        is_of_web_interface = STEPS.search(value) and SAMPLING.search(value)
        if is_of_web_interface or JOB.search(value):
            said.ai_marks.append("its file holds the settings of an image generator")


def _note_source_type(value: object, said: _Statements) -> None:
    """Note a digital source type that stands for AI; it may be a URI, a code or the name alone."""
    name = re.split(r"[/:#]", clean_text(value))[-1]
    if name in AI_SOURCE_TYPES:
        said.ai_marks.append(f"its file says {name}")


def _read_assertion(label: str, content: Mapping[str, Any], said: _Statements) -> None:
    """Take what one assertion of a C2PA manifest says."""
    if label.endswith(".training-mining"):
        _read_uses(content.get("entries"), said)
    elif label == "c2pa.actions":
        actions = content.get("actions")
        for action in actions if isinstance(actions, list) else ():
            if isinstance(action, dict):
                _note_source_type(action.get("digitalSourceType"), said)
                agent = action.get("softwareAgent")
                said.add("c2pa:agent", agent.get("name") if isinstance(agent, dict) else agent)
    elif label == "stds.schema-org.CreativeWork":
        authors = content.get("author")
        for author in authors if isinstance(authors, list) else [authors]:
            if isinstance(author, dict):
                said.add("dcterms:creator", author.get("name"))
        said.add("dcterms:rights", content.get("copyrightNotice"))
        said.add("dcterms:license", content.get("license"))
    elif label in ("stds.iptc", "stds.iptc.photo-metadata", "c2pa.metadata", "cawg.metadata"):
        for name, value in content.items():
            for one in _texts_in(value):
                said.add(str(name), one)


def _read_uses(entries: object, said: _Statements) -> None:
    """Note the uses that an assertion about training and data mining reserves."""
    if not isinstance(entries, dict):
        return
    for name, entry in entries.items():
        use = str(name).rpartition(".")[2]
        permission = entry.get("use") if isinstance(entry, dict) else entry
        is_reserving = isinstance(permission, str) and permission in RESERVING
        if use in RESERVED_USES and is_reserving:
            said.reservations.append(f"its file says {use}: {permission}")


def _texts_in(value: object) -> list[object]:
    """Return the texts of a JSON-LD value: one, a list, or a text per language."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _read_png_texts(texts: Iterable[tuple[str, str]], said: _Statements) -> None:
    for keyword, text in texts:
        said.add(f"png:{keyword.lower()}", text)
        if _is_of_generator(keyword, text):
            said.ai_marks.append("its file holds the settings of an image generator")


def _is_of_generator(keyword: str, text: str) -> bool:
    """Return whether a text chunk of a PNG is one that image generators write."""
    if keyword in GENERATOR_KEYWORDS:
        return True
    if keyword == "parameters":
        return bool(STEPS.search(text)) or "sui_image_params" in text
    if keyword == "prompt":  # of ComfyUI: a graph as JSON
        return text.lstrip().startswith("{") and '"class_type"' in text
    if keyword == "workflow":
        return text.lstrip().startswith("{") and '"nodes"' in text
    return keyword == "Title" and text == "NovelAI generated image"


def _read_exif(block: bytes, said: _Statements) -> None:
    if not block:
        return
    exif = Image.Exif()
    try:
        exif.load(block)
        for tag, name in EXIF_TEXTS.items():
            said.add(name, _mended(exif.get(tag)))
        comment = exif.get_ifd(EXIF_DIRECTORY).get(USER_COMMENT)
    except Exception:  # Pillow fed with hostile bytes; what came before counts
        return
    if isinstance(comment, bytes):
        said.add("exif:comment", _comment_text(comment))


def _mended(value: object) -> object:
    """Return a text of Exif; Pillow reads its bytes as Latin-1 where many write UTF-8."""
    if not isinstance(value, str):
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except ValueError:
        return value


def _comment_text(comment: bytes) -> str:
    """Return Exif's user comment; in UTF-16 either byte may come first."""
    encoding = COMMENT_CODES.get(comment[:8])
    if encoding is None:
        return ""
    text = comment[8:]
    if encoding == "utf-16":
        encoding = "utf-16-be" if text[:1] == b"\x00" else "utf-16-le"
    return text.decode(encoding, "replace")


def _read_iptc(blocks: bytes, said: _Statements) -> None:
    encoding = "latin-1"
    for key, value in _iptc_data_sets(_resource(blocks, IPTC_BLOCK)):
        if key == IPTC_CHARACTER_SET and value == UTF8_ESCAPE:
            encoding = "utf-8"
        elif key in IPTC_TEXTS:
            said.add(IPTC_TEXTS[key], _decoded(value, encoding))


def _decoded(value: bytes, encoding: str) -> str:
    """Return a text in the stated encoding, or in UTF-8 where it can be nothing else."""
    try:
        return value.decode("utf-8")
    except ValueError:
        return value.decode(encoding, "replace")


def _resource(blocks: bytes, wanted: int) -> bytes:
    """Return one of Photoshop's image resource blocks; each has a type, a name and a size."""
    stream = io.BytesIO(blocks)
    while stream.read(4) == b"8BIM":
        code = _number(stream.read(2))
        name_length = _number(stream.read(1))
        stream.seek(name_length + (name_length + 1) % 2, io.SEEK_CUR)
        size = _number(stream.read(4))
        content = stream.read(size)
        if code == wanted:
            return content
        stream.seek(size % 2, io.SEEK_CUR)
    return b""


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _iptc_data_sets(block: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield record, number and value of each data set (IIM 4.2, section 1.5)."""
    stream = io.BytesIO(block)
    for _ in range(MAX_DATA_SETS):
        if stream.read(1) != DATA_SET_START:
            return
        record = _number(stream.read(1))
        number = _number(stream.read(1))
        size = _number(stream.read(2))
        if size & LONGER:
            return
        yield (record, number), stream.read(size)
