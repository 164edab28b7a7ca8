"""The network's ONNX graph: traced once for each backbone, cached, and filled for each model.

Tracing takes seconds, writing weights into a traced graph a fraction of one. All tensors of the
network are inputs of the cached graph, for any number of classes and references, and become
constants when a model is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import warnings
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from training.networks import backbones, catalogue, classifier, novelty
from training.networks.backbones import Backbone
from training.networks.catalogue import CROP
from training.networks.classifier import ClassifierNetwork
from training.networks.novelty import NEIGHBOURS, UNCERTAINTY_SHARE
from training.run_folder import View, atomic_write

if TYPE_CHECKING:
    import onnx

OUTPUTS = ("probabilities", "embedding", "cam", "novelty")

# Sizes while tracing; any numbers that are no other size in the graph.
_CLASSES = 5
_REFERENCES = 41
_IMAGE_SIZE = (CROP + 31, CROP + 75)

# Before the tensors' names among the inputs: the exporter names results “mean” and the like too.
_INPUT_PREFIX = "network."

_OTHER_CLASS = -4.0  # added to the cosine of a reference of another class, below any true one
_DIGEST_BYTES = 32  # of sha256, at the head of a cached graph

# The lowest that the graph's operations need, so that a runtime of 2023 (ONNX Runtime 1.14) reads
# it. Left to itself the exporter writes the newest that it knows.
_OPERATOR_SET = 18
_IR_VERSION = 8

# What the graph is traced from: a cached one is used only while none of these has changed.
_SOURCES = (
    __file__,
    backbones.__file__,
    catalogue.__file__,
    classifier.__file__,
    novelty.__file__,
)
_PACKAGES = ("torch", "torchvision", "efficientnet-lite-pytorch", "onnx", "onnxscript")


def onnx_model(network: ClassifierNetwork, folder: Path) -> onnx.ModelProto:
    """Return the graph of a network on the CPU with its weights inside.

    The graph without weights is read from the folder of cached graphs, or traced and kept there.
    """
    graph = cached_graph(network, folder)
    _fill(graph, _tensors(network))
    return graph


def cached_graph(network: ClassifierNetwork, folder: Path) -> onnx.ModelProto:
    """Return the graph of a network without weights, which is traced where it is not cached."""
    path = _cached_path(network, folder)
    graph = read_cached_graph(path)
    if graph is None:
        graph = _trace(network)
        _cache(graph, path)
    return graph


def forget_cached_graph(network: ClassifierNetwork, folder: Path) -> None:
    """Have the graph of a network traced anew next time."""
    _cached_path(network, folder).unlink(missing_ok=True)


def read_cached_graph(path: Path) -> onnx.ModelProto | None:
    """Return the cached graph, or None where there is none or it is damaged."""
    import onnx

    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest = data[:_DIGEST_BYTES]
    content = data[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    return onnx.load_model_from_string(content)


def _cache(graph: onnx.ModelProto, path: Path) -> None:
    content = graph.SerializeToString()
    digest = hashlib.sha256(content).digest()
    # Where it cannot be kept, it is traced again next time.
    with contextlib.suppress(OSError), atomic_write(path, durable=False) as file:
        file.write(digest + content)


def _cached_path(network: ClassifierNetwork, folder: Path) -> Path:
    """Return where a graph is cached: the name changes with everything that it depends on."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        digest.update(version(package).encode())
    for source in _SOURCES:
        digest.update(Path(source).read_bytes())
    version_digest = digest.hexdigest()[:16]
    return folder / f"{network.backbone.name}-{network.view}-{version_digest}.graph"


class _AnyClasses(ClassifierNetwork):
    """The network with a table of each reference's class, so that one graph serves all models."""

    members: Tensor
    """1 where a reference is of a class, else 0: float32 [classes, references]."""

    def __init__(self, backbone: Backbone, body: nn.Module, view: View) -> None:
        super().__init__(backbone, body, _CLASSES, view)
        shape = (_REFERENCES, backbone.dimension)
        members = torch.ones((_CLASSES, _REFERENCES))
        self.references = torch.zeros(shape, dtype=torch.float16)
        self.register_buffer("members", members)

    def novelty(self, embeddings: Tensor, probabilities: Tensor) -> Tensor:
        """Return the same as ClassifierNetwork's, by operations on tensors alone; see there."""
        scaled = embeddings * self.scale
        unit = nn.functional.normalize(scaled, dim=1)
        references = self.references.float()
        cosines = unit @ references.T
        penalties = _OTHER_CLASS * (1 - self.members)
        barred = cosines[:, None] + penalties
        nearest = barred.topk(NEIGHBOURS, dim=2).values
        own = (nearest > _OTHER_CLASS / 2).float()
        count = own.sum(dim=2)
        own_nearest = nearest * own
        totals = own_nearest.sum(dim=2)
        means = totals / count.clamp(min=1)
        without_reference = _OTHER_CLASS * (count == 0)
        by_class = means + without_reference
        similarity = by_class.amax(dim=1)
        confidence = probabilities.amax(dim=1)
        uncertainty = 1 - confidence
        penalty = UNCERTAINTY_SHARE * uncertainty
        score = 1 - similarity + penalty
        any_reference = self.members.amax((0, 1))
        return score * any_reference


class _WithoutWeights(nn.Module):
    """A network that gets its tensors with each call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Inside a tuple it is no submodule, and its tensors are none of this module's.
        self._network = (network,)

    def forward(self, image: Tensor, tensors: dict[str, Tensor]) -> Any:
        (network,) = self._network
        return torch.func.functional_call(network, tensors, (image,))


def _trace(network: ClassifierNetwork) -> onnx.ModelProto:
    general = _AnyClasses(network.backbone, network.body, network.view)
    tensors: dict[str, Tensor] = general.state_dict()
    image = torch.zeros((*_IMAGE_SIZE, 3), dtype=torch.uint8)
    dynamic: dict[str, dict[int, str] | None] = dict.fromkeys(tensors)
    dynamic["head.weight"] = {0: "classes"}
    dynamic["head.bias"] = {0: "classes"}
    dynamic["references"] = {0: "references"}
    dynamic["members"] = {0: "classes", 1: "references"}
    with warnings.catch_warnings():
        # The exporter announces its own internal renamings; none concerns this graph.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _WithoutWeights(general),
            (image,),
            kwargs={"tensors": tensors},
            input_names=["image", *(_INPUT_PREFIX + name for name in tensors)],
            output_names=OUTPUTS,
            dynamic_shapes={"image": {0: "height", 1: "width"}, "tensors": dynamic},
            opset_version=_OPERATOR_SET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    graph.ir_version = _IR_VERSION
    _remove_notes(graph)
    return graph


def _remove_notes(graph: onnx.ModelProto) -> None:
    """Remove what the exporter notes about the source code, its place on the disk included."""
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for values in (graph.graph.value_info, graph.graph.input, graph.graph.output):
        for value in values:
            value.ClearField("metadata_props")


def _tensors(network: ClassifierNetwork) -> dict[str, Tensor]:
    """Return all tensors of the network under the names of the graph's inputs."""
    references = network.references
    count = len(references)
    width = max(NEIGHBOURS, count)
    classes = network.head.out_features
    members = torch.zeros((classes, width))
    for label, (start, end) in enumerate(pairwise(network.bounds)):
        members[label, start:end] = 1
    tensors: dict[str, Tensor] = network.state_dict()
    padding = (0, 0, 0, width - count)
    tensors["references"] = nn.functional.pad(references, padding)
    tensors["members"] = members
    return tensors


def _fill(graph: onnx.ModelProto, tensors: dict[str, Tensor]) -> None:
    """Turn all inputs but the image into constants, leaving out what no node reads."""
    from onnx import numpy_helper

    read: set[str] = set()
    for node in graph.graph.node:
        read.update(node.input)
    inputs = list(graph.graph.input)
    del graph.graph.input[:]
    for value in inputs:
        if value.name == "image":
            graph.graph.input.append(value)
        elif value.name in read:
            name = value.name.removeprefix(_INPUT_PREFIX)
            tensor = tensors[name].detach()
            array = tensor.contiguous().numpy()
            constant = numpy_helper.from_array(array, value.name)
            graph.graph.initializer.append(constant)
