"""Try the delivered model on pictures of one's own, and read its report."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

import numpy as np
from csp.decorators import csp_update
from django.core.exceptions import TooManyFilesSent
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from requests_app import prediction
from requests_app.models import ClassifierRequest
from requests_app.prediction import (
    UNKNOWN_LICENSE,
    Answer,
    NearImage,
    OpenedModel,
    Refusal,
    UsableModel,
)
from requests_app.views.access import require_share_token, require_token
from requests_app.views.errors import page_not_found
from requests_app.views.files import send_file
from requests_app.views.uploads import HeldFile, MemoryUploadHandler
from scraping.urls import is_web_address
from training.explanations import colour_scale
from training.networks.catalogue import CROP
from training.predict import ModelError

logger = logging.getLogger(__name__)

DAMAGED_MODEL = "damaged"  # in place of what there is not yet
NAMED_CLASSES = 4  # more of them make no heading
TOO_MANY_FILES = f"Only {prediction.MAX_PICTURES} pictures fit into one go. Send the others next."
NOTHING_GIVEN = "Choose a picture, or give the web address of one."

# The runtime compiles WebAssembly, and pictures are shown from the browser's memory.
TRY_POLICY = {"script-src": ["'self'", "'wasm-unsafe-eval'"], "img-src": ["blob:"]}
# The report carries its styles and pictures inside. It holds what strangers wrote about their
# pictures, so it may run nothing, send nothing, and counts as another site. Its links to the
# pictures' pages open in windows without these limits.
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none';"
    " sandbox allow-popups allow-popups-to-escape-sandbox"
)


@dataclass(frozen=True)
class Bar:
    """One class's probability."""

    name: str
    share: float
    text: str


@dataclass(frozen=True)
class ShownNear:
    """A training picture beside an answer."""

    label: str
    similarity: str
    credit: str
    page: str
    thumbnail: str


@dataclass(frozen=True)
class Shown:
    """An answer, or why there is none, as the page shows it; `try.js` makes the same."""

    name: str
    problem: str = ""
    title: str = ""
    known: bool = True
    reason: str = ""
    facts: str = ""
    picture: str = ""
    map: str = ""
    bars: tuple[Bar, ...] = ()
    nearest: tuple[ShownNear, ...] = ()
    novelty: float = 0.0
    url: str = ""
    """Where the picture was fetched from, for a picture of the web."""


@dataclass(frozen=True)
class Given:
    """What came with a form: answers, and what is wrong with a field, beside that field."""

    answers: tuple[Shown, ...] = ()
    url: str = ""
    url_problem: str = ""
    file_problem: str = ""


@dataclass(frozen=True)
class Place:
    """Where the try page stands: below a request's own link, or below the one for others."""

    classifier: ClassifierRequest
    is_shared: bool = False

    @property
    def home(self) -> str:
        """Return the address that the page leads back to."""
        if self.is_shared:
            return reverse("shared", args=[self.classifier.share_token])
        return self.classifier.get_absolute_url()

    def address(self, name: str, *parts: object) -> str:
        """Return the address of a path of that name below the same link."""
        if self.is_shared:
            return reverse(f"shared_{name}", args=[self.classifier.share_token, *parts])
        return reverse(name, args=[self.classifier.token, *parts])


@csrf_exempt  # or the form would be read before its handler is set; what follows is protected
@require_token
@require_http_methods(["GET", "HEAD", "POST"])
@csp_update(TRY_POLICY)
def try_page(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponseBase:
    """Show the form and, after a POST, the answers; those alone, as JSON, where that is accepted.

    A picture that cannot be classified has its reason in place of an answer.
    """
    return _try_page(request, Place(classifier))


@csrf_exempt
@require_share_token
@require_http_methods(["GET", "HEAD", "POST"])
@csp_update(TRY_POLICY)
def shared_try_page(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponseBase:
    """Show the same page to whoever has the link for others."""
    return _try_page(request, Place(classifier, is_shared=True))


def _try_page(request: HttpRequest, place: Place) -> HttpResponseBase:
    classifier = place.classifier
    usable = prediction.usable_model(classifier)
    if usable is not None and not place.is_shared:
        usable = prediction.calibrated(usable)
    try:
        opened = None if usable is None else prediction.opened_model(usable)
    except ModelError:
        logger.exception("a model cannot be used")
        opened = None
    if usable is None or opened is None:
        status = 409 if request.method == "POST" else 200
        what = "model" if usable is None else DAMAGED_MODEL
        return _no_model_page(request, place, what, status)

    given = Given()
    if request.method == "POST":
        request.upload_handlers = [MemoryUploadHandler(request)]
        try:
            return _answer(request, place, usable, opened)
        except TooManyFilesSent:
            given = Given(file_problem=TOO_MANY_FILES)
    return _page(request, place, usable, opened, given)


@csrf_protect
def _answer(
    request: HttpRequest,
    place: Place,
    usable: UsableModel,
    opened: OpenedModel,
) -> HttpResponse:
    url = request.POST.get("url", "").strip()
    files = cast(Sequence[HeldFile], request.FILES.getlist("pictures"))
    answers = []
    for number, file in enumerate(files):
        answers.append(_answer_to_file(place, usable, file, number))
    wants_json = request.headers.get("Accept") == "application/json"
    url_problem = ""
    if url:
        answer = _answer_to_url(place, usable, url)
        url_problem = answer.problem
        if wants_json or not answer.problem:
            answers.append(answer)
    if wants_json:
        return JsonResponse({"answers": [asdict(answer) for answer in answers]})
    file_problem = "" if url or files else NOTHING_GIVEN
    given = Given(tuple(answers), url, url_problem, file_problem)
    return _page(request, place, usable, opened, given)


def _page(
    request: HttpRequest,
    place: Place,
    usable: UsableModel,
    opened: OpenedModel,
    given: Given,
) -> HttpResponse:
    context = {**_page_context(place, usable, opened), "given": given}
    return render(request, "try/page.html", context)


def _page_context(place: Place, usable: UsableModel, opened: OpenedModel) -> dict[str, object]:
    names = opened.model.classes
    colours = np.rint(colour_scale()).astype(np.uint8)
    has_version = prediction.delivered_version(place.classifier) is not None
    may_correct = has_version and not place.is_shared
    return {
        "classifier": place.classifier,
        "home": place.home,
        "report": "" if place.is_shared else place.address("report"),
        "model_address": place.address("try_model"),
        "names": names if len(names) <= NAMED_CLASSES else (),
        "class_count": len(names),
        "version": usable.number,
        "may_correct": may_correct,
        "token": "" if place.is_shared else place.classifier.token,
        "classes": list(place.classifier.classes.all()),
        "warning": usable.warning,
        "classes_json": json.dumps(names, ensure_ascii=False),
        "reject": repr(opened.model.reject if usable.reject is None else usable.reject),
        "sharpness": repr(usable.sharpness),
        "is_calibrated": usable.reject is not None,
        "resize": "" if opened.resize_side is None else opened.resize_side,
        "crop": CROP,
        "colours": colours.tobytes().hex(),
        "model_bytes": prediction.model_file(usable).stat().st_size,
        "max_pictures": prediction.MAX_PICTURES,
        "max_megabytes": prediction.MAX_BYTES // 1_000_000,
        "max_pixels": prediction.MAX_PIXELS,
        "shown_side": prediction.SHOWN_SIDE,
    }


def _answer_to_file(place: Place, usable: UsableModel, file: HeldFile, number: int) -> Shown:
    name = file.name or "picture"
    if number >= prediction.MAX_PICTURES:
        return Shown(name, problem=TOO_MANY_FILES)
    if file.problem:
        return Shown(name, problem=file.problem)
    if not prediction.take_from_rate(place.classifier):
        return Shown(name, problem=prediction.TOO_MANY)
    return _shown(place, name, prediction.classify(usable, file.read()))


def _answer_to_url(place: Place, usable: UsableModel, url: str) -> Shown:
    if not prediction.take_from_rate(place.classifier):
        return Shown(url, problem=prediction.TOO_MANY)
    shown = _shown(place, url, prediction.classify_url(usable, url))
    return replace(shown, url=url)


def _shown(place: Place, name: str, answer: Answer | Refusal) -> Shown:
    if isinstance(answer, Refusal):
        return Shown(name, problem=answer.sentence)
    share = _percent(answer.probabilities[answer.label])
    title = answer.label
    reason = f"The model is {share} sure."
    if not answer.known:
        title = "None of these"
        reason = f"Closest class: {answer.label} ({share})."
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])
    return Shown(
        name=name,
        title=title,
        known=answer.known,
        reason=reason,
        facts=f"Unfamiliarity {answer.novelty:.2f} (limit {answer.reject:.2f}).",
        picture=answer.picture,
        map=answer.map,
        bars=tuple(Bar(label, value, _percent(value)) for label, value in ranked),
        nearest=_shown_nearest(place, answer),
        novelty=answer.novelty,
    )


def _shown_nearest(place: Place, answer: Answer) -> tuple[ShownNear, ...]:
    shown = []
    for near in answer.nearest:
        if not (near.is_own and place.is_shared):
            shown.append(_shown_near(place, near))
    return tuple(shown)


def _shown_near(place: Place, near: NearImage) -> ShownNear:
    thumbnail = ""
    is_open = near.license not in ("", UNKNOWN_LICENSE)
    if near.pk is not None and (is_open or not place.is_shared):
        thumbnail = place.address("thumbnail", near.pk)
    credit = near.credit or "Author not known"
    if near.license:
        credit = f"{credit}. Licence: {near.license}"
    return ShownNear(
        label=near.label,
        similarity=f"similarity {near.similarity:.2f}",
        credit=credit,
        page=near.page_url if is_web_address(near.page_url) else "",
        thumbnail=thumbnail,
    )


def _percent(share: float) -> str:
    """Return a probability as `try.js` writes it too."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


@require_token
@require_safe
def model_file(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponseBase:
    """Send the network itself, which the try page runs in the browser."""
    return _model_response(request, classifier)


@require_share_token
@require_safe
def shared_model_file(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponseBase:
    """Send the network to whoever has the link for others."""
    return _model_response(request, classifier)


def _model_response(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponseBase:
    usable = prediction.usable_model(classifier)
    if usable is None:
        return page_not_found(request)
    digest = prediction.model_digest(usable)
    path = prediction.model_file(usable)
    file = path.open("rb")
    response = send_file(request, file, name="model.onnx", sha256=digest, path=path)
    # Tens of megabytes: a browser may keep them, and asks each time whether they are the latest.
    response.headers["Cache-Control"] = "private, no-cache"
    return response


@require_token
@require_safe
def report(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponseBase:
    """Show the evaluation report of the newest delivered version."""
    version = prediction.delivered_version(classifier)
    path = None if version is None else version.folder / "model" / "report.html"
    if path is None or not path.is_file():
        return _no_model_page(request, Place(classifier), "report")
    headers = {"Content-Security-Policy": REPORT_POLICY}
    content_type = "text/html; charset=utf-8"
    return FileResponse(path.open("rb"), content_type=content_type, headers=headers)


def _no_model_page(
    request: HttpRequest, place: Place, what: str, status: int = 200
) -> HttpResponse:
    """Say that there is no model or nothing else that comes with it yet, or that it is damaged."""
    context = {
        "classifier": place.classifier,
        "home": place.home,
        "is_open": place.classifier.is_open,
        "what": what,
    }
    return render(request, "try/no_model.html", context, status=status)
