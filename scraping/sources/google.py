"""Google Images, read in a real browser: each result is opened with one ordinary click.

Off unless the operator asks for it, and then the last to be asked: its rules exclude programs, it
shows a human check soon, and its pages change often. A human check ends the search; nothing is done
to get around one. What the pages look like stands in SELECTORS and nowhere else.
"""

import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver import Remote
from selenium.webdriver.common.by import By

from scraping.outside import number_in, query_parameters
from scraping.sources.base import (
    NO_LICENSE_PER_IMAGE,
    Candidate,
    Query,
    SearchResult,
    Source,
    SourceTools,
    skipped,
)
from scraping.sources.catalogue import Outcome
from scraping.sources.result_page import (
    POLL_SECONDS,
    PageReader,
    PageState,
    allowed_hosts,
    classify_page,
)
from scraping.sources.robots import robots_refusal

SELECTORS_AS_OF = "2026-08"
SELECTORS = {
    "tile": 'div[jsname="dTDiAc"]',
    "panel": 'div[jsname="figiqf"]',
    "link": 'a[href*="/imgres?"]',
    "consent_reject": (
        '#W0wltc, button[aria-label="Reject all"], input[aria-label="Reject all"], '
        'button[value="Reject"]'
    ),
    "captcha": '#captcha-form, iframe[src*="recaptcha"]',
    "results": "#search, #rso, #islrg",
    "search_box": 'textarea[name="q"], input[name="q"]',
}
BLOCKED_HOSTS = frozenset({"sorry.google.com", "ipv4.google.com"})
BLOCKED_PATHS = re.compile(r"^/sorry|^/httpservice/retry/enablejs")
BLOCKED_TEXT = re.compile(r"unusual traffic", re.IGNORECASE)
NO_RESULTS_TEXT = re.compile(r"did not match any|no results found|didn't match any", re.IGNORECASE)
UNSAFE_TEXT = re.compile(r"safesearch:?\s*(?:is\s+)?off\b", re.IGNORECASE)
CONSENT_PATHS = re.compile(r"^/(?:ml|m)$")
THUMBNAIL = re.compile(
    r"^https?://(?:encrypted-tbn\d*\.|[^/]*\.)?(?:gstatic|google|googleusercontent)\.com/",
    re.IGNORECASE,
)
OWN_HOSTS = (
    "https://*.google.com:443",
    "https://*.gstatic.com:443",
    "https://*.googleusercontent.com:443",
)
SMALLEST_TILE = 47  # pixels; icons are smaller
MAX_TILES = 100  # about as many as one search shows
CLICK_SECONDS = 1.0
OPEN_SECONDS = 5.0
CONSENT_SECONDS = 10.0
GROWTH_SECONDS = 2.5
STALE_ROUNDS = 3
UNOPENED_TILES = 3  # so many clicks without any panel mean that clicking works no more

READ_PAGE = """
const s = arguments[0], smallest = arguments[1];
const visible = (e) => getComputedStyle(e).visibility !== 'hidden';
const shown = (e) => !!e && e.getClientRects().length > 0 && visible(e);
const any = (selector) => Array.from(document.querySelectorAll(selector)).some(shown);
const picture = (tile) => Array.from(tile.querySelectorAll('img')).find(
  (i) => i.alt && Math.max(i.naturalWidth, i.width, i.height) >= smallest);
const entry = performance.getEntriesByType('navigation')[0];
return {
  count: document.querySelectorAll(s.tile).length,
  tiles: Array.from(document.querySelectorAll(s.tile)).map((tile) => {
    const image = picture(tile);
    if (!image) return null;
    const page = tile.getAttribute('data-lpage') || '';
    return [page, image.alt, image.getAttribute('src') || ''];
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
const s = arguments[0];
const panels = document.querySelectorAll(s.panel);
const panel = panels[panels.length - 1];
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
class GooglePage(PageState):
    """What the page shows right now, as READ_PAGE returns it.

    `tiles` holds landing page, caption and thumbnail of each tile, None for mere icons; `panels`
    is how many results have been opened.
    """

    tiles: list[list[str] | None]
    panels: int
    reject: bool
    captcha: bool


@dataclass(frozen=True)
class Panel:
    """The panel opened last, as READ_PANEL returns it.

    `images` holds address, width and height in pixels of each; `link` may name the original.
    """

    panels: int
    images: list[list[Any]]
    link: str
    url: str


@dataclass(frozen=True)
class Original:
    """The image that a tile is a preview of, with its size in pixels where the panel states it."""

    url: str
    width: int | None
    height: int | None


def search_url(base_url: str, words: str, locale: str) -> str:
    """Return the address of the result page, with the strictest safe search."""
    language, _, country = locale.partition("-")
    address = f"{base_url}/search?q={quote(words)}&udm=2&hl={quote(language)}&safe=active"
    if not country:
        return address
    return f"{address}&gl={quote(country.lower())}"


def is_original(address: str) -> bool:
    """Return whether a shown image is the original and no preview kept by Google."""
    is_web = address.lower().startswith(("http://", "https://"))
    return is_web and not THUMBNAIL.match(address)


def parse_panel(panel: Panel) -> Original | None:
    """Return the original, None while the panel shows only its preview."""
    for address, shown_width, shown_height in panel.images:
        if is_original(address) and max(shown_width, shown_height) >= SMALLEST_TILE:
            return Original(address, shown_width, shown_height)
    parameters = query_parameters(panel.link)
    address = parameters.get("imgurl", "")
    if not is_original(address):
        return None
    width = number_in(parameters.get("w"))
    height = number_in(parameters.get("h"))
    return Original(address, width, height)


def on_consent_page(url: str) -> bool:
    """Return whether the search was redirected to the question about cookies."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host.startswith("consent."):
        return True
    return CONSENT_PATHS.search(parts.path) is not None


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
            return skipped(self, NO_LICENSE_PER_IMAGE)
        address = search_url(tools.base_url, query.words, query.options.locale)
        paths = (address.removeprefix(tools.base_url),)
        if refusal := robots_refusal(self, query, tools, paths):
            return refusal
        reader = GoogleReader(self, query, tools, address)
        browser = tools.browser(allowed_hosts(tools.base_url, "google.com", OWN_HOSTS))
        return reader.run(browser, images=True)


class GoogleReader(PageReader[GooglePage]):
    """One reading of the result page."""

    tile = SELECTORS["tile"]
    safe_parameter = ("safe", "active")
    unsafe_text = UNSAFE_TEXT

    def __init__(self, source: Source, query: Query, tools: SourceTools, address: str) -> None:
        super().__init__(source, query, tools, address)
        self._panels_opened = 0

    def state(self, driver: Remote) -> GooglePage:
        """Return what the page shows right now."""
        facts: dict[str, Any] = driver.execute_script(READ_PAGE, SELECTORS, SMALLEST_TILE)
        return GooglePage(**facts)

    @staticmethod
    def classify_empty(state: GooglePage) -> Outcome:
        """Return what a page without a single tile means."""
        parts = urlsplit(state.url)
        signs_of_human_check = (
            state.captcha,
            parts.hostname in BLOCKED_HOSTS,
            BLOCKED_PATHS.search(parts.path),
            BLOCKED_TEXT.search(state.text),
            on_consent_page(state.url),
        )
        return classify_page(state, any(signs_of_human_check), NO_RESULTS_TEXT)

    def first_state(self, driver: Remote) -> GooglePage:
        """Return the page as soon as it shows tiles, after cookies were refused where asked."""
        state = super().first_state(driver)
        if not state.reject:
            return state
        buttons = driver.find_elements(By.CSS_SELECTOR, SELECTORS["consent_reject"])
        _click_first(driver, [button for button in buttons if button.is_displayed()])
        until = time.monotonic() + CONSENT_SECONDS
        while time.monotonic() < until:
            state = self.state(driver)
            if not state.reject and not on_consent_page(state.url):
                return super().first_state(driver)
            time.sleep(POLL_SECONDS)
        return state

    def read_tiles(self, driver: Remote, state: GooglePage) -> SearchResult:
        """Open tile after tile, and scroll for more, until there is a reason to stop."""
        stats = self.results.stats
        stale_rounds = 0
        tried = 0
        while stale_rounds < STALE_ROUNDS and tried < MAX_TILES:
            for index in range(tried, min(state.count, MAX_TILES)):
                tile = state.tiles[index]
                if tile is None:
                    continue
                if end := self._end(driver):
                    return end
                self._open(driver, index, tile)
            if end := self._end(driver):
                return end
            tried = state.count
            stats.rounds += 1
            state = self._scroll(driver, tried)
            stale_rounds = 0 if state.count > tried else stale_rounds + 1
        if not len(self.results):
            return self._stuck(driver, f"none of {stats.seen} results showed its original")
        return self.results.finished("nothing new" if stale_rounds else "tiles")

    def _end(self, driver: Remote) -> SearchResult | None:
        """Return the result when there is a reason to stop now."""
        results = self.results
        stats = results.stats
        if results.is_enough:
            return results.finished("limit")
        if stats.seen >= UNOPENED_TILES and not self._panels_opened:
            return self._stuck(driver, f"no {SELECTORS['panel']} after {stats.seen} clicks")
        if results.is_mostly_unreadable:
            detail = f"{stats.dropped} of {stats.seen} results showed no original"
            return self._stuck(driver, detail)
        if not self.query.seconds_left():
            return results.out_of_time()
        return None

    def _stuck(self, driver: Remote, detail: str) -> SearchResult:
        """Return the result when clicks bring nothing: a human check, or another page layout."""
        state = self.state(driver)
        if not state.count:
            return self.without_tiles(driver, state)
        return self.changed(driver, detail)

    def _open(self, driver: Remote, index: int, tile: list[str]) -> None:
        """Click one tile, once, and keep the original if it comes."""
        self.tools.pace(CLICK_SECONDS)
        self.results.stats.seen += 1
        before = _panel(driver, index).panels
        tiles = driver.find_elements(By.CSS_SELECTOR, SELECTORS["tile"])
        original = None
        if _click_first(driver, tiles[index : index + 1]):
            original = self._original(driver, index, before)
        if original is None:
            self.results.stats.dropped += 1
            return
        page, caption, _thumbnail = tile
        candidate = Candidate(
            image_url=original.url,
            page_url=page,
            title=caption,
            width=original.width,
            height=original.height,
        )
        self.results.add(candidate)

    def _original(self, driver: Remote, index: int, panels_before: int) -> Original | None:
        """Wait until the panel shows the original instead of its preview.

        Return None when it does not come.
        """
        until = time.monotonic() + min(OPEN_SECONDS, self.query.seconds_left())
        is_open = False
        while time.monotonic() < until:
            panel = _panel(driver, index)
            if not is_open and panel.panels > panels_before:
                is_open = True
                self._panels_opened += 1
            if is_open and (original := parse_panel(panel)):
                return original
            time.sleep(POLL_SECONDS)
        return None

    def _scroll(self, driver: Remote, known: int) -> GooglePage:
        """Scroll to the end and wait until there are more tiles than `known`."""
        driver.execute_script(TO_THE_END)
        until = time.monotonic() + GROWTH_SECONDS
        state = self.state(driver)
        while state.count <= known and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            state = self.state(driver)
        return state


def _panel(driver: Remote, index: int) -> Panel:
    facts: dict[str, Any] = driver.execute_script(READ_PANEL, SELECTORS, index)
    return Panel(**facts)


def _click_first(driver: Remote, elements: list[Any]) -> bool:
    """Click the first element once; False when there is none or something lies over it."""
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
