"""Bring a folder of class folders into a run folder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.images.decode import BrokenImageError, read_image
from training.progress import Progress, no_progress
from training.run_folder import ClassLabel, ImageRow, RunError, atomic_write, write_text

MAX_SIDE = 1024  # pixels of the longer side of a picture brought into a run folder
JPEG_QUALITY = 90
_SENSIBLE_SIDES = (64, 8192)  # pixels that the longer side may be limited to
_MINIMUM_SIDE = 16  # pixels; smaller pictures show nothing that could be learned


@dataclass(frozen=True)
class LeftOut:
    """A file that did not become a picture of the run, and why."""

    file: str
    reason: str


def import_folder(
    images: Path,
    run_dir: Path,
    report: Progress = no_progress,
    max_side: int = MAX_SIDE,
) -> tuple[tuple[ClassLabel, ...], list[ImageRow], list[LeftOut]]:
    """Bring a folder with one sub-folder per class (sorted by name) into a run folder's `images/`.

    JPEG files that are upright RGB already and not too large are linked as they are; everything else is stored as JPEG.
    `report` gets files done and files in all; `max_side` is in pixels, see `check_max_side`.
    """
    check_max_side(max_side)
    folders = sorted(
        path for path in images.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if len(folders) < 2:
        raise RunError(
            "features",
            f"{images} needs at least two sub-folders, one for each class.",
            "Put the pictures of each class into a folder of its own.",
            retry=False,
        )
    labels = tuple(
        ClassLabel(f"c{number:03d}", path.name) for number, path in enumerate(folders, 1)
    )
    found = [
        (label, path)
        for label, folder in zip(labels, folders, strict=True)
        for path in _files(folder)
    ]
    rows: dict[str, ImageRow] = {}
    left_out: list[LeftOut] = []
    for done, (label, path) in enumerate(found, 1):
        try:
            row = _import_file(path, run_dir, label, max_side)
            known = rows.setdefault(row.file, row)
            if known is not row:
                same = known.class_id == row.class_id
                raise BrokenImageError(
                    "the same picture again" if same else "also in another class"
                )
        except BrokenImageError as error:
            left_out.append(LeftOut(str(path.relative_to(images)), str(error)))
        report(done, len(found))
    return labels, list(rows.values()), left_out


def check_max_side(pixels: int) -> None:
    """Raise ValueError for a longer side that would leave nothing to learn from, or that only fills
    the disk.
    """
    low, high = _SENSIBLE_SIDES
    if not low <= pixels <= high:
        raise ValueError(f"must be {low} to {high} pixels")


def write_left_out(run_dir: Path, left_out: list[LeftOut]) -> None:
    """Write `left_out.csv`: the files of an imported folder that were not used."""
    lines = [f'"{item.file.replace(chr(34), chr(34) * 2)}",{item.reason}\n' for item in left_out]
    write_text(run_dir / "left_out.csv", "file,reason\n" + "".join(lines))


def _files(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("."))


def _import_file(path: Path, run_dir: Path, label: ClassLabel, max_side: int) -> ImageRow:
    picture = read_image(path)
    if min(picture.size) < _MINIMUM_SIDE:
        raise BrokenImageError(f"too small: {picture.width} x {picture.height} pixels")
    data = path.read_bytes() if _ready(path, max_side) else _jpeg(picture, max_side)
    digest = hashlib.sha256(data).hexdigest()
    target = run_dir / "images" / f"{digest[:16]}.jpg"
    if not target.exists():
        with atomic_write(target, durable=False) as file:
            file.write(data)
    return ImageRow(file=f"images/{target.name}", class_id=label.id, sha256=digest, source="folder")


def _ready(path: Path, max_side: int) -> bool:
    """Whether a file can be used as it is, without a second JPEG compression."""
    with Image.open(path) as opened:
        upright = opened.getexif().get(0x0112, 1) == 1
        return (
            opened.format == "JPEG"
            and opened.mode == "RGB"
            and upright
            and max(opened.size) <= max_side
        )


def _jpeg(picture: Image.Image, max_side: int) -> bytes:
    picture = picture.copy()
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()
