"""“Wrong? Say what it shows”: a picture that was tried becomes one of the person's own."""

import base64
import binascii
from typing import cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods

from requests_app import curation, own_pictures, prediction, versions
from requests_app.models import ClassifierRequest, Decision
from requests_app.prediction import Refusal
from requests_app.text_rules import KEY_DIGITS, read_number
from requests_app.views.access import SeeOther, require_token
from requests_app.views.gallery import actor_of
from requests_app.views.uploads import HeldFile, MemoryUploadHandler

DATA_URL = "data:image/jpeg;base64,"
NOTHING_GIVEN = "There is no picture to add. Try it once more, then say what it shows."
NO_MODEL = "Pictures can be added when the first version is there."
TAKEN_BACK = "Taken back: the picture is not in the dataset any more."
UNDO_THERE = "It can be undone among the pictures."
NOTHING_TO_TAKE_BACK = "This picture was taken back already."


@csrf_exempt  # or the form would be read before its handler is set; what follows is protected
@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def correct(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponseBase:
    """Add a picture with the class that it shows, or take it back; a GET leads to the try page."""
    if request.method != "POST":
        return SeeOther(reverse("try", args=[classifier.token]))
    request.upload_handlers = [MemoryUploadHandler(request)]
    return _correct(request, classifier)


@csrf_protect
def _correct(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    key = request.POST.get("take_back", "")
    if key:
        undone = curation.take_back(classifier, read_number(key, KEY_DIGITS))
        if undone is None:
            return _answer(request, classifier, NOTHING_TO_TAKE_BACK, is_done=False)
        return _answer(request, classifier, TAKEN_BACK, is_done=True)
    added = _added(request, classifier)
    if isinstance(added, Refusal):
        return _answer(request, classifier, added.sentence, is_done=False)
    sentence = f"Added as “{added.value}”. It counts when you train again."
    return _answer(request, classifier, sentence, is_done=True, added=added)


def _added(request: HttpRequest, classifier: ClassifierRequest) -> Decision | Refusal:
    if not versions.finished_versions(classifier):
        return Refusal(NO_MODEL)
    if not prediction.take_from_rate(classifier):
        return Refusal(prediction.TOO_MANY)
    number = read_number(request.POST.get("number", ""))
    actor = actor_of(request)
    file = cast(HeldFile | None, request.FILES.get("picture"))
    if file is not None and file.problem:
        return Refusal(file.problem)
    if file is not None:
        return own_pictures.add(classifier, number, file.read(), actor)
    url = request.POST.get("url", "").strip()
    if url:
        return own_pictures.add_from_web(classifier, number, url, actor)
    data = _shown_picture(request)
    if not data:
        return Refusal(NOTHING_GIVEN)
    return own_pictures.add(classifier, number, data, actor)


def _shown_picture(request: HttpRequest) -> bytes:
    """Return the picture as the page shows it, which a form without scripts carries; b"" if none.

    It is as large as the page shows it.
    """
    shown = request.POST.get("shown", "")
    if not shown.startswith(DATA_URL):
        return b""
    encoded = shown.removeprefix(DATA_URL)
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return b""


def _answer(
    request: HttpRequest,
    classifier: ClassifierRequest,
    sentence: str,
    *,
    is_done: bool,
    added: Decision | None = None,
) -> HttpResponse:
    """Say what came of it: as JSON to the page's script, else on the try page."""
    if request.accepts("text/html"):
        if is_done:
            messages.success(request, f"{sentence} {UNDO_THERE}" if added else sentence)
        else:
            messages.warning(request, sentence)
        return SeeOther(reverse("try", args=[classifier.token]))
    key = None if added is None else added.pk
    return JsonResponse({"sentence": sentence, "is_done": is_done, "take_back": key})
