"""A model that the operator brings refuses images; none is part of this program.

The file is ONNX with one input, an image, and the probabilities of its classes as first output,
float32 [1, classes]. The input is float32 [1, 3, h, w] with values from 0 to 1, or uint8
[1, h, w, 3], in RGB; the image is squeezed to h x w, so that nothing of it is cut off. Where the
shape leaves h or w open, the side is 224. `classes`, a JSON list of names, and `refuse`, a JSON
object of names and the probabilities from which on to refuse, stand in the metadata of the file or,
as the keys of one object, in a JSON file beside it with the same name.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scraping import SettingError

DEFAULT_SIDE = 224
FAILED = "the nudity model failed on it"
INPUT_TYPES = ("tensor(float)", "tensor(uint8)")


class NudityModel:
    """One loaded model. Raises SettingError, in a sentence, for a file that cannot be used.

    Only with a model is onnxruntime loaded.
    """

    def __init__(self, file: str) -> None:
        path = Path(file)
        if not path.is_file():
            raise SettingError(f"There is no nudity model {path}.")
        try:
            import onnxruntime
        except ImportError as error:
            raise SettingError("The nudity model needs the package onnxruntime.") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # each worker has one core
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common class
            raise SettingError(f"The nudity model {path} is damaged or not ONNX.") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in INPUT_TYPES or len(inputs[0].shape) != 4:
            raise SettingError(f"The nudity model {path} does not take one image as its input.")
        self._input = inputs[0]
        facts = _facts(path, self._session.get_modelmeta().custom_metadata_map)
        self._classes = _classes(path, facts)
        self._refuse = _thresholds(path, facts, self._classes)
        side = DEFAULT_SIDE
        self._try_out(path, Image.new("RGB", (side, side), "gray"))

    def _try_out(self, path: Path, image: Image.Image) -> None:
        """Raise SettingError unless the model answers with a probability for each class."""
        try:
            count = len(self._probabilities(image))
        except Exception as error:
            raise SettingError(f"The nudity model {path} does not run: {error}.") from error
        if count != len(self._classes):
            raise SettingError(
                f"The nudity model {path} answers with {count} probabilities"
                f" for {len(self._classes)} classes."
            )

    def objection(self, image: Image.Image) -> str:
        """Return the class for which an RGB image is refused, with its probability; empty for none.

        An image on which the model fails is refused too, so that none is kept without a look.
        """
        try:
            probabilities = self._probabilities(image)
        except Exception:  # whatever the operator's model does, the worker goes on
            return FAILED
        for name, threshold in self._refuse.items():
            probability = float(probabilities[self._classes.index(name)])
            if not np.isfinite(probability):
                return FAILED
            if probability >= threshold:
                return f"{name} {probability:.2f}"
        return ""

    def _probabilities(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the probabilities [classes]."""
        is_planar = self._input.type == "tensor(float)"
        shape = self._input.shape
        height, width = shape[2:] if is_planar else shape[1:3]
        size = (_side(width), _side(height))
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        batch = pixels[np.newaxis]
        if is_planar:
            batch = batch.transpose(0, 3, 1, 2).astype(np.float32) / 255
        answer = self._session.run(None, {self._input.name: np.ascontiguousarray(batch)})
        return np.asarray(answer[0], dtype=np.float32).reshape(-1)


def main() -> int:
    """Say on standard error what is wrong with a model; 2 then, else 0."""
    try:
        check_model(sys.argv[1])
    except SettingError as error:
        print(str(error), file=sys.stderr)
        return 2
    return 0


def check_model(file: str) -> None:
    """Load the model once, if there is one. Raises SettingError when it cannot be used."""
    if file:
        NudityModel(file)


def _side(length: Any) -> int:
    return length if isinstance(length, int) and length > 0 else DEFAULT_SIDE


def _facts(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what the metadata, or else the JSON file beside the model, states."""
    beside = path.with_suffix(".json")
    try:
        if "classes" in metadata or not beside.is_file():
            return {name: json.loads(metadata.get(name, "null")) for name in ("classes", "refuse")}
        facts = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SettingError(f"What belongs to the nudity model {path} is not JSON.") from error
    return facts if isinstance(facts, dict) else {}


def _classes(path: Path, facts: Mapping[str, Any]) -> list[str]:
    classes = facts.get("classes")
    is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not is_list or not classes or len(set(classes)) < len(classes):
        raise SettingError(f"The nudity model {path} does not state its classes as a JSON list.")
    return list(classes)


def _thresholds(path: Path, facts: Mapping[str, Any], classes: list[str]) -> dict[str, float]:
    refuse = facts.get("refuse")
    if not isinstance(refuse, dict) or not refuse:
        raise SettingError(f"The nudity model {path} does not state what to refuse.")
    thresholds = {}
    for name, threshold in refuse.items():
        is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if name not in classes or not is_number or not 0 < threshold <= 1:
            raise SettingError(
                f"The nudity model {path} cannot refuse {name!r} from {threshold!r} on:"
                " it must be one of its classes and a probability."
            )
        thresholds[name] = float(threshold)
    return thresholds


if __name__ == "__main__":  # `manage.py check` starts this, to load no model itself
    sys.exit(main())
