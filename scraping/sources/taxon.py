"""What the sources of living things share: exact taxa, and the addresses of iNaturalist's images.

GBIF lists much of what iNaturalist has; both name the same address for such a photograph.
"""

import re
from abc import abstractmethod
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import (
    Candidate,
    Query,
    SearchResult,
    Source,
    SourceTools,
    failed,
    skipped,
)
from scraping.sources.json_api import ask, list_at, plain_text
from scraping.sources.paging import Paging, read_pages

PHOTO_HOST = re.compile(
    r"(?:^|\.)(?:inaturalist\.org|inaturalist-open-data\.s3[.\w-]*\.amazonaws\.com)$"
)
PHOTO_PATH = re.compile(
    r"/photos/\d+/(?:original|large|medium|small|square|thumb)\b", re.IGNORECASE
)
SQUARE = re.compile(r"/square(\.\w+)(?=$|\?)", re.IGNORECASE)
SIZES = ((500, "medium"), (1024, "large"))  # the longer side in pixels, and its name
IMAGES_PER_ENTRY = 2  # more views of one animal or specimen add little


def is_inaturalist_photo(url: str) -> bool:
    """Return whether a URL names a photograph at iNaturalist."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    host = (parts.hostname or "").lower()
    return bool(PHOTO_HOST.search(host) and PHOTO_PATH.search(parts.path))


def sized_address(square: str, max_side: int) -> str:
    """Return the address of the smallest size that suffices; the extension keeps its spelling."""
    size = "original"
    for longer_side, name in reversed(SIZES):
        if max_side <= longer_side:
            size = name
    return SQUARE.sub(rf"/{size}\1", square)


def same_name(name: object, words: str) -> bool:
    """Return whether a name is exactly the words, but for case and spaces."""
    wanted = " ".join(words.split()).casefold()
    return bool(wanted) and plain_text(name).casefold() == wanted


def licensed_images(
    entry: Any, key: str, parse: Callable[[dict[str, Any]], Candidate | None]
) -> list[Candidate] | None:
    """Return the first usable images in the list below a key of an entry; None without a list."""
    images = list_at(entry, key)
    if images is None:
        return None
    found = []
    for image in images:
        candidate = parse(image) if isinstance(image, dict) else None
        if candidate is not None:
            found.append(candidate)
    return found[:IMAGES_PER_ENTRY]


class TaxonSource(Source):
    """A source of living things. It is asked for exact taxa only: its own search is fuzzy."""

    min_interval_s = 1.0
    thumbnail_hosts = ("*.inaturalist.org/photos/*/square.*", "*.amazonaws.com/photos/*/square.*")
    sample_words = "Felis catus"

    @abstractmethod
    def find_taxon(
        self, query: Query, tools: SourceTools
    ) -> int | FetchFailure | SearchResult | None:
        """Return the key of the taxon that is called exactly so, or None.

        A SearchResult says that the answer was not understood.
        """

    @abstractmethod
    def paging(self, taxon: int, query: Query, tools: SourceTools) -> Paging:
        """Return how to read the images of a taxon."""

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Find the taxon, then read its entries that have images."""
        taxon = self.find_taxon(query, tools)
        if isinstance(taxon, SearchResult):
            return taxon
        if isinstance(taxon, FetchFailure):
            return failed(self, taxon)
        if taxon is None:
            return skipped(self, f"“{query.words}” is not the exact name of a living thing")
        return read_pages(self, query, self.paging(taxon, query, tools))

    def ask(
        self, path: str, parameters: dict[str, str], query: Query, tools: SourceTools
    ) -> JsonReply | FetchFailure:
        """Ask for one page of the interface."""
        return ask(tools.base_url + path, parameters, query, tools, self.min_interval_s)
