"""Decoding, and importing a folder of class folders."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.example_images import encoded, gradient
from training.images.decode import BrokenImageError, as_array, read_image
from training.images.folder import import_folder
from training.run_folder import RunError


def test_transparency_is_shown_on_white() -> None:
    layer = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    layer.putpixel((0, 0), (10, 20, 30, 255))
    array = as_array(read_image(encoded(layer, "PNG")))
    assert array[0, 0].tolist() == [10, 20, 30]
    assert (array[1:] == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    assert (as_array(read_image(encoded(palette, "PNG", transparency=1))) == 255).all()


def test_images_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image = read_image(encoded(gradient(80, 60), "JPEG", exif=exif, quality=95))
    assert image.size == (60, 80)
    upright = np.rot90(np.asarray(gradient(80, 60)), -1).astype(int)
    assert np.abs(as_array(image) - upright).mean() < 4


def test_sixteen_bits_keep_their_brightness() -> None:
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    array = as_array(read_image(encoded(Image.fromarray(levels), "PNG")))
    assert np.abs(array[..., 0] - levels / 257).max() <= 0.5


def test_cmyk_becomes_rgb() -> None:
    array = as_array(read_image(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")))
    assert array.shape == (20, 20, 3)
    assert array[10, 10, 0] > 200 > 60 > array[10, 10, 1]


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", encoded(gradient(), "JPEG")[:500], encoded(gradient(), "PNG")[:-400]],
    ids=["empty", "a page", "half a JPEG", "half a PNG"],
)
def test_what_is_no_whole_image_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenImageError, match="not a picture that can be read"):
        read_image(data)


def test_a_messy_folder_is_imported_with_a_reason_for_every_file_left_out(tmp_path: Path) -> None:
    for name in ("b class", "Ä class", ".hidden"):
        (tmp_path / "in" / name).mkdir(parents=True)
    first, second = tmp_path / "in" / "b class", tmp_path / "in" / "Ä class"
    ready = encoded(gradient(90, 70), "JPEG", quality=80)
    (first / "ready.jpg").write_bytes(ready)
    (first / "again.jpeg").write_bytes(ready)
    (first / "twice.jpg").write_bytes(encoded(gradient(70, 50), "JPEG", quality=80))
    (first / "twice, a copy.jpg").write_bytes((first / "twice.jpg").read_bytes())
    (second / "contrary.jpg").write_bytes(ready)
    (first / "cmyk.jpg").write_bytes(encoded(Image.new("CMYK", (40, 40), (9, 99, 0, 0)), "JPEG"))
    (first / "16 bits.png").write_bytes(
        encoded(Image.fromarray(np.full((50, 50), 30000, np.uint16)), "PNG")
    )
    (first / "dot.png").write_bytes(encoded(Image.new("RGB", (1, 1)), "PNG"))
    (first / "empty.jpg").write_bytes(b"")
    (first / "corrupt.jpg").write_bytes(ready[:600])
    (first / "notes.txt").write_text("no picture")
    (second / "large.png").write_bytes(encoded(gradient(2000, 500), "PNG"))
    seen: list[tuple[int, int]] = []
    classes, rows, left_out = import_folder(
        tmp_path / "in", tmp_path / "run", lambda *at: seen.append(at)
    )
    assert [(label.id, label.name) for label in classes] == [
        ("c001", "b class"),
        ("c002", "Ä class"),
    ]
    assert [row.class_id for row in rows] == ["c001", "c001", "c001", "c002"]
    assert {item.file: item.reason for item in left_out} == {
        "b class/corrupt.jpg": "not a picture that can be read",
        "b class/dot.png": "too small: 1 x 1 pixels",
        "b class/empty.jpg": "not a picture that can be read, but empty",
        "b class/notes.txt": "not a picture that can be read",
        "b class/again.jpeg": "also in another class, “Ä class”, so used in none",
        "b class/ready.jpg": "also in another class, “Ä class”, so used in none",
        "b class/twice.jpg": "the same picture again",
        "Ä class/contrary.jpg": "also in another class, “b class”, so used in none",
    }
    assert seen[-1] == (12, 12)
    for row in rows:
        data = (tmp_path / "run" / row.file).read_bytes()
        assert (
            row.sha256 == hashlib.sha256(data).hexdigest()
            and row.file == f"images/{row.sha256[:16]}.jpg"
        )
        with Image.open(io.BytesIO(data)) as stored:
            assert stored.format == "JPEG" and stored.mode == "RGB" and max(stored.size) <= 1024
    digests = {row.sha256 for row in rows}
    assert hashlib.sha256((first / "twice.jpg").read_bytes()).hexdigest() in digests
    assert hashlib.sha256(ready).hexdigest() not in digests
    stored = {path.relative_to(tmp_path / "run") for path in (tmp_path / "run/images").iterdir()}
    assert stored == {Path(row.file) for row in rows}


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    with pytest.raises(RunError, match="at least two sub-folders"):
        import_folder(tmp_path, tmp_path / "run")


def test_the_longer_side_of_imported_images_is_limited_as_asked_within_sense(
    tmp_path: Path,
) -> None:
    for name, side in (("a", 300), ("b", 120)):
        (tmp_path / "in" / name).mkdir(parents=True)
        gradient(side, 60).save(tmp_path / "in" / name / "one.jpg")
    _, rows, _ = import_folder(tmp_path / "in", tmp_path / "run", max_side=128)
    assert [Image.open(tmp_path / "run" / row.file).width for row in rows] == [128, 120]
    for side in (63, 8193):
        with pytest.raises(ValueError, match="64 to 8192 pixels"):
            import_folder(tmp_path / "in", tmp_path / "run", max_side=side)
