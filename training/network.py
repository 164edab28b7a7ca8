"""The one torch module that features, evaluation, prediction and export share: a picture in, probabilities out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from training.backbones import BACKBONES, CROP, Backbone, delivered_state, load_body

PREPROCESSING = 1  # raised whenever `prepare` gives other numbers, so that cached embeddings are made anew


class PictureNetwork(nn.Module):
    """Resizing, centre crop, normalisation, backbone, linear head and temperature in one graph."""

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(self, backbone: Backbone, body: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.body = body
        self.head = nn.Linear(backbone.dimension, classes)
        self.register_buffer("mean", 255 * torch.tensor(backbone.mean).reshape(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(backbone.std).reshape(3, 1, 1))
        self.register_buffer("temperature", torch.ones(()))
        self.eval()

    def prepare(self, image: Tensor) -> Tensor:
        """uint8 [height, width, 3] of any size to the normalised centre crop, float32 [3, 224, 224].

        Bilinear resizing with antialiasing as two matrix products. Only the rows and columns inside the crop are ever
        computed, so a picture of 3 x 9,000 pixels costs no more than others.
        """
        height, width = image.shape[0], image.shape[1]
        step = cast(float, torch.sym_min(height, width) / self.backbone.resize)
        rows = _sampling(height, step, image.device) @ image.to(torch.float32).reshape(height, width * 3)
        across = rows.reshape(CROP, width, 3).permute(2, 0, 1)
        crop = across @ _sampling(width, step, image.device).T
        return (crop - self.mean) / self.std

    def feature_map(self, pictures: Tensor) -> Tensor:
        """float32 [n, 3, 224, 224] to the last feature map [n, d, 7, 7]."""
        return self.backbone.last_map(self.body, pictures)

    def embed(self, pictures: Tensor) -> Tensor:
        """float32 [n, 3, 224, 224] to embeddings [n, d]."""
        return self.feature_map(pictures).mean((2, 3))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [height, width, 3] to probabilities [1, classes], embedding [1, d] and maps [1, classes, 7, 7].

        The maps are class activation maps: the classifier's weights on the last feature map.
        """
        features = self.feature_map(self.prepare(image)[None])
        embedding = features.mean((2, 3))
        probabilities = torch.softmax(self.head(embedding) / self.temperature, dim=1)
        maps = torch.einsum("ndhw,cd->nchw", features, self.head.weight)
        return probabilities, embedding, maps

    def set_head(self, weight: Tensor, bias: Tensor, temperature: float) -> None:
        """Put the trained head [classes, d], [classes] and its temperature in place."""
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)
            self.temperature.fill_(temperature)

    def delivered_state(self) -> dict[str, Tensor]:
        """The plain state_dict that torchvision's or timm's model of this name loads; the temperature is not in it."""
        body = {name: tensor.detach().cpu().contiguous() for name, tensor in self.body.state_dict().items()}
        head = self.head.weight.detach().cpu(), self.head.bias.detach().cpu()
        return delivered_state(self.backbone, body, *head)


def from_delivered(config: dict[str, Any], state: dict[str, Tensor]) -> PictureNetwork:
    """The network again from a model folder's `config.json` and state_dict."""
    backbone = BACKBONES[config["backbone"]]
    network = PictureNetwork(backbone, load_body(backbone, state), config["num_classes"])
    weight, bias = state[f"{backbone.classifier}.weight"], state[f"{backbone.classifier}.bias"]
    network.set_head(weight, bias, config["temperature"])
    return network


def read_state(path: Path) -> dict[str, Tensor]:
    """The state_dict of a `.safetensors` or `.pth` file."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _sampling(length: int, step: float, device: torch.device) -> Tensor:
    """Triangle-filter weights [224, length]: what each pixel of the centre crop takes from a line of the picture.

    `step` is the distance between output pixels in input pixels; a filter is at least one input pixel wide, so
    enlarging interpolates and shrinking averages.
    """
    pixels = torch.arange(length, dtype=torch.float32, device=device) + 0.5
    offsets = torch.arange(CROP, dtype=torch.float32, device=device) + (0.5 - CROP / 2)
    centres = length / 2 + offsets * step
    reach = torch.relu(torch.ones((), device=device) * step - 1) + 1
    weights = torch.relu(1 - (centres[:, None] - pixels[None, :]).abs() / reach)
    return weights / weights.sum(dim=1, keepdim=True)
