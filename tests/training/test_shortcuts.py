from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from tests.training.conftest import on_white, stamps
from training.evaluation.shortcuts import (
    ATTRIBUTES,
    shortcut_accuracies,
    shortcut_sentence,
    shortcut_warning,
    shortcuts_in_words,
)
from training.fitting.linear_head import Samples
from training.images.statistics import image_statistics
from training.metrics import balanced_accuracy
from training.phrases import percent
from training.run_folder import ImageRow

FONT = ImageFont.load_default(size=28)


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


def rows_of(sources: Sequence[str], formats: Sequence[str] | None = None) -> list[ImageRow]:
    formats = formats or ["jpeg"] * len(sources)
    return [
        ImageRow("images/0.jpg", "c001", "", source, format=kind)
        for source, kind in zip(sources, formats, strict=True)
    ]


def warning(
    statistics: np.ndarray, labels: np.ndarray, model: float, rows: list[ImageRow] | None = None
) -> str | None:
    rows = rows or rows_of(["folder"] * len(labels))
    accuracies = shortcut_accuracies(statistics, rows, samples_of(labels), 0)
    return shortcut_warning(accuracies, model, np.bincount(labels))


def sentence_of(pictures: list[Image.Image], labels: np.ndarray, model: float) -> str:
    rows = rows_of(["folder"] * len(labels))
    accuracies = shortcut_accuracies(measured(pictures), rows, samples_of(labels), 0)
    return shortcut_sentence(accuracies, model, np.bincount(labels))


def unrelated(size: int, classes: int, seed: int) -> tuple[np.ndarray, list[ImageRow], np.ndarray]:
    """Statistics, rows and labels that have nothing to do with each other."""
    random = np.random.default_rng(seed)
    sides = random.choice([480, 640, 768, 1024], (size, 2))
    light = np.stack([random.normal(130, 40, size), random.exponential(800, size)], axis=1)
    colours = random.gamma(3, 15, (size, 1))
    border = np.stack([random.beta(1, 4, size), random.normal(130, 60, size)], axis=1)
    spread_and_text = random.gamma(2, (20, 0.01), (size, 2))
    sources = [str(name) for name in random.choice(["bing", "openverse", "wikimedia"], size)]
    formats = [str(name) for name in random.choice(["jpeg", "jpeg", "png", "webp"], size)]
    statistics = np.hstack([sides, light, colours, border, spread_and_text])
    labels = np.arange(size) % classes
    return statistics.astype(np.float32), rows_of(sources, formats), labels


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
        statistics, rows, labels = unrelated(size, classes, seed)
        accuracies = shortcut_accuracies(statistics, rows, samples_of(labels), seed)
        assert set(accuracies) == set(ATTRIBUTES)
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
    sentence = warning(measured(changed), labels, 0.97, rows_of(sources))
    assert sentence is not None and all(word in sentence for word in words)
    assert "(the model: 97 %)" in sentence


def test_an_attribute_in_the_middle_of_the_range_is_found_too() -> None:
    statistics, rows, labels = unrelated(300, 3, 0)
    statistics[:, 2] = np.array([120, 60, 200])[labels] + np.random.default_rng(0).normal(0, 5, 300)
    accuracies = shortcut_accuracies(statistics, rows, samples_of(labels), 0)
    assert accuracies["brightness"] > 0.95 and accuracies["all"] > 0.95 and accuracies["size"] < 0.5


def test_attributes_that_predict_the_class_only_together_are_named_together() -> None:
    statistics, _, labels = unrelated(400, 2, 3)
    kind = np.where(
        labels == 1, 3, np.random.default_rng(33).integers(0, 3, 400)
    )  # class 1: bright and from bing
    statistics[:, 2] = 80 + 90 * (kind % 2)
    sources = ["bing" if one else "flickr" for one in kind // 2]
    sentence = warning(statistics, labels, 0.95, rows_of(sources))
    assert sentence is not None and sentence.startswith("Size, light, colours, border, text, file")


def test_a_model_that_sees_far_more_than_an_attribute_raises_no_warning() -> None:
    statistics, rows, labels = unrelated(400, 2, 4)
    mostly = np.random.default_rng(44).random(400) < 0.75
    statistics[:, 2] = np.where(mostly == (labels == 1), 200, 60)
    accuracies = shortcut_accuracies(statistics, rows, samples_of(labels), 0)
    assert 0.65 < accuracies["brightness"] < 0.85
    assert shortcut_warning(accuracies, 0.98, np.bincount(labels)) is None
    assert (
        shortcut_warning(accuracies, accuracies["brightness"] + 0.01, np.bincount(labels))
        is not None
    )


def test_a_model_that_has_learned_nothing_has_learned_no_shortcut() -> None:
    statistics, _, labels = unrelated(200, 2, 5)
    sources = ["bing" if label else "flickr" for label in labels]
    accuracies = shortcut_accuracies(statistics, rows_of(sources), samples_of(labels), 0)
    assert accuracies["source"] == 1.0
    assert shortcut_warning(accuracies, 0.52, np.bincount(labels)) is None
    assert shortcut_warning(accuracies, 0.95, np.bincount(labels)) is not None


def test_near_duplicates_of_a_picture_do_not_make_a_shortcut() -> None:
    """Each picture ten times: a tree could learn the sizes of all of them by heart."""
    statistics, rows, labels = unrelated(60, 2, 6)
    statistics[:, 0] = np.random.default_rng(6).permutation(60) * 10 + 300
    tenfold = np.repeat(statistics, 10, axis=0)
    ten_labels = np.repeat(labels, 10)
    ten_rows = [row for row in rows for _ in range(10)]
    groups = np.repeat(np.arange(60), 10)
    apart = shortcut_accuracies(tenfold, ten_rows, samples_of(ten_labels, groups), 0)
    mixed = shortcut_accuracies(tenfold, ten_rows, samples_of(ten_labels), 0)
    assert mixed["size"] > apart["size"] + 0.1
    assert shortcut_warning(apart, 0.9, np.bincount(labels)) is None


def test_classes_of_unequal_size_count_alike() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    assert balanced_accuracy(np.zeros(100, np.int64), labels) == 0.5
    statistics, rows, _ = unrelated(100, 2, 7)
    accuracies = shortcut_accuracies(statistics, rows, samples_of(labels), 0)
    assert all(0.25 < accuracy < 0.75 for accuracy in accuracies.values())


def test_the_same_pictures_and_seed_give_the_same_figures() -> None:
    statistics, rows, labels = unrelated(120, 3, 8)
    samples = samples_of(labels)
    once = shortcut_accuracies(statistics, rows, samples, 5)
    again = shortcut_accuracies(statistics, rows, samples, 5)
    assert once == again


def framed(picture: Image.Image) -> Image.Image:
    return ImageOps.expand(picture, max(4, max(picture.size) // 20), "black")


def between_bars(picture: Image.Image) -> Image.Image:
    bar = picture.height // 6
    return ImageOps.expand(picture, (0, bar, 0, bar), "black")


def captioned(picture: Image.Image) -> Image.Image:
    wide = picture.resize((480, 360))
    draw = ImageDraw.Draw(wide)
    draw.text(
        (240, 330),
        "A picture of the agency",
        "white",
        FONT,
        "mm",
        stroke_width=2,
        stroke_fill="black",
    )
    return wide


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "how colourful pictures are": lambda picture: picture.convert("L").convert("RGB"),
    "how pictures are framed": framed,
    "captions and marks on pictures": captioned,
}


@pytest.mark.parametrize(("learned", "change"), CHANGES.items())
def test_a_class_in_grey_or_framed_or_captioned_raises_a_warning_that_says_so(
    learned: str, change: Callable[[Image.Image], Image.Image]
) -> None:
    pictures = [picture.resize((480, 360)) for picture in photographs_of("animals/mammals", "food")]
    labels = np.random.default_rng(2).permutation(np.arange(len(pictures)) % 2)
    for index in np.flatnonzero(labels):
        pictures[index] = change(pictures[index]).resize((480, 360))
    sentence = warning(measured(pictures), labels, 0.97)
    assert sentence is not None and learned in sentence


def test_bars_above_and_below_the_pictures_of_a_class_are_found() -> None:
    pictures = photographs_of("animals/mammals", "food")
    labels = np.random.default_rng(3).permutation(np.arange(len(pictures)) % 2)
    for index in np.flatnonzero(labels):
        pictures[index] = between_bars(pictures[index])
    rows = rows_of(["folder"] * len(labels))
    accuracies = shortcut_accuracies(measured(pictures), rows, samples_of(labels), 0)
    assert accuracies["border"] > 0.95


def test_a_class_of_another_file_type_raises_a_warning() -> None:
    statistics, _, labels = unrelated(100, 2, 9)
    rows = rows_of(["folder"] * 100, ["png" if label else "jpeg" for label in labels])
    sentence = warning(statistics, labels, 0.97, rows)
    assert sentence is not None and sentence.startswith("The file type of a picture alone")


def test_the_sentence_names_what_is_weaker_than_the_model_but_clearly_better_than_guessing() -> (
    None
):
    statistics, rows, labels = unrelated(400, 2, 10)
    mostly = np.random.default_rng(10).random(400) < 0.83
    statistics[:, :2] = np.where(mostly == (labels == 1), 1024, 640)[:, None]
    accuracies = shortcut_accuracies(statistics, rows, samples_of(labels), 0)
    counts = np.bincount(labels)
    assert shortcut_warning(accuracies, 0.97, counts) is None
    sentence = shortcut_sentence(accuracies, 0.97, counts)
    assert sentence.startswith("The size of a picture alone predicts its class in 8")
    assert "the model: 97 %" in sentence and "may lean on it" in sentence
    assert "No sign" not in sentence


def test_a_striking_figure_of_few_images_is_said_to_be_perhaps_chance() -> None:
    accuracies = dict.fromkeys(ATTRIBUTES, 0.5) | {"size": 0.8}
    sentence = shortcut_sentence(accuracies, 0.95, np.array([10, 10]))
    assert "80 %" in sentence and "chance" in sentence and "No sign" not in sentence


def test_where_the_model_tells_nothing_apart_a_clear_attribute_is_named_all_the_same() -> None:
    accuracies = dict.fromkeys(ATTRIBUTES, 0.5) | {"source": 1.0}
    sentence = shortcut_sentence(accuracies, 0.52, np.array([100, 100]))
    assert "100 %" in sentence and "not shown to be better than guessing" in sentence


def test_the_sentence_never_contradicts_the_verdict() -> None:
    """A weak model of few pictures may be known to tell the classes apart, and a strong one not."""
    accuracies = dict.fromkeys(ATTRIBUTES, 0.5) | {"size": 0.9}
    counts = np.array([40, 40])
    better = shortcuts_in_words(accuracies, 0.64, counts, tells_apart=True)
    assert "guessing" not in better["shortcut_sentence"]
    assert better["shortcut_warning"] == better["shortcut_sentence"]
    not_shown = shortcuts_in_words(accuracies, 0.95, counts, tells_apart=False)
    assert not_shown["shortcut_warning"] is None
    assert "not shown to be better than guessing" in not_shown["shortcut_sentence"]


@pytest.mark.parametrize(
    ("classes", "accuracy", "counts"),
    [(2, 0.68, 51), (2, 0.7, 15), (2, 0.83, 10), (3, 0.6, 12), (10, 0.3, 100)],
)
def test_a_figure_far_above_guessing_is_never_passed_over(
    classes: int, accuracy: float, counts: int
) -> None:
    accuracies = dict.fromkeys(ATTRIBUTES, 1 / classes) | {"size": accuracy}
    sentence = shortcut_sentence(accuracies, 0.97, np.full(classes, counts))
    assert percent(accuracy) in sentence
    assert "much better than guessing" not in sentence


@pytest.mark.parametrize(("size", "classes"), [(40, 2), (100, 3)])
def test_at_most_one_of_twenty_sets_of_noise_is_called_suspicious(size: int, classes: int) -> None:
    suspicious = 0
    for seed in range(60):
        statistics, rows, labels = unrelated(size, classes, seed)
        accuracies = shortcut_accuracies(statistics, rows, samples_of(labels), seed)
        sentence = shortcut_sentence(accuracies, 0.97, np.bincount(labels))
        suspicious += not sentence.startswith("No sign of a shortcut")
    assert suspicious <= 3
