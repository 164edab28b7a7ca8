"""What a person decides about images, undoes, and trains on again."""

import csv
import io

import numpy as np
import pytest

from requests_app import curation, lifecycle, versions
from requests_app.models import Artifact, Decision, ImageState, ImageUrl, Job, Status, TrainingRun
from requests_app.workers.collection_sync import CollectionSync
from tests.pipeline.folders import write_answers, write_run
from tests.pipeline.stages import TopFolder, drain, rows_of
from training import run_folder
from training.run_folder import RunError

pytestmark = pytest.mark.django_db(transaction=True)


def keys(classifier, **filters) -> list[int]:
    images = ImageUrl.objects.of_request(classifier).filter(**filters)
    return list(images.values_list("pk", flat=True))


def kept(classifier) -> int:
    return versions.kept_images(classifier).count()


def train_again(classifier) -> None:
    """Run the next training with the models' answers that `write_run` makes up."""
    assert lifecycle.retrain(classifier)
    version = versions.latest_version(classifier)
    versions.write_run_folder(version)
    rows = run_folder.read_manifest(version.folder)
    write_run(version, rows, keep_splits=True)
    for queue in ("train", "train", "picaisso"):
        drain(queue)
    classifier.refresh_from_db()


def test_removed_images_leave_the_next_version_and_come_back_with_undo(delivered):
    chosen = keys(delivered, state="kept")[:3]
    decision = curation.remove(delivered, chosen, "person")
    assert (decision.action, len(decision.before), kept(delivered)) == ("remove", 3, 63)
    assert versions.changes(delivered).removed == 3
    assert curation.undo(delivered) == decision
    assert (kept(delivered), versions.changes(delivered).count) == (66, 0)
    assert curation.undo(delivered) is None


def test_decisions_are_undone_from_the_last_to_the_first(delivered):
    first, second = keys(delivered, state="kept", image_class__number=1)[:2]
    curation.remove(delivered, [first], "person")
    curation.relabel(delivered, [second], 2, "person")
    curation.restore(delivered, [first], "person")
    states = []
    for _ in range(3):
        curation.undo(delivered)
        now = versions.changes(delivered)
        states.append((now.removed, now.relabelled))
    assert states == [(1, 1), (1, 0), (0, 0)]
    assert Decision.objects.filter(undone=None).count() == 0


def test_an_image_relabelled_to_its_own_class_is_as_it_was_found(delivered):
    key = keys(delivered, state="kept", image_class__number=1)[0]
    curation.relabel(delivered, [key], 2, "person")
    assert ImageUrl.objects.get(pk=key).current_class.name == "dog"
    curation.relabel(delivered, [key], 1, "person")
    image = ImageUrl.objects.get(pk=key)
    assert (image.label, image.current_class.name) == (None, "cat")
    assert curation.relabel(delivered, [key], 1, "person") is None


def test_images_of_others_and_rejected_ones_cannot_be_decided_about(delivered):
    rejected = keys(delivered, state="rejected")
    assert rejected and curation.remove(delivered, rejected, "person") is None
    assert curation.relabel(delivered, rejected, 2, "person") is None
    assert curation.remove(delivered, [10**9], "person") is None
    assert curation.relabel(delivered, keys(delivered, state="kept"), 7, "person") is None
    assert not Decision.objects.exists()


def test_a_picture_that_a_person_removed_stays_removed_when_the_search_goes_on(delivered):
    key = keys(delivered, state="kept")[0]
    curation.remove(delivered, [key], "person")
    CollectionSync(delivered, delivered.folder / "collect").poll()
    assert ImageUrl.objects.get(pk=key).state == ImageState.REMOVED


def test_training_again_needs_changes_and_enough_pictures(delivered):
    assert "Nothing has changed" in lifecycle.obstacle_to_training(delivered)
    assert not lifecycle.retrain(delivered)
    cats = keys(delivered, state="kept", image_class__number=1)
    curation.remove(delivered, cats[:25], "person")
    assert "“cat” has 8 pictures left" in lifecycle.obstacle_to_training(delivered)
    assert not lifecycle.retrain(delivered)
    curation.restore(delivered, cats, "person")
    tested = keys(delivered, state="kept", image_class__number=1, split="test")
    curation.remove(delivered, tested[2:], "person")
    assert "“cat” has 2 test pictures left" in lifecycle.obstacle_to_training(delivered)
    assert not lifecycle.retrain(delivered)
    curation.restore(delivered, tested[2:3], "person")
    assert lifecycle.retrain(delivered)
    assert "when the work that goes on has ended" in lifecycle.obstacle_to_training(delivered)


def test_the_second_version_keeps_the_split_and_the_first_stays_as_it_was(delivered):
    before = {row.file: row.split for row in manifest(delivered, 1)}
    first_zip = Artifact.objects.get(version__number=1, kind="dataset")
    digest = first_zip.sha256
    removed = keys(delivered, state="kept", split="train")[:2]
    moved = keys(delivered, state="kept", split="train", image_class__number=1)[5]
    curation.remove(delivered, removed, "person")
    curation.relabel(delivered, [moved], 2, "person")
    train_again(delivered)
    assert delivered.status == Status.DELIVERED
    after = {row.file: row for row in manifest(delivered, 2)}
    assert len(after) == len(before) - 2
    assert all(row.split == before[file] for file, row in after.items())
    file = ImageUrl.objects.get(pk=moved).file
    assert after[file].class_id == "c002"
    images = versions.dataset_images(version_of(delivered, 1), manifest(delivered, 1))
    assert len(images) == len(before)
    assert next(entry for entry in images if entry.image.file == file).class_id == "c001"
    first_zip.refresh_from_db()
    assert first_zip.sha256 == digest and first_zip.file.is_file()
    second = Artifact.objects.get(version__number=2, kind="dataset")
    with TopFolder(second.file) as archive:
        table = csv.DictReader(io.StringIO(archive.read_below("images.csv").decode()))
        delivered_rows = {row["file_name"].rpartition("/")[2]: row for row in table}
    assert delivered_rows[file.rpartition("/")[2]]["class"] == "dog"


def test_a_removed_image_that_comes_back_in_a_third_version_has_the_split_of_the_first(delivered):
    tested = ImageUrl.objects.of_request(delivered).filter(split="test").first()
    curation.remove(delivered, [tested.pk], "person")
    train_again(delivered)
    curation.restore(delivered, [tested.pk], "person")
    train_again(delivered)
    row = next(row for row in manifest(delivered, 3) if row.file == tested.file)
    assert row.split == "test"


def test_both_models_are_compared_on_the_test_images_that_both_have(delivered):
    answer(delivered, 1, wrong=4)
    curation.remove(delivered, keys(delivered, state="kept", split="train")[:1], "person")
    curation.remove(delivered, keys(delivered, state="kept", split="test")[:1], "person")
    assert lifecycle.retrain(delivered)
    version = versions.latest_version(delivered)
    versions.write_run_folder(version)
    write_run(version, run_folder.read_manifest(version.folder), keep_splits=True)
    answer(delivered, 2, wrong=1)
    drain("train")
    comparison = TrainingRun.objects.get(version=version).comparison
    tested = [row for row in manifest(delivered, 2) if row.split == "test"]
    assert comparison["against"] == 1 and comparison["images"] == len(tested)
    assert comparison["right_after"] == len(tested) - 1
    mended = len(comparison["mended"]) - len(comparison["broken"])
    assert comparison["right_after"] - comparison["right_before"] == mended
    assert 0 < comparison["p_value"] <= 1


def test_a_cancelled_second_training_leaves_the_first_delivered(delivered):
    curation.remove(delivered, keys(delivered, state="kept")[:1], "person")
    lifecycle.retrain(delivered)
    assert lifecycle.cancel(delivered)
    delivered.refresh_from_db()
    assert delivered.status == Status.DELIVERED
    assert Job.objects.get(stage="train", state="cancelled")
    assert [version.number for version in versions.finished_versions(delivered)] == [1]
    assert lifecycle.retrain(delivered)
    assert versions.latest_version(delivered).number == 3


def test_what_is_decided_during_a_training_counts_in_the_next_one(delivered):
    curation.remove(delivered, keys(delivered, state="kept")[:1], "person")
    lifecycle.retrain(delivered)
    version = versions.latest_version(delivered)
    versions.write_run_folder(version)
    rows = run_folder.read_manifest(version.folder)
    meanwhile = keys(delivered, state="kept")[0]
    curation.remove(delivered, [meanwhile], "person")
    write_run(version, rows, keep_splits=True)
    for queue in ("train", "train", "picaisso"):
        drain(queue)
    assert ImageUrl.objects.get(pk=meanwhile).state == ImageState.REMOVED
    assert len(versions.dataset_images(version, manifest(delivered, 2))) == 65
    assert versions.changes(delivered).removed == 1


def test_test_images_are_judged_in_an_order_that_stays(delivered):
    first = curation.next_to_judge(delivered)
    assert first == curation.next_to_judge(delivered)
    curation.judge(delivered, first.pk, "other class", None, "person")
    first.refresh_from_db()
    other = 3 - first.image_class.number
    assert (first.judged, first.judged_number) == ("other class", other)
    second = curation.next_to_judge(delivered)
    assert second.pk != first.pk
    curation.judge(delivered, second.pk, "off-topic", 1, "person")
    assert delivered.looked_at == "A person has looked at 2 of the 12 test pictures."
    said = versions.judgements_of(version_of(delivered, 1), manifest(delivered, 1))
    assert said[first.file].label == f"c{other:03d}" and said[second.file].label == ""
    curation.undo(delivered)
    assert curation.next_to_judge(delivered) == second


def test_images_outside_the_test_split_are_not_judged(delivered):
    key = keys(delivered, state="kept", split="train")[0]
    assert curation.judge(delivered, key, "right", None, "person") is None


def test_a_judgement_follows_the_image_into_the_next_version(delivered):
    tested = ImageUrl.objects.of_request(delivered).filter(split="test").first()
    other = 3 - tested.image_class.number
    curation.judge(delivered, tested.pk, "other class", None, "person")
    curation.relabel(delivered, [tested.pk], other, "person")
    lifecycle.retrain(delivered)
    version = versions.latest_version(delivered)
    versions.write_run_folder(version)
    said = versions.judgements_of(version, run_folder.read_manifest(version.folder))
    assert said[tested.file].state == "right"


def test_judgements_cannot_be_counted_in_a_run_of_an_earlier_version(delivered):
    with pytest.raises(RunError, match=r"predictions\.csv"):
        versions.count_judgements(version_of(delivered, 1))


def manifest(classifier, number):
    return run_folder.read_manifest(version_of(classifier, number).folder)


def version_of(classifier, number):
    return classifier.versions.get(number=number)


def answer(classifier, number: int, wrong: int) -> None:
    """Let a version's model have so many test images wrong."""
    version = version_of(classifier, number)
    write_answers(version, np.random.default_rng(number), wrong)


def test_the_rows_of_a_collected_request_are_its_kept_images(collected):
    assert len(rows_of(collected)) == 66
