"""What a request's page shows in every state, and how it stays up to date."""

import re
from datetime import timedelta

from django.utils import timezone

from requests_app import lifecycle, pipeline
from requests_app.models import ClassifierRequest, Job, Status, WorkerBeat
from tests.web.conftest import delivered, keep_picture, page_of, running, stopped, submitted, words

# --- progress ---


def test_a_running_request_shows_counts_time_left_and_pictures(client):
    classifier = running()
    cat = classifier.classes.first()
    picture = keep_picture(cat, 1)
    keep_picture(cat, 2, source="openverse")
    page = page_of(client, classifier)
    text = words(page)
    assert "Collecting pictures" in text
    assert "25 %, about 2 minutes left" in text
    assert "Bing: 1 kept" in text
    assert "Openverse: 1 kept" in text
    assert "2 of 40" in text
    assert f"/images/{picture.pk}.jpg" in page
    assert re.search(
        r'class="stage running" aria-current="step".*?Collect pictures.*?1 min 15 s',
        page,
        re.DOTALL,
    )


def test_a_waiting_request_says_what_it_waits_for(client):
    first = submitted()
    pipeline.confirm(first)
    second = submitted()
    pipeline.confirm(second)
    assert "No worker is running" in page_of(client, second)
    beat = WorkerBeat.objects.create(cluster="c", queue="collect")
    assert "It is next." in page_of(client, first)
    assert "1 other piece of work before this one" in page_of(client, second)
    WorkerBeat.objects.filter(pk=beat.pk).update(at=timezone.now() - timedelta(hours=1))
    assert "No worker is running" in page_of(client, second)


def test_a_worker_that_stopped_answering_is_mentioned(client):
    classifier = running()
    classifier.jobs.update(lease_until=timezone.now() - timedelta(seconds=5))
    assert "The worker has stopped answering" in page_of(client, classifier)


def test_the_polled_part_is_the_same_as_the_first(client):
    classifier = running()
    keep_picture(classifier.classes.first(), 1)
    classifier.jobs.update(started=None)  # so that no second passes between the two

    def without_tokens(text: str) -> str:
        return re.sub(r'value="\w{64}"', "", text)

    page = page_of(client, classifier)
    part = client.get(f"{classifier.get_absolute_url()}progress/").content.decode()
    assert without_tokens(part).strip() in without_tokens(page)
    assert "<html" not in part


def test_a_poll_without_news_is_not_answered_again(client):
    classifier = submitted()
    path = f"{classifier.get_absolute_url()}progress/"
    first = client.get(path)
    assert first.status_code == 200
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    pipeline.confirm(classifier)
    assert client.get(path, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_the_poll_that_finds_the_end_stops_the_polling(client):
    for classifier in (delivered(), stopped("failed"), stopped("needs_attention")):
        response = client.get(
            f"{classifier.get_absolute_url()}progress/", headers={"HX-Request": "true"}
        )
        assert response.status_code == 286
        assert b"hx-get" not in response.content


def test_a_poller_gets_a_fragment_when_the_request_is_deleted_meanwhile(client):
    classifier = running()
    lifecycle.delete(classifier)
    response = client.get(
        f"{classifier.get_absolute_url()}progress/", headers={"HX-Request": "true"}
    )
    assert response.status_code == 410
    assert response.content.lstrip().startswith(b"<section")
    assert b'id="progress"' in response.content
    assert b"<html" not in response.content


def test_without_scripts_the_page_refreshes_itself_while_it_is_open(client):
    refresh = '<noscript><meta http-equiv="refresh"'
    assert refresh in page_of(client, running())
    assert refresh not in page_of(client, delivered())


def test_a_page_costs_the_same_few_queries_however_many_pictures(
    client, django_assert_max_num_queries
):
    classifier = running()
    for number in range(30):
        keep_picture(classifier.classes.first(), number)
    with django_assert_max_num_queries(12):
        page_of(client, classifier)


# --- the result ---


def test_a_delivered_request_shows_what_was_measured(client):
    text = words(page_of(client, delivered()))
    assert "Your classifier is ready" in text
    assert text.count("95 % interval 69.9 % to 97.2 %") == 1
    assert "Right on the test pictures 90 % 18 of 20 pictures" in text
    assert "This model tells the classes apart: right on 18 of 20 test pictures" in text
    assert "Always naming the largest class would be right on 50 %" in text
    assert "The bundled backbone was used." in text
    assert "cat 90 % 90 % 10" in text
    assert "56 to train, 12 to check, 20 to test" in text
    assert "EfficientNet-Lite0" in text


def test_it_says_what_was_asked_found_kept_and_left_out(client):
    text = words(page_of(client, delivered()))
    assert (
        "Asked for 40, found 20, kept 2. Left out: 9 duplicates, 5 unreachable, 1 too small."
        in text
    )
    assert "Bing asked for a human check." in text


def test_the_matrix_has_every_count_with_its_meaning(client):
    page = page_of(client, delivered("cat", "dog", "owl"))
    cells = re.findall(r'<td class="(right|wrong) heat-\d+" title="(.*?)">(\d+)</td>', page)
    assert len(cells) == 9
    assert ("right", "9 pictures of owl called owl", "9") in cells
    assert ("wrong", "1 picture of owl called cat", "1") in cells


def test_a_model_that_learned_nothing_is_called_so(client):
    assert "This model is no better than guessing" in page_of(client, delivered(better=False))


def test_the_files_stand_there_with_size_and_checksum(client):
    classifier = delivered()
    page = page_of(client, classifier)
    for artifact in classifier.versions.get().artifacts.all():
        assert f"{classifier.get_absolute_url()}download/{artifact.kind}/" in page
        assert artifact.sha256 in page
    assert "2.0\xa0KB" in page


def test_it_says_until_when_everything_is_kept(client, settings):
    settings.RETENTION_DAYS = 7
    day = timezone.now() + timedelta(days=7)
    assert f"Kept until {day.day} {day:%B %Y}" in words(page_of(client, delivered()))


def test_a_stopped_request_shows_reason_and_remedy(client):
    for status, title in (
        ("failed", "This did not work"),
        ("needs_attention", "Your help is needed"),
    ):
        text = words(page_of(client, stopped(status)))
        assert title in text
        assert "Only 3 pictures of “dog”. Try another wording." in text
        assert "Try again" in text


def test_stages_from_before_a_repeated_collection_are_not_shown_as_done(client):
    classifier = delivered()
    ClassifierRequest.objects.filter(pk=classifier.pk).update(status=Status.RUNNING)
    Job.objects.create(
        request=classifier,
        stage="collect",
        queue="collect",
        state="running",
        started=timezone.now(),
    )
    page = page_of(client, classifier)
    assert re.findall(r'<li class="stage (\w+)"', page) == [
        "done",
        "running",
        "waiting",
        "waiting",
        "waiting",
    ]
