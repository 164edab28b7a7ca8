"""Bytes to clean pictures or reasons: F22 to F24, with pixels compared and metadata searched
for.
"""

import asyncio
import contextlib
import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from scraping.reasons import Reason
from scraping.screening.pool import PoolSettings, ScreeningUnavailable, ScreenPool
from scraping.screening.screen import CleanImage, Rejection, ScreenSettings, screen
from tests.replicas.pictures import encoded, jpeg, picture
from tests.scraping.conftest import descendants, repository

SMALL = ScreenSettings(min_side=32, max_side=512)


def screened(data: bytes, settings: ScreenSettings = SMALL) -> CleanImage:
    answer = screen(data, settings)
    assert isinstance(answer, CleanImage), answer
    return answer


def pixels(answer: CleanImage) -> np.ndarray:
    with Image.open(io.BytesIO(answer.jpeg)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert image.size == (answer.width, answer.height)
        return np.asarray(image).astype(int)


def flat(mode: str, colour, size=(64, 48), **info) -> Image.Image:
    image = Image.new(mode, size, colour)
    image.info.update(info)
    return image


def near(answer: CleanImage, colour: tuple[int, int, int], tolerance: int = 4) -> bool:
    return bool((np.abs(pixels(answer) - np.array(colour)) <= tolerance).all())


def png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """Return a PNG with chunks before its pixels."""
    start = png.index(b"IDAT") - 4
    return png[:start] + b"".join(chunks) + png[start:]


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_a_picture"),
        (b"<!doctype html><title>404</title>", "not_a_picture"),
        (
            b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
            "not_a_picture",
        ),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n",
            "not_a_picture",
        ),
        (encoded(picture(1), "TIFF"), "not_a_picture"),
        (encoded(picture(1), "PPM"), "not_a_picture"),
        (
            b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 48, 64, 8, 3) + bytes(14) + bytes(48 * 64 * 3),
            "not_a_picture",
        ),
        (encoded(picture(1), "JPEG")[:-3000], "not_a_picture"),
        (encoded(picture(1), "PNG")[:-3000], "not_a_picture"),
        (png_header(20000, 20000), "too_large"),
        (png_header(8000, 8000), "too_large"),
        (png_header(1, 50000), "too_large"),
        (png_header(2000, 1999), "not_a_picture"),
        (encoded(flat("RGB", "red", (1, 1)), "PNG"), "too_small"),
        (encoded(flat("RGB", "red", (600, 31)), "PNG"), "too_small"),
        (encoded(flat("RGB", "red", (600, 100)), "PNG"), "bad_shape"),
    ],
)
def test_f23_what_is_no_usable_image_has_its_reason(data, reason):
    answer = screen(data, SMALL)
    assert isinstance(answer, Rejection), answer
    assert answer.reason == reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_the_five_formats_are_taken_by_content(kind):
    answer = screened(encoded(picture(1), kind))
    assert answer.mime == f"image/{kind.lower()}"
    assert (answer.width, answer.height) == (320, 240)


def test_images_are_scaled_down_to_the_longest_side_and_never_up():
    assert (screened(jpeg(1, (2000, 1000))).width, screened(jpeg(1, (2000, 1000))).height) == (
        512,
        256,
    )
    assert screened(jpeg(1, (300, 200))).width == 300


def test_scaling_in_the_decoder_shows_the_same_image():
    large, small = (
        picture(3, (2048, 1536)),
        picture(3, (2048, 1536)).resize((512, 384), Image.Resampling.LANCZOS),
    )
    difference = np.abs(
        pixels(screened(encoded(large, "JPEG", quality=95))) - np.asarray(small).astype(int)
    )
    assert difference.mean() < 3


def test_f24_transparency_is_laid_on_white():
    assert near(screened(encoded(flat("RGBA", (255, 0, 0, 0)), "PNG")), (255, 255, 255))
    assert near(screened(encoded(flat("LA", (0, 0)), "PNG")), (255, 255, 255))
    half = screened(encoded(flat("RGBA", (255, 0, 0, 128)), "PNG"))
    assert near(half, (255, 127, 127))
    palette = flat("P", 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert near(screened(encoded(palette, "PNG", transparency=1)), (255, 255, 255))
    assert near(screened(encoded(palette, "PNG")), (255, 0, 0))


def test_f24_sixteen_bits_are_scaled_not_clipped():
    dark = Image.fromarray(np.full((48, 64), 300, np.uint16))
    light = Image.fromarray(np.full((48, 64), 65535, np.uint16))
    assert near(screened(encoded(dark, "PNG")), (1, 1, 1))
    assert near(screened(encoded(light, "PNG")), (255, 255, 255))


def test_f24_gray_bilevel_and_cmyk_become_rgb():
    assert near(screened(encoded(flat("L", 77), "PNG")), (77, 77, 77))
    assert near(screened(encoded(flat("1", 1), "PNG")), (255, 255, 255))
    assert near(
        screened(encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=95)), (255, 0, 0), 12
    )


def test_a_wide_color_profile_is_converted_to_srgb():
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    plain = screened(encoded(flat("RGB", (120, 120, 120)), "PNG"))
    profiled = screened(encoded(flat("RGB", (120, 120, 120)), "PNG", icc_profile=_linear_rgb()))
    assert abs(int(pixels(plain).mean()) - 120) <= 2
    assert pixels(profiled).mean() > 160, "linear light looks brighter in sRGB"
    assert isinstance(screen(encoded(picture(1), "PNG", icc_profile=swapped), SMALL), CleanImage)
    assert isinstance(screen(encoded(picture(1), "PNG", icc_profile=b"broken"), SMALL), CleanImage)


def _linear_rgb() -> bytes:
    """Return the sRGB profile with its curves replaced by straight lines, and another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    for number in range(count):
        signature, offset, size = struct.unpack(
            ">4sII", data[132 + 12 * number : 144 + 12 * number]
        )
        if signature in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + size] = struct.pack(">4sIHHi", b"para", 0, 0, 0, 65536).ljust(
                size, b"\0"
            )
        if signature == b"desc":
            name, other = ("sRGB".encode("utf-16-be"), "Line".encode("utf-16-be"))
            data[offset : offset + size] = bytes(data[offset : offset + size]).replace(name, other)
    return bytes(data)


def _adobe_rgb() -> bytes:
    """Return a profile with the primaries of Adobe RGB (1998), adapted to D50, and its gamma of
    563/256.
    """
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {b"rXYZ": ADOBE[:, 0], b"gXYZ": ADOBE[:, 1], b"bXYZ": ADOBE[:, 2]}
    for number in range(struct.unpack(">I", data[128:132])[0]):
        signature, offset, size = struct.unpack(
            ">4sII", data[132 + 12 * number : 144 + 12 * number]
        )
        if signature in primaries:
            values = [round(value * 65536) for value in primaries[signature]]
            data[offset : offset + size] = struct.pack(">4sI3i", b"XYZ ", 0, *values)
        if signature in (b"rTRC", b"gTRC", b"bTRC"):
            curve = struct.pack(">4sIHHi", b"para", 0, 0, 0, round(563 / 256 * 65536))
            data[offset : offset + size] = curve.ljust(size, b"\0")
        if signature == b"desc":
            name, other = ("sRGB".encode("utf-16-be"), "Wide".encode("utf-16-be"))
            data[offset : offset + size] = bytes(data[offset : offset + size]).replace(name, other)
    return bytes(data)


# Columns: red, green, blue in XYZ under D50; the second matrix is sRGB's, from its standard,
# likewise adapted.
ADOBE = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
SRGB = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def test_f24_adobe_rgb_becomes_the_same_color_in_srgb():
    colour = np.array([150, 120, 90])
    light = np.linalg.solve(SRGB, ADOBE @ (colour / 255) ** (563 / 256))
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert expected[0] > 155, "the same colour needs a larger red in the narrower space"
    answer = screened(encoded(flat("RGB", tuple(colour)), "PNG", icc_profile=_adobe_rgb()))
    assert near(answer, tuple(expected.round().astype(int)), 4)


def test_f24_a_turned_image_is_stored_upright():
    image = Image.new("RGB", (200, 100), "white")
    image.paste("red", (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    answer = screened(encoded(image, "JPEG", quality=95, exif=exif))
    assert (answer.width, answer.height) == (100, 200)
    shown = pixels(answer)
    assert (np.abs(shown[:90] - (255, 0, 0)) < 20).all()
    assert (shown[110:] > 235).all()


def test_f24_no_metadata_of_the_source_is_in_the_stored_file():
    exif = Image.Exif()
    exif[0x010E] = "SECRETDESCRIPTION"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 0.0)
    data = encoded(
        picture(1),
        "JPEG",
        exif=exif,
        comment=b"SECRETCOMMENT",
        dpi=(301, 301),
        xmp=b"<x:xmpmeta>SECRETXMP</x:xmpmeta>",
        icc_profile=_linear_rgb(),
    )
    assert b"SECRETXMP" in data and b"SECRETDESCRIPTION" in data and b"SECRETCOMMENT" in data
    stored = screened(data).jpeg
    assert b"SECRET" not in stored
    with Image.open(io.BytesIO(stored)) as image:
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert image.info.get("jfif_density", (1, 1)) == (1, 1)


def test_f23_a_payload_behind_the_image_is_gone():
    stored = screened(jpeg(1) + b"<script>alert(1)</script>").jpeg
    assert b"<script" not in stored


def test_f22_of_an_animation_the_first_frame_is_taken_without_decoding_the_rest():
    frames = [flat("RGB", (255, 0, 0))] + [
        flat("RGB", (0, number % 256, 255)) for number in range(300)
    ]
    for kind in ("GIF", "WEBP"):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=20)
        assert near(screened(buffer.getvalue()), (255, 0, 0), 8)


@pytest.mark.parametrize(
    ("size", "mode"), [((8000, 6000), "RGB"), ((12000, 9000), "L"), ((16320, 12240), "L")]
)
def test_a_telephone_s_many_megapixels_are_decoded_reduced_and_kept(size, mode):
    data = encoded(Image.new(mode, size, "red" if mode == "RGB" else 77), "JPEG", quality=70)
    answer = screened(data)
    assert (answer.width, answer.height) == (512, 384)
    assert near(answer, (254, 0, 0) if mode == "RGB" else (77, 77, 77))


def test_the_reduced_decoding_of_many_megapixels_shows_the_same_image():
    large = picture(3, (8000, 6000))
    small = picture(3, (8000, 6000)).resize((512, 384), Image.Resampling.LANCZOS)
    shown = pixels(screened(encoded(large, "JPEG", quality=95)))
    assert np.abs(shown - np.asarray(small).astype(int)).mean() < 3


def test_f22_what_is_too_large_says_its_size():
    jpeg_of_too_many = bytearray(jpeg(1))
    frame = jpeg_of_too_many.index(b"\xff\xc0")
    jpeg_of_too_many[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
    for data, size in ((png_header(8000, 8000), "8000x8000"), (jpeg_of_too_many, "30000x30000")):
        answer = screen(bytes(data), SMALL)
        assert answer == Rejection(Reason.TOO_LARGE, size)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16"])
def test_a_png_of_45_megapixels_is_kept_in_every_mode(mode):
    gray = {"RGBA": (77, 77, 77, 255), "I;16": 77 * 257}.get(mode, 77)
    data = encoded(Image.new(mode, (7750, 5810), gray), "PNG", compress_level=1)
    answer = screened(data)
    assert (answer.width, answer.height) == (512, 384)


LONG_TEXT = zlib.compress(b"x" * (5 << 20))
BOMBS = {
    "zTXt": [png_chunk(b"zTXt", b"Comment\0\0" + LONG_TEXT)],
    "iTXt": [png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG_TEXT)],
    "many texts": [png_chunk(b"tEXt", b"Comment\0" + b"x" * (900 << 10))] * 80,
    "color profile": [png_chunk(b"iCCP", b"name\0\0" + LONG_TEXT)],
    "animation": [png_chunk(b"acTL", b"\0")],
    "size on paper": [png_chunk(b"pHYs", b"\0")],
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_png_is_kept_whatever_its_texts_hold(name):
    plain = encoded(picture(4), "PNG")
    data = with_chunks(plain, *BOMBS[name])
    assert (pixels(screened(data)) == pixels(screened(plain))).all()
    assert screened(data).source_sha256 == hashlib.sha256(data).hexdigest()


def test_a_text_that_is_too_large_hides_no_reservation():
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
        b' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
        b' xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" plus:DataMining='
        b'"http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"/></rdf:RDF></x:xmpmeta>'
    )
    reserved = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    data = with_chunks(encoded(picture(4), "PNG"), *BOMBS["zTXt"], reserved)
    answer = screen(data, SMALL)
    assert isinstance(answer, Rejection)
    assert answer.reason == Reason.OPTED_OUT


def with_claimed_size(kind: str) -> bytes:
    """Return a file of a format whose header claims more pixels than any picture has."""
    data = bytearray(encoded(picture(1), kind))
    if kind == "GIF":
        data[6:10] = struct.pack("<HH", 65535, 65535)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    elif kind == "PNG":
        data[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "WEBP":
        frame = data.index(b"\x9d\x01\x2a") + 3
        data[frame : frame + 4] = struct.pack("<HH", 16383, 16383)
    else:
        extent = data.index(b"ispe") + 8
        data[extent : extent + 8] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    return bytes(data)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "PNG", "WEBP", "AVIF"])
def test_an_absurd_size_in_any_format_is_one_rejection_and_the_worker_goes_on(kind):
    async def answers() -> list[CleanImage | Rejection]:
        async with ScreenPool(SMALL, PoolSettings(1)) as pool:
            return [await pool.screen(with_claimed_size(kind)), await pool.screen(jpeg(2))]

    first, second = asyncio.run(answers())
    assert isinstance(first, Rejection)
    assert first.reason in (Reason.TOO_LARGE, Reason.NOT_A_PICTURE)
    assert isinstance(second, CleanImage)


def test_the_workers_keep_many_megapixels_too():
    data = encoded(Image.new("L", (12000, 9000), 77), "JPEG", quality=70)

    async def answer() -> CleanImage | Rejection:
        async with ScreenPool(SMALL, PoolSettings(1)) as pool:
            return await pool.screen(data)

    found = asyncio.run(answer())
    assert isinstance(found, CleanImage), found
    assert (found.width, found.height) == (512, 384)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_mark_is_kept(missing, progressive):
    data = encoded(picture(5), "JPEG", quality=90, progressive=progressive)
    assert (pixels(screened(data[:-missing])) == pixels(screened(data))).all()
    assert screened(data[:-missing]).source_sha256 == hashlib.sha256(data[:-missing]).hexdigest()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [12, 40, 400, 4000])
def test_a_jpeg_that_lacks_pixels_is_not_kept(missing, progressive):
    data = encoded(picture(5), "JPEG", quality=90, progressive=progressive)
    assert screen(data[:-missing], SMALL) == Rejection(Reason.NOT_A_PICTURE, "OSError")


def exif(*entries: tuple[int, int, bytes]) -> bytes:
    """Return Exif of the given tags, types and values, each one value long."""
    head = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    end = 8 + 2 + 12 * len(entries) + 4
    body = b""
    values = b""
    for tag, kind, value in entries:
        body += struct.pack("<HHI", tag, kind, 1)
        if len(value) <= 4:
            body += value.ljust(4, b"\0")
        else:
            body += struct.pack("<I", end + len(values))
            values += value
    return head + body + bytes(4) + values


QUARTER_TURN = (0x0112, 3, struct.pack("<H", 6))
ODD_RATIONALS = {
    "minus one by zero": (0x9201, 10, struct.pack("<ii", -1, 0)),
    "resolution by zero": (0x011A, 5, struct.pack("<II", 1, 0)),
    "the largest by zero": (0x829A, 5, struct.pack("<II", 2**32 - 1, 0)),
    "a pointer to nowhere": (0x8769, 4, struct.pack("<I", 2**31)),
}


@pytest.mark.parametrize("odd", ODD_RATIONALS)
def test_odd_metadata_costs_nothing_but_itself(odd):
    data = encoded(picture(6), "JPEG", exif=exif(QUARTER_TURN, ODD_RATIONALS[odd]))
    answer = screened(data)
    assert (answer.width, answer.height) == (240, 320)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(metadata=st.binary(max_size=300), orientation=st.integers(0, 2**16 - 1))
def test_no_metadata_is_an_exception_or_loses_the_image(metadata, orientation):
    turned = exif((0x0112, 3, struct.pack("<H", orientation)))
    for kind in ("JPEG", "PNG", "WEBP"):
        for block in (turned, b"Exif\0\0II*\0" + metadata):
            data = encoded(picture(6), kind, exif=block, icc_profile=metadata or None)
            assert {screened(data).width, screened(data).height} == {320, 240}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_is_an_exception(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "MPO"]))
    damaged = bytearray(encoded(picture(7, (96, 64)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(damaged)))
    for body in (bytes(damaged), bytes(damaged[:end])):
        answer = screen(body, SMALL)
        assert isinstance(answer, CleanImage) or answer.reason in Reason


@pytest.mark.parametrize("kind", ["MPO", "AVIF"])
def test_what_telephones_and_newer_sites_write_is_taken(kind):
    answer = screened(encoded(picture(1), kind))
    assert (answer.width, answer.height) == (320, 240)


def test_both_digests_are_those_of_the_bytes():
    import hashlib

    data = jpeg(1)
    answer = screened(data)
    assert answer.source_sha256 == hashlib.sha256(data).hexdigest()
    assert answer.sha256 == hashlib.sha256(answer.jpeg).hexdigest()
    assert screened(data).sha256 == answer.sha256


def pooled(inputs: list[bytes], settings: PoolSettings, screening: ScreenSettings = SMALL) -> list:
    """Return what a pool answers to these, asked for all at once."""

    async def run() -> list[CleanImage | Rejection]:
        async with ScreenPool(screening, settings) as pool:
            return await asyncio.gather(*(pool.screen(data) for data in inputs))

    return asyncio.run(run())


def workers() -> set[int]:
    """Return the pids of the screening processes of this one."""
    found = set()
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if "scraping.screening.worker" in Path(f"/proc/{pid}/cmdline").read_text():
                found.add(pid)
    return found


def test_the_workers_answer_as_the_function_does():
    inputs = [jpeg(number) for number in range(8)] + [b"nothing"]
    *pictures, nothing = pooled(inputs, PoolSettings(2))
    assert [answer.sha256 for answer in pictures] == [
        screened(jpeg(number)).sha256 for number in range(8)
    ]
    assert [answer.jpeg for answer in pictures] == [
        screened(jpeg(number)).jpeg for number in range(8)
    ]
    assert pictures[0].fingerprint == screened(jpeg(0)).fingerprint
    assert nothing == Rejection("not_a_picture", "UnidentifiedImageError")


def test_a_worker_with_a_folder_stores_what_it_would_have_sent(tmp_path):
    [answer] = pooled([jpeg(1)], PoolSettings(1, tmp_path))
    stored = tmp_path / f"{answer.sha256[:16]}.jpg"
    assert answer.jpeg == b""
    assert list(tmp_path.iterdir()) == [stored]
    assert stored.read_bytes() == screened(jpeg(1)).jpeg


def test_without_thumbnails_there_is_the_hash_alone():
    [whole] = pooled([jpeg(1)], PoolSettings(1))
    [quick] = pooled([jpeg(1)], PoolSettings(1), ScreenSettings(32, 512, thumbnails=False))
    assert quick.sha256 == whole.sha256
    assert (quick.difference_hash ^ whole.difference_hash).bit_count() <= 2
    with pytest.raises(ValueError, match="without thumbnails"):
        _ = quick.fingerprint


def test_what_was_taken_down_is_refused_by_the_digest_of_either_bytes_and_not_stored(tmp_path):
    by_source, by_stored = screened(jpeg(1)).source_sha256, screened(jpeg(2)).sha256
    settings = ScreenSettings(32, 512, frozenset({by_source, by_stored}))
    one, other, fine = pooled([jpeg(1), jpeg(2), jpeg(3)], PoolSettings(1, tmp_path), settings)
    assert (one, other) == (Rejection("taken_down"), Rejection("taken_down"))
    assert [file.name for file in tmp_path.iterdir()] == [f"{fine.sha256[:16]}.jpg"]


def test_a_worker_that_dies_costs_at_most_one_image_and_is_replaced():
    async def run() -> list[CleanImage | Rejection]:
        async with ScreenPool(SMALL, PoolSettings(1)) as pool:
            first = await pool.screen(jpeg(1))
            for pid in workers():
                os.kill(pid, signal.SIGKILL)
            return [
                first,
                *await asyncio.gather(*(pool.screen(jpeg(number)) for number in range(2, 5))),
            ]

    first, *others = asyncio.run(run())
    assert isinstance(first, CleanImage)
    lost = [answer for answer in others if isinstance(answer, Rejection)]
    assert len(lost) <= 1
    assert all("decoder failed" in answer.detail for answer in lost)


def scan_bomb(side: int, scans: int) -> bytes:
    """Return a small progressive JPEG whose every scan makes the decoder walk over all blocks
    again.
    """

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    # One symbol per table: "end of band for 2^14 blocks or more" in the AC table, "difference 0" in
    # the DC table.
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    tables += segment(0xC4, b"\x00\1" + b"\0" * 15 + b"\0") + segment(
        0xC4, b"\x10\1" + b"\0" * 15 + b"\xe0"
    )
    frame = segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    blocks = (side // 8) ** 2
    dc = segment(0xDA, b"\1\1\0\0\0\0") + b"\0" * (blocks // 8)
    runs = "".join("0" + "1" * 14 for _ in range(blocks // 32767 + 1))
    ac = (
        int(runs + "1" * (-len(runs) % 8), 2)
        .to_bytes((len(runs) + 7) // 8, "big")
        .replace(b"\xff", b"\xff\0")
    )
    return (
        b"\xff\xd8"
        + tables
        + frame
        + dc
        + (segment(0xDA, b"\1\1\0\1\x3f\0") + ac) * scans
        + b"\xff\xd9"
    )


def test_a_image_that_takes_too_long_costs_its_time_and_nothing_else():
    bomb = scan_bomb(4000, 4000)
    assert len(bomb) < 400_000
    started = time.monotonic()
    slow, *others = pooled([bomb, jpeg(1), jpeg(2)], PoolSettings(1, image_seconds=0.7))
    assert slow == Rejection("not_a_picture", "its decoder failed: it took too long")
    assert all(isinstance(answer, CleanImage) for answer in others)
    assert time.monotonic() - started < 10


def test_decoding_does_not_hold_up_the_loop():
    large = encoded(Image.effect_noise((5000, 5000), 60).convert("RGB"), "JPEG")
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - before)

    async def run() -> float:
        ticking = asyncio.ensure_future(tick())
        async with ScreenPool(ScreenSettings(32, 4000), PoolSettings(1)) as pool:
            await pool.screen(jpeg(1))
            gaps.clear()
            started = time.monotonic()
            assert isinstance(await pool.screen(large), CleanImage)
        ticking.cancel()
        return time.monotonic() - started

    took = asyncio.run(run())
    assert took > 0.2, "else there was nothing to wait for"
    assert max(gaps) < took / 2


def test_f22_hostile_images_leave_a_worker_s_memory_below_its_limit():
    frames = [Image.new("P", (500, 500), number % 7) for number in range(2000)]
    animation = io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    inputs = [
        png_header(20000, 20000),
        encoded(Image.new("1", (8000, 8000)), "PNG"),
        encoded(Image.new("1", (1, 50000)), "PNG"),
        encoded(Image.new("RGB", (1, 1)), "PNG"),
        animation.getvalue(),
        encoded(
            Image.new("RGBA", (5400, 5400), (255, 0, 0, 0)), "PNG"
        ),  # the largest that is accepted at all
    ]

    async def run() -> tuple[list, int]:
        async with ScreenPool(SMALL, PoolSettings(1)) as pool:
            answers = [await pool.screen(data) for data in inputs]
            [pid] = workers()
            status = Path(f"/proc/{pid}/status").read_text()
            return answers, int(status.partition("VmHWM:")[2].split()[0])

    answers, kilobytes = asyncio.run(run())
    reasons = [answer.reason if isinstance(answer, Rejection) else None for answer in answers]
    assert reasons == ["too_large", "too_large", "too_large", "too_small", None, None]
    assert kilobytes < 700_000


def test_a_worker_may_not_take_more_memory_than_its_limit():
    greedy = (
        "from scraping.screening.worker import MEMORY_LIMIT_BYTES, limit_decoding;"
        "limit_decoding(); bytearray(MEMORY_LIMIT_BYTES + (64 << 20))"
    )
    done = subprocess.run(
        [sys.executable, "-c", greedy], cwd=repository(), capture_output=True, text=True
    )
    assert "MemoryError" in done.stderr


def test_no_worker_is_left_when_the_pool_is_closed():
    async def run() -> set[int]:
        async with ScreenPool(SMALL, PoolSettings(2)) as pool:
            await asyncio.gather(*(pool.screen(jpeg(number)) for number in range(4)))
            return workers()

    left = asyncio.run(run())
    assert left
    assert not left & descendants(os.getpid())


def test_where_no_worker_starts_it_is_said_and_no_image_is_blamed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(ScreeningUnavailable, match="cannot be decoded"):
        pooled([jpeg(1)], PoolSettings(2))
