"""The confirmation link of the mail: looking starts nothing, the button does, once."""

import pytest
from django.core import signing
from django.utils import timezone

from requests_app import lifecycle, pipeline
from requests_app.models import ClassifierRequest, Job, Status
from tests.web.conftest import delivered, page_of, post, running, submitted, words


def confirm_path(classifier: ClassifierRequest) -> str:
    return pipeline.confirmation_link(classifier).split("8000", 1)[1]


def test_looking_at_the_confirmation_link_starts_nothing(client):
    classifier = submitted()
    response = client.get(confirm_path(classifier))
    assert response.status_code == 200
    assert b"Yes, start" in response.content
    classifier.refresh_from_db()
    assert (classifier.status, classifier.jobs.count()) == (Status.UNCONFIRMED, 0)


def test_pressing_the_button_starts_the_work_and_shows_the_request(holder):
    classifier = submitted()
    response = post(holder, confirm_path(classifier))
    classifier.refresh_from_db()
    assert (response.status_code, response.headers["Location"]) == (
        303,
        classifier.get_absolute_url(),
    )
    assert (classifier.status, classifier.jobs.count()) == (Status.QUEUED, 1)


def test_pressing_it_twice_starts_one_piece_of_work(holder):
    classifier = submitted()
    first, second = (post(holder, confirm_path(classifier)) for _ in range(2))
    assert (first.status_code, second.status_code) == (303, 200)
    assert Job.objects.count() == 1
    for response in (second, holder.get(confirm_path(classifier))):
        assert b"Already confirmed" in response.content
        assert f'href="{classifier.get_absolute_url()}"' in response.content.decode()


def cancelled(make) -> ClassifierRequest:
    classifier = make()
    assert lifecycle.cancel(classifier)
    return classifier


@pytest.mark.parametrize(
    "make",
    [delivered, lambda: cancelled(running), lambda: cancelled(submitted)],
    ids=["delivered", "cancelled", "cancelled before"],
)
def test_a_used_link_starts_nothing_after_the_end(holder, make):
    classifier = make()
    path = confirm_path(classifier)
    before = (ClassifierRequest.objects.get().status, Job.objects.count())
    response = post(holder, path)
    assert (ClassifierRequest.objects.get().status, Job.objects.count()) == before
    text = words(response.content.decode())
    assert "It works once only" in text
    assert "Yes, start" not in text
    assert f'href="{classifier.get_absolute_url()}"' in response.content.decode()


def test_a_forged_link_is_answered_in_plain_words(holder):
    classifier = submitted()
    forged = confirm_path(classifier)[:-5] + "AAAA/"
    for response in (holder.get(forged), post(holder, forged), holder.get("/confirm/anything/")):
        assert response.status_code == 404
        assert b"This link does not work" in response.content
    classifier.refresh_from_db()
    assert classifier.status == Status.UNCONFIRMED


def test_a_link_older_than_a_day_does_not_work(client, monkeypatch):
    classifier = submitted()
    day_ago = timezone.now().timestamp() - 86_500
    monkeypatch.setattr(signing.time, "time", lambda: day_ago)
    old = confirm_path(classifier)
    monkeypatch.undo()
    assert client.get(old).status_code == 404


def test_the_confirmation_of_what_is_gone_is_gone(client):
    classifier = submitted()
    path = confirm_path(classifier)
    lifecycle.delete(classifier)
    assert client.get(path).status_code == 410


def test_the_link_is_shown_only_where_mails_are_files_and_debugging_is_on(client, settings):
    classifier = submitted()
    assert "/confirm/" not in page_of(client, classifier)
    settings.DEBUG = True
    assert "/confirm/" in page_of(client, classifier)
    settings.EMAIL_IN_FOLDER = False
    assert "/confirm/" not in page_of(client, classifier)
