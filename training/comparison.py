"""Two models on the test images that both of their runs kept: which of them is right more often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from training.judgements import read_judgements
from training.predictions import read_predictions
from training.run_folder import read_config, read_manifest


@dataclass(frozen=True)
class Comparison:
    """How often an earlier and a later model are right on the same images, new to both."""

    images: int
    right_before: int
    right_after: int
    mended: list[str]
    """Files of the later manifest that the later model alone has right."""
    broken: list[str]
    """Likewise of the earlier model alone."""
    p_value: float
    """How often two models that are equally good differ at least so much."""


@dataclass(frozen=True)
class _TestedImage:
    file: str
    sha256: str
    shown: str
    """Name of the class that it shows."""


def compare(earlier: Path, later: Path) -> Comparison:
    """Compare two finished run folders of the same dataset on the test images of both.

    The same image is one of the same bytes. What it shows is what a person saw in it in the later
    run, and else its label there; images of which that is not known are left out. Raises RunError
    where one of the folders cannot be read.
    """
    before = _predicted_classes(earlier)
    after = _predicted_classes(later)
    images = 0
    right_before = 0
    right_after = 0
    mended = []
    broken = []
    for row in _tested(later):
        if row.sha256 not in before or row.sha256 not in after:
            continue
        was_right = before[row.sha256] == row.shown
        is_right = after[row.sha256] == row.shown
        images += 1
        right_before += was_right
        right_after += is_right
        if is_right and not was_right:
            mended.append(row.file)
        if was_right and not is_right:
            broken.append(row.file)
    p_value = mcnemar_p_value(len(mended), len(broken))
    return Comparison(images, right_before, right_after, mended, broken, p_value)


def mcnemar_p_value(mended: int, broken: int) -> float:
    """Return the two-sided p-value of the exact McNemar test.

    Of two equally good models each image that only one of them has right is as likely to be the
    one's as the other's, so that their number is binomial. McNemar 1947,
    https://doi.org/10.1007/BF02295996
    """
    discordant = mended + broken
    fewer = min(mended, broken)
    outcomes = sum(math.comb(discordant, count) for count in range(fewer + 1))
    return min(1.0, 2 * outcomes / 2**discordant)


def _tested(run_dir: Path) -> list[_TestedImage]:
    """Return the test images of which it is known what they show."""
    names = _class_names(run_dir)
    judgements = read_judgements(run_dir)
    tested = []
    for row in read_manifest(run_dir):
        if row.split != "test":
            continue
        class_id = row.class_id
        if row.file in judgements:
            class_id = judgements[row.file].label
        if class_id in names:
            image = _TestedImage(row.file, row.sha256, names[class_id])
            tested.append(image)
    return tested


def _predicted_classes(run_dir: Path) -> dict[str, str]:
    """Return digest -> name of the class that the run's model takes a test image for."""
    names = _class_names(run_dir)
    class_ids = list(names)
    digests = {row.file: row.sha256 for row in read_manifest(run_dir)}
    predicted = {}
    for image in read_predictions(run_dir, class_ids):
        digest = digests.get(image.file)
        if digest and image.split == "test":
            predicted[digest] = names[image.predicted]
    return predicted


def _class_names(run_dir: Path) -> dict[str, str]:
    """Return the names of a run's classes by their ids, in output order."""
    config = read_config(run_dir)
    return {label.id: label.name for label in config.classes}
