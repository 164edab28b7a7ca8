"""What a browser has already, by the ETags that it names."""

from django.http import HttpRequest
from django.utils.http import parse_etags


def has_already(request: HttpRequest, etag: str) -> bool:
    """Return whether `If-None-Match` names this ETag, or any.

    They are compared weakly (RFC 9110, 13.1.2): a proxy that compresses makes `W/"x"` of `"x"`.
    """
    known = parse_etags(request.headers.get("If-None-Match", ""))
    strong = etag.removeprefix("W/")
    return any(name == "*" or name.removeprefix("W/") == strong for name in known)
