"""The shared result: what somebody sees who was given the second link."""

from pathlib import Path
from typing import cast

from django.contrib import messages
from django.contrib.staticfiles import finders
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.templatetags.static import static
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from requests_app import phrases, sharing, versions
from requests_app.delivery.attribution import credit
from requests_app.models import ClassifierRequest
from requests_app.views.access import SeeOther, require_share_token, require_token
from requests_app.views.errors import page_not_found
from requests_app.views.files import thumbnail_response
from requests_app.views.gallery import actor_of
from requests_app.views.versions import version_line
from scraping.sources.terms import TERMS
from training.earlier_metrics import completed
from training.metrics import Metrics

CREDITS_PER_PAGE = 500
SHOWN = 12  # pictures


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def switch(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Show whether the result is shared; make the link for others, or revoke it."""
    if request.method != "POST":
        context = {
            "classifier": classifier,
            "token": classifier.token,
            "has_model": bool(versions.finished_versions(classifier)),
        }
        return render(request, "share/switch.html", context)
    actor = actor_of(request)
    if request.POST.get("share") == "off":
        sharing.switch_off(classifier, actor)
        messages.success(request, "The link for others does not work any more.")
    elif sharing.switch_on(classifier, actor):
        messages.success(request, "Whoever has the new link can see the result.")
    return SeeOther(reverse("share", args=[classifier.token]))


@require_share_token
@require_safe
def shared(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Show the result of the newest version."""
    version = versions.finished_versions(classifier)[0]
    images = sharing.open_images(classifier).order_by("image_class__number", "pk")
    context = {
        "classifier": classifier,
        "token": classifier.share_token,
        "address": classifier.share_url,
        "version": version_line(version),
        "images": images[:SHOWN],
        "pictures": sharing.credited_images(classifier).count(),
    }
    return render(request, "share/shared.html", context)


@require_share_token
@require_safe
def credits(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Name author, licence and place of every picture of the dataset."""
    images = sharing.credited_images(classifier).order_by("image_class__number", "pk")
    page = Paginator(images, CREDITS_PER_PAGE).get_page(request.GET.get("page"))
    lines = [(image.current_class.name, credit(image)) for image in page]
    sources = images.order_by("source").values_list("source", flat=True).distinct()
    context = {
        "classifier": classifier,
        "token": classifier.share_token,
        "page": page,
        "lines": lines,
        "terms": [(phrases.source_title(name), TERMS[name]) for name in sources if name in TERMS],
    }
    return render(request, "share/credits.html", context)


@require_share_token
@require_safe
def card(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Send the picture that a link preview shows."""
    run = versions.finished_versions(classifier)[0].run
    metrics = cast(Metrics, completed(run.metrics or {}))
    content = sharing.social_card(classifier, metrics)
    headers = {"Cache-Control": "private, max-age=3600"}
    return HttpResponse(content, content_type="image/png", headers=headers)


@require_share_token
@require_safe
def thumbnail(request: HttpRequest, classifier: ClassifierRequest, pk: int) -> HttpResponseBase:
    """Send a small copy of an image whose licence is known."""
    image = sharing.open_images(classifier).filter(pk=pk).first()
    response = None if image is None else thumbnail_response(image)
    return response or page_not_found(request)


@require_share_token
@require_safe
def manifest(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Describe the shared result as an app, so that it can be installed."""
    names = ", ".join(image_class.name for image_class in classifier.classes.all())
    home = reverse("shared", args=[classifier.share_token])
    described = {
        "name": f"{names} · Picaisso",
        "short_name": names[:30],
        "start_url": home,
        "scope": home,
        "display": "standalone",
        "background_color": "#f6f5f1",
        "theme_color": "#3448c5",
        "icons": [{"src": static("img/favicon.svg"), "sizes": "any", "type": "image/svg+xml"}],
    }
    return JsonResponse(described, content_type="application/manifest+json")


@require_share_token
@require_safe
def worker(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Send the service worker: from here, because it may serve only what lies below its address."""
    path = Path(str(finders.find("js/share_worker.js")))
    headers = {"Cache-Control": "no-cache"}
    return HttpResponse(
        path.read_bytes(), content_type="text/javascript; charset=utf-8", headers=headers
    )
