"""``model.zip`` and ``model.pth``: put together of the model folder, and lying on disk once."""

import hashlib
import shutil
import subprocess
import zipfile

import pytest
from django.test import Client

from requests_app import versions
from requests_app.delivery.model_zip import open_artifact
from requests_app.models import Artifact, Job, JobState
from tests.pipeline.stages import TopFolder, drain
from training.spliced import PTH_SPLICE, Piece, write_splice

pytestmark = pytest.mark.django_db(transaction=True)
WEIGHTS = bytes(range(256)) * 2000


@pytest.fixture
def with_weights(packaged):
    """A packaged request whose model folder has weights and a report, and what makes its pth."""
    version = versions.latest_version(packaged)
    model = version.folder / "model"
    (model / "model.safetensors").write_bytes(WEIGHTS)
    (model / "report.html").write_text("<p>right on 9 of 10</p>" * 99)
    parts = [b"PK", Piece("model.safetensors", 256, 1000), b"end"]
    write_splice(version.folder / PTH_SPLICE, parts, model)
    Job.objects.filter(stage="package").update(state=JobState.QUEUED)
    drain("train")
    return version


def test_every_reader_of_zips_reads_it_and_its_weights_lie_on_disk_once(with_weights, tmp_path):
    artifact = Artifact.objects.get(kind="model")
    with open_artifact(artifact) as file:
        content = file.read()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (artifact.bytes, artifact.sha256)
    assert artifact.file.stat().st_size < 5000
    whole = tmp_path / "model.zip"
    whole.write_bytes(content)
    with TopFolder(whole) as archive:
        assert archive.testzip() is None
        assert archive.read_below("model.safetensors") == WEIGHTS
        assert archive.read_below("report.html").startswith(b"<p>right on 9")
        assert all(info.external_attr >> 16 == 0o100644 for info in archive.infolist())
    unzip = shutil.which("unzip")
    if unzip:
        tested = subprocess.run([unzip, "-t", whole], capture_output=True, text=True)
        assert tested.returncode == 0 and "No errors" in tested.stdout, tested.stdout


def test_both_are_downloaded_whole_and_from_any_byte_on(with_weights):
    client = Client(SERVER_NAME="127.0.0.1")
    for kind, name in (("model", "cat-dog-model.zip"), ("pth", "cat-dog-model.pth")):
        artifact = Artifact.objects.get(kind=kind)
        address = f"{with_weights.request.get_absolute_url()}download/{kind}/"
        whole = client.get(address)
        content = whole.getvalue()
        assert hashlib.sha256(content).hexdigest() == artifact.sha256
        assert whole["Content-Disposition"] == f'attachment; filename="picaisso-{name}"'
        headers = {"Range": "bytes=300-399", "If-Range": whole["ETag"]}
        part = client.get(address, headers=headers)
        assert part.status_code == 206 and part.getvalue() == content[300:400]
        head = client.head(address)
        assert head["Content-Length"] == str(artifact.bytes) == str(len(content))
        assert client.get(address, headers={"If-None-Match": whole["ETag"]}).status_code == 304
    assert content == b"PK" + WEIGHTS[256:1256] + b"end"
    (with_weights.folder / "model" / "model.safetensors").unlink()
    assert client.get(address).status_code == 404


def test_a_changed_report_is_in_the_zip_when_it_is_built_again_and_not_before(with_weights):
    (with_weights.folder / "model" / "report.html").write_text("taken down")
    artifact = Artifact.objects.get(kind="model")
    with TopFolder(open_artifact(artifact)) as archive:
        assert archive.testzip() is None
        assert archive.read_below("report.html").startswith(b"<p>right")
    versions.build_model_again(artifact)
    artifact.refresh_from_db()
    with TopFolder(open_artifact(artifact)) as archive:
        assert archive.read_below("report.html") == b"taken down"


def test_a_whole_zip_of_an_earlier_version_is_delivered_and_gives_way_when_built_again(packaged):
    artifact = Artifact.objects.get(kind="model")
    earlier = artifact.file.with_name("model.zip")
    with zipfile.ZipFile(earlier, "w") as archive:
        archive.writestr("model.onnx", b"whole")
    path = artifact.path.removesuffix(".splice")
    digest = hashlib.sha256(earlier.read_bytes()).hexdigest()
    Artifact.objects.filter(pk=artifact.pk).update(path=path, sha256=digest)
    artifact.refresh_from_db()
    with open_artifact(artifact) as file:
        assert file.read() == earlier.read_bytes()
    versions.build_model_again(artifact)
    artifact.refresh_from_db()
    assert artifact.file.name == "model.zip.splice" and not earlier.exists()
