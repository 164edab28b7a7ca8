"""“On my own pictures”: how good a model is on pictures that a person has, and training with them.

The pictures are received in goes, screened and measured by two children of one job, and forgotten.
“Train with them” adds one half of each class to the dataset, for training alone. The other half is
held out: it stays apart from the dataset, and measures the versions that learned from the first.
"""

import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from requests_app import curation, own_pictures, prediction, takedowns, versions
from requests_app.models import ClassifierRequest, ImageClass, ImageUrl, JobState, OwnCheck
from requests_app.workers import jobs
from requests_app.workers.collection_sync import JsonLines
from requests_app.workers.jobs import Lease
from scraping.picture_zip import LARGEST_PICTURE, MOST_PICTURES, MOST_UNPACKED
from scraping.reasons import Reason
from scraping.screening.screen import CleanImage
from training import run_folder
from training.duplicates import fingerprint
from training.images.decode import read_image

STAGE = "measure"
QUEUE = "train"
LIMIT_SECONDS = 900.0
KEPT = timedelta(days=1)
UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
LONGEST_NAME = 120  # characters of a file's name
ENOUGH = 10  # pictures of each class, from which on the figure says something
MOST_NAMED = 200  # refused files

TOO_MANY = f"Only {MOST_PICTURES} pictures are measured at once; this one was left out."
TOO_MUCH = (
    f"Together the pictures have more than {MOST_UNPACKED // 1_000_000} MB; this one was left out."
)
EMPTY = "This file is empty."
ARCHIVE = "This is a zip. Choose it in the field for a zip."
ZIP_START = b"PK\x03\x04"
FAILED = "The pictures could not be measured. Try once more; if it fails again, tell the operator."
MEASURED_REASONS = {
    "not_a_picture": own_pictures.SENTENCES[Reason.NOT_A_PICTURE],
    "near_duplicate": "A copy of another of your pictures.",
    "duplicate": "A copy of another of your pictures.",
    "in_two_classes": "The same picture stands in two classes.",
    "known": "A copy of a picture of the dataset, so it says nothing new.",
}


# --- receiving -----------------------------------------------------------------------------------


def newest(classifier: ClassifierRequest) -> OwnCheck | None:
    """Return the check that the page is about, None where there is none."""
    return classifier.own_checks.last()


def open_check(classifier: ClassifierRequest) -> OwnCheck:
    """Return the check that still takes pictures; an older one is forgotten for a new one."""
    check = newest(classifier)
    if check is not None and is_draft(check):
        return check
    if check is not None and not check.trained:
        remove_files(check)
    return OwnCheck.objects.create(request=classifier)


def holds_out(check: OwnCheck) -> bool:
    """Return whether one half of its pictures is kept to measure the next versions."""
    return bool(check.trained) and check.removed is None


def is_draft(check: OwnCheck) -> bool:
    """Return whether pictures may still be given to it."""
    return check.asked is None and check.removed is None


def receive(check: OwnCheck, number: int, name: str, content: bytes) -> None:
    """Take one file of a class, or note why not; it is looked at later, by a child."""
    problem = _problem(check, content)
    if problem:
        refuse(check, name, problem)
        return
    folder = check.folder / "received" / f"c{number:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    check.received += 1
    check.received_bytes += len(content)
    file = f"{check.received:05d}"
    (folder / file).write_bytes(content)
    line = {"file": f"{folder.name}/{file}", "name": name[-LONGEST_NAME:]}
    run_folder.append_json_line(check.folder / "names.jsonl", line)
    check.save(update_fields=["received", "received_bytes"])


def _problem(check: OwnCheck, content: bytes) -> str:
    if not content:
        return EMPTY
    if len(content) > LARGEST_PICTURE:
        return prediction.TOO_LARGE
    if check.received >= MOST_PICTURES:
        return TOO_MANY
    if check.received_bytes + len(content) > MOST_UNPACKED:
        return TOO_MUCH
    if content[8:12] in own_pictures.HEIC_BRANDS:
        return own_pictures.HEIC
    return ARCHIVE if content.startswith(ZIP_START) else ""


def refuse(check: OwnCheck, name: str, sentence: str) -> None:
    """Note why a file is not measured."""
    _note_refused(check, name, sentence)
    check.save(update_fields=["refused"])


def _note_refused(check: OwnCheck, name: str, sentence: str) -> None:
    if len(check.refused) < MOST_NAMED:
        shown = name[-LONGEST_NAME:]
        check.refused.append([shown, sentence])


def counts(check: OwnCheck) -> list[tuple[str, int]]:
    """Return how many pictures of each class wait to be measured."""
    found = []
    for image_class in check.request.classes.all():
        folder = check.folder / "received" / image_class.class_id
        count = len(list(folder.glob("*"))) if folder.exists() else 0
        found.append((image_class.name, count))
    return found


# --- measuring -----------------------------------------------------------------------------------


@transaction.atomic
def ask(check: OwnCheck) -> bool:
    """Have the pictures measured with the newest model; return False where that is not possible."""
    if versions_to_measure(check.request) is None or is_waiting(check) or check.removed:
        return False
    if not check.received:
        return False
    check.asked = timezone.now()
    check.measured = None
    check.error = ""
    check.save(update_fields=["asked", "measured", "error"])
    jobs.enqueue(check.request, STAGE, QUEUE)
    return True


def versions_to_measure(classifier: ClassifierRequest) -> int | None:
    """Return the number of the version whose model would be measured now."""
    version = prediction.delivered_version(classifier)
    return None if version is None else version.number


def is_waiting(check: OwnCheck) -> bool:
    """Return whether a job is going to measure it, or does."""
    if check.measured is not None:
        return False
    of_stage = check.request.jobs.filter(stage=STAGE)
    unfinished = of_stage.filter(state__in=UNFINISHED)
    return unfinished.exists()


def measure(lease: Lease) -> None:
    """Screen and measure the newest check's pictures; a failure stands there, and fails no request.

    The files as they were received are deleted in any case.
    """
    check = OwnCheck.objects.filter(request=lease.job.request_id).last()
    if check is None or check.measured is not None or check.asked is None:
        with lease.finishing():
            return
    try:
        _measure(lease, check)
    finally:
        is_forgotten = not OwnCheck.objects.filter(pk=check.pk).exists()
        if is_forgotten:  # while the children were writing
            shutil.rmtree(check.folder, ignore_errors=True)
    shutil.rmtree(check.folder / "received", ignore_errors=True)


def _measure(lease: Lease, check: OwnCheck) -> None:
    version = prediction.delivered_version(check.request)
    folder = check.folder
    result = None
    if version is not None:
        for name in ("progress.jsonl", "measured.json"):
            (folder / name).unlink(missing_ok=True)
        if (folder / "received").exists():
            _screen(lease, check)
        command = [sys.executable, "-m", "training", "measure", str(version.folder)]
        command += [str(folder / "clean"), "--out", str(folder / "measured.json")]
        steps = JsonLines(folder / "progress.jsonl")
        lease.run_child(command, folder / "log.txt", lambda: _latest(steps))
        if (folder / "measured.json").exists():
            result = run_folder.read_json(folder / "measured.json")
    with lease.finishing():
        if OwnCheck.objects.filter(pk=check.pk).exists():
            _store(check, result, None if version is None else version.number)


def _latest(steps: JsonLines) -> dict[str, Any]:
    new = list(steps.new())
    return new[-1] if new else {}


def _screen(lease: Lease, check: OwnCheck) -> None:
    """Clean what was received into ``clean/``."""
    received = check.folder / "received"
    clean = check.folder / "clean"
    config = {
        "min_side": settings.MIN_SIDE,
        "max_side": settings.MAX_SIDE,
        "ai_made": settings.AI_MADE,
        "nudity_model": settings.NUDITY_MODEL,
        "refused_digests": settings.REFUSED_DIGESTS,
        "taken_down": takedowns.taken_down_digests()["hashes"],
    }
    run_folder.write_json(received / "screening.json", config)
    command = [sys.executable, "-m", "scraping", "screen", str(received), "--out", str(clean)]
    rows = JsonLines(check.screened)
    done = 0

    def poll() -> dict[str, Any]:
        nonlocal done
        done += len(list(rows.new()))
        return {"done": done, "total": check.received, "message": "Cleaning your pictures"}

    lease.run_child(command, check.folder / "log.txt", poll)


def _store(check: OwnCheck, result: dict[str, Any] | None, version: int | None) -> None:
    """Store what a job found, with the reasons of what was refused."""
    check.refresh_from_db()
    if check.trained and check.result and check.earlier is None:
        check.earlier = _before(check, check.result)
    check.measured = timezone.now()
    check.error = "" if result else FAILED
    check.result = result
    check.version_number = version
    names = _note_screened(check)
    if result is not None:
        for refusal in result["refused"]:
            file = refusal["file"]
            sentence = MEASURED_REASONS[refusal["reason"]]
            _note_refused(check, names.get(file, file), sentence)
    check.save()


def _note_screened(check: OwnCheck) -> dict[str, str]:
    """Note what was refused when it was cleaned; return clean file -> name as it was given."""
    given = {}
    for row in _rows(check.folder / "names.jsonl"):
        given[row["file"]] = row["name"]
    names = {}
    for row in _rows(check.screened):
        file = row["file"]
        name = given.get(file, file)
        names[row["kept"]] = name
        reason = row["reason"]
        if not reason or check.trained:  # noted at the first time
            continue
        sentence = MEASURED_REASONS.get(reason)
        if sentence is None:
            sentence = own_pictures.refusal_sentence(reason)
        _note_refused(check, name, sentence)
    return names


def _before(check: OwnCheck, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return which of the pictures that are still held out the model before had right."""
    clean = check.folder / "clean"
    right = []
    for picture in result["pictures"]:
        file = picture["file"]
        is_right = picture["class_id"] == picture["predicted"]
        if is_right and (clean / file).exists():
            right.append(file)
    return {"version": check.version_number, "right": right}


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(JsonLines(path).new())


# --- what is done with them ----------------------------------------------------------------------


def train_with(check: OwnCheck, actor: str) -> int:
    """Add one half of each class's measured pictures to the dataset; return how many were added.

    Which half depends on their content alone. The other half is held out.
    """
    if check.result is None or obstacle_to_training(check):
        return 0
    halves = _halves(check.result["pictures"])
    added = 0
    with transaction.atomic():
        locked = OwnCheck.objects.select_for_update().get(pk=check.pk)
        if locked.trained:  # pressed twice
            return 0
        for image_class in check.request.classes.all():
            files = halves[image_class.class_id]
            added += _add(check, image_class, files, actor)
        check.trained = added
        check.save(update_fields=["trained"])
    _keep_held_out(check, halves)
    return added


def _keep_held_out(check: OwnCheck, halves: Mapping[str, set[str]]) -> None:
    """Delete the clean copies of what was added, and of what was refused."""
    held_out = set()
    for picture in (check.result or {})["pictures"]:
        file = picture["file"]
        if file not in halves[picture["class_id"]]:
            held_out.add(file)
    clean = check.folder / "clean"
    for path in clean.glob("*/*.jpg"):
        name = path.relative_to(clean).as_posix()
        if name not in held_out:
            path.unlink()


def _halves(pictures: Iterable[Mapping[str, str]]) -> dict[str, set[str]]:
    """Return the files of every second picture of each class, by the id of the class.

    They are called by their content, and taken in the order of that.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        class_id = picture["class_id"]
        files[class_id].append(picture["file"])
    halves: dict[str, set[str]] = defaultdict(set)
    for class_id, of_class in files.items():
        of_class.sort()
        halves[class_id] = set(of_class[::2])
    return halves


def _add(check: OwnCheck, image_class: ImageClass, files: set[str], actor: str) -> int:
    """Add these clean files to a class, but for what the dataset has already."""
    rows = ImageUrl.objects.of_request(check.request)
    digests = set(rows.values_list("sha256", flat=True))
    images = []
    for row in _rows(check.screened):
        file = row["kept"]
        path = check.folder / "clean" / file
        is_new = row["sha256"] not in digests
        if file in files and is_new and path.exists():
            clean = _clean_image(path, row)
            image = own_pictures.keep(image_class, clean)
            images.append(image)
    if images:
        curation.note_added(check.request, image_class, images, actor)
    return len(images)


def _clean_image(path: Path, row: Mapping[str, Any]) -> CleanImage:
    mark = fingerprint(read_image(path))
    return CleanImage(
        jpeg=path.read_bytes(),
        width=row["width"],
        height=row["height"],
        mime=row["mime"],
        sha256=row["sha256"],
        source_sha256=row["source_sha256"],
        difference_hash=mark.hash,
        optional_fingerprint=mark,
    )


def calibrate(check: OwnCheck, is_on: bool) -> bool:
    """Have the try page use what was fitted on the pictures, or not any more."""
    if is_on and not (check.result or {}).get("calibration"):
        return False
    check.request.own_checks.update(calibrates=False)
    check.calibrates = is_on
    check.save(update_fields=["calibrates"])
    return True


def forget(check: OwnCheck) -> None:
    """Delete pictures, figures and names of files at once."""
    of_stage = check.request.jobs.filter(stage=STAGE)
    waiting = of_stage.filter(state=JobState.QUEUED)
    waiting.update(state=JobState.CANCELLED)
    running = of_stage.filter(state=JobState.RUNNING)
    running.update(cancel_requested=True)
    shutil.rmtree(check.folder, ignore_errors=True)
    check.delete()


def remove_files(check: OwnCheck) -> None:
    """Delete the pictures and the names of their files; the figures stay."""
    shutil.rmtree(check.folder, ignore_errors=True)
    check.removed = timezone.now()
    check.refused = []
    check.save(update_fields=["removed", "refused"])


def expire() -> None:
    """Delete the pictures of a day ago that nobody has asked to keep."""
    old = OwnCheck.objects.filter(removed=None, trained=0, created__lt=timezone.now() - KEPT)
    for check in old.select_related("request"):
        if not is_waiting(check):
            remove_files(check)


def obstacle_to_training(check: OwnCheck) -> str:
    """Return why the pictures cannot be trained with, "" if they can."""
    if check.removed:
        return "Your pictures are deleted already. Give them once more."
    if not versions.finished_versions(check.request):
        return "There is no version yet."
    if own_pictures.is_full(check.request):
        return own_pictures.TOO_MANY_OWN
    return ""
