import dataclasses
import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.tuning import CONFIG, NO_LIMIT, TINY, digits, tiny_network
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
from training.networks.precision import BF16, FP32
from training.progress import Stopped

PROJECT = Path(__file__).resolve().parents[2]
PLAN = Plan(epochs=4, batch_size=10, precision=FP32.name, device="cpu")
STEPS = 12  # of that plan: 30 pictures to learn from


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
    folder, before = tmp_path_factory.mktemp("expected"), torch.get_num_threads()
    torch.set_num_threads(1)
    result = tuned(folder, digits(folder))
    torch.set_num_threads(before)
    return result


def context(folder: Path, **values: Any) -> TrainContext:
    return TrainContext(folder, NO_LIMIT, FP32, **{"plan": PLAN, **values})


def tuned(
    folder: Path, data: TrainData, config: TrainConfig = CONFIG, **values: Any
) -> TrainResult:
    result = finetune(tiny_network(data.classes), data, config, context(folder, **values))
    assert isinstance(result, TrainResult), result
    return result


def stop_after(steps: int) -> Callable[[], bool]:
    count = itertools.count(1)
    return lambda: next(count) >= steps


def assert_same(one: TrainResult, other: TrainResult, tolerance: float = 0.0) -> None:
    assert one.best_epoch == other.best_epoch and len(one.epochs) == len(other.epochs)
    assert np.abs(one.val_logits - other.val_logits).max() <= tolerance
    assert all((one.state[name] - other.state[name]).abs().max() <= tolerance for name in one.state)
    for mine, theirs in zip(one.epochs, other.epochs, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=tolerance)
        assert mine["val_loss"] == pytest.approx(theirs["val_loss"], abs=tolerance)


def loaded(data: TrainData, result: TrainResult) -> ClassifierNetwork:
    network = tiny_network(data.classes)
    network.load_state_dict(result.state, strict=False)
    return network


def test_the_body_learns_what_the_head_alone_cannot_make_up_for(
    tmp_path: Path, data: TrainData
) -> None:
    shades = data.cache.center_crops // 4 + 90 * data.labels[:, None, None, None]
    data.cache.center_crops[:] = shades  # what even a tiny body learns soon
    network = tiny_network()
    torch.nn.init.zeros_(network.body.third.weight)
    torch.nn.init.ones_(network.body.third.bias)  # the same embedding for every picture
    network.set_head(torch.randn(3, 16), torch.zeros(3), 1.0)
    both = dataclasses.replace(CONFIG, lr=0.02, head_lr=0.05, layer_decay=1.0)
    losses = []
    for name, config in (("both", both), ("head alone", dataclasses.replace(both, lr=0.0))):
        plan = dataclasses.replace(PLAN, epochs=8)
        result = finetune(network, data, config, context(tmp_path / name, plan=plan))
        assert isinstance(result, TrainResult)
        losses.append(min(row["val_loss"] for row in result.epochs))
    assert losses[1] > math.log(3) - 0.01
    assert losses[0] < math.log(3) - 0.1


def test_the_result_is_the_best_epoch_and_the_given_network_stays_as_it_was(
    tmp_path: Path, data: TrainData
) -> None:
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = finetune(network, data, CONFIG, context(tmp_path))
    assert isinstance(result, TrainResult)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    losses = [row["val_loss"] for row in result.epochs]
    assert [row["epoch"] for row in result.epochs] == [1, 2, 3, 4]
    assert losses[result.best_epoch - 1] == min(losses)
    assert log_loss(result.val_logits, data.labels[data.val]) == pytest.approx(min(losses))
    again = loaded(data, result)
    with torch.inference_mode():
        view = eval_view(torch.from_numpy(data.cache.center_crops[data.val]), again.normalize)
        assert np.abs(again.head(again.embed(view)).numpy() - result.val_logits).max() < 1e-4
    assert not torch.equal(result.state["body.first.weight"], before["body.first.weight"])
    for name in ("body.normal.running_mean", "body.normal.running_var"):
        assert torch.equal(result.state[name], before[name])


def test_progress_counts_steps_and_says_how_many_there_are(tmp_path: Path, data: TrainData) -> None:
    rows: list[tuple[int, int, str]] = []
    tuned(tmp_path, data, report=lambda *row: rows.append(row))
    assert [row[:2] for row in rows] == [
        *((done, STEPS) for done in range(1, STEPS + 1)),
        (STEPS, STEPS),
    ]
    assert "epoch 2 of at most 4" in rows[4][2] and "% right on val" in rows[4][2]


def run_program(
    folder: Path, *flags: str, launcher: tuple[str, ...] = ()
) -> tuple[int, dict[str, Any] | None]:
    """Exit code and result of the program that fine-tunes in a folder."""
    out = folder / "out.pt"
    command = [
        sys.executable,
        *launcher,
        str(PROJECT / "tests" / "training" / "tuning.py"),
        str(folder),
        str(out),
    ]
    where = {
        "PYTHONPATH": str(PROJECT),
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
    }
    done = subprocess.run(
        [*command, *flags], cwd=folder, env=where, capture_output=True, text=True, timeout=200
    )
    assert done.returncode in (0, -9), done.stderr[-3000:]
    return done.returncode, torch.load(out, weights_only=True) if out.exists() else None


def assert_program_found(
    result: dict[str, Any] | None, expected: TrainResult, tolerance: float
) -> None:
    assert result is not None
    assert np.abs(result["logits"].numpy() - expected.val_logits).max() <= tolerance
    assert all(
        (result["state"][name] - tensor).abs().max() <= tolerance
        for name, tensor in expected.state.items()
    )


def test_killed_in_the_middle_of_an_epoch_and_started_again_it_ends_the_same(
    tmp_path: Path, expected: TrainResult
) -> None:
    code, result = run_program(tmp_path, "--die-after", "8")
    assert code == -9 and result is None and (tmp_path / "finetune.pt").exists()
    code, result = run_program(tmp_path)
    assert code == 0
    assert_program_found(result, expected, tolerance=0.0)


def test_two_processes_of_torchrun_end_as_one_alone(tmp_path: Path, expected: TrainResult) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    code, result = run_program(tmp_path, launcher=launcher)
    assert code == 0
    assert_program_found(result, expected, tolerance=1e-3)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_asked_to_stop_it_stops_after_the_step_and_goes_on_from_there(
    tmp_path: Path, data: TrainData, expected: TrainResult, steps: int
) -> None:
    seen: list[int] = []
    with pytest.raises(Stopped):
        tuned(tmp_path, data, should_stop=stop_after(steps))
    result = tuned(tmp_path, data, report=lambda done, total, message: seen.append(done))
    assert seen[0] == steps + 1
    assert_same(result, expected)


def test_a_training_that_has_ended_is_not_done_again(tmp_path: Path, data: TrainData) -> None:
    first, seen = tuned(tmp_path, data), []
    again = tuned(tmp_path, data, report=lambda *row: seen.append(row), should_stop=lambda: True)
    assert seen == []
    assert_same(first, again)


@pytest.mark.parametrize("change", ["config", "labels", "weights", "network"])
def test_a_checkpoint_of_another_training_is_ignored(
    tmp_path: Path, data: TrainData, change: str
) -> None:
    with pytest.raises(Stopped):
        tuned(tmp_path, data, should_stop=stop_after(5))
    network, config, seen = tiny_network(), CONFIG, []
    if change == "config":
        config = dataclasses.replace(CONFIG, label_smoothing=0.2)
    elif change == "network":
        network.set_head(torch.ones(3, 16), torch.zeros(3), 1.0)
    elif change == "labels":
        data = dataclasses.replace(data, labels=data.labels[::-1].copy())
    else:
        data = dataclasses.replace(data, weights=data.weights * 2)
    told = context(
        tmp_path, report=lambda done, total, message: seen.append(done), should_stop=stop_after(3)
    )
    with pytest.raises(Stopped):
        finetune(network, data, config, told)
    assert seen == [1, 2]


@pytest.mark.parametrize("damage", ["cut off", "a bit flipped", "empty", "another file"])
def test_a_damaged_checkpoint_is_ignored(tmp_path: Path, data: TrainData, damage: str) -> None:
    with pytest.raises(Stopped):
        tuned(tmp_path, data, should_stop=stop_after(5))
    path = tmp_path / "finetune.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    written = {
        "cut off": content[:-100],
        "a bit flipped": content,
        "empty": b"",
        "another file": b"no checkpoint" * 9,
    }
    path.write_bytes(written[damage])
    seen: list[int] = []
    with pytest.raises(Stopped):
        tuned(
            tmp_path,
            data,
            report=lambda done, *rest: seen.append(done),
            should_stop=stop_after(2),
        )
    assert seen == [1]


def test_a_budget_that_has_been_used_up_by_earlier_attempts_ends_the_training(
    tmp_path: Path, data: TrainData
) -> None:
    with pytest.raises(Stopped):
        tuned(tmp_path, data, should_stop=stop_after(5))
    result = finetune(
        tiny_network(), data, CONFIG, dataclasses.replace(context(tmp_path), budget=1e-3)
    )
    assert isinstance(result, TrainResult)
    assert (
        len(result.epochs) == 2
        and result.stop_reason == "The time budget ended the training after 2 of 4 epochs."
    )


def test_a_machine_too_slow_for_the_budget_says_so_in_numbers(
    tmp_path: Path, data: TrainData
) -> None:
    result = finetune(tiny_network(), data, CONFIG, TrainContext(tmp_path, 1e-3, FP32))
    assert isinstance(result, NotTrained)
    assert result.reason.startswith("One epoch of fine-tuning takes about ")
    assert "the 0.001 s that are left" in result.reason
    result = finetune(tiny_network(), data, CONFIG, TrainContext(tmp_path, -5.0, FP32))
    assert isinstance(result, NotTrained) and "nothing is left of the time budget" in result.reason
    assert not (tmp_path / "finetune.pt").exists()


def test_a_machine_fast_enough_gets_a_plan_with_the_most_epochs(
    tmp_path: Path, data: TrainData
) -> None:
    config = dataclasses.replace(CONFIG, max_epochs_cpu=15)
    plan = make_plan(tiny_network(), data, config, TrainContext(tmp_path, NO_LIMIT, BF16), "cpu")
    assert isinstance(plan, Plan)
    assert (plan.epochs, plan.batch_size, plan.device) == (15, 10, "cpu")
    assert plan.precision in (FP32.name, BF16.name)
    unsaid = dataclasses.replace(config, batch_size=0)
    plan = make_plan(tiny_network(), data, unsaid, TrainContext(tmp_path, NO_LIMIT, FP32), "cpu")
    assert isinstance(plan, Plan) and plan.batch_size == 16


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
    result = tuned(tmp_path, data, config)
    assert len(result.epochs) == 3 and result.best_epoch == 1
    assert result.stop_reason == "2 epochs in a row did not lower the loss on val."


def test_rates_that_destroy_the_network_give_none_and_the_reason(
    tmp_path: Path, data: TrainData
) -> None:
    config = dataclasses.replace(CONFIG, lr=1e30, head_lr=1e30)
    result = finetune(tiny_network(), data, config, context(tmp_path))
    assert isinstance(result, NotTrained) and "left all bounds in epoch 1" in result.reason


def test_the_epochs_of_the_head_leave_the_body_alone(tmp_path: Path, data: TrainData) -> None:
    result = tuned(tmp_path, data, dataclasses.replace(CONFIG, head_epochs=4))
    start = tiny_network().state_dict()
    assert all(
        torch.equal(tensor, start[name])
        for name, tensor in result.state.items()
        if name.startswith("body.")
    )
    assert not torch.equal(result.state["head.weight"], start["head.weight"])


def test_a_picture_without_weight_teaches_nothing(tmp_path: Path, data: TrainData) -> None:
    weights = data.weights.copy()
    weights[data.train[:5]] = 0
    without = dataclasses.replace(data, weights=weights)
    one = tuned(tmp_path / "one", without)
    without.cache.center_crops[data.train[:5]] = 77
    assert_same(tuned(tmp_path / "other", without), one)


def test_pictures_of_rare_classes_count_more(tmp_path: Path) -> None:
    data = digits(tmp_path, counts=(44, 8, 8))
    weights = sample_weights(data, dataclasses.replace(CONFIG, class_balance=1.0))
    mass = np.bincount(data.labels[data.train], weights[data.train])
    assert mass == pytest.approx([16, 16, 16])  # 40, 4 and 4 pictures
    alike = sample_weights(data, dataclasses.replace(CONFIG, class_balance=0.0))
    assert np.array_equal(alike, data.weights)
    assert all(math.isfinite(row["val_loss"]) for row in tuned(tmp_path, data).epochs)


def crowded(body: torch.nn.Module, pictures: Tensor) -> Tensor:
    """A network on a device with room for the gradients of five pictures."""
    if torch.is_grad_enabled() and len(pictures) > 5:
        raise torch.OutOfMemoryError
    return TINY.last_map(body, pictures)


def test_where_memory_is_short_a_step_is_done_in_parts_with_the_same_result(
    tmp_path: Path, data: TrainData, expected: TrainResult
) -> None:
    network = tiny_network(backbone=dataclasses.replace(TINY, last_map=crowded))
    result = finetune(network, data, CONFIG, context(tmp_path))
    assert isinstance(result, TrainResult)
    assert_same(result, expected, tolerance=1e-3)


def test_coarse_arithmetic_learns_nearly_the_same(
    tmp_path: Path, data: TrainData, expected: TrainResult
) -> None:
    coarse = tuned(tmp_path, data, plan=dataclasses.replace(PLAN, precision=BF16.name))
    assert 0 < np.abs(coarse.val_logits - expected.val_logits).max() < 0.1


def test_rates_fall_from_the_head_to_the_first_layer() -> None:
    network, config = tiny_network(), dataclasses.replace(CONFIG, layer_groups=2, layer_decay=0.5)
    groups = parameter_groups(network, config, batch_size=32)
    rates = {id(p): group["full_lr"] for group in groups for p in group["params"]}
    assert rates[id(network.head.weight)] == config.head_lr
    assert rates[id(network.body.third.weight)] == config.lr
    assert rates[id(network.body.first.weight)] == config.lr / 2
    assert len(rates) == len(list(network.parameters()))
    assert all(
        (group["weight_decay"] > 0) == (p.ndim > 1) for group in groups for p in group["params"]
    )
    assert parameter_groups(network, config, batch_size=128)[0]["full_lr"] == 2 * config.head_lr


def test_the_rate_rises_and_then_falls_along_a_cosine() -> None:
    config = TrainConfig(warmup_share=0.1, final_lr_share=0.01)
    rates = [lr_lambda(done, 100, config) for done in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[55] == pytest.approx(0.505) and 0.01 < rates[-1] < 0.012
    assert all(0 < lr_lambda(done, 4, config) <= 1 for done in range(4))


def test_a_recipe_comes_back_from_its_json() -> None:
    config = dataclasses.replace(CONFIG, seed=3)
    assert TrainConfig.from_json(config.as_json()) == config
