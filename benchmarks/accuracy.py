"""How accurate the linear head is beside plain scikit-learn, and how well it bears wrong labels.

Three pairs of photograph sets, features by efficientnet_lite0 with its trained weights, ten seeds,
each with a split of its own that keeps near-duplicates together. The reference is
``LogisticRegression(max_iter=2000)`` as it comes, on the same features and split. Figures are
balanced accuracies on test, in percent, as means over the seeds; `se` is the standard error of the
mean of the paired differences.

Then 20 % of the labels of train and val are swapped. ``AUROC`` is how well the ranking by
label-issue score finds them; ``lost`` the accuracy that they cost, ``returned`` the share of it
that comes back when the first 30 % of the ranking are checked and corrected (here by the true
labels), ``weighting`` what letting suspects count less on its own does where cross-validation
advises it, with the swapped labels and, in the column before, with the right ones.
"""

import argparse
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.photographs import PAIRS, photographs
from training.duplicates import fingerprint
from training.fitting.label_issues import (
    SampleWeighting,
    choose_weighting,
    label_issue_scores,
    out_of_fold_probabilities,
)
from training.fitting.linear_head import FittedHead, LinearHead, Samples, fit_head
from training.images.decode import read_image
from training.images.split import (
    assign_groups,
    find_near_duplicates,
    indices_in,
    split_rows,
)
from training.metrics import Floats, Labels, balanced_accuracy
from training.networks.backbones import BACKBONES, load_backbone
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.networks.weights import WeightSources
from training.progress import no_progress
from training.run_folder import ClassLabel, ImageRow, RunConfig

SWAPPED = 0.2  # share of the learned labels
CHECKED = 0.3  # share of the ranking that is corrected
WANTED_AUROC = 0.95
WANTED_RETURN = 0.5
_BATCH = 16


@dataclass(frozen=True)
class Photographs:
    """The images of two classes, as a run would know them."""

    names: str
    config: RunConfig
    rows: list[ImageRow]
    samples: Samples


@dataclass(frozen=True)
class Scores:
    """One seed. All but the AUROC are balanced accuracies on its test images."""

    ours: float
    reference: float
    weighted: float
    noisy: float
    corrected: float
    noisy_weighted: float
    auroc: float


@dataclass(frozen=True)
class Trial:
    """One split of the images: those learned from, and those tested on."""

    learned: Samples
    in_train: NDArray[np.bool_]
    """[n]: whether a learned image stands in train, not in val."""
    test: Samples
    seed: int

    def fit(self, labels: Labels, weights: Floats | None = None) -> FittedHead:
        """Fit Picaisso's head on the learned images with these labels [n] and weights [n]."""
        samples = replace(self.learned, labels=labels)
        return fit_head(samples, self.seed, no_progress, weights=weights)

    def score(self, head: LinearHead) -> float:
        """Return the balanced accuracy on test."""
        predicted = head.logits(self.test.embeddings).argmax(axis=1)
        return balanced_accuracy(predicted, self.test.labels)

    def reference(self) -> float:
        """Return the same of plain scikit-learn."""
        model = LogisticRegression(max_iter=2000)
        model.fit(self.learned.embeddings, self.learned.labels)
        predicted = model.predict(self.test.embeddings)
        return balanced_accuracy(predicted, self.test.labels)

    def weighting(self, labels: Labels, c: float) -> tuple[Floats, SampleWeighting]:
        """Return out-of-fold probabilities [n, classes], and how much each image shall count."""
        samples = replace(self.learned, labels=labels)
        pred_probs = out_of_fold_probabilities(samples, c, self.seed)
        return pred_probs, choose_weighting(samples, pred_probs, self.in_train, c, self.seed)

    def swapped(self) -> NDArray[np.bool_]:
        """Return whose label [n] is made wrong."""
        random = np.random.default_rng(self.seed)
        wrong = np.zeros(len(self.learned.labels), np.bool_)
        count = round(SWAPPED * len(wrong))
        wrong[random.permutation(len(wrong))[:count]] = True
        return wrong

    def scores(self) -> Scores:
        """Return everything about this split."""
        truth = self.learned.labels
        clean = self.fit(truth)
        _, clean_weighting = self.weighting(truth, clean.c)
        wrong = self.swapped()
        labels = np.where(wrong, 1 - truth, truth)
        noisy = self.fit(labels)
        pred_probs, noisy_weighting = self.weighting(labels, noisy.c)
        ranking = label_issue_scores(pred_probs, labels)
        order = np.argsort(-ranking, kind="stable")
        checked = order[: round(CHECKED * len(labels))]
        corrected = labels.copy()
        corrected[checked] = truth[checked]
        return Scores(
            ours=self.score(clean.head),
            reference=self.reference(),
            weighted=self.score(self.fit(truth, clean_weighting.weights).head),
            noisy=self.score(noisy.head),
            corrected=self.score(self.fit(corrected).head),
            noisy_weighted=self.score(self.fit(labels, noisy_weighting.weights).head),
            auroc=float(roc_auc_score(wrong, ranking)),
        )


def described(classes: Mapping[str, Sequence[str]], network: ClassifierNetwork) -> Photographs:
    """Return features, near-duplicate groups and manifest rows of the photographs of classes."""
    class_labels = []
    labels = []
    rows = []
    for number, (name, folders) in enumerate(classes.items()):
        label = ClassLabel(f"c{number + 1:03d}", name)
        class_labels.append(label)
        for path in photographs(folders):
            labels.append(number)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append(ImageRow(str(path), label.id, sha256))
    images = [read_image(Path(row.file)) for row in rows]
    batches = []
    for start in range(0, len(images), _BATCH):
        batches.append(embed_images(network, images[start : start + _BATCH]))
    embeddings = np.concatenate(batches)
    fingerprints = [fingerprint(image) for image in images]
    duplicates = find_near_duplicates(range(len(images)), fingerprints, embeddings)
    rows = assign_groups(rows, duplicates)
    groups = np.array([row.group for row in rows])
    samples = Samples(embeddings, np.array(labels), groups, len(classes))
    config = RunConfig(classes=tuple(class_labels))
    return Photographs(" / ".join(classes), config, rows, samples)


def trial(photos: Photographs, seed: int) -> Trial:
    """Split the photographs with this seed."""
    rows = split_rows(replace(photos.config, seed=seed), photos.rows)
    learned = indices_in(rows, ("train", "val"))
    train = indices_in(rows, ("train",))
    test = indices_in(rows, ("test",))
    samples = photos.samples
    return Trial(samples.take(learned), np.isin(learned, train), samples.take(test), seed)


def network() -> ClassifierNetwork:
    """Return the bundled backbone with its trained weights."""
    sources = WeightSources(None, Path(), "")
    loaded = load_backbone(BACKBONES["efficientnet_lite0"], "pretrained", sources)
    return ClassifierNetwork(loaded.backbone, loaded.network, 2)


def measured(seeds: int) -> Iterator[tuple[Photographs, list[Scores]]]:
    """Yield each pair of sets with the scores of its seeds."""
    bundled = network()
    console = Console(stderr=True)
    for classes in PAIRS:
        photos = described(classes, bundled)
        tracked = track(range(seeds), photos.names, console=console, transient=True)
        yield photos, [trial(photos, seed).scores() for seed in tracked]


def table(results: Sequence[tuple[Photographs, list[Scores]]], seeds: int) -> Table:
    """Return the one table."""
    result = Table(title=f"balanced accuracy on test in %, means of {seeds} seeds")
    result.add_column("", no_wrap=True)
    headings = (
        "ours",
        "sklearn",
        "difference, se",
        "weighting",
        "AUROC",
        "lost",
        "returned",
        "weighting, noisy",
    )
    for heading in headings:
        result.add_column(heading, justify="right")
    for photos, scores in results:
        result.add_row(f"{photos.names} ({len(photos.rows)})", *_cells(scores))
    result.add_section()
    result.add_row("all", *_cells([one for _, scores in results for one in scores]))
    limits = ("", "", "≥ −2 se", "≥ 0", f"≥ {WANTED_AUROC}", "", f"≥ {WANTED_RETURN:.0%}", "≥ 0")
    result.add_row("wanted", *limits)
    return result


def _cells(scores: Sequence[Scores]) -> tuple[str, ...]:
    columns = {}
    for field in fields(Scores):
        columns[field.name] = np.array([getattr(one, field.name) for one in scores])
    lost = columns["ours"] - columns["noisy"]
    back = columns["corrected"] - columns["noisy"]
    return (
        f"{100 * columns['ours'].mean():.1f}",
        f"{100 * columns['reference'].mean():.1f}",
        _with_error(columns["ours"] - columns["reference"]),
        _with_error(columns["weighted"] - columns["ours"]),
        f"{columns['auroc'].mean():.3f}",
        f"{100 * lost.mean():.1f}",
        f"{back.mean() / lost.mean():.0%}" if lost.mean() > 0 else "nothing lost",
        _with_error(columns["noisy_weighted"] - columns["noisy"]),
    )


def _with_error(differences: NDArray[np.float64]) -> str:
    error = math.nan
    if len(differences) > 1:
        error = differences.std(ddof=1) / math.sqrt(len(differences))
    return f"{100 * differences.mean():+.1f}, {100 * error:.1f}"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description="Compares the linear head's accuracy with plain scikit-learn's."
    )
    parser.add_argument("--seeds", type=int, default=10, help="splits of each pair (10)")
    given = parser.parse_args()
    Console(width=120).print(table(list(measured(given.seeds)), given.seeds))


if __name__ == "__main__":
    main()
