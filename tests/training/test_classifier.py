import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from training.networks.backbones import BACKBONES
from training.networks.catalogue import CROP
from training.networks.classifier import ClassifierNetwork, from_exported, read_state_dict
from training.networks.embeddings import embed_images
from training.networks.novelty import choose_references

SIZES = [
    (1, 1),
    (2, 1),
    (3, 900),
    (900, 3),
    (224, 224),
    (231, 233),
    (640, 333),
    (17, 1500),
    (1024, 768),
]


def new_network(name: str = "resnet18") -> ClassifierNetwork:
    torch.manual_seed(0)
    backbone = BACKBONES[name]
    return ClassifierNetwork(backbone, backbone.build(), classes=3)


def new_image(height: int, width: int, seed: int = 0) -> Tensor:
    random = np.random.default_rng(seed)
    shape = (height, width, 3)
    pixels = random.integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(pixels)


@pytest.mark.parametrize("side", [1, 7, 100, 256, 300, 1025])
def test_resizing_is_bilinear_with_antialiasing(side: int) -> None:
    network = new_network()
    image = new_image(side, side)
    channels_first = image.permute(2, 0, 1)
    batch = channels_first[None].float()
    resized = functional.interpolate(batch, (256, 256), mode="bilinear", antialias=True)
    margin = (256 - CROP) // 2
    middle = slice(margin, -margin)
    crop = resized[0, :, middle, middle]
    expected = network.normalize(crop)
    prepared = network.prepare(image)
    assert torch.allclose(prepared, expected, atol=2e-4)


def test_the_crop_is_the_middle_of_a_wide_image() -> None:
    network = new_network()
    shape = (256, 600, 3)
    image = torch.zeros(shape, dtype=torch.uint8)
    first = 300 - CROP // 2
    end = first + CROP
    image[:, first:end] = 255
    prepared = network.prepare(image)
    crop = prepared * network.std + network.mean
    white = torch.full((3, CROP, CROP), 255.0)
    assert torch.allclose(crop, white, atol=1e-2)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_size_gives_probabilities(height: int, width: int) -> None:
    network = new_network()
    image = new_image(height, width)
    with torch.inference_mode():
        probabilities, embedding, maps, novelty = network(image)
    assert probabilities.shape == (1, 3)
    assert embedding.shape == (1, 512)
    assert maps.shape == (1, 3, 7, 7)
    assert novelty.shape == (1,)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.isfinite(maps).all()
    assert torch.isfinite(novelty).all()


def test_maps_average_to_the_logits_without_their_bias() -> None:
    network = new_network()
    bias = torch.tensor([1.0, -2.0, 0.5])
    network.set_head(torch.randn(3, 512), bias, temperature=2.5)
    with torch.inference_mode():
        image = new_image(60, 90)
        probabilities, embedding, maps, _ = network(image)
        logits = maps.mean((2, 3)) + bias
        expected = torch.softmax(logits / 2.5, dim=1)
        assert torch.allclose(network.head(embedding), logits, atol=1e-4)
        assert torch.allclose(probabilities, expected, atol=1e-5)


def test_embeddings_of_a_batch_are_those_of_single_images() -> None:
    network = new_network("efficientnet_lite0")
    images = []
    embeddings = []
    for seed, (height, width) in enumerate(SIZES):
        pixels = new_image(height, width, seed)
        images.append(Image.fromarray(pixels.numpy()))
        with torch.inference_mode():
            embeddings.append(network(pixels)[1].numpy())
    batch = embed_images(network, images)
    differences = np.abs(batch - np.concatenate(embeddings))
    assert differences.max() < 1e-4


def test_a_smaller_center_crop_is_the_middle_of_a_larger_one() -> None:
    network = new_network()
    image = new_image(300, 411)
    smaller = network.center_crop(image, CROP)
    larger = network.center_crop(image, 256)
    middle = slice(16, 16 + CROP)
    assert torch.allclose(smaller, larger[:, middle, middle], atol=1e-3)
    prepared = network.prepare(image)
    assert torch.allclose(prepared, network.normalize(smaller))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_letterbox_holds_the_whole_image_in_the_colour_of_its_border(
    height: int, width: int
) -> None:
    network = new_network()
    network.view = "letterbox"
    image = torch.full((height, width, 3), 40, dtype=torch.uint8)
    image[0] = image[-1] = 200
    image[:, 0] = image[:, -1] = 200
    square = network.square(image, CROP)
    assert square.shape == (3, CROP, CROP) and torch.isfinite(square).all()
    longer = max(height, width)
    for axis, length in ((1, height), (2, width)):
        padding = int((CROP - CROP * length / longer) / 2) - 1
        if padding > 0:
            padded = square.narrow(axis, 0, padding)
            assert torch.allclose(padded, torch.tensor(200.0), atol=1e-2)
    larger = network.square(image, 256)
    assert torch.allclose(square, larger[:, 16:-16, 16:-16], atol=1e-2)


def test_a_letterbox_shrinks_as_pillow_does() -> None:
    network = new_network()
    network.view = "letterbox"
    image = new_image(336, 672)
    shrunk = Image.fromarray(image.numpy()).resize((CROP, 112), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(shrunk)).permute(2, 0, 1).float()
    square = network.square(image, CROP)
    assert (square[:, 56:168] - expected).abs().max() < 1.5


def test_the_graph_computes_the_same_novelty_as_numpy_does() -> None:
    network = new_network()
    random = np.random.default_rng(0)
    normal = random.normal(size=(40, 512))
    learned = np.maximum(normal, 0).astype(np.float32)
    labels = np.arange(40) % 3
    references = choose_references(learned, labels, 3, seed=0)
    weight = torch.randn(3, 512) / 20
    network.set_head(weight, torch.zeros(3), temperature=1.5)
    network.set_references(references)
    image = new_image(200, 300)
    with torch.inference_mode():
        probabilities, embedding, _, novelty = network(image)
    in_float64 = probabilities.double()
    expected = references.novelty(embedding.numpy(), in_float64.numpy())
    assert novelty.numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_the_exported_state_is_that_of_the_architecture_it_names(name: str) -> None:
    import timm
    import torchvision

    network = new_network(name)
    architecture = network.backbone.architecture
    state = network.exported_state_dict()
    if network.backbone.in_timm:
        oracle = timm.create_model(architecture, num_classes=3).eval()
        assert list(state) == list(oracle.state_dict())
        oracle.load_state_dict(state, strict=True)
    if network.backbone.weights_file:
        oracle = torchvision.models.get_model(architecture, num_classes=3).eval()
        oracle.load_state_dict(state, strict=True)

    config = {"backbone": name, "num_classes": 3, "temperature": 2.0}
    again = from_exported(config, state, network.novelty_state())
    image = new_image(300, 200)
    with torch.inference_mode():
        batch = network.prepare(image)[None]
        expected = torch.softmax(oracle(batch) / 2, dim=1)
        probabilities = again(image)[0]
    assert torch.allclose(probabilities, expected, atol=1e-4)


def test_weights_are_read_from_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    from safetensors.torch import save

    folder = tmp_path / os.fsdecode(b"r\xe4n")
    folder.mkdir()
    path = folder / "model.safetensors"
    path.write_bytes(save({"weight": torch.ones(2)}))
    assert read_state_dict(path)["weight"].tolist() == [1, 1]
