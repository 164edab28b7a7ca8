"""The one gate: everything below ``/r/<token>/`` goes through ``require_token``."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase

from requests_app.limits import LimitReached
from requests_app.models import ClassifierRequest, Status
from requests_app.views.errors import gone, page_not_found, too_much
from training import log_lines

View = Callable[..., HttpResponseBase]

# The address is the permission: no cache keeps such a page, no search engine lists it, and no
# other site is told its address.
PRIVATE_HEADERS = {
    "Cache-Control": "private, no-store",
    "X-Robots-Tag": "noindex, nofollow",
    "Referrer-Policy": "no-referrer",
}


class SeeOther(HttpResponseRedirect):
    """A redirect after a POST: the browser GETs the other page."""

    status_code = 303


def require_token(view: View) -> View:
    """Call the view with the request that the token in the address opens.

    A stranger gets the 404 page, and a link whose request has expired or was deleted a 410. The
    decorator stands above those for methods, so that a stranger never sees a 405.
    """
    return _gated(view, ClassifierRequest.objects.by_token)


def require_share_token(view: View) -> View:
    """Call the view with the request whose shared result the token in the address shows.

    A stranger, and whoever has a link that was revoked, gets the 404 page. Such a view reads only.
    """
    return _gated(view, ClassifierRequest.objects.by_share_token)


def _gated(view: View, opened_by: Callable[[str], ClassifierRequest | None]) -> View:
    @wraps(view)
    def gated(request: HttpRequest, token: str, **parameters: Any) -> HttpResponseBase:
        classifier = opened_by(token)
        if classifier is not None:
            log_lines.add_about(request=classifier.pk)
        if classifier is None:
            response: HttpResponseBase = page_not_found(request)
        elif classifier.status == Status.EXPIRED:
            response = gone(request)
        else:
            try:
                response = view(request, classifier, **parameters)
            except LimitReached as error:
                response = too_much(request, error)
        return make_private(response)

    return gated


def make_private(response: HttpResponseBase) -> HttpResponseBase:
    """Add the headers of a page whose address is the permission; a view's own headers win."""
    for name, value in PRIVATE_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
