from collections.abc import Sequence

import numpy as np
import pytest

from training.evaluation.unseen_source import (
    MINIMUM_LISTED,
    MOST_FITS,
    SourcedImages,
    leave_sources_out,
)
from training.fitting.linear_head import Samples, fit_head
from training.metrics import UnseenSourceMetrics, grouped_interval
from training.progress import no_progress

NAMES = ("corgi", "fox", "wolf")
DIMENSION = 32


def clouds(
    sources: Sequence[str], labels: np.ndarray, planted: float = 0.0, seed: int = 0
) -> SourcedImages:
    """Images around a centre of their class and one of their source.

    `planted` is how far a look of its own goes with the class in each source, another in each.
    """
    random = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    names = sorted(set(sources))
    class_centres = random.normal(size=(classes, DIMENSION))
    looks = random.normal(size=(len(names), classes, DIMENSION))
    number = np.array([names.index(source) for source in sources])
    embeddings = random.normal(size=(len(labels), DIMENSION)) + 0.35 * class_centres[labels]
    embeddings += planted * looks[number, labels]
    samples = Samples(embeddings.astype(np.float32), labels, np.arange(len(labels)), classes)
    return judged_as_usual(samples, sources)


def judged_as_usual(samples: Samples, sources: Sequence[str]) -> SourcedImages:
    fitted = fit_head(samples, 0, no_progress)
    hits = fitted.out_of_fold.argmax(axis=1) == samples.labels
    return SourcedImages(samples, list(sources), hits, NAMES, fitted.c, 0)


def alternating(*sizes: tuple[str, int]) -> tuple[list[str], np.ndarray]:
    """Sources of these sizes with two classes in turn."""
    sources = [name for name, size in sizes for _ in range(size)]
    return sources, np.arange(len(sources)) % 2


def left_out(images: SourcedImages) -> UnseenSourceMetrics:
    return leave_sources_out(images, no_progress)


def test_without_a_shortcut_both_figures_agree() -> None:
    images = clouds(*alternating(("bing", 90), ("flickr", 60), ("museum", 50)))
    found = left_out(images)
    pooled = found["unseen_sources"]
    assert pooled is not None and pooled["n"] == 200
    assert pooled["accuracy"] == pytest.approx(images.usual_hits.mean(), abs=0.06)
    assert "points less" not in found["unseen_sentence"]
    assert [row["source"] for row in found["unseen_source"]] == ["bing", "flickr", "museum"]
    assert sum(row["n"] for row in found["unseen_source"]) == 200


def test_with_a_planted_shortcut_the_usual_figure_stays_and_the_new_one_falls() -> None:
    images = clouds(*alternating(("bing", 90), ("flickr", 60), ("museum", 50)), planted=0.8)
    found = left_out(images)
    pooled = found["unseen_sources"]
    assert images.usual_hits.mean() > 0.93
    assert pooled is not None and pooled["accuracy"] < 0.85
    low, high = pooled["interval"]
    sentence = found["unseen_sentence"]
    assert sentence.startswith(
        "On pictures from a place it has never seen:"
        f" {100 * pooled['accuracy']:.0f} % ({100 * low:.0f} to {100 * high:.0f}),"
    )
    assert "points less" in sentence and "expect the lower figure" in sentence


def test_no_image_of_a_source_and_no_near_duplicate_is_learned_from() -> None:
    """Labels of one source are wrong in a way of its own: only who learned from it knows."""
    sources, labels = alternating(("bing", 60), ("flickr", 60), ("museum", 60))
    images = clouds(sources, labels)
    embeddings = images.samples.embeddings.copy()
    random = np.random.default_rng(5)
    museum = np.array([source == "museum" for source in sources])
    embeddings[museum] = random.normal(size=(60, DIMENSION))
    copies = np.flatnonzero(museum)
    twins = np.flatnonzero(~museum)[:60]
    groups = images.samples.groups.copy()
    embeddings[twins] = embeddings[copies] + 0.01
    groups[twins] = groups[copies]
    labels = labels.copy()
    labels[twins] = labels[copies]
    samples = Samples(embeddings, labels, groups, 2)
    ungrouped = Samples(embeddings, labels, np.arange(180), 2)
    apart = left_out(judged_as_usual(samples, sources))["unseen_source"]
    leaked = left_out(judged_as_usual(ungrouped, sources))["unseen_source"]
    accuracy = {row["source"]: row["accuracy"] for row in apart}
    accuracy_leaked = {row["source"]: row["accuracy"] for row in leaked}
    assert accuracy["museum"] < 0.65
    assert accuracy_leaked["museum"] > 0.8


def test_units_of_the_interval_are_near_duplicate_groups() -> None:
    sources, labels = alternating(("bing", 60), ("flickr", 60))
    images = clouds(sources, labels)
    groups = np.arange(120) // 4 * 2 + labels  # each image twice, in one class and source
    samples = Samples(images.samples.embeddings, labels, groups, 2)
    pooled = left_out(judged_as_usual(samples, sources))["unseen_sources"]
    assert pooled is not None and pooled["n"] == 120
    hits = np.zeros(120, np.bool_)
    hits[: round(120 * pooled["accuracy"])] = True
    assert pooled["interval"] == pytest.approx(list(grouped_interval(hits, groups)))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("bing", "All pictures come from one source (bing), so nobody can say how the model does"),
        ("folder", "All pictures come from one folder, so nobody can say how the model does"),
        ("", "It is not known where the pictures come from, so nobody can say how the model does"),
    ],
)
def test_with_one_source_it_is_said_that_nobody_can_say(source: str, sentence: str) -> None:
    found = left_out(clouds(*alternating((source, 60))))
    assert found["unseen_source"] == [] and found["unseen_sources"] is None
    assert found["unseen_sentence"].startswith(sentence)


def test_where_each_class_has_a_source_of_its_own_it_is_said() -> None:
    labels = np.arange(60) % 2
    found = left_out(clouds(["bing" if label else "flickr" for label in labels], labels))
    assert found["unseen_sources"] is None
    assert "No source has pictures of more than one class" in found["unseen_sentence"]


def test_a_class_that_only_one_source_has_leaves_that_source_unjudged() -> None:
    labels = np.array([0, 1] * 45 + [0, 1, 2] * 30)
    sources = ["bing", "bing", "museum", "museum"] * 22 + ["bing"] * 2 + ["flickr"] * 90
    found = left_out(clouds(sources, labels))
    assert {row["source"] for row in found["unseen_source"]} == {"bing", "museum"}
    assert "Not judged so: 90 pictures from flickr" in found["unseen_sentence"]


def test_where_only_one_class_could_be_judged_nothing_is_measured() -> None:
    labels = np.arange(120) % 2
    sources = ["flickr" if label and index < 40 else "bing" for index, label in enumerate(labels)]
    found = left_out(clouds(sources, labels))
    assert found["unseen_source"] == [] and found["unseen_sources"] is None
    assert "cannot be measured: only 20 pictures, of “fox”" in found["unseen_sentence"]


def test_a_source_of_few_images_has_a_part_in_the_pooled_figure_alone() -> None:
    found = left_out(clouds(*alternating(("bing", 60), ("flickr", 50), ("museum", 6))))
    assert [row["source"] for row in found["unseen_source"]] == ["bing", "flickr"]
    assert found["unseen_sources"] is not None and found["unseen_sources"]["n"] == 116


def test_fewer_judged_images_than_a_figure_needs_give_none() -> None:
    found = left_out(clouds(*alternating(("bing", 100), ("museum", MINIMUM_LISTED - 2))))
    assert found["unseen_sources"] is None and "cannot be measured" in found["unseen_sentence"]


def test_pictures_of_unknown_source_are_neither_judged_nor_learned_from() -> None:
    """They may come from the source that is left out: here they are its copies in all but group."""
    sources, labels = alternating(("bing", 60), ("flickr", 60), ("", 60))
    images = clouds(sources, labels)
    embeddings = images.samples.embeddings.copy()
    embeddings[120:] = embeddings[:60] + 0.01
    samples = Samples(embeddings, labels, np.arange(180), 2)
    known = Samples(embeddings[:120], labels[:120], np.arange(120), 2)
    found = left_out(judged_as_usual(samples, sources))
    expected = left_out(judged_as_usual(known, sources[:120]))
    assert found["unseen_source"] == expected["unseen_source"] != []
    assert found["unseen_sources"] == expected["unseen_sources"]
    sentence = "Neither judged nor learned from here: 60 pictures of unknown source."
    assert found["unseen_sentence"].endswith(sentence)


def test_where_all_known_sources_are_one_it_is_said() -> None:
    found = left_out(clouds(*alternating(("bing", 60), ("", 60))))
    assert found["unseen_sources"] is None
    assert found["unseen_sentence"].startswith(
        "All pictures whose source is known come from one (bing), so nobody can say"
    )


def test_pictures_nearly_all_of_one_class_give_no_figure() -> None:
    """Who always names that class would be right on nearly all of them."""
    labels = np.array([0, 1] * 60 + [0] * 59 + [1])
    found = left_out(clouds(["bing"] * 120 + ["museum"] * 60, labels))
    assert found["unseen_sources"] is None and found["unseen_source"] == []
    assert (
        "of the 60 pictures that could be judged so, nearly all are of “corgi”"
        in (found["unseen_sentence"])
    )


def test_classes_as_unequal_as_everywhere_give_a_figure() -> None:
    labels = (np.arange(240) % 8 == 0).astype(np.int64)
    found = left_out(clouds(["bing"] * 120 + ["museum"] * 120, labels))
    assert [row["source"] for row in found["unseen_source"]] == ["bing", "museum"]


def test_many_sources_are_held_out_in_a_few_bundles() -> None:
    labels = np.arange(240) % 2
    sources = [f"site {number // 2 % 40}" for number in range(240)]
    steps: list[tuple[int, int]] = []
    found = leave_sources_out(
        clouds(sources, labels), lambda done, total, *_: steps.append((done, total))
    )
    assert steps == [(number, MOST_FITS) for number in range(1, MOST_FITS + 1)]
    assert found["unseen_sources"] is not None and found["unseen_sources"]["n"] == 240


def test_without_time_nothing_is_measured_and_that_is_said() -> None:
    images = clouds(*alternating(("bing", 60), ("flickr", 60)))
    found = leave_sources_out(images, no_progress, has_time=lambda: False)
    assert found["unseen_sources"] is None and "time budget" in found["unseen_sentence"]


def test_the_same_images_give_the_same_figures() -> None:
    images = clouds(*alternating(("bing", 60), ("flickr", 60)), planted=0.5)
    assert left_out(images) == left_out(images)
