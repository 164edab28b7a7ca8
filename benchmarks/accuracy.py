"""How accurate a run's linear head is, how it bears wrong labels and pictures that do not belong.

    python -m benchmarks.accuracy [--features FOLDER] [--save FOLDER] [--beside FOLDER]

Sets of `benchmarks.image_sets`; features by efficientnet_lite0 with its trained weights. Each
picture is judged by a head that saw neither it nor a near-duplicate: five folds, cut anew in each
of the repetitions. Accuracies are balanced, in %. "±" is the standard error of the mean of the
paired differences, over groups of near-duplicate pictures: what other pictures would change.

- accuracy: learned from all of the four folds, from 20 pictures a class at most, and with every
  second class cut to a quarter; beside scikit-learn's ``LogisticRegression(max_iter=2000)`` on the
  same features, and with the whole of each picture (letterbox) beside the middle (crop), each
  alone and chosen by out-of-fold loss;
- labels: 0 to 30 % of the labels learned from are swapped. ``product`` is what a run does about it
  on its own, beside letting all count alike, a quarter of the weight for every suspect, and leaving
  out exactly the wrong ones; ``corrected`` the share of the loss that returns when the first 30 %
  of the ranking are corrected; ``AUROC`` how well the ranking by label-issue score finds them;
- strangers: 30 % pictures that do not belong are added to each class, the same kinds to all or
  another kind to each; refused are shares of pictures above the run's threshold: its own, and
  strangers of kinds that it never saw.

`--save` keeps the figures of each set and part, and takes those that it finds there instead of
computing them; `--beside` adds the difference to the figures that an earlier version saved.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.image_sets import ImageSet, MissingPackageError, Places, add_places, image_set
from benchmarks.paired import Measure, of_repetitions, plain, read, save, with_error
from training.fitting.label_issues import find_label_issues, label_issue_scores
from training.fitting.linear_head import FittedHead, LinearHead, Samples, fit_head
from training.fitting.relevance import out_of_fold_novelty, reject_threshold
from training.fitting.selection import HeadCandidate, SplitImages, train_head
from training.images.split import cut_folds
from training.metrics import Floats, Labels, log_loss, softmax
from training.networks.novelty import choose_references
from training.progress import no_progress
from training.run_folder import ImageRow, Split

PARTS = ("accuracy", "labels", "strangers")
SETS = ("stamps6", "background6", "alive_or_not", "clip2", "clip6", "fabric")
STRANGERS = ("strangers-stamps", "strangers-drawings", "strangers-signs", "strangers-scenes")
SETTINGS = ("all", "20 a class", "unequal")
SWAPPED = (0.0, 0.1, 0.2, 0.3)  # shares of the labels learned from
PLANTED = ("none", "same kinds", "a kind per class")
PLANTED_SHARE = 0.3  # of a class's own pictures
CHECKED = 0.3  # share of the ranking that is corrected
FEW = 20
FOLDS = 5
WANTED_AUROC = 0.95
WANTED_RETURN = 0.5
_VAL = 6  # one in six learned pictures is val, as in a run: 15 of 85 %

Figures = dict[str, Floats]
"""By name, of each picture held out [m]."""


@dataclass(frozen=True)
class Trial:
    """One fold of one repetition: indices of the pictures learned from and of those held out."""

    learned: Labels
    held_out: Labels
    seed: int


def trials(labels: Labels, groups: Labels, seed: int) -> Iterator[Trial]:
    """Yield five folds of pictures with labels [n] that keep groups [n] together."""
    for number, (learned, held_out) in enumerate(cut_folds(labels, groups, seed, FOLDS)):
        yield Trial(learned, held_out, 100 * seed + number)


def repeated(
    data: ImageSet, seeds: int, title: str, judge: Callable[[Trial], Figures]
) -> dict[str, Measure]:
    """Return what `judge` says of each picture, held out once in each repetition, as means."""
    sums: Figures = {}
    console = Console(stderr=True)
    for seed in track(range(seeds), title, console=console, transient=True):
        for one in trials(data.labels, data.groups, seed):
            for name, values in judge(one).items():
                total = sums.setdefault(name, np.zeros(len(data.labels)))
                total[one.held_out] += values / seeds
    return {name: Measure(total, data.labels, data.groups) for name, total in sums.items()}


def right(head: LinearHead, held_out: Samples) -> Floats:
    """Return 1 for each picture [m] that is named right, else 0."""
    predicted = head.logits(held_out.embeddings).argmax(axis=1)
    hits: Floats = (predicted == held_out.labels).astype(np.float64)
    return hits


def accuracy_part(data: ImageSet, seeds: int) -> dict[str, Measure]:
    """Return the accuracies by setting, view and model."""
    crop = data.samples()
    letterbox = data.samples(letterbox=True)
    measures = {}
    for setting in SETTINGS:

        def judge(one: Trial, setting: str = setting) -> Figures:
            learned = one.learned[taken(data.labels[one.learned], setting, one.seed)]
            by_crop = fit_head(crop.take(learned), one.seed, no_progress)
            by_letterbox = fit_head(letterbox.take(learned), one.seed, no_progress)
            middle = right(by_crop.head, crop.take(one.held_out))
            whole = right(by_letterbox.head, letterbox.take(one.held_out))
            labels = data.labels[learned]
            whole_is_better = _loss(by_letterbox, labels) < _loss(by_crop, labels)
            reference = LogisticRegression(max_iter=2000)
            reference.fit(crop.embeddings[learned], labels)
            named = reference.predict(crop.embeddings[one.held_out])
            return {
                "crop": middle,
                "letterbox": whole,
                "chosen": whole if whole_is_better else middle,
                "sklearn": (named == data.labels[one.held_out]).astype(np.float64),
            }

        found = repeated(data, seeds, f"{data.name}, {setting}", judge)
        measures.update({f"{setting}/{name}": measure for name, measure in found.items()})
    return measures


def taken(labels: Labels, setting: str, seed: int) -> Labels:
    """Return indices [m] of the pictures with labels [n] that a setting learns from."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    kept = []
    for number, label in enumerate(np.unique(labels)):
        of_class = order[labels[order] == label]
        most = len(of_class)
        if setting == "20 a class":
            most = FEW
        if setting == "unequal" and number % 2:
            most = max(5, len(of_class) // 4)
        kept.append(of_class[:most])
    return np.sort(np.concatenate(kept))


def _loss(fitted: FittedHead, labels: Labels) -> float:
    return log_loss(fitted.out_of_fold / fitted.temperature, labels)


def as_run(samples: Samples, seed: int) -> SplitImages:
    """Return pictures as a run has them that learns from all: one in six is val."""
    _, val = cut_folds(samples.labels, samples.groups, seed, _VAL)[0]
    in_val = set(val.tolist())
    rows = []
    for index, label in enumerate(samples.labels):
        split: Split = "val" if index in in_val else "train"
        group = int(samples.groups[index])
        row = ImageRow(f"images/{index}.jpg", f"c{label + 1:03d}", "", group=group)
        rows.append(replace(row, split=split))
    count = len(rows)
    return SplitImages(
        rows=rows,
        embeddings=samples.embeddings,
        labels=samples.labels,
        groups=samples.groups,
        statistics=np.zeros((count, 0), np.float32),
        manifest_indices=np.arange(count),
        manifest=rows,
        classes=samples.classes,
        seed=seed,
    )


def labels_part(data: ImageSet, seeds: int, letterbox: bool) -> dict[str, Measure]:
    """Return accuracies and rankings by the share of labels that were swapped."""
    everything = data.samples(letterbox)
    measures = {}
    for share in SWAPPED:
        aurocs: list[float] = []
        acted: list[float] = []

        def judge(
            one: Trial,
            share: float = share,
            aurocs: list[float] = aurocs,
            acted: list[float] = acted,
        ) -> Figures:
            truth = everything.take(one.learned)
            held_out = everything.take(one.held_out)
            wrong = swapped(truth, share, one.seed)
            given = replace(truth, labels=wrong_labels(truth, wrong, one.seed))
            candidate = train_head(as_run(given, one.seed), no_progress, lambda: True)
            is_suspect = find_label_issues(candidate.pred_probs, given.labels)
            ranking = label_issue_scores(candidate.pred_probs, given.labels)
            acted.append(float(candidate.weighting.lighter > 0))
            if share:
                aurocs.append(float(roc_auc_score(wrong, ranking)))
            order = np.argsort(-ranking, kind="stable")
            checked = order[: round(CHECKED * len(order))]
            corrected = given.labels.copy()
            corrected[checked] = truth.labels[checked]
            variants = {
                "as is": (given, None),
                "quarter": (given, np.where(is_suspect, 0.25, 1.0)),
                "oracle": (given, np.where(wrong, 0.0, 1.0)),
                "corrected": (replace(truth, labels=corrected), None),
            }
            figures = {"product": right(candidate.fitted.head, held_out)}
            for name, (samples, weights) in variants.items():
                fitted = fit_head(samples, one.seed, no_progress, weights=weights)
                figures[name] = right(fitted.head, held_out)
            return figures

        title = f"{share:.0%}"
        found = repeated(data, seeds, f"{data.name}, {title} swapped", judge)
        measures.update({f"{title}/{name}": measure for name, measure in found.items()})
        measures[f"{title}/acted"] = of_repetitions(acted)
        if aurocs:
            measures[f"{title}/AUROC"] = of_repetitions(aurocs)
    return measures


def swapped(samples: Samples, share: float, seed: int) -> NDArray[np.bool_]:
    """Return whose label [n] is made wrong."""
    random = np.random.default_rng(seed)
    wrong = np.zeros(len(samples.labels), np.bool_)
    wrong[random.permutation(len(wrong))[: round(share * len(wrong))]] = True
    return wrong


def wrong_labels(samples: Samples, wrong: NDArray[np.bool_], seed: int) -> Labels:
    """Return the labels [n], another than its own for each that is to be wrong."""
    random = np.random.default_rng([seed, 1])
    steps = random.integers(1, samples.classes, len(wrong))
    others = (samples.labels + steps) % samples.classes
    return np.where(wrong, others, samples.labels)


def strangers_part(
    data: ImageSet, strangers: Mapping[str, ImageSet], seeds: int, letterbox: bool
) -> dict[str, Measure]:
    """Return accuracies and refusals by how strangers were planted in the classes."""
    everything = data.samples(letterbox)
    planted_set = "strangers-drawings" if data.name.startswith("clip") else "strangers-stamps"
    kinds = strangers[planted_set].samples(letterbox)
    measures: dict[str, Measure] = {}
    for planted in PLANTED:
        refused: dict[str, Floats] = {}

        def judge(
            one: Trial, planted: str = planted, refused: dict[str, Floats] = refused
        ) -> Figures:
            clean = everything.take(one.learned)
            learned = planted_in(clean, kinds, planted, one.seed)
            held_out = everything.take(one.held_out)
            candidate = train_head(as_run(learned, one.seed), no_progress, lambda: True)
            gate = Gate(candidate, learned, one.seed)
            for name, of_kind in strangers.items():
                said = gate.refuses(of_kind.samples(letterbox).embeddings)
                total = refused.setdefault(name, np.zeros(len(said)))
                total += said / (seeds * FOLDS)
            return {
                "right": right(candidate.fitted.head, held_out),
                "false alarms": gate.refuses(held_out.embeddings),
            }

        found = repeated(data, seeds, f"{data.name}, strangers: {planted}", judge)
        measures.update({f"{planted}/{name}": measure for name, measure in found.items()})
        for name, total in refused.items():
            if planted != "none" and name == planted_set:
                continue  # it has learned from some of them
            of_kind = strangers[name]
            measure = Measure(total, np.zeros(len(total), np.int64), of_kind.groups)
            measures[f"{planted}/{name}"] = measure
    return measures


def planted_in(clean: Samples, kinds: Samples, planted: str, seed: int) -> Samples:
    """Return the pictures with strangers added to each class.

    `kinds` are strangers with their kind as label; class k gets kind k where each has its own.
    """
    if planted == "none":
        return clean
    random = np.random.default_rng([seed, 2])
    order = random.permutation(len(kinds.labels))
    chosen: list[int] = []
    labels: list[int] = []
    free = order.tolist()
    for label in range(clean.classes):
        wanted = round(PLANTED_SHARE * int((clean.labels == label).sum()))
        fitting = free
        if planted == "a kind per class":
            kind = label % kinds.classes
            fitting = [index for index in free if kinds.labels[index] == kind]
        taken_now = fitting[:wanted]
        free = [index for index in free if index not in set(taken_now)]
        chosen += taken_now
        labels += [label] * len(taken_now)
    first = int(clean.groups.max()) + 1
    return Samples(
        embeddings=np.concatenate([clean.embeddings, kinds.embeddings[chosen]]),
        labels=np.concatenate([clean.labels, labels]).astype(np.int64),
        groups=np.concatenate([clean.groups, first + kinds.groups[chosen]]).astype(np.int64),
        classes=clean.classes,
    )


class Gate:
    """A run's refusal: novelty above the threshold that it set."""

    def __init__(self, candidate: HeadCandidate, learned: Samples, seed: int) -> None:
        fitted = candidate.fitted
        self.fitted = fitted
        self.references = choose_references(
            learned.embeddings, learned.labels, learned.classes, seed
        )
        unseen = softmax(fitted.out_of_fold / fitted.temperature)
        novelty = out_of_fold_novelty(learned, unseen, seed)
        self.threshold = reject_threshold(novelty[candidate.ordinary])

    def refuses(self, embeddings: NDArray[np.float32]) -> Floats:
        """Return 1 for each picture [n] that is refused, else 0."""
        logits = self.fitted.head.logits(embeddings) / self.fitted.temperature
        novelty = self.references.novelty(embeddings, softmax(logits))
        refused: Floats = (novelty > self.threshold).astype(np.float64)
        return refused


Results = Mapping[str, Mapping[str, Measure]]
"""Figures by the name of the set."""


def accuracy_table(results: Results, earlier: Results) -> Table:
    """Return accuracies beside scikit-learn, and both views."""
    headings = ("ours", "− sklearn", "letterbox − crop", "chosen − crop")
    table = _table("balanced accuracy", headings, earlier)
    for name, measures in results.items():
        for setting in SETTINGS:
            crop = measures[f"{setting}/crop"]
            cells = [
                plain(crop),
                with_error(crop.minus(measures[f"{setting}/sklearn"])),
                with_error(measures[f"{setting}/letterbox"].minus(crop)),
                with_error(measures[f"{setting}/chosen"].minus(crop)),
            ]
            table.add_row(f"{name}, {setting}", *cells, *_change(earlier, name, setting, crop))
    table.add_row("wanted", "", "≥ −2 se", "", "")
    return table


def labels_table(results: Results, earlier: Results) -> Table:
    """Return what wrong labels cost, and what brings it back."""
    headings = ("as is", "product", "acts in", "quarter", "oracle", "corrected", "AUROC")
    table = _table("labels swapped: as is, and difference to it", headings, earlier)
    for name, measures in results.items():
        clean = measures["0%/as is"]
        for share in SWAPPED:
            title = f"{share:.0%}"
            as_is = measures[f"{title}/as is"]
            product = measures[f"{title}/product"]
            back = measures[f"{title}/corrected"].minus(as_is).mean
            lost = clean.minus(as_is).mean
            auroc = measures.get(f"{title}/AUROC")
            cells = [
                plain(as_is),
                with_error(product.minus(as_is)),
                f"{measures[f'{title}/acted'].mean:.0%}",
                with_error(measures[f"{title}/quarter"].minus(as_is)),
                with_error(measures[f"{title}/oracle"].minus(as_is)),
                f"{back / lost:.0%}" if lost > 0 else "nothing lost",
                f"{auroc.mean:.3f}" if auroc else "",
            ]
            table.add_row(f"{name}, {title}", *cells, *_change(earlier, name, title, product))
    limits = ("", "", "", "", "", f"≥ {WANTED_RETURN:.0%}", f"≥ {WANTED_AUROC}")
    table.add_row("wanted", *limits)
    return table


def strangers_table(results: Results, earlier: Results) -> Table:
    """Return accuracies with strangers planted, and what is refused."""
    kinds = [name.removeprefix("strangers-") for name in STRANGERS]
    headings = ("right", "− none planted", "false alarms", *kinds)
    table = _table("strangers: refused, in %", headings, earlier)
    for name, measures in results.items():
        clean = measures["none/right"]
        for planted in PLANTED:
            figures = measures[f"{planted}/right"]
            cells = [
                plain(figures),
                with_error(figures.minus(clean)),
                plain(measures[f"{planted}/false alarms"]),
            ]
            for kind in STRANGERS:
                refused = measures.get(f"{planted}/{kind}")
                cells.append(plain(refused) if refused else "")
            table.add_row(f"{name}, {planted}", *cells, *_change(earlier, name, planted, figures))
    return table


def _table(title: str, headings: Sequence[str], earlier: Results) -> Table:
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    if earlier:
        table.add_column("since then", justify="right")
    return table


# what a version is judged by, in each part
_JUDGED_BY = ("crop", "product", "right")


def _change(earlier: Results, name: str, row: str, now: Measure) -> list[str]:
    """Return the cell of the difference to an earlier version, if that has the row."""
    measures = earlier.get(name, {})
    for figure in _JUDGED_BY:
        before = measures.get(f"{row}/{figure}")
        if before:
            return [with_error(now.minus(before))]
    return []


def read_all(folder: Path | None, part: str) -> Results:
    """Return what an earlier version saved of a part."""
    if folder is None:
        return {}
    results = {}
    for path in sorted(folder.glob(f"{part}-*.npz")):
        results[path.stem.removeprefix(f"{part}-")] = read(path)
    return results


class Bench:
    """The sets, their features, and the figures computed so far."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.places = Places(given.stamps, given.drawings, given.nature)
        self.strangers: dict[str, ImageSet] = {}
        if "strangers" in (given.only or PARTS):
            for name in STRANGERS:
                found = self.find(name)
                if found:
                    self.strangers[name] = found

    def find(self, name: str) -> ImageSet | None:
        """Return the set; says which package is missing, and returns None, where one is."""
        try:
            return image_set(name, self.places, self.given.features)
        except MissingPackageError as error:
            print(f"{name} is left out: {error}")
            return None

    def measure(self, part: str, data: ImageSet) -> dict[str, Measure]:
        """Return the figures of a part and a set, computed or as saved before."""
        path = None
        if self.given.save:
            path = self.given.save / f"{part}-{data.name}.npz"
            if path.exists():
                return read(path)
        is_letterbox = self.given.view == "letterbox"
        if part == "accuracy":
            measures = accuracy_part(data, self.given.seeds)
        elif part == "labels":
            measures = labels_part(data, self.given.seeds, is_letterbox)
        else:
            measures = strangers_part(data, self.strangers, self.given.seeds, is_letterbox)
        if path:
            save(measures, path)
        return measures


def main() -> None:
    """Print a table of each part."""
    parser = argparse.ArgumentParser(
        description="Measures the linear head's accuracy, and how it bears what is wrong."
    )
    parser.add_argument("--seeds", type=int, default=4, help="repetitions of five folds (4)")
    parser.add_argument("--sets", nargs="+", default=SETS, help="of benchmarks.image_sets")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part alone")
    parser.add_argument(
        "--view",
        choices=("crop", "letterbox"),
        default="crop",
        help="that labels and strangers are measured with (crop)",
    )
    parser.add_argument("--features", type=Path, metavar="FOLDER", help="kept between runs")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep the figures here")
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="of an earlier version")
    add_places(parser)
    given = parser.parse_args()
    bench = Bench(given)
    console = Console(width=140)
    tables = {"accuracy": accuracy_table, "labels": labels_table, "strangers": strangers_table}
    found = [data for name in given.sets if (data := bench.find(name))]
    for part in given.only or PARTS:
        results = {data.name: bench.measure(part, data) for data in found}
        console.print(tables[part](results, read_all(given.beside, part)))


if __name__ == "__main__":
    main()
