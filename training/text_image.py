"""An optional text-image model, brought by the operator: which of some sentences fits an image.

It needs no training pictures, so that its answers are a second opinion on labels and a baseline for
the trained model. Its folder holds

* `image.onnx`: one input, float32 [1 or n, 3, h, w], RGB in 0..1 normalised by mean and std; first
  output embeddings [n, d];
* `text.onnx`: one input, int64 token ids [1 or n, length]; first output embeddings [n, d];
* `tokenizer.json` as the package tokenizers reads it;
* `config.json`: `name`, `license`, `mean`, `std`, `logit_scale` (factor of cosines), and where the
  graphs leave them open `context_length` and `image_size`; `resize` is `squash` or `crop`;
* `LICENSE`: the terms of its weights.

onnxruntime and tokenizers are loaded only with such a folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.images.decode import BrokenImageError, read_image
from training.metrics import Floats, softmax
from training.progress import Progress
from training.run_folder import ImageRow, RunError

FILES = ("image.onnx", "text.onnx", "tokenizer.json", "config.json", "LICENSE")
OTHER_SENTENCES = {
    "a screenshot of a web page": "a web page",
    "a page with text": "a page with text",
    "a drawing": "a drawing",
    "a logo": "a logo",
    "a chart or a diagram": "a chart or diagram",
    "a photo of an object": "another object",
    "a photo of a place": "a place",
    "a photo of people": "people",
}
"""What an image may show besides the classes, to what people are told of it."""

_AT_ONCE = 16  # images computed together
_DEFAULT_SIDE = 224  # pixels
_DEFAULT_LENGTH = 77  # tokens
_MOST_TOKENS = 4096
_MOST_PIXELS = 2048
_LONGEST_NAME = 100  # characters of the model's name and licence
_SMALLEST = 1e-12
_REMEDY = (
    "Mend the folder that PICAISSO_TEXT_IMAGE_MODEL or --text-image-model names, or name none."
)


@dataclass(frozen=True)
class TextImageScores:
    """What the model says of n images."""

    probabilities: Floats
    """[n, classes + len(OTHER_SENTENCES)]."""
    classes: int
    model: str
    license: str

    def predicted(self) -> NDArray[np.int64]:
        """Return the class [n] whose name fits each image best."""
        of_classes = self.probabilities[:, : self.classes]
        return of_classes.argmax(axis=1)


class TextImageModel:
    """A loaded pair of encoders. Raises RunError, in a sentence, for a folder that is of no use."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        if not folder.is_dir():
            raise _unusable("The folder of the text-image model is not there.")
        for file in FILES:
            if not (folder / file).is_file():
                raise _unusable(f"The folder of the text-image model has no {file}.")
        self._config = _read_config(folder / "config.json")
        self.name: str = self._config["name"]
        self.license: str = self._config["license"]
        self._tokenizer = _tokenizer(folder / "tokenizer.json")
        self._image = _Encoder(folder / "image.onnx", "tensor(float)", 4, threads)
        self._text = _Encoder(folder / "text.onnx", "tensor(int64)", 2, threads)
        channels, height, width = self._image.shape[1:]
        if channels not in (3, None):
            raise _unusable("The text-image model’s image.onnx takes no pictures in RGB.")
        side = self._config["image_size"]
        self._size = (width or side, height or side)
        self._length = self._text.shape[1] or self._config["context_length"]
        self._pad_and_cut()
        self._try_out()

    def probabilities(self, images: Sequence[Image.Image], sentences: Sequence[str]) -> Floats:
        """Return how well each sentence fits each image: [n, sentences]."""
        return self._compared(images, self._sentence_directions(sentences))

    def score(
        self, run_dir: Path, rows: Sequence[ImageRow], names: Sequence[str], report: Progress
    ) -> TextImageScores:
        """Return what it says of a run's images; all sentences fit alike one that is unreadable."""
        sentences = [f"a photo of {name}" for name in names]
        sentences += OTHER_SENTENCES
        directions = self._sentence_directions(sentences)
        scores = np.full((len(rows), len(sentences)), 1 / len(sentences))
        for index, row in enumerate(rows):
            report(index, len(rows))
            try:
                image = read_image(run_dir / row.file)
            except BrokenImageError:  # it has gone since its features were extracted
                continue
            scores[index] = self._compared([image], directions)
        return TextImageScores(scores, len(names), self.name, self.license)

    def _compared(self, images: Sequence[Image.Image], directions: Floats) -> Floats:
        pixels = [self._pixels(image) for image in images]
        embeddings = self._image.directions(np.stack(pixels))
        cosines = embeddings @ directions.T
        scale = self._config["logit_scale"]
        return softmax(scale * cosines)

    def _sentence_directions(self, sentences: Sequence[str]) -> Floats:
        """Return embeddings [n, d] of length 1."""
        encoded = self._tokenizer.encode_batch(list(sentences))
        ids = [tokens.ids for tokens in encoded]
        table = np.array(ids, np.int64)
        return self._text.directions(table)

    def _pixels(self, image: Image.Image) -> NDArray[np.float32]:
        """Return an RGB image as the encoder takes it: [3, h, w]."""
        if self._config["resize"] == "crop":
            resized = ImageOps.fit(image, self._size, Image.Resampling.BICUBIC)
        else:
            resized = image.resize(self._size, Image.Resampling.BICUBIC)
        values: NDArray[np.float32] = np.array(resized, np.float32)
        values /= 255
        values -= self._config["mean"]
        values /= self._config["std"]
        return values.transpose(2, 0, 1)

    def _pad_and_cut(self) -> None:
        """Let the tokenizer give as many ids for every sentence, padded as its file says."""
        padding = self._tokenizer.padding or {}
        pad_id = padding.get("pad_id", 0)
        pad_token = padding.get("pad_token", "[PAD]")
        self._tokenizer.enable_padding(length=self._length, pad_id=pad_id, pad_token=pad_token)
        self._tokenizer.enable_truncation(self._length)

    def _try_out(self) -> None:
        """Raise RunError unless both encoders run and their embeddings can be compared."""
        try:
            black = self._pixels(Image.new("RGB", (90, 60)))
            of_image = self._image.directions(black[None])
            of_text = self._sentence_directions(["a photo", "a drawing"])
        except _WrongOutputError as error:
            raise _unusable(f"The text-image model’s {error}.") from error
        except Exception as error:  # those of onnxruntime and tokenizers have no common class
            raise _unusable("The text-image model does not run on a picture and a text.") from error
        numbers = of_image.shape[1]
        others = of_text.shape[1]
        if numbers != others:
            raise _unusable(
                "The text-image model’s image.onnx and text.onnx do not belong together:"
                f" embeddings of {numbers} and {others} numbers."
            )


class _WrongOutputError(Exception):
    """An encoder answers with no embeddings; the message is the end of a sentence."""


class _Encoder:
    """One ONNX graph that makes embeddings."""

    shape: list[int | None]
    """Of its input; None where the graph leaves a length open."""

    def __init__(self, path: Path, input_type: str, rank: int, threads: int) -> None:
        import onnxruntime

        self._name = path.name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common class
            raise _unusable(
                f"The text-image model’s {path.name} is damaged or not ONNX."
            ) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != input_type or len(inputs[0].shape) != rank:
            what = "one int64 table of token ids [n, length]"
            if rank == 4:
                what = "one float32 picture [n, 3, h, w]"
            raise _unusable(f"The text-image model’s {path.name} does not take {what}.")
        self._input = inputs[0].name
        self.shape = []
        for length in inputs[0].shape:
            is_fixed = isinstance(length, int) and length > 0
            self.shape.append(length if is_fixed else None)
        self._at_once = self.shape[0] or _AT_ONCE
        if self.shape[0] not in (1, None):
            raise _unusable(f"The text-image model’s {path.name} takes no single picture or text.")

    def directions(self, values: NDArray[Any]) -> Floats:
        """Return embeddings [n, d] of length 1; raises _WrongOutputError."""
        outputs = list(self._run(values))
        embeddings = np.concatenate(outputs)
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        lengths = np.maximum(lengths, _SMALLEST)
        directions: Floats = embeddings / lengths
        return directions

    def _run(self, values: NDArray[Any]) -> Iterator[Floats]:
        for start in range(0, len(values), self._at_once):
            end = start + self._at_once
            batch = values[start:end]
            given = {self._input: batch}
            output = self._session.run(None, given)[0]
            if output.ndim != 2 or len(output) != len(batch):
                raise _WrongOutputError(f"{self._name} does not answer with embeddings [n, d]")
            if not np.isfinite(output).all():
                raise _WrongOutputError(f"{self._name} answers with what is no number")
            yield output.astype(np.float64)


def _tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        reason = "The text-image model needs the package tokenizers."
        remedy = "Install it: pip install -r requirements-text-image.txt"
        raise RunError("features", reason, remedy, retry=False) from error
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # its exceptions have no common class
        raise _unusable("The text-image model’s tokenizer.json cannot be read.") from error


def _read_config(path: Path) -> dict[str, Any]:
    """Return `config.json` with defaults in place; raises RunError where a value is no such."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable("The text-image model’s config.json is not JSON.") from error
    if not isinstance(values, dict):
        raise _unusable("The text-image model’s config.json must hold one JSON object.")
    license_name = _text(values, "license", "")
    if not license_name:
        raise _unusable("The text-image model’s config.json names no license.")
    return {
        "name": _text(values, "name", "text-image model"),
        "license": license_name,
        "mean": _channels(values, "mean"),
        "std": np.maximum(_channels(values, "std"), _SMALLEST),
        "logit_scale": _number(values, "logit_scale", 1e4, 0),
        "image_size": int(_number(values, "image_size", _MOST_PIXELS, _DEFAULT_SIDE)),
        "context_length": int(_number(values, "context_length", _MOST_TOKENS, _DEFAULT_LENGTH)),
        "resize": "crop" if values.get("resize") == "crop" else "squash",
    }


def _text(values: Mapping[str, Any], key: str, default: str) -> str:
    value = values.get(key, default)
    if not isinstance(value, str):
        raise _unusable(f"The text-image model’s config.json holds no text as {key}.")
    words = " ".join(value.split())
    return words[:_LONGEST_NAME] or default


def _number(values: Mapping[str, Any], key: str, most: float, default: float) -> float:
    value = values.get(key, default)
    if isinstance(value, int | float) and 0 < value <= most:
        return value
    raise _unusable(f"The text-image model’s config.json holds no usable number as {key}.")


def _channels(values: Mapping[str, Any], key: str) -> NDArray[np.float32]:
    reason = f"The text-image model’s config.json holds no three numbers as {key}."
    value = values.get(key)
    try:
        channels = np.array(value, np.float32)
    except (ValueError, TypeError) as error:
        raise _unusable(reason) from error
    if channels.shape != (3,) or not np.isfinite(channels).all():
        raise _unusable(reason)
    return channels


def _unusable(reason: str) -> RunError:
    return RunError("features", reason, _REMEDY, retry=False)


if __name__ == "__main__":  # for checks at the start of the site, which loads no such model itself
    try:
        TextImageModel(Path(sys.argv[1]))
    except RunError as refusal:
        sys.exit(refusal.reason)
