"""Predict with a delivered model, from files and bytes: ONNX Runtime on the CPU, torch on a GPU."""

from __future__ import annotations

import hashlib
import itertools
import json
import lzma
import math
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.explanations import LearnedImage, Neighbours, evidence, overlay, read_neighbours
from training.images.decode import BrokenImageError, as_array, read_image
from training.networks.catalogue import CROP

__all__ = [
    "BrokenImageError",
    "Explainer",
    "Explanation",
    "Model",
    "ModelError",
    "Outputs",
    "Predict",
    "Prediction",
    "open_explainer",
    "open_model",
    "read_image",
    "resize_side",
]

_OUTPUTS = ("probabilities", "embedding", "cam", "novelty")
_NEAREST = 3  # training images named with an explanation
_NAME_LENGTH = 60  # characters of an image's name that its map's file keeps

_ZIP_START = b"PK\x03\x04"

# Errors that reading a file ends in, from the disk or from a damaged zip (RuntimeError:
# encrypted, or packed in a way that Python does not know; ValueError: names that are no text).
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_LEAST_CROPPED = 0.1  # of the sides of a picture; below, the network would see next to nothing
_SUMS = "SHA256SUMS"
_LARGEST_SUMS = 1_000_000  # bytes
_LARGEST_FILE = 1_000_000_000  # bytes; the largest that a model can have are 100 MB


class ModelError(Exception):
    """A model that cannot be opened; the message is a sentence for the user."""


@dataclass(frozen=True)
class Outputs:
    """The network's outputs for one image."""

    probabilities: NDArray[np.float32]
    """[classes], in output order."""
    embedding: NDArray[np.float32]
    """[d]."""
    cam: NDArray[np.float32]
    """[classes, 7, 7]: class activation maps."""
    novelty: float
    """How unlike all classes the image is."""


Predict = Callable[[NDArray[np.uint8]], Outputs]
"""Runs the network on one image, uint8 [height, width, 3]."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one image."""

    label: str
    known: bool
    """False when the image looks like none of the classes."""
    probabilities: dict[str, float]
    """Class name to probability, in output order; they sum to 1."""
    elapsed_ms: float
    outputs: Outputs

    @property
    def novelty(self) -> float:
        """How unlike all classes the image is; `known` compares it with the model's `reject`."""
        return self.outputs.novelty

    def as_json(self) -> dict[str, Any]:
        """Return the answer as the API and `--json` give it."""
        return {
            "label": self.label,
            "known": self.known,
            "probabilities": self.probabilities,
            "novelty": round(self.novelty, 4),
            "elapsed_ms": round(self.elapsed_ms, 1),
        }


@dataclass(frozen=True)
class Model:
    """An opened model; may be used from several threads."""

    classes: tuple[str, ...]
    reject: float
    """Novelty above which an image counts as none of the classes."""
    run: Predict

    def predict(self, image: Image.Image) -> Prediction:
        """Classify a decoded image (see `read_image` for files and bytes)."""
        started = time.perf_counter()
        outputs = self.run(as_array(image.convert("RGB")))
        probabilities = outputs.probabilities.tolist()
        elapsed = time.perf_counter() - started
        return Prediction(
            label=self.classes[int(outputs.probabilities.argmax())],
            known=outputs.novelty <= self.reject,
            probabilities=dict(zip(self.classes, probabilities, strict=True)),
            elapsed_ms=elapsed * 1000,
            outputs=outputs,
        )


def open_model(path: Path, device: str = "cpu", threads: int = 0) -> Model:
    """Open a run folder, a model folder or a model zip.

    `threads` 0 leaves the number to the runtime. Raises ModelError when there is no usable model,
    or no GPU where one is asked for.
    """
    if device != "cuda":
        return _open_onnx(path, threads)

    import torch

    if not torch.cuda.is_available():
        raise ModelError("This machine has no GPU that torch can use; leave out --device cuda.")
    return _open_torch(path, "cuda")


@dataclass(frozen=True)
class Explanation:
    """Why a model answered as it did about one image."""

    map: Path
    """PNG: what in the image spoke for the answer."""
    nearest: list[tuple[LearnedImage, float]]
    """Training images most like it, each with its cosine; [] where they are not at hand."""


@dataclass
class Explainer:
    """Writes explanations into a folder, each under a name of its own."""

    folder: Path
    resize_side: int | None
    """Pixels of the shorter side before the network's center crop; None where it sees all."""
    neighbours: Neighbours | None
    """Of a run folder; a model alone does not have its training images."""
    used: set[str] = field(default_factory=set)
    """Names of the maps written so far; those of earlier times are written over."""

    def explain(self, name: str, image: Image.Image, outputs: Outputs) -> Explanation:
        """Write the map of the most probable class over an image; its file is called by `name`."""
        predicted = int(outputs.probabilities.argmax())
        cam = evidence(outputs.cam, predicted)
        path = self._free_path(name)
        overlay(image, cam, self.resize_side).save(path)
        nearest = []
        if self.neighbours:
            nearest = self.neighbours.nearest(outputs.embedding, _NEAREST)
        return Explanation(path, nearest)

    def _free_path(self, name: str) -> Path:
        safe = ""
        for character in name:
            allowed = character.isalnum() or character in "-_. "
            safe += character if allowed else "_"
        stem = safe[:_NAME_LENGTH] or "picture"
        free = stem
        for number in itertools.count(2):
            if free not in self.used:
                break
            free = f"{stem}-{number}"
        self.used.add(free)
        return self.folder / f"{free}.png"


def open_explainer(path: Path, folder: Path) -> Explainer:
    """Open explanations by the model at `path`; they are written into `folder`, which is made.

    Raises ModelError, or OSError where the folder cannot be made.
    """
    side = resize_side(path)
    folder.mkdir(parents=True, exist_ok=True)
    return Explainer(folder, side, read_neighbours(path))


def resize_side(path: Path) -> int | None:
    """Return the pixels of the shorter side that the model at `path` center-crops.

    None for a model that sees the whole picture. Raises ModelError.
    """
    try:
        config = json.loads(_read_file(path, "config.json"))
        share = float(config["pretrained_cfg"]["crop_pct"])
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _foreign_file(path, "config.json") from error
    if not _LEAST_CROPPED < share <= 1:
        raise _foreign_file(path, "config.json")
    is_whole = config.get("view") == "letterbox"
    return None if is_whole else round(CROP / share)


def _read_file(path: Path, name: str) -> bytes:
    """Return a file of the run folder, model folder or model zip at `path`. Raises ModelError."""
    try:
        if path.is_file() and zipfile.is_zipfile(path):
            return _read_zipped(path, name)
        folder = path / "model"
        if not folder.is_dir():
            folder = path
        if _is_torn_zip(path):
            raise ModelError(f"{path} is an incomplete zip: download or copy it again.")
        if not (folder / "model.onnx").is_file():
            raise ModelError(f"{path} is neither a finished run folder nor a model folder or zip.")
        data = (folder / name).read_bytes()
        sums = folder / _SUMS
        if sums.is_file():
            _check_digest(path, name, data, sums.read_bytes())
        return data
    except _UNREADABLE as error:
        raise ModelError(f"{name} of {path} cannot be read: {error}.") from error


def _check_digest(path: Path, name: str, data: bytes, sums: bytes) -> None:
    """Raise ModelError where the SHA256SUMS beside a file name another digest for it.

    What was damaged or put in its place is refused before anything reads it.
    """
    lines = sums.decode("utf-8", errors="replace").splitlines()
    named = [line.partition("  ")[0] for line in lines if line.partition("  ")[2] == name]
    if named and hashlib.sha256(data).hexdigest() not in named:
        problem = f"{path} holds a {name} that is damaged or not Picaisso's: {_SUMS} beside it"
        raise ModelError(f"{problem} names another. Copy or download the model again.")


def _is_torn_zip(path: Path) -> bool:
    """Return whether a file begins as a zip; its table of contents, at the end, is missing."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_ZIP_START)) == _ZIP_START


def _read_zipped(path: Path, name: str) -> bytes:
    """Return the file of that name, at the top of the zip or in its one folder."""
    with zipfile.ZipFile(path) as archive:
        found = []
        for entry in archive.infolist():
            *folders, last = entry.filename.split("/")
            if last == name and "__MACOSX" not in folders:
                found.append(entry)
        if not found:
            raise ModelError(f"{path} is not a model zip: it has no {name}.")
        highest = min(found, key=lambda entry: len(entry.filename))
        if highest.file_size > _LARGEST_FILE:
            raise ModelError(f"{path} is not a model zip: its {name} is larger than any model.")
        data = archive.read(highest)
        beside = highest.filename.removesuffix(name) + _SUMS
        if beside in archive.namelist() and archive.getinfo(beside).file_size < _LARGEST_SUMS:
            _check_digest(path, name, data, archive.read(beside))
        return data


def _open_onnx(path: Path, threads: int) -> Model:
    session = _session(path, threads)
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        classes = json.loads(metadata["classes"])
        reject = float(json.loads(metadata["reject"]))
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _foreign_file(path, "model.onnx") from error
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not named or len(set(classes)) < len(classes) or math.isnan(reject):
        raise _foreign_file(path, "model.onnx")
    inputs = [(image.name, image.type) for image in session.get_inputs()]
    outputs = {output.name for output in session.get_outputs()}
    takes_an_image = inputs == [("image", "tensor(uint8)")]
    has_outputs = outputs.issuperset(_OUTPUTS)
    if not takes_an_image or not has_outputs:
        raise _foreign_file(path, "model.onnx")

    def run(image: NDArray[np.uint8]) -> Outputs:
        try:
            arrays = session.run(_OUTPUTS, {"image": image})
            outputs = _outputs(arrays)
        except _refusals() as error:
            raise ModelError(f"{path} cannot classify this picture: {error}.") from error
        if len(outputs.probabilities) != len(classes):
            raise _foreign_file(path, "model.onnx")
        return outputs

    return Model(tuple(classes), reject, run)


def _outputs(batch: Iterable[NDArray[np.float32]]) -> Outputs:
    """Return the outputs for the one image of a batch: [1, ...] for each name in _OUTPUTS."""
    probabilities, embedding, cam, novelty = batch
    return Outputs(
        probabilities=probabilities[0],
        embedding=embedding[0],
        cam=cam[0],
        novelty=float(novelty[0]),
    )


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        data = _read_file(path, "model.onnx")
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _refusals() as error:
        if _asks_for_newer_runtime(str(error)):
            raise ModelError(
                f"{path} needs a newer onnxruntime than {onnxruntime.__version__}:"
                " python -m pip install --upgrade onnxruntime"
            ) from error
        raise _foreign_file(path, "model.onnx") from error


def _refusals() -> tuple[type[Exception], ...]:
    """Return the errors that ONNX Runtime raises about a model."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoModel,
        state.NotImplemented,
        state.RuntimeException,
    )


def _asks_for_newer_runtime(message: str) -> bool:
    return "max supported IR version" in message or "official released onnx opset" in message


def _foreign_file(path: Path, name: str) -> ModelError:
    return ModelError(f"{path} holds a {name} that is damaged or not Picaisso's.")


def _open_torch(path: Path, device: str) -> Model:
    import torch

    from training.networks.precision import exact_float32

    exact_float32()
    config, network = _delivered_network(path)
    network = network.to(device)

    def run(image: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            pixels = torch.from_numpy(image)
            tensors = network(pixels.to(device))
            on_cpu = [tensor.float().cpu() for tensor in tensors]
        return _outputs(tensor.numpy() for tensor in on_cpu)

    classes = tuple(config["label_names"])
    return Model(classes, float(config["reject"]), run)


def _delivered_network(path: Path) -> tuple[dict[str, Any], Any]:
    """Return a model folder's configuration and its network on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from training.networks.classifier import from_exported

    try:
        config = json.loads(_read_file(path, "config.json"))
        state = load(_read_file(path, "model.safetensors"))
        novelty = load(_read_file(path, "novelty.safetensors"))
        return config, from_exported(config, state, novelty)
    except (SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        names = "config.json, model.safetensors or novelty.safetensors"
        raise _foreign_file(path, names) from error
