"""The pictures that N1 downloads: JPEG of 640 to 1280 px, made once and the same on every machine.

Photographs of the Tux Paint stamps, where they are installed, are pasted on textured grounds;
without them the grounds alone are drawn, with blocks of colour. What a decoder has to do depends on
the detail: texture and quality are chosen so that a thousand pictures weigh about as much as a
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
    """Files of `count` pictures, made where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05d}.jpg" for number in range(count)]
    missing = [(number, file) for number, file in enumerate(files) if not file.exists()]
    if missing:
        stamps, texture = _stamps(), _texture()
        for number, file in track(missing, "Making pictures"):
            beside = file.with_suffix(".part")
            _picture(number, stamps, texture).save(beside, "JPEG", quality=QUALITY)
            beside.replace(file)
    return files


def _stamps() -> list[Path]:
    found = sorted(STAMPS.rglob("*.png")) if STAMPS.is_dir() else []
    return found if len(found) >= FEWEST_STAMPS else []


def _texture() -> NDArray[np.float32]:
    """float32 [side, side]: noise of several sizes, as grass, walls and skies have."""
    random = np.random.default_rng(0)
    total = random.normal(0, GRAIN, (TEXTURE_SIDE, TEXTURE_SIDE)).astype(np.float32)
    for cells in (8, 32, 128, 512):
        coarse = random.normal(0, 24, (cells, cells)).astype(np.float32)
        enlarged = Image.fromarray(coarse).resize(
            (TEXTURE_SIDE, TEXTURE_SIDE), Image.Resampling.BICUBIC
        )
        total += np.asarray(enlarged)
    return total


def _picture(number: int, stamps: Sequence[Path], texture: NDArray[np.float32]) -> Image.Image:
    random = np.random.default_rng(number + 1)
    longer = int(random.integers(LONGER_SIDE[0], LONGER_SIDE[1] + 1))
    shorter = int(longer * random.uniform(*SHORTER_SHARE))
    width, height = (longer, shorter) if random.random() < 0.7 else (shorter, longer)
    left, top = (int(random.integers(0, TEXTURE_SIDE - side)) for side in (width, height))
    ground = texture[top : top + height, left : left + width, None] * random.uniform(0.5, 1.2, 3)
    picture = Image.fromarray(
        np.clip(ground + random.integers(60, 200, 3), 0, 255).astype(np.uint8)
    )
    for _ in range(3):
        _paste(picture, stamps, random)
    return picture


def _paste(picture: Image.Image, stamps: Sequence[Path], random: np.random.Generator) -> None:
    """Lay a photograph, or a block of colour, somewhere on the picture."""
    side = int(min(picture.size) * random.uniform(0.4, 0.8))
    place = (
        int(random.integers(0, picture.width - side)),
        int(random.integers(0, picture.height - side)),
    )
    if not stamps:
        picture.paste(
            tuple(int(value) for value in random.integers(0, 256, 3)),
            (*place, place[0] + side, place[1] + side),
        )
        return
    with Image.open(stamps[int(random.integers(len(stamps)))]) as file:
        stamp = file.convert("RGBA")
    stamp = stamp.resize(
        (side, max(1, round(side * min(1.0, stamp.height / stamp.width)))), Image.Resampling.BICUBIC
    )
    picture.paste(stamp, place, stamp)
