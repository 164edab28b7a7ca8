"""The one torch module that features, evaluation, prediction and export share.

An image goes in, probabilities come out.
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
from training.networks.novelty import NEIGHBOURS, UNCERTAINTY_SHARE, References
from training.run_folder import View

PREPROCESSING = 1
"""Raised whenever `prepare` gives other numbers, so that cached embeddings are made anew."""


class ClassifierNetwork(nn.Module):
    """Resizing to a square, normalization, backbone, linear head, temperature and novelty.

    They are one graph, so that the exported model takes images of any size.
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

    def __init__(
        self, backbone: Backbone, body: nn.Module, classes: int, view: View = "crop"
    ) -> None:
        super().__init__()
        dimension = backbone.dimension
        mean = 255 * torch.tensor(backbone.mean)
        std = 255 * torch.tensor(backbone.std)
        temperature = torch.ones(())
        scale = torch.ones(dimension)
        no_references = torch.zeros((0, dimension), dtype=torch.float16)
        self.view = view
        self.backbone = backbone
        self.body = body
        self.head = nn.Linear(dimension, classes)
        self.register_buffer("mean", mean.reshape(3, 1, 1))
        self.register_buffer("std", std.reshape(3, 1, 1))
        self.register_buffer("temperature", temperature)
        self.register_buffer("scale", scale)
        self.register_buffer("references", no_references)
        self.bounds = ()
        self.eval()

    @property
    def device(self) -> torch.device:
        """Return where the network computes."""
        return self.temperature.device

    def prepare(self, image: Tensor) -> Tensor:
        """Return the normalized square that the network sees of an image of any size.

        uint8 [height, width, 3] to float32 [3, 224, 224].
        """
        return self.normalize(self.square(image, CROP))

    def square(self, image: Tensor, side: int) -> Tensor:
        """Return the square of an image by the network's view: its middle, or all of it, padded.

        uint8 [height, width, 3] to float32 [3, side, side] in 0..255. A smaller square is the
        middle of a larger one; at 224 the letterbox just holds the image.
        """
        if self.view == "letterbox":
            return self.letterbox(image, side)
        return self.center_crop(image, side)

    def center_crop(self, image: Tensor, side: int) -> Tensor:
        """Return the center crop of an image whose shorter side has the backbone's size.

        uint8 [height, width, 3] to float32 [3, side, side] in 0..255. Bilinear resizing with
        antialiasing as two matrix products. Only the rows and columns inside the crop are ever
        computed, so an image of 3 x 9,000 pixels costs no more than others. A smaller crop is the
        middle of a larger one.
        """
        height = image.shape[0]
        width = image.shape[1]
        device = image.device
        shorter = torch.sym_min(height, width)
        step = cast(float, shorter / self.backbone.resize)
        down = _resampling(height, step, side, device)
        across = _resampling(width, step, side, device)
        return _resampled(image.to(torch.float32), down, across)

    def letterbox(self, image: Tensor, side: int) -> Tensor:
        """Return the whole of an image whose longer side is 224 pixels, in a square.

        uint8 [height, width, 3] to float32 [3, side, side] in 0..255. The rest has the mean colour
        of the image's border. Resized like `center_crop`.
        """
        height = image.shape[0]
        width = image.shape[1]
        device = image.device
        longer = torch.sym_max(height, width)
        step = cast(float, longer / CROP)
        in_height = _inside(height, step, side, device)
        in_width = _inside(width, step, side, device)
        # Beside the image a filter has no weight at all, which scaled to 1 is no number.
        down = _resampling(height, step, side, device).nan_to_num()
        across = _resampling(width, step, side, device).nan_to_num()
        rows_inside = in_height[:, None]
        columns_inside = in_width[:, None]
        values = image.to(torch.float32)
        picture = _resampled(values, down * rows_inside, across * columns_inside)
        is_padding = 1 - rows_inside * in_width
        colour = _border_colour(values)
        return picture + is_padding * colour[:, None, None]

    def normalize(self, crops: Tensor) -> Tensor:
        """Take RGB in 0..255 [..., 3, h, w] to what the backbone was trained on."""
        return (crops - self.mean) / self.std

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map [n, d, 7, 7] of float32 [n, 3, 224, 224]."""
        return self.backbone.last_map(self.body, images)

    def embed(self, images: Tensor) -> Tensor:
        """Return the embeddings [n, d] of float32 [n, 3, 224, 224].

        They are averaged in float32 whatever the products were computed in.
        """
        features = self.feature_map(images)
        return features.float().mean((2, 3))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return probabilities, embedding, maps and novelty of uint8 [h, w, 3].

        They are [1, classes], [1, d], [1, classes, 7, 7] and [1]. The maps are class activation
        maps (Zhou et al. 2016): the classifier's weights on the last feature map.
        """
        batch = self.prepare(image)[None]
        weight = self.head.weight
        features = self.feature_map(batch)
        embedding = features.mean((2, 3))
        logits = self.head(embedding)
        calibrated = logits / self.temperature
        probabilities = torch.softmax(calibrated, dim=1)
        maps = torch.einsum("ndhw,cd->nchw", features, weight)
        novelty = self.novelty(embedding, probabilities)
        return probabilities, embedding, maps, novelty

    def novelty(self, embeddings: Tensor, probabilities: Tensor) -> Tensor:
        """Return how unlike all classes images are [n].

        `embeddings` are [n, d], `probabilities` [n, classes]. See `training.networks.novelty`,
        which computes the same with numpy; 0 for a network without references.
        """
        if not self.bounds:
            return embeddings.new_zeros(len(embeddings))
        scaled = embeddings * self.scale
        unit = nn.functional.normalize(scaled, dim=1)
        references = self.references.float()
        cosines = unit @ references.T
        by_class = []
        for start, end in pairwise(self.bounds):
            count = min(NEIGHBOURS, end - start)
            if count > 0:
                of_class = cosines[:, start:end]
                nearest = of_class.topk(count, dim=1).values
                similarity = nearest.mean(dim=1)
                by_class.append(similarity)
        similarities = torch.stack(by_class, dim=1)
        highest_similarity = similarities.amax(dim=1)
        confidence = probabilities.amax(dim=1)
        uncertainty = 1 - confidence
        penalty = UNCERTAINTY_SHARE * uncertainty
        return 1 - highest_similarity + penalty

    def set_head(self, weight: Tensor, bias: Tensor, temperature: float) -> None:
        """Put the trained head [classes, d], [classes] and its temperature in place."""
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)
            self.temperature.fill_(temperature)

    def set_references(self, references: References) -> None:
        """Put in place what novelty is measured against."""
        scale = torch.from_numpy(references.scale)
        vectors = torch.from_numpy(references.vectors)
        self.scale = scale.to(self.device)
        self.references = vectors.to(self.device)
        self.bounds = references.bounds

    def novelty_state(self) -> dict[str, Tensor]:
        """Return what `novelty.safetensors` of a model folder holds.

        The exported state_dict has no room for it.
        """
        return {
            "scale": _for_file(self.scale),
            "references": _for_file(self.references),
            "bounds": torch.tensor(self.bounds),
        }

    def exported_state_dict(self) -> dict[str, Tensor]:
        """Return the state_dict that torchvision's or timm's model of this name loads.

        The temperature is not in it.
        """
        body = self.body.state_dict()
        for name, tensor in body.items():
            body[name] = _for_file(tensor)
        weight = _for_file(self.head.weight)
        bias = _for_file(self.head.bias)
        return exported_state_dict(self.backbone, body, weight, bias)


def _for_file(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def from_exported(
    config: dict[str, Any], state: Mapping[str, Tensor], novelty_state: Mapping[str, Tensor]
) -> ClassifierNetwork:
    """Return the network again from what a model folder holds.

    That is its `config.json`, its state_dict and its `novelty.safetensors`.
    """
    backbone = BACKBONES[config["backbone"]]
    body = load_body(backbone, state)
    view: View = "letterbox" if config.get("view") == "letterbox" else "crop"
    network = ClassifierNetwork(backbone, body, config["num_classes"], view)
    weight = state[f"{backbone.classifier}.weight"]
    bias = state[f"{backbone.classifier}.bias"]
    network.set_head(weight, bias, config["temperature"])
    references = References(
        scale=novelty_state["scale"].numpy(),
        vectors=novelty_state["references"].numpy(),
        bounds=tuple(novelty_state["bounds"].tolist()),
    )
    network.set_references(references)
    return network


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the state_dict of a `.safetensors` or `.pth` file."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load

        return load(path.read_bytes())  # by path it takes no names that are not UTF-8
    return torch.load(path, map_location="cpu", weights_only=True)


def _resampled(values: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Resample an image float32 [height, width, 3] by two matrices to [3, side, side]."""
    height = values.shape[0]
    width = values.shape[1]
    lines = values.reshape(height, width * 3)
    rows = down @ lines
    channels_last = rows.reshape(down.shape[0], width, 3)
    channels_first = channels_last.permute(2, 0, 1)
    return channels_first @ across.T


def _border_colour(values: Tensor) -> Tensor:
    """Return the mean colour [3] of the outermost pixels of an image float32 [h, w, 3]."""
    height = values.shape[0]
    width = values.shape[1]
    rows = values[0] + values[-1]
    columns = values[:, 0] + values[:, -1]
    of_rows = rows.sum(dim=0)
    of_columns = columns.sum(dim=0)
    count = 2 * (height + width)
    return (of_rows + of_columns) / count


def _inside(length: int, step: float, side: int, device: torch.device) -> Tensor:
    """Return 1 for each pixel [side] of a square whose centre lies on the image, else 0."""
    indices = torch.arange(side, dtype=torch.float32, device=device)
    first_offset = 0.5 - side / 2
    offsets = indices + first_offset
    from_middle = offsets.abs() * step
    half = length / 2
    is_inside = from_middle <= half
    return is_inside.to(torch.float32)


def _resampling(length: int, step: float, side: int, device: torch.device) -> Tensor:
    """Return triangle-filter weights [side, length] for one direction.

    They say what each pixel of the center crop takes from a line of the image. `step` is the
    distance between output pixels in input pixels; a filter is at least one input pixel wide, so
    enlarging interpolates and shrinking averages.
    """
    indices = torch.arange(length, dtype=torch.float32, device=device)
    pixels = indices + 0.5
    crop_indices = torch.arange(side, dtype=torch.float32, device=device)
    first_offset = 0.5 - side / 2
    offsets = crop_indices + first_offset
    middle = length / 2
    centers = middle + offsets * step
    distances = centers[:, None] - pixels
    one = torch.ones((), device=device)
    wider_by = torch.relu(one * step - 1)
    half_width = wider_by + 1
    relative = distances.abs() / half_width
    weights = torch.relu(1 - relative)
    return weights / weights.sum(dim=1, keepdim=True)
