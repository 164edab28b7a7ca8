"""Wikidata: what things are called so, each in a few words. It belongs to Wikimedia Commons.

One question names them: https://www.wikidata.org/w/api.php?action=help&modules=wbsearchentities
"""

from typing import Any

from scraping.sources.json_api import list_at, object_at, plain_text
from scraping.sources.taxon import same_name

LABEL = "Wikidata"
DEFAULT_URL = "https://www.wikidata.org"
API_PATH = "/w/api.php"  # at Commons too
THINGS_ASKED = 20


def wikidata_url(commons_url: str, usual_commons_url: str) -> str:
    """Return the address to ask: Wikidata's own, or that of a mirror of Commons."""
    return DEFAULT_URL if commons_url == usual_commons_url else commons_url


def search_parameters(words: str) -> dict[str, str]:
    """Return the question for the things of a name, described in English."""
    return {
        "action": "wbsearchentities",
        "format": "json",
        "formatversion": "2",
        "search": words,
        "language": "en",
        "uselang": "en",
        "type": "item",
        "limit": str(THINGS_ASKED),
    }


def exact_descriptions(data: Any, words: str) -> list[str] | None:
    """Return the description of each thing that is called exactly so, by its label or an alias.

    None when the answer has no list of things.
    """
    things = list_at(data, "search")
    if things is None:
        return None
    found = []
    for thing in things:
        is_exact = same_name(object_at(thing, "match").get("text"), words)
        if is_exact:
            found.append(plain_text(thing.get("description")))
    return found
