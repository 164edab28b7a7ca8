"""The Metropolitan Museum of Art: photographs of its works, CC0 where the work is in the public
domain.

A search gives numbers of works only; each is looked up by itself, slowly: a firewall refuses quick
readers.
"""

from collections.abc import Iterator
from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.reasons import Reason
from scraping.sources.base import (
    Candidate,
    Query,
    SearchResult,
    SearchStats,
    Source,
    SourceTools,
    changed,
    failed,
    finished,
)
from scraping.sources.json_api import ask, plain_text, web_address, whole_number
from scraping.sources.licenses import FREE
from scraping.sources.paging import Paging, read_pages
from scraping.sources.snapshots import save_answer

INTERFACE_AS_OF = "2025-11"
SEARCH_PATH = "/public/collection/v1/search"
OBJECT_PATH = "/public/collection/v1/objects"


def object_numbers(data: Any) -> list[int] | None:
    """The numbers found; empty when the answer holds null for them, None when it is of another
    shape.
    """
    if not isinstance(data, dict) or "objectIDs" not in data:
        return None
    numbers = data["objectIDs"]
    if numbers is None:
        return []
    return (
        [number for number in numbers if whole_number(number)]
        if isinstance(numbers, list)
        else None
    )


def parse_object(work: Any) -> list[Candidate] | None:
    """One work as a candidate; None when it cannot be read, none when it is not free or has no
    picture.
    """
    if not isinstance(work, dict) or "isPublicDomain" not in work:
        return None
    address = web_address(work.get("primaryImageSmall")) or web_address(work.get("primaryImage"))
    if work["isPublicDomain"] is not True or not address:
        return []
    creator, title = plain_text(work.get("artistDisplayName")), plain_text(work.get("title"))
    return [
        Candidate(
            image_url=address.replace(" ", "%20"),
            source="met",
            query="",
            rank=0,
            page_url=web_address(work.get("objectURL")),
            title=title,
            creator=creator,
            license=FREE["zero"].name,
            license_version=FREE["zero"].version,
            license_url=FREE["zero"].url,
            license_basis="per-item",
            attribution=", ".join(
                filter(None, (creator, title, "The Metropolitan Museum of Art, CC0"))
            ),
        )
    ]


class MetSource(Source):
    """The adapter."""

    name = "met"
    default_url = "https://collectionapi.metmuseum.org"
    min_interval_s = 1.0
    thumbnail_hosts = ("images.metmuseum.org/*/mobile-large/*",)

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Find the numbers of works with pictures, then look up one after the other until enough is
        found.
        """
        parameters = {"hasImages": "true", "q": query.words}
        reply = ask(tools.base_url + SEARCH_PATH, parameters, query, tools, self.min_interval_s)
        if isinstance(reply, FetchFailure):
            return failed(self, reply)
        numbers = object_numbers(reply.data)
        if numbers is None:
            evidence = save_answer(self, query, reply.data)
            return changed(self, detail="the answer has no list of numbers", evidence=evidence)
        if not numbers:
            return finished(self, query, (), SearchStats(pages=1, ended_by="nothing found"))
        return read_pages(self, query, self._paging(iter(numbers), len(numbers), query, tools))

    def _paging(
        self, numbers: Iterator[int], total: int, query: Query, tools: SourceTools
    ) -> Paging:
        left = total

        def request(_: int, __: JsonReply | None) -> JsonReply | FetchFailure:
            """The next work that is still there."""
            nonlocal left
            missing = FetchFailure(Reason.HTTP_ERROR, "no work is left", 404)
            for number in numbers:
                left -= 1
                address = f"{tools.base_url}{OBJECT_PATH}/{number}"
                reply = ask(address, {}, query, tools, self.min_interval_s)
                gone = isinstance(reply, FetchFailure) and reply.status == 404
                if not gone or not query.seconds_left():
                    return reply
            return missing

        return Paging(
            request=request,
            items=lambda data: [data],
            parse=parse_object,
            is_last=lambda reply, number, count: left <= 0,
            is_past_end=lambda failure: failure.status == 404,
        )
