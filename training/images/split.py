"""Divide images into train, val and test, and into folds; near-duplicates always stay together."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.duplicates import Fingerprint, group_by_pairs, near_duplicate_pairs
from training.metrics import Labels
from training.run_folder import SPLITS, ImageRow, RunConfig, RunError, Split

MINIMUM_PER_SPLIT = 3  # pictures of a class in each part: fewer say nothing about it
MINIMUM_PER_CLASS = MINIMUM_PER_SPLIT * len(SPLITS)  # different pictures a class needs at least
HELD_OUT_SHARE = 0.15  # of a class's pictures, for val and for test each
_HELD_OUT: tuple[Split, ...] = ("test", "val")  # in the order in which they are filled
_PROTECTION: tuple[Split, ...] = (
    "test",
    "val",
    "train",
)  # whose claim on a group of near copies is the stronger
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """The near-duplicates among a run's usable images."""

    pairs: list[tuple[int, int]]
    """Indices into the manifest."""
    groups: dict[int, int]
    """Index into the manifest to group number."""


def find_near_duplicates(
    indices: Sequence[int],
    fingerprints: Sequence[Fingerprint],
    embeddings: NDArray[np.float32] | None,
) -> NearDuplicates:
    """Return pairs and groups of the n images at these indices of the manifest.

    `fingerprints` [n] are compared, and `embeddings` [n, d] too where they are given.
    """
    pairs = list(near_duplicate_pairs(fingerprints, embeddings))
    group_numbers = group_by_pairs(len(indices), pairs)
    return NearDuplicates(
        pairs=[(indices[one], indices[other]) for one, other in pairs],
        groups=dict(zip(indices, group_numbers, strict=True)),
    )


def assign_groups(rows: Sequence[ImageRow], duplicates: NearDuplicates) -> list[ImageRow]:
    """Return the manifest's rows with group numbers; None for images that could not be used."""
    groups = duplicates.groups
    return [dataclasses.replace(row, group=groups.get(index)) for index, row in enumerate(rows)]


def count_leaks(rows: Sequence[ImageRow], duplicates: NearDuplicates) -> int:
    """Count near-duplicate pairs that stand in different splits: 0 unless the split is broken."""
    leaks = 0
    for one, other in duplicates.pairs:
        splits = {rows[one].split, rows[other].split}
        if None not in splits and len(splits) == 2:
            leaks += 1
    return leaks


def indices_in(rows: Sequence[ImageRow], splits: Sequence[str]) -> Labels:
    """Return the indices [m] of the rows that stand in one of these splits."""
    found = [index for index, row in enumerate(rows) if row.split in splits]
    return np.array(found, np.int64)


def split_rows(config: RunConfig, rows: Sequence[ImageRow]) -> list[ImageRow]:
    """The rows with `split` filled in: 70/15/15 by class, a group of near copies never in two
    parts.

    Groups are taken in the order of sha256(seed + smallest content hash) and fill each class's test
    part, then val, then train. Rows that have a part keep it, and then new pictures go to train and
    val only; one that is a near copy of a test picture is left out (None), and so is the less
    protected side of a group found across parts. Rows without a group (unreadable pictures) are
    left out. Raises RunError where a class has too few pictures.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.group is not None:
            groups[row.group].append(index)
    parts: list[Split | None] = [None] * len(rows)
    free: list[list[int]] = []
    for members in groups.values():
        if any(rows[index].split for index in members):
            _keep_known(rows, members, parts)
        else:
            free.append(members)
    free.sort(
        key=lambda members: _place_in_order(config.seed or 0, [rows[i].sha256 for i in members])
    )
    filling = _Filling(rows, parts)
    filling.take(free)
    _check_enough(config, rows, parts)
    return [dataclasses.replace(row, split=part) for row, part in zip(rows, parts, strict=True)]


def cut_folds(
    labels: Labels, groups: Sequence[int] | Labels, seed: int, most: int = FOLDS
) -> list[tuple[Labels, Labels]]:
    """(places to learn from, places held out) of each fold: near copies stay together, classes are
    spread evenly.

    At most as many folds as the smallest class has groups, and at least two.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    numbers = np.asarray(groups)
    fewest = min(len(np.unique(numbers[labels == label])) for label in np.unique(labels))
    folds = StratifiedGroupKFold(max(2, min(most, fewest)), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Says that a class has fewer pictures than folds; that is known here and harmless.
        warnings.simplefilter("ignore", UserWarning)
        return list(folds.split(np.zeros(len(labels)), labels, numbers))


class _Filling:
    """How full the parts of each class are, and which groups go where."""

    def __init__(self, rows: Sequence[ImageRow], parts: list[Split | None]) -> None:
        self.rows, self.parts = rows, parts
        self.have: dict[Split, Counter[str]] = {part: Counter() for part in SPLITS}
        for row, part in zip(rows, parts, strict=True):
            if part:
                self.have[part][row.class_id] += 1
        usable = Counter(row.class_id for row in rows if row.group is not None)
        share = {
            name: max(MINIMUM_PER_SPLIT, int(HELD_OUT_SHARE * n + 0.5))
            for name, n in usable.items()
        }
        enough = {name for name, n in self.have["test"].items() if n >= MINIMUM_PER_SPLIT}
        self.wanted: dict[Split, dict[str, int]] = {
            "val": share,
            "test": {name: 0 if name in enough else n for name, n in share.items()},
        }

    def take(self, groups: Sequence[list[int]]) -> None:
        """Give every group a part, then mend the classes whose large groups left a part short."""
        in_train: list[list[int]] = []
        for members in groups:
            part: Split = next((p for p in _HELD_OUT if self._fits(p, members)), "train")
            self._put(members, part)
            if part == "train":
                in_train.append(members)
        for part in _HELD_OUT:
            self._mend(part, sorted(in_train, key=len))

    def _fits(self, part: Split, members: list[int]) -> bool:
        for name, count in self._counts(members).items():
            have, wanted = self.have[part][name], self.wanted[part][name]
            if count > wanted or (have >= MINIMUM_PER_SPLIT and have + count > wanted):
                return False
        return True

    def _mend(self, part: Split, candidates: Sequence[list[int]]) -> None:
        for members in candidates:
            counts = self._counts(members)
            short = any(
                self.wanted[part][name] and self.have[part][name] < MINIMUM_PER_SPLIT
                for name in counts
            )
            spare = all(
                self.have["train"][name] - n >= MINIMUM_PER_SPLIT for name, n in counts.items()
            )
            if short and spare and self.parts[members[0]] == "train":
                self._put(members, part)

    def _put(self, members: list[int], part: Split) -> None:
        for index in members:
            before = self.parts[index]
            if before:
                self.have[before][self.rows[index].class_id] -= 1
            self.parts[index] = part
            self.have[part][self.rows[index].class_id] += 1

    def _counts(self, members: list[int]) -> Counter[str]:
        return Counter(self.rows[index].class_id for index in members)


def _keep_known(rows: Sequence[ImageRow], members: list[int], parts: list[Split | None]) -> None:
    """The group's most protected known part wins; its new pictures join it, but never test."""
    strongest = next(
        part for part in _PROTECTION if any(rows[index].split == part for index in members)
    )
    for index in members:
        known = rows[index].split
        if known == strongest or (known is None and strongest != "test"):
            parts[index] = strongest


def _place_in_order(seed: int, hashes: Sequence[str]) -> str:
    return hashlib.sha256(f"{seed}{min(hashes)}".encode()).hexdigest()


def _check_enough(
    config: RunConfig, rows: Sequence[ImageRow], parts: Sequence[Split | None]
) -> None:
    have = Counter((row.class_id, part) for row, part in zip(rows, parts, strict=True) if part)
    for label in config.classes:
        if all(have[label.id, part] >= MINIMUM_PER_SPLIT for part in SPLITS):
            continue
        usable = [row for row in rows if row.class_id == label.id and row.group is not None]
        distinct = len({row.group for row in usable})
        copies = (
            f", of which {distinct} are no copies of each other" if distinct < len(usable) else ""
        )
        pictures = "picture" if len(usable) == 1 else "pictures"
        raise RunError(
            "split",
            f"The class “{label.name}” has {len(usable)} usable {pictures}{copies}; too few to train and test on.",
            f"Give each class at least {MINIMUM_PER_CLASS} different pictures (100 are a good start), or leave it out.",
            retry=False,
        )
