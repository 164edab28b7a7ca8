"""Openverse: openly licensed pictures of many collections, with the licence of each, through its
public API.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scraping.net.http import FetchFailure, JsonReply, JsonRequest
from scraping.reasons import Reason
from scraping.sources.base import (
    DEFAULT_WAIT_SECONDS,
    Candidate,
    Query,
    SearchResult,
    Source,
    SourceTools,
)
from scraping.sources.json_api import ask, list_at, plain_text, web_address, whole_number
from scraping.sources.paging import Paging, read_pages

INTERFACE_AS_OF = "2026-09"
SEARCH_PATH = "/v1/images/"
TOKEN_PATH = "/v1/auth_tokens/token/"  # noqa: S105 - an address, no secret
PAGE_SIZE = 20  # more is refused to clients without an account
ACCOUNT_PAGE_SIZE = 100
ACCOUNT_INTERVAL_SECONDS = 1.0
CLIENT_ID, CLIENT_SECRET = "openverse_client_id", "openverse_client_secret"
SHORTEST_TOKEN_SECONDS = 600
TOKEN_MARGIN_SECONDS = 60
MOST_WORDS = 200
LEFT_HEADERS = "x-ratelimit-available-"


def parse_item(item: Any) -> Candidate | None:
    """One entry of `results` as a candidate, or None when it names no picture."""
    if not isinstance(item, dict) or not (address := web_address(item.get("url"))):
        return None
    slug = plain_text(item.get("license")).lower()
    kind = plain_text(item.get("filetype")).lower().replace("jpg", "jpeg")
    return Candidate(
        image_url=address,
        source="openverse",
        query="",
        rank=0,
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


def seconds_to_wait(reply: JsonReply) -> float | None:
    """Seconds to wait when the answer's headers say that no request is left, else None."""
    left = (
        value.strip()
        for name, value in reply.headers.items()
        if name.lower().startswith(LEFT_HEADERS)
    )
    return DEFAULT_WAIT_SECONDS if "0" in left else None


def _is_last(reply: JsonReply, number: int, count: int) -> bool:
    return not count or number >= (whole_number(reply.data.get("page_count")) or 0)


@dataclass
class _Account:
    """The operator's registration at one Openverse, and the token it was last given."""

    base_url: str
    client_id: str
    client_secret: str
    token: str = ""
    valid_until: float = 0.0

    def authorisation(self, tools: SourceTools) -> Mapping[str, str]:
        """The header that proves the account, with a fresh token where the old one has run out;
        empty without one.
        """
        if time.monotonic() >= self.valid_until:
            self._renew(tools)
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def expire(self) -> None:
        """Forget the token, because it was refused."""
        self.token, self.valid_until = "", 0.0

    def _renew(self, tools: SourceTools) -> None:
        assert tools.send is not None
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
        }
        self.expire()
        answer = tools.send(JsonRequest(tools.base_url + TOKEN_PATH, form=form))
        if isinstance(answer, JsonReply) and isinstance(answer.data, dict):
            self.token = plain_text(answer.data.get("access_token"))
            lifetime = whole_number(answer.data.get("expires_in")) or SHORTEST_TOKEN_SECONDS
            self.valid_until = time.monotonic() + lifetime - TOKEN_MARGIN_SECONDS


class OpenverseSource(Source):
    """The adapter. With the operator's registration it reads larger pages, deeper and more
    often.
    """

    name = "openverse"
    default_url = "https://api.openverse.org"
    min_interval_s = 3.0
    thumbnail_hosts = ("api.openverse.org/v1/images/*/thumb*",)

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str, str], _Account] = {}

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read page after page until enough is found or the last page is reached.

        An account that is refused is done without, and the operator is told in `detail`.
        """
        if account := self._account(query, tools):
            result = self._read(query, tools, account)
            if account.token:
                return result
            refused = "the account was refused; asked without it"
            result = self._read(query, tools, None)
            return replace(result, detail="; ".join(filter(None, (refused, result.detail))))
        return self._read(query, tools, None)

    def _account(self, query: Query, tools: SourceTools) -> _Account | None:
        given = query.options.credentials
        key = (tools.base_url, given.get(CLIENT_ID, ""), given.get(CLIENT_SECRET, ""))
        if tools.send is None or not all(key):
            return None
        return self._accounts.setdefault(key, _Account(*key))

    def _read(self, query: Query, tools: SourceTools, account: _Account | None) -> SearchResult:
        size = PAGE_SIZE if account is None else ACCOUNT_PAGE_SIZE
        interval = self.min_interval_s if account is None else ACCOUNT_INTERVAL_SECONDS
        words = {"q": query.words[:MOST_WORDS], "page_size": str(size), "mature": "false"}

        def ask_once(number: int) -> JsonReply | FetchFailure:
            headers = account.authorisation(tools) if account else {}
            if account and not headers:
                return FetchFailure(Reason.HTTP_ERROR, "the account was refused", 401)
            address, parameters = tools.base_url + SEARCH_PATH, words | {"page": str(number)}
            return ask(address, parameters, query, tools, interval, headers)

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            reply = ask_once(number)
            if account and isinstance(reply, FetchFailure) and reply.status == 401:
                account.expire()
                reply = ask_once(number)
                if isinstance(reply, FetchFailure) and reply.status == 401:
                    account.expire()
            return reply

        def parse(item: Any) -> list[Candidate] | None:
            candidate = parse_item(item)
            return None if candidate is None else [candidate]

        paging = Paging(
            request=request,
            items=lambda data: list_at(data, "results"),
            parse=parse,
            is_last=_is_last,
            is_past_end=lambda failure: failure.status == 404,
            used_up=seconds_to_wait,
        )
        return read_pages(self, query, paging)
