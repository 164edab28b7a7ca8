"""The adapter of Wikimedia Commons, against a replica with the traps of the real one."""

import pytest

from scraping.sources.catalogue import Outcome
from scraping.sources.wikimedia import plain_words, rendered_width, split_license
from tests.replicas.commons import CommonsReplica
from tests.scraping.conftest import config_for


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


def test_words_that_commons_cannot_search_for_do_not_close_it(ask):
    with CommonsReplica() as site:
        result = ask("wikimedia", config_for({"wikimedia": site}), "too complex", limit=10)
    assert (result.outcome, result.cool_down_seconds) == (Outcome.NO_RESULTS, None)
    assert result.detail == "cirrussearch-regex-too-complex-error"
    assert "too complex" in result.message


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("insource:/[/", "insource"),
        ("-dog cat", "dog cat"),
        ('"welsh corgi"', "welsh corgi"),
        ("corg?", "corg"),
        ("AC/DC T-shirt", "AC/DC T-shirt"),
        ("O'Brien & Söhne", "O'Brien & Söhne"),
        ("???", "???"),
    ],
)
def test_words_are_no_commands_of_the_search(words, asked):
    assert plain_words(words) == asked


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
