"""From a collection's folder into the database, while it grows: images, progress, outcomes.

The collecting child knows no database; it writes lines and files, and this module reads them about
once a second. It also grants the child the browser, and holds the credentials that it needs.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.db import connection
from django.db.models import Field
from django.utils.dateparse import parse_datetime

from requests_app.models import (
    OWN_SOURCE,
    BrowserTurn,
    ClassifierRequest,
    ImageState,
    ImageUrl,
    SourceHealth,
    TakenDown,
    sha256_hex,
)
from requests_app.steady import COLLECTION_SHARES, SteadyProgress
from requests_app.workers import jobs
from requests_app.workers.jobs import Lease
from scraping.sources.catalogue import CATALOGUE, credential_settings

logger = logging.getLogger(__name__)

# fmt: off
IMAGE_COLUMNS = (
    "source", "query", "rank", "page_url", "title", "creator", "license", "license_version",
    "license_url", "license_basis", "attribution", "dataset_key", "state", "reason", "detail",
    "file", "sha256", "source_sha256", "width", "height", "bytes", "mime", "http_status",
)
# fmt: on
QUOTED = re.compile("“.*”", re.DOTALL)  # what one person typed is nothing for all others
OUTCOME_KEYS = ("name", "outcome", "found", "kept", "message")


def credentials() -> dict[str, str]:
    """Return the environment variables that carry the sources' credentials to a child.

    The values are the site's own, however they were configured: as a variable, in ``.env`` or in a
    file named by a ``_FILE`` variable. They never go into a ``config.json`` or a command line.
    """
    found = {}
    for credential, variable in credential_settings().items():
        value = settings.SOURCE_CREDENTIALS[credential]
        if value:
            found[variable] = value
    return found


class CollectionSync:
    """Stores what a running collection has decided, a second's worth at a time."""

    def __init__(
        self, classifier: ClassifierRequest, folder: Path, since: datetime | None = None
    ) -> None:
        """
        :param since: when this collection began; progress from before is that of an earlier one
        """
        self.folder = folder
        self.classifier = classifier
        self.classes = {c.class_id: c for c in classifier.classes.all()}
        self.images = JsonLines(folder / "images.jsonl")
        self.steps = JsonLines(folder / "progress.jsonl")
        self.progress: dict[str, Any] = {}
        self.steady = SteadyProgress(COLLECTION_SHARES, since)

    def poll(self) -> dict[str, Any]:
        """Store the new rows and return the latest progress."""
        self._store(self.images.new())
        for step in self.steps.new():
            self.progress = self.steady.shown(step)
        self._store_kind()
        return self.progress

    def _store_kind(self) -> None:
        """Store what the collection takes the classes for, when it has decided that."""
        kind = read_kind(self.folder)
        if kind and kind != self.classifier.kind_found:
            ClassifierRequest.objects.filter(pk=self.classifier.pk).update(kind_found=kind)
            self.classifier.kind_found = kind  # only now, for the database may have been away

    def store_result(self, result: Mapping[str, Any]) -> None:
        """Store the finished collection: all rows, counts per class, an outcome per source.

        :param result: the collection's ``result.json``
        """
        every_row = JsonLines(self.folder / "images.jsonl")
        self._store(every_row.new())
        for summary in result["classes"]:
            if summary["id"] not in self.classes:  # a person has left this class out since
                continue
            outcomes = []
            for source in result["sources"]:
                if source["class"] == summary["id"]:
                    outcomes.append({key: source.get(key) for key in OUTCOME_KEYS})
            image_class = self.classes[summary["id"]]
            image_class.found = summary["found"]
            removed = ImageUrl.objects.filter(image_class=image_class, state=ImageState.REMOVED)
            found_and_removed = removed.exclude(source=OWN_SOURCE).count()
            image_class.kept = max(0, summary["kept"] - found_and_removed)
            image_class.rejected = summary["rejected"]
            image_class.outcomes = outcomes
            image_class.save(update_fields=["found", "kept", "rejected", "outcomes"])
            image_class.count_images()  # an image may have been taken down meanwhile
        self._store_kind()
        record_health(result["sources"], self.folder)

    def _store(self, rows: Iterable[Mapping[str, Any]]) -> None:
        latest = {}
        for row in rows:
            if row["class"] in self.classes:
                latest[row["class"], _url_sha256(row)] = row
        self._leave_removed(latest)
        self._refuse_taken_down(latest)
        # MySQL finds the row by whichever unique key collides and accepts no names of columns.
        has_target = connection.features.supports_update_conflicts_with_target
        ImageUrl.objects.bulk_create(
            [self._image(row) for row in latest.values()],
            batch_size=200,
            update_conflicts=True,
            update_fields=["image_url", *IMAGE_COLUMNS, "fetched_at"],
            unique_fields=["image_class", "url_sha256"] if has_target else None,
        )
        self._remove_thumbnails(latest.values())

    def _leave_removed(self, rows: dict[tuple[str, str], Mapping[str, Any]]) -> None:
        """Drop the rows of images that a person has removed, unless they must go altogether."""
        removed = ImageUrl.objects.filter(
            image_class__in=self.classes.values(), state=ImageState.REMOVED
        )
        for image in removed.select_related("image_class"):
            key = (image.image_class.class_id, image.url_sha256)
            if key in rows and rows[key]["state"] == ImageState.KEPT:
                del rows[key]

    def _refuse_taken_down(self, rows: dict[tuple[str, str], Mapping[str, Any]]) -> None:
        """Reject the rows of images that were taken down since the collection began.

        The content of one that was taken down by its address must not come back under another.
        """
        refused = TakenDown.digests()
        for key, row in rows.items():
            image = self._image(row)
            if image.state != ImageState.KEPT or refused.isdisjoint(image.digests):
                continue
            (self.folder / image.file).unlink(missing_ok=True)
            fate = {"state": ImageState.REJECTED, "reason": "taken_down", "file": ""}
            rows[key] = {**row, **fate}
            TakenDown.keep_out(TakenDown.What.SHA256, image.sha256)

    def _remove_thumbnails(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Delete the small copies of images of which no address is recorded any more."""
        digests = [_url_sha256(row) for row in rows if not row["image_url"]]
        if not digests:
            return
        images = ImageUrl.objects.filter(
            image_class__in=self.classes.values(), url_sha256__in=digests
        )
        for image in images:
            small = self.folder.parent / "thumbnails" / f"{image.pk}.jpg"
            small.unlink(missing_ok=True)

    def _image(self, row: Mapping[str, Any]) -> ImageUrl:
        image = ImageUrl(
            image_class=self.classes[row["class"]],
            image_url=row["image_url"],
            url_sha256=_url_sha256(row),
            fetched_at=parse_datetime(row.get("fetched_at") or ""),
            split=row.get("split") or "",  # where the person marked it; later the training says
        )
        for column in IMAGE_COLUMNS:
            setattr(image, column, _column_value(column, row.get(column)))
        return image


def read_kind(folder: Path) -> dict[str, Any]:
    """Return what a collection takes its classes for (``kind.json``), {} when nothing is there."""
    try:
        kind = json.loads((folder / "kind.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return kind if isinstance(kind, dict) else {}


def _url_sha256(row: Mapping[str, Any]) -> str:
    """Return the digest by which a row is known; a refused image has no address but this."""
    return row.get("url_sha256") or sha256_hex(row["image_url"])


def _column_value(column: str, value: Any) -> Any:
    """Return a value that fits its column: the default for a missing one, long text cut."""
    field = cast("Field[Any, Any]", ImageUrl._meta.get_field(column))
    if value is None and not field.null:
        return field.get_default()
    if isinstance(value, str) and field.max_length:
        return value[: field.max_length]
    return value


def record_health(sources: Iterable[Mapping[str, Any]], folder: Path | None = None) -> None:
    """Record each source's last outcome in one run, whichever class it was asked for.

    :param sources: rows with name, outcome, message and what else is known
    :param folder: where their saved pages lie
    """
    last_rows = {row["name"]: row for row in sources if row["outcome"] != "not_applicable"}
    for name, row in last_rows.items():
        if CATALOGUE[name].supplied:
            continue
        snapshot = ""
        if folder and row.get("evidence"):
            snapshot = str((folder / row["evidence"]).relative_to(settings.DATA_DIR))
        SourceHealth.record(
            name,
            row["outcome"],
            QUOTED.sub("these words", row["message"]),
            cool_down_seconds=row.get("cool_down_seconds"),
            evidence=snapshot,
        )


class BrowserGrant:
    """Lets one collection of the whole installation at a time use the browser.

    The child asks by a file, ``browser.wanted``, and begins when ``browser.granted`` lies beside
    it; it removes both when it is done. The lock itself is a row with a lease, so that a killed
    holder does not keep it.
    """

    def __init__(self, lease: Lease, folder: Path) -> None:
        self.job = lease.job
        self.is_held = False
        self.wanted = folder / "browser.wanted"
        self.granted = folder / "browser.granted"
        for file in (self.wanted, self.granted):
            file.unlink(missing_ok=True)

    def poll(self) -> bool:
        """Grant, renew or release the lock; return whether the child has to wait for it."""
        if not self.wanted.exists():
            self.release()
            return False
        if not BrowserTurn.acquire(self.job.pk, self.job.fence, jobs.lease_end()):
            return True
        self.is_held = True
        self.granted.touch()
        return False

    def release(self) -> None:
        if self.is_held:
            BrowserTurn.release(self.job.pk, self.job.fence)
            self.is_held = False


class JsonLines:
    """Reads the complete lines that a growing file has gained since it was last read.

    A file that was replaced is read again from its beginning.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.inode = 0

    def new(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self.inode:
                self.inode = inode
                self.offset = 0
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                try:
                    yield json.loads(line)
                except ValueError:  # torn by a power cut or a full disk; its image is decided anew
                    logger.warning("%s has a torn line", self.path)
