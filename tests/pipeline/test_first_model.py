"""The first model of a request: when rounds are due, and that they harm nothing."""

import io
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from requests_app import first_model, pipeline, versions
from requests_app.first_model import Rounds
from requests_app.models import ClassifierRequest, ImageState, ImageUrl, Job, TrainingRun
from requests_app.workers import jobs, processes
from requests_app.workers.collection_sync import CollectionSync
from requests_app.workers.jobs import Lease
from tests.pipeline.folders import candidate, kept_record
from tests.pipeline.stages import drain
from tests.training.conftest import on_white, stamps
from training import run_folder
from training.predict import open_model

pytestmark = pytest.mark.django_db(transaction=True)

LOG = Path(os.devnull)
FOLDERS = (("symbols",), ("animals", "food", "household", "plants", "town", "vehicles"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the traced network is kept for all these tests: tracing takes seconds."""
    return tmp_path_factory.mktemp("cache") / "weights"


@pytest.fixture
def collecting(settings, data_dir, request) -> ClassifierRequest:
    """A confirmed request by the bundled network, with the first model switched on."""
    settings.FIRST_MODEL = True
    settings.BACKBONE = "efficientnet_lite0"
    settings.DEVICE = "cpu"
    confirmed: ClassifierRequest = request.getfixturevalue("confirmed")
    return confirmed


@pytest.fixture
def logged(caplog) -> Iterator[pytest.LogCaptureFixture]:
    """What the rounds log: records of our own loggers do not propagate."""
    first_model.logger.addHandler(caplog.handler)
    yield caplog
    first_model.logger.removeHandler(caplog.handler)


def photograph(path: Path) -> bytes:
    buffer = io.BytesIO()
    picture = on_white(path)
    picture.thumbnail((320, 320), Image.Resampling.BILINEAR)
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def keep(classifier: ClassifierRequest, per_class: int) -> None:
    """Let the collection have so many photographs of each class, and the database know of them."""
    folder = classifier.folder / "collect"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for image_class, folders in zip(classifier.classes.all(), FOLDERS, strict=True):
        for rank, path in enumerate(stamps(*folders)[:per_class], 1):
            address = f"http://pictures.example/{image_class.number}/{rank}.png"
            found = candidate(address, image_class.query, rank)
            record = kept_record(found, image_class.class_id, folder, photograph(path))
            lines.append(json.dumps(record) + "\n")
    run_folder.write_text(folder / "images.jsonl", "".join(lines))
    CollectionSync(classifier, folder).poll()


def finish_collection(classifier: ClassifierRequest) -> None:
    """Write what the command leaves last."""
    summaries = []
    for c in classifier.classes.all():
        kept = ImageUrl.objects.of_class(c).filter(state=ImageState.KEPT).count()
        summary = {"id": c.class_id, "name": c.name, "found": kept, "kept": kept, "rejected": {}}
        summaries.append(summary)
    result = {"ok": True, "classes": summaries, "sources": [], "seconds": 1.0}
    run_folder.write_json(classifier.folder / "collect" / "result.json", result)


def rounds_of(classifier: ClassifierRequest, lease: Lease, cache: Path) -> Rounds:
    config = replace(versions.run_config(classifier), weights_cache=str(cache))
    return Rounds(lease, classifier, config)


@pytest.fixture
def lease(collecting) -> Lease:
    claimed = jobs.claim("collect")
    assert claimed is not None
    return claimed


def wait_for_the_round(rounds: Rounds) -> None:
    """Poll as a collection does, until the child has ended."""
    until = time.monotonic() + 90
    while rounds.child is not None:
        assert time.monotonic() < until
        time.sleep(0.1)
        rounds.poll()


def numbers(classifier: ClassifierRequest) -> list[str]:
    return [found.folder.name for found in first_model.rounds(classifier)]


@pytest.mark.timeout(240)
def test_rounds_are_trained_at_twenty_forty_and_eighty_images_a_class(collecting, lease, cache):
    rounds = rounds_of(collecting, lease, cache)
    rounds.poll()
    prepared = rounds.child  # it gets ready before there is anything
    (collecting.folder / "collect" / "images").mkdir(parents=True, exist_ok=True)
    keep(collecting, 19)
    rounds.poll()
    assert rounds.child is prepared
    assert prepared is not None and first_model.newest_folder(collecting) is None
    features = collecting.folder / "first" / "features"
    until = time.monotonic() + 90
    while len(list(features.rglob("*.npz"))) < 38:  # of what is there, before there is a manifest
        assert time.monotonic() < until
        time.sleep(0.1)
        rounds.poll()
    for number in (20, 40, 80):
        keep(collecting, number + 3)
        rounds.poll()
        assert (rounds.child is prepared) == (number == 20)
        rounds.poll()  # a second child is never started
        wait_for_the_round(rounds)
        rounds.poll()  # the same round is not due again
        assert rounds.child is None
    assert numbers(collecting) == ["20", "40", "80"]
    images = [found.images for found in first_model.rounds(collecting)]
    assert images == [46, 86, 166]
    newest = first_model.newest_folder(collecting)
    assert newest == collecting.folder / "first" / "80" / "model"
    assert open_model(newest).classes == ("cat", "dog")
    names = {path.name for path in newest.iterdir()}
    assert names == {"model.onnx", "classes.json", "config.json"}
    rounds.close()


def test_of_rounds_that_are_due_together_only_the_largest_is_trained(collecting, lease, cache):
    rounds = rounds_of(collecting, lease, cache)
    keep(collecting, 45)
    rounds.poll()
    try:
        assert [path.name for path in (collecting.folder / "first").iterdir()] == ["40"]
    finally:
        rounds.close()


def test_a_round_is_the_jobs_own_child_at_low_priority_and_ends_with_it(collecting, lease, cache):
    keep(collecting, 20)
    rounds = rounds_of(collecting, lease, cache)
    rounds.poll()
    until = time.monotonic() + 20
    nice = 0
    while nice != first_model.NICENESS and time.monotonic() < until:
        for process in processes.marked_processes(lease.marker.home):
            if "first" in process.cmdline():
                nice = max(nice, process.nice())
        time.sleep(0.05)
    assert nice == first_model.NICENESS
    rounds.close()
    assert processes.marked_processes(lease.marker.home) == {}
    assert numbers(collecting) == []


@pytest.mark.timeout(180)
def test_a_collection_that_ends_lets_the_first_round_come_to_its_end(collecting, lease, cache):
    keep(collecting, 20)
    rounds = rounds_of(collecting, lease, cache)
    rounds.poll()
    of_the_collection = processes.start_supervised(["sleep", "60"], lease.marker, os.environ, LOG)
    processes.stop_supervised(of_the_collection, lease.marker)
    assert rounds.child is not None and rounds.child.poll() is None
    until = time.monotonic() + 90
    while rounds.child is not None and time.monotonic() < until:
        rounds.wait_for_the_first()  # a few seconds; a loaded machine needs more
    assert numbers(collecting) == ["20"]
    keep(collecting, 40)
    rounds.poll()
    begun = rounds.child
    rounds.wait_for_the_first()
    assert begun is not None and begun.poll() is None, "for a further round nobody waits"
    rounds.close()
    assert begun.poll() is not None


def test_a_round_that_was_cut_short_is_trained_by_the_next_attempt(collecting, lease, cache):
    keep(collecting, 20)
    lost = rounds_of(collecting, lease, cache)
    lost.poll()
    features = collecting.folder / "first" / "features"
    until = time.monotonic() + 60
    while not any(features.rglob("*.npz")):
        assert time.monotonic() < until
        time.sleep(0.02)
    for process in processes.marked_processes(lease.marker.home):
        os.kill(process.pid, 9)
    assert lost.child is not None
    lost.child.wait(20)
    again = rounds_of(collecting, lease, cache)
    again.poll()
    wait_for_the_round(again)
    assert numbers(collecting) == ["20"]
    once_more = rounds_of(collecting, lease, cache)
    once_more.poll()
    assert once_more.child is None, "a finished round is not trained again"


def test_a_child_that_fails_is_logged_and_not_tried_again(collecting, lease, cache, logged):
    keep(collecting, 20)
    for path in (collecting.folder / "collect" / "images").iterdir():
        path.write_bytes(b"no picture")
    rounds = rounds_of(collecting, lease, cache)
    rounds.poll()
    wait_for_the_round(rounds)
    rounds.poll()
    assert rounds.child is None and numbers(collecting) == []
    assert "ended with code 1" in logged.text
    log = (collecting.folder / "first" / "20" / "log.txt").read_text()
    assert "has 0 different pictures" in log and "Traceback" not in log


def test_a_collection_ends_well_where_no_round_can_be_written(collecting):
    (collecting.folder / "collect").mkdir(parents=True)
    (collecting.folder / "first").write_text("in the way of the folder")
    keep(collecting, 21)
    finish_collection(collecting)
    drain("collect")
    assert Job.objects.get(stage="collect").state == "done"
    assert collecting.versions.get().images == 42


def test_rounds_of_images_that_were_dropped_since_are_discarded(collecting, lease, cache):
    keep(collecting, 20)
    for number in ("20", "40"):
        folder = collecting.folder / "first" / number
        folder.mkdir(parents=True)
        run_folder.write_config(folder, versions.run_config(collecting))
        run_folder.write_json(folder / "first.json", RESULT)
    rounds_of(collecting, lease, cache)
    assert numbers(collecting) == ["20"]
    ImageUrl.objects.filter(image_class__number=1).delete()
    rounds_of(collecting, lease, cache)
    assert numbers(collecting) == []


RESULT = {
    "images": 40,
    "per_class": {"cat": 20, "dog": 20},
    "accuracy": 0.9,
    "interval": [0.77, 0.96],
    "hits": 36,
    "n": 40,
    "backbone": "efficientnet_lite0",
    "seconds": 4.0,
}


def test_damaged_figures_count_as_none(collecting):
    folder = collecting.folder / "first" / "20"
    folder.mkdir(parents=True)
    for text in ("", "{}", '{"images": 40, "interval": 3}', "[]"):
        (folder / "first.json").write_text(text)
        assert first_model.rounds(collecting) == []


def test_switched_off_nothing_is_trained(collecting, lease, cache, settings):
    settings.FIRST_MODEL = False
    keep(collecting, 20)
    rounds = rounds_of(collecting, lease, cache)
    rounds.poll()
    rounds.close()
    assert not (collecting.folder / "first").exists()


def trained_files(classifier: ClassifierRequest) -> dict[str, bytes]:
    """Collect to the end and train; return what makes the dataset and the model."""
    finish_collection(classifier)
    drain("collect")
    drain("train")
    Job.objects.filter(stage="package").delete()  # the queue is for the next training
    folder = classifier.versions.get().folder
    assert TrainingRun.objects.get(version__request=classifier).finished
    names = ("manifest.jsonl", "config.json", "predictions.csv", "model/model.onnx")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.timeout(400)
def test_dataset_and_model_are_the_same_with_and_without_a_first_model(collecting, cache, settings):
    keep(collecting, 24)
    lease = jobs.claim("collect")
    assert lease is not None
    rounds = rounds_of(collecting, lease, cache)
    rounds.poll()
    wait_for_the_round(rounds)
    assert numbers(collecting) == ["20"]
    lease.put_back(counted=False)
    with_first = trained_files(collecting)
    assert not (collecting.folder / "first").exists(), "the model for use has taken its place"
    settings.FIRST_MODEL = False
    classes = tuple((c.name, c.query) for c in collecting.classes.all())
    other = pipeline.submit(pipeline.Submission(classes=classes, email="ada@example.org"))
    keep(other, 24)
    assert trained_files(other) == with_first
