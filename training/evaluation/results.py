"""What is known of a run's images and of its model after training: for metrics, report and card."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from training.evaluation.cross_validation import (
    TEST_IMAGES_ENOUGH,
    CrossValidation,
    cross_validate,
    cross_validated_metrics,
    judged_by,
)
from training.evaluation.learning_curve import learning_curve
from training.evaluation.left_out_class import leave_classes_out
from training.evaluation.shortcuts import (
    independent_counts,
    shortcut_accuracies,
    shortcuts_in_words,
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
from training.fitting.linear_head import (
    C_VALUES,
    HasTime,
    LinearHead,
    Samples,
    fit_with_c,
)
from training.fitting.off_topic import find_not_shown, find_off_topic, one_suspicion_each
from training.fitting.relevance import combined_doubt, core_distances, doubt_by_distance
from training.fitting.titles import Clue, find_by_clues, read_clues, weighed_scores, with_clues
from training.images.split import cut_folds, indices_in
from training.metrics import (
    ClassificationMetrics,
    Curation,
    Floats,
    Judged,
    Labels,
    LeftOutClass,
    Metrics,
    Shortcuts,
    Strangers,
    UnseenSourceMetrics,
    VerdictMetrics,
    Verified,
    ViewMetrics,
    accuracy_by_source,
    classification_metrics,
    false_alarms,
    headline_of,
    judge,
    majority_baseline,
    softmax,
    zero_shot,
)
from training.phrases import verdict as verdict_in_words
from training.progress import Progress
from training.run_folder import OWN_SOURCE, SPLITS, ImageRow
from training.text_image import TextImageScores

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
    """Outside test, the highest score first; where the verdict is not "better", off-topic ones
    alone."""
    epochs: list[dict[str, Any]]
    """Of the fine-tuning: epoch, train_loss, val_loss, val_accuracy, rate, seconds; or []."""
    statistics: NDArray[np.float32]
    """[n, k], the columns of `training.images.statistics.IMAGE_STATISTICS`."""
    metrics: Metrics
    """All of metrics.json."""
    cross_validated: Floats | None
    """Probabilities [n, classes] of each image by a head that saw neither it nor a near-duplicate;
    None where the test images alone are judged."""
    fold: Labels
    """[n]: the fold of cross-validation in which an image was held out; -1 for none."""
    named: Labels | None = None
    """[n]: the class whose name alone fits best by a text-image model; None without one."""

    def judged_indices(self) -> Labels:
        """Return the indices of the images that calibration, confusion and recall come from."""
        if self.cross_validated is None:
            return self.indices("test")
        return self.indices(*SPLITS)

    def judged_probabilities(self) -> Floats:
        """Return what was said of each image [n, classes], to be read at `judged_indices`."""
        if self.cross_validated is None:
            return self.probabilities
        return self.cross_validated

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
    view: ViewMetrics
    strangers: Strangers | None
    backbone: str
    device: str
    arithmetic: str
    notices: list[str]
    seconds: dict[str, float]
    """By stage, up to now."""


@dataclasses.dataclass(frozen=True)
class OutsideEvidence:
    """What is known of n images without the model that is trained; None where it is not."""

    page_share: Floats | None = None
    """[n]: how likely each is a page, screen, packet or drawing, by ImageNet's classes."""
    text_image: TextImageScores | None = None


def collect_results(
    images: SplitImages,
    choice: Choice,
    names: Sequence[str],
    run_metrics: RunMetrics,
    report: Progress,
    has_time: HasTime = lambda: True,
    outside: OutsideEvidence | None = None,
) -> tuple[Results, Floats]:
    """Return the results of the delivered model, and how doubtful each image is: 0..1 [n].

    An image is doubtful when its label probably is wrong or when it is far from the core of its
    class; of test images only the first counts.

    Without time the cross-validation searches less. A notice says so, unless the delivered head's
    search was cut short itself.
    """
    validation = _cross_validate(images, choice, report, has_time)
    searched_all = choice.head.fitted.tried == len(C_VALUES)
    if validation is not None and searched_all and validation.searched < validation.folds:
        run_metrics["notices"].append(
            "The time budget ended the search for the best regularisation in cross-validation"
            f" after {validation.searched} of {validation.folds} folds; the others took that of"
            " the delivered model."
        )
    pred_probs = _label_probabilities(images, choice)
    outside = outside or OutsideEvidence()
    clues = _clues(images, names)
    learned = images.indices("train", "val")
    distances = np.zeros(len(images.rows))
    distances[learned] = core_distances(images.samples("train", "val"))
    suspects = _find_suspects(images, pred_probs, distances, names, outside, clues)
    metrics = _metrics(images, choice, validation, names, suspects, run_metrics, report, has_time)
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
        cross_validated=_cross_validated_probabilities(images, validation),
        fold=_folds(images, validation),
        named=outside.text_image.predicted() if outside.text_image else None,
    )
    results = _with_zero_shot(results, outside.text_image)
    if results.metrics["verdict"] != "better":
        results = without_suspects(results)
    scores = label_issue_scores(pred_probs, images.labels)
    scores = weighed_scores(scores, clues)
    return results, combined_doubt(scores, doubt_by_distance(distances))


def without_suspects(results: Results) -> Results:
    """Return the results of a model that was not shown to tell the classes apart.

    What it disagrees with says nothing of labels. What is off-topic was found without it.
    """
    off_topic = [suspect for suspect in results.suspects if suspect.kind == "off_topic"]
    metrics = results.metrics.copy()
    metrics["label_issues"] = 0
    metrics["curation"] = muted_curation(metrics["curation"], len(off_topic))
    return dataclasses.replace(results, suspects=off_topic, metrics=metrics)


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
    images: SplitImages,
    pred_probs: Floats,
    distances: Floats,
    names: Sequence[str],
    outside: OutsideEvidence,
    clues: Mapping[int, Clue],
) -> list[Suspect]:
    """Return the suspects outside test, the highest score first.

    To correct or remove test images because the model disagrees with them would raise its figure
    without making it any better.
    """
    judged = images.indices("train", "val")
    labels = images.labels[judged]
    groups = images.groups[judged]
    ranked = rank_suspects(pred_probs[judged], labels, distances[judged], names, groups)
    if outside.page_share is not None:
        ranked += find_off_topic(outside.page_share[judged], labels, names)
    if outside.text_image is not None:
        ranked += find_not_shown(outside.text_image.probabilities[judged], labels, names)
    found = []
    for suspect in ranked:
        index = int(judged[suspect.index])
        found.append(dataclasses.replace(suspect, index=index))
    suspects = with_clues(found, clues, names)
    suspects += find_by_clues(pred_probs, images.labels, clues, names)
    return one_suspicion_each(suspects)


def _with_zero_shot(results: Results, text_image: TextImageScores | None) -> Results:
    """Return the results with the figures of the names alone, on the images of the headline."""
    if text_image is None:
        return results
    judged = results.judged_indices()
    groups = np.array([results.rows[index].group for index in judged])
    metrics = results.metrics.copy()
    metrics["zero_shot"] = zero_shot(
        text_image.predicted()[judged],
        results.labels[judged],
        groups,
        text_image.model,
        text_image.license,
    )
    metrics["verdict_sentence"] = verdict_in_words(metrics)
    return dataclasses.replace(results, metrics=metrics)


def _clues(images: SplitImages, names: Sequence[str]) -> dict[int, Clue]:
    """Return by index what the texts of images outside test name."""
    clues = read_clues(images.rows, images.labels, names)
    for index in images.indices("test").tolist():
        clues.pop(index, None)
    return clues


def predictions_as_csv(results: Results, class_ids: Sequence[str]) -> str:
    """Return `predictions.csv`: what was said of every image of a split, class by class.

    The columns named like classes are by the judge of the image's split, as
    `Results.probabilities`; those that begin with `cv_` are there where all images were
    cross-validated, and `zero_shot` where a text-image model compared them with the names.
    """
    header = ["file", "class", "split", "fold", "group", "predicted", *class_ids]
    if results.cross_validated is not None:
        header += [f"cv_{class_id}" for class_id in class_ids]
    if results.named is not None:
        header.append("zero_shot")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for index in results.indices(*SPLITS):
        row = results.rows[index]
        said = results.probabilities[index]
        fold = int(results.fold[index])
        cells = [
            row.file,
            row.class_id,
            row.split,
            "" if fold < 0 else fold,
            row.group,
            class_ids[said.argmax()],
            *_rounded(said),
        ]
        if results.cross_validated is not None:
            cells += _rounded(results.cross_validated[index])
        if results.named is not None:
            cells.append(class_ids[results.named[index]])
        writer.writerow(cells)
    return text.getvalue()


def _rounded(probabilities: Floats) -> list[str]:
    return [f"{probability:.6f}" for probability in probabilities]


def _cross_validate(
    images: SplitImages, choice: Choice, report: Progress, has_time: HasTime
) -> CrossValidation | None:
    """Return every image judged by heads, where that says more of the model than its test images.

    None with many of those, where somebody has chosen them, and for the fine-tuned network, which
    heads say nothing of.
    """
    if images.own_test:
        return None
    if choice.name == "network" or len(images.indices("test")) >= TEST_IMAGES_ENOUGH:
        return None
    samples = images.samples(*SPLITS)
    return cross_validate(samples, choice.head.fitted.c, images.seed, report, has_time)


def _cross_validated_probabilities(
    images: SplitImages, validation: CrossValidation | None
) -> Floats | None:
    if validation is None:
        return None
    probabilities = _even_probabilities(images)
    probabilities[images.indices(*SPLITS)] = validation.probabilities()
    return probabilities


def _folds(images: SplitImages, validation: CrossValidation | None) -> Labels:
    """Return the fold in which each image [n] was held out: else of the search for C; -1 for none.

    Test images have a part in no search.
    """
    fold = np.full(len(images.rows), -1)
    if validation is not None:
        fold[images.indices(*SPLITS)] = validation.fold
        return fold
    learned = images.indices("train", "val")
    samples = images.samples("train", "val")
    folds = cut_folds(samples.labels, samples.groups, images.seed)
    for number, (_, held_out) in enumerate(folds):
        fold[learned[held_out]] = number
    return fold


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
    validation: CrossValidation | None,
    names: Sequence[str],
    suspects: Sequence[Suspect],
    run_metrics: RunMetrics,
    report: Progress,
    has_time: HasTime,
) -> Metrics:
    model = choice.model
    fitted = choice.head.fitted
    test = images.indices("test")
    labels = images.labels[test]
    groups = images.groups[test]
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
    figures = classification_metrics(model.test_logits, labels, names, model.temperature, groups)
    verdict = _verdict(images, choice, validation, names, figures)
    # The figure that stands beside those of the attributes.
    shown = verdict["cross_validated"] or figures
    metrics: Metrics = {
        **figures,
        **verdict,
        "majority_baseline": majority_baseline(labels),
        **_unseen_sources(images, choice, names, report, has_time),
        "temperature": model.temperature,
        "reject_threshold": model.reject_threshold,
        "split": split,
        "near_duplicate_leaks": 0,  # a split with leaks is refused
        "regularisation": fitted.c,
        "seed": images.seed,
        "own_test": images.own_test,
        "delivered": choice.name,
        "choice": choice.sentence,
        "head": choice.head_metrics,
        "network": choice.network_metrics,
        "by_source": accuracy_by_source(predicted, labels, sources, groups),
        "unknown": false_alarms(model.novelty[test], model.reject_threshold, groups),
        "left_out_class": _left_out_class(images, choice, has_time),
        "learning_curve": learning_curve(samples, images.seed, fit, report),
        **_shortcuts(images, shown["balanced_accuracy"], verdict["better_than_chance"]),
        "label_issues": sum(suspect.kind == "label" for suspect in suspects),
        "off_topic": sum(suspect.kind == "off_topic" for suspect in suspects),
        "curation": curation,
        **run_metrics,
    }
    metrics["verdict_sentence"] = verdict_in_words(metrics)
    return metrics


def _verdict(
    images: SplitImages,
    choice: Choice,
    validation: CrossValidation | None,
    names: Sequence[str],
    test_figures: ClassificationMetrics,
) -> VerdictMetrics:
    """Return verdict and headline before any label is verified; the sentence is still empty."""
    cross_validated = None
    if validation is not None:
        found, samples = without_own(validation, images)
        cross_validated = cross_validated_metrics(found, samples, names)
    evidence, everything = _evidence(images, choice, validation)
    verdict = judge(evidence, everything, images.seed)
    return VerdictMetrics(
        verdict=verdict,
        verdict_sentence="",
        better_than_chance=verdict == "better",
        headline=headline_of(cross_validated or test_figures),
        cross_validated=cross_validated,
        verified=Verified(n=0, right=0, wrong=0, off_topic=0),
        label_noise=None,
        zero_shot=None,
    )


def without_own(
    validation: CrossValidation, images: SplitImages
) -> tuple[CrossValidation, Samples]:
    """Return what was said of the images that a source has found, and those images.

    What a person added is learned from alone: they add what a model has wrong, and a figure that
    counts it says less of other images.
    """
    samples = images.samples(*SPLITS)
    chosen = images.indices(*SPLITS)
    sources = [images.rows[index].source for index in chosen]
    found = np.array(sources) != OWN_SOURCE
    if found.all() or not found.any():
        return validation, samples
    of_found = dataclasses.replace(
        validation,
        logits=validation.logits[found],
        temperatures=validation.temperatures[found],
        fold=validation.fold[found],
    )
    return of_found, samples.take(found)


def _evidence(
    images: SplitImages, choice: Choice, validation: CrossValidation | None
) -> tuple[Judged, Judged]:
    """Return the judged images that the headline comes from, and all judged images."""
    if validation is not None:
        everything = judged_by(validation, images.samples(*SPLITS))
        return everything, everything
    said = _unseen_probabilities(images, choice)
    judged = []
    for splits in (("test",), SPLITS):
        samples = images.samples(*splits)
        predicted = said[images.indices(*splits)].argmax(axis=1)
        judged.append(Judged(predicted, samples.labels, samples.groups, samples.classes))
    evidence, everything = judged
    return evidence, everything


def _left_out_class(images: SplitImages, choice: Choice, has_time: HasTime) -> LeftOutClass | None:
    """Return how many images are refused by heads without their class.

    None for the fine-tuned network, which has learned all classes.
    """
    if choice.name == "network":
        return None
    samples = images.samples("train", "val")
    return leave_classes_out(samples, choice.head.fitted.c, images.seed, has_time)


def _unseen_sources(
    images: SplitImages,
    choice: Choice,
    names: Sequence[str],
    report: Progress,
    has_time: HasTime,
) -> UnseenSourceMetrics:
    """Return how the head does on images of sources that it never saw."""
    fitted = choice.head.fitted
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
        network_delivered=choice.name == "network",
    )
    return leave_sources_out(sourced, report, has_time)


def _shortcuts(images: SplitImages, model_accuracy: float, tells_apart: bool) -> Shortcuts:
    """Return how well attributes alone predict the classes of learned images, in words too."""
    learned = images.indices("train", "val")
    rows = [images.rows[index] for index in learned]
    samples = images.samples("train", "val")
    accuracies = shortcut_accuracies(images.statistics[learned], rows, samples, images.seed)
    counts = independent_counts(samples.labels, samples.groups, images.classes)
    return shortcuts_in_words(accuracies, model_accuracy, counts, tells_apart)
