"""Who asks, as far as limits need to know."""

from django.conf import settings
from django.http import HttpRequest


def address_of(request: HttpRequest) -> str:
    """Return the address that a call comes from, by the proxy's word where there is one."""
    address = str(request.META.get("REMOTE_ADDR", ""))
    if settings.SECURE_PROXY_SSL_HEADER is None:
        return address
    forwarded = request.headers.get("X-Forwarded-For", address)
    return forwarded.rpartition(",")[2].strip()
