"""Pixabay: photographs under the site's own licence, with a key that the operator has
registered.
"""

from dataclasses import replace
from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import (
    DEFAULT_WAIT_SECONDS,
    Candidate,
    Query,
    SearchResult,
    Source,
    SourceTools,
)
from scraping.sources.catalogue import Outcome
from scraping.sources.json_api import ask, list_at, plain_text, web_address, whole_number
from scraping.sources.paging import Paging, read_pages

INTERFACE_AS_OF = "2026-11"
SEARCH_PATH = "/api/"
KEY = "pixabay_key"
MOST_WORDS = 100
PAGE_SIZE = 200
REACHABLE = 500
WEB_SIDE = 640
LICENSE_URL = "https://pixabay.com/service/license-summary/"
LEFT_HEADER = "X-RateLimit-Remaining"
RESET_HEADER = "X-RateLimit-Reset"


def parse_hit(hit: Any, max_side: int) -> list[Candidate] | None:
    """One hit as a candidate, None when it names no picture."""
    if not isinstance(hit, dict):
        return None
    names = (
        ("webformatURL", "largeImageURL")
        if max_side <= WEB_SIDE
        else ("largeImageURL", "webformatURL")
    )
    address = next(filter(None, (web_address(hit.get(name)) for name in names)), "")
    if not address:
        return None
    creator = plain_text(hit.get("user"))
    return [
        Candidate(
            image_url=address,
            source="pixabay",
            query="",
            rank=0,
            page_url=web_address(hit.get("pageURL")),
            thumb_url=web_address(hit.get("previewURL")),
            title=plain_text(hit.get("tags")),
            creator=creator,
            license="pixabay",
            license_url=LICENSE_URL,
            license_basis="filter",
            attribution=f"{creator}, via Pixabay" if creator else "via Pixabay",
        )
    ]


def seconds_to_wait(reply: JsonReply) -> float | None:
    """Seconds until requests are allowed again when the answer says that none is left, else
    None.
    """
    if reply.headers.get(LEFT_HEADER, "").strip() != "0":
        return None
    reset = reply.headers.get(RESET_HEADER, "").strip()
    return float(reset) if reset.isdecimal() else DEFAULT_WAIT_SECONDS


class PixabaySource(Source):
    """The adapter. Its licence is the site's own, so it does not count as an open one."""

    name = "pixabay"
    default_url = "https://pixabay.com"
    min_interval_s = 1.0
    thumbnail_hosts = ("cdn.pixabay.com/*_150.*", "cdn.pixabay.com/*__*_180.*")

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read page after page until enough is found or all that can be reached was read."""
        if reason := self._reason_against(query):
            return SearchResult(Outcome.NOT_APPLICABLE, message=f"Pixabay was skipped: {reason}.")
        parameters = {
            "key": query.options.credentials[KEY],
            "q": query.words[:MOST_WORDS],
            "image_type": "photo",
            "safesearch": "true",
            "per_page": str(PAGE_SIZE),
        }

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            asked = parameters | {"page": str(number)}
            reply = ask(tools.base_url + SEARCH_PATH, asked, query, tools, self.min_interval_s)
            if isinstance(reply, FetchFailure) and reply.status == 400 and number == 1:
                return replace(
                    reply, status=403, detail="the key was refused"
                )  # so it is answered to a wrong key
            return reply

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            total = min(whole_number(reply.data.get("totalHits")) or 0, REACHABLE)
            return not count or number * PAGE_SIZE >= total

        paging = Paging(
            request=request,
            items=lambda data: list_at(data, "hits"),
            parse=lambda hit: parse_hit(hit, query.options.max_side),
            is_last=is_last,
            is_past_end=lambda failure: failure.status == 400,
            used_up=seconds_to_wait,
        )
        return read_pages(self, query, paging)

    def _reason_against(self, query: Query) -> str:
        if not query.options.credentials.get(KEY):
            return "it needs a key, and none is configured"
        return (
            "it does not state the licence of each picture"
            if query.options.license == "open"
            else ""
        )
