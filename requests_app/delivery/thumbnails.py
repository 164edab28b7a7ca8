"""Our own small copies of the pictures: made once, when first looked at."""

import os
import tempfile
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from requests_app.models import ImageUrl

LONGER_SIDE = 256  # pixels
QUALITY = 80


def thumbnail(image: ImageUrl) -> Path | None:
    """The small JPEG of a kept picture; None when there is no such picture on disk (any more)."""
    folder = image.image_class.request.folder
    small = folder / "thumbnails" / f"{image.pk}.jpg"
    if small.is_file():
        return small
    # The row was written from a file of the collector's; only the last part of its path is
    # believed.
    picture = folder / "collect" / "images" / PurePosixPath(image.file).name
    try:
        return _shrink(picture, small)
    except (FileNotFoundError, IsADirectoryError, UnidentifiedImageError):
        return None


def _shrink(picture: Path, small: Path) -> Path:
    """Written beside and renamed, so that a file that exists is complete even when two viewers ask
    at once.
    """
    with Image.open(picture) as image:
        image.draft("RGB", (LONGER_SIDE, LONGER_SIDE))
        image.thumbnail((LONGER_SIDE, LONGER_SIDE))
        small.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=small.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            image.convert("RGB").save(file, "JPEG", quality=QUALITY, optimize=True)
    Path(part).replace(small)
    return small
