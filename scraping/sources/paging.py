"""Reading an interface page by page, the same for every source that has one: what ends it, and what
is kept.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.reasons import Reason
from scraping.sources.base import (
    Candidate,
    Query,
    SearchResult,
    SearchStats,
    Source,
    changed,
    failed,
    finished,
    rate_limited,
)
from scraping.sources.identity import photograph
from scraping.sources.snapshots import save_answer
from scraping.urls import normalized_url

DRIFT_ITEMS = 10  # from here on, fewer than half readable means that the answer's shape changed


@dataclass(frozen=True)
class Paging:
    """How one interface is read.

    `request` asks for a page, counted from 1, given the answer before it. `items` takes the list
    out of an answer, None when there is no such list. `parse` gives an entry's candidates, none
    when it holds nothing of use and None when it cannot be read. `is_last` is told the answer, the
    page's number and how many entries it had. `used_up` gives the seconds to wait when an answer
    says that no request is left.
    """

    request: Callable[[int, JsonReply | None], JsonReply | FetchFailure]
    items: Callable[[Any], list[Any] | None]
    parse: Callable[[Any], Iterable[Candidate] | None]
    is_last: Callable[[JsonReply, int, int], bool]
    is_past_end: Callable[[FetchFailure], bool] = field(default=lambda failure: False)
    used_up: Callable[[JsonReply], float | None] = field(default=lambda reply: None)


def read_pages(source: Source, query: Query, paging: Paging) -> SearchResult:
    """Ask for page after page until enough is found, the last is reached or something goes
    wrong.
    """
    reading, reply = _Reading(source, query, paging), None
    for number in itertools.count(1):
        answer = paging.request(number, reply)
        if end := reading.take(answer, number):
            return end
        assert isinstance(answer, JsonReply)
        reply = answer
    raise AssertionError("not reached")


@dataclass
class _Reading:
    source: Source
    query: Query
    paging: Paging
    found: dict[str, Candidate] = field(default_factory=dict)
    stats: SearchStats = field(default_factory=SearchStats)

    def take(self, reply: JsonReply | FetchFailure, number: int) -> SearchResult | None:
        """Keep what an answer holds; return the result when it was the last, None to go on."""
        if isinstance(reply, FetchFailure):
            if number > 1 and self.paging.is_past_end(reply):
                return self._finished("last page")
            self.stats.ended_by = reply.detail or reply.reason
            return failed(self.source, reply, self._candidates(), self.stats)
        items = self.paging.items(reply.data)
        if items is None:
            return self._changed(reply, "the answer has no list of results")
        self._absorb(items)
        if self.stats.seen >= DRIFT_ITEMS and self.stats.dropped * 2 > self.stats.seen:
            return self._changed(
                reply, f"{self.stats.dropped} of {self.stats.seen} entries cannot be read"
            )
        return self._end_after(reply, number, len(items))

    def _end_after(self, reply: JsonReply, number: int, count: int) -> SearchResult | None:
        if len(self.found) >= self.query.limit:
            return self._finished("limit")
        if self.paging.is_last(reply, number, count):
            return self._finished("last page")
        if (wait := self.paging.used_up(reply)) is not None:
            self.stats.ended_by = "no requests left"
            return rate_limited(
                self.source, self._candidates(), self.stats, wait, "no requests left"
            )
        if not self.query.seconds_left():
            self.stats.ended_by = "deadline"
            return failed(
                self.source,
                FetchFailure(Reason.UNREACHABLE, "deadline"),
                self._candidates(),
                self.stats,
            )
        return None

    def _absorb(self, items: list[Any]) -> None:
        self.stats.pages += 1
        for item in items:
            self.stats.seen += 1
            candidates = self.paging.parse(item)
            if candidates is None:
                self.stats.dropped += 1
            for candidate in candidates or ():
                self._keep(candidate)

    def _keep(self, candidate: Candidate) -> None:
        identity = candidate.identity or photograph(candidate.image_url)
        key = normalized_url(candidate.image_url)
        if key not in self.found:
            rank = len(self.found) + 1
            self.found[key] = replace(
                candidate, query=self.query.words, rank=rank, identity=identity
            )

    def _candidates(self) -> tuple[Candidate, ...]:
        return tuple(self.found.values())

    def _finished(self, ended_by: str) -> SearchResult:
        self.stats.ended_by = ended_by
        return finished(self.source, self.query, self._candidates(), self.stats)

    def _changed(self, reply: JsonReply, detail: str) -> SearchResult:
        self.stats.ended_by = "not understood"
        evidence = save_answer(self.source, self.query, reply.data)
        return changed(self.source, self._candidates(), self.stats, detail, evidence)
