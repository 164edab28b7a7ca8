"""What a source is: words in, candidates and a typed outcome out.

A source never answers with silence: whatever happens to it is one of ten outcomes with a sentence for the user, and what
it found before is kept. Parsers are pure functions over text; input and output around them are thin.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from scraping.browser import Browser
from scraping.fetch import FetchFailure, JsonReply


class Outcome(StrEnum):
    """How a search ended."""

    OK = "ok"
    PARTIAL = "partial"
    NO_RESULTS = "no_results"
    NOT_APPLICABLE = "not_applicable"
    BLOCKED = "blocked"
    RATE_LIMITED = "rate_limited"
    LAYOUT_CHANGED = "layout_changed"
    TIMEOUT = "timeout"
    NETWORK = "network"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Candidate:
    """One picture that a source names. `licence_basis` is `per-item`, `filter` or `unknown`."""

    image_url: str
    source: str
    query: str
    rank: int
    page_url: str = ""
    thumb_url: str = ""
    title: str = ""
    width: int | None = None
    height: int | None = None
    mime: str = ""
    creator: str = ""
    creator_url: str = ""
    licence: str = ""
    licence_version: str = ""
    licence_url: str = ""
    licence_basis: str = "unknown"
    attribution: str = ""


@dataclass
class SearchStats:
    """What a search did: for the log and for tests. `ended_by` names the rule that stopped it."""

    pages: int = 0
    rounds: int = 0
    seen: int = 0
    dropped: int = 0
    elapsed: float = 0.0
    ended_by: str = ""


@dataclass(frozen=True)
class SearchResult:
    """The end of a search. `message` is the user's sentence, `detail` the operator's; `retry_after` in seconds."""

    outcome: Outcome
    candidates: tuple[Candidate, ...] = ()
    message: str = ""
    detail: str = ""
    stats: SearchStats = field(default_factory=SearchStats)
    retry_after: float | None = None


@dataclass(frozen=True)
class SearchOptions:
    """What the user chose. `licence` is `any` or `open`; `robots` is `respect` or `operator`."""

    locale: str = "en-US"
    licence: str = "any"
    robots: str = "respect"
    contact: str = ""


@dataclass(frozen=True)
class Query:
    """One question to a source: at most `limit` candidates, before `deadline` on the monotonic clock."""

    words: str
    limit: int
    options: SearchOptions
    deadline: float

    def seconds_left(self) -> float:
        """Seconds until the deadline, 0 when it has passed."""
        return max(0.0, self.deadline - time.monotonic())


class JsonGetter(Protocol):
    """Asks a JSON API through the guarded fetch."""

    def __call__(self, url: str, parameters: Mapping[str, str]) -> JsonReply | FetchFailure:
        """Return the parsed answer or why there is none."""
        ...


@dataclass(frozen=True)
class SourceTools:
    """The outside world as a source sees it: its base URL, the guarded fetch, a browser, and the clock.

    `browser` makes a browser limited to the given hosts. `pause` waits the given seconds; it is shortened to nothing
    for hosts of one's own. `fetch_text` returns a small text file, such as robots rules.
    """

    base_url: str
    get_json: JsonGetter
    fetch_text: Callable[[str], str | FetchFailure]
    browser: Callable[[tuple[str, ...]], Browser]
    pause: Callable[[float], None]
    user_agent: str


class Source(Protocol):
    """One place that pictures come from."""

    name: str
    label: str
    kind: str
    provider_family: str
    default_url: str
    needs: frozenset[str]
    supports: frozenset[str]
    min_interval_s: float

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Find candidates. Never raises for what the source does; every end is an Outcome."""
        ...


def finished(source: Source, query: Query, candidates: tuple[Candidate, ...], stats: SearchStats) -> SearchResult:
    """The result of a search that ended by itself: OK, PARTIAL or NO_RESULTS by the number found."""
    found = candidates[: query.limit]
    if len(found) >= query.limit:
        return SearchResult(Outcome.OK, found, f"{len(found)} from {source.label}.", stats=stats)
    if found:
        return SearchResult(Outcome.PARTIAL, found, f"{source.label} had only {len(found)}.", stats=stats)
    return SearchResult(Outcome.NO_RESULTS, (), f"{source.label} found nothing for “{query.words}”.", stats=stats)


def failed(
    source: Source, failure: FetchFailure, candidates: tuple[Candidate, ...], stats: SearchStats
) -> SearchResult:
    """The result of a search that an HTTP failure ended; what was found before is kept."""
    if failure.status == 429:
        wait = failure.retry_after if failure.retry_after is not None else DEFAULT_WAIT_SECONDS
        message = f"{source.label} asks us to wait {round(wait)} seconds."
        return SearchResult(Outcome.RATE_LIMITED, candidates, message, failure.detail, stats, wait)
    if failure.status in (401, 403):
        message = f"{source.label} refused our requests."
        return SearchResult(Outcome.BLOCKED, candidates, message, failure.detail, stats)
    if failure.status in (400, 404) or failure.reason == "not_json":
        message = f"{source.label} changed its interface; this source needs an update."
        return SearchResult(Outcome.LAYOUT_CHANGED, candidates, message, failure.detail, stats)
    outcome = Outcome.TIMEOUT if failure.detail == "deadline" else Outcome.NETWORK
    return SearchResult(outcome, candidates, f"{source.label} did not answer.", failure.detail, stats, None)


DEFAULT_WAIT_SECONDS = 180.0

JsonObject = dict[str, Any]
