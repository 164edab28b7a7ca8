"""A picture that a program sends, by address or as a file, and what the model says of it."""

import json
from typing import cast

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError
from pydantic import ValidationError

from requests_app import prediction
from requests_app.api.errors import ApiError
from requests_app.api.schemas import Address, Json
from requests_app.models import ClassifierRequest
from requests_app.prediction import Answer, Refusal, UsableModel
from requests_app.views.uploads import HeldFile, MemoryUploadHandler

RETRY_SECONDS = 10
NOTHING_GIVEN = 'Send {"url": "https://…"}, or a form with the file as "image".'
NO_JSON = "This is not JSON."


def predict_picture(
    request: HttpRequest, classifier: ClassifierRequest, usable: UsableModel
) -> Json:
    """Classify the picture of a call. Raises ApiError with what is wrong with it."""
    if not prediction.take_from_rate(classifier):
        raise ApiError(429, prediction.TOO_MANY, retry_after=60)
    if request.content_type == "multipart/form-data":
        found = prediction.classify(usable, _file(request), explained=False)
        field = "image"
    else:
        found = prediction.classify_url(usable, _address(request), explained=False)
        field = "url"
    if isinstance(found, Refusal):
        raise _refused(found, field)
    return _document(found)


def _document(found: Answer) -> Json:
    return {
        "label": found.label,
        "known": found.known,
        "probabilities": found.probabilities,
        "version": found.version,
        "elapsed_ms": found.elapsed_ms,
    }


def _refused(refusal: Refusal, field: str) -> ApiError:
    sentence = refusal.sentence
    if sentence == prediction.BUSY:
        return ApiError(503, sentence, retry_after=RETRY_SECONDS)
    if sentence == prediction.TOO_LARGE:
        return ApiError(413, sentence, {field: sentence})
    return ApiError(400, sentence, {field: sentence})


def _address(request: HttpRequest) -> str:
    try:
        wish = Address.model_validate(json.loads(request.body))
    except RequestDataTooBig as error:
        raise ApiError(413) from error
    except ValidationError as error:
        raise ApiError(400, NOTHING_GIVEN, {"url": error.errors()[0]["msg"]}) from error
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"{NO_JSON} {NOTHING_GIVEN}") from error
    return wish.url


def _file(request: HttpRequest) -> bytes:
    request.upload_handlers = [MemoryUploadHandler(request)]
    try:
        file = cast(HeldFile | None, request.FILES.get("image"))
    except (MultiPartParserError, SuspiciousOperation) as error:
        raise ApiError(400, NOTHING_GIVEN) from error
    if file is None:
        raise ApiError(400, NOTHING_GIVEN, {"image": NOTHING_GIVEN})
    if file.problem:
        raise ApiError(413, file.problem, {"image": file.problem})
    return file.read()
