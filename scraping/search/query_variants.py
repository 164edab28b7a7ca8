"""Other words for the same thing, for when a class is short and its own words are exhausted."""

import re

MOST_WORDINGS = 8  # further from the words that were chosen, more is wrong than right
PHOTO_WORDS = re.compile(r"\b(?:photos?|pictures?|images?|photographs?)\b", re.IGNORECASE)
SIBILANT = re.compile(r"(?:s|x|z|ch|sh)$", re.IGNORECASE)
CONSONANT_Y = re.compile(r"[^aeiou]y$", re.IGNORECASE)
IRREGULAR = {
    "child": "children", "foot": "feet", "goose": "geese", "knife": "knives", "leaf": "leaves", "man": "men",
    "mouse": "mice", "person": "people", "shelf": "shelves", "tooth": "teeth", "wolf": "wolves", "woman": "women",
}  # fmt: skip
SINGULAR = {plural: singular for singular, plural in IRREGULAR.items()}
ONE_FORM = frozenset(
    {"bison", "deer", "fish", "fruit", "moose", "salmon", "series", "sheep", "species", "swine"}
)
ONE_IN_S = re.compile(
    r"(?:ss|us|[nrstx]is)$", re.IGNORECASE
)  # glass, cactus, iris: one thing, though it ends in s


def other_wordings(query: str, locale: str) -> list[str]:
    """The words in the other number, for English, and asked for as photographs; without the words
    themselves.
    """
    english = locale.lower().startswith("en")
    wordings = [other_number(query)] if english else []
    if english and not PHOTO_WORDS.search(query):
        wordings.append(f"{query} photo")
    return new_wordings(wordings, [query])


def new_wordings(wordings: list[str], known: list[str]) -> list[str]:
    """Those that differ from all known ones by more than case and spaces, each once."""
    seen = {_plain(words) for words in known}
    found = []
    for words in wordings:
        if _plain(words) and _plain(words) not in seen:
            seen.add(_plain(words))
            found.append(words.strip())
    return found


def other_number(query: str) -> str:
    """The last word in the plural if it is in the singular, and the other way round."""
    before, space, word = query.strip().rpartition(" ")
    return f"{before}{space}{_turned(word)}"


def _turned(word: str) -> str:
    lower = word.lower()
    if lower in ONE_FORM or not re.fullmatch(r"[A-Za-z][A-Za-z'-]+", word):
        return word
    if known := IRREGULAR.get(lower) or SINGULAR.get(lower):
        return known
    if lower.endswith("s") and not ONE_IN_S.search(lower):
        return _singular(word)
    if CONSONANT_Y.search(word):
        return f"{word[:-1]}ies"
    return f"{word}es" if SIBILANT.search(word) else f"{word}s"


def _singular(word: str) -> str:
    if len(word) > 4 and word.lower().endswith("ies"):
        return f"{word[:-3]}y"
    if re.search(r"(?:ss|x|ch|sh)es$", word, re.IGNORECASE):
        return word[:-2]
    return word[:-1]


def _plain(words: str) -> str:
    return " ".join(words.split()).casefold()
