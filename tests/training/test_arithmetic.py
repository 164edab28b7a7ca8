import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.networks.backbones import BACKBONES
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.networks.precision import (
    BF16,
    FP32,
    PLAIN,
    PRECISIONS,
    choose_precision,
    fastest,
    time_precisions,
)


@pytest.fixture(scope="module")
def network() -> ClassifierNetwork:
    torch.manual_seed(0)
    backbone = BACKBONES["resnet18"]
    return ClassifierNetwork(backbone, backbone.build(), 2)


def pictures() -> list[Image.Image]:
    values = np.random.default_rng(0).integers(0, 256, (4, 80, 100, 3), dtype=np.uint8)
    return [Image.fromarray(value) for value in values]


def test_every_candidate_is_measured_and_the_fastest_taken(network: ClassifierNetwork) -> None:
    seconds = time_precisions(network, tuple(PRECISIONS.values()), batch=2, rounds=2)
    assert set(seconds) == set(PRECISIONS) and all(0 < value < 60 for value in seconds.values())


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ((3.0, 2.0, 1.0), BF16),
        ((3.0, 2.0, 1.95), FP32),
        ((1.0, 2.0, 1.5), PLAIN),
        ((2.0, 3.0, 1.0), BF16),
    ],
)
def test_coarse_numbers_must_be_clearly_faster(seconds: tuple[float, ...], chosen: object) -> None:
    assert fastest(dict(zip(PRECISIONS, seconds, strict=True))) is chosen


def test_the_choice_is_noted_and_asked_for_only_once(
    network: ClassifierNetwork, tmp_path: Path
) -> None:
    note = tmp_path / "cache" / "arithmetic.json"
    first = choose_precision(network, note)
    (key,) = json.loads(note.read_text())
    assert key.startswith("resnet18, ") and torch.__version__ in key
    other = next(name for name in PRECISIONS if name != first.name)
    note.write_text(json.dumps({key: other}))
    assert choose_precision(network, note).name == other


@pytest.mark.parametrize("junk", ["", "[]", "{", '{"x": 1}'])
def test_a_note_without_sense_is_made_again(
    junk: str, network: ClassifierNetwork, tmp_path: Path
) -> None:
    note = tmp_path / "arithmetic.json"
    note.write_text(junk)
    assert choose_precision(network, note).name in json.loads(note.read_text()).values()


def test_layouts_give_the_same_embeddings_and_coarse_numbers_nearly(
    network: ClassifierNetwork,
) -> None:
    plain = embed_images(network, pictures(), PLAIN)
    assert embed_images(network, pictures(), FP32) == pytest.approx(plain, abs=1e-4)
    coarse = embed_images(network, pictures(), BF16)
    cosines = (
        (plain * coarse).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(coarse, axis=1)
    )
    assert coarse.dtype == np.float32 and cosines.min() > 0.999
