"""Images that must go: taken out of every request and dataset, and kept out for good."""

import hashlib
import json
import struct
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from requests_app import supplied, versions
from requests_app.delivery import dataset_zip
from requests_app.delivery.croissant import build_croissant
from requests_app.models import (
    OWN_FOLDER,
    ClassifierRequest,
    DatasetVersion,
    Event,
    ImageState,
    ImageUrl,
    Kind,
    OwnCheck,
    TakenDown,
    TrainingRun,
)
from requests_app.workers.collection_sync import JsonLines
from scraping.picture_zip import (
    ENCODINGS,
    ENTRY_BYTES,
    GROWTH_FROM,
    MOST_GROWTH,
    UTF8_FLAG,
    ZipRefusedError,
    content_of,
    directory_entries,
    open_zip,
)
from scraping.reasons import Reason
from scraping.screening.screen import file_name
from scraping.supplied import LIMITS, SCHEME
from scraping.urls import is_web_address, url_digest
from training import run_folder, takedown
from training.spliced import ZIP_HEADER_BYTES, zip_content_start

TAKEN_DOWN_EVENT = "a picture was taken down"


def taken_down_digests() -> dict[str, list[str]]:
    """Return what must be kept out, as the ``config.json`` of a collection takes it."""
    urls = TakenDown.objects.filter(what=TakenDown.What.URL)
    contents = TakenDown.objects.filter(what=TakenDown.What.SHA256)
    return {
        "urls": list(urls.values_list("digest", flat=True)),
        "hashes": list(contents.values_list("digest", flat=True)),
    }


def take_down(*, url: str = "", sha256: str = "", reason: str = "") -> int:
    """Remove an image everywhere and keep it out for good; return how many candidates it was.

    The same image under another address is the same image. Interrupted anywhere it can be repeated,
    and ``finish`` does so by itself.

    :param url: its address or that of its page, however it is spelt
    :param sha256: the digest of its bytes, as received or as delivered
    :raises ValueError: neither is given; many candidates have no digest, and one's own no address
    """
    if not url and not sha256:
        raise ValueError("an address or a digest is needed to take a picture down")
    what = TakenDown.What.URL if url else TakenDown.What.SHA256
    digest = url_digest(url) if url else sha256
    TakenDown.keep_out(what, digest, reason)
    TakenDown.objects.filter(digest=digest).update(finished=None)
    with run_folder.exclusive(settings.DATA_DIR, wait=True):
        return _remove_everywhere({digest}, reason)


def finish() -> None:
    """Go on with what was begun to be taken down and is not gone everywhere yet.

    Where another process is taking something down, that is left to the next time.
    """
    begun = TakenDown.objects.filter(finished=None)
    digests = set(begun.values_list("digest", flat=True))
    if not digests:
        return
    with suppress(run_folder.RunError), run_folder.exclusive(settings.DATA_DIR):
        _remove_everywhere(digests, "")


def _remove_everywhere(digests: set[str], reason: str) -> int:
    """Remove the images with these digests; return how many candidates they were."""
    found = _images_with(digests)
    contents = {image.sha256 for image in found if image.sha256}
    for content in contents:
        TakenDown.keep_out(TakenDown.What.SHA256, content, reason)
    same = _candidates().filter(sha256__in=contents)
    found.update(same)
    images_of = defaultdict(list)
    for image in found:
        images_of[image.image_class.request].append(image)
    for classifier, images in images_of.items():
        _remove_images(classifier, images)
    _remove_waiting(digests | contents)
    removed = TakenDown.objects.filter(digest__in=digests | contents)
    removed.update(finished=timezone.now())
    return len(found)


def _candidates() -> QuerySet[ImageUrl]:
    return ImageUrl.objects.select_related("image_class__request")


def _images_with(digests: set[str]) -> set[ImageUrl]:
    """Return the candidates of all requests that have one of these digests."""
    by_content = Q(sha256__in=digests) | Q(source_sha256__in=digests)
    found = set(_candidates().filter(by_content))
    addresses = TakenDown.objects.filter(what=TakenDown.What.URL, digest__in=digests)
    if addresses.exists():
        for image in _candidates().iterator():
            if not digests.isdisjoint(image.digests):
                found.add(image)
    return found


def enforce(classifier: ClassifierRequest) -> None:
    """Take out of a request what was taken down while work on it went on.

    Each stage does this at its beginning, so that nothing is frozen, learned from, packed or
    delivered that came or stayed because both happened at the same time.
    """
    refused = TakenDown.digests()
    if not refused:
        return
    found = []
    present = ImageUrl.objects.of_request(classifier).exclude(state=ImageState.REJECTED)
    for image in present:
        if not refused.isdisjoint(image.digests):
            found.append(image)
    for image in found:
        TakenDown.keep_out(TakenDown.What.SHA256, image.sha256)
    contents = TakenDown.digests()
    shows = any(_shows(version, contents) for version in classifier.versions.all())
    if found or shows:
        refused_before = ImageUrl.objects.of_request(classifier).filter(reason=Reason.TAKEN_DOWN)
        _remove_images(classifier, [*found, *refused_before])


def _shows(version: DatasetVersion, contents: Collection[str]) -> bool:
    """Return whether the manifest or the dataset of a version has one of these images."""
    if not (version.folder / "manifest.jsonl").exists():
        return False
    rows = run_folder.read_manifest(version.folder)
    if any(row.sha256 in contents for row in rows):
        return True
    names = {file_name(content) for content in contents}
    for artifact in version.artifacts.filter(kind=Kind.DATASET):
        if artifact.file.is_file():
            with zipfile.ZipFile(artifact.file) as archive:
                return any(PurePosixPath(name).name in names for name in archive.namelist())
    return False


def take_down_row(image: ImageUrl, reason: str = "") -> int:
    """Take down one picture of a request everywhere; return how many candidates it was.

    What lies on the web is known by its address. What a person gave is known by its bytes: others
    may have called theirs the same.
    """
    digest = image.sha256 or image.source_sha256
    if is_web_address(image.image_url):
        return take_down(url=image.image_url, reason=reason)
    if digest:
        return take_down(sha256=digest, reason=reason)
    _remove_images(image.image_class.request, [image])  # it could not even be decoded
    return 1


def _remove_images(classifier: ClassifierRequest, images: Sequence[ImageUrl]) -> None:
    """Take images out of a request: files, frozen manifests, rows, and what was built from them.

    All of it follows from the digests in the rows, so that it can be repeated at any time. The
    files go first: whatever comes in between, nobody can fetch them any more.
    """
    files = {file for image in images for file in _files_of(image)}
    contents = TakenDown.digests()
    with run_folder.exclusive(classifier.folder, wait=True):
        _remove_files(classifier, images, files)
        built = [each for each in classifier.versions.all() if _is_written(each)]
        for version in built:
            rows = run_folder.read_manifest(version.folder)
            refused = {row.file for row in rows if row.sha256 in contents}
            takedown.remove_images(version.folder, files | refused)
            _store_figures(version)
        changed = ImageUrl.objects.filter(pk__in=[image.pk for image in images])
        changed.exclude(state=ImageState.REJECTED, reason=Reason.TAKEN_DOWN, file="").update(
            state=ImageState.REJECTED, reason=Reason.TAKEN_DOWN, file="", split=""
        )
        for image_class in classifier.classes.all():
            image_class.count_images()
        for version in built:
            _build_again(version)
    Event.objects.create(
        request=classifier,
        old=classifier.status,
        new=classifier.status,
        reason=TAKEN_DOWN_EVENT,
    )


def _is_written(version: DatasetVersion) -> bool:
    return (version.folder / "manifest.jsonl").exists()


def _files_of(image: ImageUrl) -> set[str]:
    """Return where the file of an image lies in a collection or run, also if no row says so."""
    files = {image.file} if image.file else set()
    if image.sha256:
        name = file_name(image.sha256)
        files |= {f"images/{name}", f"{OWN_FOLDER}/{name}"}
    return files


def _remove_files(
    classifier: ClassifierRequest, images: Sequence[ImageUrl], files: set[str]
) -> None:
    """Delete the files of images, what was computed of them early on, and their small copies."""
    for folder in (classifier.folder / "collect", *classifier.folder.glob("runs/*")):
        for file in files:
            (folder / file).unlink(missing_ok=True)
    for image in images:
        (classifier.folder / "thumbnails" / f"{image.pk}.jpg").unlink(missing_ok=True)
        if image.sha256:
            for early in classifier.folder.glob(f"first/features/**/{image.sha256[:32]}.npz"):
                early.unlink(missing_ok=True)
    _remove_from_upload(classifier, images)


def _remove_from_upload(classifier: ClassifierRequest, images: Sequence[ImageUrl]) -> None:
    """Overwrite these images, and what they are called, in the zip that a person brought along.

    The others stay as they are. A collection that is reading it finds these damaged.
    """
    path = classifier.folder / supplied.FOLDER / supplied.FILES[supplied.PICTURES]
    if not path.is_file():
        return
    try:
        with open_zip(path, LIMITS) as archive:
            found = [_is_one_of(archive, entry, images) for entry in archive.infolist()]
    except ZipRefusedError:
        path.unlink()  # nothing in it can be used, and nothing is known of what it holds
        return
    if not any(found):
        return
    with path.open("r+b") as file:
        file.seek(archive.start_dir)
        in_directory = list(directory_entries(file.read()))
        for is_found, entry, place in zip(found, archive.infolist(), in_directory, strict=False):
            if is_found:
                _overwrite_content(file, entry, archive.start_dir)
                _overwrite_name(file, archive.start_dir, place)


def _overwrite_content(file: BinaryIO, entry: zipfile.ZipInfo, directory: int) -> None:
    """Overwrite an entry of a zip, its name before it included.

    What a zip says of itself may be false: its directory, at the end, stays whole.
    """
    try:
        start = zip_content_start(file, entry)
    except (OSError, ValueError, struct.error):  # there is no such content
        return
    name = entry.header_offset + ZIP_HEADER_BYTES
    _write_over(file, name, min(start, directory), b"/")
    _write_over(file, start, min(start + entry.compress_size, directory), bytes(1))


def _overwrite_name(
    file: BinaryIO, directory: int, place: tuple[int, tuple[int, int, int]]
) -> None:
    """Overwrite what an entry is called in the directory of a zip: it is passed over then."""
    position, (name, extra, comment) = place
    start = directory + position + ENTRY_BYTES
    _write_over(file, start, start + name, b"/")
    _write_over(file, start + name, start + name + extra + comment, bytes(1))


def _write_over(file: BinaryIO, start: int, end: int, with_byte: bytes) -> None:
    file.seek(start)
    file.write(with_byte * max(0, end - start))


def _is_one_of(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, images: Sequence[ImageUrl]
) -> bool:
    """Return whether an entry is the file of one of these images, by its path or its bytes."""
    paths = {entry.filename}
    if not entry.flag_bits & UTF8_FLAG and not entry.filename.isascii():
        name = entry.filename.encode("cp437")
        paths |= {name.decode(encoding, "replace") for encoding in ENCODINGS}
    addresses = {image.image_url for image in images}
    for address in addresses:
        known = unquote(address.removeprefix(SCHEME))
        if address.startswith(SCHEME) and known in {path.replace("\\", "/") for path in paths}:
            return True
    grows = entry.file_size > MOST_GROWTH * max(1, entry.compress_size)
    if grows and entry.file_size > GROWTH_FROM:  # it was never unpacked
        return False
    sizes = {image.bytes for image in images}
    if entry.file_size not in sizes and None not in sizes:
        return False
    content = content_of(archive, entry)
    digests = {image.source_sha256 for image in images} | {image.sha256 for image in images}
    return content is not None and hashlib.sha256(content).hexdigest() in digests


def _remove_waiting(contents: set[str]) -> None:
    """Delete these among the pictures that people have given to be measured."""
    for check in OwnCheck.objects.filter(removed=None):
        for row in JsonLines(check.screened).new():
            if row["kept"] and contents & {row["sha256"], row["source_sha256"]}:
                (check.screened.parent / row["kept"]).unlink(missing_ok=True)


def _build_again(version: DatasetVersion) -> None:
    """Build the zips of a version again, of what its run folder has now.

    That of the model too, because its report showed the images.
    """
    rows = run_folder.read_manifest(version.folder)
    for artifact in version.artifacts.all():
        if artifact.kind == Kind.DATASET:
            versions.freeze_split(version, rows)
            images = versions.dataset_images(version, rows)
            made = dataset_zip.build_dataset(version, images, artifact.file)
            versions.store_build(artifact, made)
            for description in version.artifacts.filter(kind=Kind.CROISSANT):
                versions.store_build(description, build_croissant(version, images, made))
            for described in version.artifacts.filter(kind=Kind.RECIPE):
                versions.store_build(described, dataset_zip.take_out_recipe(made, version))
        elif artifact.kind == Kind.MODEL:
            versions.build_model_again(artifact)


def _store_figures(version: DatasetVersion) -> None:
    """Store the figures of a finished run anew: judgements may have gone with an image."""
    finished = TrainingRun.objects.filter(version=version, finished__isnull=False)
    metrics_file = version.folder / "metrics.json"
    if metrics_file.exists():
        metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
        finished.update(metrics=metrics)


def remove_from_run(version: DatasetVersion) -> None:
    """Take out of a finished run what was taken down while it was being learned from."""
    images = ImageUrl.objects.filter(image_class__request=version.request)
    files = set(images.values_list("file", flat=True))
    refused = TakenDown.digests()
    removed = set()
    for row in run_folder.read_manifest(version.folder):
        if row.file not in files or row.sha256 in refused:
            removed.add(row.file)
    if removed:
        takedown.remove_images(version.folder, removed)


@contextmanager
def held_off(classifier: ClassifierRequest, beat: Callable[[], None]) -> Iterator[None]:
    """Let no takedown change the files of a request meanwhile; wait for one that does so.

    :param beat: called while this waits
    """
    with ExitStack() as lock:
        while True:
            try:
                lock.enter_context(run_folder.exclusive(classifier.folder))
                break
            except run_folder.RunError:
                beat()
                time.sleep(0.2)
        yield
