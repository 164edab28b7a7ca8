"""The review: a person judges the test pictures without seeing what the model said."""

from collections import Counter

from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from requests_app import curation, lifecycle, pipeline
from requests_app.models import ClassifierRequest, JobState, Judged
from requests_app.text_rules import read_keys, read_number
from requests_app.views.access import SeeOther, require_token
from requests_app.views.gallery import actor_of

MOST_SKIPPED = 500


@require_token
@require_safe
def review(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Show the next test picture to judge, or what came of it when all are judged."""
    skipped = _skipped(request.GET)
    tested = curation.test_images(classifier)
    image = curation.next_to_judge(classifier, skipped)
    following = None
    if image is not None:
        following = curation.next_to_judge(classifier, [*skipped, image.pk])
    judgements = tested.order_by().values_list("judged")
    said = Counter(dict(judgements.annotate(Count("pk"))))
    total = said.total()
    del said[""]
    others = []
    if image is not None:
        others = list(classifier.classes.exclude(pk=image.current_class.pk))
    recount = classifier.jobs.filter(stage=pipeline.RECOUNT.name).last()
    context = {
        "classifier": classifier,
        "token": classifier.token,
        "image": image,
        "following": following,
        "others": others,
        "total": total,
        "judged": said.total(),
        "right": said[Judged.RIGHT],
        "other_class": said[Judged.OTHER_CLASS],
        "off_topic": said[Judged.OFF_TOPIC],
        "skipped": len(skipped),
        "skip": ",".join(map(str, skipped)),
        "skip_this": ",".join(map(str, [*skipped, image.pk])) if image else "",
        "may_undo": _last_is_judgement(classifier),
        "recount": recount,
        "is_counting": recount and recount.state in (JobState.QUEUED, JobState.RUNNING),
    }
    return render(request, "review/review.html", context)


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def judge(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Store a judgement, or take the last one back; then show the next picture."""
    address = reverse("review", args=[classifier.token])
    if request.method != "POST":
        return SeeOther(address)
    skipped = _skipped(request.POST)
    if skipped:
        address += f"?skip={','.join(map(str, skipped))}"
    answer = request.POST.get("answer", "")
    if answer == "undo":
        if _last_is_judgement(classifier):
            curation.undo(classifier)
        return SeeOther(address)
    judged, _, number = answer.partition(":")
    keys = read_keys([request.POST.get("image", "")])
    if judged not in Judged.values or not keys:
        messages.warning(request, "Nothing was stored: choose one of the answers.")
        return SeeOther(address)
    shown = read_number(number, 2) or None
    if curation.judge(classifier, keys[0], judged, shown, actor_of(request)) is None:
        messages.warning(request, "This picture is no test picture any more; here is the next.")
    elif curation.next_to_judge(classifier) is None:
        lifecycle.count_judgements(classifier)
    return SeeOther(address)


@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def count(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    """Count the judgements so far into the figures."""
    address = reverse("review", args=[classifier.token])
    if request.method == "POST":
        if lifecycle.count_judgements(classifier):
            messages.success(request, "Your judgements are being counted: a few seconds.")
        else:
            messages.warning(request, "They are counted when the work that goes on has ended.")
    return SeeOther(address)


def _last_is_judgement(classifier: ClassifierRequest) -> bool:
    """Return whether undoing would take back a judgement, and nothing done in the gallery."""
    last = classifier.decisions.filter(undone=None).last()
    return last is not None and last.action == "judge"


def _skipped(query: QueryDict) -> list[int]:
    """Return the pictures that the person was not sure of, from the address or the form."""
    return read_keys(query.get("skip", "").split(",")[:MOST_SKIPPED])
