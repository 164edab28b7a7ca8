"""The images of one collection: which are kept, where they lie, and why the others are not.

Every decision is a record on disk before the next one is made.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from scraping.reasons import Reason
from scraping.records.image_log import (
    ImageLog,
    ImageRecord,
    Key,
    kept_sha256,
    record_key,
    refused_record,
    rejected,
    store_image,
)
from scraping.records.known_images import (
    Duplicate,
    FingerprintLog,
    KnownImages,
    is_better,
    stored_fingerprint,
)
from scraping.records.takedowns import TakenDown
from scraping.screening.screen import CleanImage
from scraping.sources.catalogue import is_supplied
from scraping.urls import normalized_url
from training.duplicates import Fingerprint


class ImageStore:
    """Decides about screened images. `kept` counts those of each class, by its id.

    Images that are set aside, by their SHA-256, stay where they are; they are not counted.
    """

    def __init__(
        self,
        folder: Path,
        log: ImageLog,
        fingerprints: FingerprintLog,
        taken_down: TakenDown,
        class_names: Mapping[str, str],
        set_aside: Collection[str] = (),
    ) -> None:
        self.kept: Counter[str] = Counter()
        self._folder = folder
        self._log = log
        self._fingerprints = fingerprints
        self._taken_down = taken_down
        self._class_names = class_names
        self._set_aside = set_aside
        self._known = KnownImages()
        self._kept_keys: dict[str, Key] = {}  # of the records of kept images, by SHA-256

    def decide(self, record: ImageRecord, image: CleanImage | None) -> ImageRecord:
        """Keep a downloaded image or reject it, and record the decision.

        `record` says what the download brought; `image` is None when it brought no usable image.
        """
        if image is not None:
            record = record | {"stored_bytes": len(image.jpeg)}
            record = self._compare(record, image)
            if record["state"] == "kept":
                store_image(self._folder, image)
                self._fingerprints.append(image.sha256, image.fingerprint)
                self._remember(record, image.fingerprint)
        self._log.append(record)
        return record

    def _compare(self, record: ImageRecord, image: CleanImage) -> ImageRecord:
        """Return the record of a usable image, rejected if it must not be kept.

        A better duplicate takes the place of the one kept before; a duplicate across classes takes
        the other one with it.
        """
        if self._taken_down.has_image(record):
            return rejected(record, Reason.TAKEN_DOWN)
        duplicate = self._known.duplicate_of(image)
        if duplicate is None:
            return record
        if duplicate.class_id != record["class"] or duplicate.withdrawn:
            return self._in_two_classes(record, duplicate)
        reason = Reason.DUPLICATE if duplicate.exact else Reason.NEAR_DUPLICATE
        kept = self._log.records[self._kept_keys[duplicate.sha256]]
        if duplicate.sha256 in self._set_aside:
            return rejected(record, reason, "like one that was removed")
        if not is_better(record, kept):
            return rejected(record, reason, f"like {kept['image_url']}")
        store_image(self._folder, image)  # first the new one, so that a kill never leaves none
        self._give_up(kept, reason, f"{record['image_url']} is kept instead")
        self._known.replace(duplicate.sha256, image.sha256)
        return record

    def _in_two_classes(self, record: ImageRecord, duplicate: Duplicate) -> ImageRecord:
        """Reject both images, or the found one where the other was supplied by whoever asks.

        Each record says where the other was found.
        """
        class_id = record["class"]
        kept_key = self._kept_keys.get(duplicate.sha256)
        is_own = False
        if kept_key is not None and not is_supplied(record["source"]):
            is_own = is_supplied(self._log.records[kept_key]["source"])  # that one stays
        if not duplicate.withdrawn and kept_key is not None and not is_own:
            self._known.withdraw(duplicate.class_id, duplicate.sha256)
            kept = self._log.records[kept_key]
            detail = f"found for “{self._class_names[class_id]}” too"
            self._give_up(kept, Reason.IN_TWO_CLASSES, detail)
        detail = "found for another class too"
        if duplicate.class_id != class_id:
            other_class = self._class_names[duplicate.class_id]
            detail = f"found for “{other_class}” too"
        return rejected(record, Reason.IN_TWO_CLASSES, detail)

    def _give_up(self, record: ImageRecord, reason: Reason, detail: str) -> None:
        """Reject an image that had been kept.

        Its file goes, unless a kept image has the same content.
        """
        self._log.append(rejected(record, reason, detail))
        sha256 = kept_sha256(record)
        del self._kept_keys[sha256]
        if sha256 not in self._set_aside:
            self.kept[record["class"]] -= 1
        if reason != Reason.DUPLICATE:
            self._file(record).unlink(missing_ok=True)

    def _remember(self, record: ImageRecord, fingerprint: Fingerprint) -> None:
        """Count a kept image, and recognise its duplicates from now on."""
        class_id = record["class"]
        sha256 = kept_sha256(record)
        if sha256 not in self._set_aside:
            self.kept[class_id] += 1
        self._kept_keys[sha256] = record_key(record)
        self._known.add(class_id, sha256, fingerprint)

    def kept_of(self, class_id: str, is_of: Callable[[str], bool]) -> int:
        """Return how many kept images of a class, not set aside, are of such a source."""
        count = 0
        for record in self._log.records.values():
            if record["class"] != class_id or record["state"] != "kept":
                continue
            count += is_of(record["source"]) and record["sha256"] not in self._set_aside
        return count

    def take_out(self, key: Key) -> None:
        """Leave of a recorded image its digests alone, and delete its file.

        Records that mention its address lose it.
        """
        record = self._log.records[key]
        if record["file"] is not None:
            self._file(record).unlink(missing_ok=True)
        blank = refused_record(record, record["sha256"], record["source_sha256"])
        self._log.records[record_key(blank)] = blank
        self.forget_address(record["image_url"])

    def forget_address(self, url: str) -> None:
        """Remove the address of a refused image from all records.

        Other classes may have found it too, and other images may be near-duplicates of it.
        """
        wanted = normalized_url(url)
        for key, record in list(self._log.records.items()):
            if normalized_url(record["image_url"]) == wanted:
                blank = refused_record(record, None, None)
                self._log.forget(key)
                self._log.records.setdefault(record_key(blank), blank)
            elif url in record["detail"]:
                detail = record["detail"].replace(url, "an image that is refused")
                self._log.records[key] = record | {"detail": detail}
        self._log.rewrite(self._log.records.values())

    def resume(self) -> list[ImageRecord]:
        """Learn what an earlier run in this folder decided, and return those records.

        What it had not finished is forgotten: images whose file is damaged, candidates that were
        never fetched, and files that were never recorded.
        """
        fingerprints = self._fingerprints.read()
        decided = []
        for key, record in list(self._log.records.items()):
            if record["class"] not in self._class_names or (
                record["state"] == "kept" and not self._is_intact(record)
            ):
                self._log.forget(key)
            elif record["reason"] != Reason.OVER_QUOTA:
                decided.append(record)
                self._resume_image(record, fingerprints)
        self._remove_unrecorded_files()
        return decided

    def _resume_image(self, record: ImageRecord, fingerprints: Mapping[str, Fingerprint]) -> None:
        sha256 = record["sha256"]
        if sha256 is None:
            return
        fingerprint = fingerprints.get(sha256)
        if record["state"] == "kept" and self._taken_down.has_image(record):
            self._log.append(rejected(record, Reason.TAKEN_DOWN))
        elif record["state"] == "kept":
            if fingerprint is None:
                fingerprint = stored_fingerprint(self._file(record))
            if fingerprint is not None:
                self._remember(record, fingerprint)
        elif record["reason"] == Reason.IN_TWO_CLASSES:
            self._known.withdraw(record["class"], sha256, fingerprint)

    def _file(self, record: ImageRecord) -> Path:
        """Return the file of a kept image."""
        assert record["file"] is not None
        return self._folder / record["file"]

    def _is_intact(self, record: ImageRecord) -> bool:
        """Return whether the file of a kept image is there and whole."""
        try:
            data = self._file(record).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(data).hexdigest() == record["sha256"]

    def _remove_unrecorded_files(self) -> None:
        """Delete images that were written just before a kill and never recorded."""
        recorded = set()
        for record in self._log.records.values():
            if record["state"] == "kept":
                recorded.add(self._file(record))
        for file in (self._folder / "images").iterdir():
            if file not in recorded:
                file.unlink()
