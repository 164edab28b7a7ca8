"""The gallery: filters, decisions with and without a script, and a picture up close."""

import json
import re

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from requests_app.models import ClassifierRequest, ImageState, ImageUrl
from tests.web.conftest import delivered, keep_picture, post, running, trained, words
from training.explanations import LearnedImage, write_neighbours

JSON = {"HTTP_ACCEPT": "application/json"}


def place(classifier: ClassifierRequest, path: str = "") -> str:
    return f"{classifier.get_absolute_url()}images/{path}"


def reject(image_class, number: int) -> ImageUrl:
    image = keep_picture(image_class, number)
    image.state = ImageState.REJECTED
    image.reason = "too_small"
    image.detail = "90 x 60 px"
    image.file = ""
    image.save()
    return image


@pytest.fixture
def shown() -> ClassifierRequest:
    """A delivered request: of each class a picture to train and one to test."""
    classifier = delivered("cat", "dog")
    for number, image in enumerate(ImageUrl.objects.order_by("pk")):
        image.split = "test" if number % 2 else "train"
        image.version_number = image.image_class.number
        image.license = "by-sa" if number % 2 else ""
        image.save()
    return classifier


def test_every_kept_picture_has_its_tile_and_filters_stand_in_the_address(client, shown):
    page = client.get(place(shown)).content.decode()
    assert page.count('class="tile kept"') == 4
    first = ImageUrl.objects.order_by("pk").first()
    assert f"/images/{first.pk}.jpg" in page
    for query, count in (
        ("?class=1", 2),
        ("?class=1&split=test", 1),
        ("?source=openverse", 2),
        ("?license=by-sa", 2),
        ("?state=removed", 0),
        ("?class=2&source=bing&split=train", 1),
        ("?class=99&state=nonsense&split=x&order=y&page=zero", 4),
    ):
        page = client.get(place(shown, query)).content.decode()
        assert page.count('class="tile ') == count, query


def test_pictures_that_were_left_out_say_why(client, shown):
    reject(shown.classes.first(), 7)
    page = words(client.get(place(shown, "?state=rejected")).content.decode())
    assert "too small. 90 x 60 px" in page


def test_doubtful_pictures_come_first_and_never_from_the_test_part(client, shown):
    last = ImageUrl.objects.filter(split="train").order_by("-pk").first()
    ImageUrl.objects.filter(pk=last.pk).update(suspect=0.9, suspect_reason="Looks like a cat.")
    page = client.get(place(shown, "?order=doubtful")).content.decode()
    assert page.index(f'data-key="{last.pk}"') < page.index('class="badge"')
    assert "Looks like a cat." in page


def test_pictures_are_removed_by_a_form_and_one_is_led_back_to_the_same_filters(holder, shown):
    keys = list(ImageUrl.objects.filter(image_class__number=1).values_list("pk", flat=True))
    back = "?class=1"
    response = post(
        holder, place(shown, "decide/"), action="remove", image=[*keys, "x", "9" * 30], back=back
    )
    assert (response.status_code, response["Location"]) == (303, place(shown, back))
    page = words(holder.get(response["Location"]).content.decode())
    assert "2 pictures removed." in page
    assert "Since version 1: 2 removed." in page
    assert "“cat” has 0 pictures left" in page
    assert "You: 2 pictures removed" in page
    response = post(holder, place(shown, "undo/"), back="?state=removed")
    assert response["Location"] == place(shown, "?state=removed")
    assert ImageUrl.objects.filter(state="kept").count() == 4
    assert "(undone)" in words(holder.get(place(shown)).content.decode())


def test_a_script_gets_what_has_changed(holder, shown):
    key = ImageUrl.objects.filter(image_class__number=1).first().pk
    token = holder.cookies["csrftoken"].value
    fields = {"action": "relabel", "number": "2", "image": key, "csrfmiddlewaretoken": token}
    answer = json.loads(holder.post(place(shown, "decide/"), fields, **JSON).content)
    assert answer["sentence"] == "1 picture moved to “dog”."
    assert answer["changed"] == [{"key": key, "state": "kept", "number": 2, "name": "dog"}]
    assert answer["may_undo"] and "1 relabelled" in answer["pending"]["changes"]
    fields = {"csrfmiddlewaretoken": token}
    answer = json.loads(holder.post(place(shown, "undo/"), fields, **JSON).content)
    assert answer["changed"][0]["name"] == "cat" and not answer["may_undo"]
    answer = json.loads(holder.post(place(shown, "undo/"), fields, **JSON).content)
    assert answer["sentence"] == "There is nothing left to undo."


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"action": "remove"},
        {"action": "nonsense", "image": "1"},
        {"action": "relabel", "number": "77", "image": "1"},
        {"action": "remove", "image": "999999"},
    ],
)
def test_a_decision_about_nothing_changes_nothing_and_says_so(holder, shown, fields):
    response = post(holder, place(shown, "decide/"), **fields)
    assert response.status_code == 303
    assert "Nothing was changed" in words(holder.get(response["Location"]).content.decode())
    assert not shown.decisions.exists()


def test_pictures_of_another_request_cannot_be_decided_about(holder, shown):
    foreign = keep_picture(running("ant", "bee").classes.first(), 1)
    post(holder, place(shown, "decide/"), action="remove", image=foreign.pk)
    foreign.refresh_from_db()
    assert foreign.state == ImageState.KEPT
    assert holder.get(place(shown, f"{foreign.pk}/")).status_code == 404


def test_the_way_back_leads_nowhere_else(holder, shown):
    response = post(holder, place(shown, "decide/"), action="remove", back="//evil.example/?a=b")
    assert response["Location"].startswith(place(shown))


def test_one_of_the_staff_decides_under_their_own_name(client, shown):
    client.force_login(User.objects.create_user("grace", is_staff=True))
    key = ImageUrl.objects.first().pk
    client.post(place(shown, "decide/"), {"action": "remove", "image": key})
    assert shown.decisions.get().actor == "grace"
    assert "grace: 1 picture removed" in words(client.get(place(shown)).content.decode())


def test_a_picture_up_close_says_where_it_is_from(client, shown):
    image = ImageUrl.objects.filter(split="train").first()
    image.title = "A <b>cat</b>"
    image.creator = "Ada"
    image.page_url = "https://pictures.example/page"
    image.suspect = 0.8
    image.suspect_reason = "Looks unlike the others."
    image.save()
    whole = client.get(place(shown, f"{image.pk}/")).content.decode()
    assert "A &lt;b&gt;cat&lt;/b&gt;" in whole and "by Ada" in whole
    assert 'href="https://pictures.example/page"' in whole
    assert "Looks unlike the others." in whole
    part = client.get(place(shown, f"{image.pk}/"), HTTP_X_FRAGMENT="1").content.decode()
    assert "<html" not in part and "by Ada" in part


def test_what_the_model_says_of_a_test_picture_is_hidden_until_it_is_judged(client, shown):
    image = ImageUrl.objects.filter(split="test").first()
    page = words(client.get(place(shown, f"{image.pk}/")).content.decode())
    assert "stays hidden until you have judged it" in page


def test_the_picture_itself_is_sent_as_it_was_collected(client, shown):
    image = ImageUrl.objects.first()
    response = client.get(place(shown, f"{image.pk}/picture/"))
    content = b"".join(response.streaming_content)
    assert content == (shown.folder / "collect" / image.file).read_bytes()
    assert response.headers["Content-Type"] == "image/jpeg"
    ImageUrl.objects.filter(pk=image.pk).update(state="rejected")
    assert client.get(place(shown, f"{image.pk}/picture/")).status_code == 404


def test_a_hundred_pictures_stand_on_a_page_and_the_next_page_keeps_the_filters(client):
    classifier = running()
    image_class = classifier.classes.first()
    rows = [
        ImageUrl(
            image_class=image_class, source="bing", query="cat", rank=number, state="kept",
            image_url=f"https://pictures.example/{number}", url_sha256=f"{number:064x}",
            file=f"images/{number:016x}.jpg",
        )
        for number in range(230)
    ]  # fmt: skip
    ImageUrl.objects.bulk_create(rows)
    page = client.get(place(classifier, "?class=1&page=2")).content.decode()
    assert page.count('class="tile kept"') == 100
    assert "page 2 of 3" in page
    assert 'href="?class=1&amp;page=3"' in page and 'href="?class=1"' in page
    last = client.get(place(classifier, "?class=1&page=3")).content.decode()
    assert last.count('class="tile kept"') == 30 and 'id="later"' not in last


def test_the_number_of_queries_does_not_grow_with_the_pictures(client, shown):
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            client.get(place(shown))
        return len(captured)

    keep_picture(shown.classes.first(), 9)
    few = queries()
    for number in range(10, 60):
        keep_picture(shown.classes.first(), number)
    assert queries() == few


def test_before_the_first_training_there_is_nothing_to_train_again(client):
    classifier = trained()
    classifier.versions.all().delete()
    page = client.get(place(classifier)).content.decode()
    assert 'id="pending" hidden' in page


def test_the_panel_of_a_test_picture_has_its_nearest_and_the_blind_review_has_not(client):
    classifier = delivered("cat", "dog")
    version = classifier.versions.get()
    images = list(ImageUrl.objects.order_by("pk"))
    ImageUrl.objects.filter(pk=images[0].pk).update(split="test", version_number=1)
    learned = [LearnedImage(row.file, row.image_class.name, "", "") for row in images[1:]]
    embeddings = np.eye(len(learned), dtype=np.float32)
    version.folder.mkdir(parents=True, exist_ok=True)
    write_neighbours(version.folder, learned, embeddings, {images[0].file: embeddings[1]})
    address = classifier.get_absolute_url()
    panel = client.get(f"{address}images/{images[0].pk}/").content.decode()
    found = re.findall(r"/images/(\d+)[.]jpg", panel.partition("Most alike in the dataset")[2])
    assert len(found) == 3 and int(found[0]) == images[2].pk
    review = client.get(f"{address}review/").content.decode()
    assert f"/images/{images[0].pk}/picture/" in review and "Most alike" not in review
