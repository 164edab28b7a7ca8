"""Runs the sources: each answers one question at a time, and those with a browser share one.

A source is synchronous and may hang in a browser; the collection is asynchronous and must be able
to stop at once. Between the two stand daemon threads: nobody waits for one at the end, and the
browser is killed under it.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
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
    Candidate,
    PageResults,
    Query,
    SearchOptions,
    SearchResult,
    SourceTools,
    skipped,
)
from scraping.sources.catalogue import CATALOGUE, Outcome
from scraping.sources.registry import REGISTRY

logger = logging.getLogger(__name__)

# After one of these, asking again in the same run would only make it worse.
FINAL_OUTCOMES = frozenset({Outcome.BLOCKED, Outcome.RATE_LIMITED, Outcome.UNAVAILABLE})
ANSWERS = frozenset({Outcome.OK, Outcome.PARTIAL, Outcome.NO_RESULTS})
CONTROL_SECONDS = 30.0  # for asking a source that failed for its own sample words
MIN_CONTROL_SECONDS = 1.0
WORKS_SECONDS = 60.0
QUIT_SECONDS = 10.0
HURRIED_QUIT_SECONDS = 1.0
SNAPSHOT_FOLDER = "evidence"


class Stopped(Exception):
    """The collection is being stopped; raised out of whatever a source is doing."""


@dataclass
class _Job:
    """A call to make. The waiting job of the smallest priority is next, of equals the oldest."""

    future: Future[Any]
    call: Callable[[], Any]
    priority: Callable[[], float]


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
            job = min(self._jobs, key=lambda job: job.priority())
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

    async def run(self, call: Callable[[], Any], priority: Callable[[], float]) -> Any:
        """Run in the thread, when no job waits whose priority is a smaller number then."""
        future: Future[Any] = Future()
        self._put(_Job(future, call, priority))
        return await asyncio.wrap_future(future)

    def finish(self, last: Callable[[], None], seconds: float) -> None:
        """Have it do one last thing and end; wait for that, but not for ever."""
        self._put(_Job(Future(), last, lambda: math.inf))
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(seconds)


@dataclass
class _SourceState:
    """What the searcher keeps per source.

    `final` is the result after which it is not asked again, `texts` what was fetched by URL.
    `failed_words` are those with which it failed; `is_faulty` when its own sample words were among
    them. If it worked with those, it is believed until `works_until` on the monotonic clock.
    """

    thread: SourceThread
    last_asked: float = 0.0
    browser: Browser | None = None
    final: SearchResult | None = None
    texts: dict[str, str | FetchFailure] = field(default_factory=dict)
    failed_words: set[str] = field(default_factory=set)
    is_faulty: bool = False
    works_until: float = 0.0


class Searcher:
    """Asks sources for candidates on behalf of one collection.

    What a source did not understand is saved in `evidence/` of the folder.
    """

    def __init__(
        self,
        config: CollectConfig,
        fetching: FetchSettings,
        stop: threading.Event,
        folder: Path | None = None,
        supplied: Mapping[tuple[str, str], Sequence[Candidate]] | None = None,
    ) -> None:
        """`supplied` is what the person supplies who asks, by source and name of the class."""
        self._config = config
        self._fetching = replace(fetching, max_bytes=JSON_MAX_BYTES)
        self._stop = stop
        self._folder = folder
        self._supplied = supplied or {}
        self._threads: dict[str, SourceThread] = {}
        self._states: dict[str, _SourceState] = {}
        self._browser_lock: BrowserLock | None = None
        if folder is not None and config.browser_turns:
            self._browser_lock = BrowserLock(folder, self._wait)

    async def search(
        self,
        name: str,
        words: str,
        limit: int,
        deadline: float,
        priority: Callable[[], float] = lambda: 0.0,
    ) -> SearchResult:
        """Ask one source for at most `limit` candidates, before a time of the monotonic clock.

        A source that was blocked or cannot run answers the same for all later questions. Of
        several questions that wait for a source, the one of the smallest `priority` is put next.
        """
        if sentence := self._config.closed_sources.get(name):
            return SearchResult(Outcome.NOT_APPLICABLE, message=sentence, detail="closed")
        state = self._state(name)
        query = Query(words, limit, self._options(), deadline)

        def ask() -> SearchResult:
            if state.final is not None:
                return replace(state.final, candidates=())
            result = self._ask_with_browser_lock(name, query, state)
            if result.outcome in FINAL_OUTCOMES and result.closes:
                state.final = result
            return result

        result: SearchResult = await state.thread.run(ask, priority)
        return result

    async def other_names(self, name: str, words: str, deadline: float) -> list[str]:
        """Return other names that a source knows for the words.

        None come from a source that was closed, is not asked any more, or fails.
        """
        names = await self._hint(name, words, deadline, REGISTRY[name].other_names)
        return names or []

    async def descriptions(self, name: str, words: str, deadline: float) -> list[str] | None:
        """Return a few words on each thing that a source knows by exactly this name.

        None when it does not say: it was closed, is not asked any more, or fails.
        """
        return await self._hint(name, words, deadline, REGISTRY[name].descriptions)

    async def _hint(
        self,
        name: str,
        words: str,
        deadline: float,
        find: Callable[[Query, SourceTools], list[str] | None],
    ) -> list[str] | None:
        """Ask a source for what helps a search and is no search itself; None when it cannot be."""
        if name in self._config.closed_sources or CATALOGUE[name].uses_browser:
            return None
        state = self._state(name)
        query = Query(words, 1, self._options(), deadline)

        def ask() -> list[str] | None:
            if state.final is not None:
                return None
            try:
                return find(query, self._tools(name, state))
            except Stopped:
                raise
            except Exception:  # a hint that cannot be had must not end the collection
                logger.exception("source %s failed to give a hint", name)
                return None

        hints: list[str] | None = await state.thread.run(ask, lambda: 0.0)
        return hints

    def _state(self, name: str) -> _SourceState:
        if name not in self._states:
            thread_name = "browser" if CATALOGUE[name].uses_browser else name
            if thread_name not in self._threads:
                self._threads[thread_name] = SourceThread(thread_name)
            self._states[name] = _SourceState(self._threads[thread_name])
        return self._states[name]

    def _ask_with_browser_lock(self, name: str, query: Query, state: _SourceState) -> SearchResult:
        """Ask; a source with a browser only while this collection holds the browser lock."""
        if self._browser_lock is None or not CATALOGUE[name].uses_browser:
            return self._ask(name, query, state)
        if not self._browser_lock.acquire(query.deadline):
            reason = "the browser was in use for other requests until the end"
            return skipped(REGISTRY[name], reason)
        try:
            return self._ask(name, query, state)
        finally:
            if not state.thread.waiting:
                self._browser_lock.release()

    def _ask(self, name: str, query: Query, state: _SourceState) -> SearchResult:
        """Ask, and after a failure find out whether the words or the source are to blame.

        One person's words must not close a source for everybody, so a failure counts against the
        source only where it also fails with its own sample words.
        """
        result = self._search(name, query, state)
        sample_words = REGISTRY[name].sample_words
        if not result.may_be_words or query.words == sample_words or state.is_faulty:
            return result
        moment = time.monotonic()
        state.failed_words.add(query.words)
        is_silent = result.outcome in (Outcome.NETWORK, Outcome.TIMEOUT)
        if is_silent and len(state.failed_words) == 1:  # it was asked several times already
            return replace(result, closes=False)
        if moment >= state.works_until:
            deadline = min(query.deadline, moment + CONTROL_SECONDS)
            if deadline - moment < MIN_CONTROL_SECONDS:
                return _without_blame(name, query, result)
            control_query = replace(query, words=sample_words, limit=1, deadline=deadline)
            control = self._search(name, control_query, state)
            if control.outcome is Outcome.RATE_LIMITED:
                return replace(control, candidates=result.candidates)
            if control.outcome not in ANSWERS:
                state.is_faulty = True
                return result
            state.works_until = time.monotonic() + WORKS_SECONDS
        return _without_blame(name, query, result)

    def _search(self, name: str, query: Query, state: _SourceState) -> SearchResult:
        source = REGISTRY[name]
        try:
            return source.search(query, self._tools(name, state))
        except Stopped:
            raise
        except Exception as error:  # an adapter that stumbles must not end the collection
            logger.exception("source %s failed", name)
            return PageResults(source, query).changed(f"{type(error).__name__}: {error}")

    def close(self, at_once: bool = False) -> None:
        """End all browsers and threads; at once when the collection was stopped, or if asked to."""
        browsers = [state.browser for state in self._states.values() if state.browser is not None]
        seconds = HURRIED_QUIT_SECONDS if at_once else QUIT_SECONDS
        if at_once or self._stop.is_set():
            for browser in browsers:
                browser.kill()

        def quit_browsers() -> None:
            for browser in browsers:
                browser.quit()

        for name, thread in self._threads.items():
            last = quit_browsers if name == "browser" else lambda: None
            thread.finish(last, seconds)
        if self._browser_lock is not None:
            self._browser_lock.release()

    def _options(self) -> SearchOptions:
        config = self._config
        snapshot_dir = ""
        if self._folder is not None:
            snapshot_dir = str(self._folder / SNAPSHOT_FOLDER)
        return SearchOptions(
            locale=config.locale,
            license=config.license,
            robots=config.robots,
            contact=config.contact,
            max_side=config.max_side,
            credentials=config.credentials,
            snapshot_dir=snapshot_dir,
            supplied=self._supplied,
        )

    def _tools(self, name: str, state: _SourceState) -> SourceTools:
        base_url = self._config.base_url(name)
        host = f"{URL(base_url).host}:{URL(base_url).port}"
        is_own_host = host in self._config.allowed_private_hosts

        def pace(seconds: float) -> None:
            if is_own_host:
                seconds = 0.0
            self._wait(state.last_asked + seconds - time.monotonic())
            state.last_asked = time.monotonic()

        def fetch_text(url: str) -> str | FetchFailure:
            if url not in state.texts:
                answer = fetch_once(url, self._fetching, accept="text/plain")
                if isinstance(answer, FetchFailure):
                    state.texts[url] = answer
                else:
                    state.texts[url] = answer.body.decode("utf-8", errors="replace")
            return state.texts[url]

        return SourceTools(
            base_url=base_url,
            get_json=self._get_json,
            fetch_text=fetch_text,
            browser=lambda hosts: self._browser(state, hosts),
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

    def _browser(self, state: _SourceState, hosts: tuple[str, ...]) -> Browser:
        """Return the browser of a source; those of others end, as each has hosts of its own."""
        for other in list(self._states.values()):
            if other is not state and other.browser is not None:
                other.browser.quit()
        if state.browser is None:
            config = self._config
            state.browser = Browser(
                BrowserSettings(
                    chrome=config.chrome,
                    chromedriver=config.chromedriver,
                    remote_url=config.selenium_remote_url,
                    locale=config.locale,
                    allowed_hosts=hosts,
                )
            )
        return state.browser

    def _wait(self, seconds: float) -> None:
        """Wait, unless the collection is being stopped: then raise Stopped."""
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped


def _without_blame(name: str, query: Query, result: SearchResult) -> SearchResult:
    """Return a failure that does not close the source, in a sentence that does not blame it."""
    message = result.message
    if result.outcome in (Outcome.BLOCKED, Outcome.LAYOUT_CHANGED):
        message = f"{REGISTRY[name].label} cannot be asked for “{query.words}”."
    return replace(result, message=message, closes=False)
