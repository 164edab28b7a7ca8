"""The Art Institute of Chicago: photographs of its works, asked only for those in the public
domain, which are CC0.
"""

from typing import Any

from scraping.net.http import PRODUCT, FetchFailure, JsonReply
from scraping.sources.base import Candidate, Query, SearchResult, Source, SourceTools
from scraping.sources.json_api import ask, list_at, plain_text, web_address, whole_number
from scraping.sources.licenses import FREE
from scraping.sources.paging import Paging, read_pages

INTERFACE_AS_OF = "2026-11"
SEARCH_PATH = "/api/v1/artworks/search"
FIELDS = "id,title,image_id,artist_display,is_public_domain"
PAGE_SIZE = 100
DEEPEST = 1000  # further results of one search are refused
RENDERING = "full/843,/0/default.jpg"  # the size that the museum keeps ready


def image_base(data: Any) -> str:
    """Where the pictures lie, as the answer itself says; empty when it does not."""
    config = data.get("config") if isinstance(data, dict) else None
    return web_address(config.get("iiif_url")).rstrip("/") if isinstance(config, dict) else ""


def parse_artwork(work: Any, base: str) -> list[Candidate] | None:
    """One work as a candidate; None when it cannot be read, none when it is not free or has no
    picture.
    """
    if not isinstance(work, dict) or "image_id" not in work or "is_public_domain" not in work:
        return None
    image = plain_text(work["image_id"])
    if not image or work["is_public_domain"] is not True:
        return []
    creator, title = plain_text(work.get("artist_display")), plain_text(work.get("title"))
    number = whole_number(work.get("id"))
    return [
        Candidate(
            image_url=f"{base}/{image}/{RENDERING}",
            source="artic",
            query="",
            rank=0,
            page_url=f"https://www.artic.edu/artworks/{number}" if number else "",
            title=title,
            creator=creator,
            license=FREE["zero"].name,
            license_version=FREE["zero"].version,
            license_url=FREE["zero"].url,
            license_basis="per-item",
            attribution=", ".join(
                filter(None, (creator, title, "The Art Institute of Chicago, CC0"))
            ),
        )
    ]


class ArticSource(Source):
    """The adapter."""

    name = "artic"
    default_url = "https://api.artic.edu"
    min_interval_s = 1.0
    thumbnail_hosts = ("www.artic.edu/iiif/*/full/200,/*", "www.artic.edu/iiif/*/full/!200,200/*")

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read page after page until enough is found or the last is reached."""
        base = ""
        contact = (
            {"AIC-User-Agent": f"{PRODUCT} ({query.options.contact})"}
            if query.options.contact
            else {}
        )

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            nonlocal base
            parameters = {
                "q": query.words,
                "query[term][is_public_domain]": "true",
                "fields": FIELDS,
                "limit": str(PAGE_SIZE),
                "page": str(number),
            }
            reply = ask(
                tools.base_url + SEARCH_PATH, parameters, query, tools, self.min_interval_s, contact
            )
            base = "" if isinstance(reply, FetchFailure) else image_base(reply.data)
            return reply

        def items(data: Any) -> list[Any] | None:
            return list_at(data, "data") if base else None

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            pagination = reply.data.get("pagination")
            pages = (
                whole_number(pagination.get("total_pages"))
                if isinstance(pagination, dict)
                else None
            )
            return not count or number >= (pages or 0) or (number + 1) * PAGE_SIZE > DEEPEST

        return read_pages(
            self, query, Paging(request, items, lambda work: parse_artwork(work, base), is_last)
        )
