import numpy as np
import pytest

from training.networks.novelty import (
    UNSURENESS_SHARE,
    References,
    choose_references,
)

RANDOM = np.random.default_rng(0)


def clouds(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings float32 [count, 32] of two classes that lie apart, and their labels."""
    labels = np.arange(count) % 2
    centres = np.abs(RANDOM.normal(size=(2, 32))) * 4
    return (centres[labels] + np.abs(RANDOM.normal(size=(count, 32)))).astype(np.float32), labels


def sure(count: int) -> np.ndarray:
    return np.tile([0.98, 0.02], (count, 1))


def test_what_was_learned_is_known_and_what_points_elsewhere_is_not() -> None:
    embeddings, labels = clouds(60)
    references = choose_references(embeddings, labels, 2, seed=0)
    strangers = np.eye(32, dtype=np.float32)[:5] * 9
    assert (
        references.novelty(embeddings, sure(60)).max()
        < references.novelty(strangers, sure(5)).min()
    )


def test_unsureness_adds_to_novelty() -> None:
    embeddings, labels = clouds(60)
    references = choose_references(embeddings, labels, 2, seed=0)
    unsure = np.full((60, 2), 0.5)
    difference = references.novelty(embeddings, unsure) - references.novelty(embeddings, sure(60))
    assert difference == pytest.approx(np.full(60, UNSURENESS_SHARE * 0.48))


def test_at_most_a_thousand_references_travel_in_the_model_and_every_class_has_its_share() -> None:
    labels = np.r_[np.zeros(4000, int), np.ones(30, int)]
    embeddings = np.abs(RANDOM.normal(size=(len(labels), 8))).astype(np.float32)
    references = choose_references(embeddings, labels, 2, seed=0)
    assert references.bounds == (0, 500, 530)
    assert references.vectors.shape == (530, 8) and references.vectors.dtype == np.float16


def test_classes_of_one_or_two_pictures_are_compared_with_what_there_is() -> None:
    references = References(np.ones(4, np.float32), np.eye(4, dtype=np.float16)[:3], (0, 1, 1, 3))
    assert references.novelty(
        np.eye(4, dtype=np.float32)[:1], np.array([[1.0, 0, 0]])
    ) == pytest.approx([0.0])
