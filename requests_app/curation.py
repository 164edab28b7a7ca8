"""What a person decides about images: remove, restore, relabel, judge, add, and undo.

A decision counts in the next version and never changes one that is there. Each is a row that keeps
what its images were before, so that the last one can be taken back at any time.
"""

from collections.abc import Collection, Iterable

from django.db import transaction
from django.utils import timezone

from requests_app.models import (
    ClassifierRequest,
    Decision,
    ImageClass,
    ImageQuerySet,
    ImageState,
    ImageUrl,
    Judged,
)
from training import run_folder

Action = Decision.Action

COLUMNS = ("state", "label_id", "judged", "judged_number")  # what a decision may change


@transaction.atomic
def remove(
    classifier: ClassifierRequest, keys: Collection[int], actor: str, group_of: str = ""
) -> Decision | None:
    """Leave kept images out of the next version; None if there is no such image.

    :param group_of: the class, where they are all of one or several of its groups
    """
    images = _images(classifier, keys).filter(state=ImageState.KEPT)
    decision = _decide(classifier, Action.REMOVE, images, actor, group_of)
    if decision is not None:
        _images_of(decision).update(state=ImageState.REMOVED)
    return decision


@transaction.atomic
def restore(classifier: ClassifierRequest, keys: Collection[int], actor: str) -> Decision | None:
    """Take removed images in again; None if there is no such image."""
    images = _images(classifier, keys).filter(state=ImageState.REMOVED)
    decision = _decide(classifier, Action.RESTORE, images, actor)
    if decision is not None:
        _images_of(decision).update(state=ImageState.KEPT)
    return decision


@transaction.atomic
def relabel(
    classifier: ClassifierRequest, keys: Collection[int], number: int, actor: str
) -> Decision | None:
    """Give images another class; removed ones come back with it.

    None if there is no such image or class, or all of them are of that class.
    """
    image_class = classifier.classes.filter(number=number).first()
    if image_class is None:
        return None
    images = _images(classifier, keys).exclude(state=ImageState.REJECTED)
    unchanged = images.of_class(image_class).filter(state=ImageState.KEPT)
    images = images.exclude(pk__in=unchanged.values_list("pk"))
    decision = _decide(classifier, Action.RELABEL, images, actor, image_class.name)
    if decision is not None:
        changed = _images_of(decision)
        own = changed.filter(image_class=image_class)
        changed.exclude(image_class=image_class).update(label=image_class)
        own.update(label=None)
        changed.update(state=ImageState.KEPT)
    return decision


@transaction.atomic
def judge(
    classifier: ClassifierRequest, key: int, judged: str, number: int | None, actor: str
) -> Decision | None:
    """Say what a test image shows.

    :param judged: right, other class or off-topic
    :param number: of the class that an image of another class shows, None where that is not known
    :returns: None if there is no such test image
    """
    images = _images(classifier, [key]).filter(split="test").exclude(state=ImageState.REJECTED)
    image = images.first()
    if image is None:
        return None
    if judged == Judged.RIGHT:
        number = image.current_class.number
    elif judged == Judged.OTHER_CLASS:
        number = number or _only_other(image.current_class)
    else:
        number = None
    decision = _decide(classifier, Action.JUDGE, images, actor, judged)
    images.update(judged=judged, judged_number=number)
    return decision


@transaction.atomic
def undo(classifier: ClassifierRequest) -> Decision | None:
    """Take back the last decision that still counts; None if there is none."""
    decision = classifier.decisions.filter(undone=None).select_for_update().last()
    if decision is None:
        return None
    if decision.action == Action.ADD:
        return _take_back(decision)
    images = list(_images_of(decision))
    classes = set(classifier.classes.values_list("pk", flat=True))
    for image in images:
        state, label, judged, judged_number = decision.before[str(image.pk)]
        if image.state != ImageState.REJECTED:  # taken down meanwhile: that stays
            image.state = state
        image.label_id = label if label in classes else None
        image.judged = judged
        image.judged_number = judged_number
    columns = ["state", "label", "judged", "judged_number"]
    ImageUrl.objects.bulk_update(images, columns, batch_size=200)
    decision.undone = timezone.now()
    decision.save(update_fields=["undone"])
    return decision


def note_added(
    classifier: ClassifierRequest, image_class: ImageClass, images: Iterable[ImageUrl], actor: str
) -> Decision:
    """Write down that a person added images of their own; undone, they are as if removed."""
    before = {str(image.pk): [ImageState.REMOVED, None, "", None] for image in images}
    return Decision.objects.create(
        request=classifier,
        actor=actor,
        action=Action.ADD,
        value=image_class.name,
        before=before,
    )


@transaction.atomic
def take_back(classifier: ClassifierRequest, key: int) -> Decision | None:
    """Undo one adding, wherever it stands in the history; None if there is none to undo."""
    added = classifier.decisions.filter(pk=key, action=Action.ADD, undone=None)
    decision = added.select_for_update().first()
    return None if decision is None else _take_back(decision)


def _take_back(decision: Decision) -> Decision:
    """Delete what was added, rows and files; what is in a version is only removed from the next."""
    classifier = decision.request
    versioned = set()
    for version in classifier.versions.all():
        if (version.folder / "manifest.jsonl").exists():
            versioned |= {row.file for row in run_folder.read_manifest(version.folder)}
    for image in _images_of(decision):
        if image.file in versioned or classifier.is_open:
            kept = ImageUrl.objects.filter(pk=image.pk, state=ImageState.KEPT)
            kept.update(state=ImageState.REMOVED)
            continue
        (classifier.folder / "thumbnails" / f"{image.pk}.jpg").unlink(missing_ok=True)
        if image.file:
            (classifier.folder / "collect" / image.file).unlink(missing_ok=True)
        image.delete()
    decision.undone = timezone.now()
    decision.save(update_fields=["undone"])
    return decision


def next_to_judge(classifier: ClassifierRequest, skipped: Iterable[int] = ()) -> ImageUrl | None:
    """Return a test image that nobody has judged yet, None when all are judged.

    The order is random, and the same at each visit: that of the digests, which say nothing of what
    an image shows.
    """
    open_images = test_images(classifier).filter(judged="").exclude(pk__in=list(skipped))
    return open_images.order_by("sha256", "pk").first()


def test_images(classifier: ClassifierRequest) -> ImageQuerySet:
    """Return the images of the latest version's test split that are still kept."""
    images = ImageUrl.objects.of_request(classifier)
    return images.filter(split="test", state=ImageState.KEPT)


def removed_digests(classifier: ClassifierRequest) -> list[str]:
    """Return the digests of the images that are removed now, in order."""
    images = ImageUrl.objects.of_request(classifier).filter(state=ImageState.REMOVED)
    digests = images.exclude(sha256="").order_by("sha256").values_list("sha256", flat=True)
    return list(digests.distinct())


def _images(classifier: ClassifierRequest, keys: Collection[int]) -> ImageQuerySet:
    """Return those of the images that are this request's, and lie on disk."""
    images = ImageUrl.objects.filter(image_class__request=classifier, pk__in=keys)
    return images.exclude(file="")


def _images_of(decision: Decision) -> ImageQuerySet:
    keys = [int(key) for key in decision.before]
    return ImageUrl.objects.filter(pk__in=keys)


def _decide(
    classifier: ClassifierRequest,
    action: Action,
    images: ImageQuerySet,
    actor: str,
    value: str = "",
) -> Decision | None:
    """Write a decision with what its images are now; None where there is no image."""
    before = {}
    for key, *values in images.values_list("pk", *COLUMNS):
        before[str(key)] = values
    if not before:
        return None
    return Decision.objects.create(
        request=classifier, actor=actor, action=action, value=value, before=before
    )


def _only_other(image_class: ImageClass) -> int | None:
    """Return the number of the other class where there are two, else None."""
    others = image_class.request.classes.exclude(pk=image_class.pk)
    numbers = list(others.values_list("number", flat=True))
    return numbers[0] if len(numbers) == 1 else None
