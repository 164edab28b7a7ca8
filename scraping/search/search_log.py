"""searches.jsonl: finished searches, so that a resumed collection does not repeat them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from scraping.files import atomic_write, json_line, read_json_lines
from scraping.sources.base import Candidate, SearchResult
from scraping.sources.catalogue import Outcome
from scraping.urls import normalized_url

CANDIDATE_FIELDS = frozenset(each.name for each in fields(Candidate))
KEPT_OUTCOMES = frozenset({Outcome.OK, Outcome.PARTIAL, Outcome.NO_RESULTS})


@dataclass(frozen=True)
class Search:
    """What is asked of a source for a class: the class's words, or others for the same thing."""

    class_id: str
    source: str
    words: str


class SearchLog:
    """The finished searches of one folder, in memory and in the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._finished: dict[Search, tuple[int, SearchResult]] = {}
        for entry in read_json_lines(path):
            search = Search(entry["class"], entry["source"], entry["words"])
            result = SearchResult(
                Outcome(entry["outcome"]),
                tuple(_read_candidate(facts) for facts in entry["candidates"]),
                entry["message"],
                retry_after=entry["retry_after"],
            )
            self._finished[search] = (entry["wanted"], result)

    def __iter__(self) -> Iterator[tuple[Search, int, SearchResult]]:
        """Yield each search, how many candidates it asked for, and its result."""
        for search, (limit, result) in self._finished.items():
            yield search, limit, result

    def find(self, search: Search, limit: int) -> SearchResult | None:
        """Return the earlier result, unless more is wanted now and the source had more."""
        earlier_limit, result = self._finished.get(search, (0, None))
        if result is None:
            return None
        if result.outcome is Outcome.OK and earlier_limit < limit:
            return None
        return result

    def forget(self, url: str) -> None:
        """Drop the candidates with this image URL, also from the file."""
        wanted = normalized_url(url)
        is_known = False
        for search, (limit, result) in self._finished.items():
            others = []
            for candidate in result.candidates:
                if normalized_url(candidate.image_url) != wanted:
                    others.append(candidate)
            if len(others) < len(result.candidates):
                is_known = True
                self._finished[search] = (limit, replace(result, candidates=tuple(others)))
        if is_known:
            entries = []
            for search, (limit, result) in self._finished.items():
                entries.append(json_line(_entry(search, limit, result)))
            atomic_write(self._path, b"".join(entries))

    def append(self, search: Search, limit: int, result: SearchResult) -> None:
        """Record a finished search; one that failed in passing may be repeated."""
        if result.outcome not in KEPT_OUTCOMES:
            return
        self._finished[search] = (limit, result)
        with self._path.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, 2)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")  # a line that a kill tore must not swallow this one
            stream.write(json_line(_entry(search, limit, result)))


def _entry(search: Search, limit: int, result: SearchResult) -> dict[str, Any]:
    """Return the line of a finished search."""
    return {
        "class": search.class_id,
        "source": search.source,
        "words": search.words,
        "wanted": limit,
        "outcome": result.outcome.value,
        "message": result.message,
        "retry_after": result.retry_after,
        "candidates": [asdict(candidate) for candidate in result.candidates],
    }


def _read_candidate(facts: dict[str, Any]) -> Candidate:
    """Return a candidate from its stored facts; those that other versions wrote are passed over."""
    return Candidate(**{name: value for name, value in facts.items() if name in CANDIDATE_FIELDS})
