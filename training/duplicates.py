"""Near copies: the same photograph resized, re-encoded, mirrored, captioned, framed or lightly
cropped.

A 64-bit difference hash and a coarse sketch of the colours only *propose* a pair, because cut-outs
on white share most of either. A pair counts when small colour thumbnails of the two agree as well,
in their pattern and in their colours, or, in training, when their embeddings do. numpy and Pillow
alone: `scraping` imports this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

HASH_DISTANCE = 10  # bits of 64 that two copies may differ in to be proposed
SKETCH_CORRELATION = 0.88  # at least this, in one pair of views, proposes two pictures too
THUMBNAIL_CORRELATION = 0.93  # at least this, in one pair of views, verifies a proposal,
THUMBNAIL_DIFFERENCE = 12.0  # if the same views differ by no more than this of 255 on average
EMBEDDING_COSINE = 0.9  # embeddings this close count without a proposal
PROPOSED_COSINE = 0.8  # embeddings this close count for a proposed pair
CENTRED_COSINE = (
    0.8  # what must be left of either when the average picture of the set is taken away
)

_SIDE = 16  # thumbnail side in pixels
_WHOLE, _UNFRAMED, _BARE, _INNER, _MIDDLE = range(5)
_VIEWS = 5
# Which view of one picture may show the same as which of another: a crop shows what was inside, a
# frame hides nothing.
_VIEW_PAIRS = (
    (_WHOLE, _WHOLE), (_BARE, _BARE), (_MIDDLE, _MIDDLE), (_UNFRAMED, _UNFRAMED),
    (_INNER, _WHOLE), (_WHOLE, _INNER), (_UNFRAMED, _WHOLE), (_WHOLE, _UNFRAMED),
)  # fmt: skip
_BAND = 0.15  # share of the height where captions and banners sit, at the top and at the bottom
_CROP = 0.03  # share of either side that a light crop takes away on each edge
_WORKING_SIDE = (
    96  # pictures are shrunk to at least this, and less than twice this, before thumbnails are cut
)
_BORDER_TOLERANCE = (
    48  # difference of 255 that still belongs to a uniform border: JPEG rings beside a frame's edge
)
_BORDER_SPECKS = 0.04  # share of a row or column that may differ by more
_FLAT = 2.0  # standard deviation of 255 below which a thumbnail has nothing to correlate
_FLAT_DIFFERENCE = 8.0  # two flat thumbnails are equal when their mean colours differ by less
_SKETCH_SIDE = 4  # a sketch is a thumbnail of this side
_SKETCH_SIZE = _SKETCH_SIDE * _SKETCH_SIDE * 3
# rows compared at once when all pairs are looked at: 512 x 10,000 numbers fit in the cache of a
# server
_BLOCK = 512

Thumbnails = NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a picture to recognise its copies: 3.8 kB. ValueError for thumbnails of
    another layout.
    """

    hash: int
    """64-bit difference hash."""
    mirror_hash: int
    """The same of the mirrored picture."""
    thumbnails: bytes
    """uint8 [5 views, 16, 16, RGB], C order."""

    def __post_init__(self) -> None:
        if len(self.thumbnails) != _VIEWS * _SIDE * _SIDE * 3:  # kept by another version
            raise ValueError("the thumbnails have another layout")


def difference_hash(picture: Image.Image) -> int:
    """64-bit difference hash: row by row, a bit is set where brightness rises from one of 9 columns
    to the next.
    """
    return _packed(_brightness(picture))


def fingerprint(picture: Image.Image) -> Fingerprint:
    """The fingerprint of an upright picture; transparency must have been flattened before."""
    rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    factor = min(rgb.size) // _WORKING_SIDE
    small = rgb.reduce(factor) if factor > 1 else rgb
    brightness = _brightness(small)
    return Fingerprint(
        hash=_packed(brightness),
        mirror_hash=_packed(brightness[:, ::-1]),
        thumbnails=b"".join(_thumbnail(small, box).tobytes() for box in _view_boxes(small)),
    )


class DuplicateIndex:
    """Fingerprints that have been added, searched for a verified near copy. 4.9 MB per 1,000
    pictures.
    """

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._place: dict[str, int] = {}
        self._hashes = np.empty(64, np.uint64)
        self._views = np.empty((64, _VIEWS, _SIDE, _SIDE, 3), np.uint8)
        self._sketches = np.empty((64, _VIEWS, _SKETCH_SIZE), np.float32)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, fingerprint: Fingerprint) -> None:
        """Remember a picture under a key; a key added again replaces what it stood for."""
        self.discard(key)
        place = len(self._keys)
        if place == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
            self._views = np.concatenate([self._views, np.empty_like(self._views)])
            self._sketches = np.concatenate([self._sketches, np.empty_like(self._sketches)])
        self._keys.append(key)
        self._place[key] = place
        self._hashes[place] = fingerprint.hash
        self._views[place] = _views_of(fingerprint)
        self._sketches[place] = _sketches(self._views[place])

    def discard(self, key: str) -> None:
        """Forget a picture; unknown keys are ignored. The last entry moves into the gap."""
        place = self._place.pop(key, None)
        if place is None:
            return
        last_key = self._keys.pop()
        last = len(self._keys)
        if place != last:
            self._keys[place] = last_key
            self._place[last_key] = place
            self._hashes[place] = self._hashes[last]
            self._views[place] = self._views[last]
            self._sketches[place] = self._sketches[last]

    def find(self, fingerprint: Fingerprint) -> str | None:
        """Key of the added picture that this one is most surely a copy of, or None."""
        count = len(self._keys)
        best_key, best = None, THUMBNAIL_CORRELATION
        views = _views_of(fingerprint)
        for query_hash, query in (
            (fingerprint.hash, views),
            (fingerprint.mirror_hash, views[:, :, ::-1]),
        ):
            proposed = (
                np.bitwise_count(self._hashes[:count] ^ np.uint64(query_hash)) <= HASH_DISTANCE
            )
            proposed |= _alike(_sketches(query)[None], self._sketches[:count])[0]
            near = np.flatnonzero(proposed)
            if not len(near):
                continue
            agreement = _agreement(query, self._views[near])
            at = int(agreement.argmax())
            if agreement[at] >= best:
                best_key, best = self._keys[near[at]], float(agreement[at])
        return best_key


def near_duplicate_groups(
    fingerprints: Sequence[Fingerprint], embeddings: NDArray[np.float32] | None = None
) -> list[int]:
    """Group number of every picture, numbered by first appearance: pictures linked by near copies
    share one.

    `embeddings` [n, d], when given, add the pairs that heavier crops hide from the thumbnails.
    """
    return group_by_pairs(len(fingerprints), near_duplicate_pairs(fingerprints, embeddings))


def group_by_pairs(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Group number of each of `count` pictures when every pair shares one, numbered by first
    appearance.
    """
    parent = list(range(count))
    for one, other in pairs:
        _unite(parent, one, other)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(_root(parent, i), len(numbers)) for i in range(len(parent))]


def near_duplicate_pairs(
    fingerprints: Sequence[Fingerprint], embeddings: NDArray[np.float32] | None = None
) -> Iterator[tuple[int, int]]:
    """Every pair of near copies as (smaller index, larger index), in the order of the first."""
    if not fingerprints:
        return
    marks = _Marks.of(fingerprints)
    raw, centred = (None, None) if embeddings is None else _directions(embeddings)
    for start in range(0, len(fingerprints), _BLOCK):
        rows = slice(start, start + _BLOCK)
        straight = marks.proposed(rows, mirrored=False)
        flipped = marks.proposed(rows, mirrored=True)
        likely = straight | flipped
        by_embedding = np.zeros_like(likely)
        if raw is not None and centred is not None:
            cosine = raw[rows] @ raw.T
            alike = (cosine >= EMBEDDING_COSINE) | (likely & (cosine >= PROPOSED_COSINE))
            by_embedding = alike & (centred[rows] @ centred.T >= CENTRED_COSINE)
        for row, found in enumerate(likely | by_embedding):
            one = start + row
            others = np.flatnonzero(found[one + 1 :]) + one + 1
            surely = by_embedding[row, others]
            surely |= marks.verified(one, others, straight[row, others], flipped[row, others])
            yield from ((one, int(other)) for other in others[surely])


@dataclass(frozen=True)
class _Marks:
    """The fingerprints of a set as arrays."""

    hashes: NDArray[np.uint64]
    mirrored_hashes: NDArray[np.uint64]
    views: Thumbnails
    sketches: NDArray[np.float32]
    mirrored_sketches: NDArray[np.float32]

    @classmethod
    def of(cls, fingerprints: Sequence[Fingerprint]) -> _Marks:
        views = np.stack([_views_of(each) for each in fingerprints])
        return cls(
            hashes=np.array([each.hash for each in fingerprints], np.uint64),
            mirrored_hashes=np.array([each.mirror_hash for each in fingerprints], np.uint64),
            views=views,
            sketches=_sketches(views),
            mirrored_sketches=_sketches(views[..., ::-1, :]),
        )

    def proposed(self, rows: slice, mirrored: bool) -> NDArray[np.bool_]:
        """bool [rows, n]: which pictures may be copies of those in `rows`, or of their mirror
        images.
        """
        hashes = self.mirrored_hashes if mirrored else self.hashes
        sketches = self.mirrored_sketches if mirrored else self.sketches
        close = np.bitwise_count(hashes[rows, None] ^ self.hashes[None, :]) <= HASH_DISTANCE
        return close | _alike(sketches[rows], self.sketches)

    def verified(
        self,
        one: int,
        others: NDArray[np.intp],
        straight: NDArray[np.bool_],
        flipped: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """bool [others]: whether the thumbnails agree, straight or mirrored, where that was
        proposed.
        """
        sure = np.zeros(len(others), np.bool_)
        for views, proposed in (
            (self.views[one], straight),
            (self.views[one][:, :, ::-1], flipped),
        ):
            if proposed.any():
                sure[proposed] |= (
                    _agreement(views, self.views[others[proposed]]) >= THUMBNAIL_CORRELATION
                )
        return sure


def _brightness(picture: Image.Image) -> NDArray[np.uint8]:
    """uint8 [8, 9]; Lanczos, so that hashes agree with those that other tools compute."""
    grey = picture if picture.mode == "L" else picture.convert("L")
    return np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS))


def _packed(brightness: NDArray[np.uint8]) -> int:
    return int.from_bytes(np.packbits(brightness[:, 1:] > brightness[:, :-1]).tobytes(), "big")


def _thumbnail(picture: Image.Image, box: Box) -> Image.Image:
    return picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)


def _view_boxes(picture: Image.Image) -> tuple[Box, ...]:
    """Whole, without a frame, without frame and plain margins, without the outermost, without top
    and bottom bands.
    """
    width, height = picture.size
    unframed = _shaved(_without_border(picture), picture.size)
    inside = _without_border(picture.crop(unframed))
    left, top = unframed[:2]
    bare = (left + inside[0], top + inside[1], left + inside[2], top + inside[3])
    x, y, band = width * _CROP, height * _CROP, height * _BAND
    return (
        (0, 0, width, height),
        unframed,
        bare,
        (x, y, width - x, height - y),
        (0, band, width, height - band),
    )


def _without_border(picture: Image.Image) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) of what differs from the usual colour of the edge; all of it
    if nothing does.
    """
    width, height = picture.size
    sides = (
        (0, 0, width, 1),
        (0, height - 1, width, height),
        (0, 0, 1, height),
        (width - 1, 0, width, height),
    )
    edge = np.frombuffer(
        b"".join(picture.crop(side).tobytes() for side in sides), np.uint8
    ).reshape(-1, 3)
    usual = tuple(int(value) for value in np.median(edge, axis=0))
    red, green, blue = ImageChops.difference(picture, Image.new("RGB", picture.size, usual)).split()
    largest = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))
    differs = largest > _BORDER_TOLERANCE
    rows = np.flatnonzero(np.count_nonzero(differs, axis=1) > _BORDER_SPECKS * width)
    columns = np.flatnonzero(np.count_nonzero(differs, axis=0) > _BORDER_SPECKS * height)
    if not len(rows) or not len(columns):
        return (0, 0, width, height)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _shaved(box: Box, size: tuple[int, int]) -> Box:
    """The box without the pixel inside each edge that is not the picture's own: it may be half
    border.
    """
    left, top, right, bottom = box
    if right - left < _SIDE or bottom - top < _SIDE:
        return box
    return (
        left + (left > 0),
        top + (top > 0),
        right - (right < size[0]),
        bottom - (bottom < size[1]),
    )


def _views_of(fingerprint: Fingerprint) -> Thumbnails:
    return np.frombuffer(fingerprint.thumbnails, np.uint8).reshape(_VIEWS, _SIDE, _SIDE, 3)


def _sketches(views: Thumbnails) -> NDArray[np.float32]:
    """float32 [..., 48]: unit vectors of coarse thumbnails [..., 16, 16, 3] around their mean;
    zeros for flat ones.
    """
    cell = _SIDE // _SKETCH_SIDE
    cells = views.reshape(*views.shape[:-3], _SKETCH_SIDE, cell, _SKETCH_SIDE, cell, 3)
    coarse = cells.mean(axis=(-4, -2), dtype=np.float32).reshape(*views.shape[:-3], _SKETCH_SIZE)
    coarse -= coarse.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(coarse, axis=-1, keepdims=True)
    flat = length < _FLAT * _SKETCH_SIZE**0.5
    return np.where(flat, 0.0, coarse / np.maximum(length, 1e-6)).astype(np.float32)


def _alike(sketches: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool [m, n]: whether sketches [m, 5, 48] and [n, 5, 48] correlate in any of the pairs of
    views.
    """
    found = np.zeros((len(sketches), len(others)), np.bool_)
    for one, other in _VIEW_PAIRS:
        found |= sketches[:, one] @ others[:, other].T >= SKETCH_CORRELATION
    return found


def _agreement(views: Thumbnails, others: Thumbnails) -> NDArray[np.float32]:
    """float32 [n]: the best correlation of one picture's views [5, 16, 16, 3] with each of [n, 5,
    16, 16, 3].

    Only pairs of views whose colours agree count; without any it is 0. Two flat views of one colour
    agree wholly.
    """
    one = views.reshape(_VIEWS, -1).astype(np.float32)
    many = others.reshape(len(others), _VIEWS, -1).astype(np.float32)
    one_mean, many_mean = one.mean(axis=1), many.mean(axis=2)
    one_spread, many_spread = one.std(axis=1), many.std(axis=2)
    best = np.zeros(len(others), np.float32)
    for i, j in _VIEW_PAIRS:
        product = (many[:, j] @ one[i]) / one.shape[1] - many_mean[:, j] * one_mean[i]
        correlation = product / np.maximum(many_spread[:, j] * one_spread[i], 1e-6)
        flat = (one_spread[i] < _FLAT) + (many_spread[:, j] < _FLAT).astype(np.int8)
        same_colour = np.abs(many_mean[:, j] - one_mean[i]) < _FLAT_DIFFERENCE
        correlation = np.where(flat > 0, (flat == 2) & same_colour, correlation)
        close = np.abs(many[:, j] - one[i]).mean(axis=1) <= THUMBNAIL_DIFFERENCE
        best = np.maximum(best, np.where(close, correlation, 0.0))
    return best.astype(np.float32)


def _directions(embeddings: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors of the embeddings as they are, and with the mean direction of the set taken
    away.

    In a set where everything looks alike, plain cosines are all high; the centred ones still tell
    copies apart.
    """
    raw = _unit(embeddings)
    return raw, _unit(raw - raw.mean(axis=0))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def _root(parent: list[int], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


def _unite(parent: list[int], one: int, other: int) -> None:
    parent[_root(parent, other)] = _root(parent, one)
