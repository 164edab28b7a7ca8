"""Two models on the test images of both."""

import dataclasses
from pathlib import Path

import pytest
from scipy.stats import binomtest

from training.comparison import compare, mcnemar_p_value
from training.judgements import Judgement, write_judgements
from training.run_folder import (
    ClassLabel,
    ImageRow,
    RunConfig,
    RunError,
    write_config,
    write_manifest,
    write_text,
)

CLASSES = (ClassLabel("c001", "cat"), ClassLabel("c002", "dog"))


def run_of(folder: Path, rows: list[ImageRow], predicted: str, classes=CLASSES) -> Path:
    """Write a run whose model takes the images, in order, for these classes (1 or 2)."""
    folder.mkdir()
    write_config(folder, RunConfig(classes=classes))
    write_manifest(folder, rows)
    lines = ["file,class,split,fold,group,predicted,c001,c002"]
    for row, number in zip(rows, predicted, strict=True):
        lines.append(f"{row.file},{row.class_id},{row.split},,0,c00{number},0.5,0.5")
    write_text(folder / "predictions.csv", "\n".join(lines) + "\n")
    return folder


def rows_of(count: int, split="test") -> list[ImageRow]:
    rows = []
    for number in range(count):
        row = ImageRow(f"images/{number}.jpg", "c001", f"{number:064x}", split=split)
        rows.append(row)
    return rows


@pytest.mark.parametrize(("mended", "broken"), [(8, 2), (2, 8), (0, 0), (1, 0), (5, 5), (30, 9)])
def test_the_p_value_is_that_of_the_exact_binomial_test(mended, broken):
    expected = 1.0
    if mended + broken:
        expected = binomtest(mended, mended + broken).pvalue
    assert mcnemar_p_value(mended, broken) == pytest.approx(expected)


def test_only_test_images_of_both_runs_count(tmp_path):
    rows = rows_of(6)
    earlier = run_of(tmp_path / "1", rows[:5], "12212")
    learned = dataclasses.replace(rows[0], split="train")
    later = run_of(tmp_path / "2", [*rows[1:], learned], "112121")
    found = compare(earlier, later)
    assert (found.images, found.right_before, found.right_after) == (4, 1, 3)
    assert (found.mended, found.broken) == (
        ["images/1.jpg", "images/2.jpg", "images/4.jpg"],
        ["images/3.jpg"],
    )


def test_what_a_person_saw_counts_and_what_nobody_knows_does_not(tmp_path):
    rows = rows_of(4)
    earlier = run_of(tmp_path / "1", rows, "1111")
    later = run_of(tmp_path / "2", rows, "2222")
    judgements = {
        rows[0].file: Judgement("other class", "c002"),
        rows[1].file: Judgement("off-topic"),
        rows[2].file: Judgement("other class"),
    }
    write_judgements(later, judgements)
    found = compare(earlier, later)
    assert (found.images, found.mended, found.broken) == (2, [rows[0].file], [rows[3].file])


def test_classes_are_the_same_by_their_names(tmp_path):
    rows = rows_of(2)
    earlier = run_of(tmp_path / "1", rows, "12")
    swapped = (ClassLabel("c001", "dog"), ClassLabel("c002", "cat"))
    relabelled = [dataclasses.replace(row, class_id="c002") for row in rows]
    later = run_of(tmp_path / "2", relabelled, "22", swapped)
    found = compare(earlier, later)
    assert (found.right_before, found.right_after) == (1, 2)


def test_a_run_without_predictions_says_so(tmp_path):
    rows = rows_of(1)
    earlier = run_of(tmp_path / "1", rows, "1")
    later = run_of(tmp_path / "2", rows, "1")
    (earlier / "predictions.csv").unlink()
    with pytest.raises(RunError, match=r"predictions\.csv"):
        compare(earlier, later)
