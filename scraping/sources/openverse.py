"""Openverse: openly licensed pictures of many collections, with the licence of each, through its public API."""

import itertools
from typing import Any

from scraping.fetch import FetchFailure, JsonReply
from scraping.sources.api import ask, plain_text, web_address, whole_number
from scraping.sources.contract import (
    Candidate,
    Query,
    SearchResult,
    SearchStats,
    Source,
    SourceTools,
    changed,
    failed,
    finished,
    rate_limited,
)

INTERFACE_AS_OF = "2026-09"
PAGE_SIZE = 20  # more is refused to clients without an account
MOST_WORDS = 200
RATE_HEADERS = ("X-RateLimit-Available-anon_burst", "X-RateLimit-Available-anon_sustained")


def parse_item(item: Any, words: str, rank: int) -> Candidate | None:
    """One entry of `results` as a candidate, or None when it names no picture."""
    if not isinstance(item, dict) or not (address := web_address(item.get("url"))):
        return None
    slug = plain_text(item.get("license")).lower()
    kind = plain_text(item.get("filetype")).lower().replace("jpg", "jpeg")
    return Candidate(
        image_url=address,
        source="openverse",
        query=words,
        rank=rank,
        page_url=web_address(item.get("foreign_landing_url")),
        thumb_url=web_address(item.get("thumbnail")),
        title=plain_text(item.get("title")),
        width=whole_number(item.get("width")),
        height=whole_number(item.get("height")),
        mime=f"image/{kind}" if kind else "",
        creator=plain_text(item.get("creator")),
        creator_url=web_address(item.get("creator_url")),
        license=slug if slug in ("", "cc0", "pdm") else f"cc-{slug}",
        license_version=plain_text(item.get("license_version")),
        license_url=web_address(item.get("license_url")),
        license_basis="per-item" if slug else "unknown",
        attribution=plain_text(item.get("attribution")),
    )


def used_up(reply: JsonReply) -> bool:
    """Whether the answer's headers say that no request is left."""
    return any(reply.headers.get(name, "").strip() == "0" for name in RATE_HEADERS)


class OpenverseSource(Source):
    """The adapter."""

    name = "openverse"
    label = "Openverse"
    kind = "api"
    provider_family = "openverse"
    default_url = "https://api.openverse.org"
    needs = frozenset()
    supports = frozenset({"license_filter", "per_item_license", "safe_search", "size", "type"})
    default_enabled = True
    min_interval_s = 3.0

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read page after page until enough is found or the last page is reached."""
        stats, found = SearchStats(), list[Candidate]()
        for page in itertools.count(1):
            reply = self._ask(page, query, tools)
            if isinstance(reply, FetchFailure):
                if reply.status == 404 and page > 1:  # a page past the last one
                    return finished(self, query, tuple(found), stats)
                return failed(self, reply, tuple(found), stats)
            items = reply.data.get("results") if isinstance(reply.data, dict) else None
            if not isinstance(items, list):
                return changed(self, tuple(found), stats, "no list of results")
            stats.pages += 1
            _absorb(items, query.words, found, stats)
            last = not items or page >= (whole_number(reply.data.get("page_count")) or 0)
            if last or len(found) >= query.limit:
                return finished(self, query, tuple(found), stats)
            if used_up(reply):
                return rate_limited(self, tuple(found), stats, None, "no requests left")
            if not query.seconds_left():
                return failed(self, FetchFailure("unreachable", "deadline"), tuple(found), stats)
        raise AssertionError("not reached")

    def _ask(self, page: int, query: Query, tools: SourceTools) -> JsonReply | FetchFailure:
        parameters = {
            "q": query.words[:MOST_WORDS],
            "page": str(page),
            "page_size": str(PAGE_SIZE),
            "mature": "false",
        }
        return ask(f"{tools.base_url}/v1/images/", parameters, query, tools, self.min_interval_s)


def _absorb(items: list[Any], words: str, found: list[Candidate], stats: SearchStats) -> None:
    for item in items:
        stats.seen += 1
        candidate = parse_item(item, words, len(found) + 1)
        if candidate is None:
            stats.dropped += 1
        else:
            found.append(candidate)
