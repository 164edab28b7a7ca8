from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from training.evaluation.learning_curve import (
    MINIMUM_IMAGES,
    MORE_PER_CLASS,
    SHARES,
    Fit,
    extrapolate,
    learning_curve,
)
from training.fitting.linear_head import LinearHead, Samples, fit_with_c
from training.images.split import FOLDS
from training.progress import no_progress

DIMENSION = 64
CENTRES = np.random.default_rng(99).standard_normal((4, DIMENSION))


def clouds(size: int, classes: int, distance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [n, 64] around the same centre per class whatever the seed, and their labels."""
    labels = np.arange(size) % classes
    noise = np.random.default_rng(seed).standard_normal((size, DIMENSION))
    return (distance * CENTRES[labels] + noise).astype(np.float32), labels


def samples_of(embeddings: np.ndarray, labels: np.ndarray) -> Samples:
    """Samples none of which is a near-duplicate of another."""
    return Samples(embeddings, labels, np.arange(len(labels)), int(labels.max()) + 1)


def head_on(embeddings: np.ndarray, labels: np.ndarray) -> LinearHead:
    model = LogisticRegression(C=1e-2).fit(embeddings, labels)
    weight = model.coef_
    bias = model.intercept_
    if len(weight) == 1:
        weight = np.concatenate([-weight, weight]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    return LinearHead(weight, bias)


def fitting(samples: Samples) -> Fit:
    return lambda indices: head_on(samples.embeddings[indices], samples.labels[indices])


@pytest.mark.parametrize(
    ("floor", "factor", "exponent"), [(0.05, 0.8, 0.5), (0.0, 1.2, 0.35), (0.1, 3.0, 1.0)]
)
def test_points_on_a_power_law_are_continued_along_it(
    floor: float, factor: float, exponent: float
) -> None:
    sizes = np.array([40.0, 80, 120, 160, 200])
    wanted = np.array([250.0, 450])
    errors = floor + factor * sizes**-exponent
    predicted = extrapolate(sizes, errors[None], np.full(5, 1e8), wanted)
    assert predicted[0] == pytest.approx(floor + factor * wanted**-exponent, abs=0.003)


def test_points_that_do_not_fall_promise_no_gain() -> None:
    sizes = np.array([20.0, 40, 60, 80, 100])
    wanted = np.array([125.0, 325])
    for errors in ([0.3] * 5, [0.2, 0.22, 0.24, 0.26, 0.28], [0.0] * 5):
        predicted = extrapolate(sizes, np.array([errors]), np.full(5, 1e4), wanted)
        assert predicted[0] == pytest.approx([np.mean(errors)] * 2)


def test_no_law_ever_promises_less_than_no_error() -> None:
    sizes = np.array([20.0, 40, 60, 80, 100])
    wanted = np.array([1e3, 1e6])
    steep = np.array([[0.5, 0.38, 0.26, 0.14, 0.02]])
    assert (extrapolate(sizes, steep, np.full(5, 1e6), wanted) >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_promised_gain_is_about_what_more_pictures_bring(seed: int) -> None:
    """Counts what the extrapolation guesses: 200 more per class are made, learned from, and tested
    on 4,000 others.
    """
    classes = 4
    size = 400
    samples = samples_of(*clouds(size, classes, 0.25, seed))
    curve = learning_curve(samples, seed, fitting(samples), no_progress)
    assert curve is not None
    more, more_labels = clouds(MORE_PER_CLASS * classes, classes, 0.25, 100 + seed)
    test, test_labels = clouds(4000, classes, 0.25, 200)
    small = head_on(samples.embeddings, samples.labels)
    large = head_on(
        np.concatenate([samples.embeddings, more]), np.concatenate([samples.labels, more_labels])
    )
    hits = [(head.logits(test).argmax(axis=1) == test_labels).mean() for head in (small, large)]
    assert curve["gain"] == pytest.approx(hits[1] - hits[0], abs=0.025)
    assert (
        curve["sentence"]
        == f"200 more pictures per class would give about {100 * curve['gain']:+.1f} points."
    )


def test_the_points_say_from_how_many_pictures_how_much_was_learned() -> None:
    samples = samples_of(*clouds(400, 2, 0.2, 0))
    curve = learning_curve(samples, 0, fitting(samples), no_progress)
    assert curve is not None and curve["more_per_class"] == MORE_PER_CLASS
    learned_from = 200 * (FOLDS - 1) / FOLDS
    assert [point["per_class"] for point in curve["points"]] == [
        round(share * learned_from) for share in SHARES
    ]
    first = curve["points"][0]
    last = curve["points"][-1]
    assert 0.5 < first["accuracy"] < last["accuracy"] < 1
    assert first["error"] == pytest.approx(
        (first["accuracy"] * (1 - first["accuracy"]) / 400) ** 0.5
    )


def test_classes_that_are_distinguished_at_once_need_no_more_images() -> None:
    samples = samples_of(*clouds(300, 2, 2.0, 0))
    curve = learning_curve(samples, 0, fitting(samples), no_progress)
    assert curve is not None and curve["gain"] < 0.002
    assert curve["sentence"] == "More pictures of the same kind would hardly help."


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_promised_where_nothing_was_learned(seed: int) -> None:
    samples = samples_of(*clouds(400, 2, 0.0, seed))
    curve = learning_curve(samples, seed, fitting(samples), no_progress)
    assert curve is not None
    assert (
        curve["sentence"]
        == "With these pictures too little was learned to say what more would bring."
    )


def test_of_unequal_classes_what_was_learned_is_not_measured_against_the_largest() -> None:
    """Right on about as many as the name of the largest class, yet it finds the small one."""
    embeddings, _ = clouds(400, 2, 0.0, 0)
    labels = np.repeat([0, 1], [350, 50])
    embeddings = embeddings + 0.2 * CENTRES[labels].astype(np.float32)
    samples = samples_of(embeddings, labels)

    def fit(indices: np.ndarray) -> LinearHead:
        return fit_with_c(samples.take(indices), 1e-3)

    curve = learning_curve(samples, 0, fit, no_progress)
    assert curve is not None and curve["points"][-1]["accuracy"] < 350 / 400 + 0.02
    assert "too little was learned" not in curve["sentence"]


def test_a_small_set_has_no_curve() -> None:
    samples = samples_of(*clouds(MINIMUM_IMAGES - 1, 2, 0.3, 0))
    assert learning_curve(samples, 0, fitting(samples), no_progress) is None


def test_every_fit_is_reported() -> None:
    samples = samples_of(*clouds(320, 2, 0.3, 0))
    reports = []
    learning_curve(samples, 0, fitting(samples), lambda *steps: reports.append(steps))
    fits = FOLDS * len(SHARES)
    assert reports == [(done, fits) for done in range(1, fits + 1)]


def test_every_share_contains_the_smaller_ones_and_has_the_classes_in_proportion() -> None:
    embeddings, _ = clouds(400, 2, 0.3, 0)
    samples = samples_of(embeddings, np.repeat([0, 1], [300, 100]))
    asked: list[np.ndarray] = []

    def fit(indices: np.ndarray) -> LinearHead:
        asked.append(indices)
        return head_on(embeddings[indices], samples.labels[indices])

    learning_curve(samples, 0, fit, no_progress)
    assert len(asked) == FOLDS * len(SHARES)
    for start in range(0, len(asked), len(SHARES)):
        shares = asked[start : start + len(SHARES)]
        assert all(set(small) < set(large) for small, large in pairwise(shares))
        assert all(
            samples.labels[indices].mean() == pytest.approx(0.25, abs=0.02) for indices in shares
        )


def test_no_head_is_tested_on_near_duplicates_of_what_it_learned() -> None:
    """Each image four times, labels drawn by lot: only a head that saw a duplicate can be right."""
    base, _ = clouds(100, 2, 0.0, 0)
    labels = np.repeat(np.random.default_rng(0).permutation(np.arange(100) % 2), 4)
    groups = np.repeat(np.arange(100), 4)
    samples = Samples(np.repeat(base, 4, axis=0), labels, groups, 2)
    curve = learning_curve(samples, 0, fitting(samples), no_progress)
    assert curve is not None and curve["points"][-1]["accuracy"] < 0.65


def test_the_same_pictures_and_seed_give_the_same_curve() -> None:
    samples = samples_of(*clouds(320, 3, 0.2, 0))
    once = learning_curve(samples, 4, fitting(samples), no_progress)
    again = learning_curve(samples, 4, fitting(samples), no_progress)
    assert once == again
