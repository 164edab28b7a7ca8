"""What is made of a GPU that refuses: told apart, worked around, or left with a notice."""

import pytest
import torch
from torch import Tensor

from training.networks.devices import (
    choose_device,
    in_halves,
    is_out_of_memory,
    try_convolution,
    why_unusable,
)


def without_kernels(device: torch.device) -> None:
    raise RuntimeError("CUDA error: no kernel image is available\nCompile with more.")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("CUDA out of memory"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error: Exception, told: bool) -> None:
    assert is_out_of_memory(error) is told


@pytest.mark.parametrize("room", [1, 3, 9])
def test_a_batch_without_room_is_done_in_halves_in_order(room: int) -> None:
    def double(batch: Tensor) -> Tensor:
        if len(batch) > room:
            raise torch.OutOfMemoryError
        return 2 * batch

    batch = torch.arange(9.0)
    assert torch.equal(in_halves(double, batch), 2 * batch)


def test_one_image_without_room_raises() -> None:
    def refuse(batch: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        in_halves(refuse, torch.arange(4.0))


def test_a_gpu_that_computes_is_used_and_one_that_cannot_is_named_in_a_notice() -> None:
    assert choose_device(False, without_kernels) == ("cpu", "")
    assert choose_device(True, lambda device: None) == ("cuda", "")
    device, notice = choose_device(True, without_kernels)
    assert device == "cpu"
    assert "no kernel image is available" in notice
    assert "Compile" not in notice
    assert notice.endswith("the CPU was used.")


def test_the_trial_is_a_real_convolution() -> None:
    assert why_unusable("cpu", try_convolution) == ""
    assert bool(why_unusable("cuda", try_convolution)) is not torch.cuda.is_available()
