"""The precision in which a machine computes a network fastest.

It is measured once, and noted for the runs that follow.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.networks.catalogue import CROP
from training.networks.classifier import ClassifierNetwork
from training.run_folder import write_json

_log = logging.getLogger("training")

_BATCH_SIZE = 8  # images in a trial
_ROUNDS = 3  # of all precisions in turn, so that a busy moment slows them all; the first warms up
_BF16_CAPABILITY = (8, 0)  # of NVIDIA's GPUs, from Ampere on
_HALF_GAIN = 1.1  # times faster than float32 that a precision of 16 bits must be


@dataclass(frozen=True)
class Precision:
    """How numbers are kept and laid out while a network computes."""

    name: str
    dtype: torch.dtype
    """Of the products; sums and weights stay float32."""
    channels_last: bool

    @contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """Compute products in this precision meanwhile."""
        if self.dtype == torch.float32:
            yield
            return
        with torch.autocast(device.type, dtype=self.dtype):
            yield

    @property
    def memory_format(self) -> torch.memory_format:
        """Return the layout of weights and images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def to_memory_format(self, images: Tensor) -> Tensor:
        """Return a batch [n, 3, h, w] in this layout."""
        return images.contiguous(memory_format=self.memory_format)


FP32_CONTIGUOUS = Precision("float32", torch.float32, channels_last=False)
FP32 = Precision("float32, channels-last", torch.float32, channels_last=True)
"""The same numbers, in the layout that convolutions read fastest."""
BF16 = Precision("bfloat16, channels-last", torch.bfloat16, channels_last=True)
FP16 = Precision("float16, channels-last", torch.float16, channels_last=True)
"""For GPUs before Ampere, which have no bfloat16; its range is small, so that losses are scaled."""
PRECISIONS: Mapping[str, Precision] = {
    precision.name: precision for precision in (FP32_CONTIGUOUS, FP32, BF16, FP16)
}
"""By name, as run folders, metrics and notes have it."""


def exact_float32() -> None:
    """Let GPUs compute float32 as float32 from here on, in this process.

    By default cuDNN rounds its products to TF32's 10 bits, so that features would differ from those
    of the delivered model, and the same image's on a CPU, in the third digit.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def computes_bf16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 itself; older GPUs imitate it, slowly or not at all."""
    if device.type != "cuda":
        return True
    return torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY


def half_precision(device: torch.device) -> Precision:
    """Return the precision of 16 bits that a device has itself."""
    return BF16 if computes_bf16(device) else FP16


def choose_precision(network: ClassifierNetwork, notes_path: Path) -> Precision:
    """Return the fastest precision for this backbone on this machine.

    It is noted in a JSON file, or else measured now.
    """
    key = _machine_key(network)
    notes = _read_notes(notes_path)
    noted = str(notes.get(key))
    if noted in PRECISIONS:
        return PRECISIONS[noted]
    precisions = [FP32_CONTIGUOUS, FP32, half_precision(network.device)]
    seconds = time_precisions(network, precisions)
    chosen = fastest(seconds)
    notes[key] = chosen.name
    with suppress(OSError):  # a machine whose cache cannot be written measures again next time
        write_json(notes_path, notes)
    return chosen


def fastest(seconds: Mapping[str, float]) -> Precision:
    """Return the precision with the shortest time; 16 bits only where they are clearly faster."""
    names = sorted(seconds, key=seconds.__getitem__)
    ranked = [PRECISIONS[name] for name in names]
    in_fp32 = [precision for precision in ranked if precision.dtype == torch.float32]
    best = ranked[0]
    if not in_fp32:
        return best
    best_fp32 = in_fp32[0]
    needed = seconds[best.name] * _HALF_GAIN
    if needed < seconds[best_fp32.name]:
        return best
    return best_fp32


def time_precisions(
    network: ClassifierNetwork,
    precisions: Sequence[Precision],
    batch_size: int = _BATCH_SIZE,
    rounds: int = _ROUNDS,
) -> dict[str, float]:
    """Return the seconds that the network's body needs for a batch in each precision.

    They are the best of the rounds after the first. What fails is left out, unless all fails.
    """
    device = network.device
    shape = (batch_size, 3, CROP, CROP)
    images = torch.rand(shape, device=device)
    best = {precision.name: math.inf for precision in precisions}
    for number in range(rounds):
        for precision in precisions:
            name = precision.name
            if name not in best:
                continue
            try:
                seconds = _seconds(network, precision, images, device)
            except RuntimeError:
                _log.info("%s cannot be computed here", name, exc_info=True)
                del best[name]
                if not best:
                    raise
                continue
            if number > 0:
                best[name] = min(best[name], seconds)
    return best


def _seconds(
    network: ClassifierNetwork, precision: Precision, images: Tensor, device: torch.device
) -> float:
    network.body.to(memory_format=precision.memory_format)
    started = time.perf_counter()
    with torch.inference_mode(), precision.autocast(device):
        embeddings = network.embed(precision.to_memory_format(images))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    if not embeddings.isfinite().all():
        raise RuntimeError("the embeddings left the range of the numbers")
    return seconds


def _machine_key(network: ClassifierNetwork) -> str:
    """Return what the choice depends on.

    That is the GPU or the processor's abilities and the threads, the library and the backbone.
    """
    device = network.device
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        processor = f"{capability} x{torch.get_num_threads()}"
    backbone = network.backbone.name
    return f"{backbone}, {processor}, torch {torch.__version__}"


def _read_notes(path: Path) -> dict[str, str]:
    """Return the notes; none where the file is missing or damaged, then all is measured again."""
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}
