"""Results of a training that never took place, on real images: for tests of what is made from them.

Predictions are made up; everything that follows from them is computed as in a real run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.training.tiny_training import tiny_network
from training.evaluation.results import Results, RunMetrics, collect_results
from training.fitting.label_issues import equal_weighting
from training.fitting.linear_head import FittedHead, fit_with_c
from training.fitting.selection import Choice, DeliveredModel, HeadCandidate, SplitImages
from training.images.split import split_rows
from training.images.statistics import IMAGE_STATISTICS
from training.metrics import (
    CandidateMetrics,
    CurvePoint,
    Floats,
    Headline,
    LearningCurve,
    candidate_metrics,
    softmax,
)
from training.predict import Outputs
from training.progress import no_progress
from training.run_folder import ClassLabel, ImageRow, RunConfig, read_config, read_manifest

NAMES = ("mammal", "plant")
C = 0.01
TEMPERATURE = 1.25
REJECT_THRESHOLD = 0.7


def results_of(run: Path, names: Sequence[str] = NAMES, **metrics: Any) -> Results:
    """Results of a run folder's images, split here. Two mammals in test are taken for plants.

    The classes overlap, so that cross-validation makes mistakes too.
    """
    random = np.random.default_rng(0)
    images = split_images(run, names)
    truth = np.eye(len(names))[images.labels]
    logits = 0.5 * truth + random.normal(size=truth.shape)
    novelty = random.gamma(9, 0.05, len(images.rows))
    directions = truth.repeat(16 // len(names), axis=1)
    noise = random.normal(size=directions.shape)
    images = dataclasses.replace(images, embeddings=(noise + 0.6 * directions).astype(np.float32))
    choice = choice_of(images, logits, novelty)
    run_metrics = RunMetrics(
        weights="ImageNet",
        view={"chosen": "crop", "sentence": "The middle of each picture.", "losses": {}},
        strangers={"refused": 17, "n": 58, "how": "Shown 58 pictures that come with Picaisso."},
        backbone="efficientnet_lite0",
        device="cpu",
        arithmetic="float32",
        notices=[],
        seconds={"features": 2.5, "train": 61.0},
    )
    results, _ = collect_results(images, choice, names, run_metrics, no_progress)
    return dataclasses.replace(results, metrics={**results.metrics, **metrics})


def split_images(run: Path, names: Sequence[str]) -> SplitImages:
    """The run's images after a split, without embeddings yet."""
    manifest = split_run(run, names)
    ids = [label.id for label in labels_of(names)]
    count = len(manifest)
    return SplitImages(
        rows=manifest,
        embeddings=np.empty((count, 0), np.float32),
        labels=np.array([ids.index(row.class_id) for row in manifest]),
        groups=np.arange(count),
        statistics=np.ones((count, len(IMAGE_STATISTICS)), np.float32),
        manifest_indices=np.arange(count),
        manifest=manifest,
        classes=len(names),
        seed=0,
    )


def choice_of(images: SplitImages, logits: Floats, novelty: Floats) -> Choice:
    """The linear head, chosen with these logits [n, classes] of unseen images."""
    learned = images.indices("train", "val")
    val = images.indices("val")
    test = images.indices("test")
    samples = images.samples("train", "val")
    head = HeadCandidate(
        fitted=FittedHead(
            head=fit_with_c(samples, C),
            c=C,
            temperature=TEMPERATURE,
            out_of_fold=logits[learned],
            tried=6,
        ),
        from_train=fit_with_c(images.samples("train"), C),
        pred_probs=softmax(logits[learned]),
        weighting=equal_weighting(samples, "All of them were kept."),
        ordinary=np.ones(len(learned), np.bool_),
    )
    model = DeliveredModel(
        network=tiny_network(images.classes),
        embeddings=images.embeddings,
        test_logits=logits[test],
        temperature=TEMPERATURE,
        novelty=novelty,
        reject_threshold=REJECT_THRESHOLD,
    )
    return Choice(
        name="head",
        sentence="The linear head is delivered: the network was not fine-tuned.",
        model=model,
        head_metrics=candidate_metrics(
            logits[test], images.labels[test], logits[val], images.labels[val]
        ),
        network_metrics=None,
        head=head,
        epochs=[],
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


NETWORK = CandidateMetrics(
    accuracy=0.95, interval=[0.81, 0.99], val_loss=0.2345, val_accuracy=0.95, epochs=6
)
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
CURVE = LearningCurve(
    points=[CurvePoint(per_class=30 * n, accuracy=0.95 - 0.3 / n, error=0.02) for n in range(1, 6)],
    more_per_class=200,
    gain=0.015,
    sentence="200 more pictures per class would give about +1.5 points.",
)


def tuned(results: Results) -> Results:
    """The same run with a fine-tuned network delivered and a learning curve measured."""
    figures = results.metrics
    hits = round(figures["accuracy"] * figures["split"]["test"])
    headline = Headline(
        value=figures["accuracy"],
        interval=figures["interval"],
        n=figures["split"]["test"],
        hits=hits,
        how="test",
    )
    more = {
        "delivered": "network",
        "headline": headline,
        "cross_validated": None,
        "network": NETWORK,
        "learning_curve": CURVE,
        "choice": "The network is better.",
    }
    return dataclasses.replace(
        results, epochs=EPOCHS, cross_validated=None, metrics={**results.metrics, **more}
    )


def config_of(run: Path, names: Sequence[str] = NAMES) -> RunConfig:
    return dataclasses.replace(
        read_config(run), classes=labels_of(names), time_budget_seconds=600.0
    )


def predict(image: np.ndarray) -> Outputs:
    """Maps that lie where the picture is dark, for the second class where it is bright."""
    height = image.shape[0] // 7 * 7
    width = image.shape[1] // 7 * 7
    grey = (
        image[:height, :width].mean(axis=2).reshape(7, height // 7, 7, width // 7).mean(axis=(1, 3))
    )
    cam = np.stack([255 - grey, grey]).astype(np.float32)
    return Outputs(np.array([0.5, 0.5], np.float32), np.zeros(16, np.float32), cam, 0.1)
