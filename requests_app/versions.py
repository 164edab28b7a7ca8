"""Dataset versions: the kept images of a request, their run folder, and the split it is frozen in.

A version is made when a collection has ended. Its run folder is written when its training begins,
and the split that the training made is frozen into the version when the training has ended.
"""

from collections import Counter, defaultdict
from pathlib import Path

from django.conf import settings
from django.db.models import QuerySet

from requests_app.delivery import dataset_zip
from requests_app.models import (
    ClassifierRequest,
    DatasetVersion,
    ImageClass,
    ImageState,
    ImageUrl,
    TrainingRun,
    sha256_hex,
)
from scraping.reasons import Reason
from training import run_folder
from training.judgements import inherit_judgements, write_judgements
from training.run_folder import ClassLabel, ImageRow, RunConfig, file_format

SEED = 0


def create_version(classifier: ClassifierRequest) -> DatasetVersion:
    """Make the next dataset version: every image that is kept now."""
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


def kept_images(classifier: ClassifierRequest) -> QuerySet[ImageUrl]:
    """Return the images of a request that are kept now, each with its class."""
    images = ImageUrl.objects.filter(image_class__request=classifier, state=ImageState.KEPT)
    return images.select_related("image_class")


def write_run_folder(version: DatasetVersion) -> None:
    """Make the run folder, once: afterwards its manifest is the version.

    Images of the version before keep their split, and test images what a person said of them.
    """
    if (version.folder / "manifest.jsonl").exists():
        return
    classifier = version.request
    rows = [
        ImageRow(
            file=image.file,
            class_id=image.image_class.class_id,
            sha256=image.sha256,
            source=image.source,
            license=image.license,
            credit=dataset_zip.credit(image),
            page_url=image.page_url,
            format=file_format(image.mime, image.image_url),
        )
        for image in kept_images(classifier).order_by("image_class__number", "sha256")
    ]
    config = RunConfig(
        classes=tuple(ClassLabel(c.class_id, c.name) for c in classifier.classes.all()),
        backbone=classifier.backbone,
        seed=SEED,
        device=settings.DEVICE,
        weights_dir=settings.WEIGHTS_DIR or None,
        weights_cache=str(settings.DATA_DIR / "cache" / "weights"),
        weights_url=settings.WEIGHTS_URL or None,
    )
    earlier = _earlier_folder(version)
    if earlier is not None:
        rows = run_folder.inherit_splits(rows, run_folder.read_manifest(earlier))
        judgements = inherit_judgements(earlier, rows, config.classes)
        if judgements:
            write_judgements(version.folder, judgements)
    run_folder.write_run(version.folder, config, rows, images_from=classifier.folder / "collect")


def _earlier_folder(version: DatasetVersion) -> Path | None:
    """Return the run folder of the newest earlier version that was trained on, if one was."""
    earlier = version.request.versions.filter(number__lt=version.number)
    trained = earlier.exclude(manifest_sha256="").order_by("-number").first()
    return None if trained is None else trained.folder


def freeze_split(version: DatasetVersion, rows: list[ImageRow]) -> None:
    """Store which image went into which split, and that this manifest is the version.

    An image that the split left out becomes a rejected one.
    """
    manifest = (version.folder / "manifest.jsonl").read_text()
    digest = sha256_hex(manifest)
    in_split = sum(row.split is not None for row in rows)
    stored = DatasetVersion.objects.filter(pk=version.pk)
    stored.update(manifest_sha256=digest, images=in_split)
    row_of = {(row.class_id, row.file): row for row in rows}
    images = list(kept_images(version.request))
    left_out = []
    for image in images:
        row = row_of.get((image.image_class.class_id, image.file))
        if row is None:
            continue
        image.split = row.split or ""
        image.group = row.group
        if row.split is None:
            # Unreadable to the trainer, or a near-duplicate of an image in another split.
            image.state = ImageState.REJECTED
            image.reason = Reason.NOT_A_PICTURE if row.group is None else Reason.NEAR_DUPLICATE
            image.detail = "left out when the pictures were split"
            left_out.append(image)
    columns = ["split", "group", "state", "reason", "detail"]
    ImageUrl.objects.bulk_update(images, columns, batch_size=200)
    count_as_rejected(left_out)


def count_as_rejected(images: list[ImageUrl]) -> None:
    """Correct the counts of the classes for images rejected after their collection had ended."""
    reasons: dict[ImageClass, Counter[str]] = defaultdict(Counter)
    for image in images:
        reasons[image.image_class][image.reason] += 1
    for image_class, counts in reasons.items():
        image_class.refresh_from_db()
        image_class.kept -= counts.total()
        image_class.rejected = dict(Counter(image_class.rejected) + counts)
        image_class.save(update_fields=["kept", "rejected"])


def dataset_images(version: DatasetVersion, rows: list[ImageRow]) -> list[dataset_zip.DatasetImage]:
    """Return the manifest's images in a fixed order, without those that the split left out."""
    image_of = {}
    for image in kept_images(version.request):
        image_of[image.image_class.class_id, image.file] = image
    found = []
    for row in rows:
        if row.split is None:
            continue
        image = image_of[row.class_id, row.file]
        found.append(dataset_zip.DatasetImage(image, row.split, row.group))
    found.sort(key=lambda entry: (entry.split, entry.class_id, entry.image.file))
    return found
