"""The split and near-duplicates: duplicates of one photograph share a group, and a group one split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.duplicates import Fingerprint, group_by_pairs, near_duplicate_pairs
from training.run_folder import ImageRow


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
