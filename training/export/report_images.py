"""Which test images the report shows, and the small JPEGs that stand inside its page."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

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
        aspect_ratio = min(image.width / image.height, _LARGEST_ASPECT)
        added: InlineImage = {
            "file": file,
            "name": name,
            "aspect_ratio": max(aspect_ratio, 1 / _LARGEST_ASPECT),
            "jpeg": jpeg,
        }
        self.added.append(added)
        return name


def worst(results: Results, count: int = SHOWN) -> list[int]:
    """Return the indices of the test images that the model did worst on.

    The most confident mistakes come first, then the least confident of the right answers. Right
    answers fill at most half of the test images, so that the best of a small test split are not
    among the worst.
    """
    mistakes = []
    right = []
    for image in sorted(_tested(results), key=lambda image: image.confidence):
        if image.right:
            right.append(image.index)
        else:
            mistakes.append(image.index)
    half = (len(mistakes) + len(right)) // 2
    shown = min(count, max(len(mistakes), half))
    return [*mistakes, *right][:shown]


def best(results: Results, count: int = SHOWN) -> list[int]:
    """Return the indices of the test images that the model was right on, most confident first.

    Those among the worst are left out.
    """
    among_worst = worst(results)
    best_first = []
    for index in _right_by_confidence(results):
        if index not in among_worst:
            best_first.append(index)
    return best_first[:count]


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
    """Return the indices of the test images that were predicted rightly, most confident first."""
    right = []
    for image in sorted(_tested(results), key=lambda image: -image.confidence):
        if image.right:
            right.append(image.index)
    return right


@dataclass(frozen=True)
class _TestedImage:
    index: int
    right: bool
    """Whether the label was predicted."""
    confidence: float
    """Probability of the label."""


def _tested(results: Results) -> list[_TestedImage]:
    """Return the test images in the order of the manifest."""
    tested = []
    for index in results.indices("test"):
        label = results.labels[index]
        probabilities = results.probabilities[index]
        right = bool(probabilities.argmax() == label)
        tested.append(_TestedImage(int(index), right, float(probabilities[label])))
    return tested


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
