"""Which test images the report shows, and the small JPEGs that stand inside its page."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.evaluation.results import Results
from training.export.report_page import InlineImage
from training.images.decode import BrokenImageError, read_image

THUMBNAIL_SIDE = 128  # pixels of the longer side
MAP_SIDE = 176
SHOWN = 24  # of the worst and of the best test images

_JPEG_QUALITY = 75
_LARGEST_ASPECT = 2.0  # of the box; a longer image stands whole inside it


class InlineImages:
    """Small JPEGs for a page: each is added once, within a limit of bytes.

    `added` holds them in the order in which they were added.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """`folder` is what files are relative to, `limit` the bytes of base64 for all images."""
        self.added: list[InlineImage] = []
        self._folder = folder
        self._bytes_left = limit
        self._thumbnails: dict[str, str | None] = {}

    def thumbnail(self, file: str) -> str | None:
        """Return the name of the thumbnail of an image file.

        None where the file cannot be read any more or the limit is reached.
        """
        if file not in self._thumbnails:
            name = f"p{_digest(file)}"
            try:
                image = _read_thumbnail(self._folder / file)
            except (OSError, BrokenImageError):
                self._thumbnails[file] = None
            else:
                self._thumbnails[file] = self._add(name, file, image)
        return self._thumbnails[file]

    def class_map(self, file: str, class_index: int, image: Image.Image) -> str | None:
        """Add a file's map of a class; return its name, or None where the limit is reached."""
        return self._add(f"m{class_index}-{_digest(file)}", file, image)

    def _add(self, name: str, file: str, image: Image.Image) -> str | None:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=_JPEG_QUALITY, optimize=True)
        jpeg = base64.b64encode(stream.getvalue()).decode("ascii")
        if len(jpeg) > self._bytes_left:
            return None
        self._bytes_left -= len(jpeg)
        aspect_ratio = image.width / image.height
        aspect_ratio = min(max(aspect_ratio, 1 / _LARGEST_ASPECT), _LARGEST_ASPECT)
        self.added.append({"file": file, "name": name, "aspect_ratio": aspect_ratio, "jpeg": jpeg})
        return name


def worst(results: Results, count: int = SHOWN) -> list[int]:
    """Return the indices of the test images that the model did worst on.

    The most confident mistakes come first, then the least confident of the right answers. Right
    answers fill at most half of the test images, so that the best of a small test split are not
    among the worst.
    """
    test, confidence_in_label, right = _tested(results)
    order = np.lexsort((test, confidence_in_label, right))
    mistakes = int((~right).sum())
    shown = min(count, max(mistakes, len(test) // 2))
    return test[order[:shown]].tolist()


def best(results: Results, count: int = SHOWN) -> list[int]:
    """Return the indices of the test images that the model was right on, most confident first.

    Those among the worst are left out.
    """
    among_worst = set(worst(results))
    found = [index for index in _right_by_confidence(results) if index not in among_worst]
    return found[:count]


def examples_of_each_class(results: Results, count: int) -> list[list[int]]:
    """Return for each class the indices of `count` test images that the model was right on.

    The most confident come first.
    """
    examples: list[list[int]] = [[] for _ in range(results.probabilities.shape[1])]
    for index in _right_by_confidence(results):
        of_class = examples[results.labels[index]]
        if len(of_class) < count:
            of_class.append(index)
    return examples


def _right_by_confidence(results: Results) -> list[int]:
    test, confidence_in_label, right = _tested(results)
    order = np.lexsort((test, -confidence_in_label))
    right_in_order = order[right[order]]
    return test[right_in_order].tolist()


def _tested(results: Results) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return, each [tested], indices, probabilities of the label, and whether that was predicted."""
    test = results.indices("test")
    labels = results.labels[test]
    predicted = results.probabilities[test].argmax(axis=1)
    confidence_in_label = results.probabilities[test, labels]
    return test, confidence_in_label, predicted == labels


def _digest(file: str) -> str:
    return hashlib.sha256(file.encode()).hexdigest()[:16]


def _read_thumbnail(path: Path) -> Image.Image:
    """Return a file as a thumbnail.

    JPEG is decoded at a fraction of its size, which takes a fraction of the time.
    """
    with Image.open(path) as opened:
        if opened.format != "JPEG":
            image = read_image(path)
        else:
            opened.draft("RGB", (2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE))
            image = ImageOps.exif_transpose(opened).convert("RGB")
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
    return image
