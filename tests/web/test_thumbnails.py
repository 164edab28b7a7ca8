"""The thumbnails of kept images: who gets them, and that they never leave the collection."""

import io

import pytest
from PIL import Image

from requests_app.models import ClassifierRequest, ImageUrl
from tests.web.conftest import (
    delivered,
    keep_picture,
    running,
)
from training.metrics import Metrics


def thumbnail_path(classifier: ClassifierRequest, image: ImageUrl) -> str:
    return f"{classifier.get_absolute_url()}images/{image.pk}.jpg"


def test_a_thumbnail_is_small_made_once_and_kept(client):
    classifier = running()
    image = keep_picture(classifier.classes.first(), 1)
    response = client.get(thumbnail_path(classifier, image))
    content = b"".join(response.streaming_content)
    assert response.headers["Content-Type"] == "image/jpeg"
    assert Image.open(io.BytesIO(content)).size == (256, 128)
    kept = list((classifier.folder / "thumbnails").iterdir())
    assert [file.name for file in kept] == [f"{image.pk}.jpg"]
    (classifier.folder / "collect" / image.file).unlink()
    assert b"".join(client.get(thumbnail_path(classifier, image)).streaming_content) == content


def test_only_kept_pictures_of_this_very_request_are_shown(client):
    classifier = running()
    other = running()
    image = keep_picture(classifier.classes.first(), 1)
    foreign = keep_picture(other.classes.first(), 2)
    assert client.get(thumbnail_path(classifier, foreign)).status_code == 404
    ImageUrl.objects.filter(pk=image.pk).update(state="rejected")
    assert client.get(thumbnail_path(classifier, image)).status_code == 404


def test_a_picture_that_is_not_on_disk_is_a_404(client):
    classifier = running()
    image = keep_picture(classifier.classes.first(), 1)
    (classifier.folder / "collect" / image.file).unlink()
    assert client.get(thumbnail_path(classifier, image)).status_code == 404


def test_a_broken_picture_is_a_404(client):
    classifier = running()
    image = keep_picture(classifier.classes.first(), 1)
    (classifier.folder / "collect" / image.file).write_bytes(b"not a picture")
    assert client.get(thumbnail_path(classifier, image)).status_code == 404


@pytest.mark.parametrize("digits", [20, 5000])
def test_a_picture_with_an_endless_number_is_a_404(client, digits):
    assert client.get(f"{running().get_absolute_url()}images/{'9' * digits}.jpg").status_code == 404


@pytest.mark.parametrize("file", ["../../secret_key", "/etc/passwd", "", "images"])
def test_a_thumbnail_never_leaves_the_collection(client, site, file):
    classifier = running()
    image = keep_picture(classifier.classes.first(), 1)
    Image.new("RGB", (10, 10)).save(site / "secret_key", "JPEG")
    ImageUrl.objects.filter(pk=image.pk).update(file=file)
    assert client.get(thumbnail_path(classifier, image)).status_code == 404


def test_the_figures_of_these_tests_have_every_key_of_a_real_metrics_file():
    run = delivered().versions.get().run
    assert set(run.metrics) == Metrics.__required_keys__
