"""The run folder: what goes in, how it is split, what comes out. No torch: the site's pipeline
imports this.

In: `config.json`, `manifest.jsonl`, `images/`. Out: `progress.jsonl`, `checkpoints/`, `model/`,
`metrics.json` and, last of all, `result.json`. Every file is written beside its name, flushed and
renamed, so one that exists is complete.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
STAGES = ("features", "split", "train", "finetune", "evaluate", "export")

_SUMMARY = {
    "accuracy",
    "interval",
    "macro_f1",
    "majority_baseline",
    "better_than_chance",
    "split",
    "seconds",
}


class RunError(Exception):
    """A run that cannot go on, in words for the person who asked for it."""

    def __init__(self, stage: str, reason: str, remedy: str, retry: bool) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason
        self.remedy = remedy
        self.retry = retry

    def as_json(self) -> dict[str, Any]:
        """The `error` object of `result.json`."""
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
    """`config.json`. None means: not said, so the flag, the environment or the default decides."""

    classes: tuple[ClassLabel, ...]
    """In the order of submission, which is the model's output order."""
    backbone: str | None = None
    """resnet50, resnet18 or efficientnet_lite0."""
    seed: int | None = None
    device: str | None = None
    """auto, cpu or cuda."""
    time_budget_seconds: float | None = None
    """More than 0, counted from the start of the stage "train". It bounds the search for the head's regularisation: the
    first value is always tried, and the search ends at the first fit that would begin too late. What is left of it
    bounds the fine-tuning. The final fit, reading the pictures, testing and exporting take what they take. A run that
    meets its budget depends on the clock; any other is determined by its manifest and seed."""
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
    threads: int | None = None
    """Processor threads to compute with; 0 means one per processor that this process may use."""

    def as_json(self) -> dict[str, Any]:
        """What `config.json` holds: everything that has been said."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        said["classes"] = [{"id": label.id, "name": label.name} for label in self.classes]
        return {name: value for name, value in said.items() if value is not None}

    def with_defaults(self, values: Mapping[str, Any]) -> RunConfig:
        """This configuration with the given values where it says nothing."""
        unsaid = {name: value for name, value in values.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **unsaid)


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
    """None before training has split; afterwards None means left out."""
    group: int | None = None
    """Near copies share one."""
    credit: str = ""
    """Who made the picture and under which licence, as a sentence."""
    page_url: str = ""
    """Where the picture was found."""

    def as_json(self) -> dict[str, Any]:
        """The line's object."""
        row = dataclasses.asdict(self)
        return {"file": row.pop("file"), "class": row.pop("class_id"), **row}


def write_run(
    run_dir: Path, config: RunConfig, rows: Sequence[ImageRow], images_from: Path
) -> None:
    """Make a run folder. `images_from / row.file` is linked in, or copied where linking fails. Can
    be repeated.
    """
    check_manifest(config, rows)
    for row in rows:
        _bring(images_from / row.file, run_dir / row.file)
    write_config(run_dir, config)
    write_manifest(run_dir, rows)


def write_config(run_dir: Path, config: RunConfig) -> None:
    """Write `config.json`."""
    write_json(run_dir / "config.json", config.as_json())


def write_manifest(run_dir: Path, rows: Iterable[ImageRow]) -> None:
    """Write `manifest.jsonl`."""
    write_text(run_dir / "manifest.jsonl", "".join(_line(row.as_json()) for row in rows))


def read_config(run_dir: Path) -> RunConfig:
    """Read and check `config.json`; raises RunError with what is wrong in it."""
    values = _read_json(run_dir / "config.json")
    known = {field.name for field in dataclasses.fields(RunConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise _unusable(f"config.json has the unknown key “{unknown[0]}”")
    try:
        labels = tuple(
            ClassLabel(str(label["id"]), str(label["name"])) for label in values.pop("classes")
        )
    except (KeyError, TypeError) as error:
        raise _unusable("config.json must list its classes, each with id and name") from error
    return RunConfig(classes=labels, **values)


def read_manifest(run_dir: Path) -> list[ImageRow]:
    """Read `manifest.jsonl`; raises RunError naming the first line that cannot be used."""
    path = run_dir / "manifest.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise _unusable("the run folder has no readable manifest.jsonl") from error
    return [_row(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """`result.json`, or None while the run has not ended; one without sense counts as none, as the
    next run mends it.

    Raises RunError where the disk does not let it be read.
    """
    try:
        result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error("features", error) from error
    except ValueError:
        return None
    return result if isinstance(result, dict) and isinstance(result.get("ok"), bool) else None


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """`metrics.json` of a finished run; raises RunError where it cannot be read or is not whole."""
    metrics = _read_json(run_dir / "metrics.json")
    lacking = sorted(_SUMMARY - set(metrics))
    if lacking:
        raise _unusable(f"metrics.json lacks “{lacking[0]}”")
    return metrics


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one line of JSON. A line that was cut off before it ends first, so that readers lose
    that one alone.
    """
    with path.open("ab+") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        cut_off = file.read() not in (b"", b"\n")
        file.write(b"\n" * cut_off + _line(value).encode())


def disk_error(stage: str, error: OSError) -> RunError:
    """What to tell the user when the disk refuses; names the file, but not where on this machine it
    lies.
    """
    name = Path(os.fsdecode(error.filename)).name if error.filename else "a file"
    reason = f"The disk refused {name}: {error.strerror or error}."
    return RunError(
        stage,
        reason,
        "See that the folder may be written and has room, and start again.",
        retry=True,
    )


def stopped_result(stage: str) -> dict[str, Any]:
    """`result.json` of a run that was asked to stop."""
    remedy = "Start it again: it goes on where it was."
    return {
        "ok": False,
        "error": RunError(stage, "The training was stopped.", remedy, retry=True).as_json(),
    }


def check_manifest(config: RunConfig, rows: Sequence[ImageRow]) -> None:
    """Refuse what no training could use: fewer than two classes, pictures of unknown classes, a
    picture twice.
    """
    ids = [label.id for label in config.classes]
    names = [label.name for label in config.classes]
    if len(ids) < 2:
        raise RunError(
            "features",
            "A classifier needs at least two classes.",
            "Add another class and start again.",
            retry=False,
        )
    if len(set(ids)) < len(ids) or len(set(names)) < len(names):
        raise _unusable("two classes have the same id or the same name")
    for row in rows:
        if row.class_id not in ids:
            raise _unusable(f"{row.file} belongs to the unknown class “{row.class_id}”")
    twice = [file for file, count in Counter(row.file for row in rows).items() if count > 1]
    if twice:
        raise _unusable(f"{twice[0]} stands in manifest.jsonl twice")


def inherit_splits(rows: Sequence[ImageRow], earlier: Sequence[ImageRow]) -> list[ImageRow]:
    """The rows with the part that an earlier manifest gave the same file, whatever its class is
    called now.

    So a test picture stays one in every later version of a dataset, and its results can be
    compared.
    """
    known = {row.sha256: row.split for row in earlier}
    return [dataclasses.replace(row, split=known.get(row.sha256, row.split)) for row in rows]


def write_json(path: Path, value: Any) -> None:
    """Write JSON readably, atomically; text is kept as it is, not escaped."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def atomic_write(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a binary file that gets its name once it is complete; a file that exists is whole.

    It is written beside its name, flushed to the disk and renamed. `durable=False` leaves out the
    flush, for files that are simply made again. Where the block raises, no file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def _bring(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as original, atomic_write(target, durable=False) as file:
            shutil.copyfileobj(original, file)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(f"the run folder has no readable {path.name}") from error
    if not isinstance(value, dict):
        raise _unusable(f"{path.name} must hold one JSON object")
    return value


def _row(number: int, line: str) -> ImageRow:
    try:
        values = json.loads(line)
        row = ImageRow(class_id=values.pop("class"), **values)
        place = Path(row.file)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unusable(f"line {number} of manifest.jsonl is not a picture's row") from error
    if row.split not in (None, *SPLITS):
        raise _unusable(f"line {number} of manifest.jsonl has the unknown split “{row.split}”")
    if place.is_absolute() or ".." in place.parts:
        raise _unusable(f"line {number} of manifest.jsonl points outside the run folder")
    return row


def _unusable(what: str) -> RunError:
    sentence = what[0].upper() + what[1:] + "."
    return RunError("features", sentence, "Make the run folder again.", retry=False)
