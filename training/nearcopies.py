"""Near copies: the same photograph resized, re-encoded, captioned, framed or mirrored.

A 64-bit difference hash of the picture and of its mirror image only *proposes* a pair, because cut-outs on white share
most of their bits. A pair counts when small colour thumbnails of the two agree as well, or, in training, when their
embeddings do. numpy and Pillow alone: `scraping` imports this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_DISTANCE = 10  # bits of 64 that two copies may differ in to be proposed
THUMBNAIL_CORRELATION = 0.9  # at least this, in one of the three views, verifies a proposal
EMBEDDING_COSINE = 0.9  # embeddings this close count without a proposal
PROPOSED_COSINE = 0.8  # embeddings this close count for a proposed pair
CENTRED_COSINE = 0.8  # what must be left of either when the average picture of the set is taken away

_SIDE = 16  # thumbnail side in pixels
_VIEWS = 3  # whole, without a uniform border, without the top and bottom bands
_BAND = 0.15  # share of the height where captions and banners sit, at the top and at the bottom
_WORKING_SIDE = 128  # pictures are shrunk to about this before thumbnails are cut
_BORDER_TOLERANCE = 16  # difference of 255 that still belongs to a uniform border (JPEG noise)
_FLAT = 2.0  # standard deviation of 255 below which a thumbnail has nothing to correlate
_FLAT_DIFFERENCE = 8.0  # two flat thumbnails are equal when their mean colours differ by less
_BLOCK = 1024  # rows compared at once when all pairs are looked at: 1024 x 10,000 numbers fit in the cache of a server

Thumbnails = NDArray[np.uint8]


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a picture to recognise its copies: 2.3 kB."""

    hash: int
    """64-bit difference hash."""
    mirror_hash: int
    """The same of the mirrored picture."""
    thumbnails: bytes
    """uint8 [3 views, 16, 16, RGB], C order."""


def difference_hash(picture: Image.Image) -> int:
    """64-bit difference hash: row by row, a bit is set where brightness rises from one of 9 columns to the next."""
    return _packed(_brightness(picture))


def fingerprint(picture: Image.Image) -> Fingerprint:
    """The fingerprint of an upright picture; transparency must have been flattened before."""
    brightness = _brightness(picture)
    rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    return Fingerprint(
        hash=_packed(brightness),
        mirror_hash=_packed(brightness[:, ::-1]),
        thumbnails=_thumbnails(rgb).tobytes(),
    )


class CopyIndex:
    """Fingerprints that have been added, searched for a verified near copy. 2.4 MB per 1,000 pictures."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._place: dict[str, int] = {}
        self._hashes = np.empty(64, np.uint64)
        self._views = np.empty((64, _VIEWS, _SIDE, _SIDE, 3), np.uint8)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, fingerprint: Fingerprint) -> None:
        """Remember a picture under a key; a key added again replaces what it stood for."""
        self.discard(key)
        place = len(self._keys)
        if place == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
            self._views = np.concatenate([self._views, np.empty_like(self._views)])
        self._keys.append(key)
        self._place[key] = place
        self._hashes[place] = fingerprint.hash
        self._views[place] = _views_of(fingerprint)

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

    def find(self, fingerprint: Fingerprint) -> str | None:
        """Key of the added picture that this one is most surely a copy of, or None."""
        count = len(self._keys)
        if not count:
            return None
        best_key, best = None, THUMBNAIL_CORRELATION
        views = _views_of(fingerprint)
        for query_hash, query in ((fingerprint.hash, views), (fingerprint.mirror_hash, views[:, :, ::-1])):
            near = np.flatnonzero(np.bitwise_count(self._hashes[:count] ^ np.uint64(query_hash)) <= HASH_DISTANCE)
            if not len(near):
                continue
            agreement = _correlations(query, self._views[near])
            at = int(agreement.argmax())
            if agreement[at] >= best:
                best_key, best = self._keys[near[at]], float(agreement[at])
        return best_key


def near_copy_groups(fingerprints: Sequence[Fingerprint], embeddings: NDArray[np.float32] | None = None) -> list[int]:
    """Group number of every picture, numbered by first appearance: pictures linked by near copies share one.

    `embeddings` [n, d], when given, add the pairs that crops and frames hide from the hash.
    """
    return groups_of_pairs(len(fingerprints), near_copy_pairs(fingerprints, embeddings))


def groups_of_pairs(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Group number of each of `count` pictures when every pair shares one, numbered by first appearance."""
    parent = list(range(count))
    for one, other in pairs:
        _unite(parent, one, other)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(_root(parent, i), len(numbers)) for i in range(len(parent))]


def near_copy_pairs(
    fingerprints: Sequence[Fingerprint], embeddings: NDArray[np.float32] | None = None
) -> Iterator[tuple[int, int]]:
    """Every pair of near copies as (smaller index, larger index), in the order of the first."""
    hashes = np.array([f.hash for f in fingerprints], np.uint64)
    mirrored = np.array([f.mirror_hash for f in fingerprints], np.uint64)
    raw, centred = (None, None) if embeddings is None else _directions(embeddings)
    for start in range(0, len(hashes), _BLOCK):
        rows = slice(start, start + _BLOCK)
        straight = _close(hashes[rows], hashes)
        flipped = _close(mirrored[rows], hashes)
        likely = straight | flipped
        by_embedding = np.zeros_like(likely)
        if raw is not None and centred is not None:
            cosine = raw[rows] @ raw.T
            alike = (cosine >= EMBEDDING_COSINE) | (likely & (cosine >= PROPOSED_COSINE))
            by_embedding = alike & (centred[rows] @ centred.T >= CENTRED_COSINE)
        for row, other in zip(*np.nonzero(likely | by_embedding), strict=True):
            one = start + int(row)
            if one < other and (by_embedding[row, other] or _verified(fingerprints[one], fingerprints[int(other)])):
                yield one, int(other)


def _brightness(picture: Image.Image) -> NDArray[np.uint8]:
    """uint8 [8, 9]; Lanczos, so that hashes agree with those that other tools compute."""
    grey = picture if picture.mode == "L" else picture.convert("L")
    return np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS))


def _packed(brightness: NDArray[np.uint8]) -> int:
    return int.from_bytes(np.packbits(brightness[:, 1:] > brightness[:, :-1]).tobytes(), "big")


def _thumbnails(picture: Image.Image) -> Thumbnails:
    """uint8 [3, 16, 16, 3]: the whole picture, without a uniform border, without top and bottom bands."""
    factor = max(1, min(picture.size) // _WORKING_SIDE)
    small = picture.reduce(factor) if factor > 1 else picture
    width, height = small.size
    band = int(height * _BAND)
    boxes = ((0, 0, width, height), _without_border(small), (0, band, width, height - band))
    views = [small.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, box=box) for box in boxes]
    return np.stack([np.asarray(view) for view in views])


def _without_border(picture: Image.Image) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) of what differs from the usual colour of the edge; all of it if nothing does."""
    pixels = np.asarray(picture).astype(np.int16)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    differs = (np.abs(pixels - np.median(edge, axis=0)) > _BORDER_TOLERANCE).any(axis=2)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not len(rows):
        return (0, 0, *picture.size)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _views_of(fingerprint: Fingerprint) -> Thumbnails:
    return np.frombuffer(fingerprint.thumbnails, np.uint8).reshape(_VIEWS, _SIDE, _SIDE, 3)


def _correlations(views: Thumbnails, others: Thumbnails) -> NDArray[np.float32]:
    """float32 [n]: best correlation over the views of one picture [3, 16, 16, 3] with each of [n, 3, 16, 16, 3]."""
    one = views.reshape(_VIEWS, -1).astype(np.float32)
    many = others.reshape(len(others), _VIEWS, -1).astype(np.float32)
    one_mean, many_mean = one.mean(axis=1), many.mean(axis=2)
    one_spread, many_spread = one.std(axis=1), many.std(axis=2)
    product = np.einsum("vk,nvk->nv", one - one_mean[:, None], many - many_mean[..., None]) / one.shape[1]
    correlation = product / np.maximum(one_spread * many_spread, 1e-6)
    both_flat = (one_spread < _FLAT) & (many_spread < _FLAT)
    any_flat = (one_spread < _FLAT) | (many_spread < _FLAT)
    same_colour = np.abs(one_mean - many_mean) < _FLAT_DIFFERENCE
    correlation = np.where(any_flat, (both_flat & same_colour).astype(np.float32), correlation)
    return correlation.max(axis=1)


def _verified(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether the thumbnails of a pair agree, straight or mirrored, where the hashes proposed it."""
    views, others = _views_of(one), _views_of(other)[None]
    straight = (one.hash ^ other.hash).bit_count() <= HASH_DISTANCE
    flipped = (one.mirror_hash ^ other.hash).bit_count() <= HASH_DISTANCE
    return bool(
        (straight and _correlations(views, others)[0] >= THUMBNAIL_CORRELATION)
        or (flipped and _correlations(views[:, :, ::-1], others)[0] >= THUMBNAIL_CORRELATION)
    )


def _close(rows: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    return np.bitwise_count(rows[:, None] ^ hashes[None, :]) <= HASH_DISTANCE


def _directions(embeddings: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors of the embeddings as they are, and with the mean direction of the set taken away.

    In a set where everything looks alike, plain cosines are all high; the centred ones still tell copies apart.
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
