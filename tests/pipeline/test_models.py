"""Tokens and moves of requests, the breakers of the sources, and the browser lock."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from requests_app.models import (
    BrowserTurn,
    ClassifierRequest,
    SourceHealth,
    Status,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_token_is_derived_and_only_its_digest_is_stored(submitted):
    token = submitted.token
    assert len(token) == 32
    assert ClassifierRequest.objects.by_token(token) == submitted
    assert token not in json.dumps(list(ClassifierRequest.objects.values()), default=str)
    other_end = "A" if token[-1] != "A" else "B"
    assert ClassifierRequest.objects.by_token(token[:-1] + other_end) is None


def test_after_a_new_secret_key_old_links_end_and_new_ones_work(submitted, settings):
    old = submitted.token
    settings.SECRET_KEY = "x" * 60
    assert ClassifierRequest.objects.by_token(submitted.token) is None
    assert ClassifierRequest.objects.renew_tokens() == 1
    assert ClassifierRequest.objects.by_token(old) is None
    assert ClassifierRequest.objects.by_token(submitted.token) == submitted
    assert ClassifierRequest.objects.renew_tokens() == 0


def test_a_move_is_won_once_and_leaves_a_row(confirmed):
    first = ClassifierRequest.objects.get()
    second = ClassifierRequest.objects.get()
    assert first.move(Status.RUNNING, reason="collect", actor="job:1")
    assert not second.move(Status.CANCELLED)
    assert not first.move(Status.EXPIRED), "a running request cannot expire"
    assert [(e.old, e.new) for e in confirmed.events.all()] == [
        ("", "unconfirmed"),
        ("unconfirmed", "queued"),
        ("queued", "running"),
    ]


def blocked(name: str = "bing") -> None:
    SourceHealth.record(name, "blocked", "Bing asked for a human check.", cool_down_seconds=3600)


def let_the_cool_down_pass() -> None:
    SourceHealth.objects.update(closed_until=timezone.now() - timedelta(seconds=1))


def test_a_blocked_source_is_closed_for_everyone_and_says_why():
    blocked()
    closed = SourceHealth.closed_for(job_id=1)
    assert closed["bing"].startswith("Bing asked for a human check. It is not asked again before ")
    assert "openverse" not in closed


def test_after_the_cool_down_one_job_tries_and_the_others_wait():
    blocked()
    let_the_cool_down_pass()
    assert SourceHealth.closed_for(job_id=1) == {}
    assert (
        "trying" in SourceHealth.closed_for(job_id=2)["bing"]
        or "not asked" in SourceHealth.closed_for(2)["bing"]
    )
    assert SourceHealth.closed_for(job_id=1) == {}, "the trying job, started again, still may"


def test_a_trial_that_never_reports_is_given_to_another_job():
    blocked()
    let_the_cool_down_pass()
    SourceHealth.closed_for(job_id=1)
    let_the_cool_down_pass()
    assert SourceHealth.closed_for(job_id=2) == {}


def test_each_failed_trial_doubles_the_cool_down_up_to_a_day():
    pauses = []
    for _ in range(7):
        blocked()
        row = SourceHealth.objects.get()
        pauses.append(round((row.closed_until - row.asked).total_seconds()))
    assert pauses == [3600, 7200, 14400, 28800, 57600, 86400, 86400]


def test_an_answer_opens_the_source_and_forgets_the_failures():
    blocked()
    SourceHealth.record("bing", "partial", "Bing had only 3.")
    row = SourceHealth.objects.get()
    assert (row.failures, row.closed_until, SourceHealth.closed_for(1)) == (0, None, {})


def test_a_source_that_does_not_apply_says_nothing_about_its_health():
    blocked("gbif")
    SourceHealth.record("gbif", "not_applicable", "Skipped: not a species.")
    assert SourceHealth.objects.get().outcome == "blocked"


def test_one_job_at_a_time_uses_the_browser():
    soon = timezone.now() + timedelta(seconds=60)
    assert BrowserTurn.acquire(1, 1, soon)
    assert BrowserTurn.acquire(1, 1, soon), "renewed"
    assert not BrowserTurn.acquire(2, 1, soon)
    BrowserTurn.release(2, 1)
    assert not BrowserTurn.acquire(2, 1, soon), "only its holder gives it back"
    BrowserTurn.release(1, 1)
    assert BrowserTurn.acquire(2, 1, soon)


def test_a_browser_lock_whose_holder_is_gone_ends_with_its_lease():
    assert BrowserTurn.acquire(1, 1, timezone.now() - timedelta(seconds=1))
    assert BrowserTurn.acquire(2, 1, timezone.now() + timedelta(seconds=60))
