"""The blind review of the test pictures."""

import re

import pytest

from requests_app import tasks
from requests_app.models import ClassifierRequest, ImageUrl, Job
from tests.web.conftest import delivered, post, running, words


def place(classifier: ClassifierRequest, path: str = "") -> str:
    return f"{classifier.get_absolute_url()}review/{path}"


@pytest.fixture
def tested() -> ClassifierRequest:
    classifier = delivered("cat", "dog", "fox")
    ImageUrl.objects.update(split="test", predicted=3)
    return classifier


def shown_key(page: str) -> str:
    found = re.search(r'name="image" value="(\d+)"', page)
    assert found is not None
    return found[1]


def test_a_picture_is_shown_with_its_label_and_nothing_that_the_model_said(client, tested):
    page = client.get(place(tested)).content.decode()
    image = ImageUrl.objects.get(pk=shown_key(page))
    assert f"Is this “{image.image_class.name}”?" in page
    assert "0 of 6 judged" in page
    main = page[page.index("<main") : page.index("</main>")]
    assert "%" not in words(main) and image.source not in main.lower()


def test_answers_are_stored_in_turn_and_the_last_is_taken_back(holder, tested):
    page = holder.get(place(tested)).content.decode()
    first = shown_key(page)
    other = ImageUrl.objects.get(pk=first).image_class.number % 3 + 1
    response = post(holder, place(tested, "judge/"), image=first, answer=f"other class:{other}")
    page = holder.get(response["Location"]).content.decode()
    assert "1 of 6 judged" in page and shown_key(page) != first
    image = ImageUrl.objects.get(pk=first)
    assert (image.judged, image.judged_number) == ("other class", other)
    post(holder, place(tested, "judge/"), answer="undo")
    page = holder.get(place(tested)).content.decode()
    assert shown_key(page) == first and "0 of 6 judged" in page


def test_what_one_is_not_sure_of_comes_at_the_end(holder, tested):
    page = holder.get(place(tested)).content.decode()
    first = shown_key(page)
    page = holder.get(place(tested, f"?skip={first}")).content.decode()
    second = shown_key(page)
    assert second != first
    response = post(holder, place(tested, "judge/"), image=second, answer="off-topic", skip=first)
    assert response["Location"] == place(tested, f"?skip={first}")
    keys = ",".join(str(key) for key in ImageUrl.objects.values_list("pk", flat=True))
    page = words(holder.get(place(tested, f"?skip={keys}")).content.decode())
    assert "you were not sure of are left" in page


def test_the_last_answer_has_them_counted(holder, tested):
    for _ in range(6):
        page = holder.get(place(tested)).content.decode()
        post(holder, place(tested, "judge/"), image=shown_key(page), answer="right")
    page = words(holder.get(place(tested)).content.decode())
    assert "6 right, 0 of another class, 0 off-topic" in page
    assert "They are being counted" in page
    assert Job.objects.filter(stage="recount", state="queued").count() == 1
    tasks.drain("train")  # this run has no folder
    page = words(holder.get(place(tested)).content.decode())
    assert "They could not be counted: The run folder has no readable manifest.jsonl." in page
    tested.refresh_from_db()
    assert tested.status == "delivered"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"answer": "right"},
        {"answer": "nonsense", "image": "1"},
        {"answer": "right", "image": "x"},
        {"answer": "right", "image": "²"},
        {"answer": "other class:99999999", "image": "0"},
    ],
)
def test_an_answer_to_nothing_stores_nothing(holder, tested, fields):
    response = post(holder, place(tested, "judge/"), **fields)
    assert response.status_code == 303
    assert not ImageUrl.objects.exclude(judged="").exists()


def test_before_the_first_training_there_is_nothing_to_judge(client):
    page = words(client.get(place(running())).content.decode())
    assert "There are no test pictures yet" in page
