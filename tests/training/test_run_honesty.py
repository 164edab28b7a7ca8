"""Whether the figures can be trusted: noise must not look learned, and small classes must count."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.conftest import on_white, stamps
from training.duplicates import fingerprint, group_by_pairs, near_duplicate_pairs
from training.evaluation.cross_validation import cross_validate, judged_by
from training.fitting.linear_head import Samples, fit_head
from training.images.folder import import_folder
from training.images.split import split_rows
from training.metrics import classification_metrics, judge
from training.networks.backbones import BACKBONES, load_backbone
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.networks.weights import WeightSources
from training.progress import no_progress
from training.run import fit
from training.run_folder import ClassLabel, ImageRow, RunConfig, write_config, write_manifest

SEEDS = 20
NOISE_PICTURES = 160
SIZES = {"symbol": 90, "mammal": 45, "plant": 25, "town": 14, "household": 9}
FOLDERS = {
    "symbol": "symbols",
    "mammal": "animals/mammals",
    "plant": "plants",
    "town": "town",
    "household": "household",
}


def noise(count: int, seed: int = 0) -> list[Image.Image]:
    """Pictures of coloured noise; its grain is drawn anew for each, or all would look alike to a
    network.
    """
    random = np.random.default_rng(seed)
    grains = random.integers(4, 33, count)
    values = (random.integers(0, 256, (grain, grain, 3), dtype=np.uint8) for grain in grains)
    return [Image.fromarray(value).resize((96, 96), Image.Resampling.BICUBIC) for value in values]


@pytest.fixture(scope="module")
def noise_embeddings() -> tuple[np.ndarray, list[int]]:
    """Embeddings of the noise by the bundled network, and their groups of near-duplicates."""
    loaded = load_backbone(
        BACKBONES["efficientnet_lite0"], "pretrained", WeightSources(None, Path(), "")
    )
    network = ClassifierNetwork(loaded.backbone, loaded.network, 2)
    pictures = noise(NOISE_PICTURES)
    embeddings = np.concatenate(
        [embed_images(network, pictures[at : at + 16]) for at in range(0, len(pictures), 16)]
    )
    pairs = near_duplicate_pairs([fingerprint(picture) for picture in pictures], embeddings)
    return embeddings, list(group_by_pairs(len(pictures), list(pairs)))


def figures_on_noise(embeddings: np.ndarray, groups: list[int], seed: int) -> dict:
    """The figures and the verdict of a head that learned two classes drawn by lot."""
    labels = np.random.default_rng(seed).permutation(np.arange(len(embeddings)) % 2)
    config = RunConfig(classes=(ClassLabel("c001", "this"), ClassLabel("c002", "that")), seed=seed)
    rows = [
        ImageRow(f"images/{index}.jpg", config.classes[label].id, f"{index:064x}", group=group)
        for index, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]
    splits = np.array([row.split or "" for row in split_rows(config, rows)])
    samples = Samples(embeddings, labels, np.array(groups), classes=2)
    test = splits == "test"
    fitted = fit_head(samples.take(~test), seed, no_progress)
    logits = fitted.head.logits(embeddings[test])
    figures = classification_metrics(logits, labels[test], ["this", "that"], fitted.temperature)
    validation = cross_validate(samples, fitted.c, seed, no_progress)
    judged = judged_by(validation, samples)
    return {**figures, "verdict": judge(judged, judged, seed)}


def test_two_classes_of_noise_are_not_distinguished(
    noise_embeddings: tuple[np.ndarray, list[int]],
) -> None:
    tested = [figures_on_noise(*noise_embeddings, seed) for seed in range(SEEDS)]
    lucky = [metrics for metrics in tested if metrics["verdict"] == "better"]
    covering = [
        metrics for metrics in tested if metrics["interval"][0] <= 0.5 <= metrics["interval"][1]
    ]
    assert not lucky and len(covering) >= 17
    accuracies = [metrics["accuracy"] for metrics in tested]
    assert (
        0.4 < np.mean(accuracies) < 0.6 and len(set(accuracies)) > 3
    )  # each lot is tested by itself


def trained(folder: Path, seed: int = 0) -> dict:
    """metrics.json of a whole run on a folder of class folders."""
    run = folder.parent / "run"
    classes, rows, _ = import_folder(folder, run)
    write_config(
        run, RunConfig(classes=classes, backbone="efficientnet_lite0", seed=seed, device="cpu")
    )
    write_manifest(run, rows)
    result = fit(
        run, RunConfig(classes=classes, backbone="efficientnet_lite0", seed=seed, device="cpu")
    )
    assert result["ok"], result
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


def test_a_whole_run_on_noise_says_so(tmp_path: Path) -> None:
    for number, picture in enumerate(noise(60, seed=1)):
        folder = tmp_path / "noise" / ("this" if number % 2 else "that")
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{number}.png")
    metrics = trained(tmp_path / "noise")
    assert metrics["better_than_chance"] is False
    low, high = metrics["interval"]
    assert low <= 0.5 <= high
    assert metrics["shortcut_warning"] is None


def test_five_classes_with_ten_to_one_imbalance_are_each_reported(tmp_path: Path) -> None:
    for name, size in SIZES.items():
        (tmp_path / "five" / name).mkdir(parents=True)
        for path in stamps(FOLDERS[name])[:size]:
            on_white(path).save(tmp_path / "five" / name / f"{path.parent.name}-{path.name}")
    metrics = trained(tmp_path / "five")
    assert sorted(metrics["per_class"]) == sorted(SIZES)
    assert all(figures["support"] >= 3 for figures in metrics["per_class"].values())
    assert metrics["confusion"]["labels"] == sorted(SIZES)
    recalls = {name: figures["recall"] for name, figures in metrics["per_class"].items()}
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(list(recalls.values())))
    assert metrics["better_than_chance"] is True
    assert (
        sum(recall > 0 for recall in recalls.values()) >= 4
    )  # small classes get a say beside one ten times larger
