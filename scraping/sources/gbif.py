"""GBIF: occurrences of species from museums and observers, with the licence of each image."""

import re
from functools import partial
from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import Candidate, Query, SearchResult, SourceTools
from scraping.sources.json_api import credit_line, list_at, plain_text, web_address, whole_number
from scraping.sources.licenses import License, read_license
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
DATASET_KEY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
    if not stated:
        stated = plain_text(entry.get("license"))
    return read_license(stated)


def dataset_key(entry: dict[str, Any]) -> str:
    """Return the key of the dataset that an occurrence belongs to, "" where there is none."""
    key = plain_text(entry.get("datasetKey")).lower()
    return key if DATASET_KEY.fullmatch(key) else ""


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
        dataset_key=dataset_key(entry),
    )


class GbifSource(TaxonSource):
    """The adapter."""

    name = "gbif"
    default_url = "https://api.gbif.org"
    min_page_size = 50
    max_page_size = 300
    max_results = 100_000

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
        parameters = {
            "q": query.words,
            "qField": "VERNACULAR",
            "limit": str(NAMES_ASKED),
        }
        return self.ask(NAMES_PATH, parameters, query, tools)

    def page_request(self, taxon: int, number: int, size: int) -> tuple[str, dict[str, str]]:
        """Ask for occurrences that have still images."""
        offset = (number - 1) * size
        parameters = {
            "taxonKey": str(taxon),
            "mediaType": "StillImage",
            "limit": str(size),
            "offset": str(offset),
        }
        return OCCURRENCES_PATH, parameters

    def parse_entry(self, entry: Any, max_side: int) -> list[Candidate] | None:
        """Return the licensed images of one occurrence, None when it is none."""
        parse = partial(_parse_medium, entry=entry, max_side=max_side)
        return licensed_images(entry, "media", parse)

    def is_complete(self, answer: dict[str, Any], entries_read: int) -> bool:
        """Return whether the answer says that there are no further records."""
        return answer.get("endOfRecords") is True
