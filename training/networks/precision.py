"""Which precision a machine computes a network with fastest: measured once, and noted for the runs
that follow.
"""

from __future__ import annotations

import json
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

_BATCH = 8  # pictures in a trial
# trials of each candidate, in turn, so that a busy moment of the machine slows them all; the first
# warms up
_ROUNDS = 3
_CLEARLY = 1.1  # how many times faster than exact precision a coarser one must be


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
        with torch.autocast(
            device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16
        ):
            yield

    @property
    def memory_format(self) -> torch.memory_format:
        """Return the layout of weights and images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def to_memory_format(self, pictures: Tensor) -> Tensor:
        """A batch [n, 3, h, w] in this layout."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return pictures.contiguous(memory_format=layout)


PLAIN = Precision("float32", torch.float32, channels_last=False)
FP32 = Precision("float32, channels-last", torch.float32, channels_last=True)
"""The same numbers as plain float32, in the layout that convolutions read fastest."""
BF16 = Precision("bfloat16, channels-last", torch.bfloat16, channels_last=True)
PRECISIONS: Mapping[str, Precision] = {
    candidate.name: candidate for candidate in (PLAIN, FP32, BF16)
}


def choose_precision(network: ClassifierNetwork, note: Path) -> Precision:
    """The fastest precision for this backbone on this machine: noted in the JSON file `note`, else
    measured now.
    """
    key = _machine_and(network)
    notes = _read(note)
    known = PRECISIONS.get(str(notes.get(key)))
    if known:
        return known
    chosen = fastest(time_precisions(network, tuple(PRECISIONS.values())))
    with suppress(OSError):  # a machine whose cache cannot be written measures again next time
        write_json(note, {**notes, key: chosen.name})
    return chosen


def fastest(seconds: Mapping[str, float]) -> Precision:
    """The candidate with the shortest time; the coarse one only where it is clearly faster than the
    exact ones.
    """
    exact = min(
        (name for name in seconds if PRECISIONS[name].dtype == torch.float32),
        key=seconds.__getitem__,
    )
    best = min(seconds, key=seconds.__getitem__)
    return PRECISIONS[best if seconds[best] * _CLEARLY < seconds[exact] else exact]


def time_precisions(
    network: ClassifierNetwork,
    candidates: Sequence[Precision],
    batch: int = _BATCH,
    rounds: int = _ROUNDS,
) -> dict[str, float]:
    """Seconds that the network's body needs for a batch in each candidate: the best of the rounds
    after the first.
    """
    device = network.temperature.device
    pictures = torch.rand((batch, 3, CROP, CROP), device=device)
    best = {candidate.name: float("inf") for candidate in candidates}
    for number in range(rounds):
        for candidate in candidates:
            seconds = _seconds(network, candidate, pictures, device)
            if number:
                best[candidate.name] = min(best[candidate.name], seconds)
    return best


def _seconds(
    network: ClassifierNetwork, precision: Precision, pictures: Tensor, device: torch.device
) -> float:
    layout = torch.channels_last if precision.channels_last else torch.contiguous_format
    network.body.to(memory_format=layout)
    started = time.perf_counter()
    with torch.inference_mode(), precision.autocast(device):
        network.embed(precision.to_memory_format(pictures))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _machine_and(network: ClassifierNetwork) -> str:
    """What the choice depends on: the processor's abilities or the GPU, the library, the threads
    and the backbone.
    """
    device = network.temperature.device
    ability = torch.backends.cpu.get_cpu_capability()
    processor = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{ability} x{torch.get_num_threads()}"
    )
    return f"{network.backbone.name}, {processor}, torch {torch.__version__}"


def _read(note: Path) -> dict[str, str]:
    """The notes, or none where the file is missing or makes no sense: then the machine is measured
    again.
    """
    try:
        notes = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}
