"""What the page of a delivered request says of its model and its files.

The order of the page: the verdict, the figure with its interval, how it was judged, what to open
first; then figures by class, mix-ups, and what else is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast
from urllib.parse import urlencode

from requests_app import phrases
from requests_app.delivery import names
from requests_app.models import Artifact, DatasetVersion, Kind, TrainingRun
from training.earlier_metrics import completed
from training.metrics import ClassMetrics, Confusion, Metrics

# For the style sheet. A model that is better than guessing but may be wrong often is not green.
VERDICT_CLASSES = {"better": "", "not_shown": "unsure", "no_better": "weak"}
SURELY_GOOD = 0.8  # low end of the interval from which on the figure is green
MODEL_LINES = """\
import numpy, onnxruntime, PIL.Image
picture = numpy.asarray(PIL.Image.open("picture.jpg").convert("RGB"))
print(onnxruntime.InferenceSession("model.onnx").run(["probabilities"], {"image": picture}))"""
# What is inside, and what to open first.
INSIDE: Mapping[str, tuple[str, str]] = {
    Kind.MODEL: (
        "Unzip it, open try.html and drop a picture on it.",
        "Inside: the model as ONNX and PyTorch weights, report.html (where it fails and what it"
        " looks at) and predict.py.",
    ),
    Kind.DATASET: (
        "Unzip it and look into train, val and test: a folder for each class.",
        "Inside: every picture with its page, author and licence in images.csv, and what was left"
        " out and why in rejected.csv.",
    ),
    Kind.PTH: (
        "Load it in PyTorch: a plain state_dict, made of the model’s weights when it is fetched.",
        "The same numbers as model.safetensors, which lies in the model’s zip.",
    ),
    Kind.CROISSANT: ("Describes the dataset to programs and to dataset search engines.", ""),
    Kind.RECIPE: (
        "For whoever may not have the pictures: where each is, and how to know it again.",
        "python -m scraping replay recipe.json --out pictures",
    ),
    Kind.REPORT: ("Open it in a browser: where the model fails, and what it looks at.", ""),
}


@dataclass(frozen=True)
class Bar:
    """A share with its interval, as a drawing of 100 units in width.

    ``start`` and ``width`` are those of the interval, ``at`` is the share, ``chance`` what always
    naming the largest class would reach. They are texts, so that no locale changes them.
    """

    start: str
    width: str
    at: str
    chance: str
    words: str


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix; ``heat`` 0 to 10 is its share of the row.

    ``query`` picks its pictures in the gallery, "" where there are none to show.
    """

    count: int
    heat: int
    right: bool
    title: str
    query: str


@dataclass(frozen=True)
class MatrixRow:
    number: int
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ClassScore:
    """Figures of one class; ``found`` is its recall in per cent, for the bar."""

    number: int
    name: str
    precision: str
    recall: str
    found: str
    support: int


@dataclass(frozen=True)
class Download:
    """One file: what to do with it first, and what else is inside."""

    kind: str
    title: str
    file_name: str
    bytes: int
    sha256: str
    first: str
    inside: str
    lines: str
    """Of Python, that use it; "" where none do."""


@dataclass(frozen=True)
class Result:
    """The measured model of one dataset version."""

    version: int
    opening: str
    """The verdict in a few words."""
    title: str
    """What the first figure is."""
    counts: str
    """It, as counts."""
    bar: Bar
    verdict: str
    verdict_class: str
    """For the style sheet."""
    judged: str
    """Which pictures the tables are about."""
    judged_noun: str
    """What the column with their number is called."""
    macro_f1: str
    scores: tuple[ClassScore, ...]
    matrix: tuple[MatrixRow, ...]
    facts: tuple[tuple[str, str], ...]
    finished: datetime | None
    notices: tuple[str, ...]
    elsewhere: str
    """How it does on images from a source that it has not seen."""
    refusal: str
    """How many unrelated pictures the model refuses; "" where it was not measured."""
    suspects: str
    """How many labels look wrong, as a sentence; "" where none does."""


def downloads_of(version: DatasetVersion | None) -> tuple[Download, ...]:
    """Return the files of a version, the model first."""
    if version is None:
        return ()
    artifacts = {artifact.kind: artifact for artifact in version.artifacts.all()}
    return tuple(_download(artifacts[kind]) for kind in INSIDE if kind in artifacts)


def _download(artifact: Artifact) -> Download:
    first, inside = INSIDE[artifact.kind]
    return Download(
        kind=artifact.kind,
        title=artifact.get_kind_display(),
        file_name=names.file_name(artifact),
        bytes=artifact.bytes,
        sha256=artifact.sha256,
        first=first,
        inside=inside,
        lines=MODEL_LINES if artifact.kind == Kind.MODEL else "",
    )


def result_of(version: DatasetVersion | None) -> Result | None:
    """Return what was measured of a version; None where nothing was."""
    if version is None:
        return None
    run = TrainingRun.objects.filter(version=version).first()
    if run is None or not run.metrics:
        return None
    metrics = cast(Metrics, completed(run.metrics))
    cross_validated = metrics["cross_validated"]
    figures = cross_validated or metrics
    numbers = _class_numbers(version)
    return Result(
        version=version.number,
        opening=phrases.opening(metrics),
        title=phrases.headline_title(metrics),
        counts=phrases.headline_counts(metrics),
        bar=_bar(metrics),
        verdict=phrases.verdict(metrics),
        verdict_class=_verdict_class(metrics),
        judged=_judged(metrics),
        judged_noun="Pictures" if cross_validated else "Test pictures",
        macro_f1=f"{figures['macro_f1']:.3f}",
        scores=_scores(figures["per_class"], numbers),
        matrix=_matrix(figures["confusion"], numbers, "" if cross_validated else "test"),
        facts=_facts(run, metrics),
        finished=run.finished,
        notices=tuple(run.notices),
        elsewhere=metrics.get("unseen_sentence", ""),  # not in runs of version 0.1.0
        refusal=phrases.refusal(metrics),
        suspects=_suspects(metrics.get("label_issues", 0)),
    )


def _class_numbers(version: DatasetVersion) -> dict[str, int]:
    """Return the number of each class by its name: its colour on every page."""
    classes = version.request.classes.values_list("name", "number")
    return dict(classes)


def _verdict_class(metrics: Metrics) -> str:
    low, _high = metrics["headline"]["interval"]
    if metrics["verdict"] == "better" and low < SURELY_GOOD:
        return "fair"
    return VERDICT_CLASSES[metrics["verdict"]]


def _bar(metrics: Metrics) -> Bar:
    low, high = metrics["headline"]["interval"]
    return Bar(
        start=_per_cent(low),
        width=_per_cent(high - low),
        at=_per_cent(metrics["headline"]["value"]),
        chance=_per_cent(phrases.baseline(metrics)),
        words=f"{phrases.whole_percent(low)} to {phrases.whole_percent(high)} %",
    )


def _per_cent(share: float) -> str:
    return f"{100 * share:.2f}"


def _judged(metrics: Metrics) -> str:
    cross_validated = metrics["cross_validated"]
    if not cross_validated:
        tested = phrases.counted(metrics["split"]["test"], "test picture")
        return f"The {tested}."
    pictures = phrases.counted(cross_validated["n"], "picture")
    on_test = phrases.figure_on_test(metrics)
    return f"All {pictures}, by cross-validation. On the test pictures alone: {on_test}."


def _suspects(count: int) -> str:
    if not count:
        return ""
    verb = "looks" if count == 1 else "look"
    return f"{phrases.counted(count, 'picture')} outside the test part {verb} mislabelled"


def _scores(
    per_class: Mapping[str, ClassMetrics], numbers: Mapping[str, int]
) -> tuple[ClassScore, ...]:
    scores = []
    for position, (name, figures) in enumerate(per_class.items(), start=1):
        score = ClassScore(
            number=numbers.get(name, position),
            name=name,
            precision=phrases.percent(figures["precision"]),
            recall=phrases.percent(figures["recall"]),
            found=_per_cent(figures["recall"]),
            support=figures["support"],
        )
        scores.append(score)
    return tuple(scores)


def _matrix(confusion: Confusion, numbers: Mapping[str, int], split: str) -> tuple[MatrixRow, ...]:
    """Return the rows of the confusion matrix: true classes down, predicted ones across.

    :param split: the part of the dataset that was judged, "" where that was all of it
    """
    labels = confusion["labels"]
    rows = []
    for truth, counts in enumerate(confusion["matrix"]):
        cells = _cells(truth, counts, labels, numbers, split)
        number = numbers.get(labels[truth], truth + 1)
        rows.append(MatrixRow(number, labels[truth], cells))
    return tuple(rows)


def _cells(
    truth: int,
    counts: Sequence[int],
    labels: Sequence[str],
    numbers: Mapping[str, int],
    split: str,
) -> tuple[Cell, ...]:
    tested = sum(counts)
    cells = []
    for predicted, count in enumerate(counts):
        heat = round(10 * count / tested) if tested else 0
        pictures = phrases.counted(count, "picture")
        title = f"{pictures} of {labels[truth]} called {labels[predicted]}"
        query = ""
        if count:
            wanted: dict[str, int | str] = {
                "class": numbers.get(labels[truth], truth + 1),
                "predicted": numbers.get(labels[predicted], predicted + 1),
            }
            if split:
                wanted["split"] = split
            query = urlencode(wanted)
        cells.append(Cell(count, heat, truth == predicted, title, query))
    return tuple(cells)


def _facts(run: TrainingRun, metrics: Metrics) -> tuple[tuple[str, str], ...]:
    """Return (name, value) of what else is known about the training."""
    split = metrics["split"]
    seconds = sum(run.seconds.values())
    facts = {
        "Pictures": f"{split['train']} training, {split['val']} validation, {split['test']} test",
        "Network": f"{phrases.backbone_title(run.backbone)}, pretrained on ImageNet",
        "Hardware": phrases.device_title(metrics["device"]),
        "Training took": phrases.duration(seconds) if seconds else "",
        "Seed": str(metrics["seed"]),
    }
    return tuple((name, value) for name, value in facts.items() if value)
