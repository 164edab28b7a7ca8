"""What kind of things the classes are: the word that is added to their names in a search.

`jaguar` finds cars and cats; `jaguar animal` finds cats. The site's pages read this too, so it
imports the standard library alone.
"""

import re

MAX_KIND_LENGTH = 64  # characters, as of a class name
LIVING_KINDS = frozenset({"animal", "plant", "mushroom"})
PLURALS = {
    "aircraft": "aircraft",
    "dish": "dishes",
    "fruit": "fruits",
}

# The kinds that a short description can tell, each with the nouns that tell it, in the singular.
NOUNS: dict[str, str] = {
    "animal": "amphibian animal ant antelope ape arachnid bat bear bee beetle bird butterfly canid"
    " carnivoran cat cattle chicken cow crab creature crocodilian crustacean deer dinosaur dog"
    " dolphin duck eagle elephant felid felidae felinae feline fish fox frog goat goose hawk horse"
    " insect invertebrate lizard mammal marsupial mollusc monkey moth owl parrot penguin pet pig"
    " primate rabbit raptor reptile rodent seal shark sheep snake songbird spider squirrel toad"
    " turtle vertebrate wasp waterfowl whale wildlife wolf worm",
    "plant": "bush cactus conifer fern flower grass herb moss orchid palm plant shrub succulent"
    " tree vine wildflower",
    "mushroom": "fungus mushroom toadstool",
    "car": "automobile automotive car limousine roadster sedan supercar suv",
    "motorcycle": "motorbike motorcycle moped scooter",
    "aircraft": "aeroplane aircraft airliner airplane helicopter",
    "ship": "boat frigate sailboat ship submarine warship yacht",
    "dish": "bread cake cheese cocktail confection confectionery cookie dessert dish dumpling food"
    " noodle pancake pasta pastry pie salad sandwich sauce sausage snack soup stew",
    "fruit": "berry citrus fruit",
    "vegetable": "legume tuber vegetable",
    "gemstone": "crystal gem gemstone mineral",
    "instrument": "drum guitar instrument",
    "building": "building castle cathedral church palace skyscraper temple tower",
    "weapon": "firearm gun pistol rifle sword weapon",
}
_KIND_OF_NOUN = {noun: kind for kind, nouns in NOUNS.items() for noun in nouns.split()}
# `species of bird`, `dog breed`: the noun that matters stands beside these.
GROUPS = (
    "brand breed class clade company cultivar family genus group infraorder kind line maker"
    " manufacturer marque model name order series species subfamily subspecies suborder superfamily"
    " taxon tribe type variety"
)
_GROUPS = frozenset(GROUPS.split())
# What follows says where it comes from and what it is for: `large cat native to the Americas`.
_TAIL = re.compile(
    r"[,;:(]|\b(?:as|built|by|endemic|for|found|from|in|known|living|made|manufactured|native|on"
    r"|owned|produced|that|to|used|which|with)\b"
)
# Every word is also the name of a person, a place or a work; these do not compete in pictures.
_OTHER_NAMES = re.compile(
    r"\b(?:album|article|band|book|character|comic|disambiguation|episode|family name|film|given"
    r" name|list|magazine|manga|novel|painting|play|poem|series of books|short story|single|song"
    r"|surname|television series|template|title|track|video game|Wikimedia|Wikipedia)\b",
    re.IGNORECASE,
)


def with_kind(name: str, kind: str) -> str:
    """Return the words that ask for a class: its name and the kind, unless the name has it."""
    if not kind.strip() or _contains(name, kind):
        return name
    return f"{name} {kind}"


def search_words(name: str, query: str, kind: str) -> str:
    """Return the words that ask for a class first: its own query, else its name and the kind."""
    if query.casefold() != name.casefold():
        return query
    return with_kind(name, kind)


def is_living(kind: str) -> bool:
    """Return whether a kind of things is known to be living: `animal`, `Birds`, `wild cat`."""
    return _kind_of_words(_words(kind)) in LIVING_KINDS


def described_kind(description: str) -> str:
    """Return the kind that a short description tells, "" where it tells none that is known.

    `species of large cat native to the Americas` is an animal, `British car brand` a car.
    """
    plain = _TAIL.split(description.casefold(), maxsplit=1)[0]
    first, _, second = plain.partition(" of ")
    words = _words(first)
    if second and words and words[-1] in _GROUPS:
        words = _words(second.partition(" of ")[0])
    while words and words[-1] in _GROUPS:
        words.pop()
    return _kind_of_words(words)


def is_other_name(description: str) -> bool:
    """Return whether a description is of a person's name, a work or a page: not of a thing."""
    return not description.strip() or _OTHER_NAMES.search(description) is not None


def plural_of(kind: str) -> str:
    """Return the plural of one of the kinds of `NOUNS`."""
    return PLURALS.get(kind, f"{kind}s")


def _kind_of_words(words: list[str]) -> str:
    """Return the kind that the last word names, "" for none."""
    noun = words[-1] if words else ""
    for form in _singular_forms(noun):
        if form in _KIND_OF_NOUN:
            return _KIND_OF_NOUN[form]
    return ""


def _singular_forms(noun: str) -> tuple[str, ...]:
    """Return a noun and what it may be the plural of."""
    forms = [noun]
    for ending, singular in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""), ("gi", "gus")):
        if noun.endswith(ending):
            forms.append(noun.removesuffix(ending) + singular)
    return tuple(forms)


def _contains(name: str, kind: str) -> bool:
    """Return whether the words of a kind stand in a name, in the singular or the plural."""
    words = name.casefold().split()
    wanted = kind.casefold().split()
    count = len(wanted)
    for start in range(len(words) - count + 1):
        found = words[start : start + count]
        if found[:-1] == wanted[:-1] and _is_same_noun(found[-1], wanted[-1]):
            return True
    return False


def _is_same_noun(one: str, other: str) -> bool:
    return one in _singular_forms(other) or other in _singular_forms(one)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.casefold())
