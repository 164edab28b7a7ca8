import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.images.split import MINIMUM_PER_SPLIT, split_rows
from training.metrics import read_metrics
from training.run_folder import (
    SPLITS,
    ClassLabel,
    ImageRow,
    RunConfig,
    RunError,
    append_json_line,
    atomic_write,
    inherit_splits,
    read_config,
    read_manifest,
    read_result,
    write_json,
    write_run,
)

CLASSES = (ClassLabel("c001", "corgi"), ClassLabel("c002", "łoś"))
CONFIG = RunConfig(classes=CLASSES, seed=0)


def row(class_id: str, number: int, group: int | None = None, split: str | None = None) -> ImageRow:
    digest = hashlib.sha256(f"{class_id} {number}".encode()).hexdigest()
    return ImageRow(f"images/{digest[:16]}.jpg", class_id, digest, "bing", "by", split, group)  # type: ignore[arg-type]


def rows_of(*sizes: int) -> list[ImageRow]:
    """So many ungrouped pictures of each class, each a group of its own."""
    found = [
        row(label.id, n) for label, size in zip(CLASSES, sizes, strict=True) for n in range(size)
    ]
    return [dataclasses.replace(item, group=number) for number, item in enumerate(found)]


def counts(rows: list[ImageRow]) -> Counter[tuple[str, str | None]]:
    return Counter((item.class_id, item.split) for item in rows)


def test_a_run_folder_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    rows = rows_of(3, 2)
    for item in rows:
        source = tmp_path / "from" / item.file
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(item.sha256.encode())
    for _ in range(2):
        write_run(tmp_path / "run", CONFIG, rows, tmp_path / "from")
    assert read_config(tmp_path / "run") == CONFIG
    assert read_manifest(tmp_path / "run") == rows
    assert (tmp_path / "run" / rows[0].file).samefile(tmp_path / "from" / rows[0].file)
    assert read_result(tmp_path / "run") is None


def test_pictures_are_copied_where_linking_fails(tmp_path: Path) -> None:
    elsewhere = Path(
        "/dev/shm"
    )  # a file system of its own on Linux, so that a hard link is impossible
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to copy from")
    source = elsewhere / f"picaisso-test-{tmp_path.name}"
    item = row("c001", 1)
    (source / "images").mkdir(parents=True)
    try:
        (source / item.file).write_bytes(b"picture")
        write_run(tmp_path, CONFIG, [item], source)
    finally:
        (source / item.file).unlink()
        (source / "images").rmdir()
        source.rmdir()
    assert (tmp_path / item.file).read_bytes() == b"picture"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"classes": [{"id": "c001", "name": "a"}], "bakcbone": "resnet50"},
            "unknown key “bakcbone”",
        ),
        ({"classes": [{"name": "a"}]}, "each with id and name"),
        ([], "one JSON object"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(
    tmp_path: Path, config: object, reason: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=reason):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Line 1 of manifest.jsonl is not"),
        ('{"file": "images/a.jpg", "class": "c001"}', "Line 1 of manifest.jsonl is not"),
        ('{"file": "../a.jpg", "class": "c001", "sha256": ""}', "outside the run folder"),
        (
            '{"file": "a.jpg", "class": "c001", "sha256": "", "split": "tset"}',
            "unknown split “tset”",
        ),
    ],
)
def test_a_manifest_line_that_cannot_be_used_is_named(
    tmp_path: Path, line: str, reason: str
) -> None:
    (tmp_path / "manifest.jsonl").write_text(line + "\n")
    with pytest.raises(RunError, match=reason):
        read_manifest(tmp_path)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="at least two classes"):
        write_run(tmp_path, RunConfig(classes=CLASSES[:1]), [], tmp_path)


def test_a_picture_of_an_unknown_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="unknown class “c009”"):
        write_run(tmp_path, CONFIG, [row("c009", 1)], tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"ok": True})
    with pytest.raises(TypeError):
        write_json(tmp_path / "result.json", {"ok": object()})
    assert read_result(tmp_path) == {"ok": True}


def test_pictures_are_split_70_15_15_by_class() -> None:
    split = counts(split_rows(CONFIG, rows_of(100, 40)))
    assert [split["c001", part] for part in SPLITS] == [70, 15, 15]
    assert [split["c002", part] for part in SPLITS] == [28, 6, 6]


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
def test_a_group_is_never_in_two_parts(members: list[tuple[str, int]], seed: int) -> None:
    rows = [row(class_id, n, group) for n, (class_id, group) in enumerate(members)]
    config = dataclasses.replace(CONFIG, seed=seed)
    try:
        split = split_rows(config, rows)
    except RunError as refusal:
        assert refusal.stage == "split" and "too few" in refusal.reason and not refusal.retry
        return
    parts = defaultdict(set)
    for item in split:
        parts[item.group].add(item.split)
    assert all(len(found) == 1 and None not in found for found in parts.values())
    assert all(
        counts(split)[label.id, part] >= MINIMUM_PER_SPLIT for label in CLASSES for part in SPLITS
    )
    assert split_rows(config, split) == split


@settings(max_examples=50)
@given(st.integers(9, 60), st.integers(9, 60), st.integers(0, 50))
def test_nine_different_pictures_of_each_class_are_always_enough(
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
    copies = [row("c001", n, n // 5) for n in range(20)]
    others = [row("c002", n, 10 + n) for n in range(20)]
    split = split_rows(CONFIG, copies + others)
    assert [counts(split)["c001", part] for part in SPLITS] == [10, 5, 5]


@pytest.mark.parametrize(
    ("size", "words"),
    [(2, "has 2 usable pictures"), (8, "has 8"), (0, "has 0"), (1, "1 usable picture;")],
)
def test_a_class_with_too_few_pictures_is_refused_by_its_name(size: int, words: str) -> None:
    with pytest.raises(RunError, match=f"“łoś” .*{words}" if size == 8 else words) as refused:
        split_rows(CONFIG, rows_of(30, size))
    assert "łoś" in refused.value.reason
    assert "at least 9 different pictures" in refused.value.remedy
    assert not refused.value.retry


def test_copies_of_few_pictures_are_refused_and_counted() -> None:
    rows = [row("c001", n, n % 2) for n in range(30)] + [row("c002", n, 10 + n) for n in range(30)]
    with pytest.raises(RunError, match="30 usable pictures, of which 2 are no copies"):
        split_rows(CONFIG, rows)


def test_known_pictures_keep_their_part_and_new_ones_go_to_train_and_val() -> None:
    first = split_rows(CONFIG, rows_of(40, 40))
    new = [row("c001", n, n) for n in range(1000, 1040)]
    second = split_rows(dataclasses.replace(CONFIG, seed=7), first + new)
    assert second[: len(first)] == first
    parts = Counter(item.split for item in second[len(first) :])
    assert set(parts) == {"train", "val"}
    assert counts(second)["c001", "val"] == 12


def test_a_later_version_inherits_the_parts_of_the_earlier_one_even_for_pictures_that_were_relabelled() -> (
    None
):
    first = split_rows(CONFIG, rows_of(40, 40))
    fresh = [dataclasses.replace(item, split=None) for item in first]
    moved = next(place for place, item in enumerate(first) if item.split == "test")
    other = "c002" if first[moved].class_id == "c001" else "c001"
    fresh[moved] = dataclasses.replace(fresh[moved], class_id=other)
    new = row("c001", 1000, 1000)
    second = inherit_splits([*fresh, new], first)
    assert [item.split for item in second] == [*(item.split for item in first), None]
    assert [item.class_id for item in second] == [*(item.class_id for item in fresh), "c001"]


def test_a_new_copy_of_a_test_picture_is_left_out_and_of_a_training_picture_is_trained_on() -> None:
    first = split_rows(CONFIG, rows_of(40, 40))
    test, train = (next(i for i in first if i.split == part) for part in ("test", "train"))
    second = split_rows(
        CONFIG, [*first, row("c001", 1000, test.group), row("c001", 1001, train.group)]
    )
    assert [item.split for item in second[-2:]] == [None, "train"]


def test_known_pictures_found_to_be_copies_across_parts_leave_only_the_most_protected_side() -> (
    None
):
    first = split_rows(CONFIG, rows_of(40, 40))
    test, train = (next(i for i in first if i.split == part) for part in ("test", "train"))
    again = [dataclasses.replace(i, group=test.group) if i is train else i for i in first]
    second = {item.file: item.split for item in split_rows(CONFIG, again)}
    assert second[test.file] == "test"
    assert second[train.file] is None


def test_a_test_part_that_lost_its_pictures_is_filled_again_from_new_ones() -> None:
    first = split_rows(CONFIG, rows_of(40, 40))
    removed = [item for item in first if not (item.class_id == "c001" and item.split == "test")]
    new = [row("c001", n, n) for n in range(1000, 1020)]
    assert counts(split_rows(CONFIG, removed + new))["c001", "test"] >= MINIMUM_PER_SPLIT


def test_unreadable_pictures_take_no_part() -> None:
    rows = [*rows_of(20, 20), row("c001", 999, None)]
    assert split_rows(CONFIG, rows)[-1].split is None


@pytest.mark.parametrize(
    "before", [b"", b'{"n": 1}\n', b'{"n": 1}\n{"n": 2, "mes', '{"n": 1}\n{"ł'.encode()[:-1]]
)
def test_a_line_cut_off_in_the_middle_costs_readers_that_line_alone(
    before: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_bytes(before)
    for number in (3, 4):
        append_json_line(path, {"n": number, "message": "łoś"})
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["n"] for line in lines[-2:]] == [3, 4]
    assert path.read_bytes().startswith(before) and len(lines) == 2 + len(before.splitlines())


@pytest.mark.parametrize("junk", ["", "{", "[]", "{}", '{"ok": 1}'])
def test_a_result_without_sense_counts_as_none(junk: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(junk)
    assert read_result(tmp_path) is None


@pytest.mark.parametrize("junk", ["", "{", "[]", "{}"])
def test_metrics_that_are_not_whole_are_refused_in_words(junk: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(junk)
    with pytest.raises(RunError, match=r"(?i)metrics\.json"):
        read_metrics(tmp_path)


def test_a_result_that_the_disk_refuses_is_told_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(
        RunError, match=r"The disk refused result\.json: Is a directory\."
    ) as refused:
        read_result(tmp_path)
    assert refused.value.retry and str(tmp_path) not in refused.value.reason


@pytest.mark.parametrize(
    ("junk", "words"),
    [
        (b"\xff\xfe", "no readable manifest.jsonl"),
        (b'{"class": "c001", "file": 5, "sha256": ""}', "Line 1 of"),
    ],
)
def test_a_manifest_of_junk_is_refused_in_words(junk: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_bytes(junk)
    with pytest.raises(RunError, match=words):
        read_manifest(tmp_path)


def test_a_file_that_could_not_be_written_whole_leaves_the_earlier_one_and_nothing_beside_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "deep" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"first")
    with pytest.raises(ValueError, match="broken"), atomic_write(path) as file:
        file.write(b"half of the sec")
        raise ValueError("broken")
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]
    with atomic_write(path, durable=False) as file:
        file.write(b"second")
    assert path.read_bytes() == b"second"
