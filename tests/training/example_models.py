"""Model folders without a training: a network with a made-up head, exported as every trained one
is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.evaluation.shortcuts import ATTRIBUTES
from training.export.model_folder import TrainedModel, export_model
from training.metrics import (
    Curation,
    Headline,
    Metrics,
    accuracy_by_source,
    candidate_metrics,
    classification_metrics,
    false_alarms,
)
from training.networks.backbones import BACKBONES, load_backbone
from training.networks.classifier import ClassifierNetwork
from training.networks.novelty import choose_references
from training.networks.weights import WeightSources
from training.predict import Predict
from training.run_folder import ClassLabel, RunConfig

SIDES = (1, 2, 3, 17, 64, 201, 224, 231, 257, 333, 480, 641, 900)
NAMES = ("mammal", "plant", "<b>tea & “pot”</b>")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several only wait for each other where other programs use the processor too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def odd_pictures(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Pictures uint8 [h, w, 3] of odd sizes, 1 x 1 and 3 x 900 first: blots of colour with some
    noise.
    """
    random = np.random.default_rng(seed)
    sizes = [(1, 1), (900, 3), *(tuple(random.choice(SIDES, 2)) for _ in range(count - 2))]
    return [blots(random, int(height), int(width)) for height, width in sizes]


def blots(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    coarse = random.integers(0, 256, (5, 5, 3))
    rows, columns = np.arange(height) * 5 // height, np.arange(width) * 5 // width
    noise = random.integers(-40, 40, (height, width, 3))
    return np.clip(coarse[rows][:, columns] + noise, 0, 255).astype(np.uint8)


def network(backbone: str, names: tuple[str, ...] = NAMES) -> ClassifierNetwork:
    """Pretrained where the weights come bundled; a head and references that tell blots apart more
    or less.
    """
    places = WeightSources(None, Path("unused"), "")
    loaded = load_backbone(
        BACKBONES[backbone], "random" if BACKBONES[backbone].weights_file else "pretrained", places
    )
    made = ClassifierNetwork(loaded.backbone, loaded.network, len(names))
    embeddings = embed(made, [blots(np.random.default_rng(seed), 224, 224) for seed in range(12)])
    labels = np.arange(12) % len(names)
    spread = embeddings.std(axis=0) + 1e-6
    weight = np.stack(
        [
            (embeddings[labels == k].mean(axis=0) - embeddings.mean(axis=0)) / spread
            for k in set(labels)
        ]
    )
    weight /= spread * len(spread) / 3
    made.set_head(
        torch.from_numpy(weight).float(),
        torch.from_numpy(-weight @ embeddings.mean(axis=0)).float(),
        1.5,
    )
    made.set_references(choose_references(embeddings, labels, len(names), seed=0))
    return made


def embed(made: ClassifierNetwork, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return torch.cat([made(torch.from_numpy(picture))[1] for picture in pictures]).numpy()


def trained(
    made: ClassifierNetwork, caches: Path, names: tuple[str, ...] = NAMES, reject: float = 0.9
) -> TrainedModel:
    classes = tuple(ClassLabel(f"c{number:03d}", name) for number, name in enumerate(names, 1))
    config = RunConfig(
        classes, made.backbone.name, seed=0, device="cpu", weights_cache=str(caches / "weights")
    )
    return TrainedModel(
        made, classes, config, metrics(names, reject), lambda: {"export": 1.0}, write_report
    )


def write_report(path: Path, predict: Predict) -> None:
    """What the exported network says about one picture, in place of a report."""
    path.write_text(json.dumps(predict(odd_pictures(3)[2]).probabilities.tolist()))


def export(folder: Path, backbone: str, caches: Path) -> TrainedModel:
    """Write the model folder `folder` for a backbone."""
    made = trained(network(backbone), caches)
    export_model(made, folder, odd_pictures(3, seed=7), lambda done, total: None)
    return made


def metrics(names: tuple[str, ...], reject: float) -> Metrics:
    """All that the card says, of a test that never was: every image is predicted rightly."""
    labels = np.arange(4 * len(names)) % len(names)
    logits = 3.0 * np.eye(len(names))[labels]
    test = classification_metrics(logits, labels, names, temperature=1.5)
    headline = Headline(
        value=1.0, interval=test["interval"], n=len(labels), hits=len(labels), how="test"
    )
    return Metrics(
        **test,
        majority_baseline=1 / len(names),
        better_than_chance=True,
        verdict="better",
        verdict_sentence="This model tells the classes apart.",
        headline=headline,
        cross_validated=None,
        verified={"n": 0, "right": 0, "wrong": 0, "off_topic": 0},
        label_noise=None,
        zero_shot=None,
        unseen_source=[],
        unseen_sources=None,
        unseen_sentence="",
        shortcut_sentence="No sign of a shortcut was found.",
        temperature=1.5,
        reject_threshold=reject,
        split={"train": 30, "val": 9, "test": len(labels)},
        near_duplicate_leaks=0,
        label_issues=0,
        off_topic=0,
        curation=Curation(suspects=0, treatment="none", pictures=0, sentence="Nothing was done."),
        regularisation=0.01,
        delivered="head",
        choice="There is only the head.",
        head=candidate_metrics(logits, labels, logits, labels),
        network=None,
        by_source=accuracy_by_source(labels, labels, ["folder"] * len(labels)),
        unknown=false_alarms(np.linspace(0, 1, len(labels)), reject),
        learning_curve=None,
        shortcuts=dict.fromkeys(ATTRIBUTES, 0.5),
        shortcut_warning=None,
        view={"chosen": "crop", "sentence": "The middle of each picture.", "losses": {}},
        strangers=None,
        left_out_class=None,
        own_test=False,
        seed=0,
        seconds={},
        device="cpu",
        backbone="any",
        weights="for a test",
        arithmetic="float32",
        notices=[],
    )
