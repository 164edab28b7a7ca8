import numpy as np
import pytest

from training.metrics import Floats, Labels
from training.networks.novelty import UNCERTAINTY_SHARE, References, choose_references

RANDOM = np.random.default_rng(0)
COUNT = 60


def clouds() -> tuple[np.ndarray, Labels]:
    """Return embeddings float32 [60, 32] of two classes that lie apart, and their labels."""
    labels = np.arange(COUNT) % 2
    directions = RANDOM.normal(size=(2, 32))
    centers = 4 * np.abs(directions)
    noise = RANDOM.normal(size=(COUNT, 32))
    embeddings = centers[labels] + np.abs(noise)
    return embeddings.astype(np.float32), labels


def sure(count: int) -> Floats:
    return np.tile([0.98, 0.02], (count, 1))


def test_what_was_learned_is_known_and_what_points_elsewhere_is_not() -> None:
    embeddings, labels = clouds()
    references = choose_references(embeddings, labels, 2, seed=0)
    axes = np.eye(32, dtype=np.float32)
    strangers = 9 * axes[:5]
    learned = references.novelty(embeddings, sure(COUNT))
    strange = references.novelty(strangers, sure(5))
    assert learned.max() < strange.min()


def test_uncertainty_adds_to_novelty() -> None:
    embeddings, labels = clouds()
    references = choose_references(embeddings, labels, 2, seed=0)
    unsure = np.full((COUNT, 2), 0.5)
    uncertain = references.novelty(embeddings, unsure)
    certain = references.novelty(embeddings, sure(COUNT))
    added = uncertain - certain
    expected = UNCERTAINTY_SHARE * 0.48
    assert added == pytest.approx(np.full(COUNT, expected))


def test_at_most_a_thousand_references_travel_in_the_model_and_every_class_has_its_share() -> None:
    labels = np.repeat([0, 1], [4000, 30])
    noise = RANDOM.normal(size=(4030, 8))
    embeddings = np.abs(noise).astype(np.float32)
    references = choose_references(embeddings, labels, 2, seed=0)
    assert references.bounds == (0, 500, 530)
    vectors = references.vectors
    assert vectors.shape == (530, 8)
    assert vectors.dtype == np.float16


def test_classes_of_one_or_two_images_are_compared_with_what_there_is() -> None:
    axes = np.eye(4)
    references = References(
        scale=np.ones(4, np.float32),
        vectors=axes[:3].astype(np.float16),
        bounds=(0, 1, 1, 3),
    )
    embeddings = axes[:1].astype(np.float32)
    probabilities = np.array([[1.0, 0, 0]])
    scores = references.novelty(embeddings, probabilities)
    assert scores == pytest.approx([0.0])
