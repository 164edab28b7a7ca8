"""What a GPU can do, and what to make of its refusals."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# How cuDNN and cuBLAS say that there is no room, as plain RuntimeErrors. cuDNN also says "not
# supported" where its workspace found none; then one image less may do, or else nothing will.
_REFUSALS = (
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA out of memory",
    "CUDA error: out of memory",
)
_UNUSABLE_NOTICE = (
    "The GPU of this machine could not be used by the installed torch ({reason}): the CPU was used."
)
_SHOWN_COLUMNS = 100  # of what torch says, which may go on for pages


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a GPU has no room, in the words of any of its libraries."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(refusal in text for refusal in _REFUSALS)


def free_memory() -> None:
    """Give back what torch keeps of a GPU's memory for later."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def in_halves(compute: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Return `compute(batch)`, done in halves and quarters where a GPU has no room for it.

    For what treats each image by itself and keeps nothing for gradients. Raises what the GPU says
    where there is no room for one image.
    """
    try:
        return compute(batch)
    except RuntimeError as error:
        if len(batch) <= 1 or not is_out_of_memory(error):
            raise
    free_memory()
    middle = (len(batch) + 1) // 2
    first = in_halves(compute, batch[:middle])
    second = in_halves(compute, batch[middle:])
    return torch.cat([first, second])


def try_convolution(device: torch.device) -> None:
    """Compute one small convolution; raise what torch says where it cannot.

    A GPU may be there for which the installed torch has no code.
    """
    layer = nn.Conv2d(3, 8, 3)
    layer.to(device)
    images = torch.ones((1, 3, 8, 8), device=device)
    with torch.inference_mode():
        layer(images).sum().item()


def choose_device(gpu_seen: bool, trial: Callable[[torch.device], None]) -> tuple[str, str]:
    """Return cuda or cpu for who leaves it open, and a notice where a GPU cannot be used.

    `trial` computes on the device and raises where that fails.
    """
    if not gpu_seen:
        return "cpu", ""
    reason = why_unusable("cuda", trial)
    if not reason:
        return "cuda", ""
    return "cpu", _UNUSABLE_NOTICE.format(reason=reason)


def why_unusable(kind: str, trial: Callable[[torch.device], None]) -> str:
    """Return the first line of what a trial on a device fails with; empty where it works."""
    try:
        trial(torch.device(kind))
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        lines = str(error).splitlines() or [type(error).__name__]
        return lines[0][:_SHOWN_COLUMNS]
    return ""
