"""Images a second of the whole fine-tuning, beside the same steps on random tensors on the device.

Ours decodes nothing (its cache is filled before), but it gathers, crops, rotates, flips and colors
every image, evaluates on val after each epoch, averages weights and looks for due checkpoints. The
limit does the computing alone: a bare loop over two tensors that lie on the device, with the same
network, batch, optimizer, average of weights and evaluation. Rounds are interleaved; figures are
medians; the ratio is the median of the rounds' ratios.

On a GPU follows the original's job: 2 classes of 500 images, decoded from JPEG, ResNet50, 100
epochs. Needs torch, torchvision, numpy and pillow besides this folder; makes its own images;
weights are random, for timing alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from training.finetuning.trainer import (
    Plan,
    TrainConfig,
    TrainContext,
    TrainData,
    TrainResult,
    finetune,
    make_plan,
    parameter_groups,
    steps_per_epoch,
)
from training.networks.backbones import BACKBONES
from training.networks.catalogue import CROP
from training.networks.classifier import ClassifierNetwork
from training.networks.image_cache import open_cache
from training.networks.precision import BF16, PRECISIONS, exact_float32
from training.progress import no_progress
from training.run_folder import ImageRow

WANTED_RATIO = 0.95
WANTED_SECONDS = 60.0  # for the original's job
ORIGINAL_IMAGES = 500  # of each class
ORIGINAL_EPOCHS = 100
UNLIMITED = 1e9  # seconds
EVAL_BATCH_SIZE = 64


@dataclass(frozen=True)
class Bench:
    """What one run of the benchmark works on."""

    device: torch.device
    network: ClassifierNetwork
    config: TrainConfig
    plan: Plan
    rounds: int


def make_images(folder: Path, per_class: int) -> list[ImageRow]:
    """Write two classes of smooth colors as JPEG of 640 x 480."""
    random = np.random.default_rng(0)
    rows = []
    (folder / "images").mkdir(parents=True)
    for number in range(2 * per_class):
        label = number % 2
        pixels = random.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        pixels[..., label] //= 2
        image = Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC)
        name = f"images/{number}.jpg"
        image.save(folder / name, quality=90)
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        rows.append(ImageRow(file=name, class_id=f"c{label:03d}", sha256=digest))
    return rows


def train_data(network: ClassifierNetwork, folder: Path, rows: Sequence[ImageRow]) -> TrainData:
    """Return the images in a filled cache: 70 % to learn from, 15 % for val."""
    cache = open_cache(folder / "cache", rows, network.backbone.resize)
    cache.fill(network, rows, folder, no_progress)
    indices = np.arange(len(rows))
    end_of_train = round(0.7 * len(rows))
    end_of_val = round(0.85 * len(rows))
    return TrainData(
        cache=cache,
        labels=indices % 2,
        train=indices[:end_of_train],
        val=indices[end_of_train:end_of_val],
        classes=2,
        weights=np.ones(len(rows), np.float32),
    )


def rate_of_ours(bench: Bench, data: TrainData, folder: Path) -> float:
    """Return the images learned from a second, over whole epochs."""
    context = TrainContext(folder, UNLIMITED, BF16, plan=bench.plan)
    result = finetune(bench.network, data, bench.config, context)
    assert isinstance(result, TrainResult), result
    assert len(result.epochs) == bench.plan.epochs
    (folder / "finetune.pt").unlink()
    # The first epoch is left out: on a GPU it loads its kernels.
    counted = result.epochs[1:]
    seconds = sum(row["seconds"] for row in counted)
    return len(data.train) * len(counted) / seconds


class Limit:
    """Steps and evaluations on tensors that lie on the device."""

    def __init__(self, bench: Bench, data: TrainData) -> None:
        plan = bench.plan
        self.device = bench.device
        self.precision = PRECISIONS[plan.precision]
        self.network = self._new_network(bench)
        self.averaged = self._new_network(bench)
        groups = parameter_groups(self.network, bench.config, plan.batch_size)
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(groups, lr=1e-5, fused=on_gpu)
        self.train_images = len(data.train)
        self.steps = steps_per_epoch(self.train_images, plan.batch_size)
        self.batch = self._random_images(math.ceil(self.train_images / self.steps))
        self.val = self._random_images(len(data.val))
        self.labels = torch.zeros(len(self.batch), dtype=torch.int64, device=self.device)

    def rate(self, epochs: int) -> float:
        """Return the images a second over whole epochs, the first left out."""
        self._epoch()
        self._wait()
        started = time.perf_counter()
        for _ in range(epochs - 1):
            self._epoch()
        self._wait()
        seconds = time.perf_counter() - started
        return self.train_images * (epochs - 1) / seconds

    def _epoch(self) -> None:
        parameters: Any = list(self.network.parameters())
        averaged: Any = list(self.averaged.parameters())
        update_average = get_ema_multi_avg_fn(0.99)
        for _ in range(self.steps):
            with self.precision.autocast(self.device):
                logits = self.network.head(self.network.embed(self.batch))
            loss = nn.functional.cross_entropy(logits.float(), self.labels)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            update_average(averaged, parameters, 0)
        with torch.inference_mode():
            for images in self.val.split(EVAL_BATCH_SIZE):
                logits = self.averaged.head(self.averaged.embed(images))
                logits.sum().item()

    def _new_network(self, bench: Bench) -> ClassifierNetwork:
        backbone = bench.network.backbone
        network = ClassifierNetwork(backbone, backbone.build(), 2)
        network.to(self.device)
        return network.to(memory_format=self.precision.memory_format)

    def _random_images(self, count: int) -> Tensor:
        images = torch.randn((count, 3, CROP, CROP), device=self.device)
        return self.precision.to_memory_format(images)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def compare(bench: Bench, data: TrainData, folder: Path) -> tuple[list[float], list[float]]:
    """Return the images a second of ours and of the limit, one for each round."""
    ours = []
    limits = []
    for _ in range(bench.rounds):
        ours.append(rate_of_ours(bench, data, folder))
        limits.append(Limit(bench, data).rate(bench.plan.epochs))
    return ours, limits


def seconds_of_original_job(bench: Bench, folder: Path) -> float:
    """Return the seconds from 1,000 JPEG to the network of the best of 100 epochs."""
    rows = make_images(folder, ORIGINAL_IMAGES)
    plan = dataclasses.replace(bench.plan, epochs=ORIGINAL_EPOCHS)
    started = time.perf_counter()
    data = train_data(bench.network, folder, rows)
    rate_of_ours(dataclasses.replace(bench, plan=plan), data, folder)
    return time.perf_counter() - started


def prepare(options: argparse.Namespace, folder: Path) -> tuple[Bench, TrainData]:
    """Return network, images in their cache, and the plan that this machine makes."""
    torch.manual_seed(0)
    exact_float32()
    backbone = BACKBONES[options.backbone]
    network = ClassifierNetwork(backbone, backbone.build(), 2).to(options.device)
    data = train_data(network, folder, make_images(folder, options.pictures))
    config = TrainConfig(patience=1000)
    context = TrainContext(folder, UNLIMITED, BF16)
    plan = make_plan(network, data, config, context, options.device)
    assert isinstance(plan, Plan), plan
    bench = Bench(
        device=torch.device(options.device),
        network=network,
        config=config,
        plan=dataclasses.replace(plan, epochs=options.epochs),
        rounds=options.rounds,
    )
    return bench, data


def show(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Print the one table; plain where rich is not installed."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(title)
        for row in rows:
            print("  ".join(row))
        return
    table = Table("", "measured", "wanted", title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def parse_options() -> argparse.Namespace:
    """Return the options of the command line, defaults filled in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument(
        "--backbone", choices=tuple(BACKBONES), help="resnet50 on a GPU, resnet18 on a CPU"
    )
    parser.add_argument("--pictures", type=int, help="of each class: 500 on a GPU, 24 on a CPU")
    parser.add_argument("--epochs", type=int, help="of a round: 10 on a GPU, 3 on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.device is None:
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = options.device == "cuda"
    options.backbone = options.backbone or ("resnet50" if on_gpu else "resnet18")
    options.pictures = options.pictures or (500 if on_gpu else 24)
    options.epochs = options.epochs or (10 if on_gpu else 3)
    return options


def main() -> None:
    """Measure and print."""
    options = parse_options()
    seconds = None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "compared"
        bench, data = prepare(options, folder)
        ours, limits = compare(bench, data, folder)
        if options.device == "cuda":
            seconds = seconds_of_original_job(bench, Path(temporary) / "original")

    ratios = [one / limit for one, limit in zip(ours, limits, strict=True)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    rate = f"{statistics.median(ours):.1f} pictures/s"
    limit = f"{statistics.median(limits):.1f} pictures/s"
    rows = [
        ("whole fine-tuning", rate, ""),
        ("the same steps on random tensors", limit, ""),
        ("ours / limit", ratio, f"{WANTED_RATIO}"),
    ]
    if seconds is not None:
        job = f"the original's job: 2 x {ORIGINAL_IMAGES} pictures, {ORIGINAL_EPOCHS} epochs"
        rows.append((job, f"{seconds:.1f} s", f"{WANTED_SECONDS:.0f} s"))
    processor = f"{torch.get_num_threads()} threads"
    if options.device == "cuda":
        processor = torch.cuda.get_device_name()
    title = bench.network.backbone.title
    plan = bench.plan
    show(f"{title} on {processor}, batch {plan.batch_size}, {plan.precision}", rows)


if __name__ == "__main__":
    main()
