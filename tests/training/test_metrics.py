"""Figures of a classifier, beside those that scikit-learn and closed formulas give."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, precision_score

from training.metrics import (
    CandidateMetrics,
    ClassMetrics,
    Curation,
    FalseAlarms,
    Judged,
    Metrics,
    SourceMetrics,
    accuracy_by_source,
    association_p_value,
    candidate_metrics,
    classification_metrics,
    expected_calibration_error,
    false_alarms,
    grouped_interval,
    judge,
    majority_baseline,
    read_metrics,
    softmax,
    wilson_interval,
)
from training.run_folder import RunError


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (12, 12, 0.7575, 1.0),
        (0, 10, 0.0, 0.2775),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_intervals_are_the_known_ones(
    hits: int, trials: int, low: float, high: float
) -> None:
    assert wilson_interval(hits, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (7, 12), (12, 12), (431, 1000)])
def test_wilson_intervals_are_those_of_the_closed_formula(hits: int, trials: int) -> None:
    z = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
    centre = (hits + z**2 / 2) / (trials + z**2)
    spread = math.sqrt(hits * (trials - hits) / trials + z**2 / 4)
    reach = z / (trials + z**2) * spread
    expected = (max(0.0, centre - reach), min(1.0, centre + reach))
    assert wilson_interval(hits, trials) == pytest.approx(expected, abs=1e-9)


def test_metrics_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(2)
    labels = random.choice(3, size=150, p=[0.6, 0.3, 0.1])
    logits = random.standard_normal((150, 3)) + 1.5 * np.eye(3)[labels]
    metrics = classification_metrics(logits, labels, ["a", "b", "c"], temperature=1.5)
    predicted = logits.argmax(axis=1)
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    precision = precision_score(labels, predicted, average=None)
    assert [row["precision"] for row in metrics["per_class"].values()] == pytest.approx(
        list(precision)
    )
    matrix = np.array(metrics["confusion"]["matrix"])
    assert matrix.sum(axis=1).tolist() == np.bincount(labels).tolist()
    assert matrix[0, 1] == ((labels == 0) & (predicted == 1)).sum()
    assert metrics["ece_before"] is not None and metrics["ece_after"] != metrics["ece_before"]


def test_a_model_that_always_names_the_largest_class_shows_nothing() -> None:
    labels = np.array([0] * 15 + [1] * 5)
    logits = np.tile([1.0, 0.0], (20, 1))
    metrics = classification_metrics(logits, labels, ["a", "b"], 1.0)
    assert metrics["accuracy"] == majority_baseline(labels) == 0.75
    assert metrics["per_class"]["b"] == {"precision": 0.0, "recall": 0.0, "support": 5}
    assert association_p_value(judged([[15, 0], [5, 0]])) == 1.0


def judged(matrix: list[list[int]], copies: int = 1) -> Judged:
    """Images with this confusion matrix, each unit of it so many near-duplicates."""
    counts = np.array(matrix)
    labels, predicted = np.indices(counts.shape).reshape(2, -1).repeat(counts.ravel(), axis=1)
    groups = np.arange(len(labels))
    return Judged(
        predicted.repeat(copies), labels.repeat(copies), groups.repeat(copies), len(counts)
    )


@given(st.lists(st.integers(0, 12), min_size=4, max_size=4).filter(any))
@settings(max_examples=50, deadline=None)
def test_the_association_of_two_classes_is_fishers_exact_test(cells: list[int]) -> None:
    table = np.array(cells).reshape(2, 2)
    expected = fisher_exact(table, alternative="greater").pvalue
    assert association_p_value(judged(table.tolist())) == pytest.approx(expected, abs=1e-9)


def test_the_association_of_more_classes_is_among_permutations_of_balanced_accuracy() -> None:
    known = association_p_value(judged([[9, 0, 1], [1, 9, 0], [0, 1, 9]]))
    unknown = association_p_value(judged([[4, 3, 3], [3, 3, 4], [3, 4, 3]]))
    assert known == 1 / 10_001 and 0.2 < unknown < 0.8
    favourite = association_p_value(judged([[30, 0, 0], [5, 0, 0], [5, 0, 0]]))
    assert favourite == 1.0
    # Two classes alone are tested exactly: permutations must come to the same.
    three = judged([[8, 4, 0], [4, 8, 0], [0, 0, 0]])
    assert association_p_value(three) == pytest.approx(
        association_p_value(judged([[8, 4], [4, 8]])), abs=0.01
    )


def test_copies_of_an_image_add_nothing_to_what_is_shown() -> None:
    once = judged([[4, 1], [1, 4]])
    often = judged([[4, 1], [1, 4]], copies=6)
    assert association_p_value(often) == association_p_value(once) > 0.05
    assert grouped_interval(often.right, often.groups) == grouped_interval(once.right, once.groups)
    assert grouped_interval(once.right, once.groups) == wilson_interval(8, 10)


def test_a_group_votes_once_for_each_label_by_its_commonest_prediction() -> None:
    images = Judged(
        predicted=np.array([0, 1, 1, 0, 0]),
        labels=np.array([0, 0, 0, 1, 1]),
        groups=np.array([7, 7, 7, 7, 9]),
        classes=2,
    )
    units = images.units()
    assert units.predicted.tolist() == [1, 0, 0]
    assert units.labels.tolist() == [0, 1, 1]


WEAK = [[41, 30, 29], [30, 41, 29], [30, 29, 41]]


@pytest.mark.parametrize(
    ("matrix", "everything", "expected"),
    [
        # unequal: 93 % right where the largest class is 86 %
        ([[4, 2], [1, 37]], [[4, 2], [1, 37]], "better"),
        ([[9, 0], [0, 9]], [[9, 0], [0, 9]], "better"),
        ([[55, 5], [5, 55]], [[55, 5], [5, 55]], "better"),
        # faultless, and yet three of each could not show it
        ([[3, 0], [0, 3]], [[3, 0], [0, 3]], "not_shown"),
        ([[11, 9], [10, 10]], [[11, 9], [10, 10]], "not_shown"),
        ([[49, 51], [52, 48]], [[49, 51], [52, 48]], "no_better"),
        # its test images say no, all images say yes
        ([[29, 31], [31, 29]], [[180, 120], [120, 180]], "not_shown"),
        # too weak to be shown, too strong to be denied
        ([[57, 43], [43, 57]], [[57, 43], [43, 57]], "not_shown"),
        # weak, but guessing would hardly do as well
        (WEAK, WEAK, "not_shown"),
        ([[40, 0, 0], [38, 2, 0], [40, 0, 0]], [[40, 0, 0], [38, 2, 0], [40, 0, 0]], "no_better"),
    ],
)
def test_verdicts(matrix: list[list[int]], everything: list[list[int]], expected: str) -> None:
    assert judge(judged(matrix), judged(everything)) == expected


def test_no_p_value_is_nothing_however_many_images_are_judged_rightly() -> None:
    for labels in (np.arange(6000) % 2, np.arange(300) % 3):
        faultless = Judged(labels, labels, np.arange(len(labels)), int(labels.max()) + 1)
        assert 0 < association_p_value(faultless) < 0.001


def test_the_calibration_error_is_the_gap_between_confidence_and_hits() -> None:
    probabilities = np.tile([0.9, 0.1], (200, 1))
    labels = np.array([0] * 120 + [1] * 80)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.3)
    assert expected_calibration_error(probabilities[:99], labels[:99]) is None


def test_each_source_is_judged_by_its_own_test_images() -> None:
    labels = np.array([0, 0, 1, 1, 0, 1])
    predicted = np.array([0, 1, 1, 1, 0, 0])
    found = accuracy_by_source(predicted, labels, ["bing", "bing", "bing", "bing", "", ""])
    assert list(found) == ["", "bing"]
    assert found["bing"] == {
        "accuracy": 0.75,
        "interval": list(wilson_interval(3, 4)),
        "support": 4,
    }
    assert found[""] == {"accuracy": 0.5, "interval": list(wilson_interval(1, 2)), "support": 2}


def test_refused_test_images_are_counted_beyond_the_threshold_only() -> None:
    novelty = np.array([0.1, 0.5, 0.50001, 0.9, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1])
    expected = {"refused": 2, "tested": 10, "share": 0.2, "interval": list(wilson_interval(2, 10))}
    assert false_alarms(novelty, 0.5) == expected


def answers(rightness: float, size: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Logits [size, 3] that are right for the given share of the labels [size]."""
    labels = np.arange(size) % 3
    predicted = np.where(np.arange(size) < rightness * size, labels, (labels + 1) % 3)
    return 2.0 * np.eye(3)[predicted], labels


def test_a_candidate_is_described_by_its_test_and_val_answers() -> None:
    (test, test_labels), (val, val_labels) = answers(0.9, 40), answers(0.75)
    told = candidate_metrics(test, test_labels, val, val_labels)
    assert told["accuracy"] == 0.9 and told["interval"] == list(wilson_interval(36, 40))
    assert told["val_accuracy"] == 0.75
    assert told["val_loss"] == pytest.approx(log_loss(val_labels, softmax(val)))


@pytest.mark.parametrize("junk", ["", "{", "[]", "{}"])
def test_metrics_that_are_not_whole_are_refused_in_words(junk: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(junk)
    with pytest.raises(RunError, match=r"(?i)metrics\.json"):
        read_metrics(tmp_path)


def test_the_metrics_of_a_finished_run_have_exactly_the_keys_of_their_type(
    trained_run: Path,
) -> None:
    metrics = read_metrics(trained_run)
    assert metrics.keys() == Metrics.__annotations__.keys()
    assert metrics["per_class"]["mammal"].keys() == ClassMetrics.__annotations__.keys()
    assert metrics["head"].keys() == CandidateMetrics.__annotations__.keys() - {"epochs"}
    assert metrics["curation"].keys() == Curation.__annotations__.keys()
    assert metrics["unknown"].keys() == FalseAlarms.__annotations__.keys()
    assert metrics["by_source"]["folder"].keys() == SourceMetrics.__annotations__.keys()
