"""Turn URLs into stored images or reasons, many at once.

The network loop only moves bytes; decoding runs in the screening pool. What has been received and
not yet decoded is counted, and no further request starts while that is too much: a slow decoder
slows the network down instead of filling memory or disk.
"""

import asyncio
import hashlib
import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from scraping.files import now
from scraping.net.http import (
    Fetched,
    Fetcher,
    FetchFailure,
    FetchSettings,
    MalformedAddress,
)
from scraping.net.opt_out import HostOptOuts, header_objection
from scraping.reasons import Reason
from scraping.records.file_marks import with_marks
from scraping.records.image_log import ImageRecord, image_file, refused_record, rejected
from scraping.refused_digests import RefusedDigests
from scraping.screening.pool import Data, PoolSettings, ScreenPool
from scraping.screening.screen import CleanImage, Rejection, ScreenSettings, file_name
from scraping.screening.spool import Extent, Spool
from scraping.urls import origin_of, url_digest

logger = logging.getLogger(__name__)

UNDECODED_BYTES = 96 << 20
RESUMED_STATUS = 200  # only complete answers with this status are kept on disk


@dataclass(frozen=True)
class RetrySettings:
    """How often and when to ask again after a failure that may pass: a broken connection, status
    429 or 5xx.

    The n-th wait is drawn between half of and the whole of `first_seconds` x 2^(n-1), or is what
    the host asks for with Retry-After, and then all its URLs wait. A host that asks for more than
    `longest_seconds`, or more than `times` in a row, is not waited for. A URL that used up its
    deadline is not tried again.
    """

    times: int = 3
    first_seconds: float = 1.0
    longest_seconds: float = 30.0

    def wait_after(self, failure: FetchFailure, tries: int) -> float | None:
        """Return the seconds to wait after `tries` requests, or None to give up."""
        if not failure.transient or tries > self.times:
            return None
        if failure.retry_after is None:
            longest = min(self.longest_seconds, self.first_seconds * 2.0 ** (tries - 1))
            return longest * random.uniform(0.5, 1.0)
        if failure.retry_after > self.longest_seconds:
            return None
        return failure.retry_after


@dataclass(frozen=True)
class EngineSettings:
    """How a downloader works.

    `spool`: folder that holds bodies until `settled`, to save memory and to resume a killed run;
    without one they stay in memory. `pool.folder`: where workers store clean images; without one
    they come back to the caller. `taken_down_urls`: SHA-256 in hexadecimal of normalized URLs that
    must not be asked for. `refused`: images that are known by their digest alone.
    """

    pool: PoolSettings = field(default_factory=PoolSettings)
    spool: Path | None = None
    taken_down_urls: frozenset[str] = frozenset()
    refused: RefusedDigests = field(default_factory=RefusedDigests)
    retrying: RetrySettings = field(default_factory=RetrySettings)


@dataclass(frozen=True)
class Attempt:
    """What became of one URL: an image, or a reason.

    `received` is the size in bytes of what came, `extent` where the spool keeps it until
    `Downloader.settled`. The digests are those of an image that was refused by one of them.
    """

    image: CleanImage | None
    reason: Reason | None
    detail: str = ""
    http_status: int | None = None
    received: int | None = None
    fetched_at: str = ""
    retry_after: float | None = None
    extent: Extent | None = None
    sha256: str | None = None
    source_sha256: str | None = None


class _ByteBudget:
    """Counts bytes received and not yet decoded; requests wait while they exceed the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._available = asyncio.Event()
        self._available.set()

    async def wait(self) -> None:
        await self._available.wait()

    def take(self, count: int) -> None:
        self._used += count
        if self._used > self._limit:
            self._available.clear()

    def give_back(self, count: int) -> None:
        self._used -= count
        if self._used <= self._limit:
            self._available.set()


class Downloader:
    """A fetcher and a screening pool working together. Use as `async with`."""

    def __init__(
        self,
        fetching: FetchSettings,
        screening: ScreenSettings,
        engine: EngineSettings | None = None,
    ) -> None:
        self._engine = engine or EngineSettings()
        self._undecoded = _ByteBudget(UNDECODED_BYTES)
        self._fetcher = Fetcher(fetching, self._undecoded.wait)
        self._opt_outs = HostOptOuts(self._fetcher)
        screening = replace(screening, digests=bool(self._engine.refused))
        self._pool = ScreenPool(screening, self._engine.pool)
        self._spool = Spool(self._engine.spool) if self._engine.spool is not None else None
        self._back_offs: Counter[str | None] = Counter()  # in a row, by origin

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
        await self._opt_outs.close()
        await self._fetcher.__aexit__(kind, error, trace)
        await self._pool.__aexit__(kind, error, trace)
        if self._spool is not None:
            self._spool.close()

    async def get(self, url: str, page_url: str = "") -> Attempt:
        """Fetch and screen one URL.

        Raises OSError when the disk or the screening fails, which is no fault of the URL.
        """
        taken_down = self._engine.taken_down_urls
        if taken_down and url_digest(url) in taken_down:
            return Attempt(None, Reason.TAKEN_DOWN)
        earlier = self._spool.earlier(url) if self._spool is not None else None
        if earlier is not None:
            if refusal := self._refusal(earlier.read):
                return refusal
            return await self._screen(earlier, earlier.size, RESUMED_STATUS)
        answer = await self._fetch_with_retries(url, page_url)
        if isinstance(answer, FetchFailure):
            return _failed_attempt(answer)
        if refusal := self._refusal(lambda: answer.body):
            return refusal
        data: Data = answer.body
        if self._spool is not None:
            data = self._spool.add(url, answer.body)
        return await self._screen(data, len(answer.body), answer.status)

    async def screened(self, body: bytes) -> Attempt:
        """Screen bytes that nobody had to be asked for.

        Raises OSError when the screening fails, which is no fault of the bytes.
        """
        if refusal := self._refusal(lambda: body):
            return refusal
        attempt = await self._screen(body, len(body), RESUMED_STATUS)
        return replace(attempt, http_status=None)

    def settled(self, attempt: Attempt) -> None:
        """Release the body of an attempt that is on record."""
        if self._spool is not None and attempt.extent is not None:
            self._spool.settled(attempt.extent)

    def finish(self) -> None:
        """Delete the spool: all URLs are decided, so no later run needs it."""
        if self._spool is not None:
            self._spool.remove()

    async def _fetch_with_retries(self, url: str, page_url: str) -> Fetched | FetchFailure:
        """Fetch, and again after failures that may pass. No connection is held while waiting."""
        for tries in itertools.count(1):
            answer = await self._fetcher.fetch(
                url,
                page_url,
                check_headers=header_objection,
                check_address=self._opt_outs.objection,
            )
            if isinstance(answer, Fetched):
                self._back_offs.pop(origin_of(url), None)
                return answer
            wait = self._engine.retrying.wait_after(answer, tries)
            if wait is None:
                return answer
            if answer.retry_after is None:
                await asyncio.sleep(wait)
            elif not self._back_off(url, wait):
                return answer
        raise AssertionError("an endless loop ended")

    def _back_off(self, url: str, seconds: float) -> bool:
        """Leave a host alone as it wishes, unless it has asked so too often in a row.

        Without that limit one host could hold up a whole list. Returns whether to ask again.
        """
        host = origin_of(url)
        if self._back_offs[host] >= self._engine.retrying.times:
            return False
        if self._fetcher.back_off(url, seconds):
            self._back_offs[host] += 1
        return True

    def _refusal(self, body: Callable[[], bytes | bytearray]) -> Attempt | None:
        """Return the attempt of received bytes that the operator refuses, before they are stored
        anywhere; None for others.
        """
        if not self._engine.refused:
            return None
        digest = hashlib.sha256(body()).hexdigest()
        return self._refused(None, digest) if self._engine.refused.has(digest) else None

    def _refused(self, sha256: str | None, source_sha256: str) -> Attempt:
        """Return the attempt of a refused image, and log its digest alone."""
        logger.warning("refused an image by its SHA-256 digest %s", source_sha256)
        return Attempt(
            None,
            Reason.REFUSED_DIGEST,
            fetched_at=now(),
            sha256=sha256,
            source_sha256=source_sha256,
        )

    async def _screen(self, data: Data, size: int, status: int) -> Attempt:
        self._undecoded.take(size)
        try:
            answer = await self._pool.screen(data)
        finally:
            self._undecoded.give_back(size)
        extent = data if isinstance(data, Extent) else None
        if isinstance(answer, Rejection):
            if self._engine.refused.has(answer.sha256):
                return replace(self._refused(answer.sha256, answer.source_sha256), extent=extent)
            return Attempt(None, answer.reason, answer.detail, status, size, now(), extent=extent)
        if self._engine.refused.has(answer.sha256):
            if self._engine.pool.folder is not None:  # a worker has stored it there
                (self._engine.pool.folder / file_name(answer.sha256)).unlink(missing_ok=True)
            return replace(self._refused(answer.sha256, answer.source_sha256), extent=extent)
        return Attempt(answer, None, "", status, size, now(), extent=extent)


def _failed_attempt(failure: FetchFailure) -> Attempt:
    detail = failure.detail
    # Records reach the user: a refused address and a dead one carry the same sentence there.
    is_about_host = failure.reason in (Reason.REFUSED_ADDRESS, Reason.UNREACHABLE)
    if is_about_host and not isinstance(failure, MalformedAddress):
        detail = failure.message
    return Attempt(None, failure.reason, detail, failure.status, None, now(), failure.retry_after)


def attempt_record(record: ImageRecord, attempt: Attempt) -> ImageRecord:
    """Return a candidate's record with what its download brought."""
    if attempt.reason == Reason.REFUSED_DIGEST:
        record = record | {"fetched_at": attempt.fetched_at}
        return refused_record(record, attempt.sha256, attempt.source_sha256)
    record = record | {
        "http_status": attempt.http_status,
        "bytes": attempt.received,
        "fetched_at": attempt.fetched_at or None,
    }
    image = attempt.image
    if image is None:
        return rejected(record, attempt.reason or Reason.UNREACHABLE, attempt.detail)
    kept: ImageRecord = record | {
        "state": "kept",
        "file": image_file(image),
        "sha256": image.sha256,
        "source_sha256": image.source_sha256,
        "width": image.width,
        "height": image.height,
        "mime": image.mime,
    }
    return with_marks(kept, image.marks)
