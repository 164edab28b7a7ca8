"""Finished folders as the two libraries leave them, for tests in which neither is the point.

The real command runs on them all the same: a folder whose result is there and good is returned at
once.
"""

import hashlib
import io
import json
import random
from pathlib import Path

from PIL import Image

from requests_app.models import ClassifierRequest, DatasetVersion
from training import run_folder


def picture(number: int) -> bytes:
    """A small JPEG unlike those of other numbers."""
    buffer = io.BytesIO()
    noise = random.Random(number).randbytes(64 * 48 * 3)
    Image.frombytes("RGB", (64, 48), noise).save(buffer, "JPEG")
    return buffer.getvalue()


def write_collection(request: ClassifierRequest, kept_per_class: int) -> Path:
    """A finished collection: per class so many kept pictures and one rejected, asked from one
    source.
    """
    folder = request.folder / "collect"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows, summaries, sources = [], [], []
    for c in request.classes.all():
        for rank in range(1, kept_per_class + 1):
            content = picture(1000 * c.number + rank)
            digest = hashlib.sha256(content).hexdigest()
            name = f"images/{digest[:16]}.jpg"
            (folder / name).write_bytes(content)
            url = f"http://pictures.example/{c.number}/{rank}.jpg"
            row = {
                "class": c.class_id, "source": "bing", "query": c.query, "rank": rank, "image_url": url,
                "page_url": url + ".html", "title": 'A "title", with\nbreaks <b>', "creator": "Ada",
                "license": "by-sa", "license_version": "4.0", "license_url": "https://licences.example/by-sa",
                "license_basis": "per-item", "attribution": "“A title” by Ada", "state": "kept", "reason": None,
                "detail": "", "file": name, "sha256": digest, "source_sha256": digest, "width": 64, "height": 48,
                "bytes": len(content), "mime": "image/jpeg", "http_status": 200,
                "fetched_at": "2026-11-01T12:00:00+00:00",
            }  # fmt: skip
            rows.append(row)
        rows.append({**rows[-1], "rank": 999, "image_url": url + "?small", "state": "rejected", "reason": "too_small",
                     "file": None, "sha256": None, "source_sha256": None})  # fmt: skip
        summaries.append(
            {
                "id": c.class_id,
                "name": c.name,
                "query": c.query,
                "asked": request.images_per_class,
                "found": kept_per_class + 1,
                "kept": kept_per_class,
                "rejected": {"too_small": 1},
            }
        )
        sources.append(
            {
                "name": "bing",
                "class": c.class_id,
                "outcome": "partial",
                "found": kept_per_class + 1,
                "message": f"Bing had only {kept_per_class + 1}.",
                "retry_after": None,
            }
        )
    run_folder.write_text(folder / "images.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    run_folder.write_json(
        folder / "result.json",
        {"ok": True, "classes": summaries, "sources": sources, "seconds": 1.0},
    )
    return folder


METRICS = {
    "accuracy": 0.9, "interval": [0.6, 0.98], "balanced_accuracy": 0.9, "macro_f1": 0.9, "majority_baseline": 0.5,
    "better_than_chance": True, "ece_before": None, "ece_after": None, "temperature": 1.0, "reject_threshold": None,
    "split": {"train": 42, "val": 9, "test": 9}, "near_duplicate_leaks": 0, "label_issues": 0,
    "seconds": {"features": 1.0, "train": 2.0}, "device": "cpu", "backbone": "efficientnet_lite0",
    "weights": "imagenet", "seed": 0, "per_class": {"cat": {"precision": 1.0, "recall": 0.9, "support": 4},
    "dog": {"precision": 0.8, "recall": 0.9, "support": 5}},
    "confusion": {"labels": ["cat", "dog"], "matrix": [[4, 0], [1, 4]]},
}  # fmt: skip


def write_run(
    version: DatasetVersion, rows: list[run_folder.ImageRow], *, error: dict | None = None
) -> Path:
    """A run folder that training has finished with: frozen manifest, metrics, a model folder, a
    result.
    """
    folder = version.folder
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["train"] * 7 + ["val"] * 2 + ["test"] * 2
    frozen = [
        run_folder.ImageRow(
            row.file, row.class_id, row.sha256, row.source, row.license, parts[i % len(parts)], i
        )
        for i, row in enumerate(rows)
    ]
    labels = tuple(run_folder.ClassLabel(c.class_id, c.name) for c in version.request.classes.all())
    run_folder.write_run(
        folder, run_folder.RunConfig(classes=labels), frozen, version.request.folder / "collect"
    )
    run_folder.write_json(folder / "metrics.json", METRICS)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "model.onnx").write_bytes(b"onnx" * 1000)
    (folder / "model" / "SHA256SUMS").write_text(
        f"{hashlib.sha256(b'onnx' * 1000).hexdigest()}  model.onnx\n"
    )
    result = (
        {"ok": False, "error": error}
        if error
        else {"ok": True, "seconds": {"train": 2.0, "export": 5.0}, "notices": ["A notice."]}
    )
    run_folder.write_json(folder / "result.json", result)
    return folder
