"""The pages. Access to everything below ``/r/`` goes through one gate: ``holds_link``."""

import hashlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.utils.http import parse_etags

from requests_app import pipeline
from requests_app.delivery.thumbnails import thumbnail as thumbnail_of
from requests_app.forms import RetryForm, SubmissionForm
from requests_app.models import Artifact, ClassifierRequest, ImageState, ImageUrl, Status
from requests_app.views.files import send_file
from requests_app.views.overview import Overview, may_retry, overview

STOP_POLLING = 286  # htmx's own status: swap this in and ask no more
PRIVATE = {
    "Cache-Control": "private, no-store",
    "X-Robots-Tag": "noindex, nofollow",
    "Referrer-Policy": "no-referrer",
}

READ, WRITE = ("GET", "HEAD"), ("POST",)

View = Callable[..., HttpResponseBase]


# --- the gate
# ---------------------------------------------------------------------------------------------


def holds_link(view: View) -> View:
    """Whoever knows the token may; a stranger gets the 404 page, and a link whose request is gone a
    410.

    The address is the permission, so nothing below it is kept by caches, found by search engines or
    named to others.
    """

    @wraps(view)
    def gated(http: HttpRequest, token: str, **place: Any) -> HttpResponseBase:
        request = ClassifierRequest.objects.by_token(token)
        if request is None:
            response: HttpResponseBase = page_not_found(http)
        elif request.status == Status.EXPIRED:
            response = gone(http)
        else:
            response = view(http, request, **place)
        return _private(response)

    return gated


def _private(response: HttpResponseBase) -> HttpResponseBase:
    for name, value in PRIVATE.items():
        response.headers.setdefault(name, value)
    return response


def _see(request: ClassifierRequest) -> HttpResponse:
    """303: go and GET the request's page."""
    return HttpResponseRedirect(request.get_absolute_url(), status=303)


def takes(*methods: str) -> Callable[[View], View]:
    """Any other method is answered with a finished 405 page, where Django's own answer is a blank
    one.
    """

    def checking(view: View) -> View:
        @wraps(view)
        def checked(http: HttpRequest, *place: Any, **named: Any) -> HttpResponseBase:
            return (
                view(http, *place, **named)
                if http.method in methods
                else not_allowed(http, methods)
            )

        return checked

    return checking


def does(view: View) -> View:
    """A POST does it. Who merely looks (a reload, a bookmark, a way back) is sent to the request's
    page.
    """

    @wraps(view)
    def doing(http: HttpRequest, request: ClassifierRequest) -> HttpResponseBase:
        return view(http, request) if http.method == "POST" else _see(request)

    return takes(*READ, *WRITE)(doing)


# --- submitting
# -------------------------------------------------------------------------------------------


@takes(*READ, *WRITE)
def home(http: HttpRequest) -> HttpResponse:
    """The form. Its "add a class" and "remove" buttons also work by sending the form, for pages
    without scripts.
    """
    if http.method != "POST":
        return _form_page(http, SubmissionForm())
    form = SubmissionForm(http.POST)
    if "add" in http.POST or "remove" in http.POST:
        return _form_page(
            http, form.changed(add="add" in http.POST, remove=http.POST.get("remove", ""))
        )
    if not form.is_valid():
        return _form_page(http, form, status=400)
    return _see(pipeline.submit(form.submission()))


def _form_page(http: HttpRequest, form: SubmissionForm, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        "retention_days": settings.RETENTION_DAYS,
        "confirms": settings.CONFIRM_EMAIL,
    }
    return render(http, "home.html", context, status=status)


@takes(*READ, *WRITE)
def confirm(http: HttpRequest, signed: str) -> HttpResponseBase:
    """Looking shows a button, pressing it confirms: mail scanners open links, they do not press
    buttons.
    """
    request = pipeline.request_of_confirmation(signed)
    if request is None:
        return _private(render(http, "confirm_invalid.html", status=404))
    if request.status == Status.EXPIRED:
        return _private(gone(http))
    if http.method == "POST" and pipeline.confirm(request):
        return _private(_see(request))
    # Anew: where the button did nothing, the row is further than this object knows.
    request.refresh_from_db(fields=["status"])
    return _private(
        render(
            http,
            "confirm.html",
            {"classifier": request, "used": request.status != Status.UNCONFIRMED},
        )
    )


# --- a request
# --------------------------------------------------------------------------------------------


@holds_link
@takes(*READ)
def request_page(http: HttpRequest, request: ClassifierRequest) -> HttpResponse:
    """The request: live progress, then the result."""
    return _request_page(http, request, RetryForm(request))


def _request_page(
    http: HttpRequest, request: ClassifierRequest, form: RetryForm, status: int = 200
) -> HttpResponse:
    return render(
        http, "request.html", _page_context(request, overview(request), form), status=status
    )


def _page_context(
    request: ClassifierRequest, shown: Overview, form: RetryForm
) -> dict[str, object]:
    # Not "request": templates know the HTTP request by that name.
    return {"classifier": request, "token": request.token, "overview": shown, "retry_form": form}


@holds_link
@takes(*READ)
def progress(http: HttpRequest, request: ClassifierRequest) -> HttpResponse:
    """The live part of the page: 304 while nothing is new, 286 when nothing more will happen; never
    a redirect.
    """
    shown = overview(request)
    # Over the values, not the text: the text has a fresh CSRF token each time.
    etag = f'"{hashlib.sha256(repr(shown).encode()).hexdigest()[:32]}"'
    if shown.is_open and etag in parse_etags(http.headers.get("If-None-Match", "")):
        return HttpResponse(status=304, headers={"ETag": etag})
    context = _page_context(request, shown, RetryForm(request))
    response = render(
        http, "_progress.html", context, status=200 if shown.is_open else STOP_POLLING
    )
    response.headers["ETag"] = etag
    return response


@holds_link
@does
def cancel(http: HttpRequest, request: ClassifierRequest) -> HttpResponse:
    """Stop all work on the request."""
    if not pipeline.cancel(request):
        messages.warning(http, "There was nothing left to cancel.")
    return _see(request)


@holds_link
@does
def retry(http: HttpRequest, request: ClassifierRequest) -> HttpResponse:
    """Start again after a failure, a cancel or too few pictures, with changes if there are any."""
    form = RetryForm(request, http.POST)
    startable = may_retry(request)
    if startable and not form.is_valid():
        return _request_page(http, request, form, status=400)
    if not startable or not pipeline.retry(request, **form.changes()):
        messages.warning(http, "This cannot be started again now.")
    return _see(request)


@holds_link
@takes(*READ, *WRITE)
def delete(http: HttpRequest, request: ClassifierRequest) -> HttpResponse:
    """Ask, then delete everything of the request."""
    if http.method != "POST":
        return render(http, "delete.html", {"classifier": request})
    if not pipeline.delete(request):
        messages.warning(
            http, "This could not be deleted just now; it may have been deleted before."
        )
        return _see(request)
    messages.success(
        http,
        "Everything of this request has been deleted: pictures, model, files and your address.",
    )
    return HttpResponseRedirect("/", status=303)


@holds_link
@takes(*READ)
def thumbnail(http: HttpRequest, request: ClassifierRequest, pk: int) -> HttpResponseBase:
    """A small copy of a kept picture."""
    image = ImageUrl.objects.filter(
        image_class__request=request, state=ImageState.KEPT, pk=pk
    ).first()
    path = thumbnail_of(image) if image else None
    if path is None:
        return page_not_found(http)
    # The one thing below a token that a browser may keep: the polled page shows the same pictures
    # again and again.
    headers = {"Cache-Control": "private, max-age=3600"}
    return FileResponse(path.open("rb"), content_type="image/jpeg", headers=headers)


@holds_link
@takes(*READ)
def download(http: HttpRequest, request: ClassifierRequest, kind: str) -> HttpResponseBase:
    """The latest version's file of a kind; an interrupted download goes on."""
    artifact = (
        Artifact.objects.filter(version__request=request, kind=kind)
        .order_by("-version__number")
        .first()
    )
    if artifact is None or not artifact.file.is_file():
        return page_not_found(http)
    return send_file(
        http, artifact.file, name=f"picaisso-{artifact.file_name}", sha256=artifact.sha256
    )


# --- for machines
# -----------------------------------------------------------------------------------------


@takes(*READ)
def robots(http: HttpRequest) -> HttpResponse:
    lines = ["User-agent: *", "Disallow: /r/", "Disallow: /confirm/", "Disallow: /admin/", ""]
    return HttpResponse("\n".join(lines), content_type="text/plain; charset=utf-8")


@takes(*READ)
def favicon(http: HttpRequest) -> HttpResponse:
    """Browsers ask for this path whatever the page says."""
    return redirect(static("img/favicon.svg"), permanent=False)


# --- when something is wrong
# ------------------------------------------------------------------------------


def bad_request(http: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _error(http, 400)


def permission_denied(http: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _error(http, 403)


def page_not_found(http: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _error(http, 404)


def not_allowed(http: HttpRequest, methods: Sequence[str]) -> HttpResponse:
    response = _error(http, 405)
    response.headers["Allow"] = ", ".join(methods)
    return response


def gone(http: HttpRequest) -> HttpResponse:
    return _error(http, 410)


def _error(http: HttpRequest, status: int) -> HttpResponse:
    """The error page, or its main part alone for the live part of a page, which then takes its
    place.
    """
    template = "_error.html" if http.headers.get("HX-Request") else "error.html"
    return render(
        http, template, {"status": status, "retention_days": settings.RETENTION_DAYS}, status=status
    )


def server_error(http: HttpRequest) -> HttpResponse:
    """The page for a defect of ours: it needs no database, no session and no file but its own."""
    return HttpResponse(render_to_string("500.html"), status=500)
