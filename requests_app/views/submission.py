"""The form of the first page, and the page behind the confirmation link of the mail."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from requests_app import pipeline
from requests_app.forms import SubmissionForm
from requests_app.models import Status
from requests_app.views.access import SeeOther, make_private
from requests_app.views.errors import gone


@require_http_methods(["GET", "HEAD", "POST"])
def home(request: HttpRequest) -> HttpResponse:
    """Show the form, or take the submission.

    The buttons "add a class" and "remove" also work by sending the form, for pages without
    scripts. ``?classes=cat&classes=dog&kind=animal`` fills in the form.
    """
    if request.method != "POST":
        return _form_page(request, SubmissionForm.prefilled(request.GET))
    form = SubmissionForm(request.POST)
    if "add" in request.POST:
        return _form_page(request, form.with_row_added())
    if "remove" in request.POST:
        return _form_page(request, form.with_row_removed(request.POST["remove"]))
    if not form.is_valid():
        return _form_page(request, form, status=400)
    classifier = pipeline.submit(form.submission())
    return SeeOther(classifier.get_absolute_url())


def _form_page(request: HttpRequest, form: SubmissionForm, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        "retention_days": settings.RETENTION_DAYS,
        "confirms": settings.CONFIRM_EMAIL,
    }
    return render(request, "home.html", context, status=status)


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
    if request.method == "POST" and pipeline.confirm(classifier):
        return SeeOther(classifier.get_absolute_url())
    # Read the status again: where the button did nothing, someone else has moved the row.
    classifier.refresh_from_db(fields=["status"])
    used = classifier.status != Status.UNCONFIRMED
    return render(request, "confirm.html", {"classifier": classifier, "used": used})
