"""Openverse: openly licensed images of many collections, with the licence of each."""

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
CLIENT_ID = "openverse_client_id"
CLIENT_SECRET = "openverse_client_secret"  # noqa: S105 - the name of a setting
SHORTEST_TOKEN_SECONDS = 600
TOKEN_MARGIN_SECONDS = 60
MAX_QUERY_CHARACTERS = 200
LEFT_HEADERS = "x-ratelimit-available-"


def parse_item(item: Any) -> list[Candidate] | None:
    """Return one entry of `results` as a candidate, or None when it names no image."""
    address = web_address(item.get("url")) if isinstance(item, dict) else ""
    if not address:
        return None
    licence = plain_text(item.get("license")).lower()
    if licence not in ("", "cc0", "pdm"):
        licence = f"cc-{licence}"
    kind = plain_text(item.get("filetype")).lower().replace("jpg", "jpeg")
    candidate = Candidate(
        image_url=address,
        page_url=web_address(item.get("foreign_landing_url")),
        title=plain_text(item.get("title")),
        width=whole_number(item.get("width")),
        height=whole_number(item.get("height")),
        mime=f"image/{kind}" if kind else "",
        creator=plain_text(item.get("creator")),
        creator_url=web_address(item.get("creator_url")),
        license=licence,
        license_version=plain_text(item.get("license_version")),
        license_url=web_address(item.get("license_url")),
        license_basis="per-item" if licence else "unknown",
        attribution=plain_text(item.get("attribution")),
    )
    return [candidate]


def is_mature(item: Any) -> bool:
    """Return whether an entry is marked as mature, which the search has asked to leave out."""
    return isinstance(item, dict) and item.get("mature") is True


def seconds_to_wait(reply: JsonReply) -> float | None:
    """Return how long to wait when the headers say that no request is left, else None."""
    for name, value in reply.headers.items():
        if name.lower().startswith(LEFT_HEADERS) and value.strip() == "0":
            return DEFAULT_WAIT_SECONDS
    return None


@dataclass
class _Account:
    """The operator's registration at one Openverse, and the token it was last given."""

    base_url: str
    client_id: str
    client_secret: str
    token: str = ""
    valid_until: float = 0.0

    def headers(self, tools: SourceTools) -> Mapping[str, str]:
        """Return the header that proves the account, empty when it is refused.

        A token that has run out is replaced first.
        """
        if time.monotonic() >= self.valid_until:
            self._renew(tools)
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def expire(self) -> None:
        """Forget the token, because it was refused."""
        self.token = ""
        self.valid_until = 0.0

    def _renew(self, tools: SourceTools) -> None:
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
        }
        self.expire()
        answer = tools.request(JsonRequest(tools.base_url + TOKEN_PATH, form=form))
        if isinstance(answer, JsonReply) and isinstance(answer.data, dict):
            self.token = plain_text(answer.data.get("access_token"))
            lifetime = whole_number(answer.data.get("expires_in")) or SHORTEST_TOKEN_SECONDS
            self.valid_until = time.monotonic() + lifetime - TOKEN_MARGIN_SECONDS


class OpenverseSource(Source):
    """The adapter. With the operator's account it reads larger pages, deeper and more often."""

    name = "openverse"
    default_url = "https://api.openverse.org"
    min_interval_s = 3.0
    thumbnail_hosts = ("api.openverse.org/v1/images/*/thumb*",)

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str, str], _Account] = {}

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Read page after page until enough is found or the last page is reached.

        An account that is refused is done without, and `detail` says so.
        """
        account = self._account(query, tools)
        if account is None:
            return self._read(query, tools, None)
        result = self._read(query, tools, account)
        if account.token:
            return result
        result = self._read(query, tools, None)
        detail = "the account was refused; asked without it"
        if result.detail:
            detail = f"{detail}; {result.detail}"
        return replace(result, detail=detail)

    def _account(self, query: Query, tools: SourceTools) -> _Account | None:
        credentials = query.options.credentials
        client_id = credentials.get(CLIENT_ID, "")
        client_secret = credentials.get(CLIENT_SECRET, "")
        if not client_id or not client_secret:
            return None
        key = (tools.base_url, client_id, client_secret)
        return self._accounts.setdefault(key, _Account(*key))

    def _read(self, query: Query, tools: SourceTools, account: _Account | None) -> SearchResult:
        size = PAGE_SIZE if account is None else ACCOUNT_PAGE_SIZE
        interval = self.min_interval_s if account is None else ACCOUNT_INTERVAL_SECONDS
        url = tools.base_url + SEARCH_PATH
        words = query.words[:MAX_QUERY_CHARACTERS]
        parameters = {"q": words, "page_size": str(size), "mature": "false"}

        def ask_once(number: int) -> JsonReply | FetchFailure:
            page = parameters | {"page": str(number)}
            if account is None:
                return ask(url, page, query, tools, interval)
            headers = account.headers(tools)
            if not headers:
                return FetchFailure(Reason.HTTP_ERROR, "the account was refused", 401)
            return ask(url, page, query, tools, interval, headers)

        def request(number: int, _: JsonReply | None) -> JsonReply | FetchFailure:
            """Ask, and once more with a new token when the token was refused."""
            reply = ask_once(number)
            if account and _is_refused(reply):
                account.expire()
                reply = ask_once(number)
                if _is_refused(reply):
                    account.expire()
            return reply

        def items(data: Any) -> list[Any] | None:
            return list_at(data, "results")

        def is_last(reply: JsonReply, number: int, count: int) -> bool:
            pages = whole_number(reply.data.get("page_count")) or 0
            return not count or number >= pages

        paging = Paging(
            request=request,
            items=items,
            parse=parse_item,
            is_last=is_last,
            is_past_end=lambda failure: failure.status == 404,
            used_up=seconds_to_wait,
            is_unsafe=is_mature,
        )
        return read_pages(self, query, paging)


def _is_refused(reply: JsonReply | FetchFailure) -> bool:
    return isinstance(reply, FetchFailure) and reply.status == 401
