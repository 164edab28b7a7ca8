"""What the sources that are read in a browser share: opening a page, failing in words, keeping what
is strange.
"""

from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import Remote
from urllib3.exceptions import HTTPError

from scraping.net.browser import PAGE_LOAD_SECONDS, Browser, BrowserUnavailable
from scraping.sources.base import Candidate, Query, SearchResult, SearchStats, Source
from scraping.sources.catalogue import Outcome
from scraping.sources.snapshots import save_page


class Harvest(Protocol):
    """What a visit has gathered so far; it outlives a browser that is lost on the way."""

    stats: SearchStats

    def candidates(self) -> tuple[Candidate, ...]:
        """All found, best first."""


def exact_host(base_url: str) -> tuple[str, ...]:
    """The one host and port of a replica or mirror, as a pattern for the browser."""
    parts = urlsplit(base_url)
    return (
        f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}",
    )


def visited(
    source: Source,
    browser: Browser,
    visit: Callable[[Remote], SearchResult],
    harvest: Harvest,
    images: bool = False,
) -> SearchResult:
    """Run a visit; whatever the browser does, the end is an outcome, and what was found before is
    kept.
    """

    def ended(outcome: Outcome, message: str, error: Exception) -> SearchResult:
        detail = str(getattr(error, "msg", None) or error).partition("\n")[0]
        return SearchResult(outcome, harvest.candidates(), message, detail, harvest.stats)

    try:
        return browser.run(visit, images=images)
    except BrowserUnavailable as error:
        return ended(Outcome.UNAVAILABLE, str(error), error)
    except TimeoutException as error:
        return ended(Outcome.TIMEOUT, f"{source.label} did not answer in time.", error)
    except (WebDriverException, HTTPError) as error:
        return ended(Outcome.NETWORK, f"{source.label} did not answer.", error)


def late(source: Source, harvest: Harvest) -> SearchResult:
    """The result of a visit for which the time ran out."""
    found = harvest.candidates()
    message = (
        f"The time for {source.label} ran out."
        if found
        else f"{source.label} did not answer in time."
    )
    return SearchResult(Outcome.TIMEOUT, found, message, "deadline", harvest.stats)


def open_page(driver: Remote, address: str, query: Query) -> bool:
    """Open a page within the time left; False when it did not load in time, then with what has come
    so far.

    The page before is left first: else a page that never comes would be taken for it.
    """
    driver.get("about:blank")
    driver.set_page_load_timeout(max(1.0, min(PAGE_LOAD_SECONDS, query.seconds_left())))
    try:
        driver.get(address)
    except TimeoutException:
        driver.execute_script("window.stop()")
        return False
    return True


def keep_page(driver: Remote, source: Source, query: Query) -> str:
    """Save the page that is shown, with a screenshot, for the operator; return its path, empty
    without a folder.
    """
    if not query.options.evidence_dir:
        return ""
    try:
        return save_page(source, query, driver.page_source, driver.get_screenshot_as_png())
    except (WebDriverException, HTTPError, OSError):
        return ""  # evidence is a courtesy: the outcome stands without it
