"""Reading a source page by page: what is kept, and what ends it."""

import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from scraping.net.http import FetchFailure, JsonReply
from scraping.sources.base import Candidate, PageResults, Query, SearchResult, Source
from scraping.sources.snapshots import save_answer

logger = logging.getLogger(__name__)

MAX_ENTRIES = 1000  # of one page that are read; the largest that is asked for has 300
MAX_IDLE_PAGES = 200  # in a row that bring nothing new; a museum's page is one work


@dataclass(frozen=True)
class Paging:
    """How one interface is read.

    `request` asks for a page, counted from 1, given the answer before it. `items` takes the list
    out of an answer, None when there is no such list. `parse` gives an entry's candidates, none
    when it holds nothing of use and None when it cannot be read. `is_last` is told the answer, the
    page's number and how many entries it had. `is_past_end` is told the failure of a later page;
    True where that is how the interface ends its list. `used_up` gives the seconds to wait when an
    answer says that no request is left. `is_unsafe` tells an entry that strict safe search would
    have left out.
    """

    request: Callable[[int, JsonReply | None], JsonReply | FetchFailure]
    items: Callable[[Any], list[Any] | None]
    parse: Callable[[Any], Iterable[Candidate] | None]
    is_last: Callable[[JsonReply, int, int], bool]
    is_past_end: Callable[[FetchFailure], bool] = field(default=lambda failure: False)
    used_up: Callable[[JsonReply], float | None] = field(default=lambda reply: None)
    is_unsafe: Callable[[Any], bool] = field(default=lambda item: False)


def read_pages(source: Source, query: Query, paging: Paging) -> SearchResult:
    """Ask for page after page until enough is found, the last is reached, or a page fails."""
    results = PageResults(source, query)
    stats = results.stats
    reply: JsonReply | None = None
    last_useful = 0
    for number in itertools.count(1):
        answer = paging.request(number, reply)
        if isinstance(answer, FetchFailure):
            if number > 1 and paging.is_past_end(answer):
                return results.finished("last page")
            return results.failed(answer)
        reply = answer
        items = paging.items(reply.data)
        if items is None:
            return _not_understood(results, reply, "the answer has no list of results")
        stats.pages += 1
        known = len(results)
        _add_items(results, items[:MAX_ENTRIES], paging)
        if len(results) > known:
            last_useful = number
        if problem := _problem_of(results, reply, items, paging):
            return problem
        if results.is_enough:
            return results.finished("limit")
        if paging.is_last(reply, number, len(items)):
            return results.finished("last page")
        if number - last_useful >= MAX_IDLE_PAGES:
            return results.finished("nothing new")
        wait = paging.used_up(reply)
        if wait is not None:
            stats.ended_by = "no requests left"
            return results.rate_limited(wait, "no requests left")
        if not query.seconds_left():
            return results.out_of_time()
    raise AssertionError("not reached")


def _problem_of(
    results: PageResults, reply: JsonReply, items: list[Any], paging: Paging
) -> SearchResult | None:
    """Return the result for an answer that must not be used, None for one that may."""
    if any(paging.is_unsafe(item) for item in items[:MAX_ENTRIES]):
        return results.unsafe("an entry is marked as unsafe")
    stats = results.stats
    if results.is_mostly_unreadable:
        detail = f"{stats.dropped} of {stats.seen} entries cannot be read"
        return _not_understood(results, reply, detail)
    return None


def _add_items(results: PageResults, items: list[Any], paging: Paging) -> None:
    for item in items:
        results.stats.seen += 1
        try:
            candidates = paging.parse(item)
        except Exception:  # one odd entry must not end the reading of the others
            logger.exception("%s: an entry cannot be read", results.source.name)
            candidates = None
        if candidates is None:
            results.stats.dropped += 1
            continue
        for candidate in candidates:
            results.add(candidate)


def _not_understood(results: PageResults, reply: JsonReply, detail: str) -> SearchResult:
    """Save the answer, and return the result for one that is not understood."""
    results.stats.ended_by = "not understood"
    snapshot = save_answer(results.source, results.query, reply.data)
    return results.changed(detail, snapshot)
