import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from training.networks.backbones import BACKBONES
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.networks.precision import (
    BF16,
    FP32,
    FP32_CONTIGUOUS,
    PRECISIONS,
    Precision,
    choose_precision,
    exact_float32,
    fastest,
    time_precisions,
)


@pytest.fixture(scope="module")
def network() -> ClassifierNetwork:
    torch.manual_seed(0)
    backbone = BACKBONES["resnet18"]
    return ClassifierNetwork(backbone, backbone.build(), 2)


def images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    shape = (4, 80, 100, 3)
    arrays = random.integers(0, 256, shape, dtype=np.uint8)
    return [Image.fromarray(array) for array in arrays]


def test_every_precision_is_timed(network: ClassifierNetwork) -> None:
    precisions = tuple(PRECISIONS.values())
    seconds = time_precisions(network, precisions, batch_size=2, rounds=2)
    assert set(seconds) == set(PRECISIONS)
    for value in seconds.values():
        assert 0 < value < 60


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ((3.0, 2.0, 1.0), BF16),
        ((3.0, 2.0, 1.95), FP32),
        ((1.0, 2.0, 1.5), FP32_CONTIGUOUS),
        ((2.0, 3.0, 1.0), BF16),
    ],
)
def test_bfloat16_must_be_clearly_faster(seconds: tuple[float, ...], chosen: object) -> None:
    tried = [precision.name for precision in (FP32_CONTIGUOUS, FP32, BF16)]
    by_name = dict(zip(tried, seconds, strict=True))
    assert fastest(by_name) is chosen


def test_the_choice_is_noted_and_measured_only_once(
    network: ClassifierNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "cache" / "arithmetic.json"
    first = choose_precision(network, path)
    (key,) = json.loads(path.read_text())
    assert key.startswith("resnet18, ")
    assert torch.__version__ in key
    others = [name for name in PRECISIONS if name != first.name]
    path.write_text(json.dumps({key: others[0]}))
    assert choose_precision(network, path).name == others[0]


def test_notes_hold_the_same_names_as_ever() -> None:
    assert list(PRECISIONS) == [
        "float32",
        "float32, channels-last",
        "bfloat16, channels-last",
        "float16, channels-last",
    ]


@pytest.mark.parametrize("failing", [FP32, BF16])
def test_a_precision_that_fails_is_left_out_and_not_the_run(
    failing: Precision, network: ClassifierNetwork
) -> None:
    tried = [FP32_CONTIGUOUS, FP32, BF16]
    resnet = BACKBONES["resnet18"]

    def last_map(body: torch.nn.Module, images: Tensor) -> Tensor:
        half = torch.is_autocast_enabled("cpu")
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        if half == (failing is BF16) and channels_last:
            raise RuntimeError("no kernel image is available for execution on the device")
        return resnet.last_map(body, images)

    backbone = dataclasses.replace(resnet, last_map=last_map)
    other = ClassifierNetwork(backbone, network.body, 2)
    seconds = time_precisions(other, tried, batch_size=2, rounds=2)
    assert seconds.keys() == {precision.name for precision in tried} - {failing.name}


def test_where_every_precision_fails_the_reason_is_told(network: ClassifierNetwork) -> None:
    def last_map(body: torch.nn.Module, images: Tensor) -> Tensor:
        raise RuntimeError("no kernel image")

    backbone = dataclasses.replace(BACKBONES["resnet18"], last_map=last_map)
    with pytest.raises(RuntimeError, match="no kernel image"):
        time_precisions(ClassifierNetwork(backbone, network.body, 2), [FP32])


@pytest.mark.parametrize("junk", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_note_is_made_again(
    junk: str, network: ClassifierNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "arithmetic.json"
    path.write_text(junk)
    chosen = choose_precision(network, path)
    notes = json.loads(path.read_text())
    assert chosen.name in notes.values()


def test_layouts_give_the_same_embeddings_and_bfloat16_nearly(network: ClassifierNetwork) -> None:
    plain = embed_images(network, images(), FP32_CONTIGUOUS)
    channels_last = embed_images(network, images(), FP32)
    assert channels_last == pytest.approx(plain, abs=1e-4)
    lower = embed_images(network, images(), BF16)
    products = (plain * lower).sum(axis=1)
    plain_lengths = np.linalg.norm(plain, axis=1)
    lower_lengths = np.linalg.norm(lower, axis=1)
    cosines = products / (plain_lengths * lower_lengths)
    assert lower.dtype == np.float32
    assert cosines.min() > 0.999


def test_a_gpu_must_not_round_float32() -> None:
    exact_float32()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
