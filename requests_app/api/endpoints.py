"""The calls of the API, below `/api/v1/`. A request's id is its token: who knows it may do all."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from django.core.paginator import Paginator
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from ninja import NinjaAPI, Query, Status, Swagger
from ninja.throttling import AnonRateThrottle

from requests_app import curation, lifecycle, pipeline, prediction, sharing, supplied
from requests_app.api import documents, own_pictures, wishes
from requests_app.api.errors import ApiError, handle_errors
from requests_app.api.idempotency import once
from requests_app.api.pictures import predict_picture
from requests_app.api.schemas import (
    ErrorEnvelope,
    ImageItem,
    ImagePage,
    ImageWish,
    Json,
    NewRequest,
    Prediction,
    RequestState,
    RetryWishes,
    ShareLink,
    StateOfImage,
    VersionList,
    VersionState,
)
from requests_app.digests import network_of
from requests_app.models import ClassifierRequest, DatasetVersion, ImageClass, ImageState, ImageUrl
from requests_app.models import Status as RequestStatus
from requests_app.versions import finished_versions
from requests_app.views.etags import has_already
from requests_app.views.model import REPORT_POLICY
from requests_app.visitors import address_of
from training import log_lines

ACTOR = "person"  # whoever has the link
PER_PAGE = 100
WAIT_MOST_SECONDS = 60
WAIT_STEP_SECONDS = 0.5
WAITING_MOST = 16  # calls of one process that wait; others are answered at once
_waiting = threading.BoundedSemaphore(WAITING_MOST)

DESCRIPTION = (
    "From class names to a cleaned image dataset and a measured image classifier. A request is"
    " confirmed by the link in a mail before work starts. Its `id` is the permission: whoever knows"
    " it may read and change it. Every error is"
    ' `{"error": {"code", "message", "fields"}}`.'
)


class Throttle(AnonRateThrottle):
    """Counts the calls of one network, as ``limits`` knows it; there requests are counted too."""

    def get_ident(self, request: HttpRequest) -> str:
        return network_of(address_of(request))


READS = Throttle("600/m")
CHANGES = Throttle("60/m")
CHANGES.scope = "changes"
ERRORS = dict.fromkeys((400, 404, 409, 410, 413, 415, 429, 503), ErrorEnvelope)

api = NinjaAPI(
    title="Picaisso",
    version="1",
    description=DESCRIPTION,
    urls_namespace="api-v1",
    docs=Swagger(),
    throttle=READS,
)
handle_errors(api)


def opened(token: str) -> ClassifierRequest:
    """Return the request of this id. Raises ApiError 404, or 410 for one that is gone."""
    classifier = ClassifierRequest.objects.by_token(token)
    if classifier is None:
        raise ApiError(404)
    log_lines.add_about(request=classifier.pk)
    if classifier.status == RequestStatus.EXPIRED:
        raise ApiError(410)
    return classifier


def answer(classifier: ClassifierRequest) -> Json:
    """Return a request as it is now."""
    classifier.refresh_from_db()
    return documents.request_document(classifier)


# --- requests ---


@api.post(
    "/requests",
    operation_id="create",
    tags=["Requests"],
    response={201: RequestState, **ERRORS},
    throttle=CHANGES,
    by_alias=True,
    summary="Ask for a dataset and a classifier",
)
def create(request: HttpRequest, response: HttpResponse, payload: NewRequest) -> Status[Json]:
    """Make a request; work starts when the link in the mail to `email` was opened.

    With an `Idempotency-Key` (16 characters or more, kept for a day) the same call makes one.
    """
    submission = wishes.submission_of(payload, visitor=address_of(request))
    classifier = once(request, lambda: pipeline.submit(submission))
    location = reverse("api-v1:show", args=[classifier.token])
    response.headers["Location"] = documents.absolute(location)
    return Status(201, answer(classifier))


@api.post(
    "/requests/with-pictures",
    operation_id="create_with_pictures",
    tags=["Requests"],
    response={201: RequestState, **ERRORS},
    throttle=CHANGES,
    by_alias=True,
    openapi_extra=own_pictures.BODY,
    summary="Ask, and bring pictures of your own",
)
def create_with_pictures(request: HttpRequest, response: HttpResponse) -> Status[Json]:
    """Make a request with a zip (a folder per class) or a CSV (url, label), up to 200 MB each.

    `request` is JSON as the call without pictures takes it. Where it names no `classes`, folders
    and labels do. With `own_as_test` the pictures are the test set, with `own_alone` nothing is
    searched.
    """
    wishes_sent, draft, digest = own_pictures.read_form(request)
    try:
        submission = wishes.submission_of(wishes_sent, draft, visitor=address_of(request))
        classifier = once(request, lambda: pipeline.submit(submission), digest)
    finally:
        supplied.forget(draft)  # unless it belongs to the request now
    location = reverse("api-v1:show", args=[classifier.token])
    response.headers["Location"] = documents.absolute(location)
    return Status(201, answer(classifier))


@api.get(
    "/requests/{token}",
    operation_id="show",
    tags=["Requests"],
    response={200: RequestState, **ERRORS},
    by_alias=True,
    url_name="show",
    summary="See how far it is",
)
def show(
    request: HttpRequest,
    response: HttpResponse,
    token: str,
    wait: Annotated[int, Query(ge=0, le=WAIT_MOST_SECONDS)] = 0,
) -> Json:
    """Show a request. With `wait` the answer comes when something changes, or after these seconds.

    What has changed is told from the answer whose ETag is in `If-None-Match`, else from now.
    """
    classifier = opened(token)
    document = documents.request_document(classifier)
    tells = "If-None-Match" in request.headers
    if wait and (not tells or has_already(request, _etag(document))):
        document = _changed(classifier, document, wait)
    response.headers["ETag"] = _etag(document)
    return document


def _etag(document: Json) -> str:
    text = json.dumps(document, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'"{digest[:32]}"'


def _changed(classifier: ClassifierRequest, document: Json, seconds: int) -> Json:
    """Return the document once it differs, or when the time is over or nothing will change."""
    if not _waiting.acquire(blocking=False):
        return document
    try:
        end = time.monotonic() + seconds
        now = document
        while now == document and classifier.is_open and time.monotonic() < end:
            time.sleep(WAIT_STEP_SECONDS)
            classifier = opened(classifier.token)
            now = documents.request_document(classifier)
        return now
    finally:
        _waiting.release()


@api.delete(
    "/requests/{token}",
    operation_id="delete",
    tags=["Requests"],
    response={204: None, **ERRORS},
    throttle=CHANGES,
    summary="Delete everything of a request",
)
def delete(request: HttpRequest, token: str) -> Status[None]:
    """Delete pictures, model, files and the address. Afterwards the id answers 410."""
    if not lifecycle.delete(opened(token)):
        raise ApiError(410)
    return Status(204, None)


def _act(
    request: HttpRequest, token: str, act: Callable[[ClassifierRequest], bool], refusal: str
) -> Status[Json]:
    """Do what moves a request. Raises ApiError 409 with this sentence where it cannot be done."""
    classifier = opened(token)

    def done() -> ClassifierRequest:
        if not act(classifier):
            raise ApiError(409, refusal)
        return classifier

    return Status(202, answer(once(request, done)))


@api.post(
    "/requests/{token}/cancel",
    operation_id="cancel",
    tags=["Requests"],
    response={202: RequestState, **ERRORS},
    throttle=CHANGES,
    by_alias=True,
    summary="Stop all work",
)
def cancel(request: HttpRequest, token: str) -> Status[Json]:
    """Stop; what was collected stays for a retry, what was delivered stays delivered."""
    return _act(request, token, lifecycle.cancel, "There is nothing left to cancel.")


@api.post(
    "/requests/{token}/finish",
    operation_id="finish",
    tags=["Requests"],
    response={202: RequestState, **ERRORS},
    throttle=CHANGES,
    by_alias=True,
    summary="Stop and keep the best so far",
)
def finish(request: HttpRequest, token: str) -> Status[Json]:
    """End the collection with the pictures that are there, or fine-tuning with the best so far."""
    obstacle = lifecycle.obstacle_to_finishing(opened(token))
    return _act(request, token, lifecycle.finish, obstacle)


@api.post(
    "/requests/{token}/retrain",
    operation_id="retrain",
    tags=["Requests"],
    response={202: RequestState, **ERRORS},
    throttle=CHANGES,
    by_alias=True,
    summary="Train again on the corrected pictures",
)
def retrain(request: HttpRequest, token: str) -> Status[Json]:
    """Make the next version of the decisions; the versions before stay as they are."""
    obstacle = lifecycle.obstacle_to_training(opened(token))
    return _act(request, token, lifecycle.retrain, obstacle)


@api.post(
    "/requests/{token}/retry",
    operation_id="retry",
    tags=["Requests"],
    response={202: RequestState, **ERRORS},
    throttle=CHANGES,
    by_alias=True,
    summary="Go on after a stop",
)
def retry(request: HttpRequest, token: str, payload: RetryWishes | None = None) -> Status[Json]:
    """Go on after a failure, a cancel or too few pictures, with changes if there are any."""
    classifier = opened(token)
    wished = payload or RetryWishes.model_validate({})
    changes = wishes.retry_of(classifier, wished)
    numbers = [row.number for row in classifier.classes.all() if row.name in wished.leave_out]

    def go_on(stopped: ClassifierRequest) -> bool:
        if not numbers:
            return lifecycle.retry(stopped, **changes)
        return lifecycle.leave_out(stopped, numbers)

    return _act(request, token, go_on, "This can be started again when it has stopped.")


# --- pictures ---


def _class_named(classifier: ClassifierRequest, name: str) -> ImageClass | None:
    """Return the class of this name; compared here, as some databases take "é" for "e"."""
    for image_class in classifier.classes.all():
        if image_class.name == name:
            return image_class
    return None


@api.get(
    "/requests/{token}/images",
    operation_id="images",
    tags=["Pictures"],
    response={200: ImagePage, **ERRORS},
    by_alias=True,
    summary="Look through the pictures",
)
def images(
    request: HttpRequest,
    token: str,
    class_name: Annotated[str | None, Query(alias="class")] = None,
    state: StateOfImage | None = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Json:
    """List pictures, a hundred a page, in the order of the gallery."""
    classifier = opened(token)
    found = ImageUrl.objects.of_request(classifier)
    if class_name is not None:
        image_class = _class_named(classifier, class_name)
        if image_class is None:
            sentence = wishes.NO_CLASS.format(name=class_name)
            raise ApiError(400, sentence, {"class": sentence})
        found = found.of_class(image_class)
    if state is not None:
        found = found.filter(state=state)
    ordered = found.order_by("image_class__number", "rank", "pk")
    paginator = Paginator(ordered, PER_PAGE)
    rows = paginator.page(page) if page <= paginator.num_pages else ()
    items = [documents.image_document(classifier, row) for row in rows]
    return {"count": paginator.count, "page": page, "pages": paginator.num_pages, "items": items}


@api.patch(
    "/requests/{token}/images/{image_id}",
    operation_id="change_image",
    tags=["Pictures"],
    response={200: ImageItem, **ERRORS},
    throttle=CHANGES,
    by_alias=True,
    summary="Remove, take back or relabel a picture",
)
def change_image(request: HttpRequest, token: str, image_id: int, payload: ImageWish) -> Json:
    """Decide about one picture; it counts in the next version, and can be undone on the page."""
    classifier = opened(token)
    kept = ImageUrl.objects.of_request(classifier)
    image = kept.filter(pk=image_id).first()
    if image is None:
        raise ApiError(404, "This request has no such picture.")
    if image.state == ImageState.REJECTED:
        raise ApiError(409, "This picture was left out, and is not kept here.")
    if payload.class_name is not None:
        image_class = _class_named(classifier, payload.class_name)
        if image_class is None:
            sentence = wishes.NO_CLASS.format(name=payload.class_name)
            raise ApiError(400, sentence, {"class": sentence})
        curation.relabel(classifier, [image.pk], image_class.number, ACTOR)
    if payload.state == ImageState.REMOVED:
        curation.remove(classifier, [image.pk], ACTOR)
    elif payload.state == ImageState.KEPT:
        curation.restore(classifier, [image.pk], ACTOR)
    return documents.image_document(classifier, kept.get(pk=image.pk))


# --- model ---

PICTURE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"url": {"type": "string"}},
                    "required": ["url"],
                    "additionalProperties": False,
                },
                "example": {"url": "https://example.org/picture.jpg"},
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "string", "format": "binary"}},
                    "required": ["image"],
                }
            },
        },
    }
}


@api.post(
    "/requests/{token}/predict",
    operation_id="predict",
    tags=["Model"],
    response={200: Prediction, **ERRORS},
    openapi_extra=PICTURE_BODY,
    summary="Classify a picture",
)
def predict(
    request: HttpRequest,
    token: str,
    version: Annotated[int | None, Query(ge=1, le=1_000_000)] = None,
) -> Json:
    """Classify a picture by address or upload, with the newest model or that of a version.

    `known` is false where the picture looks like none of the classes. No picture is kept.
    """
    classifier = opened(token)
    if version is None:
        usable = prediction.usable_model(classifier)
    else:
        usable = prediction.model_of_version(classifier, version)
    if usable is None:
        raise ApiError(409, "There is no model yet.")
    return predict_picture(request, classifier, prediction.calibrated(usable))


@api.get(
    "/requests/{token}/versions",
    operation_id="versions",
    tags=["Model"],
    response={200: VersionList, **ERRORS},
    by_alias=True,
    summary="Compare the versions",
)
def versions(request: HttpRequest, token: str) -> Json:
    """List the versions that have a model, with before and after on the same test pictures."""
    return documents.versions_document(opened(token))


@api.get(
    "/requests/{token}/versions/{number}",
    operation_id="version",
    tags=["Model"],
    response={200: VersionState, **ERRORS},
    by_alias=True,
    summary="See one version",
)
def version(request: HttpRequest, token: str, number: int) -> Json:
    """Show a version that has a model."""
    classifier = opened(token)
    return documents.version_document(classifier, _version(classifier, number))


@api.get(
    "/requests/{token}/versions/{number}/report",
    operation_id="report",
    tags=["Model"],
    response={200: None, **ERRORS},
    url_name="report",
    summary="Read the report of a version",
)
def report(request: HttpRequest, token: str, number: int) -> HttpResponseBase:
    """Send the report, one HTML file that needs nothing else."""
    classifier = opened(token)
    path = _version(classifier, number).folder / "model" / "report.html"
    if not path.is_file():
        raise ApiError(404, "This version has no report.")
    headers = {"Content-Security-Policy": REPORT_POLICY}
    return FileResponse(path.open("rb"), content_type="text/html; charset=utf-8", headers=headers)


def _version(classifier: ClassifierRequest, number: int) -> DatasetVersion:
    for found in finished_versions(classifier):
        if found.number == number:
            return found
    raise ApiError(404, "This request has no such version with a model.")


# --- the link for others ---


@api.get(
    "/requests/{token}/share",
    operation_id="share",
    tags=["Link for others"],
    response={200: ShareLink, **ERRORS},
    summary="Read the link for others",
)
def share(request: HttpRequest, token: str) -> Json:
    """Say the link that shows the result and can change nothing, if it is switched on."""
    return {"url": opened(token).share_url or None}


@api.post(
    "/requests/{token}/share",
    operation_id="share_on",
    tags=["Link for others"],
    response={201: ShareLink, **ERRORS},
    throttle=CHANGES,
    summary="Make the link for others",
)
def share_on(request: HttpRequest, token: str) -> Status[Json]:
    """Make the link; where there is one already, it stays the same."""
    classifier = opened(token)
    if not sharing.switch_on(classifier, ACTOR):
        classifier.refresh_from_db()
    if not classifier.share_url:
        raise ApiError(409, "There is nothing to share yet.")
    return Status(201, {"url": classifier.share_url})


@api.delete(
    "/requests/{token}/share",
    operation_id="share_off",
    tags=["Link for others"],
    response={204: None, **ERRORS},
    throttle=CHANGES,
    summary="Revoke the link for others",
)
def share_off(request: HttpRequest, token: str) -> Status[None]:
    """Revoke the link, for good."""
    sharing.switch_off(opened(token), ACTOR)
    return Status(204, None)


@api.get("/{path:rest}", include_in_schema=False)
def nothing(request: HttpRequest, rest: str) -> Mapping[str, Any]:
    """Answer every other address."""
    raise ApiError(404)
