"""Predictions by a delivered model: ONNX Runtime on the CPU, torch only where a GPU is asked for."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data import BrokenPictureError, as_array, read_picture

__all__ = [
    "BrokenPictureError",
    "Model",
    "ModelError",
    "Outputs",
    "Prediction",
    "open_model",
    "pictures_at",
    "read_picture",
]

_PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
_URL_SECONDS = 20.0
_URL_BYTES = 30_000_000


# What reading a file ends in that the disk refuses, or that lies in a damaged zip (RuntimeError: encrypted, or packed
# in a way that Python does not know).
_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)


class ModelError(Exception):
    """A model that cannot be opened; the message is a sentence for the user."""


@dataclass(frozen=True)
class Outputs:
    """What the network says about one picture."""

    probabilities: NDArray[np.float32]
    """[classes], in output order."""
    novelty: float | None
    """None for models that do not measure it."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture."""

    label: str
    known: bool
    """False when the picture looks like none of the classes."""
    probabilities: dict[str, float]
    """Class name to probability, in output order; they sum to 1."""
    elapsed_ms: float

    def as_json(self) -> dict[str, Any]:
        """As the API and `--json` give it."""
        return {
            "label": self.label,
            "known": self.known,
            "probabilities": self.probabilities,
            "elapsed_ms": round(self.elapsed_ms, 1),
        }


class _Runner(Protocol):
    def __call__(self, image: NDArray[np.uint8]) -> Outputs: ...


@dataclass(frozen=True)
class Model:
    """An opened model; may be used from several threads."""

    classes: tuple[str, ...]
    reject: float | None
    """Novelty above which a picture counts as none of the classes."""
    run: _Runner
    """uint8 [height, width, 3] to Outputs."""

    def predict(self, picture: Image.Image) -> Prediction:
        """Classify a decoded picture (see `read_picture` for files and bytes)."""
        started = time.perf_counter()
        outputs = self.run(as_array(picture.convert("RGB")))
        values = [float(p) for p in outputs.probabilities]
        stranger = self.reject is not None and outputs.novelty is not None and outputs.novelty > self.reject
        return Prediction(
            label=self.classes[int(np.argmax(values))],
            known=not stranger,
            probabilities=dict(zip(self.classes, values, strict=True)),
            elapsed_ms=(time.perf_counter() - started) * 1000,
        )


def open_model(place: Path, device: str = "cpu", threads: int = 0) -> Model:
    """Open a run folder, a model folder or a model zip. `threads` 0 leaves the number to the runtime.

    Raises ModelError when there is no usable model, or no GPU where one is asked for.
    """
    if device == "cuda":
        return _open_torch(place)
    return _open_onnx(place, threads)


def pictures_at(place: str) -> Iterator[tuple[str, Image.Image | None, str]]:
    """(name, picture, "") for a file, a URL or each picture of a folder; (name, None, reason) where unreadable."""
    if place.lower().startswith(("http://", "https://")):
        yield _read(place, lambda: _fetch(place))
        return
    path = Path(place)
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _PICTURE_SUFFIXES) if path.is_dir() else [path]
    for file in files:
        yield _read(str(file), file.read_bytes)


def _read(name: str, load: Any) -> tuple[str, Image.Image | None, str]:
    try:
        return name, read_picture(load()), ""
    except BrokenPictureError as error:
        return name, None, str(error)
    except urllib.error.HTTPError as error:
        return name, None, f"the server answered {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return name, None, f"cannot be read ({error})"


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "Picaisso", "Accept": "image/*"})
    with urllib.request.urlopen(request, timeout=_URL_SECONDS) as answer:
        data: bytes = answer.read(_URL_BYTES + 1)
    if len(data) > _URL_BYTES:
        raise BrokenPictureError("larger than 30 MB")
    return data


def _read_file(place: Path, name: str) -> bytes:
    """A file of the run folder, model folder or model zip at that place. Raises ModelError."""
    try:
        if place.is_file() and zipfile.is_zipfile(place):
            return _from_zip(place, name)
        folder = place / "model" if (place / "model").is_dir() else place
        if not (folder / "model.onnx").is_file():
            raise ModelError(f"{place} is neither a finished run folder nor a model folder or zip.")
        return (folder / name).read_bytes()
    except _UNREADABLE as error:
        raise ModelError(f"{name} of {place} cannot be read: {error}.") from error


def _from_zip(place: Path, name: str) -> bytes:
    """The file of that name, at the top of the zip or in its one folder."""
    with zipfile.ZipFile(place) as archive:
        found = [entry for entry in archive.namelist() if entry.rsplit("/", 1)[-1] == name]
        if not found:
            raise ModelError(f"{place} is not a model zip: it has no {name}.")
        return archive.read(min(found, key=len))


def _open_onnx(place: Path, threads: int) -> Model:
    session = _session(place, threads)
    names = [output.name for output in session.get_outputs()]
    wanted = [name for name in ("probabilities", "novelty") if name in names]
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        classes, reject = tuple(json.loads(metadata["classes"])), json.loads(metadata.get("reject", "null"))
    except (KeyError, ValueError, TypeError) as error:
        raise _no_model_of_ours(place, "model.onnx") from error
    inputs = [(image.name, image.type) for image in session.get_inputs()]
    if inputs != [("image", "tensor(uint8)")] or "probabilities" not in wanted:
        raise _no_model_of_ours(place, "model.onnx")

    def run(image: NDArray[np.uint8]) -> Outputs:
        found = session.run(wanted, {"image": image})
        return Outputs(found[0][0], float(found[1][0]) if len(found) > 1 else None)

    return Model(classes, reject, run)


def _session(place: Path, threads: int) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as refusals

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        data = _read_file(place, "model.onnx")
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (
        refusals.Fail, refusals.InvalidArgument, refusals.InvalidGraph, refusals.InvalidProtobuf, refusals.NoModel,
        refusals.NotImplemented, refusals.RuntimeException,
    ) as error:  # fmt: skip
        raise _no_model_of_ours(place, "model.onnx") from error


def _no_model_of_ours(place: Path, name: str) -> ModelError:
    return ModelError(f"{place} holds a {name} that is damaged or not Picaisso's.")


def _open_torch(place: Path) -> Model:
    import torch

    if not torch.cuda.is_available():
        raise ModelError("This machine has no GPU that torch can use; leave out --device cuda.")
    config, network = _delivered_network(place)
    network = network.to("cuda")

    def run(image: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            probabilities = network(torch.from_numpy(image).to("cuda"))[0][0]
        return Outputs(probabilities.float().cpu().numpy(), None)

    return Model(tuple(config["label_names"]), config["reject"], run)


def _delivered_network(place: Path) -> tuple[dict[str, Any], Any]:
    """A model folder's configuration and its network on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from training.network import from_delivered

    try:
        config = json.loads(_read_file(place, "config.json"))
        return config, from_delivered(config, load(_read_file(place, "model.safetensors")))
    except (SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _no_model_of_ours(place, "config.json or model.safetensors") from error
