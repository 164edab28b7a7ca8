"""What is known of a run's images and of its model after training: for metrics, report and card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from training.evaluation.learning_curve import learning_curve
from training.evaluation.shortcuts import (
    shortcut_accuracies,
    shortcut_sentence,
    shortcut_warning,
)
from training.evaluation.unseen_source import SourcedImages, leave_sources_out
from training.explanations import LearnedImage
from training.fitting.label_issues import (
    Suspect,
    label_issue_scores,
    muted_curation,
    neighbour_votes,
    rank_suspects,
)
from training.fitting.linear_head import FittedHead, LinearHead, Samples, fit_with_c
from training.images.split import indices_in
from training.metrics import (
    Curation,
    Floats,
    Headline,
    Labels,
    Metrics,
    Shortcuts,
    UnseenSourceMetrics,
    Verified,
    accuracy_by_source,
    balanced_accuracy,
    classification_metrics,
    false_alarms,
    softmax,
)
from training.phrases import verdict
from training.progress import Progress
from training.run_folder import SPLITS, ImageRow

if TYPE_CHECKING:
    from training.fitting.selection import Choice, SplitImages  # which loads torch


@dataclasses.dataclass(frozen=True)
class Results:
    """What is known of a run's n usable images: report, card and explanations are made from it."""

    rows: list[ImageRow]
    """In the order of the manifest; a `split` of None means left out."""
    labels: Labels
    """Class numbers [n] in output order."""
    probabilities: Floats
    """[n, classes]: of test images by the delivered model, of all others out-of-fold."""
    novelty: Floats
    """[n], likewise unseen."""
    embeddings: NDArray[np.float32]
    """[n, d] by the delivered network."""
    suspects: list[Suspect]
    """Outside test, the highest score first; none where the verdict is not "better"."""
    epochs: list[dict[str, Any]]
    """Of the fine-tuning: epoch, train_loss, val_loss, val_accuracy, rate, seconds; or []."""
    statistics: NDArray[np.float32]
    """[n, k], the columns of `training.images.statistics.IMAGE_STATISTICS`."""
    metrics: Metrics
    """All of metrics.json."""

    def indices(self, *splits: str) -> NDArray[np.int64]:
        """Return the indices of the images in these splits, in the order of the manifest."""
        return indices_in(self.rows, splits)

    def learned_indices(self) -> NDArray[np.int64]:
        """Return the indices of the images that the delivered model learned from.

        The linear head is fitted on val too.
        """
        if self.metrics["delivered"] == "head":
            return self.indices("train", "val")
        return self.indices("train")

    def learned_images(self) -> list[LearnedImage]:
        """Return the images that the delivered model learned from, by `learned_indices`."""
        names = list(self.metrics["per_class"])
        images = []
        for index in self.learned_indices():
            row = self.rows[index]
            label = names[self.labels[index]]
            images.append(LearnedImage(row.file, label, row.credit, row.page_url))
        return images


class RunMetrics(TypedDict):
    """The part of metrics.json that the run itself knows."""

    weights: str
    """Where the pretrained weights come from."""
    backbone: str
    device: str
    arithmetic: str
    notices: list[str]
    seconds: dict[str, float]
    """By stage, up to now."""


def collect_results(
    images: SplitImages,
    choice: Choice,
    names: Sequence[str],
    run_metrics: RunMetrics,
    report: Progress,
) -> tuple[Results, Floats]:
    """Return the results of the delivered model, and each image's label-issue score: 0..1 [n]."""
    pred_probs = _label_probabilities(images, choice)
    suspects = _find_suspects(images, choice, pred_probs, names)
    metrics = _metrics(images, choice, names, suspects, run_metrics, report)
    if metrics["verdict"] != "better":
        # What a model that cannot tell the classes apart disagrees with says nothing of labels.
        suspects = []
        metrics["label_issues"] = 0
        metrics["curation"] = muted_curation(metrics["curation"])
    results = Results(
        rows=images.rows,
        labels=images.labels,
        probabilities=_unseen_probabilities(images, choice),
        novelty=choice.model.novelty,
        embeddings=choice.model.embeddings,
        suspects=suspects,
        epochs=choice.epochs,
        statistics=images.statistics,
        metrics=metrics,
    )
    return results, label_issue_scores(pred_probs, images.labels)


def suspects_as_lines(results: Results, scores: Floats, names: Sequence[str]) -> str:
    """Return `suspects.jsonl`: every image of a split, the highest score first.

    Kind, suggested class and reason are null for images in order, and for all test images.
    """
    suspects = {suspect.index: suspect for suspect in results.suspects}
    lines = []
    for index, row in enumerate(results.rows):
        if row.split is None:
            continue
        score = float(scores[index])
        line = {
            "file": row.file,
            "class": names[results.labels[index]],
            "split": row.split,
            "score": round(score, 4),
            "kind": None,
            "suggested": None,
            "reason": None,
        }
        suspect = suspects.get(index)
        if suspect:
            line["score"] = round(max(score, suspect.score), 4)
            line["kind"] = suspect.kind
            line["reason"] = suspect.reason
            if suspect.suggested is not None:
                line["suggested"] = names[suspect.suggested]
        lines.append(line)
    lines.sort(key=lambda line: -line["score"])
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _find_suspects(
    images: SplitImages, choice: Choice, pred_probs: Floats, names: Sequence[str]
) -> list[Suspect]:
    """Return the suspects outside test, the highest score first.

    To correct or remove test images because the model disagrees with them would raise its figure
    without making it any better.
    """
    judged = images.indices("train", "val")
    labels = images.labels[judged]
    novelty = choice.pretrained_novelty[judged]
    suspects = []
    groups = images.groups[judged]
    for suspect in rank_suspects(pred_probs[judged], labels, novelty, names, groups):
        index = int(judged[suspect.index])
        suspects.append(dataclasses.replace(suspect, index=index))
    return suspects


def _label_probabilities(images: SplitImages, choice: Choice) -> Floats:
    """Return probabilities [n, classes] of each image that its own label had no part in.

    Test images have no part in those of others, so that nothing learned here has seen them. Images
    left out of all splits have no part either, and even probabilities.
    """
    learned = images.samples("train", "val")
    test = images.samples("test")
    fitted = choice.head.fitted
    logits = fitted.head.logits(test.embeddings)
    predicted = softmax(logits / fitted.temperature)
    voted = neighbour_votes(learned, test)
    probabilities = _even_probabilities(images)
    probabilities[images.indices("train", "val")] = choice.head.pred_probs
    probabilities[images.indices("test")] = (predicted + voted) / 2
    return probabilities


def _unseen_probabilities(images: SplitImages, choice: Choice) -> Floats:
    """Return [n, classes]: of test images by the delivered model, of the others out-of-fold."""
    fitted = choice.head.fitted
    model = choice.model
    learned = softmax(fitted.out_of_fold / fitted.temperature)
    tested = softmax(model.test_logits / model.temperature)
    probabilities = _even_probabilities(images)
    probabilities[images.indices("train", "val")] = learned
    probabilities[images.indices("test")] = tested
    return probabilities


def _even_probabilities(images: SplitImages) -> Floats:
    return np.full((len(images.rows), images.classes), 1 / images.classes)


def _metrics(
    images: SplitImages,
    choice: Choice,
    names: Sequence[str],
    suspects: Sequence[Suspect],
    run_metrics: RunMetrics,
    report: Progress,
) -> Metrics:
    model = choice.model
    fitted = choice.head.fitted
    test = images.indices("test")
    labels = images.labels[test]
    predicted = model.test_logits.argmax(axis=1)
    sources = [images.rows[index].source for index in test]
    samples = images.samples("train", "val")

    def fit(indices: Labels) -> LinearHead:
        return fit_with_c(samples.take(indices), fitted.c)

    weighting = choice.head.weighting
    curation = Curation(
        suspects=len(suspects),
        treatment=weighting.name,
        pictures=weighting.lighter,
        sentence=weighting.sentence,
    )
    split = {split: len(images.indices(split)) for split in SPLITS}
    figures = classification_metrics(model.test_logits, labels, names, model.temperature)
    headline = Headline(
        value=figures["accuracy"],
        interval=figures["interval"],
        n=len(labels),
        hits=int((predicted == labels).sum()),
        how="test",
    )
    return {
        **figures,
        "verdict": "better" if figures["better_than_chance"] else "no_better",
        "verdict_sentence": verdict({**figures, "split": split}),
        "headline": headline,
        "cross_validated": None,
        "verified": Verified(n=0, right=0, wrong=0, off_topic=0),
        "label_noise": None,
        **_unseen_sources(images, fitted, names, report),
        "temperature": model.temperature,
        "reject_threshold": model.reject_threshold,
        "split": split,
        "near_duplicate_leaks": 0,  # a split with leaks is refused
        "regularisation": fitted.c,
        "seed": images.seed,
        "delivered": choice.name,
        "choice": choice.sentence,
        "head": choice.head_metrics,
        "network": choice.network_metrics,
        "by_source": accuracy_by_source(predicted, labels, sources),
        "unknown": false_alarms(model.novelty[test], model.reject_threshold),
        "learning_curve": learning_curve(samples, images.seed, fit, report),
        **_shortcuts(images, samples, fitted),
        "label_issues": sum(suspect.kind == "label" for suspect in suspects),
        "curation": curation,
        **run_metrics,
    }


def _unseen_sources(
    images: SplitImages, fitted: FittedHead, names: Sequence[str], report: Progress
) -> UnseenSourceMetrics:
    """Return how the head does on images of sources that it never saw."""
    chosen = images.indices(*SPLITS)
    test = images.samples("test")
    predicted = np.zeros(len(images.rows), np.int64)
    predicted[images.indices("train", "val")] = fitted.out_of_fold.argmax(axis=1)
    predicted[images.indices("test")] = fitted.head.logits(test.embeddings).argmax(axis=1)
    sourced = SourcedImages(
        samples=images.samples(*SPLITS),
        sources=[images.rows[index].source for index in chosen],
        usual_hits=(predicted == images.labels)[chosen],
        class_names=names,
        c=fitted.c,
        seed=images.seed,
    )
    return leave_sources_out(sourced, report)


def _shortcuts(images: SplitImages, samples: Samples, fitted: FittedHead) -> Shortcuts:
    """Return how well attributes alone predict the classes of learned images, in words too."""
    learned = images.indices("train", "val")
    rows = [images.rows[index] for index in learned]
    statistics = images.statistics[learned]
    accuracies = shortcut_accuracies(statistics, rows, samples, images.seed)
    predicted = fitted.out_of_fold.argmax(axis=1)
    model_accuracy = balanced_accuracy(predicted, samples.labels)
    _, firsts = np.unique(samples.groups, return_index=True)
    independent = samples.labels[firsts]
    class_counts = np.bincount(independent, minlength=images.classes)
    return Shortcuts(
        shortcuts=accuracies,
        shortcut_warning=shortcut_warning(accuracies, model_accuracy, class_counts),
        shortcut_sentence=shortcut_sentence(accuracies, model_accuracy, class_counts),
    )
