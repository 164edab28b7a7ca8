"""What a source is: words in, candidates and a typed outcome out.

A source never answers with silence: whatever happens to it is one of ten outcomes with a sentence
for the user, and what it found before is kept. Parsers are pure functions over text; input and
output around them are thin.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from scraping.net.http import FetchFailure, JsonReply, JsonRequest, NotJson
from scraping.outside import clean_address, clean_text, page_address, pixels, wait_seconds
from scraping.sources.catalogue import CATALOGUE, Outcome
from scraping.urls import normalized_url

if TYPE_CHECKING:  # what only needs candidates need not load Selenium
    from scraping.net.browser import Browser

DEFAULT_WAIT_SECONDS = 180.0
DRIFT_ITEMS = 10  # from here on, fewer than half readable means that their shape changed
# Statuses that a source answers to words that it cannot take, or to an address that it gave up.
REFUSED_QUESTION_STATUSES = frozenset({400, 404, 413, 414, 422, 431})
NO_LICENSE_PER_IMAGE = "it does not state the licence of each picture"  # why some are skipped

# How much of what a source states about an image is kept, in characters.
TEXT_LIMITS: Mapping[str, int] = {
    "title": 1000,
    "mime": 64,
    "creator": 1000,
    "license": 64,
    "license_version": 16,
    "attribution": 4000,
    "dataset_key": 36,
}
ADDRESSES = ("page_url", "creator_url", "license_url")

# How long a source is left alone after such an end, in seconds.
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
    """One image that a source names, cleaned and bounded whatever the source wrote.

    `source`, `query` and `rank`, counted from 1, are set by whoever collects the candidates of a
    search. `width` and `height` are in pixels. `license_basis` says how the licence is known:
    `per-item`, stated for this image; `filter`, only asked for in the search; `requester`, whoever
    asks has supplied it; `unknown`. Only `per-item` satisfies a person who wants open licences.
    `dataset_key` names the dataset of GBIF, whose terms ask for it. An image's address that cannot
    be fetched stays, so that it gets a row and a reason; other addresses become empty then.
    """

    image_url: str
    source: str = ""
    query: str = ""
    rank: int = 0
    page_url: str = ""
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
    dataset_key: str = ""

    def __post_init__(self) -> None:
        """Clean all that comes from outside."""
        cleaned: dict[str, str | int | None] = {
            "image_url": clean_address(self.image_url),
            "width": pixels(self.width),
            "height": pixels(self.height),
        }
        for name in ADDRESSES:
            cleaned[name] = page_address(getattr(self, name))
        for name, limit in TEXT_LIMITS.items():
            cleaned[name] = clean_text(getattr(self, name), limit)
        for name, value in cleaned.items():
            object.__setattr__(self, name, value)  # frozen for everybody else


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

    `retry_after` holds the seconds that the source itself asked to wait. `snapshot` is the path of
    the page or answer that was not understood; a screenshot lies beside it as `.png`. With
    `may_be_words` it is a failure that the words asked for may have provoked; one that has not been
    shown with other words does not close the source (`closes`).
    """

    outcome: Outcome
    candidates: tuple[Candidate, ...] = ()
    message: str = ""
    detail: str = ""
    stats: SearchStats = field(default_factory=SearchStats)
    retry_after: float | None = None
    snapshot: str = ""
    may_be_words: bool = False
    closes: bool = True

    @property
    def cool_down_seconds(self) -> float | None:
        """Seconds to leave the source alone now; None when it may be asked again at once."""
        usual = COOL_DOWN_SECONDS.get(self.outcome) if self.closes else None
        if usual is None or self.retry_after is None:
            return usual
        if self.outcome is Outcome.RATE_LIMITED:
            return self.retry_after
        return max(usual, self.retry_after)


@dataclass(frozen=True)
class SearchOptions:
    """What was chosen for all searches.

    `license` is `any` or `open`; `robots` is `respect` or `operator`; `max_side` is in pixels.
    `credentials` holds what sources with an account need, by the names in the catalogue.
    `snapshot_dir` is the folder for answers that were not understood; without it none is saved.
    `supplied` is what the person supplies who asks, by source and name of the class.
    """

    locale: str = "en-US"
    license: str = "any"
    robots: str = "respect"
    contact: str = ""
    max_side: int = 1024
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    snapshot_dir: str = ""
    supplied: Mapping[tuple[str, str], Sequence[Candidate]] = field(
        default_factory=dict, repr=False
    )


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

    `get_json`, `request` and `fetch_text` go through the guarded client; `request` is for what
    needs headers or a form. `browser` gives a browser limited to the given hosts; it belongs to
    the caller. `pace` waits until the given seconds have passed since this source was last asked,
    and not at all for hosts of one's own. `wait` simply waits.
    """

    base_url: str
    get_json: Callable[[str, Mapping[str, str]], JsonReply | FetchFailure]
    request: Callable[[JsonRequest], JsonReply | FetchFailure]
    fetch_text: Callable[[str], str | FetchFailure]
    browser: Callable[[tuple[str, ...]], "Browser"]
    pace: Callable[[float], None]
    wait: Callable[[float], None]


class Source(ABC):
    """One source of images.

    Its label, its credentials and whether it is asked by default are in `CATALOGUE[name]`, which
    the site reads without loading this. `default_url` is an https address without a path.
    `min_interval_s` is the pace in seconds between questions, at least 1.0. `thumbnail_hosts` are
    the addresses of its small previews as patterns `host/path` with `*`, `sample_words` what to ask
    it when only its health matters.
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

    def descriptions(self, query: Query, tools: SourceTools) -> list[str] | None:
        """A few English words on each thing that is called exactly so, from one question.

        None from a source that does not know them (`describes_names` in the catalogue says which
        ones do), cannot be asked, or fails.
        """
        return None


def skipped(source: Source, reason: str) -> SearchResult:
    """Return the result of a search that was not made, with the reason as part of a sentence."""
    message = f"{source.label} was skipped: {reason}."
    return SearchResult(Outcome.NOT_APPLICABLE, message=message)


@dataclass
class PageResults:
    """What one search has found so far, in the source's order and each URL once.

    Its methods return the results that the search may end with; what was found is kept in each.
    """

    source: Source
    query: Query
    stats: SearchStats = field(default_factory=SearchStats)
    _by_url: dict[str, Candidate] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_url)

    @property
    def is_enough(self) -> bool:
        """Whether as many were found as the query asks for."""
        return len(self) >= self.query.limit

    @property
    def is_mostly_unreadable(self) -> bool:
        """Whether so few entries could be read that the source must have changed their shape."""
        stats = self.stats
        return stats.seen >= DRIFT_ITEMS and stats.dropped * 2 > stats.seen

    def add(self, candidate: Candidate) -> None:
        """Keep a candidate, unless its URL is known."""
        key = normalized_url(candidate.image_url)
        if key not in self._by_url:
            self._by_url[key] = replace(
                candidate,
                source=self.source.name,
                query=self.query.words,
                rank=len(self) + 1,
            )

    def end(
        self,
        outcome: Outcome,
        message: str,
        detail: str = "",
        retry_after: float | None = None,
        snapshot: str = "",
        may_be_words: bool = False,
    ) -> SearchResult:
        """Return the result with what was found, at most as much as was asked for."""
        candidates = tuple(self._by_url.values())
        if retry_after is not None:
            retry_after = wait_seconds(retry_after)
        return SearchResult(
            outcome=outcome,
            candidates=candidates[: self.query.limit],
            message=message,
            detail=detail,
            stats=self.stats,
            retry_after=retry_after,
            snapshot=snapshot,
            may_be_words=may_be_words,
        )

    def finished(self, ended_by: str) -> SearchResult:
        """Return the result of a search that ended by itself: OK, PARTIAL or NO_RESULTS."""
        self.stats.ended_by = ended_by
        label = self.source.label
        found = len(self)
        limit = self.query.limit
        if found >= limit:
            return self.end(Outcome.OK, f"{limit} from {label}.")
        if found:
            return self.end(Outcome.PARTIAL, f"{label} found {found} in all.")
        message = f"{label} found nothing for “{self.query.words}”."
        return self.end(Outcome.NO_RESULTS, message)

    def rate_limited(self, retry_after: float | None, detail: str) -> SearchResult:
        """Return the result of a search that the source asked to interrupt, for some seconds."""
        if retry_after is None:
            retry_after = DEFAULT_WAIT_SECONDS
        wait = _duration_in_words(wait_seconds(retry_after))
        message = f"{self.source.label} asks us to wait {wait}."
        return self.end(Outcome.RATE_LIMITED, message, detail, retry_after)

    def out_of_time(self) -> SearchResult:
        """Return the result of a search for which the time ran out."""
        self.stats.ended_by = "deadline"
        message = f"{self.source.label} did not answer in time."
        if len(self):
            message = f"The time for {self.source.label} ran out."
        return self.end(Outcome.TIMEOUT, message, "deadline")

    def blocked(self, detail: str, may_be_words: bool = False) -> SearchResult:
        """Return the result of a search that ended before a human check."""
        message = f"{self.source.label} asked for a human check."
        return self.end(Outcome.BLOCKED, message, detail, may_be_words=may_be_words)

    def changed(self, detail: str, snapshot: str = "") -> SearchResult:
        """Return the result of a search whose answer this program no longer understands."""
        message = f"{self.source.label} changed its pages; this source needs an update."
        return self.end(
            Outcome.LAYOUT_CHANGED, message, detail, snapshot=snapshot, may_be_words=True
        )

    def unsafe(self, detail: str) -> SearchResult:
        """Return the result of a search whose answer shows that safe search is not in force.

        Nothing of it is kept, and nothing is asked again without it.
        """
        self._by_url.clear()
        self.stats.ended_by = "not safe"
        message = f"{self.source.label} did not search safely, so its answer was not used."
        return self.end(Outcome.UNAVAILABLE, message, detail)

    def refused_question(self, detail: str) -> SearchResult:
        """Return the result of a search that the source refused because of what it was asked.

        One person's words say nothing of the source: only when it refuses even its own sample words
        has it changed.
        """
        if self.query.words == self.source.sample_words:
            return self.changed(detail)
        if len(self):
            return self.finished(detail)
        self.stats.ended_by = detail
        message = f"{self.source.label} cannot be asked for “{self.query.words}”."
        return self.end(Outcome.NO_RESULTS, message, detail)

    def failed(self, failure: FetchFailure) -> SearchResult:
        """Return the result of a search that an HTTP failure ended."""
        detail = failure.detail
        self.stats.ended_by = detail or failure.reason
        label = self.source.label
        wait = failure.retry_after
        if failure.status == 429:
            return self.rate_limited(wait, detail)
        if failure.status in (401, 403):
            return self.end(
                Outcome.BLOCKED,
                f"{label} refused our requests.",
                detail,
                wait,
                may_be_words=failure.status == 403,  # some programs guard sites by words
            )
        if failure.status in REFUSED_QUESTION_STATUSES:
            return self.refused_question(detail)
        if isinstance(failure, NotJson):
            return self.changed(detail)
        outcome = Outcome.NETWORK
        message = f"{label} did not answer."
        if detail == "deadline":
            outcome = Outcome.TIMEOUT
            message = f"{label} did not answer in time."
        return self.end(outcome, message, detail, wait, may_be_words=True)


def _duration_in_words(seconds: float) -> str:
    if seconds <= 1:
        return "1 second"
    if seconds >= 2 * 3600:
        return f"{round(seconds / 3600)} hours"
    if seconds >= 2 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{round(seconds)} seconds"
