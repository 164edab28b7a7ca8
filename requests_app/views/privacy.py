"""What is stored: the page that says it for all, and the download that says it of one request."""

import json

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from requests_app import privacy
from requests_app.models import ClassifierRequest
from requests_app.views.access import require_token


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Say what is stored, why, and until when."""
    context = {
        "lines": privacy.STORED,
        "remains": privacy.REMAINS,
        "days": settings.RETENTION_DAYS,
        "contact": settings.CONTACT,
        "sources": settings.SOURCES,
        "confirms": settings.CONFIRM_EMAIL,
    }
    return render(request, "privacy.html", context)


@require_token
@require_safe
def stored(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Give the holder of a request's link all that is stored about it, as JSON."""
    document = privacy.stored_about(classifier)
    text = json.dumps(document, ensure_ascii=False, indent=1)
    response = HttpResponse(text, content_type="application/json")
    name = f"picaisso-request-{classifier.pk}.json"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
