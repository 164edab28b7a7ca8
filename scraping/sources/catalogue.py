"""The catalogue of the sources: their names, labels, order and settings; and how a search can end.

The site's settings and pages read it, so it imports the standard library alone. A new source takes
three changes: its module in this folder, its entry in `CATALOGUE`, and its line in `registry.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a search ended."""

    OK = "ok"
    PARTIAL = "partial"
    NO_RESULTS = "no_results"
    NOT_APPLICABLE = "not_applicable"
    BLOCKED = "blocked"
    RATE_LIMITED = "rate_limited"
    LAYOUT_CHANGED = "layout_changed"
    TIMEOUT = "timeout"
    NETWORK = "network"
    UNAVAILABLE = "unavailable"

    @property
    def in_words(self) -> str:
        """The outcome in plain English, to be put after the name of a source."""
        return _IN_WORDS[self]


_IN_WORDS = {
    Outcome.OK: "answered",
    Outcome.PARTIAL: "answered in part",
    Outcome.NO_RESULTS: "found nothing",
    Outcome.NOT_APPLICABLE: "was skipped",
    Outcome.BLOCKED: "refused to answer",
    Outcome.RATE_LIMITED: "asked us to slow down",
    Outcome.LAYOUT_CHANGED: "gave an answer that could not be used",
    Outcome.TIMEOUT: "took too long",
    Outcome.NETWORK: "could not be reached",
    Outcome.UNAVAILABLE: "was not available",
}


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source without loading its module.

    `default` sources are asked unless the operator names others, and so are those whose
    `required_credentials` are all set; `optional_credentials` only improve the answers. A source
    that `needs_contact` is not asked without the operator's contact. `always_last` overrules the
    order that the operator gave. A source of `living_things` knows nothing else, and is asked for
    exact names; one that `describes_names` can say in words what things are called so. Images of a
    `supplied` one are brought by the person who asks. One without a strict `safe_search` of its
    own is not asked for pictures of people.
    """

    label: str
    default: bool = False
    uses_browser: bool = False
    needs_contact: bool = False
    required_credentials: tuple[str, ...] = ()
    optional_credentials: tuple[str, ...] = ()
    always_last: bool = False
    living_things: bool = False
    describes_names: bool = False
    supplied: bool = False
    safe_search: bool = False


# By name, in the order in which they are asked unless the operator names another.
CATALOGUE: dict[str, SourceInfo] = {
    "upload": SourceInfo("Your own pictures", supplied=True),
    "url_list": SourceInfo("Your own addresses", supplied=True),
    "openverse": SourceInfo(
        "Openverse",
        default=True,
        safe_search=True,
        optional_credentials=("openverse_client_id", "openverse_client_secret"),
    ),
    "wikimedia": SourceInfo(
        "Wikimedia Commons", default=True, needs_contact=True, describes_names=True
    ),
    "inaturalist": SourceInfo("iNaturalist", default=True, living_things=True),
    "gbif": SourceInfo("GBIF", default=True, living_things=True),
    "bing": SourceInfo("Bing", default=True, uses_browser=True, safe_search=True),
    "nasa": SourceInfo("NASA"),
    "met": SourceInfo("The Met"),
    "artic": SourceInfo("Art Institute of Chicago"),
    "pixabay": SourceInfo("Pixabay", required_credentials=("pixabay_key",), safe_search=True),
    "google": SourceInfo("Google Images", uses_browser=True, always_last=True, safe_search=True),
}
UPLOAD = "upload"
URL_LIST = "url_list"
SEARCHED = tuple(name for name, info in CATALOGUE.items() if not info.supplied)
DEFAULT_ORDER = tuple(name for name, info in CATALOGUE.items() if info.default)


def is_supplied(source: str) -> bool:
    """Return whether images of a source were supplied by the person who asks."""
    return source in CATALOGUE and CATALOGUE[source].supplied


def url_setting(source: str) -> str:
    """Return the setting that holds the base URL of a source: `PICAISSO_BING_URL`."""
    return f"PICAISSO_{source.upper()}_URL"


def credential_settings() -> dict[str, str]:
    """Return the setting that holds each credential: `pixabay_key` in `PICAISSO_PIXABAY_KEY`."""
    settings = {}
    for info in CATALOGUE.values():
        for credential in (*info.required_credentials, *info.optional_credentials):
            settings[credential] = f"PICAISSO_{credential.upper()}"
    return settings


def usual_sources(credentials: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sources to ask when the operator names none.

    These are the default ones and those whose required credentials are all in `credentials`.
    """
    names = []
    for name, info in CATALOGUE.items():
        missing = [key for key in info.required_credentials if not credentials.get(key)]
        has_key = bool(info.required_credentials) and not missing
        if info.default or has_key:
            names.append(name)
    return tuple(names)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names in their order, each once, and those that are always asked last at the end.

    Unknown names stay where they are.
    """
    first = []
    last = []
    for name in dict.fromkeys(names):
        info = CATALOGUE.get(name)
        if info is not None and info.always_last:
            last.append(name)
        else:
            first.append(name)
    return (*first, *last)
