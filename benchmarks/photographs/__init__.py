"""The photographs that benchmarks train on: cut-outs of the package tuxpaint-stamps-default."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.duplicates import fingerprint
from training.fitting.linear_head import Samples
from training.images.decode import read_image
from training.images.split import assign_groups, find_near_duplicates
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.run_folder import ClassLabel, ImageRow, RunConfig

STAMPS = Path("/usr/share/tuxpaint/stamps")
LEAST_SIDE = 64  # pixels; smaller ones are icons
_BATCH = 16

PAIRS: Sequence[Mapping[str, Sequence[str]]] = (
    {"mammal": ["animals/mammals"], "plant": ["plants"]},
    {"food": ["food"], "symbol": ["symbols"]},
    {"household": ["household"], "outdoors": ["town", "vehicles"]},
)
"""Pairs of classes, each with its folders: 102, 203 and 67 photographs."""
ALIVE_OR_NOT: Mapping[str, Sequence[str]] = {
    "animal": ["animals/mammals", "animals/birds"],
    "other": ["plants", "household", "town", "vehicles"],
}
"""The largest balanced pair: 204 photographs."""


@dataclass(frozen=True)
class Photographs:
    """The images of some classes, as a run would know them."""

    names: str
    config: RunConfig
    rows: list[ImageRow]
    samples: Samples


def photographs(folders: Sequence[str], stamps: Path = STAMPS) -> list[Path]:
    """Return the photographs below these folders, without drawings and icons; exit without any."""
    kept = []
    for folder in folders:
        for path in sorted((stamps / folder).rglob("*.png")):
            if "cartoon" not in str(path) and min(Image.open(path).size) >= LEAST_SIDE:
                kept.append(path)
    if not kept:
        sys.exit(f"{stamps} has no photographs; the package tuxpaint-stamps-default brings them.")
    return kept


def class_folders(classes: Mapping[str, Sequence[str]], folder: Path) -> Path:
    """Write a folder per class with its photographs as JPEG on white, unless they are there."""
    for name, folders in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in photographs(folders):
            target = folder / name / f"{path.parent.name}-{path.stem}.jpg"
            if not target.exists():
                read_image(path).save(target, "JPEG", quality=90)
    return folder


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
