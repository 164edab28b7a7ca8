"""How well near-duplicates are found: 60 planted among 200 photographs, and in 200 cut-outs."""

import io
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from sklearn.datasets import load_sample_images

from tests.training.conftest import on_white, stamps
from training.duplicates import DuplicateIndex, Fingerprint, fingerprint, near_duplicate_pairs

IMAGES = 200
# One toy seen from its sides, and the duplicates that the collection of photographs itself brings
# along.
SAME_MOTIF = ("dreydl", "_mirror", "fireman240a")
FOLDERS = (
    *(
        "animals",
        "plants",
        "food",
        "vehicles",
        "household",
        "hobbies",
        "sports",
        "clothes",
        "town",
        "space",
    ),
    *("seasonal", "military", "people"),
)


def encoded(image: Image.Image, quality: int = 80) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def resized(image: Image.Image) -> Image.Image:
    return encoded(
        image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.LANCZOS)
    )


def mirrored(image: Image.Image) -> Image.Image:
    return encoded(ImageOps.mirror(image))


def cropped(image: Image.Image) -> Image.Image:
    x, y = round(image.width * 0.03), round(image.height * 0.03)
    return encoded(image.crop((x, y, image.width - x, image.height - y)))


def captioned(image: Image.Image) -> Image.Image:
    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    top = round(image.height * 0.88)
    draw.rectangle((0, top, image.width, image.height), fill=(15, 15, 15))
    draw.text((4, top), "see it at pictures.example", fill="white")
    return encoded(copy)


def framed(image: Image.Image) -> Image.Image:
    return encoded(ImageOps.expand(image, max(4, round(min(image.size) * 0.05)), (40, 30, 25)))


Edit = Callable[[Image.Image], Image.Image]
PLAIN: dict[str, tuple[Edit, int]] = {
    "exact": (lambda image: image.copy(), 6),
    "resized": (resized, 9),
    "re-encoded": (lambda image: encoded(image, 30), 9),
    "mirrored": (mirrored, 9),
}
EDITED: dict[str, tuple[Edit, int]] = {
    "cropped": (cropped, 9),
    "captioned": (captioned, 9),
    "framed": (framed, 9),
}


def photographs() -> list[Image.Image]:
    paths = [path for path in stamps(*FOLDERS) if not any(word in path.stem for word in SAME_MOTIF)]
    chosen = np.random.default_rng(3).permutation(len(paths))[:IMAGES]
    assert len(chosen) == IMAGES
    return [on_white(paths[number]) for number in sorted(chosen)]


def scenes() -> list[Image.Image]:
    """Each photograph laid on a piece of one of two others, so that images fill their frame."""
    grounds = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    random = np.random.default_rng(5)
    found = []
    for number, image in enumerate(photographs()):
        ground = grounds[number % len(grounds)]
        side = int(random.integers(120, 400))
        x, y = (int(random.integers(0, room - side + 1)) for room in ground.size)
        scene = ground.crop((x, y, x + side, y + side)).resize((320, 240))
        small = ImageOps.contain(image, (240, 200))
        cut_out = small.convert("L").point([255] * 250 + [0] * 6)
        scene.paste(small, (int(random.integers(0, 80)), int(random.integers(0, 40))), cut_out)
        found.append(scene)
    return found


@cache
def measured(kind: str) -> tuple[dict[str, float], list[tuple[int, int]]]:
    """Share of the planted duplicates found under their original, by edit, and the wrong pairs."""
    images = scenes() if kind == "scenes" else photographs()
    prints = [fingerprint(image) for image in images]
    index = DuplicateIndex()
    for number, known in enumerate(prints):
        index.add(str(number), known)
    shares, planted = {}, list(enumerate(prints))
    originals = iter(np.random.default_rng(11).permutation(IMAGES).tolist())
    for name, (edit, count) in (PLAIN | EDITED).items():
        duplicates = list(duplicates_of(images, edit, [next(originals) for _ in range(count)]))
        shares[name] = (
            sum(index.find(copy) == str(original) for original, copy in duplicates) / count
        )
        planted += duplicates
    assert len(planted) == IMAGES + 60
    pairs = near_duplicate_pairs([known for _, known in planted])
    merged = [(planted[one][0], planted[other][0]) for one, other in pairs]
    return shares, [pair for pair in merged if pair[0] != pair[1]]


def duplicates_of(
    images: list[Image.Image], edit: Edit, numbers: list[int]
) -> Iterator[tuple[int, Fingerprint]]:
    for number in numbers:
        yield number, fingerprint(edit(images[number]))


@pytest.mark.parametrize("kind", ["scenes", "cut-outs"])
def test_nearly_all_plain_duplicates_are_found(kind: str) -> None:
    shares, _ = measured(kind)
    found = sum(shares[name] * count for name, (_, count) in PLAIN.items())
    assert found >= 0.95 * sum(count for _, count in PLAIN.values()), shares


@pytest.mark.parametrize("kind", ["scenes", "cut-outs"])
@pytest.mark.parametrize("edit", EDITED)
def test_most_edited_duplicates_are_found(kind: str, edit: str) -> None:
    assert measured(kind)[0][edit] >= 0.85


def test_no_two_different_images_are_taken_for_duplicates() -> None:
    assert measured("scenes")[1] == []


def test_at_most_one_in_a_hundred_cut_outs_on_white_is_taken_for_another() -> None:
    merged = {number for pair in measured("cut-outs")[1] for number in pair[1:]}
    assert len(merged) <= IMAGES / 100
