"""The report, one HTML file that needs no network: what the model can do, where it fails, what it
was made from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import training
from training.evaluation.results import Results
from training.explanations import evidence, nearest_images, overlay
from training.export import plots
from training.export.model_card import (
    TRAITS_IN_WORDS,
    calibration_in_words,
    more_in_words,
    suspects_in_words,
    unknown_in_words,
)
from training.export.report_images import (
    MAP_SIDE,
    Album,
    best,
    examples_of_each_class,
    worst,
)
from training.images.decode import BrokenImageError, as_array, read_image
from training.metrics import ECE_MINIMUM, wilson_interval
from training.phrases import counted, duration, interval, listed, percent, verdict
from training.predict import Predict
from training.progress import Progress
from training.run_folder import ImageRow, RunConfig, write_text

NEAREST = 3  # training pictures shown beside a mistake
EXAMPLES = 3  # of each class, with a map

_TEMPLATES = Path(__file__).with_name("assets") / "report"
_ALBUM_BYTES = 4_500_000  # of thumbnails; all else takes far less than the remaining megabyte
_CELL_OF_MISTAKES = 24  # pictures shown behind a cell of the confusion matrix
_CELL_OF_HITS = 12
_SUSPECTS = 48
_PARTS = {"train": "training", "val": "validation", "test": "test", None: "left out"}
_DELIVERED = {"head": "linear head on the backbone's features", "network": "fine-tuned network"}
_STAGES = {
    "features": "looking",
    "split": "splitting",
    "train": "linear head",
    "finetune": "fine-tuning",
    "evaluate": "measuring",
    "export": "exporting",
}


@dataclass(frozen=True)
class Origin:
    """What the model was made from, as far as neither results nor configuration tell."""

    backbone: str
    """Its title."""
    licence: str
    """Of the backbone, in sentences."""
    resize_side: int
    """Pixels of the shorter side before the centre crop."""
    seconds: Mapping[str, float]
    """Stage to the seconds that it has taken up to now."""


@dataclass(frozen=True)
class Tile:
    """One picture as the page shows it."""

    css: str | None
    """The class that shows it; None where it is left out."""
    name: str
    truth: int
    """Number of its class."""
    said: int
    """Number of the class that a model that never saw it finds likeliest."""
    sureness: float
    """That class's probability."""
    credit: str
    link: str
    """Where it was found, an http address or ""."""

    @property
    def right(self) -> bool:
        """Whether the answer is its class."""
        return self.said == self.truth

    @property
    def credited(self) -> bool:
        """Whether anything is known of where it comes from."""
        return bool(self.credit or self.link)


@dataclass(frozen=True)
class SeenMap:
    """What the network looked at, for one class."""

    css: str | None
    number: int
    """Of the class."""


@dataclass(frozen=True)
class Explained:
    """A picture with its maps and with what it was compared to."""

    tile: Tile
    maps: list[SeenMap]
    nearest: list[tuple[Tile, float]]
    """Training pictures with their cosine."""

    @property
    def credited(self) -> bool:
        """Whether anything is known of where one of its pictures comes from."""
        return any(tile.credited for tile in (self.tile, *(tile for tile, _ in self.nearest)))


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix."""

    truth: int
    said: int
    count: int
    share: float
    """Of the pictures of its row."""
    tiles: list[Tile]

    @property
    def name(self) -> str:
        """Its anchor in the page."""
        return f"cell-{self.truth}-{self.said}"


@dataclass(frozen=True)
class Doubt:
    """A suspected picture."""

    tile: Tile
    score: float
    part: str
    suggested: int | None
    reason: str


def write_report(
    path: Path,
    results: Results,
    config: RunConfig,
    run_folder: Path,
    look: Predict,
    origin: Origin,
    report: Progress,
) -> None:
    """Write `report.html`.

    `look` is called for the worst mistakes and a few pictures of each class, `report` after each of
    them; the results' files are relative to `run_folder`.
    """
    pages = _Pages(results, Album(run_folder, _ALBUM_BYTES), run_folder, origin.resize_side)
    looked = pages.explanations(look, report)
    doubts = pages.doubts()
    matrix = pages.matrix()
    context = {
        "metrics": results.metrics,
        "names": pages.names,
        "verdict": verdict(results.metrics),
        "scale": _scale(results.metrics),
        "class_rows": _class_rows(results.metrics),
        "mistakes": sum(1 for item in looked.worst if not item.tile.right),
        "worst": looked.worst,
        "best": looked.best,
        "examples": looked.examples,
        "matrix": matrix,
        "first_cell": _first_cell(matrix),
        "doubts": doubts,
        "sources": _sources(results.rows),
        "credits": _credits(results, pages.names),
        "facts": _facts(results.metrics, config, origin),
        "origin": origin,
        "plots": _plots(results, origin),
        "words": _words(results.metrics),
        "sureness_of": _judged_in_words(results),
        "album": pages.album.rules(),
        "version": training.__version__,
    }
    write_text(path, _render(context))


@dataclass(frozen=True)
class _Looked:
    worst: list[Explained]
    best: list[Tile]
    examples: list[list[Explained]]


class _Pages:
    """Turns indices of the results into pictures that the page can show."""

    def __init__(self, results: Results, album: Album, run_folder: Path, resize_side: int) -> None:
        self.results, self.album = results, album
        self.names = list(results.metrics["per_class"])
        self._run_folder, self._resize_side = run_folder, resize_side
        self._learned = results.learned_indices()
        self._references = results.embeddings[self._learned]

    def tile(self, place: int) -> Tile:
        """A picture of the results."""
        row, probabilities = self.results.rows[place], self.results.probabilities[place]
        said = int(probabilities.argmax())
        return Tile(
            css=self.album.thumbnail(row.file),
            name=Path(row.file).stem,
            truth=int(self.results.labels[place]),
            said=said,
            sureness=float(probabilities[said]),
            credit=row.credit,
            link=_web_address(row.page_url),
        )

    def explanations(self, look: Predict, report: Progress) -> _Looked:
        """The worst, the best and a few of each class; maps for mistakes and for the few."""
        worst_places, few = worst(self.results), examples_of_each_class(self.results, EXAMPLES)
        mistakes = [place for place in worst_places if not self._is_right(place)]
        to_do = len(mistakes) + sum(map(len, few))
        maps: dict[int, list[SeenMap]] = {}
        for place in [*mistakes, *(place for places in few for place in places)]:
            maps[place] = self._maps(place, look)
            report(len(maps), to_do)
        return _Looked(
            worst=[
                self._explained(place, maps[place] if place in mistakes else [], NEAREST)
                for place in worst_places
            ],
            best=[self.tile(place) for place in best(self.results)],
            examples=[
                [self._explained(place, maps[place], 0) for place in places] for places in few
            ],
        )

    def doubts(self) -> list[Doubt]:
        """The most suspicious pictures."""
        return [
            Doubt(
                tile=self.tile(suspect.index),
                score=suspect.score,
                part=_PARTS[self.results.rows[suspect.index].split],
                suggested=suspect.suggested,
                reason=suspect.reason,
            )
            for suspect in self.results.suspects[:_SUSPECTS]
        ]

    def matrix(self) -> list[list[Cell]]:
        """The confusion matrix with the pictures behind each cell: mistakes first into the album,
        should it fill up.
        """
        counts = np.array(self.results.metrics["confusion"]["matrix"])
        places = sorted(np.ndindex(counts.shape), key=lambda at: at[0] == at[1])
        cells = {at: self._cell(at[0], at[1], counts) for at in places}
        return [[cells[row, column] for column in range(len(counts))] for row in range(len(counts))]

    def _cell(self, truth: int, said: int, counts: NDArray[np.int64]) -> Cell:
        results = self.results
        behind = [
            place
            for place, row in enumerate(results.rows)
            if row.split == "test"
            and results.labels[place] == truth
            and results.probabilities[place].argmax() == said
        ]
        behind.sort(key=lambda place: -results.probabilities[place, said])
        limit = _CELL_OF_HITS if truth == said else _CELL_OF_MISTAKES
        share = counts[truth, said] / max(1, counts[truth].sum())
        return Cell(
            truth, said, len(behind), float(share), [self.tile(place) for place in behind[:limit]]
        )

    def _maps(self, place: int, look: Predict) -> list[SeenMap]:
        """What spoke for the class that was said and, for a mistake, for its own: in one scale, to
        be compared.
        """
        try:
            picture = read_image(self._run_folder / self.results.rows[place].file)
        except BrokenImageError:  # it has gone since it was learned from; the report can do without
            return []
        cams = np.asarray(look(as_array(picture)).cam, np.float64)
        numbers = dict.fromkeys(
            (int(self.results.probabilities[place].argmax()), int(self.results.labels[place]))
        )
        height = max(float(evidence(cams, number).max()) for number in numbers)
        picture.thumbnail((MAP_SIDE, MAP_SIDE), Image.Resampling.BICUBIC)
        drawn = {
            number: overlay(picture, evidence(cams, number), self._resize_side, height)
            for number in numbers
        }
        file = self.results.rows[place].file
        return [
            SeenMap(self.album.map_of(file, number, laid), number) for number, laid in drawn.items()
        ]

    def _explained(self, place: int, maps: list[SeenMap], nearest: int) -> Explained:
        found = nearest_images(self.results.embeddings[place], self._references, nearest)
        return Explained(
            self.tile(place),
            maps,
            [(self.tile(int(self._learned[number])), cosine) for number, cosine in found],
        )

    def _is_right(self, place: int) -> bool:
        return bool(self.results.probabilities[place].argmax() == self.results.labels[place])


def _web_address(text: str) -> str:
    """Only what leads to the web: any other scheme in a link would run or open something on the
    reader's machine.
    """
    return text if text.lower().startswith(("http://", "https://")) else ""


def _first_cell(matrix: Sequence[Sequence[Cell]]) -> Cell:
    """The commonest mistake, which is open at first; the first hit where there is no mistake."""
    cells = [cell for row in matrix for cell in row]
    return max(cells, key=lambda cell: (cell.count > 0 and cell.truth != cell.said, cell.count))


def _scale(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is drawn on one scale from 0 to 1: both candidates with their intervals, the baseline
    without.
    """
    titles = {"head": "Linear head", "network": "Fine-tuned network"}
    rows = [
        {"title": titles[key], "delivered": metrics["delivered"] == key, **metrics[key]}
        for key in sorted(titles, key=lambda key: key != metrics["delivered"])
        if metrics[key]
    ]
    guess = {"title": "Always the largest class", "delivered": False, "interval": None}
    return [*rows, {**guess, "accuracy": metrics["majority_baseline"]}]


def _class_rows(metrics: Mapping[str, Any]) -> list[plots.ClassRates]:
    """Recall and precision with their intervals."""
    matrix = np.array(metrics["confusion"]["matrix"])
    rows = []
    for number, (name, row) in enumerate(metrics["per_class"].items()):
        hits = int(matrix[number, number])
        found, said = int(matrix[number].sum()), int(matrix[:, number].sum())
        bounds = [
            wilson_interval(hits, trials) if trials else (0.0, 1.0) for trials in (found, said)
        ]
        rows.append(plots.ClassRates(name, row["recall"], bounds[0], row["precision"], bounds[1]))
    return rows


def _judged(results: Results) -> NDArray[np.bool_]:
    """The pictures that reliability is drawn from: the test part where it is large enough, else all
    of the split.
    """
    test = np.array([row.split == "test" for row in results.rows])
    return (
        test
        if test.sum() >= ECE_MINIMUM
        else np.array([row.split is not None for row in results.rows])
    )


def _judged_in_words(results: Results) -> str:
    judged = _judged(results)
    if all(results.rows[place].split == "test" for place in np.flatnonzero(judged)):
        return f"the {judged.sum()} test pictures"
    return f"all {judged.sum()} pictures, each judged by a model that had not seen it, as too few are for testing alone"


def _plots(results: Results, origin: Origin) -> dict[str, str]:
    """SVG by name; those that there is nothing to draw of are left out."""
    metrics, judged = results.metrics, _judged(results)
    probabilities = results.probabilities[judged]
    right = probabilities.argmax(axis=1) == results.labels[judged]
    stages = {_STAGES.get(stage, stage): seconds for stage, seconds in origin.seconds.items()}
    in_split = np.array([row.split is not None for row in results.rows])
    drawn = {
        "reliability": plots.reliability(probabilities.max(axis=1), right),
        "classes": plots.class_bars(_class_rows(metrics)),
        "novelty": plots.novelty_histogram(results.novelty[in_split], metrics["reject_threshold"]),
        "phases": plots.phase_bars(stages),
    }
    if results.epochs:
        drawn["tuning"] = plots.tuning_curves(results.epochs)
    if metrics["learning_curve"]:
        drawn["learning"] = plots.learning_curve(metrics["learning_curve"])
    return drawn


def _words(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Sentences that the card has too."""
    return {
        "calibration": calibration_in_words(metrics),
        "unknown": unknown_in_words(metrics),
        "more": more_in_words(metrics),
        "suspects": suspects_in_words(metrics),
    }


def _sources(rows: Sequence[ImageRow]) -> list[tuple[str, str, int]]:
    """(source, licence, pictures) of all pictures in the split, the commonest first."""
    counts = Counter((row.source, row.license) for row in rows if row.split)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        (source or "not known", licence or "not known", count)
        for (source, licence), count in ordered
    ]


def _credits(results: Results, names: Sequence[str]) -> list[dict[str, Any]]:
    """Whom to thank, class by class; pictures of which neither author nor page is known are left
    out.
    """
    groups = []
    for number, name in enumerate(names):
        items = [
            {"name": Path(row.file).stem, "credit": row.credit, "link": _web_address(row.page_url)}
            for row, label in zip(results.rows, results.labels, strict=True)
            if label == number and row.split and (row.credit or _web_address(row.page_url))
        ]
        groups.append({"name": name, "items": items})
    return [group for group in groups if group["items"]]


def _facts(metrics: Mapping[str, Any], config: RunConfig, origin: Origin) -> list[tuple[str, str]]:
    """How it was trained: pairs of term and value."""
    split = metrics["split"]
    parts = (
        f"{split['train']} for training, {split['val']} for validation, {split['test']} for testing"
    )
    return [
        ("Delivered", _DELIVERED[metrics["delivered"]]),
        ("Backbone", origin.backbone),
        ("Pretrained weights", metrics["weights"]),
        ("Pictures", f"{parts}; no near copies on both sides"),
        (
            "Regularisation",
            f"C = {metrics['regularisation']:g} for the linear head, by cross-validation",
        ),
        ("Temperature", f"{metrics['temperature']:.3f}, {_where_calibrated(metrics)}"),
        ("Fine-tuning", _tuning(metrics)),
        ("Device", metrics["device"]),
        ("Arithmetic", metrics["arithmetic"]),
        ("Seed", str(metrics["seed"])),
        ("Time budget", duration(config.time_budget_seconds or 0)),
        ("Time taken", duration(sum(origin.seconds.values()))),
    ]


def _where_calibrated(metrics: Mapping[str, Any]) -> str:
    return "by cross-validation" if metrics["delivered"] == "head" else "on the validation pictures"


def _tuning(metrics: Mapping[str, Any]) -> str:
    return counted(metrics["network"]["epochs"], "epoch") if metrics["network"] else "none"


def _unbroken(words: Callable[[Any], str]) -> Callable[[Any], str]:
    """The same words with their per cent signs bound to the numbers."""
    return lambda value: words(value).replace(" %", "\N{NO-BREAK SPACE}%")


def _render(context: Mapping[str, Any]) -> str:
    """Text that somebody typed is escaped by the template engine wherever it stands."""
    import jinja2

    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {"percent": _unbroken(percent), "interval": _unbroken(interval)}
    engine.filters |= {"listed": listed, "counted": counted}
    engine.globals |= {"traits": TRAITS_IN_WORDS}
    return engine.get_template("report.html").render(context)
