"""What the pictures say about each other before anything is learned: groups of near copies, leaks between parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from training.features import PictureFeatures
from training.manifest import ImageRow
from training.nearcopies import groups_of_pairs, near_copy_pairs


@dataclasses.dataclass(frozen=True)
class NearCopies:
    """The near copies among a run's usable pictures."""

    pairs: list[tuple[int, int]]
    """Places in the manifest."""
    groups: dict[int, int]
    """Place in the manifest to group number."""


def find_near_copies(features: PictureFeatures, by_embedding: bool) -> NearCopies:
    """Pairs and groups, by hash and thumbnail, and by embedding too where the network has learned to see."""
    found = near_copy_pairs(features.fingerprints, features.embeddings if by_embedding else None)
    pairs = list(found)
    numbers = groups_of_pairs(len(features.rows), pairs)
    return NearCopies(
        pairs=[(features.rows[one], features.rows[other]) for one, other in pairs],
        groups=dict(zip(features.rows, numbers, strict=True)),
    )


def with_groups(rows: Sequence[ImageRow], copies: NearCopies) -> list[ImageRow]:
    """The manifest's rows with their group numbers; None for pictures that could not be used."""
    return [dataclasses.replace(row, group=copies.groups.get(place)) for place, row in enumerate(rows)]


def count_leaks(rows: Sequence[ImageRow], copies: NearCopies) -> int:
    """Pairs of near copies whose pictures stand in different parts: 0 unless the split is broken."""
    parts = [(rows[one].split, rows[other].split) for one, other in copies.pairs]
    return sum(1 for one, other in parts if one and other and one != other)
