"""The model folder: written beside its place, read back and compared, and only then given its name."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import training
from training.backbones import CROP
from training.card import model_card
from training.manifest import ClassLabel, RunConfig, RunError, write_json, write_text
from training.network import PictureNetwork, from_delivered, read_state

CHECK_SIZES = ((1, 1), (31, 17), (640, 333), (3, 900), (257, 224), (500, 1001))
"""Width and height of the synthetic pictures that a delivered model proves itself with."""

_TOLERANCE = 1e-3  # largest difference of a probability between the forms of the model
_REQUIREMENTS = ("onnxruntime", "pillow")
_DELIVERED = Path(__file__).with_name("delivered")

Pictures = Sequence[NDArray[np.uint8]]
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Trained:
    """What training leaves to be exported."""

    network: PictureNetwork
    """On the CPU, with its head and temperature in place."""
    classes: tuple[ClassLabel, ...]
    config: RunConfig
    metrics: Mapping[str, Any]
    """All of metrics.json but its seconds."""
    seconds: Callable[[], Mapping[str, float]]
    """How long each phase has taken at the moment of the call."""


def export_model(trained: Trained, model_dir: Path, pictures: Pictures, report: Report) -> None:
    """Write the model folder. `pictures` (uint8 [h, w, 3]) are compared besides the synthetic ones."""
    beside = model_dir.with_name(f".{model_dir.name}.{os.getpid()}.tmp")
    for stale in model_dir.parent.glob(f".{model_dir.name}.*.tmp"):
        shutil.rmtree(stale)
    beside.mkdir(parents=True)
    steps: tuple[Callable[[], None], ...] = (
        lambda: _write_weights(trained, beside),
        lambda: _write_onnx(trained, beside / "model.onnx"),
        lambda: _write_texts(trained, beside),
        lambda: _write_reference(trained.network, beside / "reference_predictions.json"),
        lambda: _compare(trained.network, beside, [*synthetic_pictures(), *pictures]),
        lambda: _seal(trained, beside),
    )
    for number, step in enumerate(steps, 1):
        step()
        report(number, len(steps))
    if model_dir.exists():
        shutil.rmtree(model_dir)
    beside.rename(model_dir)


def synthetic_pictures() -> list[NDArray[np.uint8]]:
    """The check pictures, uint8 [h, w, 3], by the formula that the delivered predict.py has."""
    from training.delivered.predict import synthetic

    return [synthetic(width, height) for width, height in CHECK_SIZES]


def model_config(trained: Trained) -> dict[str, Any]:
    """`config.json` of the model folder: what timm's `local-dir:` reads, and every value the run used."""
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


def probabilities_of(network: PictureNetwork, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities [classes] of one picture uint8 [h, w, 3] by the torch module."""
    with torch.inference_mode():
        return network(torch.from_numpy(picture))[0][0].numpy()


def _portable(config: RunConfig) -> dict[str, Any]:
    """The run's values without the places of the machine that ran it."""
    local = {"weights_dir", "weights_cache", "weights_url"}
    return {name: value for name, value in config.as_json().items() if name not in local}


def _write_weights(trained: Trained, folder: Path) -> None:
    from safetensors.torch import save_file

    state = trained.network.delivered_state()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library makes it readable by its owner alone
    torch.save(state, folder / "model.pth")


def _write_onnx(trained: Trained, path: Path) -> None:
    """One file, any picture size, with what a reader needs to know in its metadata."""
    example = torch.zeros((CROP + 31, CROP + 75, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        # The exporter announces its own internal renamings; none concerns this graph.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            trained.network,
            (example,),
            input_names=["image"],
            output_names=["probabilities", "embedding", "cam"],
            dynamic_shapes={"image": {0: "height", 1: "width"}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(
        {
            "classes": json.dumps([label.name for label in trained.classes], ensure_ascii=False),
            "backbone": trained.network.backbone.name,
            "temperature": repr(float(trained.network.temperature)),
            "reject": json.dumps(trained.metrics["reject_threshold"]),
            "picaisso_version": training.__version__,
        }
    )
    program.save(path, external_data=False)


def _write_texts(trained: Trained, folder: Path) -> None:
    write_json(folder / "classes.json", {label.id: label.name for label in trained.classes})
    write_json(folder / "config.json", model_config(trained))
    pins = [f"{name}=={importlib.metadata.version(name)}\n" for name in _REQUIREMENTS]
    write_text(folder / "requirements.txt", "".join(pins))
    write_text(folder / "README.md", model_card(model_config(trained), trained.metrics, trained.network.backbone))
    shutil.copyfile(_DELIVERED / "predict.py", folder / "predict.py")


def _write_reference(network: PictureNetwork, path: Path) -> None:
    rows = [
        {"size": list(size), "probabilities": [float(p) for p in probabilities_of(network, picture)]}
        for size, picture in zip(CHECK_SIZES, synthetic_pictures(), strict=True)
    ]
    write_json(path, rows)


def _compare(network: PictureNetwork, folder: Path, pictures: Pictures) -> None:
    """Read every written form of the model back and refuse if one predicts otherwise than the trained network."""
    from training.predict import open_model

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    expected = [probabilities_of(network, picture) for picture in pictures]
    for name in ("model.safetensors", "model.pth"):
        again = from_delivered(config, read_state(folder / name))
        _refuse_difference(name, expected, [probabilities_of(again, picture) for picture in pictures])
    onnx = open_model(folder)
    _refuse_difference("model.onnx", expected, [onnx.run(picture).probabilities for picture in pictures])


def _refuse_difference(name: str, expected: Pictures | Sequence[Any], found: Sequence[Any]) -> None:
    worst = max(float(np.abs(one - other).max()) for one, other in zip(expected, found, strict=True))
    if not worst < _TOLERANCE:
        raise RunError(
            "export",
            f"{name} predicts otherwise than the trained network: probabilities differ by {worst:.2g}.",
            "Start the training again; if it fails the same way, report it with the versions of torch and onnxruntime.",
            retry=True,
        )


def _seal(trained: Trained, folder: Path) -> None:
    """Have all files on the disk, then write metrics.json and SHA256SUMS.

    Metrics come last, so that the seconds in them hold nearly all of the export.
    """
    digests = {path.name: _flushed_digest(path) for path in folder.iterdir()}
    write_json(folder / "metrics.json", {**trained.metrics, "seconds": dict(trained.seconds())})
    digests["metrics.json"] = _flushed_digest(folder / "metrics.json")
    write_text(folder / "SHA256SUMS", "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))


def _flushed_digest(path: Path) -> str:
    """Hex sha256 of a file that is on the disk when this returns."""
    with path.open("rb+") as file:  # some systems flush only files that are open for writing
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
