"""What it brings that the network sees the whole of each picture, and whether runs choose well.

    python -m benchmarks.views [--seeds 12] [--backgrounds FOLDER] [FOLDER...]

Features by efficientnet_lite0 with its trained weights, once of the middle of each picture (crop)
and once of all of it in a square (letterbox). Each seed splits a set anew, near-duplicates
together, chooses a view on train and val as a run does, and tests all three. Sets are the
photographs of tuxpaint-stamps-default, cut out on white; with --backgrounds the same set into
photographs of other shapes, in their middle or anywhere; and each FOLDER of class folders.

Figures are balanced accuracies on test in percent and mean losses there, as means over the seeds;
after each difference stands the standard error of the mean of the paired differences.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.image_sets import STAMPS6, network
from benchmarks.photographs import ALIVE_OR_NOT, PAIRS, photographs
from training.duplicates import fingerprint
from training.fitting.linear_head import fit_head
from training.fitting.selection import SplitImages
from training.fitting.view import compare_views, sample_of_learned
from training.images.decode import read_image
from training.images.split import assign_groups, find_near_duplicates, split_rows
from training.metrics import Floats, balanced_accuracy, log_losses
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.progress import no_progress
from training.run_folder import ClassLabel, ImageRow, RunConfig, View

VIEWS: tuple[View, ...] = ("crop", "letterbox")
_BATCH = 16
_LONGEST = 1024  # pixels a side of what is embedded, as in collected pictures
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

# Of the scenes: the longer side in pixels, the shapes, and a thing's share of the shorter side.
_SCENE = 640
_SHAPES = ((3, 2), (2, 3), (4, 3), (1, 1), (16, 9))
_SHARES = (0.35, 0.75)

Place = Literal["middle", "anywhere"]
Loader = Callable[[Path], Image.Image]


@dataclass(frozen=True)
class PictureSet:
    """Images with their classes, as one run would know them."""

    name: str
    files: Sequence[Path]
    labels: NDArray[np.int64]
    """[n]."""
    classes: Sequence[str]
    load: Loader


@dataclass(frozen=True)
class Scores:
    """One seed: what each view reaches on test, and which one the run chooses."""

    accuracy: Mapping[View, float]
    loss: Mapping[View, float]
    chosen: View


class Scenes:
    """Sets cut-outs into photographs, each time the same way for the same file."""

    def __init__(self, folder: Path, place: Place) -> None:
        self._place = place
        self._backgrounds = [read_image(path) for path in _pictures(folder)]
        for background in self._backgrounds:
            background.thumbnail((2 * _SCENE, 2 * _SCENE))

    def scene(self, path: Path) -> Image.Image:
        """Return the thing in this file somewhere in a photograph."""
        draw = random.Random(str(path))
        across, down = draw.choice(_SHAPES)
        unit = _SCENE / max(across, down)
        size = (round(across * unit), round(down * unit))
        result = _part(draw.choice(self._backgrounds), size, draw)
        with Image.open(path) as opened:
            thing = opened.convert("RGBA")
        side = draw.uniform(*_SHARES) * min(size)
        scale = side / max(thing.size)
        thing_size = (round(thing.width * scale) or 1, round(thing.height * scale) or 1)
        thing = thing.resize(thing_size, Image.Resampling.LANCZOS)
        free = (size[0] - thing.width, size[1] - thing.height)
        position = (free[0] // 2, free[1] // 2)
        if self._place == "anywhere":
            position = (draw.randint(0, free[0]), draw.randint(0, free[1]))
        result.paste(thing, position, thing)
        return result


def _part(image: Image.Image, size: tuple[int, int], draw: random.Random) -> Image.Image:
    """Return a random part of an image in this size."""
    scale = max(size[0] / image.width, size[1] / image.height)
    width = math.ceil(image.width * scale)
    height = math.ceil(image.height * scale)
    left = draw.randint(0, width - size[0])
    upper = draw.randint(0, height - size[1])
    resized = image.resize((width, height))
    return resized.crop((left, upper, left + size[0], upper + size[1]))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


def stamps(classes: Mapping[str, Sequence[str]], name: str, load: Loader) -> PictureSet:
    """Return the photographs of classes of stamps."""
    by_class = {}
    for of_class, folders in classes.items():
        by_class[of_class] = photographs(folders)
    return _picture_set(name, by_class, load)


def _picture_set(name: str, by_class: Mapping[str, Sequence[Path]], load: Loader) -> PictureSet:
    files: list[Path] = []
    labels: list[int] = []
    for number, of_class in enumerate(by_class.values()):
        files += of_class
        labels += [number] * len(of_class)
    return PictureSet(name, files, np.array(labels, np.int64), list(by_class), load)


def picture_sets(
    folders: Sequence[Path], backgrounds: Path | None, with_stamps: bool
) -> Iterator[PictureSet]:
    """Yield the sets that are wanted."""
    if with_stamps:
        yield stamps(STAMPS6, "stamps of six kinds", read_image)
        yield stamps(ALIVE_OR_NOT, "stamps, animal / other", read_image)
        for pair in PAIRS:
            yield stamps(pair, f"stamps, {' / '.join(pair)}", read_image)
    if backgrounds:
        places: tuple[Place, ...] = ("middle", "anywhere")
        for place in places:
            scenes = Scenes(backgrounds, place)
            yield stamps(STAMPS6, f"six kinds in scenes, {place}", scenes.scene)
    for folder in folders:
        by_class = {}
        for class_folder in sorted(folder.iterdir()):
            by_class[class_folder.name] = _pictures(class_folder)
        yield _picture_set(folder.name, by_class, read_image)


def embedded(
    pictures: PictureSet, bundled: ClassifierNetwork
) -> tuple[SplitImages, NDArray[np.float32]]:
    """Return the images with their embeddings by the crop, and those [n, d] by the letterbox."""
    images = [pictures.load(path) for path in pictures.files]
    for image in images:
        image.thumbnail((_LONGEST, _LONGEST))
    by_view = {}
    for view in VIEWS:
        bundled.view = view
        batches = []
        for start in range(0, len(images), _BATCH):
            batches.append(embed_images(bundled, images[start : start + _BATCH]))
        by_view[view] = np.concatenate(batches)
    rows = []
    for path, label in zip(pictures.files, pictures.labels, strict=True):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(ImageRow(str(path), f"c{label + 1:03d}", sha256))
    fingerprints = [fingerprint(image) for image in images]
    indices = np.arange(len(rows))
    duplicates = find_near_duplicates(indices.tolist(), fingerprints, by_view["crop"])
    grouped = assign_groups(rows, duplicates)
    known = SplitImages(
        rows=grouped,
        embeddings=by_view["crop"],
        labels=pictures.labels,
        groups=np.array([row.group for row in grouped]),
        statistics=np.zeros((len(rows), 0), np.float32),
        manifest_indices=indices,
        manifest=grouped,
        classes=len(pictures.classes),
        seed=0,
    )
    return known, by_view["letterbox"]


def scores(images: SplitImages, whole: NDArray[np.float32], seed: int) -> Scores:
    """Split the images with this seed, choose a view, and test both; `whole` is [n, d]."""
    class_ids = sorted({row.class_id for row in images.rows})
    labels = tuple(ClassLabel(class_id, class_id) for class_id in class_ids)
    rows = split_rows(RunConfig(classes=labels, seed=seed), images.rows)
    by_crop = replace(images, rows=rows, seed=seed)
    by_letterbox = replace(by_crop, embeddings=whole)
    accuracy: dict[View, float] = {}
    loss: dict[View, float] = {}
    for view, split in zip(VIEWS, (by_crop, by_letterbox), strict=True):
        fitted = fit_head(split.samples("train", "val"), seed, no_progress)
        test = split.samples("test")
        logits = fitted.head.logits(test.embeddings)
        accuracy[view] = balanced_accuracy(logits.argmax(axis=1), test.labels)
        loss[view] = float(log_losses(logits / fitted.temperature, test.labels).mean())
    sample = sample_of_learned(by_crop)
    chosen = compare_views(by_crop, whole[sample], sample)
    return Scores(accuracy, loss, chosen["chosen"])


def cells(results: Sequence[Scores]) -> tuple[str, ...]:
    """Return a set's row of figures."""
    crop = np.array([one.accuracy["crop"] for one in results])
    letterbox = np.array([one.accuracy["letterbox"] for one in results])
    chosen = np.array([one.accuracy[one.chosen] for one in results])
    crop_loss = np.array([one.loss["crop"] for one in results])
    letterbox_loss = np.array([one.loss["letterbox"] for one in results])
    chosen_loss = np.array([one.loss[one.chosen] for one in results])
    times = sum(one.chosen == "letterbox" for one in results)
    return (
        f"{100 * crop.mean():.1f}",
        with_error(100 * (letterbox - crop), 1),
        with_error(100 * (chosen - crop), 1),
        f"{times} of {len(results)}",
        f"{crop_loss.mean():.3f}",
        with_error(letterbox_loss - crop_loss, 3),
        with_error(chosen_loss - crop_loss, 3),
    )


def with_error(differences: Floats, digits: int) -> str:
    """Return the mean of paired differences, and its standard error."""
    error = math.nan
    if len(differences) > 1:
        error = differences.std(ddof=1) / math.sqrt(len(differences))
    return f"{differences.mean():+.{digits}f} ± {error:.{digits}f}"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=12, help="splits of each set (12)")
    parser.add_argument("--backgrounds", type=Path, help="photographs to set the stamps into")
    parser.add_argument("--no-stamps", action="store_true", help="only what else is given")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    columns = ("set", "crop", "letterbox", "chosen", "letterbox chosen")
    loss_columns = ("loss, crop", "letterbox", "chosen")
    table = Table(*columns, *loss_columns, title=f"means of {given.seeds} seeds")
    bundled = network()
    console = Console(stderr=True)
    for pictures in picture_sets(given.folders, given.backgrounds, not given.no_stamps):
        images, whole = embedded(pictures, bundled)
        seeds = track(range(given.seeds), pictures.name, console=console, transient=True)
        results = [scores(images, whole, seed) for seed in seeds]
        table.add_row(f"{pictures.name} ({len(images.rows)})", *cells(results))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
