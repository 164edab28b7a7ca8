"""`Idempotency-Key`: a POST that is sent again, because its answer was lost, is done once."""

from collections.abc import Callable
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils import timezone

from requests_app.api.errors import ApiError
from requests_app.models import ClassifierRequest, IdempotencyKey, sha256_hex
from requests_app.visitors import address_of

KEPT = timedelta(days=1)
FEWEST_CHARACTERS = 16  # what is short is guessed, and the answer has a link in it
MOST_CHARACTERS = 255
REUSED = "This Idempotency-Key was used for something else. Make a new one for each new wish."
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
    IdempotencyKey.objects.filter(created__lt=timezone.now() - KEPT).delete()
    scope = sha256_hex("\n".join((address_of(request), request.path, key)))
    if wished is None:
        wished = request.body.decode(errors="replace")
    wish = sha256_hex(wished)
    try:
        with transaction.atomic():
            row = IdempotencyKey(key_sha256=scope, wish_sha256=wish)
            row.save(force_insert=True)
            row.request = act()
            row.save(update_fields=["request"])
            return row.request
    except IntegrityError:
        return _done_before(scope, wish)


def _done_before(scope: str, wish: str) -> ClassifierRequest:
    row = IdempotencyKey.objects.filter(key_sha256=scope).select_related("request").first()
    if row is None or row.request is None:
        raise ApiError(503, "The same call is being answered. Try again in a moment.")
    if row.wish_sha256 != wish:
        raise ApiError(409, REUSED, code="idempotency_key_reused")
    return row.request
