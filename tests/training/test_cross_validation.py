"""Nested cross-validation: nobody is judged by a head that saw it, and time never leaves a gap."""

import csv
import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from training.evaluation.cross_validation import (
    CrossValidation,
    cross_validate,
    cross_validated_metrics,
    judged_by,
)
from training.evaluation.results import without_own
from training.fitting.linear_head import Samples
from training.fitting.selection import SplitImages
from training.metrics import association_p_value, read_metrics
from training.progress import no_progress
from training.run_folder import ImageRow, read_config, read_manifest

PER_CLASS = 24
COPIES = 3


def samples(separation: float, copies: int = 1) -> Samples:
    """Two overlapping classes, each image with near-duplicates."""
    random = np.random.default_rng(0)
    labels = np.arange(2 * PER_CLASS) % 2
    embeddings = random.normal(size=(len(labels), 12))
    embeddings[:, 0] += separation * labels
    groups = np.arange(len(labels))
    return Samples(
        np.repeat(embeddings, copies, axis=0).astype(np.float32),
        np.repeat(labels, copies),
        np.repeat(groups, copies),
        classes=2,
    )


@pytest.fixture(scope="module")
def validated() -> tuple[Samples, CrossValidation]:
    given = samples(separation=3, copies=COPIES)
    return given, cross_validate(given, 0.01, 0, no_progress)


def test_near_duplicates_are_judged_in_the_same_fold(
    validated: tuple[Samples, CrossValidation],
) -> None:
    given, validation = validated
    assert set(validation.fold.tolist()) == set(range(validation.folds))
    folds_of = defaultdict(set)
    for group, fold in zip(given.groups, validation.fold, strict=True):
        folds_of[int(group)].add(int(fold))
    assert all(len(folds) == 1 for folds in folds_of.values())


def test_an_image_is_judged_alike_whatever_its_own_fold_says(
    validated: tuple[Samples, CrossValidation],
) -> None:
    """Its fold's embeddings could only matter to a head that had seen them."""
    given, validation = validated
    held_out = validation.fold == 0
    embeddings = given.embeddings.copy()
    first = np.flatnonzero(held_out)[0]
    others = held_out & (given.groups != given.groups[first])
    embeddings[others] += 50
    changed = Samples(embeddings, given.labels, given.groups, given.classes)
    again = cross_validate(changed, 0.01, 0, no_progress)
    assert np.array_equal(again.fold, validation.fold)
    assert np.array_equal(again.logits[first], validation.logits[first])


def test_the_same_seed_gives_the_same_answer(validated: tuple[Samples, CrossValidation]) -> None:
    given, validation = validated
    again = cross_validate(given, 0.01, 0, no_progress)
    assert np.array_equal(again.logits, validation.logits)
    assert not np.array_equal(cross_validate(given, 0.01, 1, no_progress).fold, validation.fold)


def test_progress_rises_to_its_end() -> None:
    steps: list[tuple[int, int]] = []
    cross_validate(samples(3), 0.01, 0, lambda done, total, message="": steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == steps[0][1]
    assert steps == sorted(steps) and len(steps) > 20


@pytest.mark.parametrize("searches", [0, 2])
def test_without_time_every_image_is_judged_all_the_same(searches: int) -> None:
    answers = iter([True] * (1 + 25 * searches))
    given = samples(3)

    def has_time(left: Iterator[bool] = answers) -> bool:
        return next(left, False) if searches else False

    validation = cross_validate(given, 0.01, 0, no_progress, has_time)
    assert validation.searched < validation.folds
    figures = cross_validated_metrics(validation, given, ["a", "b"])
    assert figures["n"] == 2 * PER_CLASS and figures["accuracy"] > 0.8


def test_what_can_be_told_apart_is_found_with_few_images() -> None:
    given = samples(separation=4)
    validation = cross_validate(given, 0.01, 0, no_progress)
    assert association_p_value(judged_by(validation, given)) < 0.001
    nothing = samples(separation=0)
    validation = cross_validate(nothing, 0.01, 0, no_progress)
    assert association_p_value(judged_by(validation, nothing)) > 0.01


def test_a_run_writes_what_was_said_of_every_image(trained_run: Path) -> None:
    rows = list(csv.DictReader((trained_run / "predictions.csv").open(encoding="utf-8")))
    ids = [label.id for label in read_config(trained_run).classes]
    header = ["file", "class", "split", "fold", "group", "predicted", *ids]
    assert list(rows[0]) == header + [f"cv_{class_id}" for class_id in ids]
    manifest = {row.file: row for row in read_manifest(trained_run)}
    assert [row["file"] for row in rows] == list(manifest)
    metrics = read_metrics(trained_run)
    tested = [row for row in rows if row["split"] == "test"]
    right = sum(row["predicted"] == row["class"] for row in tested)
    assert right / len(tested) == pytest.approx(metrics["accuracy"])
    hits = 0
    for row in rows:
        assert row["class"] == manifest[row["file"]].class_id
        assert sum(float(row[class_id]) for class_id in ids) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(ids, key=lambda class_id: float(row[class_id]))
        said = max(ids, key=lambda class_id: float(row[f"cv_{class_id}"]))
        hits += said == row["class"]
    assert metrics["cross_validated"] is not None
    assert hits == metrics["headline"]["hits"] and metrics["headline"]["n"] == len(rows) == 76
    assert metrics["headline"]["how"] == "cross_validated"
    assert metrics["headline"]["value"] == metrics["cross_validated"]["accuracy"]


def test_what_a_person_added_has_no_part_in_the_cross_validated_figure(
    validated: tuple[Samples, CrossValidation],
) -> None:
    given, validation = validated
    rows = []
    for number, label in enumerate(given.labels):
        source = "own" if number % 4 == 0 else "bing"
        rows.append(ImageRow(f"{number}.jpg", f"c{label}", "", source, split="train", group=number))
    images = SplitImages(
        rows=rows,
        embeddings=given.embeddings,
        labels=given.labels,
        groups=given.groups,
        statistics=given.embeddings,
        manifest_indices=np.arange(len(rows)),
        manifest=rows,
        classes=2,
        seed=0,
    )
    found, judged = without_own(validation, images)
    chosen = np.arange(len(rows)) % 4 != 0
    assert np.array_equal(found.logits, validation.logits[chosen])
    assert np.array_equal(judged.labels, given.labels[chosen])
    assert cross_validated_metrics(found, judged, ["a", "b"])["n"] == len(rows) * 3 // 4
    images.rows[:] = [dataclasses.replace(row, source="bing") for row in rows]
    assert without_own(validation, images)[0] is validation
