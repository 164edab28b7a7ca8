"""The buttons of a request: cancel, retry, delete."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from requests_app.models import ClassifierRequest, ImageClass, ImageUrl, JobState, Status
from scraping.sources.terms import TERMS
from tests.web.conftest import (
    STRANGER,
    delivered,
    overtaken,
    page_of,
    post,
    running,
    stopped,
    submitted,
    words,
)


def test_cancel_stops_the_work(holder):
    classifier = running()
    response = post(holder, f"{classifier.get_absolute_url()}cancel/")
    assert (response.status_code, response.headers["Location"]) == (
        303,
        classifier.get_absolute_url(),
    )
    classifier.refresh_from_db()
    assert classifier.status == Status.CANCELLED
    assert classifier.jobs.get().cancel_requested


def test_what_is_finished_cannot_be_cancelled(holder):
    classifier = delivered()
    post(holder, f"{classifier.get_absolute_url()}cancel/")
    assert "nothing left to cancel" in page_of(holder, classifier)
    classifier.refresh_from_db()
    assert classifier.status == Status.DELIVERED


@pytest.mark.parametrize("action", ["cancel/", "retry/", "leave-out/", "confirmation/"])
def test_a_get_does_nothing_and_leads_to_the_request(client, action):
    classifier = running()
    response = client.get(f"{classifier.get_absolute_url()}{action}")
    assert (response.status_code, response.headers["Location"]) == (
        303,
        classifier.get_absolute_url(),
    )
    assert client.get(f"/r/{STRANGER}/{action}").status_code == 404
    classifier.refresh_from_db()
    assert classifier.status == Status.RUNNING


def test_a_failed_request_starts_again(holder):
    classifier = stopped("failed")
    assert post(holder, f"{classifier.get_absolute_url()}retry/").status_code == 303
    classifier.refresh_from_db()
    assert classifier.status == Status.QUEUED
    assert classifier.jobs.filter(state=JobState.QUEUED).count() == 1


def test_a_retry_takes_other_words_fewer_pictures_and_what_is_there(holder):
    classifier = stopped("needs_attention")
    fields = {"queries": ["cat", "dog animal"], "images_per_class": "25", "accept_fewer": "on"}
    assert post(holder, f"{classifier.get_absolute_url()}retry/", **fields).status_code == 303
    classifier.refresh_from_db()
    assert [c.query for c in classifier.classes.all()] == ["cat", "dog animal"]
    assert (classifier.images_per_class, classifier.accept_fewer, classifier.status) == (
        25,
        True,
        Status.QUEUED,
    )


def test_a_bad_retry_is_answered_beside_its_field(holder):
    classifier = stopped("needs_attention")
    fields = {"queries": ["cat", "d\0g"], "images_per_class": "5"}
    response = post(holder, f"{classifier.get_absolute_url()}retry/", **fields)
    page = response.content.decode()
    assert response.status_code == 400
    assert "control characters" in re.search(r'id="id_queries_1_error">(.*?)<', page).group(1)
    assert "20 to 500" in re.search(r'id="id_images_per_class_error">(.*?)<', page).group(1)
    summary = re.search(r'role="alert".*?</div>', page, re.DOTALL).group(0)
    assert re.findall(r'href="#(\w+)"', summary) == ["id_images_per_class", "id_queries_1"]
    assert re.search(r'<details class="options" open>', page)
    assert "Search again" in words(page)
    assert (
        holder.get(f"{classifier.get_absolute_url()}retry/").headers["Location"]
        == classifier.get_absolute_url()
    )
    classifier.refresh_from_db()
    assert classifier.status == Status.NEEDS_ATTENTION


def test_a_retry_asks_other_sources_under_another_licence(holder, settings):
    settings.SOURCES = ["openverse", "gbif", "bing", "nasa"]
    classifier = stopped("needs_attention", license="open")
    fields = {"license": "any", "sources": ["nasa", "bing", "openverse"], "sources_offered": "True"}
    assert post(holder, f"{classifier.get_absolute_url()}retry/", **fields).status_code == 303
    classifier.refresh_from_db()
    assert (classifier.license, classifier.status) == ("any", Status.QUEUED)
    assert classifier.sources == ["openverse", "bing", "nasa"]  # asked in the order of the page
    assert classifier.jobs.latest("pk").stage == "collect"


def test_the_form_shows_licence_and_sources_as_they_are(client, settings):
    settings.SOURCES = ["openverse", "wikimedia", "bing", "met"]
    classifier = stopped("needs_attention", license="open", sources=["bing", "met"])
    page = page_of(client, classifier)
    assert '<option value="open" selected>' in page
    boxes = re.findall(r'<input type="checkbox" name="sources" value="(\w+)"([^>]*)>', page)
    assert [name for name, rest in boxes if "checked" in rest] == ["bing", "met"]
    # Its own first, then the site's.
    assert [name for name, _ in boxes] == ["bing", "met", "openverse", "wikimedia"]


def test_a_retry_without_changes_keeps_the_sources_in_their_own_order(holder):
    classifier = stopped("failed", sources=["bing", "openverse"])
    result = classifier.folder / "collect" / "result.json"
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    fields = {"license": "any", "sources": ["openverse", "bing"], "sources_offered": "True"}
    assert post(holder, f"{classifier.get_absolute_url()}retry/", **fields).status_code == 303
    classifier.refresh_from_db()
    assert classifier.sources == ["bing", "openverse"]
    assert result.exists()  # nothing has changed, so that nothing is asked again


BAD_RETRIES = {
    "no source": ({"sources_offered": "True"}, "id_sources", "Choose at least one source."),
    "unknown source": ({"sources": ["elsewhere"]}, "id_sources", "sources offered"),
    "unknown licence": ({"license": "stolen"}, "id_license", "licences offered"),
    "very many pictures": ({"images_per_class": "9" * 5000}, "id_images_per_class", "20 to 500"),
}


@pytest.mark.parametrize("case", BAD_RETRIES)
def test_what_cannot_be_asked_for_is_answered_beside_its_field(holder, case):
    fields, field, sentence = BAD_RETRIES[case]
    classifier = stopped("needs_attention")
    response = post(holder, f"{classifier.get_absolute_url()}retry/", **fields)
    page = response.content.decode()
    assert response.status_code == 400
    assert page.count(f'id="{field}_error"') == 1
    assert sentence in re.search(rf'id="{field}_error">(.*?)<', page).group(1)
    assert f'href="#{field}"' in page
    assert re.search(rf'id="{field}"', page)
    classifier.refresh_from_db()
    assert classifier.status == Status.NEEDS_ATTENTION


def test_a_bad_retry_of_what_has_started_meanwhile_shows_the_work(holder):
    classifier = running()
    response = post(holder, f"{classifier.get_absolute_url()}retry/", images_per_class="5")
    assert (response.status_code, response.headers["Location"]) == (
        303,
        classifier.get_absolute_url(),
    )
    assert "It has already been started." in page_of(holder, classifier)


def test_a_retry_never_goes_round_the_confirmation_of_the_address(holder):
    classifier = submitted()
    post(holder, f"{classifier.get_absolute_url()}cancel/")
    assert "Try again" not in page_of(holder, classifier)
    post(holder, f"{classifier.get_absolute_url()}retry/")
    classifier.refresh_from_db()
    assert (classifier.status, classifier.jobs.count()) == (Status.CANCELLED, 0)


def test_deleting_asks_first_and_then_removes_everything(holder):
    classifier = delivered()
    path = f"{classifier.get_absolute_url()}delete/"
    assert "Delete everything?" in holder.get(path).content.decode()
    assert classifier.folder.exists()
    response = post(holder, path)
    assert (response.status_code, response.headers["Location"]) == (303, "/")
    assert b"Everything of this request has been deleted" in holder.get("/").content
    assert not classifier.folder.exists()
    assert not ImageUrl.objects.exists()
    classifier.refresh_from_db()
    assert classifier.email == ""


def test_a_deletion_that_someone_else_was_faster_with_is_not_called_a_success(holder):
    classifier = delivered()
    with overtaken(status=Status.EXPIRED):
        response = post(holder, f"{classifier.get_absolute_url()}delete/")
    assert (response.status_code, response.headers["Location"]) == (
        303,
        classifier.get_absolute_url(),
    )
    page = holder.get(classifier.get_absolute_url())
    assert page.status_code == 410
    assert b"could not be deleted" in page.content
    assert b"has been deleted: pictures" not in page.content


# --- too few pictures ---


def short(*kept: int, status: str = "needs_attention", **fields) -> ClassifierRequest:
    """A request that has so many pictures of its classes, of which 20 are needed."""
    classifier = stopped(status, **fields)
    for number in range(3, len(kept) + 1):
        ImageClass.objects.create(request=classifier, number=number, name=f"class {number}")
    for image_class, count in zip(classifier.classes.all(), kept, strict=True):
        image_class.kept = count
        image_class.save()
    return classifier


def test_training_on_few_pictures_has_a_button_of_its_own(holder):
    classifier = short(40, 12)
    page = page_of(holder, classifier)
    assert "Train with what was found" in words(page)
    path = f"{classifier.get_absolute_url()}retry/"
    assert post(holder, path, accept_fewer="on").status_code == 303
    classifier.refresh_from_db()
    assert (classifier.accept_fewer, classifier.status) == (True, Status.QUEUED)
    assert not (classifier.folder / "collect" / "ask-again").exists()


def test_training_that_must_fail_is_not_offered(client):
    assert "Train with what was found" not in page_of(client, short(40, 8))


def test_the_class_that_is_short_is_marked_and_asked_about_first(client):
    page = page_of(client, short(40, 3, 40))
    assert page.count("too few pictures</span>") == 1
    assert re.search(r'class="card class-card short">.*?dog', page, re.DOTALL)
    form = page[page.index('class="card form retry"') :]
    assert re.findall(r'name="numbers" value="(\d)"', form) == ["2", "1", "3"]
    assert form.index('id="id_queries_1"') < form.index("<details") < form.index("id_queries_0")


def test_words_reach_their_class_in_whatever_order_the_page_has_them(holder):
    classifier = short(40, 3, 40)
    classifier.classes.filter(number=3).update(query="class 3")
    fields = {"numbers": ["2", "1", "3"], "queries": ["dog animal", "cat", "class 3"]}
    post(holder, f"{classifier.get_absolute_url()}retry/", **fields)
    queries = list(classifier.classes.values_list("query", flat=True))
    assert queries == ["cat", "dog animal", "class 3"]


def test_a_class_can_be_left_out_by_a_button(holder):
    classifier = short(40, 40, 0)
    page = page_of(holder, classifier)
    assert "Leave out “class 3” 0 pictures" in words(page)
    path = f"{classifier.get_absolute_url()}leave-out/"
    assert post(holder, path, number="3").status_code == 303
    classifier.refresh_from_db()
    assert [c.name for c in classifier.classes.all()] == ["cat", "dog"]
    assert classifier.status == Status.QUEUED
    post(holder, path, number="3")
    assert "could not be left out" in page_of(holder, classifier)


@pytest.mark.parametrize("number", ["", "x", "9", "²", "9" * 5000])
def test_leaving_out_what_is_no_class_changes_nothing(holder, number):
    classifier = short(40, 40, 0)
    post(holder, f"{classifier.get_absolute_url()}leave-out/", number=number)
    assert "could not be left out" in page_of(holder, classifier)
    assert classifier.classes.count() == 3


def test_of_two_classes_none_is_offered_to_be_left_out(holder):
    classifier = short(40, 0)
    assert "Leave out" not in words(page_of(holder, classifier))
    post(holder, f"{classifier.get_absolute_url()}leave-out/", number="2")
    assert classifier.classes.count() == 2


def test_an_outage_is_called_so_and_the_page_waits_for_the_next_try(client):
    again_at = timezone.now() + timedelta(minutes=5)
    classifier = short(40, 3)
    error = {**classifier.error, "again_at": again_at.isoformat()}
    ClassifierRequest.objects.update(error=error)
    page = page_of(client, classifier)
    assert "The picture sources could not be reached" in page
    assert f"by ourselves at {again_at:%H:%M} UTC" in words(page)
    assert "hx-get" in page and "progress.js" in page
    path = f"{classifier.get_absolute_url()}progress/"
    response = client.get(path)
    assert response.status_code == 200
    etag = response.headers["ETag"]
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_sources_that_are_not_set_up_are_marked_and_cannot_be_ticked(client, settings):
    settings.SOURCES = ["openverse", "wikimedia", "pixabay", "google"]
    settings.CONTACT = ""
    page = page_of(client, short(40, 3))
    disabled = re.findall(r'name="sources" value="(\w+)"[^>]* disabled>', page)
    assert set(disabled) == {"wikimedia", "pixabay", "google"}
    assert page.count("not set up here</span>") == 3
    assert "The terms of these sources" in page and TERMS["openverse"].sentence in page
    settings.CONTACT = "mailto:a@example.org"
    settings.SOURCE_CREDENTIALS = {**settings.SOURCE_CREDENTIALS, "pixabay_key": "key"}
    settings.ROBOTS = "operator"
    assert "not set up here</span>" not in page_of(client, ClassifierRequest.objects.get())


def test_a_source_that_cannot_be_ticked_is_no_change_of_the_search(holder, settings):
    settings.CONTACT = ""
    classifier = stopped("failed")
    usual = [name for name in settings.SOURCES if name != "wikimedia"]
    post(holder, f"{classifier.get_absolute_url()}retry/", sources=usual, sources_offered="True")
    classifier.refresh_from_db()
    assert classifier.sources == []


@pytest.mark.parametrize(
    ("make", "sentence"),
    [(running, "It has already been started."), (delivered, "It is finished already.")],
)
def test_a_page_older_than_the_last_press_says_what_has_happened_since(holder, make, sentence):
    classifier = make()
    post(holder, f"{classifier.get_absolute_url()}retry/")
    assert sentence in page_of(holder, classifier)
