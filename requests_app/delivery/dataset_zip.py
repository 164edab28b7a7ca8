"""The files that are delivered: ``dataset.zip`` and ``model.zip``.

Both are built deterministically (fixed order and dates), so that building one again gives the same
bytes, and published by renaming: a file that exists is complete. Names inside are ids, never
anything that a person or a web page wrote.
"""

import csv
import hashlib
import io
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.template.loader import render_to_string

from picaisso_site import __version__
from requests_app.models import OWN_SOURCE, DatasetVersion, ImageClass, ImageState, ImageUrl

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
CHUNK_BYTES = 1 << 20
FORMULA_SIGNS = ("=", "+", "-", "@")

# fmt: off
IMAGE_COLUMNS = (
    "file_name", "class", "split", "source", "query", "rank", "page_url", "image_url", "title",
    "creator", "license", "license_version", "license_url", "license_basis", "attribution", "width",
    "height", "sha256", "source_sha256", "group",
)
# fmt: on
REJECTED_COLUMNS = ("class", "source", "image_url", "page_url", "reason", "detail")

Entry = tuple[str, bytes | Path]  # name inside the zip, and its content or the file that holds it
Beat = Callable[[], None]  # called for every entry, so that long work shows that it is alive


def no_beat() -> None:
    """Do nothing: for whoever does not watch."""


@dataclass(frozen=True)
class PublishedZip:
    """A published file with its size and checksum."""

    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True)
class DatasetImage:
    """One delivered image: its row in the database, and class and split in the frozen manifest."""

    image: ImageUrl
    label: ImageClass
    split: str
    group: int | None  # of near-duplicates

    @property
    def class_id(self) -> str:
        return self.label.class_id

    @property
    def file_name(self) -> str:
        """Return the name inside ``dataset.zip``."""
        return f"{self.split}/{self.class_id}/{Path(self.image.file).name}"


def build_dataset(
    version: DatasetVersion, images: Sequence[DatasetImage], target: Path, beat: Beat = no_beat
) -> PublishedZip:
    """Write ``dataset.zip`` of these images to ``target``.

    :raises OSError: it could not be written
    """
    classes = list(version.request.classes.all())
    names = {c.class_id: c.name for c in classes}
    names_json = json.dumps(names, ensure_ascii=False, indent=2) + "\n"
    entries: list[Entry] = [
        ("classes.json", names_json.encode()),
        ("images.csv", _csv(IMAGE_COLUMNS, map(_image_row, images))),
        ("rejected.csv", _csv(REJECTED_COLUMNS, _rejected_rows(classes))),
        ("ATTRIBUTION.md", _attribution(images)),
        ("README.md", _dataset_card(version, classes, images)),
    ]
    folder = version.request.folder / "collect"
    for entry in images:
        entries.append((entry.file_name, folder / entry.image.file))
    return publish(entries, target, beat)


def build_model(version: DatasetVersion, target: Path, beat: Beat = no_beat) -> PublishedZip:
    """Write ``model.zip`` to ``target``: the run's model folder as it is, with its own checksums.

    :raises OSError: it could not be written
    """
    folder = version.folder / "model"
    entries: list[Entry] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folder))
            entries.append((name, path))
    return publish(entries, target, beat)


def publish(entries: Sequence[Entry], target: Path, beat: Beat = no_beat) -> PublishedZip:
    """Write a zip beside ``target``, check it, and rename it.

    ``SHA256SUMS`` is added unless the entries bring one.

    :raises OSError: it could not be written
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            sums = []
            for name, content in entries:
                beat()
                digest = _add(archive, name, content)
                sums.append(f"{digest}  {name}\n")
            if "SHA256SUMS" not in archive.namelist():
                _add(archive, "SHA256SUMS", "".join(sums).encode())
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
    return PublishedZip(target, target.stat().st_size, sha256)


def _add(archive: zipfile.ZipFile, name: str, content: bytes | Path) -> str:
    """Add one file to a zip and return its sha256.

    Images are stored as they are: they do not get any smaller.
    """
    info = zipfile.ZipInfo(name, ZIP_DATE)
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    if name.endswith((".jpg", ".png")):
        info.compress_type = zipfile.ZIP_STORED
    digest = hashlib.sha256()
    source = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    with source, archive.open(info, "w", force_zip64=True) as target:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _csv(columns: Sequence[str], rows: Iterable[dict[str, object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({column: _csv_cell(value) for column, value in row.items()})
    return text.getvalue().encode(errors="replace")


def _csv_cell(value: object) -> object:
    """Return a cell that stays one line and that no spreadsheet program runs as a formula.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    if not isinstance(value, str):
        return value
    text = " ".join(value.replace("\0", " ").splitlines())
    return f"'{text}" if text.lstrip().startswith(FORMULA_SIGNS) else text


def _image_row(entry: DatasetImage) -> dict[str, object]:
    row: dict[str, object] = {
        "file_name": entry.file_name,
        "class": entry.label.name,
        "split": entry.split,
        "group": entry.group,
    }
    for column in IMAGE_COLUMNS:
        if column not in row:
            row[column] = getattr(entry.image, column)
    return row


def _rejected_rows(classes: Sequence[ImageClass]) -> Iterator[dict[str, object]]:
    images = ImageUrl.objects.filter(image_class__in=classes).exclude(state=ImageState.KEPT)
    for image in images.select_related("image_class"):
        yield {
            "class": image.image_class.name,
            "source": image.source,
            "image_url": image.image_url,
            "page_url": image.page_url,
            "reason": image.reason or image.state,
            "detail": image.detail,
        }


def _attribution(images: Sequence[DatasetImage]) -> bytes:
    """Return ``ATTRIBUTION.md``: a line per image with title, author, licence and its page."""
    text: str = render_to_string("delivery/ATTRIBUTION.md")
    for entry in images:
        text += f"- `{entry.file_name}`: {credit(entry.image)}\n"
    return text.encode(errors="replace")


def credit(image: ImageUrl) -> str:
    """Return the sentence that names an image's author and licence.

    It is on one line, whatever its source wrote.
    """
    if image.source == OWN_SOURCE:
        if not image.image_url:
            return "Their own picture, added by whoever made this dataset"
        return f"Added by whoever made this dataset, from <{image.image_url}>. Licence: unknown"
    if image.license_basis == "requester":
        if image.source == "upload":
            return "Supplied by the requester"
        return f"Supplied by the requester, from <{image.image_url}>. Licence: unknown"
    work = image.attribution
    if not work:
        work = f"“{image.title or 'untitled'}”"
        if image.creator:
            work += f" by {image.creator}"
    terms = image.license or "unknown"
    if image.license_version:
        terms += f" {image.license_version}"
    if image.license_url:
        terms += f" <{image.license_url}>"
    page = image.page_url or image.image_url
    found = f"found by {image.source} at <{page}>"
    sentence = f"{work} Licence: {terms} ({image.license_basis}), {found}"
    if not image.license and "licence unknown" in work:
        sentence = f"{work}; {found}"
    if image.detail:  # kept although its file says that AI made it
        sentence += f"; {image.detail}"
    return " ".join(sentence.split())


def _dataset_card(
    version: DatasetVersion, classes: Sequence[ImageClass], images: Sequence[DatasetImage]
) -> bytes:
    """Return ``README.md``, the dataset card."""
    counts = Counter((entry.class_id, entry.split) for entry in images)
    licenses = Counter(entry.image.license or "unknown" for entry in images)
    sources = Counter(entry.image.source for entry in images)
    rejected: Counter[str] = Counter()
    rows = []
    for c in classes:
        rejected += Counter(c.rejected)
        row = {
            "class_id": c.class_id,
            "name": _cell(c.name),
            "query": _cell(c.search_words),
            "per_split": [counts[c.class_id, split] for split in ("train", "val", "test")],
        }
        rows.append(row)
    context = {
        "classifier": version.request,
        "version": version,
        "picaisso_version": __version__,
        "total": len(images),
        "size_category": "n<1K" if len(images) < 1000 else "1K<n<10K",
        "rows": rows,
        "kind_note": _cell(str(version.request.kind_found.get("sentence", ""))),
        "licenses": licenses.most_common(),
        "sources": sources.most_common(),
        "supplied": sources["upload"] + sources["url_list"],
        "rejected": sorted(rejected.items(), key=lambda item: (-item[1], item[0])),
    }
    return render_to_string("delivery/dataset_card.md", context).encode()


def _cell(text: str) -> str:
    """Return text so that a cell of a Markdown table shows it literally."""
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", one_line)
