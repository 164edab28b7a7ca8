"""Results of a training that never took place, on real pictures: for tests of what is made from
results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.results import Results
from training.fitting.label_issues import Suspect
from training.images.split import split_rows
from training.metrics import accuracy_by_source, classification_metrics, false_alarms, softmax
from training.predict import Outputs
from training.run_folder import ClassLabel, ImageRow, RunConfig, read_config, read_manifest

NAMES = ("mammal", "plant")


def results_of(run: Path, names: Sequence[str] = NAMES, **metrics: Any) -> Results:
    """Of a run folder's pictures, divided up here. Two mammals of the test part are taken for
    plants.
    """
    rows = split_run(run, names)
    random = np.random.default_rng(0)
    ids = {label.id: number for number, label in enumerate(labels_of(names))}
    labels = np.array([ids[row.class_id] for row in rows])
    right = np.eye(len(names))[labels]
    logits = 0.5 * right + random.normal(size=(len(rows), len(names)))
    novelty = random.gamma(9, 0.05, len(rows))
    tested = np.array([row.split == "test" for row in rows])
    measured = classification_metrics(logits[tested], labels[tested], list(names), 1.0)
    said = logits.argmax(axis=1)
    found = metrics_of(measured, rows) | {
        "by_source": accuracy_by_source(
            said[tested], labels[tested], [row.source for row in np.array(rows)[tested]]
        ),
        "unknown": false_alarms(novelty[tested], 0.7),
    }
    doubtful = np.argsort(softmax(logits)[np.arange(len(rows)), labels])[:7]
    suspects = [
        suspect(int(place), rank, int(said[place]), names) for rank, place in enumerate(doubtful)
    ]
    return Results(
        rows=rows,
        labels=labels,
        probabilities=softmax(logits),
        novelty=novelty,
        embeddings=(
            random.normal(size=(len(rows), 16)) + 3 * right.repeat(16 // len(names), axis=1)
        ).astype(np.float32),
        suspects=suspects,
        epochs=[],
        statistics=np.ones((len(rows), 4), np.float32),
        metrics={**found, **metrics},
    )


def labels_of(names: Sequence[str]) -> tuple[ClassLabel, ...]:
    return tuple(ClassLabel(f"c{number:03d}", name) for number, name in enumerate(names, 1))


def split_run(run: Path, names: Sequence[str]) -> list[ImageRow]:
    """The run's rows, each a group of its own, with sources, licences and credits."""
    config = dataclasses.replace(read_config(run), classes=labels_of(names))
    rows = [
        dataclasses.replace(
            row,
            group=number,
            split=None,
            source=("openverse", "bing")[number % 2],
            license=("by 4.0", "")[number % 2],
            credit=("“A picture” by A. Person, CC BY 4.0", "")[number % 2],
            page_url=f"https://pictures.example/{number}",
        )
        for number, row in enumerate(read_manifest(run))
    ]
    return split_rows(config, rows)


def suspect(place: int, rank: int, said: int, names: Sequence[str]) -> Suspect:
    if rank % 3 == 2:
        return Suspect(
            place, 0.9 - rank / 10, "outlier", None, "It is unlike the other pictures of its class."
        )
    return Suspect(place, 0.9 - rank / 10, "label", said, f"It looks more like “{names[said]}”.")


def metrics_of(measured: dict[str, Any], rows: Sequence[ImageRow]) -> dict[str, Any]:
    """All of metrics.json, of a run that delivers the linear head."""
    share = {"accuracy": measured["accuracy"], "interval": measured["interval"]}
    return {
        **measured,
        "temperature": 1.25,
        "reject_threshold": 0.7,
        "split": {
            part: sum(row.split == part for row in rows) for part in ("train", "val", "test")
        },
        "near_duplicate_leaks": 0,
        "label_issues": 5,
        "seconds": {"features": 2.5, "train": 61.0},
        "device": "cpu",
        "backbone": "efficientnet_lite0",
        "weights": "ImageNet",
        "seed": 0,
        "delivered": "head",
        "head": {**share, "val_loss": 0.4321, "val_accuracy": 0.9},
        "network": None,
        "choice": "The linear head is delivered: the network was not fine-tuned.",
        "shortcuts": {
            "size": 0.51,
            "brightness": 0.52,
            "sharpness": 0.53,
            "source": 0.5,
            "all": 0.54,
        },
        "shortcut_warning": None,
        "learning_curve": None,
        "curation": {
            "suspects": 7,
            "treatment": "none",
            "pictures": 0,
            "sentence": "All of them were kept.",
        },
        "notices": [],
        "regularisation": 0.01,
        "arithmetic": "float32",
    }


NETWORK = {
    "accuracy": 0.95,
    "interval": [0.81, 0.99],
    "val_loss": 0.2345,
    "val_accuracy": 0.95,
    "epochs": 6,
}
EPOCHS = [
    {
        "epoch": n,
        "train_loss": 0.7 / n,
        "val_loss": 0.6 / n,
        "val_accuracy": 0.8 + n / 40,
        "rate": 1e-3,
        "seconds": 2.0,
    }
    for n in range(1, 7)
]
CURVE = {
    "points": [
        {"per_class": 30 * n, "accuracy": 0.95 - 0.3 / n, "error": 0.02} for n in range(1, 6)
    ],
    "more_per_class": 200,
    "gain": 0.015,
    "sentence": "200 more pictures per class would give about +1.5 points.",
}


def tuned(results: Results) -> Results:
    """The same run with a fine-tuned network delivered and a learning curve measured."""
    more = {
        "delivered": "network",
        "network": NETWORK,
        "learning_curve": CURVE,
        "choice": "The network is better.",
    }
    return dataclasses.replace(results, epochs=EPOCHS, metrics={**results.metrics, **more})


def config_of(run: Path, names: Sequence[str] = NAMES) -> RunConfig:
    return dataclasses.replace(
        read_config(run), classes=labels_of(names), time_budget_seconds=600.0
    )


def look(image: np.ndarray) -> Outputs:
    """Maps that lie where the picture is dark, for the second class where it is bright."""
    height, width = image.shape[0] // 7 * 7, image.shape[1] // 7 * 7
    grey = (
        image[:height, :width].mean(axis=2).reshape(7, height // 7, 7, width // 7).mean(axis=(1, 3))
    )
    cam = np.stack([255 - grey, grey]).astype(np.float32)
    return Outputs(np.array([0.5, 0.5], np.float32), np.zeros(16, np.float32), cam, 0.1)
