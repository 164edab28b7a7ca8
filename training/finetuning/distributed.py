"""The processes that torchrun starts: how they talk while they fine-tune one network together.
torch alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

_PATIENCE = timedelta(
    hours=24
)  # for a process that waits while the first looks at pictures and fits heads


@dataclass(frozen=True)
class DistributedContext:
    """Which of how many processes this one is, as torchrun says in RANK, WORLD_SIZE and
    LOCAL_RANK.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that reads and writes the run folder."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """This process's own device of a kind, cpu or cuda."""
        return torch.device("cuda", self.local_rank) if kind == "cuda" else torch.device(kind)

    def part(self, start: int, end: int) -> tuple[int, int]:
        """This process's share of the places from start to end; the shares differ by one at
        most.
        """
        length = end - start
        return start + length * self.rank // self.world_size, start + length * (
            self.rank + 1
        ) // self.world_size

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes; all have the same shapes in the same
        order.
        """
        if self.world_size == 1 or not tensors:
            return
        together = torch.cat(
            [tensor.reshape(-1) for tensor in tensors]
        )  # one message instead of hundreds
        dist.all_reduce(together)
        for tensor, total in zip(
            tensors, together.split([tensor.numel() for tensor in tensors]), strict=True
        ):
            tensor.copy_(total.view(tensor.shape))

    def any(self, here: bool) -> bool:
        """Whether it holds in any process."""
        if self.world_size == 1:
            return here
        flag = torch.tensor([int(here)])
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def send(self, message: bytes) -> None:
        """Give the others, who are waiting in `receive`, a message. For the first process."""
        dist.broadcast(torch.tensor([len(message)]), src=0)
        if message:
            dist.broadcast(torch.frombuffer(bytearray(message), dtype=torch.uint8), src=0)

    def receive(self) -> bytes:
        """Wait for the first process's message, a day at most."""
        length = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(length, src=0)
        received = torch.empty(int(length.item()), dtype=torch.uint8)
        if len(received):
            dist.broadcast(received, src=0)
        return received.numpy().tobytes()


SINGLE_PROCESS = DistributedContext()


@contextmanager
def process_group(distributed: DistributedContext) -> Iterator[None]:
    """Join the others for as long as this lasts; nothing to do for one process alone.

    Where to meet is read by torch itself from what torchrun has set. Words travel over gloo,
    gradients on GPUs over NCCL, so that a process that waits for hours leaves its GPU alone.
    """
    if distributed.world_size == 1:
        yield
        return
    cuda = (
        torch.cuda.is_available()
    )  # whatever the run then computes on: all processes must meet the same way
    if cuda:
        torch.cuda.set_device(distributed.local_rank)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(
        backend, rank=distributed.rank, world_size=distributed.world_size, timeout=_PATIENCE
    )
    try:
        yield
    finally:
        dist.destroy_process_group()
