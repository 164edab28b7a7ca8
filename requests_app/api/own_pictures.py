"""A new request with pictures and addresses that a program brings along, as a form of parts."""

import hashlib
import json
from pathlib import Path
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError
from pydantic import ValidationError

from requests_app import supplied
from requests_app.api.errors import ApiError, message_of
from requests_app.api.schemas import Json, RequestWithPictures
from requests_app.forms import MAX_CLASSES
from requests_app.views.uploads import DiskUploadHandler, hold_files

FIELDS = tuple(supplied.FILES)
NOTHING_GIVEN = (
    'Send a form with the part "request", JSON as POST /requests takes it, and the files as'
    ' "pictures" (a zip) and "addresses" (a CSV).'
)
BODY: Json = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "request": {"type": "string", "contentMediaType": "application/json"},
                        "pictures": {"type": "string", "format": "binary"},
                        "addresses": {"type": "string", "format": "binary"},
                    },
                    "required": ["request"],
                }
            }
        },
    }
}


def read_form(request: HttpRequest) -> tuple[RequestWithPictures, supplied.Draft, str]:
    """Return the wishes, the files, and a digest of both.

    Classes that are not named are those that folders and labels name. Raises ApiError with what is
    wrong.
    """
    handler = DiskUploadHandler(request, FIELDS)
    request.upload_handlers = [handler]
    try:
        text = request.POST.get("request", "")
        files = list(request.FILES.items())
    except (MultiPartParserError, SuspiciousOperation) as error:
        raise ApiError(400, NOTHING_GIVEN) from error
    if handler.problems:
        raise _not_taken(handler.problems)
    values = _values(text)
    draft = hold_files(files, None)
    if draft is None:
        raise ApiError(400, NOTHING_GIVEN, dict.fromkeys(FIELDS[:1], NOTHING_GIVEN))
    try:
        if not values.get("classes"):
            values["classes"] = _named_classes(draft)
        wishes = RequestWithPictures.model_validate(values)
    except ValidationError as error:
        supplied.forget(draft)
        fields = {}
        for problem in error.errors():
            fields[".".join(map(str, problem["loc"]))] = problem["msg"]
        raise ApiError(400, message_of(fields), fields) from error
    return wishes, draft, _digest(text, draft)


def _not_taken(problems: dict[str, str]) -> ApiError:
    """Return the error that says why files were not taken, by their part."""
    if supplied.FULL in problems.values():
        return ApiError(503, supplied.FULL, retry_after=600)
    status = 413 if supplied.TOO_LARGE in problems.values() else 400
    return ApiError(status, message_of(problems), problems)


def _values(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, NOTHING_GIVEN, {"request": NOTHING_GIVEN}) from error
    if not isinstance(values, dict):
        raise ApiError(400, NOTHING_GIVEN, {"request": NOTHING_GIVEN})
    return values


def _named_classes(draft: supplied.Draft) -> list[str]:
    names, problems = supplied.class_names(draft, MAX_CLASSES)
    if problems:
        supplied.forget(draft)
        raise ApiError(400, message_of(problems), problems)
    return names


def _digest(text: str, draft: supplied.Draft) -> str:
    """Return a digest of all that was sent, by which a repeated call is known."""
    whole = hashlib.sha256(text.encode(errors="replace"))
    for kind in FIELDS:
        path = draft.path(kind)
        if path:
            with Path(path).open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
