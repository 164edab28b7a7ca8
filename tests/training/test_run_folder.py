"""The run folder: what is written is read back, and what cannot be used is named."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.example_rows import CLASSES, CONFIG, row, rows_of
from training.images.split import split_rows
from training.run_folder import (
    ImageRow,
    RunConfig,
    RunError,
    append_json_line,
    atomic_write,
    inherit_splits,
    read_config,
    read_manifest,
    read_result,
    write_config,
    write_json,
    write_manifest,
    write_run,
)


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


def test_images_are_copied_where_linking_fails(tmp_path: Path) -> None:
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
        ({"classes": 5}, "each with id and name"),
        ([], "one JSON object"),
        ({"classes": [{"id": "../c", "name": "a"}]}, "id is not 1 to 32 letters"),
        ({"classes": [{"id": "c001", "name": None}]}, "no usable name for the class c001"),
        ({"classes": [{"id": "c001", "name": " "}]}, "no usable name for the class c001"),
        ({"classes": [{"id": "c001", "name": "a" * 999}]}, "no usable name for the class c001"),
        ({"classes": [{"id": "c001", "name": "a\nb"}]}, "a line break or half a character"),
        ({"classes": [{"id": "c001", "name": "a\ud83d"}]}, "a line break or half a character"),
        ({"classes": [], "weights_dir": 5}, "no text as weights_dir"),
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
        ("[" * 100_000, "Line 1 of manifest.jsonl is not"),
        ('{"file": "../a.jpg", "class": "c001", "sha256": ""}', "outside the run folder"),
        ('{"file": "", "class": "c001", "sha256": ""}', "names no file"),
        ('{"file": "a.jpg", "class": 5, "sha256": ""}', "no text as class_id"),
        ('{"file": "a.jpg", "class": "c001", "sha256": 5}', "no text as sha256"),
        ('{"file": "a.jpg", "class": "c001", "sha256": "../a"}', "no digest as sha256"),
        ('{"file": "a.jpg", "class": "c001", "sha256": "", "credit": null}', "no text as credit"),
        ('{"file": "a.jpg", "class": "c001", "sha256": "", "group": 1.5}', "number as group"),
        ('{"file": "a.jpg", "class": "c001", "sha256": "", "group": -1}', "number as group"),
        (
            '{"file": "a.jpg", "class": "c001", "sha256": "", "group": 99999999999999999999}',
            "number as group",
        ),
        ('{"file": "a.jpg", "class": "c001", "sha256": "", "split": []}', "unknown split"),
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


def test_files_that_an_editor_on_windows_saved_and_odd_separators_are_read(tmp_path: Path) -> None:
    rows = [dataclasses.replace(row("c001", 1), credit="one\u2028two\x85three")]
    write_manifest(tmp_path, rows)
    write_config(tmp_path, CONFIG)
    for name in ("manifest.jsonl", "config.json"):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_manifest(tmp_path) == rows
    assert read_config(tmp_path) == CONFIG


def test_half_an_emoji_in_a_text_stops_no_file_from_being_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, [dataclasses.replace(row("c001", 1), credit="by \ud83d")])
    append_json_line(tmp_path / "progress.jsonl", {"message": "by \ud83d"})
    assert read_manifest(tmp_path)[0].credit == "by \ufffd"
    assert json.loads((tmp_path / "progress.jsonl").read_text()) == {"message": "by \ufffd"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
ROW_KEYS = [field.name for field in dataclasses.fields(ImageRow)]


@settings(max_examples=80, deadline=None)
@given(
    changes=st.dictionaries(st.sampled_from([*ROW_KEYS, "class"]), json_values, max_size=3),
    extra=st.binary(max_size=60),
)
def test_any_manifest_is_read_or_refused_in_a_sentence(
    changes: dict[str, object], extra: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    line = json.dumps({**row("c001", 1).as_json(), **changes})
    (folder / "manifest.jsonl").write_bytes(line.encode() + b"\n" + extra)
    try:
        rows = read_manifest(folder)
    except RunError as refusal:
        assert refusal.reason.endswith(".") and refusal.remedy
        refusal.reason.encode()
    else:
        write_manifest(folder, rows)


@settings(max_examples=80, deadline=None)
@given(
    values=st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(RunConfig)]), json_values
    ),
    label=st.dictionaries(st.sampled_from(["id", "name"]), json_values),
    damage=st.binary(max_size=3),
)
def test_any_config_is_read_or_refused_in_a_sentence(
    values: dict[str, object],
    label: dict[str, object],
    damage: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    classes = values.get("classes", [label])
    text = json.dumps({**values, "classes": classes})
    (folder / "config.json").write_bytes(text.encode() + damage)
    try:
        config = read_config(folder)
    except RunError as refusal:
        assert refusal.reason.endswith(".") and refusal.remedy
    else:
        write_config(folder, config)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="at least two classes"):
        write_run(tmp_path, RunConfig(classes=CLASSES[:1]), [], tmp_path)


def test_an_image_of_an_unknown_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="unknown class “c009”"):
        write_run(tmp_path, CONFIG, [row("c009", 1)], tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"ok": True})
    with pytest.raises(TypeError):
        write_json(tmp_path / "result.json", {"ok": object()})
    assert read_result(tmp_path) == {"ok": True}


def test_a_later_version_inherits_the_splits_of_the_earlier_one_even_for_relabelled_images() -> (
    None
):
    first = split_rows(CONFIG, rows_of(40, 40))
    fresh = [dataclasses.replace(item, split=None) for item in first]
    moved = next(index for index, item in enumerate(first) if item.split == "test")
    other = "c002" if first[moved].class_id == "c001" else "c001"
    fresh[moved] = dataclasses.replace(fresh[moved], class_id=other)
    new = row("c001", 1000, 1000)
    second = inherit_splits([*fresh, new], first)
    assert [item.split for item in second] == [*(item.split for item in first), None]
    assert [item.class_id for item in second] == [*(item.class_id for item in fresh), "c001"]


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
