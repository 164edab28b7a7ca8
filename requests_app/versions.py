"""Dataset versions: the kept images of a request, their run folder, and the split it is frozen in.

A version is made when a collection has ended. Its run folder is written when its training begins,
and the split that the training made is frozen into the version when the training has ended.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.db.models import Count, Q
from django.db.models.functions import Coalesce

from requests_app.delivery import dataset_zip, model_zip
from requests_app.delivery.attribution import credit
from requests_app.delivery.contents import DatasetImage
from requests_app.models import (
    OWN_SOURCE,
    Artifact,
    ClassifierRequest,
    DatasetVersion,
    ImageQuerySet,
    ImageState,
    ImageUrl,
    Judged,
    TrainingRun,
    sha256_hex,
)
from scraping.reasons import Reason
from training import run_folder
from training.comparison import compare
from training.judgements import (
    Judgement,
    inherit_judgements,
    read_judgements,
    write_judgements,
)
from training.metrics import Metrics
from training.predictions import PREDICTIONS_FILE, SUSPECTS_FILE, read_predictions, read_suspects
from training.run_folder import (
    ClassLabel,
    ImageRow,
    RunConfig,
    RunError,
    Split,
    file_format,
)
from training.verification import count_again

SEED = 0


@dataclass(frozen=True)
class Changes:
    """How the images that are kept now differ from those of the latest version."""

    removed: int
    relabelled: int
    added: int

    @property
    def count(self) -> int:
        return self.removed + self.relabelled + self.added


def create_version(classifier: ClassifierRequest) -> DatasetVersion:
    """Make the next dataset version: every image that is kept now, in the class it has now."""
    number = classifier.versions.count() + 1
    images = kept_images(classifier).count()
    version = DatasetVersion.objects.create(request=classifier, number=number, images=images)
    TrainingRun.objects.create(version=version, backbone=classifier.backbone)
    return version


def latest_version(classifier: ClassifierRequest) -> DatasetVersion:
    """Return the newest version of a request.

    :raises DatasetVersion.DoesNotExist: it has none
    """
    versions = DatasetVersion.objects.filter(request=classifier)
    return versions.select_related("request", "run").latest("number")


def finished_versions(classifier: ClassifierRequest) -> list[DatasetVersion]:
    """Return the versions that have a measured model, the newest first."""
    versions = classifier.versions.filter(run__finished__isnull=False)
    return list(versions.select_related("run").order_by("-number"))


def kept_images(classifier: ClassifierRequest) -> ImageQuerySet:
    """Return the images of a request that are kept now, each with its class."""
    return ImageUrl.objects.of_request(classifier).filter(state=ImageState.KEPT)


def changes(classifier: ClassifierRequest) -> Changes:
    """Return what a version made now would have otherwise than the latest one with a model."""
    images = ImageUrl.objects.of_request(classifier)
    kept = Q(state=ImageState.KEPT)
    known = Q(version_number__isnull=False)
    same = Q(version_number=Coalesce("label__number", "image_class__number"))
    counts = images.aggregate(  # one query: each would read all rows
        removed=Count("pk", filter=known & Q(state=ImageState.REMOVED)),
        relabelled=Count("pk", filter=kept & known & ~same),
        added=Count("pk", filter=kept & ~known),
    )
    return Changes(**counts)


def write_run_folder(version: DatasetVersion) -> None:
    """Make the run folder, once: afterwards its manifest is the version.

    Images of any version before keep their split, and test images what a person said of them.
    One that was damaged before the version was frozen is made anew.
    """
    if version.manifest_sha256 or _is_readable(version):
        return
    classifier = version.request
    _leave_copies_out(classifier)
    rows = [
        ImageRow(
            file=image.file,
            class_id=image.current_class.class_id,
            sha256=image.sha256,
            source=image.source,
            license=image.license,
            credit=credit(image),
            page_url=image.page_url,
            format=file_format(image.mime, image.image_url),
            title=image.title,
            split=cast(Split | None, image.split or None),
        )
        for image in kept_images(classifier).order_by("image_class__number", "sha256")
    ]
    rows.sort(key=lambda row: (row.class_id, row.sha256))
    config = run_config(classifier)
    earlier = earlier_version(version)
    if earlier is not None:
        judgements = inherit_judgements(earlier.folder, rows, config.classes)
        judgements.update(judgements_of(version, rows))
        if judgements:
            write_judgements(version.folder, judgements)
    run_folder.write_run(version.folder, config, rows, images_from=classifier.folder / "collect")
    version.images = len(rows)
    version.save(update_fields=["images"])


def _is_readable(version: DatasetVersion) -> bool:
    """Return whether there is a run folder with all images, that a training can use."""
    try:
        config = run_folder.read_config(version.folder)
        rows = run_folder.read_manifest(version.folder)
        run_folder.check_manifest(config, rows)
    except (RunError, FileNotFoundError):
        return False
    return len(rows) == version.images  # a torn end is no error of a manifest


def damaged_image(version: DatasetVersion, images: Sequence[DatasetImage]) -> str:
    """Return the first file that is gone or is not as it was stored, "" where there is none."""
    folder = version.request.folder / "collect"
    for entry in images:
        path = folder / entry.image.file
        if not path.is_file() or sha256_of(path) != entry.image.sha256:
            return entry.image.file
    return ""


def sha256_of(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _leave_copies_out(classifier: ClassifierRequest) -> None:
    """Reject what a person added and a source has brought too since, byte for byte."""
    kept = kept_images(classifier)
    found = kept.exclude(source=OWN_SOURCE).values_list("sha256", flat=True)
    copies = kept.filter(source=OWN_SOURCE, sha256__in=set(found))
    copies.update(state=ImageState.REJECTED, reason=Reason.DUPLICATE)


def run_config(classifier: ClassifierRequest) -> RunConfig:
    """Return what ``config.json`` of a request's run folders says."""
    return RunConfig(
        classes=tuple(ClassLabel(c.class_id, c.name) for c in classifier.classes.all()),
        backbone=classifier.backbone,
        seed=SEED,
        own_test=bool(classifier.supplied.get("as_test")) or None,
        device=settings.DEVICE,
        weights_dir=settings.WEIGHTS_DIR or None,
        weights_cache=str(settings.DATA_DIR / "cache" / "weights"),
        weights_url=settings.WEIGHTS_URL or None,
        text_image_model=settings.TEXT_IMAGE_MODEL or None,
    )


def count_judgements(version: DatasetVersion) -> Metrics:
    """Count what the person said of test images into a finished version's figures and report."""
    folder = version.folder
    with run_folder.exclusive(folder, wait=True):
        rows = run_folder.read_manifest(folder)
        kept = read_judgements(folder)
        for image in ImageUrl.objects.of_request(version.request).filter(split="test"):
            kept.pop(image.file, None)  # it may have been taken back
        write_judgements(folder, kept | judgements_of(version, rows))
        return count_again(folder)


def build_model_again(artifact: Artifact) -> None:
    """Build a ``model.zip`` anew, because a file of its run's model folder has changed."""
    made = model_zip.build_model(artifact.version, artifact.file.with_name(model_zip.MODEL_SPLICE))
    store_build(artifact, made)


def store_build(artifact: Artifact, made: dataset_zip.PublishedFile) -> None:
    """Store where a file that was built again lies; the one before goes if it lay elsewhere."""
    path = str(made.path.relative_to(settings.DATA_DIR))
    same = Artifact.objects.filter(pk=artifact.pk)
    same.update(path=path, bytes=made.bytes, sha256=made.sha256)
    if made.path != artifact.file:
        artifact.file.unlink(missing_ok=True)


def judgements_of(version: DatasetVersion, rows: Sequence[ImageRow]) -> dict[str, Judgement]:
    """Return what the person said on the site of the test images of a manifest, by file."""
    ids = {c.number: c.class_id for c in version.request.classes.all()}
    labels = {row.file: row.class_id for row in rows if row.split == "test"}
    said = {}
    for image in ImageUrl.objects.of_request(version.request).exclude(judged=""):
        label = labels.get(image.file)
        shown = ids.get(image.judged_number or 0, "")
        if label is None:
            continue
        if image.judged == Judged.OFF_TOPIC:
            said[image.file] = Judgement("off-topic")
        elif shown:
            said[image.file] = Judgement("right" if shown == label else "other class", shown)
        elif label == image.image_class.class_id:
            said[image.file] = Judgement("other class")
    return said


def earlier_version(version: DatasetVersion) -> DatasetVersion | None:
    """Return the newest earlier version that was trained on, if one was."""
    earlier = version.request.versions.filter(number__lt=version.number)
    return earlier.exclude(manifest_sha256="").order_by("-number").first()


def freeze_split(version: DatasetVersion, rows: list[ImageRow]) -> None:
    """Store which image went into which split, and that this manifest is the version.

    An image that the split left out becomes a rejected one. What a person has decided since the
    training began stays as it is.
    """
    manifest = (version.folder / "manifest.jsonl").read_text()
    digest = sha256_hex(manifest)
    in_split = sum(row.split is not None for row in rows)
    stored = DatasetVersion.objects.filter(pk=version.pk)
    stored.update(manifest_sha256=digest, images=in_split)
    row_of = {row.file: row for row in rows}
    numbers = {c.class_id: c.number for c in version.request.classes.all()}
    images = list(ImageUrl.objects.of_request(version.request).exclude(file=""))
    left_out = []
    for image in images:
        row = row_of.get(image.file)
        image.version_number = None
        if row is None:  # not in this version; it keeps its split, should it come back
            continue
        image.split = row.split or ""
        image.group = row.group
        if row.split is not None:
            image.version_number = numbers[row.class_id]
        elif image.state == ImageState.KEPT:
            left_out.append(image)
    ImageUrl.objects.bulk_update(images, ["split", "group", "version_number"], batch_size=200)
    _reject(left_out)


def _reject(images: list[ImageUrl]) -> None:
    """Mark images that the split left out, unless a person has removed them meanwhile."""
    for image in images:
        # Unreadable to the trainer, or a near-duplicate of an image in another split.
        image.reason = Reason.NOT_A_PICTURE if image.group is None else Reason.NEAR_DUPLICATE
        kept = ImageUrl.objects.filter(pk=image.pk, state=ImageState.KEPT)
        detail = "left out when the pictures were split"
        kept.update(state=ImageState.REJECTED, reason=image.reason, detail=detail)
    for image_class in {image.image_class for image in images}:
        image_class.count_images()


def store_answers(version: DatasetVersion) -> None:
    """Store what the version's model says of each image, and how doubtful the image is.

    Runs of version 0.1.0 say it of none.
    """
    folder = version.folder
    numbers = {c.class_id: c.number for c in version.request.classes.all()}
    predicted = {}
    if (folder / PREDICTIONS_FILE).exists():
        for answer in read_predictions(folder, list(numbers)):
            predicted[answer.file] = numbers[answer.predicted]
    suspected = {}
    if (folder / SUSPECTS_FILE).exists():
        for row in read_suspects(folder):
            if row["kind"]:
                suspected[row["file"]] = row
    images = list(ImageUrl.objects.of_request(version.request).exclude(file=""))
    for image in images:
        row = suspected.get(image.file, {})
        image.predicted = predicted.get(image.file)
        image.suspect = row.get("score")
        image.suspect_reason = row.get("reason", "")
    columns = ["predicted", "suspect", "suspect_reason"]
    ImageUrl.objects.bulk_update(images, columns, batch_size=200)


def comparison(version: DatasetVersion) -> dict[str, Any] | None:
    """Compare a version with the one before on the test images of both; None for the first."""
    earlier = earlier_version(version)
    if earlier is None or not (earlier.folder / PREDICTIONS_FILE).exists():
        return None
    found = compare(earlier.folder, version.folder)
    return {"against": earlier.number, **dataclasses.asdict(found)}


def dataset_images(version: DatasetVersion, rows: list[ImageRow]) -> list[DatasetImage]:
    """Return the manifest's images in a fixed order, without those that the split left out.

    An image that was removed or relabelled since is in it as it was: a version never changes.
    """
    class_of = {c.class_id: c for c in version.request.classes.all()}
    image_of: dict[str, ImageUrl] = {}
    for image in ImageUrl.objects.of_request(version.request).exclude(file=""):
        if image.file not in image_of or image.state == ImageState.KEPT:
            image_of[image.file] = image
    found = []
    for row in rows:
        of_file = image_of.get(row.file)
        if row.split is not None and of_file is not None:
            label = class_of[row.class_id]
            found.append(DatasetImage(of_file, label, row.split, row.group))
    found.sort(key=lambda entry: (entry.split, entry.class_id, entry.image.file))
    return found
