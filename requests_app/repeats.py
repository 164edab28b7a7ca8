"""What is sent twice, because an answer was lost or a button was pressed again, is done once."""

from collections.abc import Callable
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from requests_app.models import ClassifierRequest, IdempotencyKey

KEPT = timedelta(days=1)


class OtherWish(Exception):
    """The same key came with another wish before."""


class StillAtIt(Exception):
    """The same wish is being done at this moment."""


def once(scope: str, wish: str, act: Callable[[], ClassifierRequest]) -> ClassifierRequest:
    """Act, unless that was done before; return the request it is about.

    :param scope: digest of who asks and of the key that makes two calls the same
    :param wish: digest of what is asked for

    What fails leaves no trace, so that it can be tried again with the same key.

    :raises OtherWish: the key was used for another wish
    :raises StillAtIt: it is not known yet what comes of the first call
    """
    forget_old()
    try:
        with transaction.atomic():
            row = IdempotencyKey(key_sha256=scope, wish_sha256=wish)
            row.save(force_insert=True)
            row.request = act()
            row.save(update_fields=["request"])
            return row.request
    except IntegrityError:
        found = done_before(scope, wish)
        if found is None:
            raise StillAtIt from None
        return found


def done_before(scope: str, wish: str) -> ClassifierRequest | None:
    """Return the request that came of the same call, None where there was none.

    :raises OtherWish: the key was used for another wish
    """
    row = IdempotencyKey.objects.filter(key_sha256=scope).select_related("request").first()
    if row is None or row.request is None:
        return None
    if row.wish_sha256 != wish:
        raise OtherWish
    return row.request


def forget_old() -> None:
    """Delete the keys that are older than they count."""
    IdempotencyKey.objects.filter(created__lt=timezone.now() - KEPT).delete()
