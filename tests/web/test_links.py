"""“Send me my links again”: the same answer for all, one mail, to the address as it is stored."""

from datetime import timedelta

import pytest
from django.core import mail as outbox
from django.utils import timezone

from requests_app import lifecycle, links, tasks
from requests_app.models import LinksWish, OutgoingMail
from tests.web.conftest import delivered, submitted


@pytest.fixture(autouse=True)
def mails_are_limited(settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.MAIL_MINUTES = 60
    settings.MAILS_PER_DAY = 3
    settings.SUBMISSIONS_PER_HOUR = 5


def ask(client, email: str):
    return client.post("/links/", {"email": email})


def sent_links() -> list[OutgoingMail]:
    OutgoingMail.objects.filter(key__contains=":links:").update(not_before=timezone.now())
    tasks.send_mail("picaisso")
    return list(OutgoingMail.objects.filter(key__contains=":links:").order_by("pk"))


def test_the_answer_is_the_same_whether_the_address_is_known(client, django_assert_num_queries):
    delivered()
    answers = [ask(client, email) for email in ("ada@example.org", "nobody@example.org")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert LinksWish.objects.count() == 2


def test_both_ask_the_database_the_same(client, django_assert_max_num_queries):
    delivered()
    ask(client, "first@example.org")
    counts = []
    for email in ("ada@example.org", "nobody@example.org"):
        with django_assert_max_num_queries(50) as asked:
            ask(client, email)
        counts.append([query["sql"].split()[0] for query in asked.captured_queries])
    assert counts[0] == counts[1]


def test_one_mail_has_all_links_of_an_address_and_those_of_no_other(client, settings):
    settings.MAILS_PER_DAY = 9
    one = delivered()
    other = delivered("pug", "beagle")
    waiting = submitted("Log in at evil", "dog")
    gone = delivered()
    lifecycle.delete(gone)
    stranger = submitted(email="ada@exämple.org")
    ask(client, "Ada@EXAMPLE.org")
    tasks.send_mail("picaisso")
    (row,) = sent_links()
    assert row.to == "ada@example.org"
    (message,) = [each for each in outbox.outbox if each.subject == "Your Picaisso links"]
    for classifier in (one, other, waiting):
        assert classifier.url in message.body
    for classifier in (gone, stranger):
        assert classifier.url not in message.body
    assert "“pug” and “beagle”" in message.body
    assert "evil" not in message.body
    assert LinksWish.objects.count() == 0


@pytest.mark.parametrize(
    "typed", ["ada@exämple.org", "adá@example.org", "a.da@example.org", "ada+x@example.org"]
)
def test_an_address_that_a_database_may_take_for_another_gets_nothing(client, typed):
    delivered()
    assert ask(client, typed).status_code in (200, 400)
    assert sent_links() == []


def test_an_hour_brings_one_mail_however_often_it_is_asked_for(client):
    delivered()
    for _ in range(4):
        ask(client, "ada@example.org")
        sent_links()
    assert len(sent_links()) == 1
    OutgoingMail.objects.update(sent=timezone.now() - timedelta(minutes=61))
    links.wish("ada@example.org", "192.0.2.1")
    assert len(sent_links()) == 2


def test_a_network_that_asks_for_many_addresses_is_told_to_wait(client):
    statuses = [ask(client, f"p{number}@example.org").status_code for number in range(22)]
    assert statuses == [200] * 20 + [429] * 2
    assert int(ask(client, "a@example.org").headers["Retry-After"]) > 3000


def test_what_is_no_address_is_said_beside_the_field(client):
    page = ask(client, "ada@")
    assert page.status_code == 400
    assert b"not a complete e-mail address" in page.content
