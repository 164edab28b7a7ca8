"""The Openverse adapter, against a replica with the traps of the real one."""

import pytest

from scraping.sources.catalogue import Outcome
from tests.replicas.openverse import CLIENT, OpenverseReplica
from tests.scraping.conftest import config_for
from tests.scraping.source_client import SourceClient


def test_openverse_pages_are_read_until_enough_is_found(ask):
    with OpenverseReplica() as site:
        result = ask("openverse", config_for({"openverse": site}), "corgi", limit=50)
        assert result.outcome is Outcome.OK, result
        assert len(result.candidates) == 50
        assert [request.query["page"] for request in site.requests] == ["1", "2", "3"]
        assert all(request.query["mature"] == "false" for request in site.requests)


def test_openverse_ends_at_its_last_page_with_all_that_it_has(ask):
    with OpenverseReplica() as site:
        result = ask("openverse", config_for({"openverse": site}), "corgi", limit=500)
        assert result.outcome is Outcome.PARTIAL
        assert len(site.requests) == 12
        assert (
            len(result.candidates) == 12 * 20 - 4 * 2 - 1
        )  # short pages, and one entry without an address
        assert result.stats.dropped == 1


def test_openverse_gives_the_licence_and_author_of_each_picture_and_no_html(ask):
    with OpenverseReplica() as site:
        first, *_, sparse = ask(
            "openverse", config_for({"openverse": site}), "corgi", limit=4
        ).candidates
        assert first.title == "Picture & more 0"
        assert (first.license, first.license_version, first.license_basis) == (
            "cc-by-sa",
            "4.0",
            "per-item",
        )
        assert first.license_url == "https://creativecommons.org/licenses/by-sa/4.0/"
        assert first.creator == "Author 0"
        assert "CC BY-SA 4.0" in first.attribution
        assert (first.mime, first.width, first.height) == ("image/jpeg", 320, 240)
        assert (sparse.title, sparse.creator, sparse.mime, sparse.width) == ("", "", "", None)


@pytest.mark.parametrize(
    ("words", "outcome", "found", "wait"),
    [
        ("nothing", Outcome.NO_RESULTS, 0, None),
        ("few", Outcome.PARTIAL, 3, None),
        ("throttled", Outcome.RATE_LIMITED, 37, 42.0),
        ("exhausted", Outcome.RATE_LIMITED, 37, 180.0),
        ("changed", Outcome.LAYOUT_CHANGED, 0, None),
    ],
)
def test_each_end_of_openverse_has_its_outcome_and_keeps_what_was_found(
    ask, words, outcome, found, wait
):
    with OpenverseReplica() as site:
        result = ask("openverse", config_for({"openverse": site}), words, limit=100)
        assert (result.outcome, len(result.candidates), result.retry_after) == (
            outcome,
            found,
            wait,
        ), result
        assert "Openverse" in result.message


def test_openverse_is_asked_again_after_a_passing_failure(ask):
    with OpenverseReplica() as site:
        result = ask("openverse", config_for({"openverse": site}), "broken", limit=15)
        assert result.outcome is Outcome.OK
        assert len(site.requests) == 2


def test_a_source_that_answers_with_errors_only_is_named_as_not_answering(ask):
    with OpenverseReplica() as site:
        result = ask("openverse", config_for({"openverse": site}), "down", limit=20)
        assert result.outcome is Outcome.NETWORK
        assert result.message == "Openverse did not answer."
        assert len(site.requests) == 3


def test_a_source_that_refuses_connections_is_named_as_not_answering(ask):
    with OpenverseReplica() as site:
        config = config_for({"openverse": site})
    result = ask("openverse", config, "corgi")
    assert result.outcome is Outcome.NETWORK


ACCOUNT = {"credentials": {f"openverse_{name}": value for name, value in CLIENT.items()}}


def test_with_an_account_openverse_is_read_in_larger_pages_beyond_its_anonymous_end():
    with OpenverseReplica() as site:
        client = SourceClient("openverse", site)
        result = client.search("corgi", limit=700, **ACCOUNT)
        assert (result.outcome, len(result.candidates), result.detail) == (Outcome.OK, 700, "")
        assert len(site.asked("/v1/auth_tokens/token/")) == 1
        assert {request.query["page_size"] for request in site.asked("/v1/images/")} == {"100"}
        assert set(client.paces) == {1.0}
        client.search("corgi", limit=10, **ACCOUNT)
        assert len(site.asked("/v1/auth_tokens/token/")) == 1, "a token is used until it ends"


def test_an_expired_token_of_openverse_is_renewed_and_the_page_asked_for_again():
    with OpenverseReplica(token_uses=2) as site:
        result = SourceClient("openverse", site).search("corgi", limit=450, **ACCOUNT)
        assert (result.outcome, len(result.candidates)) == (Outcome.OK, 450), result
        assert [candidate.rank for candidate in result.candidates] == list(range(1, 451))
        assert len(site.asked("/v1/auth_tokens/token/")) == 3
        refused = [request.headers["Authorization"] for request in site.asked("/v1/images/")]
        assert refused == ["Bearer token-1"] * 3 + ["Bearer token-2"] * 3 + ["Bearer token-3"]


@pytest.mark.parametrize(
    ("words", "secret"),
    [("corgi", {"openverse_client_secret": "wrong"}), ("banned", {})],
    ids=["secret", "token"],
)
def test_an_account_that_openverse_refuses_is_done_without_and_the_operator_is_told(words, secret):
    with OpenverseReplica() as site:
        credentials = ACCOUNT["credentials"] | secret
        result = SourceClient("openverse", site).search(words, limit=30, credentials=credentials)
        assert (result.outcome, len(result.candidates)) == (Outcome.OK, 30), result
        assert result.detail == "the account was refused; asked without it"
        assert site.requests[-1].query["page_size"] == "20"
        assert "not so secret" not in repr(
            SourceClient("openverse", site).query("x", credentials=credentials)
        )
