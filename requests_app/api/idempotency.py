"""`Idempotency-Key`: a POST that is sent again, because its answer was lost, is done once."""

from collections.abc import Callable

from django.http import HttpRequest

from requests_app import repeats
from requests_app.api.errors import ApiError
from requests_app.models import ClassifierRequest, sha256_hex
from requests_app.visitors import address_of

FEWEST_CHARACTERS = 16  # what is short is guessed, and the answer has a link in it
MOST_CHARACTERS = 255
REUSED = "This Idempotency-Key was used for something else. Make a new one for each new wish."
STILL_AT_IT = "The same call is being answered. Try again in a moment."
FIELD = "Idempotency-Key"


def once(
    request: HttpRequest, act: Callable[[], ClassifierRequest], wished: str | None = None
) -> ClassifierRequest:
    """Act, unless this caller has had it done with the same key; return the request it is about.

    :param wished: what is asked for, where that is not the body as it was sent

    A call that fails leaves no trace, so that it can be tried again with the same key. Raises
    ApiError 400 for a key that is none, 409 for one that came with another wish.
    """
    key = request.headers.get(FIELD)
    if key is None:
        return act()
    if not FEWEST_CHARACTERS <= len(key) <= MOST_CHARACTERS:
        sentence = f"A key has {FEWEST_CHARACTERS} to {MOST_CHARACTERS} characters, as a UUID has."
        raise ApiError(400, sentence, {FIELD: sentence})
    scope = sha256_hex("\n".join((address_of(request), request.path, key)))
    if wished is None:
        wished = request.body.decode(errors="replace")
    try:
        return repeats.once(scope, sha256_hex(wished), act)
    except repeats.OtherWish as error:
        raise ApiError(409, REUSED, code="idempotency_key_reused") from error
    except repeats.StillAtIt as error:
        raise ApiError(503, STILL_AT_IT) from error
