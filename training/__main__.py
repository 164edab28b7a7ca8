"""The training library from a terminal: pictures in, a measured classifier out.

It needs no Django and no database.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from training import log_lines
from training.class_names import shown_name
from training.environment import EnvironmentFileError, read_environment
from training.export.model_card import labels_in_words, suspects_in_words
from training.images.changes import has_changed
from training.images.folder import (
    MAX_SIDE,
    LeftOut,
    check_classes_have_images,
    check_max_side,
    import_folder,
    write_left_out,
)
from training.images.layout import has_own_test_set
from training.judgements import inherit_judgements, write_judgements
from training.locations import ListError, find_images, load_image, stem_of
from training.metrics import read_metrics
from training.networks.catalogue import CATALOGUE, DEFAULT
from training.phrases import (
    baseline,
    figure_on_test,
    headline_figure,
    headline_title,
    listed,
    percent,
    refusal,
    verdict,
)
from training.predict import (
    Explainer,
    Explanation,
    Model,
    ModelError,
    Prediction,
    open_explainer,
    open_model,
)
from training.progress import Stopped, StopRequest
from training.run_folder import (
    STAGES,
    RunConfig,
    RunError,
    append_json_line,
    disk_error,
    inherit_splits,
    read_config,
    read_manifest,
    read_result,
    stopped_result,
    write_config,
    write_json,
    write_manifest,
)
from training.terminal import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    HelpFormatter,
    add_example,
    add_output_flags,
    print_json,
    print_progress,
    replace_unknown_characters,
    seconds,
    whole_number,
)
from training.verification import verify

_REPORT_SECONDS = 0.5  # between two lines that say how far a measurement is
_LEAST_NAME = 10  # columns for a picture's name, which is folded
_SHARE_LENGTH = 6  # of 100.0%
_CELL_FRAME = 3  # a line and two blanks

_FIT_EXAMPLE = """\
python -m scraping collect corgi "shiba inu" --out pictures
python -m training fit --images pictures --out run
python -m training fit run --time-budget 1200"""
_FIRST_EXAMPLE = "python -m training first run"
_PREDICT_EXAMPLE = """\
python -m training predict run picture.jpg https://example.org/picture.jpg
python -m training predict model.zip holiday-pictures --json"""
_MEASURE_EXAMPLE = """\
python -m scraping screen my-pictures --out clean
python -m training measure run clean"""
_FIRST_DESCRIPTION = """\
Fit a linear head on the pictures of a run folder and judge it by cross-validation: a model within
seconds, to try while more pictures are being collected. It writes model/ and first.json into the
folder, and nothing else there. The model for use is made by fit, with all pictures."""
_VERIFY_DESCRIPTION = """\
Take over what a person says of the labels of test pictures, and write the figures, the report and
the model card again. Nothing is trained. Judgements of earlier tables stay, unless the new one
says otherwise."""
_VERIFY_EXAMPLE = """\
python -m training verify RUN_DIR labels.csv

RUN_DIR/manifest.jsonl names the test pictures ("split": "test"). Look at them, write

    file,verified
    images/0f3a5c7d9b1e2468.jpg,right
    images/13579bdf02468ace.jpg,other class
    images/2468ace013579bdf.jpg,shiba inu
    images/369cf258be147ad0.jpg,off-topic

into labels.csv, and run the above. A picture is named with or without its folder. The judgement is
"right", "other class", "off-topic", or the class that the picture shows, by name or id; an empty
one takes an earlier judgement back. The columns may also be called file_name or image, and label or
state; they may be separated by commas, semicolons or tabs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    replace_unknown_characters()
    # Pillow's remarks on odd files; one that cannot be used is named with its reason.
    warnings.filterwarnings("ignore", module="PIL")
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        environment = read_environment(os.environ, Path(".env"))
        log_lines.set_up(environment)
        return int(options.command(options, environment))
    except EnvironmentFileError as error:
        print(error, file=sys.stderr)
        return WRONG_USAGE
    except RunError as error:
        print(f"{error.reason} {error.remedy}", file=sys.stderr)
    except (ModelError, ListError) as error:
        print(error, file=sys.stderr)
    except BrokenPipeError:  # whoever read the output has enough, such as head
        _abandon_output()
    except OSError as error:
        print(disk_error("", error).reason, file=sys.stderr)
    except Stopped as stopped:
        print("The training was stopped; started again, it goes on where it was.", file=sys.stderr)
        return _code_of(stopped.args[0] if stopped.args else 0)
    except KeyboardInterrupt:
        print("Stopped. Give the same command again to finish it.", file=sys.stderr)
        return INTERRUPTED
    return FAILED


def _code_of(number: int) -> int:
    """Return the exit code of a command that a signal stopped."""
    return INTERRUPTED if number == signal.SIGINT else FAILED


def _abandon_output() -> None:
    """Let the interpreter flush what is left of standard output into nothing when it ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description=f"{__doc__} A flag wins over the PICAISSO_ variable beside its default.",
    )
    add_example(parser, "python -m training fit --images pictures --out run")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, formatter_class=HelpFormatter)
        added.set_defaults(command=run, parser=added)
        return added

    fit = command("fit", _fit, "train what a run folder describes, or a folder of pictures")
    _add_fit_arguments(fit)
    first = command("first", _first, "fit a first model on the few pictures there are so far")
    _add_first_arguments(first)
    verify = command(
        "verify", _verify, "take over what a person says of the labels of the test pictures"
    )
    _add_verify_arguments(verify)
    predict = command("predict", _predict, "classify pictures with a delivered model")
    _add_predict_arguments(predict)
    measure = command("measure", _measure, "measure a model on pictures of your own")
    _add_measure_arguments(measure)
    return parser


def _add_fit_arguments(fit: argparse.ArgumentParser) -> None:
    fit.description = (
        "Trains what a run folder describes. With --images it makes the run folder from a folder of"
        " pictures first. Stopped or killed, the same command goes on where it was."
    )
    fit.add_argument("run_dir", nargs="?", type=Path, metavar="RUN_DIR", help="a run folder")
    fit.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="a folder with one sub-folder per class, also in train, val and test; the folder of "
        "a dataset.zip; or what scraping collect wrote",
    )
    fit.add_argument(
        "--out", type=Path, metavar="RUN_DIR", help="the run folder to make from --images"
    )
    _add_network_arguments(fit)
    fit.add_argument(
        "--seed", type=whole_number(0), metavar="N", help="for split and folds, default 0"
    )
    fit.add_argument(
        "--time-budget",
        type=seconds,
        metavar="SECONDS",
        dest="time_budget_seconds",
        help="of the whole run, default 600; what the features leave of it is for finding the best "
        "regularisation, which has a tenth of it in any case, and for fine-tuning",
    )
    fit.add_argument(
        "--finetune", choices=("auto", "never"), help="auto (default) fine-tunes where it can pay"
    )
    fit.add_argument(
        "--epochs",
        type=whole_number(0),
        metavar="N",
        help="at most so many of fine-tuning; default by device and budget",
    )
    fit.add_argument(
        "--previous",
        type=Path,
        metavar="RUN_DIR",
        help="with --images: a run on an earlier version of the pictures, "
        "whose test pictures stay test pictures, with what was verified of them",
    )
    fit.add_argument(
        "--max-side",
        type=_pixels,
        metavar="PX",
        help="scale --images to this longer side, default 1024 or PICAISSO_MAX_SIDE",
    )
    fit.add_argument(
        "--text-image-model",
        metavar="FOLDER",
        help="folder of an optional text-image model: a second opinion on labels, and a baseline; "
        "default none or PICAISSO_TEXT_IMAGE_MODEL",
    )
    fit.add_argument(
        "--threads",
        type=whole_number(0),
        metavar="N",
        help="processor threads, 0 for all that may be used",
    )
    fit.add_argument("--weights", choices=("pretrained", "random"), help=argparse.SUPPRESS)
    add_output_flags(fit, "print the result as JSON; progress as JSON lines on standard error")
    add_example(fit, _FIT_EXAMPLE)


def _add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the network and say where its weights are."""
    names = tuple(CATALOGUE)
    parser.add_argument(
        "--backbone",
        choices=names,
        metavar="NAME",
        help=f"{listed(names)}; default {DEFAULT} or PICAISSO_BACKBONE",
    )
    _add_device(parser, "auto")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="FOLDER",
        help="downloaded weights are kept here, default data or PICAISSO_DATA_DIR",
    )
    parser.add_argument(
        "--weights-dir",
        metavar="FOLDER",
        help="where weight files are looked for first; default none or PICAISSO_WEIGHTS_DIR",
    )
    parser.add_argument(
        "--weights-url",
        metavar="URL",
        help="where weight files are downloaded from; default PyTorch's server or "
        "PICAISSO_WEIGHTS_URL",
    )


def _add_device(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        help=f"default {default} or PICAISSO_DEVICE",
    )


def _add_first_arguments(first: argparse.ArgumentParser) -> None:
    first.description = _FIRST_DESCRIPTION
    first.add_argument(
        "run_dir",
        type=Path,
        metavar="RUN_DIR",
        help="a folder with config.json, manifest.jsonl and images",
    )
    first.add_argument(
        "--features",
        type=Path,
        metavar="FOLDER",
        help="where the features of single pictures are kept, for a later run with more of them;"
        " default checkpoints/features in RUN_DIR",
    )
    first.add_argument(
        "--wait",
        action="store_true",
        help="get ready while manifest.jsonl is not there yet, and begin when it is",
    )
    _add_network_arguments(first)
    add_output_flags(first, "print what first.json says")
    add_example(first, _FIRST_EXAMPLE)


def _add_verify_arguments(verify: argparse.ArgumentParser) -> None:
    verify.description = _VERIFY_DESCRIPTION
    verify.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a finished run folder")
    verify.add_argument(
        "labels", type=Path, metavar="LABELS.CSV", help="the table, see the example below"
    )
    add_output_flags(verify, "print the new figures as a line of JSON")
    add_example(verify, _VERIFY_EXAMPLE)


def _add_predict_arguments(predict: argparse.ArgumentParser) -> None:
    predict.description = (
        "Says for each picture which class it shows, or that it shows none of them. Pictures that "
        "cannot be read are named on standard error, and the rest goes on."
    )
    predict.add_argument(
        "model", type=Path, metavar="MODEL", help="a run folder, a model folder or its zip"
    )
    predict.add_argument(
        "pictures",
        nargs="*",
        metavar="IMAGE_OR_URL",
        help="files, folders or URLs; @FILE for a list of them, - for a list on standard input",
    )
    predict.add_argument(
        "--list",
        action="append",
        default=[],
        metavar="FILE",
        dest="lists",
        help="a picture, folder or URL per line",
    )
    predict.add_argument(
        "--explain",
        type=Path,
        metavar="DIR",
        help="write what in each picture spoke for the answer",
    )
    _add_device(predict, "cpu")
    add_output_flags(predict, "print a line of JSON for each picture")
    add_example(predict, _PREDICT_EXAMPLE)


def _add_measure_arguments(measure: argparse.ArgumentParser) -> None:
    measure.description = (
        "Measures a model on pictures of your own, which it has not learned from: how many are "
        "right, which are mixed up, and what threshold would suit them."
    )
    measure.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a finished run folder")
    measure.add_argument(
        "folder", type=Path, metavar="FOLDER", help="with a sub-folder for each class"
    )
    measure.add_argument(
        "--out", type=Path, metavar="FILE", help="write all that was measured into this JSON file"
    )
    add_output_flags(measure, "print figures and calibration as a line of JSON")
    add_example(measure, _MEASURE_EXAMPLE)


def _pixels(text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number of pixels, not {text}") from error
    try:
        check_max_side(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text}") from error
    return value


def _fit(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    folder = _run_folder(options)
    ranks = _ranks(environment)
    if ranks["rank"] > 0:
        return _run_worker(ranks)
    if not options.images:
        _check_is_run_folder(folder)
    stop = StopRequest()
    stop.listen()
    console = Console(stderr=True)
    with _failures_recorded(folder):
        if options.images and _must_import(options, folder):
            _import(options, folder, console, _max_side(options, environment))
        config = _configuration(read_config(folder), options, environment)
        with _progress(console, options) as listen:
            # torch takes seconds to load, so only where it is needed
            from training.finetuning.distributed import DistributedContext
            from training.run import Control, fit_distributed

            control = Control(DistributedContext(**ranks), stop)
            result = fit_distributed(folder, config, listen, control)
    if not result["ok"]:
        print(f"{result['error']['reason']} {result['error']['remedy']}", file=sys.stderr)
        return _code_of(stop.number)
    _show_result(folder, result, options.json)
    return DONE


def _first(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Fit a first model, and print what `first.json` says of it."""
    folder: Path = options.run_dir
    _check_has_config(folder)
    config = _configuration(read_config(folder), options, environment)
    from training.first_model import fit_first_model  # loads torch

    with _spinner("Fitting a first model", options):
        found = fit_first_model(folder, config, options.features, options.wait)
    if options.json:
        print_json(found)
        return DONE
    low, high = found["interval"]
    share = f"{percent(found['accuracy'])} ({percent(low)} to {percent(high)})"
    print(f"Right on {share} of {found['images']} pictures, by cross-validation.")
    print(f"The model is in {shown_name(str(folder / 'model'))}.")
    return DONE


def _run_folder(options: argparse.Namespace) -> Path:
    """Return the folder to train in; exits with wrong usage where the arguments do not fit."""
    from_images = bool(options.images)
    if bool(options.run_dir) == from_images or bool(options.out) != from_images:
        options.parser.error("give either RUN_DIR, or --images FOLDER and --out RUN_DIR")
    if options.max_side and not options.images:
        options.parser.error(
            "--max-side is for --images; the pictures of a run folder stay as they are"
        )
    if options.previous and not options.images:
        options.parser.error(
            "--previous is for --images; the manifest of a run folder has its own split"
        )
    return Path(options.out or options.run_dir)


def _max_side(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Return pixels, by flag or environment; exits with wrong usage where the latter is invalid."""
    if options.max_side:
        return int(options.max_side)
    setting = environment.get("PICAISSO_MAX_SIDE", "").strip()
    if not setting:
        return MAX_SIDE
    try:
        return _pixels(setting)
    except argparse.ArgumentTypeError as error:
        options.parser.error(f"PICAISSO_MAX_SIDE {error}")
    raise AssertionError("the parser exits")


def _ranks(environment: Mapping[str, str]) -> dict[str, int]:
    """Return the fields of a DistributedContext as torchrun sets them; rank 0 without it."""
    ranks = {"rank": 0}
    for field in ("rank", "world_size", "local_rank"):
        value = environment.get(field.upper(), "")
        if value.isdigit():
            ranks[field] = int(value)
    return ranks


def _run_worker(ranks: Mapping[str, int]) -> NoReturn:
    """Take part in what the first process fine-tunes; it alone writes the run folder and stops."""
    # torchrun signals every process; the first ends the work of the others in order.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    from training.finetuning.distributed import DistributedContext, process_group
    from training.finetuning.trainer import end_worker, worker_loop

    distributed = DistributedContext(**ranks)
    with process_group(distributed) as distributed:
        worker_loop(distributed)
    end_worker()


@contextlib.contextmanager
def _failures_recorded(folder: Path) -> Iterator[None]:
    """Write a result.json for a run that is refused or stopped outside its stages too."""
    try:
        yield
    except Stopped:
        _record_failure(folder, stopped_result(STAGES[0]))
        raise
    except RunError as refusal:
        _record_failure(folder, {"ok": False, "error": refusal.as_json()})
        raise
    except OSError as error:
        refused = disk_error(STAGES[0], error)
        _record_failure(folder, {"ok": False, "error": refused.as_json()})
        raise refused from error


def _record_failure(folder: Path, result: Mapping[str, Any]) -> None:
    """Write result.json if the folder takes it, unless the run is done already.

    The sentence on the terminal follows in any case.
    """
    with contextlib.suppress(OSError, RunError):
        if not folder.is_dir():
            return
        earlier = read_result(folder)
        if earlier is None or not earlier["ok"]:
            write_json(folder / "result.json", result)


def _must_import(options: argparse.Namespace, folder: Path) -> bool:
    """Return whether the run folder must be made, or made again from a folder that has changed.

    Raises RunError where that would cost a finished run.
    """
    images: Path = options.images
    if not (folder / "manifest.jsonl").exists():
        return True
    _check_is_folder(images)
    result = read_result(folder)
    finished = result is not None and result["ok"]
    changed = has_changed(images, folder)
    if options.previous and (finished or not changed):
        options.parser.error("--previous comes too late: the run folder has been made already")
    if not changed:
        return False
    if finished:
        where = shown_name(str(images))
        run = shown_name(str(folder))
        raise RunError(
            "features",
            f"The pictures in {where} have changed since {run} was trained; it stays as it is.",
            f"Train them with: fit --images {where} --out ANOTHER_FOLDER --previous {run}",
            retry=False,
        )
    return True


def _check_is_folder(images: Path) -> None:
    if not images.is_dir():
        raise RunError(
            "features",
            f"{shown_name(str(images))} is no folder.",
            "Give the folder that holds the classes.",
            retry=False,
        )


def _check_is_run_folder(folder: Path) -> None:
    """Raise RunError for what is none, before anything is written into it."""
    name = shown_name(str(folder))
    if (folder / "config.json").exists() or (folder / "manifest.jsonl").exists():
        return
    if not folder.is_dir() or not any(folder.iterdir()):
        what = "is empty" if folder.is_dir() else "does not exist"
        raise RunError(
            "features",
            f"The run folder {name} {what}.",
            f"To make one of a folder of pictures: fit --images FOLDER --out {name}",
            retry=False,
        )
    raise RunError(
        "features",
        f"{name} is no run folder: it has neither config.json nor manifest.jsonl.",
        f"To train a folder of pictures: fit --images {name} --out RUN_FOLDER",
        retry=False,
    )


def _check_has_config(folder: Path) -> None:
    """Raise RunError for what is no run folder."""
    if (folder / "config.json").is_file():
        return
    raise RunError(
        "features",
        f"{shown_name(str(folder))} is no run folder: it has no config.json.",
        "Give a folder that fit has made.",
        retry=False,
    )


def _import(options: argparse.Namespace, folder: Path, console: Console, max_side: int) -> None:
    """Make the run folder; the manifest comes last, so that an import that died is made again."""
    images: Path = options.images
    _check_is_folder(images)
    if images.resolve() in (folder.resolve(), (folder / "images").resolve()):
        raise RunError(
            "features",
            "The run folder is the folder of pictures itself.",
            "Give --out another folder.",
            retry=False,
        )
    earlier = read_manifest(options.previous) if options.previous else []
    (folder / "manifest.jsonl").unlink(missing_ok=True)
    classes, rows, left_out = import_folder(images, folder, max_side=max_side)
    rows = inherit_splits(rows, earlier)
    if options.previous:
        judgements = inherit_judgements(options.previous, rows, classes)
        if judgements:
            write_judgements(folder, judgements)
    write_config(folder, RunConfig(classes=classes, own_test=has_own_test_set(images) or None))
    write_left_out(folder, left_out)
    _show_left_out(left_out, folder, options.json, console)
    check_classes_have_images(classes, rows)
    write_manifest(folder, rows)


def _show_left_out(
    left_out: Sequence[LeftOut], folder: Path, as_json: bool, console: Console
) -> None:
    if left_out and as_json:
        reasons = {item.file: item.reason for item in left_out}
        print_json({"left_out": reasons})
    elif left_out:
        files = "1 file" if len(left_out) == 1 else f"{len(left_out)} files"
        table = shown_name(str(folder / "left_out.csv"))
        console.print(f"Left out {files}; see {table}:", markup=False)
        for item in left_out[:10]:
            console.print(f"  {item.file}: {item.reason}", markup=False, highlight=False)


def _configuration(
    config: RunConfig, options: argparse.Namespace, environment: Mapping[str, str]
) -> RunConfig:
    """Let a flag win over the run folder, and the run folder over the environment."""
    flags = {}
    for field in dataclasses.fields(RunConfig):
        value = getattr(options, field.name, None)
        if value is not None and field.name != "classes":
            flags[field.name] = value
    if options.data_dir:
        flags["weights_cache"] = str(_weights_cache(options.data_dir))
    data_dir = Path(environment.get("PICAISSO_DATA_DIR") or "data")
    settings = {
        "backbone": environment.get("PICAISSO_BACKBONE"),
        "device": environment.get("PICAISSO_DEVICE"),
        "weights_dir": environment.get("PICAISSO_WEIGHTS_DIR"),
        "weights_url": environment.get("PICAISSO_WEIGHTS_URL"),
        "text_image_model": environment.get("PICAISSO_TEXT_IMAGE_MODEL"),
        "weights_cache": str(_weights_cache(data_dir)),
    }
    given = {name: value for name, value in settings.items() if value}
    return dataclasses.replace(config, **flags).with_defaults(given)


def _weights_cache(data_dir: Path) -> Path:
    return data_dir.expanduser() / "cache" / "weights"


@contextlib.contextmanager
def _progress(console: Console, options: argparse.Namespace) -> Iterator[Any]:
    """Yield a listener for progress rows: JSON lines, bars, or none."""
    if options.json:
        yield None if options.quiet else print_progress
        return
    columns = (
        TextColumn("{task.description:<40}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = options.quiet or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden) as bars:
        tasks: dict[str, Any] = {}

        def end_stages() -> None:
            """Fill the bars of stages that are over, also where their steps were not counted."""
            for task in bars.tasks:
                if task.total is None:
                    bars.update(task.id, total=1, completed=1)

        def listen(row: Mapping[str, Any]) -> None:
            stage = row["stage"]
            message = row["message"] or stage
            if stage not in tasks:
                end_stages()
                tasks[stage] = bars.add_task(message, total=None)
            total = row["total"] or None
            bars.update(tasks[stage], description=message, completed=row["done"], total=total)

        yield listen
        end_stages()


@contextlib.contextmanager
def _spinner(message: str, options: argparse.Namespace) -> Iterator[None]:
    """Show on a terminal that something goes on whose end is not known."""
    console = Console(stderr=True)
    if options.quiet or options.json or not console.is_terminal:
        yield
        return
    with console.status(message):
        yield


def _show_result(folder: Path, result: Mapping[str, Any], as_json: bool) -> None:
    metrics = read_metrics(folder)
    if as_json:
        summary = {
            **result,
            "verdict": metrics["verdict"],
            "verdict_sentence": metrics["verdict_sentence"],
            "headline": metrics["headline"],
            "accuracy": metrics["accuracy"],
            "interval": metrics["interval"],
            "macro_f1": metrics["macro_f1"],
            "majority_baseline": metrics["majority_baseline"],
            "strangers": metrics["strangers"],
            "refusal": refusal(metrics),
            "model": str(folder / "model"),
        }
        print_json(summary)
        return
    console = Console()
    for notice in result.get("notices", []):
        console.print(notice, style="yellow", markup=False)
    console.print(verdict(metrics), markup=False, highlight=False, soft_wrap=True)
    table = Table("", Column(overflow="fold"), show_header=False, box=None)  # paths stay whole
    table.add_row(headline_title(metrics), headline_figure(metrics))
    if metrics["headline"]["how"] != "test":
        table.add_row("Right on the test pictures", figure_on_test(metrics))
    table.add_row("Always guessing the largest class", percent(baseline(metrics)))
    table.add_row("Looks at", metrics["view"]["sentence"])
    table.add_row("Model", metrics["choice"])
    if metrics["zero_shot"]:
        table.add_row("By the names alone", percent(metrics["zero_shot"]["accuracy"]))
    if metrics["strangers"]:
        table.add_row("None of these", refusal(metrics))
    table.add_row("Doubtful labels", suspects_in_words(metrics))
    counts = [f"{count} {split}" for split, count in metrics["split"].items()]
    table.add_row("Pictures", ", ".join(counts))
    times = [f"{stage} {value:.1f}" for stage, value in metrics["seconds"].items()]
    table.add_row("Seconds", ", ".join(times))
    table.add_row("Report", str(folder / "model" / "report.html"))
    table.add_row("Files", str(folder / "model"))
    console.print(table)


def _verify(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    metrics = verify(options.run_dir, options.labels)
    if options.json:
        keys = ("verdict", "verdict_sentence", "headline", "verified", "label_noise")
        summary = {key: value for key, value in metrics.items() if key in keys}
        print_json(summary)
        return DONE
    console = Console()
    for sentence in (metrics["verdict_sentence"], labels_in_words(metrics)):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    run = options.run_dir.resolve()
    artifacts = run.parent.parent / "artifacts" / run.name  # of a site's request
    if any(artifacts.glob("model.zip*")):
        console.print(
            "The delivered model.zip and the site's pages still show the earlier figures: "
            f"zip {shown_name(str(run / 'model'))} anew before you pass it on.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return DONE


def _measure(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    _check_has_config(options.run_dir)
    _check_is_folder(options.folder)
    from training.measure import measure

    steps = None if options.out is None else options.out.with_name("progress.jsonl")
    reported = 0.0

    def report(done: int, total: int, message: str = "", /) -> None:
        nonlocal reported
        now = time.monotonic()
        is_due = done >= total or now - reported >= _REPORT_SECONDS
        if steps is not None and is_due:
            reported = now
            append_json_line(steps, {"done": done, "total": total, "message": message})

    with _spinner("Measuring", options):
        measured = measure(options.run_dir, options.folder, report)
    if options.out is not None:
        write_json(options.out, measured)
    figures = measured["figures"]
    if options.json:
        print_json({"figures": figures, "calibration": measured["calibration"]})
    elif figures is None:
        print("No picture is left to judge.")
    else:
        low, high = figures["interval"]
        interval = f"{percent(low)} to {percent(high)}"
        count = len(measured["pictures"])
        print(f"Right on {percent(figures['accuracy'])} ({interval}) of {count} pictures.")
    for refused in measured["refused"]:
        name = shown_name(refused["file"])
        reason = refused["reason"].replace("_", " ")
        print(f"{name}: not judged ({reason})", file=sys.stderr)
    return DONE


def _predict(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    if not options.pictures and not options.lists:
        options.parser.error("give pictures: files, folders, URLs or a list of them")
    locations = find_images(options.pictures, options.lists)
    if not locations:
        raise ListError("The list names no picture.")
    device = options.device or environment.get("PICAISSO_DEVICE", "cpu")
    model = open_model(options.model, "cuda" if device == "cuda" else "cpu")
    explainer = open_explainer(options.model, options.explain) if options.explain else None
    output = _JsonLines() if options.json else _TableRows(model.classes)
    failed = 0
    try:
        for location in _tracked(locations, options.quiet):
            reason = _classify(location, model, explainer, output)
            if reason:
                failed += 1
                print(f"{shown_name(location)}: {reason}", file=sys.stderr)
    finally:
        output.finish()
    return FAILED if failed else DONE


def _classify(
    location: str, model: Model, explainer: Explainer | None, output: _JsonLines | _TableRows
) -> str:
    """Add the answer for one image to the output; return why there is none, or ""."""
    image, reason = load_image(location)
    if image is None:
        return reason
    try:
        prediction = model.predict(image)
    except ModelError as error:
        return str(error)
    explanation = None
    if explainer:
        explanation = explainer.explain(stem_of(location), image, prediction.outputs)
    output.add(location, prediction, explanation)
    return ""


def _tracked(locations: Sequence[str], quiet: bool) -> Iterator[str]:
    """Yield the locations, with a progress bar where there are several and a terminal shows it."""
    console = Console(stderr=True)
    if len(locations) < 2 or quiet or not console.is_terminal:
        yield from locations
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Output that goes to a file must not be redirected to the terminal with the bar.
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as bars:
        yield from bars.track(locations, description="Classifying pictures")


class _JsonLines:
    """Prints each prediction as a line of JSON."""

    def add(self, location: str, prediction: Prediction, explanation: Explanation | None) -> None:
        row: dict[str, Any] = {"picture": location, **prediction.as_json()}
        if explanation:
            row["map"] = str(explanation.map)
            row["nearest"] = []
            for image, cosine in explanation.nearest:
                nearest = {**dataclasses.asdict(image), "cosine": round(cosine, 4)}
                row["nearest"].append(nearest)
        print_json(row)

    def finish(self) -> None:
        """Everything is printed already."""


class _TableRows:
    """Collects the predictions and prints them as one table, or below each other for many classes.

    A table wider than the terminal would cut the answers off.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._rows: list[tuple[str, str, list[str]]] = []
        self._notes: list[str] = []

    def add(self, location: str, prediction: Prediction, explanation: Explanation | None) -> None:
        answer = "none of these"
        if prediction.known:
            answer = prediction.label
        shares = [f"{share:.1%}" for share in prediction.probabilities.values()]
        name = shown_name(location)
        self._rows.append((name, answer, shares))
        if explanation is None:
            return
        self._notes.append(f"{name}: what spoke for the answer is in {explanation.map}")
        for image, cosine in explanation.nearest:
            self._notes.append(f"  like {image.file} ({image.label}, {cosine:.2f}) {image.credit}")

    def finish(self) -> None:
        """Print the answers, and below them what is too long for a table's cells."""
        console = Console()
        if self._rows and self._width() <= console.width:
            console.print(self._table())
        elif self._rows:
            self._print_lines(console)
        for note in self._notes:
            console.print(note, markup=False, highlight=False, soft_wrap=True)

    def _width(self) -> int:
        """Return the columns of a terminal that the table takes at least."""
        answers = [answer for _, answer, _ in self._rows]
        width = _LEAST_NAME + max(cell_len(answer) for answer in (*answers, "answer"))
        for name in self._classes:
            width += max(cell_len(name), _SHARE_LENGTH)
        columns = 2 + len(self._classes)
        return width + columns * _CELL_FRAME + 1

    def _table(self) -> Table:
        # As Text: names are the user's, and square brackets in them no markup.
        columns = [Column(Text(name), no_wrap=True) for name in self._classes]
        answer_column = Column("answer", no_wrap=True)
        table = Table(Column("picture", overflow="fold"), answer_column, *columns)
        for name, answer, shares in self._rows:
            table.add_row(Text(name), Text(answer), *shares)
        return table

    def _print_lines(self, console: Console) -> None:
        for name, answer, shares in self._rows:
            lines = [f"{name}: {answer}"]
            for share, label in zip(shares, self._classes, strict=True):
                lines.append(f"{share:>8}  {label}")
            text = "\n".join(lines)
            console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
