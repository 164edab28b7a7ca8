"""What the text that came with an image says of its class: weak evidence beside its looks.

A title that names another class of the request, and not the image's own, makes a wrong label
likelier; one that names its own makes it less likely. Where a title names none, the address of the
page where the image was found may. Text alone suspects nothing: it shifts the odds threefold.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

from training.class_names import names_in
from training.fitting.label_issues import Suspect
from training.metrics import Floats, Labels
from training.phrases import whole_percent
from training.run_folder import ImageRow

_ODDS = 3.0  # by which text that names a class changes the odds of a wrong label
_LIKELY = 0.5  # score with its text from which an image is suspected for both together
_LONGEST = 2000  # characters of a text that are read
_SEPARATORS = re.compile(r"[-_+./]+")  # of words in addresses


@dataclasses.dataclass(frozen=True)
class Clue:
    """What the text that came with an image names."""

    named: int
    """A class number."""
    own: bool
    """Whether that is the image's own class."""
    where: str
    """What names it, as the beginning of a sentence."""

    def weigh(self, score: float) -> float:
        """Return a score of 0 (in order) to 1 (certainly not) with this clue counted in."""
        factor = 1 / _ODDS if self.own else _ODDS
        against = factor * score
        in_favour = 1 - score
        return against / (against + in_favour)

    def sentence(self, names: Sequence[str]) -> str:
        """Return it in words."""
        return f"{self.where} speaks of “{names[self.named]}”."


def read_clues(rows: Sequence[ImageRow], labels: Labels, names: Sequence[str]) -> dict[int, Clue]:
    """Return what the texts of images [n] name, by index; not of those that name nothing.

    Nor of those that name their own class and another.
    """
    clues = {}
    for index, row in enumerate(rows):
        texts = {"Its title": row.title, "Its page’s address": _path(row.page_url)}
        for where, text in texts.items():
            named = names_in(_readable(text), names)
            if not named:
                continue
            own = int(labels[index]) in named
            if not own or len(named) == 1:
                clues[index] = Clue(named[0], own, where)
            break
    return clues


def weighed_scores(scores: Floats, clues: Mapping[int, Clue]) -> Floats:
    """Return the scores [n] of images with their clues counted in."""
    weighed = scores.copy()
    for index, clue in clues.items():
        weighed[index] = clue.weigh(float(scores[index]))
    return weighed


def with_clues(
    suspects: Sequence[Suspect], clues: Mapping[int, Clue], names: Sequence[str]
) -> list[Suspect]:
    """Return the suspects with their clues counted into the scores and told with the reasons."""
    told = []
    for suspect in suspects:
        clue = clues.get(suspect.index)
        if clue is not None:
            score = clue.weigh(suspect.score)
            reason = f"{suspect.reason} {clue.sentence(names)}"
            suspect = dataclasses.replace(suspect, score=score, reason=reason)
        told.append(suspect)
    return told


def find_by_clues(
    pred_probs: Floats, labels: Labels, clues: Mapping[int, Clue], names: Sequence[str]
) -> list[Suspect]:
    """Return images that their looks alone hardly make suspects, but with their text do.

    By out-of-fold probabilities [n, classes]: text that names another class counts where that is
    not much less likely than the label.
    """
    suspects = []
    for index, clue in clues.items():
        if clue.own:
            continue
        label = int(labels[index])
        likely = float(pred_probs[index, label])
        named = float(pred_probs[index, clue.named])
        score = clue.weigh((1 - likely + named) / 2)
        if score < _LIKELY:
            continue
        looks = (
            f"Looks like its label “{names[label]}” ({whole_percent(likely)}%), but also like"
            f" “{names[clue.named]}” ({whole_percent(named)}%)."
        )
        reason = f"{looks} {clue.sentence(names)}"
        suspects.append(Suspect(index, score, "label", clue.named, reason))
    return suspects


def _path(address: str) -> str:
    """Return the path of an address, in which it may say what it shows; "" where it has none."""
    try:
        return unquote(urlsplit(address).path)
    except ValueError:
        return ""


def _readable(text: str) -> str:
    """Return the text as it is, and once more with blanks for what stands for them in addresses."""
    bounded = text[:_LONGEST]
    spaced = _SEPARATORS.sub(" ", bounded)
    return f"{bounded}\n{spaced}"
