"""Figures of a classifier, beside those that scikit-learn and closed formulas give."""

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, precision_score

from training.metrics import (
    CandidateMetrics,
    ClassMetrics,
    Curation,
    FalseAlarms,
    Metrics,
    SourceMetrics,
    accuracy_by_source,
    binomial_p_value,
    candidate_metrics,
    classification_metrics,
    expected_calibration_error,
    false_alarms,
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


@pytest.mark.parametrize(
    ("hits", "trials", "rate"),
    [(12, 12, 0.5), (9, 12, 0.5), (0, 5, 0.2), (300, 500, 0.55), (1, 3, 0.01), (2, 4, 1.0)],
)
def test_the_chance_of_guessing_as_well_is_exact(hits: int, trials: int, rate: float) -> None:
    expected = math.fsum(
        math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(hits, trials + 1)
    )
    assert binomial_p_value(hits, trials, rate) == pytest.approx(expected, abs=1e-9)


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
    assert metrics["majority_baseline"] == np.bincount(labels).max() / 150
    matrix = np.array(metrics["confusion"]["matrix"])
    assert matrix.sum(axis=1).tolist() == np.bincount(labels).tolist()
    assert matrix[0, 1] == ((labels == 0) & (predicted == 1)).sum()
    assert metrics["better_than_chance"] is True
    assert metrics["ece_before"] is not None and metrics["ece_after"] != metrics["ece_before"]


def test_a_model_that_always_names_the_largest_class_is_no_better_than_chance() -> None:
    labels = np.array([0] * 15 + [1] * 5)
    logits = np.tile([1.0, 0.0], (20, 1))
    metrics = classification_metrics(logits, labels, ["a", "b"], 1.0)
    assert metrics["better_than_chance"] is False
    assert metrics["accuracy"] == metrics["majority_baseline"] == 0.75
    assert metrics["per_class"]["b"] == {"precision": 0.0, "recall": 0.0, "support": 5}


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
