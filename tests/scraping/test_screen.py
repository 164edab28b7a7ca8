"""Bytes to clean pictures or reasons: F22 to F24, with pixels compared and metadata searched for."""

import asyncio
import io
import os
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from scraping.screen import Picture, Rejection, ScreenSettings, screen
from scraping.screenpool import ScreenPool
from tests.replicas.pictures import encoded, jpeg, picture
from tests.scraping.conftest import descendants

SMALL = ScreenSettings(min_side=32, max_side=512)


def screened(data: bytes, settings: ScreenSettings = SMALL) -> Picture:
    answer = screen(data, settings)
    assert isinstance(answer, Picture), answer
    return answer


def pixels(answer: Picture) -> np.ndarray:
    with Image.open(io.BytesIO(answer.jpeg)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert image.size == (answer.width, answer.height)
        return np.asarray(image).astype(int)


def flat(mode: str, colour, size=(64, 48), **info) -> Image.Image:
    image = Image.new(mode, size, colour)
    image.info.update(info)
    return image


def near(answer: Picture, colour: tuple[int, int, int], tolerance: int = 4) -> bool:
    return bool((np.abs(pixels(answer) - np.array(colour)) <= tolerance).all())


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_a_picture"),
        (b"<!doctype html><title>404</title>", "not_a_picture"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "not_a_picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n", "not_a_picture"),
        (encoded(picture(1), "TIFF"), "not_a_picture"),
        (encoded(picture(1), "PPM"), "not_a_picture"),
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
def test_what_is_no_usable_picture_has_its_reason(data, reason):
    answer = screen(data, SMALL)
    assert isinstance(answer, Rejection), answer
    assert answer.reason == reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_the_five_formats_are_taken_by_content(kind):
    answer = screened(encoded(picture(1), kind))
    assert answer.mime == f"image/{kind.lower()}"
    assert (answer.width, answer.height) == (320, 240)


def test_pictures_are_scaled_down_to_the_longest_side_and_never_up():
    assert (screened(jpeg(1, (2000, 1000))).width, screened(jpeg(1, (2000, 1000))).height) == (512, 256)
    assert screened(jpeg(1, (300, 200))).width == 300


def test_scaling_in_the_decoder_shows_the_same_picture():
    large, small = picture(3, (2048, 1536)), picture(3, (2048, 1536)).resize((512, 384), Image.Resampling.LANCZOS)
    difference = np.abs(pixels(screened(encoded(large, "JPEG", quality=95))) - np.asarray(small).astype(int))
    assert difference.mean() < 3


def test_transparency_is_laid_on_white():
    assert near(screened(encoded(flat("RGBA", (255, 0, 0, 0)), "PNG")), (255, 255, 255))
    assert near(screened(encoded(flat("LA", (0, 0)), "PNG")), (255, 255, 255))
    half = screened(encoded(flat("RGBA", (255, 0, 0, 128)), "PNG"))
    assert near(half, (255, 127, 127))
    palette = flat("P", 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert near(screened(encoded(palette, "PNG", transparency=1)), (255, 255, 255))
    assert near(screened(encoded(palette, "PNG")), (255, 0, 0))


def test_sixteen_bits_are_scaled_not_clipped():
    dark = Image.fromarray(np.full((48, 64), 300, np.uint16))
    light = Image.fromarray(np.full((48, 64), 65535, np.uint16))
    assert near(screened(encoded(dark, "PNG")), (1, 1, 1))
    assert near(screened(encoded(light, "PNG")), (255, 255, 255))


def test_grey_bilevel_and_cmyk_become_rgb():
    assert near(screened(encoded(flat("L", 77), "PNG")), (77, 77, 77))
    assert near(screened(encoded(flat("1", 1), "PNG")), (255, 255, 255))
    assert near(screened(encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=95)), (255, 0, 0), 12)


def test_a_wide_colour_profile_is_converted_to_srgb():
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    plain = screened(encoded(flat("RGB", (120, 120, 120)), "PNG"))
    profiled = screened(encoded(flat("RGB", (120, 120, 120)), "PNG", icc_profile=_linear_rgb()))
    assert abs(int(pixels(plain).mean()) - 120) <= 2
    assert pixels(profiled).mean() > 160, "linear light looks brighter in sRGB"
    assert isinstance(screen(encoded(picture(1), "PNG", icc_profile=swapped), SMALL), Picture)
    assert isinstance(screen(encoded(picture(1), "PNG", icc_profile=b"broken"), SMALL), Picture)


def _linear_rgb() -> bytes:
    """The sRGB profile with its curves replaced by straight lines, and another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    for number in range(count):
        signature, offset, size = struct.unpack(">4sII", data[132 + 12 * number : 144 + 12 * number])
        if signature in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + size] = struct.pack(">4sIHHi", b"para", 0, 0, 0, 65536).ljust(size, b"\0")
        if signature == b"desc":
            name, other = ("sRGB".encode("utf-16-be"), "Line".encode("utf-16-be"))
            data[offset : offset + size] = bytes(data[offset : offset + size]).replace(name, other)
    return bytes(data)


def test_a_turned_picture_is_stored_upright():
    image = Image.new("RGB", (200, 100), "white")
    image.paste("red", (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    answer = screened(encoded(image, "JPEG", quality=95, exif=exif))
    assert (answer.width, answer.height) == (100, 200)
    shown = pixels(answer)
    assert (np.abs(shown[:90] - (255, 0, 0)) < 20).all()
    assert (shown[110:] > 235).all()


def test_no_metadata_of_the_source_is_in_the_stored_file():
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


def test_a_payload_behind_the_picture_is_gone():
    stored = screened(jpeg(1) + b"<script>alert(1)</script>").jpeg
    assert b"<script" not in stored


def test_of_an_animation_the_first_frame_is_taken_without_decoding_the_rest():
    frames = [flat("RGB", (255, 0, 0))] + [flat("RGB", (0, number % 256, 255)) for number in range(300)]
    for kind in ("GIF", "WEBP"):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=20)
        assert near(screened(buffer.getvalue()), (255, 0, 0), 8)


def test_both_sums_are_those_of_the_bytes():
    import hashlib

    data = jpeg(1)
    answer = screened(data)
    assert answer.source_sha256 == hashlib.sha256(data).hexdigest()
    assert answer.sha256 == hashlib.sha256(answer.jpeg).hexdigest()
    assert screened(data).sha256 == answer.sha256


def test_the_workers_answer_as_the_function_does():
    async def run() -> list[Picture | Rejection]:
        with ScreenPool(SMALL, 2) as pool:
            inputs = [jpeg(number) for number in range(8)] + [b"nothing"]
            return await asyncio.gather(*(pool.screen(data) for data in inputs))

    *pictures, nothing = asyncio.run(run())
    assert [answer.sha256 for answer in pictures] == [screened(jpeg(number)).sha256 for number in range(8)]
    assert pictures[0].fingerprint == screened(jpeg(0)).fingerprint
    assert nothing == Rejection("not_a_picture", "UnidentifiedImageError")


def test_a_worker_that_dies_costs_at_most_one_picture_and_is_replaced():
    async def run() -> list[Picture | Rejection]:
        with ScreenPool(SMALL, 1) as pool:
            first = await pool.screen(jpeg(1))
            for pid in descendants(os.getpid()):
                if "scraping.screen" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)
            second = await pool.screen(jpeg(2))
            third = await pool.screen(jpeg(3))
            return [first, second, third]

    first, second, third = asyncio.run(run())
    assert isinstance(first, Picture) and isinstance(third, Picture)
    assert isinstance(second, Rejection) and "decoder failed" in second.detail


def test_no_worker_is_left_when_the_pool_is_closed():
    async def run() -> set[int]:
        with ScreenPool(SMALL, 2) as pool:
            await asyncio.gather(*(pool.screen(jpeg(number)) for number in range(4)))
            return {pid for pid in descendants(os.getpid()) if "screen" in Path(f"/proc/{pid}/cmdline").read_text()}

    workers = asyncio.run(run())
    assert workers
    assert not workers & descendants(os.getpid())
