"""Which of the two models is delivered: images that neither has learned from decide."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from tests.training.tiny_training import CONFIG, NO_LIMIT, digits, tiny_network
from training.finetuning import trainer
from training.finetuning.trainer import NotTrained, Plan, TrainContext, TrainData
from training.fitting.linear_head import Samples, fit_with_c
from training.fitting.network_trial import (
    ENOUGH_HELD_OUT,
    Contest,
    Trial,
    designs,
    reason_against,
    train_on_all,
    try_network,
)
from training.fitting.selection import (
    NetworkCandidate,
    SplitImages,
    choose,
    choose_candidate,
    finetune_network,
    train_head,
)
from training.metrics import candidate_metrics, log_loss
from training.networks.backbones import LoadedBackbone
from training.networks.configured import DEFAULTS
from training.networks.embeddings import FeatureExtractor
from training.networks.precision import FP32
from training.progress import CurvePoint, Run, Stopped, no_progress
from training.run import Control, _finetune
from training.run_folder import (
    FINISH_FILE,
    ClassLabel,
    ImageRow,
    RunConfig,
    Split,
    write_json,
)

PLAN = Plan(epochs=4, batch_size=10, precision=FP32.name, device="cpu")


@pytest.mark.parametrize(
    ("head", "network", "gain", "delivered"),
    [
        ((0.5, 0.8), (0.4, 0.8), (0.1, 0.05), "network"),
        ((0.5, 0.8), (0.4, 0.8), (0.1, 0.11), "head"),  # within a standard error
        ((0.5, 0.8), (0.4, 0.79), (0.1, 0.05), "head"),  # fewer hits
        ((0.5, 0.8), (0.5, 0.9), (0.0, 0.0), "head"),  # no lower loss
        ((0.5, 0.8), (0.4, 0.95), (0.1, 0.02), "network"),
    ],
)
def test_the_network_is_delivered_only_where_it_is_clearly_better(
    head: tuple[float, float],
    network: tuple[float, float],
    gain: tuple[float, float],
    delivered: str,
) -> None:
    perfect = np.eye(2)
    figures = candidate_metrics(perfect, np.arange(2), perfect, np.arange(2))
    one = figures | {"val_loss": head[0], "val_accuracy": head[1]}
    other = figures | {"val_loss": network[0], "val_accuracy": network[1]}
    chosen, sentence = choose(one, other, 87, gain)
    assert chosen == delivered
    assert f"{delivered} is delivered" in sentence
    assert "87 pictures" in sentence


def judged(right: float, count: int = 200) -> tuple[np.ndarray, Samples]:
    """Return logits of so many images, of which a share is right, and the images."""
    labels = np.arange(count) % 2
    predicted = labels.copy()
    wrong = np.random.default_rng(0).permutation(count)[: round(count * (1 - right))]
    predicted[wrong] = 1 - predicted[wrong]
    embeddings = np.zeros((count, 3), np.float32)
    return np.eye(2)[predicted], Samples(embeddings, labels, np.arange(count), 2)


@pytest.mark.parametrize(
    ("right", "said"),
    [
        (1.0, "right on 200 of 200 pictures"),
        (0.985, "right on 197 of 200 pictures"),
        (0.5, "does not tell the classes apart"),
        (0.9, ""),
        (0.65, ""),
    ],
)
def test_nothing_is_tried_where_nothing_can_be_won_or_learned(right: float, said: str) -> None:
    reason = reason_against(*judged(right), seed=0)
    assert said in reason
    assert bool(reason) is bool(said)


def contest(folder: Path, data: TrainData) -> Contest:
    """Return digits to be told apart by the tiny network and a head on its embeddings."""
    network = tiny_network(data.classes)
    crops = torch.from_numpy(np.array(data.cache.center_crops)).permute(0, 3, 1, 2)
    middle = crops[:, :, 4:228, 4:228].float()
    with torch.inference_mode():
        embeddings = network.embed(network.normalize(middle)).numpy()
    count = len(data.labels)
    samples = Samples(embeddings, data.labels, np.arange(count), data.classes)
    return Contest(
        network=network,
        samples=samples,
        in_val=data.val,
        cache=data.cache,
        c=1e-2,
        weights=np.ones(count),
        head=fit_with_c(samples, 1e-2),
        seed=0,
    )


def context(folder: Path) -> TrainContext:
    return TrainContext(folder, NO_LIMIT, FP32, plan=PLAN)


def test_with_few_validation_images_every_image_is_held_out_once(tmp_path: Path) -> None:
    data = digits(tmp_path)
    trial = try_network(contest(tmp_path, data), CONFIG, context(tmp_path))
    assert isinstance(trial, Trial)
    assert len(data.val) < ENOUGH_HELD_OUT
    if trial.gain()[0] > 0:
        assert sorted(trial.held_out) == list(range(len(data.labels)))
    for fold in trial.folds:
        assert not set(fold.learned) & set(fold.held_out)
        assert len(fold.trained.logits_by_epoch) == len(fold.trained.epochs)
    loss = log_loss(trial.network_logits(), trial.labels)
    assert trial.gain()[0] == pytest.approx(log_loss(trial.head_logits(), trial.labels) - loss)


@pytest.mark.parametrize(
    ("val", "folds", "refits"),
    [
        (4, [3], [True]),  # of three classes: 12
        (20, [3, 1, 1], [True, True, False]),
        (70, [1, 1], [True, False]),
    ],
)
def test_designs_need_less_and_less_time(
    tmp_path: Path, val: int, folds: list[int], refits: list[bool]
) -> None:
    data = digits(tmp_path, counts=(80, 80, 80), val=val)
    ways = designs(contest(tmp_path, data))
    assert [len(way.folds) for way in ways] == folds
    assert [way.refit for way in ways] == refits
    costs = [sum(way.costs()) for way in ways]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == len(costs)
    for way in ways:
        for learned, held_out in way.folds:
            assert sorted([*learned, *held_out]) == list(range(240))


@pytest.mark.parametrize(
    ("budget", "folds", "refits"), [(6.0, 3, True), (3.0, 1, True), (1.5, 1, False), (0.5, 0, None)]
)
def test_the_first_design_that_fits_the_budget_is_tried(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    budget: float,
    folds: int,
    refits: bool | None,
) -> None:
    data = digits(tmp_path, counts=(60, 60, 60), val=20)
    machine = NO_LIMIT / 1000  # seconds for one image once, so that the test itself takes no part
    monkeypatch.setattr(trainer._StepTimer, "seconds_per_image", lambda *given: machine)
    epochs = CONFIG.max_epochs_cpu * len(data.labels) * machine
    limited = TrainContext(tmp_path, budget * epochs, FP32)
    trial = try_network(contest(tmp_path, data), CONFIG, limited)
    if refits is None:
        assert isinstance(trial, NotTrained) and "would not fit" in trial.reason
        return
    assert isinstance(trial, Trial)
    assert len(trial.design.folds) == folds and trial.design.refit is refits


def test_what_wins_is_trained_on_all_images_for_the_best_number_of_epochs(tmp_path: Path) -> None:
    data = digits(tmp_path)
    trial = try_network(contest(tmp_path, data), CONFIG, context(tmp_path))
    assert isinstance(trial, Trial)
    result = train_on_all(trial, CONFIG, context(tmp_path))
    assert not isinstance(result, NotTrained)
    assert len(result.epochs) == trial.best_epoch()
    assert result.best_epoch == trial.best_epoch()
    assert result.val_logits.shape == (0, 3)


def test_a_network_far_behind_ends_the_trial_with_its_first_fold(tmp_path: Path) -> None:
    data = digits(tmp_path)
    ruined = dataclasses.replace(CONFIG, lr=0.5, head_lr=0.5)
    trial = try_network(contest(tmp_path, data), ruined, context(tmp_path))
    assert isinstance(trial, NotTrained) or len(trial.folds) == 1


def test_no_time_to_train_on_all_is_said(tmp_path: Path) -> None:
    data = digits(tmp_path)
    trial = try_network(contest(tmp_path, data), CONFIG, context(tmp_path))
    assert isinstance(trial, Trial)
    hurried = dataclasses.replace(context(tmp_path), budget=1e-6)
    result = train_on_all(trial, CONFIG, hurried)
    if trial.best_epoch() > 1:
        assert isinstance(result, NotTrained)
        assert "no time to train it on all pictures" in result.reason


def digit_run(folder: Path) -> tuple[SplitImages, FeatureExtractor]:
    """Return a run on pictures of three digits with the tiny network, and write the pictures."""
    all_digits = load_digits()
    rows = []
    labels: list[int] = []
    for digit in range(3):
        for number in np.flatnonzero(all_digits.target == digit)[:20]:
            pixels = np.kron(all_digits.images[number] * 15, np.ones((29, 29))).astype(np.uint8)
            path = folder / f"{number}.png"
            Image.fromarray(pixels).convert("RGB").save(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            position = len(labels) % 20
            split: Split = "test" if position < 3 else "val" if position < 6 else "train"
            rows.append(ImageRow(file=path.name, class_id=str(digit), sha256=digest, split=split))
            labels.append(digit)
    network = tiny_network(3)
    extractor = FeatureExtractor(network, FP32, folder, folder / "features")
    features = extractor.extract(rows, no_progress)
    images = SplitImages(
        rows=rows,
        embeddings=features.embeddings,
        labels=np.array(labels),
        groups=np.arange(len(rows)),
        statistics=features.statistics,
        manifest_indices=np.arange(len(rows)),
        manifest=rows,
        classes=3,
        seed=0,
    )
    return images, extractor


def test_both_are_judged_on_images_that_neither_had_learned(tmp_path: Path) -> None:
    images, extractor = digit_run(tmp_path)
    head = train_head(images, no_progress, lambda: True)
    tuned = finetune_network(images, extractor, head, CONFIG, context(tmp_path), asked=True)
    assert isinstance(tuned, NetworkCandidate), tuned
    choice = choose_candidate(images, extractor, head, tuned)
    assert choice.name == ("network" if tuned.wins else "head")
    assert choice.network_metrics is not None
    assert len(choice.epochs) == choice.network_metrics["epochs"]
    assert choice.model.novelty.shape == (60,)
    assert np.isfinite(choice.model.novelty).all()
    assert choice.model.test_logits.shape == (9, 3)


@pytest.mark.parametrize("trainings", [0, 1, 2, 3, 4])
def test_asked_to_finish_the_best_so_far_is_judged_and_delivered(
    tmp_path: Path, trainings: int
) -> None:
    images, extractor = digit_run(tmp_path)
    noise = np.random.default_rng(0).normal(size=images.embeddings.shape)
    images = dataclasses.replace(images, embeddings=noise.astype(np.float32))
    head = train_head(images, no_progress, lambda: True)  # so that the network wins
    reported: list[int] = []
    counts = {"begun": 0, "steps": 0}

    def prepare() -> None:
        counts["begun"] += 1
        counts["steps"] = 0

    def should_finish() -> bool:
        counts["steps"] += 1
        return counts["begun"] > trainings and counts["steps"] > 9

    def report(done: int, total: int, message: str = "", /) -> None:
        if total == 1000:
            reported.append(done)

    asked = dataclasses.replace(
        context(tmp_path),
        should_finish=should_finish,
        prepare=prepare,
        report=report,
        plan=dataclasses.replace(PLAN, epochs=30),
    )
    tuned = finetune_network(images, extractor, head, CONFIG, asked, asked=True)
    assert isinstance(tuned, NetworkCandidate), tuned
    assert counts["begun"] == min(trainings + 1, 4)  # three folds and all images
    assert len(tuned.trial.folds) == min(max(trainings, 1), 3)
    choice = choose_candidate(images, extractor, head, tuned)
    assert ("ended on request" in choice.sentence) == (trainings < 4)
    assert np.isfinite(choice.model.reject_threshold)
    assert reported == sorted(reported), "the progress is that of all trainings together"
    assert (max(reported) == 1000) == (trainings >= 3)
    restarted = dataclasses.replace(asked, should_finish=lambda: True, report=no_progress)
    again = finetune_network(images, extractor, head, CONFIG, restarted, asked=True)
    assert isinstance(again, NetworkCandidate), again
    assert len(again.trial.folds) == len(tuned.trial.folds) and again.note == tuned.note
    for weight, same in zip(tuned.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(weight, same), "nothing that was done is thrown away"


class StoppedAfterAnEpoch(Run):
    """A run that is asked to stop once an epoch is done."""

    control = Control()

    def record(self, point: CurvePoint, /) -> None:
        self.control.stop.asked = True


def test_a_run_that_is_to_end_early_takes_up_the_training_that_was_killed(tmp_path: Path) -> None:
    images, extractor = digit_run(tmp_path)
    head = train_head(images, no_progress, lambda: True)
    classes = tuple(ClassLabel(f"c00{digit}", f"digit {digit}") for digit in range(3))
    config = RunConfig(classes, epochs=4).with_defaults(DEFAULTS)
    network = extractor.network
    loaded = LoadedBackbone(network.backbone, network.body, None, "random")
    write_json(tmp_path / "head" / "first.json", {"backbone": network.backbone.name})

    def tuned_by(run: Run, control: Control) -> NetworkCandidate | str:
        return _finetune(run, images, loaded, extractor, head, control)

    killed = StoppedAfterAnEpoch(tmp_path, config)
    with pytest.raises(Stopped):
        tuned_by(killed, killed.control)
    (tmp_path / FINISH_FILE).touch()
    resumed = Run(tmp_path, config)
    tuned = tuned_by(resumed, Control())
    assert isinstance(tuned, NetworkCandidate), tuned
    assert len(tuned.trial.folds[0].trained.epochs) == 1 and "ended on request" in tuned.note
    shutil.rmtree(tmp_path / "checkpoints")
    assert "not fine-tuned" in str(tuned_by(resumed, Control()))


@pytest.mark.parametrize("strangers", [0, 14])
def test_what_does_not_belong_has_no_part_in_the_threshold(strangers: int) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(120) % 2
    centers = 4 * np.abs(random.normal(size=(2, 32)))
    embeddings = centers[labels] + np.abs(random.normal(size=(120, 32)))
    is_stranger = np.arange(120) < strangers
    wrong = (np.arange(120) >= 100) & (strangers > 0)
    embeddings[is_stranger] = 4 * np.abs(random.normal(size=(strangers, 32)))
    rows = [
        ImageRow(f"{n}.jpg", "c", "", split="val" if n % 6 == 5 else "train") for n in range(120)
    ]
    images = SplitImages(
        rows=rows,
        embeddings=embeddings.astype(np.float32),
        labels=np.where(wrong, 1 - labels, labels),
        groups=np.arange(120),
        statistics=np.zeros((120, 0), np.float32),
        manifest_indices=np.arange(120),
        manifest=rows,
        classes=2,
        seed=0,
    )
    head = train_head(images, no_progress, lambda: True)
    if not strangers:
        assert head.weighting.name == "none" and head.ordinary.all()
        return
    assert head.weighting.lighter
    assert not head.ordinary[is_stranger].any() and not head.ordinary[wrong].any()
    assert head.ordinary[~is_stranger & ~wrong].mean() > 0.9
