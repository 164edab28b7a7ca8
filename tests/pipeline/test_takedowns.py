"""Images that are taken down are gone everywhere and stay out."""

import hashlib
import io
import json

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from requests_app import takedowns, tasks
from requests_app.models import (
    Artifact,
    ClassifierRequest,
    ImageUrl,
    Job,
    JobState,
    OwnCheck,
    TakenDown,
)
from requests_app.workers.collection_sync import CollectionSync
from scraping.urls import url_digest
from tests.pipeline.folders import write_collection, write_run
from tests.pipeline.stages import TopFolder, drain, rows_of
from training import run_folder

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("by", ["url", "sha256"])
def test_a_picture_taken_down_is_gone_everywhere_and_stays_out(packaged, by):
    image = ImageUrl.objects.filter(state="kept").first()
    places = list(packaged.folder.rglob(image.file.split("/")[1]))
    assert len(places) == 2, "the collection and the run"
    spelt = (
        image.image_url.replace("http://pictures.example", "HTTP://Pictures.Example:80") + "#top"
    )
    call_command(
        "takedown", spelt if by == "url" else image.sha256.upper(), reason="its author asked"
    )
    assert list(packaged.folder.rglob(image.file.split("/")[1])) == []
    image.refresh_from_db()
    assert (image.state, image.reason) == ("rejected", "taken_down")
    assert (image.image_class.kept, image.image_class.rejected) == (
        32,
        {"too_small": 1, "taken_down": 1},
    )
    artifact = Artifact.objects.get(kind="dataset")
    described = json.loads(Artifact.objects.get(kind="croissant").file.read_bytes())
    assert described["distribution"][0]["sha256"] == artifact.sha256
    assert artifact.sha256 == hashlib.sha256(artifact.file.read_bytes()).hexdigest()
    assert image.sha256 not in Artifact.objects.get(kind="recipe").file.read_text()
    with TopFolder(artifact.file) as archive:
        assert image.sha256 not in archive.read_below("images.csv").decode()
        assert not any(image.sha256[:16] in name for name in archive.names_below())
        assert "taken_down" in archive.read_below("rejected.csv").decode()
        assert len([name for name in archive.names_below() if name.endswith(".jpg")]) == 65
    assert image.sha256 in takedowns.taken_down_digests()["hashes"]
    assert bool(takedowns.taken_down_digests()["urls"]) == (by == "url")


def test_taking_down_what_nobody_has_still_keeps_it_out():
    said = io.StringIO()
    call_command("takedown", "https://pictures.example/never-seen.jpg", stdout=said)
    assert said.getvalue() == "Not found here; it is blocked from now on.\n"
    assert TakenDown.objects.get().what == "url"


def test_what_waits_to_be_measured_is_taken_down_too(packaged):
    check = OwnCheck.objects.create(request=packaged)
    check.screened.parent.joinpath("c001").mkdir(parents=True)
    rows = []
    for name in ("a", "b"):
        (check.screened.parent / f"c001/{name}.jpg").write_bytes(b"picture")
        row = {"kept": f"c001/{name}.jpg", "sha256": name * 64, "source_sha256": "c" * 64}
        rows.append(json.dumps(row) + "\n")
    check.screened.write_text("".join(rows))
    takedowns.take_down(sha256="a" * 64)
    assert [path.name for path in check.screened.parent.glob("c001/*")] == ["b.jpg"]
    takedowns.take_down(sha256="c" * 64)
    assert list(check.screened.parent.glob("c001/*")) == []


def test_taking_down_needs_an_address_or_a_digest():
    with pytest.raises(ValueError, match="an address or a digest"):
        takedowns.take_down()
    with pytest.raises(CommandError, match="http"):
        call_command("takedown", "cat.jpg")
    assert not TakenDown.objects.exists()


def taken_image(classifier: ClassifierRequest) -> ImageUrl:
    return ImageUrl.objects.of_request(classifier).filter(state="kept").order_by("pk")[4]


def assert_gone(classifier: ClassifierRequest, image: ImageUrl) -> None:
    """Look for an image in all files and rows of a request, and in what is delivered."""
    image.refresh_from_db()
    assert (image.state, image.reason, image.file) == ("rejected", "taken_down", "")
    name = f"{image.sha256[:16]}.jpg"
    assert list(classifier.folder.rglob(name)) == []
    for version in classifier.versions.all():
        assert name not in (version.folder / "manifest.jsonl").read_text()
    for artifact in Artifact.objects.filter(kind="dataset"):
        with TopFolder(artifact.file) as archive:
            assert not any(name in path for path in archive.names_below())
            assert image.image_url in archive.read_below("rejected.csv").decode()
            assert image.sha256 not in archive.read_below("images.csv").decode()
    image_class = image.image_class
    kept = image_class.images.filter(state="kept").count()
    assert (image_class.kept, image_class.rejected["taken_down"]) == (kept, 1)


def go_on(classifier: ClassifierRequest) -> None:
    """Have everything done that is still to be done, the training by a finished folder."""
    for _ in range(6):
        waiting = Job.objects.filter(state=JobState.QUEUED).first()
        if waiting is None:
            return
        if waiting.stage == "train" and not (classifier.folder / "runs/1").exists():
            write_run(classifier.versions.get(), rows_of(classifier))
        drain(waiting.queue)


def test_a_picture_taken_down_while_it_is_collected_is_never_kept_or_delivered(confirmed):
    folder = write_collection(confirmed, 33)
    sync = CollectionSync(confirmed, folder)
    sync.poll()
    image = taken_image(confirmed)
    call_command("takedown", image.image_url)
    sync.poll()
    drain("collect")  # the child's own rows still say that it is kept
    go_on(confirmed)
    confirmed.refresh_from_db()
    assert confirmed.status == "delivered"
    assert confirmed.versions.get().images == 65
    assert_gone(confirmed, image)


@pytest.mark.parametrize(
    ("state", "what"), [("collected", "page"), ("trained", "sha256"), ("packaged", "url")]
)
def test_every_stage_compares_what_it_has_with_what_was_taken_down(request, state, what):
    classifier = request.getfixturevalue(state)
    image = taken_image(classifier)
    digests = {
        "url": url_digest(image.image_url),
        "page": url_digest(image.page_url),
        "sha256": image.sha256,
    }
    # As by a command that has written this and not yet seen what the stage is making.
    TakenDown.keep_out("sha256" if what == "sha256" else "url", digests[what])
    go_on(classifier)
    classifier.refresh_from_db()
    assert classifier.status == "delivered"
    assert_gone(classifier, image)
    assert image.sha256 in takedowns.taken_down_digests()["hashes"]


def test_a_takedown_that_broke_off_anywhere_is_completed_by_the_next_round(packaged):
    image = taken_image(packaged)
    dataset = Artifact.objects.get(kind="dataset")
    hidden = dataset.file.with_name("hidden")
    dataset.file.rename(hidden)
    dataset.file.mkdir()  # so that it cannot be built again
    with pytest.raises(OSError, match=r"dataset\.zip"):
        call_command("takedown", image.image_url)
    image.refresh_from_db()
    assert image.state == "rejected"
    assert TakenDown.objects.filter(finished=None).count() == 2
    dataset.file.rmdir()
    hidden.rename(dataset.file)
    # And as versions before left it: the rows say it, and the files are all still there.
    collected = packaged.folder / "collect/images" / f"{image.sha256[:16]}.jpg"
    collected.write_bytes(b"picture")
    tasks.prune("picaisso")
    assert_gone(packaged, image)
    assert not TakenDown.objects.filter(finished=None).exists()
    call_command("takedown", image.image_url)
    assert_gone(packaged, image)


def test_what_was_begun_is_left_to_the_process_that_is_at_it(packaged):
    TakenDown.keep_out("url", url_digest("https://pictures.example/other.jpg"))
    with run_folder.exclusive(settings.DATA_DIR):
        takedowns.finish()
        assert TakenDown.objects.filter(finished=None).count() == 1
    takedowns.finish()
    assert not TakenDown.objects.filter(finished=None).exists()
