"""Every error of the API in one envelope: `{"error": {"code", "message", "fields"}}`."""

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, Throttled, ValidationError

from requests_app.limits import LimitReached

NEW_REQUESTS = ("/requests", "/with-pictures")
BODY = ("body", "query", "path", "payload", "wishes")  # of a place in a request, no field's name
CODES = {
    400: "invalid",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "wrong_state",
    410: "gone",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}
MESSAGES = {
    400: "The request could not be read.",
    403: "This is not allowed.",
    404: "There is nothing at this address. Check the id: it is the part after /r/ of your link.",
    405: "This address does not take that method.",
    409: "This cannot be done in the state that the request is in.",
    410: "This request has expired or was deleted.",
    413: "What was sent is too large.",
    415: "Send JSON, with the header Content-Type: application/json.",
    429: "Too many requests. Wait for the seconds that the header Retry-After says.",
    500: "Something went wrong on our side. Try again later.",
    503: "This site is busy. Try again later.",
}
Fields = Mapping[str, str]


class ApiError(Exception):
    """What ends a call with an error."""

    def __init__(
        self,
        status: int,
        message: str = "",
        fields: Fields | None = None,
        *,
        code: str = "",
        retry_after: int | None = None,
    ) -> None:
        """:param fields: a sentence for each field that is wrong, by its name"""
        super().__init__(message)
        self.status = status
        self.message = message or MESSAGES[status]
        self.fields = dict(fields or {})
        self.code = code or CODES[status]
        self.retry_after = retry_after


def error_response(error: ApiError) -> HttpResponse:
    """Return the answer that tells an error."""
    content = {"code": error.code, "message": error.message, "fields": error.fields}
    response = JsonResponse({"error": content}, status=error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def handle_errors(api: NinjaAPI) -> None:
    """Have all that can be raised below this API answered in the envelope."""

    @api.exception_handler(ApiError)
    def known(request: HttpRequest, error: ApiError) -> HttpResponse:
        return error_response(error)

    @api.exception_handler(LimitReached)
    def limited(request: HttpRequest, error: LimitReached) -> HttpResponse:
        fields = {"email": error.sentence} if request.path.endswith(NEW_REQUESTS) else {}
        answer = ApiError(error.status, error.sentence, fields, retry_after=error.retry_after)
        return error_response(answer)

    @api.exception_handler(ValidationError)
    def invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
        fields = {}
        for problem in error.errors:
            fields[_field_of(problem["loc"])] = str(problem["msg"])
        return error_response(ApiError(400, message_of(fields), fields))

    @api.exception_handler(RequestDataTooBig)
    def too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
        return error_response(ApiError(413))

    @api.exception_handler(Throttled)
    def throttled(request: HttpRequest, error: Throttled) -> HttpResponse:
        seconds = int(error.wait or 1) + 1
        return error_response(ApiError(429, retry_after=seconds))

    @api.exception_handler(HttpError)
    def failed(request: HttpRequest, error: HttpError) -> HttpResponse:
        return error_response(ApiError(error.status_code))


def _field_of(place: tuple[Any, ...]) -> str:
    parts = [str(part) for part in place if part not in BODY]
    return ".".join(parts)


def message_of(fields: Fields) -> str:
    """Return one sentence about the fields that are wrong."""
    if not fields or list(fields) == [""]:
        return MESSAGES[400]
    name, sentence = next(iter(fields.items()))
    return f"{name}: {sentence}"
