"""Safe search is strict, and an answer that shows that it is not in force is not used."""

from dataclasses import replace

import pytest

from scraping.sources.bing import BingPage, BingReader
from scraping.sources.catalogue import CATALOGUE, SEARCHED, Outcome
from scraping.sources.google import GoogleReader
from scraping.sources.openverse import is_mature
from scraping.sources.pixabay import is_not_for_all
from tests.replicas.openverse import OpenverseReplica
from tests.scraping.conftest import config_for

PAGE = BingPage(
    count=20,
    results=True,
    search_box=True,
    url="https://www.bing.com/images/search?q=cat&adlt=strict",
    text="cat images",
    status=200,
    tiles=[],
    see_more=False,
    length=9000,
    fragment_status=0,
)


def is_safe(reader, **facts) -> bool:
    return reader.is_safe(object.__new__(reader), replace(PAGE, **facts))


@pytest.mark.parametrize(
    ("reader", "facts", "safe"),
    [
        (BingReader, {}, True),
        (BingReader, {"url": "https://www.bing.com/images/search?q=cat"}, False),
        (BingReader, {"url": "https://www.bing.com/images/search?q=cat&adlt=off"}, False),
        (BingReader, {"text": "Filter SafeSearch: Moderate"}, False),
        (BingReader, {"text": "SafeSearch: Strict"}, True),
        (GoogleReader, {"url": "https://www.google.com/search?q=cat&safe=active"}, True),
        (GoogleReader, {"url": "https://www.google.com/search?q=cat"}, False),
        (
            GoogleReader,
            {"url": "https://g.example/search?safe=active", "text": "SafeSearch is off"},
            False,
        ),
    ],
)
def test_a_page_that_was_not_searched_strictly_is_known(reader, facts, safe):
    assert is_safe(reader, **facts) is safe


def test_an_answer_with_an_entry_that_should_not_be_there_is_not_used(ask):
    with OpenverseReplica() as site:
        site.mature_number = 25  # of the second page
        result = ask("openverse", config_for({"openverse": site}), "corgi", limit=50)
    assert result.outcome is Outcome.UNAVAILABLE
    assert result.candidates == ()
    assert result.message == "Openverse did not search safely, so its answer was not used."
    assert [request.query["mature"] for request in site.requests] == ["false", "false"]


def test_marks_of_entries_are_read():
    assert (is_mature({"mature": True}), is_mature({}), is_mature(None)) == (True, False, False)
    assert is_not_for_all({"isGRated": False})
    assert not is_not_for_all({"isGRated": True})
    assert not is_not_for_all({})


def test_the_catalogue_says_which_sources_search_safely():
    safe = {name for name in SEARCHED if CATALOGUE[name].safe_search}
    assert safe == {"openverse", "bing", "pixabay", "google"}
