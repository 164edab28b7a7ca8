"""Who asks, as far as limits need to know."""

from ipaddress import IPv6Address, ip_address

from django.conf import settings
from django.http import HttpRequest


def address_of(request: HttpRequest) -> str:
    """Return the address that a call comes from, "" where none is known.

    Each proxy appends to `X-Forwarded-For` whom it saw, and a caller may begin it with anything.
    So as many words count as there are proxies of the operator's, from the right, and without
    proxies none.
    """
    peer = str(request.META.get("REMOTE_ADDR", ""))
    seen = request.headers.get("X-Forwarded-For", "").split(",")
    count = settings.PROXY_COUNT
    if count == 0 or len(seen) < count:
        return _plain_address(peer)
    return _plain_address(seen[-count]) or _plain_address(peer)


def _plain_address(text: str) -> str:
    """Return an address in its one spelling, without a port; "" for what is no address."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)
