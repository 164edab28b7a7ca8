"""GBIF: occurrences of species from museums and observers, with the licence of each picture.

Asked only for exact taxa. Much of it comes from iNaturalist; those photographs are named alike, so
that one is kept.
"""

from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import Candidate, Query, SearchResult, Source, SourceTools, failed
from scraping.sources.catalogue import Outcome
from scraping.sources.identity import photograph
from scraping.sources.inaturalist import PREVIEWS, sized_address
from scraping.sources.json_api import ask, list_at, plain_text, same_name, web_address, whole_number
from scraping.sources.licenses import License, read_license
from scraping.sources.paging import Paging, read_pages

INTERFACE_AS_OF = "2026-11"
MATCH_PATH = "/v1/species/match"
NAMES_PATH = "/v1/species/search"
OCCURRENCES_PATH = "/v1/occurrence/search"
PAGE_SIZE = 300
NAMES_ASKED = 20
DEEPEST = 100_000
PER_OCCURRENCE = 2  # more views of one specimen add little


def exact_match(data: Any) -> int | None:
    """The key of the taxon that is called exactly so by its scientific name."""
    if not isinstance(data, dict) or data.get("matchType") != "EXACT":
        return None
    return whole_number(data.get("usageKey"))


def exact_vernacular(data: Any, words: str) -> dict[str, Any] | None:
    """The first taxon of which one common name is exactly the words."""
    results = data.get("results") if isinstance(data, dict) else None
    for taxon in results if isinstance(results, list) else ():
        names = taxon.get("vernacularNames") if isinstance(taxon, dict) else None
        known = [name.get("vernacularName") for name in names or () if isinstance(name, dict)]
        if any(same_name(name, words) for name in known) and _key(taxon):
            return dict(taxon)
    return None


def _key(taxon: dict[str, Any]) -> int | None:
    """The key in GBIF's own list, to which a name of another list points."""
    return whole_number(taxon.get("nubKey")) or whole_number(taxon.get("key"))


def media_license(medium: dict[str, Any], entry: dict[str, Any]) -> License:
    """The picture's own licence; the record's only where the picture states nothing at all."""
    stated = plain_text(medium.get("license"))
    return read_license(stated or plain_text(entry.get("license")))


def parse_occurrence(entry: Any, max_side: int) -> list[Candidate] | None:
    """The licensed pictures of one occurrence, None when it is none."""
    media = entry.get("media") if isinstance(entry, dict) else None
    if not isinstance(media, list):
        return None
    parsed = (
        _parse_medium(medium, entry, max_side) for medium in media if isinstance(medium, dict)
    )
    return [candidate for candidate in parsed if candidate is not None][:PER_OCCURRENCE]


def _parse_medium(medium: dict[str, Any], entry: dict[str, Any], max_side: int) -> Candidate | None:
    address = web_address(medium.get("identifier"))
    licence = media_license(medium, entry)
    if not address or not licence.name or medium.get("type", "StillImage") != "StillImage":
        return None
    creator = plain_text(medium.get("creator")) or plain_text(medium.get("rightsHolder"))
    title = plain_text(medium.get("title")) or plain_text(entry.get("species"))
    key = whole_number(entry.get("key"))
    return Candidate(
        image_url=smaller(address, max_side),
        source="gbif",
        query="",
        rank=0,
        page_url=web_address(medium.get("references"))
        or (f"https://www.gbif.org/occurrence/{key}" if key else ""),
        title=title,
        mime=plain_text(medium.get("format"))
        if "image/" in plain_text(medium.get("format"))
        else "",
        creator=creator,
        license=licence.name,
        license_version=licence.version,
        license_url=licence.url,
        license_basis="per-item",
        attribution=", ".join(filter(None, (creator, title, _shown(licence), "via GBIF"))),
        identity=photograph(address),
    )


def smaller(address: str, max_side: int) -> str:
    """An original of iNaturalist in the size that iNaturalist itself is asked for; any other
    address as it is.
    """
    if not photograph(address).startswith("inaturalist:"):
        return address
    return sized_address(address.replace("/original.", "/square."), max_side)


def _shown(licence: License) -> str:
    return f"{licence.name.upper().replace('CC-', 'CC ')} {licence.version}".strip()


class GbifSource(Source):
    """The adapter."""

    name = "gbif"
    default_url = "https://api.gbif.org"
    min_interval_s = 1.0
    thumbnail_hosts = PREVIEWS
    sample_words = "Felis catus"

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Find the taxon by scientific or common name, then read its occurrences that have
        pictures.
        """
        taxon = self._taxon(query, tools)
        if isinstance(taxon, FetchFailure):
            return failed(self, taxon)
        if taxon is None:
            message = f"GBIF was skipped: “{query.words}” is not the exact name of a living thing."
            return SearchResult(Outcome.NOT_APPLICABLE, message=message)
        return read_pages(self, query, self._paging(taxon, query, tools))

    def other_names(self, query: Query, tools: SourceTools) -> list[str]:
        """The scientific name of what the words commonly name."""
        reply = self._ask(NAMES_PATH, _vernacular(query.words), query, tools)
        taxon = (
            None if isinstance(reply, FetchFailure) else exact_vernacular(reply.data, query.words)
        )
        name = plain_text((taxon or {}).get("canonicalName"))
        return [name] if name and not same_name(name, query.words) else []

    def _taxon(self, query: Query, tools: SourceTools) -> int | FetchFailure | None:
        """The taxon's key, None when nothing is called exactly so."""
        reply = self._ask(MATCH_PATH, {"name": query.words}, query, tools)
        if isinstance(reply, FetchFailure):
            return reply
        if (key := exact_match(reply.data)) is not None:
            return key
        reply = self._ask(NAMES_PATH, _vernacular(query.words), query, tools)
        if isinstance(reply, FetchFailure):
            return reply
        taxon = exact_vernacular(reply.data, query.words)
        return None if taxon is None else _key(taxon)

    def _ask(
        self, path: str, parameters: dict[str, str], query: Query, tools: SourceTools
    ) -> JsonReply | FetchFailure:
        return ask(tools.base_url + path, parameters, query, tools, self.min_interval_s)

    def _paging(self, taxon: int, query: Query, tools: SourceTools) -> Paging:
        size = min(PAGE_SIZE, max(50, query.limit))
        parameters = {"taxonKey": str(taxon), "mediaType": "StillImage", "limit": str(size)}

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            return self._ask(
                OCCURRENCES_PATH, parameters | {"offset": str((number - 1) * size)}, query, tools
            )

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            return (
                not count or reply.data.get("endOfRecords") is True or (number + 1) * size > DEEPEST
            )

        return Paging(
            request,
            lambda data: list_at(data, "results"),
            lambda entry: parse_occurrence(entry, query.options.max_side),
            is_last,
        )


def _vernacular(words: str) -> dict[str, str]:
    return {"q": words, "qField": "VERNACULAR", "limit": str(NAMES_ASKED)}
