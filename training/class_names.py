"""Unicode rules for class names, as people type them and as folders are called.

``normalize`` gives the text that is kept, ``find_problem`` says why a text is refused, and two
names with the same ``casefold_key`` are duplicates. ``names_in`` finds names in a text.
``shown_name`` makes a text of any file's name.
"""

import re
import unicodedata
from collections.abc import Sequence

# Characters that change the reading direction of what follows: they make a name look like another.
DIRECTION_MARKS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)

# Characters that nobody sees and no name needs: soft hyphens, zero-width spaces, byte order marks,
# fillers. They come along with copied text. From Unicode's property Default_Ignorable_Code_Point,
# without the characters that change how their neighbors look.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
)
# Tag characters spell the flag of a region after a black flag; elsewhere nobody sees them.
FLAG_OR_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007f]+)|[\U000e0000-\U000e007f]+")
# Joiners bind emoji together and shape Arabic and Indic letters; elsewhere nobody sees them.
JOINERS = re.compile("[\u200c\u200d]+")
# Variation selectors choose between the text and the emoji form of the character before them.
VARIATION_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
SPACES = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000]+")

_UNSPACED = (("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"))  # Thai, Lao, ...

CONTROL_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")  # controls, surrogates, line and paragraph separators
SYMBOLS_AND_MARKS = ("So", "Sk", "Sm", "Mn", "Mc", "Me")  # emoji are symbols


def normalize(text: str) -> str:
    """Return the text in normal form C, with single spaces and without invisible characters."""
    text = INVISIBLE.sub("", text)
    text = FLAG_OR_TAGS.sub(r"\1", text)
    text = JOINERS.sub(_needed_joiners, text)
    text = SPACES.sub(" ", text).strip(" ")
    return unicodedata.normalize("NFC", text)


def casefold_key(name: str) -> str:
    """Return what two names have in common when people would call them the same."""
    plain = VARIATION_SELECTORS.sub("", normalize(name))
    return normalize(plain.casefold())


def names_in(text: str, names: Sequence[str]) -> list[int]:
    """Return which of the names a text speaks of, by their indices in order of length.

    Letters are compared as by ``casefold_key``. A name stands between what is no letter, or between
    any letters of scripts without spaces; a plural's "s" may follow. Within a longer name that the
    text speaks of, a shorter one does not count: a hot dog is no dog.
    """
    keys = [casefold_key(name) for name in names]
    longest_first = sorted(range(len(keys)), key=lambda index: -len(keys[index]))
    rest = casefold_key(text)
    found = []
    for index in longest_first:
        key = keys[index]
        if not key:
            continue
        without = _without_name(rest, key)
        if without != rest:
            found.append(index)
        rest = without
    return found


def _without_name(text: str, name: str) -> str:
    """Return the text with line breaks, which no name has, where the name stood as a word."""
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        if text.startswith("s", end) and not _goes_on(text, end + 1):
            end += 1
        if not _goes_on(text, start) and not _goes_on(text, end):
            before = text[:start]
            after = text[end:]
            text = f"{before}\n{after}"
        start = text.find(name, start + 1)
    return text


def _goes_on(text: str, index: int) -> bool:
    """Return whether a word goes on from the character before an index to the one there."""
    if index == 0 or index >= len(text):
        return False
    for char in text[index - 1 : index + 1]:
        major_category = unicodedata.category(char)[0]
        if major_category not in "LMN" or _is_unspaced(char):
            return False
    return True


def _is_unspaced(char: str) -> bool:
    """Return whether a character is of a script that writes words without spaces between them."""
    if "\uac00" <= char <= "\ud7a3":  # Korean, which is as wide as Chinese, has spaces
        return False
    for first, last in _UNSPACED:
        if first <= char <= last:
            return True
    is_letter = unicodedata.category(char) == "Lo"
    return is_letter and unicodedata.east_asian_width(char) in "WFH"


def shown_name(text: str) -> str:
    """Return any text, such as a path, on one line, with U+FFFD for what is no text in it.

    Names of files are bytes on most systems: not UTF-8, with line breaks, with half an emoji.
    Python holds a byte that is no text as half of a surrogate pair.
    """
    shown = ""
    for char in text:
        is_unfit = char in DIRECTION_MARKS or unicodedata.category(char) in CONTROL_CATEGORIES
        shown += "\ufffd" if is_unfit else char
    return shown


def find_problem(text: str, max_length: int) -> str:
    """Return a sentence that says why the text is refused, or "" when it is not.

    :param max_length: in characters, after normalizing
    """
    normalized = normalize(text)
    if any(char in DIRECTION_MARKS for char in normalized):
        return "Invisible characters that change the reading direction are not allowed here."
    if any(unicodedata.category(char) in CONTROL_CATEGORIES for char in normalized):
        return "Line breaks and other control characters are not allowed here."
    if len(normalized) > max_length:
        return f"At most {max_length} characters, please; this has {len(normalized)}."
    if text.strip() and not _has_visible_character(normalized):
        return "This has no visible character."
    return ""


def _has_visible_character(text: str) -> bool:
    for char in VARIATION_SELECTORS.sub("", text):
        major_category = unicodedata.category(char)[0]
        if major_category not in "CZ":  # neither control or format, nor separator
            return True
    return False


def _needed_joiners(match: re.Match[str]) -> str:
    """Return the joiners if the characters on both sides can be joined, else ""."""
    before = match.string[: match.start()][-1:]
    after = match.string[match.end() :][:1]
    if _is_joinable(before) and _is_joinable(after):
        return match[0]
    return ""


def _is_joinable(char: str) -> bool:
    """Return True for emoji with their modifiers, combining marks, and letters of scripts without
    capitals, except ideographs and kana.
    """
    if not char:
        return False
    category = unicodedata.category(char)
    if category in ("Lo", "Lm"):  # other letters, modifier letters
        return unicodedata.east_asian_width(char) not in "WFH"
    return category in SYMBOLS_AND_MARKS
