"""Which photograph an address shows: several sources list the same one, at other sizes and on other
hosts.

A hint for finding such pairs before any download; what is no such address has no identity here.
"""

import re
from urllib.parse import unquote, urlsplit

INATURALIST = re.compile(
    r"/photos/(\d+)/(?:original|large|medium|small|square|thumb)\b", re.IGNORECASE
)
WIKIMEDIA = re.compile(r"/wikipedia/commons/(?:thumb/)?[0-9a-f]/[0-9a-f]{2}/([^/]+)", re.IGNORECASE)
FLICKR = re.compile(r"/(\d{5,})_[0-9a-f]+(?:_[a-z0-9]+)?\.\w+$", re.IGNORECASE)
HOSTS = (
    (
        re.compile(
            r"(?:^|\.)(?:inaturalist\.org|inaturalist-open-data\.s3[.\w-]*\.amazonaws\.com)$"
        ),
        INATURALIST,
    ),
    (re.compile(r"(?:^|\.)wikimedia\.org$"), WIKIMEDIA),
    (re.compile(r"(?:^|\.)staticflickr\.com$"), FLICKR),
)
NAMES = {INATURALIST: "inaturalist", WIKIMEDIA: "wikimedia", FLICKR: "flickr"}


def photograph(url: str) -> str:
    """A text that is the same for all known addresses of one photograph, such as
    `inaturalist:12345`; else empty.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    for host, path in HOSTS:
        if host.search((parts.hostname or "").lower()) and (found := path.search(parts.path)):
            return f"{NAMES[path]}:{unquote(found[1])}"
    return ""
