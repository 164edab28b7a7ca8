"""Small copies of the images for the pages: made once, when first asked for."""

import os
import tempfile
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from requests_app.models import OWN_FOLDER, OWN_SOURCE, ImageUrl

LONGER_SIDE = 256  # pixels
QUALITY = 80


def thumbnail(image: ImageUrl) -> Path | None:
    """Return the small JPEG of an image; None if there is no such image on disk (any more)."""
    folder = image.image_class.request.folder
    small = folder / "thumbnails" / f"{image.pk}.jpg"
    if small.is_file():
        return small
    try:
        _shrink(_path(image), small)
    except (FileNotFoundError, IsADirectoryError, UnidentifiedImageError):
        return None
    return small


def original(image: ImageUrl) -> Path | None:
    """Return an image as it was collected; None if it is not on disk (any more)."""
    path = _path(image)
    return path if path.is_file() else None


def _path(image: ImageUrl) -> Path:
    # The row was written from a file of the collector's: only the last part of its path is trusted.
    name = PurePosixPath(image.file).name
    folder = OWN_FOLDER if image.source == OWN_SOURCE else "images"
    return image.image_class.request.folder / "collect" / folder / name


def _shrink(source: Path, target: Path) -> None:
    """Write a small JPEG of an image file.

    It is written beside its place and renamed, so that a file that exists is complete even when two
    viewers ask at once.
    """
    with Image.open(source) as image:
        image.draft("RGB", (LONGER_SIDE, LONGER_SIDE))
        image.thumbnail((LONGER_SIDE, LONGER_SIDE))
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=target.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                rgb = image.convert("RGB")
                rgb.save(file, "JPEG", quality=QUALITY, optimize=True)
            Path(unfinished).replace(target)
        finally:
            Path(unfinished).unlink(missing_ok=True)
