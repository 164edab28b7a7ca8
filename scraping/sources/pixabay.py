"""Pixabay: photographs under the site's own licence, with a key that the operator registered."""

from dataclasses import replace
from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.outside import number_in
from scraping.sources.base import (
    DEFAULT_WAIT_SECONDS,
    NO_LICENSE_PER_IMAGE,
    Candidate,
    Query,
    SearchResult,
    Source,
    SourceTools,
    skipped,
)
from scraping.sources.json_api import ask, list_at, plain_text, web_address, whole_number
from scraping.sources.paging import Paging, read_pages

INTERFACE_AS_OF = "2026-11"
SEARCH_PATH = "/api/"
KEY = "pixabay_key"
MAX_QUERY_CHARACTERS = 100
PAGE_SIZE = 200
MAX_RESULTS = 500
WEB_SIDE = 640  # pixels: the longer side of `webformatURL`
LICENSE_URL = "https://pixabay.com/service/license-summary/"
LEFT_HEADER = "X-RateLimit-Remaining"
RESET_HEADER = "X-RateLimit-Reset"


def parse_hit(hit: Any, max_side: int) -> list[Candidate] | None:
    """Return one hit as a candidate, None when it names no image."""
    if not isinstance(hit, dict):
        return None
    medium = web_address(hit.get("webformatURL"))
    large = web_address(hit.get("largeImageURL"))
    address = medium or large if max_side <= WEB_SIDE else large or medium
    if not address:
        return None
    creator = plain_text(hit.get("user"))
    candidate = Candidate(
        image_url=address,
        page_url=web_address(hit.get("pageURL")),
        title=plain_text(hit.get("tags")),
        creator=creator,
        license="pixabay",
        license_url=LICENSE_URL,
        license_basis="filter",
        attribution=f"{creator}, via Pixabay" if creator else "via Pixabay",
    )
    return [candidate]


def is_not_for_all(hit: Any) -> bool:
    """Return whether a hit is marked as not for all ages, though the search left these out."""
    return isinstance(hit, dict) and hit.get("isGRated") is False


def seconds_to_wait(reply: JsonReply) -> float | None:
    """Return how long to wait when the headers say that no request is left, else None."""
    if reply.headers.get(LEFT_HEADER, "").strip() != "0":
        return None
    reset = reply.headers.get(RESET_HEADER, "").strip()
    return float(number_in(reset) or DEFAULT_WAIT_SECONDS)


def _is_refused(reply: JsonReply | FetchFailure) -> bool:
    return isinstance(reply, FetchFailure) and reply.status == 400


class PixabaySource(Source):
    """The adapter. Its licence is the site's own, so it does not count as an open one."""

    name = "pixabay"
    default_url = "https://pixabay.com"
    min_interval_s = 1.0
    thumbnail_hosts = ("cdn.pixabay.com/*_150.*", "cdn.pixabay.com/*__*_180.*")

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read page after page until enough is found or all that can be reached was read."""
        if not query.options.credentials.get(KEY):
            return skipped(self, "it needs a key, and none is configured")
        if query.options.license == "open":
            return skipped(self, NO_LICENSE_PER_IMAGE)
        url = tools.base_url + SEARCH_PATH
        parameters = {
            "key": query.options.credentials[KEY],
            "q": query.words[:MAX_QUERY_CHARACTERS],
            "image_type": "photo",
            "safesearch": "true",
            "per_page": str(PAGE_SIZE),
        }

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            page = parameters | {"page": str(number)}
            reply = ask(url, page, query, tools, self.min_interval_s)
            if number > 1 or not _is_refused(reply):
                return reply
            # The words and the key are refused by the same answer; other words tell which it was.
            sample = ask(url, page | {"q": self.sample_words}, query, tools, self.min_interval_s)
            if isinstance(sample, FetchFailure) and _is_refused(sample):
                return replace(sample, status=403, detail="the key was refused")
            return reply

        def items(data: Any) -> list[Any] | None:
            return list_at(data, "hits")

        def parse(hit: Any) -> list[Candidate] | None:
            return parse_hit(hit, query.options.max_side)

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            total = whole_number(reply.data.get("totalHits")) or 0
            return not count or number * PAGE_SIZE >= min(total, MAX_RESULTS)

        paging = Paging(
            request=request,
            items=items,
            parse=parse,
            is_last=is_last,
            is_past_end=lambda failure: failure.status == 400,
            used_up=seconds_to_wait,
            is_unsafe=is_not_for_all,
        )
        return read_pages(self, query, paging)
