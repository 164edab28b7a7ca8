"""iNaturalist: observations of living things, identified by people.

Each photograph states its licence; those without one are reserved.
"""

from functools import partial
from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import Candidate, PageResults, Query, SearchResult, SourceTools
from scraping.sources.json_api import list_at, object_at, plain_text, web_address, whole_number
from scraping.sources.licenses import read_license
from scraping.sources.snapshots import save_answer
from scraping.sources.taxon import TaxonSource, licensed_images, same_name, sized_address

INTERFACE_AS_OF = "2026-11"
TAXA_PATH = "/v1/taxa"
OBSERVATIONS_PATH = "/v1/observations"
TAXA_ASKED = 5
LICENSE_VERSION = "4.0"  # its codes carry none; this is the one that the site links to
OPEN_LICENSES = "cc0,cc-by,cc-by-sa,cc-by-nd,cc-by-nc,cc-by-nc-sa,cc-by-nc-nd"


def exact_taxon(taxa: list[Any], words: str) -> dict[str, Any] | None:
    """Return the first taxon that is really called so, by one of its names."""
    for taxon in taxa:
        if not isinstance(taxon, dict) or not whole_number(taxon.get("id")):
            continue
        for key in ("name", "preferred_common_name", "matched_term"):
            if same_name(taxon.get(key), words):
                return taxon
    return None


def _parse_photo(photo: dict[str, Any], entry: dict[str, Any], max_side: int) -> Candidate | None:
    square = web_address(photo.get("url"))
    licence = read_license(photo.get("license_code"), LICENSE_VERSION)
    if not square or not licence.name:
        return None
    taxon = object_at(entry, "taxon")
    user = object_at(entry, "user")
    return Candidate(
        image_url=sized_address(square, max_side),
        page_url=web_address(entry.get("uri")),
        title=plain_text(taxon.get("preferred_common_name")) or plain_text(taxon.get("name")),
        creator=plain_text(user.get("name")) or plain_text(user.get("login")),
        license=licence.name,
        license_version=licence.version,
        license_url=licence.url,
        license_basis="per-item",
        attribution=plain_text(photo.get("attribution")),
    )


class InaturalistSource(TaxonSource):
    """The adapter."""

    name = "inaturalist"
    default_url = "https://api.inaturalist.org"
    min_page_size = 30
    max_page_size = 200
    max_results = 10_000

    def find_taxon(
        self, query: Query, tools: SourceTools
    ) -> int | FetchFailure | SearchResult | None:
        """Return the id of the taxon, by its scientific, common or matched name."""
        reply = self._ask_taxa(query, tools)
        if isinstance(reply, FetchFailure):
            return reply
        taxa = list_at(reply.data, "results")
        if taxa is None:
            snapshot = save_answer(self, query, reply.data)
            results = PageResults(self, query)
            return results.changed("the answer has no list of taxa", snapshot)
        taxon = exact_taxon(taxa, query.words)
        return None if taxon is None else int(taxon["id"])

    def other_names(self, query: Query, tools: SourceTools) -> list[str]:
        """Return the common and scientific name, when the words are exactly one name of a taxon."""
        reply = self._ask_taxa(query, tools)
        if isinstance(reply, FetchFailure):
            return []
        taxa = list_at(reply.data, "results") or []
        taxon = exact_taxon(taxa, query.words) or {}
        names = []
        for key in ("preferred_common_name", "name"):
            name = plain_text(taxon.get(key))
            if name and not same_name(name, query.words):
                names.append(name)
        return names

    def _ask_taxa(self, query: Query, tools: SourceTools) -> JsonReply | FetchFailure:
        parameters = {"q": query.words, "per_page": str(TAXA_ASKED)}
        return self.ask(TAXA_PATH, parameters, query, tools)

    def page_request(self, taxon: int, number: int, size: int) -> tuple[str, dict[str, str]]:
        """Ask for observations of research grade, the most liked first."""
        parameters = {
            "taxon_id": str(taxon),
            "quality_grade": "research",
            "photos": "true",
            "photo_license": OPEN_LICENSES,
            "per_page": str(size),
            "order": "desc",
            "order_by": "votes",
            "page": str(number),
        }
        return OBSERVATIONS_PATH, parameters

    def parse_entry(self, entry: Any, max_side: int) -> list[Candidate] | None:
        """Return the licensed photographs of one observation, None when it is none."""
        parse = partial(_parse_photo, entry=entry, max_side=max_side)
        return licensed_images(entry, "photos", parse)

    def is_complete(self, answer: dict[str, Any], entries_read: int) -> bool:
        """Return whether all results that the answer counts were read."""
        total = whole_number(answer.get("total_results")) or 0
        return entries_read >= total
