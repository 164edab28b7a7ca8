"""From a collection's folder into the database, while it grows: candidates, progress, outcomes, and
the browser's turn.

The child knows no database; it writes lines and files, and this module reads them about once a
second.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.db import connection
from django.db.models import Field
from django.utils.dateparse import parse_datetime

from requests_app.models import BrowserTurn, ClassifierRequest, ImageUrl, SourceHealth, sha256_hex
from requests_app.workers import jobs
from requests_app.workers.jobs import Lease

logger = logging.getLogger(__name__)


class Intake:
    """Carries what a running collection has decided into the database, a second's worth at a
    time.
    """

    # fmt: off
    COLUMNS = (
        "source", "query", "rank", "page_url", "title", "creator", "license", "license_version", "license_url",
        "license_basis", "attribution", "state", "reason", "detail", "file", "sha256", "source_sha256", "width",
        "height", "bytes", "mime", "http_status",
    )
    # fmt: on

    def __init__(self, request: ClassifierRequest, folder: Path) -> None:
        self.folder = folder
        self.classes = {c.class_id: c for c in request.classes.all()}
        self.rows = JsonLines(folder / "images.jsonl")
        self.steps = JsonLines(folder / "progress.jsonl")
        self.progress: dict[str, Any] = {}

    def look(self) -> dict[str, Any]:
        """Take in what is new; returns the latest progress."""
        self._store(self.rows.new())
        for step in self.steps.new():
            self.progress = step
        return self.progress

    def take_final(self, result: Mapping[str, Any]) -> None:
        """Take in the finished collection: one row per candidate, counts per class, an outcome per
        source.
        """
        self._store(JsonLines(self.folder / "images.jsonl").new())
        for summary in result["classes"]:
            image_class = self.classes[summary["id"]]
            image_class.found, image_class.kept = summary["found"], summary["kept"]
            image_class.rejected = summary["rejected"]
            image_class.outcomes = [
                {key: source.get(key) for key in ("name", "outcome", "found", "kept", "message")}
                for source in result["sources"]
                if source["class"] == summary["id"]
            ]
            image_class.save(update_fields=["found", "kept", "rejected", "outcomes"])
        record_health(result["sources"], self.folder)

    def _store(self, rows: Iterable[Mapping[str, Any]]) -> None:
        latest = {
            (row["class"], row["image_url"]): row for row in rows if row["class"] in self.classes
        }
        images = [self._image(row) for row in latest.values()]
        # MySQL finds the row by whichever unique key collides and refuses to be told which.
        targeted = connection.features.supports_update_conflicts_with_target
        ImageUrl.objects.bulk_create(
            images,
            batch_size=200,
            update_conflicts=True,
            update_fields=[*self.COLUMNS, "fetched_at"],
            unique_fields=["image_class", "url_sha256"] if targeted else None,
        )

    def _image(self, row: Mapping[str, Any]) -> ImageUrl:
        image = ImageUrl(
            image_class=self.classes[row["class"]],
            image_url=row["image_url"],
            url_sha256=sha256_hex(row["image_url"]),
            fetched_at=parse_datetime(row.get("fetched_at") or ""),
        )
        for column in self.COLUMNS:
            setattr(image, column, _fitting(column, row.get(column)))
        return image


def record_health(sources: Iterable[Mapping[str, Any]], folder: Path | None = None) -> None:
    """Tell the breakers what each source said last in this run, whichever class it was asked
    for.
    """
    last_words = {
        source["name"]: source for source in sources if source["outcome"] != "not_applicable"
    }
    for name, source in last_words.items():
        evidence = source.get("evidence")
        SourceHealth.record(
            name,
            source["outcome"],
            source["message"],
            cool_down_seconds=source.get("cool_down_seconds"),
            evidence=str((folder / evidence).relative_to(settings.DATA_DIR))
            if folder and evidence
            else "",
        )


class BrowserDoor:
    """Lets one collection of the whole installation at a time use the browser.

    The child asks by a file, ``browser.wanted``, and begins when ``browser.granted`` lies beside
    it; it removes both when it is done. The turn itself is a row with a lease, so that a killed
    holder does not keep it.
    """

    def __init__(self, lease: Lease, folder: Path) -> None:
        self.job, self.holds = lease.job, False
        self.wanted, self.granted = folder / "browser.wanted", folder / "browser.granted"
        for file in (self.wanted, self.granted):
            file.unlink(missing_ok=True)

    def look(self) -> bool:
        """Grant or renew the turn, or give it back; returns whether the child has to wait for
        it.
        """
        if not self.wanted.exists():
            self.close()
            return False
        if not BrowserTurn.take(self.job.pk, self.job.fence, jobs.lease_end()):
            return True
        self.holds = True
        self.granted.touch()
        return False

    def close(self) -> None:
        if self.holds:
            BrowserTurn.give_back(self.job.pk, self.job.fence)
            self.holds = False


def _fitting(column: str, value: Any) -> Any:
    """A value as its column takes it: what a source leaves out gets the default, what it overdoes
    is cut.
    """
    field = cast("Field[Any, Any]", ImageUrl._meta.get_field(column))
    if value is None and not field.null:
        return field.get_default()
    return value[: field.max_length] if isinstance(value, str) and field.max_length else value


class JsonLines:
    """Reads the complete lines that a growing file has gained since the last look; one that was
    replaced, all of it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.offset, self.inode = path, 0, 0

    def new(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            if (inode := os.fstat(file.fileno()).st_ino) != self.inode:
                self.offset, self.inode = 0, inode
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                try:
                    yield json.loads(line)
                except (
                    ValueError
                ):  # torn by a power cut or a full disk; what it said is decided anew
                    logger.warning("%s has a torn line", self.path)
