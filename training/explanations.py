"""Why the model answered so: maps of what it looked at, nearest pictures it learned from, best and
worst. No torch.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.run_folder import atomic_write

NEIGHBOURS_FILE = "neighbours.npz"  # in the run folder

_CROP = 224  # pixels a side that the network looks at
_OUTSIDE = 0.35  # brightness that the part outside the network's view keeps
_STRONGEST = 0.7  # share of colour where the map is at its height
_WEAKEST = 0.5  # and where it says nothing

# What reading a cut or damaged file of arrays ends in.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class LearnedImage:
    """A picture that the model learned from, and whom to thank for it."""

    file: str
    """Relative to the run folder."""
    label: str
    """Its class's name."""
    credit: str
    """Attribution sentence; "" where nothing is known."""
    page_url: str
    """Where it was found; "" where nothing is known."""


@dataclass(frozen=True)
class Neighbours:
    """The pictures that a model learned from, to be searched for the nearest."""

    pictures: tuple[LearnedImage, ...]
    embeddings: NDArray[np.float16]
    """[m, d] by the delivered network."""

    def nearest(self, embedding: Floats, count: int) -> list[tuple[LearnedImage, float]]:
        """The pictures nearest to an embedding [d], each with its cosine, the nearest first."""
        return [
            (self.pictures[place], cosine)
            for place, cosine in nearest_images(embedding, self.embeddings, count)
        ]


def overlay(
    picture: Image.Image, cam: Floats, resize_side: int, height: float | None = None
) -> Image.Image:
    """A class activation map [7, 7] in colour over the part of an RGB picture that the network saw,
    the rest dimmed.

    The network sees the middle 224 pixels of the picture once its shorter side is `resize_side`
    pixels (`resize` of its backbone). Bright colours spoke for the class. `height` is the value of
    the brightest colour, so that two maps can be compared; by default that of the map itself. The
    picture keeps its size.
    """
    top = float(height if height is not None else cam.max())
    strength = np.clip(np.asarray(cam, np.float64) / top, 0, 1) if top > 0 else np.zeros(cam.shape)
    left, upper, side = _view(picture, resize_side)
    spread = Image.fromarray(strength.astype(np.float32)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    values = np.clip(np.asarray(spread), 0, 1)[..., None]
    # Colours say more over a picture without its own.
    grey = np.asarray(ImageOps.grayscale(picture).convert("RGB"), np.float64)
    result = grey * _OUTSIDE
    share = _WEAKEST + (_STRONGEST - _WEAKEST) * values
    seen = grey[upper : upper + side, left : left + side]
    colours = colour_scale()[(values[..., 0] * 255).astype(int)]
    result[upper : upper + side, left : left + side] = seen * (1 - share) + colours * share
    return Image.fromarray((result + 0.5).astype(np.uint8))


def evidence(cams: Floats, number: int) -> Floats:
    """What spoke for a class rather than for the others: its map of [classes, h, w] less the mean
    of all maps.

    Adding the same to the logits of all classes changes no probability, so what all maps share says
    nothing.
    """
    result: Floats = cams[number] - cams.mean(axis=0)
    return result


def nearest_images(embedding: Floats, references: Floats, count: int) -> list[tuple[int, float]]:
    """Indices of the references [m, d] nearest to an embedding [d] by cosine, with that cosine, the
    nearest first.
    """
    if not len(references) or count < 1:
        return []
    wide = references.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(embedding.astype(np.float32))
    cosines = wide @ embedding.astype(np.float32) / np.maximum(lengths, 1e-12)
    order = np.argsort(-cosines, kind="stable")[:count]
    return [(int(place), float(cosines[place])) for place in order]


def write_neighbours(
    folder: Path, images: Sequence[LearnedImage], embeddings: NDArray[np.float32]
) -> None:
    """Write `neighbours.npz` of a run folder: the images [m] a model learned from, and [m, d].

    `read_neighbours` gives them back.
    """
    rows = json.dumps([asdict(image) for image in images], ensure_ascii=False).encode()
    with atomic_write(folder / NEIGHBOURS_FILE) as file:
        np.savez(
            file,
            embeddings=embeddings.astype(np.float16),
            rows=np.frombuffer(rows, np.uint8),
        )


def read_neighbours(run_folder: Path) -> Neighbours | None:
    """The pictures that a run's model learned from; None for a folder without them or with a
    damaged file.
    """
    try:
        with np.load(run_folder / NEIGHBOURS_FILE, allow_pickle=False) as arrays:
            rows, embeddings = json.loads(arrays["rows"].tobytes()), arrays["embeddings"]
        pictures = tuple(LearnedImage(**row) for row in rows)
    except _UNREADABLE:
        return None
    return (
        Neighbours(pictures, embeddings)
        if embeddings.ndim == 2 and len(embeddings) == len(pictures)
        else None
    )


@cache
def colour_scale() -> NDArray[np.float64]:
    """256 colours [256, 3] in 0..255 from dark violet over red to pale yellow, even in lightness to
    the eye.

    Lightness grows in equal steps of OKLab (B. Ottosson 2020), hue turns and colourfulness swells
    on the way.
    """
    along = np.linspace(0, 1, 256)
    lightness = 0.25 + 0.68 * along
    hue = np.deg2rad(-60 + 165 * along)
    chroma = 0.05 + 0.13 * np.sin(np.pi * along**0.9)
    return _from_oklab(np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1))


def _from_oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab [n, 3] to sRGB [n, 3] in 0..255."""
    to_cones = np.array(
        [
            [1, 0.3963377774, 0.2158037573],
            [1, -0.1055613458, -0.0638541728],
            [1, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_cones.T) ** 3 @ to_rgb.T, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    result: NDArray[np.float64] = 255 * curved
    return result


def _view(picture: Image.Image, resize_side: int) -> tuple[int, int, int]:
    """Left, top and side in pixels of the square of the picture that the network sees."""
    side = max(1, min(round(min(picture.size) * _CROP / resize_side), *picture.size))
    return (picture.width - side) // 2, (picture.height - side) // 2, side
