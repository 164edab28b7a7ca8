"""What the sources of living things share: exact taxa, and the addresses of iNaturalist's images.

GBIF lists much of what iNaturalist has; both then give the same address for a photograph, so that
it is known as a duplicate.
"""

import re
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import (
    Candidate,
    PageResults,
    Query,
    SearchResult,
    Source,
    SourceTools,
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
    if not wanted:
        return False
    return plain_text(name).casefold() == wanted


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
    """A source of living things. It is asked for exact taxa only: its own search is fuzzy.

    Between `min_page_size` and `max_page_size` entries are asked for at once; pages that end
    beyond `max_results` are refused.
    """

    min_interval_s = 1.0
    thumbnail_hosts = ("*.inaturalist.org/photos/*/square.*", "*.amazonaws.com/photos/*/square.*")
    sample_words = "Felis catus"
    min_page_size: ClassVar[int]
    max_page_size: ClassVar[int]
    max_results: ClassVar[int]

    @abstractmethod
    def find_taxon(
        self, query: Query, tools: SourceTools
    ) -> int | FetchFailure | SearchResult | None:
        """Return the key of the taxon that is called exactly so, or None.

        A SearchResult says that the answer was not understood.
        """

    @abstractmethod
    def page_request(self, taxon: int, number: int, size: int) -> tuple[str, dict[str, str]]:
        """Return path and parameters for one page, counted from 1, of a taxon's entries."""

    @abstractmethod
    def parse_entry(self, entry: Any, max_side: int) -> list[Candidate] | None:
        """Return the licensed images of one entry, None when it is none."""

    @abstractmethod
    def is_complete(self, answer: dict[str, Any], entries_read: int) -> bool:
        """Return whether a page was the last one, by what it says itself."""

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Find the taxon, then read its entries that have images."""
        taxon = self.find_taxon(query, tools)
        if isinstance(taxon, SearchResult):
            return taxon
        if isinstance(taxon, FetchFailure):
            return PageResults(self, query).failed(taxon)
        if taxon is None:
            return skipped(self, f"“{query.words}” is not the exact name of a living thing")
        size = min(self.max_page_size, max(self.min_page_size, query.limit))

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            path, parameters = self.page_request(taxon, number, size)
            return self.ask(path, parameters, query, tools)

        def items(data: Any) -> list[Any] | None:
            return list_at(data, "results")

        def parse(entry: Any) -> list[Candidate] | None:
            return self.parse_entry(entry, query.options.max_side)

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            next_end = (number + 1) * size
            if not count or next_end > self.max_results:
                return True
            return self.is_complete(reply.data, number * size)

        return read_pages(self, query, Paging(request, items, parse, is_last))

    def ask(
        self, path: str, parameters: dict[str, str], query: Query, tools: SourceTools
    ) -> JsonReply | FetchFailure:
        """Ask the interface at the source's pace."""
        return ask(tools.base_url + path, parameters, query, tools, self.min_interval_s)
