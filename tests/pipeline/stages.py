"""Steps that the tests of requests share: run the next job, read what is there, let time pass."""

import zipfile
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from requests_app import pipeline
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    ImageUrl,
    Job,
    SourceHealth,
)
from requests_app.workers import jobs
from training.run_folder import ImageRow


def drain(queue: str) -> None:
    jobs.drain(queue, pipeline.HANDLERS)


def rows_of(request: ClassifierRequest) -> list[ImageRow]:
    kept = ImageUrl.objects.filter(image_class__request=request, state="kept").select_related(
        "image_class"
    )
    return [ImageRow(i.file, i.image_class.class_id, i.sha256, i.source, i.license) for i in kept]


def ask_nobody() -> None:
    """Close all sources, so that a collection asks nobody and ends at once."""
    for name in settings.SOURCES:
        SourceHealth.record(name, "blocked", "A human check.", cool_down_seconds=3600)


def dataset_of(request: ClassifierRequest) -> zipfile.ZipFile:
    return zipfile.ZipFile(Artifact.objects.get(kind="dataset").file)


def handlers(run, failures=None):
    kept = [] if failures is None else failures
    return jobs.Handlers(run=run, failed=lambda job, failure: kept.append((job.pk, failure.reason)))


def let_the_lease_run_out(job):
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
