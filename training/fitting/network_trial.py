"""Whether fine-tuning pays: tried by cross-validation against the linear head, then done on all.

A network is trained without a fold and judged on it beside a head that was fitted on the same
images. Only a gain of more than a standard error, in loss per image and without losing accuracy,
is worth training the network again on all images, for the number of epochs that was best. Where
the time budget does not allow as much, less is tried: see `Design`.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch

from training.finetuning.trainer import (
    NotTrained,
    TrainConfig,
    TrainContext,
    TrainData,
    TrainResult,
    finetune,
)
from training.fitting.linear_head import LinearHead, Samples, find_temperature, fit_with_c
from training.images.split import cut_folds
from training.metrics import (
    Floats,
    Judged,
    Labels,
    association_p_value,
    log_loss,
    log_losses,
)
from training.networks.classifier import ClassifierNetwork
from training.networks.image_cache import ImageCache
from training.progress import Progress

ENOUGH_HELD_OUT = 200
"""Validation images that judge a network and its threshold alone; with fewer it takes folds."""

_FOLDS = 3
_LEAST_HELD_OUT = 60  # validation images that may judge alone where there is no time for folds
_WORTHWHILE_SHARE = 0.02  # of images that the head has wrong: with fewer nothing is to be won
_HINT_P = 0.05  # what guessing does more often shows nothing that could be learned
_EVAL_COST = 1 / 3  # of evaluating an image, in units of learning from one


@dataclass(frozen=True)
class Contest:
    """What the head and the network are fitted on, and with what."""

    network: ClassifierNetwork
    """Pretrained; stays as it is."""
    samples: Samples
    """The images of train and val [n] with their pretrained embeddings."""
    in_val: Labels
    """Indices [v] of those of val."""
    cache: ImageCache
    """Of the same images."""
    c: float
    weights: Floats
    """[n]."""
    head: LinearHead
    """Fitted on all of them."""
    seed: int


@dataclass(frozen=True)
class Design:
    """How much is tried. Each needs less time than the one before; the first that fits is taken."""

    folds: list[tuple[Labels, Labels]]
    """Of each the indices of the images that are learned from, and of those held out."""
    refit: bool
    """Whether a network that wins is trained again on all images, or delivered as it is."""

    def costs(self) -> list[float]:
        """Return the cost of each training, in units of learning from an image once."""
        costs = [_cost(len(learned), len(held_out)) for learned, held_out in self.folds]
        if self.refit:
            learned, held_out = self.folds[0]
            costs.append(_cost(len(learned) + len(held_out), 0))
        return costs


@dataclass(frozen=True)
class Fold:
    """A network that was trained without some of the images."""

    learned: Labels
    """Indices into the contest's images."""
    held_out: Labels
    head_logits: Floats
    trained: TrainResult


@dataclass
class Trial:
    """The folds so far, and what they say about the head and the network."""

    contest: Contest
    design: Design
    folds: list[Fold] = field(default_factory=list)

    @property
    def held_out(self) -> Labels:
        """Return the indices [h] of the images that were judged."""
        return np.concatenate([fold.held_out for fold in self.folds])

    @property
    def labels(self) -> Labels:
        """Return their labels [h]."""
        return self.contest.samples.labels[self.held_out]

    def head_logits(self) -> Floats:
        """Return calibrated logits [h, classes] of the heads."""
        by_fold = [fold.head_logits for fold in self.folds]
        logits = np.concatenate(by_fold)
        temperature = find_temperature(logits, self.labels)
        calibrated: Floats = logits / temperature
        return calibrated

    def best_epoch(self) -> int:
        """Return the epoch, from 1, with the lowest loss over all folds."""
        lengths = [len(fold.trained.logits_by_epoch) for fold in self.folds]
        shortest = min(lengths)
        labels = self.labels
        losses = []
        for epoch in range(1, shortest + 1):
            logits = self._logits(epoch)
            loss = log_loss(logits, labels)
            losses.append(loss)
        best = int(np.argmin(losses))
        return best + 1

    def temperature(self) -> float:
        """Return the networks' temperature at the best epoch."""
        return find_temperature(self._logits(self.best_epoch()), self.labels)

    def network_logits(self) -> Floats:
        """Return calibrated logits [h, classes] of the networks at the best epoch."""
        epoch = self.best_epoch()
        logits = self._logits(epoch)
        calibrated: Floats = logits / self.temperature()
        return calibrated

    def gain(self) -> tuple[float, float]:
        """Return by how much the networks' loss is lower, and the standard error of that.

        Near-duplicates say nothing new of each other, so that groups are its units.
        """
        labels = self.labels
        head_losses = log_losses(self.head_logits(), labels)
        network_losses = log_losses(self.network_logits(), labels)
        gains = head_losses - network_losses
        mean = float(gains.mean())
        deviations = gains - mean
        held_out = self.held_out
        groups = self.contest.samples.groups[held_out]
        _, unit = np.unique(groups, return_inverse=True)
        unit = unit.reshape(-1)
        by_group = np.bincount(unit, deviations)
        squares = by_group**2
        error = math.sqrt(squares.sum())
        return mean, error / len(gains)

    def _logits(self, epoch: int) -> Floats:
        index = epoch - 1
        by_fold = [fold.trained.logits_by_epoch[index] for fold in self.folds]
        return np.concatenate(by_fold)


def reason_against(out_of_fold: Floats, samples: Samples, seed: int) -> str:
    """Return why fine-tuning cannot pay, as a sentence; empty where it may.

    `out_of_fold` are the head's logits [n, classes] of images that it had not seen.
    """
    predicted = out_of_fold.argmax(axis=1)
    judged = Judged(predicted, samples.labels, samples.groups, samples.classes)
    wrong = int((~judged.right).sum())
    count = len(predicted)
    if wrong <= _WORTHWHILE_SHARE * count:
        return (
            f"The network was not fine-tuned: the linear head is right on {count - wrong} of"
            f" {count} pictures by cross-validation, so that hardly anything could be won."
        )
    if association_p_value(judged, seed) >= _HINT_P:
        return (
            "The network was not fine-tuned: in cross-validation the linear head does not tell the"
            " classes apart, so that nothing shows that they could be learned."
        )
    return ""


def try_network(contest: Contest, config: TrainConfig, context: TrainContext) -> Trial | NotTrained:
    """Try the first of the designs that fits the time budget."""
    clock = Clock(context.budget)
    for design in designs(contest):
        trial = _try(design, contest, config, context, clock)
        if isinstance(trial, Trial) or not trial.too_slow:
            break
    return trial


def designs(contest: Contest) -> list[Design]:
    """Return the ways of trying a network on these images, the most telling first."""
    samples = contest.samples
    count = len(samples.labels)
    everything = np.arange(count)
    learned = np.setdiff1d(everything, contest.in_val)
    by_val = [(learned, contest.in_val)]
    judges_alone = [Design(by_val, refit=True), Design(by_val, refit=False)]
    held_out = len(contest.in_val)
    if held_out >= ENOUGH_HELD_OUT:
        return judges_alone
    folds = cut_folds(samples.labels, samples.groups, contest.seed, _FOLDS)
    by_folds = Design(folds, refit=True)
    return [by_folds, *judges_alone] if held_out >= _LEAST_HELD_OUT else [by_folds]


def _try(
    design: Design, contest: Contest, config: TrainConfig, context: TrainContext, clock: Clock
) -> Trial | NotTrained:
    """Train a network without each fold in turn; end early where the first ones win nothing.

    Asked to finish it takes in the folds that an earlier attempt has completed, and begins none.
    """
    costs = design.costs()
    trial = Trial(contest, design)
    plan = context.plan
    for number, (learned, held_out) in enumerate(design.folds):
        share = costs[number] / sum(costs[number:])
        of_fold = dataclasses.replace(
            context,
            folder=context.folder / f"fold-{number}" if number else context.folder,
            budget=share * clock.left(),
            plan=plan,
            training=number + 1,
            trainings=len(costs),
            report=_report_of(context.report, costs, number),
        )
        fold = _train_fold(contest, config, of_fold, learned, held_out)
        is_complete = isinstance(fold, Fold) and fold.trained.is_complete
        if number and context.should_finish() and not is_complete:
            break  # of a later fold too few epochs are known; the first one has a network
        if isinstance(fold, NotTrained):
            return fold
        clock.add(fold.trained.seconds)
        plan = fold.trained.plan
        trial.folds.append(fold)
        if trial.gain()[0] <= 0:
            break
    return trial


def _report_of(report: Progress, costs: list[float], number: int) -> Progress:
    """Return the progress of one of several trainings, in thousandths of them all.

    The time left is then that of the whole trial.
    """
    before = sum(costs[:number])

    def of_all(done: int, total: int, message: str = "", /) -> None:
        if not total:
            report(done, total, message)
            return
        reached = before + costs[number] * done / total
        thousandths = 1000 * reached / sum(costs)
        report(int(thousandths), 1000, message)

    return of_all


def train_on_all(
    trial: Trial, config: TrainConfig, context: TrainContext
) -> TrainResult | NotTrained:
    """Train the network on all images for the number of epochs that was best in the trial."""
    contest = trial.contest
    seconds = [fold.trained.seconds for fold in trial.folds]
    epochs = trial.best_epoch()
    images = np.arange(len(contest.samples.labels))
    on_all = dataclasses.replace(
        context,
        folder=context.folder / "all",
        budget=context.budget - sum(seconds),
        plan=trial.folds[0].trained.plan,
        training=len(trial.folds) + 1,
        trainings=len(trial.folds) + 1,
        report=_report_of(context.report, trial.design.costs(), len(trial.design.folds)),
    )
    until_best = dataclasses.replace(config, stop_after=epochs)
    trained = _train(contest, until_best, on_all, contest.head, images, images[:0])
    if isinstance(trained, TrainResult) and len(trained.epochs) < epochs:
        return NotTrained(
            "The fine-tuned network was better in cross-validation, but the time budget left no"
            " time to train it on all pictures."
        )
    return trained


class Clock:
    """What is left of a budget; trainings of earlier attempts count as well."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._started = time.monotonic()
        self._trained = 0.0

    def add(self, seconds: float) -> None:
        """Count the seconds of a training, of all attempts."""
        self._trained += seconds

    def left(self) -> float:
        """Return the seconds that are left."""
        of_this_attempt = time.monotonic() - self._started
        spent = max(self._trained, of_this_attempt)
        return self._budget - spent


def _cost(learned: int, held_out: int) -> float:
    return learned + _EVAL_COST * held_out


def _train_fold(
    contest: Contest,
    config: TrainConfig,
    context: TrainContext,
    learned: Labels,
    held_out: Labels,
) -> Fold | NotTrained:
    """Fit the head and train the network on the same images, without those held out."""
    samples = contest.samples
    to_learn = samples.take(learned)
    weights = contest.weights[learned]
    head = fit_with_c(to_learn, contest.c, weights)
    unseen = samples.take(held_out)
    head_logits = head.logits(unseen.embeddings)
    temperature = find_temperature(head_logits, unseen.labels)
    calibrated = head_logits / temperature
    head_loss = log_loss(calibrated, unseen.labels)
    right = head_logits.argmax(axis=1) == unseen.labels
    head_accuracy = float(right.mean())
    against = dataclasses.replace(context, rival_loss=head_loss, rival_accuracy=head_accuracy)
    trained = _train(contest, config, against, head, learned, held_out)
    if isinstance(trained, NotTrained):
        return trained
    return Fold(learned, held_out, head_logits, trained)


def _train(
    contest: Contest,
    config: TrainConfig,
    context: TrainContext,
    head: LinearHead,
    learned: Labels,
    held_out: Labels,
) -> TrainResult | NotTrained:
    """Fine-tune from where this head stands."""
    network = copy.deepcopy(contest.network)
    weight = torch.from_numpy(head.weight)
    bias = torch.from_numpy(head.bias)
    network.set_head(weight, bias, temperature=1.0)
    data = TrainData(
        cache=contest.cache,
        labels=contest.samples.labels,
        train=learned,
        val=held_out,
        classes=contest.samples.classes,
        weights=contest.weights.astype(np.float32),
    )
    return finetune(network, data, config, context)
