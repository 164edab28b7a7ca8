"""Bing Images, read from its result page in a real browser.

The page is scrolled like a reader would, slowly; results are read from the `m` attribute of their
tiles in one script call. Bing states no licence per picture. What the page looks like stands in
SELECTORS and nowhere else.
"""

import html
import json
import re
import time
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from selenium.webdriver import Remote

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
SHELL_CHARACTERS = 2000  # a page shorter than this without results is an empty shell
MAX_ROUNDS = 60
STALE_ROUNDS = 3  # scrolls without anything new before the end is believed
SCROLL_SECONDS = 1.0
GROWTH_SECONDS = 2.5
LEAST_GROWTH_SECONDS = 0.6
POLL_SECONDS = 0.1
EMPTY_WAIT_SECONDS = 3.0
DRIFT_TILES = 10  # from here on, fewer than half readable means that the markup changed

# Everything is read in one call: elements kept over a scroll go stale.
READ_PAGE = """
const s = arguments[0], from = arguments[1];
const tiles = Array.from(document.querySelectorAll(s.tile));
const shown = (e) => !!e && e.getClientRects().length > 0 && getComputedStyle(e).visibility !== 'hidden';
const box = (t) => t.closest('.imgpt') || t.parentElement;
const size = (t) => { const e = box(t) && box(t).querySelector(s.size_text); return e ? e.textContent : ''; };
const entry = performance.getEntriesByType('navigation')[0];
const fragments = performance.getEntriesByType('resource').filter((e) => e.name.includes(s.fragment));
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
class PageState:
    """What the page shows right now, as READ_PAGE returns it. `tiles`: the `m`, `href` and size
    text of each.
    """

    count: int
    tiles: list[list[str]]
    results: bool
    search_box: bool
    see_more: bool
    url: str
    text: str
    length: int
    status: int
    fragment_status: int


def search_url(base_url: str, words: str, locale: str, filters: tuple[str, ...] = ()) -> str:
    """Address of the result page. Filters such as `photo-photo` go in with a plain `+`: `%2B`
    disables them.
    """
    address = f"{base_url}/images/search?q={quote(words)}&form=HDRSC2&first=1&adlt=strict&mkt={quote(locale)}"
    tokens = "".join(f"+filterui:{quote(name, safe='-_')}" for name in filters)
    return f"{address}&qft={tokens}" if tokens else address


def allowed_hosts(base_url: str) -> tuple[str, ...]:
    """Where the browser may go: Bing's own hosts, or exactly the host and port of a replica."""
    parts = urlsplit(base_url)
    if (parts.hostname or "").endswith("bing.com"):
        return ("https://*.bing.com:443", "https://*.bing.net:443")
    return exact_host(base_url)


def clean_title(text: str) -> str:
    """A title without entities and without the marks around matched words."""
    return re.sub(r"[\ue000\ue001]", "", html.unescape(text)).strip()


def parse_size(href: str, size_text: str) -> tuple[int | None, int | None]:
    """Width and height from a tile's link, else from the text below the picture."""
    given = parse_qs(urlsplit(href).query)
    width, height = given.get("expw", [""])[0], given.get("exph", [""])[0]
    if width.isdecimal() and height.isdecimal():
        return int(width), int(height)
    found = re.search(r"(\d{1,6})\s*[x×]\s*(\d{1,6})", size_text)
    return (int(found[1]), int(found[2])) if found else (None, None)


def parse_tile(facts_text: str, href: str, size_text: str) -> Candidate | None:
    """One tile as a candidate of rank 0, or None when it names no picture that could be fetched."""
    try:
        facts = json.loads(facts_text)
        address = str(facts["murl"]).strip().replace(" ", "%20")
    except (ValueError, KeyError, TypeError):
        return None
    if not address.lower().startswith(("http://", "https://")):
        return None
    width, height = parse_size(href, size_text)
    page = str(facts.get("purl") or "")
    return Candidate(
        image_url=address,
        source="bing",
        query="",
        rank=0,
        page_url=page if page.startswith(("http://", "https://")) else "",
        thumb_url=str(facts.get("turl") or ""),
        title=clean_title(str(facts.get("t") or "")),
        width=width,
        height=height,
    )


@dataclass
class Gathering:
    """Candidates read so far, in the page's order, without repetitions."""

    words: str
    found: dict[str, Candidate] = field(default_factory=dict)
    stats: SearchStats = field(default_factory=SearchStats)
    readable: int = 0

    def absorb(self, tiles: list[list[str]]) -> int:
        """Add what is new and return how many that were."""
        before = len(self.found)
        for facts, href, size_text in tiles:
            self.stats.seen += 1
            candidate = parse_tile(facts, href, size_text)
            if candidate is None:
                self.stats.dropped += 1
                continue
            self.readable += 1
            key = normalized_url(candidate.image_url)
            if key not in self.found:
                self.found[key] = replace(candidate, query=self.words, rank=len(self.found) + 1)
        return len(self.found) - before

    def drifted(self) -> bool:
        """Whether so few tiles could be read that the markup must have changed."""
        return self.stats.seen >= DRIFT_TILES and self.readable * 2 < self.stats.seen

    def candidates(self) -> tuple[Candidate, ...]:
        """All found, best first."""
        return tuple(self.found.values())


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
            message = "Bing was skipped: it does not state the licence of each picture."
            return SearchResult(Outcome.NOT_APPLICABLE, message=message)
        address = search_url(tools.base_url, query.words, query.options.locale, self._filters)
        paths = (address.removeprefix(tools.base_url), SELECTORS["fragment"])
        if refusal := robots_refusal(self, query, tools, paths):
            return refusal
        gathering = Gathering(query.words)
        visit = _Visit(self, query, tools, gathering)
        browser = tools.browser(allowed_hosts(tools.base_url))
        return visited(self, browser, lambda driver: visit.read(driver, address), gathering)


@dataclass(frozen=True)
class _Visit:
    """One reading of the result page with one browser."""

    source: BingSource
    query: Query
    tools: SourceTools
    gathering: Gathering

    def read(self, driver: Remote, address: str) -> SearchResult:
        self.tools.pace(self.source.min_interval_s)
        in_time = open_page(driver, address, self.query)
        state = self._first_state(driver)
        if not state.count:
            return (
                self._without_tiles(driver, state) if in_time else late(self.source, self.gathering)
            )
        driver.execute_script(CLOSE_CONSENT, SELECTORS)
        state = self._scroll_through(driver, state)
        return self._with_tiles(driver, state)

    def _first_state(self, driver: Remote) -> PageState:
        """The page as soon as it shows tiles; a results container may stay empty for a moment."""
        until = time.monotonic() + EMPTY_WAIT_SECONDS
        state = _state(driver, 0)
        while not state.count and state.results and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            state = _state(driver, 0)
        return state

    def _scroll_through(self, driver: Remote, state: PageState) -> PageState:
        stats, patience, slowest, stale = self.gathering.stats, GROWTH_SECONDS, 0.0, 0
        stats.pages = 1
        self.gathering.absorb(state.tiles)
        while not self._ended_by(stale):
            stats.rounds += 1
            self.tools.pace(SCROLL_SECONDS)
            driver.execute_script(SCROLL, SELECTORS, state.see_more)
            waited = _wait_for_growth(driver, state.count, patience)
            known = state.count
            state = _state(driver, known)
            if state.count < known:  # the page was rebuilt
                state = _state(driver, 0)
            stale = 0 if self.gathering.absorb(state.tiles) else stale + 1
            if waited < patience:  # a site that grows quickly need not be waited for as long
                slowest = max(slowest, waited)
                patience = min(GROWTH_SECONDS, max(LEAST_GROWTH_SECONDS, 5 * slowest))
        return state

    def _ended_by(self, stale: int) -> str:
        stats = self.gathering.stats
        if len(self.gathering.found) >= self.query.limit:
            stats.ended_by = "limit"
        elif stale >= STALE_ROUNDS:
            stats.ended_by = "nothing new"
        elif stats.rounds >= MAX_ROUNDS:
            stats.ended_by = "rounds"
        elif not self.query.seconds_left():
            stats.ended_by = "deadline"
        return stats.ended_by

    def _with_tiles(self, driver: Remote, state: PageState) -> SearchResult:
        stats, found = self.gathering.stats, self.gathering.candidates()
        if self.gathering.drifted():
            return self._changed(
                driver, f"{self.gathering.readable} of {stats.seen} tiles readable"
            )
        enough = len(found) >= self.query.limit
        if not enough and state.fragment_status == 429:
            return rate_limited(self.source, found, stats, None, "while scrolling")
        if not enough and stats.ended_by == "deadline":
            return late(self.source, self.gathering)
        if (
            not enough and state.fragment_status >= 500
        ):  # not all that it has, only all that it gave
            detail = f"status {state.fragment_status} while scrolling"
            return SearchResult(Outcome.NETWORK, found, "Bing stopped answering.", detail, stats)
        return finished(self.source, self.query, found, stats)

    def _without_tiles(self, driver: Remote, state: PageState) -> SearchResult:
        stats = self.gathering.stats
        match classify_empty(state):
            case Outcome.BLOCKED:
                return blocked(self.source, (), stats, state.url)
            case Outcome.RATE_LIMITED:
                return rate_limited(self.source, (), stats, None, state.url)
            case Outcome.NO_RESULTS:
                return finished(self.source, self.query, (), stats)
            case Outcome.NETWORK:
                return SearchResult(
                    Outcome.NETWORK, (), "Bing did not answer.", f"status {state.status}", stats
                )
            case _:
                return self._changed(driver, f"no {SELECTORS['tile']} at {state.url}")

    def _changed(self, driver: Remote, detail: str) -> SearchResult:
        evidence = keep_page(driver, self.source, self.query)
        return changed(
            self.source, self.gathering.candidates(), self.gathering.stats, detail, evidence
        )


def classify_empty(state: PageState) -> Outcome:
    """What a page without a single tile means, judged by its address, status and visible text
    only.
    """
    if BLOCKED_PATHS.search(urlsplit(state.url).path) or BLOCKED_TEXT.search(state.text):
        return Outcome.BLOCKED
    if state.status == 429:
        return Outcome.RATE_LIMITED
    if state.status == 403:
        return Outcome.BLOCKED
    if state.status >= 500:
        return Outcome.NETWORK
    if state.search_box and (state.results or NO_RESULTS_TEXT.search(state.text)):
        return Outcome.NO_RESULTS
    if state.length < SHELL_CHARACTERS and not state.results:
        return Outcome.BLOCKED
    return Outcome.LAYOUT_CHANGED


def _state(driver: Remote, start: int) -> PageState:
    facts: dict[str, Any] = driver.execute_script(READ_PAGE, SELECTORS, start)
    return PageState(**facts)


def _wait_for_growth(driver: Remote, known: int, patience: float) -> float:
    """Wait until there are more tiles than known; return the seconds waited, `patience` when none
    came.
    """
    started = time.monotonic()
    while (waited := time.monotonic() - started) < patience:
        if driver.execute_script(COUNT_TILES, SELECTORS) != known:
            return waited
        time.sleep(POLL_SECONDS)
    return patience
