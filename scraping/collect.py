"""Fills each class's quota of images from the sources in order, and says what happened.

The way of an image: a source names it (`_search`), it is downloaded and screened (`_download`), and
kept unless it was taken down, is a duplicate or belongs to two classes (`ImageStore.decide`).

All classes are worked on at once; each source answers one question at a time, and downloads take
turns, so that classes fill side by side. Within a class, candidates are decided in the order of
their rank, so the same answers always make the same dataset.
Every decision is a record on disk before the next one is made, and finished searches are kept
beside them: a run that was killed goes on where it was.
"""

import asyncio
import contextlib
import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scraping.config import CollectConfig
from scraping.download import Attempt, Downloader, EngineSettings, attempt_record
from scraping.files import json_line, now, write_json
from scraping.kinds import is_living
from scraping.net.http import FetchSettings
from scraping.reasons import Reason
from scraping.recipe import FILE_NAME as RECIPE
from scraping.recipe import RecipeClass, collected_image, recipe_document
from scraping.records.image_log import (
    ImageLog,
    ImageRecord,
    new_record,
    read_records,
    record_key,
    rejected,
)
from scraping.records.image_store import ImageStore
from scraping.records.known_images import FingerprintLog
from scraping.records.provenance import is_open, license_of
from scraping.records.summary import Summary
from scraping.records.takedowns import TakenDown
from scraping.refused_digests import RefusedDigests
from scraping.screening.screen import ScreenSettings
from scraping.search.class_kind import GIVEN, ClassKind, derived_kind, takes_kind
from scraping.search.class_plan import ClassPlan
from scraping.search.download_turns import DownloadTurns
from scraping.search.query_variants import MAX_VARIANTS, query_variants, without_known
from scraping.search.search_log import Search, SearchLog
from scraping.search.searcher import Searcher
from scraping.sources.base import Candidate, SearchResult, skipped
from scraping.sources.catalogue import CATALOGUE, URL_LIST, Outcome, is_supplied
from scraping.sources.registry import REGISTRY, is_thumbnail
from scraping.sources.wikidata import LABEL as WIKIDATA
from scraping.supplied import Supplied, read_supplied
from scraping.urls import address_digest, normalized_url

logger = logging.getLogger(__name__)

CONNECTIONS = 64
DOWNLOAD_OVERSHOOT = 1.3  # about a quarter of what sources name is dead, too small or a duplicate
SPARE_DOWNLOADS = 2
SEARCH_SHARE = 0.9  # of the time; what is left is for downloading what was found last
KIND_SECONDS = 20.0  # at most, for finding out what kind of things the classes are
TOLERATED_FAILURES = 1  # after more, a source is not asked again for that class
STOP_POLL_SECONDS = 0.2
PROGRESS_SECONDS = 0.5
FINISH_POLL_SECONDS = 0.3
SPOOL_FOLDER = "incoming"
FINISH_FILE = "finish"  # made while a collection goes on it ends that with what is there


class Interrupted(Exception):
    """Stopped before the end; the folder can be resumed."""


@dataclass(frozen=True)
class Progress:
    """How far a collection is.

    `done` and `total` count kept images over all classes; `eta_seconds` is from now on.
    """

    time: str
    stage: str
    done: int
    total: int
    message: str
    eta_seconds: float | None


OnProgress = Callable[[Progress], None]


def collect(
    folder: Path,
    config: CollectConfig,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Collect into a folder and return what `result.json` holds.

    A folder that is finished is returned as it is, unless it holds what is refused now; one that
    was interrupted is resumed. A file `finish` that is made in the folder ends the collection with
    what is there. Raises Interrupted when `stop` was set before the end, OSError when
    the folder cannot be written, ConfigError when the list of refused digests cannot be read.
    """
    folder = folder.resolve()  # screening runs elsewhere and must find what lies here
    refused = RefusedDigests.read(config.refused_digests)
    finished = read_result(folder)
    if finished is not None and finished.get("ok") and not _holds_refused(folder, refused):
        return finished
    (folder / "images").mkdir(parents=True, exist_ok=True)
    stop = stop or threading.Event()
    return asyncio.run(_collect(folder, config, refused, on_progress, stop))


def _holds_refused(folder: Path, refused: RefusedDigests) -> bool:
    """Return whether an earlier run kept, or named, what is refused now."""
    if not refused:
        return False
    records = read_records(folder / "images.jsonl")
    return any(_is_refused(record, refused) for record in records)


def _is_refused(record: ImageRecord, refused: RefusedDigests) -> bool:
    """Return whether a record names an image that is refused now."""
    is_named = record["image_url"] != ""
    return is_named and refused.has(record["sha256"], record["source_sha256"])


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the content of `result.json`, or None when there is none."""
    path = folder / "result.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    return result if isinstance(result, dict) else None


async def _collect(
    folder: Path,
    config: CollectConfig,
    refused: RefusedDigests,
    on_progress: OnProgress | None,
    stop: threading.Event,
) -> dict[str, Any]:
    fetching = FetchSettings(
        contact=config.contact,
        allowed_private_hosts=frozenset(config.allowed_private_hosts),
        connections=CONNECTIONS,
    )
    screening = ScreenSettings(
        config.min_side,
        config.max_side,
        nudity_model=config.nudity_model,
        ai_made=config.ai_made,
    )
    engine = EngineSettings(spool=folder / SPOOL_FOLDER, refused=refused)
    names = [entry.name for entry in config.classes]
    supplied = read_supplied(config.own, config.own_urls, names)
    searcher = Searcher(config, fetching, stop, folder, supplied.candidates)
    log = ImageLog(folder / "images.jsonl")
    fingerprints = FingerprintLog(folder / "marks.jsonl")
    try:
        with log, fingerprints:
            async with Downloader(fetching, screening, engine) as downloader:
                collection = _Collection(
                    folder, config, log, fingerprints, searcher, downloader, supplied, on_progress
                )
                collection.resume(refused)
                await _unless_stopped(collection.run(), stop)
                result = collection.finish()
                fingerprints.remove()
                downloader.finish()
        return result
    finally:
        searcher.close(at_once=(folder / FINISH_FILE).exists())


async def _unless_stopped(work: Coroutine[Any, Any, None], stop: threading.Event) -> None:
    """Await the work, but cancel it and raise Interrupted as soon as `stop` is set."""
    task = asyncio.ensure_future(work)
    while not task.done() and not stop.is_set():
        await asyncio.wait([task], timeout=STOP_POLL_SECONDS)
    if stop.is_set():
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled() or task.exception() is not None:
            raise Interrupted
    task.result()


class _Collection:
    """One run over one folder."""

    def __init__(
        self,
        folder: Path,
        config: CollectConfig,
        log: ImageLog,
        fingerprints: FingerprintLog,
        searcher: Searcher,
        downloader: Downloader,
        supplied: Supplied,
        on_progress: OnProgress | None,
    ) -> None:
        self._folder = folder
        self._config = config
        self._log = log
        self._searcher = searcher
        self._downloader = downloader
        self._supplied = supplied
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._search_deadline = self._started + config.deadline_seconds * SEARCH_SHARE
        self._last_report = 0.0
        self._searches = SearchLog(folder / "searches.jsonl")
        self._summary = Summary(folder, config)
        self._taken_down = TakenDown.of(config.taken_down)
        class_names = {entry.id: entry.name for entry in config.classes}
        self._store = ImageStore(
            folder, log, fingerprints, self._taken_down, class_names, frozenset(config.set_aside)
        )
        self._plans: dict[str, ClassPlan] = {}
        self._refused_urls: set[str] = set()
        for entry in config.classes:
            self._plans[entry.id] = ClassPlan(entry, config.limit, self._store.kept)
        kept = self._store.kept
        self._turns = DownloadTurns(self._plans, lambda class_id: kept[class_id])

    def resume(self, refused: RefusedDigests) -> None:
        """Learn what an earlier run in this folder asked and decided.

        What is refused now is taken out first.
        """
        for key, record in list(self._log.records.items()):
            if key in self._log.records and _is_refused(record, refused):
                self._searches.forget(record["image_url"])
                self._store.take_out(key)
        for search, limit, result in self._searches:
            self._summary.begin(search, limit)
            self._summary.end(search, result)
        for record in self._store.resume():
            plan = self._plans[record["class"]]
            plan.decided += 1
            if record["image_url"]:
                plan.known_urls.add(normalized_url(record["image_url"]))
            else:
                self._refused_urls.add(record_key(record)[1])

    async def run(self) -> None:
        """Fill all quotas as far as sources and time allow, or until that is to end.

        A class is taken up again when an image of it was withdrawn meanwhile.
        """
        self._report("Searching", always=True)
        plans = self._plans.values()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.deadline_seconds) as limit:
                watching = asyncio.ensure_future(self._watch_for_the_end(limit))
                try:
                    await asyncio.gather(*map(self._take_supplied, plans))
                    await self._plan_first_searches()
                    while short := [plan for plan in plans if plan.can_grow]:
                        await asyncio.gather(*map(self._fill, short))
                finally:
                    watching.cancel()

    async def _watch_for_the_end(self, limit: asyncio.Timeout) -> None:
        """Let the time be over as soon as the file is there that asks for it."""
        while not (self._folder / FINISH_FILE).exists():
            await asyncio.sleep(FINISH_POLL_SECONDS)
        self._summary.end_early()
        limit.reschedule(asyncio.get_running_loop().time())

    async def _take_supplied(self, plan: ClassPlan) -> None:
        """Take all that whoever asks has supplied of a class, and leave the rest to the search.

        Images to test on come on top of the quota; others fill it.
        """
        name = plan.config.name
        for source in self._supplied.sources:
            number = len(self._supplied.candidates.get((source, name), ()))
            search = Search(plan.config.id, source, name)
            self._summary.begin(search, number)
            result = await self._searcher.search(source, name, number, self._search_deadline)
            self._summary.end(search, result)
            plan.add_candidates(result.candidates)
        plan.quota = plan.kept + len(plan.queue)  # all of it
        await self._download(plan)
        taken = self._store.kept_of(plan.config.id, is_supplied)
        quota = self._config.limit
        plan.quota = quota + taken if self._config.own_as_test else max(quota, taken)

    async def _plan_first_searches(self) -> None:
        """Plan the first searches of all classes, with the kind of things that they are."""
        kind = await self._class_kind()
        self._summary.kind = kind
        for plan in self._plans.values():
            words = kind.words_for(plan.config)
            if words not in (plan.config.query, plan.config.name):
                plan.kind_query = words
            plan.add_first(self._config.sources)

    async def _class_kind(self) -> ClassKind:
        """Return the kind of things that the classes are; it does not change once searches began.

        A person's word comes first, then what was decided before, then what descriptions tell.
        """
        names = [entry.name for entry in self._config.classes if takes_kind(entry)]
        has_begun = bool(self._log.records) or any(True for _ in self._searches)
        earlier = ClassKind.read(self._folder)
        if self._config.kind is not None:
            kind = ClassKind.given(self._config.kind, names)
        elif not has_begun:
            kind = await self._derive_kind(names)
        elif earlier is None or earlier.how == GIVEN:
            kind = ClassKind()
        else:
            kind = earlier
        kind.write(self._folder)
        if kind.sentence:
            logger.info("%s", kind.sentence)
            self._report(kind.sentence, always=True)
        return kind

    async def _derive_kind(self, names: list[str]) -> ClassKind:
        """Return the kind that a source's descriptions tell, none when they cannot be had soon."""
        tellers = [name for name in self._config.sources if CATALOGUE[name].describes_names]
        is_english = self._config.locale.lower().startswith("en")
        if len(names) < 2 or not tellers or not is_english:
            return ClassKind()
        seconds = min(KIND_SECONDS, self._config.deadline_seconds / 10)
        deadline = time.monotonic() + seconds
        descriptions: dict[str, list[str]] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for name in names:
                    found = await self._searcher.descriptions(tellers[0], name, deadline)
                    if not found:
                        return ClassKind()
                    descriptions[name] = found
                return derived_kind(descriptions, WIKIDATA)
        return ClassKind()

    async def _fill(self, plan: ClassPlan) -> None:
        """Download what is queued, else search, else find other words, until the quota is met."""
        while plan.missing:
            if plan.queue:
                await self._download(plan)
            elif search := plan.next_search():
                await self._search(plan, search)
            elif not await self._add_variant(plan):
                return

    async def _search(self, plan: ClassPlan, search: Search) -> None:
        """Ask one source, or its earlier answer, and queue the candidates that are new."""
        limit = plan.raise_limit(search)
        self._summary.begin(search, limit)
        result = self._searches.find(search, limit) or self._not_a_living_thing(plan, search)
        if result is None:
            self._report(f"{plan.config.name}: asking {CATALOGUE[search.source].label}")
            result = await self._searcher.search(
                search.source,
                search.words,
                limit,
                self._search_deadline,
                priority=lambda: plan.kept / plan.quota,
            )
            result = self._without_refused(result)
            self._searches.append(search, limit, result)
        self._summary.end(search, result)
        new = plan.add_candidates(result.candidates)
        # After a person has removed images, better words may begin with what is known: then those
        # come behind it that are new.
        may_have_more = new or (self._config.set_aside and limit <= len(plan.known_urls))
        if may_have_more and result.outcome is Outcome.OK:
            plan.repeatable.append(search)
        self._report(f"{plan.config.name}: {result.message}")

    def _not_a_living_thing(self, plan: ClassPlan, search: Search) -> SearchResult | None:
        """Return the result of a source of living things where other things are wanted."""
        if self._may_ask(plan, search.source):
            return None
        kind = self._summary.kind.word
        reason = f"it has living things only, and “{kind}” is not among the words for them"
        return skipped(REGISTRY[search.source], reason)

    def _may_ask(self, plan: ClassPlan, source: str) -> bool:
        """Return False for a source of living things where the class was said to be another."""
        if not CATALOGUE[source].living_things or not plan.kind_query:
            return True
        return is_living(self._summary.kind.word)

    async def _download(self, plan: ClassPlan) -> None:
        """Download from the queue until the quota is met or the queue is empty.

        Downloads overtake each other; decisions are made in the order of rank.
        """
        under_way: deque[tuple[Candidate, asyncio.Task[Attempt]]] = deque()
        try:
            while plan.missing and (under_way or plan.queue):
                wanted = math.ceil(plan.missing * DOWNLOAD_OVERSHOOT) + SPARE_DOWNLOADS
                while plan.queue and len(under_way) < wanted:
                    candidate = plan.queue.popleft()
                    task = asyncio.ensure_future(self._attempt(plan, candidate))
                    under_way.append((candidate, task))
                candidate, task = under_way[0]
                attempt = await task
                under_way.popleft()
                self._decide(plan, candidate, attempt)
        finally:
            for candidate, task in reversed(under_way):
                task.cancel()
                plan.queue.appendleft(candidate)

    async def _attempt(self, plan: ClassPlan, candidate: Candidate) -> Attempt:
        """Download and screen one candidate, unless what its source states rules it out."""
        url = candidate.image_url
        page_url = candidate.page_url
        if self._taken_down.has_url(url, page_url):
            return Attempt(None, Reason.TAKEN_DOWN)
        if is_supplied(candidate.source):
            return await self._supplied_attempt(plan, candidate)
        licence = license_of(candidate).name
        basis = candidate.license_basis
        if self._config.license == "open" and not is_open(licence, basis):
            is_known = licence and basis == "per-item"
            detail = f"{licence} is not open" if is_known else "its licence is not known"
            return Attempt(None, Reason.LICENSE, detail)
        if is_thumbnail(url):
            return Attempt(None, Reason.TOO_SMALL, "the address of a preview")
        width = candidate.width
        height = candidate.height
        if width and height and min(width, height) < self._config.min_side:
            detail = f"{width}x{height} as its source states"
            return Attempt(None, Reason.TOO_SMALL, detail)
        async with self._turns.turn(plan.config.id):
            return await self._downloader.get(url, page_url)

    async def _supplied_attempt(self, plan: ClassPlan, candidate: Candidate) -> Attempt:
        """Download or read what whoever asks has supplied, and screen it as all else."""
        url = candidate.image_url
        async with self._turns.turn(plan.config.id):
            if candidate.source == URL_LIST:
                return await self._downloader.get(url)
            content = self._supplied.content(url)
            if content is None:
                return Attempt(None, Reason.NOT_A_PICTURE, "damaged, or too large")
            return await self._downloader.screened(content)

    def _decide(self, plan: ClassPlan, candidate: Candidate, attempt: Attempt) -> None:
        """Keep an image or record why not; on disk before anything else happens."""
        record = new_record(candidate, plan.config.id)
        record = attempt_record(record, attempt)
        if attempt.image is not None:
            record["dhash"] = f"{attempt.image.difference_hash:016x}"
        if self._config.own_as_test and is_supplied(candidate.source):
            record["split"] = "test"
        plan.decided += 1
        self._store.decide(record, attempt.image)
        self._downloader.settled(attempt)
        if attempt.reason == Reason.REFUSED_DIGEST:
            self._forget_address(candidate.image_url)
        name = plan.config.name
        self._report(f"{name}: {plan.kept} of {plan.quota} kept")

    def _without_refused(self, result: SearchResult) -> SearchResult:
        """Return a result without candidates whose address is that of a refused image."""
        if not self._refused_urls:
            return result
        others = []
        for candidate in result.candidates:
            if address_digest(candidate.image_url) not in self._refused_urls:
                others.append(candidate)
        return replace(result, candidates=tuple(others))

    def _forget_address(self, url: str) -> None:
        """Leave the digest alone of the address of a refused image."""
        self._refused_urls.add(address_digest(url))
        self._searches.forget(url)
        self._summary.forget(url)
        self._store.forget_address(url)

    async def _add_variant(self, plan: ClassPlan) -> bool:
        """Plan to ask with other words for the same thing.

        False when there are none left, or no time to ask.
        """
        is_late = time.monotonic() >= self._search_deadline
        if is_late or len(plan.variants) >= MAX_VARIANTS:
            plan.exhausted = True
            return False
        # What a source does not cover in the singular, it does not cover in the plural.
        usable = self._usable_sources(plan, only_applicable=True)
        locale = self._config.locale
        if plan.kind_query:
            new = without_known(query_variants(plan.kind_query, locale), plan.variants)
            if new:
                sources = [name for name in usable if not CATALOGUE[name].living_things]
                plan.add_variant(new[0], sources)
                return True
        query = plan.config.query
        new = without_known([query, *query_variants(query, locale)], plan.variants)
        if new:
            plan.add_variant(new[0], usable)
            return True
        new = without_known(await self._other_names(plan), plan.variants)
        if new:
            plan.add_variant(new[0], self._usable_sources(plan, only_applicable=False))
            return True
        plan.exhausted = True
        return False

    def _usable_sources(self, plan: ClassPlan, only_applicable: bool) -> list[str]:
        """Return the sources that may be asked for a class once more."""
        class_id = plan.config.id
        usable = []
        for source in self._config.sources:
            if source in self._config.closed_sources or is_supplied(source):
                continue
            if self._summary.failures(class_id, source) > TOLERATED_FAILURES:
                continue
            if only_applicable and not self._summary.is_applicable(class_id, source):
                continue
            usable.append(source)
        return usable

    async def _other_names(self, plan: ClassPlan) -> list[str]:
        """Return other names of a class, as far as sources know any; they are asked once."""
        if plan.other_names is None:
            names = []
            for source in self._config.sources:
                if not self._may_ask(plan, source):
                    continue
                query = plan.config.query
                names += await self._searcher.other_names(source, query, self._search_deadline)
            plan.other_names = names
        return plan.other_names

    def finish(self) -> dict[str, Any]:
        """Write the records anew, one per candidate, then the result; return the result."""
        for class_id, plan in self._plans.items():
            for candidate in plan.queue:
                if address_digest(candidate.image_url) in self._refused_urls:
                    continue
                record = rejected(new_record(candidate, class_id), Reason.OVER_QUOTA)
                self._log.records.setdefault(record_key(record), record)
        order = list(self._plans)
        records = list(self._log.records.values())
        records.sort(key=lambda record: order.index(record["class"]))
        self._log.rewrite(records)
        result = {
            "ok": True,
            "classes": self._summary.classes(records),
            "sources": self._summary.sources(records),
            "kind": asdict(self._summary.kind),
            "unused": [asdict(unused) for unused in self._supplied.unused],
            "seconds": round(time.monotonic() - self._started, 1),
        }
        self._report("Collected", always=True)
        write_json(self._folder / RECIPE, self._recipe(records))
        write_json(self._folder / "result.json", result)
        return result

    def _recipe(self, records: Sequence[ImageRecord]) -> dict[str, Any]:
        """Return how the kept images are found again."""
        classes = [RecipeClass(c.id, c.name, c.query) for c in self._config.classes]
        kept = [collected_image(record) for record in records if record["state"] == "kept"]
        return recipe_document(classes, kept, (self._config.min_side, self._config.max_side))

    def _report(self, message: str, always: bool = False) -> None:
        """Append to progress.jsonl and tell the caller, at most about twice a second."""
        moment = time.monotonic()
        if not always and moment - self._last_report < PROGRESS_SECONDS:
            return
        self._last_report = moment
        total = 0
        done = 0
        for plan in self._plans.values():
            total += plan.quota
            done += plan.kept
        eta = None
        if done:
            seconds_per_image = (moment - self._started) / done
            eta = round(seconds_per_image * (total - done), 1)
        progress = Progress(now(), "collect", done, total, message, eta)
        with (self._folder / "progress.jsonl").open("ab") as stream:
            stream.write(json_line(asdict(progress)))
        if self._on_progress is not None:
            self._on_progress(progress)
