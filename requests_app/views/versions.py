"""The versions of a dataset: what each model reached, before and after, and their files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from requests_app import lifecycle, phrases
from requests_app.models import Artifact, ClassifierRequest, DatasetVersion, ImageState, ImageUrl
from requests_app.versions import finished_versions
from requests_app.views.access import SeeOther, require_token
from requests_app.views.gallery import actor_of
from training.earlier_metrics import completed
from training.metrics import Metrics

DIFFERENCES_SHOWN = 24


@dataclass(frozen=True)
class Difference:
    """Test pictures that one of two models alone has right."""

    title: str
    keys: tuple[int, ...]
    """Of images that are still there."""


@dataclass(frozen=True)
class VersionLine:
    """One version with its figures."""

    number: int
    made: str
    images: int
    figure_title: str
    figure: str
    counts: str
    verdict: str
    notices: tuple[str, ...]
    comparison: str
    """Before and after on the same test pictures; "" for the first."""
    differences: tuple[Difference, ...]
    artifacts: tuple[Artifact, ...]


@require_token
@require_safe
def versions(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Show all versions that have a model, the newest first."""
    lines = [version_line(version) for version in finished_versions(classifier)]
    context = {
        "classifier": classifier,
        "token": classifier.token,
        "versions": lines,
        "obstacle": lifecycle.obstacle_to_training(classifier) if lines else "",
    }
    return render(request, "versions/versions.html", context)


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def train_again(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Make the next version of the decisions and train on it; a GET only leads to the versions."""
    if request.method != "POST":
        return SeeOther(reverse("versions", args=[classifier.token]))
    obstacle = lifecycle.obstacle_to_training(classifier)
    if obstacle or not lifecycle.retrain(classifier, actor_of(request)):
        messages.warning(request, obstacle or "It has already been started.")
        return SeeOther(reverse("gallery", args=[classifier.token]))
    return SeeOther(classifier.get_absolute_url())


def version_line(version: DatasetVersion) -> VersionLine:
    """Return a version that has a model, with its figures in words."""
    metrics = cast(Metrics, completed(version.run.metrics or {}))
    comparison = version.run.comparison
    return VersionLine(
        number=version.number,
        made=version.created.isoformat(),
        images=version.images,
        figure_title=phrases.headline_title(metrics),
        figure=phrases.percent(metrics["headline"]["value"]),
        counts=phrases.headline_counts(metrics),
        verdict=phrases.verdict(metrics),
        notices=tuple(version.run.notices),
        comparison=phrases.comparison(comparison) if comparison else "",
        differences=_differences(version, comparison) if comparison else (),
        artifacts=tuple(version.artifacts.all()),
    )


def _differences(version: DatasetVersion, comparison: Mapping[str, Any]) -> tuple[Difference, ...]:
    against = comparison["against"]
    titles = {
        "mended": f"Right now, wrong in version {against}",
        "broken": f"Wrong now, right in version {against}",
    }
    images = ImageUrl.objects.of_request(version.request).exclude(state=ImageState.REJECTED)
    differences = []
    for name, title in titles.items():
        found = images.filter(file__in=comparison[name][:DIFFERENCES_SHOWN])
        keys = tuple(found.values_list("pk", flat=True))
        if keys:
            differences.append(Difference(title, keys))
    return tuple(differences)
