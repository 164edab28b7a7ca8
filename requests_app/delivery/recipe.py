"""``recipe.json``: how the pictures of a dataset are found again where they must not travel.

``python -m scraping replay recipe.json --out FOLDER`` reads it.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from django.conf import settings
from PIL import Image

from requests_app.delivery.contents import DatasetImage
from requests_app.models import DatasetVersion
from scraping.recipe import CREDIT_COLUMNS, RecipeClass, RecipeImage, recipe_document
from scraping.urls import is_web_address
from training.duplicates import difference_hash

HASHED_SIDE = 128  # pixels that a JPEG is decoded to at least: enough for 9 by 8


def recipe(
    version: DatasetVersion, images: Sequence[DatasetImage], beat: Callable[[], None]
) -> bytes:
    """Return ``recipe.json`` of a version. The same images give the same bytes.

    :param beat: called for every image
    :raises OSError: an image cannot be read
    """
    folder = version.request.folder / "collect"
    rows = []
    for entry in images:
        beat()
        rows.append(_row(entry, folder / entry.image.file))
    classes = []
    for label in version.request.classes.all():
        classes.append(RecipeClass(label.class_id, label.name, label.search_words))
    sides = (settings.MIN_SIDE, settings.MAX_SIDE)
    document = recipe_document(classes, rows, sides, version.number)
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    return text.encode(errors="replace")


def _row(entry: DatasetImage, file: Path) -> RecipeImage:
    image = entry.image
    return {
        "class_id": entry.class_id,
        "split": entry.split,
        "group": entry.group,
        "source": image.source,
        "query": image.query,
        "image_url": image.image_url if is_web_address(image.image_url) else "",
        "page_url": image.page_url,
        "sha256": image.sha256,
        "source_sha256": image.source_sha256,
        "dhash": _hash_of(file),
        "width": image.width,
        "height": image.height,
        "credit": {name: getattr(image, name) for name in CREDIT_COLUMNS},
    }


def _hash_of(file: Path) -> str:
    """Return the difference hash of a stored image in hexadecimal."""
    with Image.open(file, formats=("JPEG",)) as image:
        image.draft("RGB", (HASHED_SIDE, HASHED_SIDE))
        return f"{difference_hash(image.convert('RGB')):016x}"
