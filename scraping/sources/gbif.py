"""GBIF: occurrences of species from museums and observers, with the licence of each image."""

from functools import partial
from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import Candidate, Query, SearchResult, SourceTools
from scraping.sources.json_api import credit_line, list_at, plain_text, web_address, whole_number
from scraping.sources.licenses import License, read_license
from scraping.sources.paging import Paging
from scraping.sources.taxon import (
    TaxonSource,
    is_inaturalist_photo,
    licensed_images,
    same_name,
    sized_address,
)

INTERFACE_AS_OF = "2026-11"
MATCH_PATH = "/v1/species/match"
NAMES_PATH = "/v1/species/search"
OCCURRENCES_PATH = "/v1/occurrence/search"
NAMES_ASKED = 20
MIN_PAGE_SIZE = 50
MAX_PAGE_SIZE = 300
MAX_RESULTS = 100_000  # offset and page size together may not go beyond


def exact_match(data: Any) -> int | None:
    """Return the key of the taxon that is called exactly so by its scientific name."""
    if not isinstance(data, dict) or data.get("matchType") != "EXACT":
        return None
    return whole_number(data.get("usageKey"))


def exact_vernacular(data: Any, words: str) -> dict[str, Any] | None:
    """Return the first taxon of which one common name is exactly the words."""
    for taxon in list_at(data, "results") or []:
        if not isinstance(taxon, dict) or not _taxon_key(taxon):
            continue
        for name in list_at(taxon, "vernacularNames") or []:
            if isinstance(name, dict) and same_name(name.get("vernacularName"), words):
                return taxon
    return None


def _taxon_key(taxon: dict[str, Any]) -> int | None:
    """Return the key in GBIF's own list, to which a name of another list points."""
    return whole_number(taxon.get("nubKey")) or whole_number(taxon.get("key"))


def media_license(medium: dict[str, Any], entry: dict[str, Any]) -> License:
    """Return the image's own licence; the record's only where the image states nothing at all."""
    stated = plain_text(medium.get("license"))
    return read_license(stated or plain_text(entry.get("license")))


def parse_occurrence(entry: Any, max_side: int) -> list[Candidate] | None:
    """Return the licensed images of one occurrence, None when it is none."""
    return licensed_images(entry, "media", partial(_parse_medium, entry=entry, max_side=max_side))


def _parse_medium(medium: dict[str, Any], entry: dict[str, Any], max_side: int) -> Candidate | None:
    address = web_address(medium.get("identifier"))
    licence = media_license(medium, entry)
    if not address or not licence.name or medium.get("type", "StillImage") != "StillImage":
        return None
    if is_inaturalist_photo(address):
        square = address.replace("/original.", "/square.")
        address = sized_address(square, max_side)
    page = web_address(medium.get("references"))
    key = whole_number(entry.get("key"))
    if not page and key:
        page = f"https://www.gbif.org/occurrence/{key}"
    creator = plain_text(medium.get("creator")) or plain_text(medium.get("rightsHolder"))
    title = plain_text(medium.get("title")) or plain_text(entry.get("species"))
    mime = plain_text(medium.get("format"))
    shown_license = licence.name.upper().replace("CC-", "CC ")
    shown_license = f"{shown_license} {licence.version}".strip()
    return Candidate(
        image_url=address,
        page_url=page,
        title=title,
        mime=mime if "image/" in mime else "",
        creator=creator,
        license=licence.name,
        license_version=licence.version,
        license_url=licence.url,
        license_basis="per-item",
        attribution=credit_line(creator, title, shown_license, "via GBIF"),
    )


class GbifSource(TaxonSource):
    """The adapter."""

    name = "gbif"
    default_url = "https://api.gbif.org"

    def find_taxon(
        self, query: Query, tools: SourceTools
    ) -> int | FetchFailure | SearchResult | None:
        """Return the key of the taxon, by its scientific name, else by a common one."""
        reply = self.ask(MATCH_PATH, {"name": query.words}, query, tools)
        if isinstance(reply, FetchFailure):
            return reply
        key = exact_match(reply.data)
        if key is not None:
            return key
        reply = self._ask_names(query, tools)
        if isinstance(reply, FetchFailure):
            return reply
        taxon = exact_vernacular(reply.data, query.words)
        return None if taxon is None else _taxon_key(taxon)

    def other_names(self, query: Query, tools: SourceTools) -> list[str]:
        """Return the scientific name of what the words commonly name."""
        reply = self._ask_names(query, tools)
        if isinstance(reply, FetchFailure):
            return []
        taxon = exact_vernacular(reply.data, query.words) or {}
        name = plain_text(taxon.get("canonicalName"))
        return [name] if name and not same_name(name, query.words) else []

    def _ask_names(self, query: Query, tools: SourceTools) -> JsonReply | FetchFailure:
        parameters = {"q": query.words, "qField": "VERNACULAR", "limit": str(NAMES_ASKED)}
        return self.ask(NAMES_PATH, parameters, query, tools)

    def paging(self, taxon: int, query: Query, tools: SourceTools) -> Paging:
        """Read the occurrences that have still images."""
        size = min(MAX_PAGE_SIZE, max(MIN_PAGE_SIZE, query.limit))
        parameters = {"taxonKey": str(taxon), "mediaType": "StillImage", "limit": str(size)}

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            offset = (number - 1) * size
            return self.ask(OCCURRENCES_PATH, parameters | {"offset": str(offset)}, query, tools)

        def items(data: Any) -> list[Any] | None:
            return list_at(data, "results")

        def parse(entry: Any) -> list[Candidate] | None:
            return parse_occurrence(entry, query.options.max_side)

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            is_end = reply.data.get("endOfRecords") is True
            next_end = (number + 1) * size
            return not count or is_end or next_end > MAX_RESULTS

        return Paging(request, items, parse, is_last)
