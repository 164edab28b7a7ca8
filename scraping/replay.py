"""Makes a dataset of its recipe: downloads the pictures again, and says which are still the same.

The folder looks as one that was collected: `python -m training fit --images FOLDER` trains it, with
the recipe's split. A killed replay goes on where it was; started again after its end it asks once
more for what could not be reached.
"""

import asyncio
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from scraping import ConfigError
from scraping.download_list import DownloadSettings, download_list
from scraping.files import atomic_write, json_line, write_json
from scraping.reasons import Reason
from scraping.recipe import FILE_NAME, Recipe, WantedImage, read_recipe
from scraping.records.image_log import ImageRecord, read_records, record_key
from scraping.urls import address_digest

# Bits of 64 in which the hashes of one picture, stored anew, may differ: scaling and compression
# turn a few. Two cut-outs on white can be nearer than `training.duplicates.HASH_DISTANCE`.
SAME_HASH_BITS = 6
SAME_SHAPE = 0.03  # share by which width / height may differ, as sides are rounded
CHANGED_FOLDER = "changed"


class Verdict(StrEnum):
    """What became of one picture of a recipe."""

    SAME = "same"
    """The same bytes, as received or as stored."""
    STORED_ANEW = "stored_anew"
    """The same picture, with other bytes: its host has scaled or compressed it again."""
    CHANGED = "changed"
    """Another picture; it is kept apart."""
    GONE = "gone"
    """Nothing came, or no picture."""
    REFUSED = "refused"
    """It may not be taken: its host objects, or the operator does."""


_REFUSALS = {
    Reason.REFUSED_ADDRESS,
    Reason.OPTED_OUT,
    Reason.AI_MADE,
    Reason.TAKEN_DOWN,
    Reason.REFUSED_DIGEST,
    Reason.NUDITY,
}
_OTHER_PICTURES = {Reason.TOO_SMALL, Reason.BAD_SHAPE, Reason.TOO_LARGE}


@dataclass(frozen=True)
class Replayed:
    """How many pictures of a recipe there are, and what became of them."""

    total: int
    counts: Mapping[Verdict, int]
    without_address: int
    unusable: Mapping[int, str]
    """Reasons by the number of the row."""

    @property
    def same(self) -> int:
        """Return how many pictures are there again."""
        return self.counts[Verdict.SAME] + self.counts[Verdict.STORED_ANEW]

    @property
    def sentence(self) -> str:
        """Return the outcome for people: `412 of 430 the same, 11 gone, 7 changed.`"""
        anew = self.counts[Verdict.STORED_ANEW]
        parts = [f"{self.same} of {self.total} the same"]
        if anew:
            parts[0] += f" ({anew} of them the same picture, stored anew)"
        parts.append(f"{self.counts[Verdict.GONE]} gone")
        parts.append(f"{self.counts[Verdict.CHANGED]} changed")
        if self.counts[Verdict.REFUSED]:
            parts.append(f"{self.counts[Verdict.REFUSED]} may not be taken")
        if self.without_address:
            parts.append(
                f"{self.without_address} cannot be fetched: whoever made the dataset supplied them"
            )
        if self.unusable:
            parts.append(f"{len(self.unusable)} malformed in the recipe")
        return ", ".join(parts) + "."

    def as_json(self) -> dict[str, Any]:
        """Return what result.json holds."""
        counts = {verdict.value: self.counts[verdict] for verdict in Verdict}
        return {
            "ok": True,
            "total": self.total,
            **counts,
            "cannot_be_fetched": self.without_address,
            "malformed": {str(number): reason for number, reason in self.unusable.items()},
            "sentence": self.sentence,
        }


def prepare(path: Path, folder: Path) -> Recipe:
    """Return a recipe, and make its folder. Raises ConfigError for what cannot be replayed."""
    recipe = read_recipe(path)
    kept = folder / FILE_NAME
    content = path.read_bytes()
    if kept.exists() and _digest(kept.read_bytes()) != _digest(content):
        raise ConfigError(f"{folder} holds the replay of another recipe: choose another --out.")
    if not kept.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is not empty: choose another --out.")
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(kept, content)
    return recipe


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def replay(
    recipe: Recipe,
    folder: Path,
    settings: DownloadSettings,
    on_record: Callable[[ImageRecord, int], None] | None = None,
) -> Replayed:
    """Download what `prepare` has read into its folder, compare it with the recipe, and say so."""
    urls = [image.image_url for image in recipe.images]
    pages = {image.image_url: image.page_url for image in recipe.images}
    asyncio.run(download_list(urls, folder, settings, on_record, pages))
    replayed = _compare(recipe, folder)
    write_json(folder / "result.json", replayed.as_json())
    return replayed


def _compare(recipe: Recipe, folder: Path) -> Replayed:
    """Judge what was downloaded, and write images.jsonl and config.json as a collection has them.

    Done again it comes to the same.
    """
    known = {record_key(record)[1]: record for record in read_records(folder / "images.jsonl")}
    found: dict[int, ImageRecord] = {}
    verdicts: dict[int, Verdict] = {}
    for image in recipe.images:
        # Of a picture that is refused by its digest the address is not recorded.
        record = known.get(image.image_url) or known[address_digest(image.image_url)]
        found[image.number] = record
        verdicts[image.number] = _verdict(image, record)
    taken: set[str] = set()
    records = []
    counts: Counter[Verdict] = Counter()
    # First what is the same, so that no changed picture of the same content takes its file away.
    for image in sorted(recipe.images, key=lambda image: not _is_same(verdicts[image.number])):
        verdict = verdicts[image.number]
        record = _record(image, found[image.number], verdict)
        if _is_same(verdict):
            record = _with_file(record, folder, taken)
        if record["file"] is not None and not _is_same(verdict):
            record = _kept_apart(record, folder, taken)
        counts[verdict] += 1
        records.append((image.number, record))
    records.sort(key=lambda numbered: numbered[0])
    lines = b"".join(json_line(record) for _number, record in records)
    atomic_write(folder / "images.jsonl", lines)
    classes = [{"id": c.id, "name": c.name, "query": c.query} for c in recipe.classes]
    write_json(folder / "config.json", {"classes": classes})
    return Replayed(recipe.rows, counts, recipe.without_address, recipe.unusable)


def _is_same(verdict: Verdict) -> bool:
    return verdict in (Verdict.SAME, Verdict.STORED_ANEW)


def _verdict(image: WantedImage, record: ImageRecord) -> Verdict:
    """Return what became of a picture, by digest or else by difference hash and shape."""
    if record["sha256"] is None or (record["reason"] and record["reason"] != Reason.DUPLICATE):
        if record["reason"] in _REFUSALS:
            return Verdict.REFUSED
        return Verdict.CHANGED if record["reason"] in _OTHER_PICTURES else Verdict.GONE
    if image.sha256 == record["sha256"] or image.source_sha256 == record["source_sha256"]:
        return Verdict.SAME
    width = record["width"]
    height = record["height"]
    hash_text = record.get("dhash", "")
    if image.difference_hash is None or not hash_text or not width or not height:
        return Verdict.CHANGED
    if image.shape is not None and abs(width / height / image.shape - 1) > SAME_SHAPE:
        return Verdict.CHANGED
    different_bits = (image.difference_hash ^ int(hash_text, 16)).bit_count()
    return Verdict.STORED_ANEW if different_bits <= SAME_HASH_BITS else Verdict.CHANGED


def _record(image: WantedImage, record: ImageRecord, verdict: Verdict) -> ImageRecord:
    """Return what was downloaded with what the recipe says of it."""
    described: Any = dict(record)
    if record["image_url"]:
        described |= image.credit
    return described | {
        "class": image.class_id,
        "split": image.split,
        "source": image.source,
        "query": image.query,
        "verdict": verdict.value,
    }


def _with_file(record: ImageRecord, folder: Path, taken: set[str]) -> ImageRecord:
    """Return the record of a picture that is the same, kept under its file.

    Another address may have brought its bytes first, and has its file then. Of two rows of one
    content the first has it.
    """
    file = f"images/{str(record['sha256'])[:16]}.jpg"
    if file in taken or not (folder / file).exists():
        return record | {"state": "rejected", "reason": Reason.DUPLICATE, "file": None}
    taken.add(file)
    return record | {"state": "kept", "reason": None, "file": file}


def _kept_apart(record: ImageRecord, folder: Path, taken: set[str]) -> ImageRecord:
    """Return the record of another picture than the recipe's, moved out of the way of training."""
    file = str(record["file"])
    if file not in taken:
        apart = folder / CHANGED_FOLDER
        apart.mkdir(exist_ok=True)
        shutil.move(folder / file, apart / Path(file).name)
    detail = f"another picture than the recipe's, kept in {CHANGED_FOLDER}/"
    return record | {"state": "rejected", "reason": None, "detail": detail, "file": None}
