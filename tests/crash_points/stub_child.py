"""Stands for `python -m scraping collect` and `python -m training fit`: it leaves what they leave.

It is started as the interpreter of the site, with ``python -I -S stub_child.py PREPARED ...``, so
that it must not need more than the standard library.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = 5.0
SPLITS = ("train", "val", "test")


def collect(folder: Path, prepared: Path) -> int:
    """Ask for the browser, as the real one does, then leave a finished collection."""
    if (folder / "result.json").exists():
        return 0
    (folder / "browser.wanted").touch()
    end = time.monotonic() + PATIENCE_SECONDS
    while not (folder / "browser.granted").exists():
        if time.monotonic() > end:
            return 1
        time.sleep(0.005)
    (folder / "browser.wanted").unlink()
    (folder / "browser.granted").unlink()
    (folder / "images").mkdir(exist_ok=True)
    for file in (prepared / "collect" / "images").iterdir():
        shutil.copy(file, folder / "images" / file.name)
    publish(folder / "images.jsonl", (prepared / "collect" / "images.jsonl").read_text())
    publish(folder / "result.json", (prepared / "collect" / "result.json").read_text())
    return 0


def fit(folder: Path, prepared: Path) -> int:
    """Split the manifest that is there, and leave a measured model."""
    if (folder / "result.json").exists():
        return 0
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["split"] = row["split"] or SPLITS[number % 3]
        row["group"] = number
    publish(folder / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    publish(folder / "metrics.json", (prepared / "run" / "metrics.json").read_text())
    (folder / "model").mkdir(exist_ok=True)
    model = b"onnx" * 1000
    (folder / "model" / "model.onnx").write_bytes(model)
    digest = hashlib.sha256(model).hexdigest()
    publish(folder / "model" / "SHA256SUMS", f"{digest}  model.onnx\n")
    publish(folder / "result.json", (prepared / "run" / "result.json").read_text())
    return 0


def publish(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_text(text)
    beside.replace(path)


def main(arguments: list[str]) -> int:
    prepared = Path(arguments[0])
    words = arguments[1:]
    if "collect" in words:
        return collect(Path(words[words.index("collect") + 1]), prepared)
    return fit(Path(words[words.index("fit") + 1]), prepared)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
