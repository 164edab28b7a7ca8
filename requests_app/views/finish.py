"""The action that ends work early with what there is, and what the page says of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_http_methods

from requests_app import lifecycle, pipeline
from requests_app.models import ClassifierRequest, Job, JobState
from requests_app.views.access import SeeOther, require_token

STOP_COLLECTING = "Stop collecting and train with what is there"
STOP_TRAINING = "Stop and keep the best so far"
COLLECTING_ENDS = "Collecting ends now; training begins with the pictures that are there."
TRAINING_ENDS = "Fine-tuning ends now; the best so far is measured and delivered."


@dataclass(frozen=True)
class Finish:
    """What is offered, or said where it was asked for or cannot be done yet."""

    button: str = ""
    note: str = ""


def finish_of(
    classifier: ClassifierRequest, job: Job | None, kept: Mapping[str, int]
) -> Finish | None:
    """Return what a page offers; None where nothing can be ended early.

    :param job: the one that is queued or running
    :param kept: how many pictures each class has, by name
    """
    if job is None or job.state != JobState.RUNNING or not classifier.is_open:
        return None
    is_collecting = job.stage == pipeline.COLLECT.name
    is_fine_tuning = job.progress.get("stage") == "finetune"
    if not is_collecting and not (job.stage == pipeline.TRAIN.name and is_fine_tuning):
        return None
    if job.finish_requested:
        return Finish(note=COLLECTING_ENDS if is_collecting else TRAINING_ENDS)
    if not is_collecting:
        return Finish(STOP_TRAINING)
    obstacle = lifecycle.too_few_to_finish(classifier, kept)
    return Finish(note=obstacle) if obstacle else Finish(STOP_COLLECTING)


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def finish(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """End the work under way with what there is. A GET only leads to the request's page."""
    if request.method == "POST":
        obstacle = lifecycle.obstacle_to_finishing(classifier)
        if not lifecycle.finish(classifier):
            messages.warning(request, obstacle)
    return SeeOther(classifier.get_absolute_url())
