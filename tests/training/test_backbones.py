import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision  # type: ignore[import-untyped]

from tests.training.conftest import LoopbackServer
from training.networks.backbones import BACKBONES, load_backbone, load_body
from training.networks.catalogue import BUNDLED, CATALOGUE, DEFAULT
from training.networks.classifier import ClassifierNetwork
from training.networks.weights import WeightSources


def server_alone(tmp_path: Path, url: str) -> WeightSources:
    return WeightSources(None, tmp_path / "cache", url)


def test_every_backbone_of_the_catalogue_can_be_built_and_nothing_else() -> None:
    assert list(BACKBONES) == list(CATALOGUE)
    assert {DEFAULT, BUNDLED} <= set(CATALOGUE)
    assert CATALOGUE[BUNDLED].weights_file is None


def test_downloaded_weights_are_the_ones_that_the_network_gets(
    tmp_path: Path, server: LoopbackServer
) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(3)
    original = resnet18().state_dict()
    stream = io.BytesIO()
    torch.save(original, stream)
    content = stream.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    name = f"resnet18-{digest[:8]}.pth"
    server.files[f"/{name}"] = content
    wanted = replace(BACKBONES["resnet18"], weights_file=name)
    loaded = load_backbone(wanted, "pretrained", server_alone(tmp_path, server.url))
    assert loaded.notice is None
    assert loaded.weights == "torchvision IMAGENET1K_V1"
    for key, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, original[key])


def test_weights_that_cannot_be_had_are_replaced_by_the_bundled_ones_with_a_notice(
    tmp_path: Path, server: LoopbackServer
) -> None:
    wanted = BACKBONES["resnet50"]
    loaded = load_backbone(wanted, "pretrained", server_alone(tmp_path, server.url))
    assert server.asked == ["/resnet50-11ad3fa6.pth"]
    assert loaded.backbone.name == "efficientnet_lite0"
    assert loaded.notice is not None
    for words in ("ResNet50", "404", "used instead"):
        assert words in loaded.notice


def test_the_bundled_network_has_its_real_weights_under_the_names_that_timm_knows() -> None:
    import timm

    wanted = BACKBONES["efficientnet_lite0"]
    loaded = load_backbone(wanted, "pretrained", WeightSources(None, Path(), ""))
    assert loaded.notice is None
    exported = {}
    for name, tensor in loaded.network.state_dict().items():
        exported[wanted.exported_name(name)] = tensor
    oracle = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    assert list(exported) == list(oracle.state_dict())
    oracle.load_state_dict(exported, strict=True)
    images = torch.randn(2, 3, 224, 224, generator=torch.manual_seed(0))
    network = loaded.network.eval()
    with torch.inference_mode():
        expected = oracle.forward_features(images)
        found = wanted.last_map(network, images)
    assert torch.allclose(found, expected, atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize("name", ["resnet50_v1", "convnext_tiny", "efficientnet_v2_s", "swin_v2_t"])
def test_the_mean_of_the_map_is_what_torchvisions_own_classifier_gets(name: str) -> None:
    torch.manual_seed(0)
    backbone = BACKBONES[name]
    theirs = getattr(torchvision.models, backbone.architecture)(num_classes=3).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:  # normalization layers that do something
                parameter.add_(0.1 * torch.randn_like(parameter))
    state = theirs.state_dict()
    body = load_body(backbone, state)
    network = ClassifierNetwork(backbone, body, 3)
    classifier = backbone.classifier
    network.set_head(state[f"{classifier}.weight"], state[f"{classifier}.bias"], 1.0)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = theirs(images)
        last_map = network.feature_map(images)
        logits = network.head(network.embed(images))
    assert last_map.shape == (2, backbone.dimension, 7, 7)
    assert torch.allclose(logits, expected, atol=1e-4)
    exported = network.exported_state_dict()
    assert exported.keys() == state.keys()
    theirs.load_state_dict(exported, strict=True)
