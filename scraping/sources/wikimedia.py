"""Wikimedia Commons: freely licensed files, with author and licence of each, through the MediaWiki
API.

Asked for a bounded rendering of each file: originals run to 50 MB.
"""

import re
from collections.abc import Mapping
from typing import Any

from scraping.net.http import FetchFailure, JsonReply, parse_retry_after
from scraping.reasons import Reason
from scraping.sources.base import Candidate, Query, SearchResult, Source, SourceTools
from scraping.sources.catalogue import Outcome
from scraping.sources.json_api import ask, plain_text, web_address, whole_number
from scraping.sources.paging import Paging, read_pages

INTERFACE_AS_OF = "2026-06"
BATCH = 50
RENDERED_WIDTHS = (250, 330, 500, 960, 1280, 1920)  # the widths that Wikimedia renders
MAXLAG_TRIES = 3
MAXLAG_SECONDS = 5.0
FIELDS = (
    "LicenseShortName|License|LicenseUrl|Artist|Credit|ObjectName|AttributionRequired|UsageTerms"
)
LICENSE_SLUG = re.compile(
    r"(?P<name>.*?[a-z0])(?:-(?P<version>\d+(?:\.\d+)+))(?:-(?P<port>[a-z-]+))?"
)


def split_license(slug: str, short_name: str) -> tuple[str, str]:
    """Name and version of a licence: `cc-by-sa-4.0` is (`cc-by-sa`, `4.0`); the shown name where
    there is no slug.
    """
    slug = slug.strip().lower()
    if found := LICENSE_SLUG.fullmatch(slug):
        return found["name"], found["version"]
    return slug or short_name.strip(), ""


def rendered_width(max_side: int) -> int:
    """Smallest rendered width that is not below the side to be stored, else the largest."""
    return next((width for width in RENDERED_WIDTHS if width >= max_side), RENDERED_WIDTHS[-1])


def parse_page(page: Any) -> Candidate | None:
    """One entry of `query.pages` as a candidate, or None when it names no picture."""
    infos = page.get("imageinfo") if isinstance(page, dict) else None
    info = infos[0] if isinstance(infos, list) and infos and isinstance(infos[0], dict) else {}
    address = web_address(info.get("thumburl")) or web_address(info.get("url"))
    if not address:
        return None
    meta = _values(info.get("extmetadata"))
    title = (
        meta.get("ObjectName")
        or plain_text(page.get("title")).removeprefix("File:").rpartition(".")[0]
    )
    name, version = split_license(meta.get("License", ""), meta.get("LicenseShortName", ""))
    creator = meta.get("Artist", "")
    shown_license = meta.get("LicenseShortName") or name
    return Candidate(
        image_url=address,
        source="wikimedia",
        query="",
        rank=0,
        page_url=web_address(info.get("descriptionurl")),
        thumb_url=address,
        title=title,
        width=whole_number(info.get("thumbwidth")) or whole_number(info.get("width")),
        height=whole_number(info.get("thumbheight")) or whole_number(info.get("height")),
        mime=plain_text(info.get("mime")),
        creator=creator,
        license=name,
        license_version=version,
        license_url=web_address(meta.get("LicenseUrl")),
        license_basis="per-item" if name else "unknown",
        attribution=", ".join(
            filter(None, (creator, title, shown_license, "via Wikimedia Commons"))
        ),
    )


def _values(extmetadata: Any) -> dict[str, str]:
    """Field to plain text, for the fields that are there."""
    if not isinstance(extmetadata, dict):
        return {}
    return {
        name: plain_text(entry.get("value"))
        for name, entry in extmetadata.items()
        if isinstance(entry, dict)
    }


def pages_in_order(data: Any) -> list[Any] | None:
    """The found pages by their rank, which is not their order; empty without results, None when not
    understood.
    """
    if not isinstance(data, dict) or "error" in data:
        return None
    if "query" not in data:
        return [] if "batchcomplete" in data or "continue" in data or not data else None
    pages = data["query"].get("pages") if isinstance(data["query"], dict) else None
    if not isinstance(pages, list):
        return None
    return sorted(
        (page for page in pages if isinstance(page, dict)), key=lambda page: page.get("index") or 0
    )


class WikimediaSource(Source):
    """The adapter. Off without the operator's contact, which Wikimedia demands of every program."""

    name = "wikimedia"
    default_url = "https://commons.wikimedia.org"
    min_interval_s = 1.0
    thumbnail_hosts = tuple(
        f"*.wikimedia.org/*/{width}px-*" for width in (20, 40, 60, 120)
    )  # larger renderings are what is wanted

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read batch after batch until enough is found or nothing continues."""
        if not query.options.contact:
            message = "Wikimedia Commons was skipped: it asks for the operator's contact, and none is configured."
            return SearchResult(Outcome.NOT_APPLICABLE, message=message)

        def request(_: int, before: JsonReply | None) -> JsonReply | FetchFailure:
            continued = (before.data.get("continue") if before else None) or {}
            reply = self._ask_patiently(
                query, {name: str(value) for name, value in continued.items()}, tools
            )
            if isinstance(reply, FetchFailure) or _error_code(reply) != "maxlag":
                return reply
            wait = parse_retry_after(reply.headers.get("Retry-After")) or MAXLAG_SECONDS
            return FetchFailure(Reason.HTTP_ERROR, "maxlag", 429, wait)

        def parse(page: Any) -> list[Candidate] | None:
            candidate = parse_page(page)
            return None if candidate is None else [candidate]

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            return not isinstance(reply.data.get("continue"), dict)

        return read_pages(self, query, Paging(request, pages_in_order, parse, is_last))

    def _ask_patiently(
        self, query: Query, continued: Mapping[str, str], tools: SourceTools
    ) -> JsonReply | FetchFailure:
        """Ask; while the servers say that they lag behind, wait as long as they ask, a few
        times.
        """
        parameters = _parameters(query) | dict(continued)
        for attempt in range(MAXLAG_TRIES + 1):
            reply = ask(
                f"{tools.base_url}/w/api.php", parameters, query, tools, self.min_interval_s
            )
            if (
                isinstance(reply, FetchFailure)
                or _error_code(reply) != "maxlag"
                or attempt == MAXLAG_TRIES
            ):
                return reply
            asked = parse_retry_after(reply.headers.get("Retry-After"))
            tools.wait(min(MAXLAG_SECONDS if asked is None else asked, query.seconds_left()))
        raise AssertionError("not reached")


def _parameters(query: Query) -> dict[str, str]:
    return {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "generator": "search",
        "gsrnamespace": "6",
        "gsrsearch": f"filetype:bitmap {query.words}",
        "gsrlimit": str(BATCH),
        "prop": "imageinfo",
        "iiprop": "url|size|mime|mediatype|extmetadata|sha1",
        "iiurlwidth": str(rendered_width(query.options.max_side)),
        "iiextmetadatafilter": FIELDS,
        "maxlag": "5",
    }


def _error_code(reply: JsonReply) -> str:
    error = reply.data.get("error") if isinstance(reply.data, dict) else None
    return str(error.get("code", "")) if isinstance(error, dict) else ""
