"""Rows of a manifest with two classes, for tests of run folders and of the split."""

import dataclasses
import hashlib

from training.run_folder import ClassLabel, ImageRow, RunConfig

CLASSES = (ClassLabel("c001", "corgi"), ClassLabel("c002", "łoś"))
CONFIG = RunConfig(classes=CLASSES, seed=0)


def row(class_id: str, number: int, group: int | None = None, split: str | None = None) -> ImageRow:
    digest = hashlib.sha256(f"{class_id} {number}".encode()).hexdigest()
    return ImageRow(f"images/{digest[:16]}.jpg", class_id, digest, "bing", "cc-by", split, group)  # type: ignore[arg-type]


def rows_of(*sizes: int) -> list[ImageRow]:
    """So many images of each class, each a group of its own."""
    found = [
        row(label.id, n) for label, size in zip(CLASSES, sizes, strict=True) for n in range(size)
    ]
    return [dataclasses.replace(item, group=number) for number, item in enumerate(found)]
