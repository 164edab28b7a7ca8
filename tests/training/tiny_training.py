"""A tiny network and digits to fine-tune it on.

As a program it does one fine-tuning, in which it may kill itself or be one of many processes:
`python tiny_training.py FOLDER OUT --die-after STEPS`; started by torchrun, its processes share the
work.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.finetuning.distributed import SINGLE_PROCESS, DistributedContext, process_group
from training.finetuning.trainer import (
    TrainConfig,
    TrainContext,
    TrainData,
    TrainResult,
    end_worker,
    finetune,
    shutdown_workers,
    worker_loop,
)
from training.networks.backbones import Backbone
from training.networks.classifier import ClassifierNetwork
from training.networks.image_cache import open_cache
from training.networks.precision import FP32
from training.run_folder import ImageRow

SIDE = 232
CONFIG = TrainConfig(
    max_epochs_cpu=4, batch_size=10, lr=3e-3, head_lr=1e-2, layer_groups=2, clip_grad=5.0
)
NO_LIMIT = 1e6  # seconds
ELSEWHERE = {"sklearn", "scipy", "onnx", "safetensors", "matplotlib"}  # imported where used alone


class TinyBody(nn.Module):
    """Three convolutions, 224 to 7 pixels, and a batch normalization.

    Its statistics are not those of the data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 8, stride=8)
        self.normal = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.third = nn.Conv2d(16, 16, 3, stride=2, padding=1)

        for layer in (self.first, self.second, self.third):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> Tensor:
        features = self.normal(self.first(images))
        features = self.second(torch.relu(features))
        features = self.third(torch.relu(features))
        return torch.relu(features)


TINY = Backbone(
    name="tiny",
    title="Tiny",
    remark="for tests",
    dimension=16,
    resize=SIDE,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    weights="random",
    weights_file=None,
    license="none",
    architecture="tiny",
    first_layer="first",
    classifier="head",
    in_timm=False,
    build=TinyBody,
    last_map=lambda body, images: body(images),
    exported_name=lambda name: name,
)


def tiny_network(classes: int = 3, backbone: Backbone = TINY) -> ClassifierNetwork:
    """Return the same random network each time, with a head of zeros."""
    torch.manual_seed(0)
    network = ClassifierNetwork(backbone, backbone.build(), classes)
    weight = torch.zeros(classes, backbone.dimension)
    network.set_head(weight, torch.zeros(classes), 1.0)
    return network


def digits(folder: Path, counts: tuple[int, ...] = (14, 14, 14), val: int = 4) -> TrainData:
    """Return written digits 0, 1, 2... enlarged to center crops.

    There are so many of each, of which `val` are for val.
    """
    from sklearn.datasets import load_digits

    all_digits = load_digits()
    chosen: list[int] = []
    val_indices: list[int] = []
    train_indices: list[int] = []
    for digit, count in enumerate(counts):
        first = len(chosen)
        chosen += np.flatnonzero(all_digits.target == digit)[:count].tolist()
        val_indices += range(first, first + val)
        train_indices += range(first + val, first + count)
    rows = []
    for number in chosen:
        rows.append(ImageRow(file=f"images/{number}.jpg", class_id="", sha256=str(number)))
    cache = open_cache(folder, rows, SIDE)
    enlarging = np.ones((SIDE // 8, SIDE // 8))
    for index, number in enumerate(chosen):
        image = np.kron(all_digits.images[number], enlarging)
        cache.center_crops[index] = image[:, :, None] * (255 / 16)
    cache.done[:] = 1
    return TrainData(
        cache=cache,
        labels=all_digits.target[chosen].astype(np.int64),
        train=np.array(train_indices),
        val=np.array(val_indices),
        classes=len(counts),
        weights=np.ones(len(chosen), np.float32),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--die-after", type=int, default=0, metavar="STEPS")
    options = parser.parse_args()
    assert not ELSEWHERE & set(sys.modules)
    torch.set_num_threads(1)
    distributed = _distributed_context()
    with process_group(distributed) as distributed:
        if not distributed.is_main:
            worker_loop(distributed, {"tiny": TINY})
        else:
            result = _finetune(options, distributed)
            shutdown_workers(distributed)
    if not distributed.is_main:
        end_worker()
    found = {
        "state": result.state,
        "logits": torch.from_numpy(result.val_logits),
        "epochs": result.epochs,
    }
    torch.save(found, options.out)


def _distributed_context() -> DistributedContext:
    if "RANK" not in os.environ:
        return SINGLE_PROCESS
    return DistributedContext(
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
    )


def _finetune(options: argparse.Namespace, distributed: DistributedContext) -> TrainResult:
    def report(done: int, total: int, message: str = "", /) -> None:
        if options.die_after and done == options.die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    context = TrainContext(
        folder=options.folder,
        budget=NO_LIMIT,
        precision=FP32,
        distributed=distributed,
        report=report,
        checkpoint_seconds=0.0,
    )
    result = finetune(tiny_network(), digits(options.folder), CONFIG, context)
    assert isinstance(result, TrainResult), result
    return result


if __name__ == "__main__":
    main()
