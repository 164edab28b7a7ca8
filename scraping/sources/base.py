"""What a source is: words in, candidates and a typed outcome out.

A source never answers with silence: whatever happens to it is one of ten outcomes with a sentence
for the user, and what it found before is kept. Parsers are pure functions over text; input and
output around them are thin.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from scraping.net.http import FetchFailure, JsonReply, JsonRequest, NotJson
from scraping.sources.catalogue import CATALOGUE, Outcome

if TYPE_CHECKING:  # what only needs candidates need not load Selenium
    from scraping.net.browser import Browser

DEFAULT_WAIT_SECONDS = 180.0


# How long a source is left alone after such an end, in seconds; a wait that it asked for goes
# before.
COOL_DOWN_SECONDS: Mapping[Outcome, float] = {
    Outcome.BLOCKED: 3600.0,
    Outcome.RATE_LIMITED: DEFAULT_WAIT_SECONDS,
    Outcome.LAYOUT_CHANGED: 6 * 3600.0,
    Outcome.TIMEOUT: 60.0,
    Outcome.NETWORK: 60.0,
    Outcome.UNAVAILABLE: 60.0,
}


@dataclass(frozen=True)
class Candidate:
    """One picture that a source names. `license_basis` is `per-item`, `filter` or `unknown`.

    `identity` is a hint for finding the same photograph in two sources before any download: equal,
    non-empty texts such as `inaturalist:12345` name one photograph, whatever the addresses look
    like.
    """

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
    license: str = ""
    license_version: str = ""
    license_url: str = ""
    license_basis: str = "unknown"
    attribution: str = ""
    identity: str = ""


@dataclass
class SearchStats:
    """What a search did, for the log and for tests. `ended_by` names the rule that stopped it."""

    pages: int = 0
    rounds: int = 0
    seen: int = 0
    dropped: int = 0
    ended_by: str = ""


@dataclass(frozen=True)
class SearchResult:
    """The end of a search: the user's sentence in `message`, the operator's in `detail`.

    `retry_after` holds the seconds that the source itself asked to wait. `evidence` is the path of
    the page or answer that was not understood, saved in the search's evidence folder; a screenshot
    lies beside it as `.png`.
    """

    outcome: Outcome
    candidates: tuple[Candidate, ...] = ()
    message: str = ""
    detail: str = ""
    stats: SearchStats = field(default_factory=SearchStats)
    retry_after: float | None = None
    evidence: str = ""

    @property
    def cool_down_seconds(self) -> float | None:
        """Seconds to leave the source alone after this end; None when it may be asked again at
        once.
        """
        usual = COOL_DOWN_SECONDS.get(self.outcome)
        if self.outcome is Outcome.RATE_LIMITED and self.retry_after is not None:
            return self.retry_after
        return usual if usual is None else max(usual, self.retry_after or 0.0)


@dataclass(frozen=True)
class SearchOptions:
    """What was chosen. `license` is `any` or `open`; `robots` is `respect` or `operator`;
    `max_side` in pixels.

    `credentials` holds what sources with an account need (`openverse_client_id`,
    `openverse_client_secret`, `pixabay_key`). `evidence_dir` is the folder for answers that were
    not understood; without it none is saved.
    """

    locale: str = "en-US"
    license: str = "any"
    robots: str = "respect"
    contact: str = ""
    max_side: int = 1024
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    evidence_dir: str = ""


@dataclass(frozen=True)
class Query:
    """One question to a source: at most `limit` candidates, before `deadline` on the monotonic
    clock.
    """

    words: str
    limit: int
    options: SearchOptions
    deadline: float

    def seconds_left(self) -> float:
        """Seconds until the deadline, 0 when it has passed."""
        return max(0.0, self.deadline - time.monotonic())


@dataclass(frozen=True)
class SourceTools:
    """The outside world as a source sees it.

    `get_json` and `fetch_text` go through the guarded fetch; `send` makes requests with headers or
    a form (`scraping.net.http.request`), and without it sources do what they can without an
    account. `browser` gives a browser limited to the given hosts; it belongs to the caller. `pace`
    waits until the given seconds have passed since this source was last asked, and not at all for
    hosts of one's own. `wait` simply waits.
    """

    base_url: str
    get_json: Callable[[str, Mapping[str, str]], JsonReply | FetchFailure]
    fetch_text: Callable[[str], str | FetchFailure]
    browser: Callable[[tuple[str, ...]], "Browser"]
    pace: Callable[[float], None]
    wait: Callable[[float], None]
    send: Callable[[JsonRequest], JsonReply | FetchFailure] | None = None


class Source(ABC):
    """One place that pictures come from.

    What the site must know without loading this stands in `catalogue.py`, under `name`.
    `min_interval_s` is the pace in seconds between questions, `thumbnail_hosts` the addresses of
    its small previews as patterns `host/path` with `*`, `sample_words` what to ask it when only
    its health matters.
    """

    name: ClassVar[str]
    default_url: ClassVar[str]
    min_interval_s: ClassVar[float]
    thumbnail_hosts: ClassVar[tuple[str, ...]] = ()
    sample_words: ClassVar[str] = "cat"

    @property
    def label(self) -> str:
        """The name that people know it by."""
        return CATALOGUE[self.name].label

    @abstractmethod
    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        """Find candidates. Never raises for what the source does; every end is an Outcome."""

    def other_names(self, query: Query, tools: SourceTools) -> list[str]:
        """Other names of what is asked for, best first, by which it may be found too; empty when
        none are known.
        """
        return []


def finished(
    source: Source, query: Query, found: tuple[Candidate, ...], stats: SearchStats
) -> SearchResult:
    """The result of a search that ended by itself: OK, PARTIAL or NO_RESULTS by the number
    found.
    """
    found = found[: query.limit]
    if len(found) >= query.limit:
        return SearchResult(Outcome.OK, found, f"{len(found)} from {source.label}.", stats=stats)
    if found:
        return SearchResult(
            Outcome.PARTIAL, found, f"{source.label} had only {len(found)}.", stats=stats
        )
    message = f"{source.label} found nothing for “{query.words}”."
    return SearchResult(Outcome.NO_RESULTS, (), message, stats=stats)


def rate_limited(
    source: Source,
    found: tuple[Candidate, ...],
    stats: SearchStats,
    retry_after: float | None,
    detail: str = "",
) -> SearchResult:
    """The result of a search that the source asked to interrupt."""
    wait = DEFAULT_WAIT_SECONDS if retry_after is None else retry_after
    message = f"{source.label} asks us to wait {_in_words(wait)}."
    return SearchResult(Outcome.RATE_LIMITED, found, message, detail, stats, wait)


def _in_words(seconds: float) -> str:
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {unit}"
    return "1 second" if seconds <= 1 else f"{round(seconds)} seconds"


def changed(
    source: Source,
    found: tuple[Candidate, ...] = (),
    stats: SearchStats | None = None,
    detail: str = "",
    evidence: str = "",
) -> SearchResult:
    """The result of a search whose answer this program no longer understands."""
    message = f"{source.label} changed its pages; this source needs an update."
    return SearchResult(
        Outcome.LAYOUT_CHANGED, found, message, detail, stats or SearchStats(), evidence=evidence
    )


def blocked(
    source: Source,
    found: tuple[Candidate, ...],
    stats: SearchStats,
    detail: str,
    retry_after: float | None = None,
) -> SearchResult:
    """The result of a search that ended before a human check."""
    return SearchResult(
        Outcome.BLOCKED,
        found,
        f"{source.label} asked for a human check.",
        detail,
        stats,
        retry_after,
    )


def failed(
    source: Source,
    failure: FetchFailure,
    found: tuple[Candidate, ...] = (),
    stats: SearchStats | None = None,
) -> SearchResult:
    """The result of a search that an HTTP failure ended; what was found before is kept."""
    stats = stats or SearchStats()
    if failure.status == 429:
        return rate_limited(source, found, stats, failure.retry_after, failure.detail)
    if failure.status in (401, 403):
        message = f"{source.label} refused our requests."
        return SearchResult(
            Outcome.BLOCKED, found, message, failure.detail, stats, failure.retry_after
        )
    if failure.status in (400, 404) or isinstance(failure, NotJson):
        return changed(source, found, stats, failure.detail)
    late = failure.detail == "deadline"
    message = f"{source.label} did not answer{' in time' if late else ''}."
    outcome = Outcome.TIMEOUT if late else Outcome.NETWORK
    return SearchResult(outcome, found, message, failure.detail, stats, failure.retry_after)
