import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from training.fitting.label_issues import (
    choose_weighting,
    find_label_issues,
    out_of_fold_probabilities,
)
from training.fitting.linear_head import C_VALUES, FittedHead, Samples, find_temperature, fit_head
from training.images.split import FOLDS
from training.metrics import log_loss, softmax
from training.progress import no_progress


def clouds(
    size: int, classes: int, distance: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [n, 32] around one centre per class, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(size) % classes
    centres = random.standard_normal((classes, 32)) * distance
    return (centres[labels] + random.standard_normal((size, 32))).astype(np.float32), labels


def ungrouped(embeddings: np.ndarray, labels: np.ndarray, classes: int) -> Samples:
    """Samples none of which is a near-duplicate of another."""
    return Samples(embeddings, labels, np.arange(len(labels)), classes)


def fitted(embeddings: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0) -> FittedHead:
    return fit_head(ungrouped(embeddings, labels, classes), seed, no_progress)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_head_answers_as_logistic_regression_on_standardised_embeddings(classes: int) -> None:
    embeddings, labels = clouds(120, classes, 0.5)
    embeddings[:, 7] = 3.0  # a feature that never changes
    ours = fitted(embeddings, labels, classes)
    standardised = StandardScaler().fit(embeddings)
    oracle = LogisticRegression(C=ours.c, max_iter=2000).fit(
        standardised.transform(embeddings), labels
    )
    expected = oracle.predict_proba(standardised.transform(embeddings))
    assert (
        np.abs(softmax(ours.head.logits(embeddings)) - expected).max() < 5e-3
    )  # the solvers stop at different points


def test_out_of_fold_predictions_know_nothing_of_their_own_labels() -> None:
    embeddings, labels = clouds(100, 2, 0.0)
    out_of_fold = fitted(embeddings, labels, 2).out_of_fold
    hits = (out_of_fold.argmax(axis=1) == labels).mean()
    assert 0.3 < hits < 0.7


def test_near_duplicates_of_a_picture_never_vote_on_it() -> None:
    embeddings, labels = clouds(60, 2, 0.0)
    doubled = np.repeat(embeddings, 2, axis=0)
    twice = np.repeat(labels, 2)
    groups = np.repeat(np.arange(60), 2)
    apart = fit_head(Samples(doubled, twice, groups, 2), 0, no_progress)
    assert (apart.out_of_fold.argmax(axis=1) == twice).mean() < 0.7
    mixed = fitted(doubled, twice, 2)
    strongest = LogisticRegression(C=1.0).fit(doubled, twice)
    assert strongest.score(doubled, twice) > 0.8
    assert log_loss(apart.out_of_fold, twice) >= log_loss(mixed.out_of_fold, twice)


def test_five_classes_with_ten_to_one_imbalance_all_get_a_say() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), [60, 30, 15, 8, 6])
    embeddings = (4 * np.eye(5, 32)[labels] + random.standard_normal((len(labels), 32))).astype(
        np.float32
    )
    result = fitted(embeddings, labels, 5)
    hits = result.out_of_fold.argmax(axis=1) == labels
    assert [bool(hits[labels == label].mean() > 0.5) for label in range(5)] == [True] * 5
    assert np.isfinite(result.out_of_fold).all() and 0.1 < result.temperature < 10


def test_the_same_pictures_and_seed_give_the_same_head() -> None:
    embeddings, labels = clouds(90, 3, 0.4)
    one = fitted(embeddings, labels, 3, seed=5)
    other = fitted(embeddings, labels, 3, seed=5)
    assert np.array_equal(one.head.weight, other.head.weight)
    assert np.array_equal(one.out_of_fold, other.out_of_fold)
    assert one.temperature == other.temperature


@pytest.mark.parametrize(
    ("checks", "tried"), [(0, 1), (FOLDS - 1, 1), (FOLDS, 2), (2 * FOLDS + 1, 3)]
)
def test_a_search_without_time_ends_with_the_best_of_what_all_folds_have_tried(
    checks: int, tried: int
) -> None:
    embeddings, labels = clouds(90, 3, 0.4)
    left = iter([True] * checks)
    reports = []
    hurried = fit_head(
        ungrouped(embeddings, labels, 3),
        0,
        lambda done, total: reports.append(done),
        has_time=lambda: next(left, False),
    )
    assert hurried.tried == tried and hurried.c in C_VALUES[:tried]
    assert reports == [*range(1, FOLDS + checks + 1), FOLDS * len(C_VALUES) + 1]
    assert np.isfinite(hurried.head.weight).all() and (hurried.out_of_fold > -30).all()


def test_a_limit_that_is_not_met_changes_nothing() -> None:
    embeddings, labels = clouds(90, 3, 0.4)
    samples = ungrouped(embeddings, labels, 3)
    free = fit_head(samples, 0, no_progress)
    limited = fit_head(samples, 0, no_progress, has_time=lambda: True)
    assert free.tried == limited.tried == len(C_VALUES)
    assert np.array_equal(free.head.weight, limited.head.weight)
    assert free.temperature == limited.temperature


def test_the_temperature_undoes_exaggeration() -> None:
    random = np.random.default_rng(0)
    logits = random.standard_normal((4000, 3)) * 2
    labels = np.array([random.choice(3, p=row) for row in softmax(logits)])
    assert find_temperature(logits * 3, labels) == pytest.approx(3, rel=0.08)
    assert find_temperature(logits, labels) == pytest.approx(1, rel=0.08)


def test_few_predictions_change_the_temperature_only_where_it_pays() -> None:
    random = np.random.default_rng(1)
    logits = random.standard_normal((80, 2)) * 2
    labels = np.array([random.choice(2, p=row) for row in softmax(logits)])
    assert find_temperature(logits, labels) == 1.0
    assert find_temperature(logits * 4, labels) > 2


def test_faultless_predictions_do_not_become_certainties() -> None:
    labels = np.arange(40) % 2
    logits = np.where(np.eye(2)[labels] > 0, 1.0, -1.0)
    sure = softmax(logits / find_temperature(logits, labels)).max()
    assert 0.9 < sure < 0.995


def test_swapped_labels_are_suspected_and_right_ones_are_not() -> None:
    embeddings, labels = clouds(200, 2, 1.0)
    swapped = labels.copy()
    swapped[:20] = 1 - swapped[:20]
    head = fitted(embeddings, swapped, 2)
    issues = find_label_issues(softmax(head.out_of_fold / head.temperature), swapped)
    assert issues[:20].sum() >= 12
    assert issues[20:].sum() <= 2


def test_classes_of_a_few_groups_of_near_duplicates_are_learned_all_the_same() -> None:
    random = np.random.default_rng(0)
    for seed in range(6):
        labels = np.repeat([0, 1], 6)
        groups = np.repeat([0, 1, 2, 3], 3)
        embeddings = random.normal(size=(12, 8)).astype(np.float32) + labels[:, None]
        samples = Samples(embeddings, labels, groups, 2)
        c = fit_head(samples, seed, no_progress).c
        pred_probs = out_of_fold_probabilities(samples, c, seed)
        weighting = choose_weighting(samples, pred_probs, c, seed)
        assert np.isfinite(pred_probs).all() and len(weighting.weights) == 12
