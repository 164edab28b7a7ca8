"""The photographs that benchmarks train on: cut-outs of the package tuxpaint-stamps-default."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from training.images.decode import read_image

STAMPS = Path("/usr/share/tuxpaint/stamps")
LEAST_SIDE = 64  # pixels; smaller ones are icons

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


def photographs(folders: Sequence[str]) -> list[Path]:
    """Return the photographs below these folders, without drawings and icons; exit without any."""
    kept = []
    for folder in folders:
        for path in sorted((STAMPS / folder).rglob("*.png")):
            if "cartoon" not in str(path) and min(Image.open(path).size) >= LEAST_SIDE:
                kept.append(path)
    if not kept:
        sys.exit(f"{STAMPS} has no photographs; the package tuxpaint-stamps-default brings them.")
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
