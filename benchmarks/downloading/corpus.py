"""The images that N1 downloads: JPEG of 640 to 1280 px, made once and the same on every machine.

Photographs of the Tux Paint stamps, where they are installed, are pasted on textured grounds;
without them the grounds alone are drawn, with blocks of color. What a decoder has to do depends on
the detail: texture and quality are chosen so that a thousand images weigh about as much as a
thousand from the web (178 MB).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

STAMPS = Path("/usr/share/tuxpaint/stamps")
FEWEST_STAMPS = 50
LONGER_SIDE = (640, 1280)
SHORTER_SHARE = (0.6, 1.0)
QUALITY = 86
TEXTURE_SIDE = 2048
GRAIN = 5.0  # standard deviation of the finest detail, of 255


def corpus(folder: Path, count: int) -> list[Path]:
    """Return the files of `count` images, made where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05d}.jpg" for number in range(count)]
    missing = [file for file in files if not file.exists()]
    if missing:
        stamps = _stamps()
        texture = _texture()
        for file in track(missing, "Making images"):
            image = _draw(int(file.stem), stamps, texture)
            beside = file.with_suffix(".part")
            image.save(beside, "JPEG", quality=QUALITY)
            beside.replace(file)
    return files


def _stamps() -> list[Path]:
    found = sorted(STAMPS.rglob("*.png"))
    if len(found) < FEWEST_STAMPS:
        return []
    return found


def _texture() -> NDArray[np.float32]:
    """Return noise of several sizes, as grass, walls and skies have: float32 [side, side]."""
    random = np.random.default_rng(0)
    size = (TEXTURE_SIDE, TEXTURE_SIDE)
    total = random.normal(0, GRAIN, size).astype(np.float32)
    for cells in (8, 32, 128, 512):
        coarse = random.normal(0, 24, (cells, cells)).astype(np.float32)
        enlarged = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        total += np.asarray(enlarged)
    return total


def _draw(number: int, stamps: Sequence[Path], texture: NDArray[np.float32]) -> Image.Image:
    random = np.random.default_rng(number + 1)
    longer = int(random.integers(LONGER_SIDE[0], LONGER_SIDE[1] + 1))
    shorter = int(longer * random.uniform(*SHORTER_SHARE))
    width = longer
    height = shorter
    if random.random() >= 0.7:
        width = shorter
        height = longer
    left = int(random.integers(0, TEXTURE_SIDE - width))
    top = int(random.integers(0, TEXTURE_SIDE - height))
    part = texture[top : top + height, left : left + width, None]
    ground = part * random.uniform(0.5, 1.2, 3)
    colored = np.clip(ground + random.integers(60, 200, 3), 0, 255)
    image = Image.fromarray(colored.astype(np.uint8))
    for _ in range(3):
        _paste(image, stamps, random)
    return image


def _paste(image: Image.Image, stamps: Sequence[Path], random: np.random.Generator) -> None:
    """Lay a photograph, or a block of color, somewhere on the image."""
    side = int(min(image.size) * random.uniform(0.4, 0.8))
    left = int(random.integers(0, image.width - side))
    top = int(random.integers(0, image.height - side))
    if not stamps:
        color = tuple(int(value) for value in random.integers(0, 256, 3))
        image.paste(color, (left, top, left + side, top + side))
        return
    chosen = stamps[int(random.integers(len(stamps)))]
    with Image.open(chosen) as file:
        stamp = file.convert("RGBA")
    shape = min(1.0, stamp.height / stamp.width)
    height = max(1, round(side * shape))
    stamp = stamp.resize((side, height), Image.Resampling.BICUBIC)
    image.paste(stamp, (left, top), stamp)
