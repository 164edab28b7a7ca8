"""The one torch module that features, evaluation, prediction and export share: a picture in,
probabilities out.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from training.networks.backbones import BACKBONES, Backbone, exported_state_dict, load_body
from training.networks.catalogue import CROP
from training.networks.novelty import NEIGHBOURS, UNSURENESS_SHARE, References

PREPROCESSING = (
    1  # raised whenever `prepare` gives other numbers, so that cached embeddings are made anew
)


class ClassifierNetwork(nn.Module):
    """Resizing, centre crop, normalisation, backbone, linear head, temperature and novelty in one
    graph.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor
    scale: Tensor
    """Factor of each number of an embedding before it is compared with the references: [d]."""
    references: Tensor
    """Scaled training embeddings of length 1, class after class: float16 [m, d]."""
    bounds: tuple[int, ...]
    """Where each class's references begin, and where the last ends: classes + 1 numbers."""

    def __init__(self, backbone: Backbone, body: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.body = body
        self.head = nn.Linear(backbone.dimension, classes)
        self.register_buffer("mean", 255 * torch.tensor(backbone.mean).reshape(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(backbone.std).reshape(3, 1, 1))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("scale", torch.ones(backbone.dimension))
        self.register_buffer(
            "references", torch.zeros((0, backbone.dimension), dtype=torch.float16)
        )
        self.bounds = ()
        self.eval()

    def prepare(self, image: Tensor) -> Tensor:
        """uint8 [height, width, 3] of any size to the normalised centre crop, float32 [3, 224,
        224].
        """
        return self.normalize(self.center_crop(image, CROP))

    def center_crop(self, image: Tensor, side: int) -> Tensor:
        """The middle square of a picture whose shorter side has the backbone's size: float32 [3,
        side, side] in 0..255.

        Bilinear resizing with antialiasing as two matrix products. Only the rows and columns inside
        the square are ever computed, so a picture of 3 x 9,000 pixels costs no more than others. A
        smaller square is the middle of a larger one.
        """
        height, width = image.shape[0], image.shape[1]
        step = cast(float, torch.sym_min(height, width) / self.backbone.resize)
        rows = _sampling(height, step, side, image.device) @ image.to(torch.float32).reshape(
            height, width * 3
        )
        across = rows.reshape(side, width, 3).permute(2, 0, 1)
        return across @ _sampling(width, step, side, image.device).T

    def normalize(self, crops: Tensor) -> Tensor:
        """RGB in 0..255 [..., 3, h, w] to what the backbone was trained on."""
        return (crops - self.mean) / self.std

    def feature_map(self, pictures: Tensor) -> Tensor:
        """float32 [n, 3, 224, 224] to the last feature map [n, d, 7, 7]."""
        return self.backbone.last_map(self.body, pictures)

    def embed(self, pictures: Tensor) -> Tensor:
        """float32 [n, 3, 224, 224] to embeddings [n, d]; averaged in float32 whatever the products
        were computed in.
        """
        return self.feature_map(pictures).float().mean((2, 3))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """uint8 [h, w, 3] to probabilities [1, classes], embedding [1, d], maps [1, classes, 7, 7]
        and novelty [1].

        The maps are class activation maps: the classifier's weights on the last feature map.
        """
        features = self.feature_map(self.prepare(image)[None])
        embedding = features.mean((2, 3))
        probabilities = torch.softmax(self.head(embedding) / self.temperature, dim=1)
        maps = torch.einsum("ndhw,cd->nchw", features, self.head.weight)
        return probabilities, embedding, maps, self.novelty(embedding, probabilities)

    def novelty(self, embeddings: Tensor, probabilities: Tensor) -> Tensor:
        """How unlike all classes pictures are [n], by embeddings [n, d] and probabilities [n,
        classes].

        See `training.networks.novelty`, which computes the same with numpy; 0 for a network without
        references.
        """
        if not self.bounds:
            return embeddings.new_zeros(len(embeddings))
        scaled = nn.functional.normalize(embeddings * self.scale, dim=1)
        cosines = scaled @ self.references.float().T
        by_class = [
            cosines[:, start:end].topk(min(NEIGHBOURS, end - start), dim=1).values.mean(dim=1)
            for start, end in pairwise(self.bounds)
            if end > start
        ]
        likeness = torch.stack(by_class, dim=1).amax(dim=1)
        return 1 - likeness + UNSURENESS_SHARE * (1 - probabilities.amax(dim=1))

    def set_head(self, weight: Tensor, bias: Tensor, temperature: float) -> None:
        """Put the trained head [classes, d], [classes] and its temperature in place."""
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)
            self.temperature.fill_(temperature)

    def set_references(self, references: References) -> None:
        """Put in place what novelty is measured against."""
        device = self.temperature.device
        self.scale = torch.from_numpy(references.scale).to(device)
        self.references = torch.from_numpy(references.vectors).to(device)
        self.bounds = references.bounds

    def novelty_state(self) -> dict[str, Tensor]:
        """What `novelty.safetensors` of a model folder holds, which the plain state_dict has no
        place for.
        """
        tensors = {
            "scale": self.scale,
            "references": self.references,
            "bounds": torch.tensor(self.bounds),
        }
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def exported_state_dict(self) -> dict[str, Tensor]:
        """The plain state_dict that torchvision's or timm's model of this name loads; the
        temperature is not in it.
        """
        body = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.body.state_dict().items()
        }
        head = self.head.weight.detach().cpu(), self.head.bias.detach().cpu()
        return exported_state_dict(self.backbone, body, *head)


def from_exported(
    config: dict[str, Any], state: Mapping[str, Tensor], novelty_state: Mapping[str, Tensor]
) -> ClassifierNetwork:
    """The network again from a model folder's `config.json`, state_dict and
    `novelty.safetensors`.
    """
    backbone = BACKBONES[config["backbone"]]
    network = ClassifierNetwork(backbone, load_body(backbone, state), config["num_classes"])
    weight, bias = state[f"{backbone.classifier}.weight"], state[f"{backbone.classifier}.bias"]
    network.set_head(weight, bias, config["temperature"])
    bounds = tuple(int(bound) for bound in novelty_state["bounds"])
    network.set_references(
        References(novelty_state["scale"].numpy(), novelty_state["references"].numpy(), bounds)
    )
    return network


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state_dict of a `.safetensors` or `.pth` file."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _sampling(length: int, step: float, side: int, device: torch.device) -> Tensor:
    """Triangle-filter weights [side, length]: what each pixel of the middle square takes from a
    line of the picture.

    `step` is the distance between output pixels in input pixels; a filter is at least one input
    pixel wide, so enlarging interpolates and shrinking averages.
    """
    pixels = torch.arange(length, dtype=torch.float32, device=device) + 0.5
    offsets = torch.arange(side, dtype=torch.float32, device=device) + (0.5 - side / 2)
    centres = length / 2 + offsets * step
    reach = torch.relu(torch.ones((), device=device) * step - 1) + 1
    weights = torch.relu(1 - (centres[:, None] - pixels[None, :]).abs() / reach)
    return weights / weights.sum(dim=1, keepdim=True)
