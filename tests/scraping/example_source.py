"""An example of a source: what its module in `scraping/sources/` would hold."""

from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import Candidate, Query, SearchResult, Source, SourceTools, skipped
from scraping.sources.json_api import ask, list_at, plain_text, web_address, whole_number
from scraping.sources.paging import Paging, read_pages

KEY = "example_key"


def parse_photo(photo: Any) -> list[Candidate] | None:
    """Return one photo as a candidate, None when it names no image."""
    address = web_address(photo.get("src")) if isinstance(photo, dict) else ""
    if not address:
        return None
    return [Candidate(image_url=address, title=plain_text(photo.get("caption")))]


class ExampleSource(Source):
    """The adapter."""

    name = "example"
    default_url = "https://photos.example"
    min_interval_s = 1.0
    thumbnail_hosts = ("photos.example/small/*",)

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read page after page until enough is found or the last page is reached."""
        key = query.options.credentials.get(KEY)
        if not key:
            return skipped(self, "it needs a key, and none is configured")

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            parameters = {"q": query.words, "page": str(number)}
            headers = {"Authorization": f"Bearer {key}"}
            url = f"{tools.base_url}/photos"
            return ask(url, parameters, query, tools, self.min_interval_s, headers)

        def items(data: Any) -> list[Any] | None:
            return list_at(data, "photos")

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            return number >= (whole_number(reply.data.get("pages")) or 0)

        return read_pages(self, query, Paging(request, items, parse_photo, is_last))
