"""images.jsonl: what became of every candidate, one record each.

Records are appended as they are decided, so a killed run loses at most the last line; a later
record of the same class and URL supersedes the earlier one. At the end the file is written anew
with one record per candidate.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NotRequired, Self, TypedDict, cast

from scraping.files import atomic_write, json_line, read_json_lines
from scraping.reasons import Reason
from scraping.records.provenance import attribution, license_of
from scraping.screening.screen import CleanImage, file_name, store
from scraping.sources.base import Candidate
from scraping.urls import address_digest

ImageRecord = TypedDict(
    "ImageRecord",
    {
        "class": str,  # id of the class, empty for a list of URLs
        "source": str,
        "query": str,
        "rank": int,
        "image_url": str,
        "page_url": str,
        "title": str,
        "creator": str,
        "creator_url": str,
        "license": str,
        "license_version": str,
        "license_url": str,
        "license_basis": str,  # per-item, filter, file or unknown
        "attribution": str,
        "state": str,  # kept or rejected
        "reason": str | None,  # of `scraping.reasons.Reason`, when rejected
        "detail": str,
        "file": str | None,  # relative to the folder, when kept
        "sha256": str | None,  # of the stored bytes
        "source_sha256": str | None,  # of the received bytes
        "width": int | None,  # in pixels: as the source states, later of the stored image
        "height": int | None,
        "source_width": int | None,  # in pixels, as the source states
        "source_height": int | None,
        "bytes": int | None,  # received
        "stored_bytes": int | None,
        "mime": str | None,  # as the source states, later of the received bytes
        "http_status": int | None,
        "fetched_at": str | None,  # ISO 8601 in UTC
        "ai_made": NotRequired[bool],  # its file says so, and it is kept all the same
        # test, where whoever asks has supplied it for that; of a recipe, the dataset's
        "split": NotRequired[str | None],
        "verdict": NotRequired[str],  # of `scraping.replay.Verdict`, of a recipe
        "dhash": NotRequired[str],  # 64-bit difference hash in hexadecimal, for a list of URLs
        "dataset_key": NotRequired[str],  # of GBIF
        "url_sha256": NotRequired[str],  # of the address, where that itself is not recorded
    },
)
"""One line of images.jsonl."""

Key = tuple[str, str]


def image_file(image: CleanImage) -> str:
    """Return where an image is stored, relative to the folder."""
    return f"images/{file_name(image.sha256)}"


def store_image(folder: Path, image: CleanImage) -> None:
    """Publish the JPEG under its content's name, unless that file is already there."""
    store(image, folder / "images")


def new_record(candidate: Candidate, class_id: str) -> ImageRecord:
    """Return a record that says where an image was found and nothing yet of its fate."""
    known = license_of(candidate)
    record: ImageRecord = {
        "class": class_id,
        "source": candidate.source,
        "query": candidate.query,
        "rank": candidate.rank,
        "image_url": candidate.image_url,
        "page_url": candidate.page_url,
        "title": candidate.title,
        "creator": candidate.creator,
        "creator_url": candidate.creator_url,
        "license": known.name,
        "license_version": known.version,
        "license_url": known.url,
        "license_basis": candidate.license_basis,
        "attribution": attribution(candidate),
        "state": "rejected",
        "reason": None,
        "detail": "",
        "file": None,
        "sha256": None,
        "source_sha256": None,
        "width": candidate.width,
        "height": candidate.height,
        "source_width": candidate.width,
        "source_height": candidate.height,
        "bytes": None,
        "stored_bytes": None,
        "mime": candidate.mime or None,
        "http_status": None,
        "fetched_at": None,
    }
    if candidate.dataset_key:
        record["dataset_key"] = candidate.dataset_key
    return record


def rejected(record: ImageRecord, reason: Reason, detail: str = "") -> ImageRecord:
    """Return the record with its fate: not kept, and why."""
    return record | {"state": "rejected", "reason": reason, "detail": detail, "file": None}


def refused_record(
    record: ImageRecord, sha256: str | None, source_sha256: str | None
) -> ImageRecord:
    """Return what is kept of the record of an image that the operator refuses by its digest.

    These are its digests and that of its address, by which it is not asked for again: no address,
    page, title, author or file. `sha256` is the digest of its stored bytes, `source_sha256` that of
    the received ones, as far as they are known.
    """
    nowhere = Candidate("", record["source"], record["query"], record["rank"])
    blank = rejected(new_record(nowhere, record["class"]), Reason.REFUSED_DIGEST)
    detail = f"SHA-256 {source_sha256 or sha256}" if source_sha256 or sha256 else ""
    address = record.get("url_sha256") or address_digest(record["image_url"])
    return blank | {
        "detail": detail,
        "attribution": "",
        "sha256": sha256,
        "source_sha256": source_sha256,
        "url_sha256": address,
        "fetched_at": record["fetched_at"],
    }


def kept_sha256(record: ImageRecord) -> str:
    """Return the digest of the stored bytes of an image that was kept."""
    assert record["sha256"] is not None
    return record["sha256"]


def record_key(record: ImageRecord) -> Key:
    """Return class and URL, by which a later record supersedes an earlier one.

    An image that is recorded without its URL has the digest of that instead.
    """
    return record.get("class", ""), record["image_url"] or record.get("url_sha256", "")


def read_records(path: Path) -> Iterator[ImageRecord]:
    """Yield the records of an images.jsonl, from oldest to newest; nothing without that file."""
    for record in read_json_lines(path):
        if isinstance(record, dict) and "image_url" in record:
            yield cast(ImageRecord, record)


class ImageLog:
    """The records of one folder, in memory and in the file. Use as a context manager to append."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[bytes] | None = None
        self.records: dict[Key, ImageRecord] = {}
        for record in read_records(path):
            self.records[record_key(record)] = record

    def __enter__(self) -> Self:
        self.rewrite(self.records.values())  # a torn line must not swallow the next one
        self._stream = self._path.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, record: ImageRecord) -> None:
        """Record a decision; handed to the operating system before this returns."""
        assert self._stream is not None
        self.records[record_key(record)] = record
        self._stream.write(json_line(record))
        self._stream.flush()

    def forget(self, key: Key) -> None:
        """Drop a record from memory; the file follows when it is written anew."""
        self.records.pop(key, None)

    def rewrite(self, records: Iterable[ImageRecord]) -> None:
        """Write the file anew, atomically; what is appended goes to the new one."""
        atomic_write(self._path, b"".join(map(json_line, records)))
        if self._stream is not None:
            self._stream.close()
            self._stream = self._path.open("ab")
