"""The delivered predict.py reads every picture as training does, pixel for pixel."""

import importlib.util
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, TiffImagePlugin

from tests.training.example_images import encoded, gradient
from tests.training.test_decode import EXPOSURE_BIAS, MODES, ORIENTATION, turned_exif
from training.images.decode import as_array, read_image

ASSET = Path(__file__).parents[2] / "training" / "export" / "assets" / "predict.py"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

Read = Callable[[str], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def delivered_read() -> Read:
    spec = importlib.util.spec_from_file_location("delivered_predict", ASSET)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    read: Read = module.read
    return read


def assert_same(data: bytes, delivered_read: Read, folder: Path) -> None:
    path = folder / "picture"
    path.write_bytes(data)
    ours = as_array(read_image(path))
    theirs = delivered_read(str(path))
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert np.array_equal(ours, theirs)


def saved(mode: str, form: str) -> bytes | None:
    """Return an image of this mode in this format, None where the format has no such mode."""
    image = Image.new(mode, (40, 24))
    size = len(image.tobytes())
    noise = np.random.default_rng(3).integers(0, 256, size, np.uint8).tobytes()
    if mode == "F":
        noise = np.random.default_rng(3).normal(size=size // 4).astype(np.float32).tobytes()
    image.frombytes(noise)
    if mode == "P":
        palette = np.random.default_rng(4).integers(0, 256, 768, np.uint8)
        image.putpalette(palette.tobytes())
    stream = io.BytesIO()
    try:
        image.save(stream, form)
    except (OSError, KeyError, ValueError):
        return None
    return stream.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_every_mode_that_a_format_holds_is_read_alike(
    form: str, delivered_read: Read, tmp_path: Path
) -> None:
    tried = 0
    for mode in MODES:
        data = saved(mode, form)
        if data is not None:
            assert_same(data, delivered_read, tmp_path)
            tried += 1
    assert tried >= 2


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_is_read_alike(form: str, delivered_read: Read, tmp_path: Path) -> None:
    for orientation in range(10):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        assert_same(encoded(gradient(), form, exif=exif), delivered_read, tmp_path)


def test_odd_metadata_gaps_and_transparent_colours_are_read_alike(
    delivered_read: Read, tmp_path: Path
) -> None:
    exif = turned_exif()
    exif[EXPOSURE_BIAS] = TiffImagePlugin.IFDRational(-3, 2)
    jpeg = encoded(gradient(), "JPEG", exif=exif)
    odd = jpeg.replace(struct.pack(">ii", -3, 2), struct.pack(">ii", -1, 0))
    assert odd != jpeg
    gaps = np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8)
    gaps[0, :4] = (np.nan, np.inf, -np.inf, -3.4e38)
    even = np.full((8, 8), 7, np.float32)
    palette = gradient().quantize(16)
    for data in (
        odd,
        encoded(Image.fromarray(gaps), "TIFF"),
        encoded(Image.fromarray(even), "TIFF"),
        encoded(palette, "PNG", transparency=3),
        encoded(palette, "GIF", transparency=3),
        encoded(gradient(), "PNG", transparency=(0, 0, 0)),
        encoded(gradient().convert("L"), "PNG", transparency=9),
    ):
        assert_same(data, delivered_read, tmp_path)


def test_a_telephones_large_photograph_is_read_alike(delivered_read: Read, tmp_path: Path) -> None:
    large = gradient(200, 150).resize((9300, 7000))
    assert_same(encoded(large, "JPEG", exif=turned_exif()), delivered_read, tmp_path)


def test_a_picture_with_a_long_text_is_read_alike(delivered_read: Read, tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "long " * 1_000_000, zip=True)
    stream = io.BytesIO()
    Image.new("RGB", (40, 24), "teal").save(stream, "PNG", pnginfo=texts)
    assert_same(stream.getvalue(), delivered_read, tmp_path)
