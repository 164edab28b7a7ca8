"""The gallery: look through the pictures, remove and relabel them, undo, and see one up close."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db.models import Count, F, QuerySet, prefetch_related_objects
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from requests_app import curation, lifecycle, phrases, versions
from requests_app.delivery.attribution import credit
from requests_app.models import (
    ClassifierRequest,
    DatasetVersion,
    Decision,
    ImageClass,
    ImageQuerySet,
    ImageState,
    ImageUrl,
)
from requests_app.text_rules import read_keys, read_number
from requests_app.views.access import SeeOther, require_token
from requests_app.views.errors import page_not_found
from requests_app.views.meanings import questions
from training.explanations import read_neighbours
from training.predictions import PREDICTIONS_FILE, read_predictions
from training.run_folder import SPLITS, RunError

PER_PAGE = 100
MOST_AT_ONCE = 1000  # images of one decision
HISTORY = 50  # decisions shown
NEAREST = 6

STATE_TITLES: dict[str, str] = {
    ImageState.KEPT: "In the dataset",
    ImageState.REMOVED: "Removed by you",
    ImageState.REJECTED: "Left out by Picaisso",
}
SPLIT_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}
ORDER_TITLES = {"": "As found", "doubtful": "Doubtful first"}


@dataclass(frozen=True)
class Filters:
    """Which images are shown; each stands in the address."""

    state: str = ImageState.KEPT
    image_class: int | None = None
    predicted: int | None = None
    source: str = ""
    license: str = ""
    split: str = ""
    order: str = ""

    @classmethod
    def read(cls, query: QueryDict) -> "Filters":
        """Read the filters of an address; what is no filter counts as none."""
        state = query.get("state", "")
        split = query.get("split", "")
        order = query.get("order", "")
        return cls(
            state=state if state in STATE_TITLES else ImageState.KEPT,
            image_class=read_number(query.get("class", "")) or None,
            predicted=read_number(query.get("predicted", "")) or None,
            source=query.get("source", "")[:32],
            license=query.get("license", "")[:64],
            split=split if split in SPLITS else "",
            order=order if order in ORDER_TITLES else "",
        )

    def address(self, page: int = 1) -> str:
        """Return the query string of these filters, "" or beginning with a question mark."""
        values: dict[str, object] = {
            "state": "" if self.state == ImageState.KEPT else self.state,
            "class": self.image_class,
            "predicted": self.predicted,
            "source": self.source,
            "license": self.license,
            "split": self.split,
            "order": self.order,
            "page": "" if page == 1 else page,
        }
        query = urlencode({name: value for name, value in values.items() if value})
        return f"?{query}" if query else ""

    def apply(self, images: ImageQuerySet, classes: Sequence[ImageClass]) -> ImageQuerySet:
        """Return the images that pass."""
        images = images.filter(state=self.state)
        for image_class in classes:
            if image_class.number == self.image_class:
                images = images.of_class(image_class)
        if self.predicted is not None:
            images = images.filter(predicted=self.predicted)
        if self.source:
            images = images.filter(source=self.source)
        if self.license:
            images = images.filter(license=self.license)
        if self.split:
            images = images.filter(split=self.split)
        if self.order == "doubtful":
            return images.order_by(F("suspect").desc(nulls_last=True), "image_class", "pk")
        return images.order_by("image_class__number", "rank", "pk")


@dataclass(frozen=True)
class Choice:
    """One choice of a filter."""

    value: str
    title: str
    count: int | None
    is_chosen: bool


@dataclass(frozen=True)
class Filter:
    """One filter with its choices; the first is always "all"."""

    name: str
    title: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Tile:
    """One image of the grid."""

    key: int
    class_number: int
    class_name: str
    title: str
    """What is heard instead of the picture."""
    state: str
    is_shown: bool
    """Whether there is a picture: rejected ones are not kept."""
    badge: str
    reason: str


@dataclass(frozen=True)
class DecisionLine:
    """One decision of the history."""

    at: str
    sentence: str
    is_undone: bool


@require_token
@require_safe
def gallery(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Show a page of the request's images."""
    prefetch_related_objects([classifier], "classes")
    filters = Filters.read(request.GET)
    classes = list(classifier.classes.all())
    images = ImageUrl.objects.of_request(classifier)
    counts = _counts(images, filters.state)
    paginator = Paginator(filters.apply(images, classes), PER_PAGE)
    page = paginator.get_page(request.GET.get("page"))
    context = {
        "classifier": classifier,
        "token": classifier.token,
        "classes": classes,
        "filters": filters,
        "filter_lists": _filter_lists(counts, classes, filters),
        "page": page,
        "earlier": _page_address(page, filters, -1),
        "later": _page_address(page, filters, 1),
        "tiles": [_tile(image) for image in page],
        "back": filters.address(page.number),
        "pending": _pending(classifier),
        "history": _history(classifier),
        "may_undo": classifier.decisions.filter(undone=None).exists(),
        "questions": questions(classifier),
        "doubtful_address": replace(Filters(), order="doubtful").address(),
        "doubtful": counts["doubtful"][ImageState.KEPT],
    }
    return render(request, "gallery/gallery.html", context)


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def decide(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Remove, restore or relabel the chosen images; a GET only leads to the gallery."""
    if request.method != "POST":
        return SeeOther(reverse("gallery", args=[classifier.token]))
    keys = read_keys(request.POST.getlist("image")[:MOST_AT_ONCE])
    actor = actor_of(request)
    action = request.POST.get("action", "")
    decision = None
    if action == "remove":
        decision = curation.remove(classifier, keys, actor)
    elif action == "restore":
        decision = curation.restore(classifier, keys, actor)
    elif number := read_number(request.POST.get("number", "") if action == "relabel" else action):
        decision = curation.relabel(classifier, keys, number, actor)
    if decision is None:
        sentence = "Nothing was changed: choose pictures first."
        if keys:
            sentence = "Nothing was changed: the chosen pictures are like that already."
        return _answer(request, classifier, sentence, None)
    return _answer(request, classifier, f"{sentence_of(decision)}.", decision)


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def undo(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Take back the last decision; a GET only leads to the gallery."""
    if request.method != "POST":
        return SeeOther(reverse("gallery", args=[classifier.token]))
    decision = curation.undo(classifier)
    if decision is None:
        return _answer(request, classifier, "There is nothing left to undo.", None)
    return _answer(request, classifier, f"Undone: {sentence_of(decision)}.", decision)


@require_token
@require_safe
def image(request: HttpRequest, classifier: ClassifierRequest, pk: int) -> HttpResponse:
    """Show one image up close: where it comes from, what the model says, what is like it.

    A request that asks for a fragment gets the panel alone.
    """
    images = ImageUrl.objects.of_request(classifier).exclude(state=ImageState.REJECTED)
    found = images.filter(pk=pk).first()
    if found is None:
        return page_not_found(request)
    finished = versions.finished_versions(classifier)
    answers = _answers(finished[0], found) if finished else ()
    nearest = _nearest(finished[0], found) if finished else ()
    is_blind = found.split == "test" and not found.judged
    context = {
        "classifier": classifier,
        "token": classifier.token,
        "image": found,
        "tile": _tile(found),
        "classes": list(classifier.classes.all()),
        "credit": credit(found),
        "source": phrases.source_title(found.source),
        "answers": () if is_blind else answers,
        "is_blind": is_blind,
        "nearest": nearest,
        "back": request.GET.get("back", "")[:500],
    }
    is_fragment = "X-Fragment" in request.headers
    return render(request, "gallery/_image.html" if is_fragment else "gallery/image.html", context)


def actor_of(request: HttpRequest) -> str:
    """Return who decides: one of the staff by name, else the person with the link."""
    if request.user.is_staff:
        return request.user.get_username()[:64]
    return "person"


def _answer(
    request: HttpRequest, classifier: ClassifierRequest, sentence: str, decision: Decision | None
) -> HttpResponse:
    """Say what came of a decision: as JSON to the page's script, else on the page it came from."""
    if request.accepts("text/html"):
        if decision is None:
            messages.warning(request, sentence)
        else:
            messages.success(request, sentence)
        back = QueryDict(request.POST.get("back", "")[:500].lstrip("?")).urlencode()
        return SeeOther(f"{reverse('gallery', args=[classifier.token])}?{back}".rstrip("?"))
    changed = []
    if decision is not None:
        keys = [int(key) for key in decision.before]
        for image in ImageUrl.objects.of_request(classifier).filter(pk__in=keys):
            label = image.current_class
            values = {"key": image.pk, "state": image.state}
            changed.append(values | {"number": label.number, "name": label.name})
    answer = {
        "sentence": sentence,
        "changed": changed,
        "pending": _pending(classifier),
        "may_undo": classifier.decisions.filter(undone=None).exists(),
    }
    return JsonResponse(answer)


def _pending(classifier: ClassifierRequest) -> dict[str, str]:
    """Return what a new training would have otherwise, and why it cannot begin, both "" if not."""
    if not versions.finished_versions(classifier):
        return {"changes": "", "obstacle": ""}
    changes = versions.changes(classifier)
    parts = []
    if changes.removed:
        parts.append(f"{changes.removed} removed")
    if changes.relabelled:
        parts.append(f"{changes.relabelled} relabelled")
    if changes.added:
        parts.append(f"{changes.added} added")
    if not parts:
        return {"changes": "", "obstacle": ""}
    latest = versions.finished_versions(classifier)[0]
    sentence = f"Since version {latest.number}: {', '.join(parts)}."
    return {"changes": sentence, "obstacle": lifecycle.obstacle_to_training(classifier)}


def _history(classifier: ClassifierRequest) -> list[DecisionLine]:
    lines = []
    for decision in classifier.decisions.order_by("-pk")[:HISTORY]:
        who = "You" if decision.actor == "person" else decision.actor
        sentence = f"{who}: {sentence_of(decision)}"
        lines.append(DecisionLine(decision.at.isoformat(), sentence, bool(decision.undone)))
    return lines


def sentence_of(decision: Decision) -> str:
    """Return a decision in words, without a full stop."""
    pictures = phrases.counted(len(decision.before), "picture")
    if decision.action == Decision.Action.REMOVE:
        of_class = f" of “{decision.value}”" if decision.value else ""
        return f"{pictures}{of_class} removed"
    if decision.action == Decision.Action.RESTORE:
        return f"{pictures} taken in again"
    if decision.action == Decision.Action.RELABEL:
        return f"{pictures} moved to “{decision.value}”"
    if decision.action == Decision.Action.ADD:
        return f"{pictures} of your own added to “{decision.value}”"
    return f"a test picture judged “{decision.value}”"


# --- filters ---


def _filter_lists(
    counts: Mapping[str, Counter[str]], classes: Sequence[ImageClass], chosen: Filters
) -> tuple[Filter, ...]:
    """Return the filters with how many images of the shown state each choice has."""
    by_class = counts["now"]
    class_counts = {str(c.number): by_class[str(c.pk)] for c in classes}
    names = {str(c.number): c.name for c in classes}
    sources = counts["source"]
    licenses = counts["license"]
    del licenses[""]
    source_titles = {name: phrases.source_title(name) for name in sources}
    return (
        _filter("state", "Show", STATE_TITLES, counts["state"], chosen.state, has_all=False),
        _filter("class", "Class", names, class_counts, str(chosen.image_class or "")),
        _filter("split", "Part", SPLIT_TITLES, counts["split"], chosen.split),
        _filter("source", "Source", source_titles, sources, chosen.source),
        _filter("license", "Licence", {name: name for name in licenses}, licenses, chosen.license),
        _filter("order", "Order", ORDER_TITLES, {}, chosen.order, has_all=False),
    )


def _counts(images: QuerySet[ImageUrl], state: str) -> dict[str, Counter[str]]:
    """Return how many images of a state have each value of a column.

    `state` and `doubtful` have the images of each state. One query: each would read all rows.
    """
    columns = ("state", "now", "source", "license", "split")
    labelled = images.order_by().annotate(now=Coalesce("label", "image_class"))
    grouped = labelled.values_list(*columns).annotate(Count("pk"), Count("suspect"))
    counts: dict[str, Counter[str]] = {column: Counter() for column in (*columns, "doubtful")}
    for *values, count, doubtful in grouped:
        counts["state"][values[0]] += count
        counts["doubtful"][values[0]] += doubtful
        if values[0] != state:
            continue
        for column, value in zip(columns[1:], values[1:], strict=True):
            counts[column][str(value)] += count
    return counts


def _filter(
    name: str,
    title: str,
    titles: Mapping[str, str],
    counts: Mapping[str, int],
    chosen: str,
    has_all: bool = True,
) -> Filter:
    choices = []
    if has_all:
        choices.append(Choice("", "All", None, not chosen))
    for value, text in titles.items():
        count = counts.get(value) if counts else None
        choices.append(Choice(value, text, count, value == chosen))
    return Filter(name, title, tuple(choices))


def _page_address(page: Page, filters: Filters, step: int) -> str:
    """Return the address of the page before or after, "" where there is none."""
    number = page.number + step
    if not 1 <= number <= page.paginator.num_pages:
        return ""
    return filters.address(number) or "?"


# --- tiles and the panel ---


def _tile(image: ImageUrl) -> Tile:
    label = image.current_class
    badge = ""
    if image.split == "test":
        badge = "Test"
    elif image.suspect is not None:
        badge = "Doubtful"
    reason = image.suspect_reason
    if image.state == ImageState.REJECTED:
        words = phrases.rejections({image.reason: 1}).removeprefix("1 ")
        reason = f"{words}. {image.detail}".strip() if image.detail else words
    return Tile(
        key=image.pk,
        class_number=label.number,
        class_name=label.name,
        title=f"{label.name}, from {phrases.source_title(image.source)}",
        state=image.state,
        is_shown=image.state != ImageState.REJECTED,
        badge=badge,
        reason=reason,
    )


def _answers(version: DatasetVersion, image: ImageUrl) -> tuple[tuple[str, int], ...]:
    """Return name and percent of each class by the model, the likeliest first; () if unknown."""
    if not (version.folder / PREDICTIONS_FILE).exists():
        return ()
    classes = list(version.request.classes.all())
    try:
        predicted = read_predictions(version.folder, [c.class_id for c in classes])
    except RunError:  # damaged, or of other classes
        return ()
    for answer in predicted:
        if answer.file == image.file:
            pairs = zip(classes, answer.probabilities, strict=True)
            said = [(c.name, round(100 * float(share))) for c, share in pairs]
            return tuple(sorted(said, key=lambda pair: -pair[1]))
    return ()


def _nearest(version: DatasetVersion, image: ImageUrl) -> tuple[Tile, ...]:
    """Return the images the model learned from that look most like this one of its version."""
    neighbours = read_neighbours(version.folder)
    if neighbours is None:
        return ()
    name = Path(image.file).name
    embedding = neighbours.embedding_of(name)
    if embedding is None:
        return ()
    near = neighbours.nearest(embedding.astype("float64"), NEAREST + 1)
    files = [learned.file for learned, _ in near if Path(learned.file).name != name]
    images = ImageUrl.objects.of_request(version.request).exclude(state=ImageState.REJECTED)
    by_name = {Path(found.file).name: found for found in images.filter(file__in=files)}
    ordered = [by_name[Path(file).name] for file in files if Path(file).name in by_name]
    return tuple(_tile(found) for found in ordered[:NEAREST])
