"""The model folder: written beside its place, read back and compared, and only then given its
name.
"""

from __future__ import annotations

import hashlib
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
from training.export.model_card import REQUIREMENTS, model_card
from training.export.pth import write_pth_splice
from training.export.try_page import TryPage, write_try_page
from training.metrics import Metrics
from training.networks.catalogue import CROP
from training.networks.classifier import ClassifierNetwork, read_state_dict
from training.networks.onnx_graph import forget_cached_graph, onnx_model
from training.predict import Model, Outputs, Predict, open_model
from training.progress import Progress
from training.run_folder import ClassLabel, RunConfig, RunError, write_json, write_text
from training.spliced import PTH_SPLICE, open_splice

CHECK_SIZES = ((1, 1), (31, 17), (640, 333), (3, 900), (257, 224), (500, 1001))
"""Width and height of the synthetic images that a delivered model is checked with."""

_TOLERANCE = 1e-3  # of a probability or the novelty, between the forms of the model
_LOCAL_SETTINGS = {
    "weights_dir",
    "weights_cache",
    "weights_url",
    "text_image_model",
}  # of the machine
_ASSETS = Path(__file__).with_name("assets")

Images = Sequence[NDArray[np.uint8]]
"""Each uint8 [h, w, 3]."""


@dataclass(frozen=True)
class TrainedModel:
    """What training leaves to be exported."""

    network: ClassifierNetwork
    """On the CPU, with its head, temperature and references in place."""
    classes: tuple[ClassLabel, ...]
    config: RunConfig
    metrics: Metrics
    """All of metrics.json; its seconds are measured anew when it is written."""
    seconds: Callable[[], Mapping[str, float]]
    """Returns how long each stage has taken up to the call."""
    write_report: Callable[[Path, Predict], None]
    """Writes the report, with predictions by the exported network."""


def export_model(
    trained: TrainedModel, model_dir: Path, images: Images, progress: Progress
) -> None:
    """Write the model folder, and replace an earlier one; beside it what makes `model.pth` of it.

    The written files are compared with the trained network on synthetic images and on `images`.
    Raises RunError where one of them says something else.
    """
    draft_dir = model_dir.with_name(f".{model_dir.name}.{os.getpid()}.tmp")
    for stale in model_dir.parent.glob(f".{model_dir.name}.*.tmp"):
        shutil.rmtree(stale)
    draft_dir.mkdir(parents=True)
    draft = _Draft(trained, draft_dir, [*synthetic_images(), *images])
    steps = (
        draft.write_weights,
        draft.write_onnx,
        draft.write_texts,
        draft.write_reference_predictions,
        draft.compare,
        draft.write_pages,
        draft.write_metrics_and_checksums,
    )
    for number, step in enumerate(steps, 1):
        step()
        progress(number, len(steps))
    if model_dir.exists():
        shutil.rmtree(model_dir)
    (draft_dir / PTH_SPLICE).replace(model_dir.with_name(PTH_SPLICE))
    draft_dir.rename(model_dir)


def synthetic_images() -> list[NDArray[np.uint8]]:
    """Return the check images, uint8 [h, w, 3], by the formula in the delivered predict.py."""
    from training.export.assets.predict import synthetic

    return [synthetic(width, height) for width, height in CHECK_SIZES]


def model_config(
    network: ClassifierNetwork, config: RunConfig, weights: str, reject: float
) -> dict[str, Any]:
    """Return `config.json`: what timm's `local-dir:` reads, and every value that the run used.

    `weights` says where the pretrained ones come from; `reject` is the novelty above which an image
    is none of the classes.
    """
    backbone = network.backbone
    is_whole = network.view == "letterbox"
    run_config = {}
    for name, value in config.as_json().items():
        if name not in _LOCAL_SETTINGS:
            run_config[name] = value
    return {
        "architecture": backbone.architecture,
        "num_classes": len(config.classes),
        "label_names": [label.name for label in config.classes],
        "pretrained_cfg": {
            "input_size": [3, CROP, CROP],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 1.0 if is_whole else CROP / backbone.resize,
            "crop_mode": "border" if is_whole else "center",
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "num_classes": len(config.classes),
            "pool_size": [7, 7],
            "first_conv": backbone.first_layer,
            "classifier": backbone.classifier,
        },
        "backbone": backbone.name,
        "view": network.view,
        "weights": weights,
        "temperature": float(network.temperature),
        "reject": reject,
        "picaisso_version": training.__version__,
        "run": run_config,
    }


def onnx_file(
    network: ClassifierNetwork, classes: Sequence[ClassLabel], reject: float, graphs: Path
) -> bytes:
    """Return `model.onnx`: for any image size, with what a reader must know in its metadata.

    `graphs` is the folder of traced graphs.
    """
    import onnx

    names = [label.name for label in classes]
    metadata = {
        "classes": json.dumps(names, ensure_ascii=False),
        "backbone": network.backbone.name,
        "view": network.view,
        "temperature": repr(float(network.temperature)),
        "reject": json.dumps(reject),
        "picaisso_version": training.__version__,
    }
    model = onnx_model(network, graphs)
    model.producer_name = "Picaisso"
    model.producer_version = training.__version__
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString()


def graphs_folder(config: RunConfig) -> Path:
    """Return where traced graphs are kept: beside the downloaded weights."""
    return Path(config.weights_cache or "").parent / "graphs"


def resize_side(network: ClassifierNetwork) -> int | None:
    """Return the pixels of the shorter side before the center crop; None where there is none."""
    return None if network.view == "letterbox" else network.backbone.resize


def outputs_of(network: ClassifierNetwork, image: NDArray[np.uint8]) -> Outputs:
    """Return what the torch module says about one image uint8 [h, w, 3]."""
    with torch.inference_mode():
        probabilities, embedding, cam, novelty = network(torch.from_numpy(image))
    return Outputs(
        probabilities=probabilities[0].numpy(),
        embedding=embedding[0].numpy(),
        cam=cam[0].numpy(),
        novelty=float(novelty[0]),
    )


def largest_difference(expected: Sequence[Outputs], found: Sequence[Outputs]) -> float:
    """Return the largest difference of a probability or novelty; NaN where one of them is NaN."""
    differences: list[float] = []
    for one, other in zip(expected, found, strict=True):
        differences.extend(one.probabilities - other.probabilities)
        differences.append(one.novelty - other.novelty)
    return float(np.abs(differences).max())


class _Draft:
    """A model folder that is being written and has not got its name yet."""

    def __init__(self, trained: TrainedModel, folder: Path, images: Images) -> None:
        """`images` are those that the written forms are compared on."""
        self._trained = trained
        self._network = trained.network
        self._folder = folder
        self._images = images
        self._expected = [outputs_of(trained.network, image) for image in images]
        self._graphs = graphs_folder(trained.config)
        self._pth_splice = folder / PTH_SPLICE

    @cached_property
    def _exported(self) -> Model:
        """The written model.onnx, opened once."""
        return open_model(self._folder, threads=torch.get_num_threads())

    def write_weights(self) -> None:
        """Write the files that torch and timm read."""
        from safetensors.torch import save_file

        state = self._network.exported_state_dict()
        save_file(state, self._folder / "model.safetensors", metadata={"format": "pt"})
        save_file(self._network.novelty_state(), self._folder / "novelty.safetensors")
        for path in self._folder.glob("*.safetensors"):
            path.chmod(0o644)  # the library makes them readable by their owner alone
        write_pth_splice(self._pth_splice, state, self._folder)

    def write_onnx(self) -> None:
        """Write the file that ONNX Runtime reads."""
        reject = self._trained.metrics["reject_threshold"]
        content = onnx_file(self._network, self._trained.classes, reject, self._graphs)
        (self._folder / "model.onnx").write_bytes(content)

    def write_texts(self) -> None:
        """Write classes, configuration, model card, and predict.py with what it requires."""
        metrics = self._trained.metrics
        config = model_config(
            self._network, self._trained.config, metrics["weights"], metrics["reject_threshold"]
        )
        card = model_card(config, metrics, self._network.backbone)
        requirements = []
        for name, oldest in REQUIREMENTS.items():
            requirements.append(f"{name}>={oldest}\n")
        class_names = {label.id: label.name for label in self._trained.classes}
        write_json(self._folder / "classes.json", class_names)
        write_json(self._folder / "config.json", config)
        write_text(self._folder / "README.md", card)
        write_text(self._folder / "requirements.txt", "".join(requirements))
        shutil.copyfile(_ASSETS / "predict.py", self._folder / "predict.py")

    def write_reference_predictions(self) -> None:
        """Write what `predict.py --check` must find on the synthetic images."""
        rows = []
        for size, outputs in zip(CHECK_SIZES, self._expected, strict=False):
            row = {
                "size": list(size),
                "probabilities": outputs.probabilities.tolist(),
                "novelty": outputs.novelty,
            }
            rows.append(row)
        write_json(self._folder / "reference_predictions.json", rows)

    def compare(self) -> None:
        """Read every written form of the model back; refuse if one is not the trained network."""
        state = self._network.exported_state_dict()
        written = {
            "model.safetensors": state,
            "novelty.safetensors": self._network.novelty_state(),
        }
        found = {name: read_state_dict(self._folder / name) for name in written}
        written["model.pth"] = state
        with open_splice(self._pth_splice, self._folder) as file:
            found["model.pth"] = torch.load(file, weights_only=True)
        for name, tensors in written.items():
            if not _same_tensors(tensors, found[name]):
                raise _refusal(f"{name} holds other numbers than the trained network.")
        predicted = [self._exported.run(image) for image in self._images]
        difference = largest_difference(self._expected, predicted)
        if not difference < _TOLERANCE:  # true of NaN too
            forget_cached_graph(self._network, self._graphs)
            raise _refusal(
                "model.onnx predicts otherwise than the trained network:"
                f" it differs by {difference:.2g}."
            )

    def write_pages(self) -> None:
        """Write the pages that a browser opens without a network."""
        page = TryPage(
            classes=self._exported.classes,
            reject=self._exported.reject,
            resize_side=resize_side(self._network),
            title=self._network.backbone.title,
            version=training.__version__,
        )
        write_try_page(self._folder / "try.html", page, self._folder / "model.onnx")
        self._trained.write_report(self._folder / "report.html", self._exported.run)

    def write_metrics_and_checksums(self) -> None:
        """Flush all files to the disk, then write metrics.json and SHA256SUMS.

        Metrics come last, so that the seconds in them hold nearly all of the export.
        """
        digests = {}
        for path in self._folder.iterdir():
            if path != self._pth_splice:
                digests[path.name] = _flushed_digest(path)
        metrics_file = self._folder / "metrics.json"
        seconds = dict(self._trained.seconds())
        write_json(metrics_file, {**self._trained.metrics, "seconds": seconds})
        digests[metrics_file.name] = _flushed_digest(metrics_file)
        lines = []
        for name, digest in sorted(digests.items()):
            lines.append(f"{digest}  {name}\n")
        write_text(self._folder / "SHA256SUMS", "".join(lines))


def _same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two states are the same to the last bit."""
    if one.keys() != other.keys():
        return False
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _refusal(reason: str) -> RunError:
    remedy = (
        "Start the training again; if it fails the same way,"
        " report it with the versions of torch and onnxruntime."
    )
    return RunError("export", reason, remedy, retry=True)


def _flushed_digest(path: Path) -> str:
    """Return the hex SHA-256 of a file that is on the disk when this returns."""
    with path.open("rb+") as file:  # some systems flush only files that are open for writing
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
