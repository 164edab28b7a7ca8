"""F15: what the disk damages is never served or packed, and is built again."""

import hashlib
import os
from pathlib import Path

import pytest
from django.test import Client

from requests_app import versions
from requests_app.models import Artifact, Job, JobState, Status
from tests.pipeline.folders import write_run
from tests.pipeline.stages import drain, rows_of

pytestmark = pytest.mark.django_db(transaction=True)


def flip(path: Path, at: int = -10) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


DAMAGES = {"a bit flipped": flip, "truncated": truncate}


def download(classifier, kind: str):
    client = Client(SERVER_NAME="127.0.0.1")
    return client.get(f"{classifier.get_absolute_url()}download/{kind}/")


@pytest.mark.parametrize("damage", DAMAGES)
def test_f15_a_damaged_file_is_not_sent_and_is_built_again(delivered, damage):
    artifacts = list(Artifact.objects.all())
    assert {"dataset", "croissant", "recipe", "model"} <= {artifact.kind for artifact in artifacts}
    for artifact in artifacts:
        DAMAGES[damage](artifact.file)
        answer = download(delivered, artifact.kind)
        assert answer.status_code == 503 and answer["Retry-After"]
        assert "built again" in answer.content.decode()
    assert Job.objects.filter(stage="rebuild").count() == 1, "once, however many ask"
    drain("train")
    for artifact in artifacts:
        answer = download(delivered, artifact.kind)
        assert hashlib.sha256(answer.getvalue()).hexdigest() == artifact.sha256
    delivered.refresh_from_db()
    assert delivered.status == Status.DELIVERED


def test_f15_what_cannot_be_built_again_is_said_and_never_sent(delivered):
    version = versions.latest_version(delivered)
    flip(version.folder / "model" / "model.onnx")
    assert download(delivered, "model").status_code == 503
    drain("train")
    assert Job.objects.get(stage="rebuild").state == JobState.FAILED
    answer = download(delivered, "model")
    assert answer.status_code == 503
    assert "cannot be built again" in answer.content.decode()
    assert download(delivered, "dataset").status_code == 200
    delivered.refresh_from_db()
    assert delivered.status == Status.DELIVERED


def test_f15_a_model_that_is_damaged_before_it_is_packed_is_trained_again(trained):
    version = versions.latest_version(trained)
    flip(version.folder / "model" / "model.onnx")
    drain("train")
    assert not Artifact.objects.exists()
    assert not (version.folder / "result.json").exists()
    assert Job.objects.filter(stage="train", state=JobState.QUEUED).count() == 1
    write_run(version, rows_of(trained))  # as the training does
    drain("train")
    drain("train")
    assert Artifact.objects.filter(kind="model").exists()


def test_f15_a_damaged_picture_is_not_packed_and_named(trained):
    image = versions.kept_images(trained).exclude(split="").first()
    flip(trained.folder / "collect" / image.file)
    drain("train")
    trained.refresh_from_db()
    assert trained.status in (Status.FAILED, Status.DELIVERED)
    assert image.file in Job.objects.get(stage="package").error
    assert not Artifact.objects.exists()


def test_f15_a_run_folder_that_is_damaged_before_its_training_is_made_anew(collected):
    version = versions.latest_version(collected)
    versions.write_run_folder(version)
    for name in ("manifest.jsonl", "config.json"):
        path = version.folder / name
        whole = path.read_bytes()
        flipped = bytes([whole[0] ^ 1]) + whole[1:]
        for damaged in (whole[: len(whole) // 2], flipped, b""):
            path.write_bytes(damaged)
            versions.write_run_folder(version)
            assert path.read_bytes() == whole
