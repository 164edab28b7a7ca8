"""NASA's image library: space, aircraft, people at work. Its pictures are free of copyright unless
one says otherwise.

That is a rule of the whole library, not a statement about each picture, so it does not count as an
open licence.
"""

import itertools
from typing import Any
from urllib.parse import quote

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import Candidate, Query, SearchResult, Source, SourceTools
from scraping.sources.catalogue import Outcome
from scraping.sources.json_api import ask, list_at, plain_text, web_address, whole_number
from scraping.sources.paging import Paging, read_pages

INTERFACE_AS_OF = "2026-11"
SEARCH_PATH = "/search"
PAGE_SIZE = 100
DEEPEST = 10_000
GUIDELINES = "https://www.nasa.gov/nasa-brand-center/images-and-media/"
PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp")


def best_address(links: list[Any], max_side: int) -> tuple[str, int | None, int | None]:
    """The smallest rendering that suffices, else the largest; of a picture with a preview only, its
    medium size.
    """
    sized: list[tuple[int, str, int | None, int | None]] = []
    preview = ""
    for link in links:
        address = _address(link)
        if not address.lower().endswith(PICTURES):
            continue
        if link.get("rel") == "preview" or "~thumb." in address:
            preview = preview or address
            continue
        width, height = whole_number(link.get("width")), whole_number(link.get("height"))
        sized.append((max(width or 0, height or 0), address, width, height))
    enough = sorted(entry for entry in sized if entry[0] >= max_side)
    for _, address, width, height in itertools.chain(enough[:1], sorted(sized, reverse=True)[:1]):
        return address, width, height
    return preview.replace("~thumb.", "~medium."), None, None


def _address(link: Any) -> str:
    address = web_address(link.get("href")) if isinstance(link, dict) else ""
    return quote(address, safe=":/?&=%~#+,;@!$'()*[]")


def parse_item(item: Any, max_side: int) -> list[Candidate] | None:
    """One entry as a candidate; None when it cannot be read, none when it names no picture."""
    entries = item.get("data") if isinstance(item, dict) else None
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        return None
    facts, links = entries[0], item.get("links")
    address, width, height = best_address(links if isinstance(links, list) else [], max_side)
    if not address:
        return []
    creator = plain_text(facts.get("photographer")) or plain_text(facts.get("secondary_creator"))
    own = "NASA" in creator.upper() or not creator
    title = plain_text(facts.get("title"))
    number = quote(plain_text(facts.get("nasa_id")), safe="")
    return [
        Candidate(
            image_url=address,
            source="nasa",
            query="",
            rank=0,
            page_url=f"https://images.nasa.gov/details/{number}" if number else "",
            title=title,
            width=width,
            height=height,
            creator=creator or "NASA",
            license="pd" if own else "",
            license_url=GUIDELINES if own else "",
            license_basis="filter" if own else "unknown",
            attribution=", ".join(
                filter(None, (creator or "NASA", title, "via NASA Image and Video Library"))
            ),
        )
    ]


class NasaSource(Source):
    """The adapter."""

    name = "nasa"
    default_url = "https://images-api.nasa.gov"
    min_interval_s = 1.0
    thumbnail_hosts = ("images-assets.nasa.gov/*~thumb.*",)
    sample_words = "moon"

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read page after page until enough is found or no next one is named."""
        if query.options.license == "open":
            message = "NASA was skipped: it does not state the licence of each picture."
            return SearchResult(Outcome.NOT_APPLICABLE, message=message)

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            parameters = {
                "q": query.words,
                "media_type": "image",
                "page": str(number),
                "page_size": str(PAGE_SIZE),
            }
            return ask(tools.base_url + SEARCH_PATH, parameters, query, tools, self.min_interval_s)

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            links = list_at(reply.data, "collection", "links") or []
            following = any(isinstance(link, dict) and link.get("rel") == "next" for link in links)
            return not count or not following or (number + 1) * PAGE_SIZE > DEEPEST

        def items(data: Any) -> list[Any] | None:
            return list_at(data, "collection", "items")

        return read_pages(
            self,
            query,
            Paging(request, items, lambda item: parse_item(item, query.options.max_side), is_last),
        )
