"""What kind of things the classes of one collection are: given, or told by their descriptions.

It is decided once, before the first search, and lies in `kind.json` of the folder, so that a
resumed collection asks with the same words.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from scraping.config import ClassConfig
from scraping.files import write_json
from scraping.kinds import described_kind, is_other_name, plural_of, search_words, with_kind

FILE_NAME = "kind.json"
GIVEN = "given"
DERIVED = "derived"
NONE = "none"


@dataclass(frozen=True)
class ClassKind:
    """The word that is added to the names of the classes, empty for none.

    `how` is `given`, `derived` or `none`; `sentence` tells people, empty without a word.
    """

    word: str = ""
    how: str = NONE
    sentence: str = ""

    @classmethod
    def given(cls, word: str, names: Sequence[str]) -> Self:
        """Return the kind that a person gave; no word means that they want the plain names."""
        if not word or not names:
            return cls(word, GIVEN)
        return cls(word, GIVEN, f"Searched as “{with_kind(names[0], word)}”, as you asked.")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return what was decided for a folder before, None when nothing was."""
        try:
            values = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
            return cls(str(values["word"]), str(values["how"]), str(values["sentence"]))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def words_for(self, entry: ClassConfig) -> str:
        """Return the words that ask for a class first."""
        return search_words(entry.name, entry.query, self.word)

    def write(self, folder: Path) -> None:
        """Write it into the folder."""
        write_json(folder / FILE_NAME, asdict(self))


def takes_kind(entry: ClassConfig) -> bool:
    """Return whether a kind is added to a class's words: not where it was given its own."""
    return entry.query.casefold() == entry.name.casefold()


def derived_kind(descriptions: Mapping[str, Sequence[str]], place: str) -> ClassKind:
    """Return the one kind that all names share, where one of them means other things too.

    `descriptions` holds, by name, a short description of each thing that is called exactly so;
    `place` is where they come from.
    """
    kinds_by_name = {}
    for name, texts in descriptions.items():
        kinds_by_name[name] = [described_kind(text) for text in texts if not is_other_name(text)]
    shared = shared_kinds(list(kinds_by_name.values()))
    if len(shared) != 1:
        return ClassKind()
    [kind] = shared
    ambiguous = [name for name, kinds in kinds_by_name.items() if set(kinds) != {kind}]
    if not ambiguous:
        return ClassKind()
    example = with_kind(ambiguous[0], kind)
    names = "both names" if len(descriptions) == 2 else f"all {len(descriptions)} names"
    reason = f"because {names} are {plural_of(kind)} in {place}"
    return ClassKind(kind, DERIVED, f"Searched as “{example}”, {reason}.")


def shared_kinds(kinds: Sequence[Sequence[str]]) -> set[str]:
    """Return the known kinds that stand in every list."""
    shared = set(kinds[0]) if kinds else set()
    for others in kinds[1:]:
        shared &= set(others)
    return shared - {""}
