"""F14: a disk that is full while pictures, checkpoints and zips are written."""

import hashlib
import subprocess
import sys

import pytest
import torch
from django.test import Client

from requests_app import lifecycle
from requests_app.delivery.dataset_zip import publish
from requests_app.models import Artifact, Job, Status
from tests.disks import resize, small_disk
from tests.pipeline.stages import drain
from tests.replicas.pictures_host import PictureHost
from tests.scraping.conftest import environment, repository
from training.finetuning.checkpoint import read_checkpoint, write_checkpoint

PICTURES = 60


def test_f14_a_disk_that_is_full_while_pictures_come_loses_none_that_is_there(tmp_path):
    disk = tmp_path / "disk"
    listed = tmp_path / "urls.txt"
    with small_disk(disk, 300), PictureHost() as host:
        listed.write_text("\n".join(host.picture_url(number) for number in range(PICTURES)))
        command = [sys.executable, "-m", "scraping", "download", str(listed), "--min-side", "64"]
        command += ["--out", str(disk / "out"), "--allow-private-host", host.host]

        def download() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command, cwd=repository(), env=environment(), capture_output=True, text=True
            )

        done = download()
        assert done.returncode == 1, done.stderr
        assert "No space left" in done.stderr and "Traceback" not in done.stderr
        for image in (disk / "out" / "images").glob("*.jpg"):
            assert hashlib.sha256(image.read_bytes()).hexdigest()[:16] == image.stem
        resize(disk, 40_000)
        done = download()
        assert done.returncode == 0, done.stderr
        assert len(list((disk / "out" / "images").glob("*.jpg"))) == PICTURES


def test_f14_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, 400):
        path = disk / "finetune.pt"
        write_checkpoint(path, {"epoch": 1, "weights": torch.ones(20_000)})
        later = {"epoch": 2, "weights": torch.ones(100_000)}
        with pytest.raises(OSError, match="No space left"):
            write_checkpoint(path, later)
        assert [file.name for file in disk.iterdir()] == [path.name]
        assert (read_checkpoint(path) or {})["epoch"] == 1
        resize(disk, 4000)
        write_checkpoint(path, later)
        assert (read_checkpoint(path) or {})["epoch"] == 2


def test_f14_a_zip_that_does_not_fit_leaves_the_published_one(tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, 300):
        target = disk / "dataset.zip"
        publish([("a.jpg", bytes(100_000))], target, "top")
        published = target.read_bytes()
        with pytest.raises(OSError, match="No space left"):
            publish([("a.jpg", bytes(250_000))], target, "top")
        assert target.read_bytes() == published
        assert [file.name for file in disk.iterdir()] == [target.name]


@pytest.mark.django_db(transaction=True)
def test_f14_a_disk_that_is_full_while_zips_are_packed_is_said_and_a_retry_delivers(trained):
    disk = trained.folder / "artifacts"
    with small_disk(disk, 60):
        for _ in range(3):
            drain("train")
        trained.refresh_from_db()
        assert trained.status == Status.FAILED
        assert trained.error["reason"] == "The server's disk is full."
        assert "make room" in trained.error["remedy"]
        assert not Artifact.objects.exists()
        assert not [path for path in disk.rglob("*") if path.is_file()]
        assert Job.objects.get(stage="package").attempt == 3
        resize(disk, 40_000)
        assert lifecycle.retry(trained)
        drain("train")
        client = Client(SERVER_NAME="127.0.0.1")
        answer = client.get(f"{trained.get_absolute_url()}download/dataset/")
        digest = hashlib.sha256(answer.getvalue()).hexdigest()
        assert digest == Artifact.objects.get(kind="dataset").sha256
