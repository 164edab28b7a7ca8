"""How well a class with two meanings is told from a class with one.

`python -m benchmarks.meanings [--draws 20] [--features FOLDER]`

Features are those of the bundled network, of the photographs of tuxpaint-stamps-default. The first
table draws from classes of one meaning, as many images as the demonstration asks for (of fewer,
nine tenths): each question would be a false one. The second one serves two folders of different
things under one word, each pair as often as there are draws: a question counts as found where it
cuts the two apart, at least nine in ten images rightly. Folders of all sorts of things are left out
there. Ratios say how the images are shared; the
smaller folder may hold too few for a group of its own, and such pairs are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.image_sets import network
from benchmarks.photographs import described
from training.fitting.linear_head import Samples
from training.fitting.meanings import LEAST_OF_GROUP, LEAST_SHARE, clear_groups
from training.metrics import Labels
from training.networks.novelty import to_unit_length

CLASSES: Mapping[str, Sequence[str]] = {
    "mammal": ["animals/mammals"],
    "bird": ["animals/birds"],
    "fish or insect": ["animals/fish", "animals/insects"],
    "plant": ["plants"],
    "food": ["food"],
    "household": ["household"],
    "road sign": ["town/roadsigns"],
    "vehicle": ["vehicles", "military/vehicles"],
    "hand sign": ["symbols/alphabets/asl"],
    "letter": ["symbols/alphabets/english/filled", "symbols/alphabets/german/filled"],
    "coin": [f"symbols/money/{place}" for place in ("canadian", "euro", "japanese", "us")],
    "festival": ["seasonal"],
}
MIXED_BAGS = ("food", "household", "vehicle", "festival", "fish or insect")
"""Folders of all sorts of things, which are not one meaning of a word."""
RELATED = (("mammal", "bird"), ("road sign", "letter"))
"""Pairs that one word may well mean together, or that look alike."""
ONE_MEANING = ("mammal", "bird", "plant", "hand sign", *MIXED_BAGS)
DEMO_IMAGES = 38
RATIOS = (0.5, 0.7, 0.85)
MOST = 100  # images of a class
RIGHT = 0.9


def features(folder: Path | None) -> Samples:
    """Return the photographs of all classes, from a folder where they were computed before."""
    path = folder / "meanings.npz" if folder else None
    if path is None or not path.exists():
        samples = described(CLASSES, network()).samples
        if path is None:
            return samples
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            embeddings=samples.embeddings,
            labels=samples.labels,
            groups=samples.groups,
        )
    with np.load(path) as file:
        return Samples(file["embeddings"], file["labels"], file["groups"], len(CLASSES))


def different_images(samples: Samples) -> dict[str, NDArray[np.float32]]:
    """Return the embeddings of each class, in unit length; of near-duplicates one."""
    _, firsts = np.unique(samples.groups, return_index=True)
    directions = to_unit_length(samples.embeddings)
    found = {}
    for number, name in enumerate(CLASSES):
        members = firsts[samples.labels[firsts] == number]
        found[name] = directions[members]
    return found


def drawn(
    images: NDArray[np.float32], count: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """Return so many of the images, at random."""
    return images[random.choice(len(images), count, replace=False)]


def false_questions(images: NDArray[np.float32], draws: int) -> tuple[int, int]:
    """Return how many images a draw has, and how many of the draws lead to a question."""
    count = min(DEMO_IMAGES, round(0.9 * len(images)))
    questions = 0
    for seed in range(draws):
        random = np.random.default_rng(seed)
        numbers = clear_groups(drawn(images, count, random), seed)
        questions += bool(numbers.max())
    return count, questions


def mixed(
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    ratio: float,
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], Labels] | None:
    """Return images of two folders, and of which each is; None where one has too few."""
    most = min(MOST, len(one) / ratio, len(other) / (1 - ratio))
    of_one = int(ratio * most)
    of_other = int((1 - ratio) * most)
    if of_other < max(LEAST_OF_GROUP, LEAST_SHARE * most):
        return None
    both = np.concatenate([drawn(one, of_one, random), drawn(other, of_other, random)])
    truth = np.repeat([0, 1], [of_one, of_other])
    return both, truth


def is_found(numbers: Labels, truth: Labels) -> bool:
    """Return whether there is a question whose groups hold one folder each."""
    if not numbers.max():
        return False
    right = 0
    for number in np.unique(numbers):
        counts = np.bincount(truth[numbers == number], minlength=2)
        right += int(counts.max())
    return right >= RIGHT * len(truth)


def pairs() -> Iterator[tuple[str, str]]:
    """Yield the pairs of unrelated classes, each in both orders."""
    for one, other in combinations(CLASSES, 2):
        is_apart = (one, other) not in RELATED
        if is_apart and one not in MIXED_BAGS and other not in MIXED_BAGS:
            yield one, other
            yield other, one


def found_pairs(
    images: Mapping[str, NDArray[np.float32]], ratio: float, draws: int
) -> tuple[int, int, int]:
    """Return how many pairs there are, of how many mixtures, and in how many both were found."""
    tried = 0
    found = 0
    known = set()
    for one, other in pairs():
        for seed in range(draws):
            random = np.random.default_rng(seed)
            mixture = mixed(images[one], images[other], ratio, random)
            if mixture is None:
                continue
            embeddings, truth = mixture
            known.add((one, other))
            tried += 1
            found += is_found(clear_groups(embeddings, seed), truth)
    return len(known), tried, found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Measures the question “which do you mean?”.")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--features", type=Path, metavar="FOLDER", help="kept between runs here")
    given = parser.parse_args()
    images = different_images(features(given.features))
    print("| one meaning | images | false questions |\n|---|---|---|")
    for name in ONE_MEANING:
        count, questions = false_questions(images[name], given.draws)
        print(f"| {name} | {count} | {questions} of {given.draws} |", flush=True)
    print("\n| two meanings | pairs | found |\n|---|---|---|")
    for ratio in RATIOS:
        known, tried, found = found_pairs(images, ratio, max(1, given.draws // 10))
        share = round(100 * found / max(1, tried))
        title = f"{round(100 * ratio)}:{round(100 * (1 - ratio))}"
        print(f"| {title} | {known} | {found} of {tried} ({share} %) |", flush=True)


if __name__ == "__main__":
    main()
