"""The network's ONNX graph: traced once for each backbone with its weights left out, kept, and
filled for each model.

Tracing takes seconds, writing weights into a traced graph a fraction of one. All tensors of the
network are inputs of the kept graph, for any number of classes and references, and become constants
when a model is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from training.networks import backbones, catalogue, classifier, novelty
from training.networks.backbones import Backbone
from training.networks.catalogue import CROP
from training.networks.classifier import ClassifierNetwork
from training.networks.novelty import NEIGHBOURS, UNSURENESS_SHARE
from training.run_folder import atomic_write

if TYPE_CHECKING:
    import onnx

OUTPUTS = ("probabilities", "embedding", "cam", "novelty")

_CLASSES, _REFERENCES = 5, 41  # while tracing; any numbers that are no other size in the graph
_BARRED = -4.0  # added to the cosine of a reference of another class, below any true one
_DIGEST_BYTES = 32  # of sha256, at the head of a kept graph
_SOURCES = (
    __file__,
    backbones.__file__,
    catalogue.__file__,
    classifier.__file__,
    novelty.__file__,
)  # what the graph is traced from


def onnx_model(trained: ClassifierNetwork, folder: Path) -> onnx.ModelProto:
    """The graph of a network on the CPU with its weights inside; see the contract of `model.onnx`.

    The graph without weights is read from the folder of kept graphs, or traced and kept there.
    """
    path = _place(trained.backbone, folder)
    graph = read_cached_graph(path) or _traced_and_kept(trained, path)
    _fill(graph, _tensors(trained))
    return graph


def forget_cached_graph(backbone: Backbone, folder: Path) -> None:
    """Have the backbone's graph traced anew next time."""
    _place(backbone, folder).unlink(missing_ok=True)


class _AnyClasses(ClassifierNetwork):
    """The network with a table of whose reference is whose instead of bounds, so that one graph
    serves all.
    """

    members: Tensor
    """1 where a reference is of a class, else 0: float32 [classes, references]."""

    def __init__(self, backbone: Backbone, body: nn.Module) -> None:
        super().__init__(backbone, body, _CLASSES)
        self.references = torch.zeros((_REFERENCES, backbone.dimension), dtype=torch.float16)
        self.register_buffer("members", torch.ones((_CLASSES, _REFERENCES)))

    def novelty(self, embeddings: Tensor, probabilities: Tensor) -> Tensor:
        """The same as that of ClassifierNetwork, with tensors alone; see there."""
        scaled = nn.functional.normalize(embeddings * self.scale, dim=1)
        cosines = (scaled @ self.references.float().T)[:, None] + _BARRED * (1 - self.members)
        highest = cosines.topk(NEIGHBOURS, dim=2).values
        own = (highest > _BARRED / 2).float()
        count = own.sum(dim=2)
        by_class = (highest * own).sum(dim=2) / count.clamp(min=1) + _BARRED * (count == 0)
        score = 1 - by_class.amax(dim=1) + UNSURENESS_SHARE * (1 - probabilities.amax(dim=1))
        return score * self.members.amax((0, 1))


class _WithoutWeights(nn.Module):
    """A network that gets its tensors with each call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (
            network,
        )  # inside a tuple it is no part of this module, and so are its tensors

    def forward(self, image: Tensor, tensors: dict[str, Tensor]) -> Any:
        return torch.func.functional_call(self._network[0], tensors, (image,))


def _place(backbone: Backbone, folder: Path) -> Path:
    """Where a graph is kept: the name changes with everything that it depends on."""
    digest = hashlib.sha256(
        "".join(version(name) for name in ("torch", "onnx", "onnxscript")).encode()
    )
    for source in _SOURCES:
        digest.update(Path(source).read_bytes())
    return folder / f"{backbone.name}-{digest.hexdigest()[:16]}.graph"


def read_cached_graph(path: Path) -> onnx.ModelProto | None:
    """The kept graph, or None where there is none or it is damaged."""
    import onnx

    with contextlib.suppress(OSError):
        content = path.read_bytes()
        if hashlib.sha256(content[_DIGEST_BYTES:]).digest() == content[:_DIGEST_BYTES]:
            return onnx.load_model_from_string(content[_DIGEST_BYTES:])
    return None


def _traced_and_kept(trained: ClassifierNetwork, path: Path) -> onnx.ModelProto:
    graph = _traced(trained)
    content = graph.SerializeToString()
    # Where it cannot be kept, it is traced again next time.
    with contextlib.suppress(OSError), atomic_write(path, durable=False) as file:
        file.write(hashlib.sha256(content).digest() + content)
    return graph


def _traced(trained: ClassifierNetwork) -> onnx.ModelProto:
    general = _AnyClasses(trained.backbone, trained.body)
    tensors = {name: tensor.detach() for name, tensor in general.state_dict().items()}
    image = torch.zeros((CROP + 31, CROP + 75, 3), dtype=torch.uint8)
    sizes: dict[str, Any] = dict.fromkeys(tensors)
    sizes |= {"head.weight": {0: "classes"}, "head.bias": {0: "classes"}}
    sizes |= {"references": {0: "references"}, "members": {0: "classes", 1: "references"}}
    with warnings.catch_warnings():
        # The exporter announces its own internal renamings; none concerns this graph.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _WithoutWeights(general),
            (image,),
            kwargs={"tensors": tensors},
            input_names=["image", *tensors],
            output_names=OUTPUTS,
            dynamic_shapes={"image": {0: "height", 1: "width"}, "tensors": sizes},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    _remove_traces(graph)
    return graph


def _remove_traces(graph: onnx.ModelProto) -> None:
    """Take out what the exporter notes about the source code, where its files lie on this machine
    included.
    """
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        value.ClearField("metadata_props")


def _tensors(trained: ClassifierNetwork) -> dict[str, Tensor]:
    """All tensors of the network under the names of the graph's inputs."""
    bounds, width = trained.bounds, max(NEIGHBOURS, len(trained.references))
    members = torch.zeros((trained.head.out_features, width))
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        members[number, start:end] = 1
    padding = (0, 0, 0, width - len(trained.references))
    references = nn.functional.pad(trained.references, padding)
    return {**trained.state_dict(), "references": references, "members": members}


def _fill(graph: onnx.ModelProto, tensors: dict[str, Tensor]) -> None:
    """Turn all inputs but the picture into constants; what no node reads is left out."""
    from onnx import numpy_helper

    image = [value for value in graph.graph.input if value.name == "image"]
    read = {name for node in graph.graph.node for name in node.input}
    for name in (
        value.name for value in graph.graph.input if value.name in read and value.name != "image"
    ):
        graph.graph.initializer.append(
            numpy_helper.from_array(tensors[name].detach().contiguous().numpy(), name)
        )
    del graph.graph.input[:]
    graph.graph.input.extend(image)
