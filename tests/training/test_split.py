"""The split into train, val and test: shares, near-duplicates, and splits of earlier versions."""

import dataclasses
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.example_rows import CLASSES, CONFIG, row, rows_of
from training.images.split import NearDuplicates, contradictions, split_rows
from training.run_folder import MINIMUM_PER_SPLIT, SPLITS, ImageRow, RunError


def counts(rows: list[ImageRow]) -> Counter[tuple[str, str | None]]:
    return Counter((item.class_id, item.split) for item in rows)


def test_images_are_split_70_15_15_by_class() -> None:
    counted = counts(split_rows(CONFIG, rows_of(100, 40)))
    assert [counted["c001", split] for split in SPLITS] == [70, 15, 15]
    assert [counted["c002", split] for split in SPLITS] == [28, 6, 6]


def test_the_same_manifest_and_seed_give_the_same_split_for_ever() -> None:
    split = split_rows(CONFIG, rows_of(20, 20))
    assert [n for n, item in enumerate(split) if item.split == "test"] == [0, 7, 10, 23, 29, 32]
    assert [n for n, item in enumerate(split) if item.split == "val"] == [5, 6, 19, 22, 36, 38]


def test_the_order_of_the_rows_does_not_matter_but_the_seed_does() -> None:
    rows = rows_of(30, 30)
    split = {item.file: item.split for item in split_rows(CONFIG, rows)}
    assert {item.file: item.split for item in split_rows(CONFIG, rows[::-1])} == split
    other = split_rows(dataclasses.replace(CONFIG, seed=1), rows)
    assert {item.file: item.split for item in other} != split


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from(["c001", "c002"]), st.integers(0, 25)), min_size=1, max_size=120
    ),
    st.integers(0, 5),
)
def test_a_group_is_never_in_two_splits(members: list[tuple[str, int]], seed: int) -> None:
    rows = [row(class_id, n, group) for n, (class_id, group) in enumerate(members)]
    config = dataclasses.replace(CONFIG, seed=seed)
    try:
        rows = split_rows(config, rows)
    except RunError as refusal:
        assert refusal.stage == "split" and "too few" in refusal.reason and not refusal.retry
        return
    splits = defaultdict(set)
    for item in rows:
        splits[item.group].add(item.split)
    assert all(len(found) == 1 and None not in found for found in splits.values())
    assert all(
        counts(rows)[label.id, split] >= MINIMUM_PER_SPLIT for label in CLASSES for split in SPLITS
    )
    assert split_rows(config, rows) == rows


@settings(max_examples=50)
@given(st.integers(9, 60), st.integers(9, 60), st.integers(0, 50))
def test_nine_different_images_of_each_class_are_always_enough(
    one: int, other: int, seed: int
) -> None:
    split = counts(split_rows(dataclasses.replace(CONFIG, seed=seed), rows_of(one, other)))
    for label, size in zip(CLASSES, (one, other), strict=True):
        wanted = max(3, int(0.15 * size + 0.5))
        assert (split[label.id, "test"], split[label.id, "val"]) == (wanted, wanted)


def test_a_large_group_goes_to_train_and_small_ones_still_fill_test_and_val() -> None:
    rows = rows_of(40, 20)
    rows = [dataclasses.replace(item, group=0) if n < 25 else item for n, item in enumerate(rows)]
    split = split_rows(CONFIG, rows)
    assert {item.split for item in split[:25]} == {"train"}
    assert counts(split)["c001", "test"] == counts(split)["c001", "val"] == 6


def test_a_class_of_large_groups_only_is_still_split_between_them() -> None:
    duplicates = [row("c001", n, n // 5) for n in range(20)]
    others = [row("c002", n, 10 + n) for n in range(20)]
    counted = counts(split_rows(CONFIG, duplicates + others))
    assert [counted["c001", split] for split in SPLITS] == [10, 5, 5]


@pytest.mark.parametrize(
    ("size", "words"),
    [(2, "has 2 usable pictures"), (8, "has 8"), (0, "has 0"), (1, "1 usable picture;")],
)
def test_a_class_with_too_few_images_is_refused_by_its_name(size: int, words: str) -> None:
    with pytest.raises(RunError, match=f"“łoś” .*{words}" if size == 8 else words) as refused:
        split_rows(CONFIG, rows_of(30, size))
    assert "łoś" in refused.value.reason
    assert "at least 9 different pictures" in refused.value.remedy
    assert not refused.value.retry


def test_duplicates_of_few_images_are_refused_and_counted() -> None:
    rows = [row("c001", n, n % 2) for n in range(30)] + [row("c002", n, 10 + n) for n in range(30)]
    with pytest.raises(RunError, match="30 usable pictures, of which 2 are no near-duplicates"):
        split_rows(CONFIG, rows)


def test_known_images_keep_their_split_and_new_ones_go_to_train_and_val() -> None:
    first = split_rows(CONFIG, rows_of(40, 40))
    new = [row("c001", n, n) for n in range(1000, 1040)]
    second = split_rows(dataclasses.replace(CONFIG, seed=7), first + new)
    assert second[: len(first)] == first
    splits = Counter(item.split for item in second[len(first) :])
    assert set(splits) == {"train", "val"}
    assert counts(second)["c001", "val"] == 12


def test_a_new_duplicate_of_a_test_image_is_left_out_and_of_a_training_image_is_trained_on() -> (
    None
):
    first = split_rows(CONFIG, rows_of(40, 40))
    test, train = (next(i for i in first if i.split == split) for split in ("test", "train"))
    second = split_rows(
        CONFIG, [*first, row("c001", 1000, test.group), row("c001", 1001, train.group)]
    )
    assert [item.split for item in second[-2:]] == [None, "train"]


def test_known_images_found_to_be_duplicates_across_splits_leave_only_the_most_protected_side() -> (
    None
):
    first = split_rows(CONFIG, rows_of(40, 40))
    test, train = (next(i for i in first if i.split == split) for split in ("test", "train"))
    again = [dataclasses.replace(i, group=test.group) if i is train else i for i in first]
    second = {item.file: item.split for item in split_rows(CONFIG, again)}
    assert second[test.file] == "test"
    assert second[train.file] is None


def test_a_test_split_that_lost_its_images_is_filled_again_from_new_ones() -> None:
    first = split_rows(CONFIG, rows_of(40, 40))
    removed = [item for item in first if not (item.class_id == "c001" and item.split == "test")]
    new = [row("c001", n, n) for n in range(1000, 1020)]
    assert counts(split_rows(CONFIG, removed + new))["c001", "test"] >= MINIMUM_PER_SPLIT


def test_unreadable_images_get_no_split() -> None:
    rows = [*rows_of(20, 20), row("c001", 999, None)]
    assert split_rows(CONFIG, rows)[-1].split is None


def test_a_given_split_that_is_short_of_a_class_is_named() -> None:
    rows = rows_of(30, 30)
    given = []
    for number, item in enumerate(rows):
        split = "train" if number % 30 < 20 else "test"
        given.append(dataclasses.replace(item, split=split))
    given[0] = dataclasses.replace(given[0], split="val")
    with pytest.raises(RunError, match="has 19 in train, 1 in val and 10 in test") as refused:
        split_rows(CONFIG, given)
    assert "each split needs at least 3" in refused.value.reason


def test_near_duplicates_of_different_classes_are_found() -> None:
    rows = [row("c001", 1), row("c001", 2), row("c002", 3)]
    duplicates = NearDuplicates([(0, 1), (1, 2)], {0: 0, 1: 0, 2: 0})
    assert contradictions(rows, duplicates) == [(1, 2)]


def own_rows(tested: int, others: int) -> list[ImageRow]:
    """Rows of both classes, of which so many are marked for the test."""
    rows = rows_of(tested + others, tested + others)
    marked = []
    for number, item in enumerate(rows):
        is_tested = number % (tested + others) < tested
        marked.append(dataclasses.replace(item, split="test" if is_tested else None))
    return marked


def test_with_own_test_images_no_other_image_is_tested_and_no_copy_of_one_learned_from() -> None:
    config = dataclasses.replace(CONFIG, own_test=True)
    rows = own_rows(4, 20)
    rows[10] = dataclasses.replace(rows[10], group=rows[0].group)
    split = split_rows(config, rows)
    assert [item.split == "test" for item in split] == [item.split == "test" for item in rows]
    assert split[10].split is None
    assert counts(split)["c002", "val"] >= MINIMUM_PER_SPLIT


def test_too_few_own_test_images_are_said_with_what_to_do() -> None:
    config = dataclasses.replace(CONFIG, own_test=True)
    with pytest.raises(RunError, match="has 2 usable pictures of your own to test on") as refused:
        split_rows(config, own_rows(2, 30))
    assert "do not mark them" in refused.value.remedy


@pytest.mark.parametrize(("tested", "others", "val"), [(500, 100, 15), (120, 20, 3), (5, 6, 3)])
def test_own_test_images_take_nothing_from_what_is_learned_from(
    tested: int, others: int, val: int
) -> None:
    config = dataclasses.replace(CONFIG, own_test=True)
    split = counts(split_rows(config, own_rows(tested, others)))
    for label in CLASSES:
        found = [split[label.id, name] for name in SPLITS]
        assert found == [others - val, val, tested]


def test_too_few_images_beside_the_own_test_images_are_said_with_what_to_do() -> None:
    config = dataclasses.replace(CONFIG, own_test=True)
    rows = own_rows(30, 6)
    rows[30] = dataclasses.replace(rows[30], group=rows[31].group)
    rows[32] = dataclasses.replace(rows[32], group=rows[0].group)
    with pytest.raises(RunError, match="“corgi” has 5 usable pictures beside") as refused:
        split_rows(config, rows)
    assert "of which 4 are no near-duplicates of each other" in refused.value.reason
    assert "at least 6 are needed" in refused.value.reason
    assert "do not mark yours as the test set" in refused.value.remedy
    with pytest.raises(RunError, match="has 1 usable picture beside"):
        split_rows(config, own_rows(30, 1))
