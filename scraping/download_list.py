"""Download a list of URLs into a folder, one record each; the same call resumes a stopped run."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Self

from scraping.download import Attempt, Downloader, EngineSettings, RetrySettings, attempt_record
from scraping.files import atomic_writer, json_line
from scraping.net.http import FetchSettings
from scraping.reasons import Reason
from scraping.records.image_log import (
    ImageRecord,
    kept_sha256,
    new_record,
    read_records,
    rejected,
)
from scraping.screening.pool import PoolSettings
from scraping.screening.screen import CleanImage, ScreenSettings
from scraping.sources.base import Candidate
from scraping.urls import origin_of

URLS_PER_CONNECTION = 4  # under way, so that a slow host's queue leaves no other connection idle


@dataclass(frozen=True)
class DownloadSettings:
    """What `download_list` needs: how to fetch, how to screen, how to ask again."""

    fetching: FetchSettings
    screening: ScreenSettings
    retrying: RetrySettings = field(default_factory=RetrySettings)


@dataclass(frozen=True)
class DownloadSummary:
    """How many URLs were asked for, kept, rejected by reason, and decided by an earlier run."""

    total: int
    kept: int
    rejected: dict[str, int]
    already: int


def read_urls(file: Path) -> list[str]:
    """Return the URLs of a text file, one a line, without repetitions.

    Empty lines and lines that start with `#` are skipped.
    """
    urls = []
    for line in file.read_text(encoding="utf-8").splitlines():
        url = line.strip()
        if url and not url.startswith("#"):
            urls.append(url)
    return list(dict.fromkeys(urls))


async def download_list(
    urls: list[str],
    folder: Path,
    settings: DownloadSettings,
    on_record: Callable[[ImageRecord, int], None] | None = None,
) -> DownloadSummary:
    """Download a list into a folder; what the folder already decided is not asked again.

    `on_record` gets each new record and the number of URLs decided so far.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    engine = EngineSettings(
        pool=PoolSettings(folder=images), spool=folder / "incoming", retrying=settings.retrying
    )
    screening = replace(settings.screening, thumbnails=False)  # near-duplicates are not sought
    with _DecisionLog(folder) as log:
        ranked = []
        for rank, url in enumerate(urls, start=1):
            if url not in log.reasons:
                ranked.append((rank, url))
        already = len(urls) - len(ranked)
        decided = already
        candidates = (Candidate(url, "", "", rank) for rank, url in _alternate_hosts(ranked))
        async with Downloader(settings.fetching, screening, engine) as downloader:
            attempts = _attempts(downloader, candidates, settings.fetching.connections)
            async for candidate, attempt in attempts:
                record = _record(candidate, attempt, log)
                log.append(record)
                downloader.settled(attempt)
                decided += 1
                if on_record is not None:
                    on_record(record, decided)
            downloader.finish()
        return _summarize([log.reasons[url] for url in urls], already)


class _DecisionLog:
    """images.jsonl of a list: the records on disk, and in memory only the reason for each URL.

    What an earlier run left is written anew at the start, one record per URL, without torn lines
    and without records whose image is gone. Use as a context manager to append.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "images.jsonl"
        self._stream: IO[bytes] | None = None
        self._kept: set[bytes] = set()  # digests: a list may be long
        self.reasons: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        with atomic_writer(self._path) as stream:
            for record in self._earlier():
                self._remember(record)
                stream.write(json_line(record))
        self._stream = self._path.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, record: ImageRecord) -> None:
        """Record a decision; handed to the operating system before this returns."""
        assert self._stream is not None
        self._remember(record)
        self._stream.write(json_line(record))
        self._stream.flush()

    def has_image(self, image: CleanImage) -> bool:
        """Return whether the same image has been kept under another URL."""
        return bytes.fromhex(image.sha256) in self._kept

    def _remember(self, record: ImageRecord) -> None:
        self.reasons[record["image_url"]] = record["reason"]
        if record["state"] == "kept":
            self._kept.add(bytes.fromhex(kept_sha256(record)))

    def _earlier(self) -> Iterator[ImageRecord]:
        """Yield the last record of each URL, unless its image is gone."""
        last_line = {}
        for number, record in enumerate(read_records(self._path)):
            last_line[record["image_url"]] = number
        for number, record in enumerate(read_records(self._path)):
            if number != last_line[record["image_url"]]:
                continue
            file = record["file"]
            if file is not None and not (self._folder / file).exists():
                continue
            yield record


def _alternate_hosts(ranked: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Sort ranks and URLs: the first URL of each host, then the second of each, and so on.

    A list sorted by host would otherwise ask one host at a time.
    """
    rounds: Counter[str | None] = Counter()
    placed = []
    for rank, url in ranked:
        host = origin_of(url)
        rounds[host] += 1
        placed.append((rounds[host], rank, url))
    placed.sort()
    return [(rank, url) for _round, rank, url in placed]


async def _attempts(
    downloader: Downloader, candidates: Iterator[Candidate], connections: int
) -> AsyncIterator[tuple[Candidate, Attempt]]:
    """Yield attempts as they end; a bounded number of URLs is under way at any time."""
    under_way: dict[asyncio.Task[Attempt], Candidate] = {}
    finished: asyncio.Queue[asyncio.Task[Attempt]] = asyncio.Queue()

    def start_more() -> None:
        vacant = connections * URLS_PER_CONNECTION - len(under_way)
        for candidate in itertools.islice(candidates, vacant):
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


def _record(candidate: Candidate, attempt: Attempt, log: _DecisionLog) -> ImageRecord:
    """Return a URL's record, with the difference hash for who looks for near-duplicates."""
    record = attempt_record(new_record(candidate, ""), attempt)
    image = attempt.image
    if image is None:
        return record
    if log.has_image(image):
        record = rejected(record, Reason.DUPLICATE)
    return record | {"dhash": f"{image.difference_hash:016x}"}


def _summarize(reasons: list[str | None], already: int) -> DownloadSummary:
    counts = Counter(reason for reason in reasons if reason is not None)
    kept = len(reasons) - counts.total()
    return DownloadSummary(total=len(reasons), kept=kept, rejected=dict(counts), already=already)
