"""List the files below a folder, each once and with a name that can be shown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from training.class_names import shown_name

# What systems and programs leave in folders, besides hidden files; small letters.
_LITTER = frozenset(
    {
        "__macosx",
        "__pycache__",
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "@sharebin",
        "@tmp",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "found.000",
        "network trash folder",
        "temporary items",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "thumbs.db:encryptable",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "picasa.ini",
        "zbthumbnail.info",
        "icon\r",
    }
)
_LEADS_BACK = "a link to a folder that holds it, so read already"
# Folders of small copies, where they lie among the pictures of a class.
_THUMBNAIL_FOLDERS = frozenset({"thumbs", "_thumbs", "thumbnails", "_thumbnails"})


@dataclass(frozen=True)
class FoundFile:
    """A file, or a folder that could not be listed."""

    path: Path
    name: str
    """As people read it, relative to the folder that was given."""
    reason: str = ""
    """Why it is passed over; empty for a file that may be an image."""


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden or left by a program, to judge by its name."""
    return name.startswith((".", "~$")) or name.lower() in _LITTER


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, linked ones too, without litter; sorted.

    A link to a folder that holds it is none: it would give each class the pictures of all.
    """
    found = []
    for path in _entries(folder):
        if _is_folder(path) and not is_litter(path.name) and not _leads_back(path):
            found.append(path)
    return found


def files_in(folder: Path) -> list[Path]:
    """Return what lies in a folder and is neither one of its sub-folders nor litter; sorted."""
    folders = set(subfolders(folder))
    found = []
    for path in _entries(folder):
        if path not in folders and not is_litter(path.name):
            found.append(path)
    return found


def reason_of_link(path: Path) -> str:
    """Return why a link is passed over; empty where it is none, or leads to a file or folder."""
    if _leads_back(path):
        return _LEADS_BACK
    if _is_link(path) and not os.path.exists(path):  # noqa: PTH110 - Path.exists may raise
        return "a link that leads nowhere"
    return ""


def litter_in(folder: Path, root: Path) -> list[FoundFile]:
    """Return the files of the litter that lies in a folder."""
    found = []
    for path in _entries(folder):
        if not is_litter(path.name):
            continue
        if _is_folder(path):
            found += files_below(path, root, "litter, to judge by its name")
        else:
            found.append(_litter_file(path, root))
    return found


def files_below(folder: Path, root: Path, reason: str = "") -> list[FoundFile]:
    """Return every file below a folder, sorted by path; `reason` is given to all of them.

    A linked folder is followed, but each folder is listed only once. `root` is what names are
    relative to.
    """
    found: list[FoundFile] = []
    seen: set[tuple[int, int]] = set()
    waiting = [(folder, reason)]
    while waiting:
        current, why = waiting.pop()
        name = f"{relative_name(current, root)}/"
        try:
            status = current.stat()
            entries = list(current.iterdir())
        except OSError as error:
            found.append(FoundFile(current, name, f"cannot be read ({error.strerror})"))
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            found.append(FoundFile(current, name, "a link to a folder that was read already"))
            continue
        seen.add(identity)
        for path in entries:
            if _leads_back(path):
                linked = f"{relative_name(path, root)}/"
                found.append(FoundFile(path, linked, _LEADS_BACK))
            elif _is_folder(path):
                waiting.append((path, why or _reason_of_folder(path.name)))
            elif is_litter(path.name):
                found.append(_litter_file(path, root))
            else:
                found.append(FoundFile(path, relative_name(path, root), why))
    found.sort(key=lambda file: file.path)
    return found


def relative_name(path: Path, root: Path) -> str:
    """Return a path below `root` as people read it."""
    return shown_name(str(path.relative_to(root)))


def _reason_of_folder(name: str) -> str:
    if is_litter(name):
        return "litter, to judge by its name"
    if name.lower() in _THUMBNAIL_FOLDERS:
        return "a thumbnail, to judge by its folder's name"
    return ""


def _litter_file(path: Path, root: Path) -> FoundFile:
    return FoundFile(path, relative_name(path, root), "litter, to judge by its name")


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _leads_back(path: Path) -> bool:
    """Return whether a path is a link to a folder that it lies in, by whatever way."""
    if not _is_link(path) or not _is_folder(path):
        return False
    target = os.path.realpath(path)
    here = os.path.realpath(path.parent)
    return Path(here).is_relative_to(target)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where a folder may not be read


def _is_link(path: Path) -> bool:
    return os.path.islink(path)  # noqa: PTH114 - Path.is_symlink raises where a path is too long
