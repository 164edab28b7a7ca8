"""What is still to be asked for one class, and which candidates wait to be downloaded."""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scraping.config import ClassConfig
from scraping.search.search_log import Search
from scraping.sources.base import Candidate
from scraping.sources.catalogue import CATALOGUE, is_supplied
from scraping.urls import normalized_url

MIN_OVERSHOOT = 1.3  # about a quarter of what sources name is dead, too small or a duplicate
MAX_OVERSHOOT = 4.0  # where experience says that more than that is


@dataclass
class ClassPlan:
    """The searches and candidates of one class while its quota is being filled.

    `kept_counts` is how many images are kept, by class id. `planned` are the searches to come;
    `repeatable` those whose source had as many as it was asked for, so may have more; `limits` for
    how many candidates each search asked. `variants` have been tried or planned; `other_names` are
    those that sources know, None before they were asked. `known_urls` are normalized. `kind_query`
    is the name with the kind of things that it is, empty where the class is asked for as it is.
    """

    config: ClassConfig
    quota: int
    kept_counts: Mapping[str, int]
    planned: deque[Search] = field(default_factory=deque)
    repeatable: deque[Search] = field(default_factory=deque)
    limits: dict[Search, int] = field(default_factory=dict)
    kind_query: str = ""
    variants: list[str] = field(default_factory=list)
    other_names: list[str] | None = None
    exhausted: bool = False
    queue: deque[Candidate] = field(default_factory=deque)
    known_urls: set[str] = field(default_factory=set)
    decided: int = 0

    @property
    def kept(self) -> int:
        """Images kept so far."""
        return self.kept_counts[self.config.id]

    @property
    def missing(self) -> int:
        """Images still wanted."""
        return max(0, self.quota - self.kept)

    @property
    def can_grow(self) -> bool:
        """Whether images are missing and there is something left to do for them."""
        if not self.missing:
            return False
        if self.queue or self.planned or self.repeatable:
            return True
        return not self.exhausted

    def add_first(self, sources: Iterable[str]) -> None:
        """Plan the first searches: with the kind, but of sources of living things by the name."""
        words = self.kind_query or self.config.query
        self.variants.append(words)
        for source in sources:
            if is_supplied(source):
                continue  # taken before
            is_plain = CATALOGUE[source].living_things
            self._add(source, self.config.query if is_plain else words)

    def add_variant(self, words: str, sources: Iterable[str]) -> None:
        """Plan to ask the sources with these words, unless they were asked so before."""
        self.variants.append(words)
        for source in sources:
            self._add(source, words)

    def _add(self, source: str, words: str) -> None:
        search = Search(self.config.id, source, words)
        if search not in self.limits:
            self.planned.append(search)

    def next_search(self) -> Search | None:
        """Take the next search; those that may bring more come when all others are done."""
        if not self.planned:
            self.planned = self.repeatable
            self.repeatable = deque()
        return self.planned.popleft() if self.planned else None

    def raise_limit(self, search: Search) -> int:
        """Return for how many candidates to ask now, from what became of those so far."""
        if self.kept:
            overshoot = self.decided / self.kept
        elif self.decided:
            overshoot = MAX_OVERSHOOT
        else:
            overshoot = MIN_OVERSHOOT
        overshoot = min(MAX_OVERSHOOT, max(MIN_OVERSHOOT, overshoot))
        more = math.ceil(self.missing * overshoot)
        self.limits[search] = self.limits.get(search, 0) + more
        return self.limits[search]

    def add_candidates(self, candidates: Iterable[Candidate]) -> int:
        """Queue the candidates whose URL is new; return how many these are."""
        before = len(self.queue)
        for candidate in candidates:
            key = normalized_url(candidate.image_url)
            if key not in self.known_urls:
                self.known_urls.add(key)
                self.queue.append(candidate)
        return len(self.queue) - before
