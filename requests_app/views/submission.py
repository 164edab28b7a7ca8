"""The form of the first page, what it asks for while a person types, and the confirmation."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import cast

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from requests_app import better_words, estimate, pipeline, repeats, supplied
from requests_app.forms import (
    DEFAULT_IMAGES,
    FILE_FIELDS,
    FORM_TOKEN,
    MAX_CLASSES,
    MAX_IMAGES,
    MAX_NAME_LENGTH,
    MIN_CLASSES,
    MIN_IMAGES,
    FormData,
    SubmissionForm,
    cut_texts,
    within,
)
from requests_app.limits import LimitReached
from requests_app.models import ClassifierRequest, Status, sha256_hex
from requests_app.text_rules import find_problem
from requests_app.views.access import SeeOther, make_private
from requests_app.views.errors import gone, too_much
from requests_app.views.uploads import DiskUploadHandler, hold_files
from requests_app.visitors import address_of

STILL_AT_IT = "This form is being taken just now. Press the button again in some seconds."
HIDDEN_FIELDS = ("csrfmiddlewaretoken", "form_token")


@csrf_exempt  # or the form would be read before its handler is set; what follows is protected
@require_http_methods(["GET", "HEAD", "POST"])
def home(request: HttpRequest) -> HttpResponse:
    """Show the form, or take the submission.

    The buttons "add a class" and "remove" also work by sending the form, for pages without
    scripts. ``?classes=cat&classes=dog&kind=animal`` fills in the form.
    """
    if request.method != "POST":
        return _form_page(request, SubmissionForm.prefilled(request.GET))
    handler = DiskUploadHandler(request, FILE_FIELDS)
    request.upload_handlers = [handler]
    return _submit(request, handler)


@csrf_protect
def _submit(request: HttpRequest, handler: DiskUploadHandler) -> HttpResponse:
    data = cut_texts(request.POST)
    problems = handler.problems
    wish = _digest_of_form(request)
    if done := _done_before(data, wish):
        return SeeOther(done.get_absolute_url())
    draft = supplied.opened(data.get("draft", ""))
    if data.get("draft") and draft is None:
        problems.setdefault("own_pictures", supplied.GONE)
    if draft is not None:
        for kind in data.getlist("leave_file_out"):
            supplied.leave_out(draft, kind)
    try:
        draft = hold_files(request.FILES.items(), draft)
    except supplied.GoneError as error:
        draft = None
        problems["own_pictures"] = str(error)
    if draft is not None and not any(name.strip() for name in data.getlist("classes")):
        names, unreadable = supplied.class_names(draft, MAX_CLASSES)
        data.setlist("classes", names)
        for kind, sentence in unreadable.items():
            problems.setdefault(f"own_{kind}", sentence)
    form = SubmissionForm(data, draft, problems)
    if "add" in request.POST:
        return _form_page(request, form.with_row_added())
    if "remove" in request.POST:
        return _form_page(request, form.with_row_removed(request.POST["remove"]))
    if not form.is_valid():
        if done := _done_before(data, wish):  # meanwhile, with the files of this form
            return SeeOther(done.get_absolute_url())
        return _form_page(request, form, status=400)
    return _take(request, form, wish)


def _take(request: HttpRequest, form: SubmissionForm, wish: str) -> HttpResponse:
    """Make the request of a form that is right, unless there are as many as there may be."""
    submission = replace(form.submission(), visitor=address_of(request))
    try:
        classifier = _once(form.token, wish, lambda: pipeline.submit(submission))
    except supplied.GoneError as error:
        form = SubmissionForm(cut_texts(request.POST), problems={"own_pictures": str(error)})
        return _form_page(request, form, status=400)
    except repeats.StillAtIt:
        form.refuse("email", STILL_AT_IT)
        return _form_page(request, form, status=503)
    except LimitReached as error:
        form.refuse("email", error.sentence)
        page = _form_page(request, form, status=error.status)
        page.headers["Retry-After"] = str(error.retry_after)
        return page
    return SeeOther(classifier.get_absolute_url())


def _once(token: str, wish: str, submit: Callable[[], ClassifierRequest]) -> ClassifierRequest:
    """Submit, unless the same filled form was sent before: a double click makes one request."""
    return repeats.once(sha256_hex(f"form\n{token}\n{wish}"), wish, submit)


def _done_before(data: FormData, wish: str) -> ClassifierRequest | None:
    token = data.get("form_token", "")
    if not FORM_TOKEN.fullmatch(token):
        return None
    return repeats.done_before(sha256_hex(f"form\n{token}\n{wish}"), wish)


def _digest_of_form(request: HttpRequest) -> str:
    """Return a digest of all that was filled in; a form that was changed is another wish."""
    data = request.POST
    filled = [(name, data.getlist(name)) for name in sorted(data) if name not in HIDDEN_FIELDS]
    files = cast(Iterable[UploadedFile], request.FILES.values())
    sent = sorted((str(file.name), file.size) for file in files)
    return sha256_hex(repr((filled, sent)))


def _form_page(request: HttpRequest, form: SubmissionForm, status: int = 200) -> HttpResponse:
    time = estimate.of_size(form.named_classes, form.images_typed)
    context = {
        "form": form,
        "retention_days": settings.RETENTION_DAYS,
        "confirms": settings.CONFIRM_EMAIL,
        "estimate": time,
        "offers_words": better_words.is_on(),
    }
    return render(request, "home.html", context, status=status)


@require_safe
def estimated_time(request: HttpRequest) -> HttpResponse:
    """Say how long a request of ``?classes=3&images=100`` takes now; sizes outside the form's
    limits are brought inside.
    """
    typed = request.GET
    classes = within(
        typed.get("classes", ""),
        default=MIN_CLASSES,
        least=MIN_CLASSES,
        most=MAX_CLASSES,
    )
    images = within(
        typed.get("images", ""),
        default=DEFAULT_IMAGES,
        least=MIN_IMAGES,
        most=MAX_IMAGES,
    )
    sentence = estimate.of_size(classes, images)
    answer = {"sentence": sentence}
    return JsonResponse(answer, headers={"Cache-Control": "no-store"})


@require_safe
def words(request: HttpRequest) -> HttpResponse:
    """Say what ``?name=jaguar`` can mean, with the words that find each; 429 for too many."""
    name = request.GET.get("name", "")
    if find_problem(name, MAX_NAME_LENGTH):
        return JsonResponse({"meanings": []})
    try:
        found = better_words.meanings(name, address_of(request))
    except better_words.AskedTooMuch:
        return JsonResponse({"meanings": []}, status=429, headers={"Retry-After": "2"})
    answer = {"meanings": [asdict(meaning) for meaning in found]}
    return JsonResponse(answer, headers={"Cache-Control": "private, max-age=3600"})


@require_http_methods(["GET", "HEAD", "POST"])
def confirm(request: HttpRequest, signed: str) -> HttpResponseBase:
    """Show a button; pressing it confirms. Mail scanners open links, they do not press buttons."""
    return make_private(_confirm(request, signed))


def _confirm(request: HttpRequest, signed: str) -> HttpResponseBase:
    classifier = pipeline.request_of_confirmation(signed)
    if classifier is None:
        return render(request, "confirm_invalid.html", status=404)
    if classifier.status == Status.EXPIRED:
        return gone(request)
    try:
        confirmed = request.method == "POST" and pipeline.confirm(classifier)
    except LimitReached as error:
        return too_much(request, error)
    if confirmed:
        return SeeOther(classifier.get_absolute_url())
    # Read the status again: where the button did nothing, someone else has moved the row.
    classifier.refresh_from_db(fields=["status"])
    used = classifier.status != Status.UNCONFIRMED
    return render(request, "confirm.html", {"classifier": classifier, "used": used})
