"""How a search ends, whatever the source: outcome, sentence and cool-down."""

import pytest

from scraping.net.http import FetchFailure, NotJson
from scraping.reasons import Reason
from scraping.sources.base import (
    COOL_DOWN_SECONDS,
    PageResults,
    Query,
    SearchOptions,
    SearchResult,
)
from scraping.sources.catalogue import (
    Outcome,
)
from scraping.sources.registry import REGISTRY

QUERY = Query("corgi", 5, SearchOptions(), 0.0)


@pytest.mark.parametrize(
    ("failure", "outcome", "retry_after", "cool_down"),
    [
        (
            FetchFailure(Reason.HTTP_ERROR, "status 429", 429, 42.0),
            Outcome.RATE_LIMITED,
            42.0,
            42.0,
        ),
        (FetchFailure(Reason.HTTP_ERROR, "status 429", 429), Outcome.RATE_LIMITED, 180.0, 180.0),
        (FetchFailure(Reason.HTTP_ERROR, "status 403", 403), Outcome.BLOCKED, None, 3600.0),
        (
            FetchFailure(Reason.HTTP_ERROR, "status 403", 403, 9000.0),
            Outcome.BLOCKED,
            9000.0,
            9000.0,
        ),
        (FetchFailure(Reason.HTTP_ERROR, "status 401", 401), Outcome.BLOCKED, None, 3600.0),
        (
            FetchFailure(Reason.HTTP_ERROR, "status 400", 400),
            Outcome.NO_RESULTS,
            None,
            None,
        ),
        (NotJson(Reason.HTTP_ERROR, "", 200), Outcome.LAYOUT_CHANGED, None, 21_600.0),
        (FetchFailure(Reason.HTTP_ERROR, "status 503", 503, 120.0), Outcome.NETWORK, 120.0, 120.0),
        (FetchFailure(Reason.UNREACHABLE, "ClientConnectorError"), Outcome.NETWORK, None, 60.0),
        (FetchFailure(Reason.UNREACHABLE, "deadline"), Outcome.TIMEOUT, None, 60.0),
    ],
)
def test_each_failure_has_an_outcome_a_sentence_and_a_cool_down(
    failure, outcome, retry_after, cool_down
):
    for source in REGISTRY.values():
        result = PageResults(source, QUERY).failed(failure)
        assert (result.outcome, result.retry_after, result.cool_down_seconds) == (
            outcome,
            retry_after,
            cool_down,
        )
        assert source.label in result.message
        assert result.message.endswith(".")


@pytest.mark.parametrize("status", [400, 404, 413, 414, 422, 431])
def test_only_its_own_sample_words_prove_that_a_source_has_changed(status):
    failure = FetchFailure(Reason.HTTP_ERROR, f"status {status}", status)
    for source in REGISTRY.values():
        result = PageResults(source, QUERY).failed(failure)
        assert (result.outcome, result.cool_down_seconds) == (Outcome.NO_RESULTS, None)
        assert QUERY.words in result.message
        sample = Query(source.sample_words, 5, SearchOptions(), 0.0)
        assert PageResults(source, sample).failed(failure).outcome is Outcome.LAYOUT_CHANGED


@pytest.mark.parametrize("asked", [1e300, float("inf"), float("nan"), -1.0])
def test_no_source_can_close_itself_for_longer_than_a_day(asked):
    for status in (403, 429, 503):
        failure = FetchFailure(Reason.HTTP_ERROR, "", status, asked)
        result = PageResults(REGISTRY["openverse"], QUERY).failed(failure)
        assert 0 <= result.retry_after <= 86_400
        assert 0 <= result.cool_down_seconds <= 86_400


def test_ends_that_are_no_failure_need_no_cool_down():
    calm = {Outcome.OK, Outcome.PARTIAL, Outcome.NO_RESULTS, Outcome.NOT_APPLICABLE}
    assert {
        outcome for outcome in Outcome if SearchResult(outcome).cool_down_seconds is None
    } == calm
    assert set(COOL_DOWN_SECONDS) == set(Outcome) - calm


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 second"),
        (42, "42 seconds"),
        (119, "119 seconds"),
        (180, "3 minutes"),
        (7200, "2 hours"),
    ],
)
def test_a_wait_is_said_in_words(seconds, words):
    results = PageResults(REGISTRY["openverse"], QUERY)
    result = results.rate_limited(seconds, "")
    assert result.message == f"Openverse asks us to wait {words}."


def test_credentials_stand_in_no_text():
    assert "hidden" not in repr(SearchOptions(credentials={"pixabay_key": "hidden"}))
