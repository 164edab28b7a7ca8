"""Addresses become files or reasons, many at once.

The network loop only moves bytes; decoding runs in the screening pool. What has been received and
not yet decoded is counted, and no further request starts while that is too much: a slow decoder
slows the network down instead of filling memory or disk.
"""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from multidict import CIMultiDictProxy

from scraping.files import now
from scraping.net.http import PRODUCT, Fetched, Fetcher, FetchFailure, FetchSettings
from scraping.reasons import Reason
from scraping.records.image_log import (
    ImageRecord,
    image_file,
    kept_sha256,
    new_record,
    read_records,
    rejected,
)
from scraping.screening.pool import Data, PoolSettings, ScreenPool
from scraping.screening.screen import CleanImage, Rejection, ScreenSettings
from scraping.screening.spool import Extent, Spool
from scraping.sources.base import Candidate
from scraping.urls import origin_of, url_digest

UNDECODED_BYTES = 96 << 20
WAITING_PER_CONNECTION = (
    4  # so that one slow host's queue does not keep the others' connections idle
)
RESUMED_STATUS = 200  # only complete answers with this status are kept on disk
OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
VALUED_DIRECTIVES = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)


@dataclass(frozen=True)
class RetrySettings:
    """How often and when to ask again after a failure that may pass: a broken connection, status
    429 or 5xx.

    The n-th wait is drawn between half of and the whole of `first_seconds` x 2^(n-1), or is what
    the host asks for with Retry-After, and then all its addresses wait; a host that asks for more
    than `longest_seconds`, or so often in a row as `times`, is not waited for. An address that used
    up its deadline has had its time.
    """

    times: int = 3
    first_seconds: float = 1.0
    longest_seconds: float = 30.0

    def wait_after(self, failure: FetchFailure, tries: int) -> float | None:
        """Seconds to wait before asking again after `tries` requests, or None to give up."""
        if not failure.transient or tries > self.times:
            return None
        if failure.retry_after is not None:
            return failure.retry_after if failure.retry_after <= self.longest_seconds else None
        return min(self.longest_seconds, self.first_seconds * 2.0 ** (tries - 1)) * random.uniform(
            0.5, 1.0
        )


@dataclass(frozen=True)
class EngineSettings:
    """How a downloader works.

    `spool`: folder that holds bodies until `settled`, for memory's sake and to take a killed run up; without one they
    stay in memory. `pool.folder`: where workers store good pictures; without one they come back to the caller.
    `taken_down_urls`: SHA-256 in hexadecimal of normalised addresses that must not be asked for.
    """

    pool: PoolSettings = field(default_factory=PoolSettings)
    spool: Path | None = None
    taken_down_urls: frozenset[str] = frozenset()
    retrying: RetrySettings = field(default_factory=RetrySettings)


@dataclass(frozen=True)
class Attempt:
    """What became of one address: a picture, or a reason.

    `received` is the size in bytes of what came, `extent` where the spool keeps it until
    `Downloader.settled`.
    """

    image: CleanImage | None
    reason: Reason | None
    detail: str = ""
    http_status: int | None = None
    received: int | None = None
    fetched_at: str = ""
    retry_after: float | None = None
    extent: Extent | None = None


def opted_out(headers: Iterable[str]) -> bool:
    """Whether X-Robots-Tag headers forbid this use: directives without a name before them, or with
    ours.
    """
    for header in headers:
        agent = ""
        for part in header.lower().split(","):
            before, colon, after = (piece.strip() for piece in part.partition(":"))
            if colon and before in VALUED_DIRECTIVES:
                continue
            agent, directive = (before, after) if colon else (agent, before)
            if directive in OPT_OUTS and agent in ("", PRODUCT.lower()):
                return True
    return False


class _Room:
    """Counts bytes received and not yet decoded, and holds requests back while they are too
    many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._free = asyncio.Event()
        self._free.set()

    async def wait(self) -> None:
        await self._free.wait()

    def take(self, count: int) -> None:
        self._used += count
        if self._used > self._limit:
            self._free.clear()

    def give_back(self, count: int) -> None:
        self._used -= count
        if self._used <= self._limit:
            self._free.set()


class Downloader:
    """A fetcher and a screening pool working together. Use as `async with`."""

    def __init__(
        self,
        fetching: FetchSettings,
        screening: ScreenSettings,
        engine: EngineSettings | None = None,
    ) -> None:
        self._engine = engine or EngineSettings()
        self._room = _Room(UNDECODED_BYTES)
        self._fetcher = Fetcher(fetching, self._room.wait)
        self._pool = ScreenPool(screening, self._engine.pool)
        self._rests: Counter[str | None] = Counter()
        self._spool = Spool(self._engine.spool) if self._engine.spool is not None else None

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        await self._fetcher.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._fetcher.__aexit__(kind, error, trace)
        await self._pool.__aexit__(kind, error, trace)
        if self._spool is not None:
            self._spool.close()

    async def get(self, url: str, page_url: str = "") -> Attempt:
        """Fetch and screen one address.

        Raises OSError when the disk or the screening fails, which is nobody's fault but ours.
        """
        if self._engine.taken_down_urls and url_digest(url) in self._engine.taken_down_urls:
            return Attempt(None, Reason.TAKEN_DOWN)
        if self._spool is not None and (extent := self._spool.earlier(url)) is not None:
            return await self._screen(extent, extent.size, RESUMED_STATUS)
        answer = await self._fetch_patiently(url, page_url)
        if isinstance(answer, FetchFailure):
            return _not_fetched(answer)
        if self._spool is None:
            return await self._screen(answer.body, len(answer.body), answer.status)
        return await self._screen(
            self._spool.add(url, answer.body), len(answer.body), answer.status
        )

    def settled(self, attempt: Attempt) -> None:
        """What became of an address is on record; its body is not needed any more."""
        if self._spool is not None and attempt.extent is not None:
            self._spool.settled(attempt.extent)

    def finish(self) -> None:
        """All addresses are decided: nothing needs to be kept for a later run."""
        if self._spool is not None:
            self._spool.remove()

    async def _fetch_patiently(self, url: str, page_url: str) -> Fetched | FetchFailure:
        """Fetch, and again after failures that may pass. No connection is held while waiting."""
        for tries in itertools.count(1):
            answer = await self._fetcher.fetch(url, page_url, check_headers=_unwanted)
            if isinstance(answer, Fetched):
                self._rests.pop(origin_of(url), None)
                return answer
            wait = self._engine.retrying.wait_after(answer, tries)
            if wait is None or (answer.retry_after is not None and not self._may_rest(url, wait)):
                return answer
            if answer.retry_after is None:
                await asyncio.sleep(wait)
        raise AssertionError("an endless loop ended")

    def _may_rest(self, url: str, seconds: float) -> bool:
        """Let a host rest as it wishes; not for ever, or one host could hold up a whole list."""
        host = origin_of(url)
        if self._rests[host] >= self._engine.retrying.times:
            return False
        self._rests[host] += self._fetcher.back_off(url, seconds)
        return True

    async def _screen(self, data: Data, size: int, status: int) -> Attempt:
        self._room.take(size)
        try:
            verdict = await self._pool.screen(data)
        finally:
            self._room.give_back(size)
        extent = data if isinstance(data, Extent) else None
        if isinstance(verdict, Rejection):
            return Attempt(None, verdict.reason, verdict.detail, status, size, now(), extent=extent)
        return Attempt(verdict, None, "", status, size, now(), extent=extent)


def _unwanted(headers: CIMultiDictProxy[str]) -> Reason | None:
    return Reason.OPTED_OUT if opted_out(headers.getall("X-Robots-Tag", [])) else None


def _not_fetched(failure: FetchFailure) -> Attempt:
    # Rows reach the user: a refused address and a dead one carry the same neutral sentence there.
    secret = failure.reason in (Reason.REFUSED_ADDRESS, Reason.UNREACHABLE)
    detail = failure.message if secret else failure.detail
    return Attempt(None, failure.reason, detail, failure.status, None, now(), failure.retry_after)


def attempt_row(row: ImageRecord, attempt: Attempt) -> ImageRecord:
    """A candidate's row with what its download brought."""
    row = row | {
        "http_status": attempt.http_status,
        "bytes": attempt.received,
        "fetched_at": attempt.fetched_at or None,
    }
    picture = attempt.image
    if picture is None:
        return rejected(row, attempt.reason or Reason.UNREACHABLE, attempt.detail)
    return row | {
        "state": "kept",
        "file": image_file(picture),
        "sha256": picture.sha256,
        "source_sha256": picture.source_sha256,
        "width": picture.width,
        "height": picture.height,
        "mime": picture.mime,
    }


@dataclass(frozen=True)
class DownloadSettings:
    """What `download_list` needs: how to fetch, how to screen, how to ask again."""

    fetching: FetchSettings
    screening: ScreenSettings
    retrying: RetrySettings = field(default_factory=RetrySettings)


@dataclass(frozen=True)
class DownloadSummary:
    """How a list went: numbers of addresses, and of rejections by reason."""

    total: int
    kept: int
    rejected: dict[str, int]
    already: int


def read_urls(file: Path) -> list[str]:
    """The addresses of a text file, one a line, without repetitions; empty lines and `#` lines are
    passed over.
    """
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


class _Decided:
    """images.jsonl of a list: the rows on disk, and in memory only what each address came to.

    What an earlier run left is written anew at the start, one row per address, without torn lines
    and without rows whose picture is gone. Use as a context manager to append.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "images.jsonl"
        self._folder = folder
        self._stream: IO[bytes] | None = None
        self.reasons: dict[str, str | None] = {}
        self.sums: set[bytes] = set()

    def __enter__(self) -> Self:
        beside = self._path.with_suffix(".part")
        with beside.open("wb") as self._stream:
            for row in self._earlier():
                self.append(row)
        beside.replace(self._path)
        self._stream = self._path.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, row: ImageRecord) -> None:
        """Record a decision; handed to the operating system before this returns."""
        assert self._stream is not None
        self.reasons[row["image_url"]] = row["reason"]
        if row["state"] == "kept":
            self.sums.add(bytes.fromhex(kept_sha256(row)))
        self._stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()

    def has_picture(self, picture: CleanImage) -> bool:
        """Whether the same picture has been kept under another address."""
        return bytes.fromhex(picture.sha256) in self.sums

    def _earlier(self) -> Iterator[ImageRecord]:
        last = {row["image_url"]: number for number, row in enumerate(read_records(self._path))}
        for number, row in enumerate(read_records(self._path)):
            lost = row["state"] == "kept" and not (self._folder / str(row["file"])).exists()
            if number == last[row["image_url"]] and not lost:
                yield row


async def download_list(
    urls: list[str],
    folder: Path,
    settings: DownloadSettings,
    on_row: Callable[[ImageRecord, int], None] | None = None,
) -> DownloadSummary:
    """Download a list into a folder, a row each; what the folder already decided is not asked
    again.

    `on_row` hears of each new row and how many addresses are decided.
    """
    pictures = folder / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    engine = EngineSettings(
        PoolSettings(folder=pictures), folder / "incoming", retrying=settings.retrying
    )
    with _Decided(folder) as decided:
        todo = [(rank, url) for rank, url in enumerate(urls, start=1) if url not in decided.reasons]
        already = len(urls) - len(todo)
        screening = replace(settings.screening, thumbnails=False)  # pairs are not looked for here
        async with Downloader(settings.fetching, screening, engine) as downloader:
            candidates = (Candidate(url, "", "", rank) for rank, url in _round_robin(todo))
            results = _many(downloader, candidates, settings.fetching.connections)
            done = already
            async for candidate, attempt in results:
                row = _list_row(candidate, attempt, decided)
                decided.append(row)
                downloader.settled(attempt)
                done += 1
                if on_row is not None:
                    on_row(row, done)
            downloader.finish()
        return _summary([decided.reasons[url] for url in urls], already)


def _list_row(candidate: Candidate, attempt: Attempt, decided: _Decided) -> ImageRecord:
    """The row of one address, with the difference hash for whoever looks for near copies in the
    list.
    """
    row = attempt_row(new_record(candidate, ""), attempt)
    if attempt.image is None:
        return row
    if decided.has_picture(attempt.image):
        row = rejected(row, Reason.DUPLICATE)
    return row | {"dhash": f"{attempt.image.difference_hash:016x}"}


def _round_robin(ranked: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The first address of each host, then the second of each: a list sorted by host would ask one
    host at a time.
    """
    turns: Counter[str | None] = Counter()
    placed = []
    for rank, url in ranked:
        host = origin_of(url)
        turns[host] += 1
        placed.append((turns[host], rank, url))
    placed.sort()
    return [(rank, url) for _, rank, url in placed]


async def _many(
    downloader: Downloader, candidates: Iterator[Candidate], connections: int
) -> AsyncIterator[tuple[Candidate, Attempt]]:
    """Results as they come; a bounded number of addresses is under way at any time."""
    under_way: dict[asyncio.Task[Attempt], Candidate] = {}
    finished: asyncio.Queue[asyncio.Task[Attempt]] = asyncio.Queue()

    def start_more() -> None:
        for candidate in itertools.islice(
            candidates, connections * WAITING_PER_CONNECTION - len(under_way)
        ):
            task = asyncio.ensure_future(downloader.get(candidate.image_url, candidate.page_url))
            task.add_done_callback(finished.put_nowait)
            under_way[task] = candidate

    start_more()
    try:
        while under_way:
            task = await finished.get()
            yield under_way.pop(task), task.result()
            start_more()
    finally:
        for task in under_way:
            task.cancel()


def _summary(reasons: Iterable[str | None], already: int) -> DownloadSummary:
    counts = Counter(reasons)
    kept = counts.pop(None, 0)
    rejections = {reason: count for reason, count in counts.items() if reason is not None}
    return DownloadSummary(kept + sum(rejections.values()), kept, rejections, already)
