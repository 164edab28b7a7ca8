"""The report, one HTML file that needs no network: what the model can do, where it fails, what it
was made from.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import training
from training.evaluation.results import Results
from training.evaluation.shortcuts import ATTRIBUTES
from training.explanations import evidence, nearest_images, overlay
from training.export import plots
from training.export.model_card import judged_figures, phrases_of
from training.export.report_images import (
    MAP_SIDE,
    InlineImages,
    best,
    examples_of_each_class,
    worst,
)
from training.export.report_page import (
    Cell,
    ClassCredits,
    ClassMap,
    Credit,
    ExplainedTile,
    LabelIssue,
    Neighbour,
    ReportContext,
    Tile,
    headline_words,
    render_page,
    scale_rows,
    write_context,
)
from training.images.decode import BrokenImageError, as_array, read_image
from training.metrics import ECE_MINIMUM, Floats, Labels, Metrics, grouped_interval
from training.phrases import (
    counted,
    duration,
    verdict,
)
from training.predict import Predict
from training.progress import Progress
from training.run_folder import ImageRow, RunConfig, write_text

NEAREST = 3  # learned images shown beside a mistake
EXAMPLES = 3  # of each class, with a map

_INLINE_BYTES = 4_500_000  # of all images; the rest of the page takes far less than a megabyte
_TILES_OF_MISTAKES = 24  # images shown behind a cell of the confusion matrix
_TILES_OF_HITS = 12
_LABEL_ISSUES = 48
_SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test", None: "left out"}
_DELIVERED = {"head": "linear head on the backbone's features", "network": "fine-tuned network"}
_STAGE_TITLES = {
    "features": "feature extraction",
    "split": "splitting",
    "train": "linear head",
    "finetune": "fine-tuning",
    "evaluate": "measuring",
    "export": "exporting",
}


@dataclass(frozen=True)
class Origin:
    """What the model was made from, as far as neither results nor configuration say it."""

    backbone: str
    """Its title."""
    licence: str
    """Of the backbone, in sentences."""
    resize_side: int | None
    """Pixels of the shorter side before the center crop; None where the whole is seen."""
    seconds: Mapping[str, float]
    """Stage to the seconds that it has taken up to now."""


def write_report(
    path: Path,
    results: Results,
    config: RunConfig,
    run_folder: Path,
    predict: Predict,
    origin: Origin,
    progress: Progress,
) -> None:
    """Write `report.html`, and into the run folder what it is rendered from.

    `predict` is called for the worst mistakes and a few images of each class, `progress` after
    each of them. The files of the results are relative to `run_folder`.
    """
    metrics = results.metrics
    class_rates = _class_rates(results)
    judged, judged_probabilities = _judged(results)

    # What is added to the inline images first is shown even where they reach their limit.
    images = InlineImages(run_folder, _INLINE_BYTES)
    tiles = _Tiles(results, images)
    explained = _Explained(tiles, run_folder, predict, origin.resize_side)
    worst_tiles, examples = explained.worst_and_examples(progress)
    best_tiles = [tiles.tile(index) for index in best(results)]
    label_issues = tiles.label_issues()
    matrix = tiles.confusion_matrix()

    context = ReportContext(
        version=training.__version__,
        names=list(metrics["per_class"]),
        verdict=verdict(metrics),
        metrics=metrics,
        headline=headline_words(metrics),
        figures=judged_figures(metrics),
        scale=scale_rows(metrics),
        class_rates=[dataclasses.asdict(rates) for rates in class_rates],
        matrix=matrix,
        open_cell=_commonest_mistake(matrix)["id"],
        worst=worst_tiles,
        best=best_tiles,
        examples=examples,
        label_issues=label_issues,
        label_issues_left_out=metrics["curation"]["suspects"] - len(label_issues),
        shortcuts=[(ATTRIBUTES[name].title, share) for name, share in metrics["shortcuts"].items()],
        phrases=phrases_of(metrics),
        reliability_source=_judged_in_words(results, judged),
        sources=_sources(results.rows),
        credits=_credits(results),
        licence=origin.licence,
        facts=_facts(metrics, config, origin),
        plots=_draw_plots(results, judged, judged_probabilities, class_rates, origin.seconds),
        images=images.added,
    )
    write_context(run_folder, context)
    write_text(path, render_page(context))


class _Tiles:
    """Makes tiles of images, by their index in the results."""

    def __init__(self, results: Results, images: InlineImages) -> None:
        self.results = results
        self.images = images
        self.predicted = results.probabilities.argmax(axis=1)
        self.right = self.predicted == results.labels

    def tile(self, index: int, probabilities: Floats | None = None) -> Tile:
        """Return an image with what the model says of it, or with what these probabilities say."""
        row = self.results.rows[index]
        label = int(self.results.labels[index])
        if probabilities is None:
            probabilities = self.results.probabilities
        predicted = int(probabilities[index].argmax())
        return {
            "file": row.file,
            "image": self.images.thumbnail(row.file),
            "label": label,
            "predicted": predicted,
            "confidence": float(probabilities[index, predicted]),
            "right": predicted == label,
            "credit": row.credit,
            "link": _web_address(row.page_url),
        }

    def label_issues(self) -> list[LabelIssue]:
        """Return the most suspicious images."""
        issues: list[LabelIssue] = []
        for suspect in self.results.suspects[:_LABEL_ISSUES]:
            row = self.results.rows[suspect.index]
            issue: LabelIssue = {
                "tile": self.tile(suspect.index),
                "kind": suspect.kind,
                "score": suspect.score,
                "split": _SPLIT_TITLES[row.split],
                "suggested": suspect.suggested,
                "reason": suspect.reason,
            }
            issues.append(issue)
        return issues

    def confusion_matrix(self) -> list[list[Cell]]:
        """Return the confusion matrix with the images behind each cell.

        Mistakes come first into the inline images, should these reach their limit.
        """
        classes = range(len(self.results.metrics["per_class"]))
        cells = {}
        for label, predicted in itertools.permutations(classes, 2):
            cells[label, predicted] = self._cell(label, predicted)
        for label in classes:
            cells[label, label] = self._cell(label, label)
        matrix = []
        for label in classes:
            matrix.append([cells[label, predicted] for predicted in classes])
        return matrix

    def _cell(self, label: int, predicted: int) -> Cell:
        probabilities = self.results.judged_probabilities()
        likeliest = probabilities.argmax(axis=1)
        confidence = probabilities[:, predicted]
        behind = []
        for index in self.results.judged_indices():
            if self.results.labels[index] == label and likeliest[index] == predicted:
                behind.append(int(index))
        behind.sort(key=lambda index: -confidence[index])
        limit = _TILES_OF_HITS if label == predicted else _TILES_OF_MISTAKES
        tiles = [self.tile(index, probabilities) for index in behind[:limit]]
        confusion = judged_figures(self.results.metrics)["confusion"]
        of_label = sum(confusion["matrix"][label])
        return {
            "id": f"cell-{label}-{predicted}",
            "label": label,
            "predicted": predicted,
            "count": len(behind),
            "share": len(behind) / max(1, of_label),
            "tiles": tiles,
            "left_out": len(behind) - len(tiles),
        }


class _Explained:
    """Adds to tiles what explains the answer: class maps and the nearest learned images."""

    def __init__(
        self, tiles: _Tiles, run_folder: Path, predict: Predict, resize_side: int | None
    ) -> None:
        self._tiles = tiles
        self._results = tiles.results
        self._run_folder = run_folder
        self._predict = predict
        self._resize_side = resize_side
        self._learned = tiles.results.learned_indices()
        self._learned_embeddings = tiles.results.embeddings[self._learned]

    def worst_and_examples(
        self, progress: Progress
    ) -> tuple[list[ExplainedTile], list[list[ExplainedTile]]]:
        """Return the worst images and a few of each class.

        Of the worst, the mistakes have maps; the examples have maps, but no neighbours.
        """
        worst_indices = worst(self._results)
        example_indices = examples_of_each_class(self._results, EXAMPLES)
        mistakes = [index for index in worst_indices if not self._tiles.right[index]]
        to_explain = [*mistakes, *itertools.chain.from_iterable(example_indices)]
        maps = {}
        for done, index in enumerate(to_explain, 1):
            maps[index] = self._class_maps(index)
            progress(done, len(to_explain))

        worst_tiles = []
        for index in worst_indices:
            maps_of_mistake = maps[index] if index in mistakes else []
            worst_tiles.append(self._explained(index, maps_of_mistake, NEAREST))
        examples = []
        for indices in example_indices:
            of_class = [self._explained(index, maps[index], nearest=0) for index in indices]
            examples.append(of_class)
        return worst_tiles, examples

    def _explained(self, index: int, maps: list[ClassMap], nearest: int) -> ExplainedTile:
        tile = self._tiles.tile(index)
        embedding = self._results.embeddings[index]
        neighbours: list[Neighbour] = []
        for number, cosine in nearest_images(embedding, self._learned_embeddings, nearest):
            learned = self._tiles.tile(int(self._learned[number]))
            neighbours.append({"tile": learned, "cosine": cosine})
        return {"tile": tile, "maps": maps, "nearest": neighbours}

    def _class_maps(self, index: int) -> list[ClassMap]:
        """Return what spoke for the predicted class and, for a mistake, for the labelled one.

        Both are drawn in one scale, so that they can be compared.
        """
        file = self._results.rows[index].file
        try:
            image = read_image(self._run_folder / file)
        except BrokenImageError:  # deleted since it was learned from; the report can do without
            return []
        cams = np.asarray(self._predict(as_array(image)).cam, np.float64)
        classes = [int(self._tiles.predicted[index])]
        if not self._tiles.right[index]:
            classes.append(int(self._results.labels[index]))
        evidence_for = [evidence(cams, class_index) for class_index in classes]
        height = float(np.max(evidence_for))
        image.thumbnail((MAP_SIDE, MAP_SIDE), Image.Resampling.BICUBIC)
        maps: list[ClassMap] = []
        for class_index, values in zip(classes, evidence_for, strict=True):
            drawn = overlay(image, values, self._resize_side, height)
            name = self._tiles.images.class_map(file, class_index, drawn)
            maps.append({"image": name, "class_index": class_index})
        return maps


def _web_address(text: str) -> str:
    """Return the address if it leads to the web, else "".

    A link with any other scheme would run or open something on the reader's machine.
    """
    if text.lower().startswith(("http://", "https://")):
        return text
    return ""


def _commonest_mistake(matrix: Sequence[Sequence[Cell]]) -> Cell:
    """Return the cell of the commonest mistake, or of the commonest hit where there is none."""
    mistakes = []
    hits = []
    for cell in itertools.chain.from_iterable(matrix):
        if cell["label"] == cell["predicted"]:
            hits.append(cell)
        elif cell["count"]:
            mistakes.append(cell)
    return max(mistakes or hits, key=lambda cell: cell["count"])


def _class_rates(results: Results) -> list[plots.ClassRates]:
    """Return recall and precision of each class with their intervals."""
    judged = results.judged_indices()
    labels = results.labels[judged]
    predicted = results.judged_probabilities()[judged].argmax(axis=1)
    groups = np.array([results.rows[index].group for index in judged])
    right = predicted == labels
    rates = []
    figures = judged_figures(results.metrics)
    for class_index, (name, row) in enumerate(figures["per_class"].items()):
        labelled = labels == class_index
        called = predicted == class_index
        recall_interval = _interval_within(right, groups, labelled)
        precision_interval = _interval_within(right, groups, called)
        rates.append(
            plots.ClassRates(
                name, row["recall"], recall_interval, row["precision"], precision_interval
            )
        )
    return rates


def _interval_within(
    right: NDArray[np.bool_], groups: Labels, part: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return the interval of the share of right ones in a part of the images; all with none."""
    if not part.any():
        return (0.0, 1.0)
    return grouped_interval(right[part], groups[part])


def _judged(results: Results) -> tuple[NDArray[np.int64], Floats]:
    """Return the indices of the images that reliability is drawn from, and what was said of all.

    Where test images alone are judged and are few, all images of the splits are taken.
    """
    judged = results.judged_indices()
    if len(judged) < ECE_MINIMUM:
        judged = results.indices("train", "val", "test")
    return judged, results.judged_probabilities()


def _judged_in_words(results: Results, judged: NDArray[np.int64]) -> str:
    if all(results.rows[index].split == "test" for index in judged):
        return f"the {len(judged)} test pictures"
    return (
        f"all {len(judged)} pictures, each judged by a model that had not seen it,"
        " as too few are for testing alone"
    )


def _draw_plots(
    results: Results,
    judged: NDArray[np.int64],
    judged_probabilities: Floats,
    class_rates: Sequence[plots.ClassRates],
    seconds: Mapping[str, float],
) -> dict[str, str]:
    """Return the plots as SVG by name; those that have nothing to show are left out."""
    metrics = results.metrics
    probabilities = judged_probabilities[judged]
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == results.labels[judged]
    groups = np.array([results.rows[index].group for index in judged])
    novelty = results.novelty[results.indices("train", "val", "test")]
    phases = {_STAGE_TITLES.get(stage, stage): taken for stage, taken in seconds.items()}
    drawn = {
        "reliability": plots.reliability(confidence, right, groups),
        "classes": plots.class_bars(class_rates),
        "novelty": plots.novelty_histogram(novelty, metrics["reject_threshold"]),
        "phases": plots.phase_bars(phases),
    }
    if results.epochs:
        drawn["tuning"] = plots.tuning_curves(results.epochs)
    if metrics["learning_curve"]:
        drawn["learning"] = plots.learning_curve(metrics["learning_curve"])
    return drawn


def _sources(rows: Sequence[ImageRow]) -> list[tuple[str, str, int]]:
    """Return (source, licence, images) of all images in the splits, the commonest first."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.split:
            counts[row.source, row.license] += 1
    sources = []
    for (source, licence), count in sorted(counts.items()):
        sources.append((source or "not known", licence or "not known", count))
    sources.sort(key=lambda source: -source[2])
    return sources


def _credits(results: Results) -> list[ClassCredits]:
    """Return whom to thank, class by class, for images of which author or page is known."""
    by_class: list[ClassCredits] = []
    for name in results.metrics["per_class"]:
        by_class.append({"name": name, "credits": []})
    for row, label in zip(results.rows, results.labels, strict=True):
        link = _web_address(row.page_url)
        if row.split and (row.credit or link):
            credit: Credit = {"file": row.file, "credit": row.credit, "link": link}
            by_class[label]["credits"].append(credit)
    return by_class


def _facts(metrics: Metrics, config: RunConfig, origin: Origin) -> list[tuple[str, str]]:
    """Return how the model was trained: pairs of term and value."""
    split = metrics["split"]
    pictures = (
        f"{split['train']} for training, {split['val']} for validation,"
        f" {split['test']} for testing; no near-duplicates in two of them"
    )
    calibrated = (
        "by cross-validation"
        if metrics["delivered"] == "head"
        else "on pictures held out in its trial"
    )
    network = metrics["network"]
    tuning = counted(network["epochs"], "epoch") if network else "none"
    inverse_regularization = f"{metrics['regularisation']:g}"
    return [
        ("Delivered", _DELIVERED[metrics["delivered"]]),
        ("Backbone", origin.backbone),
        ("Pretrained weights", metrics["weights"]),
        ("What it looks at", metrics["view"]["sentence"]),
        ("Pictures", pictures),
        (
            "Inverse regularisation",
            f"C = {inverse_regularization} for the linear head, by cross-validation",
        ),
        ("Temperature", f"{metrics['temperature']:.3f}, {calibrated}"),
        ("Fine-tuning", tuning),
        ("Device", metrics["device"]),
        ("Precision", metrics["arithmetic"]),
        ("Seed", str(metrics["seed"])),
        ("Time budget", duration(config.time_budget_seconds or 0)),
        ("Time taken", duration(sum(origin.seconds.values()))),
    ]
