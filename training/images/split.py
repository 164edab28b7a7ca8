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
from training.phrases import listed
from training.run_folder import (
    MINIMUM_BESIDE_TEST,
    MINIMUM_PER_CLASS,
    MINIMUM_PER_SPLIT,
    SPLITS,
    ImageRow,
    RunConfig,
    RunError,
    Split,
)

HELD_OUT_SHARE = 0.15  # of a class's images, for val and for test each
FOLDS = 5

_HELD_OUT: tuple[Split, ...] = ("test", "val")  # in the order in which they are filled
# Whose claim on a group of near-duplicates is the stronger.
_PROTECTION: tuple[Split, ...] = ("test", "val", "train")

_SplitOfClass = tuple[Split, str]


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
    groups = dict(zip(indices, group_numbers, strict=True))
    manifest_pairs = []
    for one, other in pairs:
        pair = (indices[one], indices[other])
        manifest_pairs.append(pair)
    return NearDuplicates(manifest_pairs, groups)


def assign_groups(rows: Sequence[ImageRow], duplicates: NearDuplicates) -> list[ImageRow]:
    """Return the manifest's rows with group numbers; None for images that could not be used."""
    grouped = []
    for index, row in enumerate(rows):
        group = duplicates.groups.get(index)
        grouped.append(dataclasses.replace(row, group=group))
    return grouped


def count_leaks(rows: Sequence[ImageRow], duplicates: NearDuplicates) -> int:
    """Count near-duplicate pairs that stand in different splits: 0 unless the split is broken."""
    leaks = 0
    for one, other in duplicates.pairs:
        split = rows[one].split
        other_split = rows[other].split
        if split and other_split and split != other_split:
            leaks += 1
    return leaks


def contradictions(rows: Sequence[ImageRow], duplicates: NearDuplicates) -> list[tuple[int, int]]:
    """Return the pairs of near-duplicates that stand in different classes."""
    found = []
    for one, other in duplicates.pairs:
        if rows[one].class_id != rows[other].class_id:
            found.append((one, other))
    return found


def indices_in(rows: Sequence[ImageRow], splits: Sequence[str]) -> Labels:
    """Return the indices [m] of the rows that stand in one of these splits."""
    found = []
    for index, row in enumerate(rows):
        if row.split in splits:
            found.append(index)
    return np.array(found, np.int64)


def split_rows(config: RunConfig, rows: Sequence[ImageRow]) -> list[ImageRow]:
    """Return the rows with `split` filled in: 70/15/15 by class.

    A group of near-duplicates is never in two splits. Groups are taken in the order of
    sha256(seed + smallest content hash) and fill each class's test, then val, then train.

    Rows that have a split keep it, and then new images go to train and val only. A near-duplicate
    of a test image is left out (None), and so is the less protected side of a group found in two
    splits. Rows without a group (unreadable images) are left out. With `config.own_test` no image
    joins those that have the split test already, and val takes its share of the others. Raises
    RunError where a class has too few images.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.group is not None:
            groups[row.group].append(index)

    assignment = _Assignment(rows, fills_test=not config.own_test)
    new_groups = []
    for members in groups.values():
        if any(rows[index].split for index in members):
            assignment.keep_earlier(members)
        else:
            new_groups.append(members)
    seed = config.seed or 0
    new_groups.sort(key=lambda members: _order_key(seed, rows, members))
    assignment.fill(new_groups)

    result = []
    for row, split in zip(rows, assignment.splits, strict=True):
        assigned = dataclasses.replace(row, split=split)
        result.append(assigned)
    check_enough(config, result)
    return result


def cut_folds(
    labels: Labels, groups: Sequence[int] | Labels, seed: int, most: int = FOLDS
) -> list[tuple[Labels, Labels]]:
    """Return (indices to learn from, indices held out) of each fold of images with labels [n].

    Near-duplicates, which share a group [n], stay together, and classes are spread evenly. There
    are at most `most` folds, at most as many as the smallest class has groups, and at least two.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    group_numbers = np.asarray(groups)
    fewest = most
    for label in np.unique(labels):
        of_class = group_numbers[labels == label]
        groups_of_class = np.unique(of_class)
        fewest = min(fewest, len(groups_of_class))
    count = max(2, fewest)
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Says that a class has fewer images than folds; that is known here and harmless.
        warnings.simplefilter("ignore", UserWarning)
        unused = np.zeros(len(labels))
        return list(folds.split(unused, labels, group_numbers))


class _Assignment:
    """The split of each image, and how many images of each class the splits have and want."""

    def __init__(self, rows: Sequence[ImageRow], fills_test: bool = True) -> None:
        self._fills_test = fills_test
        self.splits: list[Split | None] = [None] * len(rows)
        self._rows = rows
        self._counts: Counter[_SplitOfClass] = Counter()
        self._wanted: Counter[_SplitOfClass] = Counter()

    def keep_earlier(self, members: list[int]) -> None:
        """Keep the group's most protected split; its new images join it, but never test."""
        rows = self._rows
        earlier = {rows[index].split for index in members}
        strongest = next(split for split in _PROTECTION if split in earlier)
        for index in members:
            split = rows[index].split
            if split is None and strongest == "test":
                continue
            if split in (None, strongest):
                self._put([index], strongest)

    def fill(self, groups: Sequence[list[int]]) -> None:
        """Give every group a split, then mend the classes whose large groups left one short."""
        self._set_wanted()
        in_train = []
        for members in groups:
            split = self._first_with_room(members)
            self._put(members, split)
            if split == "train":
                in_train.append(members)

        in_train.sort(key=len)
        for held_out in _HELD_OUT:
            for members in in_train:
                still_in_train = self.splits[members[0]] == "train"
                if still_in_train and self._should_move(members, held_out):
                    self._put(members, held_out)

    def _set_wanted(self) -> None:
        # Where a person marked the test set, val takes its share of the other images alone.
        tested = set() if self._fills_test else _tested_groups(self._rows)
        usable: Counter[str] = Counter()
        for row in self._rows:
            if row.group is not None and row.group not in tested:
                usable[row.class_id] += 1
        for class_id, count in usable.items():
            share = HELD_OUT_SHARE * count
            wanted = max(MINIMUM_PER_SPLIT, int(share + 0.5))
            self._wanted["val", class_id] = wanted
            if self._fills_test and self._counts["test", class_id] < MINIMUM_PER_SPLIT:
                self._wanted["test", class_id] = wanted

    def _first_with_room(self, members: list[int]) -> Split:
        for split in _HELD_OUT:
            if self._has_room(split, members):
                return split
        return "train"

    def _has_room(self, split: Split, members: list[int]) -> bool:
        for class_id, size in self._class_counts(members).items():
            present = self._counts[split, class_id]
            wanted = self._wanted[split, class_id]
            # A group may overfill a split that would otherwise stay short of the minimum.
            if size > wanted:
                return False
            if present >= MINIMUM_PER_SPLIT and present + size > wanted:
                return False
        return True

    def _should_move(self, members: list[int], held_out: Split) -> bool:
        """Return whether a held-out split lacks one of the group's classes and train spares all."""
        lacking = False
        for class_id, size in self._class_counts(members).items():
            left = self._counts["train", class_id] - size
            if left < MINIMUM_PER_SPLIT:
                return False
            present = self._counts[held_out, class_id]
            wanted = self._wanted[held_out, class_id]
            if wanted and present < MINIMUM_PER_SPLIT:
                lacking = True
        return lacking

    def _put(self, members: list[int], split: Split) -> None:
        for index in members:
            class_id = self._rows[index].class_id
            before = self.splits[index]
            if before:
                self._counts[before, class_id] -= 1
            self.splits[index] = split
            self._counts[split, class_id] += 1

    def _class_counts(self, members: list[int]) -> Counter[str]:
        rows = [self._rows[index] for index in members]
        return Counter(row.class_id for row in rows)


def _order_key(seed: int, rows: Sequence[ImageRow], members: list[int]) -> str:
    smallest = min(rows[index].sha256 for index in members)
    text = f"{seed}{smallest}"
    return hashlib.sha256(text.encode()).hexdigest()


def _too_few_own(name: str, count: int) -> RunError:
    pictures = "1 usable picture" if count == 1 else f"{count} usable pictures"
    return RunError(
        "split",
        f"The class “{name}” has {pictures} of your own to test on; each needs at least"
        f" {MINIMUM_PER_SPLIT}.",
        "Add pictures of it to your own, or do not mark them as the test set.",
        retry=False,
    )


def _too_few_beside_own(name: str, found: str, of_them: str) -> RunError:
    return RunError(
        "split",
        f"The class “{name}” has {found} beside those of your own to test on{of_them};"
        f" at least {MINIMUM_BESIDE_TEST} are needed to learn from.",
        "Find more pictures of it, or do not mark yours as the test set.",
        retry=False,
    )


def _tested_groups(rows: Sequence[ImageRow]) -> set[int | None]:
    """Return the groups that have an image in the test split; nothing learns from any of them."""
    return {row.group for row in rows if row.split == "test"}


def check_enough(config: RunConfig, rows: Sequence[ImageRow]) -> None:
    """Raise RunError where a split has too few images of a class."""
    counts: Counter[tuple[str, Split | None]] = Counter()
    for row in rows:
        counts[row.class_id, row.split] += 1
    for label in config.classes:
        fewest = min(counts[label.id, split] for split in SPLITS)
        if fewest >= MINIMUM_PER_SPLIT:
            continue
        if config.own_test and counts[label.id, "test"] < MINIMUM_PER_SPLIT:
            raise _too_few_own(label.name, counts[label.id, "test"])
        usable = [row for row in rows if row.group is not None and row.class_id == label.id]
        if config.own_test:
            tested = _tested_groups(rows)
            usable = [row for row in usable if row.group not in tested]
        distinct = len({row.group for row in usable})
        found = "1 usable picture" if len(usable) == 1 else f"{len(usable)} usable pictures"
        of_them = ""
        if distinct < len(usable):
            of_them = f", of which {distinct} are no near-duplicates of each other"
        if config.own_test and distinct < MINIMUM_BESIDE_TEST:
            raise _too_few_beside_own(label.name, found, of_them)
        reason = f"The class “{label.name}” has {found}{of_them}; too few to train and test on."
        remedy = (
            f"Give each class at least {MINIMUM_PER_CLASS} different pictures"
            " (100 are a good start), or leave it out."
        )
        if config.own_test or distinct >= MINIMUM_PER_CLASS:
            per_split = [f"{counts[label.id, split]} in {split}" for split in SPLITS]
            reason = (
                f"The class “{label.name}” has {listed(per_split)};"
                f" each split needs at least {MINIMUM_PER_SPLIT}."
            )
            remedy = "Move pictures to the split that lacks them, or give folders without splits."
        raise RunError("split", reason, remedy, retry=False)
