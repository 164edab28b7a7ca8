"""The two models of a run, the linear head and the fine-tuned network, and which is delivered."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from training.finetuning.trainer import NotTrained, TrainConfig, TrainContext, TrainResult
from training.fitting.label_issues import (
    SampleWeighting,
    choose_weighting,
    equal_weighting,
    out_of_fold_probabilities,
)
from training.fitting.linear_head import (
    FittedHead,
    HasTime,
    LinearHead,
    Samples,
    find_temperature,
    fit_head,
    fit_with_c,
)
from training.fitting.network_trial import (
    Contest,
    Trial,
    reason_against,
    train_on_all,
    try_network,
)
from training.fitting.relevance import (
    OUTLIER_DISTANCE,
    core_distances,
    out_of_fold_novelty,
    reject_threshold,
)
from training.images.split import indices_in
from training.metrics import CandidateMetrics, Floats, Labels, candidate_metrics, softmax
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import FeatureExtractor
from training.networks.image_cache import open_cache
from training.networks.novelty import choose_references
from training.networks.precision import FP32
from training.phrases import percent
from training.progress import Progress, no_progress
from training.run_folder import ImageRow


@dataclass(frozen=True)
class SplitImages:
    """The usable images of a run after the split, in the order of the manifest."""

    rows: list[ImageRow]
    embeddings: NDArray[np.float32]
    """[n, d] by the pretrained network, n = len(rows)."""
    labels: Labels
    """Class numbers [n] in output order."""
    groups: Labels
    """[n]: near-duplicates share one."""
    statistics: NDArray[np.float32]
    """[n, k], the columns of `training.images.statistics.IMAGE_STATISTICS`."""
    manifest_indices: Labels
    """[n]: their lines in the manifest."""
    manifest: list[ImageRow]
    """All rows of the manifest."""
    classes: int
    seed: int
    own_test: bool = False
    """The test images are those that whoever asked has marked for it."""

    def indices(self, *splits: str) -> Labels:
        """Return the indices [m] of the images in the given splits."""
        return indices_in(self.rows, splits)

    def samples(self, *splits: str) -> Samples:
        """Return the images of the given splits to learn from together."""
        everything = Samples(
            embeddings=self.embeddings,
            labels=self.labels,
            groups=self.groups,
            classes=self.classes,
        )
        return everything.take(self.indices(*splits))


@dataclass(frozen=True)
class HeadCandidate:
    """The linear head on the pretrained network, and its predictions of unseen images."""

    fitted: FittedHead
    """Learned from train and val; its out-of-fold logits are those images' in order."""
    from_train: LinearHead
    """Learned from train alone, to be judged on val."""
    pred_probs: Floats
    """Out-of-fold probabilities [n, classes] of train and val."""
    weighting: SampleWeighting
    ordinary: NDArray[np.bool_]
    """[n]: whose novelty says what images of the classes are like."""


@dataclass(frozen=True)
class NetworkCandidate:
    """The fine-tuned network, with its head and temperature in place."""

    network: ClassifierNetwork
    trial: Trial
    """What was tried by cross-validation."""
    temperature: float
    wins: bool
    """Whether it was better there, and then trained on all images where there was time for it.

    In any other case it is the first fold's.
    """
    note: str = ""
    """What else is to be said of how it was trained, as a sentence."""


@dataclass(frozen=True)
class DeliveredModel:
    """A model ready for export."""

    network: ClassifierNetwork
    """With head, temperature and references in place."""
    embeddings: NDArray[np.float32]
    """[n, d] of all images by this network."""
    test_logits: Floats
    """[t, classes] of the test images in order, before the temperature."""
    temperature: float
    novelty: Floats
    """[n], of each image as one that was not learned."""
    reject_threshold: float


@dataclass(frozen=True)
class Choice:
    """The better of the two candidates, and what led to it."""

    name: Literal["head", "network"]
    sentence: str
    """Why."""
    model: DeliveredModel
    head_metrics: CandidateMetrics
    """`head` of metrics.json."""
    network_metrics: CandidateMetrics | None
    """`network` of metrics.json."""
    head: HeadCandidate
    epochs: list[dict[str, Any]]
    """Of the fine-tuning, delivered or not."""


def train_head(images: SplitImages, report: Progress, has_time: HasTime) -> HeadCandidate:
    """Fit the head with the best C.

    Suspected images may count less; see `choose_weighting`.
    """
    samples = images.samples("train", "val")
    seed = images.seed
    fitted = fit_head(samples, seed, report, has_time)
    pred_probs = out_of_fold_probabilities(samples, fitted.c, seed)
    in_train = np.isin(images.indices("train", "val"), images.indices("train"))
    if has_time():
        weighting = choose_weighting(samples, pred_probs, fitted.c, seed)
    else:
        weighting = equal_weighting(
            samples, "There was no time to try whether suspected pictures had better count less."
        )
    weights = weighting.weights
    if weighting.lighter:
        fitted = fit_head(samples, seed, report, has_time, weights)
    from_train = fit_with_c(samples.take(in_train), fitted.c, weights[in_train])
    ordinary = _ordinary(samples, weighting)
    return HeadCandidate(fitted, from_train, pred_probs, weighting, ordinary)


def _ordinary(samples: Samples, weighting: SampleWeighting) -> NDArray[np.bool_]:
    """Return which images [n] tell what is no longer one of the classes.

    Where suspects count less, much does not belong, and what does not must not teach the model to
    accept its like: neither suspects nor outliers then have a part in the reject threshold.
    """
    if not weighting.lighter:
        return np.ones(len(samples.labels), np.bool_)
    is_outlier = core_distances(samples) > OUTLIER_DISTANCE
    ordinary: NDArray[np.bool_] = (weighting.weights == 1) & ~is_outlier
    return ordinary


def finetune_network(
    images: SplitImages,
    extractor: FeatureExtractor,
    head: HeadCandidate,
    config: TrainConfig,
    context: TrainContext,
    asked: bool = False,
) -> NetworkCandidate | str:
    """Fine-tune where cross-validation shows that it pays, or return a sentence why not.

    `asked` for by a number of epochs it is tried where hardly anything could be won, too.
    """
    samples = images.samples("train", "val")
    reason = reason_against(head.fitted.out_of_fold, samples, images.seed)
    if reason and not asked:
        return reason
    if context.budget <= 0:
        return "The network was not fine-tuned: nothing is left of the time budget."
    contest = _contest(images, extractor, head, context)

    def fill() -> None:
        context.prepare()
        rows = _learned_rows(images)
        contest.cache.fill(extractor.network, rows, extractor.run_dir, report_decoded)

    def report_decoded(done: int, total: int, message: str = "", /) -> None:
        context.report(0, 0, f"Decoding pictures: {done} of {total}")  # no steps of the training

    filling = dataclasses.replace(context, prepare=fill)
    trial = try_network(contest, config, filling)
    if isinstance(trial, NotTrained):
        return trial.reason
    trained = trial.folds[0].trained
    wins = _is_better(trial)
    note = ""
    ended = context.should_finish()
    if wins and not trial.design.refit:
        note = "The time budget left no time to train it again on the validation pictures as well."
    elif wins:  # asked to finish it begins nothing, but takes what an earlier attempt completed
        on_all = train_on_all(trial, config, filling)
        if isinstance(on_all, TrainResult):
            trained = on_all
            ended = False
        elif context.should_finish():
            ended = True
        else:
            return on_all.reason
    if ended:
        note = "Fine-tuning was ended on request, with the best that it had come to."
    network = copy.deepcopy(extractor.network)
    network.load_state_dict(trained.state, strict=False)
    temperature = trial.temperature()
    network.temperature.fill_(temperature)
    return NetworkCandidate(network, trial, temperature, wins, note)


def _contest(
    images: SplitImages, extractor: FeatureExtractor, head: HeadCandidate, context: TrainContext
) -> Contest:
    """Return what the head and the network are fitted on; the cache may still be empty."""
    network = extractor.network
    learned = images.indices("train", "val")
    in_val = np.isin(learned, images.indices("val"))
    rows = _learned_rows(images)
    return Contest(
        network=network,
        samples=images.samples("train", "val"),
        in_val=np.flatnonzero(in_val),
        cache=open_cache(context.folder, rows, network.backbone.resize, network.view),
        c=head.fitted.c,
        weights=head.weighting.weights,
        head=head.fitted.head,
        seed=images.seed,
    )


def _learned_rows(images: SplitImages) -> list[ImageRow]:
    return [images.rows[index] for index in images.indices("train", "val")]


def _is_better(trial: Trial) -> bool:
    """Return whether the network wins more than a standard error, and loses no accuracy."""
    gain, error = trial.gain()
    labels = trial.labels
    network_logits = trial.network_logits()
    head_logits = trial.head_logits()
    network_hits = int((network_logits.argmax(axis=1) == labels).sum())
    head_hits = int((head_logits.argmax(axis=1) == labels).sum())
    return gain > error and network_hits >= head_hits


def choose_candidate(
    images: SplitImages,
    extractor: FeatureExtractor,
    head: HeadCandidate,
    tuned: NetworkCandidate | str,
) -> Choice:
    """Judge both on images that neither has seen, and deliver the better.

    Test results of both are reported and decide nothing.
    """
    test = images.indices("test")
    test_labels = images.labels[test]
    test_groups = images.groups[test]
    with_head = _deliver_head(images, extractor, head)
    if isinstance(tuned, str):
        val = images.indices("val")
        val_labels = images.labels[val]
        logits = head.from_train.logits(images.embeddings[val])
        calibrated = logits / find_temperature(logits, val_labels)
    else:
        val_labels = tuned.trial.labels
        calibrated = tuned.trial.head_logits()
    head_metrics = candidate_metrics(
        with_head.test_logits, test_labels, calibrated, val_labels, test_groups
    )
    if isinstance(tuned, str):
        return Choice(
            name="head",
            sentence=f"{tuned} The linear head is delivered.",
            model=with_head,
            head_metrics=head_metrics,
            network_metrics=None,
            head=head,
            epochs=[],
        )
    test_embeddings = _exact_test_embeddings(images, extractor, tuned.network)
    test_logits = _logits(tuned.network, test_embeddings)
    epochs = tuned.trial.folds[0].trained.epochs
    if tuned.wins:
        epochs = epochs[: tuned.trial.best_epoch()]
    network_metrics = candidate_metrics(
        test_logits, test_labels, tuned.trial.network_logits(), val_labels, test_groups
    )
    network_metrics["epochs"] = len(epochs)
    name, sentence = choose(head_metrics, network_metrics, len(val_labels), tuned.trial.gain())
    if tuned.note:
        sentence += f" {tuned.note}"
    model = with_head
    if name == "network":
        model = _deliver_network(images, extractor, head, tuned, test_embeddings, test_logits)
    return Choice(
        name=name,
        sentence=sentence,
        model=model,
        head_metrics=head_metrics,
        network_metrics=network_metrics,
        head=head,
        epochs=epochs,
    )


def choose(
    head: CandidateMetrics, network: CandidateMetrics, judged: int, gain: tuple[float, float]
) -> tuple[Literal["head", "network"], str]:
    """Return which candidate is delivered, and the sentence why; test results are not used.

    `judged` is the number of images that both were judged on without having seen them, `gain` by
    how much the network's loss is lower there, and its standard error.
    """
    losses = f"loss {network['val_loss']:.3f} against {head['val_loss']:.3f}"
    accuracies = f"{percent(network['val_accuracy'])} against {percent(head['val_accuracy'])} right"
    figures = f"{losses}, {accuracies} on {judged} pictures that it had not learned from"
    mean, error = gain
    if mean > error and network["val_accuracy"] >= head["val_accuracy"]:
        return (
            "network",
            f"The fine-tuned network is delivered: it is better than the linear head ({figures}).",
        )
    return (
        "head",
        "The linear head is delivered: the fine-tuned network is not clearly better on both counts "
        f"({figures}).",
    )


def _deliver_head(
    images: SplitImages, extractor: FeatureExtractor, head: HeadCandidate
) -> DeliveredModel:
    """Put the linear head on the pretrained network; novelty is judged out-of-fold."""
    learned = images.indices("train", "val")
    test = images.indices("test")
    network = extractor.network
    if extractor.precision.dtype == torch.float32:
        test_embeddings = images.embeddings[test]
    else:
        test_embeddings = _exact_test_embeddings(images, extractor, network)
    fitted = head.fitted
    test_logits = fitted.head.logits(test_embeddings)
    samples = images.samples("train", "val")
    references = choose_references(samples.embeddings, samples.labels, images.classes, images.seed)
    novelty = np.zeros(len(images.rows))
    unseen = softmax(fitted.out_of_fold / fitted.temperature)
    novelty[learned] = out_of_fold_novelty(samples, unseen, images.seed)
    tested = softmax(test_logits / fitted.temperature)
    novelty[test] = references.novelty(test_embeddings, tested)
    _set_head(network, fitted.head, fitted.temperature)
    network.set_references(references)
    embeddings = images.embeddings.copy()
    embeddings[test] = test_embeddings
    return DeliveredModel(
        network=network,
        embeddings=embeddings,
        test_logits=test_logits,
        temperature=fitted.temperature,
        novelty=novelty,
        reject_threshold=reject_threshold(novelty[learned[head.ordinary]]),
    )


def _deliver_network(
    images: SplitImages,
    extractor: FeatureExtractor,
    head: HeadCandidate,
    tuned: NetworkCandidate,
    test_embeddings: NDArray[np.float32],
    test_logits: Floats,
) -> DeliveredModel:
    """Give the fine-tuned network its references.

    Its threshold comes from images that were held out of a fold, judged by that fold's network.
    """
    learned = images.indices("train", "val")
    network = tuned.network
    with_network = dataclasses.replace(extractor, network=network)
    embeddings = with_network.extract(images.rows, no_progress).whole("evaluate")
    embeddings[images.indices("test")] = test_embeddings
    everything = Samples(embeddings, images.labels, images.groups, images.classes)
    samples = everything.take(learned)
    references = choose_references(samples.embeddings, samples.labels, images.classes, images.seed)
    probabilities = softmax(_logits(network, embeddings) / tuned.temperature)
    novelty = references.novelty(embeddings, probabilities)
    novelty[learned] = out_of_fold_novelty(samples, probabilities[learned], images.seed)
    held_out = _held_out_novelty(images, extractor, tuned)
    judged = tuned.trial.held_out
    novelty[learned[judged]] = held_out
    ordinary = head.ordinary[judged]
    network.set_references(references)
    return DeliveredModel(
        network=network,
        embeddings=embeddings,
        test_logits=test_logits,
        temperature=tuned.temperature,
        novelty=novelty,
        reject_threshold=reject_threshold(held_out[ordinary]),
    )


def _held_out_novelty(
    images: SplitImages, extractor: FeatureExtractor, tuned: NetworkCandidate
) -> Floats:
    """Return the novelty of the images held out of each fold, by that fold's own network."""
    samples = images.samples("train", "val")
    rows = _learned_rows(images)
    novelty = []
    for fold in tuned.trial.folds:
        network = copy.deepcopy(extractor.network)
        network.load_state_dict(fold.trained.state, strict=False)
        with_network = dataclasses.replace(extractor, network=network)
        embeddings = with_network.extract(rows, no_progress).whole("evaluate")
        labels = samples.labels[fold.learned]
        references = choose_references(
            embeddings[fold.learned], labels, images.classes, images.seed
        )
        unseen = embeddings[fold.held_out]
        probabilities = softmax(_logits(network, unseen) / tuned.temperature)
        novelty.append(references.novelty(unseen, probabilities))
    return np.concatenate(novelty)


def _exact_test_embeddings(
    images: SplitImages, extractor: FeatureExtractor, network: ClassifierNetwork
) -> NDArray[np.float32]:
    """Return [t, d] of the test images in the precision of the delivered files."""
    exact = dataclasses.replace(extractor, network=network, precision=FP32)
    test = images.indices("test")
    rows = [images.rows[index] for index in test]
    features = exact.extract(rows, no_progress)
    return features.whole("evaluate")


def _logits(network: ClassifierNetwork, embeddings: NDArray[np.float32]) -> Floats:
    """Return [n, classes] of embeddings [n, d], before the temperature."""
    head = network.head
    weight = head.weight.detach().cpu().double().numpy()
    bias = head.bias.detach().cpu().double().numpy()
    logits: Floats = embeddings @ weight.T + bias
    return logits


def _set_head(network: ClassifierNetwork, head: LinearHead, temperature: float) -> None:
    weight = torch.from_numpy(head.weight)
    bias = torch.from_numpy(head.bias)
    network.set_head(weight, bias, temperature)
