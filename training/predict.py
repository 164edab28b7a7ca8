"""Predictions by a delivered model: ONNX Runtime on the CPU, torch only where a GPU is asked
for.
"""

from __future__ import annotations

import http.client
import itertools
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.explanations import LearnedImage, Neighbours, evidence, overlay, read_neighbours
from training.images.decode import BrokenImageError, as_array, read_image

__all__ = [
    "BrokenImageError",
    "Explainer",
    "Explanation",
    "Model",
    "ModelError",
    "Outputs",
    "Prediction",
    "find_pictures",
    "load_picture",
    "open_explainer",
    "open_model",
    "read_image",
]

_PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
_URL_SECONDS = 20.0
_URL_BYTES = 30_000_000
_OUTPUTS = ("probabilities", "embedding", "cam", "novelty")
_CROP = 224  # pixels a side that every backbone looks at
_NEAREST = 3  # training pictures named with an explanation
_NAME_LENGTH = 60  # characters of a picture's name that its map's file keeps


# What reading a file ends in that the disk refuses, or that lies in a damaged zip (RuntimeError:
# encrypted, or packed in a way that Python does not know).
_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)


class ModelError(Exception):
    """A model that cannot be opened; the message is a sentence for the user."""


@dataclass(frozen=True)
class Outputs:
    """What the network says about one picture."""

    probabilities: NDArray[np.float32]
    """[classes], in output order."""
    embedding: NDArray[np.float32]
    """[d]."""
    cam: NDArray[np.float32]
    """[classes, 7, 7]: class activation maps."""
    novelty: float
    """How unlike all classes the picture is."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture."""

    label: str
    known: bool
    """False when the picture looks like none of the classes."""
    probabilities: dict[str, float]
    """Class name to probability, in output order; they sum to 1."""
    elapsed_ms: float
    outputs: Outputs

    @property
    def novelty(self) -> float:
        """How unlike all classes the picture is; `known` compares it with the model's `reject`."""
        return self.outputs.novelty

    def as_json(self) -> dict[str, Any]:
        """As the API and `--json` give it."""
        return {
            "label": self.label,
            "known": self.known,
            "probabilities": self.probabilities,
            "novelty": round(self.novelty, 4),
            "elapsed_ms": round(self.elapsed_ms, 1),
        }


class _Runner(Protocol):
    def __call__(self, image: NDArray[np.uint8]) -> Outputs: ...


@dataclass(frozen=True)
class Model:
    """An opened model; may be used from several threads."""

    classes: tuple[str, ...]
    reject: float
    """Novelty above which a picture counts as none of the classes."""
    run: _Runner
    """uint8 [height, width, 3] to Outputs."""

    def predict(self, picture: Image.Image) -> Prediction:
        """Classify a decoded picture (see `read_image` for files and bytes)."""
        started = time.perf_counter()
        outputs = self.run(as_array(picture.convert("RGB")))
        values = [float(p) for p in outputs.probabilities]
        return Prediction(
            label=self.classes[int(np.argmax(values))],
            known=outputs.novelty <= self.reject,
            probabilities=dict(zip(self.classes, values, strict=True)),
            elapsed_ms=(time.perf_counter() - started) * 1000,
            outputs=outputs,
        )


def open_model(place: Path, device: str = "cpu", threads: int = 0) -> Model:
    """Open a run folder, a model folder or a model zip. `threads` 0 leaves the number to the
    runtime.

    Raises ModelError when there is no usable model, or no GPU where one is asked for.
    """
    if device == "cuda":
        return _open_on_gpu(place)
    return _open_onnx(place, threads)


@dataclass(frozen=True)
class Explanation:
    """Why a model answered as it did about one picture."""

    map: Path
    """PNG: what in the picture spoke for the answer."""
    nearest: list[tuple[LearnedImage, float]]
    """Training pictures most like it, each with its cosine; [] where the training pictures are not at hand."""


@dataclass
class Explainer:
    """Writes explanations into a folder, each under a name of its own."""

    folder: Path
    resize: int
    """Pixels the shorter side is resized to before the network's centre crop."""
    neighbours: Neighbours | None
    """Of a run folder; a model alone does not have its training pictures."""
    used: set[str] = field(default_factory=set)
    """Names of the maps written so far; those of earlier times are written over."""

    def explain(self, name: str, picture: Image.Image, outputs: Outputs) -> Explanation:
        """Write the map of the most probable class over a picture that came from the given path or
        URL.
        """
        cam = evidence(outputs.cam, int(outputs.probabilities.argmax()))
        path = self._free_place(name)
        overlay(picture, cam, self.resize).save(path)
        nearest = self.neighbours.nearest(outputs.embedding, _NEAREST) if self.neighbours else []
        return Explanation(path, nearest)

    def _free_place(self, name: str) -> Path:
        last = urllib.parse.unquote(urllib.parse.urlsplit(name).path) if _is_url(name) else name
        stem = (
            "".join(c if c.isalnum() or c in "-_. " else "_" for c in Path(last).stem)[
                :_NAME_LENGTH
            ]
            or "picture"
        )
        names = itertools.chain((stem,), (f"{stem}-{number}" for number in itertools.count(2)))
        free = next(name for name in names if name not in self.used)
        self.used.add(free)
        return self.folder / f"{free}.png"


def open_explainer(place: Path, folder: Path) -> Explainer:
    """Explanations by the model at `place` into `folder`, which is made. Raises ModelError or
    OSError.
    """
    try:
        resize = round(
            _CROP / json.loads(_read_file(place, "config.json"))["pretrained_cfg"]["crop_pct"]
        )
    except (KeyError, ValueError, TypeError) as error:
        raise _no_model_of_ours(place, "config.json") from error
    folder.mkdir(parents=True, exist_ok=True)
    return Explainer(folder, resize, read_neighbours(place))


def find_pictures(arguments: Iterable[str], lists: Iterable[str] = ()) -> list[str]:
    """The paths and URLs of all pictures that arguments and lists name, in order; what is not there
    stays in.

    An argument is a picture, a URL, a folder, `@FILE` for a list, or `-` for a list on standard
    input. A list has a picture, URL or folder in each line.
    """
    found: list[str] = []
    for argument in arguments:
        listed = (
            _listed(argument.removeprefix("@"))
            if argument == "-" or argument.startswith("@")
            else [argument]
        )
        found += [picture for place in listed for picture in _pictures_of(place)]
    return found + [
        picture for name in lists for place in _listed(name) for picture in _pictures_of(place)
    ]


def load_picture(place: str) -> tuple[Image.Image | None, str]:
    """The picture of a file or URL and "", or None and why it cannot be used."""
    try:
        return read_image(_fetch(place) if _is_url(place) else Path(place).read_bytes()), ""
    except BrokenImageError as error:
        return None, str(error)
    except urllib.error.HTTPError as error:
        return None, f"the server answered {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return None, f"cannot be read ({getattr(error, 'strerror', None) or error})"


def _is_url(place: str) -> bool:
    return place.lower().startswith(("http://", "https://"))


def _listed(name: str) -> list[str]:
    """The lines of a list that say something. Raises ModelError where there is no such list."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(f"The list {name} cannot be read: {error}.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _pictures_of(place: str) -> Iterator[str]:
    """A picture's path or URL as it is; of a folder those of the pictures in it."""
    if _is_url(place) or not Path(place).is_dir():
        yield place
        return
    yield from (
        str(p) for p in sorted(Path(place).rglob("*")) if p.suffix.lower() in _PICTURE_SUFFIXES
    )


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "Picaisso", "Accept": "image/*"})
    with urllib.request.urlopen(request, timeout=_URL_SECONDS) as answer:
        data: bytes = answer.read(_URL_BYTES + 1)
    if len(data) > _URL_BYTES:
        raise BrokenImageError("larger than 30 MB")
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
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        classes, reject = (
            tuple(json.loads(metadata["classes"])),
            float(json.loads(metadata["reject"])),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise _no_model_of_ours(place, "model.onnx") from error
    inputs = [(image.name, image.type) for image in session.get_inputs()]
    if inputs != [("image", "tensor(uint8)")] or set(_OUTPUTS) - {
        output.name for output in session.get_outputs()
    }:
        raise _no_model_of_ours(place, "model.onnx")

    def run(image: NDArray[np.uint8]) -> Outputs:
        return _outputs(session.run(_OUTPUTS, {"image": image}))

    return Model(classes, reject, run)


def _outputs(found: Iterable[NDArray[np.float32]]) -> Outputs:
    """From the network's four outputs for one picture."""
    probabilities, embedding, cam, novelty = found
    return Outputs(probabilities[0], embedding[0], cam[0], float(novelty[0]))


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


def _open_on_gpu(place: Path) -> Model:
    import torch

    if not torch.cuda.is_available():
        raise ModelError("This machine has no GPU that torch can use; leave out --device cuda.")
    return _open_torch(place, "cuda")


def _open_torch(place: Path, device: str) -> Model:
    import torch

    config, network = _delivered_network(place)
    network = network.to(device)

    def run(image: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            return _outputs(
                found.float().cpu().numpy() for found in network(torch.from_numpy(image).to(device))
            )

    return Model(tuple(config["label_names"]), float(config["reject"]), run)


def _delivered_network(place: Path) -> tuple[dict[str, Any], Any]:
    """A model folder's configuration and its network on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from training.networks.classifier import from_exported

    try:
        config = json.loads(_read_file(place, "config.json"))
        state, novelty = (
            load(_read_file(place, name)) for name in ("model.safetensors", "novelty.safetensors")
        )
        return config, from_exported(config, state, novelty)
    except (SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _no_model_of_ours(
            place, "config.json, model.safetensors or novelty.safetensors"
        ) from error
