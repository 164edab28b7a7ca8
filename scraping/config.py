"""The configuration of one collection: what `config.json` of its folder holds, checked."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, cast, get_type_hints

from scraping import ConfigError
from scraping.files import write_json
from scraping.kinds import MAX_KIND_LENGTH
from scraping.screening.screen import AI_MADE_CHOICES
from scraping.sources.catalogue import (
    CATALOGUE,
    DEFAULT_ORDER,
    UPLOAD,
    URL_LIST,
    credential_settings,
    in_order,
)
from scraping.sources.registry import REGISTRY
from training.class_names import find_problem, normalize

FILE_NAME = "config.json"
# Never written into a folder: what is secret, and where this machine keeps the operator's files.
LOCAL_KEYS = ("credentials", "refused_digests", "nudity_model")
TAKEN_DOWN_KEYS = frozenset({"urls", "hashes"})
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_NUMBER = 2**31
CLASS_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True)
class ClassConfig:
    """One class: its id, its name as typed, and the words to search for."""

    id: str
    name: str
    query: str


@dataclass(frozen=True)
class CollectConfig:
    """Everything that a collection is told.

    `limit` and `minimum` count kept images per class; sides are in pixels. `taken_down` holds
    SHA-256 digests: `urls` of normalized URLs of images or pages, `hashes` of bytes as received or
    as stored. `refused_digests` and `nudity_model` are paths of the operator's files, empty for
    none. With `browser_turns`, whoever started the collection grants the browser (see
    `net.browser_lock`). `ai_made` says what becomes of images whose file says that AI made them:
    `leave_out` or `keep`. `kind` says in a word what the classes are, for their search; empty for
    nothing, None to find it out. `set_aside` holds SHA-256 digests of kept images that a person has
    removed: they are not counted, and nothing that looks like them is kept. `own` is a folder or
    zip of pictures and `own_urls` a table of addresses that whoever asks supplies; with
    `own_as_test` these are the test set.
    """

    classes: tuple[ClassConfig, ...]
    kind: str | None = None
    limit: int = 100
    minimum: int = 20
    sources: tuple[str, ...] = DEFAULT_ORDER
    license: str = "any"
    locale: str = "en-US"
    min_side: int = 200
    max_side: int = 1024
    ai_made: str = "leave_out"
    closed_sources: Mapping[str, str] = field(default_factory=dict)
    source_urls: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    taken_down: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    contact: str = ""
    robots: str = "respect"
    allowed_private_hosts: tuple[str, ...] = ()
    chrome: str = ""
    chromedriver: str = ""
    selenium_remote_url: str = ""
    browser_turns: bool = False
    deadline_seconds: float = 1800
    refused_digests: str = ""
    nudity_model: str = ""
    set_aside: tuple[str, ...] = ()
    own: str = ""
    own_urls: str = ""
    own_as_test: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from parsed JSON.

        Raises ConfigError for an unknown key and for every value that makes no sense.
        """
        unknown = sorted(set(values) - {each.name for each in fields(cls)})
        if unknown:
            raise ConfigError(f"The configuration has an unknown key: {', '.join(unknown)}.")
        if not values.get("classes"):
            raise ConfigError("The configuration names no class.")
        try:
            arguments: dict[str, Any] = {}
            for name, value in values.items():
                arguments[name] = tuple(value) if isinstance(value, list) else value
            arguments["classes"] = tuple(ClassConfig(**entry) for entry in values["classes"])
            arguments["sources"] = _sources(values, cls.sources)
            if isinstance(values.get("kind"), str):
                arguments["kind"] = normalize(values["kind"])
            config = cls(**arguments)
            problem = next(config._problems(), None)
        except TypeError as error:
            raise ConfigError(f"The configuration is malformed: {error}.") from error
        if problem is not None:
            raise ConfigError(f"The configuration cannot be used: {problem}.")
        return config

    def _problems(self) -> Iterator[str]:
        """Yield what makes no sense, each as the end of a sentence."""
        yield from self._type_problems()
        yield from self._class_problems()
        unknown = [name for name in self.sources if name not in CATALOGUE]
        if unknown:
            known = ", ".join(CATALOGUE)
            yield f"there is no source called {', '.join(unknown)}; known are {known}"
        if not self.sources:
            yield "no source is named"
        if self.license not in ("any", "open"):
            yield "license is neither any nor open"
        if self.robots not in ("respect", "operator"):
            yield "robots is neither respect nor operator"
        if self.ai_made not in AI_MADE_CHOICES:
            yield "ai_made is neither leave_out nor keep"
        if not set(self.credentials) <= set(credential_settings()):
            yield "there is a credential that no source knows"
        digests = [str(digest) for kind in self.taken_down.values() for digest in kind]
        digests += self.set_aside
        if not set(self.taken_down) <= TAKEN_DOWN_KEYS or not all(map(SHA256.fullmatch, digests)):
            yield "what was taken down or set aside is not a list of SHA-256 digests"
        if self.kind is not None and (problem := find_problem(self.kind, MAX_KIND_LENGTH)):
            yield f"the kind of things cannot be used: {problem.rstrip('.')}"
        yield from self._number_problems()

    def _type_problems(self) -> Iterator[str]:
        """Yield what has another type than its field, which is read without a question later."""
        hints = get_type_hints(type(self))
        for each in fields(self):
            if not _is_of(getattr(self, each.name), hints[each.name]):
                yield f"{each.name} holds what it cannot hold"
        for entry in self.classes:
            if not all(map(_is_text, (entry.id, entry.name, entry.query))):
                yield "id, name and query of a class must be texts"

    def _number_problems(self) -> Iterator[str]:
        if self.minimum < 0:
            yield f"minimum is {self.minimum}, below 0"
        if self.limit < 1:
            yield f"limit is {self.limit}, below 1"
        if self.min_side < 1:
            yield f"min_side is {self.min_side}, below 1"
        if self.max_side < self.min_side:
            yield f"max_side is {self.max_side}, below min_side, which is {self.min_side}"
        if not self.deadline_seconds > 0:
            yield f"deadline_seconds is {self.deadline_seconds:g}, not above 0"

    def _class_problems(self) -> Iterator[str]:
        if self.own_as_test and not (self.own or self.own_urls):
            yield "there are no own pictures to test on"
        ids = [entry.id for entry in self.classes]
        if len(set(ids)) < len(ids):
            yield "two classes have the same id"
        if not all(CLASS_ID.fullmatch(class_id) for class_id in ids):
            yield "a class id is malformed"
        if not all(entry.query.strip() for entry in self.classes):
            yield "a class has no words to search for"

    def base_url(self, source: str) -> str:
        """Return scheme, host and port of a source: the configured ones, else its own."""
        url = self.source_urls.get(source) or REGISTRY[source].default_url
        return url.rstrip("/")

    def write(self, folder: Path) -> None:
        """Write it into the folder, without LOCAL_KEYS."""
        folder.mkdir(parents=True, exist_ok=True)
        values = asdict(self)
        for name in LOCAL_KEYS:
            del values[name]
        write_json(folder / FILE_NAME, values)


def _is_of(value: object, hint: object) -> bool:
    """Return whether a value is of the type that a field of the configuration has."""
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        is_number = isinstance(value, int) or (hint is float and isinstance(value, float))
        is_bounded = is_number and abs(cast(float, value)) < MOST_NUMBER
        return is_bounded and not isinstance(value, bool)
    if hint == str | None:
        return value is None or _is_text(value)
    if hint is str:
        return _is_text(value)
    if hint == tuple[str, ...]:
        return isinstance(value, tuple) and all(map(_is_text, value))
    if hint == Mapping[str, str]:
        return isinstance(value, Mapping) and all(map(_is_text, value.values()))
    if hint == Mapping[str, Sequence[str]]:
        return isinstance(value, Mapping) and all(map(_is_list_of_texts, value.values()))
    return isinstance(value, tuple)


def _is_text(value: object) -> bool:
    """Return whether a value is a text that can be a path, too."""
    return isinstance(value, str) and "\0" not in value


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _sources(values: Mapping[str, Any], usual: Sequence[str]) -> tuple[str, ...]:
    """Return the sources in their order: first what is supplied, then those that are searched."""
    supplied = []
    for key, source in (("own", UPLOAD), ("own_urls", URL_LIST)):
        if values.get(key):
            supplied.append(source)
    return in_order((*supplied, *values.get("sources", usual)))


def read_values(folder: Path) -> dict[str, Any]:
    """Return the values of a folder's `config.json`, unchecked.

    Raises ConfigError when there are none.
    """
    try:
        values = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no {FILE_NAME} in {folder}.") from error
    except ValueError as error:
        raise ConfigError(f"{folder / FILE_NAME} is not JSON.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{folder / FILE_NAME} holds no object.")
    return values
