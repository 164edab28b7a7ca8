"""searches.jsonl: finished searches, so that a collection that is taken up again does not ask the
same twice.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scraping.files import read_json_lines
from scraping.sources.base import Candidate, SearchResult
from scraping.sources.catalogue import Outcome

CANDIDATE_FIELDS = frozenset(each.name for each in fields(Candidate))
KEPT_OUTCOMES = frozenset({Outcome.OK, Outcome.PARTIAL, Outcome.NO_RESULTS})


@dataclass(frozen=True)
class Ask:
    """What is put to a source for a class: the class's words, or others for the same thing."""

    class_id: str
    source: str
    words: str


class SearchLog:
    """The finished searches of one folder, in memory and in the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[Ask, tuple[int, SearchResult]] = {}
        for entry in read_json_lines(path):
            result = SearchResult(
                Outcome(entry["outcome"]),
                tuple(_read_candidate(facts) for facts in entry["candidates"]),
                entry["message"],
                retry_after=entry["retry_after"],
            )
            self._kept[Ask(entry["class"], entry["source"], entry["words"])] = (
                entry["wanted"],
                result,
            )

    def __iter__(self) -> Iterator[tuple[Ask, int, SearchResult]]:
        """What is kept: the question, for how many, and the answer."""
        return ((ask, wanted, result) for ask, (wanted, result) in self._kept.items())

    def earlier(self, ask: Ask, wanted: int) -> SearchResult | None:
        """The kept search, unless more is wanted now and it had not come to an end."""
        asked, result = self._kept.get(ask, (0, None))
        if result is None or (result.outcome is Outcome.OK and asked < wanted):
            return None
        return result

    def keep(self, ask: Ask, wanted: int, result: SearchResult) -> None:
        """Record a search that need not be asked again; one that failed in passing may be."""
        if result.outcome not in KEPT_OUTCOMES:
            return
        entry = {
            "class": ask.class_id,
            "source": ask.source,
            "words": ask.words,
            "wanted": wanted,
            "outcome": result.outcome.value,
            "message": result.message,
            "retry_after": result.retry_after,
            "candidates": [asdict(candidate) for candidate in result.candidates],
        }
        with self._path.open("ab") as stream:
            if stream.tell() and not self._ends_a_line():
                stream.write(b"\n")  # a line that a kill tore must not swallow this one
            stream.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")

    def _ends_a_line(self) -> bool:
        with self._path.open("rb") as stream:
            stream.seek(-1, 2)
            return stream.read(1) == b"\n"


def _read_candidate(facts: dict[str, Any]) -> Candidate:
    """Return a candidate from its stored facts; those that other versions wrote are passed over."""
    return Candidate(**{name: value for name, value in facts.items() if name in CANDIDATE_FIELDS})
