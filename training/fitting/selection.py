"""The two models of a run, the linear head and the fine-tuned network, and which of them is
delivered.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from training.finetuning.trainer import (
    NotTrained,
    TrainConfig,
    TrainContext,
    TrainData,
    TrainResult,
    finetune,
)
from training.fitting.label_issues import (
    Samples,
    Treatment,
    choose_treatment,
    no_treatment,
    unseen_opinions,
)
from training.fitting.linear_head import (
    FittedHead,
    InTime,
    LinearHead,
    find_temperature,
    fit_head,
    fit_strength,
)
from training.metrics import Floats, Labels, candidate, softmax
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import FeatureExtractor, ImageFeatures
from training.networks.novelty import choose_references, out_of_fold_novelty, reject_threshold
from training.networks.precision import FP32
from training.phrases import percent
from training.progress import Progress, no_progress
from training.run_folder import ImageRow, RunError

CHOICE_MINIMUM = (
    60  # val pictures below which the network cannot show that it is better than the head
)


@dataclass(frozen=True)
class SplitPictures:
    """The usable pictures of a run after the split, in the order of the manifest."""

    rows: list[ImageRow]
    embeddings: NDArray[np.float32]
    """[n, d] by the pretrained network, n = len(rows)."""
    labels: Labels
    """Class numbers [n] in output order."""
    groups: Labels
    """[n]: near copies share one."""
    traits: NDArray[np.float32]
    """[n, 4]."""
    places: Labels
    """[n]: their lines in the manifest."""
    manifest: list[ImageRow]
    """All rows of the manifest."""
    classes: int
    seed: int

    def part(self, *parts: str) -> Labels:
        """Numbers of the pictures in the given parts: int64 [m]."""
        return np.array([i for i, row in enumerate(self.rows) if row.split in parts], np.int64)

    def samples(self, *parts: str) -> Samples:
        """The pictures of the given parts as curating takes them."""
        places = self.part(*parts)
        return Samples(
            self.embeddings[places], self.labels[places], self.groups[places], self.classes
        )


@dataclass(frozen=True)
class HeadCandidate:
    """The linear head on the pretrained network, and what it says about pictures that it has not
    seen.
    """

    fitted: FittedHead
    """Learned from train and val; its out-of-fold logits are those pictures' in order."""
    from_train: LinearHead
    """Learned from train alone, to be judged on val."""
    opinions: Floats
    """[n, classes] of train and val: what others say about each picture."""
    treatment: Treatment


@dataclass(frozen=True)
class NetworkCandidate:
    """The fine-tuned network, with its head and temperature in place."""

    network: ClassifierNetwork
    tuned: TrainResult
    temperature: float


@dataclass(frozen=True)
class Delivered:
    """A model ready for export."""

    network: ClassifierNetwork
    """With head, temperature and references in place."""
    embeddings: NDArray[np.float32]
    """[n, d] of all pictures by this network."""
    test_logits: Floats
    """[t, classes] of the test pictures in order, before the temperature."""
    temperature: float
    novelty: Floats
    """[n], of each picture as one that was not learned."""
    reject: float


@dataclass(frozen=True)
class Choice:
    """The better of the two candidates, and what led to it."""

    name: Literal["head", "network"]
    sentence: str
    """Why."""
    model: Delivered
    head_figures: dict[str, Any]
    """`head` of metrics.json."""
    network_figures: dict[str, Any] | None
    """`network` of metrics.json."""
    strangeness: Floats
    """[n]: novelty by the pretrained network and the head, which have seen no picture that is judged."""
    head: HeadCandidate
    epochs: list[dict[str, Any]]
    """Of the fine-tuning, delivered or not."""


def train_head(pictures: SplitPictures, report: Progress, in_time: InTime) -> HeadCandidate:
    """The head with the best strength; suspected training pictures count less where
    cross-validation wants it.
    """
    learned, seed = pictures.samples("train", "val"), pictures.seed
    fitted = _fitted(learned, seed, report, in_time)
    opinions = unseen_opinions(learned, fitted.strength, seed)
    in_training = np.isin(pictures.part("train", "val"), pictures.part("train"))
    if in_time():
        treatment = choose_treatment(learned, opinions, in_training, fitted.strength, seed)
    else:
        treatment = no_treatment(
            learned, "There was no time to try whether suspected pictures had better count less."
        )
    if treatment.pictures:
        fitted = _fitted(learned, seed, report, in_time, treatment.weights)
    from_train = fit_strength(
        learned.embeddings[in_training],
        learned.labels[in_training],
        learned.classes,
        fitted.strength,
        treatment.weights[in_training],
    )
    return HeadCandidate(fitted, from_train, opinions, treatment)


def tune_network(
    pictures: SplitPictures,
    extractor: FeatureExtractor,
    head: HeadCandidate,
    config: TrainConfig,
    context: TrainContext,
) -> NetworkCandidate | str:
    """Fine-tune from where the head stands, or say in a sentence why not."""
    val = pictures.part("val")
    cache = extractor.image_cache
    if cache is None or len(val) < CHOICE_MINIMUM:
        few = f"{len(val)} validation pictures are too few (fewer than {CHOICE_MINIMUM})"
        return f"The network was not fine-tuned: {few} to show that it would be better."
    network = copy.deepcopy(extractor.network)
    _set_head(network, head.from_train, 1.0)
    weights = np.zeros(len(pictures.manifest), np.float32)
    weights[pictures.places[pictures.part("train", "val")]] = head.treatment.weights
    labels = np.zeros(len(pictures.manifest), np.int64)
    labels[pictures.places] = pictures.labels
    train, held_out = pictures.places[pictures.part("train")], pictures.places[val]
    data = TrainData(cache, labels, train, held_out, pictures.classes, weights)
    tuned = finetune(network, data, config, context)
    if isinstance(tuned, NotTrained):
        return tuned.reason
    network.load_state_dict(tuned.state, strict=False)
    temperature = find_temperature(tuned.val_logits, pictures.labels[val])
    network.temperature.fill_(temperature)
    return NetworkCandidate(network, tuned, temperature)


def choose_candidate(
    pictures: SplitPictures,
    extractor: FeatureExtractor,
    head: HeadCandidate,
    tuned: NetworkCandidate | str,
) -> Choice:
    """Judge both on val and deliver the better; test results are told of both and decide
    nothing.
    """
    head_seen = _head_on_test(pictures, extractor, head)
    with_head = _with_head(pictures, extractor.network, head, head_seen)
    val, test = pictures.part("val"), pictures.part("test")
    val_logits, val_labels = head.from_train.logits(pictures.embeddings[val]), pictures.labels[val]
    calibrated = val_logits / find_temperature(val_logits, val_labels)
    head_figures = candidate(head_seen.logits, pictures.labels[test], calibrated, val_labels)
    if isinstance(tuned, str):
        sentence = f"{tuned} The linear head is delivered."
        return Choice("head", sentence, with_head, head_figures, None, with_head.novelty, head, [])
    seen = _network_on_test(pictures, extractor, tuned)
    calibrated = tuned.tuned.val_logits / tuned.temperature
    figures = candidate(seen.logits, pictures.labels[test], calibrated, val_labels)
    figures |= {"epochs": len(tuned.tuned.epochs)}
    name, sentence = choose(head_figures, figures, len(val))
    model = with_head if name == "head" else _with_network(pictures, extractor, tuned, seen)
    return Choice(
        name, sentence, model, head_figures, figures, with_head.novelty, head, tuned.tuned.epochs
    )


@dataclass(frozen=True)
class _OnTest:
    """A candidate's answers to the test pictures, computed in the arithmetic of the delivered
    files.
    """

    embeddings: NDArray[np.float32]
    logits: Floats


def _head_on_test(
    pictures: SplitPictures, extractor: FeatureExtractor, head: HeadCandidate
) -> _OnTest:
    test = pictures.part("test")
    if extractor.precision.dtype == torch.float32:
        embeddings = pictures.embeddings[test]
    else:
        embeddings = _exact_embeddings(pictures, extractor, extractor.network)
    return _OnTest(embeddings, head.fitted.head.logits(embeddings))


def _network_on_test(
    pictures: SplitPictures, extractor: FeatureExtractor, tuned: NetworkCandidate
) -> _OnTest:
    embeddings = _exact_embeddings(pictures, extractor, tuned.network)
    return _OnTest(embeddings, _logits(tuned.network, embeddings))


def _exact_embeddings(
    pictures: SplitPictures, extractor: FeatureExtractor, network: ClassifierNetwork
) -> NDArray[np.float32]:
    """[t, d] of the test pictures."""
    exact = dataclasses.replace(extractor, network=network, precision=FP32, image_cache=None)
    return _all_of(exact.extract([pictures.rows[i] for i in pictures.part("test")], no_progress))


def _all_of(features: ImageFeatures) -> NDArray[np.float32]:
    """The embeddings; raises RunError where a picture has gone since it was first looked at."""
    if features.broken:
        reason = f"The picture {next(iter(features.broken))} can no longer be read."
        raise RunError(
            "evaluate", reason, "Start again: the run then goes on without it.", retry=True
        )
    return features.embeddings


def _with_head(
    pictures: SplitPictures, network: ClassifierNetwork, head: HeadCandidate, seen: _OnTest
) -> Delivered:
    """The pretrained network with the linear head; novelty is judged out-of-fold."""
    learned, test, fitted = pictures.part("train", "val"), pictures.part("test"), head.fitted
    samples = pictures.samples("train", "val")
    references = choose_references(
        samples.embeddings, samples.labels, pictures.classes, pictures.seed
    )
    unseen = softmax(fitted.out_of_fold / fitted.temperature)
    novelty = np.zeros(len(pictures.rows))
    novelty[learned] = out_of_fold_novelty(
        samples.embeddings, samples.labels, samples.groups, unseen, pictures.seed
    )
    novelty[test] = references.novelty(seen.embeddings, softmax(seen.logits / fitted.temperature))
    _set_head(network, fitted.head, fitted.temperature)
    network.set_references(references)
    embeddings = pictures.embeddings.copy()
    embeddings[test] = seen.embeddings
    return Delivered(
        network,
        embeddings,
        seen.logits,
        fitted.temperature,
        novelty,
        reject_threshold(novelty[learned]),
    )


def _with_network(
    pictures: SplitPictures, extractor: FeatureExtractor, tuned: NetworkCandidate, seen: _OnTest
) -> Delivered:
    """The fine-tuned network. Its threshold comes from val, the pictures that it has not learned
    from.

    Training pictures are judged without their own fold, so that none is compared with itself.
    """
    train, val, test = (pictures.part(part) for part in ("train", "val", "test"))
    again = dataclasses.replace(extractor, network=tuned.network, image_cache=None)
    embeddings = _all_of(again.extract(pictures.rows, no_progress))
    embeddings[test] = seen.embeddings
    references = choose_references(
        embeddings[train], pictures.labels[train], pictures.classes, pictures.seed
    )
    probabilities = softmax(_logits(tuned.network, embeddings) / tuned.temperature)
    novelty = references.novelty(embeddings, probabilities)
    novelty[train] = out_of_fold_novelty(
        embeddings[train],
        pictures.labels[train],
        pictures.groups[train],
        probabilities[train],
        pictures.seed,
    )
    tuned.network.set_references(references)
    return Delivered(
        tuned.network,
        embeddings,
        seen.logits,
        tuned.temperature,
        novelty,
        reject_threshold(novelty[val]),
    )


def _logits(network: ClassifierNetwork, embeddings: NDArray[np.float32]) -> Floats:
    """[n, classes] of embeddings [n, d], before the temperature."""
    weight, bias = (
        tensor.detach().cpu().double().numpy()
        for tensor in (network.head.weight, network.head.bias)
    )
    result: Floats = embeddings @ weight.T + bias
    return result


def _fitted(
    learned: Samples,
    seed: int,
    report: Progress,
    in_time: InTime,
    weights: Floats | None = None,
) -> FittedHead:
    return fit_head(
        learned.embeddings,
        learned.labels,
        learned.groups,
        learned.classes,
        seed,
        report,
        in_time,
        weights,
    )


def _set_head(network: ClassifierNetwork, head: LinearHead, temperature: float) -> None:
    network.set_head(torch.from_numpy(head.weight), torch.from_numpy(head.bias), temperature)


def choose(
    head: Mapping[str, Any], network: Mapping[str, Any], val_pictures: int
) -> tuple[Literal["head", "network"], str]:
    """Which of two candidates is delivered, and the sentence why; test results have no say in
    it.
    """
    if val_pictures < CHOICE_MINIMUM:
        few = f"{val_pictures} validation pictures are too few (fewer than {CHOICE_MINIMUM})"
        return (
            "head",
            f"The linear head is delivered: {few} to show that the fine-tuned network is better.",
        )
    figures = (
        f"loss {network['val_loss']:.3f} against {head['val_loss']:.3f}, "
        f"{percent(network['val_accuracy'])} against {percent(head['val_accuracy'])} right on {val_pictures} "
        "validation pictures"
    )
    if network["val_loss"] < head["val_loss"] and network["val_accuracy"] >= head["val_accuracy"]:
        return (
            "network",
            f"The fine-tuned network is delivered: it is better than the linear head ({figures}).",
        )
    return (
        "head",
        f"The linear head is delivered: the fine-tuned network is not better on both counts ({figures}).",
    )
