import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.training.conftest import on_white, stamps
from training.evaluation.shortcuts import Labelled, shortcut_warning, shortcuts
from training.images.statistics import IMAGE_STATISTICS, traits
from training.metrics import balanced_accuracy

NAMES = {"size", "brightness", "sharpness", "source", "all"}


def photographs_of(*folders: str) -> list[Image.Image]:
    return [on_white(path) for path in stamps(*folders)]


def measured(pictures: list[Image.Image]) -> np.ndarray:
    return np.array([traits(picture) for picture in pictures])


def labelled(labels: np.ndarray, seed: int = 0) -> Labelled:
    return Labelled(labels, list(range(len(labels))), int(labels.max()) + 1, seed)


def warning(
    found: np.ndarray, labels: np.ndarray, model: float, sources: list[str] | None = None
) -> str | None:
    figures = shortcuts(found, sources or ["folder"] * len(labels), labelled(labels))
    return shortcut_warning(figures, model, labels, int(labels.max()) + 1)


def unrelated(size: int, classes: int, seed: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Traits, sources and labels that have nothing to do with each other."""
    random = np.random.default_rng(seed)
    sides = random.choice([480, 640, 768, 1024], (size, 2))
    light = np.stack([random.normal(130, 40, size), random.exponential(800, size)], axis=1)
    sources = [str(name) for name in random.choice(["bing", "openverse", "wikimedia"], size)]
    return np.hstack([sides, light]).astype(np.float32), sources, np.arange(size) % classes


def test_traits_are_those_that_the_findings_name() -> None:
    picture = Image.new("RGB", (320, 200), (100, 100, 100))
    assert dict(zip(IMAGE_STATISTICS, traits(picture).tolist(), strict=True)) == {
        "width": 320,
        "height": 200,
        "brightness": 100,
        "sharpness": 0,
    }


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (5000, 2), (64, 64)])
def test_pictures_of_any_size_have_finite_traits(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    found = traits(Image.fromarray(noise))
    assert found.dtype == np.float32 and found.shape == (4,)
    assert np.isfinite(found).all() and tuple(found[:2]) == size


def test_a_blurred_photograph_is_less_sharp_and_a_dimmed_one_less_bright() -> None:
    for picture in photographs_of("plants")[:10]:
        whole = traits(picture)
        blurred = traits(picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 40)))
        dimmed = traits(picture.point(lambda value: value // 2))
        assert blurred[3] < 0.5 * whole[3] and blurred[2] == pytest.approx(whole[2], rel=0.05)
        assert dimmed[2] == pytest.approx(whole[2] / 2, abs=1)


def test_an_enlarged_photograph_stays_about_as_sharp() -> None:
    picture = photographs_of("animals/mammals")[0]
    twice = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.LANCZOS)
    assert traits(twice)[3] == pytest.approx(traits(picture)[3], rel=0.35)


@pytest.mark.parametrize("folders", [("animals/mammals", "plants"), ("food", "household")])
def test_photographs_of_two_kinds_raise_no_warning(folders: tuple[str, str]) -> None:
    sets = [photographs_of(folder)[:60] for folder in folders]
    labels = np.repeat([0, 1], [len(pictures) for pictures in sets])
    assert warning(measured(sets[0] + sets[1]), labels, model=0.95) is None


@pytest.mark.parametrize(("size", "classes"), [(40, 2), (80, 2), (200, 4), (1000, 10)])
@pytest.mark.parametrize("model", [None, 0.65, 0.95])
def test_traits_that_tell_nothing_raise_no_warning(
    size: int, classes: int, model: float | None
) -> None:
    for seed in range(5):
        found, sources, labels = unrelated(size, classes, seed)
        figures = shortcuts(found, sources, labelled(labels, seed))
        assert set(figures) == NAMES
        assert all(abs(figure - 1 / classes) < 0.3 for figure in figures.values())
        assert shortcut_warning(figures, model or 1 / classes, labels, classes) is None


@pytest.mark.parametrize(
    ("trait", "words"),
    [
        ("size", ["The size of a picture alone", "where pictures come from"]),
        ("brightness", ["The brightness of a picture alone", "how bright"]),
        ("sharpness", ["The sharpness of a picture alone", "how sharp"]),
        ("source", ["The source of a picture alone", "where pictures come from"]),
    ],
)
def test_pictures_alike_but_for_one_trait_raise_a_warning_that_names_it(
    trait: str, words: list[str]
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
    }[trait]
    changed = [
        change(picture) if label else picture
        for picture, label in zip(pictures, labels, strict=True)
    ]
    sources = ["bing" if label and trait == "source" else "wikimedia" for label in labels]
    said = warning(measured(changed), labels, model=0.97, sources=sources)
    assert said is not None and all(word in said for word in words)
    assert "(the model: 97 %)" in said


def test_a_trait_in_the_middle_of_the_range_is_found_too() -> None:
    found, sources, labels = unrelated(300, 3, 0)
    found[:, 2] = np.array([120, 60, 200])[labels] + np.random.default_rng(0).normal(0, 5, 300)
    figures = shortcuts(found, sources, labelled(labels))
    assert figures["brightness"] > 0.95 and figures["all"] > 0.95 and figures["size"] < 0.5


def test_traits_that_tell_the_class_only_together_are_named_together() -> None:
    found, _, labels = unrelated(400, 2, 3)
    kind = np.where(
        labels == 1, 3, np.random.default_rng(33).integers(0, 3, 400)
    )  # class 1: bright and from bing
    found[:, 2] = 80 + 90 * (kind % 2)
    sources = ["bing" if one else "flickr" for one in kind // 2]
    said = warning(found, labels, 0.95, sources)
    assert said is not None and said.startswith("Size, brightness, sharpness and source")


def test_a_model_that_sees_far_more_than_a_trait_raises_no_warning() -> None:
    found, sources, labels = unrelated(400, 2, 4)
    mostly = np.random.default_rng(44).random(400) < 0.75
    found[:, 2] = np.where(mostly == (labels == 1), 200, 60)
    figures = shortcuts(found, sources, labelled(labels))
    assert 0.65 < figures["brightness"] < 0.85
    assert shortcut_warning(figures, 0.98, labels, 2) is None
    assert shortcut_warning(figures, figures["brightness"] + 0.01, labels, 2) is not None


def test_a_model_that_has_learned_nothing_has_learned_no_shortcut() -> None:
    found, _, labels = unrelated(200, 2, 5)
    figures = shortcuts(
        found, ["bing" if label else "flickr" for label in labels], labelled(labels)
    )
    assert figures["source"] == 1.0
    assert shortcut_warning(figures, 0.52, labels, 2) is None
    assert shortcut_warning(figures, 0.95, labels, 2) is not None


def test_near_copies_of_a_picture_do_not_make_a_shortcut() -> None:
    """Each picture ten times: a tree could learn the sizes of all of them by heart."""
    found, sources, labels = unrelated(60, 2, 6)
    found[:, 0] = np.random.default_rng(6).permutation(60) * 10 + 300
    tenfold, ten_labels = np.repeat(found, 10, axis=0), np.repeat(labels, 10)
    ten_sources = [source for source in sources for _ in range(10)]
    groups = [int(number) for number in np.repeat(np.arange(60), 10)]
    apart = shortcuts(tenfold, ten_sources, Labelled(ten_labels, groups, 2, 0))
    mixed = shortcuts(tenfold, ten_sources, Labelled(ten_labels, list(range(600)), 2, 0))
    assert mixed["size"] > apart["size"] + 0.1
    assert shortcut_warning(apart, 0.9, labels, 2) is None


def test_classes_of_unequal_size_count_alike() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    assert balanced_accuracy(np.zeros(100, np.int64), labels) == 0.5
    found, sources, _ = unrelated(100, 2, 7)
    figures = shortcuts(found, sources, labelled(labels))
    assert all(0.25 < figure < 0.75 for figure in figures.values())


def test_the_same_pictures_and_seed_give_the_same_figures() -> None:
    found, sources, labels = unrelated(120, 3, 8)
    assert shortcuts(found, sources, labelled(labels, 5)) == shortcuts(
        found, sources, labelled(labels, 5)
    )
