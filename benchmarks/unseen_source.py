"""Whether leaving a source out shows a shortcut that the usual figure hides; what else shows it.

The first table changes one class of a set whose labels are drawn at random, and counts in how many
of the seeds the sentence about shortcuts names what was changed, as strong as a model that is right
in 97 % of cases (warned) or at all (named).

The second: 204 photographs of animals and other things, features by efficientnet_lite0 with its
trained weights; to make the question harder, a share of the labels is drawn at random. Each
photograph is dealt to one of three made sources. Every source has two looks (grey or warm, dark or
framed, blurred or captioned). With the shortcut an image gets, nine times of ten, the look that
goes with its class in its source, without it either look at random. ``usual`` is the
cross-validated accuracy, ``unseen source`` that of leaving each source out, ``plain`` the
cross-validated accuracy on the same photographs without any look, which stands for a person's own
pictures. Figures are means over the seeds in percent, with the standard error of the mean.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.image_sets import network
from benchmarks.photographs import ALIVE_OR_NOT, photographs
from training.duplicates import fingerprint
from training.evaluation.shortcuts import (
    ATTRIBUTES,
    shortcut_accuracies,
    shortcut_sentence,
    shortcut_warning,
)
from training.evaluation.unseen_source import SourcedImages, leave_sources_out
from training.fitting.linear_head import Samples, fit_head, fit_with_c
from training.images.decode import read_image
from training.images.split import cut_folds, find_near_duplicates
from training.images.statistics import image_statistics
from training.metrics import Labels
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.progress import no_progress
from training.run_folder import ImageRow

PLANTED = 0.9  # of the images of a source have the look that goes with their class
# share of the labels that are drawn at random: an easy question, a hard one, one without an answer
RANDOM_SHARES = (0.0, 0.5, 1.0)
SIZE = (480, 360)
MODEL_ACCURACY = 0.97
_BATCH = 16


def grey(image: Image.Image) -> Image.Image:
    """Return the image without colours."""
    return image.convert("L").convert("RGB")


def warm(image: Image.Image) -> Image.Image:
    """Return the image under the light of a lamp."""
    return Image.blend(image, Image.new("RGB", image.size, (255, 140, 40)), 0.3)


def dark(image: Image.Image) -> Image.Image:
    """Return the image underexposed."""
    return ImageEnhance.Brightness(image).enhance(0.4)


def framed(image: Image.Image) -> Image.Image:
    """Return the image in a black frame."""
    return ImageOps.expand(image, max(image.size) // 25, "black")


def blurred(image: Image.Image) -> Image.Image:
    """Return the image out of focus."""
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 60))


def captioned(image: Image.Image) -> Image.Image:
    """Return the image with a line of text."""
    marked = image.copy()
    width, height = image.size
    font = ImageFont.load_default(size=max(10, height // 14))
    middle = (width / 2, height * 0.9)
    ImageDraw.Draw(marked).text(
        middle, "A picture of the agency", "white", font, "mm", stroke_width=2, stroke_fill="black"
    )
    return marked


LOOKS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "plain": lambda image: image,
    "grey": grey,
    "warm": warm,
    "dark": dark,
    "framed": framed,
    "blurred": blurred,
    "captioned": captioned,
}
SOURCES = {
    "first": ("grey", "warm"),
    "second": ("dark", "framed"),
    "third": ("blurred", "captioned"),
}
# what is done to a class, and which attributes tell it
KINDS = {
    "grey": ("colourfulness",),
    "dark": ("brightness", "border"),
    "framed": ("border",),
    "blurred": ("sharpness",),
    "captioned": ("text",),
    "another size": ("size",),
    "another file type": ("file_type",),
    "another source": ("source",),
}


@dataclass(frozen=True)
class Photographs:
    """The photographs of two classes in every look."""

    names: tuple[str, ...]
    labels: Labels
    groups: Labels
    embeddings: Mapping[str, NDArray[np.float32]]
    """Look to [n, d]."""


def described(classes: Mapping[str, Sequence[str]], bundled: ClassifierNetwork) -> Photographs:
    """Return features and near-duplicate groups of the photographs of classes."""
    labels = []
    images = []
    for number, folders in enumerate(classes.values()):
        for path in photographs(folders):
            labels.append(number)
            images.append(read_image(path))
    embeddings = {}
    for look, change in LOOKS.items():
        batches = []
        for start in range(0, len(images), _BATCH):
            changed = [change(image) for image in images[start : start + _BATCH]]
            batches.append(embed_images(bundled, changed))
        embeddings[look] = np.concatenate(batches)
    fingerprints = [fingerprint(image) for image in images]
    duplicates = find_near_duplicates(range(len(images)), fingerprints, embeddings["plain"])
    groups = np.array([duplicates.groups[index] for index in range(len(images))])
    return Photographs(tuple(classes), np.array(labels), groups, embeddings)


def scores(
    photos: Photographs, random_share: float, shortcut: bool, seed: int
) -> tuple[float, float, float]:
    """Return the usual accuracy, that on sources left out, and that on plain photographs."""
    random = np.random.default_rng(seed)
    count = len(photos.labels)
    at_random = random.random(count) < random_share
    labels = np.where(at_random, random.integers(2, size=count), photos.labels)
    names = list(SOURCES)
    sources = []
    embeddings = np.empty_like(photos.embeddings["plain"])
    for index, label in enumerate(labels):
        source = names[random.integers(len(names))]
        sources.append(source)
        goes_with_class = random.random() < PLANTED
        look = label if goes_with_class else 1 - label
        if not shortcut:
            look = random.integers(2)
        embeddings[index] = photos.embeddings[SOURCES[source][look]][index]
    samples = Samples(embeddings, labels, photos.groups, 2)
    fitted = fit_head(samples, seed, no_progress)
    usual_hits = fitted.out_of_fold.argmax(axis=1) == samples.labels
    images = SourcedImages(samples, sources, usual_hits, photos.names, fitted.c, seed)
    unseen = leave_sources_out(images, no_progress)["unseen_sources"]
    assert unseen is not None
    plain_hits = np.zeros(len(sources), np.bool_)
    for learned, held_out in cut_folds(samples.labels, samples.groups, seed):
        head = fit_with_c(samples.take(learned), fitted.c)
        predicted = head.logits(photos.embeddings["plain"][held_out]).argmax(axis=1)
        plain_hits[held_out] = predicted == samples.labels[held_out]
    return float(usual_hits.mean()), unseen["accuracy"], float(plain_hits.mean())


def unseen_table(seeds: int) -> Table:
    """Return the table of usual and unseen figures."""
    result = Table(title=f"accuracy in %, means of {seeds} seeds ± standard error")
    result.add_column("labels", no_wrap=True)
    for heading in ("shortcut", "usual", "unseen source", "plain", "usual − unseen"):
        result.add_column(heading, justify="right")
    photos = described(ALIVE_OR_NOT, network())
    console = Console(stderr=True)
    for random_share in RANDOM_SHARES:
        title = f"{random_share:.0%} at random"
        for shortcut in (False, True):
            tracked = track(range(seeds), title, console=console, transient=True)
            found = np.array([scores(photos, random_share, shortcut, seed) for seed in tracked])
            usual, unseen, plain = found.T
            cells = [_mean(column) for column in (usual, unseen, plain, usual - unseen)]
            result.add_row(title, "planted" if shortcut else "none", *cells)
    return result


def detection_table(seeds: int) -> Table:
    """Return the table of what is found of a change to one class."""
    result = Table(title=f"shortcuts found in {seeds} seeds, photographs with random labels")
    result.add_column("one class is", no_wrap=True)
    for heading in ("warned", "named", "of another attribute"):
        result.add_column(heading, justify="right")
    paths = photographs(["animals/mammals", "food"])
    images = [read_image(path).resize(SIZE) for path in paths]
    measured = {}
    for look, change in LOOKS.items():
        measured[look] = np.array([image_statistics(change(image)) for image in images])
    for kind in (*KINDS, "like the other"):
        counts = np.zeros(3, np.int64)
        for seed in range(seeds):
            counts += _detection(kind, measured, seed)
        result.add_row(kind, *[str(count) for count in counts])
    return result


def _detection(
    kind: str, measured: Mapping[str, NDArray[np.float32]], seed: int
) -> tuple[int, int, int]:
    """Return whether a change is warned of, named, and whether another attribute is named."""
    plain = measured["plain"]
    labels = np.random.default_rng(seed).permutation(np.arange(len(plain)) % 2)
    changed = labels == 1
    statistics = plain.copy()
    if kind in measured:
        statistics[changed] = measured[kind][changed]
    if kind == "framed":  # in the size of the others
        statistics[:, :2] = plain[:, :2]
    if kind == "another size":
        statistics[changed, :2] = (640, 480)
    rows = []
    for is_changed in changed:
        source = "bing" if is_changed and kind == "another source" else "flickr"
        file_type = "png" if is_changed and kind == "another file type" else "jpeg"
        rows.append(ImageRow("images/0.jpg", "c001", "", source, format=file_type))
    samples = Samples(np.empty((len(labels), 0), np.float32), labels, np.arange(len(labels)), 2)
    accuracies = shortcut_accuracies(statistics, rows, samples, seed)
    counts = np.bincount(labels)
    warned = shortcut_warning(accuracies, MODEL_ACCURACY, counts)
    sentence = shortcut_sentence(accuracies, MODEL_ACCURACY, counts)
    subjects = [ATTRIBUTES[name].subject for name in KINDS.get(kind, ())]
    named = any(sentence.startswith(subject) for subject in subjects)
    clean = sentence.startswith("No sign of a shortcut")
    return int(warned is not None and named), int(named), int(not named and not clean)


def _mean(values: NDArray[np.float64]) -> str:
    error = math.nan
    if len(values) > 1:
        error = values.std(ddof=1) / math.sqrt(len(values))
    return f"{100 * values.mean():.1f} ± {100 * error:.1f}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description="Measures what leaving sources out and the search for shortcuts find."
    )
    parser.add_argument("--seeds", type=int, default=10, help="draws of each set (10)")
    given = parser.parse_args()
    console = Console(width=120)
    console.print(detection_table(2 * given.seeds))
    console.print(unseen_table(given.seeds))


if __name__ == "__main__":
    main()
