"""Recognise how a folder of pictures is laid out: which file is of which class and split.

A folder per class; a folder per split (train, val, test) with those in it, as ImageFolder, Keras
and our dataset.zip have them; or what `python -m scraping collect` wrote.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.class_names import casefold_key, normalize, shown_name
from training.images.provenance import Provenance, read_image_table, read_json, read_json_lines
from training.images.walk import (
    FoundFile,
    files_below,
    files_in,
    litter_in,
    reason_of_link,
    relative_name,
    subfolders,
)
from training.phrases import listed
from training.run_folder import SPLITS, RunError, Split

MAX_CLASSES = 1000
MAX_NAME_LENGTH = 64  # characters, as at the form

# The letters of what folders of splits are called: train, Test Set, val2017, seg_train.
_SPLIT_NAMES: dict[Split, re.Pattern[str]] = {
    "train": re.compile("(?:seg|data|images)?(?:train|training)(?:set|data|images)*"),
    "val": re.compile("(?:seg|data|images)?(?:val|valid|validation|dev)(?:set|data|images)*"),
    "test": re.compile("(?:seg|data|images)?(?:test|testing|eval|evaluation)(?:set|data|images)*"),
}
_NO_LETTERS = re.compile(r"[\W\d_]+")
_CLASS_ID = re.compile(r"c\d{3,}")  # what our dataset.zip calls its class folders
_WRAPPERS = 3  # folders that hold nothing but the next that are looked through
# fmt: off
_IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2",
    ".ppm", ".pgm", ".heic",
}
# fmt: on


@dataclass(frozen=True)
class LabelledFile:
    """A file that may be an image, with its label."""

    path: Path
    name: str
    """As people read it, relative to the folder that was given."""
    label: str
    """Which class: a key of `Layout.classes`."""
    split: Split | None = None
    provenance: Provenance = dataclasses.field(default_factory=Provenance)


@dataclass(frozen=True)
class Layout:
    """What a folder of pictures holds."""

    classes: Mapping[str, str]
    """Folder name or class id to the name that people read, in output order."""
    files: Sequence[LabelledFile]
    passed_over: Sequence[FoundFile]


def read_layout(images: Path, run_dir: Path) -> Layout:
    """Return which file of a folder is of which class and split, and what is passed over.

    `run_dir` may lie in the folder. Raises RunError with a sentence for what cannot be meant.
    """
    reader = _Reader(images, run_dir)
    folder = reader.data_folder()
    splits = reader.split_folders(folder)
    if _is_collection(folder):
        reader.read_collection(folder)
    elif splits:
        reader.read_splits(folder, splits)
    else:
        reader.read_classes(folder)
    classes = reader.classes(folder)
    _check_classes(images, classes)
    return Layout(classes, reader.files, reader.passed_over)


def has_own_test_set(images: Path) -> bool:
    """Return whether a folder is a collection whose test images somebody has marked as theirs."""
    return _is_collection(images) and read_json(images / "config.json").get("own_as_test") is True


class _Reader:
    """Gathers files while a folder is read."""

    def __init__(self, images: Path, run_dir: Path) -> None:
        self.files: list[LabelledFile] = []
        self.passed_over: list[FoundFile] = []
        self._images = images
        self._run_dir = run_dir.resolve()
        self._names: dict[str, str] = {}
        self._subfolder_of: dict[Path, str] = {}

    def data_folder(self) -> Path:
        """Return the folder that holds the data: the one given, or one that is all that it holds.

        Only what is recognised is looked for, as a single folder may also be a single class.
        """
        wrappers: list[Path] = []
        folder = self._images
        while not self._is_recognised(folder):
            inside = self._folders(folder)
            if len(inside) != 1 or len(wrappers) == _WRAPPERS:
                return self._images
            wrappers.append(folder)
            folder = inside[0]
        for wrapper in wrappers:
            self._pass_over(files_in(wrapper), "beside the folder with the pictures")
            self.passed_over += litter_in(wrapper, self._images)
        return folder

    def split_folders(self, folder: Path) -> dict[Path, Split]:
        """Return the folders that are splits, none where they are classes."""
        named = {}
        others = []
        for path in self._folders(folder):
            split = _split_called(path.name)
            if split is None:
                others.append(path)
            else:
                named[path] = split
        nested = [path for path in named if subfolders(path) and not _has_images(path)]
        is_training_nested = any(named[path] == "train" for path in nested)
        if not is_training_nested:
            return {}
        if others and min(len(named), len(nested)) == 1:
            return {}
        self._check_splits(folder, named, others)
        return named

    def read_classes(self, folder: Path) -> None:
        """Read a folder per class, each with a folder per split where all have them."""
        splits_of = {path: self._splits_within(path) for path in self._folders(folder)}
        have_splits = all(splits_of.values())
        for class_folder, splits in splits_of.items():
            if not have_splits:
                self._read_class(class_folder, class_folder.name, None)
                continue
            for split_folder, split in splits.items():
                self._read_class(split_folder, class_folder.name, split)
            self._pass_over(files_in(class_folder), "not in the folder of a split")
            self.passed_over += litter_in(class_folder, self._images)
        self._divide_where_a_split_is_missing()
        self._read_what_lies_beside(folder)

    def read_splits(self, folder: Path, splits: Mapping[Path, Split]) -> None:
        """Read a folder per split, each with a folder per class.

        Where a split is missing, the pictures for training are divided.
        """
        for split_folder, split in splits.items():
            inside = subfolders(split_folder)
            if len(inside) == 1 and _split_called(inside[0].name) == split:
                self._read_split(inside[0], split)
                self._pass_over(files_in(split_folder), "not in the folder of a class")
                self.passed_over += litter_in(split_folder, self._images)
            else:
                self._read_split(split_folder, split)
        self._divide_where_a_split_is_missing()
        self._read_what_lies_beside(folder)

    def read_collection(self, folder: Path) -> None:
        """Read what `python -m scraping collect` wrote."""
        values = read_json(folder / "config.json")
        for entry in _entries(values, "classes"):
            class_id = entry.get("id")
            name = entry.get("name")
            if isinstance(class_id, str) and isinstance(name, str):
                self._names[class_id] = name
        latest = {}
        for record in read_json_lines(folder / "images.jsonl"):
            key = (str(record.get("class")), str(record.get("image_url")))
            latest[key] = record
        used = set()
        for record in latest.values():
            path = _file_of(folder, record)
            label = record.get("class")
            if path is None or not isinstance(label, str) or not label:
                continue
            used.add(path)
            self._names.setdefault(label, label)
            name = relative_name(path, self._images)
            provenance = Provenance.of(record)
            split = next((each for each in SPLITS if each == record.get("split")), None)
            self.files.append(LabelledFile(path, name, label, split, provenance))
        for file in files_below(folder / "images", self._images):
            if file.path not in used:
                reason = file.reason or "not kept by the collection"
                self.passed_over.append(dataclasses.replace(file, reason=reason))
        if not self._names:
            raise _refusal(
                f"The collection in {_shown(self._images)} has no classes.",
                "Collect by class names, or sort the pictures into one folder for each class.",
            )

    def classes(self, folder: Path) -> dict[str, str]:
        """Return the names of the classes, by `classes.json` where it names their folders."""
        given = self._given_names(folder)
        texts = {}
        for key in given:
            if key in self._names:
                texts[key] = given[key]
        for key in sorted(self._names):
            texts.setdefault(key, self._names[key])
        return _shown_names(texts)

    def _given_names(self, folder: Path) -> dict[str, str]:
        """Return the names in `classes.json`, none where it is another program's."""
        path = folder / "classes.json"
        if not _is_file(path):
            return {}
        given = read_json(path)
        names = {}
        for key, name in given.items():
            if isinstance(name, str):
                names[key] = name
        missing = sorted(set(self._names) - set(names))
        if not missing:
            return names
        if all(_CLASS_ID.fullmatch(key) for key in self._names):
            raise _refusal(
                f"classes.json does not name the folder “{_shown(missing[0])}”.",
                'It must hold names by folder, such as {"c001": "corgi"}; mend or remove it.',
            )
        self._pass_over([path], "does not name the class folders")
        return {}

    def _folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, without litter and run folders."""
        found = []
        for path in subfolders(folder):
            if path.resolve() == self._run_dir:
                continue
            if not (_is_file(path / "manifest.jsonl") and _is_file(path / "config.json")):
                found.append(path)
        return found

    def _is_recognised(self, folder: Path) -> bool:
        if _is_collection(folder) or _is_file(folder / "classes.json"):
            return True
        return bool(self.split_folders(folder))

    def _check_splits(
        self, folder: Path, splits: Mapping[Path, Split], others: Sequence[Path]
    ) -> None:
        """Raise RunError where it is not clear what the folders beside the splits are."""
        names = [f"“{_shown(path.name)}”" for path in splits]
        if len(set(splits.values())) < len(splits):
            raise _refusal(
                f"{listed(names)} in {_shown(folder)} are not one folder for each split.",
                "Keep one folder each for training, validation and test.",
            )
        if others:
            extra = _shown(others[0].name)
            raise _refusal(
                f"{_shown(folder)} holds {listed(names)}, and beside them the folder “{extra}”.",
                f"Move “{extra}” elsewhere, or give a folder that holds classes alone.",
            )

    def _splits_within(self, class_folder: Path) -> dict[Path, Split]:
        """Return the splits that a class's folder is divided into, none for other sub-folders."""
        named = {}
        for path in subfolders(class_folder):
            split = _split_called(path.name)
            if split is None:
                return {}
            named[path] = split
        splits = set(named.values())
        is_divided = len(splits) > 1 and "train" in splits and len(splits) == len(named)
        return named if is_divided and not _has_images(class_folder) else {}

    def _read_split(self, folder: Path, split: Split) -> None:
        for class_folder in subfolders(folder):
            self._read_class(class_folder, class_folder.name, split)
        self._pass_over(files_in(folder), "not in the folder of a class")
        self.passed_over += litter_in(folder, self._images)

    def _divide_where_a_split_is_missing(self) -> None:
        """Leave the images for training to be divided where they are all, or a split is missing."""
        present = {file.split for file in self.files}
        if len(present) == len(SPLITS):
            return
        divided = []
        for file in self.files:
            split_kept = None if file.split == "train" else file.split
            divided.append(dataclasses.replace(file, split=split_kept))
        self.files = divided

    def _read_class(self, class_folder: Path, label: str, split: Split | None) -> None:
        self._names[label] = label
        for file in files_below(class_folder, self._images):
            if file.reason:
                self.passed_over.append(file)
                continue
            self.files.append(LabelledFile(file.path, file.name, label, split))
            below = file.path.relative_to(class_folder).parts
            if len(below) > 1:
                self._subfolder_of[file.path] = below[0]

    def _name_sources(self) -> None:
        """Take sub-folders that two classes have alike for where their pictures come from.

        Sub-folders of one class alone may be anything, such as its breeds.
        """
        classes_with: dict[str, set[str]] = defaultdict(set)
        for file in self.files:
            subfolder = self._subfolder_of.get(file.path, "")
            classes_with[subfolder].add(file.label)
        named = []
        for file in self.files:
            subfolder = self._subfolder_of.get(file.path, "")
            if subfolder and len(classes_with[subfolder]) > 1:
                provenance = Provenance(source=shown_name(subfolder))
                named.append(dataclasses.replace(file, provenance=provenance))
            else:
                named.append(file)
        self.files = named

    def _read_what_lies_beside(self, folder: Path) -> None:
        """Read images.csv, and give every other file beside the classes its line."""
        self._name_sources()
        table = folder / "images.csv"
        if _is_file(table):
            self._read_table(folder, table)
        read = {table, folder / "classes.json"}
        beside = [path for path in files_in(folder) if path not in read or not _is_file(path)]
        self._pass_over(beside, "beside the folders, so in no class")
        self.passed_over += litter_in(folder, self._images)
        read_folders = {*self._folders(folder), self._run_dir}
        others = [path for path in subfolders(folder) if path not in read_folders]
        self._pass_over(others, "a run folder")

    def _read_table(self, folder: Path, table: Path) -> None:
        """Read images.csv."""
        provenance = read_image_table(table)
        files = []
        named = 0
        for file in self.files:
            key = file.path.relative_to(folder).as_posix()
            if key in provenance:
                named += 1
            known = provenance.get(key, file.provenance)
            files.append(dataclasses.replace(file, provenance=known))
        self.files = files
        if not named:
            self._pass_over([table], "names none of the pictures in a column file_name")

    def _pass_over(self, paths: Sequence[Path], reason: str) -> None:
        for path in paths:
            name = relative_name(path, self._images)
            why = reason_of_link(path) or reason
            self.passed_over.append(FoundFile(path, name, why))


def _check_classes(images: Path, classes: Mapping[str, str]) -> None:
    """Raise RunError where these names are no classes."""
    where = _shown(images)
    if len(classes) < 2:
        reason = f"{where} needs at least two sub-folders, one for each class"
        for name in classes.values():
            reason += f"; it has one alone, “{name}”"
        remedy = (
            "Put the pictures of each class into a folder of its own, and give what holds them."
        )
        raise _refusal(f"{reason}.", remedy)
    if len(classes) > MAX_CLASSES:
        raise _refusal(
            f"{where} has {len(classes):,} sub-folders; that many classes cannot be trained.",
            f"Give a folder with at most {MAX_CLASSES:,}, one for each class.",
        )
    known: dict[str, str] = {}
    for key, name in classes.items():
        if not name:
            raise _refusal(
                f"The folder “{_shown(key)}” of {where} has a name that nobody can see.",
                "Call it as the class is called.",
            )
        same = known.setdefault(casefold_key(name), name)
        if same is not name:
            raise _refusal(
                f"The folders “{same}” and “{name}” of {where} have the same name:"
                " capital letters, extra spaces and invisible characters make no difference.",
                "Rename one, or put the pictures of both into one folder.",
            )


def _shown_names(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the names of classes as people read them, by key.

    Names that differ only in what is cut off or replaced are told apart by a number.
    """
    names = {}
    taken: dict[str, str] = {}
    for key, text in texts.items():
        name = _class_name(text)
        whole = casefold_key(text)
        number = 1
        while taken.setdefault(casefold_key(name), whole) != whole:
            number += 1
            end = f" {number}"
            name = _class_name(text)[: MAX_NAME_LENGTH - len(end)] + end
        names[key] = name
    return names


def _class_name(text: str) -> str:
    """Return the name of a class on one line, in at most 64 characters."""
    name = normalize(shown_name(text))
    if len(name) <= MAX_NAME_LENGTH:
        return name
    return name[: MAX_NAME_LENGTH - 1].rstrip() + "…"


def _has_images(folder: Path) -> bool:
    """Return whether images lie in a folder itself, to judge by their names."""
    return any(path.suffix.lower() in _IMAGE_SUFFIXES for path in files_in(folder))


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises where it may not be read


def _is_collection(folder: Path) -> bool:
    """Return whether a folder is what `python -m scraping collect` wrote."""
    if not _is_file(folder / "images.jsonl"):
        return False
    return _is_file(folder / "config.json") or os.path.isdir(folder / "images")  # noqa: PTH112


def _split_called(name: str) -> Split | None:
    """Return the split that a folder's name means, if it means one."""
    letters = _NO_LETTERS.sub("", name.lower())
    for split, pattern in _SPLIT_NAMES.items():
        if pattern.fullmatch(letters):
            return split
    return None


def _file_of(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """Return the file of a record of images.jsonl; None where nothing was kept."""
    file = record.get("file")
    if record.get("state") != "kept" or not isinstance(file, str):
        return None
    parts = Path(file).parts
    is_inside = bool(parts) and not Path(file).is_absolute() and ".." not in parts
    return folder / file if is_inside else None


def _entries(values: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the objects in a list."""
    found = values.get(key)
    if not isinstance(found, list):
        return []
    return [entry for entry in found if isinstance(entry, dict)]


def _shown(path: Path | str) -> str:
    return shown_name(os.fspath(path))


def _refusal(reason: str, remedy: str) -> RunError:
    return RunError("features", reason, remedy, retry=False)
