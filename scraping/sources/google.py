"""Google Images, read in a real browser: each result is opened with one ordinary click, as a reader
would.

Off unless the operator asks for it, and then the last to be asked: its rules exclude programs, it
shows a human check soon, and its pages change often. A human check ends the search; nothing is done
to get around one. What the pages look like stands in SELECTORS and nowhere else.
"""

import re
import time
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver import Remote
from selenium.webdriver.common.by import By

from scraping.sources.base import (
    Candidate,
    Query,
    SearchResult,
    SearchStats,
    Source,
    SourceTools,
    blocked,
    changed,
    finished,
    rate_limited,
)
from scraping.sources.catalogue import Outcome
from scraping.sources.result_page import exact_host, keep_page, late, open_page, visited
from scraping.sources.robots import robots_refusal
from scraping.urls import normalized_url

SELECTORS_AS_OF = "2026-08"
SELECTORS = {
    "tile": 'div[jsname="dTDiAc"]',
    "panel": 'div[jsname="figiqf"]',
    "link": 'a[href*="/imgres?"]',
    "consent_reject": (
        '#W0wltc, button[aria-label="Reject all"], input[aria-label="Reject all"], button[value="Reject"]'
    ),
    "captcha": '#captcha-form, iframe[src*="recaptcha"]',
    "results": "#search, #rso, #islrg",
    "search_box": 'textarea[name="q"], input[name="q"]',
}
BLOCKED_HOSTS = frozenset({"sorry.google.com", "ipv4.google.com"})
BLOCKED_PATHS = re.compile(r"^/sorry|^/httpservice/retry/enablejs")
BLOCKED_TEXT = re.compile(r"unusual traffic", re.IGNORECASE)
NO_RESULTS_TEXT = re.compile(r"did not match any|no results found|didn't match any", re.IGNORECASE)
CONSENT_PATHS = re.compile(r"^/(?:ml|m)$")
THUMBNAIL = re.compile(
    r"^https?://(?:encrypted-tbn\d*\.|[^/]*\.)?(?:gstatic|google|googleusercontent)\.com/",
    re.IGNORECASE,
)
SMALLEST_TILE = 47  # icons are smaller
MOST_TILES = 100  # about as many as one search shows
CLICK_SECONDS = 1.0
OPEN_SECONDS = 5.0
CONSENT_SECONDS = 10.0
EMPTY_WAIT_SECONDS = 3.0
GROWTH_SECONDS = 2.5
STALE_ROUNDS = 3
POLL_SECONDS = 0.1
UNOPENED_TILES = 3  # so many clicks without any panel mean that clicking works no more
DRIFT_TILES = 10

READ_PAGE = """
const s = arguments[0], smallest = arguments[1];
const shown = (e) => !!e && e.getClientRects().length > 0 && getComputedStyle(e).visibility !== 'hidden';
const any = (selector) => Array.from(document.querySelectorAll(selector)).some(shown);
const picture = (tile) => Array.from(tile.querySelectorAll('img')).find(
  (i) => i.alt && Math.max(i.naturalWidth, i.width, i.height) >= smallest);
const entry = performance.getEntriesByType('navigation')[0];
return {
  tiles: Array.from(document.querySelectorAll(s.tile)).map((tile) => {
    const image = picture(tile);
    return image ? [tile.getAttribute('data-lpage') || '', image.alt, image.getAttribute('src') || ''] : null;
  }),
  panels: document.querySelectorAll(s.panel).length,
  reject: any(s.consent_reject),
  captcha: any(s.captcha),
  results: !!document.querySelector(s.results),
  search_box: !!document.querySelector(s.search_box),
  url: location.href,
  text: (document.body ? document.body.innerText : '').slice(0, 4000),
  status: entry && entry.responseStatus || 0,
};
"""
READ_PANEL = """
const s = arguments[0], panels = document.querySelectorAll(s.panel), panel = panels[panels.length - 1];
const tile = document.querySelectorAll(s.tile)[arguments[1]];
const link = (panel && panel.querySelector(s.link)) || (tile && tile.querySelector(s.link));
return {
  panels: panels.length,
  images: panel ? Array.from(panel.querySelectorAll('img')).map(
    (i) => [i.currentSrc || i.src || '', i.naturalWidth, i.naturalHeight]) : [],
  link: link ? link.href : '',
  url: location.href,
};
"""
BRING_INTO_VIEW = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'});"
TO_THE_END = (
    "window.scrollTo(0, document.body.scrollHeight); window.dispatchEvent(new Event('scroll'));"
)


@dataclass(frozen=True)
class PageState:
    """What the page shows right now. `tiles`: landing page, caption and thumbnail of each, None for
    mere icons.
    """

    tiles: list[list[str] | None]
    panels: int
    reject: bool
    captcha: bool
    results: bool
    search_box: bool
    url: str
    text: str
    status: int


@dataclass(frozen=True)
class Panel:
    """The panel opened last. `images`: address, width and height of each; `link` may name the
    original.
    """

    panels: int
    images: list[list[Any]]
    link: str
    url: str


def search_url(base_url: str, words: str, locale: str) -> str:
    """Address of the result page, with the strictest safe search."""
    language, _, country = locale.partition("-")
    address = f"{base_url}/search?q={quote(words)}&udm=2&hl={quote(language)}&safe=active"
    return f"{address}&gl={quote(country.lower())}" if country else address


def allowed_hosts(base_url: str) -> tuple[str, ...]:
    """Where the browser may go: Google's own hosts, or exactly the host and port of a replica."""
    if (urlsplit(base_url).hostname or "").endswith("google.com"):
        return (
            "https://*.google.com:443",
            "https://*.gstatic.com:443",
            "https://*.googleusercontent.com:443",
        )
    return exact_host(base_url)


def is_original(address: str) -> bool:
    """Whether a shown picture is the original and no preview kept by Google."""
    return address.lower().startswith(("http://", "https://")) and not THUMBNAIL.match(address)


def parse_panel(panel: Panel) -> tuple[str, int | None, int | None] | None:
    """Address, width and height of the original, None while the panel shows only its preview."""
    for address, width, height in panel.images:
        if is_original(address) and max(width, height) >= SMALLEST_TILE:
            return address, width, height
    given = parse_qs(urlsplit(panel.link).query)
    address = given.get("imgurl", [""])[0]
    if not is_original(address):
        return None
    width, height = given.get("w", [""])[0], given.get("h", [""])[0]
    return (
        address,
        int(width) if width.isdecimal() else None,
        int(height) if height.isdecimal() else None,
    )


def classify_empty(state: PageState) -> Outcome:
    """What a page without a single tile means. Its source is never searched: good pages contain the
    same words.
    """
    parts = urlsplit(state.url)
    if parts.hostname in BLOCKED_HOSTS or BLOCKED_PATHS.search(parts.path):
        return Outcome.BLOCKED
    if state.captcha or BLOCKED_TEXT.search(state.text) or on_consent_page(state.url):
        return Outcome.BLOCKED
    if state.status == 429:
        return Outcome.RATE_LIMITED
    if state.status == 403:
        return Outcome.BLOCKED
    if state.status >= 500:
        return Outcome.NETWORK
    if state.search_box and (state.results or NO_RESULTS_TEXT.search(state.text)):
        return Outcome.NO_RESULTS
    return Outcome.LAYOUT_CHANGED


def on_consent_page(url: str) -> bool:
    """Whether the search was redirected to the question about cookies."""
    parts = urlsplit(url)
    return (parts.hostname or "").startswith("consent.") or CONSENT_PATHS.search(
        parts.path
    ) is not None


@dataclass
class Gathering:
    """What the clicks have brought so far; tiles tried are not tried again after the browser was
    lost.
    """

    words: str
    found: dict[str, Candidate] = field(default_factory=dict)
    stats: SearchStats = field(default_factory=SearchStats)
    opened: int = 0

    def keep(self, tile: list[str], original: tuple[str, int | None, int | None]) -> None:
        """Add the original of a tile, unless it is known."""
        page, caption, thumbnail = tile
        address, width, height = original
        candidate = Candidate(
            image_url=address,
            source="google",
            query=self.words,
            rank=len(self.found) + 1,
            page_url=page if page.startswith(("http://", "https://")) else "",
            thumb_url=thumbnail if thumbnail.startswith("https://") else "",
            title=caption,
            width=width,
            height=height,
        )
        self.found.setdefault(normalized_url(address), replace(candidate))

    def candidates(self) -> tuple[Candidate, ...]:
        """All found, best first."""
        return tuple(self.found.values())


class GoogleSource(Source):
    """The adapter."""

    name = "google"
    default_url = "https://www.google.com"
    min_interval_s = 5.0
    thumbnail_hosts = (
        "encrypted-tbn*.gstatic.com/*",
        "*.gstatic.com/images*",
        "lh*.googleusercontent.com/*=w*",
    )

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Open one result after the other until enough is found or none is left."""
        if query.options.license == "open":
            message = "Google Images was skipped: it does not state the licence of each picture."
            return SearchResult(Outcome.NOT_APPLICABLE, message=message)
        address = search_url(tools.base_url, query.words, query.options.locale)
        if refusal := robots_refusal(self, query, tools, (address.removeprefix(tools.base_url),)):
            return refusal
        gathering = Gathering(query.words)
        visit = _Visit(self, query, tools, gathering)
        browser = tools.browser(allowed_hosts(tools.base_url))
        return visited(
            self, browser, lambda driver: visit.read(driver, address), gathering, images=True
        )


@dataclass(frozen=True)
class _Visit:
    """One reading of the result page with one browser."""

    source: GoogleSource
    query: Query
    tools: SourceTools
    gathering: Gathering

    def read(self, driver: Remote, address: str) -> SearchResult:
        self.tools.pace(self.source.min_interval_s)
        in_time = open_page(driver, address, self.query)
        state = self._refuse_cookies(driver, self._first_state(driver))
        if not state.tiles:
            return (
                self._without_tiles(driver, state) if in_time else late(self.source, self.gathering)
            )
        self.gathering.stats.pages = 1
        return self._open_all(driver, state)

    def _first_state(self, driver: Remote) -> PageState:
        until = time.monotonic() + EMPTY_WAIT_SECONDS
        state = _state(driver)
        while not state.tiles and state.results and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            state = _state(driver)
        return state

    def _refuse_cookies(self, driver: Remote, state: PageState) -> PageState:
        """Answer the question about cookies with no, and wait until the results are back."""
        if not state.reject:
            return state
        buttons = driver.find_elements(By.CSS_SELECTOR, SELECTORS["consent_reject"])
        _click_first(driver, [button for button in buttons if button.is_displayed()])
        until = time.monotonic() + CONSENT_SECONDS
        while time.monotonic() < until:
            state = _state(driver)
            if not state.reject and not on_consent_page(state.url):
                return self._first_state(driver)
            time.sleep(POLL_SECONDS)
        return state

    def _open_all(self, driver: Remote, state: PageState) -> SearchResult:
        stale, tried, stats = 0, 0, self.gathering.stats
        while stale < STALE_ROUNDS and tried < MOST_TILES:
            if end := self._open_these(driver, state, tried) or self._end(driver):
                return end
            tried = len(state.tiles)
            stats.rounds += 1
            state = self._grown(driver, tried)
            stale = 0 if len(state.tiles) > tried else stale + 1
        stats.ended_by = "nothing new" if stale else "tiles"
        if not self.gathering.found:
            return self._stuck(driver, f"none of {stats.seen} results showed its original")
        return finished(self.source, self.query, self.gathering.candidates(), stats)

    def _open_these(self, driver: Remote, state: PageState, start: int) -> SearchResult | None:
        """Open the tiles from `start` on, one after the other; the result when there was reason to
        stop.
        """
        for index, tile in enumerate(state.tiles[:MOST_TILES]):
            if index >= start and tile is not None:
                if end := self._end(driver):
                    return end
                self._open(driver, index, tile)
        return None

    def _end(self, driver: Remote) -> SearchResult | None:
        """The result when there is reason to stop now."""
        stats, found = self.gathering.stats, self.gathering.candidates()
        if len(found) >= self.query.limit:
            stats.ended_by = "limit"
            return finished(self.source, self.query, found, stats)
        if stats.seen >= UNOPENED_TILES and not self.gathering.opened:
            return self._stuck(driver, f"no {SELECTORS['panel']} after {stats.seen} clicks")
        if stats.seen >= DRIFT_TILES and stats.dropped * 2 > stats.seen:
            return self._stuck(
                driver, f"{stats.dropped} of {stats.seen} results showed no original"
            )
        if not self.query.seconds_left():
            stats.ended_by = "deadline"
            return late(self.source, self.gathering)
        return None

    def _stuck(self, driver: Remote, detail: str) -> SearchResult:
        """Clicks bring nothing: a human check in between, or a page that works otherwise now."""
        state = _state(driver)
        if not state.tiles:
            return self._without_tiles(driver, state)
        return self._changed(driver, detail)

    def _open(self, driver: Remote, index: int, tile: list[str]) -> None:
        """Click one tile, once, and keep the original if it comes."""
        self.tools.pace(CLICK_SECONDS)
        stats = self.gathering.stats
        stats.seen += 1
        before = _panel(driver, index).panels
        tiles = driver.find_elements(By.CSS_SELECTOR, SELECTORS["tile"])
        original = None
        if _click_first(driver, tiles[index : index + 1]):
            original = self._original(driver, index, before)
        if original is None:
            stats.dropped += 1
        else:
            self.gathering.keep(tile, original)

    def _original(
        self, driver: Remote, index: int, before: int
    ) -> tuple[str, int | None, int | None] | None:
        """Wait until the panel shows the original instead of its preview; None when it does not
        come.
        """
        until = time.monotonic() + min(OPEN_SECONDS, self.query.seconds_left())
        opened = False
        while time.monotonic() < until:
            panel = _panel(driver, index)
            opened = opened or panel.panels > before
            if opened and (original := parse_panel(panel)):
                self.gathering.opened += 1
                return original
            time.sleep(POLL_SECONDS)
        self.gathering.opened += opened
        return None

    def _grown(self, driver: Remote, known: int) -> PageState:
        """Scroll to the end and wait for more tiles."""
        driver.execute_script(TO_THE_END)
        until = time.monotonic() + GROWTH_SECONDS
        state = _state(driver)
        while len(state.tiles) <= known and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            state = _state(driver)
        return state

    def _without_tiles(self, driver: Remote, state: PageState) -> SearchResult:
        stats, found = self.gathering.stats, self.gathering.candidates()
        match classify_empty(state):
            case Outcome.BLOCKED:
                return blocked(self.source, found, stats, urlsplit(state.url).path)
            case Outcome.RATE_LIMITED:
                return rate_limited(self.source, found, stats, None, state.url)
            case Outcome.NO_RESULTS:
                return finished(self.source, self.query, found, stats)
            case Outcome.NETWORK:
                message = f"{self.source.label} did not answer."
                return SearchResult(
                    Outcome.NETWORK, found, message, f"status {state.status}", stats
                )
            case _:
                return self._changed(driver, f"no {SELECTORS['tile']} at {state.url}")

    def _changed(self, driver: Remote, detail: str) -> SearchResult:
        evidence = keep_page(driver, self.source, self.query)
        return changed(
            self.source, self.gathering.candidates(), self.gathering.stats, detail, evidence
        )


def _state(driver: Remote) -> PageState:
    facts: dict[str, Any] = driver.execute_script(READ_PAGE, SELECTORS, SMALLEST_TILE)
    return PageState(**facts)


def _panel(driver: Remote, index: int) -> Panel:
    facts: dict[str, Any] = driver.execute_script(READ_PANEL, SELECTORS, index)
    return Panel(**facts)


def _click_first(driver: Remote, elements: list[Any]) -> bool:
    """One ordinary click on the first element; False when there is none or something lies over
    it.
    """
    if not elements:
        return False
    try:
        driver.execute_script(BRING_INTO_VIEW, elements[0])
        elements[0].click()
    except (
        ElementClickInterceptedException,
        ElementNotInteractableException,
        StaleElementReferenceException,
    ):
        return False
    return True
