"""A tiny network and digits to fine-tune it on; as a program, one fine-tuning that may kill itself
or be one of many.

`python tuning.py FOLDER OUT --die-after STEPS`; started by torchrun, its distributed share the work.
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


class TinyBody(nn.Module):
    """Three convolutions, 224 to 7 pixels, with a batch normalisation whose statistics are not
    those of the data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 8, stride=8)
        self.normal = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.third = nn.Conv2d(16, 16, 3, stride=2, padding=1)

        for layer in (self.first, self.second, self.third):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, pictures: Tensor) -> Tensor:
        shallow = torch.relu(self.normal(self.first(pictures)))
        return torch.relu(self.third(torch.relu(self.second(shallow))))


TINY = Backbone(
    name="tiny",
    title="Tiny",
    dimension=16,
    resize=SIDE,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    weights="random",
    weights_file=None,
    remark="for tests",
    license="none",
    architecture="tiny",
    first_layer="first",
    classifier="head",
    build=TinyBody,
    last_map=lambda body, pictures: body(pictures),
    exported_name=lambda name: name,
)


def tiny_network(classes: int = 3, backbone: Backbone = TINY) -> ClassifierNetwork:
    """The same random network each time, with a head of zeros."""
    torch.manual_seed(0)
    network = ClassifierNetwork(backbone, backbone.build(), classes)
    network.set_head(torch.zeros(classes, backbone.dimension), torch.zeros(classes), 1.0)
    return network


def digits(folder: Path, counts: tuple[int, ...] = (14, 14, 14), val: int = 4) -> TrainData:
    """Written digits 0, 1, 2... enlarged to squares, so many of each, of which `val` are for
    val.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    chosen = np.concatenate(
        [np.flatnonzero(found.target == n)[:count] for n, count in enumerate(counts)]
    )
    labels = found.target[chosen].astype(np.int64)
    rows = [
        ImageRow(file=f"images/{place}.jpg", class_id="", sha256=str(place)) for place in chosen
    ]
    cache = open_cache(folder, rows, SIDE)
    for place, number in enumerate(chosen):
        values = np.kron(found.images[number], np.ones((SIDE // 8, SIDE // 8))) * (255 / 16)
        cache.center_crops[place] = values[:, :, None]
    cache.done[:] = 1
    place_in_class = np.concatenate([np.arange(count) for count in counts])
    held_out = place_in_class < val
    weights = np.ones(len(labels), np.float32)
    return TrainData(
        cache, labels, np.flatnonzero(~held_out), np.flatnonzero(held_out), len(counts), weights
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--die-after", type=int, default=0, metavar="STEPS")
    options = parser.parse_args()
    assert not {"sklearn", "scipy", "onnx", "safetensors", "matplotlib"} & set(
        sys.modules
    )  # those come where used
    torch.set_num_threads(1)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    distributed = (
        DistributedContext(*(int(os.environ[name]) for name in names))
        if "RANK" in os.environ
        else SINGLE_PROCESS
    )
    with process_group(distributed):
        if not distributed.is_main:
            worker_loop(distributed, {"tiny": TINY})
            return
        tuned = _tune(options, distributed)
        shutdown_workers(distributed)
    torch.save(
        {
            "state": tuned.state,
            "logits": torch.from_numpy(tuned.val_logits),
            "epochs": tuned.epochs,
        },
        options.out,
    )


def _tune(options: argparse.Namespace, distributed: DistributedContext) -> TrainResult:
    def report(done: int, total: int, message: str) -> None:
        if options.die_after and done == options.die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    context = TrainContext(
        options.folder, NO_LIMIT, FP32, distributed, report, checkpoint_seconds=0.0
    )
    tuned = finetune(tiny_network(), digits(options.folder), CONFIG, context)
    assert isinstance(tuned, TrainResult), tuned
    return tuned


if __name__ == "__main__":
    main()
