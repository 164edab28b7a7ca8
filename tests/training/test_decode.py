"""Decoding: whatever a file holds, an upright RGB image or one reason comes out."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, TiffImagePlugin

from tests.training.example_images import encoded, gradient
from training.images.decode import BrokenImageError, as_array, read_image, to_rgb

ORIENTATION = 0x0112
EXPOSURE_BIAS = 0x9204
# fmt: off
MODES = (
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV",
    "I", "F", "I;16", "I;16L", "I;16B", "I;16N",
)
# fmt: on
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "MPO")


def turned_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turned by 90 degrees
    return exif


def chunk(name: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_that_pictures_come_in_is_read(form: str) -> None:
    image = read_image(encoded(gradient(), form))
    assert image.mode == "RGB" and image.size == (80, 60)
    difference = np.abs(as_array(image).astype(int) - np.asarray(gradient()).astype(int))
    assert difference.mean() < 20


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_becomes_rgb(mode: str) -> None:
    image = Image.new(mode, (9, 5))
    image.frombytes(bytes(range(200, 256)) * (len(image.tobytes()) // 56) + image.tobytes())
    converted = to_rgb(image)
    assert converted.mode == "RGB" and converted.size == (9, 5)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(7500, 6000, (7500, 6000)), (8192, 6144, (2048, 1536)), (16320, 12240, (4080, 3060))],
    ids=["45 megapixels", "50 megapixels and a bit", "200 megapixels"],
)
def test_the_photographs_of_telephones_are_read_reduced(
    width: int, height: int, size: tuple[int, int]
) -> None:
    jpeg = encoded(Image.new("L", (width, height), 130), "JPEG", exif=turned_exif())
    image = read_image(jpeg)
    assert image.size == size[::-1]
    assert abs(int(as_array(image).mean()) - 130) <= 1


@pytest.mark.parametrize(
    ("form", "size", "options"),
    [
        ("JPEG", (17000, 16000), {}),
        ("JPEG", (11000, 10000), {"progressive": True}),
        ("PNG", (9000, 6000), {}),
        ("PNG", (15000, 15000), {}),
        ("GIF", (20000, 10000), {}),
    ],
)
def test_bombs_stay_out(form: str, size: tuple[int, int], options: dict[str, bool]) -> None:
    with pytest.raises(BrokenImageError, match="too large: more than"):
        read_image(encoded(Image.new("1", size), form, **options))


def test_a_rotated_jpeg_with_an_odd_rational_in_its_metadata_is_upright() -> None:
    exif = turned_exif()
    exif[EXPOSURE_BIAS] = TiffImagePlugin.IFDRational(-3, 2)
    jpeg = encoded(gradient(), "JPEG", exif=exif, quality=95)
    plain = struct.pack(">ii", -3, 2)
    assert jpeg.count(plain) == 1
    odd = read_image(jpeg.replace(plain, struct.pack(">ii", -1, 0)))
    assert odd.size == (60, 80)
    assert odd.tobytes() == read_image(jpeg).tobytes()


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_metadata_that_cannot_be_read_costs_no_picture(form: str, exif: bytes) -> None:
    assert read_image(encoded(gradient(), form, exif=exif)).size == (80, 60)


def test_a_jpeg_that_lacks_only_its_end_mark_is_read() -> None:
    whole = encoded(gradient(), "JPEG")
    expected = read_image(whole).tobytes()
    for missing in (1, 2):
        assert read_image(whole[:-missing]).tobytes() == expected
    with pytest.raises(BrokenImageError, match="not a picture that can be read"):
        read_image(whole[:-40])


def test_a_png_is_read_without_its_end_and_with_texts_too_long_for_pillow() -> None:
    plain = encoded(gradient(), "PNG")
    expected = read_image(plain).tobytes()
    header = 8 + 25
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000)))
    long_text = chunk(b"tEXt", b"a\0" + b"b" * 3_000_000) * 30
    damaged = b"\0\0\0\4tEXtabcd????"
    for extra in (bomb, long_text, damaged):
        assert read_image(plain[:header] + extra + plain[header:]).tobytes() == expected
    assert read_image(plain[:-12]).tobytes() == expected
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 2_000_000, zip=True)
    assert read_image(encoded(gradient(), "PNG", pnginfo=info)).tobytes() == expected


def test_numbers_that_are_none_do_not_spoil_a_float_image() -> None:
    levels = np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8)
    gaps = levels.copy()
    gaps[0, :4] = (np.nan, np.inf, -np.inf, -3.4e38)
    array = as_array(read_image(encoded(Image.fromarray(gaps), "TIFF")))[..., 0]
    low = levels[0, 4]
    expected = (levels - low) / (5 - low) * 255
    assert np.abs(array[1:] - expected[1:]).max() <= 0.5
    assert array[0, :4].tolist() == [0, 255, 0, 0]
    with pytest.raises(BrokenImageError):
        read_image(encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"))


def test_one_pixel_is_an_image_and_none_is_not() -> None:
    for form in FORMATS:
        assert read_image(encoded(Image.new("RGB", (1, 1)), form)).size == (1, 1)
    for nothing in (b"P6 0 0 255\n", b"P5\n0 4\n255\n", b"BM" + bytes(60)):
        with pytest.raises(BrokenImageError):
            read_image(nothing)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC, which Picaisso does not read; save it as JPEG"),
        (b"\0\0\0\x1cftypmif1", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\0\x20ftypisom", "a video"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
    ],
)
def test_what_other_programs_read_is_called_by_its_name(start: bytes, words: str) -> None:
    with pytest.raises(BrokenImageError, match=words):
        read_image(start + bytes(100))


def test_a_file_that_is_none_or_cannot_be_opened_is_a_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    huge = tmp_path / "huge.bmp"
    with huge.open("wb") as file:
        file.truncate(600_000_000)
    for path, words in (
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path, "not a regular file"),
        (huge, "larger than 500 MB"),
        (tmp_path / "none", r"cannot be read \(No such file or directory\)"),
        (tmp_path / ("long" * 99), r"cannot be read \(File name too long\)"),
        (tmp_path / "\0", "cannot be read"),
    ):
        with pytest.raises(BrokenImageError, match=words):
            read_image(path)


def seeds() -> list[bytes]:
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b" * 3000, zip=True)
    image = gradient(40, 30)
    exif = turned_exif()
    numbers = image.convert("F")
    return [
        encoded(image, "JPEG", exif=exif, icc_profile=b"x" * 500),
        encoded(image, "JPEG", progressive=True),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "PNG", pnginfo=info, exif=exif),
        encoded(image, "WEBP", exif=exif),
        encoded(image.quantize(), "GIF"),
        encoded(image, "BMP"),
        encoded(image, "TIFF", exif=exif),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(numbers, "TIFF"),
        encoded(image, "AVIF", exif=exif),
        encoded(image, "JPEG2000"),
        encoded(image, "PPM"),
        encoded(numbers, "PPM"),
        encoded(image, "MPO", save_all=True, append_images=[image]),
    ]


# Pillow remarks on what it passes over.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
SEEDS = seeds()
places = st.integers(0, 1 << 16)
changes = st.lists(st.tuples(places, st.binary(max_size=6), st.integers(0, 6)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SEEDS), changes, st.integers(1, 1 << 16))
def test_nothing_but_a_reason_leaves_a_damaged_file(
    seed: bytes, damages: list[tuple[int, bytes, int]], length: int
) -> None:
    data = bytearray(seed)
    for place, new, old in damages:
        start = place % len(data) if data else 0
        data[start : start + old] = new
    cut = bytes(data[: max(1, length)])
    try:
        image = read_image(cut)
    except BrokenImageError as refusal:
        assert str(refusal)
    else:
        assert image.mode == "RGB" and min(image.size) >= 1


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([seed[:16] for seed in SEEDS]), st.binary(max_size=300))
def test_nothing_but_a_reason_leaves_what_only_begins_as_an_image(
    start: bytes, rest: bytes
) -> None:
    for data in (rest, start + rest):
        try:
            read_image(data)
        except BrokenImageError as refusal:
            assert str(refusal)
