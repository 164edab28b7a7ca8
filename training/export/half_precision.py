"""A copy of `model.onnx` that takes half the room: its weights are stored as float16.

The network still computes in float32: each weight is cast when the file is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.predict import Predict

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-2
"""Of a probability or the novelty, between the copy and the full model."""
_SMALLEST = 1024  # numbers of a tensor that is worth a cast
_LARGEST_HALF = 65504.0  # the largest float16, IEEE 754


@dataclass(frozen=True)
class HalfCopy:
    """The copy, and how far it differs from the full model."""

    content: bytes
    difference: float
    """The largest of a probability or the novelty; NaN where one is NaN."""
    pictures: int
    """How many it was compared on."""

    @property
    def is_close(self) -> bool:
        return self.difference < TOLERANCE

    def as_json(self) -> dict[str, Any]:
        """Return what config.json says of the model in the try page."""
        difference = self.difference if np.isfinite(self.difference) else None
        return {
            "weights": "float16" if self.is_close else "float32",
            "largest_difference": difference,
            "pictures": self.pictures,
        }

    def in_words(self) -> str:
        """Return what the page says of the model inside."""
        if not self.is_close:
            return "The model inside is the whole model.onnx."
        return (
            "The model inside has its weights in half precision: on"
            f" {self.pictures} pictures it differed by at most {self.difference:.4f} from"
            " model.onnx."
        )


def half_copy(model: Path, full: Predict, images: Sequence[NDArray[np.uint8]]) -> HalfCopy:
    """Return the copy of a `model.onnx`, compared with the full model on images [h, w, 3]."""
    import onnx
    import onnxruntime

    content = half_precision(onnx.load(model))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    differences: list[float] = []
    for image in images:
        expected = full(image)
        probabilities, novelty = session.run(["probabilities", "novelty"], {"image": image})
        differences.extend(expected.probabilities - probabilities[0])
        differences.append(expected.novelty - float(novelty[0]))
    return HalfCopy(content, float(np.abs(differences).max()), len(images))


def half_precision(model: onnx.ModelProto) -> bytes:
    """Return the file with its large float32 tensors in float16; the model is changed."""
    import onnx
    from onnx import numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        numbers = numpy_helper.to_array(tensor)
        if numbers.size < _SMALLEST or np.abs(numbers).max() > _LARGEST_HALF:
            continue
        name = tensor.name
        stored = f"{name}.half"
        tensor.CopyFrom(numpy_helper.from_array(numbers.astype(np.float16), stored))
        to = onnx.TensorProto.FLOAT
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=to))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()
