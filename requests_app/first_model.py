"""The first model of a request: fitted on the few images that are there, while more are collected.

A round is a run folder ``<request>/first/<n>/`` of the images kept when each class had n of them.
It is trained by a short child of its own, at low priority, and never waited for: a round that fails
or comes too late is logged and harms nothing. Dataset and delivered model use nothing of it.
"""

import logging
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from django.conf import settings
from django.db.models import Count
from django.db.models.functions import Coalesce

from requests_app.models import ClassifierRequest, ImageQuerySet, ImageState, ImageUrl
from requests_app.workers import jobs, processes
from requests_app.workers.jobs import Lease
from training import run_folder
from training.run_folder import ImageRow, RunConfig, RunError

logger = logging.getLogger(__name__)

PER_CLASS = 20  # images of each class at the first round; twice as many at each later one
LAST_SECONDS = 10.0  # after the collection, for a round without which nothing could be tried
LAST_SHARE = 0.25  # of the time that the collection took, if that is less
LIMIT_SECONDS = 300.0  # of one round, a download of the network included
STOP_SECONDS = 5.0
NICENESS = 5  # the collection goes first
FIRST_ROUND = str(PER_CLASS)


@dataclass(frozen=True)
class Round:
    """What a finished round's model is worth, by cross-validation over all of its images."""

    folder: Path
    images: int
    hits: int
    accuracy: float
    interval: tuple[float, float]


class Rounds:
    """Starts a round whenever one is due, one at a time, as further children of a collection's job.

    No error of a round reaches the collection.
    """

    def __init__(self, lease: Lease, classifier: ClassifierRequest, config: RunConfig) -> None:
        self.lease = lease
        self.classifier = classifier
        self.config = config
        self.folder = _folder(classifier)
        self.is_on = bool(settings.FIRST_MODEL) and not _has_model(classifier)
        self.marker = replace(lease.marker, part="first")
        self.latest = 0
        self.round = ""  # the name of the child's folder
        self.is_waiting = False  # the child, for its images
        self.child: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.begun = time.monotonic()
        if self.is_on:
            self._discard_stale()

    def poll(self) -> None:
        """Look after the round that is being trained, or start the one that is due."""
        if not self.is_on:
            return
        try:
            if self.child is None or self.is_waiting:
                self._start_due()
            if self.child is not None:
                self._look_after(self.child)
        except Exception:  # whatever it is, the collection goes on
            logger.exception("%s goes on without a first model", self.classifier)
            self.is_on = False

    def wait_for_the_first(self) -> None:
        """Wait a little for the round under way where no other has a model yet.

        Training begins so much later: where pictures came fast, its own model is soon there.
        """
        self.poll()
        collected_in = time.monotonic() - self.begun
        until = time.monotonic() + min(LAST_SECONDS, LAST_SHARE * collected_in)
        while self._is_worth_waiting() and time.monotonic() < until:
            time.sleep(0.2)
            self.lease.beat_if_due()
            self.poll()

    def _is_worth_waiting(self) -> bool:
        if self.child is None or self.is_waiting:
            return False
        return not rounds(self.classifier)

    def close(self) -> None:
        """End the round that is being trained."""
        if self.child is not None:
            processes.stop_supervised(self.child, self.marker, STOP_SECONDS)
            logger.info("%s: the first model of %d was cut short", self.classifier, self.latest)
            self.child = None

    def _discard_stale(self) -> None:
        """Remove rounds of other classes or of images that have been dropped since."""
        try:
            fewest = self._fewest_kept()
            for number, folder in _numbered(self.folder):
                is_same = _classes_of(folder) == self.config.classes
                if number > fewest or not is_same:
                    shutil.rmtree(folder)
                elif (folder / run_folder.FIRST_MODEL_FILE).exists():
                    self.latest = number
        except OSError:
            logger.exception("%s goes on without a first model", self.classifier)
            self.is_on = False

    def _fewest_kept(self) -> int:
        """Return how many images the smallest class has."""
        now = Coalesce("label", "image_class")
        counted = _kept(self.classifier).annotate(now=now).order_by().values_list("now")
        counts: Counter[int] = Counter(dict(counted.annotate(Count("pk"))))
        return min(counts[image_class.pk] for image_class in self.classifier.classes.all())

    def _start_due(self) -> None:
        """Start the round of the highest number that every class has reached, if it is new.

        The child of the first round waits for its images already.
        """
        number = max(PER_CLASS, 2 * self.latest)
        fewest = self._fewest_kept()
        if fewest < number:
            if not self.latest and self.child is None:
                self._write_config(self.folder / FIRST_ROUND)
                self._start(FIRST_ROUND)
                self.is_waiting = True
            return
        while 2 * number <= fewest:
            number *= 2
        self.latest = number
        self.started = time.monotonic()
        if self.is_waiting:
            self._write_manifest(self.folder / FIRST_ROUND)
            self.is_waiting = False
            return
        folder = self.folder / str(number)
        self._write_config(folder)
        self._write_manifest(folder)
        self._start(folder.name)

    def _start(self, name: str) -> None:
        """Start the child of a round; it waits for the manifest."""
        folder = self.folder / name
        self.round = name
        command = [sys.executable, "-m", "training", "first", str(folder)]
        command += ["--features", str(self.folder / "features")]
        self.child = processes.start_supervised(
            ["nice", "-n", str(NICENESS), *command, "--wait"],
            self.marker,
            jobs.training_environment() | self.lease.names(),
            folder / "log.txt",
        )

    def _write_config(self, folder: Path) -> None:
        """Make the run folder of a round.

        The images stay where they were collected, so that one that is taken down is gone here as
        well.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "images").symlink_to(Path("..", "..", "collect", "images"))
        run_folder.write_config(folder, self.config)

    def _write_manifest(self, folder: Path) -> None:
        """Write which images are kept now, the earliest first.

        In this order a later round has the images of this one first, whose features are known.
        """
        rows = []
        for image in _kept(self.classifier).order_by("pk"):
            rows.append(ImageRow(image.file, image.current_class.class_id, image.sha256))
        run_folder.write_manifest(folder, rows)

    def _look_after(self, child: subprocess.Popen[bytes]) -> None:
        """Note that the round has ended, or end one that takes too long."""
        code = child.poll()
        if code is None:
            is_late = time.monotonic() - self.started > LIMIT_SECONDS
            if is_late and not self.is_waiting:
                child.terminate()  # its supervisor kills the tree if that does not help
            return
        self.child = None
        self.is_waiting = False
        folder = self.folder / self.round
        found = _read_round(folder)
        if found is None:
            log = folder / "log.txt"
            logger.warning("a first model ended with code %d; see %s", code, log)
        else:
            logger.info(
                "%s: a first model of %d images has %d right",
                self.classifier,
                found.images,
                found.hits,
            )


def rounds(classifier: ClassifierRequest) -> list[Round]:
    """Return the finished rounds of a request in order, from its files; [] once it has a model."""
    finished = []
    for _, folder in _numbered(_folder(classifier)):
        found = _read_round(folder)
        if found is not None:
            finished.append(found)
    if finished and _has_model(classifier):
        return []
    return finished


def _has_model(classifier: ClassifierRequest) -> bool:
    """Return whether a version has a measured model: then that is the one to try."""
    return classifier.versions.filter(run__finished__isnull=False).exists()


def newest_folder(classifier: ClassifierRequest) -> Path | None:
    """Return the newest first model: a folder that ``training.predict.open_model`` opens.

    None while there is none, and once the request has a measured model of its own.
    """
    head = head_of_training(classifier)
    if head is not None:
        return head.folder / "model"
    finished = rounds(classifier)
    return finished[-1].folder / "model" if finished else None


def head_of_training(classifier: ClassifierRequest) -> Round | None:
    """Return the linear head of the version in training, for as long as no version has a model.

    None before and after its fine-tuning.
    """
    version = classifier.versions.order_by("number").last()
    if version is None or not classifier.is_open or _has_model(classifier):
        return None
    return _read_round(version.folder / run_folder.HEAD_FOLDER)


def discard(classifier: ClassifierRequest) -> None:
    """Remove all rounds: the request has a better model now."""
    shutil.rmtree(_folder(classifier), ignore_errors=True)


def _folder(classifier: ClassifierRequest) -> Path:
    return classifier.folder / "first"


def _kept(classifier: ClassifierRequest) -> ImageQuerySet:
    return ImageUrl.objects.of_request(classifier).filter(state=ImageState.KEPT)


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Return the folders of rounds with their numbers, in order."""
    found = []
    for path in folder.glob("*"):
        if path.name.isdigit():
            found.append((int(path.name), path))
    return sorted(found)


def _classes_of(folder: Path) -> object:
    """Return the classes of a round; None where they cannot be read."""
    try:
        return run_folder.read_config(folder).classes
    except RunError:
        return None


def _read_round(folder: Path) -> Round | None:
    """Return a finished round; None while it is trained, where it failed, or if it is damaged."""
    if not (folder / run_folder.FIRST_MODEL_FILE).exists():
        return None
    try:
        found = run_folder.read_json(folder / run_folder.FIRST_MODEL_FILE)
        low, high = found["interval"]
        return Round(folder, found["images"], found["hits"], found["accuracy"], (low, high))
    except (RunError, KeyError, TypeError, ValueError):
        return None
