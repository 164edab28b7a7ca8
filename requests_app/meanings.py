"""The groups that each class's images fall into, and what a person says of them.

They are those of the newest run folder, which writes them when it has looked at every image. What
a person decides counts in the next version.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max

from requests_app import curation, versions
from requests_app.models import ClassifierRequest, Decision, ImageClass
from scraping.kinds import with_kind
from training.meanings import ClassGroups, read_meanings

COLLECT = "collect"  # the stage


@dataclass(frozen=True)
class Group:
    """Images of a class that look alike."""

    number: int
    """Within its class, from 1."""
    keys: tuple[int, ...]
    """Of the images that are kept, the most central first."""
    words: tuple[str, ...]
    """That tell this group from the others."""


@dataclass(frozen=True)
class Meanings:
    """The groups of one class that have images left."""

    image_class: ImageClass
    version: int
    groups: tuple[Group, ...]
    is_asked: bool
    """Whether the person is to say which of them is meant."""
    may_fill_up: bool
    """Whether groups were removed, and nothing was collected since in their place."""

    @property
    def count(self) -> int:
        return sum(len(group.keys) for group in self.groups)


def meanings_of(classifier: ClassifierRequest) -> list[Meanings]:
    """Return the groups of each class; [] before a run has written them."""
    version = classifier.versions.order_by("-number").first()
    if version is None:
        return []
    groups_of = {found.class_id: found for found in read_meanings(version.folder)}
    if not groups_of:
        return []
    keys = _kept_keys(classifier)
    removals = _removals(classifier)
    collections = classifier.jobs.filter(stage=COLLECT)
    collected = collections.aggregate(last=Max("created"))["last"]
    meanings = []
    for image_class in classifier.classes.all():
        if image_class.class_id not in groups_of:
            continue
        found = groups_of[image_class.class_id]
        groups = _groups(image_class, found, keys)
        removed_at = removals.get(image_class.name)
        is_asked = found.clear and len(groups) > 1 and not image_class.has_one_meaning
        may_fill_up = False
        if removed_at is not None:
            is_asked = is_asked and removed_at < version.created
            may_fill_up = collected is None or removed_at > collected
        entry = Meanings(
            image_class=image_class,
            version=version.number,
            groups=groups,
            is_asked=is_asked,
            may_fill_up=may_fill_up,
        )
        meanings.append(entry)
    return meanings


def _kept_keys(classifier: ClassifierRequest) -> dict[tuple[int, str], int]:
    """Return the keys of all kept images by their class and file."""
    images = versions.kept_images(classifier)
    columns = images.values_list("pk", "file", "image_class_id", "label_id")
    keys = {}
    for key, file, found_for, given in columns:
        keys[given or found_for, file] = key
    return keys


def _removals(classifier: ClassifierRequest) -> dict[str, datetime]:
    """Return when groups of each class were removed last, by its name; undone ones do not count."""
    decisions = classifier.decisions.filter(undone=None, action=Decision.Action.REMOVE)
    times = decisions.exclude(value="").order_by("pk").values_list("value", "at")
    return dict(times)


def _groups(
    image_class: ImageClass, found: ClassGroups, keys: dict[tuple[int, str], int]
) -> tuple[Group, ...]:
    """Return the groups of a class that have images left."""
    groups = []
    for number, group in enumerate(found.groups, start=1):
        of_group = []
        for file in group.files:
            if (image_class.pk, file) in keys:
                of_group.append(keys[image_class.pk, file])
        if of_group:
            groups.append(Group(number, tuple(of_group), group.words))
    return tuple(groups)


def keep_groups(
    classifier: ClassifierRequest, number: int, version: int, kept: Collection[int], actor: str
) -> Decision | None:
    """Remove all groups of a class but these, as one decision.

    :param number: of the class
    :param version: of the dataset whose groups the person has seen
    :returns: None where nothing would be kept or removed, or the groups are others by now
    """
    meanings = _seen(classifier, number, version)
    if meanings is None:
        return None
    numbers = {group.number for group in meanings.groups}
    if not numbers & set(kept):
        return None
    return remove_groups(classifier, number, version, numbers - set(kept), actor)


def remove_groups(
    classifier: ClassifierRequest, number: int, version: int, removed: Collection[int], actor: str
) -> Decision | None:
    """Remove groups of a class, as one decision; None where there is nothing to remove."""
    meanings = _seen(classifier, number, version)
    if meanings is None:
        return None
    keys: list[int] = []
    for group in meanings.groups:
        if group.number in removed:
            keys += group.keys
    return curation.remove(classifier, keys, actor, group_of=meanings.image_class.name)


def accept_all(classifier: ClassifierRequest, number: int) -> bool:
    """Never ask again which group of a class is meant; return False if there is no such class."""
    return bool(classifier.classes.filter(number=number).update(has_one_meaning=True))


def words_for(image_class: ImageClass, groups: Collection[Group]) -> str:
    """Return words that may find more images like these groups."""
    words = [word for group in groups for word in group.words[:1]]
    if len(groups) == 1 and words:
        return f"{image_class.name} {words[0]}"
    if image_class.query.casefold() != image_class.name.casefold():
        return image_class.query
    return with_kind(image_class.name, image_class.request.search_kind)


def _seen(classifier: ClassifierRequest, number: int, version: int) -> Meanings | None:
    for meanings in meanings_of(classifier):
        if meanings.image_class.number == number and meanings.version == version:
            return meanings
    return None
