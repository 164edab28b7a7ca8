"""The two models of a run, the linear head and the fine-tuned network, and which is delivered."""

from __future__ import annotations

import copy
import dataclasses
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
from training.fitting.relevance import out_of_fold_novelty, reject_threshold
from training.images.split import indices_in
from training.metrics import CandidateMetrics, Floats, Labels, candidate_metrics, softmax
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import FeatureExtractor, ImageFeatures
from training.networks.novelty import choose_references
from training.networks.precision import FP32
from training.phrases import percent
from training.progress import Progress, no_progress
from training.run_folder import ImageRow, RunError

# val images below which the network cannot show that it is better than the head
CHOICE_MINIMUM = 60


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


@dataclass(frozen=True)
class NetworkCandidate:
    """The fine-tuned network, with its head and temperature in place."""

    network: ClassifierNetwork
    trained: TrainResult
    temperature: float


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
    pretrained_novelty: Floats
    """[n] by the pretrained network and the head, which have seen no image that is judged."""
    head: HeadCandidate
    epochs: list[dict[str, Any]]
    """Of the fine-tuning, delivered or not."""


def train_head(images: SplitImages, report: Progress, has_time: HasTime) -> HeadCandidate:
    """Fit the head with the best C.

    Suspected training images count less where cross-validation shows that it helps.
    """
    samples = images.samples("train", "val")
    seed = images.seed
    fitted = fit_head(samples, seed, report, has_time)
    pred_probs = out_of_fold_probabilities(samples, fitted.c, seed)
    in_train = np.isin(images.indices("train", "val"), images.indices("train"))
    if has_time():
        weighting = choose_weighting(samples, pred_probs, in_train, fitted.c, seed)
    else:
        weighting = equal_weighting(
            samples, "There was no time to try whether suspected pictures had better count less."
        )
    weights = weighting.weights
    if weighting.lighter:
        fitted = fit_head(samples, seed, report, has_time, weights)
    from_train = fit_with_c(samples.take(in_train), fitted.c, weights[in_train])
    return HeadCandidate(fitted, from_train, pred_probs, weighting)


def finetune_network(
    images: SplitImages,
    extractor: FeatureExtractor,
    head: HeadCandidate,
    config: TrainConfig,
    context: TrainContext,
) -> NetworkCandidate | str:
    """Fine-tune from where the head stands, or return a sentence why not."""
    train = images.indices("train")
    val = images.indices("val")
    cache = extractor.image_cache
    if cache is None or len(val) < CHOICE_MINIMUM:
        few = f"{len(val)} validation pictures are too few (fewer than {CHOICE_MINIMUM})"
        return f"The network was not fine-tuned: {few} to show that it would be better."
    network = copy.deepcopy(extractor.network)
    _set_head(network, head.from_train, temperature=1.0)
    # The trainer takes an entry for every line of the manifest.
    in_manifest = images.manifest_indices
    labels = np.zeros(len(images.manifest), np.int64)
    labels[in_manifest] = images.labels
    weights = np.zeros(len(images.manifest), np.float32)
    learned = in_manifest[images.indices("train", "val")]
    weights[learned] = head.weighting.weights
    data = TrainData(
        cache=cache,
        labels=labels,
        train=in_manifest[train],
        val=in_manifest[val],
        classes=images.classes,
        weights=weights,
    )
    trained = finetune(network, data, config, context)
    if isinstance(trained, NotTrained):
        return trained.reason
    network.load_state_dict(trained.state, strict=False)
    temperature = find_temperature(trained.val_logits, images.labels[val])
    network.temperature.fill_(temperature)
    return NetworkCandidate(network, trained, temperature)


def choose_candidate(
    images: SplitImages,
    extractor: FeatureExtractor,
    head: HeadCandidate,
    tuned: NetworkCandidate | str,
) -> Choice:
    """Judge both on val and deliver the better.

    Test results of both are reported and decide nothing.
    """
    val = images.indices("val")
    val_labels = images.labels[val]
    test = images.indices("test")
    test_labels = images.labels[test]
    test_groups = images.groups[test]
    with_head = _deliver_head(images, extractor, head)
    logits = head.from_train.logits(images.embeddings[val])
    calibrated = logits / find_temperature(logits, val_labels)
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
            pretrained_novelty=with_head.novelty,
            head=head,
            epochs=[],
        )
    test_embeddings = _exact_test_embeddings(images, extractor, tuned.network)
    test_logits = _logits(tuned.network, test_embeddings)
    epochs = tuned.trained.epochs
    calibrated = tuned.trained.val_logits / tuned.temperature
    network_metrics = candidate_metrics(
        test_logits, test_labels, calibrated, val_labels, test_groups
    )
    network_metrics["epochs"] = len(epochs)
    name, sentence = choose(head_metrics, network_metrics, len(val))
    model = with_head
    if name == "network":
        model = _deliver_network(images, extractor, tuned, test_embeddings, test_logits)
    return Choice(
        name=name,
        sentence=sentence,
        model=model,
        head_metrics=head_metrics,
        network_metrics=network_metrics,
        pretrained_novelty=with_head.novelty,
        head=head,
        epochs=epochs,
    )


def choose(
    head: CandidateMetrics, network: CandidateMetrics, val_images: int
) -> tuple[Literal["head", "network"], str]:
    """Return which candidate is delivered, and the sentence why; test results are not used."""
    if val_images < CHOICE_MINIMUM:
        few = f"{val_images} validation pictures are too few (fewer than {CHOICE_MINIMUM})"
        return (
            "head",
            f"The linear head is delivered: {few} to show that the fine-tuned network is better.",
        )
    losses = f"loss {network['val_loss']:.3f} against {head['val_loss']:.3f}"
    accuracies = f"{percent(network['val_accuracy'])} against {percent(head['val_accuracy'])} right"
    figures = f"{losses}, {accuracies} on {val_images} validation pictures"
    lower_loss = network["val_loss"] < head["val_loss"]
    if lower_loss and network["val_accuracy"] >= head["val_accuracy"]:
        return (
            "network",
            f"The fine-tuned network is delivered: it is better than the linear head ({figures}).",
        )
    return (
        "head",
        "The linear head is delivered: the fine-tuned network is not better on both counts "
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
        reject_threshold=reject_threshold(novelty[learned]),
    )


def _deliver_network(
    images: SplitImages,
    extractor: FeatureExtractor,
    tuned: NetworkCandidate,
    test_embeddings: NDArray[np.float32],
    test_logits: Floats,
) -> DeliveredModel:
    """Give the fine-tuned network its references.

    Its threshold comes from val, the images that it has not learned from. Training images are
    judged without their own fold, so that none is compared with itself.
    """
    train = images.indices("train")
    network = tuned.network
    with_network = dataclasses.replace(extractor, network=network, image_cache=None)
    embeddings = _embeddings(with_network.extract(images.rows, no_progress))
    embeddings[images.indices("test")] = test_embeddings
    samples = Samples(embeddings, images.labels, images.groups, images.classes).take(train)
    references = choose_references(samples.embeddings, samples.labels, images.classes, images.seed)
    probabilities = softmax(_logits(network, embeddings) / tuned.temperature)
    novelty = references.novelty(embeddings, probabilities)
    novelty[train] = out_of_fold_novelty(samples, probabilities[train], images.seed)
    network.set_references(references)
    return DeliveredModel(
        network=network,
        embeddings=embeddings,
        test_logits=test_logits,
        temperature=tuned.temperature,
        novelty=novelty,
        reject_threshold=reject_threshold(novelty[images.indices("val")]),
    )


def _exact_test_embeddings(
    images: SplitImages, extractor: FeatureExtractor, network: ClassifierNetwork
) -> NDArray[np.float32]:
    """Return [t, d] of the test images in the precision of the delivered files."""
    exact = dataclasses.replace(extractor, network=network, precision=FP32, image_cache=None)
    test = images.indices("test")
    rows = [images.rows[index] for index in test]
    features = exact.extract(rows, no_progress)
    return _embeddings(features)


def _embeddings(features: ImageFeatures) -> NDArray[np.float32]:
    """Return all embeddings; raises RunError where an image has gone since it was first read."""
    if features.broken:
        file = next(iter(features.broken))
        raise RunError(
            "evaluate",
            f"The picture {file} can no longer be read.",
            "Start again: the run then goes on without it.",
            retry=True,
        )
    return features.embeddings


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
