"""iNaturalist: observations of living things, identified by people, with the licence of each
photograph.

Asked only for exact taxa: its search is fuzzy, and a car may be called like a beetle.
"""

import re
from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import (
    Candidate,
    Query,
    SearchResult,
    Source,
    SourceTools,
    changed,
    failed,
)
from scraping.sources.catalogue import Outcome
from scraping.sources.json_api import ask, list_at, plain_text, same_name, web_address, whole_number
from scraping.sources.licenses import read_license
from scraping.sources.paging import Paging, read_pages
from scraping.sources.snapshots import save_answer

INTERFACE_AS_OF = "2026-11"
TAXA_PATH = "/v1/taxa"
OBSERVATIONS_PATH = "/v1/observations"
PREVIEWS = ("*.inaturalist.org/photos/*/square.*", "*.amazonaws.com/photos/*/square.*")
TAXA_ASKED = 5
PAGE_SIZE = 200
DEEPEST = 10_000  # page times page size may not go beyond
LICENSE_VERSION = "4.0"  # its codes carry none; this is the one that the site links to
OPEN_LICENSES = "cc0,cc-by,cc-by-sa,cc-by-nd,cc-by-nc,cc-by-nc-sa,cc-by-nc-nd"
PER_OBSERVATION = 2  # more views of one animal add little
SQUARE = re.compile(r"/square(\.\w+)(?=$|\?)", re.IGNORECASE)
SIZES = ((500, "medium"), (1024, "large"))


def sized_address(square: str, max_side: int) -> str:
    """The address of the size that suffices for the side wanted; the extension keeps its
    spelling.
    """
    size = next((name for side, name in SIZES if max_side <= side), "original")
    return SQUARE.sub(rf"/{size}\1", square)


def exact_taxon(taxa: list[Any], words: str) -> dict[str, Any] | None:
    """The first taxon that is really called so, by one of its names; a fuzzy hit is none."""
    for taxon in taxa:
        if isinstance(taxon, dict) and whole_number(taxon.get("id")):
            names = (
                taxon.get("name"),
                taxon.get("preferred_common_name"),
                taxon.get("matched_term"),
            )
            if any(same_name(name, words) for name in names):
                return taxon
    return None


def parse_observation(entry: Any, max_side: int) -> list[Candidate] | None:
    """The licensed photographs of one observation, None when it is none; those without a licence
    are reserved.
    """
    photos = entry.get("photos") if isinstance(entry, dict) else None
    if not isinstance(photos, list):
        return None
    parsed = (_parse_photo(photo, entry, max_side) for photo in photos if isinstance(photo, dict))
    return [candidate for candidate in parsed if candidate is not None][:PER_OBSERVATION]


def _parse_photo(photo: dict[str, Any], entry: dict[str, Any], max_side: int) -> Candidate | None:
    square = web_address(photo.get("url"))
    licence = read_license(photo.get("license_code"), LICENSE_VERSION)
    if not square or not licence.name:
        return None
    taxon, user = _object(entry.get("taxon")), _object(entry.get("user"))
    number = whole_number(photo.get("id"))
    return Candidate(
        image_url=sized_address(square, max_side),
        source="inaturalist",
        query="",
        rank=0,
        page_url=web_address(entry.get("uri")),
        thumb_url=square,
        title=plain_text(taxon.get("preferred_common_name")) or plain_text(taxon.get("name")),
        creator=plain_text(user.get("name")) or plain_text(user.get("login")),
        license=licence.name,
        license_version=licence.version,
        license_url=licence.url,
        license_basis="per-item",
        attribution=plain_text(photo.get("attribution")),
        identity=f"inaturalist:{number}" if number else "",
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class InaturalistSource(Source):
    """The adapter."""

    name = "inaturalist"
    default_url = "https://api.inaturalist.org"
    min_interval_s = 1.0
    thumbnail_hosts = PREVIEWS
    sample_words = "Felis catus"

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Find the taxon, then read its observations of research grade, the most liked first."""
        reply = self._ask_taxa(query, tools)
        if isinstance(reply, FetchFailure):
            return failed(self, reply)
        taxa = list_at(reply.data, "results")
        if taxa is None:
            return changed(
                self,
                detail="the answer has no list of taxa",
                evidence=save_answer(self, query, reply.data),
            )
        taxon = exact_taxon(taxa, query.words)
        if taxon is None:
            message = (
                f"iNaturalist was skipped: “{query.words}” is not the exact name of a living thing."
            )
            return SearchResult(Outcome.NOT_APPLICABLE, message=message)
        return read_pages(self, query, self._paging(taxon["id"], query, tools))

    def other_names(self, query: Query, tools: SourceTools) -> list[str]:
        """The taxon's common and scientific name, when the words are exactly one of its names."""
        reply = self._ask_taxa(query, tools)
        taxa = None if isinstance(reply, FetchFailure) else list_at(reply.data, "results")
        taxon = exact_taxon(taxa or [], query.words) or {}
        names = [plain_text(taxon.get("preferred_common_name")), plain_text(taxon.get("name"))]
        return [name for name in names if name and not same_name(name, query.words)]

    def _ask_taxa(self, query: Query, tools: SourceTools) -> JsonReply | FetchFailure:
        parameters = {"q": query.words, "per_page": str(TAXA_ASKED)}
        return ask(tools.base_url + TAXA_PATH, parameters, query, tools, self.min_interval_s)

    def _paging(self, taxon: int, query: Query, tools: SourceTools) -> Paging:
        size = min(PAGE_SIZE, max(30, query.limit))
        parameters = {
            "taxon_id": str(taxon),
            "quality_grade": "research",
            "photos": "true",
            "photo_license": OPEN_LICENSES,
            "per_page": str(size),
            "order": "desc",
            "order_by": "votes",
        }

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            asked = parameters | {"page": str(number)}
            return ask(tools.base_url + OBSERVATIONS_PATH, asked, query, tools, self.min_interval_s)

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            total = whole_number(reply.data.get("total_results")) or 0
            return (
                not count or number * size >= min(total, DEEPEST) or (number + 1) * size > DEEPEST
            )

        return Paging(
            request,
            lambda data: list_at(data, "results"),
            lambda entry: parse_observation(entry, query.options.max_side),
            is_last,
        )
