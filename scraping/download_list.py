"""Download a list of URLs into a folder, one record each; the same call resumes a stopped run."""

import asyncio
import codecs
import itertools
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Self

from scraping import ConfigError
from scraping.download import Attempt, Downloader, EngineSettings, RetrySettings, attempt_record
from scraping.files import atomic_writer, json_line
from scraping.net.http import FetchSettings
from scraping.outside import clean_address
from scraping.reasons import Reason
from scraping.records.image_log import (
    ImageRecord,
    kept_sha256,
    new_record,
    read_records,
    record_key,
    refused_record,
    rejected,
)
from scraping.refused_digests import RefusedDigests
from scraping.screening.pool import PoolSettings
from scraping.screening.screen import CleanImage, ScreenSettings
from scraping.sources.base import Candidate
from scraping.urls import address_digest, origin_of
from training.text_files import csv_rows

URLS_PER_CONNECTION = 4  # under way, so that a slow host's queue leaves no other connection idle

BYTE_ORDER_MARKS = {  # that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NO_TEXTS = (b"PK\x03\x04", b"%PDF", b"\xd0\xcf\x11\xe0")  # spreadsheets and printed pages
SAMPLE_BYTES = 4096
MAX_ZERO_SHARE = 100  # of so many characters one may be zero in a text
DELIMITERS = (",", ";", "\t")
LINE_END = re.compile("\r\n?")
# Names of the column that is meant, in the order of preference.
ADDRESS_COLUMNS = (
    "image_url",
    "image url",
    "imageurl",
    "url",
    "urls",
    "address",
    "image",
    "link",
    "src",
    "uri",
)


@dataclass(frozen=True)
class DownloadSettings:
    """What `download_list` needs: how to fetch, how to screen, how to ask again, what to refuse."""

    fetching: FetchSettings
    screening: ScreenSettings
    retrying: RetrySettings = field(default_factory=RetrySettings)
    refused: RefusedDigests = field(default_factory=RefusedDigests)


@dataclass(frozen=True)
class DownloadSummary:
    """How many URLs were asked for, kept, rejected by reason, and decided by an earlier run."""

    total: int
    kept: int
    rejected: dict[str, int]
    already: int


def read_urls(file: Path) -> list[str]:
    """Return the addresses of a list, without repetitions: one a line, or a column of a CSV.

    Empty lines and lines that start with `#` are skipped. The text may be UTF-8, UTF-16 or what
    Windows writes. Raises ConfigError when it is no text or a table without addresses.
    """
    text = _decoded(file)
    addresses = _column_of_addresses(text, file.name)
    if addresses is None:
        addresses = [_address_of_line(line) for line in text.splitlines()]
    cleaned = map(clean_address, addresses)
    return list(dict.fromkeys(url for url in cleaned if url and not url.startswith("#")))


def _decoded(file: Path) -> str:
    """Return the text of a file, by its byte order mark or else by what its bytes can be."""
    data = file.read_bytes()
    encoding = "utf-8"
    for mark, marked_encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return data.decode(marked_encoding, errors="replace")
    beginning = data[:SAMPLE_BYTES]
    if beginning.count(0) * 3 > len(beginning):  # of ASCII in UTF-16 every second byte is zero
        encoding = "utf-16-be" if beginning.startswith(b"\0") else "utf-16-le"
    text = data.decode(encoding, errors="replace")
    others = sum(not character.isascii() for character in text)
    if text.count("\ufffd") * 2 > others:  # a byte here and there may be damaged
        text = data.decode("cp1252", errors="replace")
    if text.count("\0") * MAX_ZERO_SHARE > len(text) or data.startswith(NO_TEXTS):
        raise ConfigError(f"{file.name} is no text: save the list as plain text or as CSV.")
    return text


def _column_of_addresses(text: str, name: str) -> list[str] | None:
    """Return the cells below a CSV's header that hold addresses, None for a plain list."""
    text = LINE_END.sub("\n", text.lstrip())
    lines = text.split("\n", 1)
    first_line = lines[0].strip()
    if first_line.lower().startswith("sep=") and len(lines) > 1:  # a hint for a spreadsheet program
        text = lines[1]
        first_line = text.split("\n", 1)[0].strip()
    if "://" in first_line or first_line.startswith("#"):
        return None
    delimiter = max(DELIMITERS, key=first_line.count)
    rows = list(csv_rows(text, delimiter))
    if not rows:
        return None
    header = [cell.strip().lower() for cell in rows.pop(0)]
    complete = [row for row in rows if len(row) == len(header)]
    column = _find_column(header, complete)
    if column is not None:
        addresses = [row[column] for row in rows if len(row) > column]
        if rows and not addresses:
            raise ConfigError(f"{name} has no complete row: save the list as CSV again.")
        return addresses
    if len(header) > 1 and len(complete) > 1:
        raise ConfigError(
            f"{name} has no column of addresses: give it one that is named image_url."
        )
    return None


def _find_column(header: list[str], rows: list[list[str]]) -> int | None:
    for known in ADDRESS_COLUMNS:
        if known in header:
            return header.index(known)
    if len(header) == 1:
        return None
    for column in range(len(header)):
        if any("://" in row[column] for row in rows):
            return column
    return None


def _address_of_line(line: str) -> str:
    """Return the address in a line: without quotes, and of several cells the one that has it."""
    cells = line.strip().split("\t")
    with_scheme = [cell for cell in cells if "://" in cell]
    address = (with_scheme or cells)[0].strip()
    is_quoted = len(address) > 1 and address[0] == address[-1] == '"'
    return address[1:-1] if is_quoted else address


async def download_list(
    urls: list[str],
    folder: Path,
    settings: DownloadSettings,
    on_record: Callable[[ImageRecord, int], None] | None = None,
    pages: Mapping[str, str] | None = None,
) -> DownloadSummary:
    """Download a list into a folder; what the folder already decided is not asked again.

    Hosts that could not be reached or failed at the last time are asked again.

    `on_record` gets each new record and the number of URLs decided so far. `pages` has the page
    that shows an image by its URL, for hosts that send it to readers of that page alone.
    """
    pages = pages or {}
    urls = [clean_address(url) for url in urls]
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    engine = EngineSettings(
        pool=PoolSettings(folder=images),
        spool=folder / "incoming",
        retrying=settings.retrying,
        refused=settings.refused,
    )
    screening = replace(settings.screening, thumbnails=False)  # near-duplicates are not sought
    with _DecisionLog(folder, settings.refused) as log:
        ranked = []
        for rank, url in enumerate(urls, start=1):
            if not log.has(url):
                ranked.append((rank, url))
        already = len(urls) - len(ranked)
        decided = already
        candidates = (
            Candidate(url, rank=rank, page_url=pages.get(url, ""))
            for rank, url in _alternate_hosts(ranked)
        )
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
        return _summarize([log.reason(url) for url in urls], already)


class _DecisionLog:
    """images.jsonl of a list: the records on disk, and in memory only the reason for each URL.

    What an earlier run left is written anew at the start, one record per URL, without torn lines
    and without what is to be tried again: records whose image is gone, and failures that may have
    passed. Use as a context manager to append.
    """

    def __init__(self, folder: Path, refused: RefusedDigests) -> None:
        self._folder = folder
        self._refused = refused
        self._path = folder / "images.jsonl"
        self._stream: IO[bytes] | None = None
        self._kept: set[bytes] = set()  # digests: a list may be long
        # By URL; by its digest where the URL is not recorded.
        self._reasons: dict[str, str | None] = {}

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

    def has(self, url: str) -> bool:
        """Return whether a URL is decided."""
        return url in self._reasons or address_digest(url) in self._reasons

    def reason(self, url: str) -> str | None:
        """Return why a decided URL was rejected, None when its image was kept."""
        if url in self._reasons:
            return self._reasons[url]
        return self._reasons[address_digest(url)]

    def has_image(self, image: CleanImage) -> bool:
        """Return whether the same image has been kept under another URL."""
        return bytes.fromhex(image.sha256) in self._kept

    def _remember(self, record: ImageRecord) -> None:
        _class_id, url = record_key(record)
        self._reasons[url] = record["reason"]
        if record["state"] == "kept":
            self._kept.add(bytes.fromhex(kept_sha256(record)))

    def _earlier(self) -> Iterator[ImageRecord]:
        """Yield the last record of each URL, unless it is to be tried again."""
        last_line = {}
        for number, record in enumerate(read_records(self._path)):
            last_line[record_key(record)] = number
        for number, record in enumerate(read_records(self._path)):
            if number != last_line[record_key(record)]:
                continue
            if self._refused.has(record["sha256"], record["source_sha256"]):
                record = self._taken_out(record)
            file = record["file"]
            if file is not None and not (self._folder / file).exists():
                continue
            if not may_succeed_later(record):
                yield record

    def _taken_out(self, record: ImageRecord) -> ImageRecord:
        """Return the record of an image that is refused now, and delete its file."""
        if record["file"] is not None:
            (self._folder / record["file"]).unlink(missing_ok=True)
        return refused_record(record, record["sha256"], record["source_sha256"])


def may_succeed_later(record: ImageRecord) -> bool:
    """Return whether a URL failed in a way that may have passed: no answer, or a server's error."""
    if record["reason"] == Reason.UNREACHABLE:
        return True
    status = record["http_status"]
    return record["reason"] == Reason.HTTP_ERROR and status is not None and status >= 500


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
