"""What `result.json` says of a collection, per class and per source.

It is what was asked, found, kept, and rejected for which reason.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scraping.config import ClassConfig, CollectConfig
from scraping.records.image_log import ImageRecord, record_key
from scraping.search.class_kind import ClassKind
from scraping.search.search_log import Search
from scraping.sources.base import SearchResult
from scraping.sources.catalogue import CATALOGUE, Outcome
from scraping.urls import normalized_url

# The outcomes of searches that did not fail, the best first.
ANSWERS = (Outcome.OK, Outcome.PARTIAL, Outcome.NO_RESULTS, Outcome.NOT_APPLICABLE)


@dataclass
class _SourceAnswers:
    """What one source answered for one class.

    `results` and `limits` are by the words it was asked with; `urls` are normalized, of all
    candidates.
    """

    results: dict[str, SearchResult] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    urls: set[str] = field(default_factory=set)

    @property
    def failures(self) -> list[SearchResult]:
        """The results of searches that failed, in the order in which they were asked."""
        results = self.results.values()
        return [result for result in results if result.outcome not in ANSWERS]

    def decisive(self) -> SearchResult:
        """Return the result that speaks for all: the last failure, else the best answer."""
        if self.failures:
            return self.failures[-1]
        results = self.results.values()
        return min(results, key=lambda result: ANSWERS.index(result.outcome))


class Summary:
    """Collects the answers of the sources, and sums them up with the records of the images."""

    def __init__(self, folder: Path, config: CollectConfig) -> None:
        self._folder = folder
        self._config = config
        self._answers: dict[tuple[str, str], _SourceAnswers] = {}  # by class and source
        self._unanswered: set[Search] = set()
        self.kind = ClassKind()

    def begin(self, search: Search, limit: int) -> None:
        """Record that a source is being asked; if the time runs out now, that is its result."""
        key = (search.class_id, search.source)
        answers = self._answers.setdefault(key, _SourceAnswers())
        answers.limits[search.words] = limit
        label = CATALOGUE[search.source].label
        message = f"The time ran out while {label} was asked."
        timeout = SearchResult(Outcome.TIMEOUT, message=message)
        answers.results.setdefault(search.words, timeout)
        self._unanswered.add(search)

    def end(self, search: Search, result: SearchResult) -> None:
        """Record what a source has answered."""
        answers = self._answers[search.class_id, search.source]
        answers.results[search.words] = result
        self._unanswered.discard(search)
        for candidate in result.candidates:
            answers.urls.add(normalized_url(candidate.image_url))

    def end_early(self) -> None:
        """Record that the collection ends on request, which is no fault of who was being asked."""
        for search in self._unanswered:
            answers = self._answers[search.class_id, search.source]
            if answers.results[search.words].outcome is Outcome.TIMEOUT:
                label = CATALOGUE[search.source].label
                message = f"The collection was ended on request while {label} was asked."
                ended = SearchResult(Outcome.NOT_APPLICABLE, message=message)
                answers.results[search.words] = ended

    def forget(self, url: str) -> None:
        """Drop an image URL; a record without it stands for the image."""
        for answers in self._answers.values():
            answers.urls.discard(normalized_url(url))

    def is_applicable(self, class_id: str, source: str) -> bool:
        """Return whether a source has not said that it does not cover this class."""
        answers = self._answers.get((class_id, source))
        if answers is None:
            return True
        return answers.decisive().outcome is not Outcome.NOT_APPLICABLE

    def failures(self, class_id: str, source: str) -> int:
        """Return with how many query variants of a class a source failed."""
        answers = self._answers.get((class_id, source))
        return 0 if answers is None else len(answers.failures)

    def classes(self, records: Iterable[ImageRecord]) -> list[dict[str, Any]]:
        """Return an entry per class."""
        by_class = defaultdict(list)
        for record in records:
            by_class[record["class"]].append(record)
        entries = []
        for class_config in self._config.classes:
            entries.append(self._class(class_config, by_class[class_config.id]))
        return entries

    def _class(self, entry: ClassConfig, records: list[ImageRecord]) -> dict[str, Any]:
        kept = _count_kept(records)
        return {
            "id": entry.id,
            "name": entry.name,
            "query": entry.query,
            "asked": self._config.limit,
            "found": len(records),
            "kept": kept,
            "too_few": kept < min(self._config.minimum, self._config.limit),
            "rejected": _count_rejected(records),
            "wordings": self._variants(entry),
        }

    def _variants(self, entry: ClassConfig) -> list[str]:
        """Return the words that were asked with, those that were asked first at the start."""
        variants = [self.kind.words_for(entry)]
        for (class_id, _source), answers in self._answers.items():
            if class_id == entry.id:
                variants.extend(answers.limits)
        return list(dict.fromkeys(variants))

    def sources(self, records: Iterable[ImageRecord]) -> list[dict[str, Any]]:
        """Return an entry per class and source that was asked, in the configuration's order."""
        by_pair = defaultdict(list)
        for record in records:
            pair = (record["class"], record["source"])
            by_pair[pair].append(record)
        entries = []
        for class_config in self._config.classes:
            for source in self._config.sources:
                pair = (class_config.id, source)
                if pair in self._answers:
                    entries.append(self._source(pair, by_pair[pair]))
        return entries

    def _source(self, pair: tuple[str, str], records: list[ImageRecord]) -> dict[str, Any]:
        class_id, source = pair
        answers = self._answers[pair]
        found = set(answers.urls)
        for record in records:
            url = record["image_url"]
            found.add(normalized_url(url) if url else record_key(record)[1])
        result = answers.decisive()
        return {
            "name": source,
            "class": class_id,
            "outcome": result.outcome.value,
            "asked": sum(answers.limits.values()),
            "found": len(found),
            "kept": _count_kept(records),
            "rejected": _count_rejected(records),
            "message": _message(source, answers, result, len(found)),
            "retry_after": result.retry_after,
            "cool_down_seconds": result.cool_down_seconds,
            "evidence": self._relative(result.snapshot),
        }

    def _relative(self, snapshot: str) -> str | None:
        """Return the path of a snapshot, relative to the folder; None without one."""
        if not snapshot:
            return None
        path = Path(snapshot)
        if path.is_relative_to(self._folder):
            return str(path.relative_to(self._folder))
        return snapshot


def _message(source: str, answers: _SourceAnswers, result: SearchResult, found: int) -> str:
    """Return the sentence of the decisive result, or one that counts the query variants."""
    variants = 0
    for each in answers.results.values():
        variants += each.outcome is not Outcome.NOT_APPLICABLE
    if result.outcome in (Outcome.OK, Outcome.PARTIAL) and variants > 1:
        return f"{found} from {CATALOGUE[source].label} ({variants} different searches)."
    return result.message


def _count_kept(records: Iterable[ImageRecord]) -> int:
    return sum(record["state"] == "kept" for record in records)


def _count_rejected(records: Iterable[ImageRecord]) -> dict[str, int]:
    """Return how many records were rejected for which reason."""
    counts: Counter[str] = Counter()
    for record in records:
        if record["reason"] is not None:
            counts[record["reason"]] += 1
    return dict(counts)
