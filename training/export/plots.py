"""The report's plots by matplotlib, as SVG that takes its colors from the page it stands in."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.metrics import LearningCurve, grouped_interval
from training.phrases import duration, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.floating]

_WIDTH = 4.5  # inches: 324 pt, so that text stays legible on a narrow screen
_TEXT = 10.5  # points
_RELIABILITY_BINS = 10
_NOVELTY_BINS = 20  # below the threshold
_NOVELTY_BINS_ABOVE = (9, 60)  # at least and at most
_LABEL_COLUMNS = 40  # of a class name in a plot, see `shortened`

# Stand-ins for the colors of the page: matplotlib knows no CSS variables, so these replace them in
# the finished SVG.
_INK = "#010101"
_SOFT = "#020202"
_LINE = "#030303"
_FIRST = "#040404"
_SECOND = "#050505"
_BAD = "#070707"
_CSS_COLORS = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    _FIRST: "var(--c1)",
    _SECOND: "var(--c2)",
    _BAD: "var(--c4)",
}

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small files, and the reader's own fonts
    "svg.hashsalt": "picaisso",  # ids that are the same every time
    "font.size": _TEXT,
    "text.color": _INK,
    "axes.labelcolor": _SOFT,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "legend.frameon": False,
    "legend.fontsize": _TEXT - 1,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}
_BAR_ALPHA = 0.6
_FIRST_BARS: Any = {"color": _FIRST, "alpha": _BAR_ALPHA}
_SECOND_BARS: Any = {"color": _SECOND, "alpha": _BAR_ALPHA}
_DOTTED: Any = {"color": _SOFT, "linestyle": (0, (2, 3)), "linewidth": 1}
_DASHED = (0, (4, 3))


@dataclass(frozen=True)
class ClassRates:
    """Recall and precision of one class with their intervals."""

    name: str
    recall: float
    recall_interval: tuple[float, float]
    precision: float
    precision_interval: tuple[float, float]


def reliability(
    confidence: Floats, right: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> str:
    """Plot how often the model is right against how confident it is.

    `confidence` [n] is the probability of the likeliest class, `right` [n] whether it is the label.
    Without `groups` [n] every image is a near-duplicate group of its own.
    """
    if groups is None:
        groups = np.arange(len(right))
    bins = (confidence * _RELIABILITY_BINS).astype(int)
    bins = np.minimum(bins, _RELIABILITY_BINS - 1)
    counts = np.bincount(bins, minlength=_RELIABILITY_BINS)
    mean_confidence = []
    accuracy = []
    low = []
    high = []
    for number in np.flatnonzero(counts):
        in_bin = bins == number
        interval = grouped_interval(right[in_bin], groups[in_bin])
        mean_confidence.append(confidence[in_bin].mean())
        accuracy.append(right[in_bin].mean())
        low.append(interval[0])
        high.append(interval[1])
    with _Plot(4.4) as plot:
        above, below = plot.stacked((3, 1))
        above.plot(
            [0, 1],
            [0, 1],
            color=_SOFT,
            linestyle=_DASHED,
            linewidth=1.2,
            label="as sure as right",
        )
        _draw_error_bars(above, mean_confidence, accuracy, low, high)
        above.plot(mean_confidence, accuracy, "o-", color=_FIRST, label="this model")
        above.set_ylabel("right")
        above.set_xlim(0, 1)
        above.set_ylim(0, 1.03)
        above.legend(loc="upper left")
        width = 1 / _RELIABILITY_BINS
        left = width * np.arange(_RELIABILITY_BINS)
        below.bar(left, counts, width, align="edge", **_FIRST_BARS)
        below.set_xlabel("how sure it was")
        below.set_ylabel("pictures")
        _in_percent(above.yaxis)
        _in_percent(below.xaxis)
        return plot.svg("reliability")


def class_bars(classes: Sequence[ClassRates]) -> str:
    """Plot recall and precision of each class with their intervals."""
    recall = [rates.recall for rates in classes]
    recall_intervals = [rates.recall_interval for rates in classes]
    precision = [rates.precision for rates in classes]
    precision_intervals = [rates.precision_interval for rates in classes]
    rows = np.arange(len(classes))
    recall_rows = rows + 0.02
    precision_rows = rows + 0.3
    height = 0.75 + 0.62 * len(classes)
    with _Plot(height) as plot:
        axes = plot.axes()
        for row, rates in enumerate(classes):
            name = plot.placeholder(shortened(rates.name, _LABEL_COLUMNS))
            axes.text(0, row - 0.18, name, va="bottom", color=_INK)
        axes.barh(recall_rows, recall, 0.24, label="recall", **_FIRST_BARS)
        _draw_ranges(axes, recall_rows, recall_intervals)
        axes.barh(precision_rows, precision, 0.24, label="precision", **_SECOND_BARS)
        _draw_ranges(axes, precision_rows, precision_intervals)
        axes.set_xlim(0, 1)
        axes.set_ylim(len(classes) - 0.45, -0.55)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        plot.figure.legend(loc="outside lower center", ncols=2)
        _in_percent(axes.xaxis)
        return plot.svg("classes")


def tuning_curves(epochs: Sequence[Mapping[str, Any]]) -> str:
    """Plot, epoch by epoch, the loss on train and val and the accuracy on val."""
    numbers = [row["epoch"] for row in epochs]
    train_loss = [row["train_loss"] for row in epochs]
    val_loss = [row["val_loss"] for row in epochs]
    val_accuracy = [row["val_accuracy"] for row in epochs]
    best_epoch = numbers[int(np.argmin(val_loss))]
    marker = "o" if len(epochs) < 20 else None
    with _Plot(4.6) as plot:
        above, below = plot.stacked((3, 2))
        above.plot(numbers, train_loss, marker=marker, color=_SECOND, label="training pictures")
        above.plot(numbers, val_loss, marker=marker, color=_FIRST, label="val pictures")
        above.axvline(best_epoch, **_DOTTED)
        above.set_ylabel("loss")
        above.legend(loc="upper right")
        below.plot(numbers, val_accuracy, marker=marker, color=_FIRST)
        below.axvline(best_epoch, **_DOTTED)
        below.set_xlabel("epoch")
        below.set_ylabel("val right")
        _in_percent(below.yaxis)
        _in_whole_numbers(below.xaxis)
        return plot.svg("tuning")


def learning_curve(curve: LearningCurve) -> str:
    """Plot accuracy against training images per class, and where more of them would lead."""
    points = curve["points"]
    sizes = [point["per_class"] for point in points]
    accuracy = [point["accuracy"] for point in points]
    low = [point["accuracy"] - point["error"] for point in points]
    high = [point["accuracy"] + point["error"] for point in points]
    more = sizes[-1] + curve["more_per_class"]
    expected = min(1.0, accuracy[-1] + curve["gain"])
    with _Plot(3.2) as plot:
        axes = plot.axes()
        _draw_error_bars(axes, sizes, accuracy, low, high)
        axes.plot(sizes, accuracy, "o-", color=_FIRST, label="measured")
        axes.plot(
            [sizes[-1], more],
            [accuracy[-1], expected],
            color=_SECOND,
            linestyle=_DASHED,
            label="expected",
        )
        axes.plot(more, expected, "o", color=_SECOND)
        axes.set_xlabel("training pictures per class")
        axes.set_ylabel("right")
        axes.set_xlim(0, more * 1.05)
        axes.legend(loc="lower right")
        _in_percent(axes.yaxis)
        return plot.svg("learning")


def novelty_histogram(novelty: Floats, threshold: float) -> str:
    """Plot the novelty [n] of images of the classes, and from where the model refuses."""
    lowest = min(0.0, float(novelty.min()))
    highest = float(novelty.max())
    edges = _edges_through(threshold, lowest, highest)
    left = edges[:-1]
    counts, _ = np.histogram(novelty, bins=edges)
    widths = np.diff(edges)
    refused = left >= threshold - 1e-9
    colors = np.where(refused, _BAD, _FIRST).tolist()
    with _Plot(2.9) as plot:
        axes = plot.axes()
        axes.bar(left, counts, widths, align="edge", color=colors, alpha=_BAR_ALPHA)
        axes.axvline(threshold, color=_INK, linewidth=1.4)
        axes.annotate(
            "none of these",
            xy=(threshold, 1),
            xycoords=("data", "axes fraction"),
            xytext=(6, -2),
            textcoords="offset points",
            va="top",
            color=_INK,
        )
        axes.set_xlabel("novelty")
        axes.set_ylabel("pictures")
        axes.set_xlim(edges[0], edges[-1])
        _in_whole_numbers(axes.yaxis)
        return plot.svg("novelty")


def phase_bars(seconds: Mapping[str, float]) -> str:
    """Plot how long each phase took."""
    phases = list(seconds)
    taken = list(seconds.values())
    with _Plot(0.7 + 0.34 * len(phases)) as plot:
        axes = plot.axes()
        axes.barh(phases, taken, 0.62, **_FIRST_BARS)
        for row, value in enumerate(taken):
            axes.annotate(
                duration(value),
                xy=(value, row),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=_INK,
            )
        axes.set_xlabel("seconds")
        axes.set_xlim(0, max(taken) * 1.22 or 1.0)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        return plot.svg("phases")


class _Plot:
    """A figure that leaves matplotlib's global style as it was."""

    def __init__(self, height: float) -> None:
        """`height` is in inches."""
        import matplotlib
        from matplotlib.figure import Figure

        self._style = matplotlib.rc_context(_STYLE)
        self._size = (_WIDTH, height)
        self._figure = Figure
        self._texts: list[str] = []

    def __enter__(self) -> _Plot:
        self._style.__enter__()
        self.figure: Figure = self._figure(figsize=self._size, layout="constrained")
        self.figure.patch.set_visible(False)
        return self

    def __exit__(self, *failure: Any) -> None:
        self._style.__exit__(*failure)

    def axes(self) -> Axes:
        """Return axes that fill the figure."""
        (axes,) = self.stacked((1,))
        return axes

    def stacked(self, heights: Sequence[float]) -> list[Axes]:
        """Return axes one below the other, their heights as given, with one horizontal axis."""
        rows = len(heights)
        grid = self.figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=heights)
        for axes in grid[:, 0]:
            axes.patch.set_visible(False)
        return list(grid[:, 0])

    def placeholder(self, text: str) -> str:
        """Return what to draw in place of a text that somebody typed.

        matplotlib would read formulas into the text itself.
        """
        self._texts.append(text)
        return f"@{len(self._texts) - 1}@"

    def svg(self, name: str) -> str:
        """Return the figure as one SVG element; `name` keeps its ids apart from other figures'."""
        stream = io.StringIO()
        # Dates and versions would make two equal reports differ.
        metadata: Any = {"Date": None, "Creator": None, "Format": None, "Type": None}
        self.figure.savefig(stream, format="svg", metadata=metadata)
        svg = stream.getvalue()
        start = svg.index("<svg")
        svg = svg[start:].strip()
        # Its style sheet would hold for the whole page; the page says the same for its figures.
        svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
        svg = svg.replace(' id="', f' id="{name}-')
        svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
        for color, css_color in _CSS_COLORS.items():
            svg = svg.replace(color, css_color)
        svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
        svg = svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
        for number, text in enumerate(self._texts):
            svg = svg.replace(f">@{number}@<", f">{html.escape(text)}<", 1)
        return svg


def _draw_error_bars(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
) -> None:
    """Draw vertical bars from `low` to `high` around points."""
    below = np.subtract(y, low)
    above = np.subtract(high, y)
    axes.errorbar(
        x,
        y,
        yerr=np.maximum([below, above], 0),
        fmt="none",
        color=_FIRST,
        elinewidth=1.2,
        capsize=3,
        alpha=_BAR_ALPHA,
    )


def _draw_ranges(axes: Axes, y: Floats, bounds: Sequence[tuple[float, float]]) -> None:
    """Draw a horizontal line between each two bounds."""
    low = [bound[0] for bound in bounds]
    high = [bound[1] for bound in bounds]
    axes.hlines(y, low, high, color=_INK, linewidth=1.2)


def _in_percent(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))


def _in_whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def _edges_through(threshold: float, low: float, high: float) -> Floats:
    """Return edges of equal bins, one of them the threshold, so that no bar lies on both sides.

    Above the threshold is room for its name.
    """
    width = max(threshold - low, 1e-6) / _NOVELTY_BINS
    bins_above = int(np.ceil((high - threshold) / width))
    bins_above = max(bins_above, _NOVELTY_BINS_ABOVE[0])
    bins_above = min(bins_above, _NOVELTY_BINS_ABOVE[1])
    numbers = np.arange(-_NOVELTY_BINS, bins_above + 1)
    edges = threshold + width * numbers
    edges[-1] = max(edges[-1], high)
    return edges
