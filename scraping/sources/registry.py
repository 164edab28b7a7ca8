"""The registry of the sources: all of them, their usual order, and where they keep their
previews.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from urllib.parse import urlsplit

from scraping.sources.artic import ArticSource
from scraping.sources.base import Source
from scraping.sources.bing import BingSource
from scraping.sources.gbif import GbifSource
from scraping.sources.google import GoogleSource
from scraping.sources.inaturalist import InaturalistSource
from scraping.sources.met import MetSource
from scraping.sources.nasa import NasaSource
from scraping.sources.openverse import OpenverseSource
from scraping.sources.pixabay import PixabaySource
from scraping.sources.wikimedia import WikimediaSource

# In the order in which they are asked unless the operator names another.
REGISTRY: dict[str, Source] = {
    source.name: source
    for source in (
        OpenverseSource(),
        WikimediaSource(),
        InaturalistSource(),
        GbifSource(),
        BingSource(),
        NasaSource(),
        MetSource(),
        ArticSource(),
        PixabaySource(),
        GoogleSource(),
    )
}
DEFAULT_ORDER = tuple(name for name, source in REGISTRY.items() if source.default_enabled)

# Where previews lie, of every source: `host/path` patterns. A picture from there is not the
# picture.
THUMBNAIL_HOSTS = tuple(
    sorted({pattern for source in REGISTRY.values() for pattern in source.thumbnail_hosts})
)
_THUMBNAIL = re.compile("|".join(map(translate, THUMBNAIL_HOSTS)))


def usual_sources(credentials: Mapping[str, str]) -> tuple[str, ...]:
    """The sources asked unless the operator names others: those on by default, and those whose key
    is there.
    """
    keyed = {name for name, source in REGISTRY.items() if source.credentials}
    ready = {
        name for name in keyed if all(credentials.get(key) for key in REGISTRY[name].credentials)
    }
    return tuple(name for name in REGISTRY if name in DEFAULT_ORDER or name in ready)


def is_thumbnail(url: str) -> bool:
    """Whether an address lies where a source keeps its small previews."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return _THUMBNAIL.match(f"{(parts.hostname or '').lower()}{parts.path}") is not None


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The names in their order, each once, and those that are always asked last at the end."""
    unique = tuple(dict.fromkeys(names))
    return tuple(sorted(unique, key=lambda name: name in REGISTRY and REGISTRY[name].always_last))
