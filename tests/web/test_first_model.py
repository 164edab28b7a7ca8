"""The card about the first model on a request's page: when it is there, and what it says."""

import re

import pytest
from django.urls import reverse
from django.utils import timezone

from requests_app import first_model
from requests_app.models import ClassifierRequest, DatasetVersion, TrainingRun
from requests_app.prediction import usable_model
from tests.web.conftest import (
    STRANGER,
    delivered,
    keep_picture,
    page_of,
    post,
    running,
    words,
)
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
    outlook = "It is trained again as more pictures come in."
    assert f"A first model is ready {SENTENCE} {outlook}" in text
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


@pytest.mark.parametrize(
    ("hits", "said"),
    [
        (80, "It improves as pictures come in (with 40 pictures it was 90 %)."),
        (73, "It stays about as good (with 40 pictures it was 90 %, within the interval)."),
        (70, "It stays about as good (with 40 pictures it was 90 %, within the interval)."),
        (60, "It is worse than before (with 40 pictures it was 90 %): the later pictures are"),
    ],
)
def test_the_card_says_whether_the_curve_rises_stays_or_falls(client, classifier, hits, said):
    add_round(classifier, 40, 80, hits)
    assert said in words(page_of(client, classifier))


def fine_tuning(progress: dict[str, object]) -> ClassifierRequest:
    """Return a request whose head can be used while the network is fine-tuned."""
    made = running()
    version = DatasetVersion.objects.create(request=made, number=1, images=100)
    TrainingRun.objects.create(version=version, backbone="efficientnet_lite0")
    made.jobs.update(stage="train", progress={"stage": "finetune", **progress})
    result = {"images": 100, "hits": 88, "accuracy": 0.88, "interval": [0.8, 0.93]}
    (version.folder / "head").mkdir(parents=True)
    run_folder.write_json(version.folder / "head" / "first.json", result)
    return made


def test_the_head_is_version_one_while_fine_tuning_goes_on(client):
    classifier = fine_tuning({"eta_seconds": 230.0})
    text = words(page_of(client, classifier))
    assert "Version 1 is ready With 100 pictures it is right on 88 of 100" in text
    assert "A better one may follow in about 4 minutes. Try it on your pictures" in text
    usable = usable_model(classifier)
    assert usable is not None and usable.number == 1
    assert usable.folder == classifier.versions.get().folder / "head"
    assert "before fine-tuning" in usable.warning
    TrainingRun.objects.update(finished=timezone.now())
    assert usable_model(classifier) is None
    assert "Version 1 is" not in page_of(client, classifier)


def test_fine_tuning_is_ended_by_a_button_once(holder):
    classifier = fine_tuning({})
    page = page_of(holder, classifier)
    assert "A better one may follow in a few minutes." in words(page)
    assert f'action="{reverse("finish", args=[classifier.token])}"' in page
    assert "Stop and keep the best so far" in page
    for _ in range(2):
        assert post(holder, f"{classifier.get_absolute_url()}finish/").status_code == 303
    assert classifier.jobs.get().finish_requested
    event = classifier.events.get(reason="finish early")
    assert (event.old, event.new, event.actor) == ("running", "running", "person")
    page = page_of(holder, classifier)
    assert "Fine-tuning ends now; the best so far is measured and delivered." in words(page)
    assert "Stop and keep" not in page
    classifier.jobs.update(progress={"stage": "evaluate"})
    post(holder, f"{classifier.get_absolute_url()}finish/")
    assert "what it came to is being measured" in words(page_of(holder, classifier))


def test_collecting_is_ended_where_every_class_has_enough(holder, settings):
    settings.MIN_IMAGES = 2
    classifier = running()
    keep_picture(classifier.classes.first(), 1)
    reason = "Training needs at least 2 pictures of each class; “cat” has 1 and “dog” has 0 so far."
    assert reason in words(page_of(holder, classifier))
    post(holder, f"{classifier.get_absolute_url()}finish/")
    assert not classifier.jobs.get().finish_requested
    assert words(page_of(holder, classifier)).count(reason) == 2, "said to who asked for it"
    for number, image_class in enumerate(classifier.classes.all(), 2):
        keep_picture(image_class, number)
        keep_picture(image_class, number + 10)
    page = page_of(holder, classifier)
    assert "Stop collecting and train with what is there" in page
    post(holder, f"{classifier.get_absolute_url()}finish/")
    assert classifier.jobs.get().finish_requested
    assert "Collecting ends now; training begins" in words(page_of(holder, classifier))
    classifier.jobs.update(state="queued", finish_requested=False)
    post(holder, f"{classifier.get_absolute_url()}finish/")
    assert "nothing that could be ended early" in words(page_of(holder, classifier))


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
