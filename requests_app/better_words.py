"""Better words for a name with several meanings, while a person fills in the form.

One source describes what things are called so. It is asked by this site, at most at its own pace,
within seconds, and its answers are kept for a day. Where it is off or fails there is no suggestion.
"""

import re
from dataclasses import asdict, dataclass

from django.conf import settings
from django.core.cache import cache

from requests_app.models import SourceHealth, sha256_hex
from requests_app.text_rules import casefold_key, normalize
from scraping.kinds import described_kind, is_other_name, with_kind
from scraping.net.http import FetchFailure, FetchSettings, fetch_json
from scraping.sources.wikidata import (
    API_PATH,
    DEFAULT_URL,
    exact_descriptions,
    search_parameters,
)

SOURCE = "wikimedia"  # Wikidata belongs to it
FETCH_SECONDS = 4.0
MOST_BYTES = 500_000
DAY_SECONDS = 86_400
FAILED_SECONDS = 300  # before a name is asked again
PACE_SECONDS = 1.0  # between two questions to the source
A_VISITOR_A_MINUTE = 20
LEAST_LETTERS = 3
MOST_THINGS = 8  # called exactly so, the best known first; less known ones are no question
MOST_MEANINGS = 5
ABOUT_LENGTH = 60  # characters of a description that are shown

# What `scraping.kinds` has no word for, because no collection is asked for it unasked: the word
# that tells such pictures apart, and what a description says of it.
OTHER_KINDS = {
    "planet": r"\bplanet\b",
    "programming language": r"\bprogramming language\b",
    "chemical element": r"\bchemical element\b",
    "god": r"\b(?:god|goddess|deity)\b",
    "constellation": r"\bconstellation\b",
    "company": r"\b(?:company|corporation|conglomerate)\b",
    "software": r"\b(?:software|operating system|web browser)\b",
    "sports team": r"\b(?:football|sports?|baseball|basketball|hockey|rugby) (?:club|team)\b",
    "sport": r"\bsport\b",
    "tool": r"\b(?:tool|device|machine)\b",
}


class AskedTooMuch(Exception):
    """This visitor, or all together, have asked as often as is polite; nothing was asked."""


@dataclass(frozen=True)
class Meaning:
    """One thing that a name can mean: the words that find it, and its description."""

    label: str
    query: str
    about: str


def is_on() -> bool:
    """Return whether names can be looked up: in English, by a source that this site uses."""
    if not settings.CONTACT:
        return False
    if SOURCE not in settings.SOURCES:
        return False
    locale = settings.LOCALE.lower()
    return locale.startswith("en")


def meanings(name: str, visitor: str) -> list[Meaning]:
    """Return what a name can mean, [] where that is one thing or not known.

    :param visitor: what tells visitors apart, for their rate
    :raises AskedTooMuch: the same question may be asked again in a moment
    """
    name = normalize(name)
    if not is_on() or len(name) < LEAST_LETTERS:
        return []
    key = f"words:{sha256_hex(casefold_key(name))}"
    known = cache.get(key)
    if known is not None:
        return [Meaning(**row) for row in known]
    _take_from_rate(visitor)
    descriptions = _descriptions(name)
    found = several_meanings(name, descriptions or [])
    seconds = FAILED_SECONDS if descriptions is None else DAY_SECONDS
    cache.set(key, [asdict(meaning) for meaning in found], timeout=seconds)
    return found


def several_meanings(name: str, descriptions: list[str]) -> list[Meaning]:
    """Return one meaning for each kind of thing in the descriptions, [] for fewer than two."""
    found: dict[str, Meaning] = {}
    for about in descriptions[:MOST_THINGS]:
        label = "" if is_other_name(about) else _kind(about)
        if label and label not in found:
            query = with_kind(name, label)
            found[label] = Meaning(label, query, about[:ABOUT_LENGTH])
    if len(found) < 2:
        return []
    return list(found.values())[:MOST_MEANINGS]


def _kind(description: str) -> str:
    kind = described_kind(description)
    if kind:
        return kind
    for label, pattern in OTHER_KINDS.items():
        if re.search(pattern, description, re.IGNORECASE):
            return label
    return ""


def _descriptions(name: str) -> list[str] | None:
    """Ask the source; None where it is left alone or does not answer."""
    health = SourceHealth.objects.filter(name=SOURCE).first()
    if health is not None and health.is_closed:
        return None
    if not cache.add("words:pace", True, timeout=PACE_SECONDS):
        raise AskedTooMuch
    fetch_settings = FetchSettings(
        contact=settings.CONTACT,
        allowed_private_hosts=frozenset(settings.ALLOWED_PRIVATE_HOSTS),
        max_bytes=MOST_BYTES,
        deadline_seconds=FETCH_SECONDS,
    )
    base_url = settings.SOURCE_URLS.get(SOURCE, DEFAULT_URL)
    reply = fetch_json(f"{base_url}{API_PATH}", search_parameters(name), fetch_settings)
    if isinstance(reply, FetchFailure):
        return None
    return exact_descriptions(reply.data, name)


def _take_from_rate(visitor: str) -> None:
    """Count one question of a visitor.

    :raises AskedTooMuch: it was one too many
    """
    key = f"words:rate:{sha256_hex(visitor)}"
    cache.add(key, 0, timeout=60)
    if cache.incr(key) > A_VISITOR_A_MINUTE:
        raise AskedTooMuch
