import numpy as np
import pytest

from training.fitting.linear_head import Samples
from training.fitting.relevance import (
    OUTLIER_DISTANCE,
    combined_doubt,
    core_distances,
    doubt_by_distance,
    out_of_fold_novelty,
    reject_threshold,
)
from training.networks.novelty import choose_references


def test_out_of_fold_novelty_does_not_know_the_image_itself_nor_its_near_duplicates() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    centers = 4 * np.abs(random.normal(size=(2, 32)))
    noise = np.abs(random.normal(size=(60, 32)))
    embeddings = (centers[labels] + noise).astype(np.float32)
    embeddings[2] = embeddings[0]
    groups = np.arange(60)
    groups[2] = 0
    samples = Samples(embeddings, labels, groups, 2)
    confident = np.tile([0.98, 0.02], (60, 1))
    unseen = out_of_fold_novelty(samples, confident, seed=0)
    references = choose_references(embeddings, labels, 2, seed=0)
    seen = references.novelty(embeddings, confident)
    assert unseen.mean() > 1.2 * seen.mean()
    assert unseen[0] > 1.2 * seen[0]


@pytest.mark.parametrize("count", [60, 5000])
def test_five_percent_of_unseen_images_lie_above_the_threshold(count: int) -> None:
    scores = np.random.default_rng(1).normal(0.4, 0.05, count)
    assert (scores > reject_threshold(scores)).mean() == pytest.approx(0.05, abs=0.03)


def with_strangers(share: float) -> tuple[Samples, np.ndarray]:
    """Return two classes of 60 images, of which a share are alike among themselves alone."""
    random = np.random.default_rng(0)
    labels = np.arange(120) % 2
    is_stranger = np.arange(120) < round(share * 120)
    kinds = np.where(is_stranger, labels + 2, labels)
    centers = 4 * np.abs(random.normal(size=(4, 32)))
    noise = np.abs(random.normal(size=(120, 32)))
    embeddings = (centers[kinds] + noise).astype(np.float32)
    return Samples(embeddings, labels, np.arange(120), 2), is_stranger


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_strangers_neither_move_the_core_of_a_class_nor_widen_it(share: float) -> None:
    samples, is_stranger = with_strangers(share)
    distances = core_distances(samples)
    assert distances[is_stranger].min() > distances[~is_stranger].max()
    assert np.median(distances[~is_stranger]) < 1
    if share <= 0.2:  # then the core has none
        assert (distances[is_stranger] > OUTLIER_DISTANCE).all()


def test_images_of_their_class_alone_are_hardly_ever_outliers() -> None:
    samples, _ = with_strangers(0)
    assert (core_distances(samples) > OUTLIER_DISTANCE).mean() <= 0.05


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_a_class_of_few_images_has_no_outliers_but_finite_distances(count: int) -> None:
    samples, _ = with_strangers(0)
    few = samples.take(np.r_[np.arange(2 * count), np.arange(20, 40, 2)])
    alike = Samples(np.ones_like(few.embeddings), few.labels, few.groups, 2)
    for of_class in (few, alike):
        distances = core_distances(of_class)
        assert np.isfinite(distances).all()
        if count < 8:
            assert (distances[of_class.labels == 1] == 0).all()


def test_doubts_of_two_kinds_add_up_and_stay_within_one() -> None:
    doubt = doubt_by_distance(np.array([-3.0, 0.0, 4.0, 1e9]))
    assert doubt.tolist() == pytest.approx([0, 0, 0.5, 1])
    assert combined_doubt(doubt, np.full(4, 0.5)).tolist() == pytest.approx([0.5, 0.5, 0.75, 1])
