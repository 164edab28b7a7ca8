"""Whether a class falls into clearly separate groups, and the file that says so."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.photographs import described
from training.fitting.linear_head import Samples
from training.fitting.meanings import class_groups, clear_groups
from training.meanings import (
    MEANINGS_FILE,
    ClassGroups,
    ImageGroup,
    read_meanings,
    remove_from_meanings,
    write_meanings,
)
from training.networks.novelty import to_unit_length
from training.run_folder import ImageRow

PHOTOGRAPHS = {
    "mammal": ["animals/mammals"],
    "plant": ["plants"],
    "hand sign": ["symbols/alphabets/asl"],
}
FOUND = [
    ClassGroups("c001", True, (ImageGroup(("a.jpg", "b.jpg"), ("cat",)), ImageGroup(("c.jpg",)))),
    ClassGroups("c002", False, (ImageGroup(("d.jpg",)),)),
]


def directions(*counts: int, apart: float = 4.0) -> np.ndarray:
    """Embeddings of so many images of each meaning, at random around a center of its own."""
    random = np.random.default_rng(3)
    parts = []
    for count in counts:
        center = apart * random.normal(size=64)
        parts.append(center + random.normal(size=(count, 64)) * np.linspace(3, 0.5, 64))
    return to_unit_length(np.concatenate(parts).astype(np.float32))


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ((60,), [60]),
        ((16,), [16]),
        ((30, 30), [30, 30]),
        ((70, 30), [70, 30]),
        ((85, 15), [85, 15]),
        ((40, 30, 20), [40, 30, 20]),
        ((60, 5), [65]),  # too few for a meaning
        ((3,), [3]),
        ((1,), [1]),
    ],
)
def test_groups_are_found_where_there_are_some(counts, sizes):
    numbers = clear_groups(directions(*counts), seed=0)
    assert sorted(np.bincount(numbers), reverse=True) == sizes


def test_the_same_images_give_the_same_groups():
    images = directions(40, 20)
    first = clear_groups(images, seed=0)
    assert np.array_equal(first, clear_groups(images, seed=0))


def test_copies_of_one_image_are_no_meaning_of_their_own():
    images = np.concatenate([directions(40), np.repeat(directions(1, 1)[1:], 20, axis=0)])
    copies = np.array([*range(40), *[40] * 20])
    rows = [ImageRow(f"{number}.jpg", "c001", "") for number in range(60)]
    found = class_groups(rows, images, copies, "jaguar", seed=0)
    assert not found.clear
    assert sorted(file for group in found.groups for file in group.files) == sorted(
        row.file for row in rows
    )


def test_a_group_is_told_by_words_that_its_titles_have_and_those_of_the_others_have_not():
    rows = []
    for number in range(40):
        thing = "Big cat" if number < 25 else "Car of 1967"
        rows.append(ImageRow(f"{number}.jpg", "c001", "", title=f"Jaguar photo: {thing}, Brazil"))
    found = class_groups(rows, directions(25, 15), np.arange(40), "jaguar", seed=0)
    assert found.clear
    assert [group.words for group in found.groups] == [("big", "cat"), ("car",)]
    assert [len(group.files) for group in found.groups] == [25, 15]


@pytest.fixture(scope="module")
def photographs() -> Samples:
    from benchmarks.image_sets import network

    return described(PHOTOGRAPHS, network()).samples


def of(photographs: Samples, label: int, count: int, seed: int) -> np.ndarray:
    """Some different photographs of one class."""
    _, firsts = np.unique(photographs.groups, return_index=True)
    members = firsts[photographs.labels[firsts] == label]
    chosen = np.random.default_rng(seed).choice(members, count, replace=False)
    return to_unit_length(photographs.embeddings[chosen])


def test_the_demo_s_photographs_lead_to_no_question(photographs):
    """The benchmark has 20 draws of more classes."""
    for label, count in ((0, 38), (1, 34)):
        for seed in range(4):
            assert clear_groups(of(photographs, label, count, seed), seed).max() == 0


@pytest.mark.parametrize(("one", "other"), [((0, 26), (2, 12)), ((1, 20), (2, 20))])
def test_two_things_under_one_word_are_told_apart(photographs, one, other):
    images = np.concatenate([of(photographs, *one, seed=1), of(photographs, *other, seed=1)])
    numbers = clear_groups(images, seed=1)
    assert numbers.max() == 1
    sides = np.repeat([0, 1], [one[1], other[1]])
    assert max((numbers == sides).mean(), (numbers != sides).mean()) >= 0.9


def test_the_file_is_read_as_it_was_written_and_loses_what_is_taken_down(tmp_path: Path):
    write_meanings(tmp_path, FOUND)
    assert read_meanings(tmp_path) == FOUND
    remove_from_meanings(tmp_path, {"a.jpg", "d.jpg"})
    text = (tmp_path / MEANINGS_FILE).read_text()
    assert "a.jpg" not in text and "d.jpg" not in text and "b.jpg" in text


@pytest.mark.parametrize("text", ["", "[]", '{"classes": [{"class": "c001"}]}', '{"classes": 7}'])
def test_a_damaged_file_says_nothing_and_is_no_error(tmp_path: Path, text: str):
    assert read_meanings(tmp_path) == []
    (tmp_path / MEANINGS_FILE).write_text(text)
    assert read_meanings(tmp_path) == []
    remove_from_meanings(tmp_path, {"a.jpg"})
    assert not (tmp_path / MEANINGS_FILE).exists()
