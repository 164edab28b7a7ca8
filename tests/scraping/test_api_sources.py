"""The adapters of Openverse and Wikimedia Commons, against replicas with the traps of the real
ones.
"""

import pytest

from scraping.sources.catalogue import Outcome
from scraping.sources.wikimedia import rendered_width, split_license
from tests.replicas.commons import CommonsReplica
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


def test_commons_results_come_in_the_order_of_their_rank_with_bounded_pictures(ask):
    with CommonsReplica() as site:
        result = ask(
            "wikimedia", config_for({"wikimedia": site}, max_side=1024), "corgi", limit=500
        )
        assert result.outcome is Outcome.PARTIAL, result
        assert len(result.candidates) == 119  # one page lacks its file's description
        numbers = [
            int(candidate.image_url.rpartition("/")[2].removesuffix(".jpg"))
            for candidate in result.candidates
        ]
        assert numbers == sorted(numbers)
        assert "original" not in result.candidates[0].image_url
        assert [request.query.get("gsroffset") for request in site.requests] == [None, "50", "100"]
        assert site.requests[0].query["iiurlwidth"] == "1280"


def test_commons_gives_author_and_licence_as_plain_text_and_marks_what_is_unknown(ask):
    with CommonsReplica() as site:
        found = ask("wikimedia", config_for({"wikimedia": site}), "corgi", limit=10).candidates
        first = found[0]
        assert first.creator == "Author & Co 0"
        assert (first.license, first.license_version, first.license_basis) == (
            "cc-by-sa",
            "4.0",
            "per-item",
        )
        assert first.attribution == "Author & Co 0, Picture 0, CC BY-SA 4.0, via Wikimedia Commons"
        assert first.page_url == "https://commons.example/wiki/File:Picture_0.jpg"
        unknown = next(candidate for candidate in found if candidate.image_url.endswith("/6.jpg"))
        assert (unknown.license, unknown.license_basis, unknown.title) == (
            "",
            "unknown",
            "Picture 6",
        )


@pytest.mark.parametrize(
    ("words", "outcome", "found"),
    [
        ("nothing", Outcome.NO_RESULTS, 0),
        ("lagging", Outcome.OK, 10),
        ("lagged", Outcome.RATE_LIMITED, 0),
        ("changed", Outcome.LAYOUT_CHANGED, 0),
        ("refused", Outcome.LAYOUT_CHANGED, 0),
    ],
)
def test_each_end_of_commons_has_its_outcome(ask, words, outcome, found):
    with CommonsReplica() as site:
        result = ask("wikimedia", config_for({"wikimedia": site}), words, limit=10)
        assert (result.outcome, len(result.candidates)) == (outcome, found), result
        assert "Wikimedia" in result.message


def test_commons_is_told_who_asks_and_is_not_asked_without_a_contact(ask):
    with CommonsReplica() as site:
        assert (
            ask("wikimedia", config_for({"wikimedia": site}), "corgi", limit=1).outcome
            is Outcome.OK
        )
        agent = site.requests[0].headers["User-Agent"]
        assert agent.startswith("Picaisso/")
        assert agent.endswith("(operator@example.org)")
        before = len(site.requests)
        result = ask("wikimedia", config_for({"wikimedia": site}, contact=""), "corgi")
        assert result.outcome is Outcome.NOT_APPLICABLE
        assert "contact" in result.message
        assert len(site.requests) == before


@pytest.mark.parametrize(
    ("slug", "shown", "expected"),
    [
        ("cc-by-sa-4.0", "CC BY-SA 4.0", ("cc-by-sa", "4.0")),
        ("cc-by-sa-2.0-de", "", ("cc-by-sa", "2.0")),
        ("cc0", "CC0", ("cc0", "")),
        ("pd", "Public domain", ("pd", "")),
        ("", "No restrictions", ("No restrictions", "")),
        ("", "", ("", "")),
    ],
)
def test_a_licence_is_split_into_name_and_version(slug, shown, expected):
    assert split_license(slug, shown) == expected


@pytest.mark.parametrize(
    ("side", "width"), [(200, 250), (256, 330), (1024, 1280), (1280, 1280), (5000, 1920)]
)
def test_the_rendered_width_asked_for_is_one_that_exists_and_not_too_small(side, width):
    assert rendered_width(side) == width
