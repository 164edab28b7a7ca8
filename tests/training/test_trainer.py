import dataclasses
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.tiny_training import CONFIG, NO_LIMIT, TINY, digits, tiny_network
from training.finetuning import trainer
from training.finetuning.checkpoint import read_checkpoint, write_checkpoint
from training.finetuning.distributed import DistributedContext
from training.finetuning.trainer import (
    EPOCHS,
    NotTrained,
    Plan,
    TrainConfig,
    TrainContext,
    TrainData,
    TrainResult,
    epochs_that_fit,
    finetune,
    lr_lambda,
    make_plan,
    parameter_groups,
    sample_weights,
)
from training.finetuning.views import eval_view
from training.metrics import log_loss
from training.networks.classifier import ClassifierNetwork
from training.networks.precision import BF16, FP16, FP32
from training.progress import Stopped

PROJECT = Path(__file__).resolve().parents[2]
PROGRAM = PROJECT / "tests" / "training" / "tiny_training.py"
PLAN = Plan(epochs=4, batch_size=10, precision=FP32.name, device="cpu")
STEPS = 12  # of that plan: 30 images to learn from


class Reports:
    """Progress that is remembered."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.totals: list[int] = []
        self.messages: list[str] = []

    def __call__(self, done: int, total: int, message: str = "", /) -> None:
        self.done.append(done)
        self.totals.append(total)
        self.messages.append(message)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The same sums in every run, and in the programs that these tests start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path: Path) -> TrainData:
    return digits(tmp_path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """What a training that nothing happens to ends in."""
    folder = tmp_path_factory.mktemp("expected")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    result = trained(folder, digits(folder))
    torch.set_num_threads(before)
    return result


def context(folder: Path, **values: Any) -> TrainContext:
    values = {"budget": NO_LIMIT, "precision": FP32, "plan": PLAN, **values}
    return TrainContext(folder, **values)


def trained(
    folder: Path, data: TrainData, config: TrainConfig = CONFIG, **values: Any
) -> TrainResult:
    network = tiny_network(data.classes)
    result = finetune(network, data, config, context(folder, **values))
    assert isinstance(result, TrainResult), result
    return result


def refused(folder: Path, data: TrainData, **values: Any) -> str:
    """Return why there is no fine-tuned network."""
    result = finetune(tiny_network(), data, CONFIG, context(folder, **values))
    assert isinstance(result, NotTrained)
    return result.reason


def stop_in_the_middle(folder: Path, data: TrainData, steps: int = 5, **values: Any) -> None:
    with pytest.raises(Stopped):
        trained(folder, data, should_stop=stop_after(steps), **values)


def stop_after(steps: int) -> Callable[[], bool]:
    count = itertools.count(1)
    return lambda: next(count) >= steps


def assert_same(one: TrainResult, other: TrainResult, tolerance: float = 0.0) -> None:
    assert one.best_epoch == other.best_epoch
    assert len(one.epochs) == len(other.epochs)
    assert_close(one.state, one.val_logits, other, tolerance)
    for mine, theirs in zip(one.epochs, other.epochs, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=tolerance)
        assert mine["val_loss"] == pytest.approx(theirs["val_loss"], abs=tolerance)


def assert_close(
    state: dict[str, Tensor], val_logits: np.ndarray, expected: TrainResult, tolerance: float
) -> None:
    differences = np.abs(val_logits - expected.val_logits)
    assert differences.max() <= tolerance
    assert state.keys() == expected.state.keys()
    for name, tensor in state.items():
        difference = tensor - expected.state[name]
        assert difference.abs().max() <= tolerance, name


def loaded(data: TrainData, result: TrainResult) -> ClassifierNetwork:
    network = tiny_network(data.classes)
    network.load_state_dict(result.state, strict=False)
    return network


def test_the_body_learns_what_the_head_alone_cannot_make_up_for(
    tmp_path: Path, data: TrainData
) -> None:
    center_crops = data.cache.center_crops
    brightness = 90 * data.labels[:, None, None, None]
    center_crops[:] = center_crops // 4 + brightness  # what even a tiny body learns soon
    network = tiny_network()
    torch.nn.init.zeros_(network.body.third.weight)
    torch.nn.init.ones_(network.body.third.bias)  # the same embedding for every image
    network.set_head(torch.randn(3, 16), torch.zeros(3), 1.0)
    plan = dataclasses.replace(PLAN, epochs=8)

    def lowest_loss(folder: Path, config: TrainConfig) -> float:
        result = finetune(network, data, config, context(folder, plan=plan))
        assert isinstance(result, TrainResult)
        return min(row["val_loss"] for row in result.epochs)

    both = dataclasses.replace(CONFIG, lr=0.02, head_lr=0.05, layer_decay=1.0)
    head_alone = dataclasses.replace(both, lr=0.0)
    assert lowest_loss(tmp_path / "both", both) < math.log(3) - 0.1
    assert lowest_loss(tmp_path / "head alone", head_alone) > math.log(3) - 0.01


def test_the_result_is_the_best_epoch_and_the_given_network_stays_as_it_was(
    tmp_path: Path, data: TrainData
) -> None:
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = finetune(network, data, CONFIG, context(tmp_path))
    assert isinstance(result, TrainResult)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])

    losses = [row["val_loss"] for row in result.epochs]
    assert [row["epoch"] for row in result.epochs] == [1, 2, 3, 4]
    assert losses[result.best_epoch - 1] == min(losses)
    val_labels = data.labels[data.val]
    assert log_loss(result.val_logits, val_labels) == pytest.approx(min(losses))

    again = loaded(data, result)
    val_crops = torch.from_numpy(data.cache.center_crops[data.val])
    with torch.inference_mode():
        view = eval_view(val_crops, again.normalize)
        logits = again.head(again.embed(view)).numpy()
    assert np.abs(logits - result.val_logits).max() < 1e-4
    assert not torch.equal(result.state["body.first.weight"], before["body.first.weight"])
    for name in ("body.normal.running_mean", "body.normal.running_var"):
        assert torch.equal(result.state[name], before[name])


def test_progress_counts_steps_and_says_how_many_there_are(tmp_path: Path, data: TrainData) -> None:
    reports = Reports()
    trained(tmp_path, data, report=reports)
    assert reports.done == [*range(1, STEPS + 1), STEPS]
    assert set(reports.totals) == {STEPS}
    assert "epoch 2 of at most 4" in reports.messages[4]
    assert "% right on val" in reports.messages[4]


def run_program(
    folder: Path, *flags: str, launcher: tuple[str, ...] = ()
) -> tuple[int, dict[str, Any] | None]:
    """Return exit code and result of the program that fine-tunes in a folder."""
    out = folder / "out.pt"
    environment = {
        "PYTHONPATH": str(PROJECT),
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
    }
    done = subprocess.run(
        [sys.executable, *launcher, str(PROGRAM), str(folder), str(out), *flags],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode in (0, -9), done.stderr[-3000:]
    result = torch.load(out, weights_only=True) if out.exists() else None
    return done.returncode, result


def test_killed_in_the_middle_of_an_epoch_and_started_again_it_ends_the_same(
    tmp_path: Path, expected: TrainResult
) -> None:
    code, result = run_program(tmp_path, "--die-after", "8")
    assert code == -9
    assert result is None
    assert (tmp_path / "finetune.pt").exists()
    code, result = run_program(tmp_path)
    assert code == 0
    assert result is not None
    assert_close(result["state"], result["logits"].numpy(), expected, tolerance=0.0)


def test_two_processes_of_torchrun_end_as_one_alone(tmp_path: Path, expected: TrainResult) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    code, result = run_program(tmp_path, launcher=launcher)
    assert code == 0
    assert result is not None
    assert_close(result["state"], result["logits"].numpy(), expected, tolerance=1e-3)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_asked_to_stop_it_stops_after_the_step_and_goes_on_from_there(
    tmp_path: Path, data: TrainData, expected: TrainResult, steps: int
) -> None:
    stop_in_the_middle(tmp_path, data, steps)
    reports = Reports()
    result = trained(tmp_path, data, report=reports)
    assert reports.done[0] == steps + 1
    assert_same(result, expected)


def test_asked_to_finish_it_ends_before_the_next_step_with_the_best_epoch_so_far(
    tmp_path: Path, data: TrainData, expected: TrainResult
) -> None:
    result = trained(tmp_path, data, should_finish=stop_after(9))  # three steps an epoch
    assert result.stop_reason == "Fine-tuning was ended on request after 2 of 4 epochs."
    of_two = [row["val_loss"] for row in expected.epochs[:2]]
    assert [row["val_loss"] for row in result.epochs] == of_two
    assert result.best_epoch == 1 + int(np.argmin(of_two))
    assert_same(result, trained(tmp_path, data))  # it stays ended


def test_a_killed_training_that_was_asked_to_finish_ends_when_it_is_taken_up(
    tmp_path: Path, data: TrainData
) -> None:
    stop_in_the_middle(tmp_path, data, steps=8)
    result = trained(tmp_path, data, should_finish=lambda: True)
    assert result.stop_reason == "Fine-tuning was ended on request after 2 of 4 epochs."


def test_asked_to_finish_before_an_epoch_is_done_there_is_no_network(
    tmp_path: Path, data: TrainData
) -> None:
    assert "before its first epoch" in refused(tmp_path, data, should_finish=lambda: True)
    reason = refused(tmp_path, data, should_finish=stop_after(4))
    assert "on request after 0 of 4 epochs" in reason and "gave no network" in reason


def test_a_training_that_has_ended_is_not_done_again(tmp_path: Path, data: TrainData) -> None:
    first = trained(tmp_path, data)
    reports = Reports()
    again = trained(tmp_path, data, report=reports, should_stop=lambda: True)
    assert reports.done == []
    assert_same(first, again)


def test_what_timing_decided_is_noted_before_the_first_step(
    tmp_path: Path, data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, max_epochs_cpu=3)
    first = trained(tmp_path, data, config, plan=None)
    (tmp_path / "finetune.pt").unlink()
    monkeypatch.setattr(trainer._StepTimer, "seconds_per_image", lambda *given: NO_LIMIT)
    again = trained(tmp_path, data, config, plan=None)
    assert again.plan == first.plan and again.plan.epochs == 3
    assert_same(again, first)
    other = finetune(tiny_network(), data, CONFIG, context(tmp_path, plan=None))
    assert isinstance(other, NotTrained) and other.too_slow, "of another training it says nothing"


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"digest": "0"}', b'{"digest": "0", "plan": 1}'])
def test_a_damaged_note_of_the_plan_is_made_anew(
    tmp_path: Path, data: TrainData, damage: bytes
) -> None:
    note = tmp_path / "finetune-plan.json"
    note.write_bytes(damage)
    plan = trained(tmp_path, data, plan=None).plan
    assert json.loads(note.read_text())["plan"] == dataclasses.asdict(plan)


@pytest.mark.parametrize("change", ["config", "labels", "weights", "network"])
def test_a_checkpoint_of_another_training_is_ignored(
    tmp_path: Path, data: TrainData, change: str
) -> None:
    stop_in_the_middle(tmp_path, data)
    network = tiny_network()
    config = CONFIG
    if change == "config":
        config = dataclasses.replace(CONFIG, label_smoothing=0.2)
    elif change == "network":
        network.set_head(torch.ones(3, 16), torch.zeros(3), 1.0)
    elif change == "labels":
        data = dataclasses.replace(data, labels=data.labels[::-1].copy())
    else:
        data = dataclasses.replace(data, weights=data.weights * 2)
    reports = Reports()
    other = context(tmp_path, report=reports, should_stop=stop_after(3))
    with pytest.raises(Stopped):
        finetune(network, data, config, other)
    assert reports.done == [1, 2]


@pytest.mark.parametrize("damage", ["cut off", "a bit flipped", "empty", "another file"])
def test_f15_a_damaged_checkpoint_is_ignored(tmp_path: Path, data: TrainData, damage: str) -> None:
    stop_in_the_middle(tmp_path, data)
    path = tmp_path / "finetune.pt"
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    written = {
        "cut off": content[:-100],
        "a bit flipped": bytes(flipped),
        "empty": b"",
        "another file": b"no checkpoint" * 9,
    }
    path.write_bytes(written[damage])
    reports = Reports()
    stop_in_the_middle(tmp_path, data, steps=2, report=reports)
    assert reports.done == [1]


def test_a_checkpoint_with_the_keys_of_the_version_before_is_ignored(
    tmp_path: Path, data: TrainData
) -> None:
    stop_in_the_middle(tmp_path, data)
    path = tmp_path / "finetune.pt"
    checkpoint = read_checkpoint(path)
    assert checkpoint is not None
    plan = {"epochs": 4, "batch": 10, "arithmetic": FP32.name, "device": "cpu"}
    at = {"epoch": 0, "step": 5, "seconds": 1.0, "epoch_seconds": 1.0, "ended": ""}
    before = {"digest": "0" * 64, "plan": plan, "at": at, "history": [], "best": None}
    write_checkpoint(path, {**before, "learner": checkpoint["model"]})
    reports = Reports()
    stop_in_the_middle(tmp_path, data, steps=2, report=reports)
    assert reports.done == [1]


def test_a_budget_that_has_been_used_up_by_earlier_attempts_ends_the_training(
    tmp_path: Path, data: TrainData
) -> None:
    stop_in_the_middle(tmp_path, data)
    result = trained(tmp_path, data, budget=1e-3)
    assert len(result.epochs) == 2
    assert result.stop_reason == "The time budget ended the training after 2 of 4 epochs."


def test_the_seconds_of_the_preparation_are_not_taken_for_those_of_an_epoch(
    tmp_path: Path, data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = [0.0]

    def prepare() -> None:
        passed[0] += 2 * NO_LIMIT

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr(trainer, "time", clock)
    result = trained(tmp_path, data, prepare=prepare)
    assert len(result.epochs) == 4 and result.seconds < NO_LIMIT


def test_a_machine_too_slow_for_the_budget_says_so_in_numbers(
    tmp_path: Path, data: TrainData
) -> None:
    reason = refused(tmp_path, data, budget=1e-3, plan=None)
    assert reason.startswith("One epoch of fine-tuning takes about ")
    assert "the 0.001 s that are left" in reason
    reason = refused(tmp_path, data, budget=-5.0, plan=None)
    assert "nothing is left of the time budget" in reason
    assert not (tmp_path / "finetune.pt").exists()


def test_a_machine_fast_enough_gets_a_plan_with_the_most_epochs(
    tmp_path: Path, data: TrainData
) -> None:
    config = dataclasses.replace(CONFIG, max_epochs_cpu=15)
    unlimited = context(tmp_path, precision=BF16, plan=None)
    plan = make_plan(tiny_network(), data, config, unlimited, "cpu")
    assert isinstance(plan, Plan)
    assert plan.epochs == 15
    assert plan.batch_size == 10
    assert plan.device == "cpu"
    assert plan.precision in (FP32.name, BF16.name)

    unset = dataclasses.replace(config, batch_size=0)
    in_fp32 = dataclasses.replace(unlimited, precision=FP32)
    plan = make_plan(tiny_network(), data, unset, in_fp32, "cpu")
    assert isinstance(plan, Plan)
    assert plan.batch_size == 16


@pytest.mark.parametrize(
    ("seconds", "epoch", "most", "expected"),
    [(600, 80, 100, 6), (600, 1, 20, 20), (600, 1, 100, 100), (79, 20, 20, 3), (19, 20, 20, 0)],
)
def test_epochs_are_as_many_of_a_few_choices_as_fit(
    seconds: float, epoch: float, most: int, expected: int
) -> None:
    assert epochs_that_fit(seconds, epoch, most) == expected
    assert expected in (0, *EPOCHS)


def test_training_ends_when_the_loss_on_val_falls_no_more(tmp_path: Path, data: TrainData) -> None:
    config = dataclasses.replace(CONFIG, lr=0.0, head_lr=0.0, patience=2)
    result = trained(tmp_path, data, config)
    assert len(result.epochs) == 3
    assert result.best_epoch == 1
    assert result.stop_reason == "2 epochs in a row did not lower the loss on val."


def test_rates_that_destroy_the_network_give_none_and_the_reason(
    tmp_path: Path, data: TrainData
) -> None:
    config = dataclasses.replace(CONFIG, lr=1e30, head_lr=1e30)
    result = finetune(tiny_network(), data, config, context(tmp_path))
    assert isinstance(result, NotTrained)
    assert "left all bounds in epoch 1" in result.reason


def test_the_epochs_of_the_head_leave_the_body_alone(tmp_path: Path, data: TrainData) -> None:
    config = dataclasses.replace(CONFIG, head_epochs=4)
    result = trained(tmp_path, data, config)
    start = tiny_network().state_dict()
    for name, tensor in result.state.items():
        if name.startswith("body."):
            assert torch.equal(tensor, start[name])
    assert not torch.equal(result.state["head.weight"], start["head.weight"])


def test_an_image_without_weight_teaches_nothing(tmp_path: Path, data: TrainData) -> None:
    left_out = data.train[:5]
    weights = data.weights.copy()
    weights[left_out] = 0
    without = dataclasses.replace(data, weights=weights)
    one = trained(tmp_path / "one", without)
    without.cache.center_crops[left_out] = 77
    other = trained(tmp_path / "other", without)
    assert_same(other, one)


def test_images_of_rare_classes_count_more(tmp_path: Path) -> None:
    data = digits(tmp_path, counts=(44, 8, 8))
    by_class = dataclasses.replace(CONFIG, class_balance=1.0)
    weights = sample_weights(data, by_class)
    train_labels = data.labels[data.train]
    of_classes = np.bincount(train_labels, weights[data.train])
    assert of_classes == pytest.approx([16, 16, 16])  # 40, 4 and 4 images
    by_image = dataclasses.replace(CONFIG, class_balance=0.0)
    assert np.array_equal(sample_weights(data, by_image), data.weights)
    result = trained(tmp_path, data)
    assert all(math.isfinite(row["val_loss"]) for row in result.epochs)


def short_of_memory(body: torch.nn.Module, images: Tensor) -> Tensor:
    """Compute as on a device with room for the gradients of five images."""
    if torch.is_grad_enabled() and len(images) > 5:
        raise torch.OutOfMemoryError
    return TINY.last_map(body, images)


def test_where_memory_is_short_a_step_is_done_in_parts_with_the_same_result(
    tmp_path: Path, data: TrainData, expected: TrainResult
) -> None:
    backbone = dataclasses.replace(TINY, last_map=short_of_memory)
    network = tiny_network(backbone=backbone)
    result = finetune(network, data, CONFIG, context(tmp_path))
    assert isinstance(result, TrainResult)
    assert_same(result, expected, tolerance=1e-3)


class StandInGpu(DistributedContext):
    """A GPU of which only the refusals are real: it computes on the CPU.

    `calls` counts the passes through the network on it.
    """

    def __init__(self, refuses: Callable[[int, Tensor], bool], message: str = "") -> None:
        super().__init__()
        self.kinds: list[str] = []
        self.calls = 0
        self.refuses = refuses
        self.message = message or "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"

    __setattr__ = object.__setattr__

    def device(self, kind: str) -> torch.device:
        self.kinds.append(kind)
        return torch.device("cpu")

    def network(self) -> ClassifierNetwork:
        """Return the tiny network, whose passes this GPU may refuse."""

        def last_map(body: torch.nn.Module, images: Tensor) -> Tensor:
            if self.kinds[-1] == "cuda":
                self.calls += 1
                if self.refuses(self.calls, images):
                    raise RuntimeError(self.message)
            return TINY.last_map(body, images)

        return tiny_network(backbone=dataclasses.replace(TINY, last_map=last_map))

    def finetune(self, folder: Path, data: TrainData) -> TrainResult:
        """Fine-tune by a plan for a GPU."""
        plan = dataclasses.replace(PLAN, device="cuda")
        limits = context(folder, plan=plan, distributed=self, checkpoint_seconds=0.0)
        result = finetune(self.network(), data, CONFIG, limits)
        assert isinstance(result, TrainResult), result
        return result


@pytest.mark.parametrize(
    "message",
    [
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine: CUDNN_STATUS_NOT_SUPPORTED",
        "CUDA error: out of memory",
    ],
)
def test_a_gpu_whose_libraries_find_no_room_does_its_steps_in_parts(
    message: str, tmp_path: Path, data: TrainData, expected: TrainResult
) -> None:
    gpu = StandInGpu(lambda call, images: torch.is_grad_enabled() and len(images) > 5, message)
    result = gpu.finetune(tmp_path, data)
    assert result.plan.device == "cuda"
    assert_same(result, expected, tolerance=1e-3)


def test_a_gpu_without_room_for_all_of_val_evaluates_it_in_parts(
    tmp_path: Path, data: TrainData, expected: TrainResult
) -> None:
    gpu = StandInGpu(lambda call, images: not torch.is_grad_enabled() and len(images) > 3)
    result = gpu.finetune(tmp_path, data)
    assert set(gpu.kinds) == {"cuda"}
    assert_same(result, expected, tolerance=1e-3)


@pytest.mark.parametrize("refused", [1, 7, 13])
def test_a_gpu_that_another_program_fills_for_a_moment_goes_on_from_the_checkpoint(
    refused: int, tmp_path: Path, data: TrainData, expected: TrainResult
) -> None:
    taken = range(refused, refused + 5)  # until a step in parts of one image fails too
    gpu = StandInGpu(lambda call, images: call in taken)
    result = gpu.finetune(tmp_path, data)
    assert set(gpu.kinds) == {"cuda"}
    assert result.plan.device == "cuda"
    assert_same(result, expected, tolerance=1e-3)


def test_a_gpu_without_room_for_one_image_is_left_at_last(
    tmp_path: Path, data: TrainData, expected: TrainResult
) -> None:
    gpu = StandInGpu(lambda call, images: True)
    result = gpu.finetune(tmp_path, data)
    assert gpu.kinds[0] == "cuda"
    assert gpu.kinds[-1] == "cpu"
    assert result.plan == PLAN
    assert_same(result, expected)


def test_another_failure_of_a_gpu_is_no_lack_of_memory(tmp_path: Path, data: TrainData) -> None:
    gpu = StandInGpu(lambda call, images: call == 3, "CUDA error: an illegal memory access")
    with pytest.raises(RuntimeError, match="illegal"):
        gpu.finetune(tmp_path, data)
    assert gpu.calls == 3


def test_steps_on_a_gpu_have_one_shape(tmp_path: Path) -> None:
    data = digits(tmp_path, counts=(14, 14, 15))  # 31 to learn from, in steps of 7 or 8
    shapes = set()

    def refuses(call: int, images: Tensor) -> bool:
        if torch.is_grad_enabled():
            shapes.add(len(images))
        return False

    padded = StandInGpu(refuses).finetune(tmp_path, data)
    assert shapes == {8}
    assert_same(padded, trained(tmp_path / "cpu", data), tolerance=1e-3)


def test_float16_learns_nearly_the_same_and_is_taken_up_again(
    tmp_path: Path, data: TrainData, expected: TrainResult
) -> None:
    plan = dataclasses.replace(PLAN, precision=FP16.name)
    whole = trained(tmp_path / "whole", data, plan=plan)
    differences = np.abs(whole.val_logits - expected.val_logits)
    assert 0 < differences.max() < 0.1
    folder = tmp_path / "in two parts"
    stop_in_the_middle(folder, data, plan=plan)
    assert_same(trained(folder, data, plan=plan), whole)


def test_bfloat16_learns_nearly_the_same(
    tmp_path: Path, data: TrainData, expected: TrainResult
) -> None:
    plan = dataclasses.replace(PLAN, precision=BF16.name)
    result = trained(tmp_path, data, plan=plan)
    differences = np.abs(result.val_logits - expected.val_logits)
    assert 0 < differences.max() < 0.1


def test_rates_fall_from_the_head_to_the_first_layer() -> None:
    network = tiny_network()
    config = dataclasses.replace(CONFIG, layer_groups=2, layer_decay=0.5)
    groups = parameter_groups(network, config, batch_size=32)
    rates = {}
    for group in groups:
        for parameter in group["params"]:
            rates[id(parameter)] = group["full_lr"]
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)
    assert len(rates) == len(list(network.parameters()))
    assert rates[id(network.head.weight)] == config.head_lr
    assert rates[id(network.body.third.weight)] == config.lr
    assert rates[id(network.body.first.weight)] == config.lr / 2
    larger_batch = parameter_groups(network, config, batch_size=128)
    assert larger_batch[0]["full_lr"] == 2 * config.head_lr


def test_the_rate_rises_and_then_falls_along_a_cosine() -> None:
    config = TrainConfig(warmup_share=0.1, final_lr_share=0.01)
    rates = [lr_lambda(step, 100, config) for step in range(100)]
    rising = rates[:10]
    falling = rates[9:]
    assert rising == pytest.approx([0.1 * step for step in range(1, 11)])
    assert falling == sorted(falling, reverse=True)
    assert rates[55] == pytest.approx(0.505)
    assert 0.01 < rates[-1] < 0.012
    for step in range(4):
        assert 0 < lr_lambda(step, 4, config) <= 1


def test_a_configuration_comes_back_from_its_json() -> None:
    config = dataclasses.replace(CONFIG, seed=3)
    assert TrainConfig.from_json(config.as_json()) == config
