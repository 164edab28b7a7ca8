"""What image files say of themselves: whose they are, what is reserved, and what AI made."""

import io
import struct
import zlib

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scraping.reasons import Reason
from scraping.screening.credentials import assertions
from scraping.screening.embedded import find_embedded
from scraping.screening.marks import Marks, read_marks
from scraping.screening.screen import CleanImage, Rejection, ScreenSettings, screen
from scraping.screening.xmp import read_xmp
from tests.replicas.marked_pictures import (
    AI_MADE,
    CC_BY,
    NO_TRAINING,
    SOURCE_TYPES,
    listed,
    manifest_of,
    marked,
    photoshop_segment,
    png_with_texts,
    reserving,
    segment,
    signed,
    with_segments,
    xmp,
)
from tests.replicas.pictures import encoded, jpeg, picture

SMALL = ScreenSettings(min_side=32, max_side=256)
KEEPING = ScreenSettings(min_side=32, max_side=256, ai_made="keep")
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF")
FORMATS_WITH_MANIFESTS = (*FORMATS, "GIF")
VOCABULARY = "http://ns.useplus.org/ldf/vocab/"


def rejection(data: bytes, settings: ScreenSettings = SMALL) -> Rejection:
    answer = screen(data, settings)
    assert isinstance(answer, Rejection), answer.marks
    return answer


def kept(data: bytes, settings: ScreenSettings = SMALL) -> CleanImage:
    answer = screen(data, settings)
    assert isinstance(answer, CleanImage), answer
    return answer


def with_packet(packet: bytes, kind: str = "JPEG") -> bytes:
    if kind == "PNG":
        info = b"XML:com.adobe.xmp\0\0\0\0\0" + packet
        plain = encoded(picture(1), "PNG")
        chunk = struct.pack(">I", len(info)) + b"iTXt" + info
        chunk += struct.pack(">I", zlib.crc32(b"iTXt" + info))
        return plain[:33] + chunk + plain[33:]
    if kind == "GIF":
        plain = encoded(picture(1), "GIF")
        trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"
        return plain[:-1] + b"\x21\xff\x0bXMP DataXMP" + packet + trailer + b"\x3b"
    return encoded(picture(1), kind, xmp=packet)


@pytest.mark.parametrize("kind", [*FORMATS, "GIF"])
def test_a_reservation_in_xmp_is_read_in_every_format(kind):
    answer = rejection(with_packet(xmp(plus__DataMining=NO_TRAINING), kind))
    assert answer.reason is Reason.OPTED_OUT
    assert answer.detail == "its file says DMI-PROHIBITED-AIMLTRAINING"


@pytest.mark.parametrize(
    ("packet", "is_reserved"),
    [
        (xmp(plus__DataMining=f"{VOCABULARY}DMI-PROHIBITED"), True),
        (xmp(plus__DataMining="DMI-PROHIBITED-AIMLTRAINING"), True),
        (xmp(plus__DataMining=f"{VOCABULARY}DMI-PROHIBITED-GENAIMLTRAINING"), True),
        (xmp(plus__DataMining=f"{VOCABULARY}DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING"), True),
        (xmp(plus__DataMining=f"{VOCABULARY}DMI-PROHIBITED-SEECONSTRAINT"), True),
        (xmp(f"<plus:DataMining>{NO_TRAINING}</plus:DataMining>"), True),
        (xmp(f'<plus:DataMining rdf:resource="{NO_TRAINING}"/>'), True),
        (xmp(listed("plus:DataMining", NO_TRAINING)), True),
        (xmp("<tdm:reservation>1</tdm:reservation>"), True),
        (xmp(tdm__reservation="1"), True),
        (xmp(plus__DataMining=NO_TRAINING).replace(b"plus:", b"anything:"), False),
        (xmp(plus__DataMining=NO_TRAINING).replace(b"plus", b"any"), False),
        (xmp(plus__DataMining=f"{VOCABULARY}DMI-ALLOWED"), False),
        (xmp(plus__DataMining=f"{VOCABULARY}DMI-UNSPECIFIED"), False),
        (xmp(tdm__reservation="0"), False),
        (xmp(dc__description="DMI-PROHIBITED"), False),
    ],
)
def test_what_reserves_and_what_does_not(packet, is_reserved):
    assert bool(read_marks(with_packet(packet)).reservation) is is_reserved


def test_the_prefix_of_a_namespace_does_not_matter():
    packet = xmp(plus__DataMining=NO_TRAINING)
    packet = packet.replace(b"xmlns:plus", b"xmlns:p").replace(b"plus:DataMining", b"p:DataMining")
    assert read_marks(with_packet(packet)).reservation


@pytest.mark.parametrize("kind", FORMATS_WITH_MANIFESTS)
def test_a_signed_reservation_is_read_in_every_format(kind):
    mime = f"image/{kind.lower()}"
    data = signed(encoded(picture(1), kind), mime, {"cawg.training-mining": reserving()})
    manifest = manifest_of(data, mime)
    active = manifest["manifests"][manifest["active_manifest"]]
    assert manifest["validation_state"] == "Valid"
    assert "cawg.training-mining" in [each["label"] for each in active["assertions"]]
    assert rejection(data) == Rejection(Reason.OPTED_OUT, "its file says ai_training: notAllowed")


@pytest.mark.parametrize(
    ("label", "use", "name", "is_reserved"),
    [
        ("c2pa.training-mining", "notAllowed", "c2pa.ai_training", True),
        ("c2pa.training-mining", "notAllowed", "c2pa.ai_generative_training", True),
        ("c2pa.training-mining", "notAllowed", "c2pa.data_mining", True),
        ("cawg.training-mining", "constrained", "cawg.ai_training", True),
        ("cawg.training-mining", "allowed", "cawg.ai_training", False),
        ("cawg.training-mining", "notAllowed", "cawg.ai_inference", False),
    ],
)
def test_which_uses_are_reserved_by_a_manifest(label, use, name, is_reserved):
    data = signed(jpeg(1), "image/jpeg", {label: reserving(use, name)})
    assert bool(read_marks(data).reservation) is is_reserved


def test_a_manifest_counts_whether_or_not_its_signature_fits():
    data = signed(jpeg(1), "image/jpeg", {"cawg.training-mining": reserving()})
    changed = data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]
    assert manifest_of(changed, "image/jpeg")["validation_state"] == "Invalid"
    assert rejection(changed).reason is Reason.OPTED_OUT


def test_a_manifest_names_the_creator():
    work = {
        "@context": "https://schema.org",
        "@type": "CreativeWork",
        "author": [{"@type": "Person", "name": "Ada Example"}],
    }
    data = signed(jpeg(1), "image/jpeg", {"stds.schema-org.CreativeWork": work})
    assert kept(data).marks.creator == "Ada Example"


AI_FILES = {
    "XMP": marked(1, Iptc4xmpExt__DigitalSourceType=AI_MADE),
    "edited with AI": marked(
        1, Iptc4xmpExt__DigitalSourceType=f"{SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"
    ),
    "a bare code": marked(1, Iptc4xmpExt__DigitalSourceType="trainedAlgorithmicMedia"),
    "the AI system": marked(1, Iptc4xmpExt__AISystemUsed="Some Model 3"),
    "credit": marked(1, photoshop__Credit="Made with Google AI"),
    "a label of China": marked(1, TC260__AIGC="{&quot;Label&quot;:&quot;1&quot;}"),
    "a web interface": png_with_texts(
        picture(1), parameters="a cat\nSteps: 20, Sampler: Euler a, Seed: 1"
    ),
    "ComfyUI's prompt": png_with_texts(picture(1), prompt='{"3": {"class_type": "KSampler"}}'),
    "ComfyUI's workflow": png_with_texts(picture(1), workflow='{"last_node_id": 9, "nodes": []}'),
    "NovelAI": png_with_texts(picture(1), Software="NovelAI"),
    "InvokeAI": png_with_texts(picture(1), invokeai_metadata="{}"),
}


@pytest.mark.parametrize("name", AI_FILES)
def test_what_says_that_ai_made_it_is_left_out_or_kept_with_its_mark(name):
    answer = rejection(AI_FILES[name])
    assert answer.reason is Reason.AI_MADE and answer.detail.startswith("its file ")
    assert kept(AI_FILES[name], KEEPING).marks.ai_made == answer.detail


@pytest.mark.parametrize("agent", ["DALL·E", {"name": "DALL-E 3"}])
def test_a_manifest_that_names_a_generator(agent):
    store = assertion("c2pa.actions", cbor2.dumps({"actions": [{"softwareAgent": agent}]}))
    assert rejection(with_store(store)).reason is Reason.AI_MADE


def test_exif_of_a_generator_is_read():
    exif = Image.Exif()
    exif[0x0131] = "Stable Diffusion"
    assert rejection(encoded(picture(1), "JPEG", exif=exif)).reason is Reason.AI_MADE
    settings_of_image = "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
    for code, encoding in ((b"UNICODE\0", "utf-16-be"), (b"ASCII\0\0\0", "ascii")):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = code + settings_of_image.encode(encoding)
        assert rejection(encoded(picture(1), "WEBP", exif=exif)).reason is Reason.AI_MADE


@pytest.mark.parametrize("kind", FORMATS_WITH_MANIFESTS)
def test_a_manifest_that_says_how_the_image_was_made(kind):
    plain = encoded(picture(1), kind)
    made = signed(plain, f"image/{kind.lower()}", {}, AI_MADE)
    assert rejection(made) == Rejection(Reason.AI_MADE, "its file says trainedAlgorithmicMedia")
    assert kept(signed(plain, f"image/{kind.lower()}", {})).marks == Marks()


@pytest.mark.parametrize(
    "data",
    [
        marked(1, Iptc4xmpExt__DigitalSourceType=f"{SOURCE_TYPES}digitalCapture"),
        marked(1, Iptc4xmpExt__DigitalSourceType=f"{SOURCE_TYPES}algorithmicMedia"),
        marked(1, dc__description="Steps: 20 of the Spanish Steps"),
        marked(1, xmp__CreatorTool="Adobe Photoshop 26.0"),
        png_with_texts(picture(1), Software="GIMP", prompt="a cat", workflow="ours"),
        png_with_texts(picture(1), parameters="f/8, 1/250 s", Title="Midjourney and I"),
    ],
)
def test_what_photographers_write_is_no_mark_of_ai(data):
    assert kept(data).marks.ai_made == ""


def test_a_reservation_weighs_more_than_the_setting_that_keeps_ai():
    data = marked(1, plus__DataMining=NO_TRAINING, Iptc4xmpExt__DigitalSourceType=AI_MADE)
    assert rejection(data, KEEPING).reason is Reason.OPTED_OUT


def test_creator_rights_and_licence_are_read_from_xmp():
    content = listed("dc:creator", "Ada Example", "Bob Example")
    content += listed("dc:rights", "© 2020 Ada Example", kind="Alt")
    content += f'<cc:license rdf:resource="{CC_BY}"/>'
    content += listed("xmpRights:UsageTerms", "With credit, please", kind="Alt")
    marks = kept(with_packet(xmp(content))).marks
    assert marks.creator == "Ada Example, Bob Example"
    assert marks.rights == "© 2020 Ada Example"
    assert marks.license_url == CC_BY
    assert marks.terms == (CC_BY, "With credit, please", "© 2020 Ada Example")


def test_what_an_image_was_made_from_is_not_its_creator():
    inner = listed("dc:creator", "Somebody Else")
    content = f"<xmpMM:Pantry><rdf:Bag><rdf:li>{inner}</rdf:li></rdf:Bag></xmpMM:Pantry>"
    content += listed("dc:creator", "Ada Example")
    assert read_marks(with_packet(xmp(content))).creator == "Ada Example"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_creator_and_rights_are_read_from_iptc(encoding):
    data = with_segments(
        jpeg(1),
        photoshop_segment(
            (1, 90, b"\x1b%G" if encoding == "utf-8" else b""),
            (2, 80, "Zoë Example".encode(encoding)),
            (2, 116, "© Zoë".encode(encoding)),
        ),
    )
    marks = kept(data).marks
    assert (marks.creator, marks.rights) == ("Zoë Example", "© Zoë")


def test_creator_and_rights_are_read_from_exif():
    exif = Image.Exif()
    exif[0x013B] = "Zoë Example".encode()
    exif[0x8298] = "© Zoë".encode()
    for kind in FORMATS:
        marks = kept(encoded(picture(1), kind, exif=exif)).marks
        assert (marks.creator, marks.rights) == ("Zoë Example", "© Zoë"), kind


def test_creator_and_rights_are_read_from_the_text_chunks_of_a_png():
    marks = kept(png_with_texts(picture(1), Author="Ada", Copyright="© Ada")).marks
    assert (marks.creator, marks.rights) == ("Ada", "© Ada")


def test_xmp_that_did_not_fit_into_one_segment_is_read():
    rest = xmp(plus__DataMining=NO_TRAINING)
    halves = (rest[:200], rest[200:])
    segments = []
    for number, half in enumerate(halves):
        head = struct.pack(">II", len(rest), number * 200)
        content = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + head + half
        segments.append(segment(0xE1, content))
    data = with_segments(marked(1, dc__format="image/jpeg"), *reversed(segments))
    assert rejection(data).reason is Reason.OPTED_OUT


def test_half_a_packet_counts_as_far_as_it_goes():
    content = listed("dc:creator", "Ada Example") + "<broken"
    packet = xmp(content, plus__DataMining=NO_TRAINING)
    marks = read_marks(with_packet(packet))
    assert marks.creator == "Ada Example" and marks.reservation


def test_entities_and_document_types_are_not_expanded():
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    outside = b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]>'
    packet = xmp(listed("dc:creator", "&b;&f;"))
    for start in (bomb, outside):
        assert read_xmp(start + packet) == {}
        assert kept(with_packet(start + packet)).marks == Marks()


def test_depth_number_and_size_of_xmp_are_bounded():
    assert read_xmp(b"<a>" * 100_000) == {}
    many = xmp(listed("dc:creator", *(f"name {number}" for number in range(50_000))))
    marks = read_marks(with_packet(many, "PNG"))
    assert len(marks.creator) <= 1000 and marks.creator.startswith("name 0, name 1")
    assert len(read_xmp(xmp(dc__title="x" * 100_000))["dc:title"][0]) <= 8192


def test_texts_are_one_line_that_can_be_stored():
    content = listed("dc:creator", "A\ndа&#x202E;\u0301" + "x" * 5000)
    creator = read_marks(with_packet(xmp(content))).creator
    assert "\n" not in creator and "\u202e" not in creator and len(creator) <= 1000


def damaged(data: bytes, place: int, change: bytes) -> bytes:
    place %= len(data)
    return data[:place] + change + data[place + len(change) :]


EXAMPLES = [
    with_packet(xmp(listed("dc:creator", "Ada"), plus__DataMining="DMI-ALLOWED")),
    with_packet(xmp(listed("dc:creator", "Ada")), "PNG"),
    with_packet(xmp(listed("dc:creator", "Ada")), "GIF"),
    with_packet(xmp(listed("dc:creator", "Ada")), "WEBP"),
    with_packet(xmp(listed("dc:creator", "Ada")), "AVIF"),
    with_segments(jpeg(1), photoshop_segment((2, 80, b"Ada"))),
    signed(jpeg(1), "image/jpeg", {"cawg.training-mining": reserving("allowed")}),
    signed(encoded(picture(1), "PNG"), "image/png", {}),
    signed(encoded(picture(1), "AVIF"), "image/avif", {}),
]


@settings(max_examples=150, deadline=None)
@given(
    example=st.sampled_from(EXAMPLES),
    place=st.integers(0, 2**16),
    change=st.binary(max_size=12),
    end=st.integers(1, 2**16),
)
def test_no_damage_lets_anything_but_marks_out(example, place, change, end):
    for data in (damaged(example, place, change), example[:end]):
        assert isinstance(read_marks(data), Marks)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300), exif=st.binary(max_size=100))
def test_metadata_of_any_bytes_costs_no_image(content, exif):
    segments = [
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + content),
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + content),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + content),
        segment(0xEB, b"JP" + content),
        segment(0xEB, b"JP\0\1\0\0\0\1" + content),
    ]
    assert isinstance(screen(with_segments(jpeg(1), *segments), KEEPING), CleanImage)
    assert isinstance(read_marks(b"", b"Exif\0\0II*\0" + exif), Marks)
    assert isinstance(read_xmp(content), dict)
    for label, value in assertions(content):
        assert isinstance(label, str) and isinstance(value, dict)


ASSERTIONS = {
    "cawg.training-mining": ["entries"],
    "c2pa.actions.v2": ["actions"],
    "stds.schema-org.CreativeWork": ["author", "license", "copyrightNotice"],
    "c2pa.metadata": ["dc:creator", "plus:DataMining", "cc:license"],
}


@settings(max_examples=50, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_an_assertion_of_any_shape_says_nothing_or_something(value):
    for label, keys in ASSERTIONS.items():
        for key in keys:
            store = assertion(label, cbor2.dumps({key: value}))
            assert isinstance(read_marks(with_store(store)), Marks)


def with_store(store: bytes) -> bytes:
    """Return a PNG with a manifest store."""
    plain = encoded(picture(1), "PNG")
    content = b"caBX" + store
    chunk = struct.pack(">I", len(store)) + content + struct.pack(">I", zlib.crc32(content))
    return plain[:33] + chunk + plain[33:]


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def assertion(label: str, content: bytes) -> bytes:
    description = bytes(16) + b"\x03" + label.encode() + b"\0"
    return box(b"jumb", box(b"jumd", description) + box(b"cbor", content))


def test_a_box_longer_than_any_file_ends_the_reading():
    endless = struct.pack(">I4sQ", 1, b"free", 2**64 - 1)
    data = box(b"ftyp", b"avif") + endless + bytes(40)
    assert read_marks(data) == Marks()
    assert list(assertions(endless + bytes(40))) == []


def test_boxes_nested_or_repeated_without_end_are_given_up():
    nested = b""
    for _ in range(2000):
        nested = box(b"jumb", nested)
    assert list(assertions(nested)) == []
    assert list(assertions(box(b"cbor", b"\xa0") * 20_000)) != []
    assert list(assertions(struct.pack(">I4s", 1, b"jumb") * 3)) == []


def test_an_ordinary_image_carries_nothing():
    for kind in (*FORMATS, "GIF", "BMP"):
        assert read_marks(encoded(picture(1), kind)) == Marks()
    assert find_embedded(b"").xmp == []


def test_no_metadata_that_was_read_is_in_the_stored_file():
    data = with_segments(
        marked(1, dc__description="SECRET"), photoshop_segment((2, 80, b"SECRETNAME"))
    )
    data = signed(data, "image/jpeg", {})
    answer = kept(data)
    assert answer.marks.creator == "SECRETNAME"
    assert b"SECRET" not in answer.jpeg and b"c2pa" not in answer.jpeg
    with Image.open(io.BytesIO(answer.jpeg)) as image:
        assert "xmp" not in image.info and "photoshop" not in image.info
