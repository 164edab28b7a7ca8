"""How the model does on images from a source that it has never seen, by leaving each source out.

Images from one source are alike in many ways: its ranking, its photographers, its sizes and file
types. Test images come from the same sources as those learned from, so that a model which has
learned such habits scores well on them, and worse on a person's own images. Here the head is fitted
again without any image of a source, and without near-duplicates of them, and judged on that
source's images (leave-one-domain-out, as in Gulrajani and Lopez-Paz 2021, "In Search of Lost Domain
Generalization").
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.fitting.linear_head import HasTime, LinearHead, Samples, fit_head, fit_with_c
from training.metrics import (
    Labels,
    UnseenSource,
    UnseenSourceMetrics,
    UnseenSources,
    grouped_interval,
)
from training.phrases import counted, listed, whole_percent
from training.progress import Progress
from training.run_folder import MINIMUM_PER_CLASS

MOST_FITS = 8  # with more sources than this, the smallest are held out together
MINIMUM_LISTED = 10  # independent images that a figure needs, of one source or of all
IMPORTED = "folder"  # source of images from a folder that does not say more

# Up to so many images C is searched again without the source, which takes as many times as long as
# the first search as there are sources. With more, the choice among six values owes little to any
# one source, and the C of the delivered head is taken.
_SEARCHED_IMAGES = 1000
# Share of images outside the largest class, of what it is among all images, below which a figure
# would mostly say how often that class is named.
_LEAST_OTHERS = 0.5
_MUCH = 0.05  # fall of the accuracy that is said, if it is clear
_CLEAR_STANDARD_ERRORS = 2.0
_FEW_LEARNED = 0.5  # share of the images below which the fall may come from learning from fewer
_NAMED_SOURCES = 5

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SourcedImages:
    """Images [n] to be judged, and how the delivered head came about."""

    samples: Samples
    sources: list[str]
    """[n]; empty where not known."""
    usual_hits: Mask
    """[n]: judged rightly by a head that saw others of their source, but no near-duplicate."""
    class_names: Sequence[str]
    c: float
    """Of the linear head that was fitted on all sources."""
    seed: int
    network_delivered: bool = False
    """Whether the delivered model is the fine-tuned network, not the linear head."""


@dataclass(frozen=True)
class _Fold:
    """Images that are held out together, and those that are learned from without them."""

    held_out: Labels
    """Their indices."""
    learned: Labels


def leave_sources_out(
    images: SourcedImages, report: Progress, has_time: HasTime = lambda: True
) -> UnseenSourceMetrics:
    """Judge the images of each source by a head fitted without any image of it.

    Sources of few images, or nearly all of one class, have a part in the pooled figure alone. A
    source is left out where a class would have too few images left to learn from. Images of which
    the source is not known may come from any: they are neither judged nor learned from. Once
    `has_time` returns False nothing is measured, as a figure of some of the sources would depend on
    the clock.
    """
    samples = images.samples
    folds = _cut(images)
    judged = np.zeros(len(images.sources), np.bool_)
    for fold in folds:
        judged[fold.held_out] = True
    if not _says_something(samples, judged):
        sentence = _why_not(images, judged)
        return UnseenSourceMetrics(unseen_source=[], unseen_sources=None, unseen_sentence=sentence)

    hits = np.zeros(len(judged), np.bool_)
    for number, fold in enumerate(folds):
        if not has_time():
            sentence = (
                "How it does on pictures from a place it has never seen was not measured, because"
                " the time budget was used up."
            )
            return UnseenSourceMetrics(
                unseen_source=[], unseen_sources=None, unseen_sentence=sentence
            )
        head = _fit(images, fold)
        unseen = samples.embeddings[fold.held_out]
        predicted = head.logits(unseen).argmax(axis=1)
        hits[fold.held_out] = predicted == samples.labels[fold.held_out]
        report(number + 1, len(folds), "Testing on sources that it has not seen")

    fewest = min(len(fold.learned) for fold in folds)
    pooled = _figures("", hits, judged, samples.groups)
    parts = [
        _figure_sentence(pooled),
        _usual_sentence(images, hits, judged, fewest),
        _left_out_sentence(images.sources, judged),
    ]
    if images.network_delivered:
        parts.append("Measured with the linear head, not with the fine-tuned network.")
    sentence = " ".join(part for part in parts if part)
    return UnseenSourceMetrics(
        unseen_source=_by_source(images, hits, judged),
        unseen_sources=UnseenSources(
            accuracy=pooled["accuracy"], interval=pooled["interval"], n=pooled["n"]
        ),
        unseen_sentence=sentence,
    )


def _cut(images: SourcedImages) -> list[_Fold]:
    """Return what is held out together: a source, or several where there are many.

    Groups of near-duplicates that have an image in what is held out are not learned from, nor are
    images of which the source is not known, as they may come from what is held out. What
    leaves a class with too few images to learn from is not held out.
    """
    known = np.array([source != "" for source in images.sources], np.bool_)
    counts = Counter(source for source in images.sources if source)
    by_size = sorted(counts, key=lambda source: (-counts[source], source))
    bundle_of: dict[str, int] = {}
    sizes = [0] * min(MOST_FITS, len(by_size))
    for source in by_size:
        smallest = sizes.index(min(sizes))
        bundle_of[source] = smallest
        sizes[smallest] += counts[source]

    bundles = np.array([bundle_of.get(source, -1) for source in images.sources])
    groups = images.samples.groups
    folds = []
    for bundle in range(len(sizes)):
        held_out = bundles == bundle
        touched = np.isin(groups, groups[held_out])
        learned = np.flatnonzero(known & ~touched)
        fold = _Fold(np.flatnonzero(held_out), learned)
        if _can_learn(images.samples, fold.learned):
            folds.append(fold)
    return folds


def _can_learn(samples: Samples, learned: Labels) -> bool:
    """Return whether every class has enough independent images among those learned from."""
    labels = samples.labels[learned]
    groups = samples.groups[learned]
    for label in range(samples.classes):
        independent = np.unique(groups[labels == label])
        if len(independent) < MINIMUM_PER_CLASS:
            return False
    return True


def _says_something(samples: Samples, chosen: Mask) -> bool:
    """Return whether the share of hits among chosen images says how well classes are told apart.

    That takes enough independent images, and not nearly all of them of one class.
    """
    labels = samples.labels[chosen]
    independent = np.unique(samples.groups[chosen])
    if len(independent) < MINIMUM_LISTED:
        return False
    others = 1 - np.bincount(labels).max() / len(labels)
    usual = 1 - np.bincount(samples.labels).max() / len(samples.labels)
    return bool(others > 0 and others >= _LEAST_OTHERS * usual)


def _fit(images: SourcedImages, fold: _Fold) -> LinearHead:
    samples = images.samples.take(fold.learned)
    if len(fold.learned) > _SEARCHED_IMAGES:
        return fit_with_c(samples, images.c)
    fitted = fit_head(samples, images.seed, lambda *_: None)
    return fitted.head


def _by_source(images: SourcedImages, hits: Mask, judged: Mask) -> list[UnseenSource]:
    """Return the figures of the sources that have enough judged images, the largest first.

    Images of one class alone could be recognised by naming that class always.
    """
    groups = images.samples.groups
    source_of = np.array(images.sources, dtype=object)
    found = []
    for source in sorted(set(images.sources)):
        of_source = judged & (source_of == source)
        if _says_something(images.samples, of_source):
            figures = _figures(source, hits, of_source, groups)
            found.append(figures)
    found.sort(key=lambda figures: -figures["n"])
    return found


def _figures(source: str, hits: Mask, chosen: Mask, groups: Labels) -> UnseenSource:
    """Return the figures of the chosen images."""
    right = hits[chosen]
    low, high = grouped_interval(right, groups[chosen])
    return UnseenSource(
        source=source,
        accuracy=float(right.mean()),
        interval=[low, high],
        n=len(right),
    )


def _why_not(images: SourcedImages, judged: Mask) -> str:
    """Return the sentence for sources of which no figure can be made."""
    sources = sorted(set(images.sources))
    nobody = "so nobody can say how the model does on pictures from elsewhere."
    if sources == [""]:
        return f"It is not known where the pictures come from, {nobody}"
    if sources == [IMPORTED]:
        return f"All pictures come from one folder, {nobody}"
    if len(sources) == 1:
        return f"All pictures come from one source ({sources[0]}), {nobody}"
    known = [source for source in sources if source]
    if len(known) == 1:
        return f"All pictures whose source is known come from one ({known[0]}), {nobody}"
    labels = images.samples.labels
    classes_of: dict[str, set[int]] = defaultdict(set)
    for source, label in zip(images.sources, labels, strict=True):
        if source:
            classes_of[source].add(label)
    if all(len(classes) == 1 for classes in classes_of.values()):
        return (
            "No source has pictures of more than one class,"
            " so nobody can say whether the model tells the classes apart or their sources."
        )
    cannot = "How it does on pictures from a place it has never seen cannot be measured:"
    counts = np.bincount(labels[judged], minlength=len(images.class_names))
    if np.count_nonzero(counts) > 1 and judged.sum() >= MINIMUM_LISTED:
        largest = images.class_names[int(counts.argmax())]
        return (
            f"{cannot} of the {counted(int(judged.sum()), 'picture')} that could be judged so,"
            f" nearly all are of “{largest}”, or copies of each other."
        )
    if judged.any():
        names = [f"“{images.class_names[label]}”" for label in np.unique(labels[judged])]
        return (
            f"{cannot} only {counted(int(judged.sum()), 'picture')}, of {listed(names)}, come from"
            " a source without which enough pictures of each class are left to learn from."
        )
    return (
        f"{cannot} without any one of the sources ({_titles(known)}) a class has fewer than"
        f" {MINIMUM_PER_CLASS} different pictures left to learn from."
    )


def _figure_sentence(pooled: UnseenSource) -> str:
    low, high = pooled["interval"]
    right = round(pooled["accuracy"] * pooled["n"])
    return (
        "On pictures from a place it has never seen:"
        f" {whole_percent(pooled['accuracy'])} % ({whole_percent(low)} to {whole_percent(high)}),"
        f" {right} of {counted(pooled['n'], 'picture')}."
    )


def _usual_sentence(images: SourcedImages, hits: Mask, judged: Mask, fewest: int) -> str:
    """Return how that compares with the same images when their source was learned from.

    `fewest` is the smallest number of images that a head learned from.
    """
    usual = images.usual_hits[judged]
    usual_figure = f"{whole_percent(float(usual.mean()))} %"
    falls = usual.astype(np.float64) - hits[judged]
    fall = float(falls.mean())
    # Near-duplicates fall together.
    _, group_of = np.unique(images.samples.groups[judged], return_inverse=True)
    deviations = np.bincount(group_of, weights=falls - fall)
    squares = float(deviations @ deviations)
    error = math.sqrt(squares) / len(falls)
    if fall < max(_MUCH, _CLEAR_STANDARD_ERRORS * error):
        return f"When it knows other pictures from their place, it is right on {usual_figure}."
    sentence = (
        f"That is {100 * fall:.0f} points less than when it knows other pictures from their"
        f" place ({usual_figure}): expect the lower figure on pictures from elsewhere."
    )
    if fewest < _FEW_LEARNED * len(images.sources):
        sentence += " In part this may come from having fewer pictures to learn from."
    return sentence


def _left_out_sentence(sources: Sequence[str], judged: Mask) -> str:
    left_out: Counter[str] = Counter()
    for source, is_judged in zip(sources, judged, strict=True):
        if not is_judged:
            left_out[source] += 1
    unknown = left_out.pop("", 0)
    sentences = []
    if left_out:
        pictures = counted(left_out.total(), "picture")
        sentences.append(
            f"Not judged so: {pictures} from {_titles(sorted(left_out))},"
            " without which too few pictures of a class would be left to learn from."
        )
    if unknown:
        pictures = counted(unknown, "picture")
        sentences.append(f"Neither judged nor learned from here: {pictures} of unknown source.")
    return " ".join(sentences)


def _titles(sources: Sequence[str]) -> str:
    """Return the names of sources as a list, a long one cut short."""
    titles = list(sources)
    more = len(titles) - _NAMED_SOURCES
    if more > 0:
        titles[_NAMED_SOURCES:] = [f"{more} more"]
    return listed(titles)
