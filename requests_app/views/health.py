"""`/healthz`: whether the site is well, for what watches it from outside."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from requests_app import health


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """Answer 200, or 503 with a sentence for each of database, workers, disk and mail."""
    wrong = health.problems()
    answer = {"healthy": not wrong, "wrong": wrong}
    return JsonResponse(answer, status=503 if wrong else 200)
