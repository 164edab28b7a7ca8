"""Near-duplicates: the same photograph resized, re-encoded, mirrored, captioned, framed or cropped.

A 64-bit difference hash and a coarse sketch of the colours only *propose* a pair, because cut-outs
on white share most of either. A pair counts when small colour thumbnails of the two agree as well,
in their pattern and in their colours. In training a pair counts too when its embeddings are close
(`PROPOSED_COSINE`), without a proposal when they are closer (`EMBEDDING_COSINE`), in either case if
`CENTRED_COSINE` is reached. Sets of images that all look alike, as fabrics do, are asked for more:
see `_FLAT` and `CROWD`. numpy and Pillow alone: `scraping` imports this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

HASH_DISTANCE = 10  # bits of 64 that two duplicates may differ in to be proposed
SKETCH_CORRELATION = 0.88  # at least this, in one pair of views, proposes two images too
THUMBNAIL_CORRELATION = 0.93  # at least this, in one pair of views, verifies a proposal,
THUMBNAIL_DIFFERENCE = 12.0  # if the same views differ by no more than this of 255 on average
EMBEDDING_COSINE = 0.9  # embeddings this close count without a proposal
PROPOSED_COSINE = 0.8  # embeddings this close count for a proposed pair
# Cosine that must be left of either when the average embedding of the set is taken away.
CENTRED_COSINE = 0.8
# An image is crowded when at least so many others, and this share of all, are within
# EMBEDDING_COSINE of it: there such a cosine is nothing special, and more must be left of it.
CROWD = 10
CROWD_SHARE = 0.1
CROWDED_CENTRED_COSINE = 0.95

_SIDE = 16  # thumbnail side in pixels
_WHOLE, _UNFRAMED, _BARE, _INNER, _MIDDLE = range(5)
_VIEWS = 5
# Which view of one image may show the same as which of another: a crop shows what was inside, a
# frame hides nothing.
_VIEW_PAIRS = (
    (_WHOLE, _WHOLE), (_BARE, _BARE), (_MIDDLE, _MIDDLE), (_UNFRAMED, _UNFRAMED),
    (_INNER, _WHOLE), (_WHOLE, _INNER), (_UNFRAMED, _WHOLE), (_WHOLE, _UNFRAMED),
)  # fmt: skip
_BAND = 0.15  # share of the height where captions and banners sit, at the top and at the bottom
_CROP = 0.03  # share of either side that a light crop takes away on each edge
# Images are shrunk to at least this, and less than twice this, before thumbnails are cut.
_WORKING_SIDE = 96
# Difference of 255 that still belongs to a uniform border: JPEG artefacts beside a frame's edge.
_BORDER_TOLERANCE = 48
_BORDER_SPECKS = 0.04  # share of a row or column that may differ by more
# Standard deviation of 255 below which compression hides much of a thumbnail's pattern. What
# is left of it still correlates: by 0.3 to 0.9 in copies, by 0.25 at most in different fabrics.
_FLAT = 2.0
_FLAT_CORRELATION = 0.3
_PLAIN = 0.3  # standard deviation that rounding alone may cause: no pattern is left to correlate
_FLAT_DIFFERENCE = (
    8.0  # two plain views are equal when no channel of their mean colours differs by more
)
# The mean colour of a thumbnail is its 768 values times this: [768, 3].
_CHANNELS: NDArray[np.float32] = np.tile(np.eye(3, dtype=np.float32), (_SIDE * _SIDE, 1))
_CHANNELS /= _SIDE * _SIDE
_SKETCH_SIDE = 4  # a sketch is a thumbnail of this side
_SKETCH_SIZE = _SKETCH_SIDE * _SKETCH_SIDE * 3
# Rows compared at once when all pairs are compared: 512 x 10,000 numbers fit in the cache of a
# server.
_BLOCK = 512

Thumbnails = NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Fingerprint:
    """Hashes and thumbnails of an image, to recognise its duplicates: 3.8 kB.

    Raises ValueError for thumbnails of another layout.
    """

    hash: int
    """64-bit difference hash."""
    mirror_hash: int
    """The same of the mirrored image."""
    thumbnails: bytes
    """uint8 [5 views, 16, 16, RGB], C order."""

    def __post_init__(self) -> None:
        size = _VIEWS * _SIDE * _SIDE * 3
        if len(self.thumbnails) != size:  # kept by another version
            raise ValueError("the thumbnails have another layout")


def difference_hash(image: Image.Image) -> int:
    """Return the 64-bit difference hash (N. Krawetz 2013).

    Row by row, a bit is set where brightness rises from one of 9 columns to the next.
    """
    return _packed_hash(_brightness(image))


def fingerprint(image: Image.Image) -> Fingerprint:
    """Return the fingerprint of an upright image; transparency must have been flattened before."""
    small = image
    if small.mode != "RGB":
        small = small.convert("RGB")
    factor = min(small.size) // _WORKING_SIDE
    if factor > 1:
        small = small.reduce(factor)

    brightness = _brightness(small)
    mirrored_brightness = brightness[:, ::-1]
    thumbnails = []
    size = (_SIDE, _SIDE)
    for number, box in enumerate(_view_boxes(small)):
        view = small
        if number in (_UNFRAMED, _BARE):  # resize would let pixels beyond the box in at its edges
            view = small.crop(box)
            box = (0, 0, *view.size)
        thumbnail = view.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
        thumbnails.append(thumbnail.tobytes())
    return Fingerprint(
        hash=_packed_hash(brightness),
        mirror_hash=_packed_hash(mirrored_brightness),
        thumbnails=b"".join(thumbnails),
    )


class DuplicateIndex:
    """Fingerprints that have been added, searched for a near-duplicate: 4.9 MB per 1,000 images."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._index_of: dict[str, int] = {}
        # Arrays of their own: hashes and sketches are compared for all images, views for few.
        self._hashes = np.empty(64, np.uint64)
        self._views = np.empty((64, _VIEWS, _SIDE, _SIDE, 3), np.uint8)
        self._sketches = np.empty((64, _VIEWS, _SKETCH_SIZE), np.float32)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, fingerprint: Fingerprint) -> None:
        """Remember an image under a key; a key added again replaces its image."""
        self.discard(key)
        index = len(self._keys)
        if index == len(self._hashes):
            self._hashes = _doubled(self._hashes)
            self._views = _doubled(self._views)
            self._sketches = _doubled(self._sketches)
        views = _views_of(fingerprint)
        sketches = _sketches(views)
        self._keys.append(key)
        self._index_of[key] = index
        self._hashes[index] = fingerprint.hash
        self._views[index] = views
        self._sketches[index] = sketches

    def discard(self, key: str) -> None:
        """Forget an image; unknown keys are ignored. The last entry moves into the gap."""
        index = self._index_of.pop(key, None)
        if index is None:
            return
        last_key = self._keys.pop()
        last = len(self._keys)
        if index != last:
            self._keys[index] = last_key
            self._index_of[last_key] = index
            for array in (self._hashes, self._views, self._sketches):
                array[index] = array[last]

    def find(self, fingerprint: Fingerprint) -> str | None:
        """Return the key of the added image that this one duplicates, the best match, or None."""
        views = _views_of(fingerprint)
        mirrored = views[:, :, ::-1]
        straight_query = (fingerprint.hash, views)
        mirrored_query = (fingerprint.mirror_hash, mirrored)
        best_key = None
        best = THUMBNAIL_CORRELATION
        for query_hash, query in (straight_query, mirrored_query):
            proposed = self._proposed(query_hash, query)
            if not len(proposed):
                continue
            candidates = self._views[proposed]
            agreement = _agreement(query, candidates)
            at = int(agreement.argmax())
            if agreement[at] >= best:
                best = float(agreement[at])
                best_key = self._keys[proposed[at]]
        return best_key

    def _proposed(self, query_hash: int, query: Thumbnails) -> NDArray[np.intp]:
        """Return the indices of images that hash or sketch propose as duplicates of a query."""
        count = len(self._keys)
        different_bits = self._hashes[:count] ^ np.uint64(query_hash)
        close = np.bitwise_count(different_bits) <= HASH_DISTANCE
        query_sketches = _sketches(query)
        agree = _sketches_agree(query_sketches[None], self._sketches[:count])
        return np.flatnonzero(close | agree[0])


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array with as much room again."""
    return np.concatenate([array, np.empty_like(array)])


def group_by_pairs(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return the group number of each of `count` images when both of every pair share one.

    Groups are numbered by first appearance.
    """
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            grandparent = parent[parent[node]]
            parent[node] = grandparent
            node = grandparent
        return node

    for one, other in pairs:
        parent[root(other)] = root(one)

    numbers: dict[int, int] = {}
    groups = []
    for index in range(count):
        next_number = len(numbers)
        number = numbers.setdefault(root(index), next_number)
        groups.append(number)
    return groups


def near_duplicate_pairs(
    fingerprints: Sequence[Fingerprint], embeddings: NDArray[np.float32] | None = None
) -> Iterator[tuple[int, int]]:
    """Yield every pair of near-duplicates as (smaller index, larger index), in order of the first.

    `embeddings` [n, d], when given, add the pairs that heavier crops hide from the thumbnails.
    """
    if not fingerprints:
        return
    stacked = _Fingerprints.of(fingerprints)
    directions = None if embeddings is None else _Directions.of(embeddings)
    for start in range(0, len(fingerprints), _BLOCK):
        rows = slice(start, start + _BLOCK)
        straight = stacked.proposed(rows, mirrored=False)
        flipped = stacked.proposed(rows, mirrored=True)
        proposed = straight | flipped
        by_embedding = np.zeros_like(proposed)
        if directions:
            by_embedding = directions.alike(rows, proposed)
        for row, candidates in enumerate(proposed | by_embedding):
            one = start + row
            later = candidates[one + 1 :]
            others = np.flatnonzero(later)
            others += one + 1
            straight_others = straight[row, others]
            flipped_others = flipped[row, others]
            found = stacked.verified(one, others, straight_others, flipped_others)
            close = by_embedding[row, others]
            found |= close
            if directions and stacked.plain[one]:
                # Fine fabrics of one colour look as plain as paper: there embeddings decide.
                both_plain = stacked.plain[others]
                found[both_plain] = close[both_plain]
            for other in others[found]:
                yield one, int(other)


@dataclass(frozen=True)
class _Fingerprints:
    """The fingerprints of n images as arrays."""

    hashes: NDArray[np.uint64]
    """[n]."""
    mirrored_hashes: NDArray[np.uint64]
    views: Thumbnails
    """[n, 5, 16, 16, 3]."""
    sketches: NDArray[np.float32]
    """[n, 5, 48]."""
    mirrored_sketches: NDArray[np.float32]
    plain: NDArray[np.bool_]
    """[n], whether there is no pattern within the frame, if there is a frame."""

    @classmethod
    def of(cls, fingerprints: Sequence[Fingerprint]) -> _Fingerprints:
        """Stack fingerprints."""
        hashes = [each.hash for each in fingerprints]
        mirrored_hashes = [each.mirror_hash for each in fingerprints]
        views = np.stack([_views_of(each) for each in fingerprints])
        mirrored_views = views[..., ::-1, :]
        bare = views[:, _BARE].reshape(len(views), -1).astype(np.float32)
        colours: NDArray[np.float32] = bare @ _CHANNELS
        return cls(
            hashes=np.array(hashes, np.uint64),
            mirrored_hashes=np.array(mirrored_hashes, np.uint64),
            views=views,
            sketches=_sketches(views),
            mirrored_sketches=_sketches(mirrored_views),
            plain=_spread(bare, colours) < _PLAIN,
        )

    def proposed(self, rows: slice, mirrored: bool) -> NDArray[np.bool_]:
        """Return which images may duplicate those in `rows`, or their mirror images.

        The answer is bool [rows, n].
        """
        hashes = self.mirrored_hashes if mirrored else self.hashes
        sketches = self.mirrored_sketches if mirrored else self.sketches
        hashes = hashes[rows]
        sketches = sketches[rows]
        column = hashes[:, None]
        different_bits = column ^ self.hashes[None, :]
        close = np.bitwise_count(different_bits) <= HASH_DISTANCE
        agree = _sketches_agree(sketches, self.sketches)
        return close | agree

    def verified(
        self,
        one: int,
        others: NDArray[np.intp],
        straight: NDArray[np.bool_],
        flipped: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Return whether the thumbnails agree, straight or mirrored, where that was proposed.

        `straight` and `flipped` say it for each of `others` [m]; the answer is bool [m].
        """
        views = self.views[one]
        mirrored = views[:, :, ::-1]
        queries = ((views, straight), (mirrored, flipped))
        verified = np.zeros(len(others), np.bool_)
        for query, proposed in queries:
            if not proposed.any():
                continue
            candidates = self.views[others[proposed]]
            agreement = _agreement(query, candidates)
            verified[proposed] |= agreement >= THUMBNAIL_CORRELATION
        return verified


@dataclass(frozen=True)
class _Directions:
    """The embeddings of n images as unit vectors [n, d].

    In a set where everything looks alike, plain cosines are all high. Those of the vectors with the
    mean of the set taken away still tell duplicates apart.
    """

    raw: NDArray[np.float32]
    centred: NDArray[np.float32]
    crowded: NDArray[np.bool_]
    """[n], whether so much looks like an image that likeness says little."""

    @classmethod
    def of(cls, embeddings: NDArray[np.float32]) -> _Directions:
        """Scale embeddings to length 1, as they are and around their mean, and count neighbours."""
        raw = _unit(embeddings)
        mean = raw.mean(axis=0)
        centred = _unit(raw - mean)
        neighbours = np.empty(len(raw), np.int64)
        for start in range(0, len(raw), _BLOCK):
            rows = slice(start, start + _BLOCK)
            close = raw[rows] @ raw.T >= EMBEDDING_COSINE
            neighbours[rows] = np.count_nonzero(close, axis=1) - 1  # itself
        crowd = max(CROWD, CROWD_SHARE * len(raw))
        return cls(raw, centred, neighbours >= crowd)

    def alike(self, rows: slice, proposed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which images duplicate those in `rows` by their embeddings: bool [rows, n]."""
        cosines = self.raw[rows] @ self.raw.T
        close = cosines >= EMBEDDING_COSINE
        nearly_close = cosines >= PROPOSED_COSINE
        close |= proposed & nearly_close
        centred_cosines = self.centred[rows] @ self.centred.T
        still_close = centred_cosines >= CENTRED_COSINE
        very_close = centred_cosines >= CROWDED_CENTRED_COSINE
        crowded = self.crowded[rows, None] | self.crowded[None, :]
        special = very_close | ~crowded
        return close & still_close & special


def _brightness(image: Image.Image) -> NDArray[np.uint8]:
    """Return uint8 [8, 9]; by Lanczos, so that hashes agree with those that other tools compute."""
    grey = image
    if grey.mode != "L":
        grey = grey.convert("L")
    small = grey.resize((9, 8), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _packed_hash(brightness: NDArray[np.uint8]) -> int:
    left = brightness[:, :-1]
    right = brightness[:, 1:]
    bits = np.packbits(right > left)
    return int.from_bytes(bits.tobytes(), "big")


def _view_boxes(image: Image.Image) -> tuple[Box, ...]:
    """Return the boxes of the five views, in their order.

    They are the whole image, without a frame, without frame and plain margins, without the
    outermost, and without bands at top and bottom.
    """
    width, height = image.size
    unframed = _without_edge_pixels(_without_border(image), image.size)
    inside = _without_border(image.crop(unframed))
    x, y = unframed[:2]
    left, top, right, bottom = inside
    bare = (x + left, y + top, x + right, y + bottom)
    side = width * _CROP
    end = height * _CROP
    band = height * _BAND
    return (
        (0, 0, width, height),
        unframed,
        bare,
        (side, end, width - side, height - end),
        (0, band, width, height - band),
    )


def _without_border(image: Image.Image) -> tuple[int, int, int, int]:
    """Return the box (left, top, right, bottom) of all that differs from the usual edge colour.

    Where nothing does, or a speck alone, it is the whole image.
    """
    width, height = image.size
    edges = (
        (0, 0, width, 1),
        (0, height - 1, width, height),
        (0, 0, 1, height),
        (width - 1, 0, width, height),
    )
    edge_bytes = b""
    for edge in edges:
        strip = image.crop(edge)
        edge_bytes += strip.tobytes()
    edge_values = np.frombuffer(edge_bytes, np.uint8)
    edge_pixels = edge_values.reshape(-1, 3)
    median = np.median(edge_pixels, axis=0)
    usual = tuple(int(value) for value in median)

    plain = Image.new("RGB", image.size, usual)
    difference = ImageChops.difference(image, plain)
    red, green, blue = difference.split()
    largest = ImageChops.lighter(red, green)
    largest = ImageChops.lighter(largest, blue)
    differs = np.asarray(largest) > _BORDER_TOLERANCE

    in_row = np.count_nonzero(differs, axis=1)
    in_column = np.count_nonzero(differs, axis=0)
    row_specks = _BORDER_SPECKS * width
    column_specks = _BORDER_SPECKS * height
    rows = np.flatnonzero(in_row > row_specks)
    columns = np.flatnonzero(in_column > column_specks)
    if not len(rows) or not len(columns):
        return (0, 0, width, height)
    left = int(columns[0])
    top = int(rows[0])
    right = int(columns[-1]) + 1
    bottom = int(rows[-1]) + 1
    if max(right - left, bottom - top) < _SIDE:  # a speck of a fabric, not an image in a frame
        return (0, 0, width, height)
    return left, top, right, bottom


def _without_edge_pixels(box: Box, size: tuple[int, int]) -> Box:
    """Take one pixel off each edge that is not the image's own: it may be half border."""
    left, top, right, bottom = box
    width, height = size
    shorter = min(right - left, bottom - top)
    if shorter < _SIDE:
        return box
    return (
        left + (left > 0),
        top + (top > 0),
        right - (right < width),
        bottom - (bottom < height),
    )


def _views_of(fingerprint: Fingerprint) -> Thumbnails:
    values = np.frombuffer(fingerprint.thumbnails, np.uint8)
    return values.reshape(_VIEWS, _SIDE, _SIDE, 3)


def _sketches(views: Thumbnails) -> NDArray[np.float32]:
    """Return the sketches [..., 48] of views [..., 16, 16, 3].

    They are unit vectors of coarse thumbnails around their mean; zeros for a flat view.
    """
    leading = views.shape[:-3]
    cell = _SIDE // _SKETCH_SIDE
    cells = views.reshape(*leading, _SKETCH_SIDE, cell, _SKETCH_SIDE, cell, 3)
    within_cell = (-4, -2)
    means = cells.mean(axis=within_cell, dtype=np.float32)
    coarse = means.reshape(*leading, _SKETCH_SIZE)
    coarse -= coarse.mean(axis=-1, keepdims=True)

    length = np.linalg.norm(coarse, axis=-1, keepdims=True)
    shortest = _FLAT * _SKETCH_SIZE**0.5
    flat = length < shortest
    length = np.maximum(length, 1e-6)
    sketches = np.where(flat, 0.0, coarse / length)
    return sketches.astype(np.float32)


def _sketches_agree(
    sketches: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Return whether sketches [m, 5, 48] and [n, 5, 48] correlate in any pair of views: [m, n]."""
    shape = (len(sketches), len(others))
    agree = np.zeros(shape, np.bool_)
    for i, j in _VIEW_PAIRS:
        these = sketches[:, i]
        those = others[:, j]
        correlation = these @ those.T
        agree |= correlation >= SKETCH_CORRELATION
    return agree


def _agreement(views: Thumbnails, others: Thumbnails) -> NDArray[np.float32]:
    """Return the best correlation of one image's views with each of others: float32 [n].

    Views are [5, 16, 16, 3] and [n, 5, 16, 16, 3]. Only pairs of views whose colours agree count;
    without any it is 0. Two flat views agree wholly if they are plain and of one colour, or if what
    there is of a pattern is alike.
    """
    count = len(others)
    one = views.reshape(_VIEWS, -1).astype(np.float32)  # [5, 768]
    many = others.reshape(count, _VIEWS, -1).astype(np.float32)
    many = many.swapaxes(0, 1)  # [5, n, 768]
    # Small numbers, so that little is lost where squares are subtracted.
    offset = np.tile(one[_WHOLE] @ _CHANNELS, _SIDE * _SIDE)
    one -= offset
    many -= offset
    one_colours: NDArray[np.float32] = one @ _CHANNELS
    many_colours: NDArray[np.float32] = many @ _CHANNELS
    one_spread = _spread(one, one_colours)
    many_spread = _spread(many, many_colours)

    best = np.zeros(count, np.float32)
    for i, j in _VIEW_PAIRS:
        view = one[i]
        view_colours = one_colours[i]
        view_spread = one_spread[i]
        those = many[j]
        their_colours = many_colours[j]
        their_spread = many_spread[j]
        product_mean = those @ view / view.size
        # Around the mean of each channel: fabrics dyed alike share no more than those.
        colour_product = their_colours @ view_colours / 3
        covariance = product_mean - colour_product
        spreads = their_spread * view_spread
        correlation = covariance / np.maximum(spreads, 1e-6)
        least_spread = np.minimum(their_spread, view_spread)
        either_flat = least_spread < _FLAT
        if either_flat.any():
            both_spread = np.maximum(their_spread, view_spread)
            channel_difference = np.abs(their_colours - view_colours)
            same_colour = channel_difference.max(axis=1) < _FLAT_DIFFERENCE
            both_plain = both_spread < _PLAIN
            alike = correlation >= _FLAT_CORRELATION
            alike |= both_plain & same_colour
            both_flat = both_spread < _FLAT
            correlation[either_flat] = 0
            correlation[alike & both_flat] = 1

        difference = np.abs(those - view)
        mean_pixel_difference = difference.mean(axis=1)
        far = mean_pixel_difference > THUMBNAIL_DIFFERENCE
        correlation[far] = 0
        best = np.maximum(best, correlation)
    return best


def _spread(views: NDArray[np.float32], colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the standard deviation [...] of views [..., 768] around their colours [..., 3]."""
    mean_square = np.einsum("...k,...k->...", views, views) / views.shape[-1]
    colour_square = np.einsum("...k,...k->...", colours, colours) / 3
    variance = mean_square - colour_square
    return np.sqrt(np.maximum(variance, 0))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors [n, d] to length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths = np.maximum(lengths, 1e-12)
    unit = vectors / lengths
    return unit.astype(np.float32)
