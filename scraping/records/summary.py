"""The books of a collection: per class and per source, what was asked, found, kept, and rejected
for which reason.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scraping.config import ClassConfig, CollectConfig
from scraping.records.image_log import ImageRecord
from scraping.search.search_log import Ask
from scraping.sources.base import SearchResult
from scraping.sources.catalogue import Outcome
from scraping.sources.registry import REGISTRY
from scraping.urls import normalized_url

ANSWERS = (
    Outcome.OK,
    Outcome.PARTIAL,
    Outcome.NO_RESULTS,
    Outcome.NOT_APPLICABLE,
)  # the best first


@dataclass
class _Answers:
    """What one source said for one class, by the words it was asked with; the last word counts."""

    results: dict[str, SearchResult] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)

    def decisive(self) -> SearchResult:
        """The answer that speaks for all: a failure before everything else, then the best."""
        failures = [result for result in self.results.values() if result.outcome not in ANSWERS]
        if failures:
            return failures[-1]
        return min(self.results.values(), key=lambda result: ANSWERS.index(result.outcome))


class Tally:
    """Collects the answers of the sources, and makes of them and of the rows what `result.json`
    says.
    """

    def __init__(self, folder: Path, config: CollectConfig) -> None:
        self._folder = folder
        self._config = config
        self._answers: dict[tuple[str, str], _Answers] = {}

    def begin(self, ask: Ask, wanted: int) -> None:
        """A source is being asked; if the time runs out now, that is what is said of it."""
        answers = self._answers.setdefault((ask.class_id, ask.source), _Answers())
        answers.asked[ask.words] = wanted
        message = f"The time ran out while {REGISTRY[ask.source].label} was asked."
        answers.results.setdefault(ask.words, SearchResult(Outcome.TIMEOUT, message=message))

    def end(self, ask: Ask, result: SearchResult) -> None:
        """A source has answered."""
        answers = self._answers[ask.class_id, ask.source]
        answers.results[ask.words] = result
        answers.named |= {normalized_url(candidate.image_url) for candidate in result.candidates}

    def applies(self, class_id: str, source: str) -> bool:
        """Whether a source has not said that this class is nothing for it."""
        answers = self._answers.get((class_id, source))
        return answers is None or answers.decisive().outcome is not Outcome.NOT_APPLICABLE

    def failures(self, class_id: str, source: str) -> int:
        """For how many wordings a source failed, for a class."""
        answers = self._answers.get((class_id, source), _Answers())
        return sum(result.outcome not in ANSWERS for result in answers.results.values())

    def classes(self, rows: Iterable[ImageRecord]) -> list[dict[str, Any]]:
        """A row per class."""
        by_class: dict[str, list[ImageRecord]] = {}
        for row in rows:
            by_class.setdefault(row["class"], []).append(row)
        return [self._class(entry, by_class.get(entry.id, [])) for entry in self._config.classes]

    def _class(self, entry: ClassConfig, rows: list[ImageRecord]) -> dict[str, Any]:
        kept = sum(row["state"] == "kept" for row in rows)
        return {
            "id": entry.id,
            "name": entry.name,
            "query": entry.query,
            "asked": self._config.limit,
            "found": len(rows),
            "kept": kept,
            "too_few": kept < min(self._config.minimum, self._config.limit),
            "rejected": rejections(rows),
            "wordings": self._wordings(entry),
        }

    def _wordings(self, entry: ClassConfig) -> list[str]:
        """The words that were asked with, the class's own first."""
        asked = [
            words
            for (class_id, _), each in self._answers.items()
            if class_id == entry.id
            for words in each.asked
        ]
        return list(dict.fromkeys([entry.query, *asked]))

    def sources(self, rows: Iterable[ImageRecord]) -> list[dict[str, Any]]:
        """A row per class and source that was asked, in the order of the configuration."""
        by_pair: dict[tuple[str, str], list[ImageRecord]] = {}
        for row in rows:
            by_pair.setdefault((row["class"], row["source"]), []).append(row)
        return [self._source(pair, by_pair.get(pair, [])) for pair in self._pairs()]

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for entry in self._config.classes:
            for source in self._config.sources:
                if (entry.id, source) in self._answers:
                    yield entry.id, source

    def _source(self, pair: tuple[str, str], rows: list[ImageRecord]) -> dict[str, Any]:
        class_id, source = pair
        answers = self._answers[pair]
        found = len(answers.named | {normalized_url(row["image_url"]) for row in rows})
        result = answers.decisive()
        return {
            "name": source,
            "class": class_id,
            "outcome": result.outcome.value,
            "asked": sum(answers.asked.values()),
            "found": found,
            "kept": sum(row["state"] == "kept" for row in rows),
            "rejected": rejections(rows),
            "message": self._message(source, answers, result, found),
            "retry_after": result.retry_after,
            "cool_down_seconds": result.cool_down_seconds,
            "evidence": self._relative(result.snapshot),
        }

    def _message(self, source: str, answers: _Answers, result: SearchResult, found: int) -> str:
        wordings = sum(
            each.outcome is not Outcome.NOT_APPLICABLE for each in answers.results.values()
        )
        if result.outcome in (Outcome.OK, Outcome.PARTIAL) and wordings > 1:
            return f"{found} from {REGISTRY[source].label}, asked in {wordings} wordings."
        return result.message

    def _relative(self, snapshot: str) -> str | None:
        """The path of a snapshot, relative to the folder."""
        if not snapshot:
            return None
        path = Path(snapshot)
        return (
            str(path.relative_to(self._folder)) if path.is_relative_to(self._folder) else snapshot
        )


def rejections(records: Iterable[ImageRecord]) -> dict[str, int]:
    """Return how many records were rejected for which reason."""
    counts: Counter[str] = Counter()
    for record in records:
        if record["reason"] is not None:
            counts[record["reason"]] += 1
    return dict(counts)
