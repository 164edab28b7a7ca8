"""Folders of pictures as people have them: how they are read, and the fate of every file."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training.class_names import normalize
from training.images.changes import has_changed
from training.images.folder import LeftOut, import_folder, write_left_out
from training.images.layout import MAX_CLASSES, MAX_NAME_LENGTH, has_own_test_set, read_layout
from training.run_folder import ImageRow, RunError, file_format

BAD_NAME = os.fsdecode(b"b\xe4ume")


def picture(path: Path, number: int) -> Path:
    """Write an image that is like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (20, 24, 3), np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    return path


def classes_of(folder: Path, *names: str, count: int = 2) -> Path:
    for index, name in enumerate(names):
        for number in range(count):
            picture(folder / name / f"{number}.png", 1000 * index + number)
    return folder


def imported(folder: Path, tmp_path: Path) -> tuple[dict[str, str], list[ImageRow], dict[str, str]]:
    """Return class names by id, rows, and the reasons of what was left out."""
    labels, rows, left_out = import_folder(folder, tmp_path / "run")
    reasons = {item.file: item.reason for item in left_out}
    assert len(reasons) == len(left_out)
    return {label.id: label.name for label in labels}, rows, reasons


# --- every file has a fate ---


def test_linked_folders_and_files_are_followed_once(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog")
    classes_of(tmp_path / "elsewhere", "more cats", count=3)
    picture(tmp_path / "single.png", 999)
    cat = folder / "cat"
    (cat / "linked").symlink_to(tmp_path / "elsewhere")
    (cat / "z again").symlink_to(tmp_path / "elsewhere" / "more cats")
    (cat / "loop").symlink_to(cat)
    (cat / "single.png").symlink_to(tmp_path / "single.png")
    (cat / "nowhere.png").symlink_to(tmp_path / "nothing")
    (cat / "itself.png").symlink_to(cat / "itself.png")
    (folder / "fox").symlink_to(tmp_path / "elsewhere" / "more cats")
    shutil.rmtree(tmp_path / "elsewhere" / "more cats")
    classes_of(tmp_path / "elsewhere", "more cats", count=1)
    for number in range(3):
        picture(tmp_path / "elsewhere" / "more cats" / f"{number}.png", 500 + number)
    names, rows, reasons = imported(folder, tmp_path)
    assert list(names.values()) == ["cat", "dog", "fox"]
    assert [row.class_id for row in rows].count("c001") == 3
    already = [file for file, why in reasons.items() if "read already" in why]
    assert "cat/loop/" in already and len(already) == 2
    assert "No such file" in reasons["cat/nowhere.png"]
    assert "symbolic links" in reasons["cat/itself.png"]
    twice = [file for file, why in reasons.items() if "also in another class" in why]
    assert len(twice) == 6, "three pictures of the linked class, by both of their ways"


def test_a_link_to_a_folder_above_mixes_no_classes(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog")
    (folder / "cat" / "all").symlink_to(folder)
    (folder / "here").symlink_to(".")
    (folder / "gone").symlink_to(tmp_path / "nothing")
    names, rows, reasons = imported(folder, tmp_path)
    assert list(names.values()) == ["cat", "dog"] and len(rows) == 4
    assert reasons == {
        "cat/all/": "a link to a folder that holds it, so read already",
        "here": "a link to a folder that holds it, so read already",
        "gone": "a link that leads nowhere",
    }


def test_a_path_longer_than_the_system_takes_stops_nothing(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog")
    inside = os.open(folder / "cat", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=inside)
        deeper = os.open("n" * 250, os.O_RDONLY, dir_fd=inside)
        os.close(inside)
        inside = deeper
    os.close(os.open("deep.png", os.O_CREAT, dir_fd=inside))
    os.close(inside)
    _, rows, reasons = imported(folder, tmp_path)
    assert len(rows) == 4
    assert list(reasons.values()) == ["cannot be read (File name too long)"]
    assert not has_changed(folder, tmp_path / "run")


def test_litter_is_passed_over_by_name_and_said(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog")
    for name in (
        "__MACOSX/cat/._0.png",
        ".ipynb_checkpoints/0-checkpoint.png",
        ".DS_Store",
        "cat/Thumbs.db",
        "cat/desktop.ini",
        "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
        "cat/._0.png",
        "cat/.hidden.png",
        "dog/.ipynb_checkpoints/0-checkpoint.png",
    ):
        picture(folder / name, 7)
    picture(folder / "cat" / "thumbs" / "0.png", 8)
    names, rows, reasons = imported(folder, tmp_path)
    assert list(names.values()) == ["cat", "dog"] and len(rows) == 4
    assert len(reasons) == 10
    assert set(reasons.values()) == {
        "litter, to judge by its name",
        "a thumbnail, to judge by its folder's name",
    }


def test_a_class_may_be_called_as_folders_of_thumbnails_are(tmp_path: Path) -> None:
    names, rows, _ = imported(classes_of(tmp_path / "in", "thumbs", "fists"), tmp_path)
    assert list(names.values()) == ["fists", "thumbs"] and len(rows) == 4


def test_what_is_no_image_or_lies_in_no_class_has_its_line(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog")
    picture(folder / "beside.png", 5)
    (folder / "README.md").write_text("about")
    os.mkfifo(folder / "cat" / "pipe.jpg")
    (folder / "cat" / "empty.jpg").touch()
    (folder / "cat" / "large.jpg").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "cat" / "page.jpg").write_text("<html>")
    (folder / "cat" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    names, rows, reasons = imported(folder, tmp_path)
    assert len(rows) == 4 and list(names.values()) == ["cat", "dog"]
    assert reasons == {
        "README.md": "beside the folders, so in no class",
        "beside.png": "beside the folders, so in no class",
        "cat/empty.jpg": "not a picture that can be read, but empty",
        "cat/large.jpg": "not a picture that can be read, but a Git LFS pointer; run git lfs pull",
        "cat/page.jpg": "not a picture that can be read, but a web page; save the picture itself",
        "cat/phone.heic": "HEIC, which Picaisso does not read; save it as JPEG",
        "cat/pipe.jpg": "not a regular file",
    }


def test_a_picture_in_two_classes_is_in_neither(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog", "fox")
    shutil.copyfile(folder / "cat" / "0.png", folder / "dog" / "a copy.png")
    Image.open(folder / "cat" / "1.png").save(folder / "fox" / "as.bmp")
    _, rows, reasons = imported(folder, tmp_path)
    assert len(rows) == 4
    assert reasons == {
        "cat/0.png": "also in another class, “dog”, so used in none",
        "cat/1.png": "also in another class, “fox”, so used in none",
        "dog/a copy.png": "also in another class, “cat”, so used in none",
        "fox/as.bmp": "also in another class, “cat”, so used in none",
    }
    stored = {f"images/{path.name}" for path in (tmp_path / "run" / "images").iterdir()}
    assert stored == {row.file for row in rows}


# --- names ---


def test_names_that_are_not_utf_8_or_one_line_are_shown_with_replacement(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", BAD_NAME, "line\nbreak", "x" * 200)
    (folder / BAD_NAME / os.fsdecode(b"\xff\n.jpg")).write_bytes(b"broken")
    names, rows, reasons = imported(folder, tmp_path)
    assert set(names.values()) == {"b\ufffdume", "line\ufffdbreak", "x" * 63 + "…"}
    assert len(rows) == 6
    assert list(reasons) == ["b\ufffdume/\ufffd\ufffd.jpg"]
    json.dumps([names, reasons], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "twins",
    [("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("big cat", "big  cat"), ("Straße", "STRASSE")],
)
def test_two_folders_of_one_name_are_refused(twins: tuple[str, str], tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", *twins, "dog")
    with pytest.raises(RunError, match="have the same name") as refused:
        import_folder(folder, tmp_path / "run")
    assert normalize(twins[0]) in refused.value.reason and refused.value.remedy


def test_names_that_differ_only_in_what_is_cut_or_replaced_are_two_classes(tmp_path: Path) -> None:
    long = "x" * 100
    folder = classes_of(tmp_path / "in", "b\udce4r", "b\udcf6r", f"{long}1", f"{long}2")
    names, rows, _ = imported(folder, tmp_path)
    assert len(rows) == 8 and len({row.class_id for row in rows}) == 4
    assert sorted(names.values())[:2] == ["b\ufffdr", "b\ufffdr 2"]
    assert all(len(name) <= 64 for name in names.values())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "needs at least two sub-folders, one for each class"),
        (("cat",), "it has one alone, “cat”"),
        (("cat", "\u200b"), "has a name that nobody can see"),
    ],
)
def test_what_cannot_be_classes_is_refused_in_a_sentence(
    names: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(RunError, match=words):
        read_layout(classes_of(folder, *names, count=1), tmp_path / "run")


def test_more_classes_than_can_be_trained_are_refused(tmp_path: Path) -> None:
    for number in range(MAX_CLASSES + 1):
        (tmp_path / "in" / str(number)).mkdir(parents=True)
    with pytest.raises(RunError, match="has 1,001 sub-folders"):
        read_layout(tmp_path / "in", tmp_path / "run")


def test_the_table_of_what_was_left_out_is_csv_and_holds_no_formula(tmp_path: Path) -> None:
    left_out = [
        LeftOut('=1+1, "quoted".jpg', "not a picture that can be read"),
        LeftOut("-a,b.jpg", "cannot be read (It's, said the disk, broken)"),
    ]
    write_left_out(tmp_path, left_out)
    with (tmp_path / "left_out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["file", "reason"],
        ['\'=1+1, "quoted".jpg', left_out[0].reason],
        ["'-a,b.jpg", left_out[1].reason],
    ]


# --- layouts ---


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("train", "validation", "test"),
        ("Training", "valid", "Testing"),
        ("train", "dev", "test"),
        ("TRAIN ", "Val_Set", "test images"),
        ("training_set", "val2017", "evaluation"),
        ("seg_train", "seg_dev", "seg_test"),
    ],
)
def test_a_split_layout_is_recognised_and_kept(
    train: str, val: str, test: str, tmp_path: Path
) -> None:
    splits = {train: "train", val: "val", test: "test"}
    for number, split in enumerate(splits):
        for name in ("cat", "dog"):
            for index in range(2):
                seed = 100 * number + 10 * ord(name[0]) + index
                picture(tmp_path / "in" / split / name / f"{index}.png", seed)
    picture(tmp_path / "in" / test / "unlabelled.png", 7777)
    picture(tmp_path / "in" / "__MACOSX" / "._train", 7777)
    names, rows, reasons = imported(tmp_path / "in", tmp_path)
    assert list(names.values()) == ["cat", "dog"]
    assert sorted((row.class_id, row.split) for row in rows) == sorted(
        (class_id, split)
        for class_id in ("c001", "c002")
        for split in ("train", "val", "test")
        for _ in range(2)
    )
    assert reasons[f"{test}/unlabelled.png"] == "not in the folder of a class"


def test_without_a_folder_for_validation_the_test_part_is_kept_and_the_rest_divided(
    tmp_path: Path,
) -> None:
    for number, split in enumerate(("train", "test")):
        for name in ("cat", "dog"):
            picture(tmp_path / "in" / split / name / "0.png", 10 * number + ord(name[0]))
    _, rows, _ = imported(tmp_path / "in", tmp_path)
    assert sorted(str(row.split) for row in rows) == ["None", "None", "test", "test"]


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    names, rows, _ = imported(classes_of(tmp_path / "in", "train", "test", "val"), tmp_path)
    assert list(names.values()) == ["test", "train", "val"]
    assert {row.split for row in rows} == {None}
    folder = classes_of(tmp_path / "vehicles", "car", "train/steam", "train/electric")
    names, rows, _ = imported(folder, tmp_path / "other")
    assert list(names.values()) == ["car", "train"]


def test_splits_within_the_classes_and_within_themselves_are_kept(tmp_path: Path) -> None:
    splits = ("Train", "valid", "test")
    folders = [f"{name}/{split}" for name in ("cat", "dog") for split in splits]
    folder = classes_of(tmp_path / "in", *folders)
    picture(folder / "cat" / "cover.txt", 7777)
    names, rows, reasons = imported(folder, tmp_path)
    assert list(names.values()) == ["cat", "dog"]
    assert [row.split for row in rows].count("test") == 4
    assert {row.source for row in rows} == {"folder"}
    assert reasons == {"cat/cover.txt": "not in the folder of a split"}

    twice = [f"{split}/{split}/{name}" for split in splits for name in ("cat", "dog")]
    names, rows, _ = imported(classes_of(tmp_path / "twice", *twice), tmp_path / "other")
    assert list(names.values()) == ["cat", "dog"]
    assert [row.split for row in rows].count("val") == 4


def test_a_folder_for_training_alone_is_looked_into_and_divided(tmp_path: Path) -> None:
    names, rows, _ = imported(classes_of(tmp_path / "in", "train/cat", "train/dog"), tmp_path)
    assert list(names.values()) == ["cat", "dog"]
    assert {row.split for row in rows} == {None}


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("train/a", "train/b", "val/a", "val/b", "extra/a"), "beside them the folder “extra”"),
        (("train/a", "val/a", "valid/a", "test/a"), "not one folder for each split"),
    ],
)
def test_a_split_layout_that_cannot_be_meant_is_refused(
    folders: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=words):
        import_folder(classes_of(tmp_path / "in", *folders, count=1), tmp_path / "run")


def test_a_copy_between_the_given_splits_stays_in_the_test_part(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "train/cat", "train/dog", "test/cat", "test/dog")
    shutil.copyfile(folder / "test/cat/0.png", folder / "train/cat/leak.png")
    _, rows, reasons = imported(folder, tmp_path)
    assert [row.split for row in rows].count("test") == 4
    assert reasons == {"train/cat/leak.png": "the same picture again"}


def delivered(folder: Path) -> Path:
    """Write what our dataset.zip holds."""
    lines = ["file_name,class,split,source,license,title,creator,attribution,page_url,group"]
    for number, split in enumerate(("train", "val", "test")):
        for class_id in ("c001", "c002"):
            name = f"{split}/{class_id}/{class_id}{number}.png"
            picture(folder / name, 10 * number + int(class_id[1:]))
            lines.append(
                f"{name},łoś,{split},wikimedia,CC BY 4.0,A fox,,'=By Ann,https://a.example/1,{number}"
            )
    (folder / "images.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = {"c001": "łoś", "c002": "corgi"}
    (folder / "classes.json").write_text(json.dumps(names), encoding="utf-8")
    (folder / "README.md").write_text("a card")
    return folder


@pytest.mark.parametrize("inside", ["", "picaisso-dataset", "download/picaisso-dataset"])
def test_the_folder_of_a_dataset_zip_keeps_splits_names_sources_and_licences(
    inside: str, tmp_path: Path
) -> None:
    delivered(tmp_path / "in" / inside)
    names, rows, reasons = imported(tmp_path / "in", tmp_path)
    assert names == {"c001": "łoś", "c002": "corgi"}
    assert sorted(str(row.split) for row in rows) == ["test"] * 2 + ["train"] * 2 + ["val"] * 2
    assert {row.source for row in rows} == {"wikimedia"}
    assert {row.license for row in rows} == {"CC BY 4.0"}
    assert rows[0].credit == "=By Ann Licence: CC BY 4.0"
    assert rows[0].page_url == "https://a.example/1"
    assert list(reasons) == [str(Path(inside) / "README.md")]


def test_names_that_classes_json_should_give_but_does_not_are_asked_for(tmp_path: Path) -> None:
    folder = delivered(tmp_path / "in")
    for text in ("{", "[]", '{"c001": "fox"}', '{"c001": "fox", "c002": 5}', "[" * 100_000):
        (folder / "classes.json").write_text(text)
        with pytest.raises(RunError, match=r"classes\.json does not name the folder “c00"):
            import_folder(folder, tmp_path / "run")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_and_names_are_read_as_any_program_saves_them(
    encoding: str, delimiter: str, tmp_path: Path
) -> None:
    folder = classes_of(tmp_path / "in", "c001", "c002")
    table = delimiter.join(("file_name", "source", "creator")) + "\r\n"
    table += delimiter.join(("c001\\0.png", "bing", "Bäcker")) + "\r\n"
    (folder / "images.csv").write_text(table, encoding=encoding)
    given = '{"c001": "Käse", "c002": "Brot"}'
    (folder / "classes.json").write_text(given, encoding=encoding)
    names, rows, reasons = imported(folder, tmp_path)
    assert list(names.values()) == ["Käse", "Brot"] and not reasons
    assert sorted(row.source for row in rows) == ["bing", "folder", "folder", "folder"]
    assert "A picture by Bäcker" in [row.credit for row in rows]


def test_tables_of_other_programs_cost_nothing_and_are_said(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "c001", "c002")
    (folder / "images.csv").write_text("id,text\n1,a fox\n")
    (folder / "images.jsonl").write_text('{"file_name": "c001/0.png", "text": "a fox"}\n')
    _, rows, reasons = imported(folder, tmp_path)
    assert len(rows) == 4
    assert reasons == {
        "images.csv": "names none of the pictures in a column file_name",
        "images.jsonl": "beside the folders, so in no class",
    }


def test_a_classes_json_of_another_program_costs_nothing(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog")
    (folder / "classes.json").write_text('{"cat": 0, "dog": 1}')
    names, _, reasons = imported(folder, tmp_path)
    assert list(names.values()) == ["cat", "dog"]
    assert reasons == {"classes.json": "does not name the class folders"}


def test_a_collected_folder_is_taken_with_names_sources_and_licences(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    config = {"classes": [{"id": "c001", "name": "łoś"}, {"id": "c002", "name": "corgi"}]}
    lines = ["no json", "[]", '{"class": "c001", "state": "rejected", "image_url": "x"}']
    for number in range(4):
        picture(folder / "images" / f"{number}.jpg", number)
        record = {
            "class": f"c00{number % 2 + 1}",
            "image_url": f"https://a.example/{number}",
            "page_url": "https://a.example/",
            "state": "kept",
            "file": f"images/{number}.jpg",
            "source": "bing",
            "license": "CC0",
            "attribution": "By Ann.",
        }
        lines.append(json.dumps(record))
    lines.append(
        json.dumps({"class": "c001", "state": "kept", "file": "../secret", "image_url": "y"})
    )
    picture(folder / "images" / "unknown.jpg", 99)
    folder.joinpath("images.jsonl").write_text("\n".join(lines), encoding="utf-8")
    folder.joinpath("config.json").write_text(json.dumps(config), encoding="utf-8")
    names, rows, reasons = imported(folder, tmp_path)
    assert names == {"c001": "łoś", "c002": "corgi"}
    assert [row.class_id for row in rows].count("c001") == 2 and len(rows) == 4
    assert {(row.source, row.license, row.credit) for row in rows} == {
        ("bing", "CC0", "By Ann. Licence: CC0")
    }
    assert reasons["images/unknown.jpg"] == "not kept by the collection"


def test_a_collection_says_which_pictures_its_requester_marked_for_the_test(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    lines = []
    for number in range(6):
        picture(folder / "images" / f"{number}.jpg", number)
        record = {
            "class": f"c00{number % 2 + 1}",
            "image_url": f"upload:{number}.jpg",
            "state": "kept",
            "file": f"images/{number}.jpg",
        }
        lines.append(json.dumps(record | ({"split": "test"} if number < 2 else {})))
    folder.joinpath("images.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = {"classes": [{"id": "c001", "name": "a"}, {"id": "c002", "name": "b"}]}
    for own_as_test in (False, True):
        config["own_as_test"] = own_as_test
        folder.joinpath("config.json").write_text(json.dumps(config), encoding="utf-8")
        assert has_own_test_set(folder) is own_as_test
    _labels, rows, _left_out = import_folder(folder, tmp_path / "run")
    assert [row.split for row in rows].count("test") == 2
    assert [row.split for row in rows].count(None) == 4


def test_the_run_folder_may_lie_among_the_classes(tmp_path: Path) -> None:
    folder = classes_of(tmp_path, "cat", "dog")
    for _ in range(2):
        names, rows, _ = imported(folder, tmp_path)
        (tmp_path / "run" / "manifest.jsonl").touch()
        assert list(names.values()) == ["cat", "dog"] and len(rows) == 4
    assert not has_changed(folder, tmp_path / "run")


# --- changes ---


def test_a_changed_folder_is_noticed_and_litter_or_a_touched_file_is_no_change(
    tmp_path: Path,
) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog")
    run = tmp_path / "run"
    import_folder(folder, run)
    assert not has_changed(folder, run)
    os.utime(folder / "cat" / "0.png")
    (folder / ".DS_Store").write_text("litter")
    assert not has_changed(folder, run)
    extra = picture(folder / "cat" / "9.png", 99)
    assert has_changed(folder, run)
    extra.unlink()
    assert not has_changed(folder, run)
    picture(folder / "cat" / "0.png", 98)
    assert has_changed(folder, run)
    assert not has_changed(tmp_path / "gone", run)
    (run / "imported.json").write_text("[")
    assert not has_changed(folder, run), "as with a run folder of the version before"


# --- whatever people have ---

file_names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


@settings(max_examples=40, deadline=None)
@given(names=st.lists(file_names, min_size=1, max_size=4, unique=True), file=file_names)
def test_folders_of_any_names_are_read_or_refused_in_a_sentence(
    names: list[str], file: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in names:
        (folder / "in" / name).mkdir(parents=True, exist_ok=True)
        (folder / "in" / name / file).write_bytes(b"no picture")
    try:
        labels, rows, left_out = import_folder(folder / "in", folder / "run")
    except RunError as refusal:
        assert refusal.reason.endswith(".") and refusal.remedy.endswith(".")
        refusal.reason.encode()
        return
    assert rows == [] and len(left_out) == len(names)
    for label in labels:
        assert 0 < len(label.name) <= MAX_NAME_LENGTH and label.name.encode()
    write_left_out(folder / "run", left_out)
    with (folder / "run" / "left_out.csv").open(newline="", encoding="utf-8") as table:
        assert len(list(csv.reader(table))) == len(left_out) + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(
    classes=st.binary(max_size=80) | json_values.map(lambda value: json.dumps(value).encode()),
    table=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()),
)
def test_any_classes_json_and_images_csv_are_read_or_refused_in_a_sentence(
    classes: bytes, table: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        (folder / name / "0.jpg").write_bytes(b"no picture")
    (folder / "classes.json").write_bytes(classes)
    (folder / "images.csv").write_bytes(b"file_name,class,source,license\ncat/0.jpg," + table)
    try:
        layout = read_layout(folder, folder / "run")
    except RunError as refusal:
        assert refusal.reason.endswith(".")
    else:
        for file in layout.files:
            file.provenance.credit.encode()
            assert len(file.provenance.source) <= 2000


@settings(max_examples=40, deadline=None)
@given(records=st.lists(json_values, max_size=4), config=json_values)
def test_any_record_of_a_collection_is_read_or_passed_over(
    records: list[object], config: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "images").mkdir()
    kept = [{"state": "kept", "class": value, "file": value} for value in records]
    lines = [json.dumps(value) for value in [*records, *kept]]
    (folder / "images.jsonl").write_text("\n".join(lines))
    (folder / "config.json").write_text(json.dumps({"classes": config}))
    try:
        read_layout(folder, folder / "run")
    except RunError as refusal:
        assert refusal.reason.endswith(".")


# --- sources and file types ---


def test_subfolders_that_two_classes_have_alike_are_sources_and_others_are_not(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "in"
    for number, name in enumerate(
        ("cat/phone", "dog/phone", "cat/persian", "dog/old/phone", "dog")
    ):
        picture(folder / name / "0.png", number)
    _, rows, _ = imported(folder, tmp_path)
    assert sorted(row.source for row in rows) == ["folder", "folder", "folder", "phone", "phone"]


def test_the_file_type_is_that_of_the_file_as_it_was_found(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog")
    Image.open(folder / "cat" / "0.png").resize((99, 99)).save(folder / "cat" / "big.JPG", "JPEG")
    _, rows, _ = imported(folder, tmp_path)
    assert sorted(row.format for row in rows) == ["jpeg", "png", "png", "png", "png"]


@pytest.mark.parametrize(
    ("media_type", "address", "expected"),
    [
        ("image/png", "https://a.example/0.jpg", "png"),
        ("image/jpg", "", "jpeg"),
        ("", "https://a.example/0.WEBP?width=9.gif#x.png", "webp"),
        ("text/html", "https://a.example/picture", ""),
        ("", "http://[URL=x", ""),
    ],
)
def test_the_file_type_follows_from_media_type_or_address(
    media_type: str, address: str, expected: str
) -> None:
    assert file_format(media_type, address) == expected
