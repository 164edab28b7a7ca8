"""Images that do not belong, by evidence from outside the model that is trained.

A search for any word also finds pages, menus, packets and screens. The network's own ImageNet
classifier knows them, whatever the labels say. A text-image model, where the operator has one, says
whether an image shows what its class is called. Nothing is ever dropped or weighted for either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from training.class_names import casefold_key
from training.fitting.label_issues import Suspect, own_and_strongest_other
from training.metrics import Floats, Labels
from training.phrases import whole_percent
from training.text_image import OTHER_SENTENCES

_CERTAIN = 0.5  # share of the ImageNet probability from which an image is suspected
# Median share of a class from which pages are what it is about. A third of strange pages among
# other images leave it far below.
_TYPICAL = 0.25
_CLEARLY = (
    0.75  # score from which a text-image model's doubt counts: a lead of half the probability
)
_MOST_OF_A_CLASS = 0.5  # share of doubted images from which the model does not know the name
_REASON = "Looks like a page, screen, packet or drawing rather than a photograph."
# Words in a class's name that say so; compared without a plural's "s".
_PAGE_WORDS = """
    advert advertisement album banner binder book brochure cartoon certificate chart clipart comic
    computer cover crossword diagram doodle document drawing envelope flyer font form graph graphic
    handwriting icon illustration infographic invoice jigsaw laptop leaflet letter logo magazine
    manga map meme menu monitor newspaper notebook package packaging packet page painting paper
    poster puzzle receipt scan screen screenshot script sketch slide sticker tablet television text
    ticket tv webpage website
"""


def find_off_topic(page_share: Floats, labels: Labels, names: Sequence[str]) -> list[Suspect]:
    """Return the images that look like a page, screen, packet or drawing.

    `page_share` [n] is their ImageNet probability. None of a class that is such a thing itself: its
    name says so, or its images commonly look so.
    """
    suspected = page_share >= _CERTAIN
    for label, name in enumerate(names):
        members = labels == label
        if not members.any():
            continue
        typical = float(np.median(page_share[members]))
        if typical >= _TYPICAL or _names_pages(name):
            suspected[members] = False
    suspects = []
    for index in np.flatnonzero(suspected):
        score = float(page_share[index])
        suspects.append(Suspect(int(index), score, "off_topic", None, _REASON))
    return suspects


def find_not_shown(probabilities: Floats, labels: Labels, names: Sequence[str]) -> list[Suspect]:
    """Return the images that a text-image model doubts to show what their class is called.

    `probabilities` [n, classes + others] are how well "a photo of NAME" and the OTHER_SENTENCES fit
    each. None of a class of which it doubts most images: it does not know the name.
    """
    own, strongest_other, strongest = own_and_strongest_other(probabilities, labels)
    scores = (1 - own + strongest_other) / 2
    doubted = scores >= _CLEARLY
    for label in np.unique(labels):
        members = labels == label
        if doubted[members].mean() > _MOST_OF_A_CLASS:
            doubted[members] = False
    suspects = []
    for index in np.flatnonzero(doubted):
        seen = int(strongest[index])
        likely = whole_percent(strongest_other[index])
        unlikely = whole_percent(own[index])
        name = names[labels[index]]
        what = _in_words(seen, names)
        reason = f"A text-image model sees {what} ({likely}%) rather than “{name}” ({unlikely}%)."
        suspect = Suspect(
            index=int(index),
            score=float(scores[index]),
            kind="off_topic",
            suggested=None,
            reason=reason,
        )
        if seen < len(names):
            suspect = dataclasses.replace(suspect, kind="label", suggested=seen)
        suspects.append(suspect)
    return suspects


def _in_words(sentence: int, names: Sequence[str]) -> str:
    """Return what an image shows that this sentence of all fits best."""
    if sentence < len(names):
        return f"“{names[sentence]}”"
    others = list(OTHER_SENTENCES.values())
    return others[sentence - len(names)]


def one_suspicion_each(suspects: Sequence[Suspect]) -> list[Suspect]:
    """Return one suspect per image, the highest score first.

    What is off-topic is no wrong label of its class. Otherwise the graver suspicion is kept, with
    the highest score.
    """
    falling = sorted(suspects, key=lambda suspect: -suspect.score)
    gravest: dict[int, Suspect] = {}
    for suspect in falling:
        index = suspect.index
        known = gravest.setdefault(index, suspect)
        if known.kind == "off_topic":
            continue
        if suspect.kind == "off_topic":
            gravest[index] = suspect
    return sorted(gravest.values(), key=lambda suspect: -suspect.score)


def _names_pages(name: str) -> bool:
    """Return whether a class's name says that it is about pages, screens, packets or drawings."""
    page_words = set(_PAGE_WORDS.split())
    for word in casefold_key(name).split():
        singular = word.removesuffix("s")
        if word in page_words or singular in page_words:
            return True
    return False
