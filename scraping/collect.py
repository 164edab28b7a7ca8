"""Fills each class's quota of pictures from the sources in order, and says what happened.

All classes are worked on at once; each source answers one question at a time. Within a class, candidates are decided
in the order of their rank, so the same answers always make the same dataset. Every decision is a row on disk before
the next one is made, and finished searches are kept beside them: a run that was killed goes on where it was.
"""

import asyncio
import contextlib
import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from scraping.config import ClassConfig, CollectConfig
from scraping.download import Attempt, Downloader, attempt_row
from scraping.fetch import FetchSettings
from scraping.rows import (
    Row,
    RowLog,
    candidate_row,
    now,
    read_lines,
    rejected,
    store_picture,
    write_json,
)
from scraping.screen import Picture, ScreenSettings
from scraping.searching import Searcher
from scraping.sources import REGISTRY
from scraping.sources.contract import Candidate, Outcome, SearchResult, normalised_url
from training.nearcopies import CopyIndex, Fingerprint, fingerprint

logger = logging.getLogger(__name__)

OVER_ASK = 1.3  # about a quarter of what sources name is dead, too small or a copy
SPARE_DOWNLOADS = 2
CONNECTIONS = 64
STOP_POLL_SECONDS = 0.2
PROGRESS_SECONDS = 0.5
SEARCH_SHARE = 0.9  # of the time; what is left is for downloading what was found last
KEPT_OUTCOMES = frozenset({Outcome.OK, Outcome.PARTIAL, Outcome.NO_RESULTS})


class Interrupted(Exception):
    """Stopped before the end; the folder can be taken up again."""


@dataclass(frozen=True)
class Progress:
    """How far a collection is: pictures kept over all classes, of those wanted; `eta_seconds` from now."""

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

    `sources` are still to be asked, `asked` holds for how many candidates each was asked so far, and `again` those that
    had as many as they were asked for, so may have more.
    """

    config: ClassConfig
    limit: int
    sources: deque[str]
    asked: dict[str, int] = field(default_factory=dict)
    again: deque[str] = field(default_factory=deque)
    queue: deque[Candidate] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    kept: int = 0

    @property
    def missing(self) -> int:
        """Pictures still wanted."""
        return max(0, self.limit - self.kept)

    def is_new(self, candidate: Candidate) -> bool:
        """Whether this address was not known yet; now it is."""
        key = normalised_url(candidate.image_url)
        new = key not in self.known
        self.known.add(key)
        return new


@dataclass
class Identities:
    """Which pictures have been kept, to recognise exact and near copies within and across classes.

    Keys are `class/sha256`; a withdrawn picture stays known, so that its further copies are recognised too.
    """

    index: CopyIndex = field(default_factory=CopyIndex)
    exact: dict[str, str] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)

    def add(self, class_id: str, sha256: str, marks: Fingerprint) -> None:
        """Remember a kept picture."""
        key = f"{class_id}/{sha256}"
        self.exact[sha256] = key
        self.index.add(key, marks)

    def withdraw(self, class_id: str, sha256: str) -> None:
        """Mark a picture as one that belongs to no class."""
        key = self.exact.setdefault(sha256, f"{class_id}/{sha256}")
        self.withdrawn.add(key)

    def copy_of(self, picture: Picture) -> tuple[str, bool] | None:
        """Key of the known picture that this is a copy of, and whether it is exactly the same."""
        if key := self.exact.get(picture.sha256):
            return key, True
        near = self.index.find(picture.fingerprint)
        return (near, False) if near is not None else None


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
    searcher = Searcher(config, fetching, stop)
    try:
        with RowLog(folder / "images.jsonl") as log:
            async with Downloader(fetching, ScreenSettings(config.min_side, config.max_side)) as downloader:
                work = _Collection(folder, config, log, downloader, searcher, on_progress)
                await _unless_stopped(work.run(), stop)
            return work.finish()
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


class _Collection:
    """One run over one folder."""

    def __init__(
        self,
        folder: Path,
        config: CollectConfig,
        log: RowLog,
        downloader: Downloader,
        searcher: Searcher,
        on_progress: OnProgress | None,
    ) -> None:
        self._folder = folder
        self._config = config
        self._log = log
        self._downloader = downloader
        self._searcher = searcher
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._search_deadline = self._started + config.deadline_seconds * SEARCH_SHARE
        self._reported = 0.0
        self._identities = Identities()
        self._searches = _SearchLog(folder / "searches.jsonl")
        self._outcomes: dict[tuple[str, str], dict[str, Any]] = {}
        self._classes = {entry.id: ClassState(entry, config.limit, deque(config.sources)) for entry in config.classes}
        self._take_up()

    async def run(self) -> None:
        """Fill all quotas as far as sources and time allow; again where a picture had to be withdrawn."""
        self._report("Searching", always=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.deadline_seconds):
                while short := [state for state in self._classes.values() if self._can_grow(state)]:
                    await asyncio.gather(*map(self._fill, short))

    def finish(self) -> dict[str, Any]:
        """Write the rows anew, one per candidate, then the result; return the result."""
        for state in self._classes.values():
            for candidate in state.queue:
                row = candidate_row(candidate, state.config.id)
                if RowLog.key(row) not in self._log.rows:
                    self._log.rows[RowLog.key(row)] = rejected(row, "over_quota")
        order = {entry.id: number for number, entry in enumerate(self._config.classes)}
        rows = sorted(self._log.rows.values(), key=lambda row: order.get(row["class"], len(order)))
        self._log.rewrite(rows)
        result = {
            "ok": True,
            "classes": [self._class_result(state) for state in self._classes.values()],
            "sources": [self._outcomes[key] for key in self._outcome_order()],
            "seconds": round(time.monotonic() - self._started, 1),
        }
        self._report("Collected", always=True)
        write_json(self._folder / "result.json", result)
        return result

    def _take_up(self) -> None:
        """Learn what an earlier run in this folder decided; what it had not finished is forgotten."""
        for key, row in list(self._log.rows.items()):
            state = self._classes.get(row["class"])
            marks = _stored_marks(self._folder, row) if row["state"] == "kept" else None
            unfinished = row["state"] == "kept" and marks is None
            if state is None or unfinished:
                self._log.forget(key)
                continue
            if row["reason"] == "over_quota":  # never fetched, so it may still be
                continue
            state.known.add(normalised_url(row["image_url"]))
            if row["reason"] == "in_two_classes" and row["sha256"]:
                self._identities.withdraw(row["class"], row["sha256"])
            if marks is not None:
                state.kept += 1
                self._identities.add(row["class"], row["sha256"], marks)
        _remove_strays(self._folder, self._log)

    def _can_grow(self, state: ClassState) -> bool:
        return bool(state.missing and (state.queue or state.sources or state.again))

    async def _fill(self, state: ClassState) -> None:
        while state.missing:
            if state.queue:
                await self._download(state)
            elif state.sources:
                await self._search(state, state.sources.popleft())
            elif state.again:
                state.sources, state.again = state.again, deque()
            else:
                return

    async def _search(self, state: ClassState, source: str) -> None:
        wanted = state.asked.get(source, 0) + math.ceil(state.missing * OVER_ASK)
        state.asked[source] = wanted
        class_id = state.config.id
        result = self._searches.earlier(class_id, source, wanted)
        if result is None:
            self._report(f"{state.config.name}: asking {REGISTRY[source].label}")
            unfinished = f"The time ran out while {REGISTRY[source].label} was asked."
            if (source, class_id) not in self._outcomes:
                self._note(class_id, source, SearchResult(Outcome.TIMEOUT, message=unfinished))
            result = await self._searcher.search(source, state.config.query, wanted, self._search_deadline)
            self._searches.keep(class_id, source, wanted, result)
        self._note(class_id, source, result)
        new = [candidate for candidate in result.candidates if state.is_new(candidate)]
        state.queue.extend(new)
        if new and result.outcome is Outcome.OK:
            state.again.append(source)
        self._report(f"{state.config.name}: {result.message}")

    def _note(self, class_id: str, source: str, result: SearchResult) -> None:
        """Remember how a source did for a class; the last word counts."""
        self._outcomes[source, class_id] = {
            "name": source,
            "class": class_id,
            "outcome": result.outcome.value,
            "found": len(result.candidates),
            "message": result.message,
            "retry_after": result.retry_after,
        }

    async def _download(self, state: ClassState) -> None:
        """Download from the queue until the quota is met or the queue is empty; decide in the order of rank."""
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
        if self._config.license == "open" and candidate.license_basis != "per-item":
            return Attempt(None, "license", "the licence of this picture is not known")
        width, height = candidate.width, candidate.height
        if width and height and min(width, height) < self._config.min_side:
            return Attempt(None, "too_small", f"{width}x{height} as its source states")
        return await self._downloader.get(candidate.image_url, candidate.page_url)

    def _decide(self, state: ClassState, candidate: Candidate, attempt: Attempt) -> None:
        """Keep a picture or record why not; on disk before anything else happens."""
        row = attempt_row(candidate_row(candidate, state.config.id), attempt)
        picture = attempt.picture
        if picture is not None:
            row = self._judged(state, row, picture)
        if row["state"] == "kept" and picture is not None:
            store_picture(self._folder, picture)
            self._identities.add(state.config.id, picture.sha256, picture.fingerprint)
            state.kept += 1
        self._log.append(row)
        self._report(f"{state.config.name}: {state.kept} of {state.limit} kept")

    def _judged(self, state: ClassState, row: Row, picture: Picture) -> Row:
        """The row of a good picture, rejected if it is a copy; a copy across classes takes the other one with it."""
        copy = self._identities.copy_of(picture)
        if copy is None:
            return row
        key, exact = copy
        other_class = key.partition("/")[0]
        if other_class == state.config.id and key not in self._identities.withdrawn:
            return rejected(row, "duplicate" if exact else "near_duplicate")
        self._withdraw(key)
        return rejected(row, "in_two_classes")

    def _withdraw(self, key: str) -> None:
        """Take back a picture that turned out to belong to two classes."""
        if key in self._identities.withdrawn:
            return
        class_id, _, sha256 = key.partition("/")
        self._identities.withdraw(class_id, sha256)
        for row in list(self._log.rows.values()):
            if row["class"] == class_id and row["sha256"] == sha256 and row["state"] == "kept":
                self._log.append(rejected(row, "in_two_classes"))
                (self._folder / str(row["file"])).unlink(missing_ok=True)
                self._classes[class_id].kept -= 1

    def _class_result(self, state: ClassState) -> dict[str, Any]:
        rows = [row for row in self._log.rows.values() if row["class"] == state.config.id]
        reasons: dict[str, int] = {}
        for row in rows:
            if row["state"] == "rejected":
                reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
        return {
            "id": state.config.id,
            "name": state.config.name,
            "query": state.config.query,
            "asked": state.limit,
            "found": len(rows),
            "kept": sum(row["state"] == "kept" for row in rows),
            "rejected": reasons,
        }

    def _outcome_order(self) -> Iterator[tuple[str, str]]:
        for entry in self._config.classes:
            for source in self._config.sources:
                if (source, entry.id) in self._outcomes:
                    yield source, entry.id

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


class _SearchLog:
    """searches.jsonl: finished searches, so that a run taken up again does not ask the same twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[tuple[str, str], tuple[int, SearchResult]] = {}
        for entry in read_lines(path):
            result = SearchResult(
                Outcome(entry["outcome"]),
                tuple(Candidate(**candidate) for candidate in entry["candidates"]),
                entry["message"],
                retry_after=entry["retry_after"],
            )
            self._kept[entry["class"], entry["source"]] = (entry["wanted"], result)

    def earlier(self, class_id: str, source: str, wanted: int) -> SearchResult | None:
        """The kept search, unless more is wanted now and it had not come to an end."""
        asked, result = self._kept.get((class_id, source), (0, None))
        if result is None or (result.outcome is Outcome.OK and asked < wanted):
            return None
        return result

    def keep(self, class_id: str, source: str, wanted: int, result: SearchResult) -> None:
        """Record a search that need not be asked again; one that failed in passing may be."""
        if result.outcome not in KEPT_OUTCOMES:
            return
        entry = {
            "class": class_id,
            "source": source,
            "wanted": wanted,
            "outcome": result.outcome.value,
            "message": result.message,
            "retry_after": result.retry_after,
            "candidates": [asdict(candidate) for candidate in result.candidates],
        }
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _stored_marks(folder: Path, row: Row) -> Fingerprint | None:
    """Fingerprint of a stored picture, None when the file is missing or damaged."""
    try:
        with Image.open(folder / str(row["file"]), formats=("JPEG",)) as image:
            return fingerprint(image.convert("RGB"))
    except (OSError, ValueError):
        return None


def _remove_strays(folder: Path, log: RowLog) -> None:
    """Delete pictures that were written just before a kill and never recorded."""
    recorded = {row["file"] for row in log.rows.values() if row["state"] == "kept"}
    for file in (folder / "images").iterdir():
        if f"images/{file.name}" not in recorded:
            file.unlink()
