"""Classify pictures: python predict.py PICTURE_OR_URL... Verify this machine: --check alone."""
import io, json, os, sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen
if __name__ == "__main__":  # a sentence for what stops everything, in place of a traceback
    sys.excepthook = lambda kind, error, _: print(f"Stopped: {kind.__name__} {error}.",
        "Unzip again, or: python -m pip install --upgrade -r requirements.txt", file=sys.stderr)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it when it is imported
import numpy as np
from onnxruntime import InferenceSession
from PIL import Image, PngImagePlugin
def read(source: str) -> np.ndarray:  # uint8 [height, width, 3]: upright, RGB, on white
    file: str | io.BytesIO = source
    if source.lower().startswith(("http://", "https://")):
        ask = Request(quote(os.fsencode(source), "%/?#:@&*+,;="), None, {"User-Agent": "Picaisso"})
        ask.host = ask.host.encode("idna").decode()  # of names like käse.de
        file = io.BytesIO(urlopen(ask, timeout=20).read(30_000_000))
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 1_000_000_000
    Image.MAX_IMAGE_PIXELS = 256_000_000  # of them a JPEG is decoded at a quarter of its sides
    image = Image.open(file)
    image.draft(None, [side // 4 for side in image.size] if np.prod(image.size) > 5e7 else None)
    image.load()
    with suppress(Exception):  # metadata that cannot be read says nothing about the pixels
        image = image.transpose({2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[image.getexif()[0x0112]])
    if image.mode[0] in "IF":  # to 8 bits from 0 to 65535, or from its lowest to its highest number
        v = np.asarray(image, np.float64)
        ends = (0, 65535) if image.mode[0] == "I" else np.quantile(v[abs(v) < 1e30], (0, 1))
        image = Image.fromarray(np.nan_to_num(np.interp(v, ends, (0, 255))).round().astype("u1"))
    white = Image.new("RGBA", image.size, "white")
    return np.array(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
def synthetic(width: int, height: int) -> np.ndarray:  # from a formula, the same on every machine
    y, x, c = np.ogrid[:height, :width, :3]
    return ((x * (c + 2) + y * (5 - c) + x * y // (c + 7)) % 256).astype(np.uint8)
if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # consoles that are not UTF-8
    if sys.argv[1:] in ([], ["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] else 2)
    folder = Path(__file__).resolve().parent
    model = InferenceSession((folder / "model.onnx").read_bytes(), None, ["CPUExecutionProvider"])
    if sys.argv[1:] == ["--check"]:
        rows = json.loads((folder / "reference_predictions.json").read_text("utf-8"))
        seen = [np.append(*model.run(None, {"image": synthetic(*r["size"])})[::3]) for r in rows]
        d = np.abs(np.subtract(seen, [[*r["probabilities"], r["novelty"]] for r in rows])).max()
        print(f"{len(rows)} pictures differ by up to {d:.1e}:", "same" if d < 1e-3 else "DIFFERENT")
        sys.exit(0 if d < 1e-3 else 1)
    metadata = model.get_modelmeta().custom_metadata_map
    classes, reject, failed = json.loads(metadata["classes"]), json.loads(metadata["reject"]), 0
    for source in sys.argv[1:]:
        try:
            (shares,), _, _, (novelty,) = model.run(None, {"image": read(source)})
            answer = classes[shares.argmax()] if novelty <= reject else "none of these"
            answer += "".join(f"\n  {shares[k]:6.1%}  {classes[k]}" for k in np.argsort(-shares))
        except Exception as error:
            answer, failed = f"cannot be read ({str(error).partition(' <')[0]})", 1
        print(f"{source}: {answer}")
    sys.exit(failed)
