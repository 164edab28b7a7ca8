"""Finished searches, kept so that a collection that is resumed does not ask the same twice."""

import json

from scraping.search.search_log import Search, SearchLog
from scraping.sources.base import Candidate, SearchResult
from scraping.sources.catalogue import Outcome

SEARCH = Search("c001", "openverse", "corgi")
FOUND = Candidate("https://pictures.example/1.jpg", "openverse", "corgi", 1, title="A corgi")


def test_a_finished_search_is_read_again_and_one_that_failed_is_not_kept(tmp_path):
    path = tmp_path / "searches.jsonl"
    log = SearchLog(path)
    log.append(SEARCH, 10, SearchResult(Outcome.PARTIAL, (FOUND,), "Openverse had only 1."))
    log.append(Search("c001", "bing", "corgi"), 10, SearchResult(Outcome.NETWORK))
    [(search, limit, result)] = SearchLog(path)
    assert (search, limit, result.outcome) == (SEARCH, 10, Outcome.PARTIAL)
    assert result.candidates == (FOUND,)


def test_a_log_of_an_earlier_version_is_read_without_the_facts_that_are_gone(tmp_path):
    path = tmp_path / "searches.jsonl"
    SearchLog(path).append(SEARCH, 1, SearchResult(Outcome.OK, (FOUND,), "1 from Openverse."))
    entry = json.loads(path.read_text())
    entry["candidates"][0] |= {"thumb_url": "https://t.example/1.jpg", "identity": "flickr:1"}
    path.write_text(json.dumps(entry) + "\n")
    result = SearchLog(path).find(SEARCH, 1)
    assert result is not None
    assert result.candidates == (FOUND,)
