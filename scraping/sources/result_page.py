"""Result pages read in a real browser: what Bing and Google share."""

import re
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import Remote
from urllib3.exceptions import HTTPError

from scraping.net.browser import PAGE_LOAD_SECONDS, Browser, BrowserUnavailable
from scraping.outside import query_parameters
from scraping.sources.base import PageResults, Query, SearchResult, Source, SourceTools
from scraping.sources.catalogue import Outcome
from scraping.sources.snapshots import save_page

EMPTY_WAIT_SECONDS = 3.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class PageState:
    """What a page shows right now, as a script in it tells.

    `count` is the number of tiles, `results` whether their container is there, `text` the
    beginning of the visible text, `status` the HTTP status of the page, 0 when unknown.
    """

    count: int
    results: bool
    search_box: bool
    url: str
    text: str
    status: int


State = TypeVar("State", bound=PageState)


class PageReader(ABC, Generic[State]):
    """One reading of a result page.

    A browser that is lost on the way is replaced, and the page read again with what was found.
    """

    tile: str  # the CSS selector of one result
    safe_parameter: tuple[str, str]  # of the page's address, by which safe search is strict
    unsafe_text: re.Pattern[str]  # by which the page says that it is not

    def __init__(self, source: Source, query: Query, tools: SourceTools, address: str) -> None:
        self.source = source
        self.query = query
        self.tools = tools
        self.address = address
        self.results = PageResults(source, query)

    @abstractmethod
    def state(self, driver: Remote) -> State:
        """Return what the page shows right now."""

    @abstractmethod
    def read_tiles(self, driver: Remote, state: State) -> SearchResult:
        """Read the results of a page that shows at least one tile."""

    @staticmethod
    @abstractmethod
    def classify_empty(state: State) -> Outcome:
        """Return what a page without a single tile means."""

    def run(self, browser: Browser, images: bool = False) -> SearchResult:
        """Read the page, with its images or without; whatever the browser does, return a result."""
        try:
            return browser.run(self._read, images=images)
        except BrowserUnavailable as error:
            return self._browser_failed(Outcome.UNAVAILABLE, str(error), error)
        except TimeoutException as error:
            message = f"{self.source.label} did not answer in time."
            return self._browser_failed(Outcome.TIMEOUT, message, error)
        except (WebDriverException, HTTPError) as error:
            message = f"{self.source.label} did not answer."
            return self._browser_failed(Outcome.NETWORK, message, error)

    def _browser_failed(self, outcome: Outcome, message: str, error: Exception) -> SearchResult:
        text = str(getattr(error, "msg", None) or error)
        detail = text.partition("\n")[0]
        may_be_words = outcome is not Outcome.UNAVAILABLE
        return self.results.end(outcome, message, detail, may_be_words=may_be_words)

    def _read(self, driver: Remote) -> SearchResult:
        self.tools.pace(self.source.min_interval_s)
        loaded = open_page(driver, self.address, self.query)
        state = self.first_state(driver)
        if state.count and not self.is_safe(state):
            return self.results.unsafe(f"no strict safe search at {state.url}")
        if state.count:
            self.results.stats.pages = 1
            return self.read_tiles(driver, state)
        if not loaded:
            return self.results.out_of_time()
        return self.without_tiles(driver, state)

    def is_safe(self, state: State) -> bool:
        """Return whether the page that is shown was searched strictly.

        A site that leads elsewhere, or says that its safe search is off, has not.
        """
        name, value = self.safe_parameter
        is_asked_for = query_parameters(state.url).get(name) == value
        return is_asked_for and not self.unsafe_text.search(state.text)

    def first_state(self, driver: Remote) -> State:
        """Return the page as soon as it shows tiles.

        The container of the results may stay empty for a moment.
        """
        until = time.monotonic() + EMPTY_WAIT_SECONDS
        state = self.state(driver)
        while not state.count and state.results and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            state = self.state(driver)
        return state

    def without_tiles(self, driver: Remote, state: State) -> SearchResult:
        """Return the result for a page without a single tile."""
        results = self.results
        outcome = self.classify_empty(state)
        if outcome is Outcome.BLOCKED:
            return results.blocked(urlsplit(state.url).path, may_be_words=state.status == 403)
        if outcome is Outcome.RATE_LIMITED:
            return results.rate_limited(None, state.url)
        if outcome is Outcome.NO_RESULTS:
            return results.finished("no results")
        if outcome is Outcome.NETWORK:
            message = f"{self.source.label} did not answer."
            detail = f"status {state.status}"
            return results.end(outcome, message, detail, may_be_words=True)
        return self.changed(driver, f"no {self.tile} at {state.url}")

    def changed(self, driver: Remote, detail: str) -> SearchResult:
        """Return the result for a page that is not understood, and save the page."""
        return self.results.changed(detail, self._snapshot(driver))

    def _snapshot(self, driver: Remote) -> str:
        if not self.query.options.snapshot_dir:
            return ""
        try:
            page = driver.page_source
            screenshot = driver.get_screenshot_as_png()
            return save_page(self.source, self.query, page, screenshot)
        except (WebDriverException, HTTPError, OSError):
            return ""  # a snapshot is a courtesy: the outcome stands without it


def classify_page(state: PageState, human_check: bool, no_results_text: re.Pattern[str]) -> Outcome:
    """Return what a page without a single tile means.

    Its status and visible text decide, never its source: good pages contain the same words.
    """
    if human_check or state.status == 403:
        return Outcome.BLOCKED
    if state.status == 429:
        return Outcome.RATE_LIMITED
    if state.status >= 500:
        return Outcome.NETWORK
    if state.search_box and (state.results or no_results_text.search(state.text)):
        return Outcome.NO_RESULTS
    return Outcome.LAYOUT_CHANGED


def allowed_hosts(base_url: str, domain: str, own: tuple[str, ...]) -> tuple[str, ...]:
    """Return where the browser may go.

    These are the source's `own` hosts if the base URL is of its domain, else exactly the host and
    port of the replica or mirror.
    """
    parts = urlsplit(base_url)
    if (parts.hostname or "").endswith(domain):
        return own
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (f"{parts.scheme}://{parts.hostname}:{port}",)


def open_page(driver: Remote, address: str, query: Query) -> bool:
    """Open a page within the time left; False when only a part of it came in time.

    The page before is left first: else a page that never comes would be taken for it.
    """
    driver.get("about:blank")
    seconds = min(PAGE_LOAD_SECONDS, query.seconds_left())
    driver.set_page_load_timeout(max(1.0, seconds))
    try:
        driver.get(address)
    except TimeoutException:
        driver.execute_script("window.stop()")
        return False
    return True
