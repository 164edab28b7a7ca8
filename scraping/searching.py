"""Runs the sources: each in a thread of its own, one question at a time, with the tools it may use.

A source is synchronous and may hang in a browser; the collection is asynchronous and must be able to stop at once.
Between the two stand daemon threads: nobody waits for one at the end, and the browser is killed under it.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from yarl import URL

from scraping.browser import Browser, BrowserSettings
from scraping.config import CollectConfig
from scraping.fetch import JSON_MAX_BYTES, FetchFailure, FetchSettings, JsonReply, fetch_json, fetch_once
from scraping.sources import REGISTRY
from scraping.sources.contract import Outcome, Query, SearchOptions, SearchResult, SearchStats, SourceTools, changed

logger = logging.getLogger(__name__)

# After one of these, asking again in the same run would only make it worse.
ENDS_THE_SOURCE = frozenset({Outcome.BLOCKED, Outcome.RATE_LIMITED, Outcome.UNAVAILABLE})
QUIT_SECONDS = 10.0


class Stopped(Exception):
    """The collection is being stopped; raised out of whatever a source is doing."""


class SourceThread:
    """One daemon thread that answers for one source."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"source-{name}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # the waiting side must hear of it, whatever it is
                future.set_exception(error)

    async def run(self, call: Callable[[], Any]) -> Any:
        """Run in the thread, after what was given to it before."""
        future: Future[Any] = Future()
        self._jobs.put((future, call))
        return await asyncio.wrap_future(future)

    def finish(self, last: Callable[[], None], seconds: float) -> None:
        """Have it do one last thing and end; wait for that, but not for ever."""
        self._jobs.put((Future(), last))
        self._jobs.put(None)
        self._thread.join(seconds)


@dataclass
class _Place:
    """What the searcher keeps per source."""

    thread: SourceThread
    last_asked: float = 0.0
    browser: Browser | None = None
    ended: SearchResult | None = None
    texts: dict[str, str | FetchFailure] = field(default_factory=dict)


class Searcher:
    """Asks sources for candidates on behalf of one collection."""

    def __init__(self, config: CollectConfig, fetching: FetchSettings, stop: threading.Event) -> None:
        self._config = config
        self._fetching = replace(fetching, max_bytes=JSON_MAX_BYTES)
        self._stop = stop
        self._places: dict[str, _Place] = {}

    async def search(self, name: str, words: str, limit: int, deadline: float) -> SearchResult:
        """Ask one source. A source that was blocked or cannot run answers the same for all later questions."""
        if sentence := self._config.closed_sources.get(name):
            return SearchResult(Outcome.NOT_APPLICABLE, message=sentence, detail="closed")
        place = self._places.setdefault(name, _Place(SourceThread(name)))
        query = Query(words, limit, self._options(), deadline)

        def ask() -> SearchResult:
            if place.ended is not None:
                return replace(place.ended, candidates=())
            result = self._ask(name, query, place)
            if result.outcome in ENDS_THE_SOURCE:
                place.ended = result
            return result

        result: SearchResult = await place.thread.run(ask)
        return result

    def _ask(self, name: str, query: Query, place: _Place) -> SearchResult:
        try:
            return REGISTRY[name].search(query, self._tools(name, place))
        except Stopped:
            raise
        except Exception as error:  # an adapter that stumbles must not end the collection
            logger.exception("source %s failed", name)
            return changed(REGISTRY[name], (), SearchStats(), f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """End all browsers and threads; at once when the collection was stopped."""
        for place in self._places.values():
            if place.browser is not None and self._stop.is_set():
                place.browser.kill()
            last = place.browser.quit if place.browser is not None else _nothing
            place.thread.finish(last, QUIT_SECONDS)

    def _options(self) -> SearchOptions:
        config = self._config
        return SearchOptions(config.locale, config.license, config.robots, config.contact, config.max_side)

    def _tools(self, name: str, place: _Place) -> SourceTools:
        base_url = self._config.base_url(name)
        own = f"{URL(base_url).host}:{URL(base_url).port}" in self._config.allowed_private_hosts

        def pace(seconds: float) -> None:
            self._wait(0.0 if own else place.last_asked + seconds - time.monotonic())
            place.last_asked = time.monotonic()

        def fetch_text(url: str) -> str | FetchFailure:
            if url not in place.texts:
                answer = fetch_once(url, self._fetching, accept="text/plain")
                if isinstance(answer, FetchFailure):
                    place.texts[url] = answer
                else:
                    place.texts[url] = answer.body.decode("utf-8", errors="replace")
            return place.texts[url]

        return SourceTools(
            base_url, self._get_json, fetch_text, lambda hosts: self._browser(place, hosts), pace, self._wait
        )

    def _get_json(self, url: str, parameters: Mapping[str, str]) -> JsonReply | FetchFailure:
        self._wait(0.0)
        return fetch_json(url, parameters, self._fetching)

    def _browser(self, place: _Place, hosts: tuple[str, ...]) -> Browser:
        if place.browser is None:
            config = self._config
            place.browser = Browser(
                BrowserSettings(
                    chrome=config.chrome,
                    chromedriver=config.chromedriver,
                    remote_url=config.selenium_remote_url,
                    locale=config.locale,
                    allowed_hosts=hosts,
                )
            )
        return place.browser

    def _wait(self, seconds: float) -> None:
        """Wait, unless the collection is being stopped: then raise Stopped."""
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped


def _nothing() -> None:
    """The last job of a source without a browser."""
