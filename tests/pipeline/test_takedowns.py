"""Images that are taken down are gone everywhere and stay out."""

import hashlib
import io
import json

import pytest
from django.core.management import CommandError, call_command

from requests_app import takedowns
from requests_app.models import (
    Artifact,
    ImageUrl,
    OwnCheck,
    TakenDown,
)
from tests.pipeline.stages import TopFolder

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
