"""Bring a folder with one sub-folder per class into a run folder."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.images.decode import BrokenImageError, read_image
from training.progress import Progress, no_progress
from training.run_folder import ClassLabel, ImageRow, RunError, atomic_write, write_text

MAX_SIDE = 1024  # pixels of the longer side of an image brought into a run folder
JPEG_QUALITY = 90

_MAX_SIDE_RANGE = (64, 8192)  # pixels that the longer side may be limited to
_MINIMUM_SIDE = 16  # pixels; smaller images show nothing that could be learned
_EXIF_ORIENTATION = 0x0112


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
    """Bring a folder with one sub-folder per class (sorted by name) into a run folder's `images/`.

    JPEG files that are upright RGB already and not too large are taken as they are; everything else
    is stored as JPEG. `report` gets files done and files in all; `max_side` is in pixels, see
    `check_max_side`. Raises RunError with fewer than two sub-folders.
    """
    check_max_side(max_side)
    labels: list[ClassLabel] = []
    found: list[tuple[ClassLabel, Path]] = []
    for folder in sorted(images.iterdir()):
        hidden = folder.name.startswith(".")
        if hidden or not folder.is_dir():
            continue
        number = len(labels) + 1
        label = ClassLabel(f"c{number:03d}", folder.name)
        labels.append(label)
        for path in sorted(folder.rglob("*")):
            hidden = path.name.startswith(".")
            if path.is_file() and not hidden:
                found.append((label, path))
    if len(labels) < 2:
        reason = f"{images} needs at least two sub-folders, one for each class."
        remedy = "Put the pictures of each class into a folder of its own."
        raise RunError("features", reason, remedy, retry=False)

    rows: dict[str, ImageRow] = {}
    left_out: list[LeftOut] = []
    for done, (label, path) in enumerate(found, 1):
        try:
            row = _import_file(path, run_dir, label, max_side)
            known = rows.setdefault(row.file, row)
            if known.class_id != row.class_id:
                raise BrokenImageError("also in another class")
            if known is not row:
                raise BrokenImageError("the same picture again")
        except BrokenImageError as error:
            name = str(path.relative_to(images))
            left_out.append(LeftOut(name, str(error)))
        report(done, len(found))
    imported = list(rows.values())
    return tuple(labels), imported, left_out


def check_max_side(pixels: int) -> None:
    """Raise ValueError for a longer side that leaves nothing to learn from or only fills disks."""
    low, high = _MAX_SIDE_RANGE
    if pixels < low or pixels > high:
        raise ValueError(f"must be {low} to {high} pixels")


def write_left_out(run_dir: Path, left_out: list[LeftOut]) -> None:
    """Write `left_out.csv`: the files of an imported folder that were not used."""
    lines = ["file,reason\n"]
    for item in left_out:
        quoted = item.file.replace('"', '""')
        lines.append(f'"{quoted}",{item.reason}\n')
    write_text(run_dir / "left_out.csv", "".join(lines))


def _import_file(path: Path, run_dir: Path, label: ClassLabel, max_side: int) -> ImageRow:
    """Store a file in the run folder under its hash; raises BrokenImageError."""
    image = read_image(path)
    width, height = image.size
    if min(width, height) < _MINIMUM_SIDE:
        raise BrokenImageError(f"too small: {width} x {height} pixels")
    data = path.read_bytes()
    if not _is_ready(path, max_side):
        data = _to_jpeg(image, max_side)
    digest = hashlib.sha256(data).hexdigest()
    file_name = f"images/{digest[:16]}.jpg"
    target = run_dir / file_name
    if not target.exists():
        with atomic_write(target, durable=False) as file:
            file.write(data)
    return ImageRow(file_name, label.id, digest, source="folder")


def _is_ready(path: Path, max_side: int) -> bool:
    """Return whether a file can be used as it is, without a second JPEG compression."""
    with Image.open(path) as opened:
        plain = opened.format == "JPEG" and opened.mode == "RGB"
        if not plain:
            return False
        exif = opened.getexif()
        upright = exif.get(_EXIF_ORIENTATION, 1) == 1
        return upright and max(opened.size) <= max_side


def _to_jpeg(image: Image.Image, max_side: int) -> bytes:
    small = image.copy()
    largest = (max_side, max_side)
    small.thumbnail(largest, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()
