"""How much one person, one network and all together may ask for, by page and API."""

import json
import re
from datetime import timedelta

import pytest
from django.conf import settings as configured
from django.utils import timezone

from requests_app import lifecycle, limits, mail, pipeline
from requests_app.digests import mailbox_of, network_of, same_address
from requests_app.models import (
    Allowance,
    ClassifierRequest,
    IdempotencyKey,
    Job,
    JobState,
    OutgoingMail,
    Status,
)
from requests_app.workers import jobs
from tests.web.conftest import delivered, page_of, running, stopped, submitted

FORM = {"classes": ["corgi", "shiba inu"], "email": "ada@example.org"}
HOME = "203.0.113.7"


@pytest.fixture(autouse=True)
def limits_as_shipped(settings):
    settings.SUBMISSIONS_PER_HOUR = 5
    settings.SUBMISSIONS_PER_DAY = 3
    settings.RUNNING_PER_ADDRESS = 1
    settings.WAITING_PER_ADDRESS = 2
    settings.MAIL_MINUTES = 60
    settings.MAILS_PER_DAY = 3


def send(client, address=HOME, **fields):
    return client.post("/", {**FORM, **fields}, REMOTE_ADDR=address)


def call(client, address=HOME, **wishes):
    return client.post(
        "/api/v1/requests",
        json.dumps({**FORM, **wishes}),
        content_type="application/json",
        REMOTE_ADDR=address,
    )


def sentences(response) -> str:
    return " ".join(re.findall(r'class="complaint"[^>]*>([^<]*)<', response.content.decode()))


# --- who is who ---


@pytest.mark.parametrize(
    "other",
    ["a.d.a@example.org", "Ada+news@EXAMPLE.org", "ada+a+b@example.org.", "ADA@example.org"],
)
def test_spellings_of_one_mailbox_count_as_one(other):
    assert mailbox_of(other) == mailbox_of("ada@example.org")


@pytest.mark.parametrize("other", ["ada@exämple.org", "ade@example.org", "ada@example.com"])
def test_other_mailboxes_count_for_themselves(other):
    assert mailbox_of(other) != mailbox_of("ada@example.org")
    assert not same_address(other, "ada@example.org")


def test_a_domain_in_other_letters_is_the_same_as_its_punycode():
    assert same_address("ada@exämple.org", "Ada@xn--exmple-cua.ORG")
    assert mailbox_of("ada@exämple.org") == mailbox_of("ada@xn--exmple-cua.org")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("", "unknown"),
        ("no address", "unknown"),
    ],
)
def test_a_network_is_what_one_household_has(address, network):
    assert network_of(address) == network


# --- the counts ---


def test_a_fourth_request_of_one_mailbox_within_a_day_is_refused_with_when(client):
    for number, tag in enumerate(("", "+a", "+b")):
        assert send(client, f"198.51.{number}.1", email=f"ada{tag}@example.org").status_code == 303
    refused = send(client, "198.51.9.1", email="a.d.a@example.org")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) == pytest.approx(86_400, abs=60)
    assert "3 requests were sent for this address within a day" in sentences(refused)
    assert 'value="a.d.a@example.org"' in refused.content.decode()
    assert ClassifierRequest.objects.count() == 3


def test_a_sixth_request_of_one_network_within_an_hour_is_refused_on_the_page_and_by_the_api(
    client,
):
    for number in range(5):
        post = (send, call)[number % 2]
        answer = post(client, f"203.0.113.{number}", email=f"p{number}@example.org")
        assert answer.status_code in (201, 303)
    page = send(client, "203.0.113.99", email="p8@example.org")
    api = call(client, "203.0.113.99", email="p9@example.org")
    assert (page.status_code, api.status_code) == (429, 429)
    assert int(api.headers["Retry-After"]) == pytest.approx(3600, abs=60)
    error = api.json()["error"]
    assert error["code"] == "too_many_requests"
    assert error["fields"] == {"email": error["message"]}
    assert error["message"] == sentences(page)
    assert send(client, "203.0.114.1", email="p8@example.org").status_code == 303


def test_what_is_refused_counts_for_nothing_and_what_is_old_neither(client):
    for number in range(8):
        send(client, email=f"p{number}@example.org")
    assert [len(row.taken) for row in Allowance.objects.filter(rule="network")] == [5]
    row = Allowance.objects.get(rule="network")
    row.taken = [moment - 3601 for moment in row.taken]
    row.save()
    assert send(client, email="p9@example.org").status_code == 303
    assert len(Allowance.objects.get(rule="network").taken) == 1


def test_counts_hold_no_address_and_are_deleted_when_they_limit_nothing(client):
    send(client)
    stored = " ".join(map(str, Allowance.objects.values_list("rule", "digest", "taken")))
    assert "example" not in stored
    assert "203.0.113" not in stored
    lifecycle.expire()
    assert Allowance.objects.count() == 3
    Allowance.objects.update(until=timezone.now() - timedelta(seconds=1))
    IdempotencyKey.objects.create(key_sha256="0" * 64, created=timezone.now() - timedelta(days=2))
    lifecycle.expire()
    assert (
        Allowance.objects.count(),
        IdempotencyKey.objects.filter(key_sha256="0" * 64).count(),
    ) == (0, 0)


def test_zero_is_no_limit(client, settings):
    settings.SUBMISSIONS_PER_HOUR = settings.SUBMISSIONS_PER_DAY = settings.MAILS_PER_DAY = 0
    for _ in range(8):
        assert send(client).status_code == 303


# --- at work at a time ---


def at_work(status: str) -> ClassifierRequest:
    classifier = ClassifierRequest.create(
        class_queries=[("cat", ""), ("dog", "")], email="ada@example.org", status=status
    )
    Job.objects.create(request=classifier, stage="collect", queue="collect")
    return classifier


def test_three_open_requests_of_an_address_are_as_many_as_may_be(client):
    stopped_one = stopped("failed")
    for _ in range(3):
        at_work(Status.QUEUED)
    refused = send(client)
    assert refused.status_code == 429
    assert "at work or wait" in sentences(refused)
    again = client.post(f"{stopped_one.get_absolute_url()}retry/")
    assert again.status_code == 429
    assert b"Nothing was changed" in again.content
    stopped_one.refresh_from_db()
    assert stopped_one.status == Status.FAILED
    retry = f"/api/v1/requests/{stopped_one.token}/retry"
    by_api = client.post(retry, content_type="application/json")
    assert (by_api.status_code, by_api.json()["error"]["code"]) == (429, "too_many_requests")


def test_a_confirmation_waits_until_others_of_the_address_are_done(client):
    waiting = submitted()
    others = [at_work(Status.QUEUED) for _ in range(3)]
    path = pipeline.confirmation_path(waiting)
    assert client.post(path).status_code == 429
    others[0].move(Status.CANCELLED)
    assert client.post(path).status_code == 303


def test_one_request_of_an_address_runs_at_a_time_and_the_page_says_so(client):
    first = running()
    second = at_work(Status.QUEUED)
    stranger = ClassifierRequest.create(
        class_queries=[("a", ""), ("b", "")], email="eve@example.org", status=Status.QUEUED
    )
    Job.objects.create(request=stranger, stage="collect", queue="collect")
    lease = jobs.claim("collect")
    assert lease is not None
    assert lease.job.request == stranger
    assert jobs.claim("collect") is None
    first.jobs.update(state=JobState.DONE)
    first.move(Status.DELIVERED)
    lease = jobs.claim("collect")
    assert lease is not None
    assert lease.job.request == second


# --- the whole site ---


def test_a_full_queue_is_told_with_the_time_and_loses_nothing(client, settings):
    settings.QUEUE_LIMIT = 2
    at_work(Status.QUEUED)
    waiting = submitted(email="eve@example.org")
    at_work(Status.QUEUED)
    refused = send(client, email="bob@example.org")
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 60
    assert "2 requests wait here already" in sentences(refused)
    assert call(client, email="bob@example.org").json()["error"]["code"] == "unavailable"
    assert client.post(pipeline.confirmation_path(waiting)).status_code == 503
    waiting.refresh_from_db()
    assert waiting.status == Status.UNCONFIRMED


def test_a_full_disk_share_is_told(client, settings):
    settings.DISK_GB = 1
    classifier = delivered()
    ClassifierRequest.objects.filter(pk=classifier.pk).update(disk_bytes=1_000_000_000)
    refused = send(client)
    assert refused.status_code == 503
    assert "pictures and models is full" in sentences(refused)
    lifecycle.delete(classifier)
    assert send(client).status_code == 303


def test_a_request_that_is_larger_than_may_be_is_told_how_many_pictures_fit(client, settings):
    settings.REQUEST_GB = 1
    refused = send(client, images_per_class="500", classes=[f"class {n}" for n in range(10)])
    assert refused.status_code == 400
    assert "Ask for at most 160 pictures per class" in sentences(refused)
    assert send(client, images_per_class="100").status_code == 303


# --- mails ---


def test_one_mail_an_hour_goes_to_an_address_and_the_page_says_when_the_next_does(client):
    send(client)
    second = ClassifierRequest.objects.by_token(send(client, kind="animal").url.split("/")[2])
    assert mail.send_waiting() == 1
    held_back = second.mails.get()
    assert held_back.not_before > timezone.now() + timedelta(minutes=59)
    assert "in about 60 minutes" in page_of(client, second)
    OutgoingMail.objects.update(not_before=timezone.now())
    assert mail.send_waiting() == 1


def test_another_mail_can_be_asked_for_when_the_hour_is_over(client):
    classifier = submitted()
    again = client.post(f"{classifier.get_absolute_url()}confirmation/", follow=True)
    assert "A mail went to this address a short while ago" in again.content.decode()
    assert classifier.mails.count() == 1
    row = Allowance.objects.get(rule="mail")
    row.taken = [row.taken[0] - 3601]
    row.save()
    client.post(f"{classifier.get_absolute_url()}confirmation/")
    assert classifier.mails.count() == 2


# --- pressed twice ---


def filled_form(client) -> dict:
    token = re.search(r'name="form_token" value="(\w+)"', client.get("/").content.decode())
    return {**FORM, "form_token": token[1]}


def test_a_filled_form_that_is_sent_twice_makes_one_request(client):
    form = filled_form(client)
    first = client.post("/", form, REMOTE_ADDR=HOME)
    second = client.post("/", form, REMOTE_ADDR=HOME)
    assert (first.status_code, first.url) == (second.status_code, second.url) == (303, first.url)
    assert (ClassifierRequest.objects.count(), OutgoingMail.objects.count()) == (1, 1)


def test_a_form_that_was_changed_meanwhile_is_another_wish(client):
    form = filled_form(client)
    client.post("/", form, REMOTE_ADDR=HOME)
    client.post("/", {**form, "classes": ["pug", "beagle"]}, REMOTE_ADDR=HOME)
    assert ClassifierRequest.objects.count() == 2


def test_the_limits_are_on_by_default():
    text = (configured.BASE_DIR / "README.md").read_text()
    for name, value in (
        ("SUBMISSIONS_PER_HOUR", 5),
        ("SUBMISSIONS_PER_DAY", 3),
        ("RUNNING_PER_ADDRESS", 1),
        ("WAITING_PER_ADDRESS", 2),
        ("MAIL_MINUTES", 60),
        ("MAILS_PER_DAY", 3),
        ("QUEUE_LIMIT", 100),
        ("REQUEST_GB", 5),
        ("DISK_GB", 100),
    ):
        assert re.search(rf"`PICAISSO_{name}` \| `{value}`", text), name


def test_a_secret_key_that_changes_makes_the_digests_anew(client, settings):
    classifier = submitted()
    settings.SECRET_KEY = "another key that is as long as it has to be for the tests"
    ClassifierRequest.objects.renew_tokens()
    before = classifier.mailbox
    classifier.refresh_from_db()
    assert classifier.mailbox != before
    assert classifier.mailbox == limits.mailbox_digest("ada@example.org")
