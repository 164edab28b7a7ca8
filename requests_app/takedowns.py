"""Images that must go: taken out of every request and dataset, and kept out for good."""

import hashlib
import json
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from urllib.parse import unquote

from requests_app import supplied, versions
from requests_app.delivery import dataset_zip
from requests_app.delivery.croissant import build_croissant
from requests_app.models import (
    ClassifierRequest,
    DatasetVersion,
    Event,
    ImageState,
    ImageUrl,
    Kind,
    OwnCheck,
    TakenDown,
    TrainingRun,
    sha256_hex,
)
from requests_app.workers.collection_sync import JsonLines
from scraping.picture_zip import (
    ENCODINGS,
    GROWTH_FROM,
    MOST_GROWTH,
    UTF8_FLAG,
    ZipRefusedError,
    content_of,
    open_zip,
)
from scraping.reasons import Reason
from scraping.supplied import LIMITS, SCHEME
from scraping.urls import is_web_address, normalized_url
from training import run_folder, takedown
from training.spliced import zip_content_start


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

    The same image under another address is the same image.

    :param url: its address, however it is spelt
    :param sha256: the digest of its bytes, as received or as delivered
    :raises ValueError: neither is given; many candidates have no digest, and one's own no address
    """
    if not url and not sha256:
        raise ValueError("an address or a digest is needed to take a picture down")
    candidates = ImageUrl.objects.select_related("image_class__request")
    found = set()
    if url:
        wanted = sha256_hex(normalized_url(url))
        _keep_out(TakenDown.What.URL, wanted, reason)
        for image in candidates.iterator():
            address = normalized_url(image.image_url)
            if sha256_hex(address) == wanted:
                found.add(image)
    else:
        _keep_out(TakenDown.What.SHA256, sha256, reason)
        found.update(candidates.filter(sha256=sha256))
        found.update(candidates.filter(source_sha256=sha256))
    contents = {image.sha256 for image in found if image.sha256}
    for content in contents:
        _keep_out(TakenDown.What.SHA256, content, reason)
    found.update(candidates.filter(sha256__in=contents))
    images_of = defaultdict(list)
    for image in found:
        classifier = image.image_class.request
        images_of[classifier].append(image)
    for classifier, images in images_of.items():
        _remove_images(classifier, images)
    if not url:
        contents.add(sha256)
    _remove_waiting(contents)
    return len(found)


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


def _keep_out(what: TakenDown.What, digest: str, reason: str) -> None:
    TakenDown.objects.get_or_create(what=what, digest=digest, defaults={"reason": reason})


def _remove_images(classifier: ClassifierRequest, images: list[ImageUrl]) -> None:
    """Take images out of a request: rows, files, frozen manifests, and what was built from them."""
    kept = [image for image in images if image.state == ImageState.KEPT]
    files = {image.file for image in images if image.file}
    _remove_from_upload(classifier, images)
    for image in images:
        image.state = ImageState.REJECTED
        image.reason = Reason.TAKEN_DOWN
        image.file = ""
        image.split = ""
    ImageUrl.objects.bulk_update(images, ["state", "reason", "file", "split"], batch_size=200)
    versions.count_as_rejected(kept)
    for folder in (classifier.folder / "collect", *classifier.folder.glob("runs/*")):
        for file in files:
            (folder / file).unlink(missing_ok=True)
    for image in images:
        (classifier.folder / "thumbnails" / f"{image.pk}.jpg").unlink(missing_ok=True)
    for version in classifier.versions.all():
        _rebuild_without(version, files)
    Event.objects.create(
        request=classifier,
        old=classifier.status,
        new=classifier.status,
        reason="a picture was taken down",
    )


def _remove_from_upload(classifier: ClassifierRequest, images: Sequence[ImageUrl]) -> None:
    """Overwrite these images in the zip that a person brought along; the others stay as they are.

    A collection that is reading it finds them damaged.
    """
    path = classifier.folder / supplied.FOLDER / supplied.FILES[supplied.PICTURES]
    if not path.is_file():
        return
    try:
        with open_zip(path, LIMITS) as archive:
            found = [entry for entry in archive.infolist() if _is_one_of(archive, entry, images)]
    except ZipRefusedError:
        path.unlink()  # nothing in it can be used, and nothing is known of what it holds
        return
    with path.open("r+b") as file:
        for entry in found:
            start = zip_content_start(file, entry)
            # What a zip says of itself may be false: its directory, at the end, stays whole.
            end = min(start + entry.compress_size, archive.start_dir)
            file.seek(start)
            file.write(bytes(max(0, end - start)))


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


def _rebuild_without(version: DatasetVersion, files: set[str]) -> None:
    """Take files out of a version's run folder and build its zips again.

    The model's zip is built again because its report showed them.
    """
    if not (version.folder / "manifest.jsonl").exists():
        return
    takedown.remove_images(version.folder, files)
    _store_figures(version)
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
    removed = set()
    for row in run_folder.read_manifest(version.folder):
        if row.file not in files:
            removed.add(row.file)
    if removed:
        takedown.remove_images(version.folder, removed)
