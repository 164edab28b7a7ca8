"""What a person brings along with a new request: a zip of pictures, a table of addresses.

Until the form is right both lie in a draft, so that no other mistake in the form loses them; then
they move into the folder of the request, where the collection reads them.
"""

import json
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import TemporaryUploadedFile

from requests_app.models import ClassifierRequest, Status
from scraping.supplied import Supplied, SuppliedError, named_classes, read_supplied
from training.run_folder import MINIMUM_PER_CLASS, MINIMUM_PER_SPLIT

PICTURES = "pictures"
ADDRESSES = "addresses"
FILES = {PICTURES: "pictures.zip", ADDRESSES: "addresses.csv"}
FOLDER = "supplied"  # in that of the request
DRAFTS = "uploads"  # in the data folder
KEY = re.compile(r"[0-9a-f]{32}")
MOST_BYTES = 200_000_000  # of one file
MOST_WAITING = 2_000_000_000  # bytes of all that arrives, drafts, and unconfirmed requests
KEPT = timedelta(days=1)  # of a draft
SHOWN = 20  # of what cannot be used

TOO_LARGE = f"This file is larger than {MOST_BYTES // 1_000_000} MB. Give fewer pictures."
FULL = "Too many uploads wait to be confirmed on this site. Try again later."
EMPTY = "This file is empty. Choose it again."
TOO_MANY_CLASSES = (
    "It names {count} classes; a request has {most} at most. Name those that you want."
)
NO_PICTURE = "No picture was found in it. Make a folder for each class, called as it is: {names}."
NAMES_NO_CLASS = {
    PICTURES: "No folder in it holds pictures. Make a folder for each class, called as it is.",
    ADDRESSES: "It names no class with an address. Fill in the columns url and label.",
}
NO_ADDRESS = "It has no address for these classes. Its labels must be called as they are: {names}."
GONE = "The files are no longer held here. Choose them again."
NOTHING = "Choose a zip of pictures or a table of addresses first."
TOO_FEW_TO_TEST = "“{name}” has {count} in them; to test on them each class needs at least {least}."
TOO_FEW_ALONE = "“{name}” has {count} in them; without a search each class needs at least {least}."
NOTHING_TO_LEARN = (
    "With these alone as the test set nothing is left to train on: search the web too, or do not"
    " mark them as the test set."
)


class GoneError(Exception):
    """The files of a draft are no longer there: another tab has sent the form, or dropped them."""

    def __init__(self) -> None:
        super().__init__(GONE)


@dataclass(frozen=True)
class Draft:
    """What was uploaded and belongs to no request yet."""

    key: str

    @property
    def folder(self) -> Path:
        return Path(settings.DATA_DIR) / DRAFTS / self.key

    def path(self, kind: str) -> str:
        """Return the file of this kind, "" where there is none."""
        file = self.folder / FILES[kind]
        return str(file) if file.is_file() else ""

    @property
    def names(self) -> dict[str, str]:
        """What the files are called at home, by kind."""
        try:
            names = json.loads((self.folder / "names.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            names = {}
        return {kind: names.get(kind, FILES[kind]) for kind in FILES if self.path(kind)}


def opened(key: str) -> Draft | None:
    """Return the draft of this key, None where there is none."""
    draft = Draft(key)
    return draft if KEY.fullmatch(key) and draft.folder.is_dir() else None


def hold(files: Mapping[str, TemporaryUploadedFile], draft: Draft | None = None) -> Draft:
    """Keep files, by kind; one of the same kind takes the place of the one before, whole.

    Raises GoneError where the draft has become that of a request meanwhile.
    """
    if draft is None:
        draft = Draft(secrets.token_hex(16))
        draft.folder.mkdir(parents=True)
    names = draft.names
    for kind, file in files.items():
        names[kind] = file.name or FILES[kind]
    try:
        for kind, file in files.items():
            shutil.move(file.temporary_file_path(), draft.folder / FILES[kind])
            file.close()
        _write_names(draft, names)
    except FileNotFoundError as error:
        raise GoneError from error
    return draft


def _write_names(draft: Draft, names: Mapping[str, str]) -> None:
    """Write them beside and rename that, as another tab may be reading or writing them."""
    beside = draft.folder / f"names-{secrets.token_hex(8)}.json"
    beside.write_text(json.dumps(names), encoding="utf-8")
    beside.replace(draft.folder / "names.json")


def leave_out(draft: Draft, kind: str) -> None:
    """Drop one of the files."""
    if kind in FILES:
        (draft.folder / FILES[kind]).unlink(missing_ok=True)


def forget(draft: Draft) -> None:
    """Delete what was uploaded."""
    shutil.rmtree(draft.folder, ignore_errors=True)


def forget_of(classifier: ClassifierRequest) -> None:
    """Delete what was brought along for a request that is never going to be worked on."""
    shutil.rmtree(classifier.folder / FOLDER, ignore_errors=True)


def has_room() -> bool:
    """Forget old drafts; return whether what nobody has confirmed leaves room for more.

    What arrives at this moment counts.
    """
    forget_old_drafts()
    folders = [*_drafts(), Path(settings.FILE_UPLOAD_TEMP_DIR)]
    waiting = sum(_size(folder) for folder in folders)
    unconfirmed = ClassifierRequest.objects.filter(status=Status.UNCONFIRMED)
    for brought in unconfirmed.exclude(supplied={}).values_list("supplied", flat=True):
        waiting += int(brought.get("bytes", 0))
    return waiting < MOST_WAITING


def class_names(draft: Draft, most: int) -> tuple[list[str], dict[str, str]]:
    """Return the classes that folders and labels name, and what is wrong with the files by kind.

    A file that names more than `most` counts as wrong, and names none.
    """
    names: list[str] = []
    problems = {}
    for kind in FILES:
        try:
            found = named_classes(*_paths(draft, kind))
        except SuppliedError as error:
            problems[kind] = error.sentence
            continue
        if len(found) > most:
            problems[kind] = TOO_MANY_CLASSES.format(count=len(found), most=most)
            continue
        names += [name for name in found if name not in names]
    if not names and not problems:
        problems = {kind: NAMES_NO_CLASS[kind] for kind in draft.names}
    return names, problems


def check(draft: Draft, names: Sequence[str], *, as_test: bool, alone: bool) -> dict[str, str]:
    """Return a sentence for each kind of file that cannot be used so, none where all is well."""
    problems = {}
    counts: Counter[str] = Counter()
    for kind, no_use in ((PICTURES, NO_PICTURE), (ADDRESSES, NO_ADDRESS)):
        if not draft.path(kind):
            continue
        found = _read(draft, kind, names)
        if isinstance(found, str):
            problems[kind] = found
            continue
        of_kind = _counts(found)
        if not of_kind:
            problems[kind] = no_use.format(names=", ".join(names))
        counts += of_kind
    if problems or not draft.names:
        return problems
    problem = _too_few(counts, names, as_test=as_test, alone=alone)
    return {next(iter(draft.names)): problem} if problem else {}


def _too_few(counts: Counter[str], names: Sequence[str], *, as_test: bool, alone: bool) -> str:
    """Return why so many of each class are too few for what is wished, "" where they are not."""
    if as_test and alone:
        return NOTHING_TO_LEARN
    for name in names:
        count = counts[name]
        if as_test and count < MINIMUM_PER_SPLIT:
            return TOO_FEW_TO_TEST.format(name=name, count=count, least=MINIMUM_PER_SPLIT)
        if alone and count < MINIMUM_PER_CLASS:
            return TOO_FEW_ALONE.format(name=name, count=count, least=MINIMUM_PER_CLASS)
    return ""


def facts(draft: Draft, names: Sequence[str], *, as_test: bool, alone: bool) -> dict[str, Any]:
    """Return what a request says of what was brought along, after ``check``.

    Raises GoneError where it has become that of another request meanwhile.
    """
    brought: dict[str, Any] = {"as_test": as_test, "alone": alone, "bytes": _size(draft.folder)}
    unused = []
    for kind in FILES:
        found = _read(draft, kind, names)
        if isinstance(found, str):  # it was checked before
            raise GoneError
        brought[kind] = _counts(found).total()
        unused += [[one.what, one.why] for one in found.unused]
    brought["unused"] = unused[:SHOWN]
    brought["unused_count"] = len(unused)
    return brought


@contextmanager
def given(draft: Draft | None, classifier: ClassifierRequest) -> Iterator[None]:
    """Move the files into the folder of a request that is being made, and back if that fails.

    What lies there is of a request that was never made, and may be a stranger's: it goes. Raises
    GoneError where the draft has become that of another request.
    """
    folder = classifier.folder / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    if draft is None:
        yield
        return
    classifier.folder.mkdir(parents=True, exist_ok=True)
    try:
        draft.folder.rename(folder)
    except FileNotFoundError as error:
        raise GoneError from error
    try:
        yield
    except BaseException:
        folder.rename(draft.folder)
        raise


def forget_ownerless() -> None:
    """Delete what was brought along for requests that there are not: their making broke off.

    A folder that holds anything else, or came about today, stays.
    """
    oldest = time.time() - KEPT.total_seconds()
    for folder in (Path(settings.DATA_DIR) / "requests").glob("*"):
        if not folder.name.isdecimal() or not folder.is_dir() or folder.stat().st_mtime > oldest:
            continue
        has_more = any(inside.name != FOLDER for inside in folder.iterdir())
        if not has_more and not ClassifierRequest.objects.filter(pk=folder.name).exists():
            shutil.rmtree(folder, ignore_errors=True)


def collection_values(classifier: ClassifierRequest) -> dict[str, Any]:
    """Return what the configuration of a request's collection says of what was brought along."""
    if not classifier.supplied:
        return {}
    folder = classifier.folder / FOLDER
    values: dict[str, Any] = {}
    for key, kind in (("own", PICTURES), ("own_urls", ADDRESSES)):
        file = folder / FILES[kind]
        if file.is_file():
            values[key] = str(file.resolve())
    if values and classifier.supplied.get("as_test"):
        values["own_as_test"] = True
    if values and classifier.supplied.get("alone") and not classifier.sources:
        values["sources"] = []
    return values


def _read(draft: Draft, kind: str, names: Sequence[str]) -> Supplied | str:
    """Return what a file has for these classes, or why it cannot be read."""
    try:
        return read_supplied(*_paths(draft, kind), names)
    except SuppliedError as error:
        return error.sentence


def _paths(draft: Draft, kind: str) -> tuple[str, str]:
    path = draft.path(kind)
    return (path, "") if kind == PICTURES else ("", path)


def _counts(found: Supplied) -> Counter[str]:
    """Return how many candidates each class has, by its name."""
    counts: Counter[str] = Counter()
    for (_source, name), candidates in found.candidates.items():
        counts[name] += len(candidates)
    return counts


def _drafts() -> list[Path]:
    folder = Path(settings.DATA_DIR) / DRAFTS
    return list(folder.iterdir()) if folder.is_dir() else []


def _size(folder: Path) -> int:
    """Return the bytes of the files in a folder, some of which may be moved away just now."""
    size = 0
    with suppress(FileNotFoundError):
        for file in list(folder.iterdir()):
            with suppress(FileNotFoundError):
                size += file.stat().st_size
    return size


def forget_old_drafts() -> None:
    """Delete what was uploaded a day ago for a form that nobody has sent, or arrived in part."""
    oldest = time.time() - KEPT.total_seconds()
    for folder in _drafts():
        if _changed(folder) < oldest:
            shutil.rmtree(folder, ignore_errors=True)
    for file in Path(settings.FILE_UPLOAD_TEMP_DIR).glob("*"):
        if _changed(file) < oldest:
            file.unlink(missing_ok=True)


def _changed(path: Path) -> float:
    """Return when a file or folder changed last, in seconds; now if it was moved away."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
