import numpy as np
import pytest

from training.fitting.linear_head import Samples
from training.fitting.relevance import out_of_fold_novelty, reject_threshold
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
