"""``dataset.zip``, and how a zip is published.

It is built deterministically (fixed order and dates), so that building one again gives the same
bytes, and published by renaming: a file that exists is complete. All lies in one top folder, named
after the classes; names below it are ids, never anything that a person or a web page wrote.
"""

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from requests_app.delivery.attribution import attribution
from requests_app.delivery.citation import (
    citation,
    dataset_keys,
    derived_dataset,
    keys_of_pictures,
)
from requests_app.delivery.contents import DatasetImage
from requests_app.delivery.dataset_card import dataset_card
from requests_app.delivery.names import top_folder
from requests_app.delivery.recipe import recipe
from requests_app.delivery.tables import images_table, rejected_table
from requests_app.models import DatasetVersion, Kind
from scraping.recipe import FILE_NAME as RECIPE
from training.run_folder import write_text

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
CHUNK_BYTES = 1 << 20

Entry = tuple[str, bytes | Path]  # name in the top folder, and its content or the file of it
Beat = Callable[[], None]  # called for every entry, so that long work shows that it is alive


def no_beat() -> None:
    """Do nothing: for whoever does not watch."""


@dataclass(frozen=True)
class PublishedFile:
    """A published file with its size and checksum."""

    path: Path
    bytes: int
    sha256: str


def build_dataset(
    version: DatasetVersion, images: Sequence[DatasetImage], target: Path, beat: Beat = no_beat
) -> PublishedFile:
    """Write ``dataset.zip`` of these images to ``target``.

    :raises OSError: it could not be written
    """
    classes = list(version.request.classes.all())
    names = {c.class_id: c.name for c in classes}
    names_json = json.dumps(names, ensure_ascii=False, indent=2) + "\n"
    entries: list[Entry] = [
        ("classes.json", names_json.encode()),
        ("images.csv", images_table(images)),
        ("rejected.csv", rejected_table(classes)),
        ("ATTRIBUTION.md", attribution(images)),
        ("CITATION.cff", citation(version, images)),
        ("README.md", dataset_card(version, classes, images)),
    ]
    if dataset_keys(images):
        entries.append(("derived_dataset.csv", derived_dataset(images)))
        entries.append(("gbif.csv", keys_of_pictures(images)))
    entries.append((RECIPE, recipe(version, images, beat)))
    folder = version.request.folder / "collect"
    for entry in images:
        entries.append((entry.file_name, folder / entry.image.file))
    return publish(entries, target, top_folder(version.request, Kind.DATASET), beat)


def take_out_recipe(dataset: PublishedFile, version: DatasetVersion) -> PublishedFile:
    """Write the recipe that lies in a published ``dataset.zip`` beside it.

    :raises OSError: it could not be written
    """
    with zipfile.ZipFile(dataset.path) as archive:
        content = archive.read(f"{top_folder(version.request, Kind.DATASET)}/{RECIPE}")
    path = dataset.path.with_name(RECIPE)
    write_text(path, content.decode())
    return PublishedFile(path, len(content), hashlib.sha256(content).hexdigest())


def publish(
    entries: Sequence[Entry],
    target: Path,
    top: str,
    beat: Beat = no_beat,
    stored: tuple[str, ...] = (".jpg", ".png"),
) -> PublishedFile:
    """Write a zip beside ``target``, check it, and rename it.

    ``SHA256SUMS`` is added unless the entries bring one.

    :param top: the folder that all entries lie in
    :param stored: how the names end of what is stored as it is; images do not get any smaller
    :raises OSError: it could not be written
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            sums = []
            for name, content in entries:
                beat()
                digest = _add(archive, f"{top}/{name}", content, name.endswith(stored))
                sums.append(f"{digest}  {name}\n")
            sums_name = f"{top}/SHA256SUMS"
            if sums_name not in archive.namelist():
                _add(archive, sums_name, "".join(sums).encode())
        with zipfile.ZipFile(unfinished) as archive:
            broken = archive.testzip()
            if broken is not None:
                raise OSError(f"{target.name} could not be written: {broken} is damaged")
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return PublishedFile(target, target.stat().st_size, sha256)


def _add(
    archive: zipfile.ZipFile, name: str, content: bytes | Path, is_stored: bool = False
) -> str:
    """Add one file to a zip and return its sha256."""
    info = zipfile.ZipInfo(name, ZIP_DATE)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.compress_type = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
    digest = hashlib.sha256()
    source = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    with source, archive.open(info, "w", force_zip64=True) as target:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()
