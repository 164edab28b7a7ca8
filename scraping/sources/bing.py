"""Bing Images, read from its result page in a real browser.

The page is scrolled like a reader would, slowly; results are read from the `m` attribute of their
tiles in one script call. Bing states no licence per image. What the page looks like stands in
SELECTORS and nowhere else.
"""

import html
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from selenium.webdriver import Remote

from scraping.outside import number_in, page_address, parsed_json, query_parameters, web_address
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

SELECTORS_AS_OF = "2026-11"
SELECTORS = {
    "tile": "a.iusc[m]",
    "size_text": ".img_info .nowrap",
    "results": ".dg_b, .dgControl",
    "see_more": "#bop_container a.btn_seemore",
    "consent_reject": "#bnp_btn_reject",
    "search_box": "#sb_form_q",
    "fragment": "/images/async",
}
BLOCKED_PATHS = re.compile(r"/turing/captcha|/challenge")
BLOCKED_TEXT = re.compile(r"one last step|please solve the challenge below", re.IGNORECASE)
NO_RESULTS_TEXT = re.compile(
    r"there are no results for|no results found for|did not match any", re.IGNORECASE
)
UNSAFE_TEXT = re.compile(r"safesearch:?\s*(?:off|moderate)\b", re.IGNORECASE)
MATCH_MARKS = re.compile(r"[\ue000\ue001]")  # around matched words of a title
SHELL_CHARACTERS = 2000  # a page shorter than this without results is an empty shell
OWN_HOSTS = ("https://*.bing.com:443", "https://*.bing.net:443")
MAX_ROUNDS = 60
STALE_ROUNDS = 3  # scrolls without anything new before the end is believed
SCROLL_SECONDS = 1.0
GROWTH_SECONDS = 2.5
LEAST_GROWTH_SECONDS = 0.6

# Everything is read in one call: elements kept over a scroll go stale.
READ_PAGE = """
const s = arguments[0], from = arguments[1];
const tiles = Array.from(document.querySelectorAll(s.tile));
const visible = (e) => getComputedStyle(e).visibility !== 'hidden';
const shown = (e) => !!e && e.getClientRects().length > 0 && visible(e);
const box = (t) => t.closest('.imgpt') || t.parentElement;
const size = (t) => {
  const e = box(t) && box(t).querySelector(s.size_text);
  return e ? e.textContent : '';
};
const entry = performance.getEntriesByType('navigation')[0];
const resources = performance.getEntriesByType('resource');
const fragments = resources.filter((e) => e.name.includes(s.fragment));
const last = fragments[fragments.length - 1];
const text = document.body ? document.body.innerText : '';
return {
  count: tiles.length,
  tiles: tiles.slice(from).map((t) => [t.getAttribute('m'), t.getAttribute('href') || '', size(t)]),
  results: !!document.querySelector(s.results),
  search_box: !!document.querySelector(s.search_box),
  see_more: shown(document.querySelector(s.see_more)),
  url: location.href,
  text: text.slice(0, 4000),
  length: document.documentElement ? document.documentElement.outerHTML.length : 0,
  status: entry && entry.responseStatus || 0,
  fragment_status: last && last.responseStatus || 0,
};
"""
SCROLL = """
const s = arguments[0];
window.scrollTo(0, document.body.scrollHeight);
window.dispatchEvent(new Event('scroll'));
const more = document.querySelector(s.see_more);
if (arguments[1] && more) { more.click(); }
"""
CLOSE_CONSENT = (
    "const b = document.querySelector(arguments[0].consent_reject); if (b) { b.click(); }"
)
COUNT_TILES = "return document.querySelectorAll(arguments[0].tile).length;"


@dataclass(frozen=True)
class BingPage(PageState):
    """What the page shows right now, as READ_PAGE returns it.

    `tiles` holds the `m`, `href` and size text of each tile from the one asked for on.
    """

    tiles: list[list[str]]
    see_more: bool
    length: int
    fragment_status: int


def search_url(base_url: str, words: str, locale: str, filters: tuple[str, ...] = ()) -> str:
    """Return the address of the result page.

    Filters such as `photo-photo` go in with a plain `+`: `%2B` disables them.
    """
    address = f"{base_url}/images/search?q={quote(words)}&form=HDRSC2&first=1&adlt=strict"
    address += f"&mkt={quote(locale)}"
    if not filters:
        return address
    tokens = "".join(f"+filterui:{quote(name, safe='-_')}" for name in filters)
    return f"{address}&qft={tokens}"


def parse_size(href: str, size_text: str) -> tuple[int | None, int | None]:
    """Return width and height from a tile's link, else from the text below the image."""
    parameters = query_parameters(href)
    width = number_in(parameters.get("expw"))
    height = number_in(parameters.get("exph"))
    if width and height:
        return width, height
    found = re.search(r"(\d{1,6})\s*[x×]\s*(\d{1,6})", size_text)
    if found is None:
        return None, None
    return int(found[1]), int(found[2])


def parse_tile(facts_text: str, href: str, size_text: str) -> Candidate | None:
    """Return one tile as a candidate, or None when it names no image that could be fetched."""
    try:
        facts = parsed_json(facts_text.encode(errors="surrogatepass"))
    except ValueError:
        return None
    if not isinstance(facts, dict):
        return None
    address = web_address(facts.get("murl")).replace(" ", "%20")
    if not address:
        return None
    width, height = parse_size(href, size_text)
    title = html.unescape(str(facts.get("t") or ""))
    return Candidate(
        image_url=address,
        page_url=page_address(facts.get("purl")),
        title=MATCH_MARKS.sub("", title).strip(),
        width=width,
        height=height,
    )


class BingSource(Source):
    """The adapter. `filters` are Bing's own, such as `photo-photo` or `imagesize-large`."""

    name = "bing"
    default_url = "https://www.bing.com"
    min_interval_s = 3.0
    thumbnail_hosts = ("*.mm.bing.net/th", "*.mm.bing.net/th/*", "*.bing.com/th", "*.bing.com/th/*")

    def __init__(self, filters: tuple[str, ...] = ()) -> None:
        self._filters = filters

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Scroll through the result page until enough is found or nothing new comes."""
        if query.options.license == "open":
            return skipped(self, NO_LICENSE_PER_IMAGE)
        address = search_url(tools.base_url, query.words, query.options.locale, self._filters)
        paths = (address.removeprefix(tools.base_url), SELECTORS["fragment"])
        if refusal := robots_refusal(self, query, tools, paths):
            return refusal
        reader = BingReader(self, query, tools, address)
        browser = tools.browser(allowed_hosts(tools.base_url, "bing.com", OWN_HOSTS))
        return reader.run(browser)


class BingReader(PageReader[BingPage]):
    """One reading of the result page."""

    tile = SELECTORS["tile"]
    safe_parameter = ("adlt", "strict")
    unsafe_text = UNSAFE_TEXT

    def state(self, driver: Remote, start: int = 0) -> BingPage:
        """Return what the page shows right now, with the tiles from `start` on."""
        facts: dict[str, Any] = driver.execute_script(READ_PAGE, SELECTORS, start)
        return BingPage(**facts)

    @staticmethod
    def classify_empty(state: BingPage) -> Outcome:
        """Return what a page without a single tile means."""
        path = urlsplit(state.url).path
        human_check = bool(BLOCKED_PATHS.search(path) or BLOCKED_TEXT.search(state.text))
        outcome = classify_page(state, human_check, NO_RESULTS_TEXT)
        is_shell = state.length < SHELL_CHARACTERS and not state.results
        if outcome is Outcome.LAYOUT_CHANGED and is_shell:
            return Outcome.BLOCKED
        return outcome

    def read_tiles(self, driver: Remote, state: BingPage) -> SearchResult:
        """Scroll until enough is found, then say how it ended."""
        driver.execute_script(CLOSE_CONSENT, SELECTORS)
        state = self._scroll_through(driver, state)
        results = self.results
        stats = results.stats
        if results.is_mostly_unreadable:
            readable = stats.seen - stats.dropped
            return self.changed(driver, f"{readable} of {stats.seen} tiles readable")
        if results.is_enough:
            return results.finished(stats.ended_by)
        if state.fragment_status == 429:
            return results.rate_limited(None, "while scrolling")
        if stats.ended_by == "deadline":
            return results.out_of_time()
        if state.fragment_status >= 500:  # not all that it has, only all that it gave
            detail = f"status {state.fragment_status} while scrolling"
            return results.end(Outcome.NETWORK, "Bing stopped answering.", detail)
        return results.finished(stats.ended_by)

    def _scroll_through(self, driver: Remote, state: BingPage) -> BingPage:
        """Scroll, and read what is new after each step; return what the page showed last."""
        stats = self.results.stats
        self._add(state)
        patience = GROWTH_SECONDS
        slowest = 0.0
        stale_rounds = 0
        while not self._is_over(stale_rounds):
            stats.rounds += 1
            self.tools.pace(SCROLL_SECONDS)
            driver.execute_script(SCROLL, SELECTORS, state.see_more)
            waited = _wait_for_growth(driver, state.count, patience)
            known = state.count
            state = self.state(driver, known)
            if state.count < known:  # the page was rebuilt
                state = self.state(driver)
            stale_rounds = 0 if self._add(state) else stale_rounds + 1
            if waited < patience:  # a site that grows quickly need not be waited for as long
                slowest = max(slowest, waited)
                patience = min(GROWTH_SECONDS, max(LEAST_GROWTH_SECONDS, 5 * slowest))
        return state

    def _add(self, state: BingPage) -> bool:
        """Keep what the tiles name; return whether anything was new."""
        before = len(self.results)
        for facts, href, size_text in state.tiles:
            self.results.stats.seen += 1
            candidate = parse_tile(facts, href, size_text)
            if candidate is None:
                self.results.stats.dropped += 1
            else:
                self.results.add(candidate)
        return len(self.results) > before

    def _is_over(self, stale_rounds: int) -> bool:
        """Return whether there is a reason to stop scrolling, and record it."""
        stats = self.results.stats
        if self.results.is_enough:
            stats.ended_by = "limit"
        elif stale_rounds >= STALE_ROUNDS:
            stats.ended_by = "nothing new"
        elif stats.rounds >= MAX_ROUNDS:
            stats.ended_by = "rounds"
        elif not self.query.seconds_left():
            stats.ended_by = "deadline"
        return bool(stats.ended_by)


def _wait_for_growth(driver: Remote, known: int, patience: float) -> float:
    """Wait until there are more tiles than `known`.

    Return the seconds waited, which are `patience` when none came.
    """
    started = time.monotonic()
    while (waited := time.monotonic() - started) < patience:
        if driver.execute_script(COUNT_TILES, SELECTORS) != known:
            return waited
        time.sleep(POLL_SECONDS)
    return patience
