"""Say what pictures show, or that it is none of the classes: python predict.py PICTURE_OR_URL...
With --check, show that this machine predicts what the model's maker saw. Needs requirements.txt."""
import io
import json
import os
import sys
from pathlib import Path
from urllib.request import Request, urlopen

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it when it is imported

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read(source: str) -> np.ndarray:  # as uint8 [height, width, 3]: upright, RGB, on white
    file: str | io.BytesIO = source
    if source.startswith(("http://", "https://")):
        request = Request(source, headers={"User-Agent": "Picaisso"})
        file = io.BytesIO(urlopen(request, timeout=20).read(30_000_000))
    image = ImageOps.exif_transpose(Image.open(file))
    if image.mode.startswith("I"):  # 16 bits a pixel
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257 + 0.5).astype(np.uint8))
    white = Image.new("RGBA", image.size, "white")
    return np.array(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))

def synthetic(width: int, height: int) -> np.ndarray:  # from a formula, the same on every machine
    y, x, c = np.ogrid[:height, :width, :3]
    return ((x * (c + 2) + y * (5 - c) + x * y // (c + 7)) % 256).astype(np.uint8)

def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if arguments else 2)
    folder = Path(__file__).parent
    model = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    outputs = ["probabilities", "novelty"]
    if arguments == ["--check"]:
        rows = json.loads((folder / "reference_predictions.json").read_text("utf-8"))
        found = [np.append(*model.run(outputs, {"image": synthetic(*row["size"])})) for row in rows]
        expected = [[*row["probabilities"], row["novelty"]] for row in rows]
        worst = np.abs(np.subtract(found, expected)).max()
        verdict = "same" if worst < 1e-3 else "DIFFERENT"
        print(f"{len(rows)} pictures, largest difference {worst:.1e}: {verdict}")
        sys.exit(0 if verdict == "same" else 1)
    metadata = model.get_modelmeta().custom_metadata_map
    classes, reject = json.loads(metadata["classes"]), json.loads(metadata["reject"])
    for source in arguments:
        (probabilities,), (novelty,) = model.run(outputs, {"image": read(source)})
        best = sorted(zip(probabilities, classes, strict=True), reverse=True)
        print(f"{source}:", best[0][1] if novelty <= reject else "none of these")
        print(*(f"  {share:6.1%}  {name}" for share, name in best), sep="\n")

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:  # no such file, no answer, not a picture
        sys.exit(str(error))
