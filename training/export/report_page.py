"""The report as a page: what it shows, kept as JSON, and the template that renders it.

The context stays in the run folder, so that the page can be rendered again without an image that
was taken down. A template that asks for a new key must find it in older contexts too: give it a
default in `read_context`. Rendering needs Jinja2, and neither torch nor matplotlib.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any, NotRequired, TypedDict, cast

from training.earlier_metrics import completed
from training.export.model_card import judged_figures, phrases_of
from training.metrics import ClassificationMetrics, Curation, Metrics
from training.phrases import (
    baseline,
    counted,
    figure_on_test,
    headline_counts,
    headline_title,
    interval,
    listed,
    percent,
)
from training.run_folder import write_text

CONTEXT_FILE = "report_context.json"  # in the run folder, not in the model folder

_TEMPLATES = Path(__file__).with_name("assets") / "report"


class InlineImage(TypedDict):
    """A small JPEG inside the page."""

    file: str  # the image that it shows, relative to the run folder
    name: str  # the CSS class that shows it as a background
    aspect_ratio: float
    jpeg: str  # base64


class Tile(TypedDict):
    """One image with what the model says of it."""

    file: str  # relative to the run folder
    image: str | None  # name of its thumbnail, None where the page has none
    label: int  # class index
    predicted: int  # index of the likeliest class, by a model that did not learn from the image
    confidence: float  # probability of that class
    right: bool
    credit: str
    link: str  # http address of the page where it was found, or ""


class ClassMap(TypedDict):
    """Where in an image the network saw a class."""

    image: str | None  # name of the map, None where the page has none
    class_index: int


class Neighbour(TypedDict):
    """One of the nearest images that the model learned from."""

    tile: Tile
    cosine: float


class ExplainedTile(TypedDict):
    """An image with its class maps and its nearest neighbours."""

    tile: Tile
    maps: list[ClassMap]
    nearest: list[Neighbour]


class Cell(TypedDict):
    """A cell of the confusion matrix with the images behind it."""

    id: str
    label: int
    predicted: int
    count: int
    share: float  # of the images of its row
    tiles: list[Tile]
    left_out: int  # images of the cell that are not among the tiles


class LabelIssue(TypedDict):
    """An image whose label is probably wrong, or that is suspected otherwise."""

    tile: Tile
    kind: NotRequired[str]  # as in `suspects.jsonl`; absent in contexts of earlier versions
    score: float  # 0 (in order) to 1 (certainly wrong)
    split: str  # in words
    suggested: int | None
    reason: str


class KeptSuspect(TypedDict):
    """What training found of a suspect, as in `suspects.jsonl`."""

    file: str
    kind: str
    suggested: str | None
    reason: str


class Credit(TypedDict):
    """Whom to thank for an image."""

    file: str
    credit: str
    link: str


class ClassCredits(TypedDict):
    """The credits of one class."""

    name: str
    credits: list[Credit]


class ScaleRow(TypedDict):
    """An accuracy on the common scale from 0 to 1."""

    title: str
    delivered: bool
    accuracy: float
    interval: list[float] | None


class HeadlineWords(TypedDict):
    """The first figure in words."""

    title: str
    counts: str
    beside: str  # the figure of the test images, "" where it is the first


class ReportContext(TypedDict):
    """What the template is rendered with.

    All that belongs to one image says its `file`, or has a `tile` that does: `without_images`
    relies on it.
    """

    version: str
    names: list[str]  # of the classes, in output order
    verdict: str
    metrics: Metrics
    headline: HeadlineWords
    figures: ClassificationMetrics  # that confusion and recall are shown of
    scale: list[ScaleRow]
    class_rates: list[dict[str, Any]]
    matrix: list[list[Cell]]
    open_cell: str  # id of the cell that is open at first
    worst: list[ExplainedTile]
    best: list[Tile]
    examples: list[list[ExplainedTile]]  # by class
    label_issues: list[LabelIssue]
    label_issues_left_out: int
    shortcuts: list[tuple[str, float]]  # what was guessed from, balanced accuracy
    phrases: dict[str, str]
    reliability_source: str
    sources: list[tuple[str, str, int]]  # source, licence, number of images
    credits: list[ClassCredits]
    licence: str  # of the backbone
    facts: list[tuple[str, str]]
    plots: dict[str, str]  # SVG by name
    images: list[InlineImage]
    suspects: NotRequired[list[KeptSuspect]]  # once labels were verified: those of the training
    curation: NotRequired[Curation]  # likewise, as the training left it


def write_context(run_folder: Path, context: ReportContext) -> None:
    """Keep what the report of a run is rendered from."""
    write_text(run_folder / CONTEXT_FILE, json.dumps(context, ensure_ascii=False, indent=1))


def read_context(run_folder: Path) -> ReportContext | None:
    """Return what the report of a run was rendered from; None for a run of version 0.1.0."""
    path = run_folder / CONTEXT_FILE
    if not path.exists():
        return None
    context = json.loads(path.read_text(encoding="utf-8"))
    metrics = cast(Metrics, completed(context["metrics"]))
    earlier = {"headline": headline_words(metrics), "figures": metrics}
    return cast(ReportContext, {**earlier, **context, "metrics": metrics})


def headline_words(metrics: Metrics) -> HeadlineWords:
    """Return the first figure in words, and that of the test pictures where it is another."""
    beside = ""
    if metrics["headline"]["how"] != "test":
        beside = f"on the test pictures {figure_on_test(metrics)}"
    return {
        "title": headline_title(metrics),
        "counts": headline_counts(metrics),
        "beside": beside,
    }


def with_metrics(context: ReportContext, metrics: Metrics) -> ReportContext:
    """Return the context with the figures and sentences that these metrics give."""
    changed = context.copy()
    changed["metrics"] = metrics
    changed["verdict"] = metrics["verdict_sentence"]
    changed["headline"] = headline_words(metrics)
    changed["scale"] = scale_rows(metrics)
    changed["figures"] = judged_figures(metrics)
    changed["phrases"] = phrases_of(metrics)
    return changed


def scale_rows(metrics: Metrics) -> list[ScaleRow]:
    """Return both candidates, the delivered one first, and guessing, which has no interval."""
    candidates = [
        ("head", "Linear head", metrics["head"]),
        ("network", "Fine-tuned network", metrics["network"]),
    ]
    if metrics["delivered"] == "network":
        candidates.reverse()
    rows: list[ScaleRow] = []
    headline = metrics["headline"]
    if headline["how"] != "test":
        row: ScaleRow = {
            "title": headline_title(metrics),
            "delivered": False,
            "accuracy": headline["value"],
            "interval": headline["interval"],
        }
        rows.append(row)
    for name, title, figures in candidates:
        if figures is None:
            continue
        row = {
            "title": f"{title}, on the test pictures",
            "delivered": name == metrics["delivered"],
            "accuracy": figures["accuracy"],
            "interval": figures["interval"],
        }
        rows.append(row)
    zero_shot = metrics["zero_shot"]
    if zero_shot:
        row = {
            "title": "Names alone, without training",
            "delivered": False,
            "accuracy": zero_shot["accuracy"],
            "interval": zero_shot["interval"],
        }
        rows.append(row)
    guessing: ScaleRow = {
        "title": "Always the largest class",
        "delivered": False,
        "accuracy": baseline(metrics),
        "interval": None,
    }
    return [*rows, guessing]


def without_images(context: ReportContext, files: Collection[str]) -> ReportContext:
    """Return the context without these files: no thumbnail, map, caption or credit is left.

    The measured figures stay as they are.
    """
    return cast(ReportContext, _without(context, files))


def _without(value: Any, files: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, files) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, files) for item in value if _file_of(item) not in files]
    return value


def _file_of(item: Any) -> str | None:
    """Return the file that an entry of the context belongs to, if it belongs to one."""
    if not isinstance(item, dict):
        return None
    if "tile" in item:
        item = item["tile"]
    file: str | None = item.get("file")
    return file


def render_page(context: ReportContext) -> str:
    """Return the page as HTML; the template engine escapes all text that somebody typed."""
    import jinja2

    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["percent"] = _unbroken(percent)
    engine.filters["interval"] = _unbroken(interval)
    engine.filters["baseline"] = baseline
    engine.filters["listed"] = listed
    engine.filters["counted"] = counted
    engine.filters["stem"] = lambda file: PurePosixPath(file).stem
    return engine.get_template("report.html").render(context)


def _unbroken(phrase: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return the same phrase with its per cent signs bound to the numbers."""
    return lambda value: phrase(value).replace(" %", "\N{NO-BREAK SPACE}%")
