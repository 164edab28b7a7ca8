"""Too few images: which classes are short, why, and what helps.

Nothing here changes a row: the pipeline asks for help with it, and the page shows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from requests_app import phrases
from requests_app.models import (
    ClassifierRequest,
    ImageClass,
    ImageState,
    License,
    SourceHealth,
    Status,
)
from scraping.reasons import Reason
from scraping.sources.catalogue import Outcome
from training.phrases import listed
from training.run_folder import MINIMUM_BESIDE_TEST, MINIMUM_PER_CLASS, MINIMUM_PER_SPLIT

FEWEST_CLASSES = 2
# How a search ends that may well succeed a little later, whatever its words are.
UNREACHABLE = (Outcome.NETWORK, Outcome.TIMEOUT, Outcome.RATE_LIMITED)
# After so long the sources are asked once more; then the person is. The first pause is longer than
# a source that failed is left alone.
OUTAGE_PAUSES = (timedelta(minutes=2), timedelta(minutes=10), timedelta(minutes=30))
OUTAGE = "sources could not be reached"  # the reason of the request's move
REMEDY_WITH_A_VERSION = (
    "The version that you have stays as it is."
    " Take pictures back, or search for more in other words."
)


@dataclass(frozen=True)
class Shortage:
    """What is known of a request that may have too few images."""

    needed: int
    """Per class."""
    short: tuple[ImageClass, ...]
    counts: Mapping[int, int]
    """How many images of each class there are to learn from, by its number."""
    has_own_test: bool
    """Whether these come on top of the person's own, which are the test set."""
    unreachable: tuple[str, ...]
    """Titles of the sources that could not be asked for a class that is short."""
    shared: tuple[tuple[str, int], ...]
    """Classes that lost so many images by being found for another class too that they are short."""
    can_train: bool
    """Whether every class has what the trainer needs at least."""
    can_leave_out: bool
    """Whether enough classes remain without one."""


def shortage_of(classifier: ClassifierRequest) -> Shortage:
    """Return what a finished collection lacks."""
    classes = list(classifier.classes.all())
    needed = min(settings.MIN_IMAGES, classifier.images_per_class)
    has_own_test = bool(classifier.supplied.get("as_test"))
    tested = _own_test_counts(classes) if has_own_test else {}
    counts = {each.number: each.kept - tested.get(each.number, 0) for each in classes}
    short = [each for each in classes if counts[each.number] < needed]
    shared = []
    for image_class in short:
        lost = image_class.rejected.get(Reason.IN_TWO_CLASSES, 0)
        if lost and counts[image_class.number] + lost >= needed:
            shared.append((image_class.name, lost))
    least = MINIMUM_BESIDE_TEST if has_own_test else MINIMUM_PER_CLASS
    can_train = all(count >= least for count in counts.values())
    if has_own_test:
        can_train &= all(tested[each.number] >= MINIMUM_PER_SPLIT for each in classes)
    return Shortage(
        needed=needed,
        short=tuple(short),
        counts=counts,
        has_own_test=has_own_test,
        unreachable=_unreachable_sources(short),
        shared=tuple(shared),
        can_train=can_train,
        can_leave_out=len(classes) > FEWEST_CLASSES,
    )


def _own_test_counts(classes: list[ImageClass]) -> dict[int, int]:
    """Return how many of the kept images of each class, by its number, are there to test on."""
    counts = {}
    for image_class in classes:
        tested = image_class.images.filter(state=ImageState.KEPT, split="test")
        counts[image_class.number] = tested.count()
    return counts


def _unreachable_sources(short: list[ImageClass]) -> tuple[str, ...]:
    """Return the titles of the sources that could not be asked.

    A source that just failed for another request is left alone for a while and counts as skipped;
    its health says why.
    """
    resting = {row.name for row in SourceHealth.objects.filter(outcome__in=UNREACHABLE)}
    titles = []
    for image_class in short:
        for report in image_class.outcomes:
            outcome = report["outcome"]
            is_resting = outcome == Outcome.NOT_APPLICABLE and report["name"] in resting
            if outcome in UNREACHABLE or is_resting:
                titles.append(phrases.source_title(report["name"]))
    return tuple(dict.fromkeys(titles))


def next_try(classifier: ClassifierRequest, lack: Shortage) -> datetime | None:
    """Return when the sources are asked again without the person; None when they are not."""
    if not lack.unreachable:
        return None
    tried = classifier.events.filter(new=Status.NEEDS_ATTENTION, reason=OUTAGE).count()
    if tried >= len(OUTAGE_PAUSES):
        return None
    return timezone.now() + OUTAGE_PAUSES[tried]


def reason(lack: Shortage) -> str:
    """Return what is missing, as a sentence."""
    found = ", ".join(f"“{each.name}” {lack.counts[each.number]}" for each in lack.short)
    where = "were found"
    if lack.has_own_test:
        where += " beside your own test pictures"
    counts = f"({found}; {lack.needed} per class are needed)"
    if lack.unreachable:
        sources = listed(lack.unreachable)
        return f"{sources} could not be reached, so too few usable pictures {where} {counts}."
    return f"Too few usable pictures {where} {counts}."


def remedy(classifier: ClassifierRequest, lack: Shortage, again_at: datetime | None) -> str:
    """Return what helps, as sentences; nothing that is bound to fail is recommended."""
    if again_at is not None:
        return "Nothing is wrong with your words. We try again by ourselves; you need do nothing."
    sentences = []
    ways = ["try another wording"]
    if lack.unreachable:
        sentences.append("Nothing is wrong with your words; we tried several times.")
        ways = ["search again later"]
    if lack.shared:
        counts = listed([f"{lost} of “{name}”" for name, lost in lack.shared])
        sentences.append(
            f"The same pictures were found for two classes and count for neither ({counts}):"
            " search with words that set the classes apart."
        )
    if classifier.license == License.OPEN:
        ways.append("allow any licence")
    if classifier.sources and not set(settings.SOURCES) <= set(classifier.sources):
        ways.append("ask more sources")
    if lack.can_leave_out:
        ways.append(f"leave out {listed([f'“{each.name}”' for each in lack.short])}")
    if lack.can_train:
        ways.append("go on with fewer pictures")
    advice = ways[0]
    if len(ways) > 1:
        advice = f"{', '.join(ways[:-1])} or {ways[-1]}"
    # Not capitalize(): it would write the names of the classes in small letters.
    sentences.append(f"{advice[0].upper()}{advice[1:]}.")
    return " ".join(sentences)
