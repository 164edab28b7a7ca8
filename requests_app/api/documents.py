"""What the API answers with, made of the rows."""

from collections.abc import Mapping
from typing import Any, cast

from django.conf import settings
from django.urls import reverse

from requests_app import lifecycle, phrases
from requests_app import versions as dataset_versions
from requests_app.api.schemas import Json
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    DatasetVersion,
    ImageClass,
    ImageState,
    ImageUrl,
    Job,
    Status,
)
from requests_app.views.overview import current_jobs, unfinished_job
from training.earlier_metrics import completed
from training.metrics import Metrics

CONFIRM = "confirm"  # the stage before the first job
NO_PROGRESS = {"stage": None, "done": 0, "total": 0, "eta_seconds": None, "message": ""}


def absolute(path: str) -> str:
    """Return the whole address of a path of this site."""
    return f"{settings.BASE_URL}{path}"


def request_document(classifier: ClassifierRequest) -> Json:
    """Return a request as the API shows it."""
    progress = _progress(classifier)
    finished = dataset_versions.finished_versions(classifier)
    artifacts = Artifact.objects.filter(version__request=classifier)
    classes = list(classifier.classes.all())
    return {
        "id": classifier.token,
        "url": classifier.url,
        "status": classifier.status,
        "stage": progress["stage"],
        "created": classifier.created,
        "images_per_class": classifier.images_per_class,
        "license": classifier.license,
        "backbone": classifier.backbone,
        "own": classifier.supplied or None,
        "classes": [_class(classifier, image_class) for image_class in classes],
        "sources": [source for image_class in classes for source in _sources(image_class)],
        "progress": progress,
        "versions": [_summary(version) for version in finished],
        "artifacts": [_artifact(classifier, row) for row in artifacts.select_related("version")],
        "error": _error(classifier),
    }


def _progress(classifier: ClassifierRequest) -> Json:
    if classifier.status == Status.UNCONFIRMED:
        return NO_PROGRESS | {"stage": CONFIRM}
    jobs = current_jobs(list(classifier.jobs.all()))
    job = unfinished_job(jobs)
    if job is None or not classifier.is_open:
        return NO_PROGRESS
    return NO_PROGRESS | {"stage": job.stage} | _said(job)


def _said(job: Job) -> Json:
    said = job.progress
    return {
        "done": int(said.get("done") or 0),
        "total": int(said.get("total") or 0),
        "eta_seconds": said.get("eta_seconds"),
        "message": str(said.get("message") or ""),
    }


def _class(classifier: ClassifierRequest, image_class: ImageClass) -> Json:
    return {
        "name": image_class.name,
        "query": image_class.query,
        "asked": classifier.images_per_class,
        "found": image_class.found,
        "kept": image_class.kept,
        "rejected": image_class.rejected,
    }


def _sources(image_class: ImageClass) -> list[Json]:
    sources = []
    for report in image_class.outcomes:
        source = {
            "name": report["name"],
            "class": image_class.name,
            "outcome": report["outcome"],
            "found": report.get("found") or 0,
            "message": report.get("message") or "",
        }
        sources.append(source)
    return sources


def _error(classifier: ClassifierRequest) -> Json | None:
    error = classifier.error
    if not error:
        return None
    return {name: str(error.get(name) or "") for name in ("stage", "reason", "remedy")}


def _summary(version: DatasetVersion) -> Json:
    metrics = cast(Metrics, completed(version.run.metrics or {}))
    headline = metrics["headline"]
    return {
        "number": version.number,
        "backbone": version.run.backbone,
        "images": version.images,
        "accuracy": headline["value"],
        "interval": list(headline["interval"]),
        "macro_f1": metrics["macro_f1"],
    }


def _artifact(classifier: ClassifierRequest, artifact: Artifact) -> Json:
    path = reverse("download", args=[classifier.token, artifact.kind])
    number = artifact.version.number
    return {
        "kind": artifact.kind,
        "version": number,
        "url": absolute(f"{path}?version={number}"),
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
    }


def versions_document(classifier: ClassifierRequest) -> Json:
    """Return all versions that have a model, and what a next one would change."""
    finished = dataset_versions.finished_versions(classifier)
    changes = dataset_versions.changes(classifier)
    obstacle = lifecycle.obstacle_to_training(classifier)
    return {
        "items": [version_document(classifier, version) for version in finished],
        "changes": {
            "removed": changes.removed,
            "relabelled": changes.relabelled,
            "added": changes.added,
        },
        "obstacle": obstacle,
    }


def version_document(classifier: ClassifierRequest, version: DatasetVersion) -> Json:
    """Return one version with before and after."""
    metrics = cast(Metrics, completed(version.run.metrics or {}))
    report = reverse("api-v1:report", args=[classifier.token, version.number])
    return _summary(version) | {
        "created": version.created,
        "verdict": phrases.verdict(metrics),
        "notices": list(version.run.notices),
        "comparison": _comparison(version.run.comparison),
        "report": absolute(report),
        "artifacts": [_artifact(classifier, row) for row in version.artifacts.all()],
    }


def _comparison(compared: Mapping[str, Any] | None) -> Json | None:
    if not compared:
        return None
    return {
        "against": compared["against"],
        "images": compared["images"],
        "right_before": compared["right_before"],
        "right_after": compared["right_after"],
        "mended": len(compared["mended"]),
        "broken": len(compared["broken"]),
        "p_value": compared["p_value"],
        "sentence": phrases.comparison(compared),
    }


def image_document(classifier: ClassifierRequest, image: ImageUrl) -> Json:
    """Return one picture; a rejected one is not kept, and has no thumbnail."""
    thumbnail = None
    reason = image.suspect_reason
    if image.state == ImageState.REJECTED:
        reason = image.reason
    else:
        thumbnail = absolute(reverse("thumbnail", args=[classifier.token, image.pk]))
    return {
        "id": image.pk,
        "class": image.current_class.name,
        "state": image.state,
        "split": image.split or None,
        "thumbnail": thumbnail,
        "source": image.source,
        "page_url": image.page_url,
        "license": image.license,
        "creator": image.creator,
        "suspect": image.suspect,
        "reason": reason or None,
    }
