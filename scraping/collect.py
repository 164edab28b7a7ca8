"""Fills each class's quota of pictures from the sources in order, and says what happened.

All classes are worked on at once; each source answers one question at a time. Within a class,
candidates are decided in the order of their rank, so the same answers always make the same dataset.
Every decision is a row on disk before the next one is made, and finished searches are kept beside
them: a run that was killed goes on where it was.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scraping.config import ClassConfig, CollectConfig
from scraping.download import Attempt, Downloader, EngineSettings, attempt_record
from scraping.files import now, write_json
from scraping.net.http import FetchSettings
from scraping.reasons import Reason
from scraping.records.image_log import (
    ImageLog,
    ImageRecord,
    Key,
    kept_sha256,
    new_record,
    record_key,
    rejected,
    store_image,
)
from scraping.records.known_images import Copy, KnownPictures, MarkLog, is_better, stored_marks
from scraping.records.provenance import is_open, license_of
from scraping.records.summary import Tally
from scraping.records.takedowns import TakenDown
from scraping.screening.screen import CleanImage, ScreenSettings
from scraping.search.query_variants import MOST_WORDINGS, new_wordings, other_wordings
from scraping.search.search_log import Ask, SearchLog
from scraping.search.searcher import Searcher
from scraping.sources.base import Candidate
from scraping.sources.catalogue import Outcome
from scraping.sources.registry import REGISTRY, is_thumbnail
from scraping.urls import normalized_url
from training.duplicates import Fingerprint

logger = logging.getLogger(__name__)

OVER_ASK = 1.3  # about a quarter of what sources name is dead, too small or a copy
MOST_OVER_ASK = 4.0  # where experience says that more than that is
SPARE_DOWNLOADS = 2
CONNECTIONS = 64
STOP_POLL_SECONDS = 0.2
PROGRESS_SECONDS = 0.5
SPOOL = "incoming"
SEARCH_SHARE = 0.9  # of the time; what is left is for downloading what was found last
FAILURES_ENDURED = 1  # after more, a source is not asked again for that class


class Interrupted(Exception):
    """Stopped before the end; the folder can be taken up again."""


@dataclass(frozen=True)
class Progress:
    """How far a collection is: pictures kept over all classes, of those wanted; `eta_seconds` from
    now.
    """

    time: str
    stage: str
    done: int
    total: int
    message: str
    eta_seconds: float | None


OnProgress = Callable[[Progress], None]


@dataclass
class ClassState:
    """What is known of one class while its quota is being filled.

    `to_ask` are the questions to come; `again` those whose source had as many as it was asked for, so may have more;
    `asked` for how many each asked. `wordings` have been tried or planned, `other_names` those that sources know.
    """

    config: ClassConfig
    limit: int
    to_ask: deque[Ask]
    asked: dict[Ask, int] = field(default_factory=dict)
    again: deque[Ask] = field(default_factory=deque)
    wordings: list[str] = field(default_factory=list)
    other_names: list[str] | None = None
    exhausted: bool = False
    queue: deque[Candidate] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    kept: int = 0
    decided: int = 0

    @property
    def missing(self) -> int:
        """Pictures still wanted."""
        return max(0, self.limit - self.kept)

    @property
    def can_grow(self) -> bool:
        """Whether there is something left to do for it."""
        return bool(
            self.missing and (self.queue or self.to_ask or self.again or not self.exhausted)
        )

    def more(self) -> int:
        """For how many candidates to ask, from what became of those so far."""
        waste = (
            self.decided / self.kept
            if self.kept
            else OVER_ASK
            if not self.decided
            else MOST_OVER_ASK
        )
        return math.ceil(self.missing * min(MOST_OVER_ASK, max(OVER_ASK, waste)))

    def is_new(self, candidate: Candidate) -> bool:
        """Whether this address was not known yet; now it is."""
        key = normalized_url(candidate.image_url)
        new = key not in self.known
        self.known.add(key)
        return new


def collect(
    folder: Path,
    config: CollectConfig,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Collect into a folder and return what `result.json` holds.

    A folder that is finished is returned as it is; one that was interrupted is taken up. Raises Interrupted when
    `stop` was set before the end, OSError when the folder cannot be written.
    """
    folder = folder.resolve()  # screening runs elsewhere and must find what lies here
    finished = read_result(folder)
    if finished is not None and finished.get("ok"):
        return finished
    (folder / "images").mkdir(parents=True, exist_ok=True)
    return asyncio.run(_collect(folder, config, on_progress, stop or threading.Event()))


def read_result(folder: Path) -> dict[str, Any] | None:
    """The content of `result.json`, or None when there is none."""
    path = folder / "result.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    return result if isinstance(result, dict) else None


async def _collect(
    folder: Path, config: CollectConfig, on_progress: OnProgress | None, stop: threading.Event
) -> dict[str, Any]:
    fetching = FetchSettings(
        contact=config.contact,
        allowed_private_hosts=frozenset(config.allowed_private_hosts),
        connections=CONNECTIONS,
    )
    searcher = Searcher(config, fetching, stop, folder)
    try:
        with ImageLog(folder / "images.jsonl") as log, MarkLog(folder / "marks.jsonl") as marks:
            screening, engine = (
                ScreenSettings(config.min_side, config.max_side),
                EngineSettings(spool=folder / SPOOL),
            )
            async with Downloader(fetching, screening, engine) as downloader:
                tools = _Tools(log, marks, downloader, searcher, on_progress)
                work = _Collection(folder, config, tools)
                await _unless_stopped(work.run(), stop)
                result = work.finish()
                downloader.finish()
            return result
    finally:
        searcher.close()


async def _unless_stopped(work: Any, stop: threading.Event) -> None:
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


@dataclass(frozen=True)
class _Tools:
    """What a collection works with."""

    log: ImageLog
    marks: MarkLog
    downloader: Downloader
    searcher: Searcher
    on_progress: OnProgress | None


class _Collection:
    """One run over one folder."""

    def __init__(self, folder: Path, config: CollectConfig, tools: _Tools) -> None:
        self._folder = folder
        self._config = config
        self._log = tools.log
        self._marks = tools.marks
        self._downloader = tools.downloader
        self._searcher = tools.searcher
        self._on_progress = tools.on_progress
        self._started = time.monotonic()
        self._search_deadline = self._started + config.deadline_seconds * SEARCH_SHARE
        self._reported = 0.0
        self._taken_down = TakenDown.of(config.taken_down)
        self._known = KnownPictures()
        self._kept: dict[str, Key] = {}
        self._searches = SearchLog(folder / "searches.jsonl")
        self._tally = Tally(folder, config)
        self._classes = {entry.id: self._new_class(entry) for entry in config.classes}
        self._take_up()

    def _new_class(self, entry: ClassConfig) -> ClassState:
        asks = deque(Ask(entry.id, source, entry.query) for source in self._config.sources)
        return ClassState(entry, self._config.limit, asks, wordings=[entry.query])

    async def run(self) -> None:
        """Fill all quotas as far as sources and time allow; again where a picture had to be
        withdrawn.
        """
        self._report("Searching", always=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.deadline_seconds):
                while short := [state for state in self._classes.values() if state.can_grow]:
                    await asyncio.gather(*map(self._fill, short))

    def finish(self) -> dict[str, Any]:
        """Write the rows anew, one per candidate, then the result; return the result."""
        for state in self._classes.values():
            for candidate in state.queue:
                row = new_record(candidate, state.config.id)
                if record_key(row) not in self._log.records:
                    self._log.records[record_key(row)] = rejected(row, Reason.OVER_QUOTA)
        order = {entry.id: number for number, entry in enumerate(self._config.classes)}
        rows = sorted(
            self._log.records.values(), key=lambda row: order.get(row["class"], len(order))
        )
        self._log.rewrite(rows)
        result = {
            "ok": True,
            "classes": self._tally.classes(rows),
            "sources": self._tally.sources(rows),
            "seconds": round(time.monotonic() - self._started, 1),
        }
        self._report("Collected", always=True)
        write_json(self._folder / "result.json", result)
        self._marks.remove()
        return result

    def _take_up(self) -> None:
        """Learn what an earlier run in this folder decided; what it had not finished is
        forgotten.
        """
        for ask, wanted, result in self._searches:
            self._tally.begin(ask, wanted)
            self._tally.end(ask, result)
        marks = self._marks.read()
        for key, row in list(self._log.records.items()):
            state = self._classes.get(row["class"])
            if state is None or (row["state"] == "kept" and not _is_intact(self._folder, row)):
                self._log.forget(key)
            elif row["reason"] != Reason.OVER_QUOTA:  # which was never fetched, so it may still be
                state.known.add(normalized_url(row["image_url"]))
                state.decided += 1
                self._take_up_row(state, row, marks)
        _remove_strays(self._folder, self._log)

    def _take_up_row(
        self, state: ClassState, row: ImageRecord, marks: dict[str, Fingerprint]
    ) -> None:
        sha256 = row["sha256"] or ""
        if row["state"] == "kept" and self._is_taken_down(row):
            self._log.append(rejected(row, Reason.TAKEN_DOWN))
        elif row["state"] == "kept":
            known = marks.get(sha256) or stored_marks(self._folder, row)
            if known is not None:
                self._remember(state, row, known)
        elif row["reason"] == Reason.IN_TWO_CLASSES and sha256:
            self._known.withdraw(state.config.id, sha256, marks.get(sha256))

    def _remember(self, state: ClassState, row: ImageRecord, marks: Fingerprint) -> None:
        """Count a kept picture, and recognise its copies from now on."""
        state.kept += 1
        self._kept[kept_sha256(row)] = record_key(row)
        self._known.add(state.config.id, kept_sha256(row), marks)

    async def _fill(self, state: ClassState) -> None:
        while state.missing:
            if state.queue:
                await self._download(state)
            elif state.to_ask:
                await self._search(state, state.to_ask.popleft())
            elif state.again:
                state.to_ask, state.again = state.again, deque()
            elif not await self._plan_another_wording(state):
                return

    async def _search(self, state: ClassState, ask: Ask) -> None:
        wanted = state.asked.get(ask, 0) + state.more()
        state.asked[ask] = wanted
        self._tally.begin(ask, wanted)
        result = self._searches.earlier(ask, wanted)
        if result is None:
            self._report(f"{state.config.name}: asking {REGISTRY[ask.source].label}")
            result = await self._searcher.search(
                ask.source,
                ask.words,
                wanted,
                self._search_deadline,
                lambda: state.kept / state.limit,
            )
            self._searches.keep(ask, wanted, result)
        self._tally.end(ask, result)
        new = [candidate for candidate in result.candidates if state.is_new(candidate)]
        state.queue.extend(new)
        if new and result.outcome is Outcome.OK:
            state.again.append(ask)
        self._report(f"{state.config.name}: {result.message}")

    async def _plan_another_wording(self, state: ClassState) -> bool:
        """Plan to ask with other words for the same thing; False when there are none left, or no
        time to ask.
        """
        if time.monotonic() < self._search_deadline and len(state.wordings) < MOST_WORDINGS:
            usual = new_wordings(
                other_wordings(state.config.query, self._config.locale), state.wordings
            )
            names = [] if usual else new_wordings(await self._other_names(state), state.wordings)
            for words in (usual or names)[:1]:
                state.wordings.append(words)
                state.to_ask.extend(
                    Ask(state.config.id, source, words)
                    for source in self._willing(state, bool(names))
                )
                return True
        state.exhausted = True
        return False

    def _willing(self, state: ClassState, renamed: bool) -> list[str]:
        """The sources to be asked with another wording.

        What is nothing for a source in the singular is nothing in the plural, but may be something
        by another name.
        """
        tally, class_id = self._tally, state.config.id
        return [
            source
            for source in self._config.sources
            if tally.failures(class_id, source) <= FAILURES_ENDURED
            and source not in self._config.closed_sources
            and (renamed or tally.applies(class_id, source))
        ]

    async def _other_names(self, state: ClassState) -> list[str]:
        if state.other_names is None:
            query, deadline = state.config.query, self._search_deadline
            answers = [
                await self._searcher.other_names(name, query, deadline)
                for name in self._config.sources
            ]
            state.other_names = [name for names in answers for name in names]
        return state.other_names

    async def _download(self, state: ClassState) -> None:
        """Download from the queue until the quota is met or the queue is empty; decide in the order
        of rank.
        """
        under_way: deque[tuple[Candidate, asyncio.Task[Attempt]]] = deque()
        try:
            while state.missing and (under_way or state.queue):
                wanted = math.ceil(state.missing * OVER_ASK) + SPARE_DOWNLOADS
                while state.queue and len(under_way) < wanted:
                    candidate = state.queue.popleft()
                    under_way.append((candidate, asyncio.ensure_future(self._attempt(candidate))))
                candidate, task = under_way[0]
                attempt = await task
                under_way.popleft()
                self._decide(state, candidate, attempt)
        finally:
            for candidate, task in reversed(under_way):
                task.cancel()
                state.queue.appendleft(candidate)

    async def _attempt(self, candidate: Candidate) -> Attempt:
        """Download one candidate, unless what its source states rules it out already."""
        if self._taken_down.names(candidate.image_url, candidate.page_url):
            return Attempt(None, Reason.TAKEN_DOWN)
        licence = license_of(candidate).name
        if self._config.license == "open" and not is_open(licence, candidate.license_basis):
            known = licence and candidate.license_basis == "per-item"
            return Attempt(
                None,
                Reason.LICENSE,
                f"{licence} is not open" if known else "its licence is not known",
            )
        if is_thumbnail(candidate.image_url):
            return Attempt(None, Reason.TOO_SMALL, "the address of a preview")
        width, height = candidate.width, candidate.height
        if width and height and min(width, height) < self._config.min_side:
            return Attempt(None, Reason.TOO_SMALL, f"{width}x{height} as its source states")
        return await self._downloader.get(candidate.image_url, candidate.page_url)

    def _decide(self, state: ClassState, candidate: Candidate, attempt: Attempt) -> None:
        """Keep a picture or record why not; on disk before anything else happens."""
        row = attempt_record(new_record(candidate, state.config.id), attempt)
        picture = attempt.image
        state.decided += 1
        if picture is not None:
            row = self._judged(state, row | {"stored_bytes": len(picture.jpeg)}, picture)
        if row["state"] == "kept" and picture is not None:
            store_image(self._folder, picture)
            self._marks.append(picture.sha256, picture.fingerprint)
            self._remember(state, row, picture.fingerprint)
        self._log.append(row)
        self._downloader.settled(attempt)
        self._report(f"{state.config.name}: {state.kept} of {state.limit} kept")

    def _is_taken_down(self, row: ImageRecord) -> bool:
        named = self._taken_down.names(row["image_url"], row["page_url"])
        return named or self._taken_down.holds(row["sha256"], row["source_sha256"])

    def _judged(self, state: ClassState, row: ImageRecord, picture: CleanImage) -> ImageRecord:
        """The row of a good picture, rejected if it is a copy; a copy across classes takes the
        other one with it.
        """
        if self._is_taken_down(row):
            return rejected(row, Reason.TAKEN_DOWN)
        copy = self._known.copy_of(picture)
        if copy is None:
            return row
        if copy.class_id != state.config.id or copy.withdrawn:
            return self._in_two_classes(state, row, copy)
        reason = Reason.DUPLICATE if copy.exact else Reason.NEAR_DUPLICATE
        old = self._log.records[self._kept[copy.sha256]]
        if not is_better(row, old):
            return rejected(row, reason)
        store_image(self._folder, picture)  # first the new one, so that a kill never leaves none
        self._give_up(old, reason, "a better copy is kept")
        self._known.replace(copy.sha256, picture.sha256)
        return row

    def _in_two_classes(self, state: ClassState, row: ImageRecord, copy: Copy) -> ImageRecord:
        """Both copies are rejected, and each says where the other was found."""
        key = self._kept.get(copy.sha256)
        if not copy.withdrawn and key is not None:
            self._known.withdraw(copy.class_id, copy.sha256)
            self._give_up(
                self._log.records[key],
                Reason.IN_TWO_CLASSES,
                f"found for “{state.config.name}” too",
            )
        other = self._classes[copy.class_id].config.name
        where = "another class" if copy.class_id == state.config.id else f"“{other}”"
        return rejected(row, Reason.IN_TWO_CLASSES, f"found for {where} too")

    def _give_up(self, row: ImageRecord, reason: Reason, detail: str) -> None:
        """Reject a picture that had been kept. Its file goes, unless a kept picture has the same
        content.
        """
        self._log.append(rejected(row, reason, detail))
        del self._kept[kept_sha256(row)]
        self._classes[row["class"]].kept -= 1
        if reason != Reason.DUPLICATE:
            (self._folder / str(row["file"])).unlink(missing_ok=True)

    def _report(self, message: str, always: bool = False) -> None:
        """Append to progress.jsonl and tell the caller, at most about twice a second."""
        moment = time.monotonic()
        if not always and moment - self._reported < PROGRESS_SECONDS:
            return
        self._reported = moment
        total = sum(state.limit for state in self._classes.values())
        done = sum(state.kept for state in self._classes.values())
        spent = moment - self._started
        eta = round(spent / done * (total - done), 1) if done else None
        progress = Progress(now(), "collect", done, total, message, eta)
        with (self._folder / "progress.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(progress), ensure_ascii=False) + "\n")
        if self._on_progress is not None:
            self._on_progress(progress)


def _is_intact(folder: Path, row: ImageRecord) -> bool:
    """Whether the file of a kept picture is there and whole."""
    try:
        return hashlib.sha256((folder / str(row["file"])).read_bytes()).hexdigest() == row["sha256"]
    except OSError:
        return False


def _remove_strays(folder: Path, log: ImageLog) -> None:
    """Delete pictures that were written just before a kill and never recorded."""
    recorded = {row["file"] for row in log.records.values() if row["state"] == "kept"}
    for file in (folder / "images").iterdir():
        if f"images/{file.name}" not in recorded:
            file.unlink()
