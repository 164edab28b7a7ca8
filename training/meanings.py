"""meanings.json of a run folder: each class's images in groups that look alike.

Where the groups are clearly separate, the class's name probably means several things. Nothing in
a run reads this file: it is for people. No torch here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.run_folder import RunError, read_json, write_json

MEANINGS_FILE = "meanings.json"


@dataclass(frozen=True)
class ImageGroup:
    """Images of one class that look alike."""

    files: tuple[str, ...]
    """As in the manifest, the most central first; further copies of an image come last."""
    words: tuple[str, ...] = ()
    """That its titles have and those of the class's other groups have not, the best first."""


@dataclass(frozen=True)
class ClassGroups:
    """The images of one class in groups, the largest first."""

    class_id: str
    clear: bool
    """Whether the groups are clearly separate, so that a person is to be asked."""
    groups: tuple[ImageGroup, ...]


def write_meanings(run_dir: Path, classes: Iterable[ClassGroups]) -> None:
    """Write the file, atomically."""
    entries = []
    for found in classes:
        groups: list[dict[str, Any]] = []
        for group in found.groups:
            files = list(group.files)
            groups.append({"size": len(files), "words": list(group.words), "files": files})
        entries.append({"class": found.class_id, "clear": found.clear, "groups": groups})
    write_json(run_dir / MEANINGS_FILE, {"classes": entries})


def read_meanings(run_dir: Path) -> list[ClassGroups]:
    """Return what the file says; [] where there is none, or it is damaged."""
    if not (run_dir / MEANINGS_FILE).exists():
        return []
    try:
        entries = read_json(run_dir / MEANINGS_FILE)["classes"]
        return [_class_groups(entry) for entry in entries]
    except (RunError, KeyError, TypeError, ValueError):
        return []


def remove_from_meanings(run_dir: Path, files: Collection[str]) -> None:
    """Write the file again without these images; a damaged one goes as a whole."""
    path = run_dir / MEANINGS_FILE
    if not path.exists():
        return
    classes = read_meanings(run_dir)
    if not classes:
        path.unlink()
        return
    remaining = []
    for found in classes:
        groups = []
        for group in found.groups:
            others = tuple(file for file in group.files if file not in files)
            groups.append(ImageGroup(others, group.words))
        remaining.append(ClassGroups(found.class_id, found.clear, tuple(groups)))
    write_meanings(run_dir, remaining)


def _class_groups(entry: dict[str, Any]) -> ClassGroups:
    groups = []
    for group in entry["groups"]:
        files = tuple(map(str, group["files"]))
        words = tuple(map(str, group["words"]))
        groups.append(ImageGroup(files, words))
    return ClassGroups(str(entry["class"]), bool(entry["clear"]), tuple(groups))
