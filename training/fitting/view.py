"""What the network sees of each image, its middle or all of it: chosen where both are measured."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import Samples, fit_head
from training.fitting.selection import SplitImages
from training.metrics import Labels, ViewMetrics, log_losses
from training.networks.embeddings import FeatureExtractor
from training.progress import Progress, no_progress
from training.run_folder import View

Embeddings = NDArray[np.float32]

SAMPLE = 300
"""Images that the views are compared on at most: a second pass of all would take twice as long."""

_SAMPLE_FOLDER = "view-sample"
_STAGE = "train"
_IN_WORDS: dict[View, str] = {
    "crop": "The middle of each picture",
    "letterbox": "The whole of each picture, padded to a square",
}


def choose_view(
    images: SplitImages, extractor: FeatureExtractor, report: Progress
) -> tuple[SplitImages, ViewMetrics]:
    """Return the images as the better view embeds them, and why; the network keeps that view.

    `images` have embeddings by the crop. Both views are judged by the out-of-fold loss of a head on
    images of train and val; test decides nothing. Raises RunError where an image has gone.
    """
    sample = sample_of_learned(images)
    network = extractor.network
    network.view = "letterbox"
    whole: Embeddings | None = None
    if len(images.rows) <= SAMPLE:
        whole = extractor.extract(images.rows, report).whole(_STAGE)
        of_sample = whole[sample]
    else:
        # A folder of its own, as the embeddings of a batch may depend on what else is in it.
        folder = extractor.cache / _SAMPLE_FOLDER
        sampler = dataclasses.replace(extractor, cache=folder)
        rows = [images.rows[index] for index in sample]
        of_sample = sampler.extract(rows, report).whole(_STAGE)
    chosen = compare_views(images, of_sample, sample)
    if chosen["chosen"] == "crop":
        network.view = "crop"
        return images, chosen
    if whole is None:
        whole = extractor.extract(images.rows, report).whole(_STAGE)
    return dataclasses.replace(images, embeddings=whole), chosen


def sample_of_learned(images: SplitImages) -> Labels:
    """Return indices [m] of images of train and val: all, or 300 drawn by lot.

    Half of these are dealt evenly to the classes, so that a small class is not drawn too seldom.
    """
    learned = images.indices("train", "val")
    if len(learned) <= SAMPLE:
        return learned
    random = np.random.default_rng(images.seed)
    shuffled = random.permutation(learned)
    labels = images.labels[shuffled]
    share = SAMPLE // (2 * images.classes)
    drawn = np.zeros(len(shuffled), np.bool_)
    for label in range(images.classes):
        (of_class,) = np.nonzero(labels == label)
        drawn[of_class[:share]] = True
    (others,) = np.nonzero(~drawn)
    drawn[others[: SAMPLE - drawn.sum()]] = True
    return np.sort(shuffled[drawn])


def compare_views(images: SplitImages, whole: Embeddings, sample: Labels) -> ViewMetrics:
    """Return the view with the lower out-of-fold loss, the crop where both are alike.

    `whole` [m, d] are the sample's embeddings by the letterbox.
    """
    middle = images.embeddings[sample]
    loss_of_crop = _out_of_fold_loss(images, middle, sample)
    loss_of_letterbox = _out_of_fold_loss(images, whole, sample)
    losses: dict[View, float] = {"crop": loss_of_crop, "letterbox": loss_of_letterbox}
    chosen: View = "crop"
    other: View = "letterbox"
    if loss_of_letterbox < loss_of_crop:
        chosen = "letterbox"
        other = "crop"
    rejected = _IN_WORDS[other].lower()
    figures = f"loss {losses[chosen]:.3f} against {losses[other]:.3f} with {rejected}"
    count = len(sample)
    sentence = f"{_IN_WORDS[chosen]}: {figures}, cross-validated on {count} pictures."
    return {"chosen": chosen, "sentence": sentence, "losses": losses}


def _out_of_fold_loss(images: SplitImages, embeddings: Embeddings, sample: Labels) -> float:
    """Return the mean loss of the sample's images [m] by a head that has not seen them."""
    labels = images.labels[sample]
    groups = images.groups[sample]
    samples = Samples(embeddings, labels, groups, images.classes)
    fitted = fit_head(samples, images.seed, no_progress)
    calibrated = fitted.out_of_fold / fitted.temperature
    losses = log_losses(calibrated, labels)
    return float(losses.mean())


def crop_alone() -> ViewMetrics:
    """Return the view of a network whose weights are random: there is nothing to compare."""
    return {"chosen": "crop", "sentence": f"{_IN_WORDS['crop']}.", "losses": {}}
