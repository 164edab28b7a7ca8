"""Fine-tuning: train the whole network on from where the linear head left it.

Every random choice follows from the seed and the epoch, and the state is kept on the disk, so that
a training that was killed goes on as if nothing had happened. Several processes share the work of
each step and end with the same network as one alone. Batch normalization keeps the statistics it
came with: small sets give no better ones, and batches that are divided over processes would each
give others.

The file reads from top to bottom: what goes in and comes out, `finetune` itself, the plan made for
a machine, the loop over epochs, one step, and the schedules.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

import training
from training.finetuning.checkpoint import CheckpointWriter, read_checkpoint
from training.finetuning.distributed import SINGLE_PROCESS, DistributedContext
from training.finetuning.views import (
    RANDOM_PARAMETERS,
    Augmentation,
    Loader,
    Variations,
    eval_view,
    train_view,
)
from training.metrics import Floats, Labels, log_loss
from training.networks.backbones import BACKBONES, Backbone
from training.networks.classifier import ClassifierNetwork
from training.networks.devices import free_memory, in_halves, is_out_of_memory
from training.networks.image_cache import ImageCache, attach_cache
from training.networks.precision import (
    FP32,
    PRECISIONS,
    Precision,
    exact_float32,
    half_precision,
)
from training.progress import CurvePoint, Progress, Record, Stopped, no_progress, no_record
from training.run_folder import RunError, read_json, write_json

EPOCHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)
"""How many epochs a training may have: few choices, so that a slower moment leads to the same."""

CHECKPOINT_FILE = "finetune.pt"
"""In the folder of a training that has begun."""

_BATCH_SIZES = (16, 32, 64, 128, 256)  # tried on a GPU
_WORTHWHILE_GAIN = 1.1  # times more images a second that a larger batch must bring
_BF16_GAIN = 1.5  # times faster than float32 that bfloat16 must be on a CPU
_TIMED_STEPS = 2  # after one that warms up
_CPU_BATCH_SIZE = 16  # small sets gain more from many steps than from large ones
_CPU_TIMED_IMAGES = 16
_TRIAL_SHARE = 0.03  # of the budget, after which no further batch size is tried
_LEAST_SHARE = 1 / 3  # of the epochs, before a training that is far behind is given up
_FAR_ABOVE = 1.25  # times the rival's loss that are far behind
_PARTS = (1, 4, 16)  # of a step, one after the other, before a GPU without room is given up
_EVAL_BATCH_SIZE = 64  # where nothing is kept for gradients
_EVAL_COST = 1 / 3  # of evaluating an image, in units of learning from one
_BUDGET_SHARE = 0.85  # planned for, of the time left; the rest is for a machine that slows down
_REFERENCE_BATCH_SIZE = 32  # at which the learning rates hold
_PLAN_NOTE = "finetune-plan.json"
_ON_REQUEST = "Fine-tuning was ended on request"

_log = logging.getLogger("training")


# What goes in and what comes out.


@dataclass(frozen=True)
class TrainConfig:
    """Every hyperparameter of fine-tuning."""

    seed: int = 0
    max_epochs: int = 100
    """On a GPU, where the budget allows as many."""
    max_epochs_cpu: int = 20
    max_steps: int = 3000
    """Over all epochs, which bounds the epochs of large sets."""
    min_epochs: int = 4
    """Fewer are not worth beginning."""
    head_epochs: int = 0
    """Epochs at the beginning that train the linear head alone."""
    stop_after: int = 0
    """Epoch of the plan's after which training ends; 0 for the last."""
    patience: int = 12
    """Epochs without a lower loss on val after which training ends."""
    batch_size: int = 0
    """Images in a step, over all processes; 0 for 16 on a CPU and what a trial finds on a GPU."""
    min_steps_per_epoch: int = 8
    """Bounds the batch size found by trial."""
    lr: float = 3e-4
    """Of the last layers, at a batch of 32; scales with the root of the batch size."""
    head_lr: float = 3e-4
    """Of the linear head, likewise."""
    layer_groups: int = 6
    """Groups into which the body's parameters are cut, from first layer to last."""
    layer_decay: float = 0.85
    """Learning rate of a group over that of the group after it."""
    weight_decay: float = 0.01
    """Of matrices and filters; biases and normalization have none."""
    warmup_share: float = 0.1
    """Share of all steps in which the learning rate rises; then it falls along a cosine."""
    final_lr_share: float = 0.01
    """Share of the learning rate that is left at the end."""
    clip_grad: float = 1.0
    """Largest norm of a step's gradient."""
    label_smoothing: float = 0.05
    """Share of each label that is spread over all classes."""
    class_balance: float = 0.5
    """0 weighs every image alike, 1 every class; see `sample_weights`."""
    ema_share: float = 0.15
    """Share of all steps over which the weights are averaged; 0 for no average."""
    augmentation: Augmentation = field(default_factory=Augmentation)

    def as_json(self) -> dict[str, Any]:
        """Return all values as JSON takes them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration again from `as_json`."""
        augmentation = Augmentation(**values["augmentation"])
        return cls(**{**values, "augmentation": augmentation})


@dataclass(frozen=True)
class TrainData:
    """The images to learn from."""

    cache: ImageCache
    """Filled, with n images."""
    labels: Labels
    """[n]: class numbers."""
    train: NDArray[np.int64]
    """Indices into the cache."""
    val: NDArray[np.int64]
    """Indices into the cache; where there are none, the last epoch is kept."""
    classes: int
    weights: NDArray[np.float32]
    """[n]: how much each training image counts; 0 leaves it out."""


@dataclass(frozen=True)
class Plan:
    """What was decided on this machine before the first step."""

    epochs: int
    batch_size: int
    """Images in a step, over all processes."""
    precision: str
    """A name of `training.networks.precision.PRECISIONS`."""
    device: str
    """cpu or cuda."""


@dataclass(frozen=True)
class TrainContext:
    """Where and under which limits the training runs, and to whom it reports."""

    folder: Path
    """For its checkpoint."""
    budget: float
    """Seconds that it may take, earlier attempts included."""
    precision: Precision
    """The fastest on this machine for inference."""
    distributed: DistributedContext = SINGLE_PROCESS
    report: Progress = no_progress
    should_stop: Callable[[], bool] = lambda: False
    """Called after every step."""
    should_finish: Callable[[], bool] = lambda: False
    """Called before every step: ends the training, whose best epoch so far is kept."""
    checkpoint_seconds: float = 20.0
    """Between two checkpoints at least."""
    plan: Plan | None = None
    """Given rather than measured; the budget then only ends the training."""
    rival_loss: float = math.inf
    """On val, of the model that the network must be better than; far above it training ends."""
    rival_accuracy: float | None = None
    """Of the same, for the curves."""
    record: Record = no_record
    """Takes a point of the curves after each epoch."""
    training: int = 1
    """Which one of several this is, for the curves."""
    trainings: int = 1
    prepare: Callable[[], None] = lambda: None
    """Called once the plan stands, before images are learned from: fills the cache."""


@dataclass(frozen=True)
class TrainResult:
    """A fine-tuned network and how it came about."""

    state: dict[str, Tensor]
    """Tensors of `body.` and `head.` as in `ClassifierNetwork.state_dict()`, on the CPU.

    They are the averaged weights after the best epoch.
    """
    val_logits: Floats
    """[v, classes] of the val images in the order of `TrainData.val`, by that state."""
    logits_by_epoch: list[Floats]
    """The same by the averaged weights after each epoch."""
    best_epoch: int
    """The epoch with the lowest loss on val, from 1."""
    epochs: list[dict[str, float]]
    """For each: epoch, train_loss, val_loss, val_accuracy, rate, seconds.

    `train_loss` is what was minimized: on varied images, smoothed and weighted. `rate` is the
    head's learning rate in the last step.
    """
    stop_reason: str
    """A sentence."""
    plan: Plan
    seconds: float
    """Of all attempts."""

    @property
    def is_complete(self) -> bool:
        """Return whether it ended by itself, and not on request."""
        return not self.stop_reason.startswith(_ON_REQUEST)


@dataclass(frozen=True)
class NotTrained:
    """There is no fine-tuned network."""

    reason: str
    """A sentence."""
    too_slow: bool = False
    """Whether nothing was tried because so much training does not fit the time budget."""


@dataclass(frozen=True)
class _Setup:
    """All that a training begins with."""

    network: ClassifierNetwork
    data: TrainData
    config: TrainConfig
    context: TrainContext
    digest: str
    """See `_digest`."""
    started: float
    """By the monotonic clock."""


def finetune(
    network: ClassifierNetwork, data: TrainData, config: TrainConfig, context: TrainContext
) -> TrainResult | NotTrained:
    """Train the network on from its present body and head; the network itself stays as it is.

    Its head must have been fitted on train alone, or the loss on val means nothing. Goes on from
    the checkpoint in `context.folder` where that is of the same data, configuration, network and
    version of this package. Runs on the network's device. Where a GPU has no room, it goes on from
    the checkpoint with smaller parts of each step, and only at last on the CPU. Asked to stop it
    writes a checkpoint and raises Stopped.
    """
    started = time.monotonic()
    device = context.plan.device if context.plan else network.device.type
    setup = _Setup(
        network=network,
        data=data,
        config=config,
        context=context,
        digest=_digest(network, data, config),
        started=started,
    )
    checkpoint = _matching_checkpoint(setup, device)
    plan: Plan | NotTrained | None = None
    if checkpoint:
        plan = Plan(**checkpoint["plan"])
    for parts in _PARTS:
        try:
            if plan is None:
                plan = _noted_plan(setup, device)
            return _train(setup, plan, checkpoint, parts)
        except RuntimeError as error:
            if device == "cpu" or not is_out_of_memory(error):
                raise
            if context.distributed.world_size > 1:
                raise  # the other processes are in the middle of a step and cannot follow
            _log.info("the GPU has no room for steps in %d parts", parts, exc_info=True)
        free_memory()
        checkpoint = _matching_checkpoint(setup, device)
    left = context.budget - (time.monotonic() - started)
    on_cpu = dataclasses.replace(context, budget=left)
    if context.plan:
        cpu_plan = dataclasses.replace(context.plan, device="cpu")
        on_cpu = dataclasses.replace(on_cpu, plan=cpu_plan)
    plan = make_plan(network, data, config, on_cpu, "cpu")
    return _train(setup, plan, checkpoint=None)


def _digest(network: ClassifierNetwork, data: TrainData, config: TrainConfig) -> str:
    """Return hex sha256 of all that a checkpoint must agree with to be taken up again."""
    version = training.__version__
    described = [version, data.cache.path.name, config.as_json()]
    text = json.dumps(described, sort_keys=True)
    arrays = [data.labels, data.train, data.val, data.weights]
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        contiguous = np.ascontiguousarray(array)
        digest.update(contiguous.tobytes())
    for name, tensor in _trained_tensors(network).items():
        values = tensor.detach().cpu().contiguous()
        array = values.numpy()
        digest.update(name.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _trained_tensors(network: ClassifierNetwork) -> dict[str, Tensor]:
    """Return the tensors of body and head."""
    tensors = {}
    for name, tensor in network.state_dict().items():
        if name.startswith(("body.", "head.")):
            tensors[name] = tensor
    return tensors


def _matching_checkpoint(setup: _Setup, device: str) -> dict[str, Any] | None:
    """Return the checkpoint of this very training where there is one that can go on here."""
    checkpoint = read_checkpoint(setup.context.folder / CHECKPOINT_FILE)
    if checkpoint is None:
        return None
    if checkpoint.get("digest") != setup.digest:
        return None
    made_on = checkpoint["plan"]["device"]
    if made_on != "cpu" and device == "cpu":
        return None  # made on a GPU that is no longer there
    return checkpoint


def _noted_plan(setup: _Setup, device: str) -> Plan | NotTrained:
    """Return the plan that an attempt noted before its first step, or make and note one.

    Timing decides it, so that another attempt might decide otherwise and end with another network.
    """
    note = setup.context.folder / _PLAN_NOTE
    try:
        noted = read_json(note)
        if noted["digest"] == setup.digest and noted["plan"]["device"] == device:
            return Plan(**noted["plan"])
    except (RunError, KeyError, TypeError):
        pass  # there is none, or it is damaged
    plan = make_plan(setup.network, setup.data, setup.config, setup.context, device)
    if isinstance(plan, Plan) and not setup.context.plan:
        note.parent.mkdir(parents=True, exist_ok=True)
        described = dataclasses.asdict(plan)
        write_json(note, {"digest": setup.digest, "plan": described})
    return plan


def _train(
    setup: _Setup,
    plan: Plan | NotTrained,
    checkpoint: Mapping[str, Any] | None,
    parts: int = 1,
) -> TrainResult | NotTrained:
    """Carry the plan out, with the workers' help where there are any, each step in so many parts.

    Its result is the same in any number of parts.
    """
    if isinstance(plan, NotTrained):
        return plan
    if checkpoint and checkpoint["status"]["stop_reason"]:
        return _result(setup, plan, checkpoint)
    if not checkpoint and setup.context.should_finish():
        return NotTrained(f"{_ON_REQUEST} before its first epoch.")
    preparing = time.monotonic()
    setup.context.prepare()
    seconds = time.monotonic() - preparing
    setup = dataclasses.replace(setup, started=setup.started + seconds)  # no epoch takes these
    distributed = setup.context.distributed
    if distributed.world_size > 1:
        task = _encode_task(setup, plan, checkpoint)
        distributed.send(task)
    return _Trainer(setup, plan, checkpoint, parts).run()


def _result(setup: _Setup, plan: Plan, checkpoint: Mapping[str, Any]) -> TrainResult | NotTrained:
    """Return what a training that has ended comes to."""
    status = _Status(**checkpoint["status"])
    if checkpoint["best"] is None:
        reason = f"{status.stop_reason} Fine-tuning gave no network that could be used."
        return NotTrained(reason)
    best = _BestEpoch(**checkpoint["best"])
    tensors = _trained_tensors(setup.network)
    state = _on_cpu(tensors)
    parameters = setup.network.named_parameters()
    for (name, _), weight in zip(parameters, best.weights, strict=True):
        state[name] = weight
    return TrainResult(
        state=state,
        val_logits=cast(Floats, best.logits.numpy()),
        logits_by_epoch=[logits.numpy() for logits in checkpoint["logits"]],
        best_epoch=best.epoch,
        epochs=checkpoint["history"],
        stop_reason=status.stop_reason,
        plan=plan,
        seconds=status.seconds,
    )


# Several processes: the main process sends each training to the workers, who take part in it.


def worker_loop(
    distributed: DistributedContext, backbones: Mapping[str, Backbone] = BACKBONES
) -> None:
    """Take part in the main process's fine-tunings until it shuts the workers down."""
    exact_float32()
    while message := distributed.receive():
        stream = io.BytesIO(message)
        task = torch.load(stream, weights_only=True)
        setup = _decode_task(task, distributed, backbones)
        plan = Plan(**task["plan"])
        with suppress(Stopped):
            _Trainer(setup, plan, task["checkpoint"]).run()


def end_worker() -> NoReturn:
    """End a worker's process at once, its work being done.

    Without the interpreter's clean-up, in which threads of gloo that still run abort the process
    now and then, and torchrun then ends the main process too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def shutdown_workers(distributed: DistributedContext) -> None:
    """Let the workers, who wait in `worker_loop`, end; for the main process."""
    if distributed.world_size > 1:
        distributed.send(b"")


def _encode_task(setup: _Setup, plan: Plan, checkpoint: Mapping[str, Any] | None) -> bytes:
    """Return what the workers need to know, for `_decode_task`."""
    data = setup.data
    task = {
        "cache": str(data.cache.path.absolute()),
        "side": data.cache.side,
        "labels": torch.from_numpy(data.labels),
        "train": torch.from_numpy(data.train),
        "val": torch.from_numpy(data.val),
        "weights": torch.from_numpy(data.weights),
        "classes": data.classes,
        "backbone": setup.network.backbone.name,
        "network": _on_cpu(_trained_tensors(setup.network)),
        "config": setup.config.as_json(),
        "plan": dataclasses.asdict(plan),
        "rival_loss": setup.context.rival_loss,
        "checkpoint": checkpoint,
    }
    stream = io.BytesIO()
    torch.save(task, stream)
    return stream.getvalue()


def _decode_task(
    task: Mapping[str, Any], distributed: DistributedContext, backbones: Mapping[str, Backbone]
) -> _Setup:
    """Return the main process's training for a worker, which keeps no checkpoint and no clock."""
    backbone = backbones[task["backbone"]]
    body = backbone.build()
    network = ClassifierNetwork(backbone, body, task["classes"])
    network.load_state_dict(task["network"], strict=False)
    labels = task["labels"].numpy()
    cache_path = Path(task["cache"])
    data = TrainData(
        cache=attach_cache(cache_path, len(labels), task["side"]),
        labels=labels,
        train=task["train"].numpy(),
        val=task["val"].numpy(),
        classes=task["classes"],
        weights=task["weights"].numpy(),
    )
    return _Setup(
        network=network,
        data=data,
        config=TrainConfig.from_json(task["config"]),
        context=TrainContext(Path(), math.inf, FP32, distributed, rival_loss=task["rival_loss"]),
        digest="",
        started=time.monotonic(),
    )


# The plan: how many epochs, of which batches, in which precision this machine has time for.


def make_plan(
    network: ClassifierNetwork,
    data: TrainData,
    config: TrainConfig,
    context: TrainContext,
    device: str,
) -> Plan | NotTrained:
    """Return the plan that was given, or one made by timing a few steps, whose results are dropped.

    `device` is cpu or cuda.
    """
    if context.plan:
        return context.plan
    if context.budget <= 0:
        return NotTrained("The network was not fine-tuned: nothing is left of the time budget.")
    context.report(0, 0, "Measuring how fast this machine fine-tunes")
    own_device = context.distributed.device(device)
    timer = _StepTimer(network, data, config, own_device)
    precision = timer.choose_precision(context.precision)
    batch_size = timer.choose_batch_size(precision, context.budget)

    train_images = len(data.train)
    cost = train_images + _EVAL_COST * len(data.val)
    epoch_seconds = cost * timer.seconds_per_image(batch_size, precision)
    most = config.max_epochs_cpu
    if device == "cuda":
        most = config.max_epochs
        epoch_seconds /= context.distributed.world_size
    least = min(config.min_epochs, most)

    steps = steps_per_epoch(train_images, batch_size)
    epochs_in_max_steps = config.max_steps // steps
    most = min(most, max(config.min_epochs, epochs_in_max_steps))
    seconds = _BUDGET_SHARE * context.budget
    epochs = epochs_that_fit(seconds, epoch_seconds, most)
    if epochs < least:
        return NotTrained(
            f"One epoch of fine-tuning takes about {epoch_seconds:.3g} s here; {least} would not "
            f"fit the {context.budget:.3g} s that are left of the time budget.",
            too_slow=True,
        )
    return Plan(epochs, batch_size, precision.name, device)


def epochs_that_fit(seconds: float, epoch_seconds: float, most: int) -> int:
    """Return the largest of EPOCHS up to `most` that takes no longer; 0 where none does."""
    fitting = 0
    for epochs in EPOCHS:
        needed = epochs * epoch_seconds
        if epochs <= most and needed <= seconds:
            fitting = epochs
    return fitting


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the steps of an epoch, over which the images are spread evenly."""
    return max(1, math.ceil(images / batch_size))


class _StepTimer:
    """Times training steps on a machine before anything is decided."""

    def __init__(
        self,
        network: ClassifierNetwork,
        data: TrainData,
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self.network = network
        self.data = data
        self.config = config
        self.device = device
        # The cache moves in first, as in the training, so that it leaves as much room.
        self.loader = Loader(data.cache.center_crops, device)

    def choose_precision(self, fastest: Precision) -> Precision:
        """Return 16 bits on a GPU that can train in them; on a CPU only where training gains.

        `fastest` is the fastest precision for inference.
        """
        if self.device.type == "cuda":
            return self._gpu_precision()
        if fastest.dtype == torch.float32:
            return fastest
        seconds = self.seconds_per_image(_CPU_TIMED_IMAGES, fastest)
        fp32_seconds = self.seconds_per_image(_CPU_TIMED_IMAGES, FP32)
        return fastest if seconds * _BF16_GAIN < fp32_seconds else FP32

    def _gpu_precision(self) -> Precision:
        half = half_precision(self.device)
        try:
            self.seconds_per_image(_BATCH_SIZES[0], half)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            _log.info("this GPU cannot train in %s", half.name, exc_info=True)
            return FP32
        return half

    def choose_batch_size(self, precision: Precision, budget: float) -> int:
        """Return the configured one, or the largest on this GPU that still gains.

        It must also leave enough steps in an epoch, and have room. The trials, each of which may
        cost seconds for kernels of a new shape, take a share of the budget at most.
        """
        if self.config.batch_size:
            return self.config.batch_size
        if self.device.type == "cpu":
            return _CPU_BATCH_SIZE
        best = _BATCH_SIZES[0]
        best_seconds = math.inf
        started = time.monotonic()
        for batch_size in _BATCH_SIZES:
            images_needed = batch_size * self.config.min_steps_per_epoch
            if batch_size > best and images_needed > len(self.data.train):
                break
            if time.monotonic() - started > _TRIAL_SHARE * budget:
                break
            try:
                seconds = self.seconds_per_image(batch_size, precision)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                free_memory()
                break
            if seconds * _WORTHWHILE_GAIN > best_seconds:
                break
            best = batch_size
            best_seconds = seconds
        return best

    def seconds_per_image(self, batch_size: int, precision: Precision) -> float:
        """Return the seconds of a training step per image; on a CPU a step has 16 at most."""
        device = self.device
        images = batch_size
        if device.type == "cpu":
            images = min(batch_size, _CPU_TIMED_IMAGES)
        plan = Plan(1, batch_size, precision.name, device.type)
        alone = DistributedContext(local_rank=device.index or 0)
        model = _Model(self.network, self.config, plan, alone)
        batch = self._batch(images)
        self._timed_step(model, batch)  # warms up
        seconds = [self._timed_step(model, batch) for _ in range(_TIMED_STEPS)]
        return min(seconds) / images

    def _batch(self, size: int) -> _Batch:
        data = self.data
        device = self.device
        indices = np.resize(data.train, size)
        (center_crops,) = self.loader.batches([indices])
        labels = torch.from_numpy(data.labels[indices])
        weights = torch.full((size,), 1 / size)
        parameters = torch.full((size, RANDOM_PARAMETERS), 0.5, device=device)
        return _Batch(
            center_crops=center_crops,
            labels=labels.to(device),
            weights=weights.to(device),
            variations=Variations.draw(parameters, self.config.augmentation),
        )

    def _timed_step(self, model: _Model, batch: _Batch) -> float:
        started = time.perf_counter()
        model.train_step(batch, lr_scale=1.0, decay=0.9, head_only=False)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - started


# The loop over epochs and steps.


@dataclass
class _Status:
    """How far a training has come."""

    epoch: int = 0
    """Whole epochs done."""
    step: int = 0
    """Steps done of the present epoch."""
    seconds: float = 0.0
    """Spent by earlier attempts."""
    epoch_seconds: float = 0.0
    """Of these, on the present epoch."""
    stop_reason: str = ""
    """Why it ended, as a sentence; empty while it goes on."""


@dataclass(frozen=True)
class _BestEpoch:
    """What the epoch with the lowest loss on val left."""

    epoch: int
    loss: float
    logits: Tensor
    """float64 [v, classes], on the CPU."""
    weights: list[Tensor]
    """In the order of the network's parameters."""


class _Trainer:
    """The loop over epochs and steps."""

    def __init__(
        self, setup: _Setup, plan: Plan, checkpoint: Mapping[str, Any] | None, parts: int = 1
    ) -> None:
        context = setup.context
        data = setup.data
        self.setup = setup
        self.plan = plan
        self.data = data
        self.config = setup.config
        self.context = context
        self.distributed = context.distributed
        self.model = _Model(
            network=setup.network,
            config=setup.config,
            plan=plan,
            distributed=context.distributed,
        )
        self.model.cut_steps(parts)
        self.device = self.model.device
        self.sampler = _Sampler(
            data=data,
            config=setup.config,
            plan=plan,
            distributed=context.distributed,
        )
        self.total_steps = plan.epochs * self.sampler.steps
        resident = None if parts == 1 else False  # then without the whole cache on the GPU
        self.loader = Loader(data.cache.center_crops, self.device, resident)
        self.writer = CheckpointWriter(
            context.folder / CHECKPOINT_FILE,
            active=context.distributed.is_main,
            min_seconds=context.checkpoint_seconds,
        )
        self.status = _Status()
        self.history: list[dict[str, float]] = []
        self.logits: list[Tensor] = []  # on val after each epoch
        self.best: _BestEpoch | None = None
        self.epoch_loss = torch.zeros((), device=self.device)
        self.epoch_started = time.monotonic()
        if checkpoint:
            self._restore(checkpoint)

    def run(self) -> TrainResult | NotTrained:
        """Train to the end and return the best epoch."""
        with self.writer:
            while not self.status.stop_reason:
                if self._train_epoch():
                    self._finish_epoch()
                    self.status.stop_reason = self._reason_to_stop()
                else:
                    done = f"{self.status.epoch} of {self.plan.epochs} epochs"
                    self.status.stop_reason = f"{_ON_REQUEST} after {done}."
            checkpoint = self._checkpoint()
            self.writer.write(lambda: checkpoint)
        epochs = self.status.epoch
        steps = epochs * self.sampler.steps
        self.context.report(steps, steps, f"Fine-tuned for {epochs} epochs")
        return _result(self.setup, self.plan, checkpoint)

    def _train_epoch(self) -> bool:
        """Do what is left of the present epoch; return False where training is to end before."""
        status = self.status
        config = self.config
        total_steps = self.total_steps
        first_step = status.epoch * self.sampler.steps
        head_only = status.epoch < config.head_epochs
        batches = self.sampler.batches(self.loader, status.epoch, status.step)
        for batch in batches:
            should_finish = self.context.should_finish()
            if self.distributed.any(should_finish):
                return False
            step = first_step + status.step
            lr_scale = lr_lambda(step, total_steps, config)
            decay = ema_decay(step, total_steps, config)
            loss = self.model.train_step(batch, lr_scale, decay, head_only)
            self.epoch_loss += loss
            status.step += 1
            self._after_step(step + 1)
        return True

    def _after_step(self, done: int) -> None:
        """Stop where that is wished, write a checkpoint where one is due, and report."""
        should_stop = self.context.should_stop()
        if self.distributed.any(should_stop):
            self.writer.write(self._checkpoint)
            raise Stopped
        if self.writer.due():
            self.writer.write_in_background(self._checkpoint())
        number = self.status.epoch + 1
        message = f"Fine-tuning: epoch {number} of at most {self.plan.epochs}"
        if self.history and len(self.data.val):
            row = self.history[-1]
            message += f", {row['val_accuracy']:.1%} right on val"
        self.context.report(done, self.total_steps, message)

    def _finish_epoch(self) -> None:
        """Evaluate, write a row of history, and keep the weights if they are the best so far."""
        status = self.status
        epoch = status.epoch + 1
        steps = self.sampler.steps
        train_loss = float(self.epoch_loss) / steps
        last_step = epoch * steps - 1
        lr_scale = lr_lambda(last_step, self.total_steps, self.config)
        lr = self.config.head_lr * lr_scale

        data = self.data
        labels = data.labels[data.val]
        val_logits = self._val_logits()
        logits = torch.from_numpy(val_logits)
        self.logits.append(logits)
        val_loss = train_loss
        val_accuracy = 0.0
        if len(labels):
            val_loss = log_loss(val_logits, labels)
            hits = val_logits.argmax(axis=1) == labels
            val_accuracy = float(hits.mean())
        best_loss = self.best.loss if self.best else math.inf
        if not len(labels) or val_loss < best_loss:  # never so for nan
            parameters = self.model.ema.parameters()
            weights = [parameter.detach().clone() for parameter in parameters]
            self.best = _BestEpoch(epoch, val_loss, logits, weights)

        now = time.monotonic()
        seconds = status.epoch_seconds + now - self.epoch_started
        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "rate": lr,
            "seconds": round(seconds, 3),
        }
        self.history.append(row)
        self._record(row)
        status.epoch = epoch
        status.step = 0
        status.epoch_seconds = 0.0
        self.epoch_loss = torch.zeros_like(self.epoch_loss)
        self.epoch_started = now

    def _record(self, row: Mapping[str, float]) -> None:
        """Hand an epoch on to whoever draws the curves."""
        context = self.context
        has_val = len(self.data.val) > 0
        rival_loss = context.rival_loss
        point = CurvePoint(
            training=context.training,
            trainings=context.trainings,
            epoch=int(row["epoch"]),
            epochs=self.config.stop_after or self.plan.epochs,
            train_loss=_finite(row["train_loss"]),
            val_loss=_finite(row["val_loss"]) if has_val else None,
            val_accuracy=row["val_accuracy"] if has_val else None,
            head_loss=_finite(rival_loss) if has_val else None,
            head_accuracy=context.rival_accuracy if has_val else None,
        )
        context.record(point)

    def _val_logits(self) -> Floats:
        """Return [v, classes] by the averaged weights; each process computes a share."""
        val = self.data.val
        count = len(val)
        first, end = self.distributed.shard(0, count)
        share = val[first:end]
        batches = []
        for start in range(0, len(share), _EVAL_BATCH_SIZE):
            batch_end = start + _EVAL_BATCH_SIZE
            batches.append(share[start:batch_end])
        shape = (count, self.data.classes)
        logits = torch.zeros(shape, device=self.device)
        if batches:
            center_crops = self.loader.batches(batches)
            share_logits = self.model.eval_logits(center_crops)
            logits[first:end] = share_logits
        self.distributed.add([logits])
        values = logits.cpu().numpy()
        return cast(Floats, values.astype(np.float64))

    def _reason_to_stop(self) -> str:
        """Return why to end after this epoch, the same in all processes; empty to go on."""
        epoch = self.status.epoch
        best_epoch = self.best.epoch if self.best else 0
        val_loss = self.history[-1]["val_loss"]
        if not math.isfinite(val_loss):
            return f"The loss left all bounds in epoch {epoch}."
        if epoch >= (self.config.stop_after or self.plan.epochs):
            return f"All {epoch} epochs were done."
        if self._is_far_behind():
            return f"The loss on val was far above the linear head's after {epoch} epochs."
        patience = self.config.patience
        if epoch - best_epoch >= patience:
            return f"{patience} epochs in a row did not lower the loss on val."
        seconds_per_epoch = self._seconds() / epoch
        seconds_after_next = seconds_per_epoch * (epoch + 1)
        over_budget = seconds_after_next > self.context.budget
        if self.distributed.any(over_budget):
            done = f"{epoch} of {self.plan.epochs} epochs"
            return f"The time budget ended the training after {done}."
        return ""

    def _is_far_behind(self) -> bool:
        """Return whether a third of the epochs left the network far behind its rival."""
        least = _LEAST_SHARE * self.plan.epochs
        if not self.best or self.status.epoch < least:
            return False
        bound = _FAR_ABOVE * self.context.rival_loss
        return self.best.loss > bound

    def _seconds(self) -> float:
        """Return the seconds spent by all attempts."""
        of_this_attempt = time.monotonic() - self.setup.started
        return self.status.seconds + of_this_attempt

    def _checkpoint(self) -> dict[str, Any]:
        """Return all that a checkpoint holds, copied to the CPU.

        Of a training that has ended it is the result alone.
        """
        status = dataclasses.asdict(self.status)
        status["seconds"] = self._seconds()
        status["epoch_seconds"] += time.monotonic() - self.epoch_started
        checkpoint: dict[str, Any] = {
            "digest": self.setup.digest,
            "plan": dataclasses.asdict(self.plan),
            "status": status,
            "history": self.history,
            "logits": self.logits,
            "best": vars(self.best) if self.best else None,
        }
        if not self.status.stop_reason:
            checkpoint["model"] = self.model.state()
            checkpoint["epoch_loss"] = self.epoch_loss
        on_cpu: dict[str, Any] = _on_cpu(checkpoint)
        return on_cpu

    def _restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was written."""
        self.status = _Status(**checkpoint["status"])
        self.history = list(checkpoint["history"])
        self.logits = list(checkpoint["logits"])
        if checkpoint["best"]:
            best = _BestEpoch(**checkpoint["best"])
            device = self.device
            on_device = [weight.to(device) for weight in best.weights]
            self.best = dataclasses.replace(best, weights=on_device)
        self.model.load_state(checkpoint["model"])
        epoch_loss = checkpoint["epoch_loss"]
        self.epoch_loss = epoch_loss.to(self.device)


def _on_cpu(value: Any) -> Any:
    """Return copies of all tensors in dicts and lists, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_cpu(value[key]) for key in value}
    if isinstance(value, list | tuple):
        return [_on_cpu(item) for item in value]
    return value


# The order in which images are learned from, and how much each counts.


@dataclass(frozen=True)
class _Batch:
    """This process's share of a step's images, on the device."""

    center_crops: Tensor
    """uint8 [b, side, side, 3]."""
    labels: Tensor
    """int64 [b]."""
    weights: Tensor
    """float32 [b]: each image's share of the loss of the whole step."""
    variations: Variations
    """How each image is varied."""

    def split(self, size: int) -> Iterator[_Batch]:
        """Yield parts of at most so many images."""
        for start in range(0, len(self.labels), size):
            part = slice(start, start + size)
            yield _Batch(
                center_crops=self.center_crops[part],
                labels=self.labels[part],
                weights=self.weights[part],
                variations=self.variations[part],
            )

    def padded(self, size: int) -> _Batch:
        """Return so many images, or all: the first is repeated, and its copies count nothing.

        All steps then have one shape, for which a GPU chooses its kernels once.
        """
        length = len(self.labels)
        if not 0 < length < size:
            return self
        indices = torch.arange(size, device=self.labels.device)
        indices[length:] = 0
        weights = self.weights[indices]
        weights[length:] = 0.0
        return _Batch(
            center_crops=self.center_crops[indices],
            labels=self.labels[indices],
            weights=weights,
            variations=self.variations[indices],
        )


class _Sampler:
    """Decides for each epoch the order of the images and how each is varied.

    It gives this process its share of each step.
    """

    def __init__(
        self,
        data: TrainData,
        config: TrainConfig,
        plan: Plan,
        distributed: DistributedContext,
    ) -> None:
        weights = sample_weights(data, config)
        train_weights = weights[data.train]
        images = data.train[train_weights > 0]
        count = len(images)
        steps = steps_per_epoch(count, plan.batch_size)
        self.seed = config.seed
        self.augmentation = config.augmentation
        self.labels = data.labels
        self.weights = weights
        self.images = images
        self.steps = steps
        self.step_starts: list[int] = []
        self.shards: list[slice] = []
        for step in range(steps):
            start = count * step // steps
            end = count * (step + 1) // steps
            shard = distributed.shard(start, end)
            self.step_starts.append(start)
            self.shards.append(slice(*shard))
        lengths = [shard.stop - shard.start for shard in self.shards]
        self.padded_size = max(lengths) if plan.device == "cuda" else 0

    def batches(self, loader: Loader, epoch: int, steps_done: int) -> Iterator[_Batch]:
        """Yield this process's share of each step of an epoch after the first `steps_done`."""
        indices, parameters = self._draw(epoch)
        loss_weights = self._loss_weights(indices)
        labels = torch.from_numpy(self.labels[indices])
        weights = torch.from_numpy(loss_weights)
        labels = labels.to(loader.device)
        weights = weights.to(loader.device)
        # Of the whole epoch at once: a GPU would wait for so many small steps in every batch.
        variations = Variations.draw(parameters.to(loader.device), self.augmentation)
        shards = self.shards[steps_done:]
        index_batches = [indices[shard] for shard in shards]
        center_crops = loader.batches(index_batches)
        for shard, crops in zip(shards, center_crops, strict=True):
            batch = _Batch(
                center_crops=crops,
                labels=labels[shard],
                weights=weights[shard],
                variations=variations[shard],
            )
            yield batch.padded(self.padded_size)

    def _draw(self, epoch: int) -> tuple[NDArray[np.int64], Tensor]:
        """Return the images of an epoch in their order, and their random parameters."""
        text = f"{self.seed} {epoch}"
        digest = hashlib.sha256(text.encode())
        seed = int(digest.hexdigest()[:15], 16)
        generator = torch.Generator()
        generator.manual_seed(seed)
        count = len(self.images)
        order = torch.randperm(count, generator=generator)
        parameters = torch.rand((count, RANDOM_PARAMETERS), generator=generator)
        images = self.images[order.numpy()]
        return images, parameters

    def _loss_weights(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return each image's share of the loss of its step, for an epoch in this order.

        Weights are divided by those of the whole step, over all processes, so that gradients need
        only be added up.
        """
        weights = self.weights[indices]
        starts = self.step_starts
        step_totals = np.add.reduceat(weights, starts)
        step_sizes = np.diff(starts, append=len(weights))
        divisors = np.repeat(step_totals, step_sizes)
        shares = weights / divisors
        return shares.astype(np.float32)


def sample_weights(data: TrainData, config: TrainConfig) -> NDArray[np.float64]:
    """Return how much each image counts [n]: its own weight times that of its class.

    A class weighs the inverse of its share of the training images, to the power of
    `config.class_balance`: 0 counts every image alike, 1 every class.
    """
    weights = data.weights.astype(np.float64)
    train_labels = data.labels[data.train]
    train_weights = weights[data.train]
    class_counts = np.bincount(train_labels, train_weights, data.classes)
    total = class_counts.sum()
    counts = np.maximum(class_counts, 1e-9)
    rarity = total / counts / data.classes
    class_weights = rarity**config.class_balance
    result: NDArray[np.float64] = weights * class_weights[data.labels]
    return result


# One step.


class _Model:
    """A copy of the network on its device, its averaged weights, and its optimizer."""

    def __init__(
        self,
        network: ClassifierNetwork,
        config: TrainConfig,
        plan: Plan,
        distributed: DistributedContext,
    ) -> None:
        self.config = config
        self.distributed = distributed
        self.precision = PRECISIONS[plan.precision]
        self.device = distributed.device(plan.device)
        self.network = copy.deepcopy(network)
        self.network.to(self.device)
        self.network.to(memory_format=self.precision.memory_format)
        self.network.eval()
        self.network.requires_grad_(True)
        self.ema = self.network
        if config.ema_share:
            self.ema = copy.deepcopy(self.network)
            self.ema.requires_grad_(False)
        # Listed once: walking through hundreds of modules in each step would keep a GPU waiting.
        self._parameters = list(self.network.parameters())
        self._head_parameters = list(self.network.head.parameters())
        self._ema_parameters = list(self.ema.parameters())
        groups = parameter_groups(self.network, config, plan.batch_size)
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(groups, fused=on_gpu)
        on_half = self.precision.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=on_half)
        share = plan.batch_size / distributed.world_size
        self.micro_batch_size = math.ceil(share)

    def cut_steps(self, parts: int) -> None:
        """Do each step in at least so many parts from here on."""
        self.micro_batch_size = math.ceil(self.micro_batch_size / parts)

    def train_step(self, batch: _Batch, lr_scale: float, decay: float, head_only: bool) -> Tensor:
        """Learn from a batch and return the loss of the whole step.

        The learning rates are multiplied by `lr_scale`; `decay` is the share of the averaged
        weights that stays.
        """
        loss = self._accumulate_gradients(batch, head_only)
        parameters = self._head_parameters if head_only else self._parameters
        for parameter in parameters:
            if parameter.grad is None:  # no image of this step fell to this process
                parameter.grad = torch.zeros_like(parameter)
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        self.distributed.add([*gradients, loss])
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(parameters, self.config.clip_grad)

        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * lr_scale
        self.scaler.step(self.optimizer)  # skipped where a gradient left float16's range
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._update_ema(decay)
        return loss

    def _update_ema(self, decay: float) -> None:
        if self.ema is self.network:
            return
        averaged: Any = self._ema_parameters
        present: Any = self._parameters
        get_ema_multi_avg_fn(decay)(averaged, present, 0)

    def eval_logits(self, center_crops: Iterator[Tensor]) -> Tensor:
        """Return logits float32 [n, classes] of all batches by the averaged weights.

        They are computed in float32 whatever the training computes in, as the delivered model's.
        """
        logits = []
        with torch.inference_mode():
            for crops in center_crops:
                batch_logits = in_halves(self._eval_logits, crops)
                logits.append(batch_logits)
            return torch.cat(logits)

    def _eval_logits(self, center_crops: Tensor) -> Tensor:
        view = eval_view(center_crops, self.ema.normalize)
        return self._forward(self.ema, view)

    def state(self) -> dict[str, Any]:
        """Return all that changes, for a checkpoint."""
        return {
            "parameters": [*self._parameters, *self._ema_parameters],
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        parameters = [*self._parameters, *self._ema_parameters]
        saved = state["parameters"]
        with torch.no_grad():
            for parameter, value in zip(parameters, saved, strict=True):
                parameter.copy_(value)

    def _accumulate_gradients(self, batch: _Batch, head_only: bool) -> Tensor:
        """Add up the gradients of a batch and return its loss.

        Where the GPU has no room, the batch is done in halved parts, whose sum is the same.
        """
        if not len(batch.labels):  # more processes than images
            return torch.zeros((), device=self.device)
        while True:
            try:
                parts = batch.split(self.micro_batch_size)
                losses = [self._backward(part, head_only) for part in parts]
                return torch.stack(losses).sum()
            except RuntimeError as error:
                if self.micro_batch_size == 1 or not is_out_of_memory(error):
                    raise
            self.cut_steps(2)
            self.optimizer.zero_grad(set_to_none=True)
            free_memory()

    def _backward(self, batch: _Batch, head_only: bool) -> Tensor:
        view = train_view(batch.center_crops, batch.variations, self.network.normalize)
        with self.precision.autocast(self.device):
            logits = self._forward(self.network, view, head_only)
        losses = functional.cross_entropy(
            logits.float(),
            batch.labels,
            reduction="none",
            label_smoothing=self.config.label_smoothing,
        )
        weighted = losses * batch.weights
        loss = weighted.sum()
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _forward(self, network: ClassifierNetwork, view: Tensor, head_only: bool = False) -> Tensor:
        body_learns = torch.is_grad_enabled() and not head_only
        with torch.set_grad_enabled(body_learns):
            images = self.precision.to_memory_format(view)
            embedding = network.embed(images)
        logits: Tensor = network.head(embedding)
        return logits


def _finite(value: float) -> float | None:
    """Return a number that JSON has a word for, else None."""
    return value if math.isfinite(value) else None


def parameter_groups(
    network: ClassifierNetwork, config: TrainConfig, batch_size: int
) -> list[dict[str, Any]]:
    """Return AdamW's groups, each with its full learning rate under `full_lr`.

    Rates fall from the last layers of the body to the first; only matrices and filters decay.
    """
    scale = math.sqrt(batch_size / _REFERENCE_BATCH_SIZE)
    head = list(network.head.parameters())
    head_lr = config.head_lr * scale
    groups = _decayed_and_not(head, head_lr, config)

    body = list(network.body.parameters())
    length = len(body)
    count = config.layer_groups
    for number in range(count):
        first = length * number // count
        end = length * (number + 1) // count
        groups_after = count - 1 - number
        decay = config.layer_decay**groups_after
        lr = config.lr * decay * scale
        parameters = body[first:end]
        groups += _decayed_and_not(parameters, lr, config)
    return groups


def _decayed_and_not(
    parameters: list[nn.Parameter], lr: float, config: TrainConfig
) -> list[dict[str, Any]]:
    """Return a group with weight decay and one without, leaving out an empty one."""
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = []
    for chosen, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
        if chosen:
            groups.append({"params": chosen, "full_lr": lr, "lr": 0.0, "weight_decay": decay})
    return groups


def lr_lambda(step: int, total: int, config: TrainConfig) -> float:
    """Return the share of the full learning rate in a step, counted from 0.

    It rises in a straight line and then falls along half a cosine.
    """
    warmup = max(1.0, config.warmup_share * total)
    if step < warmup:
        share = (step + 1) / warmup
        return min(1.0, share)
    falling_steps = max(1.0, total - warmup)
    progress = (step - warmup) / falling_steps
    cosine = math.cos(math.pi * progress)
    falling_share = (1 + cosine) / 2
    final = config.final_lr_share
    return final + (1 - final) * falling_share


def ema_decay(step: int, total: int, config: TrainConfig) -> float:
    """Return the share of the averaged weights that stays in a step, counted from 0.

    It is less in the first steps, so that the initial weights are soon forgotten: at most
    (1 + t) / (10 + t), as TensorFlow's ExponentialMovingAverage has it.
    """
    averaged_steps = max(1.0, config.ema_share * total)
    decay = 1 - 1 / averaged_steps
    early_decay = (1 + step) / (10 + step)
    return min(decay, early_decay)
