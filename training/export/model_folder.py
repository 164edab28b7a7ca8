"""The model folder: written beside its place, read back and compared, and only then given its
name.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import training
from training.export.model_card import model_card
from training.export.try_page import TryPage, write_try_page
from training.networks.catalogue import CROP
from training.networks.classifier import ClassifierNetwork, read_state_dict
from training.networks.onnx_graph import forget_cached_graph, onnx_model
from training.predict import Model, Outputs, Predict, open_model
from training.progress import Progress
from training.run_folder import ClassLabel, RunConfig, RunError, write_json, write_text

CHECK_SIZES = ((1, 1), (31, 17), (640, 333), (3, 900), (257, 224), (500, 1001))
"""Width and height of the synthetic pictures that a delivered model proves itself with."""

_TOLERANCE = (
    1e-3  # largest difference of a probability or the novelty between the forms of the model
)
_REQUIREMENTS = ("onnxruntime", "pillow")
_DELIVERED = Path(__file__).with_name("assets")

Pictures = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class TrainedModel:
    """What training leaves to be exported."""

    network: ClassifierNetwork
    """On the CPU, with its head, temperature and references in place."""
    classes: tuple[ClassLabel, ...]
    config: RunConfig
    metrics: Mapping[str, Any]
    """All of metrics.json but its seconds."""
    seconds: Callable[[], Mapping[str, float]]
    """How long each phase has taken at the moment of the call."""
    write_report: Callable[[Path, Predict], None]
    """Writes the report, by a look at pictures through the exported network."""


@dataclass
class _Draft:
    """A model folder that has not got its name yet."""

    trained: TrainedModel
    folder: Path
    pictures: Pictures
    """To compare the written forms on."""
    expected: list[Outputs]
    """What the trained network says about them."""

    @cached_property
    def onnx(self) -> Model:
        """The written model.onnx, opened once."""
        return open_model(self.folder, threads=torch.get_num_threads())


def export_model(
    trained: TrainedModel, model_dir: Path, pictures: Pictures, progress: Progress
) -> None:
    """Write the model folder. `pictures` (uint8 [h, w, 3]) are compared besides the synthetic
    ones.
    """
    beside = model_dir.with_name(f".{model_dir.name}.{os.getpid()}.tmp")
    for stale in model_dir.parent.glob(f".{model_dir.name}.*.tmp"):
        shutil.rmtree(stale)
    beside.mkdir(parents=True)
    compared = [*synthetic_pictures(), *pictures]
    draft = _Draft(
        trained, beside, compared, [outputs_of(trained.network, picture) for picture in compared]
    )
    steps: tuple[Callable[[], None], ...] = (
        lambda: _write_weights(trained, beside),
        lambda: _write_onnx(trained, beside / "model.onnx"),
        lambda: _write_texts(trained, beside),
        lambda: _write_reference(draft),
        lambda: _compare(draft),
        lambda: _write_pages(draft),
        lambda: _seal(trained, beside),
    )
    for number, step in enumerate(steps, 1):
        step()
        progress(number, len(steps))
    if model_dir.exists():
        shutil.rmtree(model_dir)
    beside.rename(model_dir)


def synthetic_pictures() -> list[NDArray[np.uint8]]:
    """The check pictures, uint8 [h, w, 3], by the formula that the delivered predict.py has."""
    from training.export.assets.predict import synthetic

    return [synthetic(width, height) for width, height in CHECK_SIZES]


def model_config(trained: TrainedModel) -> dict[str, Any]:
    """`config.json` of the model folder: what timm's `local-dir:` reads, and every value the run
    used.
    """
    backbone = trained.network.backbone
    return {
        "architecture": backbone.architecture,
        "num_classes": len(trained.classes),
        "label_names": [label.name for label in trained.classes],
        "pretrained_cfg": {
            "input_size": [3, CROP, CROP],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": CROP / backbone.resize,
            "crop_mode": "center",
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "num_classes": len(trained.classes),
            "pool_size": [7, 7],
            "first_conv": backbone.first_layer,
            "classifier": backbone.classifier,
        },
        "backbone": backbone.name,
        "weights": trained.metrics["weights"],
        "temperature": float(trained.network.temperature),
        "reject": trained.metrics["reject_threshold"],
        "picaisso_version": training.__version__,
        "run": _portable(trained.config),
    }


def outputs_of(network: ClassifierNetwork, picture: NDArray[np.uint8]) -> Outputs:
    """What the torch module says about one picture uint8 [h, w, 3]."""
    with torch.inference_mode():
        probabilities, embedding, cam, novelty = (
            found.numpy() for found in network(torch.from_numpy(picture))
        )
    return Outputs(probabilities[0], embedding[0], cam[0], float(novelty[0]))


def _graphs_folder(config: RunConfig) -> Path:
    """Where traced graphs are kept, beside the downloaded weights."""
    return Path(config.weights_cache or "").parent / "graphs"


def _portable(config: RunConfig) -> dict[str, Any]:
    """The run's values without the places of the machine that ran it."""
    local = {"weights_dir", "weights_cache", "weights_url"}
    return {name: value for name, value in config.as_json().items() if name not in local}


def _write_weights(trained: TrainedModel, folder: Path) -> None:
    from safetensors.torch import save_file

    state = trained.network.exported_state_dict()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(state, folder / "model.pth")
    save_file(trained.network.novelty_state(), folder / "novelty.safetensors")
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # the library makes them readable by their owner alone


def _write_onnx(trained: TrainedModel, path: Path) -> None:
    """One file, any picture size, with what a reader needs to know in its metadata."""
    import onnx

    graph = onnx_model(trained.network, _graphs_folder(trained.config))
    metadata = {
        "classes": json.dumps([label.name for label in trained.classes], ensure_ascii=False),
        "backbone": trained.network.backbone.name,
        "temperature": repr(float(trained.network.temperature)),
        "reject": json.dumps(trained.metrics["reject_threshold"]),
        "picaisso_version": training.__version__,
    }
    onnx.helper.set_model_props(graph, metadata)
    graph.producer_name, graph.producer_version = "Picaisso", training.__version__
    path.write_bytes(graph.SerializeToString())


def _write_texts(trained: TrainedModel, folder: Path) -> None:
    write_json(folder / "classes.json", {label.id: label.name for label in trained.classes})
    write_json(folder / "config.json", model_config(trained))
    pins = [f"{name}=={importlib.metadata.version(name)}\n" for name in _REQUIREMENTS]
    write_text(folder / "requirements.txt", "".join(pins))
    write_text(
        folder / "README.md",
        model_card(model_config(trained), trained.metrics, trained.network.backbone),
    )
    shutil.copyfile(_DELIVERED / "predict.py", folder / "predict.py")


def _write_reference(draft: _Draft) -> None:
    rows = [
        {
            "size": list(size),
            "probabilities": outputs.probabilities.tolist(),
            "novelty": outputs.novelty,
        }
        for size, outputs in zip(CHECK_SIZES, draft.expected, strict=False)
    ]
    write_json(draft.folder / "reference_predictions.json", rows)


def _compare(draft: _Draft) -> None:
    """Read every written form of the model back and refuse if one is not the trained network."""
    network = draft.trained.network
    state = network.exported_state_dict()
    written = {
        "model.safetensors": state,
        "model.pth": state,
        "novelty.safetensors": network.novelty_state(),
    }
    for name, tensors in written.items():
        if not _same_tensors(tensors, read_state_dict(draft.folder / name)):
            raise _refusal(f"{name} holds other numbers than the trained network.")
    worst = largest_difference(
        draft.expected, [draft.onnx.run(picture) for picture in draft.pictures]
    )
    if not worst < _TOLERANCE:
        forget_cached_graph(network.backbone, _graphs_folder(draft.trained.config))
        raise _refusal(
            f"model.onnx predicts otherwise than the trained network: it differs by {worst:.2g}."
        )


def _write_pages(draft: _Draft) -> None:
    """The pages that a browser opens without a network."""
    trained, backbone = draft.trained, draft.trained.network.backbone
    page = TryPage(
        draft.onnx.classes, draft.onnx.reject, backbone.resize, backbone.title, training.__version__
    )
    write_try_page(draft.folder / "try.html", page, draft.folder / "model.onnx")
    trained.write_report(draft.folder / "report.html", draft.onnx.run)


def _same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two states are the same to the last bit."""
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in one.items()
    )


def largest_difference(expected: Sequence[Outputs], found: Sequence[Outputs]) -> float:
    """Of any probability or novelty; not a number where one of them is none."""
    differences = [
        np.append(one.probabilities - other.probabilities, one.novelty - other.novelty)
        for one, other in zip(expected, found, strict=True)
    ]
    return float(np.abs(differences).max())


def _refusal(reason: str) -> RunError:
    remedy = "Start the training again; if it fails the same way, report it with the versions of torch and onnxruntime."
    return RunError("export", reason, remedy, retry=True)


def _seal(trained: TrainedModel, folder: Path) -> None:
    """Have all files on the disk, then write metrics.json and SHA256SUMS.

    Metrics come last, so that the seconds in them hold nearly all of the export.
    """
    digests = {path.name: _flushed_digest(path) for path in folder.iterdir()}
    write_json(folder / "metrics.json", {**trained.metrics, "seconds": dict(trained.seconds())})
    digests["metrics.json"] = _flushed_digest(folder / "metrics.json")
    write_text(
        folder / "SHA256SUMS",
        "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())),
    )


def _flushed_digest(path: Path) -> str:
    """Hex sha256 of a file that is on the disk when this returns."""
    with path.open("rb+") as file:  # some systems flush only files that are open for writing
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
