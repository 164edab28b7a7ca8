"""The registry of the sources: the class of each, and where they keep their previews."""

import re
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
from scraping.sources.supplied import UploadSource, UrlListSource
from scraping.sources.wikimedia import WikimediaSource

# An instance of each source by its name, in the order of the catalogue.
REGISTRY: dict[str, Source] = {
    source.name: source
    for source in (
        UploadSource(),
        UrlListSource(),
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

# Where previews lie, of every source: `host/path` patterns. An image from there is not the image.
THUMBNAIL_HOSTS = tuple(
    sorted({pattern for source in REGISTRY.values() for pattern in source.thumbnail_hosts})
)
_THUMBNAIL = re.compile("|".join(map(translate, THUMBNAIL_HOSTS)))


def is_thumbnail(url: str) -> bool:
    """Return whether an address lies where a source keeps its small previews."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return _THUMBNAIL.match(f"{(parts.hostname or '').lower()}{parts.path}") is not None
