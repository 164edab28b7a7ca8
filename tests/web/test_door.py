"""What visitors may not do: choose other sources, use our mails for their words, break a page."""

import pytest
from django.test import Client

from requests_app import pipeline
from requests_app.forms import RetryForm
from requests_app.models import ClassifierRequest, OutgoingMail
from requests_app.text_rules import holds_address
from tests.web.conftest import post, stopped, submitted

ADDRESSES = [
    "log in at https://evil.example/login now",
    "see www.evil.example",
    "evil.example",
    "evil。example",
    "evil．ｅｘａｍｐｌｅ",
    "write to me@evil.example",
    "ｈｔｔｐ：／／evil",
    "пример.рф",
]
PLAIN = ["corgi", "c++", "St. Bernard", "U.S. coins", "Dr. Pepper can", "3.5 mm jack", "🐶", "a/b"]


@pytest.mark.parametrize("name", ADDRESSES)
def test_f28_a_name_that_holds_an_address_is_not_said_in_a_mail_that_nobody_asked_for(name):
    assert holds_address(name)
    classifier = submitted(name, "dog")
    row = OutgoingMail.objects.get(request=classifier)
    for text in (row.text, row.html):
        assert name not in text and "evil" not in text and "пример" not in text
        assert "class 1 (its name looks like an address)" in text and "dog" in text


def test_f28_search_words_that_hold_an_address_are_not_said_either():
    classes = (("cat", "evil.example"), ("dog", ""))
    submission = pipeline.Submission(classes=classes, email="ada@example.org", images_per_class=40)
    row = OutgoingMail.objects.get(request=pipeline.submit(submission))
    assert "evil" not in row.text + row.html and "cat" in row.text


@pytest.mark.parametrize("name", PLAIN)
def test_an_ordinary_name_stands_in_the_mail(name):
    assert not holds_address(name)


TAKEN = {"google": False, "nasa": False, "openverse": True}


def test_a_retry_offers_and_takes_the_operators_sources_alone(client, settings):
    settings.SOURCES = ["openverse", "wikimedia"]
    classifier = stopped("failed", sources=["google", "openverse"])
    form = RetryForm(classifier)
    assert form.offered == ["openverse", "wikimedia"]
    assert pipeline.sources_of(classifier) == ["openverse"]
    for name, is_taken in TAKEN.items():
        fields = {"sources": [name], "sources_offered": "1"}
        answer = client.post(f"{classifier.get_absolute_url()}retry/", fields)
        assert answer.status_code == (303 if is_taken else 400)


def test_the_api_takes_the_operators_sources_alone_in_a_retry(client, settings):
    settings.SOURCES = ["openverse", "wikimedia"]
    classifier = stopped("failed", sources=["google"])
    place = f"/api/v1/requests/{classifier.token}/retry"
    refused = client.post(place, {"sources": ["google"]}, content_type="application/json")
    assert refused.status_code == 400
    assert client.post(place, {}, content_type="application/json").status_code == 202
    assert pipeline.sources_of(classifier) == ["openverse", "wikimedia"]


def test_900_classes_of_2000_characters_are_not_sent_back(holder):
    names = [f"{number} {'x' * 2000}" for number in range(900)]
    answer = post(holder, "/", classes=names, email="ada@example.org")
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "these are 900" in page
    assert len(answer.content) < 500_000


def test_what_a_person_pastes_is_shown_again(holder):
    names = [f"class {number}" for number in range(30)]
    page = post(holder, "/", classes=names, email="ada@example.org").content.decode()
    assert all(f'value="{name}"' in page for name in names)


@pytest.mark.parametrize("charset", ["hex", "idna", "undefined", "base64", "rot13", "utf-7", "x"])
@pytest.mark.parametrize("path", ["/", "/admin/login/", "/api/v1/requests"])
def test_an_encoding_that_is_none_of_text_is_a_400(path, charset):
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    body = b'--b\r\nContent-Disposition: form-data; name="email"\r\n\r\nx\r\n--b--\r\n'
    browser = Client(raise_request_exception=False)
    answer = browser.generic("POST", path, body, content_type=kind)
    assert answer.status_code in (400, 415)


WRONG = [
    "a@b.example\r\nBcc: c@d.example",
    "a@b.example, c@d.example",
    "a@localhost",
    "a@[127.0.0.1]",
]


@pytest.mark.parametrize("address", [*WRONG, f"{'a' * 300}@b.example", "a@b.example;c@d.example"])
def test_f28_an_address_that_is_none_or_more_than_one_is_refused(holder, address):
    answer = post(holder, "/", classes=["cat", "dog"], email=address)
    assert answer.status_code == 400
    assert not ClassifierRequest.objects.exists() and not OutgoingMail.objects.exists()


def test_f28_opening_the_link_of_the_mail_starts_nothing_until_its_button_is_pressed(holder):
    classifier = submitted()
    link = pipeline.confirmation_link(classifier)
    path = link[link.index("/confirm/") :]
    for _ in range(3):
        assert holder.get(path).status_code == 200
        assert holder.head(path).status_code == 200
    assert not classifier.jobs.exists()
    assert post(holder, path).status_code == 303
    assert classifier.jobs.count() == 1


def test_f30_a_script_that_was_smuggled_into_a_page_is_not_run(client):
    for page in ("/", submitted().get_absolute_url(), "/admin/login/"):
        policy = client.get(page).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy and "script-src" not in policy
