"""Classify pictures with this folder's model: python predict.py PICTURE_OR_URL...  or  python predict.py --check"""

import io
import json
import os
import sys
import urllib.request
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: ONNX Runtime sends usage data otherwise

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent


def read(place: str) -> np.ndarray:
    """A file or URL as uint8 [height, width, 3]: upright, RGB, transparency on white."""
    if place.startswith(("http://", "https://")):
        request = urllib.request.Request(place, headers={"User-Agent": "Picaisso"})
        data = urllib.request.urlopen(request, timeout=20).read(30_000_000)
    else:
        data = Path(place).read_bytes()
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if picture.mode.startswith("I"):  # 16 bits a pixel
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) / 257 + 0.5).astype(np.uint8))
    layer = picture.convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))


def synthetic(width: int, height: int) -> np.ndarray:
    """A picture from a formula, the same on every machine."""
    y, x, c = np.ogrid[:height, :width, :3]
    return ((x * (c + 2) + y * (5 - c) + x * y // (c + 7)) % 256).astype(np.uint8)


def main(arguments: list[str]) -> int:
    model = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
    classes = json.loads(model.get_modelmeta().custom_metadata_map["classes"])
    if arguments == ["--check"]:
        rows = json.loads((HERE / "reference_predictions.json").read_text(encoding="utf-8"))
        run = [model.run(["probabilities"], {"image": synthetic(*row["size"])})[0][0] for row in rows]
        worst = max(np.abs(p - row["probabilities"]).max() for p, row in zip(run, rows, strict=True))
        print(f"{len(rows)} pictures, largest difference {worst:.1e}:", "same" if worst < 1e-3 else "DIFFERENT")
        return int(worst >= 1e-3)
    for place in arguments:
        probabilities = model.run(["probabilities"], {"image": read(place)})[0][0]
        ranked = sorted(zip(probabilities, classes, strict=True), reverse=True)
        print(place, *(f"  {p:6.1%}  {name}" for p, name in ranked), sep="\n")
    return 0 if arguments else print(__doc__) or 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:  # no such file, no answer, not a picture
        sys.exit(str(error))
