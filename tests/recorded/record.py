"""Record what this version of Picaisso writes, so that later versions prove they still read it.

    python -m tests.recorded.record

Runs the demo on drawn images (blobs of warm and of cool colours; one image of each class is too
small and one is a copy) and packs its database, collection folder and run folder into
`tests/recorded/picaisso-VERSION.tar.xz`. The weights of the recorded model are zero and its larger
files are left out: they would make megabytes, and reading them does not depend on their numbers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from picaisso_site import __version__

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
CLASSES = {"warm": (90, 10, -90), "cool": (-90, 0, 90)}  # what is added to red, green, blue
IMAGES_PER_CLASS = 28
SIZE = (112, 84)
LARGE_TENSOR_BYTES = 1000
LEFT_OUT = ("model.pth", "try.html")  # files of the model folder


def draw_images(folder: Path) -> None:
    """Write a folder of drawn images for each class."""
    for number, (name, tint) in enumerate(CLASSES.items()):
        class_folder = folder / name
        class_folder.mkdir(parents=True)
        for index in range(IMAGES_PER_CLASS):
            random = np.random.default_rng(1000 * number + index)
            blobs = random.integers(0, 256, (6, 8, 3)) * 0.7 + 40 + np.array(tint)
            image = Image.fromarray(np.clip(blobs, 0, 255).astype(np.uint8))
            image.resize(SIZE, Image.Resampling.BICUBIC).save(class_folder / f"{name}-{index}.jpg")
        original = Image.open(class_folder / f"{name}-0.jpg")
        original.resize((96, 72)).save(class_folder / f"{name}-copy.jpg", quality=70)
        original.resize((40, 30)).save(class_folder / f"{name}-small.jpg")


def run_demo(photographs: Path, data: Path) -> None:
    """Deliver one request for the classes into a data folder."""
    command = [sys.executable, "manage.py", "demo", "--folder", str(data)]
    command += ["--photographs", str(photographs), "--images", "30", "--classes", *CLASSES]
    subprocess.run(command, cwd=ROOT, check=True)


def empty_weights(model_folder: Path) -> None:
    """Set the large tensors of a model folder to zero and drop the files left out."""
    graph = onnx.load(model_folder / "model.onnx")
    for tensor in graph.graph.initializer:
        if len(tensor.raw_data) > LARGE_TENSOR_BYTES:
            tensor.raw_data = bytes(len(tensor.raw_data))
    onnx.save(graph, model_folder / "model.onnx")

    weights = model_folder / "model.safetensors"
    content = weights.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    weights.write_bytes(content[:header_end] + bytes(len(content) - header_end))

    for name in LEFT_OUT:
        (model_folder / name).unlink(missing_ok=True)
    files = sorted(path for path in model_folder.iterdir() if path.name != "SHA256SUMS")
    digests = (hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    lines = [f"{digest}  {path.name}\n" for digest, path in zip(digests, files, strict=True)]
    (model_folder / "SHA256SUMS").write_text("".join(lines))


def forget_machine(run_folder: Path) -> None:
    """Remove the paths of this machine from a run folder."""
    config_file = run_folder / "config.json"
    config = json.loads(config_file.read_text()) | {"weights_cache": ""}
    config_file.write_text(json.dumps(config, indent=2))


def pack(data: Path, archive: Path) -> None:
    """Pack the recorded parts of a data folder."""
    for log in data.glob("requests/**/log.txt"):
        log.unlink()
    for run_folder in data.glob("requests/*/runs/*"):
        empty_weights(run_folder / "model")
        forget_machine(run_folder)
    shutil.rmtree(data / "requests" / "1" / "artifacts")
    with tarfile.open(archive, "w:xz") as tar:
        for name in ("db.sqlite3", "secret_key", "requests"):
            tar.add(data / name, arcname=name)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        photographs = Path(scratch, "photographs")
        data = Path(scratch, "data")
        draw_images(photographs)
        run_demo(photographs, data)
        archive = FOLDER / f"picaisso-{__version__}.tar.xz"
        pack(data, archive)
        print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
