"""Steps that the tests of requests share: run the next job, read what is there, let time pass."""

import zipfile
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from django.utils import timezone

from requests_app import pipeline, versions
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    Job,
    SourceHealth,
)
from requests_app.workers import jobs
from training.run_folder import ImageRow


def drain(queue: str) -> None:
    """Run the oldest job of a queue, as a worker would."""
    jobs.drain(queue, pipeline.HANDLERS)


def rows_of(classifier: ClassifierRequest) -> list[ImageRow]:
    """Return the kept images of a request as rows of a manifest."""
    rows = []
    for image in versions.kept_images(classifier):
        class_id = image.image_class.class_id
        rows.append(ImageRow(image.file, class_id, image.sha256, image.source, image.license))
    return rows


def ask_nobody() -> None:
    """Close all sources, so that a collection asks nobody and ends at once."""
    for name in settings.SOURCES:
        SourceHealth.record(name, "blocked", "A human check.", cool_down_seconds=3600)


def open_dataset() -> "TopFolder":
    """Open the only dataset.zip."""
    return TopFolder(Artifact.objects.get(kind="dataset").file)


class TopFolder(zipfile.ZipFile):
    """The one folder of a delivered zip."""

    def __init__(self, file: Path | BinaryIO) -> None:
        super().__init__(file)
        (self.top,) = {name.partition("/")[0] for name in self.namelist()}

    def names_below(self) -> list[str]:
        """Return the names of all files below the folder."""
        return [name.removeprefix(f"{self.top}/") for name in self.namelist()]

    def read_below(self, name: str) -> bytes:
        return self.read(f"{self.top}/{name}")


def handlers(run, failures=None) -> jobs.Handlers:
    """Return handlers of jobs that run this function and collect failures as (job, reason)."""
    collected = [] if failures is None else failures

    def failed(job: Job, failure: jobs.StageFailed) -> None:
        collected.append((job.pk, failure.reason))

    return jobs.Handlers(run=run, failed=failed)


def let_the_lease_run_out(job: Job) -> None:
    """Make a job look as if its holder had been silent for too long."""
    past = timezone.now() - timedelta(seconds=1)
    Job.objects.filter(pk=job.pk).update(lease_until=past)
