"""Wikimedia Commons: freely licensed files, with author and licence of each, through MediaWiki.

It is asked for a bounded rendering of each file: originals run to 50 MB.
"""

import re
from collections.abc import Mapping
from typing import Any

from scraping.net.http import FetchFailure, JsonReply, parse_retry_after
from scraping.outside import clean_text
from scraping.reasons import Reason
from scraping.sources.base import Candidate, Query, SearchResult, Source, SourceTools, skipped
from scraping.sources.json_api import (
    ask,
    credit_line,
    list_at,
    object_at,
    plain_text,
    web_address,
    whole_number,
)
from scraping.sources.paging import Paging, read_pages
from scraping.sources.wikidata import (
    API_PATH,
    exact_descriptions,
    search_parameters,
    wikidata_url,
)

INTERFACE_AS_OF = "2026-06"
BATCH = 50
RENDERED_WIDTHS = (250, 330, 500, 960, 1280, 1920)  # the widths that Wikimedia renders
PREVIEW_WIDTHS = (20, 40, 60, 120)  # larger renderings are what is wanted
MAXLAG_TRIES = 3
MAXLAG_SECONDS = 5.0
MAX_MAXLAG_SECONDS = 60.0  # that are waited; who asks for more is asked later
# Codes of errors in the words of a search, not in how the interface was asked.
SEARCH_ERRORS = re.compile(r"(?:cirrussearch|search)[-_]|internal_api_error")
# The signs by which words would be a command: `insource:/[/`, `-dog`, `"exact"`, `fuzzy~`.
# https://www.mediawiki.org/wiki/Help:CirrusSearch
COMMAND_SIGNS = re.compile(r"""[:"~*?\\{}\[\]<>|]""")
FIELDS = (
    "LicenseShortName|License|LicenseUrl|Artist|Credit|ObjectName|AttributionRequired|UsageTerms"
)
LICENSE_SLUG = re.compile(
    r"(?P<name>.*?[a-z0])(?:-(?P<version>\d+(?:\.\d+)+))(?:-(?P<port>[a-z-]+))?"
)


def split_license(slug: str, short_name: str) -> tuple[str, str]:
    """Return name and version of a licence: `cc-by-sa-4.0` is (`cc-by-sa`, `4.0`).

    The shown name stands in where there is no slug.
    """
    slug = slug.strip().lower()
    if found := LICENSE_SLUG.fullmatch(slug):
        return found["name"], found["version"]
    return slug or short_name.strip(), ""


def plain_words(words: str) -> str:
    """Return the words of a search without the signs that would make them a command."""
    plain = []
    for word in COMMAND_SIGNS.sub(" ", words).split():
        plain.append(word.lstrip("-!").strip("/"))
    return " ".join(filter(None, plain)) or words


def rendered_width(max_side: int) -> int:
    """Return the smallest rendered width not below the side to be stored, else the largest."""
    for width in RENDERED_WIDTHS:
        if width >= max_side:
            return width
    return RENDERED_WIDTHS[-1]


def parse_page(page: Any) -> list[Candidate] | None:
    """Return one entry of `query.pages` as a candidate, or None when it names no image."""
    infos = list_at(page, "imageinfo")
    info = infos[0] if infos and isinstance(infos[0], dict) else {}
    address = web_address(info.get("thumburl")) or web_address(info.get("url"))
    if not address:
        return None
    facts = {}
    for field, entry in object_at(info, "extmetadata").items():
        if isinstance(entry, dict):
            facts[field] = plain_text(entry.get("value"))
    title = facts.get("ObjectName", "")
    if not title:
        title = plain_text(page.get("title")).removeprefix("File:").rpartition(".")[0]
    licence, version = split_license(facts.get("License", ""), facts.get("LicenseShortName", ""))
    creator = facts.get("Artist", "")
    shown_license = facts.get("LicenseShortName") or licence
    candidate = Candidate(
        image_url=address,
        page_url=web_address(info.get("descriptionurl")),
        title=title,
        width=whole_number(info.get("thumbwidth")) or whole_number(info.get("width")),
        height=whole_number(info.get("thumbheight")) or whole_number(info.get("height")),
        mime=plain_text(info.get("mime")),
        creator=creator,
        license=licence,
        license_version=version,
        license_url=web_address(facts.get("LicenseUrl")),
        license_basis="per-item" if licence else "unknown",
        attribution=credit_line(creator, title, shown_license, "via Wikimedia Commons"),
    )
    return [candidate]


def pages_by_rank(data: Any) -> list[Any] | None:
    """Return the found pages by their rank, which is not the order in which they stand.

    Empty without results, None when the answer is not understood.
    """
    if not isinstance(data, dict) or "error" in data:
        return None
    if "query" not in data:
        is_end = "batchcomplete" in data or "continue" in data or not data
        return [] if is_end else None
    pages = list_at(data, "query", "pages")
    if pages is None:
        return None
    found = [page for page in pages if isinstance(page, dict)]
    return sorted(found, key=lambda page: whole_number(page.get("index")) or 0)


class WikimediaSource(Source):
    """The adapter. Off without the operator's contact, which Wikimedia demands of every program."""

    name = "wikimedia"
    default_url = "https://commons.wikimedia.org"
    min_interval_s = 1.0
    thumbnail_hosts = tuple(f"*.wikimedia.org/*/{width}px-*" for width in PREVIEW_WIDTHS)

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read batch after batch until enough is found or nothing continues."""
        if not query.options.contact:
            return skipped(self, "it asks for the operator's contact, and none is configured")

        def request(_: int, before: JsonReply | None) -> JsonReply | FetchFailure:
            parameters = _parameters(query)
            if before is not None:
                for name, value in object_at(before.data, "continue").items():
                    parameters[name] = str(value)
            return self._ask_patiently(parameters, query, tools)

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            return not isinstance(reply.data.get("continue"), dict)

        return read_pages(self, query, Paging(request, pages_by_rank, parse_page, is_last))

    def descriptions(self, query: Query, tools: SourceTools) -> list[str] | None:
        """Ask Wikidata once for what is called so; a failure is not worth a second question."""
        if not query.options.contact:
            return None
        tools.pace(self.min_interval_s)
        url = wikidata_url(tools.base_url, self.default_url) + API_PATH
        reply = tools.get_json(url, search_parameters(query.words))
        if isinstance(reply, FetchFailure):
            return None
        return exact_descriptions(reply.data, query.words)

    def _ask_patiently(
        self, parameters: Mapping[str, str], query: Query, tools: SourceTools
    ) -> JsonReply | FetchFailure:
        """Ask; while the servers say that they lag behind, wait as long as they ask, a few times.

        https://www.mediawiki.org/wiki/Manual:Maxlag_parameter
        """
        url = tools.base_url + API_PATH
        for tries_left in reversed(range(MAXLAG_TRIES + 1)):
            reply = ask(url, parameters, query, tools, self.min_interval_s)
            if isinstance(reply, FetchFailure):
                return reply
            code = clean_text(object_at(reply.data, "error").get("code"))
            if SEARCH_ERRORS.match(code):
                return FetchFailure(Reason.HTTP_ERROR, code, 400)
            if code != "maxlag":
                return reply
            asked = parse_retry_after(reply.headers.get("Retry-After"))
            wait = MAXLAG_SECONDS if asked is None else asked
            if wait > MAX_MAXLAG_SECONDS:
                break
            if tries_left:
                tools.wait(min(wait, query.seconds_left()))
        return FetchFailure(Reason.HTTP_ERROR, "maxlag", 429, asked or MAXLAG_SECONDS)


def _parameters(query: Query) -> dict[str, str]:
    return {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "generator": "search",
        "gsrnamespace": "6",
        "gsrsearch": f"filetype:bitmap {plain_words(query.words)}",
        "gsrlimit": str(BATCH),
        "prop": "imageinfo",
        "iiprop": "url|size|mime|mediatype|extmetadata|sha1",
        "iiurlwidth": str(rendered_width(query.options.max_side)),
        "iiextmetadatafilter": FIELDS,
        "maxlag": "5",
    }
