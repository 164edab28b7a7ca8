"""The effective configuration of one collection: what `config.json` of its folder holds, complete
and checked.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from scraping import ConfigError
from scraping.files import write_json
from scraping.sources.catalogue import DEFAULT_ORDER, in_order
from scraping.sources.registry import REGISTRY

FILE_NAME = "config.json"
SECRET_KEYS = ("credentials",)  # never written into a folder
CREDENTIALS = frozenset({"openverse_client_id", "openverse_client_secret", "pixabay_key"})
TAKEN_DOWN_KEYS = frozenset({"urls", "hashes"})
SHA256 = re.compile(r"[0-9a-f]{64}")
CLASS_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True)
class ClassConfig:
    """One class: its id, its name as typed, and the words to search for."""

    id: str
    name: str
    query: str


@dataclass(frozen=True)
class CollectConfig:
    """Everything a collection is told. `limit` and `minimum` count kept pictures per class; sides
    are in pixels.

    `taken_down` holds SHA-256 digests: `urls` of normalised addresses of pictures or pages,
    `hashes` of bytes as received or as stored. With `browser_turns`, whoever started the collection
    grants the browser (see `turns`).
    """

    classes: tuple[ClassConfig, ...]
    limit: int = 100
    minimum: int = 20
    sources: tuple[str, ...] = DEFAULT_ORDER
    license: str = "any"
    locale: str = "en-US"
    min_side: int = 200
    max_side: int = 1024
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

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from parsed JSON. Raises ConfigError for an unknown key and for every value that
        makes no sense.
        """
        unknown = sorted(set(values) - {each.name for each in fields(cls)})
        if unknown:
            raise ConfigError(f"The configuration has an unknown key: {', '.join(unknown)}.")
        if not values.get("classes"):
            raise ConfigError("The configuration names no class.")
        try:
            plain: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
            }
            plain["classes"] = tuple(ClassConfig(**entry) for entry in values["classes"])
            plain["sources"] = in_order(plain.get("sources", cls.sources))
            config = cls(**plain)
            config._check()
        except TypeError as error:
            raise ConfigError(f"The configuration is malformed: {error}.") from error
        return config

    def _check(self) -> None:
        ids = [entry.id for entry in self.classes]
        wrong = [name for name in self.sources if name not in REGISTRY]
        problems = (
            (len(set(ids)) < len(ids), "two classes have the same id"),
            (not all(CLASS_ID.fullmatch(name) for name in ids), "a class id is malformed"),
            (
                not all(entry.query.strip() for entry in self.classes),
                "a class has no words to search for",
            ),
            (
                bool(wrong),
                f"there is no source called {', '.join(wrong)}; known are {', '.join(REGISTRY)}",
            ),
            (not self.sources, "no source is named"),
            (self.license not in ("any", "open"), "license is neither any nor open"),
            (self.robots not in ("respect", "operator"), "robots is neither respect nor operator"),
            (
                not set(self.credentials) <= CREDENTIALS,
                "there is a credential that no source knows",
            ),
            (
                not self._takedowns_make_sense(),
                "what was taken down is not a list of SHA-256 digests",
            ),
            (self.minimum < 0, "the minimum is negative"),
            (
                self.limit < 1 or self.min_side < 1 or self.max_side < self.min_side,
                "a number is out of range",
            ),
            (self.deadline_seconds <= 0, "the deadline is not in the future"),
        )
        for wrong_so, what in problems:
            if wrong_so:
                raise ConfigError(f"The configuration cannot be used: {what}.")

    def _takedowns_make_sense(self) -> bool:
        digests = [digest for kind in self.taken_down.values() for digest in kind]
        return set(self.taken_down) <= TAKEN_DOWN_KEYS and all(
            SHA256.fullmatch(str(digest)) for digest in digests
        )

    def base_url(self, source: str) -> str:
        """Scheme, host and port of a source: the configured one, else its own."""
        return (self.source_urls.get(source) or REGISTRY[source].default_url).rstrip("/")

    def write(self, folder: Path) -> None:
        """Write it into the folder, without what is secret."""
        folder.mkdir(parents=True, exist_ok=True)
        values = {name: value for name, value in asdict(self).items() if name not in SECRET_KEYS}
        write_json(folder / FILE_NAME, values)


def read_values(folder: Path) -> dict[str, Any]:
    """The values of a folder's `config.json`, unchecked. Raises ConfigError when there are none."""
    try:
        values = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no {FILE_NAME} in {folder}.") from error
    except ValueError as error:
        raise ConfigError(f"{folder / FILE_NAME} is not JSON.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{folder / FILE_NAME} holds no object.")
    return values
