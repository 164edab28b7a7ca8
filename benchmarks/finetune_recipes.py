"""Whether mixing images or TrivialAugment makes fine-tuning better: the same trainings with each.

`python -m benchmarks.finetune_recipes FOLDER... [--seeds 3] [--epochs 8] [--threads N]`

Each seed holds a third of the images of a folder of classes out and fine-tunes the bundled network
on the others, from a linear head, by the recipe of today and by three others in the same steps:

- mixup (Zhang et al. 2018): images and labels of a batch are blended, by shares of Beta(0.2, 0.2);
- CutMix (Yun et al. 2019): a rectangle comes from another image of the batch;
- TrivialAugment (Mueller and Hutter 2021): one random change of random strength, in place of the
  changes of colour.

Figures are accuracy in % and loss on the images held out, after the last epoch, as differences to
the recipe of today ± standard error over the seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import TrivialAugmentWide  # type: ignore[import-untyped]

from benchmarks.image_sets import network as bundled_network
from benchmarks.paired import of_repetitions, with_error
from training.finetuning import trainer
from training.finetuning.trainer import Plan, TrainConfig, TrainContext, TrainData, TrainResult
from training.finetuning.views import train_view
from training.fitting.linear_head import Samples, fit_head
from training.images.split import assign_groups, cut_folds, find_near_duplicates
from training.metrics import log_loss
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import FeatureExtractor
from training.networks.image_cache import open_cache
from training.networks.precision import FP32
from training.progress import no_progress
from training.run_folder import ImageRow

_FOLDS = 3
_BETA = 0.2
_UNLIMITED = 1e6  # seconds


class Blended(trainer._Model):
    """Learns from views that are blended with others of their batch, and from both labels."""

    def _backward(self, batch: trainer._Batch, head_only: bool) -> Tensor:
        views = train_view(batch.center_crops, batch.variations, self.network.normalize)
        partner = torch.randperm(len(views))
        views, share = self._blend(views, views[partner], float(np.random.beta(_BETA, _BETA)))
        with self.precision.autocast(self.device):
            logits = self._forward(self.network, views, head_only).float()
        losses = share * self._losses(logits, batch.labels)
        losses = losses + (1 - share) * self._losses(logits, batch.labels[partner])
        loss = (losses * batch.weights).sum()
        loss.backward()
        return loss.detach()

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.config.label_smoothing
        return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)

    def _blend(self, views: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
        """Return the blended views, and the share of each one's own image in it."""
        raise NotImplementedError


class Mixup(Blended):
    """Blends whole views."""

    def _blend(self, views: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
        return share * views + (1 - share) * others, share


class CutMix(Blended):
    """Puts a rectangle of another view into each."""

    def _blend(self, views: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
        side = views.shape[-1]
        edge = round(side * math.sqrt(1 - share))
        top, left = np.random.randint(0, side - edge + 1, 2)
        rows = slice(top, top + edge)
        columns = slice(left, left + edge)
        mixed = views.clone()
        mixed[:, :, rows, columns] = others[:, :, rows, columns]
        return mixed, 1 - (edge / side) ** 2


class Trivial(trainer._Model):
    """Changes each image in one random way before it is cropped, turned and flipped."""

    def _backward(self, batch: trainer._Batch, head_only: bool) -> Tensor:
        change = TrivialAugmentWide()
        changed = [change(crop.permute(2, 0, 1)).permute(1, 2, 0) for crop in batch.center_crops]
        return super()._backward(replace(batch, center_crops=torch.stack(changed)), head_only)


RECIPES: dict[str, type[trainer._Model]] = {
    "today": trainer._Model,
    "mixup": Mixup,
    "CutMix": CutMix,
    "TrivialAugment": Trivial,
}


@dataclass(frozen=True)
class Set:
    """A folder of classes, its features and its images in a filled cache."""

    samples: Samples
    data: TrainData
    network: ClassifierNetwork


def read_set(images: Path, folder: Path) -> Set:
    """Read a folder of classes and compute its features."""
    classes = sorted(path.name for path in images.iterdir())
    rows = []
    labels = []
    for label, name in enumerate(classes):
        for path in sorted((images / name).iterdir()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append(ImageRow(f"{name}/{path.name}", f"c{label + 1:03d}", digest))
            labels.append(label)
    network = bundled_network()
    extractor = FeatureExtractor(network, FP32, images, folder / "features")
    features = extractor.extract(rows, no_progress)
    duplicates = find_near_duplicates(range(len(rows)), features.fingerprints, features.embeddings)
    groups = np.array([row.group for row in assign_groups(rows, duplicates)])
    samples = Samples(features.embeddings, np.array(labels), groups, len(classes))
    cache = open_cache(folder, rows, network.backbone.resize)
    cache.fill(network, rows, images, no_progress)
    everything = np.arange(len(rows))
    weights = np.ones(len(rows), np.float32)
    data = TrainData(cache, samples.labels, everything, everything, len(classes), weights)
    return Set(samples, data, ClassifierNetwork(network.backbone, network.body, len(classes)))


def trained(given: Set, recipe: str, seed: int, epochs: int) -> tuple[float, float]:
    """Return accuracy and loss on the images held out."""
    learned, held_out = cut_folds(given.samples.labels, given.samples.groups, seed, _FOLDS)[0]
    head = fit_head(given.samples.take(learned), seed, no_progress).head
    network = given.network
    weight = torch.from_numpy(head.weight)
    network.set_head(weight, torch.from_numpy(head.bias), temperature=1.0)
    config = TrainConfig(seed=seed, patience=epochs)
    if recipe == "TrivialAugment":
        plain = replace(config.augmentation, brightness=0, contrast=0, saturation=0)
        config = replace(config, augmentation=plain)
    data = replace(given.data, train=learned, val=held_out)
    torch.manual_seed(seed)
    np.random.seed(seed)
    trainer._Model = RECIPES[recipe]  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(epochs, 16, FP32.name, "cpu")
        context = TrainContext(Path(folder), _UNLIMITED, FP32, plan=plan)
        result = trainer.finetune(network, data, config, context)
    assert isinstance(result, TrainResult), result
    logits = result.logits_by_epoch[-1]
    labels = given.samples.labels[held_out]
    return float((logits.argmax(axis=1) == labels).mean()), log_loss(logits, labels)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Compares recipes of fine-tuning.")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print("| set | recipe | accuracy | loss |\n|---|---|---|---|")
    for images in given.folders:
        with tempfile.TemporaryDirectory() as folder:
            found = read_set(images, Path(folder))
            print_rows(images.name, found, given.seeds, given.epochs)


def print_rows(name: str, found: Set, seeds: int, epochs: int) -> None:
    """Print the rows of one set."""
    today = np.zeros((seeds, 2))
    for recipe in RECIPES:
        figures = [trained(found, recipe, seed, epochs) for seed in range(seeds)]
        if recipe == "today":
            today = np.array(figures)
            accuracy, loss = today.mean(axis=0)
            print(f"| {name} | today | {100 * accuracy:.1f} | {loss:.3f} |", flush=True)
            continue
        differences = np.array(figures) - today
        accuracy = with_error(of_repetitions(differences[:, 0].tolist()))
        loss = of_repetitions(differences[:, 1].tolist())
        print(f"| | {recipe} | {accuracy} | {loss.mean:+.3f} ± {loss.error:.3f} |", flush=True)


if __name__ == "__main__":
    main()
