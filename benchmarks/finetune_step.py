"""Pictures a second of the whole fine-tuning, beside the same steps on random tensors that are
already there.

Ours decodes nothing (its cache is filled before), but it gathers, crops, turns, mirrors and colours
every picture, evaluates on val after each epoch, averages weights and watches for checkpoints. The
limit does the precision alone: a bare loop over two tensors that lie on the device, with the same
network, batch, optimiser, average of weights and evaluation. Rounds are interleaved; figures are
medians; the ratio is the median of the rounds' ratios.

On a GPU follows the original's context: 2 classes of 500 pictures, decoded from JPEG, ResNet50, 100
epochs. Needs torch, torchvision, numpy and pillow besides this folder; makes its own pictures;
weights are random, for timing alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
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
from training.networks.precision import BF16, FP32, Precision
from training.progress import no_progress
from training.run_folder import ImageRow

WANTED_RATIO = 0.95
WANTED_SECONDS = 60.0  # for the original's context
ORIGINAL = (500, 100)  # pictures of a class, epochs
UNLIMITED = 1e9


@dataclass(frozen=True)
class Bench:
    """What one run of the benchmark works on."""

    device: torch.device
    network: ClassifierNetwork
    config: TrainConfig
    plan: Plan
    rounds: int


def pictures(folder: Path, per_class: int) -> list[ImageRow]:
    """Two classes of smooth colours as JPEG of 640 x 480."""
    random, rows = np.random.default_rng(0), []
    (folder / "images").mkdir(parents=True)
    for number in range(2 * per_class):
        coarse = random.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        coarse[..., number % 2] //= 2
        path = folder / "images" / f"{number}.jpg"
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
        digest = sha256(path.read_bytes()).hexdigest()
        rows.append(
            ImageRow(file=f"images/{path.name}", class_id=f"c{number % 2:03d}", sha256=digest)
        )
    return rows


def data(network: ClassifierNetwork, folder: Path, rows: Sequence[ImageRow]) -> TrainData:
    """The pictures in a filled cache: 70 % to learn from, 15 % for val."""
    cache = open_cache(folder / "cache", rows, network.backbone.resize)
    cache.fill(network, rows, folder, no_progress)
    places = np.arange(len(rows))
    train, val = (
        places[: round(0.7 * len(rows))],
        places[round(0.7 * len(rows)) : round(0.85 * len(rows))],
    )
    return TrainData(cache, places % 2, train, val, 2, np.ones(len(rows), np.float32))


def ours(bench: Bench, found: TrainData, folder: Path) -> tuple[float, float]:
    """(pictures learned from a second over whole epochs, seconds of the whole call)."""
    context = TrainContext(folder, UNLIMITED, BF16, plan=bench.plan)
    started = time.perf_counter()
    result = finetune(bench.network, found, bench.config, context)
    whole = time.perf_counter() - started
    assert isinstance(result, TrainResult) and len(result.epochs) == bench.plan.epochs, result
    (folder / "finetune.pt").unlink()
    # The first epoch is left out: on a GPU it tries its kernels.
    seconds = sum(row["seconds"] for row in result.epochs[1:])
    return len(found.train) * (bench.plan.epochs - 1) / seconds, whole


class Bare:
    """The limit: steps and evaluations on tensors that are there."""

    def __init__(self, bench: Bench, found: TrainData) -> None:
        self._device, self._arithmetic = bench.device, _arithmetic(bench.plan)
        layout: Any = (
            torch.channels_last if self._arithmetic.channels_last else torch.contiguous_format
        )
        copies = [
            ClassifierNetwork(bench.network.backbone, bench.network.backbone.build(), 2)
            for _ in range(2)
        ]
        self._network, self._averaged = (
            copy.to(self._device).to(memory_format=layout) for copy in copies
        )
        groups = parameter_groups(self._network, bench.config, bench.plan.batch_size)
        self._optimiser = torch.optim.AdamW(groups, lr=1e-5, fused=self._device.type == "cuda")
        self._steps, self._train = (
            steps_per_epoch(len(found.train), bench.plan.batch_size),
            len(found.train),
        )
        self._batch, self._val = (
            self._random(-(-self._train // self._steps)),
            self._random(len(found.val)),
        )
        self._labels = torch.zeros(len(self._batch), dtype=torch.int64, device=self._device)

    def rate(self, epochs: int) -> float:
        """Pictures a second over whole epochs, the first left out."""
        self._epoch()
        self._wait()
        started = time.perf_counter()
        for _ in range(epochs - 1):
            self._epoch()
        self._wait()
        return self._train * (epochs - 1) / (time.perf_counter() - started)

    def _epoch(self) -> None:
        parameters = list(self._network.parameters())
        averaged: Any = list(self._averaged.parameters())
        for _ in range(self._steps):
            with self._arithmetic.autocast(self._device):
                logits = self._network.head(self._network.embed(self._batch))
            nn.functional.cross_entropy(logits.float(), self._labels).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            self._optimiser.step()
            self._optimiser.zero_grad(set_to_none=True)
            get_ema_multi_avg_fn(0.99)(averaged, parameters, 0)
        with torch.inference_mode():
            for part in self._val.split(64):
                self._averaged.head(self._averaged.embed(part)).sum().item()

    def _random(self, count: int) -> Tensor:
        return self._arithmetic.to_memory_format(
            torch.randn((count, 3, CROP, CROP), device=self._device)
        )

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _arithmetic(plan: Plan) -> Precision:
    return BF16 if plan.precision == BF16.name else FP32


def compared(bench: Bench, found: TrainData, folder: Path) -> list[tuple[float, float]]:
    """(ours, limit) in pictures a second, a pair for each round."""
    pairs = []
    for _ in range(bench.rounds):
        rate, _ = ours(bench, found, folder)
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            pairs.append((rate, Bare(bench, found).rate(bench.plan.epochs)))
    return pairs


def original_job(bench: Bench, folder: Path) -> float:
    """Seconds from 1,000 JPEG to the network of the best of 100 epochs."""
    per_class, epochs = ORIGINAL
    rows = pictures(folder, per_class)
    started = time.perf_counter()
    found = data(bench.network, folder, rows)
    whole = Bench(bench.device, bench.network, bench.config, _with_epochs(bench.plan, epochs), 1)
    ours(whole, found, folder)
    return time.perf_counter() - started


def _with_epochs(plan: Plan, epochs: int) -> Plan:
    return Plan(epochs, plan.batch_size, plan.precision, plan.device)


def prepared(options: argparse.Namespace, folder: Path) -> tuple[Bench, TrainData]:
    """Network, pictures in their cache, and the plan that this machine makes."""
    torch.manual_seed(0)
    backbone = BACKBONES[
        options.backbone or ("resnet50" if options.device == "cuda" else "resnet18")
    ]
    network = ClassifierNetwork(backbone, backbone.build(), 2).to(options.device)
    found = data(network, folder, pictures(folder, options.pictures))
    config = TrainConfig(patience=1000)
    plan = make_plan(network, found, config, TrainContext(folder, UNLIMITED, BF16), options.device)
    assert isinstance(plan, Plan), plan
    return Bench(
        torch.device(options.device),
        network,
        config,
        _with_epochs(plan, options.epochs),
        options.rounds,
    ), found


def show(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """The one table; plain where rich is not installed."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(title, *("  ".join(row) for row in rows), sep="\n")
        return
    table = Table("", "measured", "wanted", title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if on_gpu else "cpu")
    parser.add_argument(
        "--backbone", choices=tuple(BACKBONES), help="resnet50 on a GPU, resnet18 on a CPU"
    )
    parser.add_argument("--pictures", type=int, help="of each class: 500 on a GPU, 24 on a CPU")
    parser.add_argument("--epochs", type=int, help="of a round: 10 on a GPU, 3 on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.pictures = options.pictures or (500 if options.device == "cuda" else 24)
    options.epochs = options.epochs or (10 if options.device == "cuda" else 3)
    with tempfile.TemporaryDirectory() as place:
        bench, found = prepared(options, Path(place) / "compared")
        pairs = compared(bench, found, Path(place) / "compared")
        seconds = (
            original_job(bench, Path(place) / "original") if options.device == "cuda" else None
        )
    ratios = [one / limit for one, limit in pairs]
    rows = [
        ("whole fine-tuning", f"{statistics.median(one for one, _ in pairs):.1f} pictures/s", ""),
        (
            "the same steps on random tensors",
            f"{statistics.median(limit for _, limit in pairs):.1f} pictures/s",
            "",
        ),
        (
            "ours / limit",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{WANTED_RATIO}",
        ),
    ]
    if seconds is not None:
        context = f"the original's context: 2 x {ORIGINAL[0]} pictures, {ORIGINAL[1]} epochs"
        rows.append((context, f"{seconds:.1f} s", f"{WANTED_SECONDS:.0f} s"))
    name = (
        torch.cuda.get_device_name()
        if options.device == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    show(
        f"{bench.network.backbone.title} on {name}, batch {bench.plan.batch_size}, {bench.plan.precision}",
        rows,
    )


if __name__ == "__main__":
    main()
