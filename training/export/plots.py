"""The report's plots by matplotlib, as SVG to stand inside a page: its text colour, its tokens, no
fixed background.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.metrics import wilson_interval
from training.phrases import duration, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.floating]

_WIDTH = 4.5  # inches: 324 pt, so that text stays legible on a narrow screen
_TEXT = 10.5  # points
_RELIABILITY_BINS = 10
_NOVELTY_BINS = 20  # below the threshold
_LABEL_COLUMNS = 40  # of a class name in a plot

# Colours that stand for the page's own: matplotlib knows no CSS variables, so they are put in
# afterwards.
_INK, _SOFT, _LINE = "#010101", "#020202", "#030303"
_FIRST, _SECOND, _GOOD, _BAD = "#040404", "#050505", "#060606", "#070707"
_TOKENS = {
    _INK: "var(--ink)", _SOFT: "var(--soft)", _LINE: "var(--line)",
    _FIRST: "var(--c1)", _SECOND: "var(--c2)", _GOOD: "var(--c3)", _BAD: "var(--c4)",
}  # fmt: skip

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
}


@dataclass(frozen=True)
class ClassRates:
    """How well one class is found, for its bars."""

    name: str
    recall: float
    recall_interval: tuple[float, float]
    precision: float
    precision_interval: tuple[float, float]


def reliability(sureness: Floats, right: NDArray[np.bool_]) -> str:
    """How often the model is right where it says so: probability of the likeliest class [n] against
    hits [n].
    """
    with _Plot(4.4) as plot:
        above, below = plot.stacked((3, 1))
        edges = np.linspace(0, 1, _RELIABILITY_BINS + 1)
        bins = np.minimum((sureness * _RELIABILITY_BINS).astype(int), _RELIABILITY_BINS - 1)
        counts = np.bincount(bins, minlength=_RELIABILITY_BINS)
        full = np.flatnonzero(counts)
        said = np.array([sureness[bins == place].mean() for place in full])
        hits = np.array([right[bins == place].sum() for place in full])
        share = hits / counts[full]
        low, high = np.array(
            [wilson_interval(int(hit), int(n)) for hit, n in zip(hits, counts[full], strict=True)]
        ).T
        above.plot(
            [0, 1],
            [0, 1],
            color=_SOFT,
            linestyle=(0, (4, 3)),
            linewidth=1.2,
            label="as sure as right",
        )
        _whiskers(above, said, share, low, high, _FIRST)
        above.plot(said, share, "o-", color=_FIRST, markersize=5, label="this model")
        above.set(ylabel="right", xlim=(0, 1), ylim=(0, 1.03))
        above.legend(loc="upper left")
        below.bar(
            edges[:-1], counts, width=1 / _RELIABILITY_BINS, align="edge", color=_FIRST, alpha=0.55
        )
        below.set(xlabel="how sure it was", ylabel="pictures")
        _in_percent(above.yaxis, below.xaxis)
        return plot.svg("reliability")


def class_bars(classes: Sequence[ClassRates]) -> str:
    """For each class the share that was found and the share of its answers that were right, with
    their intervals.
    """
    with _Plot(0.75 + 0.62 * len(classes)) as plot:
        (axes,) = plot.stacked((1,))
        for place, row in enumerate(classes):
            bars = (
                (0.02, row.recall, row.recall_interval, _FIRST, "recall"),
                (0.3, row.precision, row.precision_interval, _SECOND, "precision"),
            )
            for offset, value, (low, high), colour, meaning in bars:
                axes.barh(
                    place + offset,
                    value,
                    0.24,
                    color=colour,
                    alpha=0.6,
                    label="" if place else meaning,
                )
                axes.plot(
                    [low, high],
                    [place + offset] * 2,
                    color=_INK,
                    linewidth=1.2,
                    solid_capstyle="butt",
                )
            axes.text(
                0,
                place - 0.18,
                plot.users_text(shortened(row.name, _LABEL_COLUMNS)),
                va="bottom",
                color=_INK,
            )
        axes.set(xlim=(0, 1), ylim=(len(classes) - 0.45, -0.55), yticks=[])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        plot.figure.legend(loc="outside lower center", ncols=2)
        _in_percent(axes.xaxis)
        return plot.svg("classes")


def tuning_curves(epochs: Sequence[Mapping[str, Any]]) -> str:
    """Loss on training and val pictures, and the share of val pictures that was right, epoch by
    epoch.
    """
    number = [row["epoch"] for row in epochs]
    with _Plot(4.6) as plot:
        above, below = plot.stacked((3, 2))
        marker = "o" if len(epochs) < 20 else None
        for key, colour, label in (
            ("train_loss", _SECOND, "training pictures"),
            ("val_loss", _FIRST, "val pictures"),
        ):
            values = [row[key] for row in epochs]
            above.plot(number, values, color=colour, label=label, marker=marker, markersize=4)
        lowest = min(epochs, key=lambda row: float(row["val_loss"]))
        above.axvline(lowest["epoch"], color=_SOFT, linestyle=(0, (2, 3)), linewidth=1)
        above.set(ylabel="loss")
        above.legend(loc="upper right")
        below.plot(
            number,
            [row["val_accuracy"] for row in epochs],
            color=_FIRST,
            marker=marker,
            markersize=4,
        )
        below.axvline(lowest["epoch"], color=_SOFT, linestyle=(0, (2, 3)), linewidth=1)
        below.set(xlabel="epoch", ylabel="val right")
        _in_percent(below.yaxis)
        _whole_numbers(below.xaxis)
        return plot.svg("tuning")


def learning_curve(curve: Mapping[str, Any]) -> str:
    """Accuracy by training pictures per class, and where more of them would lead."""
    points = curve["points"]
    sizes = np.array([point["per_class"] for point in points], np.float64)
    accuracy = np.array([point["accuracy"] for point in points])
    error = np.array([point["error"] for point in points])
    further = sizes[-1] + curve["more_per_class"]
    with _Plot(3.2) as plot:
        (axes,) = plot.stacked((1,))
        _whiskers(axes, sizes, accuracy, accuracy - error, accuracy + error, _FIRST)
        axes.plot(sizes, accuracy, "o-", color=_FIRST, markersize=5, label="measured")
        expected = [accuracy[-1], min(1.0, accuracy[-1] + curve["gain"])]
        axes.plot(
            [sizes[-1], further], expected, color=_SECOND, linestyle=(0, (4, 3)), label="expected"
        )
        axes.plot(further, expected[1], "o", color=_SECOND, markersize=5)
        axes.set(xlabel="training pictures per class", ylabel="right", xlim=(0, further * 1.05))
        axes.legend(loc="lower right")
        _in_percent(axes.yaxis)
        return plot.svg("learning")


def novelty_histogram(novelty: Floats, threshold: float) -> str:
    """How unlike its training pictures the model finds pictures of its own classes [n], and from
    where it refuses.
    """
    edges = _edges_through(threshold, min(0.0, float(novelty.min())), float(novelty.max()))
    with _Plot(2.9) as plot:
        (axes,) = plot.stacked((1,))
        counts, _ = np.histogram(novelty, bins=edges)
        colours = [_BAD if low >= threshold - 1e-9 else _FIRST for low in edges[:-1]]
        axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=colours, alpha=0.65)
        axes.axvline(threshold, color=_INK, linewidth=1.4)
        axes.annotate(
            "none of these", (threshold, 1), (6, -2), xycoords=("data", "axes fraction"),
            textcoords="offset points", va="top", color=_INK,
        )  # fmt: skip
        axes.set(xlabel="novelty", ylabel="pictures", xlim=(edges[0], edges[-1]))
        _whole_numbers(axes.yaxis)
        return plot.svg("novelty")


def phase_bars(seconds: Mapping[str, float]) -> str:
    """How long each phase took."""
    names, values = list(seconds), np.array(list(seconds.values()))
    with _Plot(0.7 + 0.34 * len(names)) as plot:
        (axes,) = plot.stacked((1,))
        axes.barh(names, values, 0.62, color=_FIRST, alpha=0.65)
        for place, value in enumerate(values):
            axes.annotate(
                duration(value),
                (value, place),
                (5, 0),
                textcoords="offset points",
                va="center",
                color=_INK,
            )
        axes.set(xlabel="seconds", xlim=(0, float(values.max()) * 1.22 or 1.0))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        return plot.svg("phases")


class _Plot:
    """One figure of its own, in no global state but the style, which is put back at the end."""

    def __init__(self, height: float) -> None:
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

    def stacked(self, heights: Sequence[float]) -> list[Axes]:
        """Axes one below the other with a common horizontal axis, their heights as given."""
        grid = self.figure.subplots(
            len(heights), 1, sharex=True, squeeze=False, height_ratios=heights
        )
        for axes in grid[:, 0]:
            axes.patch.set_visible(False)
        return list(grid[:, 0])

    def users_text(self, text: str) -> str:
        """What to draw in place of a text that somebody typed: matplotlib would read formulas into
        it.
        """
        self._texts.append(text)
        return f"@{len(self._texts) - 1}@"

    def svg(self, name: str) -> str:
        """The figure as one SVG element. `name` makes its ids its own in a page with several."""
        stream = io.StringIO()
        # Dates and versions would make two equal reports differ.
        self.figure.savefig(
            stream,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
        drawn = stream.getvalue()
        drawn = drawn[drawn.index("<svg") :].strip()
        # Its style sheet would hold for the whole page; the page says the same for its figures.
        drawn = re.sub(r"<(metadata|style)\b.*?</\1>", "", drawn, flags=re.DOTALL)
        drawn = drawn.replace(' id="', f' id="{name}-')
        drawn = re.sub(r'(url\(|href=")#', rf"\1#{name}-", drawn)
        drawn = re.sub("|".join(_TOKENS), lambda found: _TOKENS[found[0]], drawn)
        drawn = re.sub(r"font-family: [^;\"]*;? ?", "", drawn)
        drawn = drawn.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
        for place, text in enumerate(self._texts):
            drawn = drawn.replace(f">@{place}@<", f">{html.escape(text)}<", 1)
        return drawn


def _whiskers(axes: Axes, x: Floats, y: Floats, low: Floats, high: Floats, colour: str) -> None:
    reach = np.stack([np.maximum(y - low, 0), np.maximum(high - y, 0)])
    axes.errorbar(x, y, yerr=reach, fmt="none", color=colour, elinewidth=1.2, capsize=3, alpha=0.6)


def _in_percent(*axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def _edges_through(threshold: float, low: float, high: float) -> Floats:
    """Edges of equal bins of which one is the threshold, so that no bar stands on both sides; room
    for its name.
    """
    width = max(threshold - low, 1e-6) / _NOVELTY_BINS
    beyond = int(
        np.clip(np.ceil((high - threshold) / width), 0.45 * _NOVELTY_BINS, 3 * _NOVELTY_BINS)
    )
    edges = threshold + width * np.arange(-_NOVELTY_BINS, beyond + 1)
    edges[-1] = max(edges[-1], high)
    return edges
