import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from training.networks.backbones import BACKBONES
from training.networks.catalogue import CROP
from training.networks.classifier import ClassifierNetwork, from_exported
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


def network(name: str = "resnet18") -> ClassifierNetwork:
    torch.manual_seed(0)
    return ClassifierNetwork(BACKBONES[name], BACKBONES[name].build(), classes=3)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("side", [1, 7, 100, 256, 300, 1025])
def test_resizing_is_bilinear_with_antialiasing(side: int) -> None:
    net, image = network(), picture(side, side)
    channels = image.permute(2, 0, 1)[None].float()
    resized = functional.interpolate(channels, size=(256, 256), mode="bilinear", antialias=True)
    margin = (256 - CROP) // 2
    expected = (resized[0, :, margin:-margin, margin:-margin] - net.mean) / net.std
    assert torch.allclose(net.prepare(image), expected, atol=2e-4)


def test_the_crop_is_the_middle_of_a_wide_picture() -> None:
    net = network()
    image = torch.zeros((256, 600, 3), dtype=torch.uint8)
    image[:, 300 - CROP // 2 : 300 + CROP // 2] = 255
    assert torch.allclose(
        net.prepare(image) * net.std + net.mean, torch.full((3, CROP, CROP), 255.0), atol=1e-2
    )


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_size_gives_probabilities(height: int, width: int) -> None:
    net = network()
    with torch.inference_mode():
        probabilities, embedding, maps, novelty = net(picture(height, width))
    assert (
        probabilities.shape == (1, 3) and embedding.shape == (1, 512) and maps.shape == (1, 3, 7, 7)
    )
    assert novelty.shape == (1,) and torch.isfinite(novelty).all()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.isfinite(maps).all()


def test_maps_average_to_the_logits_without_their_bias() -> None:
    net = network()
    net.set_head(torch.randn(3, 512), torch.tensor([1.0, -2.0, 0.5]), temperature=2.5)
    with torch.inference_mode():
        probabilities, embedding, maps, _ = net(picture(60, 90))
        logits = maps.mean((2, 3)) + net.head.bias
        assert torch.allclose(net.head(embedding), logits, atol=1e-4)
        assert torch.allclose(probabilities, torch.softmax(logits / 2.5, dim=1), atol=1e-5)


def test_embeddings_of_a_batch_are_those_of_single_pictures() -> None:
    net = network("efficientnet_lite0")
    arrays = [picture(height, width, seed) for seed, (height, width) in enumerate(SIZES)]
    batch = embed_images(net, [Image.fromarray(array.numpy()) for array in arrays])
    with torch.inference_mode():
        single = np.concatenate([net(array)[1].numpy() for array in arrays])
    assert np.abs(batch - single).max() < 1e-4


def test_a_smaller_square_is_the_middle_of_a_larger_one() -> None:
    net = network()
    image = picture(300, 411)
    whole = net.center_crop(image, 256)
    assert torch.allclose(
        net.center_crop(image, CROP), whole[:, 16 : 16 + CROP, 16 : 16 + CROP], atol=1e-3
    )
    assert torch.allclose(net.prepare(image), net.normalize(net.center_crop(image, CROP)))


def test_the_graph_computes_the_same_novelty_as_numpy_does() -> None:
    net = network()
    random = np.random.default_rng(0)
    learned = np.maximum(random.normal(size=(40, 512)), 0).astype(np.float32)
    references = choose_references(learned, np.arange(40) % 3, 3, seed=0)
    net.set_head(torch.randn(3, 512) / 20, torch.zeros(3), temperature=1.5)
    net.set_references(references)
    with torch.inference_mode():
        probabilities, embedding, _, novelty = net(picture(200, 300))
    expected = references.novelty(embedding.numpy(), probabilities.double().numpy())
    assert novelty.numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_the_delivered_state_is_that_of_the_architecture_it_names(name: str) -> None:
    import timm
    import torchvision

    net = network(name)
    state, backbone = net.exported_state_dict(), net.backbone
    oracle = timm.create_model(backbone.architecture, num_classes=3).eval()
    assert list(state) == list(oracle.state_dict())
    oracle.load_state_dict(state, strict=True)
    if backbone.weights_file:
        oracle = torchvision.models.get_model(backbone.architecture, num_classes=3).eval()
        oracle.load_state_dict(state, strict=True)
    image = picture(300, 200)
    again = from_exported(
        {"backbone": name, "num_classes": 3, "temperature": 2.0}, state, net.novelty_state()
    )
    with torch.inference_mode():
        logits = oracle(net.prepare(image)[None])
        assert torch.allclose(again(image)[0], torch.softmax(logits / 2, dim=1), atol=1e-4)
