"""NASA's image library: space, aircraft, people at work.

Its images are free of copyright unless one says otherwise. That is a rule of the whole library, not
a statement about each image, so it does not count as an open licence.
"""

from typing import Any, NamedTuple
from urllib.parse import quote

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import (
    NO_LICENSE_PER_IMAGE,
    Candidate,
    Query,
    SearchResult,
    Source,
    SourceTools,
    skipped,
)
from scraping.sources.json_api import (
    ask,
    credit_line,
    list_at,
    plain_text,
    web_address,
    whole_number,
)
from scraping.sources.paging import Paging, read_pages

INTERFACE_AS_OF = "2026-11"
SEARCH_PATH = "/search"
PAGE_SIZE = 100
MAX_RESULTS = 10_000
GUIDELINES = "https://www.nasa.gov/nasa-brand-center/images-and-media/"
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".webp")
URL_CHARACTERS = ":/?&=%~#+,;@!$'()*[]"  # not to be quoted again


class Rendering(NamedTuple):
    """One size of an image, in pixels where the library states them."""

    longer_side: int
    url: str
    width: int | None = None
    height: int | None = None


def best_rendering(links: list[Any], max_side: int) -> Rendering | None:
    """Return the smallest rendering that suffices, else the largest.

    Of an image with a preview only it is the medium size; None when there is no image.
    """
    renderings = []
    preview = ""
    for link in links:
        if not isinstance(link, dict):
            continue
        url = quote(web_address(link.get("href")), safe=URL_CHARACTERS)
        if not url.lower().endswith(IMAGE_EXTENSIONS):
            continue
        if link.get("rel") == "preview" or "~thumb." in url:
            preview = preview or url
            continue
        width = whole_number(link.get("width"))
        height = whole_number(link.get("height"))
        renderings.append(Rendering(max(width or 0, height or 0), url, width, height))
    large_enough = [each for each in renderings if each.longer_side >= max_side]
    if large_enough:
        return min(large_enough, key=_by_size)
    if renderings:
        return max(renderings, key=_by_size)
    if preview:
        return Rendering(0, preview.replace("~thumb.", "~medium."))
    return None


def _by_size(rendering: Rendering) -> tuple[int, str]:
    return rendering.longer_side, rendering.url


def parse_item(item: Any, max_side: int) -> list[Candidate] | None:
    """Return one entry as a candidate.

    None when it cannot be read; an empty list when it names no image.
    """
    entries = list_at(item, "data")
    if not entries or not isinstance(entries[0], dict):
        return None
    facts = entries[0]
    rendering = best_rendering(list_at(item, "links") or [], max_side)
    if rendering is None:
        return []
    creator = plain_text(facts.get("photographer")) or plain_text(facts.get("secondary_creator"))
    creator = creator or "NASA"
    is_own = "NASA" in creator.upper()
    title = plain_text(facts.get("title"))
    nasa_id = quote(plain_text(facts.get("nasa_id")), safe="")
    candidate = Candidate(
        image_url=rendering.url,
        page_url=f"https://images.nasa.gov/details/{nasa_id}" if nasa_id else "",
        title=title,
        width=rendering.width,
        height=rendering.height,
        creator=creator,
        license="pd" if is_own else "",
        license_url=GUIDELINES if is_own else "",
        license_basis="filter" if is_own else "unknown",
        attribution=credit_line(creator, title, "via NASA Image and Video Library"),
    )
    return [candidate]


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
            return skipped(self, NO_LICENSE_PER_IMAGE)

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            parameters = {
                "q": query.words,
                "media_type": "image",
                "page": str(number),
                "page_size": str(PAGE_SIZE),
            }
            return ask(tools.base_url + SEARCH_PATH, parameters, query, tools, self.min_interval_s)

        def items(data: Any) -> list[Any] | None:
            return list_at(data, "collection", "items")

        def parse(item: Any) -> list[Candidate] | None:
            return parse_item(item, query.options.max_side)

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            links = list_at(reply.data, "collection", "links") or []
            has_next = any(isinstance(link, dict) and link.get("rel") == "next" for link in links)
            next_end = (number + 1) * PAGE_SIZE
            return not count or not has_next or next_end > MAX_RESULTS

        return read_pages(self, query, Paging(request, items, parse, is_last))
