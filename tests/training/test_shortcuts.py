import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.training.conftest import on_white, stamps
from training.evaluation.shortcuts import shortcut_accuracies, shortcut_warning
from training.fitting.linear_head import Samples
from training.images.statistics import image_statistics
from training.metrics import balanced_accuracy

ATTRIBUTES = {"size", "brightness", "sharpness", "source", "all"}


def photographs_of(*folders: str) -> list[Image.Image]:
    return [on_white(path) for path in stamps(*folders)]


def measured(pictures: list[Image.Image]) -> np.ndarray:
    return np.array([image_statistics(picture) for picture in pictures])


def samples_of(labels: np.ndarray, groups: np.ndarray | None = None) -> Samples:
    """Samples of which only labels and groups matter; without groups none is a near-duplicate."""
    if groups is None:
        groups = np.arange(len(labels))
    embeddings = np.empty((len(labels), 0), np.float32)
    return Samples(embeddings, labels, groups, int(labels.max()) + 1)


def warning(
    statistics: np.ndarray, labels: np.ndarray, model: float, sources: list[str] | None = None
) -> str | None:
    sources = sources or ["folder"] * len(labels)
    accuracies = shortcut_accuracies(statistics, sources, samples_of(labels), 0)
    return shortcut_warning(accuracies, model, np.bincount(labels))


def unrelated(size: int, classes: int, seed: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Statistics, sources and labels that have nothing to do with each other."""
    random = np.random.default_rng(seed)
    sides = random.choice([480, 640, 768, 1024], (size, 2))
    light = np.stack([random.normal(130, 40, size), random.exponential(800, size)], axis=1)
    sources = [str(name) for name in random.choice(["bing", "openverse", "wikimedia"], size)]
    return np.hstack([sides, light]).astype(np.float32), sources, np.arange(size) % classes


@pytest.mark.parametrize("folders", [("animals/mammals", "plants"), ("food", "household")])
def test_photographs_of_two_kinds_raise_no_warning(folders: tuple[str, str]) -> None:
    sets = [photographs_of(folder)[:60] for folder in folders]
    labels = np.repeat([0, 1], [len(pictures) for pictures in sets])
    assert warning(measured(sets[0] + sets[1]), labels, model=0.95) is None


@pytest.mark.parametrize(("size", "classes"), [(40, 2), (80, 2), (200, 4), (1000, 10)])
@pytest.mark.parametrize("model", [None, 0.65, 0.95])
def test_attributes_that_predict_nothing_raise_no_warning(
    size: int, classes: int, model: float | None
) -> None:
    for seed in range(5):
        statistics, sources, labels = unrelated(size, classes, seed)
        accuracies = shortcut_accuracies(statistics, sources, samples_of(labels), seed)
        assert set(accuracies) == ATTRIBUTES
        assert all(abs(accuracy - 1 / classes) < 0.3 for accuracy in accuracies.values())
        assert shortcut_warning(accuracies, model or 1 / classes, np.bincount(labels)) is None


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("size", ["The size of a picture alone", "where pictures come from"]),
        ("brightness", ["The brightness of a picture alone", "how bright"]),
        ("sharpness", ["The sharpness of a picture alone", "how sharp"]),
        ("source", ["The source of a picture alone", "where pictures come from"]),
    ],
)
def test_images_alike_but_for_one_attribute_raise_a_warning_that_names_it(
    attribute: str, words: list[str]
) -> None:
    """Photographs of one kind, split at random; in one class alone they are changed."""
    pictures = [picture.convert("RGB") for picture in photographs_of("animals/mammals", "food")]
    labels = np.random.default_rng(1).permutation(np.arange(len(pictures)) % 2)
    change = {
        "size": lambda picture: picture.resize((640, 480)),
        "brightness": lambda picture: picture.point(lambda value: value // 4),
        "sharpness": lambda picture: picture.filter(
            ImageFilter.GaussianBlur(max(picture.size) / 30)
        ),
        "source": lambda picture: picture,
    }[attribute]
    changed = [
        change(picture) if label else picture
        for picture, label in zip(pictures, labels, strict=True)
    ]
    sources = ["bing" if label and attribute == "source" else "wikimedia" for label in labels]
    sentence = warning(measured(changed), labels, model=0.97, sources=sources)
    assert sentence is not None and all(word in sentence for word in words)
    assert "(the model: 97 %)" in sentence


def test_an_attribute_in_the_middle_of_the_range_is_found_too() -> None:
    statistics, sources, labels = unrelated(300, 3, 0)
    statistics[:, 2] = np.array([120, 60, 200])[labels] + np.random.default_rng(0).normal(0, 5, 300)
    accuracies = shortcut_accuracies(statistics, sources, samples_of(labels), 0)
    assert accuracies["brightness"] > 0.95 and accuracies["all"] > 0.95 and accuracies["size"] < 0.5


def test_attributes_that_predict_the_class_only_together_are_named_together() -> None:
    statistics, _, labels = unrelated(400, 2, 3)
    kind = np.where(
        labels == 1, 3, np.random.default_rng(33).integers(0, 3, 400)
    )  # class 1: bright and from bing
    statistics[:, 2] = 80 + 90 * (kind % 2)
    sources = ["bing" if one else "flickr" for one in kind // 2]
    sentence = warning(statistics, labels, 0.95, sources)
    assert sentence is not None and sentence.startswith("Size, brightness, sharpness and source")


def test_a_model_that_sees_far_more_than_an_attribute_raises_no_warning() -> None:
    statistics, sources, labels = unrelated(400, 2, 4)
    mostly = np.random.default_rng(44).random(400) < 0.75
    statistics[:, 2] = np.where(mostly == (labels == 1), 200, 60)
    accuracies = shortcut_accuracies(statistics, sources, samples_of(labels), 0)
    assert 0.65 < accuracies["brightness"] < 0.85
    assert shortcut_warning(accuracies, 0.98, np.bincount(labels)) is None
    assert (
        shortcut_warning(accuracies, accuracies["brightness"] + 0.01, np.bincount(labels))
        is not None
    )


def test_a_model_that_has_learned_nothing_has_learned_no_shortcut() -> None:
    statistics, _, labels = unrelated(200, 2, 5)
    sources = ["bing" if label else "flickr" for label in labels]
    accuracies = shortcut_accuracies(statistics, sources, samples_of(labels), 0)
    assert accuracies["source"] == 1.0
    assert shortcut_warning(accuracies, 0.52, np.bincount(labels)) is None
    assert shortcut_warning(accuracies, 0.95, np.bincount(labels)) is not None


def test_near_duplicates_of_a_picture_do_not_make_a_shortcut() -> None:
    """Each picture ten times: a tree could learn the sizes of all of them by heart."""
    statistics, sources, labels = unrelated(60, 2, 6)
    statistics[:, 0] = np.random.default_rng(6).permutation(60) * 10 + 300
    tenfold = np.repeat(statistics, 10, axis=0)
    ten_labels = np.repeat(labels, 10)
    ten_sources = [source for source in sources for _ in range(10)]
    groups = np.repeat(np.arange(60), 10)
    apart = shortcut_accuracies(tenfold, ten_sources, samples_of(ten_labels, groups), 0)
    mixed = shortcut_accuracies(tenfold, ten_sources, samples_of(ten_labels), 0)
    assert mixed["size"] > apart["size"] + 0.1
    assert shortcut_warning(apart, 0.9, np.bincount(labels)) is None


def test_classes_of_unequal_size_count_alike() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    assert balanced_accuracy(np.zeros(100, np.int64), labels) == 0.5
    statistics, sources, _ = unrelated(100, 2, 7)
    accuracies = shortcut_accuracies(statistics, sources, samples_of(labels), 0)
    assert all(0.25 < accuracy < 0.75 for accuracy in accuracies.values())


def test_the_same_pictures_and_seed_give_the_same_figures() -> None:
    statistics, sources, labels = unrelated(120, 3, 8)
    samples = samples_of(labels)
    once = shortcut_accuracies(statistics, sources, samples, 5)
    again = shortcut_accuracies(statistics, sources, samples, 5)
    assert once == again
