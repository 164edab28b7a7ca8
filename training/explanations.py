"""Why a model answered so: maps of the evidence, and the nearest images it learned from."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.run_folder import atomic_write

NEIGHBOURS_FILE = "neighbours.npz"  # in the run folder

_CROP = 224  # pixels a side that the network sees
_OUTSIDE = 0.35  # share of brightness kept outside the network's view
_STRONGEST = 0.7  # share of colour where the map is at its height
_WEAKEST = 0.5  # and where it is 0

# Errors that reading a cut or damaged file of arrays ends in.
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
    """An image that the model learned from, and whom to thank for it."""

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
    """The images that a model learned from, to be searched for the nearest."""

    images: tuple[LearnedImage, ...]
    embeddings: NDArray[np.float16]
    """[m, d] by the delivered network."""
    others: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)
    """Embeddings [d] of the run's other images by file: the model learned nothing from them."""

    def embedding_of(self, name: str) -> NDArray[np.float16] | None:
        """Return the embedding [d] of an image of the run by its file's name, None of any other."""
        for image, embedding in zip(self.images, self.embeddings, strict=True):
            if Path(image.file).name == name:
                return embedding
        for file, embedding in self.others.items():
            if Path(file).name == name:
                return embedding
        return None

    def nearest(self, embedding: Floats, count: int) -> list[tuple[LearnedImage, float]]:
        """Return the images nearest to an embedding [d], each with its cosine, nearest first.

        Empty where the images were embedded by a network of another width.
        """
        nearest: list[tuple[LearnedImage, float]] = []
        if self.embeddings.shape[1:] != embedding.shape:
            return nearest
        for index, cosine in nearest_images(embedding, self.embeddings, count):
            image = self.images[index]
            nearest.append((image, cosine))
        return nearest


def overlay(
    image: Image.Image, cam: Floats, resize_side: int | None, height: float | None = None
) -> Image.Image:
    """Draw a class activation map [7, 7] in colour over the part of an RGB image the network saw.

    The rest is dimmed. The network sees the middle 224 pixels of the image once its shorter side is
    `resize_side` pixels (`resize` of its backbone); with None it sees the whole image in a square
    of its longer side. Bright colours spoke for the class. `height` is the value of the brightest
    colour, so that two maps can be compared; by default that of the map itself. The image keeps its
    size.
    """
    strength = _strength(cam, height)

    # The square that the network sees, which may reach beyond the image.
    side = max(image.size)
    if resize_side is not None:
        shorter = min(image.size)
        side = round(shorter * _CROP / resize_side)
        side = max(1, min(side, shorter))
    left = (image.width - side) // 2
    upper = (image.height - side) // 2
    columns = slice(max(left, 0), min(left + side, image.width))
    rows = slice(max(upper, 0), min(upper + side, image.height))

    small_map = Image.fromarray(strength)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    across = strength.shape[1] / side  # cells of the map for a pixel
    down = strength.shape[0] / side
    from_left = columns.start - left
    to_left = columns.stop - left
    from_top = rows.start - upper
    to_top = rows.stop - upper
    box = (from_left * across, from_top * down, to_left * across, to_top * down)
    wide_map = small_map.resize(size, Image.Resampling.BICUBIC, box)
    wide_strength = np.asarray(wide_map).clip(0, 1)
    levels = (wide_strength * 255).astype(int)
    colours = colour_scale()[levels]
    share_range = _STRONGEST - _WEAKEST
    colour_share = _WEAKEST + share_range * wide_strength
    colour_share = colour_share[..., None]

    # Colours say more over an image without its own.
    grey_image = ImageOps.grayscale(image).convert("RGB")
    grey = np.asarray(grey_image, np.float64)
    seen = grey[rows, columns]
    background = seen * (1 - colour_share)
    foreground = colours * colour_share

    result = grey * _OUTSIDE
    result[rows, columns] = background + foreground
    rounded = (result + 0.5).astype(np.uint8)
    return Image.fromarray(rounded)


def _strength(cam: Floats, height: float | None) -> NDArray[np.float32]:
    """Scale a map to 0..1, where 1 is `height`, or the map's own maximum; without one all is 0."""
    top = float(cam.max())
    if height is not None:
        top = float(height)
    if top <= 0:
        return np.zeros(cam.shape, np.float32)
    relative = np.asarray(cam, np.float64) / top
    strength = relative.clip(0, 1)
    return strength.astype(np.float32)


def evidence(cams: Floats, number: int) -> Floats:
    """Return the evidence for a class rather than the others: its map less the mean of all.

    `cams` are [classes, h, w]. Adding the same to the logits of all classes changes no probability,
    so the share common to all maps is no evidence.
    """
    mean = cams.mean(axis=0)
    result: Floats = cams[number] - mean
    return result


def nearest_images(embedding: Floats, references: Floats, count: int) -> list[tuple[int, float]]:
    """Return (index, cosine) of the references [m, d] most like an embedding [d], nearest first."""
    if not len(references) or count < 1:
        return []
    vector = embedding.astype(np.float32)
    matrix = references.astype(np.float32)
    vector_length = np.linalg.norm(vector)
    matrix_lengths = np.linalg.norm(matrix, axis=1)
    lengths = matrix_lengths * vector_length
    lengths = np.maximum(lengths, 1e-12)
    cosines = matrix @ vector / lengths

    nearest = []
    order = np.argsort(-cosines, kind="stable")
    for index in order[:count]:
        cosine = float(cosines[index])
        nearest.append((int(index), cosine))
    return nearest


def write_neighbours(
    folder: Path,
    images: Sequence[LearnedImage],
    embeddings: NDArray[np.float32],
    others: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """Write `neighbours.npz` of a run folder: the images [m] a model learned from, and [m, d].

    `read_neighbours` gives them back.

    :param others: embeddings [d] of the run's other images by file
    """
    rows = [asdict(image) for image in images]
    text = json.dumps(rows, ensure_ascii=False)
    others = others or {}
    other_files = json.dumps(list(others))
    other_embeddings = np.zeros((len(others), embeddings.shape[1]), np.float16)
    for index, embedding in enumerate(others.values()):
        other_embeddings[index] = embedding
    with atomic_write(folder / NEIGHBOURS_FILE) as file:
        np.savez(
            file,
            embeddings=embeddings.astype(np.float16),
            rows=np.frombuffer(text.encode(), np.uint8),
            other_embeddings=other_embeddings,
            other_files=np.frombuffer(other_files.encode(), np.uint8),
        )


def read_neighbours(run_folder: Path) -> Neighbours | None:
    """Read the images that a run's model learned from; None for a missing or damaged file."""
    try:
        with np.load(run_folder / NEIGHBOURS_FILE, allow_pickle=False) as arrays:
            rows = json.loads(arrays["rows"].tobytes())
            embeddings = arrays["embeddings"]
            others = {}
            if "other_files" in arrays:  # not in runs of before
                files = json.loads(arrays["other_files"].tobytes())
                others = dict(zip(files, arrays["other_embeddings"], strict=True))
        images = tuple(LearnedImage(**row) for row in rows)
    except _UNREADABLE:
        return None
    matches = embeddings.ndim == 2 and len(embeddings) == len(images)
    return Neighbours(images, embeddings, others) if matches else None


@cache
def colour_scale() -> NDArray[np.float64]:
    """Return 256 colours [256, 3] in 0..255 from dark violet over red to pale yellow.

    They are even in lightness to the eye: it grows in equal steps of OKLab (B. Ottosson 2020),
    while hue turns and chroma first rises, then falls.
    """
    along = np.linspace(0, 1, 256)
    lightness = 0.25 + 0.68 * along
    degrees = -60 + 165 * along
    hue = np.deg2rad(degrees)
    turn = np.pi * along**0.9
    chroma = 0.05 + 0.13 * np.sin(turn)
    green_to_red = chroma * np.cos(hue)
    blue_to_yellow = chroma * np.sin(hue)
    lab = np.stack([lightness, green_to_red, blue_to_yellow], axis=1)
    return _oklab_to_srgb(lab)


def _oklab_to_srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert OKLab [n, 3] to sRGB [n, 3] in 0..255, with the matrices of B. Ottosson 2020."""
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
    cones = (lab @ to_cones.T) ** 3
    linear = cones @ to_rgb.T
    linear = linear.clip(0, 1)
    # The transfer function of sRGB (IEC 61966-2-1).
    dark = 12.92 * linear
    bright = 1.055 * linear ** (1 / 2.4) - 0.055
    srgb = np.where(linear <= 0.0031308, dark, bright)
    return srgb * 255
