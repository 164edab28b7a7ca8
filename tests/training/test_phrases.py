"""Numbers and the verdict in words."""

from pathlib import Path

import pytest

from tests.training.example_results import results_of
from training.phrases import counted, duration, interval, listed, percent, shortened, verdict


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        (percent(0.9424), "94.2 %"),
        (percent(1.0), "100 %"),
        (interval([0.881, 0.976]), "88.1 % to 97.6 %"),
        (duration(0.42), "0.4 s"),
        (duration(12.4), "12 s"),
        (duration(60), "1 min"),
        (duration(200), "3 min 20 s"),
        (duration(3900), "1 h 5 min"),
        (duration(7200), "2 h"),
        (counted(0, "picture"), "no picture"),
        (counted(1, "picture"), "1 picture"),
        (counted(1200, "class", "classes"), "1,200 classes"),
        (listed(["a"]), "a"),
        (listed(["a", "b"]), "a and b"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (shortened("corgi", 5), "corgi"),
        (shortened("corgis", 5), "corg…"),
        (shortened("柴犬柴犬", 5), "柴…"),
    ],
)
def test_numbers_in_words(phrase: str, expected: str) -> None:
    assert phrase == expected


@pytest.mark.parametrize(
    ("better", "beginning"),
    [
        (True, "This model tells the classes apart: right on "),
        (False, "This model is no better than guessing: right on "),
    ],
)
def test_the_verdict_is_one_sentence_with_interval_and_baseline(
    imported_run: Path, better: bool, beginning: str
) -> None:
    split = {"train": 290, "val": 60, "test": 60}
    metrics = results_of(imported_run, better_than_chance=better, split=split).metrics
    sentence = verdict(metrics)
    assert sentence.startswith(beginning) and sentence.endswith(".") and ". " not in sentence
    assert f"right on {percent(metrics['accuracy'])} of 60 test pictures" in sentence
    assert f"(95 % interval {interval(metrics['interval'])})" in sentence
    assert f"largest class would be right on {percent(metrics['majority_baseline'])}." in sentence


def test_the_verdict_warns_of_few_test_pictures(imported_run: Path) -> None:
    metrics = results_of(imported_run, better_than_chance=True).metrics
    assert metrics["split"]["test"] == 12
    first, second = verdict(metrics).split(". ")
    assert first.startswith("This model tells the classes apart")
    assert second.startswith("With so few test pictures")
