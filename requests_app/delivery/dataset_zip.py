"""The files that are delivered: ``dataset.zip`` and ``model.zip`` (product.md section 8).

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
from requests_app.models import ClassifierRequest, DatasetVersion, ImageClass, ImageState, ImageUrl

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
CHUNK_BYTES = 1 << 20

# fmt: off
IMAGE_COLUMNS = (
    "file_name", "class", "split", "source", "query", "rank", "page_url", "image_url", "title", "creator", "license",
    "license_version", "license_url", "license_basis", "attribution", "width", "height", "sha256", "source_sha256",
    "group",
)
# fmt: on
REJECTED_COLUMNS = ("class", "source", "image_url", "page_url", "reason", "detail")

Entry = tuple[str, bytes | Path]


@dataclass(frozen=True)
class Delivered:
    """A published file with its size and checksum."""

    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True)
class DatasetImage:
    """One delivered picture: its row in the database and its part in the frozen manifest."""

    image: ImageUrl
    split: str
    group: int | None

    @property
    def class_id(self) -> str:
        return self.image.image_class.class_id

    @property
    def file_name(self) -> str:
        return f"{self.split}/{self.class_id}/{Path(self.image.file).name}"


def build_dataset(
    version: DatasetVersion,
    pictures: Sequence[DatasetImage],
    target: Path,
    beat: Callable[[], None] = lambda: None,
) -> Delivered:
    """Write ``dataset.zip``.

    :param pictures: who is in, and in which part
    :param beat: called for every picture, so that long work shows that it lives
    """
    request = version.request
    classes = list(request.classes.all())
    names = {c.class_id: c.name for c in classes}
    texts: list[Entry] = [
        ("classes.json", _json(names)),
        ("images.csv", _csv(IMAGE_COLUMNS, map(_image_row, pictures))),
        ("rejected.csv", _csv(REJECTED_COLUMNS, _rejected_rows(classes))),
        ("ATTRIBUTION.md", _attribution(pictures)),
        ("README.md", _dataset_card(request, version, classes, pictures)),
    ]
    files: list[Entry] = [
        (p.file_name, request.folder / "collect" / p.image.file) for p in pictures
    ]
    return publish([*texts, *files], target, beat)


def build_model(
    version: DatasetVersion, target: Path, beat: Callable[[], None] = lambda: None
) -> Delivered:
    """Write ``model.zip``: the run's model folder as it is, with its own checksums."""
    folder = version.folder / "model"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return publish([(str(path.relative_to(folder)), path) for path in files], target, beat)


def publish(
    entries: Sequence[Entry], target: Path, beat: Callable[[], None] = lambda: None
) -> Delivered:
    """Write a zip beside ``target``, check it, and rename it; adds ``SHA256SUMS`` unless the
    entries bring one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            sums = [
                f"{_add(archive, name, content)}  {name}\n"
                for name, content in _each(entries, beat)
            ]
            if "SHA256SUMS" not in archive.namelist():
                _add(archive, "SHA256SUMS", "".join(sums).encode())
        with zipfile.ZipFile(part) as archive:
            if (broken := archive.testzip()) is not None:
                raise OSError(f"{target.name} could not be written: {broken} is damaged")
        with part.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return Delivered(target, target.stat().st_size, digest)


def _each(entries: Sequence[Entry], beat: Callable[[], None]) -> Iterator[Entry]:
    for entry in entries:
        beat()
        yield entry


def _add(archive: zipfile.ZipFile, name: str, content: bytes | Path) -> str:
    """Add one file and return its sha256. Pictures are stored as they are: they do not get any
    smaller.
    """
    info = zipfile.ZipInfo(name, ZIP_DATE)
    info.external_attr = 0o644 << 16
    info.compress_type = (
        zipfile.ZIP_STORED if name.endswith((".jpg", ".png")) else zipfile.ZIP_DEFLATED
    )
    digest = hashlib.sha256()
    source = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    with source, archive.open(info, "w", force_zip64=True) as target:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _image_row(picture: DatasetImage) -> dict[str, object]:
    image = picture.image
    own = {
        "file_name": picture.file_name,
        "class": image.image_class.name,
        "split": picture.split,
        "group": picture.group,
    }
    return {
        column: own[column] if column in own else getattr(image, column) for column in IMAGE_COLUMNS
    }


def _rejected_rows(classes: Sequence[ImageClass]) -> Iterator[dict[str, object]]:
    rejected = ImageUrl.objects.filter(image_class__in=classes).exclude(state=ImageState.KEPT)
    for image in rejected.select_related("image_class"):
        reason = image.reason or image.state
        yield {column: getattr(image, column, None) for column in REJECTED_COLUMNS} | {
            "class": image.image_class.name,
            "reason": reason,
        }


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def _csv(columns: Sequence[str], rows: Iterable[dict[str, object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _attribution(pictures: Sequence[DatasetImage]) -> bytes:
    """One line per picture: title and author, licence, and where it was found."""
    lines = (f"- `{p.file_name}`: {credit(p.image)}\n" for p in pictures)
    return (render_to_string("delivery/ATTRIBUTION.md") + "".join(lines)).encode()


def credit(image: ImageUrl) -> str:
    """The sentence that names a picture's author and licence, on one line whatever its source
    wrote.
    """
    by = f" by {image.creator}" if image.creator else ""
    work = image.attribution or f"“{image.title or 'untitled'}”{by}"
    license_name = " ".join(filter(None, (image.license or "unknown", image.license_version)))
    license_link = f" <{image.license_url}>" if image.license_url else ""
    found = f"found by {image.source} at <{image.page_url or image.image_url}>"
    return " ".join(
        f"{work} Licence: {license_name}{license_link} ({image.license_basis}), {found}".split()
    )


def _cell(text: str) -> str:
    """Text as a cell of a Markdown table shows it literally."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _dataset_card(
    request: ClassifierRequest,
    version: DatasetVersion,
    classes: Sequence[ImageClass],
    pictures: Sequence[DatasetImage],
) -> bytes:
    parts = Counter((p.class_id, p.split) for p in pictures)
    context = {
        "request": request,
        "version": version,
        "picaisso_version": __version__,
        "total": len(pictures),
        "size_category": "n<1K" if len(pictures) < 1000 else "1K<n<10K",
        "rows": [
            {
                "class_id": c.class_id,
                "name": _cell(c.name),
                "query": _cell(c.query),
                "parts": [parts[c.class_id, part] for part in ("train", "val", "test")],
            }
            for c in classes
        ],
        "licenses": Counter(p.image.license or "unknown" for p in pictures).most_common(),
        "sources": Counter(p.image.source for p in pictures).most_common(),
        "rejected": sorted(
            sum((Counter(c.rejected) for c in classes), Counter()).items(),
            key=lambda item: (-item[1], item[0]),
        ),
    }
    return render_to_string("delivery/dataset_card.md", context).encode()
