"""How often the verdict is right, and how far the headline moves, before and after version 0.2.

Before: a binomial test of the accuracy on the test images against the share of their largest class,
p < 0.01, as in version 0.1.0. After: a test of association on cross-validated predictions of all
images (of the test images alone from 100 on), as `training.metrics.judge` decides today. Features
by efficientnet_lite0 with its trained weights; each run draws its images and its split anew.
Near-duplicates are grouped as in a real run, but for the noise, whose images are drawn apart.

- noise: images of coloured noise whose classes are drawn by lot; what is called better is a false
  alarm;
- easy: woven fabric, drawn by formula; that of the second class is woven more coarsely all over;
- unequal: of the photographs, one class four to seven times as large as the other;
- weak: all photographs, with a share of the labels drawn by lot, so that the model is right in
  about two of three;
- spread: standard deviation over the seeds of the accuracy that stands first, on the photographs.

Shares of runs have their standard errors beside them.
"""

import argparse
import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import binomtest  # type: ignore[import-untyped]

from benchmarks.fabric import SIDE, fabric
from benchmarks.image_sets import network
from benchmarks.photographs import ALIVE_OR_NOT, PAIRS, described
from training.duplicates import fingerprint
from training.evaluation.cross_validation import TEST_IMAGES_ENOUGH, cross_validate, judged_by
from training.fitting.linear_head import Samples, fit_head
from training.images.split import find_near_duplicates, indices_in, split_rows
from training.metrics import Judged, judge
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.progress import no_progress
from training.run_folder import SPLITS, ClassLabel, ImageRow, RunConfig

PARTS = ("noise", "easy", "unequal", "weak", "spread")
# Images of a class, classes.
NOISE_SIZES = ((9, 2), (20, 2), (60, 2), (100, 2), (9, 4), (20, 4), (60, 4), (100, 4))
NOISE_IMAGES = 420
EASY_PER_CLASS = 20
EASY_IMAGES = 160  # of each class, of which each run draws some
UNEQUAL = ((60, 9), (90, 22))  # images of each class
WEAK = (0.5, 0.6)  # share of the labels drawn by lot
BEFORE_P = 0.01
_BATCH = 16


@dataclass(frozen=True)
class Run:
    """One seed: whether both rules call the model better, and the accuracies that stand first."""

    before: bool
    after: bool
    denied: bool
    """Whether the rule of today says that it is no better than guessing."""
    test_accuracy: float
    accuracy: float


def run(samples: Samples, seed: int) -> Run:
    """Split the images, fit the head, and judge it by both rules."""
    rows = _rows(samples, seed)
    learned = samples.take(indices_in(rows, ("train", "val")))
    test = samples.take(indices_in(rows, ("test",)))
    fitted = fit_head(learned, seed, no_progress)
    predicted = fitted.head.logits(test.embeddings).argmax(axis=1)
    hits = int((predicted == test.labels).sum())
    tested = len(test.labels)
    largest = int(np.bincount(test.labels).max())
    chance = binomtest(hits, tested, largest / tested, alternative="greater")
    on_test = Judged(predicted, test.labels, test.groups, test.classes)
    everything = samples.take(indices_in(rows, SPLITS))
    if tested < TEST_IMAGES_ENOUGH:
        validation = cross_validate(everything, fitted.c, seed, no_progress)
        evidence = judged_by(validation, everything)
        verdict = judge(evidence, evidence, seed)
    else:
        evidence = on_test
        said = np.concatenate([fitted.out_of_fold.argmax(axis=1), predicted])
        order = np.concatenate([indices_in(rows, ("train", "val")), indices_in(rows, ("test",))])
        all_images = samples.take(order)
        judged = Judged(said, all_images.labels, all_images.groups, samples.classes)
        verdict = judge(evidence, judged, seed)
    return Run(
        before=bool(chance.pvalue < BEFORE_P),
        after=verdict == "better",
        denied=verdict == "no_better",
        test_accuracy=hits / tested,
        accuracy=float(evidence.right.mean()),
    )


def _rows(samples: Samples, seed: int) -> list[ImageRow]:
    """Return rows of a manifest with their split."""
    labels = []
    for number in range(samples.classes):
        labels.append(ClassLabel(f"c{number + 1:03d}", f"class {number + 1}"))
    rows = []
    for index, label in enumerate(samples.labels):
        digest = hashlib.sha256(f"{seed} {index}".encode()).hexdigest()
        group = int(samples.groups[index])
        row = ImageRow(f"images/{index}.jpg", labels[label].id, digest, group=group)
        rows.append(row)
    return split_rows(RunConfig(classes=tuple(labels), seed=seed), rows)


def noise(count: int) -> Iterator[Image.Image]:
    """Yield images of coloured noise, each of a grain and colours of its own."""
    random = np.random.default_rng(0)
    for _ in range(count):
        grain = int(random.integers(4, 33))
        colours = random.integers(0, 256, (grain, grain, 3), dtype=np.uint8)
        yield Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def embedded(
    images: Sequence[Image.Image], labels: NDArray[np.int64], bundled: ClassifierNetwork
) -> Samples:
    """Return embeddings and labels of images, each a near-duplicate group of its own."""
    batches = []
    for start in range(0, len(images), _BATCH):
        batches.append(embed_images(bundled, list(images[start : start + _BATCH])))
    groups = np.arange(len(images))
    return Samples(np.concatenate(batches), labels, groups, int(labels.max()) + 1)


def without_near_duplicates(images: Sequence[Image.Image], everything: Samples) -> Samples:
    """Return one image of each near-duplicate group.

    What is drawn by lot must be enough to train and test on.
    """
    fingerprints = [fingerprint(image) for image in images]
    indices = range(len(images))
    duplicates = find_near_duplicates(indices, fingerprints, everything.embeddings)
    groups = [duplicates.groups[index] for index in indices]
    _, different = np.unique(groups, return_index=True)
    return everything.take(np.sort(different))


def drawn(samples: Samples, counts: Sequence[int], seed: int) -> Samples:
    """Return so many images of each class, drawn by lot."""
    random = np.random.default_rng(seed)
    chosen = []
    for label, count in enumerate(counts):
        of_class = np.flatnonzero(samples.labels == label)
        chosen.append(random.permutation(of_class)[:count])
    return samples.take(np.sort(np.concatenate(chosen)))


def noise_runs(bundled: ClassifierNetwork, runs: int) -> Iterator[tuple[str, list[Run]]]:
    """Yield each size of the noise with its runs."""
    images = list(noise(NOISE_IMAGES))
    everything = embedded(images, np.zeros(len(images), np.int64), bundled)
    for per_class, classes in NOISE_SIZES:
        title = f"noise, {classes} classes of {per_class}"
        done = []
        for seed in _tracked(runs, title):
            random = np.random.default_rng([seed, per_class, classes])
            shuffled = random.permutation(len(everything.labels))
            chosen = np.sort(shuffled[: per_class * classes])
            labels = random.permutation(np.arange(per_class * classes) % classes)
            picked = everything.take(chosen)
            done.append(run(Samples(picked.embeddings, labels, picked.groups, classes), seed))
        yield title, done


def easy_runs(bundled: ClassifierNetwork, runs: int) -> Iterator[tuple[str, list[Run]]]:
    """Yield the fabric with its runs."""
    images = [*fabric(EASY_IMAGES, coarse=False), *fabric(EASY_IMAGES, coarse=True)]
    labels = np.repeat([0, 1], EASY_IMAGES)
    everything = without_near_duplicates(images, embedded(images, labels, bundled))
    title = f"fabric, 2 classes of {EASY_PER_CLASS}"
    counts = (EASY_PER_CLASS, EASY_PER_CLASS)
    yield title, [run(drawn(everything, counts, seed), seed) for seed in _tracked(runs, title)]


def unequal_runs(bundled: ClassifierNetwork, runs: int) -> Iterator[tuple[str, list[Run]]]:
    """Yield photographs in unequal classes with their runs."""
    everything = described(ALIVE_OR_NOT, bundled)
    for counts in UNEQUAL:
        title = f"{everything.names}, {counts[0]} and {counts[1]}"
        done = []
        for seed in _tracked(runs, title):
            done.append(run(drawn(everything.samples, counts, seed), seed))
        yield title, done


def weak_runs(bundled: ClassifierNetwork, runs: int) -> Iterator[tuple[str, list[Run]]]:
    """Yield photographs with many labels drawn by lot with their runs."""
    everything = described(ALIVE_OR_NOT, bundled)
    count = len(everything.samples.labels)
    for share in WEAK:
        title = f"{everything.names}, {share:.0%} of labels by lot"
        done = []
        for seed in _tracked(runs, title):
            random = np.random.default_rng([seed, round(100 * share)])
            by_lot = random.random(count) < share
            drawn_labels = random.integers(0, everything.samples.classes, count)
            labels = np.where(by_lot, drawn_labels, everything.samples.labels)
            done.append(run(dataclasses.replace(everything.samples, labels=labels), seed))
        yield title, done


def spread_runs(bundled: ClassifierNetwork, runs: int) -> Iterator[tuple[str, list[Run]]]:
    """Yield each set of photographs with its runs, which differ in their split alone."""
    sets: Sequence[Mapping[str, Sequence[str]]] = (*PAIRS, ALIVE_OR_NOT)
    for classes in sets:
        photos = described(classes, bundled)
        title = f"{photos.names} ({len(photos.rows)})"
        yield title, [run(photos.samples, seed) for seed in _tracked(runs, title)]


def _tracked(runs: int, title: str) -> Iterator[int]:
    yield from track(range(runs), title, console=Console(stderr=True), transient=True)


def _empty_table(title: str, headings: Sequence[str]) -> Table:
    """Return a table with a column for the rows' names before the figures'."""
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def verdict_table(results: Sequence[tuple[str, list[Run]]]) -> Table:
    """Return how often each rule calls models better."""
    headings = ("runs", "before", "after", "called no better, after")
    table = _empty_table("runs called better than guessing, in % (standard error)", headings)
    for title, runs in results:
        table.add_row(
            title,
            str(len(runs)),
            _share([one.before for one in runs]),
            _share([one.after for one in runs]),
            _share([one.denied for one in runs]),
        )
    return table


def spread_table(results: Sequence[tuple[str, list[Run]]]) -> Table:
    """Return mean and standard deviation of both headlines."""
    title = "the first figure in %: mean, standard deviation over seeds (its error)"
    table = _empty_table(title, ("seeds", "test alone", "cross-validated"))
    for name, runs in results:
        table.add_row(
            name,
            str(len(runs)),
            _spread([one.test_accuracy for one in runs]),
            _spread([one.accuracy for one in runs]),
        )
    return table


def _share(found: Sequence[bool]) -> str:
    share = float(np.mean(found))
    error = math.sqrt(share * (1 - share) / len(found))
    return f"{100 * share:.0f} ({100 * error:.1f})"


def _spread(values: Sequence[float]) -> str:
    deviation = float(np.std(values, ddof=1))
    error = deviation / math.sqrt(2 * (len(values) - 1))
    return f"{100 * np.mean(values):.1f}, {100 * deviation:.1f} ({100 * error:.1f})"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description="Measures how often the verdict on a model is right."
    )
    parser.add_argument("--runs", type=int, default=100, help="of each size of noise (100)")
    parser.add_argument("--draws", type=int, default=30, help="of sets with a difference (30)")
    parser.add_argument("--seeds", type=int, default=10, help="of each photograph set (10)")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part alone")
    given = parser.parse_args()
    wanted = given.only or PARTS
    bundled = network()
    console = Console(width=120)
    results: list[tuple[str, list[Run]]] = []
    if "noise" in wanted:
        results += noise_runs(bundled, given.runs)
    if "easy" in wanted:
        results += easy_runs(bundled, given.draws)
    if "unequal" in wanted:
        results += unequal_runs(bundled, given.draws)
    if "weak" in wanted:
        results += weak_runs(bundled, given.draws)
    if results:
        console.print(verdict_table(results))
    if "spread" in wanted:
        console.print(spread_table(list(spread_runs(bundled, given.seeds))))


if __name__ == "__main__":
    main()
