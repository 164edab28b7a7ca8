"""The run folder: files in, files out. No torch: the site imports this.

In: `config.json`, `manifest.jsonl`, `images/`; where they were made from a folder of pictures, also
`left_out.csv` and `imported.json` (see `training.images.changes`). Out: `progress.jsonl`,
`curves.jsonl`, `checkpoints/`, `model/`, `suspects.jsonl`, `predictions.csv`, `neighbours.npz`,
`meanings.json`, `report_context.json`, `metrics.json` and, last of all, `result.json`. Beside
`model/` lies `model.pth.splice` (see `training.spliced`).
`verified.csv` holds what a person says of test images. While the network is fine-tuned, `head/` is
a model that can be tried, and a file `finish` ends that with the best so far. Every file is written
beside its name, flushed and renamed, so one that exists is complete; only lines are appended.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

Split = Literal["train", "val", "test"]
View = Literal["crop", "letterbox"]
"""What a network sees of an image: its middle, or all of it, padded to a square."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")
MINIMUM_PER_SPLIT = 3  # images of a class in each split: fewer say nothing about it
MINIMUM_PER_CLASS = MINIMUM_PER_SPLIT * len(SPLITS)  # different images a class needs at least
MINIMUM_BESIDE_TEST = MINIMUM_PER_CLASS - MINIMUM_PER_SPLIT  # where others are the test set
OWN_SOURCE = "own"  # of images that a person has added: they are learned from, never judged
FINISH_FILE = "finish"  # made while a run goes on it ends fine-tuning with the best so far
FIRST_MODEL_FILE = "first.json"  # what a head is worth that can be used before training ends
CURVES_FILE = "curves.jsonl"  # a point for each head that was tried, and for each epoch
HEAD_SEARCH = 0  # as the training of a point: the search for the linear head
HEAD_FOLDER = "head"  # the linear head as a model, while the network is being fine-tuned
STAGES = ("features", "split", "train", "finetune", "evaluate", "export")

_ENCODING = "utf-8-sig"  # UTF-8, also with the mark that editors on Windows put before it
_CLASS_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")  # it names files and columns
_LONGEST_CLAUSE = 300  # characters, as what is wrong may be a text of any length
_LONGEST_PATH = 4096  # characters
_LARGEST_GROUP = 2**31
_LONGEST_NAME = 200  # characters of a class's name, of which the form takes 64
# The texts in config.json.
_TEXTS = (
    "backbone",
    "device",
    "finetune",
    "weights",
    "weights_dir",
    "weights_cache",
    "weights_url",
    "text_image_model",
)


class RunError(Exception):
    """A run that cannot go on, in words for the person who asked for it."""

    def __init__(self, stage: str, reason: str, remedy: str, retry: bool) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason
        self.remedy = remedy
        self.retry = retry

    @classmethod
    def unusable(cls, what: str) -> RunError:
        """Return the error for a run folder that must be made again; `what` is a clause.

        It becomes a sentence of bounded length; a file's name at its beginning stays as it is.
        """
        if len(what) > _LONGEST_CLAUSE:
            what = what[:_LONGEST_CLAUSE] + "…"
        first_word = what.split()[0]
        if first_word.isalpha():
            what = what[0].upper() + what[1:]
        reason = f"{what}."
        remedy = "Make the run folder again."
        return cls("features", reason, remedy, retry=False)

    def as_json(self) -> dict[str, Any]:
        """Return the `error` object of `result.json`."""
        return {
            "stage": self.stage,
            "reason": self.reason,
            "remedy": self.remedy,
            "retry": self.retry,
        }


@dataclass(frozen=True)
class ClassLabel:
    """One label: `id` names files and folders, `name` is what people read."""

    id: str
    name: str


@dataclass(frozen=True)
class RunConfig:
    """`config.json`. Where a value is None, the flag, the environment or the default decides."""

    classes: tuple[ClassLabel, ...]
    """In the order of submission, which is the model's output order."""
    backbone: str | None = None
    """resnet50, resnet18 or efficientnet_lite0."""
    seed: int | None = None
    device: str | None = None
    """auto, cpu or cuda."""
    time_budget_seconds: float | None = None
    """More than 0, counted from the start of the stage "train".

    It bounds the search for the head's regularisation: the first value is always tried, and the
    search ends at the first fit that would begin too late. What is left of it bounds the
    fine-tuning. The final fit, reading the images, testing and exporting take what they take. A run
    that meets its budget depends on the clock; any other is determined by its manifest and seed.
    """
    finetune: str | None = None
    """auto fine-tunes the network where that can pay; never delivers the linear head."""
    epochs: int | None = None
    """Of fine-tuning at most; 0 leaves the number to the device and the time budget."""
    weights: str | None = None
    """pretrained; random makes a model that is not for use, for timing alone."""
    weights_dir: str | None = None
    """Folder where weight files are looked for first."""
    weights_cache: str | None = None
    """Folder where downloaded weights are kept."""
    weights_url: str | None = None
    """Where weight files are downloaded from."""
    text_image_model: str | None = None
    """Folder of an optional text-image model, see `training.text_image`; empty for none."""
    own_test: bool | None = None
    """Whether the test images are those that whoever asked has marked for it, and no others."""
    threads: int | None = None
    """Processor threads to compute with; 0 means one per processor that this process may use."""

    def as_json(self) -> dict[str, Any]:
        """Return what `config.json` holds: every value that is not None."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                values[field.name] = value
        classes = [dataclasses.asdict(label) for label in self.classes]
        values["classes"] = classes
        return values

    def with_defaults(self, defaults: Mapping[str, Any]) -> RunConfig:
        """Return this configuration with the defaults where a value is None."""
        missing = {}
        for name, value in defaults.items():
            if getattr(self, name) is None:
                missing[name] = value
        return dataclasses.replace(self, **missing)


_FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "avif", "tiff", "heic", "jp2", "ppm")
_OTHER_NAMES = {"jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "tif": "tiff", "heif": "heic"}


@dataclass(frozen=True)
class ImageRow:
    """One line of `manifest.jsonl`."""

    file: str
    """Relative to the run folder: images/<sha256[:16]>.jpg."""
    class_id: str
    sha256: str
    """Of the file's bytes."""
    source: str = ""
    license: str = ""
    split: Split | None = None
    """None before the split is made; afterwards None means left out."""
    group: int | None = None
    """Near-duplicates share one."""
    credit: str = ""
    """Who made the image and under which licence, as a sentence."""
    page_url: str = ""
    """Where the image was found."""
    format: str = ""
    """Of the file as it was found, in lower case: jpeg, png, webp, ...; empty where not known."""
    title: str = ""
    """As its source calls it; empty where not known, as in manifests of earlier versions."""

    def as_json(self) -> dict[str, Any]:
        """Return the line's object."""
        row = dataclasses.asdict(self)
        file = row.pop("file")
        class_id = row.pop("class_id")
        return {"file": file, "class": class_id, **row}


def file_format(media_type: str, address: str) -> str:
    """Return the `format` of an ImageRow, by the media type, else by how name or address end."""
    path = address.partition("#")[0].partition("?")[0]
    suffix = path.rpartition(".")[2]
    for name in (media_type.removeprefix("image/"), suffix):
        lower = name.lower()
        known = _OTHER_NAMES.get(lower, lower)
        if known in _FORMATS:
            return known
    return ""


def write_run(
    run_dir: Path, config: RunConfig, rows: Sequence[ImageRow], images_from: Path
) -> None:
    """Make a run folder; can be repeated.

    `images_from / row.file` is linked in, or copied where linking fails. Raises RunError for a
    manifest that no training could use.
    """
    check_manifest(config, rows)
    for row in rows:
        source = images_from / row.file
        _link_or_copy(source, run_dir / row.file)
    write_config(run_dir, config)
    write_manifest(run_dir, rows)


def write_config(run_dir: Path, config: RunConfig) -> None:
    """Write `config.json`."""
    write_json(run_dir / "config.json", config.as_json())


def write_manifest(run_dir: Path, rows: Iterable[ImageRow]) -> None:
    """Write `manifest.jsonl`."""
    lines = [_json_line(row.as_json()) for row in rows]
    write_text(run_dir / "manifest.jsonl", "".join(lines))


def read_config(run_dir: Path) -> RunConfig:
    """Read and check `config.json`; raises RunError with what is wrong in it."""
    values = read_json(run_dir / "config.json")
    known = {field.name for field in dataclasses.fields(RunConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise RunError.unusable(f"config.json has the unknown key “{unknown[0]}”")
    labels = []
    try:
        for label in values.pop("classes"):
            class_id = str(label["id"])
            labels.append(ClassLabel(class_id, label["name"]))
    except (KeyError, TypeError) as error:
        reason = "config.json must list its classes, each with id and name"
        raise RunError.unusable(reason) from error
    for label in labels:
        _check_label(label)
    for name, value in values.items():
        if name in _TEXTS and not isinstance(value, str | None):
            raise RunError.unusable(f"config.json holds no text as {name}")
    return RunConfig(classes=tuple(labels), **values)


def read_manifest(run_dir: Path) -> list[ImageRow]:
    """Read `manifest.jsonl`; raises RunError naming the first line that cannot be used."""
    path = run_dir / "manifest.jsonl"
    try:
        text = path.read_text(encoding=_ENCODING)
    except (OSError, ValueError) as error:
        raise RunError.unusable("the run folder has no readable manifest.jsonl") from error
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # credits may hold other line separators
        if line.strip():
            rows.append(_image_row(number, line))
    return rows


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Read `result.json`; None while the run has not ended.

    A damaged file counts as none, as the next run mends it. Raises RunError where the disk does not
    let it be read.
    """
    path = run_dir / "result.json"
    try:
        result = json.loads(path.read_text(encoding=_ENCODING))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error("features", error) from error
    except (ValueError, RecursionError):
        return None
    if not isinstance(result, dict):
        return None
    ok = result.get("ok")
    return result if isinstance(ok, bool) else None


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of the run folder that holds one JSON object; raises RunError."""
    try:
        value = json.loads(path.read_text(encoding=_ENCODING))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError.unusable(f"the run folder has no readable {path.name}") from error
    if not isinstance(value, dict):
        raise RunError.unusable(f"{path.name} must hold one JSON object")
    return value


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one line of JSON.

    A line that was cut off before is ended first, so that readers lose that one alone.
    """
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        last_byte = file.read()
        if last_byte not in (b"", b"\n"):
            file.write(b"\n")
        file.write(_encoded(_json_line(value)))


def disk_error(stage: str, error: OSError) -> RunError:
    """Return the error for the user where the disk refuses.

    It names the file, but not where on this machine it lies.
    """
    name = "a file"
    if error.filename:
        name = Path(os.fsdecode(error.filename)).name
    reason = f"The disk refused {name}: {error.strerror or error}."
    remedy = "See that the folder may be written and has room, and start again."
    return RunError(stage, reason, remedy, retry=True)


def stopped_result(stage: str) -> dict[str, Any]:
    """Return `result.json` of a run that was asked to stop."""
    remedy = "Start it again: it goes on where it was."
    error = RunError(stage, "The training was stopped.", remedy, retry=True)
    return {"ok": False, "error": error.as_json()}


def check_manifest(config: RunConfig, rows: Sequence[ImageRow]) -> None:
    """Refuse what no training could use; raises RunError.

    That is fewer than two classes, two of one name, images of unknown classes, an image twice.
    """
    ids = [label.id for label in config.classes]
    names = [label.name for label in config.classes]
    if len(ids) < 2:
        reason = "A classifier needs at least two classes."
        raise RunError("features", reason, "Add another class and start again.", retry=False)
    different_ids = len(set(ids))
    different_names = len(set(names))
    if min(different_ids, different_names) < len(config.classes):
        raise RunError.unusable("two classes have the same id or the same name")
    for row in rows:
        if row.class_id not in ids:
            raise RunError.unusable(f"{row.file} belongs to the unknown class “{row.class_id}”")
    counts = Counter(row.file for row in rows)
    for file, count in counts.items():
        if count > 1:
            raise RunError.unusable(f"{file} stands in manifest.jsonl twice")
    if not rows:
        raise RunError.unusable("manifest.jsonl names no picture")


def inherit_splits(rows: Sequence[ImageRow], earlier: Sequence[ImageRow]) -> list[ImageRow]:
    """Return the rows with the split that an earlier manifest gave the same file.

    Its class may be called otherwise by now. So a test image stays one in every later version of a
    dataset, and results can be compared.
    """
    earlier_splits = {row.sha256: row.split for row in earlier}
    inherited = []
    for row in rows:
        split = earlier_splits.get(row.sha256, row.split)
        inherited.append(dataclasses.replace(row, split=split))
    return inherited


@contextmanager
def exclusive(folder: Path, wait: bool = False) -> Iterator[None]:
    """Let one process at a time write a finished run's figures anew.

    The lock ends with the process, however it ends. Raises RunError where another one holds it and
    `wait` is false. Where a system or a file system has no such locks there is none.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # whoever reads the folder says why; Windows opens none
        yield
        return
    try:
        _lock(handle, wait)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, wait: bool) -> None:
    """Lock an open folder; raises RunError where another process holds it."""
    import fcntl  # absent on Windows

    operation = fcntl.LOCK_EX
    if not wait:
        operation |= fcntl.LOCK_NB
    try:
        fcntl.flock(handle, operation)
    except BlockingIOError as error:
        reason = "Another program is writing the figures of this run just now."
        remedy = "Wait until it has ended, then start this again."
        raise RunError("evaluate", reason, remedy, retry=True) from error
    except OSError:
        return


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Write JSON readably, atomically; text is kept as it is, not escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    write_text(path, text + "\n", durable)


@contextmanager
def atomic_write(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a binary file that gets its name once it is complete; a file that exists is whole.

    It is written beside its name, flushed to the disk and renamed. `durable=False` leaves out the
    flush, for files that are simply made again. Where the block raises, no file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.name}.{os.getpid()}.tmp"
    beside = path.with_name(name)
    try:
        with beside.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Write a text file in UTF-8, atomically; `durable` as in `atomic_write`."""
    with atomic_write(path, durable) as file:
        file.write(_encoded(text))


def _encoded(text: str) -> bytes:
    """Return text in UTF-8; half of a surrogate pair, which it cannot hold, becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        joined = text.encode("utf-16-le", "surrogatepass")
        return joined.decode("utf-16-le", "replace").encode()


def _link_or_copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as original, atomic_write(target, durable=False) as file:
            shutil.copyfileobj(original, file)


def _json_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _check_label(label: ClassLabel) -> None:
    """Raise RunError for an id or a name that no class has."""
    name = label.name
    if not _CLASS_ID.fullmatch(label.id):
        what = "config.json has a class whose id is not 1 to 32 letters, digits, _ or -"
        raise RunError.unusable(what)
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_NAME:
        raise RunError.unusable(f"config.json has no usable name for the class {label.id}")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name):
        what = (
            f"the name of the class {label.id} in config.json has a line break or half a character"
        )
        raise RunError.unusable(what)


def _is_group(value: object) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and 0 <= cast(int, value) <= _LARGEST_GROUP


def _image_row(number: int, line: str) -> ImageRow:
    where = f"line {number} of manifest.jsonl"
    try:
        values = json.loads(line)
        row = ImageRow(class_id=values.pop("class"), **values)
        path = Path(row.file)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunError.unusable(f"{where} is not a picture's row") from error
    if row.split not in (None, *SPLITS):
        raise RunError.unusable(f"{where} has the unknown split “{row.split}”")
    if path.is_absolute() or ".." in path.parts:
        raise RunError.unusable(f"{where} points outside the run folder")
    for field in dataclasses.fields(ImageRow):
        value = getattr(row, field.name)
        if field.type == "str" and not isinstance(value, str):
            raise RunError.unusable(f"{where} holds no text as {field.name}")
    if row.group is not None and not _is_group(row.group):
        raise RunError.unusable(f"{where} holds no whole number as group")
    if not path.parts or "\0" in row.file or len(row.file) > _LONGEST_PATH:
        raise RunError.unusable(f"{where} names no file")
    if row.sha256 and not row.sha256.isalnum():
        raise RunError.unusable(f"{where} holds no digest as sha256")
    return row
