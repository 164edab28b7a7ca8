"""Bring a folder of pictures into a run folder; every file is used or left out with a reason."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.images.changes import record_folder
from training.images.decode import BrokenImageError, read_file, read_image
from training.images.layout import LabelledFile, read_layout
from training.phrases import listed
from training.progress import Progress, no_progress
from training.run_folder import (
    ClassLabel,
    ImageRow,
    RunError,
    atomic_write,
    file_format,
    write_text,
)

MAX_SIDE = 1024  # pixels of the longer side of an image brought into a run folder
JPEG_QUALITY = 90

_MAX_SIDE_RANGE = (64, 8192)  # pixels that the longer side may be limited to
_MINIMUM_SIDE = 16  # pixels; smaller images show nothing that could be learned
_EXIF_ORIENTATION = 0x0112
_JPEG_END = b"\xff\xd9"
_PROTECTION = ("test", "val", "train", None)  # the first of these keeps an image in several splits
_STORED_NAME = re.compile(r"[0-9a-f]{16}\.jpg")
_FORMULA_SIGNS = ("=", "+", "-", "@")


@dataclass(frozen=True)
class LeftOut:
    """A file that did not become an image of the run, and why."""

    file: str
    reason: str


def import_folder(
    images: Path,
    run_dir: Path,
    report: Progress = no_progress,
    max_side: int = MAX_SIDE,
) -> tuple[tuple[ClassLabel, ...], list[ImageRow], list[LeftOut]]:
    """Bring a folder of pictures, laid out as `layout` reads it, into a run folder's `images/`.

    JPEG files that are upright RGB already and not too large are taken as they are; everything else
    is stored as JPEG. An image that stands in two classes is used in neither. `report` gets files
    done and files in all; `max_side` is in pixels, see `check_max_side`. Raises RunError for a
    folder that cannot be meant.
    """
    check_max_side(max_side)
    layout = read_layout(images, run_dir)
    labels = {}
    for number, (key, name) in enumerate(layout.classes.items(), 1):
        labels[key] = ClassLabel(f"c{number:03d}", name)
    left_out = [LeftOut(file.name, file.reason) for file in layout.passed_over]

    digests: dict[Path, str] = {}
    found: dict[str, list[LabelledFile]] = defaultdict(list)
    for done, file in enumerate(layout.files, 1):
        try:
            data = read_file(file.path)
            digests[file.path] = hashlib.sha256(data).hexdigest()
            stored = _store(data, run_dir, max_side)
            found[stored].append(file)
        except BrokenImageError as error:
            left_out.append(LeftOut(file.name, str(error)))
        report(done, len(layout.files))

    rows = []
    for sha256, files in found.items():
        labels_found = {file.label for file in files}
        if len(labels_found) > 1:
            left_out += _in_several_classes(files, labels)
            continue
        files.sort(key=_unprotected)
        first = files.pop(0)
        row = _row(first, sha256, labels)
        rows.append(row)
        for copy in files:
            left_out.append(LeftOut(copy.name, "the same picture again"))
    left_out.sort(key=lambda item: item.file)
    _remove_unused(run_dir, rows)
    record_folder(images, run_dir, digests)
    return tuple(labels.values()), rows, left_out


def check_max_side(pixels: int) -> None:
    """Raise ValueError for a longer side that leaves nothing to learn from or only fills disks."""
    low, high = _MAX_SIDE_RANGE
    if pixels < low or pixels > high:
        raise ValueError(f"must be {low} to {high} pixels")


def check_classes_have_images(classes: Sequence[ClassLabel], rows: Sequence[ImageRow]) -> None:
    """Raise RunError for a class without any image, before the others are looked at."""
    with_images = {row.class_id for row in rows}
    for label in classes:
        if label.id not in with_images:
            reason = f"The class “{label.name}” has no usable picture."
            remedy = "left_out.csv says why; add pictures to its folder, or remove the folder."
            raise RunError("features", reason, remedy, retry=False)


def write_left_out(run_dir: Path, left_out: Sequence[LeftOut]) -> None:
    """Write `left_out.csv`: the files of an imported folder that were not used."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "reason"))
    for item in left_out:
        writer.writerow((_cell(item.file), _cell(item.reason)))
    write_text(run_dir / "left_out.csv", text.getvalue())


def _cell(text: str) -> str:
    """Return a cell that no spreadsheet program runs as a formula."""
    return f"'{text}" if text.startswith(_FORMULA_SIGNS) else text


def _unprotected(file: LabelledFile) -> int:
    """Return 0 for an image for testing, and more for those that rather give way to it."""
    return _PROTECTION.index(file.split)


def _in_several_classes(
    files: Sequence[LabelledFile], labels: Mapping[str, ClassLabel]
) -> list[LeftOut]:
    left_out = []
    classes = {file.label for file in files}
    for file in files:
        others = sorted(classes - {file.label})
        names = [f"“{labels[label].name}”" for label in others]
        reason = f"also in another class, {listed(names)}, so used in none"
        left_out.append(LeftOut(file.name, reason))
    return left_out


def _row(file: LabelledFile, sha256: str, labels: Mapping[str, ClassLabel]) -> ImageRow:
    return ImageRow(
        file=f"images/{sha256[:16]}.jpg",
        class_id=labels[file.label].id,
        sha256=sha256,
        source=file.provenance.source,
        license=file.provenance.license,
        split=file.split,
        credit=file.provenance.credit,
        page_url=file.provenance.page_url,
        format=file.provenance.format or file_format("", file.name),
        title=file.provenance.title,
    )


def _store(data: bytes, run_dir: Path, max_side: int) -> str:
    """Store an image in the run folder and return its digest; raises BrokenImageError."""
    image = read_image(data)
    width, height = image.size
    if min(width, height) < _MINIMUM_SIDE:
        raise BrokenImageError(f"too small: {width} x {height} pixels")
    stored = data
    if not _is_ready(data, max_side):
        stored = _to_jpeg(image, max_side)
    sha256 = hashlib.sha256(stored).hexdigest()
    target = run_dir / "images" / f"{sha256[:16]}.jpg"
    if not target.exists():
        with atomic_write(target, durable=False) as output:
            output.write(stored)
    return sha256


def _is_ready(data: bytes, max_side: int) -> bool:
    """Return whether a file can be used as it is, without a second JPEG compression."""
    if not data.endswith(_JPEG_END):
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
            plain = opened.format == "JPEG" and opened.mode == "RGB"
            upright = opened.getexif().get(_EXIF_ORIENTATION, 1) == 1
            return plain and upright and max(opened.size) <= max_side
    except Exception:  # odd metadata, which is lost with the second compression
        return False


def _to_jpeg(image: Image.Image, max_side: int) -> bytes:
    small = image.copy()
    largest = (max_side, max_side)
    small.thumbnail(largest, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def _remove_unused(run_dir: Path, rows: Sequence[ImageRow]) -> None:
    """Remove images that an import stored and that no row names."""
    used = {row.file for row in rows}
    for path in (run_dir / "images").glob("*.jpg"):
        is_ours = _STORED_NAME.fullmatch(path.name)
        if is_ours and f"images/{path.name}" not in used:
            path.unlink()
    # Left by an import that was killed in the middle of a file.
    for half_written in (run_dir / "images").glob(".*.tmp"):
        half_written.unlink()
