"""The Metropolitan Museum of Art: photographs of its works, CC0 where they are free.

A search gives numbers of works only; each is looked up by itself, slowly: a firewall refuses quick
readers.
"""

from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.reasons import Reason
from scraping.sources.base import (
    Candidate,
    PageResults,
    Query,
    SearchResult,
    Source,
    SourceTools,
)
from scraping.sources.json_api import ask, credit_line, plain_text, web_address, whole_number
from scraping.sources.licenses import CC0
from scraping.sources.paging import Paging, read_pages
from scraping.sources.snapshots import save_answer

INTERFACE_AS_OF = "2025-11"
SEARCH_PATH = "/public/collection/v1/search"
OBJECT_PATH = "/public/collection/v1/objects"


def object_numbers(data: Any) -> list[int] | None:
    """Return the numbers found; None when the answer is of another shape.

    Where nothing was found, the answer holds null for them.
    """
    if not isinstance(data, dict) or "objectIDs" not in data:
        return None
    numbers = data["objectIDs"]
    if numbers is None:
        return []
    if not isinstance(numbers, list):
        return None
    return [number for number in numbers if whole_number(number)]


def parse_object(work: Any) -> list[Candidate] | None:
    """Return one work as a candidate.

    None when it cannot be read; an empty list when it is not free or has no image.
    """
    if not isinstance(work, dict) or "isPublicDomain" not in work:
        return None
    address = web_address(work.get("primaryImageSmall")) or web_address(work.get("primaryImage"))
    if work["isPublicDomain"] is not True or not address:
        return []
    creator = plain_text(work.get("artistDisplayName"))
    title = plain_text(work.get("title"))
    candidate = Candidate(
        image_url=address.replace(" ", "%20"),
        page_url=web_address(work.get("objectURL")),
        title=title,
        creator=creator,
        license=CC0.name,
        license_version=CC0.version,
        license_url=CC0.url,
        license_basis="per-item",
        attribution=credit_line(creator, title, "The Metropolitan Museum of Art, CC0"),
    )
    return [candidate]


class MetSource(Source):
    """The adapter."""

    name = "met"
    default_url = "https://collectionapi.metmuseum.org"
    min_interval_s = 1.0
    thumbnail_hosts = ("images.metmuseum.org/*/mobile-large/*",)

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Find the numbers of works with images, then look up one after the other."""
        parameters = {"hasImages": "true", "q": query.words}
        reply = ask(tools.base_url + SEARCH_PATH, parameters, query, tools, self.min_interval_s)
        results = PageResults(self, query)
        if isinstance(reply, FetchFailure):
            return results.failed(reply)
        numbers = object_numbers(reply.data)
        if numbers is None:
            snapshot = save_answer(self, query, reply.data)
            return results.changed("the answer has no list of numbers", snapshot)
        if not numbers:
            return results.finished("nothing found")
        return read_pages(self, query, self._paging(numbers, query, tools))

    def _paging(self, numbers: list[int], query: Query, tools: SourceTools) -> Paging:
        left = list(reversed(numbers))

        def request(_: int, __: JsonReply | None) -> JsonReply | FetchFailure:
            """Look up the next work that is still there."""
            while left:
                url = f"{tools.base_url}{OBJECT_PATH}/{left.pop()}"
                reply = ask(url, {}, query, tools, self.min_interval_s)
                is_gone = isinstance(reply, FetchFailure) and reply.status == 404
                if not is_gone or not query.seconds_left():
                    return reply
            return FetchFailure(Reason.HTTP_ERROR, "no work is left", 404)

        return Paging(
            request=request,
            items=lambda data: [data],
            parse=parse_object,
            is_last=lambda reply, number, count: not left,
            is_past_end=lambda failure: failure.status == 404,
        )
