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

from tests.training.tuning import NO_LIMIT, RECIPE, TINY, digits, tiny_network
from training.finetuning.trainer import (
    EPOCHS,
    Job,
    Material,
    NotTuned,
    Plan,
    Recipe,
    Tuned,
    epochs_that_fit,
    finetune,
    make_plan,
    parameter_groups,
    picture_weights,
    rate_factor,
)
from training.metrics import log_loss
from training.networks.classifier import PictureNetwork
from training.networks.image_cache import eval_view
from training.networks.precision import COARSE, EXACT
from training.run_folder import Stopped

PROJECT = Path(__file__).resolve().parents[2]
PLAN = Plan(epochs=4, batch=10, arithmetic=EXACT.name, device="cpu")
STEPS = 12  # of that plan: 30 pictures to learn from


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The same sums in every run, and in the programs that these tests start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def material(tmp_path: Path) -> Material:
    return digits(tmp_path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """What a training that nothing happens to ends in."""
    folder, before = tmp_path_factory.mktemp("expected"), torch.get_num_threads()
    torch.set_num_threads(1)
    result = tuned(folder, digits(folder))
    torch.set_num_threads(before)
    return result


def job(folder: Path, **values: Any) -> Job:
    return Job(folder, NO_LIMIT, EXACT, **{"plan": PLAN, **values})


def tuned(folder: Path, material: Material, recipe: Recipe = RECIPE, **values: Any) -> Tuned:
    result = finetune(tiny_network(material.classes), material, recipe, job(folder, **values))
    assert isinstance(result, Tuned), result
    return result


def stop_after(steps: int) -> Callable[[], bool]:
    count = itertools.count(1)
    return lambda: next(count) >= steps


def assert_same(one: Tuned, other: Tuned, tolerance: float = 0.0) -> None:
    assert one.best == other.best and len(one.epochs) == len(other.epochs)
    assert np.abs(one.val_logits - other.val_logits).max() <= tolerance
    assert all((one.state[name] - other.state[name]).abs().max() <= tolerance for name in one.state)
    for mine, theirs in zip(one.epochs, other.epochs, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=tolerance)
        assert mine["val_loss"] == pytest.approx(theirs["val_loss"], abs=tolerance)


def loaded(material: Material, result: Tuned) -> PictureNetwork:
    network = tiny_network(material.classes)
    network.load_state_dict(result.state, strict=False)
    return network


def test_the_body_learns_what_the_head_alone_cannot_make_up_for(
    tmp_path: Path, material: Material
) -> None:
    shades = material.cache.squares // 4 + 90 * material.labels[:, None, None, None]
    material.cache.squares[:] = shades  # what even a tiny body learns soon
    network = tiny_network()
    torch.nn.init.zeros_(network.body.third.weight)
    torch.nn.init.ones_(network.body.third.bias)  # the same embedding for every picture
    network.set_head(torch.randn(3, 16), torch.zeros(3), 1.0)
    both = dataclasses.replace(RECIPE, rate=0.02, head_rate=0.05, depth_decay=1.0)
    losses = []
    for name, recipe in (("both", both), ("head alone", dataclasses.replace(both, rate=0.0))):
        plan = dataclasses.replace(PLAN, epochs=8)
        result = finetune(network, material, recipe, job(tmp_path / name, plan=plan))
        assert isinstance(result, Tuned)
        losses.append(min(row["val_loss"] for row in result.epochs))
    assert losses[1] > math.log(3) - 0.01
    assert losses[0] < math.log(3) - 0.1


def test_the_result_is_the_best_epoch_and_the_given_network_stays_as_it_was(
    tmp_path: Path, material: Material
) -> None:
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = finetune(network, material, RECIPE, job(tmp_path))
    assert isinstance(result, Tuned)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    losses = [row["val_loss"] for row in result.epochs]
    assert [row["epoch"] for row in result.epochs] == [1, 2, 3, 4]
    assert losses[result.best - 1] == min(losses)
    assert log_loss(result.val_logits, material.labels[material.val]) == pytest.approx(min(losses))
    again = loaded(material, result)
    with torch.inference_mode():
        view = eval_view(torch.from_numpy(material.cache.squares[material.val]), again.normalise)
        assert np.abs(again.head(again.embed(view)).numpy() - result.val_logits).max() < 1e-4
    assert not torch.equal(result.state["body.first.weight"], before["body.first.weight"])
    for name in ("body.normal.running_mean", "body.normal.running_var"):
        assert torch.equal(result.state[name], before[name])


def test_progress_counts_steps_and_says_how_many_there_are(
    tmp_path: Path, material: Material
) -> None:
    rows: list[tuple[int, int, str]] = []
    tuned(tmp_path, material, report=lambda *row: rows.append(row))
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


def assert_program_found(result: dict[str, Any] | None, expected: Tuned, tolerance: float) -> None:
    assert result is not None
    assert np.abs(result["logits"].numpy() - expected.val_logits).max() <= tolerance
    assert all(
        (result["state"][name] - tensor).abs().max() <= tolerance
        for name, tensor in expected.state.items()
    )


def test_killed_in_the_middle_of_an_epoch_and_started_again_it_ends_the_same(
    tmp_path: Path, expected: Tuned
) -> None:
    code, result = run_program(tmp_path, "--die-after", "8")
    assert code == -9 and result is None and (tmp_path / "finetune.pt").exists()
    code, result = run_program(tmp_path)
    assert code == 0
    assert_program_found(result, expected, tolerance=0.0)


def test_two_processes_of_torchrun_end_as_one_alone(tmp_path: Path, expected: Tuned) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    code, result = run_program(tmp_path, launcher=launcher)
    assert code == 0
    assert_program_found(result, expected, tolerance=1e-3)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_asked_to_stop_it_stops_after_the_step_and_goes_on_from_there(
    tmp_path: Path, material: Material, expected: Tuned, steps: int
) -> None:
    seen: list[int] = []
    with pytest.raises(Stopped):
        tuned(tmp_path, material, should_stop=stop_after(steps))
    result = tuned(tmp_path, material, report=lambda done, total, message: seen.append(done))
    assert seen[0] == steps + 1
    assert_same(result, expected)


def test_a_training_that_has_ended_is_not_done_again(tmp_path: Path, material: Material) -> None:
    first, seen = tuned(tmp_path, material), []
    again = tuned(
        tmp_path, material, report=lambda *row: seen.append(row), should_stop=lambda: True
    )
    assert seen == []
    assert_same(first, again)


@pytest.mark.parametrize("change", ["recipe", "labels", "weights", "network"])
def test_a_checkpoint_of_another_training_is_ignored(
    tmp_path: Path, material: Material, change: str
) -> None:
    with pytest.raises(Stopped):
        tuned(tmp_path, material, should_stop=stop_after(5))
    network, recipe, seen = tiny_network(), RECIPE, []
    if change == "recipe":
        recipe = dataclasses.replace(RECIPE, smoothing=0.2)
    elif change == "network":
        network.set_head(torch.ones(3, 16), torch.zeros(3), 1.0)
    elif change == "labels":
        material = dataclasses.replace(material, labels=material.labels[::-1].copy())
    else:
        material = dataclasses.replace(material, weights=material.weights * 2)
    told = job(
        tmp_path, report=lambda done, total, message: seen.append(done), should_stop=stop_after(3)
    )
    with pytest.raises(Stopped):
        finetune(network, material, recipe, told)
    assert seen == [1, 2]


@pytest.mark.parametrize("damage", ["cut off", "a bit flipped", "empty", "another file"])
def test_a_damaged_checkpoint_is_ignored(tmp_path: Path, material: Material, damage: str) -> None:
    with pytest.raises(Stopped):
        tuned(tmp_path, material, should_stop=stop_after(5))
    path = tmp_path / "finetune.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    written = {
        "cut off": data[:-100],
        "a bit flipped": data,
        "empty": b"",
        "another file": b"no checkpoint" * 9,
    }
    path.write_bytes(written[damage])
    seen: list[int] = []
    with pytest.raises(Stopped):
        tuned(
            tmp_path,
            material,
            report=lambda done, *rest: seen.append(done),
            should_stop=stop_after(2),
        )
    assert seen == [1]


def test_a_budget_that_has_been_used_up_by_earlier_attempts_ends_the_training(
    tmp_path: Path, material: Material
) -> None:
    with pytest.raises(Stopped):
        tuned(tmp_path, material, should_stop=stop_after(5))
    result = finetune(
        tiny_network(), material, RECIPE, dataclasses.replace(job(tmp_path), budget=1e-3)
    )
    assert isinstance(result, Tuned)
    assert (
        len(result.epochs) == 2
        and result.stopped == "The time budget ended the training after 2 of 4 epochs."
    )


def test_a_machine_too_slow_for_the_budget_says_so_in_numbers(
    tmp_path: Path, material: Material
) -> None:
    result = finetune(tiny_network(), material, RECIPE, Job(tmp_path, 1e-3, EXACT))
    assert isinstance(result, NotTuned)
    assert result.reason.startswith("One epoch of fine-tuning takes about ")
    assert "the 0.001 s that are left" in result.reason
    result = finetune(tiny_network(), material, RECIPE, Job(tmp_path, -5.0, EXACT))
    assert isinstance(result, NotTuned) and "nothing is left of the time budget" in result.reason
    assert not (tmp_path / "finetune.pt").exists()


def test_a_machine_fast_enough_gets_a_plan_with_the_most_epochs(
    tmp_path: Path, material: Material
) -> None:
    recipe = dataclasses.replace(RECIPE, most_epochs_cpu=15)
    plan = make_plan(tiny_network(), material, recipe, Job(tmp_path, NO_LIMIT, COARSE), "cpu")
    assert isinstance(plan, Plan)
    assert (plan.epochs, plan.batch, plan.device) == (15, 10, "cpu")
    assert plan.arithmetic in (EXACT.name, COARSE.name)
    unsaid = dataclasses.replace(recipe, batch=0)
    plan = make_plan(tiny_network(), material, unsaid, Job(tmp_path, NO_LIMIT, EXACT), "cpu")
    assert isinstance(plan, Plan) and plan.batch == 16


@pytest.mark.parametrize(
    ("seconds", "epoch", "most", "expected"),
    [(600, 80, 100, 6), (600, 1, 20, 20), (600, 1, 100, 100), (79, 20, 20, 3), (19, 20, 20, 0)],
)
def test_epochs_are_as_many_of_a_few_choices_as_fit(
    seconds: float, epoch: float, most: int, expected: int
) -> None:
    assert epochs_that_fit(seconds, epoch, most) == expected
    assert expected in (0, *EPOCHS)


def test_training_ends_when_the_loss_on_val_falls_no_more(
    tmp_path: Path, material: Material
) -> None:
    recipe = dataclasses.replace(RECIPE, rate=0.0, head_rate=0.0, patience=2)
    result = tuned(tmp_path, material, recipe)
    assert len(result.epochs) == 3 and result.best == 1
    assert result.stopped == "2 epochs in a row did not lower the loss on val."


def test_rates_that_destroy_the_network_give_none_and_the_reason(
    tmp_path: Path, material: Material
) -> None:
    recipe = dataclasses.replace(RECIPE, rate=1e30, head_rate=1e30)
    result = finetune(tiny_network(), material, recipe, job(tmp_path))
    assert isinstance(result, NotTuned) and "left all bounds in epoch 1" in result.reason


def test_the_epochs_of_the_head_leave_the_body_alone(tmp_path: Path, material: Material) -> None:
    result = tuned(tmp_path, material, dataclasses.replace(RECIPE, head_epochs=4))
    start = tiny_network().state_dict()
    assert all(
        torch.equal(tensor, start[name])
        for name, tensor in result.state.items()
        if name.startswith("body.")
    )
    assert not torch.equal(result.state["head.weight"], start["head.weight"])


def test_a_picture_without_weight_teaches_nothing(tmp_path: Path, material: Material) -> None:
    weights = material.weights.copy()
    weights[material.train[:5]] = 0
    without = dataclasses.replace(material, weights=weights)
    one = tuned(tmp_path / "one", without)
    without.cache.squares[material.train[:5]] = 77
    assert_same(tuned(tmp_path / "other", without), one)


def test_pictures_of_rare_classes_count_more(tmp_path: Path) -> None:
    material = digits(tmp_path, counts=(44, 8, 8))
    weights = picture_weights(material, dataclasses.replace(RECIPE, balance=1.0))
    mass = np.bincount(material.labels[material.train], weights[material.train])
    assert mass == pytest.approx([16, 16, 16])  # 40, 4 and 4 pictures
    alike = picture_weights(material, dataclasses.replace(RECIPE, balance=0.0))
    assert np.array_equal(alike, material.weights)
    assert all(math.isfinite(row["val_loss"]) for row in tuned(tmp_path, material).epochs)


def crowded(body: torch.nn.Module, pictures: Tensor) -> Tensor:
    """A network on a device with room for the gradients of five pictures."""
    if torch.is_grad_enabled() and len(pictures) > 5:
        raise torch.OutOfMemoryError
    return TINY.last_map(body, pictures)


def test_where_memory_is_short_a_step_is_done_in_parts_with_the_same_result(
    tmp_path: Path, material: Material, expected: Tuned
) -> None:
    network = tiny_network(backbone=dataclasses.replace(TINY, last_map=crowded))
    result = finetune(network, material, RECIPE, job(tmp_path))
    assert isinstance(result, Tuned)
    assert_same(result, expected, tolerance=1e-3)


def test_coarse_arithmetic_learns_nearly_the_same(
    tmp_path: Path, material: Material, expected: Tuned
) -> None:
    coarse = tuned(tmp_path, material, plan=dataclasses.replace(PLAN, arithmetic=COARSE.name))
    assert 0 < np.abs(coarse.val_logits - expected.val_logits).max() < 0.1


def test_rates_fall_from_the_head_to_the_first_layer() -> None:
    network, recipe = tiny_network(), dataclasses.replace(RECIPE, depth_groups=2, depth_decay=0.5)
    groups = parameter_groups(network, recipe, batch=32)
    rates = {id(p): group["full_rate"] for group in groups for p in group["params"]}
    assert rates[id(network.head.weight)] == recipe.head_rate
    assert rates[id(network.body.third.weight)] == recipe.rate
    assert rates[id(network.body.first.weight)] == recipe.rate / 2
    assert len(rates) == len(list(network.parameters()))
    assert all(
        (group["weight_decay"] > 0) == (p.ndim > 1) for group in groups for p in group["params"]
    )
    assert parameter_groups(network, recipe, batch=128)[0]["full_rate"] == 2 * recipe.head_rate


def test_the_rate_rises_and_then_falls_along_a_cosine() -> None:
    recipe = Recipe(warm_up=0.1, last_rate=0.01)
    rates = [rate_factor(done, 100, recipe) for done in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[55] == pytest.approx(0.505) and 0.01 < rates[-1] < 0.012
    assert all(0 < rate_factor(done, 4, recipe) <= 1 for done in range(4))


def test_a_recipe_comes_back_from_its_json() -> None:
    recipe = dataclasses.replace(RECIPE, seed=3)
    assert Recipe.from_json(recipe.as_json()) == recipe
