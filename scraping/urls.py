"""What can be said of a URL without fetching it: its normalized form, its digest, its origin."""

import hashlib
import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from yarl import URL

TRACKING_PARAMETER = re.compile(
    r"utm_\w+|fbclid|gclid|msclkid|mc_[ce]id|igshid|yclid", re.IGNORECASE
)
DEFAULT_PORTS = {"http": 80, "https": 443}


def normalized_url(url: str) -> str:
    """Return the form under which two spellings of one URL are equal.

    It serves comparisons and must not be fetched. Text that cannot be parsed comes back stripped.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        query = _without_tracking(parts.query)
    except ValueError:
        return url.strip()
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    if port is not None and port != DEFAULT_PORTS.get(scheme):
        host = f"{host}:{port}"
    return urlunsplit((scheme, host, parts.path or "/", query, ""))


def is_web_address(text: str) -> bool:
    """Return whether a text is an address of the web; of a person's own file it is none."""
    return text.lower().startswith(("http://", "https://"))


def _without_tracking(query: str) -> str:
    """Drop the parameters that only follow the reader; a query without any stays as it is."""
    pairs = parse_qsl(query, keep_blank_values=True)
    kept = [(name, value) for name, value in pairs if not TRACKING_PARAMETER.fullmatch(name)]
    if len(kept) == len(pairs):
        return query
    return urlencode(kept)


def url_digest(url: str) -> str:
    """Return the SHA-256 in hexadecimal of a normalized URL; takedowns are recorded by it."""
    return hashlib.sha256(normalized_url(url).encode(errors="surrogatepass")).hexdigest()


def address_digest(url: str) -> str:
    """Return the SHA-256 in hexadecimal of an address as it is written."""
    return hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()


def origin_of(url: str) -> str | None:
    """Return `scheme://host[:port]/` of an HTTP URL, None for any other text."""
    try:
        page = URL(url)
        if page.scheme not in ("http", "https") or not page.host:
            return None
        return f"{page.origin()}/"
    except ValueError:  # also of names and ports that are refused only when they are read
        return None
