"""Numbers and the verdict in words."""

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from training.metrics import score_interval
from training.phrases import (
    baseline,
    counted,
    duration,
    headline_figure,
    headline_title,
    interval,
    listed,
    percent,
    shortened,
    verdict,
    whole_percent,
)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        (percent(0.9424), "94.2 %"),
        (percent(1.0), "100 %"),
        (percent(0.0), "0 %"),
        (percent(299 / 300), "99.7 %"),
        (percent(4999 / 5000), "99.9 %"),
        (percent(1 / 5000), "0.1 %"),
        (whole_percent(0.845), "84"),
        (whole_percent(1.0), "100"),
        (whole_percent(299 / 300), "99.7"),
        (whole_percent(1 / 300), "0.3"),
        (whole_percent(9999 / 10_000), "99.9"),
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


def figures(hits: int, tested: int, share: float, bounds: list[float], how: str) -> dict[str, Any]:
    """A headline."""
    return {"value": share, "interval": bounds, "n": tested, "hits": hits, "how": how}


def metrics(
    verdict: str, headline: dict[str, Any], supports: tuple[int, int], **more: Any
) -> dict[str, Any]:
    """What the verdict is made from, of a run that tested so many images of both classes."""
    tested = sum(supports)
    per_class = {name: {"support": count} for name, count in zip("ab", supports, strict=True)}
    checked = headline["n"] if headline["how"] == "verified" else 0
    usual = {
        "verdict": verdict,
        "headline": headline,
        "accuracy": headline["hits"] / tested,
        "balanced_accuracy": 0.817,
        "interval": headline["interval"],
        "per_class": per_class,
        "majority_baseline": max(supports) / tested,
        "cross_validated": None,
        "verified": {"n": checked},
        "split": {"train": 0, "val": 0, "test": tested},
        "delivered": "head",
    }
    return {**usual, **more}


def cross_validated(
    verdict: str, headline: dict[str, Any], supports: tuple[int, int], test: tuple[int, int]
) -> dict[str, Any]:
    """The same of a run whose headline is cross-validated; `test` are hits and test images."""
    hits, tested = test
    whole = metrics(verdict, headline, supports)
    validated = {"n": headline["n"], "accuracy": headline["value"]}
    for key in ("per_class", "balanced_accuracy"):
        validated[key] = whole[key]
    return {
        **whole,
        "accuracy": hits / tested,
        "cross_validated": validated,
        "split": {"train": 0, "val": 0, "test": tested},
    }


BY_CROSS_VALIDATION = (
    " by cross-validation, each judged by a model that never saw it or a copy of it."
)
VERDICTS = {
    "perfect and small": (
        cross_validated(
            "better", figures(18, 18, 1.0, [0.824, 1.0], "cross_validated"), (9, 9), (6, 6)
        ),
        "This model tells the classes apart: right on 18 of 18 pictures (100 %; 95 % interval"
        f" 82.4 % to 100 %){BY_CROSS_VALIDATION} On the 6 test pictures held out from the start it"
        " is right on 6. Always naming the largest class would be right on 50 %."
        " Labels not checked.",
    ),
    "perfect and large": (
        metrics("better", figures(1200, 1200, 1.0, [0.997, 1.0], "test"), (600, 600)),
        "This model tells the classes apart: right on 1,200 of 1,200 test pictures that it never"
        " saw (100 %; 95 % interval 99.7 % to 100 %). Always naming the largest class would be"
        " right on 50 %. Labels not checked.",
    ),
    "unequal": (
        cross_validated(
            "better",
            figures(316, 340, 0.9294, [0.897, 0.952], "cross_validated"),
            (300, 40),
            (48, 51),
        ),
        "This model tells the classes apart: right on 316 of 340 pictures (92.9 %; 95 % interval"
        f" 89.7 % to 95.2 %){BY_CROSS_VALIDATION} On the 51 test pictures held out from the start"
        " it is right on 48. Always naming the largest class would be right on 88.2 %. When every"
        " class counts the same, the model is right on 81.7 %. Labels not checked.",
    ),
    "noise": (
        metrics("no_better", figures(99, 200, 0.495, [0.426, 0.564], "test"), (100, 100)),
        "This model is no better than guessing: right on 99 of 200 test pictures that it never saw"
        " (49.5 %; 95 % interval 42.6 % to 56.4 %). Always naming the largest class would be right"
        " on 50 %. Labels not checked.",
    ),
    "nearly guessing": (
        cross_validated(
            "not_shown",
            figures(25, 40, 0.625, [0.47, 0.758], "cross_validated"),
            (20, 20),
            (4, 6),
        ),
        "With so few pictures it is not shown that this model is better than guessing: right on 25"
        f" of 40 pictures (62.5 %; 95 % interval 47 % to 75.8 %){BY_CROSS_VALIDATION} On the 6 test"
        " pictures held out from the start it is right on 4. Always naming the largest class would"
        " be right on 50 %. Labels not checked.",
    ),
    "nearly guessing on many": (
        metrics("not_shown", figures(1040, 2000, 0.52, [0.498, 0.542], "test"), (1000, 1000)),
        "It is not shown that this model is better than guessing: right on 1,040 of 2,000 test"
        " pictures that it never saw (52 %; 95 % interval 49.8 % to 54.2 %). Always naming the"
        " largest class would be right on 50 %. Labels not checked.",
    ),
    "all but one of many": (
        metrics("better", figures(4999, 5000, 0.9998, [0.9989, 0.99996], "test"), (2500, 2500)),
        "This model tells the classes apart: right on 4,999 of 5,000 test pictures that it never"
        " saw (99.9 %; 95 % interval 99.9 % to 99.9 %). Always naming the largest class would be"
        " right on 50 %. Labels not checked.",
    ),
    "verified": (
        metrics(
            "better",
            figures(28, 30, 0.9333, [0.787, 0.982], "verified"),
            (60, 60),
            accuracy=0.9,
        ),
        "This model tells the classes apart: right on 28 of the 30 test pictures whose labels a"
        " person checked (93.3 %; 95 % interval 78.7 % to 98.2 %). With labels as they were found,"
        " it is right on 108 of 120 test pictures. Always naming the largest class would be right"
        " on 50 %.",
    ),
    "verified, some of them off-topic": (
        metrics(
            "better",
            figures(28, 30, 0.9333, [0.787, 0.982], "verified"),
            (60, 60),
            accuracy=0.9,
            verified={"n": 36},
        ),
        "This model tells the classes apart: right on 28 of the 30 test pictures whose class a"
        " person named, of 36 checked (93.3 %; 95 % interval 78.7 % to 98.2 %). With labels as they"
        " were found, it is right on 108 of 120 test pictures. Always naming the largest class"
        " would be right on 50 %.",
    ),
    "verified, all of them off-topic": (
        metrics(
            "better",
            figures(108, 120, 0.9, [0.833, 0.942], "test"),
            (60, 60),
            verified={"n": 2},
        ),
        "This model tells the classes apart: right on 108 of 120 test pictures that it never saw"
        " (90 %; 95 % interval 83.3 % to 94.2 %). Always naming the largest class would be right on"
        " 50 %.",
    ),
    "verified and small": (
        cross_validated("better", figures(1, 1, 1.0, [0.207, 1.0], "verified"), (20, 20), (6, 6))
        | {
            "cross_validated": {
                "n": 40,
                "accuracy": 0.95,
                "per_class": {"a": {"support": 20}, "b": {"support": 20}},
            }
        },
        "This model tells the classes apart: right on 1 of the 1 test picture whose label a person"
        " checked (100 %; 95 % interval 20.7 % to 100 %). With labels as they were found,"
        " cross-validation is right on 38 of 40 pictures. Always naming the largest class would be"
        " right on 50 %.",
    ),
    "below the names alone": (
        metrics(
            "better",
            figures(108, 120, 0.9, [0.833, 0.942], "test"),
            (60, 60),
            zero_shot={
                "accuracy": 0.95,
                "interval": [0.895, 0.977],
                "n": 120,
                "model": "Example",
                "license": "Apache-2.0",
            },
        ),
        "This model tells the classes apart, and the names alone, without any training picture, do"
        " better (95 %): right on 108 of 120 test pictures that it never saw (90 %; 95 % interval"
        " 83.3 % to 94.2 %). Always naming the largest class would be right on 50 %."
        " Labels not checked.",
    ),
    "a fine-tuned network": (
        metrics(
            "better",
            figures(58, 60, 0.9667, [0.886, 0.991], "test"),
            (30, 30),
            delivered="network",
        ),
        "This model tells the classes apart: right on 58 of 60 test pictures that it never saw"
        " (96.7 %; 95 % interval 88.6 % to 99.1 %). Cross-validation judges linear classifiers"
        " only, so this figure of the fine-tuned network comes from its test pictures. Always"
        " naming the largest class would be right on 50 %. Labels not checked.",
    ),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_each_verdict_has_its_sentences(case: str) -> None:
    given, expected = VERDICTS[case]
    assert verdict(given) == expected


def earlier(accuracy: float, tested: int, better: bool, **more: Any) -> dict[str, Any]:
    """The figures of version 0.1.0, which had no verdict."""
    bounds = [max(0.0, accuracy - 0.05), min(1.0, accuracy + 0.05)]
    usual = {
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "interval": bounds,
        "majority_baseline": 0.5,
        "better_than_chance": better,
        "per_class": {"a": {"support": tested // 2}, "b": {"support": tested // 2}},
        "split": {"test": tested},
    }
    return {**usual, **more}


@pytest.mark.parametrize(
    ("given", "opening"),
    [
        (earlier(0.95, 40, True), "This model tells the classes apart: right on 38 of 40 test"),
        # faultless, yet 6 of 6 could not pass the test of that version
        (earlier(1.0, 6, False), "With so few pictures it is not shown that this model is better"),
        (earlier(0.5, 30, False), "With so few pictures it is not shown that this model is better"),
        (earlier(0.6, 400, False), "With so few pictures it is not shown that this model is"),
        (earlier(0.5, 400, False), "This model is no better than guessing: right on 200 of 400"),
    ],
)
def test_figures_of_the_version_before_get_a_sentence_that_is_true(
    given: dict[str, Any], opening: str
) -> None:
    assert verdict(given).startswith(opening)
    assert "by cross-validation" not in verdict(given)


def test_the_first_figure_has_its_counts_beside_it() -> None:
    given, _ = VERDICTS["nearly guessing"]
    assert headline_title(given) == "Right by cross-validation"
    assert headline_figure(given) == "62.5 % (25 of 40 pictures; 95 % interval 47 % to 75.8 %)"
    assert headline_title(earlier(1.0, 6, False)) == "Right on the test pictures"


@hypothesis.given(
    counts=st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    groups=st.floats(0.1, 1),
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_rounding_keeps_a_share_inside_its_interval_and_off_all_and_nothing(
    counts: tuple[int, int], groups: float
) -> None:
    hits, tested = counts
    share = hits / tested
    low, high = score_interval(share, max(1, groups * tested))
    for said in (percent, whole_percent):
        numbers = [float(said(value).removesuffix(" %")) for value in (low, share, high)]
        assert numbers == sorted(numbers)
        assert (numbers[1] == 100) == (hits == tested) and (numbers[1] == 0) == (hits == 0)


def test_guessing_is_measured_on_the_pictures_that_are_judged() -> None:
    given, sentences = VERDICTS["unequal"]
    given = {**given, "majority_baseline": 45 / 51}  # of the test pictures
    assert baseline(given) == 300 / 340
    assert verdict(given) == sentences
    assert f"largest class would be right on {percent(baseline(given))}." in sentences
    assert baseline(earlier(1.0, 6, False)) == 0.5
