"""The tables of a dataset: ``images.csv`` and ``rejected.csv``.

What is no web address is left empty in them: it may be what a person calls a file at home. They are
UTF-8 without a byte order mark, a line per row, and no spreadsheet program computes their cells.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from requests_app.delivery.contents import DatasetImage
from requests_app.models import ImageClass, ImageState, ImageUrl
from scraping.supplied import SCHEME
from scraping.urls import is_web_address
from training.text_files import safe_cell

# fmt: off
IMAGE_COLUMNS = (
    "file_name", "class", "split", "source", "query", "rank", "page_url", "image_url", "title",
    "creator", "license", "license_version", "license_url", "license_basis", "attribution", "width",
    "height", "sha256", "source_sha256", "group",
)
# fmt: on
REJECTED_COLUMNS = ("class", "source", "image_url", "page_url", "reason", "detail")


def images_table(images: Iterable[DatasetImage]) -> bytes:
    """Return ``images.csv``."""
    return _table(IMAGE_COLUMNS, map(_image_row, images))


def rejected_table(classes: Sequence[ImageClass]) -> bytes:
    """Return ``rejected.csv``: what was found and is not in the dataset."""
    return _table(REJECTED_COLUMNS, _rejected_rows(classes))


def _table(columns: Sequence[str], rows: Iterable[dict[str, object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {}
        for column, value in row.items():
            cells[column] = safe_cell(value) if isinstance(value, str) else value
        writer.writerow(cells)
    return text.getvalue().encode()


def _image_row(entry: DatasetImage) -> dict[str, object]:
    row: dict[str, object] = {
        "file_name": entry.file_name,
        "class": entry.label.name,
        "split": entry.split,
        "group": entry.group,
    }
    for column in IMAGE_COLUMNS:
        if column not in row:
            row[column] = getattr(entry.image, column)
    row["image_url"] = _web_address(entry.image.image_url)
    row["page_url"] = _web_address(entry.image.page_url)
    return row


def _rejected_rows(classes: Sequence[ImageClass]) -> Iterator[dict[str, object]]:
    images = ImageUrl.objects.filter(image_class__in=classes).exclude(state=ImageState.KEPT)
    for image in images.select_related("image_class").order_by("image_class__number", "pk"):
        yield {
            "class": image.image_class.name,
            "source": image.source,
            "image_url": _web_address(image.image_url),
            "page_url": _web_address(image.page_url),
            "reason": image.reason or image.state,
            "detail": _detail(image.detail),
        }


def _web_address(text: str) -> str:
    return text if is_web_address(text) else ""


def _detail(text: str) -> str:
    """Return why an image was rejected, without the name of a person's file."""
    if text.startswith(f"like {SCHEME}"):
        return "like one of the requester's pictures"
    if text.startswith(SCHEME):
        return "one of the requester's pictures is kept instead"
    return text
