"""The Art Institute of Chicago: photographs of its works.

It is asked only for works in the public domain, whose photographs are CC0.
"""

from typing import Any

from scraping.net.http import PRODUCT, FetchFailure, JsonReply
from scraping.sources.base import Candidate, Query, SearchResult, Source, SourceTools
from scraping.sources.json_api import (
    ask,
    credit_line,
    list_at,
    object_at,
    plain_text,
    web_address,
    whole_number,
)
from scraping.sources.licenses import CC0
from scraping.sources.paging import Paging, read_pages

INTERFACE_AS_OF = "2026-11"
SEARCH_PATH = "/api/v1/artworks/search"
FIELDS = "id,title,image_id,artist_display,is_public_domain"
PAGE_SIZE = 100
MAX_RESULTS = 1000  # further results of one search are refused
RENDERING = "full/843,/0/default.jpg"  # the size that the museum keeps ready


def parse_artwork(work: Any, image_base: str) -> list[Candidate] | None:
    """Return one work as a candidate.

    None when it cannot be read; an empty list when it is not free or has no image.
    """
    if not isinstance(work, dict) or "image_id" not in work or "is_public_domain" not in work:
        return None
    image = plain_text(work["image_id"])
    if not image or work["is_public_domain"] is not True:
        return []
    creator = plain_text(work.get("artist_display"))
    title = plain_text(work.get("title"))
    number = whole_number(work.get("id"))
    candidate = Candidate(
        image_url=f"{image_base}/{image}/{RENDERING}",
        page_url=f"https://www.artic.edu/artworks/{number}" if number else "",
        title=title,
        creator=creator,
        license=CC0.name,
        license_version=CC0.version,
        license_url=CC0.url,
        license_basis="per-item",
        attribution=credit_line(creator, title, "The Art Institute of Chicago, CC0"),
    )
    return [candidate]


class ArticSource(Source):
    """The adapter."""

    name = "artic"
    default_url = "https://api.artic.edu"
    min_interval_s = 1.0
    thumbnail_hosts = ("www.artic.edu/iiif/*/full/200,/*", "www.artic.edu/iiif/*/full/!200,200/*")

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read page after page until enough is found or the last is reached."""
        image_base = ""  # where the images lie, as each answer says
        headers = {}
        if query.options.contact:
            headers["AIC-User-Agent"] = f"{PRODUCT} ({query.options.contact})"

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            parameters = {
                "q": query.words,
                "query[term][is_public_domain]": "true",
                "fields": FIELDS,
                "limit": str(PAGE_SIZE),
                "page": str(number),
            }
            url = tools.base_url + SEARCH_PATH
            return ask(url, parameters, query, tools, self.min_interval_s, headers)

        def items(data: Any) -> list[Any] | None:
            nonlocal image_base
            image_base = web_address(object_at(data, "config").get("iiif_url")).rstrip("/")
            return list_at(data, "data") if image_base else None

        def parse(work: Any) -> list[Candidate] | None:
            return parse_artwork(work, image_base)

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            pages = whole_number(object_at(reply.data, "pagination").get("total_pages")) or 0
            next_end = (number + 1) * PAGE_SIZE
            return not count or number >= pages or next_end > MAX_RESULTS

        return read_pages(self, query, Paging(request, items, parse, is_last))
