"""The page of a request, its live part, and what its buttons do."""

import hashlib
from dataclasses import replace

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_safe

from requests_app import lifecycle, phrases, pipeline
from requests_app.forms import RetryForm, cut_texts
from requests_app.limits import LimitReached
from requests_app.models import ClassifierRequest, Status
from requests_app.views.access import SeeOther, require_token
from requests_app.views.etags import has_already
from requests_app.views.overview import Overview, may_retry, overview

DELETED = (
    "Everything of this request has been deleted: names, pictures, model, files, mails and your"
    " address."
)
BEING_DELETED = (
    "This request is deleted. Work and mail that were under way are being ended; what they have"
    " written goes as soon as that is done, in seconds."
)
STOP_POLLING = 286  # htmx's own status: replace the live part and stop asking


@require_token
@require_safe
def request_page(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Show the request: live progress, then the result."""
    return _request_page(request, classifier, RetryForm(classifier))


def _request_page(
    request: HttpRequest, classifier: ClassifierRequest, form: RetryForm, status: int = 200
) -> HttpResponse:
    context = _page_context(classifier, overview(classifier), form)
    return render(request, "request.html", context, status=status)


def _page_context(
    classifier: ClassifierRequest, shown: Overview, form: RetryForm
) -> dict[str, object]:
    return {
        "classifier": classifier,
        "token": classifier.token,
        "overview": shown,
        "retry_form": form,
    }


@require_token
@require_safe
def progress(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Return the live part of the page.

    304 while nothing is new, 286 when nothing more will happen; never a redirect.
    """
    shown = overview(classifier)
    # Made from the values, not from the text: the text has a fresh CSRF token each time. The
    # confirmation link carries the time at which it was made, and is no news.
    timeless = replace(shown, confirmation_link="")
    digest = hashlib.sha256(repr(timeless).encode()).hexdigest()
    etag = f'"{digest[:32]}"'
    if shown.polls and has_already(request, etag):
        return HttpResponse(status=304, headers={"ETag": etag})
    context = _page_context(classifier, shown, RetryForm(classifier))
    status = 200 if shown.polls else STOP_POLLING
    response = render(request, "_progress.html", context, status=status)
    response.headers["ETag"] = etag
    return response


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def send_again(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Send the confirmation mail once more. A GET only leads to the request's page."""
    if request.method == "POST":
        try:
            is_sent = pipeline.send_confirmation_again(classifier)
        except LimitReached as error:
            messages.warning(request, error.sentence)
            return SeeOther(classifier.get_absolute_url())
        if is_sent:
            address = phrases.masked_address(classifier.email)
            messages.success(request, f"Another mail is on its way to {address}.")
        elif classifier.status == Status.UNCONFIRMED:
            messages.warning(
                request,
                "The mail has been sent several times already. Look in spam, or fill in the form"
                " again with another address.",
            )
    return SeeOther(classifier.get_absolute_url())


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def cancel(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Stop all work on the request. A GET (a reload, a bookmark) only leads to its page."""
    if request.method == "POST" and not lifecycle.cancel(classifier):
        messages.warning(request, "There was nothing left to cancel.")
    return SeeOther(classifier.get_absolute_url())


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def retry(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Start again after a failure, a cancel or too few pictures, with changes if there are any.

    A GET (a reload, a bookmark) only leads to the request's page.
    """
    if request.method != "POST":
        return SeeOther(classifier.get_absolute_url())
    form = RetryForm(classifier, cut_texts(request.POST))
    startable = may_retry(classifier)
    if startable and not form.is_valid():
        return _request_page(request, classifier, form, status=400)
    if not startable or not lifecycle.retry(classifier, **form.changes()):
        messages.warning(request, _why_not_started(classifier))
    return SeeOther(classifier.get_absolute_url())


def _why_not_started(classifier: ClassifierRequest) -> str:
    """Say why nothing was started, most often by a page that is older than the last press."""
    classifier.refresh_from_db(fields=["status"])
    if classifier.status in (Status.QUEUED, Status.RUNNING):
        return "It has already been started."
    if classifier.status == Status.DELIVERED:
        return "It is finished already."
    return "This cannot be started: its address was never confirmed. Fill in the form again."


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def leave_out(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Go on without one class. A GET only leads to the request's page."""
    if request.method == "POST":
        number = request.POST.get("number", "")
        is_number = number.isdecimal() and len(number) < 4
        if not is_number or not lifecycle.leave_out(classifier, [int(number)]):
            messages.warning(
                request, "This class could not be left out: it is gone already, or work goes on."
            )
    return SeeOther(classifier.get_absolute_url())


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Ask, then delete everything of the request."""
    if request.method != "POST":
        return render(request, "delete.html", {"classifier": classifier})
    if not lifecycle.delete(classifier):
        messages.warning(
            request, "This could not be deleted just now; it may have been deleted before."
        )
        return SeeOther(classifier.get_absolute_url())
    messages.success(request, DELETED if classifier.erased else BEING_DELETED)
    return SeeOther("/")
