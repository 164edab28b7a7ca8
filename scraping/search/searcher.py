"""Runs the sources: one question at a time to each, one browser at a time, with the tools they may
use.

A source is synchronous and may hang in a browser; the collection is asynchronous and must be able
to stop at once. Between the two stand daemon threads: nobody waits for one at the end, and the
browser is killed under it.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from yarl import URL

from scraping.config import CollectConfig
from scraping.net.browser import Browser, BrowserSettings
from scraping.net.browser_lock import BrowserLock
from scraping.net.http import (
    JSON_MAX_BYTES,
    FetchFailure,
    FetchSettings,
    JsonReply,
    JsonRequest,
    fetch_json,
    fetch_once,
    request,
)
from scraping.sources.base import (
    Query,
    SearchOptions,
    SearchResult,
    SearchStats,
    SourceTools,
    changed,
)
from scraping.sources.catalogue import CATALOGUE, Outcome
from scraping.sources.registry import REGISTRY

logger = logging.getLogger(__name__)

# After one of these, asking again in the same run would only make it worse.
ENDS_THE_SOURCE = frozenset({Outcome.BLOCKED, Outcome.RATE_LIMITED, Outcome.UNAVAILABLE})
QUIT_SECONDS = 10.0
SNAPSHOTS = "evidence"  # the folder's name is part of the product


class Stopped(Exception):
    """The collection is being stopped; raised out of whatever a source is doing."""


@dataclass
class _Job:
    """One thing to do: the most urgent of those that wait is done next, and of equals the
    oldest.
    """

    future: Future[Any]
    call: Callable[[], Any]
    urgency: Callable[[], float]


class SourceThread:
    """One daemon thread that answers for one source, or for all that share the browser."""

    def __init__(self, name: str) -> None:
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name=f"source-{name}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.future.set_result(job.call())
            except BaseException as error:  # the waiting side must hear of it, whatever it is
                job.future.set_exception(error)

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._ended)
            if not self._jobs:
                return None
            job = min(self._jobs, key=lambda job: job.urgency())
            self._jobs.remove(job)
            return job

    @property
    def waiting(self) -> int:
        """How many jobs wait that nobody has given up."""
        with self._changed:
            return sum(not job.future.cancelled() for job in self._jobs)

    def _put(self, job: _Job) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    async def run(self, call: Callable[[], Any], urgency: Callable[[], float]) -> Any:
        """Run in the thread when nothing waits that is more urgent, which is what has the smaller
        number then.
        """
        future: Future[Any] = Future()
        self._put(_Job(future, call, urgency))
        return await asyncio.wrap_future(future)

    def finish(self, last: Callable[[], None], seconds: float) -> None:
        """Have it do one last thing and end; wait for that, but not for ever."""
        self._put(_Job(Future(), last, lambda: math.inf))
        with self._changed:
            self._ended = True
            self._changed.notify()
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
    """Asks sources for candidates on behalf of one collection.

    Each source answers one question at a time, and of those that need the browser one at a time
    answers. What a source did not understand is saved in `evidence/` of the folder.
    """

    def __init__(
        self,
        config: CollectConfig,
        fetching: FetchSettings,
        stop: threading.Event,
        folder: Path | None = None,
    ) -> None:
        self._config = config
        self._fetching = replace(fetching, max_bytes=JSON_MAX_BYTES)
        self._stop = stop
        self._folder = folder
        self._threads: dict[str, SourceThread] = {}
        self._places: dict[str, _Place] = {}
        self._browser_lock = (
            BrowserLock(folder, self._wait) if folder is not None and config.browser_turns else None
        )

    async def search(
        self,
        name: str,
        words: str,
        limit: int,
        deadline: float,
        urgency: Callable[[], float] = lambda: 0.0,
    ) -> SearchResult:
        """Ask one source. A source that was blocked or cannot run answers the same for all later
        questions.

        Of several questions that wait for a source, the one with the smallest `urgency` is put
        next.
        """
        if sentence := self._config.closed_sources.get(name):
            return SearchResult(Outcome.NOT_APPLICABLE, message=sentence, detail="closed")
        place = self._place(name)
        query = Query(words, limit, self._options(), deadline)

        def ask() -> SearchResult:
            if place.ended is not None:
                return replace(place.ended, candidates=())
            result = self._ask_in_turn(name, query, place)
            if result.outcome in ENDS_THE_SOURCE:
                place.ended = result
            return result

        result: SearchResult = await place.thread.run(ask, urgency)
        return result

    async def other_names(self, name: str, words: str, deadline: float) -> list[str]:
        """Other names that a source knows for the words; none from a source that was closed, ended
        or fails.
        """
        if name in self._config.closed_sources or CATALOGUE[name].uses_browser:
            return []
        place = self._place(name)
        query = Query(words, 1, self._options(), deadline)

        def ask() -> list[str]:
            if place.ended is not None:
                return []
            try:
                return REGISTRY[name].other_names(query, self._tools(name, place))
            except Stopped:
                raise
            except Exception:  # a hint that cannot be had must not end the collection
                logger.exception("source %s failed to name other names", name)
                return []

        names: list[str] = await place.thread.run(ask, lambda: 0.0)
        return names

    def _place(self, name: str) -> _Place:
        thread_name = "browser" if CATALOGUE[name].uses_browser else name
        if name not in self._places:
            if thread_name not in self._threads:
                self._threads[thread_name] = SourceThread(thread_name)
            self._places[name] = _Place(self._threads[thread_name])
        return self._places[name]

    def _ask_in_turn(self, name: str, query: Query, place: _Place) -> SearchResult:
        """Ask, but a browser source only while it is this collection's turn to use the browser."""
        if self._browser_lock is None or not CATALOGUE[name].uses_browser:
            return self._ask(name, query, place)
        if not self._browser_lock.acquire(query.deadline):
            message = f"{REGISTRY[name].label} was skipped: the browser was in use for other requests until the end."
            return SearchResult(Outcome.NOT_APPLICABLE, message=message)
        try:
            return self._ask(name, query, place)
        finally:
            if not place.thread.waiting:
                self._browser_lock.release()

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
        browsers = [place.browser for place in self._places.values() if place.browser is not None]
        if self._stop.is_set():
            for browser in browsers:
                browser.kill()
        for name, thread in self._threads.items():
            thread.finish(partial(_quit_all, browsers if name == "browser" else []), QUIT_SECONDS)
        if self._browser_lock is not None:
            self._browser_lock.release()

    def _options(self) -> SearchOptions:
        config = self._config
        return SearchOptions(
            locale=config.locale,
            license=config.license,
            robots=config.robots,
            contact=config.contact,
            max_side=config.max_side,
            credentials=config.credentials,
            snapshot_dir=str(self._folder / SNAPSHOTS) if self._folder is not None else "",
        )

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
            base_url=base_url,
            get_json=self._get_json,
            fetch_text=fetch_text,
            browser=lambda hosts: self._browser(place, hosts),
            pace=pace,
            wait=self._wait,
            request=self._request,
        )

    def _get_json(self, url: str, parameters: Mapping[str, str]) -> JsonReply | FetchFailure:
        self._wait(0.0)
        return fetch_json(url, parameters, self._fetching)

    def _request(self, json_request: JsonRequest) -> JsonReply | FetchFailure:
        self._wait(0.0)
        return request(json_request, self._fetching)

    def _browser(self, place: _Place, hosts: tuple[str, ...]) -> Browser:
        for other in list(self._places.values()):
            if other is not place and other.browser is not None:
                # each may go to its own hosts alone, and one at a time is enough
                other.browser.quit()
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


def _quit_all(browsers: list[Browser]) -> None:
    """The last job of a thread."""
    for browser in browsers:
        browser.quit()
