"""Say what pictures show, or that it is none of the classes: python predict.py PICTURE_OR_URL...
With --check instead, prove that this machine predicts what the model's maker saw. Needs requirements.txt."""

import io
import json
import os
import sys
from pathlib import Path
from urllib.request import Request, urlopen

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: ONNX Runtime sends usage data otherwise

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read(place: str) -> np.ndarray:
    """A file or URL as uint8 [height, width, 3]: upright, RGB, transparency on white."""
    if place.startswith(("http://", "https://")):
        data = urlopen(Request(place, headers={"User-Agent": "Picaisso"}), timeout=20).read(30_000_000)
    else:
        data = Path(place).read_bytes()
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I"):  # 16 bits a pixel
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257 + 0.5).astype(np.uint8))
    return np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB"))


def synthetic(width: int, height: int) -> np.ndarray:  # from a formula, the same on every machine
    y, x, c = np.ogrid[:height, :width, :3]
    return ((x * (c + 2) + y * (5 - c) + x * y // (c + 7)) % 256).astype(np.uint8)


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        return print(__doc__) or 2 * (not arguments)
    model = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"), providers=["CPUExecutionProvider"])
    classes, reject = (json.loads(model.get_modelmeta().custom_metadata_map[key]) for key in ("classes", "reject"))
    check = arguments == ["--check"]
    rows = json.loads(Path(__file__).with_name("reference_predictions.json").read_text("utf-8")) if check else []
    images = [synthetic(*row["size"]) for row in rows] if check else map(read, arguments)
    found = (np.append(*model.run(["probabilities", "novelty"], {"image": image})) for image in images)
    if check:
        worst = np.max([abs(f - [*row["probabilities"], row["novelty"]]) for f, row in zip(found, rows, strict=True)])
        print(f"{len(rows)} pictures, largest difference {worst:.1e}:", "same" if worst < 1e-3 else "DIFFERENT")
        return int(not worst < 1e-3)
    for place, (*probabilities, novelty) in zip(arguments, found, strict=True):
        best = sorted(zip(probabilities, classes, strict=True), reverse=True)
        label = best[0][1] if novelty <= reject else "none of these"
        print(f"{place}: {label}", *(f"  {p:6.1%}  {name}" for p, name in best), sep="\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:  # no such file, no answer, not a picture
        sys.exit(str(error))
