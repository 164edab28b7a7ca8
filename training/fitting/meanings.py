"""Whether the images of a class fall into clearly separate groups: jaguars and Jaguars.

A class is cut in two where that leaves the least spread (2-means on its first principal
components). Every set of images can be cut, so the cut must be better than that of images that
are spread evenly: less spread than in normal data of the same components (as SigClust does: Liu
and others, 2008), and nearly every image must have its nearest neighbours on its own side.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.fitting.selection import SplitImages
from training.meanings import ClassGroups, ImageGroup
from training.metrics import Floats, Labels
from training.networks.novelty import to_unit_length
from training.run_folder import ImageRow

MOST_GROUPS = 4
LEAST_OF_GROUP = 8  # different images
LEAST_SHARE = 0.1  # of the class's images
LEAST_SURPRISE = 1.2  # deviations that the cut is better than those of normal data
MOST_CROSSING = 0.12  # neighbours on the other side, as a share of what chance would give

_COMPONENTS = 4
_NEIGHBOURS = 5
_REFERENCES = 30  # sets of normal data
_STARTS = 6
_ROUNDS = 30  # of 2-means; it settles after about ten
_IMAGES_OF_SHOWN_GROUP = 12  # about, where the groups are only to look through
_MOST_WORDS = 3
_TINY = 1e-9
_LEAST_TITLES = 0.25  # of a group, that have a word

_WORD = re.compile(r"[^\W\d_]{3,}")
_COMMON_WORDS = {"and", "art", "commons", "dsc", "file", "for", "from", "image", "images", "img"}
_COMMON_WORDS |= {"jpeg", "jpg", "photo", "photograph", "photos", "picture", "png", "the", "this"}
_COMMON_WORDS |= {"wikimedia", "with"}


@dataclass(frozen=True)
class Cut:
    """A cut of n images in two."""

    sides: Labels
    """[n], 0 or 1."""
    surprise: float
    """How much better it is than cuts of normal data, in their standard deviations."""
    crossing: float
    """Nearest neighbours on the other side, as a share of chance; of the worse side."""

    @property
    def is_clear(self) -> bool:
        return self.surprise >= LEAST_SURPRISE and self.crossing <= MOST_CROSSING


def groups_by_class(images: SplitImages, names: Sequence[str]) -> list[ClassGroups]:
    """Return the groups of all classes, whose names are given in output order."""
    found = []
    for number, name in enumerate(names):
        members = np.flatnonzero(images.labels == number)
        rows = [images.rows[index] for index in members]
        groups = class_groups(
            rows=rows,
            embeddings=images.embeddings[members],
            copies=images.groups[members],
            name=name,
            seed=images.seed,
        )
        found.append(groups)
    return found


def class_groups(
    rows: Sequence[ImageRow],
    embeddings: NDArray[np.float32],
    copies: Labels,
    name: str,
    seed: int,
) -> ClassGroups:
    """Return the images of one class in groups.

    :param embeddings: [n, d], of the images in `rows`
    :param copies: [n], near-duplicates share a number and count once
    :param name: of the class; its words tell nothing about a group
    """
    _, firsts, of_copy = np.unique(copies, return_index=True, return_inverse=True)
    directions = to_unit_length(embeddings)
    different = directions[firsts]
    numbers = clear_groups(different, seed)
    clear = bool(numbers.any())
    if not clear:
        numbers = shown_groups(different, seed)
    is_copy = np.ones(len(rows), bool)
    is_copy[firsts] = False
    titles = [_title_words(row, name.casefold()) for row in rows]
    of_image = numbers[of_copy]
    found = []
    for number in np.unique(of_image):
        members = np.flatnonzero(of_image == number)
        of_group = directions[members]
        center = of_group.mean(axis=0)
        distances = -(of_group @ center)
        order = np.lexsort((distances, is_copy[members]))
        files = []
        for index in members[order]:
            row = rows[index]
            files.append(row.file)
        group = ImageGroup(
            files=tuple(files),
            words=_words_of(members, titles),
        )
        found.append(group)
    found.sort(key=lambda group: -len(group.files))
    return ClassGroups(
        class_id=rows[0].class_id,
        clear=clear,
        groups=tuple(found),
    )


def clear_groups(directions: NDArray[np.float32], seed: int) -> Labels:
    """Return the number of each image's group [n]: all 0 where no cut is clear.

    A group is cut again as long as that is clear too. `directions` [n, d] have unit length.
    """
    count = len(directions)
    least = max(LEAST_OF_GROUP, round(LEAST_SHARE * count))
    numbers = np.zeros(count, np.int64)
    undecided = [0]
    groups = 1
    while undecided and groups < MOST_GROUPS:
        number = undecided.pop(0)
        members = np.flatnonzero(numbers == number)
        if len(members) < 2 * least:
            continue
        cut = best_cut(directions[members], seed)
        sizes = np.bincount(cut.sides, minlength=2)
        if sizes.min() < least:
            continue
        if not cut.is_clear:
            continue
        split_off = members[cut.sides == 1]
        numbers[split_off] = groups
        undecided.append(number)
        undecided.append(groups)
        groups += 1
    return numbers


def shown_groups(directions: NDArray[np.float32], seed: int) -> Labels:
    """Return the number of each image's group [n], where they are only to look through."""
    wanted = round(len(directions) / _IMAGES_OF_SHOWN_GROUP)
    groups = min(MOST_GROUPS, max(1, wanted))
    random = np.random.default_rng(seed)
    points = _principal(directions)
    numbers, _ = _cluster(points, groups, random)
    return numbers


def best_cut(directions: NDArray[np.float32], seed: int) -> Cut:
    """Return the cut of images [n, d] in two that leaves the least spread."""
    random = np.random.default_rng(seed)
    points = _principal(directions)
    sides, spread = _cluster(points, 2, random)
    deviations = points.std(axis=0)
    references = np.zeros(_REFERENCES)
    for number in range(_REFERENCES):
        normal = random.normal(size=points.shape)
        normal *= deviations
        _, of_normal = _cluster(normal, 2, random)
        references[number] = of_normal
    less = references.mean() - spread
    deviation = max(references.std(), _TINY)
    return Cut(
        sides=sides,
        surprise=float(less / deviation),
        crossing=_crossing(directions, sides),
    )


def _principal(directions: NDArray[np.float32]) -> Floats:
    """Return the first principal components [n, k] of images [n, d]."""
    mean = directions.mean(axis=0)
    centered = directions - mean
    centered = centered.astype(np.float64)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    all_points = left * values
    points: Floats = all_points[:, :_COMPONENTS]
    return points


def _cluster(points: Floats, groups: int, random: np.random.Generator) -> tuple[Labels, float]:
    """Return the group of each point [n], by k-means, and the share of spread that is left."""
    mean = points.mean(axis=0, keepdims=True)
    total = _squares(points, mean).sum()
    best = np.zeros(len(points), np.int64)
    least = total
    for _ in range(_STARTS):
        chosen = random.choice(len(points), groups, replace=False)
        centers = points[chosen]
        for _ in range(_ROUNDS):
            squares = _squares(points, centers)
            numbers = squares.argmin(axis=1)
            moved = _means(points, numbers, centers)
            if np.array_equal(moved, centers):
                break
            centers = moved
        squares = _squares(points, centers)
        nearest = squares.min(axis=1)
        spread = nearest.sum()
        if spread < least:
            least = spread
            best = squares.argmin(axis=1)
    share = least / max(total, _TINY)
    return best, float(share)


def _means(points: Floats, numbers: Labels, centers: Floats) -> Floats:
    """Return the mean [k, d] of the points of each group; its center where it has none."""
    means = centers.copy()
    for number in range(len(centers)):
        members = points[numbers == number]
        if len(members):
            means[number] = members.mean(axis=0)
    return means


def _squares(points: Floats, centers: Floats) -> Floats:
    """Return the squared distances [n, k] of points from centers."""
    differences = points[:, None] - centers[None]
    squares: Floats = (differences**2).sum(axis=2)
    return squares


def _crossing(directions: NDArray[np.float32], sides: Labels) -> float:
    """Return how many nearest neighbours lie on the other side, as a share of chance."""
    mean = directions.mean(axis=0)
    centered = to_unit_length(directions - mean)
    distances = -(centered @ centered.T)
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")
    nearest = order[:, :_NEIGHBOURS]
    own_sides = sides.reshape(-1, 1)
    crosses = sides[nearest] != own_sides
    worst = 0.0
    for side in (0, 1):
        is_own = sides == side
        if is_own.all():
            return 1.0
        if not is_own.any():
            return 1.0
        by_chance = 1 - is_own.mean()
        found = crosses[is_own]
        share = found.mean() / by_chance
        worst = max(worst, float(share))
    return worst


def _title_words(row: ImageRow, name: str) -> set[str]:
    """Return the words of an image's title that may tell a meaning, without those of the name."""
    title = row.title.casefold()
    words = set(_WORD.findall(title))
    words -= set(_WORD.findall(name))
    return words - _COMMON_WORDS


def _words_of(members: Labels, titles: Sequence[set[str]]) -> tuple[str, ...]:
    """Return the words that most titles of these images have, more often than the others."""
    inside: Counter[str] = Counter()
    everywhere: Counter[str] = Counter()
    for words in titles:
        everywhere.update(words)
    for index in members:
        inside.update(titles[index])
    size = len(members)
    others = max(1, len(titles) - size)
    gains = []
    for word, count in inside.items():
        share = count / size
        outside = everywhere[word] - count
        elsewhere = outside / others
        if share < _LEAST_TITLES:
            continue
        if share > 3 * elsewhere:
            gain = share - elsewhere
            gains.append((-gain, word))
    gains.sort()
    best = gains[:_MOST_WORDS]
    return tuple(word for _, word in best)
