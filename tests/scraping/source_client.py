"""One adapter asked directly, with the production's client, guard and browser, at a replica."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from scraping.net.browser import Browser, BrowserSettings
from scraping.net.http import (
    JSON_MAX_BYTES,
    FetchFailure,
    FetchSettings,
    fetch_json,
    fetch_once,
    request,
)
from scraping.sources.base import Query, SearchOptions, SearchResult, SourceTools
from scraping.sources.registry import REGISTRY
from tests.replicas.server import Replica

CONTACT = "operator@example.org"


@dataclass
class SourceClient:
    """One source at one replica. `paces` and `waits` hold the seconds that it wanted to wait.

    Its browser is the one given, or one of its own that ends with `browsers`.
    """

    source: str
    replica: Replica
    browsers: ExitStack | None = None
    paces: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    browser: Browser | None = None

    def search(
        self, words: str, limit: int = 30, seconds: float = 60, **options: object
    ) -> SearchResult:
        return REGISTRY[self.source].search(
            self.query(words, limit, seconds, **options), self.tools()
        )

    def other_names(self, words: str) -> list[str]:
        return REGISTRY[self.source].other_names(self.query(words), self.tools())

    def descriptions(self, words: str, **options: object) -> list[str] | None:
        return REGISTRY[self.source].descriptions(self.query(words, **options), self.tools())

    def query(self, words: str, limit: int = 30, seconds: float = 60, **options: object) -> Query:
        options = {"contact": CONTACT} | options
        return Query(words, limit, SearchOptions(**options), time.monotonic() + seconds)

    def tools(self) -> SourceTools:
        allowed = frozenset({self.replica.host})
        settings = FetchSettings(
            CONTACT, allowed_private_hosts=allowed, max_bytes=JSON_MAX_BYTES, deadline_seconds=10
        )

        def fetch_text(url: str) -> str | FetchFailure:
            answer = fetch_once(url, settings, accept="text/plain")
            return answer if isinstance(answer, FetchFailure) else bytes(answer.body).decode()

        return SourceTools(
            base_url=self.replica.url,
            get_json=lambda url, parameters: fetch_json(url, parameters, settings),
            fetch_text=fetch_text,
            browser=self._browser,
            pace=self.paces.append,
            wait=self.waits.append,
            request=lambda json_request: request(json_request, settings),
        )

    def _browser(self, hosts: tuple[str, ...]) -> Browser:
        if self.browser is None:
            assert self.browsers is not None, "this source wants a browser"
            self.browser = self.browsers.enter_context(
                Browser(BrowserSettings(allowed_hosts=hosts))
            )
        return self.browser


def tools_answering(answer: Callable[..., Any]) -> SourceTools:
    """Return the tools of a source whose every call is answered so, without a network."""
    return SourceTools(
        base_url="https://api.example",
        get_json=answer,
        request=answer,
        fetch_text=lambda url: "",
        browser=lambda hosts: None,
        pace=lambda seconds: None,
        wait=lambda seconds: None,
    )
