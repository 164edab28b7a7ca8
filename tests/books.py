"""The books of a site: what must balance once it is quiet, whatever has happened to it before.

``imbalances()`` compares rows with each other, rows with files, and looks for what was left over.
``python -m tests.books`` does so for the site that the environment describes, and prints a line for
each thing that does not balance; tests of running sites and the chaos run use that.
"""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
UNFINISHED_NAMES = ("*.tmp", "*.part", "*.whole")  # of files that get their name when complete


def imbalances(*, quiet: bool = True) -> list[str]:
    """Return a sentence for everything that does not balance.

    :param quiet: whether nothing may be going on or waiting any more
    """
    found = [*rows_out_of_step(), *mails_out_of_step(), *files_out_of_step()]
    if quiet:
        found += [*unfinished_rows(), *leftovers()]
    return found


def rows_out_of_step() -> Iterator[str]:
    """Yield requests and jobs whose rows contradict each other."""
    from requests_app.models import ClassifierRequest, JobState, Status

    for classifier in ClassifierRequest.objects.all():
        old = ""
        is_gone = classifier.status == Status.EXPIRED  # and with it what was said before
        for event in classifier.events.order_by("pk"):
            if event.old not in (old, event.new) and not is_gone:
                yield f"request {classifier.pk} moved from {event.old}, but it was {old}"
            old = event.new
        if old != classifier.status:
            yield f"request {classifier.pk} is {classifier.status}, its last event says {old}"
        error = classifier.error or {}
        if classifier.status in (Status.FAILED, Status.NEEDS_ATTENTION) and not error.get("reason"):
            yield f"request {classifier.pk} is {classifier.status} without a reason"
        finished = classifier.versions.filter(run__finished__isnull=False)
        if classifier.status == Status.DELIVERED and not finished.exists():
            yield f"request {classifier.pk} is delivered without a finished version"
        open_jobs = classifier.jobs.filter(state__in=(JobState.QUEUED, JobState.RUNNING))
        arrows = open_jobs.exclude(stage__in=("recount", "measure"))
        if classifier.status in (Status.QUEUED, Status.RUNNING) and not arrows.exists():
            yield f"request {classifier.pk} is {classifier.status}, and no job does anything"
        if open_jobs.filter(state=JobState.RUNNING).count() > 1:
            yield f"two jobs of request {classifier.pk} run at once"
        for job in classifier.jobs.all():
            is_ended = job.state not in (JobState.QUEUED, JobState.RUNNING)
            if is_ended and (job.lease_until is not None or job.finished is None):
                yield f"{job} has ended ({job.state}) with a lease or without a time"


def mails_out_of_step() -> Iterator[str]:
    """Yield mails that are missing, doubled, or of a request that is gone."""
    from requests_app.models import ClassifierRequest, MailState, Status

    for classifier in ClassifierRequest.objects.all():
        keys = Counter(":".join(mail.key.split(":")[2:]) for mail in classifier.mails.all())
        for key, count in keys.items():
            if count > 1:
                yield f"request {classifier.pk} has two mails called {key}"
        if classifier.status == Status.EXPIRED:
            if classifier.mails.exclude(state=MailState.SENT).exists():
                yield f"request {classifier.pk} is deleted, and a mail still waits"
            if classifier.email or classifier.mails.exclude(to="").exists():
                yield f"request {classifier.pk} is deleted, and its address is still there"
            continue
        yield from _unwritten_mails(classifier, set(keys))
        for mail in classifier.mails.filter(state=MailState.SENT):
            if mail.text or mail.html or mail.sent is None:
                yield f"mail {mail.key} was sent and still has its text"


def _unwritten_mails(classifier, keys: set[str]) -> Iterator[str]:
    """Yield what happened to a request without a mail about it."""
    from requests_app.models import JobState, Status

    ended = classifier.jobs.filter(stage="deliver", state=JobState.DONE).count()
    for version in classifier.versions.select_related("run"):
        is_delivered = version.run.finished and ended >= version.number
        if is_delivered and f"delivered:{version.number}" not in keys:
            yield f"nobody was written to about {version}"
    for job in classifier.jobs.filter(state=JobState.FAILED):
        was_moved = classifier.events.filter(actor=f"job:{job.pk}", new=Status.FAILED).exists()
        if was_moved and f"failed:{job.pk}" not in keys:
            yield f"nobody was written to about the failure of {job}"


def files_out_of_step() -> Iterator[str]:
    """Yield rows without their files, files without their rows, and files that are not whole."""
    from django.conf import settings

    from requests_app.models import ClassifierRequest, Status

    requests = Path(settings.DATA_DIR) / "requests"
    folders = {folder.name for folder in requests.glob("*")}
    for classifier in ClassifierRequest.objects.all():
        name = str(classifier.pk)
        if classifier.status == Status.EXPIRED:
            if name in folders:
                yield f"request {name} is deleted, and its folder is still there"
            yield from _rows_of_deleted(classifier)
        else:
            yield from _artifacts_of(classifier)
            yield from _images_of(classifier)
            yield from _versions_of(classifier)
        folders.discard(name)
    for name in sorted(folders):
        yield f"requests/{name} is the folder of no request"
    yield from _not_whole(requests)


def _rows_of_deleted(classifier) -> Iterator[str]:
    from requests_app.models import ImageUrl

    rows = {
        "pictures": ImageUrl.objects.filter(image_class__request=classifier),
        "versions": classifier.versions.all(),
        "own pictures": classifier.own_checks.all(),
    }
    for what, kept in rows.items():
        if kept.exists():
            yield f"request {classifier.pk} is deleted, and its {what} are still in the database"


def _artifacts_of(classifier) -> Iterator[str]:
    from requests_app.delivery import model_zip
    from requests_app.models import Artifact

    known = set()
    for artifact in Artifact.objects.filter(version__request=classifier):
        known.add(artifact.file)
        try:
            with model_zip.open_artifact(artifact) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            yield f"{artifact} cannot be read: {error}"
            continue
        if (digest, size) != (artifact.sha256, artifact.bytes):
            yield f"{artifact} is not the file that its row says"
    if classifier.jobs.filter(stage="package", state__in=("queued", "running")).exists():
        return  # whose files have no rows yet
    for path in (classifier.folder / "artifacts").rglob("*"):
        is_packed = classifier.jobs.filter(stage="package", state="done").exists()
        if path.is_file() and path not in known and is_packed:
            yield f"{path.relative_to(classifier.folder)} of request {classifier.pk} has no row"


def _images_of(classifier) -> Iterator[str]:
    """Compare kept images with the files of the collection."""
    from requests_app.models import ImageUrl

    collection = classifier.folder / "collect"
    images = ImageUrl.objects.filter(image_class__request=classifier).exclude(file="")
    known = set()
    for image in images:
        known.add(image.file)
        path = collection / image.file
        if image.state == "kept" and not path.is_file():
            yield f"picture {image.pk} of request {classifier.pk} has no file"
        elif path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != image.sha256:
            yield f"the file of picture {image.pk} of request {classifier.pk} is another picture"
    if not classifier.versions.exists():
        return  # the collection has not ended; it reads its own files when it goes on
    for folder in ("images", "own"):
        for path in (collection / folder).glob("*"):
            if path.is_file() and f"{folder}/{path.name}" not in known:
                yield f"collect/{folder}/{path.name} of request {classifier.pk} has no row"


def _versions_of(classifier) -> Iterator[str]:
    numbers = set()
    for version in classifier.versions.select_related("run"):
        numbers.add(str(version.number))
        if version.run.finished and not (version.folder / "metrics.json").exists():
            yield f"{version} is finished, and its run folder is not there"
        manifest = version.folder / "manifest.jsonl"
        if not version.manifest_sha256 or not manifest.exists():
            continue
        for line in manifest.read_text(encoding="utf-8").splitlines():
            if not (version.folder / json.loads(line)["file"]).is_file():
                yield f"a picture of {version} has no file"
    for folder in (classifier.folder / "runs").glob("*"):
        if folder.name not in numbers:
            yield f"runs/{folder.name} of request {classifier.pk} has no row"
    has_model = classifier.versions.filter(run__finished__isnull=False).exists()
    if has_model and (classifier.folder / "first").exists():
        yield f"request {classifier.pk} has a model, and the folder of its first one is still there"


def _not_whole(requests: Path) -> Iterator[str]:
    for path in requests.rglob("*.json"):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            yield f"{path.relative_to(requests)} is half a file"
    for path in requests.rglob("*.zip"):
        if path.parent.name == "supplied":  # a person's, who may give anything
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                is_damaged = archive.testzip() is not None
        except (OSError, zipfile.BadZipFile):
            is_damaged = True
        if is_damaged:
            yield f"{path.relative_to(requests)} is half a file"


def unfinished_rows() -> Iterator[str]:
    """Yield what still waits or goes on."""
    from requests_app.models import (
        ClassifierRequest,
        Job,
        JobState,
        MailState,
        OutgoingMail,
        Status,
    )

    going_on = (Status.QUEUED, Status.RUNNING)
    for classifier in ClassifierRequest.objects.filter(status__in=going_on):
        yield f"request {classifier.pk} is still {classifier.status}"
    for job in Job.objects.filter(state__in=(JobState.QUEUED, JobState.RUNNING)):
        yield f"{job} is still {job.state}"
    for mail in OutgoingMail.objects.filter(state__in=(MailState.WAITING, MailState.SENDING)):
        yield f"mail {mail.key} is still {mail.state}"


def leftovers() -> Iterator[str]:
    """Yield processes, locks and unfinished files that nobody needs any more."""
    from django.conf import settings
    from django.utils import timezone

    from requests_app.models import BrowserTurn, Job, JobState
    from requests_app.workers import processes

    for process, marker in processes.marked_processes(str(settings.DATA_DIR)).items():
        yield f"process {process.pid} of job {marker.job} still runs"
    for turn in BrowserTurn.objects.filter(until__gt=timezone.now()).exclude(job=None):
        if not Job.objects.filter(pk=turn.job, state=JobState.RUNNING).exists():
            yield f"job {turn.job} has the browser, and does not run"
    yield from unfinished_files(Path(settings.DATA_DIR))


def unfinished_files(folder: Path) -> Iterator[str]:
    """Yield files that never got their names, and what arrived and was not taken."""
    for pattern in UNFINISHED_NAMES:
        for path in sorted(folder.rglob(pattern)):
            yield f"{path.relative_to(folder)} was never finished"
    for name in ("arriving", "uploads"):
        for path in sorted((folder / name).glob("*")):
            yield f"{path.relative_to(folder)} arrived and belongs to nothing"


# --- of a site that runs as processes -------------------------------------------------------------


def of_site(environment: Mapping[str, str]) -> list[str]:
    """Return what does not balance in the site of this environment."""
    command = [sys.executable, "-m", "tests.books"]
    answer = subprocess.run(
        command, cwd=PROJECT, env=dict(environment), capture_output=True, text=True, check=False
    )
    if answer.returncode not in (0, 1):
        return [f"the books could not be opened: {answer.stderr[-2000:]}"]
    return answer.stdout.splitlines()


def main() -> int:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "picaisso_site.settings")
    django.setup()
    found = imbalances()
    for sentence in found:
        print(sentence)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
