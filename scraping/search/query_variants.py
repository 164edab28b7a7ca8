"""Other words for the same thing, for when a class is short and its own words are exhausted."""

import re
from collections.abc import Iterable

MAX_VARIANTS = 8  # further from the words that were chosen, more is wrong than right
PHOTO_WORDS = re.compile(r"\b(?:photos?|pictures?|images?|photographs?)\b", re.IGNORECASE)
SIBILANT = re.compile(r"(?:s|x|z|ch|sh)$", re.IGNORECASE)
CONSONANT_Y = re.compile(r"[^aeiou]y$", re.IGNORECASE)
SIBILANT_ES = re.compile(r"(?:ss|x|ch|sh)es$", re.IGNORECASE)
PLAIN_WORD = re.compile(r"[A-Za-z][A-Za-z'-]+")
IRREGULAR = {
    "child": "children",
    "foot": "feet",
    "goose": "geese",
    "knife": "knives",
    "leaf": "leaves",
    "man": "men",
    "mouse": "mice",
    "person": "people",
    "shelf": "shelves",
    "tooth": "teeth",
    "wolf": "wolves",
    "woman": "women",
}
SINGULAR = {plural: singular for singular, plural in IRREGULAR.items()}
ONE_FORM = frozenset(
    {"bison", "deer", "fish", "fruit", "moose", "salmon", "series", "sheep", "species", "swine"}
)
# Glass, cactus, iris: one thing, though it ends in s.
SINGULAR_IN_S = re.compile(r"(?:ss|us|[nrstx]is)$", re.IGNORECASE)


def query_variants(query: str, locale: str) -> list[str]:
    """Return the words in the other number and asked for as photographs; for English alone."""
    if not locale.lower().startswith("en"):
        return []
    variants = [other_number(query)]
    if not PHOTO_WORDS.search(query):
        variants.append(f"{query} photo")
    return without_known(variants, [query])


def without_known(variants: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return each variant once that differs from the known ones by more than case and spaces."""
    seen = {casefold_key(words) for words in known}
    found = []
    for words in variants:
        key = casefold_key(words)
        if key and key not in seen:
            seen.add(key)
            found.append(words.strip())
    return found


def casefold_key(words: str) -> str:
    """Return the form under which words are equal but for case and spaces."""
    return " ".join(words.split()).casefold()


def other_number(query: str) -> str:
    """Return the query with its last word in the plural, or in the singular if it is a plural."""
    before, space, word = query.strip().rpartition(" ")
    word = _other_number_of_word(word)
    return f"{before}{space}{word}"


def _other_number_of_word(word: str) -> str:
    lower = word.lower()
    if lower in ONE_FORM or not PLAIN_WORD.fullmatch(word):
        return word
    if known := IRREGULAR.get(lower) or SINGULAR.get(lower):
        return known
    if lower.endswith("s") and not SINGULAR_IN_S.search(lower):
        return _singular(word)
    if CONSONANT_Y.search(word):
        return f"{word[:-1]}ies"
    if SIBILANT.search(word):
        return f"{word}es"
    return f"{word}s"


def _singular(word: str) -> str:
    if len(word) > 4 and word.lower().endswith("ies"):
        return f"{word[:-3]}y"
    if SIBILANT_ES.search(word):
        return word[:-2]
    return word[:-1]
