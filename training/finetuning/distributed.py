"""The processes that torchrun starts, and how they talk while they fine-tune one network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# For workers that wait while the main process extracts features and fits heads.
_WAITING_TIMEOUT = timedelta(hours=24)
# For a step that the others wait to share: one that failed must not keep them for a day.
_STEP_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class DistributedContext:
    """Which of how many processes this one is, as torchrun sets in RANK, WORLD_SIZE, LOCAL_RANK."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    messages: Any = field(default=None, compare=False)
    """The group in which workers wait for messages; set by `process_group`."""

    @property
    def is_main(self) -> bool:
        """Return whether this is the process that reads and writes the run folder."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """Return this process's own device of a kind, cpu or cuda."""
        if kind == "cuda":
            return torch.device("cuda", self.local_rank)
        return torch.device(kind)

    def shard(self, start: int, end: int) -> tuple[int, int]:
        """Return the bounds of this process's share of a range; shares differ by one at most."""
        length = end - start
        next_rank = self.rank + 1
        before = length * self.rank // self.world_size
        through = length * next_rank // self.world_size
        return start + before, start + through

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes.

        All processes give tensors of the same shapes in the same order.
        """
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)  # one message instead of hundreds
        totals = flat.split([tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, totals, strict=True):
            tensor.copy_(total.view(tensor.shape))

    def any(self, here: bool) -> bool:
        """Return whether it holds in any process."""
        if self.world_size == 1:
            return here
        flag = torch.tensor([int(here)])
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def send(self, message: bytes) -> None:
        """Send a message from the main process to the workers, who wait in `receive`."""
        length = torch.tensor([len(message)])
        dist.broadcast(length, src=0, group=self.messages)
        if message:
            writable = bytearray(message)
            content = torch.frombuffer(writable, dtype=torch.uint8)
            dist.broadcast(content, src=0, group=self.messages)

    def receive(self) -> bytes:
        """Wait for the main process's message, a day at most."""
        length = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(length, src=0, group=self.messages)
        content = torch.empty(int(length.item()), dtype=torch.uint8)
        if len(content):
            dist.broadcast(content, src=0, group=self.messages)
        return content.numpy().tobytes()


SINGLE_PROCESS = DistributedContext()


@contextmanager
def process_group(distributed: DistributedContext) -> Iterator[DistributedContext]:
    """Join the other processes meanwhile, and yield the context to reach them by.

    One process alone gets its own context back.

    Where to meet is read by torch itself from what torchrun has set. Messages travel over gloo,
    gradients on GPUs over NCCL, so that a process that waits for hours leaves its GPU idle.
    """
    if distributed.world_size == 1:
        yield distributed
        return
    backend = "gloo"
    if torch.cuda.is_available():  # whatever the run computes on: all processes must agree
        torch.cuda.set_device(distributed.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend,
        rank=distributed.rank,
        world_size=distributed.world_size,
        timeout=_STEP_TIMEOUT,
    )
    try:
        messages = dist.new_group(backend="gloo", timeout=_WAITING_TIMEOUT)
        yield dataclasses.replace(distributed, messages=messages)
    finally:
        dist.destroy_process_group()
