"""Too few images: which classes are short, why, and what helps.

Nothing here changes a row: the pipeline asks for help with it, and the page shows it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from requests_app import phrases
from requests_app.models import ClassifierRequest, ImageClass, License, SourceHealth, Status
from scraping.reasons import Reason
from scraping.sources.catalogue import Outcome
from training.phrases import listed
from training.run_folder import MINIMUM_PER_CLASS

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
    short = [each for each in classes if each.kept < needed]
    shared = []
    for image_class in short:
        lost = image_class.rejected.get(Reason.IN_TWO_CLASSES, 0)
        if lost and image_class.kept + lost >= needed:
            shared.append((image_class.name, lost))
    return Shortage(
        needed=needed,
        short=tuple(short),
        unreachable=_unreachable_sources(short),
        shared=tuple(shared),
        can_train=all(each.kept >= MINIMUM_PER_CLASS for each in classes),
        can_leave_out=len(classes) > FEWEST_CLASSES,
    )


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
    found = ", ".join(f"“{each.name}” {each.kept}" for each in lack.short)
    counts = f"({found}; {lack.needed} per class are needed)"
    if lack.unreachable:
        sources = listed(lack.unreachable)
        return f"{sources} could not be reached, so too few usable pictures were found {counts}."
    return f"Too few usable pictures were found {counts}."


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
    if len(classifier.sources or settings.SOURCES) < len(settings.KNOWN_SOURCES):
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
