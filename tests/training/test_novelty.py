import numpy as np
import pytest

from training.metrics import Floats, Labels
from training.networks.novelty import UNCERTAINTY_SHARE, References, choose_references

RANDOM = np.random.default_rng(0)


def clouds(count: int) -> tuple[np.ndarray, Labels]:
    """Return embeddings float32 [count, 32] of two classes that lie apart, and their labels."""
    labels = np.arange(count) % 2
    centers = np.abs(RANDOM.normal(size=(2, 32))) * 4
    spread = np.abs(RANDOM.normal(size=(count, 32)))
    embeddings = centers[labels] + spread
    return embeddings.astype(np.float32), labels


def sure(count: int) -> Floats:
    return np.tile([0.98, 0.02], (count, 1))


def test_what_was_learned_is_known_and_what_points_elsewhere_is_not() -> None:
    embeddings, labels = clouds(60)
    references = choose_references(embeddings, labels, 2, seed=0)
    strangers = np.eye(32, dtype=np.float32)[:5] * 9
    learned = references.novelty(embeddings, sure(60))
    strange = references.novelty(strangers, sure(5))
    assert learned.max() < strange.min()


def test_uncertainty_adds_to_novelty() -> None:
    embeddings, labels = clouds(60)
    references = choose_references(embeddings, labels, 2, seed=0)
    uncertain = references.novelty(embeddings, np.full((60, 2), 0.5))
    certain = references.novelty(embeddings, sure(60))
    expected = np.full(60, UNCERTAINTY_SHARE * 0.48)
    assert uncertain - certain == pytest.approx(expected)


def test_at_most_a_thousand_references_travel_in_the_model_and_every_class_has_its_share() -> None:
    labels = np.repeat([0, 1], [4000, 30])
    embeddings = np.abs(RANDOM.normal(size=(len(labels), 8)))
    references = choose_references(embeddings.astype(np.float32), labels, 2, seed=0)
    assert references.bounds == (0, 500, 530)
    assert references.vectors.shape == (530, 8)
    assert references.vectors.dtype == np.float16


def test_classes_of_one_or_two_images_are_compared_with_what_there_is() -> None:
    vectors = np.eye(4, dtype=np.float16)[:3]
    references = References(np.ones(4, np.float32), vectors, bounds=(0, 1, 1, 3))
    embeddings = np.eye(4, dtype=np.float32)[:1]
    probabilities = np.array([[1.0, 0, 0]])
    assert references.novelty(embeddings, probabilities) == pytest.approx([0.0])
