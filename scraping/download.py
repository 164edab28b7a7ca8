"""Addresses become files or reasons, many at once.

The network loop only moves bytes; decoding runs in the screening pool. What has been received and not yet decoded is
counted, and no further request starts while that is too much: a slow decoder slows the network down instead of
filling the memory.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from scraping.fetch import PRODUCT, Fetched, Fetcher, FetchFailure, FetchSettings
from scraping.rows import Row, RowLog, candidate_row, now, picture_file, rejected, store_picture
from scraping.screen import Picture, Rejection, ScreenSettings
from scraping.screenpool import ScreenPool
from scraping.sources.contract import Candidate

UNDECODED_BYTES = 96 << 20
WAITING_PER_CONNECTION = 4  # so that one slow host's queue does not keep the others' connections idle
OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
VALUED_DIRECTIVES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


@dataclass(frozen=True)
class Attempt:
    """What became of one address: a picture, or a reason. `received` is the size in bytes of what came."""

    picture: Picture | None
    reason: str | None
    detail: str = ""
    http_status: int | None = None
    received: int | None = None
    fetched_at: str = ""
    retry_after: float | None = None


def opted_out(headers: Iterable[str]) -> bool:
    """Whether X-Robots-Tag headers forbid this use: directives without a name before them, or with ours."""
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
    """Counts bytes received and not yet decoded, and holds requests back while they are too many."""

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

    def __init__(self, fetching: FetchSettings, screening: ScreenSettings, workers: int | None = None) -> None:
        self._room = _Room(UNDECODED_BYTES)
        self._fetcher = Fetcher(fetching, self._room.wait)
        self._pool = ScreenPool(screening, workers)

    async def __aenter__(self) -> Self:
        self._pool.__enter__()
        await self._fetcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._fetcher.__aexit__(kind, error, trace)
        self._pool.__exit__(kind, error, trace)

    async def get(self, url: str, page_url: str = "", store: Callable[[Picture], None] | None = None) -> Attempt:
        """Fetch and screen one address; `store` is called with a good picture, in a thread."""
        answer = await self._fetcher.fetch(url, page_url)
        if isinstance(answer, FetchFailure):
            return _not_fetched(answer)
        if opted_out(answer.headers.getall("X-Robots-Tag", [])):
            return Attempt(None, "opted_out", "X-Robots-Tag", answer.status, None, now())
        return await self._screen(answer, store)

    async def _screen(self, answer: Fetched, store: Callable[[Picture], None] | None) -> Attempt:
        size = len(answer.body)
        self._room.take(size)
        try:
            verdict = await self._pool.screen(answer.body, store)
        finally:
            self._room.give_back(size)
        if isinstance(verdict, Rejection):
            return Attempt(None, verdict.reason, verdict.detail, answer.status, size, now())
        return Attempt(verdict, None, "", answer.status, size, now())


def _not_fetched(failure: FetchFailure) -> Attempt:
    # Rows reach the user: a refused address and a dead one carry the same neutral sentence there.
    secret = failure.reason in ("refused_address", "unreachable")
    detail = failure.message if secret else failure.detail
    return Attempt(None, failure.reason, detail, failure.status, None, now(), failure.retry_after)


def attempt_row(row: Row, attempt: Attempt) -> Row:
    """A candidate's row with what its download brought."""
    row = row | {
        "http_status": attempt.http_status,
        "bytes": attempt.received,
        "fetched_at": attempt.fetched_at or None,
    }
    picture = attempt.picture
    if picture is None:
        return rejected(row, attempt.reason or "unreachable", attempt.detail)
    return row | {
        "state": "kept",
        "file": picture_file(picture),
        "sha256": picture.sha256,
        "source_sha256": picture.source_sha256,
        "width": picture.width,
        "height": picture.height,
        "mime": picture.mime,
    }


@dataclass(frozen=True)
class DownloadSettings:
    """What `download_list` needs: how to fetch, how to screen."""

    fetching: FetchSettings
    screening: ScreenSettings


@dataclass(frozen=True)
class DownloadSummary:
    """How a list went: numbers of addresses, and of rejections by reason."""

    total: int
    kept: int
    rejected: dict[str, int]
    already: int


def read_urls(file: Path) -> list[str]:
    """The addresses of a text file, one a line, without repetitions; empty lines and `#` lines are passed over."""
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


async def download_list(
    urls: list[str],
    folder: Path,
    settings: DownloadSettings,
    on_row: Callable[[Row, int], None] | None = None,
) -> DownloadSummary:
    """Download a list into a folder, a row each; what the folder already decided is not asked again.

    `on_row` hears of each new row and how many addresses are decided.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with RowLog(folder / "images.jsonl") as log:
        _drop_rows_without_file(log, folder)
        already = sum(1 for url in urls if ("", url) in log.rows)
        seen = {row["sha256"] for row in log.rows.values() if row["state"] == "kept"}
        todo = (Candidate(url, "", "", rank) for rank, url in enumerate(urls, start=1) if ("", url) not in log.rows)
        done = already
        async with Downloader(settings.fetching, settings.screening) as downloader:
            async for candidate, attempt in _many(downloader, todo, folder, settings.fetching.connections):
                row = attempt_row(candidate_row(candidate, ""), attempt)
                if attempt.picture is not None and attempt.picture.sha256 in seen:
                    row = rejected(row, "duplicate")
                seen.add(row["sha256"])
                log.append(row | _marks(attempt))
                done += 1
                if on_row is not None:
                    on_row(row, done)
        return _summary(urls, log, already)


def _drop_rows_without_file(log: RowLog, folder: Path) -> None:
    for key, row in list(log.rows.items()):
        if row["state"] == "kept" and not (folder / str(row["file"])).exists():
            log.forget(key)


def _marks(attempt: Attempt) -> dict[str, str]:
    """The difference hash, for whoever looks for near copies in the list."""
    return {"dhash": f"{attempt.picture.fingerprint.hash:016x}"} if attempt.picture is not None else {}


async def _many(
    downloader: Downloader, candidates: Iterator[Candidate], folder: Path, connections: int
) -> AsyncIterator[tuple[Candidate, Attempt]]:
    """Results as they come; a bounded number of addresses is under way at any time."""
    under_way: dict[asyncio.Task[Attempt], Candidate] = {}
    finished: asyncio.Queue[asyncio.Task[Attempt]] = asyncio.Queue()

    def store(picture: Picture) -> None:
        store_picture(folder, picture)

    def start_more() -> None:
        for candidate in itertools.islice(candidates, connections * WAITING_PER_CONNECTION - len(under_way)):
            task = asyncio.ensure_future(downloader.get(candidate.image_url, candidate.page_url, store))
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


def _summary(urls: list[str], log: RowLog, already: int) -> DownloadSummary:
    reasons: dict[str, int] = {}
    kept = 0
    for url in urls:
        row = log.rows[("", url)]
        kept += row["state"] == "kept"
        if row["reason"]:
            reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    return DownloadSummary(len(urls), kept, reasons, already)
