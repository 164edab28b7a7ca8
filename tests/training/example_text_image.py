"""A text-image model of a few numbers, with the interface of real ones.

An image's embedding is its mean colour, a text's the sum of its words' colours; other words are 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

SIDE = 16
LENGTH = 8
COLORS = {
    "red": (1, -1, -1),
    "blue": (-1, -1, 1),
    "green": (-1, 1, -1),
    "screenshot": (1, 1, 1),
}
"""Word to RGB, each -1 to 1."""


def write_pair(
    folder: Path,
    *,
    batch: int | str = "n",
    words: Mapping[str, tuple[int, int, int]] = COLORS,
    numbers: int = 3,
    **config: Any,
) -> Path:
    """Write a folder with both graphs; `numbers` are those of a text's embedding."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(image_graph(batch), folder / "image.onnx")
    onnx.save(text_graph(batch, words, numbers), folder / "text.onnx")
    tokenizer = Tokenizer(models.WordLevel(vocabulary(words), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "name": "Mean colour",
        "license": "CC0-1.0",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "logit_scale": 10,
        "context_length": LENGTH,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "LICENSE").write_text("Do what you like.")
    return folder


def vocabulary(words: Mapping[str, Any]) -> dict[str, int]:
    return {word: number for number, word in enumerate(("[PAD]", "[UNK]", *words))}


def image_graph(batch: int | str = "n") -> onnx.ModelProto:
    """Float32 [n, 3, h, w] to the mean colour [n, 3]."""
    image = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, 3])
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "axes")
    mean = helper.make_node("ReduceMean", ["pixels", "axes"], ["embedding"], keepdims=0)
    return _model([mean], image, embedding, [axes])


def graph_for_black_images() -> onnx.ModelProto:
    """As `image_graph`, but anything brighter than black gives no number: a root of less than 0."""
    model = image_graph()
    model.graph.node[0].output[0] = "mean"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.float32), "black"))
    model.graph.node.append(helper.make_node("Sub", ["black", "mean"], ["below"]))
    model.graph.node.append(helper.make_node("Sqrt", ["below"], ["embedding"]))
    return model


def text_graph(
    batch: int | str, words: Mapping[str, tuple[int, int, int]], numbers: int = 3
) -> onnx.ModelProto:
    """Int64 [n, length] to the sum of the words' colours [n, numbers]."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [batch, "length"])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, numbers])
    table = np.zeros((len(words) + 2, numbers), np.float32)
    for number, color in enumerate(words.values(), 2):
        table[number, :3] = color
    initializers = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["of_words"]),
        helper.make_node("ReduceSum", ["of_words", "axes"], ["embedding"], keepdims=0),
    ]
    return _model(nodes, ids, embedding, initializers)


def _model(nodes: list[Any], given: Any, answer: Any, initializers: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", [given], [answer], initializers)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)
