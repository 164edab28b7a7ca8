"""Label issues, outliers and strangers, on real photographs embedded by the real network."""

import numpy as np
import pytest

from tests.training.conftest import STAMPS, on_white, stamps
from training.fitting.label_issues import (
    choose_weighting,
    find_label_issues,
    label_issue_scores,
    neighbour_votes,
    out_of_fold_probabilities,
    rank_suspects,
)
from training.fitting.linear_head import FittedHead, Samples, fit_head
from training.fitting.relevance import out_of_fold_novelty, reject_threshold
from training.metrics import softmax, wilson_interval
from training.networks.backbones import BACKBONES, load_backbone
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.networks.novelty import choose_references
from training.networks.weights import WeightSources
from training.progress import no_progress

SEEDS = 10
NAMES = ("mammal", "plant")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Embeddings of mammals, plants and all other photographs by the bundled network."""
    loaded = load_backbone(
        BACKBONES["efficientnet_lite0"],
        "pretrained",
        WeightSources(None, tmp_path_factory.mktemp("w"), ""),
    )
    network = ClassifierNetwork(loaded.backbone, loaded.network, 2)
    paths = {"mammal": stamps("animals/mammals"), "plant": stamps("plants")}
    known = {path for group in paths.values() for path in group}
    paths["stranger"] = [
        path
        for path in stamps(*(p.name for p in STAMPS.iterdir() if p.is_dir()))
        if path not in known
    ]
    return {
        name: np.concatenate(
            [
                embed_images(network, [on_white(p) for p in group[at : at + 16]])
                for at in range(0, len(group), 16)
            ]
        )
        for name, group in paths.items()
    }


def drawn(seen: dict[str, np.ndarray], seed: int, held_out: int) -> tuple[Samples, Samples]:
    """38 mammals and 38 plants: those learned from, and so many of each held out."""
    random = np.random.default_rng(seed)
    chosen = [seen[name][random.permutation(len(seen[name]))[:38]] for name in NAMES]
    drawn_samples = []
    for start, end in ((held_out, 38), (0, held_out)):
        embeddings = np.concatenate([pictures[start:end] for pictures in chosen])
        labels = np.repeat(np.arange(2), end - start)
        groups = np.arange(len(labels)) + 1000 * start
        drawn_samples.append(Samples(embeddings, labels, groups, 2))
    return drawn_samples[0], drawn_samples[1]


def fitted(learned: Samples, seed: int) -> FittedHead:
    return fit_head(learned, seed, no_progress)


def test_swapped_labels_come_first_in_the_ranking_of_all_pictures(
    seen: dict[str, np.ndarray],
) -> None:
    found = []
    for seed in range(SEEDS):
        learned, _ = drawn(seen, seed, 0)
        swapped = np.random.default_rng(seed).permutation(len(learned.labels))[:8]
        learned.labels[swapped] = 1 - learned.labels[swapped]
        pred_probs = out_of_fold_probabilities(learned, fitted(learned, seed).c, seed)
        scores = label_issue_scores(pred_probs, learned.labels)
        first = np.argsort(-scores)[: round(0.15 * len(scores))]
        found.append(np.isin(swapped, first).mean())
    assert np.mean(found) >= 0.8


def test_strangers_are_refused_and_few_of_the_classes_own_pictures(
    seen: dict[str, np.ndarray],
) -> None:
    strangers = []
    refused = 0
    tested = 0
    for seed in range(SEEDS):
        learned, test = drawn(seen, seed, 6)
        head = fitted(learned, seed)
        unseen = softmax(head.out_of_fold / head.temperature)
        threshold = reject_threshold(out_of_fold_novelty(learned, unseen, seed))
        references = choose_references(learned.embeddings, learned.labels, 2, seed)
        refusals = {
            name: references.novelty(
                pictures, softmax(head.head.logits(pictures) / head.temperature)
            )
            > threshold
            for name, pictures in (("stranger", seen["stranger"]), ("test", test.embeddings))
        }
        strangers.append(refusals["stranger"].mean())
        refused = refused + refusals["test"].sum()
        tested = tested + len(refusals["test"])
    assert len(seen["stranger"]) > 400
    assert np.mean(strangers) >= 0.8
    low, high = wilson_interval(int(refused), tested)
    assert low <= 0.05 <= high


def test_an_image_has_no_vote_on_itself_nor_on_its_near_duplicates() -> None:
    random = np.random.default_rng(0)
    embeddings = np.abs(random.normal(size=(40, 16))).astype(np.float32)
    embeddings[1] = embeddings[0]
    labels = np.zeros(40, np.int64)
    labels[:2] = 1
    apart = Samples(embeddings, labels, np.arange(40), 2)
    together = Samples(embeddings, labels, np.r_[0, 0, np.arange(2, 40)], 2)
    assert neighbour_votes(apart, apart)[0, 1] > 0.1
    assert neighbour_votes(together, together)[0, 1] < 1e-3


def test_suspects_have_a_score_and_a_reason_and_outliers_are_named_apart() -> None:
    pred_probs = np.array([[0.97, 0.03]] * 20 + [[0.02, 0.98]] * 20 + [[0.9, 0.1]])
    labels = np.array([0] * 20 + [1] * 20 + [1])
    distances = np.r_[np.random.default_rng(0).normal(0, 1, 40), 0.0]
    distances[5] = 25.0
    suspects = {
        suspect.kind: suspect for suspect in rank_suspects(pred_probs, labels, distances, NAMES)
    }
    label = suspects["label"]
    outlier = suspects["outlier"]
    assert len(suspects) == 2 and (label.index, label.suggested) == (40, 0)
    assert label.reason == "Looks like “mammal” (90%) rather than its label “plant” (10%)."
    assert label.score == pytest.approx(0.9)
    assert (outlier.index, outlier.suggested) == (5, None) and 0.5 < outlier.score <= 1


def test_pictures_in_order_are_not_suspected_however_unequal_the_classes() -> None:
    pred_probs = np.array([[0.99, 0.01]] * 100 + [[0.4, 0.6]] * 10)
    labels = np.array([0] * 100 + [1] * 10)
    assert not find_label_issues(pred_probs, labels).any()


def test_a_label_that_everything_speaks_against_is_suspected_even_beside_surer_pictures() -> None:
    pred_probs = np.array([[0.999, 0.001]] * 30 + [[0.001, 0.999]] * 30 + [[0.95, 0.05]])
    labels = np.array([0] * 30 + [1] * 31)
    assert find_label_issues(pred_probs, labels).nonzero()[0].tolist() == [60]


def test_nothing_counts_less_where_no_label_is_wrong(seen: dict[str, np.ndarray]) -> None:
    learned, _ = drawn(seen, 0, 0)
    c = fitted(learned, 0).c
    pred_probs = out_of_fold_probabilities(learned, c, 0)
    weighting = choose_weighting(learned, pred_probs, c, 0)
    assert weighting.name == "none" and weighting.lighter == 0 and weighting.weights.min() == 1


def test_only_suspected_pictures_ever_count_less(seen: dict[str, np.ndarray]) -> None:
    names = set()
    for seed in range(6):
        learned, _ = drawn(seen, seed, 0)
        random = np.random.default_rng(seed)
        swapped = random.permutation(len(learned.labels))[:12]
        learned.labels[swapped] = 1 - learned.labels[swapped]
        c = fitted(learned, seed).c
        pred_probs = out_of_fold_probabilities(learned, c, seed)
        weighting = choose_weighting(learned, pred_probs, c, seed)
        lighter = weighting.weights < 1
        assert not (lighter & ~find_label_issues(pred_probs, learned.labels)).any()
        assert lighter.any() == (weighting.name != "none") and weighting.sentence.endswith(".")
        names.add(weighting.name)
    assert names - {"none"}, "no weighting was ever taken, so nothing was tried"


def test_near_duplicates_with_different_labels_are_suspected_both() -> None:
    probabilities = np.array([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1], [0.1, 0.9]])
    labels = np.array([0, 1, 0, 1])
    groups = np.array([7, 7, 8, 9])
    suspects = rank_suspects(probabilities, labels, np.ones(4), ["corgi", "fox"], groups)
    found = {suspect.index: (suspect.kind, suspect.suggested) for suspect in suspects}
    assert found == {0: ("label", 1), 1: ("label", 0)}
    assert "near-duplicate of it is labelled “fox”" in suspects[0].reason
