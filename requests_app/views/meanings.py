"""Which group of a class the person means: what the question and its strips show."""

from dataclasses import dataclass

from requests_app import lifecycle, meanings, versions
from requests_app.meanings import Group, Meanings
from requests_app.models import ClassifierRequest
from training.phrases import listed

SHOWN = 8  # pictures of a strip


@dataclass(frozen=True)
class Strip:
    """One group as a strip of its most central pictures."""

    number: int
    count: int
    keys: tuple[int, ...]
    named: str
    """Words of its titles, "" where they tell nothing."""
    words: str
    """Search words for more of it."""


@dataclass(frozen=True)
class Question:
    """The groups of one class."""

    number: int
    name: str
    version: int
    strips: tuple[Strip, ...]
    count: int
    wanted: int
    words: str
    """Search words for more of what is kept."""
    is_asked: bool
    may_fill_up: bool
    """Whether groups were removed in whose place nothing was collected."""
    may_search: bool
    """Whether a search can begin now."""
    note: str
    """When a decision counts."""


def questions(classifier: ClassifierRequest) -> tuple[Question, ...]:
    """Return the groups of all classes; () before a run has written them."""
    finished = {version.number for version in versions.finished_versions(classifier)}
    shown = []
    for found in meanings.meanings_of(classifier):
        note = "It counts when you train again."
        if classifier.is_open and found.version in finished:
            note = "It counts in the next version."
        elif classifier.is_open:
            note = (
                f"Version {found.version} is being made with all of these pictures, and nothing"
                " waits for your answer: it counts in the next version."
            )
        shown.append(_question(classifier, found, note))
    return tuple(shown)


def _question(classifier: ClassifierRequest, found: Meanings, note: str) -> Question:
    image_class = found.image_class
    return Question(
        number=image_class.number,
        name=image_class.name,
        version=found.version,
        strips=tuple(_strip(found, group) for group in found.groups),
        count=found.count,
        wanted=classifier.images_per_class,
        words=meanings.words_for(image_class, found.groups),
        is_asked=found.is_asked,
        may_fill_up=found.may_fill_up and found.count < classifier.images_per_class,
        may_search=classifier.status in lifecycle.ENDED,
        note=note,
    )


def _strip(found: Meanings, group: Group) -> Strip:
    return Strip(
        number=group.number,
        count=len(group.keys),
        keys=group.keys[:SHOWN],
        named=listed([f"“{word}”" for word in group.words]) if group.words else "",
        words=meanings.words_for(found.image_class, [group]),
    )
