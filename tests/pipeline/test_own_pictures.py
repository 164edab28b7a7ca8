"""Pictures that a person adds, in the next version: learned from, and no test picture moves."""

import io

import pytest
from PIL import Image

from requests_app import lifecycle, own_pictures, versions
from requests_app.models import ImageUrl
from requests_app.prediction import Refusal
from tests.pipeline.folders import image_bytes, write_run
from tests.pipeline.stages import drain
from training import run_folder
from training.duplicates import fingerprint
from training.images.decode import read_image
from training.images.split import assign_groups, find_near_duplicates, split_rows

pytestmark = pytest.mark.django_db(transaction=True)


def split_of(version) -> list[run_folder.ImageRow]:
    """Split a version's pictures as its training does, by their real fingerprints."""
    versions.write_run_folder(version)
    rows = run_folder.read_manifest(version.folder)
    known = [fingerprint(read_image(version.folder / row.file)) for row in rows]
    copies = find_near_duplicates(range(len(rows)), known, None)
    return split_rows(run_folder.read_config(version.folder), assign_groups(rows, copies))


def copy_of(image: ImageUrl) -> bytes:
    """The same picture, smaller and in another format."""
    file = io.BytesIO()
    path = image.image_class.request.folder / "collect" / image.file
    Image.open(path).resize((60, 45)).save(file, "PNG")
    return file.getvalue()


def test_added_pictures_are_trained_on_and_every_test_picture_stays(delivered, settings):
    settings.MIN_SIDE = 32
    before = {
        row.file: row.split for row in run_folder.read_manifest(delivered.versions.get().folder)
    }
    known = ImageUrl.objects.filter(state="kept")
    tested = known.filter(split="test").first()
    trained = known.filter(split="train", image_class__number=1).first()
    validated = known.filter(split="val").first()
    for number in range(8):
        added = own_pictures.add(delivered, 1 + number % 2, image_bytes(9000 + number), "person")
        assert not isinstance(added, Refusal)
    assert own_pictures.add(delivered, 1, copy_of(trained), "person").action == "add"
    assert own_pictures.add(delivered, 1, copy_of(validated), "person").action == "add"
    refused = own_pictures.add(delivered, 1, copy_of(tested), "person")
    assert refused == Refusal(own_pictures.COPY_OF_TEST)
    # Even one that slipped in, as only the network's features tell that it is a copy.
    own_pictures._fingerprint_of.cache_clear()
    ImageUrl.objects.filter(pk=tested.pk).update(split="train")
    assert own_pictures.add(delivered, 1, copy_of(tested), "person").action == "add"
    ImageUrl.objects.filter(pk=tested.pk).update(split="test")

    assert versions.changes(delivered).added == 11
    assert lifecycle.retrain(delivered)
    version = versions.latest_version(delivered)
    rows = split_of(version)
    after = {row.file: row.split for row in rows}
    assert {file: after[file] for file in before} == before
    own = [row.split for row in rows if row.source == "own"]
    assert sorted(own, key=str) == [None, None, *["train"] * 9]

    write_run(version, rows, keep_splits=True)
    run_folder.write_manifest(version.folder, rows)
    for queue in ("train", "train", "picaisso"):
        drain(queue)
    left_out = ImageUrl.objects.filter(source="own", state="rejected")
    assert {(image.reason, image.split) for image in left_out} == {("near_duplicate", "")}
    assert ImageUrl.objects.filter(source="own", split="train", state="kept").count() == 9
    assert [image_class.kept for image_class in delivered.classes.all()] == [33, 33]


def test_what_a_source_brings_too_is_not_in_a_version_twice(delivered, settings):
    settings.MIN_SIDE = 32
    own_pictures.add(delivered, 1, image_bytes(9000), "person")
    own = ImageUrl.objects.get(source="own")
    found = ImageUrl.objects.filter(state="kept", split="train").exclude(source="own").first()
    ImageUrl.objects.filter(pk=found.pk).update(sha256=own.sha256)
    versions.write_run_folder(versions.create_version(delivered))
    own.refresh_from_db()
    assert (own.state, own.reason) == ("rejected", "duplicate")
