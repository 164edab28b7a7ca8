"""What this site collects no pictures of: the terms of ``class_policy.txt`` and the operator's own.

A name is read as a person would read it: whatever its letters look like, it is compared in the
plainest spelling, word by word. So a term is found in "P0RN" and "p-o-r-n", and none in
"Scunthorpe".
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from django.conf import settings

SHIPPED = Path(__file__).with_name("class_policy.txt")
SECTION = re.compile(r"\[([a-z ]+)\]")
SECTIONS = ("sexual", "illegal", "people", "given names", "allowed", "careful")
REFUSING = ("illegal", "sexual", "people")
SENTENCES = {
    "sexual": "“{name}” asks for sexual pictures, which this site does not collect.",
    "illegal": "“{name}” asks for pictures of crimes, which this site does not collect.",
    "people": "“{name}” asks for pictures of a private person, which this site does not collect.",
}
ADVICE = "Name something else; if that is a mistake, write to whoever runs this site."
# Digits and signs that stand for letters, in words that have letters too.
LEET = str.maketrans("0134578@$!|€", "oieastbasile")
LEET_L = str.maketrans("0134578@$!|€", "oleastbaslle")
# Letters of other alphabets that look like Latin ones.
LOOKALIKES = str.maketrans("аеорсухіјѕԁһӏкмтвнαειοκνρτυχ", "aeopcyxijsdhlkmtbhaeiokvptux")
WORDS = re.compile(r"[^\W_]+")
INNER_SIGNS = re.compile(r"(?<=\w)[^\w\s]+(?=\w)|_")
LONG_RUNS = re.compile(r"(.)\1{2,}")
FEWEST_LETTERS = 3  # of letters typed apart that are read as one word
NAME_WORDS = (2, 3)  # of a person's name


@dataclass(frozen=True)
class Terms:
    """The terms of one section, in the plainest spelling."""

    whole: frozenset[str] = frozenset()  # the whole name
    phrases: frozenset[str] = frozenset()  # words of it
    starts: frozenset[str] = frozenset()  # words of it, of which the last may go on
    within: frozenset[str] = frozenset()  # of scripts without spaces: anywhere in it


@dataclass(frozen=True)
class Policy:
    """All terms by section."""

    terms: Mapping[str, Terms] = field(default_factory=dict)

    def section_of(self, text: str) -> str:
        """Return the first section that refuses a text, "" where none does."""
        for reading in _readings(text):
            rest = self._without_allowed(reading)
            for section in REFUSING:
                if self._has(section, rest):
                    return section
        if self._is_personal_name(text):
            return "people"
        return ""

    def is_careful(self, text: str) -> bool:
        """Return whether only sources with a safe search are to be asked for a text."""
        return any(self._has("careful", reading) for reading in _readings(text))

    def _has(self, section: str, text: str) -> bool:
        terms = self.terms.get(section, Terms())
        if text.strip() in terms.whole or any(term in text for term in terms.within):
            return True
        padded = f" {text} "
        if any(f" {term} " in padded for term in terms.phrases):
            return True
        return any(f" {term}" in padded for term in terms.starts)

    def _without_allowed(self, text: str) -> str:
        allowed = self.terms.get("allowed", Terms()).phrases
        padded = f" {text} "
        for term in sorted(allowed, key=len, reverse=True):
            padded = padded.replace(f" {term} ", " ")
        return " ".join(padded.split())

    def _is_personal_name(self, text: str) -> bool:
        """Return whether a text is a given name with one or two more names, and nothing else."""
        words = self._without_allowed(_plain(text)).split()
        if len(words) not in NAME_WORDS or not all(word.isalpha() for word in words):
            return False
        names = self.terms.get("given names", Terms())
        first = words[0]
        return first in names.phrases and all(len(word) > 1 for word in words)


def problem_of(text: str) -> str:
    """Return why a name or search words are refused, in a sentence; "" where they are not."""
    section = current().section_of(text)
    if not section:
        return ""
    sentence = SENTENCES[section].format(name=text.strip())
    return f"{sentence} {ADVICE}"


def is_careful(text: str) -> bool:
    """Return whether only sources with a safe search of their own are to be asked for a text."""
    return current().is_careful(text)


def current() -> Policy:
    """Return the policy of now; the operator's file is read again when it has changed."""
    own = settings.CLASS_POLICY
    changed = 0
    if own:
        changed = Path(own).stat().st_mtime_ns
    return _read(own, changed)


@lru_cache(maxsize=4)
def _read(own: str, changed: int) -> Policy:
    lines = _sections(SHIPPED.read_text(encoding="utf-8"), str(SHIPPED))
    if own:
        more = _sections(Path(own).read_text(encoding="utf-8"), own)
        for section, terms in more.items():
            dropped = {term.removeprefix("-") for term in terms if term.startswith("-")}
            added = [term for term in terms if not term.startswith("-")]
            lines[section] = [term for term in lines[section] if term not in dropped] + added
    return Policy({section: _terms(terms) for section, terms in lines.items()})


class PolicyError(Exception):
    """A file of terms cannot be used; the message says why."""


def _sections(text: str, name: str) -> dict[str, list[str]]:
    """Return the lines of each section, without comments. Raises PolicyError."""
    found: dict[str, list[str]] = {section: [] for section in SECTIONS}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        heading = SECTION.fullmatch(line)
        if heading is not None:
            section = heading[1]
        if section not in found:
            known = ", ".join(f"[{each}]" for each in SECTIONS)
            raise PolicyError(f"{name}, line {number}: a term stands below one of {known}.")
        if heading is None:
            found[section] += line.split() if section == "given names" else [line]
    return found


def _terms(lines: Iterable[str]) -> Terms:
    whole = set()
    phrases = set()
    starts = set()
    within = set()
    for line in lines:
        plain = _plain(line.strip("=*"))
        if not plain:
            continue
        if line.startswith("="):
            whole.add(plain)
        elif any(_is_unspaced(char) for char in plain):
            within.add(plain)
        elif line.endswith("*"):
            starts.add(plain)
        else:
            phrases.add(plain)
    return Terms(*map(frozenset, (whole, phrases, starts, within)))


def _is_unspaced(char: str) -> bool:
    """Return whether a character is of a script that writes words without spaces between them."""
    is_letter = unicodedata.category(char) in ("Lo", "Lm")
    return is_letter and unicodedata.east_asian_width(char) == "W" and not "가" <= char <= "힣"


def _plain(text: str) -> str:
    """Return the words of a text in compatibility form, without capitals and Latin accents."""
    text = unicodedata.normalize("NFKC", text).casefold()
    letters = ""
    for char in unicodedata.normalize("NFKD", text):
        is_mark = unicodedata.category(char) == "Mn"
        if not is_mark or not (letters and letters[-1].isascii()):
            letters += char
    letters = unicodedata.normalize("NFC", letters)
    return " ".join(WORDS.findall(letters))


def _readings(text: str) -> set[str]:
    """Return the ways in which a text may be read, each as words with single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    readings = {folded}
    for table in (LEET, LEET_L):
        words = [word.translate(table) if _has_letter(word) else word for word in folded.split()]
        readings.add(" ".join(words))
    readings |= {reading.translate(LOOKALIKES) for reading in readings}
    readings |= {INNER_SIGNS.sub("", reading) for reading in readings}
    readings = {_plain(reading) for reading in readings}
    readings |= {_joined(reading) for reading in readings}
    for length in (1, 2):  # "pooorn"
        readings |= {LONG_RUNS.sub(r"\1" * length, reading) for reading in readings}
    readings |= {reading.replace(" ", "") for reading in readings if len(reading) < 16}
    return readings


def _has_letter(word: str) -> bool:
    return any(char.isalpha() for char in word)


def _joined(text: str) -> str:
    """Return the words with single letters that follow each other read as one: "p o r n"."""
    words: list[str] = []
    letters = ""
    for word in [*text.split(), ""]:
        if len(word) == 1:
            letters += word
            continue
        if letters:
            words += [letters] if len(letters) >= FEWEST_LETTERS else list(letters)
            letters = ""
        if word:
            words.append(word)
    return " ".join(words)
