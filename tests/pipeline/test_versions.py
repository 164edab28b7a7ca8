"""Dataset versions: the split that a training made is frozen and counted."""

import csv
import dataclasses
import hashlib
import io
from collections import Counter

import pytest

from requests_app import versions
from requests_app.models import (
    ImageUrl,
    Job,
    TrainingRun,
)
from tests.pipeline.folders import METRICS, write_run
from tests.pipeline.stages import (
    drain,
    open_dataset,
    rows_of,
)
from training import run_folder
from training.judgements import Judgement, read_judgements, write_judgements

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_training_freezes_the_split_and_is_recorded(trained):
    version = trained.versions.get()
    manifest_file = version.folder / "manifest.jsonl"
    assert version.manifest_sha256 == hashlib.sha256(manifest_file.read_bytes()).hexdigest()
    run = TrainingRun.objects.get()
    assert (run.metrics, run.backbone, run.notices) == (
        METRICS,
        "efficientnet_lite0",
        ["A notice."],
    )
    assert {i.split for i in ImageUrl.objects.filter(state="kept")} == {"train", "val", "test"}
    assert Job.objects.get(stage="package").queue == "train"


def test_a_picture_that_the_split_left_out_is_listed_with_its_reason(collected):
    rows = rows_of(collected)
    folder = write_run(collected.versions.get(), rows)
    frozen = run_folder.read_manifest(folder)
    frozen[0] = dataclasses.replace(frozen[0], split=None)
    frozen[1] = dataclasses.replace(frozen[1], split=None, group=None)
    run_folder.write_manifest(folder, frozen)
    drain("train")
    drain("train")
    with open_dataset() as archive:
        rejected = list(csv.DictReader(io.StringIO(archive.read_below("rejected.csv").decode())))
        assert Counter(row["reason"] for row in rejected) == {
            "too_small": 2,
            "near_duplicate": 1,
            "not_a_picture": 1,
        }
        assert len([name for name in archive.namelist() if name.endswith(".jpg")]) == 64
    cat = collected.classes.first()
    assert (cat.kept, cat.rejected) == (
        31,
        {"too_small": 1, "near_duplicate": 1, "not_a_picture": 1},
    )


def test_what_a_person_said_of_test_images_goes_into_the_next_version(trained):
    first = trained.versions.get()
    tested = [row for row in run_folder.read_manifest(first.folder) if row.split == "test"]
    judgements = {
        tested[0].file: Judgement("off-topic"),
        tested[1].file: Judgement("right", tested[1].class_id),
    }
    write_judgements(first.folder, judgements)
    ImageUrl.objects.filter(file=tested[1].file).update(state="removed")
    second = versions.create_version(trained)
    for _ in range(2):
        versions.write_run_folder(second)
    del judgements[tested[1].file]
    assert read_judgements(second.folder) == judgements
    splits = {row.file: row.split for row in run_folder.read_manifest(second.folder)}
    assert splits[tested[0].file] == "test" and tested[1].file not in splits


def test_titles_and_the_text_image_model_reach_the_training(trained, settings):
    settings.TEXT_IMAGE_MODEL = "/models/pair"
    version = versions.create_version(trained)
    versions.write_run_folder(version)
    assert run_folder.read_config(version.folder).text_image_model == "/models/pair"
    titles = {row.title for row in run_folder.read_manifest(version.folder)}
    assert titles == set(ImageUrl.objects.filter(state="kept").values_list("title", flat=True))
    assert any(titles)
