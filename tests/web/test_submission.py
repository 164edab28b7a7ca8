"""The confirmation link of the mail: looking starts nothing, the button does, once."""

import html
import re
import time

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


@pytest.mark.parametrize(
    ("in_folder", "base_url", "debug", "is_shown"),
    [
        (True, "http://127.0.0.1:8000", False, True),
        (True, "http://localhost:8000", False, True),
        (True, "http://[::1]:8000", False, True),
        (True, "https://picaisso.example", False, False),
        (True, "https://picaisso.example", True, True),
        (False, "http://127.0.0.1:8000", False, False),
        (False, "http://127.0.0.1:8000", True, False),
    ],
)
def test_the_link_is_on_the_page_where_mails_are_files_on_the_own_machine_or_debugging_is_on(
    client, settings, in_folder, base_url, debug, is_shown
):
    settings.EMAIL_IN_FOLDER = in_folder
    settings.BASE_URL = base_url
    settings.DEBUG = debug
    page = page_of(client, submitted())
    assert ("/confirm/" in page) == is_shown
    assert ("mails are only written to a folder" in page) == is_shown


def test_the_link_on_the_page_is_the_one_that_starts_the_work(holder):
    classifier = submitted()
    page = page_of(holder, classifier)
    link = re.search(r'id="confirmation-link" href="(.*?)"', page).group(1)
    assert post(holder, link).status_code == 303
    classifier.refresh_from_db()
    assert classifier.status == Status.QUEUED


def test_a_page_that_shows_the_link_is_not_news_every_second(client, settings):
    classifier = submitted()
    path = f"{classifier.get_absolute_url()}progress/"
    first = client.get(path)
    assert b"/confirm/" in first.content
    time.sleep(1.1)  # the link carries the second at which it was made
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304


def test_the_site_says_at_its_start_where_mails_are(settings):
    assert str(settings.MAIL_DIR) in pipeline.where_mails_are()
    assert "shows its confirmation link" in pipeline.where_mails_are()
    settings.BASE_URL = "https://picaisso.example"
    assert "confirmation link" not in pipeline.where_mails_are()


def test_the_page_shows_the_address_masked_and_says_where_to_look(client, settings):
    settings.EMAIL_IN_FOLDER = False
    page = page_of(client, submitted(email="ada@example.org"))
    text = words(page)
    assert "Check your inbox" in text
    assert "We sent a link to a…@example.org. Click it and we start." in text
    assert "ada@example.org" not in page
    assert "Nothing there? Look in spam, or send it again." in text


def test_a_wrong_address_leads_to_the_form_with_the_same_classes(client):
    classifier = submitted("cat & co", "dog")
    ClassifierRequest.objects.update(kind="animal")
    page = page_of(client, classifier)
    link = html.unescape(re.search(r'href="(/\?classes=.*?)"', page).group(1))
    form = client.get(link).content.decode()
    assert re.findall(r'name="classes" id="id_classes_\d" value="(.*?)"', form)[:2] == [
        "cat &amp; co",
        "dog",
    ]
    assert 'value="animal"' in form
    assert 'role="alert"' not in form


def send_again(holder, classifier: ClassifierRequest):
    return post(holder, f"{classifier.get_absolute_url()}confirmation/")


def test_the_mail_can_be_sent_again_a_few_times(holder, settings):
    settings.EMAIL_IN_FOLDER = False
    classifier = submitted()
    for _ in range(pipeline.MOST_CONFIRMATION_MAILS - 1):
        assert send_again(holder, classifier).status_code == 303
        assert "Another mail is on its way to a…@example.org" in words(page_of(holder, classifier))
    mails = classifier.mails.all()
    assert len({mail.key for mail in mails}) == pipeline.MOST_CONFIRMATION_MAILS
    assert all("/confirm/" in mail.text for mail in mails)
    assert 'id="send-again"' not in page_of(holder, classifier)
    send_again(holder, classifier)
    assert "has been sent several times already" in words(page_of(holder, classifier))
    assert classifier.mails.count() == pipeline.MOST_CONFIRMATION_MAILS


@pytest.mark.parametrize("make", [running, delivered])
def test_nothing_is_sent_again_once_the_address_is_confirmed(holder, make):
    classifier = make()
    mails = classifier.mails.count()
    assert send_again(holder, classifier).status_code == 303
    assert classifier.mails.count() == mails
    assert 'id="send-again"' not in page_of(holder, classifier)
