"""The card about the first model on a request's page: when it is there, and what it says."""

import re

import pytest
from django.urls import reverse
from django.utils import timezone

from requests_app import first_model
from requests_app.models import ClassifierRequest, DatasetVersion, TrainingRun
from tests.web.conftest import STRANGER, delivered, page_of, running, words
from training import run_folder
from training.metrics import wilson_interval

SENTENCE = (
    "With 40 pictures the first model is right on 36 of 40 (90 %, 77 to 96 %) by cross-validation."
)


def add_round(classifier: ClassifierRequest, number: int, images: int, hits: int) -> None:
    """Leave the files of a finished round."""
    folder = classifier.folder / "first" / str(number)
    (folder / "model").mkdir(parents=True)
    result = {
        "images": images,
        "hits": hits,
        "n": images,
        "accuracy": hits / images,
        "interval": list(wilson_interval(hits, images)),
    }
    run_folder.write_json(folder / "first.json", result)


@pytest.fixture
def classifier() -> ClassifierRequest:
    """A request that is being collected, with the first round behind it."""
    made = running()
    add_round(made, 20, 40, 36)
    return made


def test_the_page_says_what_the_first_model_can_and_leads_to_trying_it(client, classifier):
    page = page_of(client, classifier)
    text = words(page)
    assert f"A first model is ready {SENTENCE} It improves as pictures come in." in text
    assert f'href="{reverse("try", args=[classifier.token])}"' in page
    assert page.count('class="growth-point"') == 1


def test_the_curve_grows_by_a_point_with_its_interval_for_each_round(client, classifier):
    add_round(classifier, 40, 83, 79)
    add_round(classifier, 80, 170, 168)
    page = page_of(client, classifier)
    assert page.count('class="growth-point"') == page.count('class="growth-interval"') == 3
    assert "With 170 pictures the first model is right on 168 of 170 (99 %, 96 to 99.7 %)" in page
    assert "40 pictures: 90 %, 77 to 96 %; 83 pictures: 95 %, 88 to 98 %; 170 pictures" in page
    heights = [float(y) for y in re.findall(r'growth-point" cx="[\d.]+" cy="([\d.]+)"', page)]
    assert heights == sorted(heights, reverse=True), "better stands higher"
    assert "style=" not in page


def test_the_polled_part_changes_with_a_new_round_and_not_before(client, classifier):
    address = reverse("progress", args=[classifier.token])
    first = client.get(address)
    assert SENTENCE in words(first.content.decode())
    known = {"If-None-Match": first.headers["ETag"]}
    assert client.get(address, headers=known).status_code == 304
    add_round(classifier, 40, 80, 76)
    assert client.get(address, headers=known).status_code == 200


def test_without_a_finished_round_there_is_no_card(client):
    classifier = running()
    (classifier.folder / "first" / "20").mkdir(parents=True)
    assert "first model" not in page_of(client, classifier)


def test_while_the_final_model_is_trained_the_card_does_not_promise_more_pictures(
    client, classifier
):
    DatasetVersion.objects.create(request=classifier, number=1, images=40)
    text = words(page_of(client, classifier))
    assert f"{SENTENCE} All pictures are here now: the final model is next." in text


def test_once_a_version_is_measured_there_is_neither_card_nor_first_model(client, classifier):
    version = DatasetVersion.objects.create(request=classifier, number=1, images=40)
    TrainingRun.objects.create(
        version=version, backbone="efficientnet_lite0", finished=timezone.now()
    )
    assert first_model.newest_folder(classifier) is None
    assert "first model" not in page_of(client, classifier)
    done = delivered()
    add_round(done, 20, 40, 36)
    assert "first model" not in page_of(client, done)


def test_the_card_is_for_holders_of_the_link_and_for_nobody_else(client, admin_client, classifier):
    address = reverse("progress", args=[classifier.token])
    assert SENTENCE in words(client.get(address).content.decode())
    assert SENTENCE in words(admin_client.get(address).content.decode())
    assert client.get(reverse("progress", args=[STRANGER])).status_code == 404
    assert admin_client.get(reverse("progress", args=[STRANGER])).status_code == 404
