"""The report's pictures: small JPEGs inside the page, each once however often it is shown, within a
limit of bytes.

Every rule is named after the file that it shows, so that a picture can be taken out of a finished
page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.evaluation.results import Results
from training.images.decode import BrokenImageError, read_image

THUMBNAIL_SIDE = 128  # pixels of the longer side
MAP_SIDE = 176
_QUALITY = 75
_LONGEST = (
    2.0  # no box is longer than so many times its other side; the picture stands whole inside
)

SHOWN = 24  # of the worst and of the best test pictures


class Album:
    """Gives each picture a CSS class that shows it as a background; a page with the rules has it
    inside once.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """`folder` is what files are relative to; `limit` is in bytes of rules, past which pictures
        are refused.
        """
        self._folder = folder
        self._left = limit
        self._names: dict[str, str | None] = {}
        self._rules: list[str] = []

    def thumbnail(self, file: str) -> str | None:
        """The CSS class of a picture file; None when it cannot be read any more or the limit is
        reached.
        """
        if file not in self._names:
            try:
                self._names[file] = self.place(f"p{_digest(file)}", _small(self._folder / file))
            except (OSError, BrokenImageError):
                self._names[file] = None
        return self._names[file]

    def map_of(self, file: str, number: int, picture: Image.Image) -> str | None:
        """The CSS class of the picture file's map of a class; None when the limit is reached."""
        return self.place(f"m{number}-{_digest(file)}", picture)

    def place(self, name: str, picture: Image.Image) -> str | None:
        """Add a rule of that name, and give it back; None when the limit is reached."""
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=_QUALITY, optimize=True)
        data = base64.b64encode(stream.getvalue()).decode("ascii")
        shape = min(max(picture.width / picture.height, 1 / _LONGEST), _LONGEST)
        rule = f".{name}{{aspect-ratio:{shape:.3f};background-image:url(data:image/jpeg;base64,{data})}}\n"
        if len(rule) > self._left:
            return None
        self._left -= len(rule)
        self._rules.append(rule)
        return name

    def rules(self) -> str:
        """The style sheet of all pictures."""
        return "".join(self._rules)


def without_pictures(page: str, files: Iterable[str]) -> str:
    """A report without these files: where one stood it shows nothing, and tells neither its author
    nor its place.
    """
    for file in files:
        name = re.escape(html.escape(Path(file).stem))
        page = re.sub(rf"(?m)^\.(?:p|m\d+-){_digest(file)}\{{.*\n", "", page)
        page = re.sub(rf"(?m)^<li><code>{name}</code>.*\n", "", page)
        found = rf'<a href="[^"]*"[^>]*>Where it was found<span class="hidden">: picture {name}</span></a>'
        page = re.sub(rf"<bdi>[^<]*</bdi> {found}", "Taken down", page)
    return page


def _digest(file: str) -> str:
    return hashlib.sha256(file.encode()).hexdigest()[:16]


def _small(path: Path) -> Image.Image:
    """A file as a thumbnail. JPEG is decoded at a fraction of its size, which takes a fraction of
    the time.
    """
    with Image.open(path) as opened:
        if opened.format != "JPEG":
            picture = read_image(path)
        else:
            opened.draft("RGB", (2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE))
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
    return picture


def worst(results: Results, count: int = SHOWN) -> list[int]:
    """Test pictures that the model did worst on: the surest mistakes first, then the least sure of
    the right answers.

    Right answers fill at most half of the test part, so that in a small one the best are not among
    the worst.
    """
    test, own, right = _tested(results)
    order = test[np.lexsort((test, own, right))]
    mistakes = int((~right).sum())
    return [int(place) for place in order[: min(count, max(mistakes, len(test) // 2))]]


def best(results: Results, count: int = SHOWN) -> list[int]:
    """Test pictures that the model was right on, the surest first, without those among the
    worst.
    """
    taken = set(worst(results))
    return [place for place in _surest_right(results) if place not in taken][:count]


def examples_of_each_class(results: Results, count: int) -> list[list[int]]:
    """For each class the `count` of its test pictures that the model was right about and surest
    of.
    """
    ranked = _surest_right(results)
    classes = results.probabilities.shape[1]
    return [
        [place for place in ranked if results.labels[place] == number][:count]
        for number in range(classes)
    ]


def _surest_right(results: Results) -> list[int]:
    test, own, right = _tested(results)
    order = np.lexsort((test, -own))
    return [int(place) for place in test[order[right[order]]]]


def _tested(results: Results) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """The test pictures' places, probability of their own class, and whether the model was right:
    each [tested].
    """
    test = results.indices("test")
    said = results.probabilities[test].argmax(axis=1)
    own = results.probabilities[test, results.labels[test]]
    return test, own, said == results.labels[test]
