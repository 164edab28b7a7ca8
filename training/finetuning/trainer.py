"""Fine-tuning: the whole network trained on from where the linear head left it.

Every random choice follows from the seed and the epoch, and the state is kept on the disk, so that
a training that was killed goes on as if nothing had happened. Several processes share the work of
each step and end with the same network as one alone. Batch normalisation keeps the statistics it
came with: small sets give no better ones, and batches that are divided over processes would each
give others.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

import training
from training.finetuning.checkpoint import read_checkpoint, write_checkpoint
from training.finetuning.distributed import SINGLE_PROCESS, DistributedContext
from training.metrics import Floats, Labels, log_loss
from training.networks.backbones import BACKBONES, Backbone
from training.networks.classifier import ClassifierNetwork
from training.networks.image_cache import (
    RANDOM_PARAMETERS,
    Augmentation,
    Feed,
    ImageCache,
    attach_cache,
    eval_view,
    train_view,
)
from training.networks.precision import BF16, FP32, PRECISIONS, Precision
from training.progress import Progress, Stopped, no_progress

EPOCHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)
"""How many epochs a training may have: few choices, so that a slightly slower moment leads to the same one."""

_BATCHES = (16, 32, 64, 128, 256)  # tried on a GPU
_WORTHWHILE = 1.1  # times more pictures a second that a larger batch must bring
_COARSE_GAIN = 1.5  # times faster than float32 that bfloat16 must be on a CPU
_TRIAL_STEPS = 2  # timed, after one that warms up
_BATCH_CPU = 16  # small sets gain more from many steps than from large ones
_TRIAL_BATCH_CPU = 16  # pictures
_EVALUATED = 64  # pictures at once where nothing is kept for gradients
_EVALUATION_SHARE = 1 / 3  # what looking at a picture costs of what learning from it does
_BUDGET_SHARE = (
    0.85  # of the time left that is planned for; the rest is for a machine that slows down
)
_CHECKPOINT = "finetune.pt"
_WRITING_SHARE = 0.1  # of the time, at most, that goes into writing checkpoints


@dataclass(frozen=True)
class TrainConfig:
    """Every knob of fine-tuning."""

    seed: int = 0
    max_epochs: int = 100
    """On a GPU, where the budget allows as many."""
    max_epochs_cpu: int = 20
    most_steps: int = 3000
    """Over all epochs, which bounds the epochs of large sets."""
    least_epochs: int = 4
    """Fewer are not worth beginning."""
    head_epochs: int = 0
    """Epochs at the beginning that train the linear head alone."""
    patience: int = 12
    """Epochs without a lower loss on val after which training ends."""
    batch: int = 0
    """Pictures in a step, over all processes; 0 means 16 on a CPU and what is found by trial on a GPU."""
    least_steps: int = 8
    """In an epoch, which bounds the batch found by trial."""
    rate: float = 3e-4
    """Of the last layers, at a batch of 32; goes with the root of the batch."""
    head_rate: float = 3e-4
    """Of the linear head, likewise."""
    depth_groups: int = 6
    """Parts that the body is cut into, from first layer to last."""
    depth_decay: float = 0.85
    """Rate of a part over that of the part after it."""
    weight_decay: float = 0.01
    """Of matrices and filters; biases and normalisation have none."""
    warm_up: float = 0.1
    """Share of all steps in which the rate rises; afterwards it falls along a cosine."""
    last_rate: float = 0.01
    """Share of the rate that is left at the end."""
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    smoothing: float = 0.05
    """Share of each label that is spread over all classes."""
    balance: float = 0.5
    """Power of a class's rarity that weighs its pictures: 0 counts every picture alike, 1 every class."""
    averaged_share: float = 0.15
    """Share of all steps that the moving average of the weights looks back; 0 for no average."""
    augmentation: Augmentation = field(default_factory=Augmentation)

    def as_json(self) -> dict[str, Any]:
        """All knobs."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `as_json`."""
        return cls(**{**values, "augmentation": Augmentation(**values["augmentation"])})


@dataclass(frozen=True)
class TrainData:
    """What there is to learn from."""

    cache: ImageCache
    """Filled."""
    labels: Labels
    """[n]: class numbers in the order of the cache."""
    train: Labels
    """Places in the cache."""
    val: Labels
    """Places in the cache; at least one."""
    classes: int
    weights: NDArray[np.float32]
    """[n]: how much each training picture counts; 0 leaves it out."""


@dataclass(frozen=True)
class Plan:
    """What was decided on this machine before the first step."""

    epochs: int
    batch: int
    """Pictures in a step, over all processes."""
    precision: str
    """A name of `training.networks.precision.PRECISIONS`."""
    device: str
    """cpu or cuda."""


@dataclass(frozen=True)
class TrainContext:
    """Where and under which limits the training runs, and whom it tells."""

    folder: Path
    """For its checkpoint."""
    budget: float
    """Seconds that it may take, earlier attempts included."""
    precision: Precision
    distributed: DistributedContext = SINGLE_PROCESS
    report: Progress = no_progress
    should_stop: Callable[[], bool] = lambda: False
    """Asked after every step."""
    checkpoint_seconds: float = 20.0
    """Between two checkpoints at least."""
    plan: Plan | None = None
    """Given rather than measured; the budget then only ends the training."""


@dataclass(frozen=True)
class TrainResult:
    """A fine-tuned network and how it came about."""

    state: dict[str, Tensor]
    """Tensors of `body.` and `head.` as in `ClassifierNetwork.state_dict()`, after the best epoch, on the CPU."""
    val_logits: Floats
    """[v, classes] of the val pictures in the order of `TrainData.val`, by that state."""
    best: int
    """The epoch with the lowest loss on val, from 1."""
    epochs: list[dict[str, float]]
    """For each: epoch, train_loss, val_loss, val_accuracy, rate (of the head in its last step), seconds. `train_loss`
    is what was minimised: on varied pictures, smoothed and weighted."""
    stopped: str
    """Why it ended, as a sentence."""
    plan: Plan
    seconds: float
    """Of all attempts."""


@dataclass(frozen=True)
class NotTrained:
    """No fine-tuned network."""

    reason: str
    """As a sentence."""


def finetune(
    network: ClassifierNetwork, data: TrainData, config: TrainConfig, context: TrainContext
) -> TrainResult | NotTrained:
    """Train the network on from its present body and head; the network itself stays as it is.

    Its head must have been fitted on the train part alone, or the loss on val means nothing. Goes
    on from the checkpoint in `context.folder` where that is of the same data, config and network.
    Runs on the network's device; where a GPU has no room for even one picture, on the CPU. Asked to
    stop it writes a checkpoint and raises Stopped.
    """
    started = time.monotonic()
    digest = _digest(network, data, config)
    kept = read_checkpoint(context.folder / _CHECKPOINT)
    kept = kept if kept and kept.get("digest") == digest else None
    device = network.temperature.device.type
    if kept and device == "cpu" and kept["plan"]["device"] != "cpu":
        kept = None  # made on a GPU that is no longer there
    try:
        plan = Plan(**kept["plan"]) if kept else make_plan(network, data, config, context, device)
        return _carried_out(_Start(network, data, config, context, digest, started), plan, kept)
    except torch.OutOfMemoryError:
        if device == "cpu" or context.distributed.world_size > 1:
            raise
    plan = make_plan(network, data, config, context, "cpu")
    return _carried_out(_Start(network, data, config, context, digest, started), plan, None)


def shutdown_workers(distributed: DistributedContext) -> None:
    """Let the other processes, who are waiting in `worker_loop`, end. For the first process, when it
    needs them no more.
    """
    if distributed.world_size > 1:
        distributed.send(b"")


def worker_loop(
    distributed: DistributedContext, backbones: Mapping[str, Backbone] = BACKBONES
) -> None:
    """What all processes but the first do: take part in its fine-tunings until it dismisses
    them.
    """
    while message := distributed.receive():
        order = torch.load(io.BytesIO(message), weights_only=True)
        start, plan = _ordered(order, distributed, backbones)
        with suppress(Stopped):
            _Training(start, plan, order["kept"]).run()


def epochs_that_fit(seconds: float, epoch_seconds: float, most: int) -> int:
    """The largest of EPOCHS that takes no longer, and is no more, than that; 0 where none is."""
    return max(
        (epochs for epochs in EPOCHS if epochs <= most and epochs * epoch_seconds <= seconds),
        default=0,
    )


def make_plan(
    network: ClassifierNetwork,
    data: TrainData,
    config: TrainConfig,
    context: TrainContext,
    device: str,
) -> Plan | NotTrained:
    """The plan that was given, or batch, precision and epochs by timing a few steps, whose results
    are thrown away.
    """
    if context.plan:
        return context.plan
    most = config.max_epochs if device == "cuda" else config.max_epochs_cpu
    least = min(config.least_epochs, most)
    if context.budget <= 0:
        return NotTrained("The network was not fine-tuned: nothing is left of the time budget.")
    context.report(0, 0, "Measuring how fast this machine fine-tunes")
    trial = _Trial(network, data, config, context.distributed.device(device))
    precision = trial.choose_precision(context.precision)
    batch = trial.choose_batch(precision)
    pictures = len(data.train) + _EVALUATION_SHARE * len(data.val)
    epoch_seconds = pictures * trial.seconds_per_picture(batch, precision)
    if device == "cuda":
        epoch_seconds /= context.distributed.world_size
    most = min(
        most, max(config.least_epochs, config.most_steps // steps_per_epoch(len(data.train), batch))
    )
    epochs = epochs_that_fit(_BUDGET_SHARE * context.budget, epoch_seconds, most)
    if epochs < least:
        return NotTrained(
            f"One epoch of fine-tuning takes about {epoch_seconds:.3g} s here; {least} would not fit "
            f"the {max(0.0, context.budget):.3g} s that are left of the time budget."
        )
    return Plan(epochs, batch, precision.name, device)


@dataclass(frozen=True)
class _Start:
    """All that a training begins with."""

    network: ClassifierNetwork
    data: TrainData
    config: TrainConfig
    context: TrainContext
    digest: str
    started: float
    """By the monotonic clock."""


def _carried_out(
    start: _Start, plan: Plan | NotTrained, kept: Mapping[str, Any] | None
) -> TrainResult | NotTrained:
    """Carry the plan out, with the other processes' help where there are any."""
    if isinstance(plan, NotTrained):
        return plan
    if kept and kept["at"]["ended"]:
        return _result(start, plan, kept)
    if start.context.distributed.world_size > 1:
        start.context.distributed.send(_order(start, plan, kept))
    return _Training(start, plan, kept).run()


def _order(start: _Start, plan: Plan, kept: Mapping[str, Any] | None) -> bytes:
    """What the other processes need to know, for `_ordered`."""
    data, stream = start.data, io.BytesIO()
    arrays = {
        name: torch.from_numpy(getattr(data, name))
        for name in ("labels", "train", "val", "weights")
    }
    order = {
        **arrays,
        "cache": str(data.cache.path.absolute()),
        "side": data.cache.squares.shape[1],
        "classes": data.classes,
        "backbone": start.network.backbone.name,
        "network": _on_cpu(_learned(start.network)),
        "config": start.config.as_json(),
        "plan": dataclasses.asdict(plan),
        "kept": kept,
    }
    torch.save(order, stream)
    return stream.getvalue()


def _ordered(
    order: Mapping[str, Any], distributed: DistributedContext, backbones: Mapping[str, Backbone]
) -> tuple[_Start, Plan]:
    """The first process's network, data and plan in another process, which keeps no checkpoint
    and no clock.
    """
    backbone, plan = backbones[order["backbone"]], Plan(**order["plan"])
    network = ClassifierNetwork(backbone, backbone.build(), order["classes"])
    network.load_state_dict(order["network"], strict=False)
    arrays = {name: order[name].numpy() for name in ("labels", "train", "val", "weights")}
    cache = attach_cache(Path(order["cache"]), len(arrays["labels"]), order["side"])
    data = TrainData(cache=cache, classes=order["classes"], **arrays)
    context = TrainContext(Path(), math.inf, PRECISIONS[plan.precision], distributed)
    return _Start(
        network, data, TrainConfig.from_json(order["config"]), context, "", time.monotonic()
    ), plan


@dataclass(frozen=True)
class _Batch:
    """This process's share of a step's pictures, on the device."""

    squares: Tensor
    """uint8 [b, side, side, 3]."""
    labels: Tensor
    """int64 [b]."""
    weights: Tensor
    """float32 [b]: each picture's share of the loss of the whole step."""
    draws: Tensor
    """float32 [b, RANDOM_PARAMETERS]."""

    def chunks(self, size: int) -> Iterator[_Batch]:
        """Parts of at most so many pictures."""
        parts = (
            tensor.split(size) for tensor in (self.squares, self.labels, self.weights, self.draws)
        )
        return (_Batch(*tensors) for tensors in zip(*parts, strict=True))


class _Learner:
    """A copy of the network on its device, the moving average of its weights, and what changes
    them.
    """

    def __init__(
        self,
        network: ClassifierNetwork,
        config: TrainConfig,
        plan: Plan,
        distributed: DistributedContext,
    ) -> None:
        self.config, self.precision, self.distributed = (
            config,
            PRECISIONS[plan.precision],
            distributed,
        )
        self.device = distributed.device(plan.device)
        layout = torch.channels_last if self.precision.channels_last else torch.contiguous_format
        self.network = copy.deepcopy(network).to(self.device).to(memory_format=layout).eval()
        self.network.requires_grad_(True)
        averaged = (
            copy.deepcopy(self.network).requires_grad_(False)
            if config.averaged_share
            else self.network
        )
        self.averaged: ClassifierNetwork = averaged
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.network, config, plan.batch), fused=self.device.type == "cuda"
        )
        self.chunk = max(1, -(-plan.batch // distributed.world_size))

    def step(self, batch: _Batch, factor: float, average: float, head_only: bool) -> Tensor:
        """Learn from a batch with the rates times `factor`; the loss of the whole step.

        `average` is the share of the moving average that stays.
        """
        loss = self._gradients(batch, head_only)
        learning = list((self.network.head if head_only else self.network).parameters())
        for parameter in learning:
            if parameter.grad is None:  # no picture of this step fell to this process
                parameter.grad = torch.zeros_like(parameter)
        self.distributed.add([*(cast(Tensor, parameter.grad) for parameter in learning), loss])
        nn.utils.clip_grad_norm_(learning, self.config.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = group["full_rate"] * factor
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.averaged is not self.network:
            pair = [
                cast(Any, list(network.parameters())) for network in (self.averaged, self.network)
            ]
            get_ema_multi_avg_fn(average)(*pair, 0)
        return loss

    def logits(self, squares: Iterator[Tensor]) -> list[Tensor]:
        """Logits float32 [b, classes] of batches of squares by the averaged weights.

        In float32 whatever the training computes in, for that is what the delivered model computes
        in.
        """
        with torch.inference_mode():
            views = (eval_view(batch, self.averaged.normalise) for batch in squares)
            return [self._forward(self.averaged, view) for view in views]

    def _gradients(self, batch: _Batch, head_only: bool) -> Tensor:
        """Add up the gradients of a batch; where the GPU has no room, in halved chunks, whose sum
        is the same.
        """
        if not len(batch.labels):  # more processes than pictures
            return torch.zeros((), device=self.device)
        while True:
            try:
                return torch.stack(
                    [self._backward(chunk, head_only) for chunk in batch.chunks(self.chunk)]
                ).sum()
            except torch.OutOfMemoryError:
                if self.chunk == 1:
                    raise
            self.chunk = -(-self.chunk // 2)
            self.optimiser.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _backward(self, batch: _Batch, head_only: bool) -> Tensor:
        view = train_view(
            batch.squares, batch.draws, self.config.augmentation, self.network.normalise
        )
        with self.precision.autocast(self.device):
            logits = self._forward(self.network, view, head_only)
        losses = functional.cross_entropy(
            logits.float(), batch.labels, reduction="none", label_smoothing=self.config.smoothing
        )
        loss = (losses * batch.weights).sum()
        loss.backward()
        return loss.detach()

    def _forward(self, network: ClassifierNetwork, view: Tensor, head_only: bool = False) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not head_only):
            embedding = network.embed(self.precision.to_memory_format(view))
        return cast(Tensor, network.head(embedding))


def parameter_groups(
    network: ClassifierNetwork, config: TrainConfig, batch: int
) -> list[dict[str, Any]]:
    """AdamW's groups: rates fall from the last part of the body to the first; only matrices and
    filters decay.
    """
    scale, body = math.sqrt(batch / 32), list(network.body.parameters())
    parts: list[tuple[float, list[nn.Parameter]]] = [
        (config.head_rate, list(network.head.parameters()))
    ]
    for number in range(config.depth_groups):
        first, end = (len(body) * place // config.depth_groups for place in (number, number + 1))
        parts.append(
            (
                config.rate * config.depth_decay ** (config.depth_groups - 1 - number),
                body[first:end],
            )
        )
    groups = []
    for rate, parameters in parts:
        for decay, chosen in (
            (config.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen:
                groups.append(
                    {"params": chosen, "full_rate": rate * scale, "lr": 0.0, "weight_decay": decay}
                )
    return groups


class _Trial:
    """Times steps on a machine before anything is decided."""

    def __init__(
        self, network: ClassifierNetwork, data: TrainData, config: TrainConfig, device: torch.device
    ) -> None:
        self._network, self._material, self._recipe, self._device = (
            network,
            data,
            config,
            device,
        )

    def choose_precision(self, measured: Precision) -> Precision:
        """bfloat16 on GPUs that have it; on a CPU only where steps are so much faster that its
        rounding is worth it.
        """
        if self._device.type == "cuda":
            return BF16 if torch.cuda.is_bf16_supported() else measured
        if measured.dtype == torch.float32:
            return measured
        seconds = {one: self.seconds_per_picture(_TRIAL_BATCH_CPU, one) for one in (measured, FP32)}
        return measured if seconds[measured] * _COARSE_GAIN < seconds[FP32] else FP32

    def choose_batch(self, precision: Precision) -> int:
        """The config's, or the largest on this GPU that still gains, leaves enough steps in an
        epoch, and has room.
        """
        if self._recipe.batch:
            return self._recipe.batch
        if self._device.type == "cpu":
            return _BATCH_CPU
        best, shortest = _BATCHES[0], math.inf
        for batch in _BATCHES:
            if batch > best and batch * self._recipe.least_steps > len(self._material.train):
                break
            try:
                seconds = self.seconds_per_picture(batch, precision)
            except torch.OutOfMemoryError:
                break
            if seconds * _WORTHWHILE > shortest:
                break
            best, shortest = batch, seconds
        return best

    def seconds_per_picture(self, batch: int, precision: Precision) -> float:
        """Of a training step in that precision with so many pictures; on a CPU with 16 at most."""
        size = min(batch, _TRIAL_BATCH_CPU) if self._device.type == "cpu" else batch
        plan = Plan(1, batch, precision.name, self._device.type)
        learner = _Learner(
            self._network,
            self._recipe,
            plan,
            DistributedContext(local_rank=self._device.index or 0),
        )
        places = np.resize(self._material.train, size)
        pictures = _Batch(
            torch.from_numpy(self._material.cache.squares[places]).to(self._device),
            torch.from_numpy(self._material.labels[places]).to(self._device),
            torch.full((size,), 1 / size, device=self._device),
            torch.full((size, RANDOM_PARAMETERS), 0.5, device=self._device),
        )
        with _fastest_kernels():
            return min([self._timed(learner, pictures) for _ in range(1 + _TRIAL_STEPS)][1:]) / size

    def _timed(self, learner: _Learner, pictures: _Batch) -> float:
        started = time.perf_counter()
        learner.step(pictures, 1.0, 0.9, head_only=False)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - started


class _Epoch:
    """The order of an epoch's pictures, how each is varied, and which of them a step and this
    process take.
    """

    def __init__(self, start: _Start, number: int, batch: int, device: torch.device) -> None:
        data, distributed = start.data, start.context.distributed
        digits = hashlib.sha256(f"{start.config.seed} {number}".encode()).hexdigest()[:15]
        generator = torch.Generator().manual_seed(int(digits, 16))
        weights = sample_weights(data, start.config)
        learned = data.train[weights[data.train] > 0]
        self.places = learned[torch.randperm(len(learned), generator=generator).numpy()]
        draws = torch.rand((len(learned), RANDOM_PARAMETERS), generator=generator)
        self.steps = steps_per_epoch(len(learned), batch)
        bounds = [len(learned) * step // self.steps for step in range(self.steps + 1)]
        ordered = weights[self.places]
        # Divided by the weight of the whole step, over all processes, so that gradients need only
        # be added up.
        totals = np.add.reduceat(ordered, bounds[:-1])
        shares = (ordered / np.repeat(totals, np.diff(bounds))).astype(np.float32)
        self.parts = [distributed.part(first, end) for first, end in pairwise(bounds)]
        self._labels = torch.from_numpy(data.labels[self.places]).to(device)
        self._shares, self._draws = torch.from_numpy(shares).to(device), draws.to(device)

    def batches(self, feed: Feed, done: int) -> Iterator[_Batch]:
        """Yield this process's share of each step after the first `done`."""
        parts = self.parts[done:]
        squares = feed.batches([self.places[first:end] for first, end in parts])
        for (first, end), pixels in zip(parts, squares, strict=True):
            yield _Batch(
                pixels, self._labels[first:end], self._shares[first:end], self._draws[first:end]
            )


def _fastest_kernels() -> AbstractContextManager[None]:
    """Let a GPU try which of its convolutions is fastest at each size; there are few sizes."""
    return cast(
        AbstractContextManager[None], torch.backends.cudnn.flags(enabled=True, benchmark=True)
    )


def steps_per_epoch(pictures: int, batch: int) -> int:
    """Steps in an epoch; the pictures are spread evenly over them."""
    return max(1, -(-pictures // batch))


def sample_weights(data: TrainData, config: TrainConfig) -> NDArray[np.float64]:
    """How much each picture counts [n]: its own weight times its class's, which makes up for rare
    classes.
    """
    weights = data.weights.astype(np.float64)
    mass = np.bincount(data.labels[data.train], weights[data.train], data.classes)
    rarity = mass.sum() / np.maximum(mass, 1e-9) / data.classes
    result: NDArray[np.float64] = weights * rarity[data.labels] ** config.balance
    return result


@dataclass
class _Progress:
    """Where a training is."""

    epoch: int = 0
    """Whole epochs done."""
    step: int = 0
    """Steps done of the present epoch."""
    seconds: float = 0.0
    """Spent by earlier attempts."""
    epoch_seconds: float = 0.0
    """Of these, on the present epoch."""
    ended: str = ""
    """Why it ended, as a sentence."""


@dataclass(frozen=True)
class _Best:
    """What the epoch with the lowest loss on val left."""

    epoch: int
    loss: float
    logits: Tensor
    """float64 [v, classes], on the CPU."""
    weights: list[Tensor]
    """In the order of the network's parameters."""


class _Training:
    """The loop over epochs and steps."""

    def __init__(self, start: _Start, plan: Plan, kept: Mapping[str, Any] | None) -> None:
        self._start, self._plan = start, plan
        self._job, self._recipe, self._distributed = (
            start.context,
            start.config,
            start.context.distributed,
        )
        self._learner = _Learner(start.network, start.config, plan, self._distributed)
        self._feed = Feed(start.data.cache.squares, self._learner.device)
        self._saver = _Saver(start.context)
        self._at = _Progress()
        self._loss = torch.zeros((), device=self._learner.device)
        self._history: list[dict[str, float]] = []
        self._best: _Best | None = None
        self._epoch_started = time.monotonic()
        if kept:
            self._restore(kept)

    def run(self) -> TrainResult | NotTrained:
        """Train to the end and give the best epoch."""
        with _fastest_kernels(), self._saver:
            while not self._at.ended:
                steps = self._one_epoch()
            state = self._state()
            self._saver.write(lambda: state)
        done = steps * self._at.epoch
        self._job.report(done, done, f"Fine-tuned for {self._at.epoch} epochs")
        return _result(self._start, self._plan, state)

    def _one_epoch(self) -> int:
        """Do what is left of the present epoch; the steps that it has in all."""
        epoch = _Epoch(self._start, self._at.epoch, self._plan.batch, self._learner.device)
        before, total = self._at.epoch * epoch.steps, self._plan.epochs * epoch.steps
        head_only = self._at.epoch < self._recipe.head_epochs
        for batch in epoch.batches(self._feed, self._at.step):
            done = before + self._at.step
            factor, average = (
                lr_lambda(done, total, self._recipe),
                ema_decay(done, total, self._recipe),
            )
            self._loss += self._learner.step(batch, factor, average, head_only)
            self._at.step += 1
            self._between_steps(done + 1, total)
        rate = self._recipe.head_rate * lr_lambda(before + epoch.steps - 1, total, self._recipe)
        self._close_epoch(float(self._loss) / epoch.steps, rate)
        self._at.ended = self._reason_to_end()
        return epoch.steps

    def _between_steps(self, done: int, total: int) -> None:
        if self._distributed.any(self._job.should_stop()):
            self._saver.write(self._state)
            raise Stopped
        if self._saver.due():
            self._saver.write_meanwhile(self._state)
        so_far = f", {self._history[-1]['val_accuracy']:.1%} right on val" if self._history else ""
        message = f"Fine-tuning: epoch {self._at.epoch + 1} of at most {self._plan.epochs}{so_far}"
        self._job.report(done, total, message)

    def _close_epoch(self, train_loss: float, rate: float) -> None:
        """Evaluate, write a row of history, and keep the weights if they are the best so far."""
        logits, labels = self._val_logits(), self._start.data.labels[self._start.data.val]
        loss, number, now = log_loss(logits, labels), self._at.epoch + 1, time.monotonic()
        if math.isfinite(loss) and (self._best is None or loss < self._best.loss):
            weights = [
                parameter.detach().clone() for parameter in self._learner.averaged.parameters()
            ]
            self._best = _Best(number, loss, torch.from_numpy(logits), weights)
        row = {
            "epoch": number,
            "train_loss": train_loss,
            "val_loss": loss,
            "val_accuracy": float((logits.argmax(axis=1) == labels).mean()),
            "rate": rate,
            "seconds": round(self._at.epoch_seconds + now - self._epoch_started, 3),
        }
        self._history.append(row)
        self._at.epoch, self._at.step, self._at.epoch_seconds = number, 0, 0.0
        self._loss, self._epoch_started = torch.zeros_like(self._loss), now

    def _val_logits(self) -> Floats:
        """[v, classes] by the averaged weights; each process computes a share."""
        val, distributed = self._start.data.val, self._distributed
        first, end = distributed.part(0, len(val))
        parts = [val[cut : min(cut + _EVALUATED, end)] for cut in range(first, end, _EVALUATED)]
        logits = torch.zeros((len(val), self._start.data.classes), device=self._learner.device)
        if parts:
            logits[first:end] = torch.cat(self._learner.logits(self._feed.batches(parts)))
        distributed.add([logits])
        return cast(Floats, logits.cpu().numpy().astype(np.float64))

    def _reason_to_end(self) -> str:
        """Why to end after this epoch, the same in all processes; empty to go on."""
        epoch, best = self._at.epoch, self._best.epoch if self._best else 0
        if not math.isfinite(self._history[-1]["val_loss"]):
            return f"The loss left all bounds in epoch {epoch}."
        if epoch >= self._plan.epochs:
            return f"All {epoch} epochs were done."
        if epoch - best >= self._recipe.patience:
            return f"{self._recipe.patience} epochs in a row did not lower the loss on val."
        if self._distributed.any(self._spent() * (epoch + 1) / epoch > self._job.budget):
            return (
                f"The time budget ended the training after {epoch} of {self._plan.epochs} epochs."
            )
        return ""

    def _spent(self) -> float:
        return self._at.seconds + time.monotonic() - self._start.started

    def _state(self) -> dict[str, Any]:
        """All that a checkpoint holds, copied to the CPU; of a training that has ended only its
        result.
        """
        present_epoch = self._at.epoch_seconds + time.monotonic() - self._epoch_started
        at = dataclasses.replace(self._at, seconds=self._spent(), epoch_seconds=present_epoch)
        learner = {
            "weights": list(self._learner.network.parameters()),
            "averaged": list(self._learner.averaged.parameters()),
            "optimiser": self._learner.optimiser.state_dict(),
            "loss": self._loss,
        }
        state = {
            "digest": self._start.digest,
            "plan": dataclasses.asdict(self._plan),
            "at": dataclasses.asdict(at),
            "history": self._history,
            "best": {
                field.name: getattr(self._best, field.name) for field in dataclasses.fields(_Best)
            }
            if self._best
            else None,
            "learner": None if at.ended else learner,
        }
        return cast(dict[str, Any], _on_cpu(state))

    def _restore(self, kept: Mapping[str, Any]) -> None:
        self._at, self._history = _Progress(**kept["at"]), list(kept["history"])
        device = self._learner.device
        if kept["best"]:
            best = _Best(**kept["best"])
            self._best = dataclasses.replace(
                best, weights=[tensor.to(device) for tensor in best.weights]
            )
        learner = kept["learner"]
        with torch.no_grad():
            for network, name in (
                (self._learner.averaged, "averaged"),
                (self._learner.network, "weights"),
            ):
                for parameter, tensor in zip(network.parameters(), learner[name], strict=True):
                    parameter.copy_(tensor)
        self._learner.optimiser.load_state_dict(learner["optimiser"])
        self._loss = learner["loss"].to(device)


class _Saver:
    """Writes checkpoints, in a thread of its own where the training goes on meanwhile; the first
    process's alone.
    """

    def __init__(self, context: TrainContext) -> None:
        self._path = context.folder / _CHECKPOINT
        self._writes = context.distributed.is_main
        self._least = self._interval = context.checkpoint_seconds
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> _Saver:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self._settle()

    def due(self) -> bool:
        """Whether the last checkpoint is old enough; longer where writing takes long."""
        busy = self._writing is not None and not self._writing.done()
        return self._writes and not busy and time.monotonic() - self._last >= self._interval

    def write_meanwhile(self, state: Callable[[], dict[str, Any]]) -> None:
        """Take the state now, write it while the training goes on. Raises what the write before
        ended in.
        """
        self._settle()
        self._last = time.monotonic()
        self._writing = self._thread.submit(self._write, state())

    def write(self, state: Callable[[], dict[str, Any]]) -> None:
        """Have the state on the disk on return."""
        if self._writes:
            self._settle()
            self._write(state())

    def _settle(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, state: dict[str, Any]) -> None:
        started = time.monotonic()
        write_checkpoint(self._path, state)
        self._interval = max(self._least, (time.monotonic() - started) / _WRITING_SHARE)


def lr_lambda(done: int, total: int, config: TrainConfig) -> float:
    """Share of the full rate in the step after `done` of `total`: a straight rise, then half a
    cosine.
    """
    rising = max(1.0, config.warm_up * total)
    if done < rising:
        return min(1.0, (done + 1) / rising)
    way = (done - rising) / max(1.0, total - rising)
    return config.last_rate + (1 - config.last_rate) * (1 + math.cos(math.pi * way)) / 2


def ema_decay(done: int, total: int, config: TrainConfig) -> float:
    """What stays of the moving average in a step; less in the first ones, so that the start is soon
    forgotten.
    """
    return min(1 - 1 / max(1.0, config.averaged_share * total), (1 + done) / (10 + done))


def _result(start: _Start, plan: Plan, state: Mapping[str, Any]) -> TrainResult | NotTrained:
    """What a training that has ended comes to."""
    at, best = _Progress(**state["at"]), state["best"]
    if best is None:
        return NotTrained(f"{at.ended} Fine-tuning gave no network that could be used.")
    names = [name for name, _ in start.network.named_parameters()]
    return TrainResult(
        state=_on_cpu(_learned(start.network)) | dict(zip(names, best["weights"], strict=True)),
        val_logits=cast(Floats, best["logits"].numpy()),
        best=best["epoch"],
        epochs=state["history"],
        stopped=at.ended,
        plan=plan,
        seconds=at.seconds,
    )


def _learned(network: ClassifierNetwork) -> dict[str, Tensor]:
    """The tensors of body and head."""
    return {
        name: tensor
        for name, tensor in network.state_dict().items()
        if name.startswith(("body.", "head."))
    }


def _on_cpu(value: Any) -> Any:
    """Copies of all tensors in dicts and lists, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on_cpu(item) for item in value]
    return value


def _digest(network: ClassifierNetwork, data: TrainData, config: TrainConfig) -> str:
    """Tells apart trainings that must not go on from each other's checkpoints: hex sha256."""
    digest = hashlib.sha256(
        json.dumps(
            [training.__version__, data.cache.path.name, config.as_json()], sort_keys=True
        ).encode()
    )
    for array in (data.labels, data.train, data.val, data.weights):
        digest.update(np.ascontiguousarray(array).tobytes())
    for name, tensor in _learned(network).items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
