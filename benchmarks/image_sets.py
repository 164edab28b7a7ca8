"""The sets of images that accuracy is measured on, from packages, and their features.

- `stamps6`, `alive_or_not`, `household`: photographs of things cut out on white, of six, two and
  two classes (tuxpaint-stamps-default);
- `background6`: the cut-outs of `stamps6` set at random into photographs of nature, so that
  something stands around and beside them (mate-backgrounds too);
- `clip2`, `clip6`: drawings of two and six classes (openclipart-png);
- `fabric`: woven fabric drawn by formula, fine and coarse;
- `strangers-stamps`, `strangers-drawings`, `strangers-signs`, `strangers-scenes`: what belongs to
  none of them, in classes by kind; scenes are parts of photographs with background.

    python -m benchmarks.image_sets --features FOLDER [--pictures FOLDER] [SET...]

writes the features of sets and, with `--pictures`, the images into folders of classes.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.fabric import fabric
from benchmarks.photographs import ALIVE_OR_NOT, PAIRS, STAMPS, photographs
from training.duplicates import fingerprint
from training.fitting.linear_head import Samples
from training.images.decode import BrokenImageError, read_image
from training.images.split import assign_groups, find_near_duplicates
from training.metrics import Labels
from training.networks.backbones import BACKBONES, load_backbone
from training.networks.catalogue import CROP
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.networks.weights import WeightSources
from training.run_folder import ImageRow

STAMPS6: Mapping[str, Sequence[str]] = {
    "mammal": ["animals/mammals"],
    "bird": ["animals/birds"],
    "plant": ["plants"],
    "food": ["food"],
    "household": ["household"],
    "town": ["town", "vehicles"],
}
CLIP6 = ("animals", "transportation", "food", "people", "buildings", "tools")
STRANGE_STAMPS = ("clothes", "hobbies", "medical", "seasonal", "sports", "space")
STRANGE_DRAWINGS = ("office", "education", "electronics", "recreation")

LARGEST = 1024  # pixels of the longer side; larger images are made smaller
_LEAST_SIDE = 64  # pixels; smaller drawings are icons
_MOST_PIXELS = 3000  # of a side; larger drawings take long to decode
_FABRIC_OF_A_CLASS = 100
_SCENES = 120
_FRAME = (480, 360)  # pixels of a scene that lies; half of them stand
_THING = (0.4, 0.9)  # share of a scene's height or width that a cut-out takes
_BATCH = 16

Load = Callable[[], Image.Image]


class MissingPackageError(Exception):
    """Says in a sentence which package brings the images that are not here."""


@dataclass(frozen=True)
class Places:
    """Where the packages' images lie."""

    stamps: Path = STAMPS
    drawings: Path = Path("/usr/share/openclipart/png")
    nature: Path = Path("/usr/share/backgrounds/mate/nature")

    def check(self, folder: Path) -> None:
        """Raise MissingPackageError unless this one of the folders has images."""
        packages = {
            self.stamps: "tuxpaint-stamps-default",
            self.drawings: "openclipart-png",
            self.nature: "mate-backgrounds",
        }
        if not any(folder.rglob("*.*")):
            package = packages[folder]
            raise MissingPackageError(
                f"{folder} has no pictures; the package {package} brings them."
            )


@dataclass(frozen=True)
class Member:
    """One image of a set."""

    name: str
    """Of its file, or a made one: no other of its class has it."""
    label: int
    load: Load


@dataclass(frozen=True)
class ImageSet:
    """Features of a set of images by the bundled network."""

    name: str
    classes: tuple[str, ...]
    crop: NDArray[np.float32]
    """[n, d] by the middle of each image."""
    letterbox: NDArray[np.float32]
    """[n, d] by the whole of it, padded to a square in the mean colour of its border."""
    labels: Labels
    """[n]."""
    groups: Labels
    """[n]: near-duplicates share one."""

    def samples(self, letterbox: bool = False) -> Samples:
        """Return the set as it is learned from."""
        embeddings = self.letterbox if letterbox else self.crop
        return Samples(embeddings, self.labels, self.groups, len(self.classes))


def network() -> ClassifierNetwork:
    """Return the bundled backbone with its trained weights."""
    sources = WeightSources(None, Path(), "")
    loaded = load_backbone(BACKBONES["efficientnet_lite0"], "pretrained", sources)
    return ClassifierNetwork(loaded.backbone, loaded.network, 2)


def members(name: str, places: Places) -> tuple[tuple[str, ...], list[Member]]:
    """Return the classes and the images of a set; raises MissingPackageError."""
    if name == "fabric":
        return ("fine", "coarse"), _fabric_members()
    if name == "strangers-scenes":
        places.check(places.nature)
        return ("scene",), _scene_members(places)
    if name in _DRAWINGS:
        places.check(places.drawings)
        return _of_files(_drawing_files(name, places))
    places.check(places.stamps)
    files = {}
    for title, folders in _PHOTOGRAPHS[name].items():
        files[title] = photographs(folders, places.stamps)
    if name != "background6":
        return _of_files(files)
    places.check(places.nature)
    return _on_background(files, places)


def image_set(name: str, places: Places, cache: Path | None = None) -> ImageSet:
    """Return the features of a set, from the folder `cache` where they have been computed before.

    Raises MissingPackageError. Features are computed anew when the file in `cache` is removed.
    """
    if cache is None:
        return _computed(name, places)
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{name}.npz"
    if not path.exists():
        computed = _computed(name, places)
        arrays = {key: getattr(computed, key) for key in _ARRAYS}
        np.savez(path, classes=np.array(computed.classes), **arrays)
    with np.load(path) as file:
        classes = tuple(str(title) for title in file["classes"])
        return ImageSet(name, classes, **{key: file[key] for key in _ARRAYS})


def padded(image: Image.Image, resize: int) -> Image.Image:
    """Pad an image in the mean colour of its border to a square that holds it in the center crop.

    Of that square, resized to `resize` pixels, the middle 224 hold the whole image.
    """
    pixels = np.asarray(image)
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    mean = np.concatenate(edges).mean(axis=0)
    colour = tuple(int(value) for value in np.round(mean))
    width, height = image.size
    side = round(max(width, height) * resize / CROP)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def write_pictures(name: str, places: Places, folder: Path) -> None:
    """Write a set as folders of classes with JPEG files, which `fit --images` takes."""
    classes, images = members(name, places)
    for member, image in _loaded(images):
        target = folder / name / classes[member.label] / f"{member.name}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            image.save(target, "JPEG", quality=90)


_HOUSEHOLD = PAIRS[2]
_PHOTOGRAPHS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "stamps6": STAMPS6,
    "background6": STAMPS6,
    "alive_or_not": ALIVE_OR_NOT,
    "household": _HOUSEHOLD,
    "strangers-stamps": {kind: [kind] for kind in STRANGE_STAMPS},
}
# classes, and how many images of each
_DRAWINGS: Mapping[str, tuple[Sequence[str], int]] = {
    "clip2": (("animals", "transportation"), 120),
    "clip6": (CLIP6, 100),
    "strangers-drawings": (STRANGE_DRAWINGS, 30),
    "strangers-signs": (("signs_and_symbols", "shapes"), 60),
}
SETS = (*_PHOTOGRAPHS, *_DRAWINGS, "fabric", "strangers-scenes")
_ARRAYS = ("crop", "letterbox", "labels", "groups")


def _drawing_files(name: str, places: Places) -> dict[str, list[Path]]:
    kinds, most = _DRAWINGS[name]
    files = {}
    for kind in kinds:
        found = sorted((places.drawings / kind).rglob("*.png"))
        random = np.random.default_rng(0)
        kept: list[Path] = []
        for index in random.permutation(len(found)):
            if len(kept) < most and _has_fitting_size(found[index]):
                kept.append(found[index])
        files[kind] = kept
    return files


def _has_fitting_size(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return min(image.size) >= _LEAST_SIDE and max(image.size) <= _MOST_PIXELS
    except OSError:
        return False


def _of_files(files: Mapping[str, Sequence[Path]]) -> tuple[tuple[str, ...], list[Member]]:
    found = []
    for label, paths in enumerate(files.values()):
        for path in paths:
            found.append(Member(f"{path.parent.name}-{path.stem}", label, _reader(path)))
    return tuple(files), found


def _reader(path: Path) -> Load:
    return lambda: read_image(path)


def _fabric_members() -> list[Member]:
    found = []
    for label, coarse in enumerate((False, True)):
        for number, image in enumerate(fabric(_FABRIC_OF_A_CLASS, coarse)):
            found.append(Member(f"{number:03d}", label, image.copy))
    return found


def _scene_members(places: Places) -> list[Member]:
    files = sorted(places.nature.glob("*.jpg"))

    def scene(number: int) -> Load:
        return lambda: _scene(files[number % len(files)], np.random.default_rng(number))

    return [Member(f"{number:03d}", 0, scene(number)) for number in range(_SCENES)]


def _scene(file: Path, random: np.random.Generator) -> Image.Image:
    """Return a random part of a photograph, a quarter to all of its height or width."""
    photograph = read_image(file)
    frame = _FRAME if random.random() < 0.5 else _FRAME[::-1]
    largest = min(photograph.width / frame[0], photograph.height / frame[1])
    scale = largest * random.uniform(0.25, 1.0)
    width = round(scale * frame[0])
    height = round(scale * frame[1])
    left = int(random.integers(0, photograph.width - width + 1))
    top = int(random.integers(0, photograph.height - height + 1))
    part = photograph.crop((left, top, left + width, top + height))
    return part.resize(frame, Image.Resampling.BICUBIC)


def _on_background(
    files: Mapping[str, Sequence[Path]], places: Places
) -> tuple[tuple[str, ...], list[Member]]:
    scenes = sorted(places.nature.glob("*.jpg"))

    def composed(path: Path, number: int) -> Load:
        scene = scenes[number % len(scenes)]
        return lambda: _placed(path, _scene(scene, np.random.default_rng(number)), number)

    found: list[Member] = []
    for label, paths in enumerate(files.values()):
        for path in paths:
            name = f"{path.parent.name}-{path.stem}"
            found.append(Member(name, label, composed(path, len(found))))
    return tuple(files), found


def _placed(path: Path, scene: Image.Image, seed: int) -> Image.Image:
    """Set the cut-out of a file at random into a scene."""
    random = np.random.default_rng([seed, 1])
    thing = Image.open(path).convert("RGBA")
    share = random.uniform(*_THING)
    scale = share * min(scene.width / thing.width, scene.height / thing.height)
    width = max(1, round(scale * thing.width))
    height = max(1, round(scale * thing.height))
    thing = thing.resize((width, height), Image.Resampling.LANCZOS)
    left = int(random.integers(0, scene.width - width + 1))
    top = int(random.integers(0, scene.height - height + 1))
    scene.paste(thing, (left, top), thing)
    return scene


def _computed(name: str, places: Places) -> ImageSet:
    bundled = network()
    classes, images = members(name, places)
    crops = []
    letterboxes = []
    fingerprints = []
    rows = []
    labels = []
    for batch in _batches(_loaded(images)):
        pictures = [image for _, image in batch]
        crops.append(embed_images(bundled, pictures))
        whole = [padded(image, bundled.backbone.resize) for image in pictures]
        letterboxes.append(embed_images(bundled, whole))
        for member, image in batch:
            fingerprints.append(fingerprint(image))
            digest = hashlib.sha256(f"{member.label}/{member.name}".encode()).hexdigest()
            rows.append(ImageRow(f"images/{digest}.jpg", f"c{member.label + 1:03d}", digest))
            labels.append(member.label)
    crop = np.concatenate(crops)
    duplicates = find_near_duplicates(range(len(rows)), fingerprints, crop)
    groups = np.array([row.group for row in assign_groups(rows, duplicates)])
    return ImageSet(name, classes, crop, np.concatenate(letterboxes), np.array(labels), groups)


def _loaded(images: Sequence[Member]) -> Iterator[tuple[Member, Image.Image]]:
    """Yield the images that can be read."""
    for member in images:
        try:
            image = member.load()
        except BrokenImageError:
            continue
        image.thumbnail((LARGEST, LARGEST))
        yield member, image


def _batches(
    loaded: Iterator[tuple[Member, Image.Image]],
) -> Iterator[list[tuple[Member, Image.Image]]]:
    batch = []
    for pair in loaded:
        batch.append(pair)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where packages lie that are not installed."""
    default = Places()
    parser.add_argument("--stamps", type=Path, default=default.stamps, metavar="FOLDER")
    parser.add_argument("--drawings", type=Path, default=default.drawings, metavar="FOLDER")
    parser.add_argument("--nature", type=Path, default=default.nature, metavar="FOLDER")


def main() -> None:
    """Write features, and images where a folder for them is given."""
    parser = argparse.ArgumentParser(description="Computes the features of sets of images.")
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all")
    parser.add_argument("--features", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write the images too")
    add_places(parser)
    given = parser.parse_args()
    places = Places(given.stamps, given.drawings, given.nature)
    for name in given.sets or SETS:
        try:
            found = image_set(name, places, given.features)
            if given.pictures:
                write_pictures(name, places, given.pictures)
        except MissingPackageError as error:
            print(f"{name}: {error}")
            continue
        groups = len(np.unique(found.groups))
        print(f"{name}: {len(found.labels)} images, {groups} groups, {len(found.classes)} classes")


if __name__ == "__main__":
    main()
