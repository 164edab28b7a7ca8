"""The sets and the arithmetic of the accuracy benchmark."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import planted_in, swapped, taken, trials, wrong_labels
from benchmarks.image_sets import (
    SETS,
    ImageSet,
    MissingPackageError,
    Places,
    image_set,
    members,
    padded,
)
from benchmarks.paired import Measure, of_repetitions, read, save, with_error
from training.fitting.linear_head import Samples


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("stamps6", "tuxpaint-stamps-default"),
        ("clip6", "openclipart-png"),
        ("strangers-scenes", "mate-backgrounds"),
    ],
)
def test_a_missing_package_is_named(name: str, package: str, tmp_path: Path) -> None:
    nowhere = Places(tmp_path / "stamps", tmp_path / "drawings", tmp_path / "nature")
    with pytest.raises(MissingPackageError, match=f"the package {package} brings them"):
        members(name, nowhere)


def test_drawings_are_taken_from_any_folder_without_icons(tmp_path: Path) -> None:
    for kind in ("animals", "transportation"):
        (tmp_path / kind).mkdir()
        Image.new("RGB", (200, 100), "red").save(tmp_path / kind / "large.png")
        Image.new("RGB", (32, 32), "red").save(tmp_path / kind / "icon.png")
    classes, images = members("clip2", Places(drawings=tmp_path))
    assert classes == ("animals", "transportation")
    assert [(image.name, image.label) for image in images] == [
        ("animals-large", 0),
        ("transportation-large", 1),
    ]


def test_saved_features_are_taken_as_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(4, 3)).astype(np.float32)
    numbers = np.array([0, 1, 0, 1])
    np.savez(
        tmp_path / "clip2.npz",
        classes=np.array(["a", "b"]),
        crop=features,
        letterbox=features + 1,
        labels=numbers,
        groups=np.arange(4),
    )
    found = image_set("clip2", Places(drawings=tmp_path / "none"), tmp_path)
    assert isinstance(found, ImageSet)
    assert found.classes == ("a", "b")
    np.testing.assert_array_equal(found.samples(letterbox=True).embeddings, features + 1)
    assert "clip2" in SETS


def test_the_center_crop_of_a_padded_image_holds_all_of_it() -> None:
    image = Image.new("RGB", (300, 100), (10, 20, 30))
    square = padded(image, 256)
    assert square.width == square.height == round(300 * 256 / 224)
    middle = round(square.width * 224 / 256)
    assert middle == 300
    assert square.getcolors() == [(square.width**2, (10, 20, 30))]


def test_each_stratum_counts_the_same_in_a_mean() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0])
    measure = Measure(values, np.array([0, 0, 0, 1]), np.arange(4))
    assert measure.mean == 0.5


def test_the_error_of_independent_pictures_is_the_usual_one() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=50)
    measure = Measure(values, np.zeros(50, np.int64), np.arange(50))
    assert measure.error == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    repeated = of_repetitions(values.tolist())
    assert repeated.error == pytest.approx(measure.error)


def test_copies_of_a_picture_do_not_make_a_difference_surer() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=30)
    once = Measure(values, np.zeros(30, np.int64), np.arange(30))
    copies = Measure(np.tile(values, 4), np.zeros(120, np.int64), np.tile(np.arange(30), 4))
    assert copies.error == pytest.approx(once.error)
    taken_apart = dataclasses.replace(copies, clusters=np.arange(120))
    assert taken_apart.error < 0.6 * once.error


def test_differences_are_paired_and_of_the_same_pictures() -> None:
    strata = np.repeat([0, 1], 10)
    before = Measure(np.tile([0.0, 1.0], 10), strata, np.arange(20))
    after = dataclasses.replace(before, values=before.values + 0.25)
    difference = after.minus(before)
    assert with_error(difference) == "+25.0 ± 0.0"
    others = dataclasses.replace(before, clusters=np.arange(20) // 2)
    with pytest.raises(ValueError, match="the same pictures"):
        after.minus(others)


def test_figures_are_read_as_they_were_saved(tmp_path: Path) -> None:
    measure = Measure(np.array([0.0, 0.5]), np.array([0, 1]), np.array([3, 4]))
    save({"20 a class/crop": measure}, tmp_path / "new" / "accuracy-set.npz")
    back = read(tmp_path / "new" / "accuracy-set.npz")
    assert list(back) == ["20 a class/crop"]
    np.testing.assert_array_equal(back["20 a class/crop"].values, measure.values)
    np.testing.assert_array_equal(back["20 a class/crop"].clusters, measure.clusters)


def example_samples() -> Samples:
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(120, 4)).astype(np.float32)
    return Samples(embeddings, np.arange(120) % 3, np.arange(120) // 6, 3)


def test_folds_hold_out_each_picture_once_and_keep_near_duplicates_together() -> None:
    samples = example_samples()
    held_out = []
    for one in trials(samples.labels, samples.groups, seed=1):
        learned_groups = set(samples.groups[one.learned].tolist())
        assert learned_groups.isdisjoint(samples.groups[one.held_out].tolist())
        held_out += one.held_out.tolist()
    assert sorted(held_out) == list(range(120))


def test_few_and_unequal_pictures_are_learned_from() -> None:
    labels = np.arange(120) % 3
    assert np.bincount(labels[taken(labels, "all", 0)]).tolist() == [40, 40, 40]
    assert np.bincount(labels[taken(labels, "20 a class", 0)]).tolist() == [20, 20, 20]
    assert np.bincount(labels[taken(labels, "unequal", 0)]).tolist() == [40, 10, 40]


def test_swapped_labels_are_all_wrong_and_no_others() -> None:
    samples = example_samples()
    wrong = swapped(samples, 0.2, seed=0)
    labels = wrong_labels(samples, wrong, seed=0)
    assert wrong.sum() == 24
    np.testing.assert_array_equal(labels != samples.labels, wrong)


def test_strangers_come_by_kind_or_mixed_and_once_each() -> None:
    clean = example_samples()
    kinds = dataclasses.replace(example_samples(), groups=np.arange(120))
    assert planted_in(clean, kinds, "none", seed=0) is clean
    for planted in ("same kinds", "a kind per class"):
        learned = planted_in(clean, kinds, planted, seed=0)
        groups = learned.groups[120:] - clean.groups.max() - 1
        assert len(set(groups.tolist())) == 36
        labels = learned.labels[120:]
        assert np.bincount(labels).tolist() == [12, 12, 12]
        same_kind = kinds.labels[groups] == labels
        assert same_kind.all() == (planted == "a kind per class")
