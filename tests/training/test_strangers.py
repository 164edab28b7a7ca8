"""Pictures of other things: the bundled ones, which of them are shown, and how many are refused."""

import csv

import numpy as np
import pytest

from tests.training.tiny_training import tiny_network
from training.evaluation.left_out_class import leave_classes_out
from training.fitting.linear_head import Samples
from training.images.decode import read_image
from training.networks.novelty import choose_references
from training.networks.strangers import FOLDER, TABLE, measure_refusal, read_strangers, unrelated
from training.phrases import refusal, refusal_measured


def test_every_bundled_picture_opens_is_small_and_has_its_licence_in_the_table() -> None:
    rows = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
    files = {path.name for path in FOLDER.glob("*.jpg")}
    assert {row["file"] for row in rows} == files
    assert 60 <= len(rows) <= 100
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000
    for row in rows:
        assert max(read_image(FOLDER / row["file"]).size) <= 224
        assert row["licence"] and row["source"] and row["words"]
    assert {row["kind"] for row in rows} == {"photograph", "drawing", "page", "texture"}


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("dog", {"black_lab_ganson.jpg"}),
        ("Dogs", {"black_lab_ganson.jpg"}),
        ("guide dog", {"black_lab_ganson.jpg"}),
        ("hotdog", set()),
        ("umbrella", {"umbrella.jpg"}),
        ("wind turbine", set()),
    ],
)
def test_a_stranger_that_a_class_may_be_about_is_left_out(name: str, out: set[str]) -> None:
    everything = read_strangers()
    shown = unrelated(everything, ["wind turbine", name])
    assert {stranger.file for stranger in everything} - {one.file for one in shown} == out


def test_every_picture_of_a_kind_is_left_out_where_a_class_is_about_the_kind() -> None:
    kinds = {stranger.kind for stranger in unrelated(read_strangers(), ["drawings", "photo"])}
    assert kinds == {"page", "texture"}


@pytest.mark.parametrize(("threshold", "share"), [(-1.0, 1.0), (10.0, 0.0)])
def test_what_is_above_the_threshold_is_refused(threshold: float, share: float) -> None:
    network = tiny_network(2)
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(8, network.backbone.dimension)).astype(np.float32)
    network.set_references(choose_references(embeddings, np.arange(8) % 2, 2, 0))
    measured = measure_refusal(network, threshold, ["dog", "wind turbine"])
    assert measured is not None
    assert measured["n"] == len(read_strangers()) - 1
    assert measured["refused"] == share * measured["n"]
    assert measured["how"].endswith("1 more were left out because a class may be about them.")
    assert "photographs" in measured["how"]


def test_nothing_is_measured_where_a_class_could_be_about_every_stranger() -> None:
    network = tiny_network(2)
    names = ["photo", "drawing", "page", "texture"]
    assert measure_refusal(network, 0.5, names) is None


def clusters(classes: int) -> Samples:
    """Images of classes in directions of their own, ten of each."""
    random = np.random.default_rng(0)
    labels = np.arange(classes).repeat(10)
    centers = 6 * np.eye(classes, 12)
    embeddings = centers[labels] + random.normal(size=(len(labels), 12))
    groups = np.arange(len(labels))
    return Samples(embeddings.astype(np.float32), labels, groups, classes)


def test_images_of_a_class_that_was_left_out_are_mostly_refused_where_classes_lie_apart() -> None:
    measured = leave_classes_out(clusters(4), 0.01, 0, lambda: True)
    assert measured is not None
    assert (measured["n"], measured["classes"]) == (40, 4)
    assert measured["refused"] >= 30


def test_no_class_is_left_out_of_two_nor_without_time_and_five_of_many() -> None:
    assert leave_classes_out(clusters(2), 0.01, 0, lambda: True) is None
    assert leave_classes_out(clusters(4), 0.01, 0, lambda: False) is None
    measured = leave_classes_out(clusters(7), 0.01, 0, lambda: True)
    assert measured is not None
    assert (measured["n"], measured["classes"]) == (50, 5)


@pytest.mark.parametrize(
    ("refused", "said"),
    [(0, "about 0 of 10"), (17, "about 3 of 10"), (58, "about 10 of 10")],
)
def test_refusal_is_said_of_ten_pictures(refused: int, said: str) -> None:
    metrics = {
        "verdict": "better",
        "headline": {},
        "strangers": {"refused": refused, "n": 58, "how": "Shown 58 pictures."},
        "left_out_class": {"refused": 7, "n": 40, "classes": 4},
    }
    assert refusal(metrics) == f"Refuses {said} unrelated pictures."
    assert refusal_measured(metrics) == (
        f"{refused} of 58 were refused. Shown 58 pictures. With each of 4 classes left out in turn,"
        " 7 of 40 pictures of the class that was left out were refused."
    )


def test_nothing_is_said_of_runs_in_which_it_was_not_measured() -> None:
    metrics = {"verdict": "better", "headline": {}}
    assert refusal(metrics) == ""
    assert refusal_measured(metrics) == ""
