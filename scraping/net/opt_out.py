"""What hosts state about the use of their images, and whether it forbids to train a model on them.

Five statements are read. A host is asked for its two files once in a run, before its first image;
the headers come with each image.

- `Content-Signal: ai-train=no` in robots.txt (contentsignals.org, Cloudflare, September 2025).
- `Content-Usage: train-ai=n` in robots.txt and as a header. The attachment is that of
  draft-ietf-aipref-attach-05 (August 2026), the vocabulary that of draft-ietf-aipref-vocab-08
  (September 2026). Neither is an RFC yet. Its `train-ai` means models that generate; we respect it
  although ours only classify, as it meant any training before. Where it is not stated, what
  earlier drafts called the training of any model (`ai`) or all automated use (`bots`, `all`, `tdm`)
  counts instead. `search`, `ai-use`, `train-genai` and the like do not concern us.
- `/.well-known/tdmrep.json` and the header `tdm-reservation: 1` (W3C TDM Reservation Protocol,
  final report of May 2024).
- `X-Robots-Tag` with `noai`, `noimageai`, `noindex` or `noimageindex`, as img2dataset reads it.

The group of robots.txt is chosen, and paths are matched, as RFC 9309 says: the longest pattern
decides, and of equally long ones the one that reserves. In tdmrep.json the first match decides.
Allow and Disallow say what may be crawled, not what it may be used for: they are not read here.
Several statements stand side by side, and one that reserves is enough. A file that is missing,
late, too long or not understood states nothing.
"""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

from multidict import CIMultiDictProxy
from yarl import URL

from scraping.net.http import PRODUCT, Fetcher
from scraping.outside import page_address, parsed_json

ROBOTS_PATH = "/robots.txt"
TDM_PATH = "/.well-known/tdmrep.json"
FILE_BYTES = 500 << 10  # that are read (RFC 9309, section 2.5)
FILE_SECONDS = 10.0
MAX_RULES = 1000
MAX_PATTERN_CHARACTERS = 2000
MAX_STATEMENT_CHARACTERS = 2000

ROBOTS_TAGS = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
# Directives of X-Robots-Tag that are followed by a colon and a value, like the name of a crawler.
VALUED_DIRECTIVES = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
USAGE_LABELS = ("train-ai", "ai", "bots", "all", "tdm")  # the first that is stated decides
ANYBODY = "*"

PRODUCT_TOKEN = re.compile(r"[a-z_-]+|\*", re.IGNORECASE)
ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# Characters of a path that stay as they are when others are escaped (RFC 3986, section 3.3).
PATH_CHARACTERS = "/?%*$!&'()+,;=:@[]~#"

# A dictionary of structured fields (RFC 9651, sections 3.2 and 4.2.2).
KEY = r"[a-z*][a-z0-9_.*-]*"
TCHARS = r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"
STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
NUMBER = r"@?-?\d{1,15}(?:\.\d{1,3})?"
BARE_ITEM = rf'(?:{TCHARS}|{STRING}|{NUMBER}|\?[01]|:[A-Za-z0-9+/=]*:|%"[ !#-~]*")'
PARAMETERS = rf"(?:; *{KEY}(?:={BARE_ITEM})?)*"
INNER_LIST = rf"\( *(?:{BARE_ITEM}{PARAMETERS}(?: +|(?=\))))*\)"
MEMBER = re.compile(
    rf"(?P<key>{KEY})(?:=(?P<value>{BARE_ITEM}|{INNER_LIST}))?{PARAMETERS}", re.ASCII
)
SEPARATOR = re.compile(r"[ \t]*,[ \t]*")


@dataclass(frozen=True)
class PathRule:
    """What is stated for the paths that a pattern matches: whether training is reserved.

    The pattern may hold `*` for any characters and end with `$` for the end of the path.
    """

    pattern: str
    is_reserved: bool
    terms: str = ""


@dataclass(frozen=True)
class HostStatements:
    """What the files of one host state."""

    usage: tuple[PathRule, ...] = ()
    signals: tuple[PathRule, ...] = ()
    tdm: tuple[PathRule, ...] = ()

    def objection(self, path: str) -> str:
        """Return what reserves a path with its query, in words; empty when nothing does."""
        if not (self.usage or self.signals or self.tdm):
            return ""
        path = _comparable(path).replace("*", "%2A").replace("$", "%24")
        if _longest_match_reserves(self.signals, path):
            return "robots.txt: Content-Signal ai-train=no"
        if _longest_match_reserves(self.usage, path):
            return "robots.txt: Content-Usage train-ai=n"
        for rule in self.tdm:
            if _matches(rule.pattern, path):
                return _tdm_objection("tdmrep.json", rule.terms) if rule.is_reserved else ""
        return ""


NOTHING_STATED = HostStatements()


@dataclass
class _Group:
    """The lines of robots.txt for some crawlers. Without a name they are for all."""

    agents: set[str] = field(default_factory=set)
    usage: list[PathRule] = field(default_factory=list)
    signals: list[PathRule] = field(default_factory=list)


def robots_statements(data: bytes) -> HostStatements:
    """Return what a robots.txt states for us about the use of images. Never raises."""
    text = data[:FILE_BYTES].decode("utf-8-sig", errors="replace")
    if text.lstrip().startswith("<"):
        return NOTHING_STATED  # a page that says that there is none
    groups = _groups(text)
    chosen = [group for group in groups if PRODUCT.lower() in group.agents]
    if not chosen:
        chosen = [group for group in groups if ANYBODY in group.agents]
    usage: list[PathRule] = []
    signals: list[PathRule] = []
    for group in [groups[0], *chosen]:
        usage += group.usage
        signals += group.signals
    return HostStatements(tuple(usage[:MAX_RULES]), tuple(signals[:MAX_RULES]))


def _groups(text: str) -> list[_Group]:
    """Return the groups of a robots.txt; the first holds what stands before all others."""
    groups = [_Group()]
    is_naming = False
    for line in re.split(r"[\r\n]+", text):
        name, colon, value = line.partition("#")[0].partition(":")
        name = name.strip(" \t").lower()
        if not colon:
            continue
        if name == "user-agent":
            if not is_naming:
                groups.append(_Group())
            is_naming = True
            if found := PRODUCT_TOKEN.match(value.strip()):
                groups[-1].agents.add(found[0].lower())
        elif name in ("allow", "disallow"):
            is_naming = False
        elif name in ("content-usage", "content-signal"):
            is_naming = False
            _add_rule(groups[-1], name, value.strip(" \t"))
    return groups


def _add_rule(group: _Group, name: str, value: str) -> None:
    """Add a line with an optional path and a statement, unless the statement is malformed."""
    pattern = ""
    if value.startswith("/"):
        pattern, _, value = value.replace("\t", " ").partition(" ")
    if len(pattern) > MAX_PATTERN_CHARACTERS or len(value) > MAX_STATEMENT_CHARACTERS:
        return
    pattern = _comparable(pattern)
    if name == "content-signal":
        group.signals.append(PathRule(pattern, _signal_reserves(value)))
        return
    usage = usage_preferences(value)
    if usage is not None:
        group.usage.append(PathRule(pattern, _usage_reserves(usage)))


def _signal_reserves(value: str) -> bool:
    """Return whether a content signal says no to training."""
    for part in value.lower().split(","):
        name, _, answer = part.partition("=")
        if name.strip() == "ai-train" and answer.strip() == "no":
            return True
    return False


def usage_preferences(text: str) -> dict[str, str] | None:
    """Return the members of a Content-Usage dictionary, None when it is malformed.

    Of a member that is stated twice the last counts, as in every structured field.
    """
    text = text.strip(" \t")
    members: dict[str, str] = {}
    position = 0
    while position < len(text):
        member = MEMBER.match(text, position)
        if member is None:
            return None
        members[member["key"]] = member["value"] or ""
        position = member.end()
        if position == len(text):
            return members
        separator = SEPARATOR.match(text, position)
        if separator is None or separator.end() == len(text):
            return None
        position = separator.end()
    return members


def _usage_reserves(members: dict[str, str]) -> bool:
    for label in USAGE_LABELS:
        if members.get(label) in ("y", "n"):
            return members[label] == "n"
    return False


def tdm_statements(data: bytes) -> HostStatements:
    """Return what a tdmrep.json states. Never raises."""
    try:
        entries = parsed_json(data)
    except ValueError:
        return NOTHING_STATED
    if not isinstance(entries, list):
        return NOTHING_STATED
    rules = []
    for entry in entries[:MAX_RULES]:
        location = entry.get("location") if isinstance(entry, dict) else None
        if not isinstance(location, str) or len(location) > MAX_PATTERN_CHARACTERS:
            continue
        reservation = entry.get("tdm-reservation")
        is_reserved = reservation == 1 and type(reservation) is int  # other values are unset
        terms = page_address(entry.get("tdm-policy"))
        rules.append(PathRule(_comparable(location.strip()), is_reserved, terms))
    return HostStatements(tdm=tuple(rules))


def _tdm_objection(where: str, terms: str) -> str:
    objection = f"{where}: text and data mining is reserved"
    return f"{objection}, terms at {terms}" if terms else objection


def _comparable(path: str) -> str:
    """Return a path or pattern with the same characters escaped, however it was written.

    See RFC 9309, section 2.2.2.
    """
    plain = ESCAPED.sub(_plain_if_unreserved, path)
    return quote(plain.encode(errors="replace"), safe=PATH_CHARACTERS)


def _plain_if_unreserved(escaped: re.Match[str]) -> str:
    character = chr(int(escaped[1], 16))
    return character if character in UNRESERVED else escaped[0].upper()


def _longest_match_reserves(rules: Iterable[PathRule], path: str) -> bool:
    longest = -1
    is_reserved = False
    for rule in rules:
        length = len(rule.pattern)
        if length < longest or not _matches(rule.pattern, path):
            continue
        is_tie = length == longest
        longest = length
        is_reserved = rule.is_reserved or (is_tie and is_reserved)
    return is_reserved


def _matches(pattern: str, path: str) -> bool:
    """Return whether a pattern matches the beginning of a path, or all of it before a `$`."""
    is_whole = pattern.endswith("$")
    first, *others = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    position = len(first)
    if not others:
        return position == len(path) or not is_whole
    last = others.pop()
    for part in others:
        found = path.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    if is_whole:
        return len(path) - len(last) >= position and path.endswith(last)
    return path.find(last, position) >= 0


def header_objection(headers: CIMultiDictProxy[str]) -> str:
    """Return which header of an image reserves it, in words; empty when none does."""
    if tag := robots_tag_objection(headers.getall("X-Robots-Tag", [])):
        return f"header X-Robots-Tag: {tag}"
    if usage_reserves(headers.getall("Content-Usage", [])):
        return "header Content-Usage: train-ai=n"
    reservations = [value.strip() for value in headers.getall("tdm-reservation", [])]
    if "1" in reservations:
        return _tdm_objection("header tdm-reservation", page_address(headers.get("tdm-policy")))
    return ""


def robots_tag_objection(values: Iterable[str]) -> str:
    """Return the directive of X-Robots-Tag headers that forbids this use, empty without one.

    Directives count that follow no crawler's name, or ours.
    """
    for value in values:
        agent = ""
        for part in value.lower().split(","):
            before, colon, after = (piece.strip() for piece in part.partition(":"))
            if colon and before in VALUED_DIRECTIVES:
                continue
            directive = before
            if colon:
                agent = before
                directive = after
            if directive in ROBOTS_TAGS and agent in ("", PRODUCT.lower()):
                return directive
    return ""


def usage_reserves(values: Iterable[str]) -> bool:
    """Return whether Content-Usage headers say no to training.

    Several are one dictionary. Where that is malformed, each is read for itself.
    """
    texts = [value for value in values if len(value) <= MAX_STATEMENT_CHARACTERS]
    members = usage_preferences(", ".join(texts))
    if members is not None:
        return _usage_reserves(members)
    each = map(usage_preferences, texts)
    return any(_usage_reserves(members) for members in each if members is not None)


class HostOptOuts:
    """Asks each host once for what it states, and answers from that for each of its images."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._known: dict[str, HostStatements] = {}  # by origin
        self._asking: dict[str, asyncio.Task[HostStatements]] = {}

    async def objection(self, url: URL) -> str:
        """Return what reserves the image at a URL, in words; empty when nothing does.

        The first call for a host waits for its files, further ones wait for the same answer.
        """
        origin = str(url.origin())
        statements = self._known.get(origin)
        if statements is None:
            task = self._asking.get(origin)
            if task is None:
                task = asyncio.ensure_future(self._ask(origin))
                self._asking[origin] = task
            # Whoever is cancelled leaves the answer to the others.
            statements = await asyncio.shield(task)
        return statements.objection(url.raw_path_qs)

    async def _ask(self, origin: str) -> HostStatements:
        try:
            robots, tdm = await asyncio.gather(
                self._fetcher.fetch_beginning(origin + ROBOTS_PATH, FILE_BYTES, FILE_SECONDS),
                self._fetcher.fetch_beginning(origin + TDM_PATH, FILE_BYTES, FILE_SECONDS),
            )
            of_robots = robots_statements(robots)
            rules = tdm_statements(tdm).tdm
            statements = NOTHING_STATED
            if of_robots.usage or of_robots.signals or rules:
                statements = HostStatements(of_robots.usage, of_robots.signals, rules)
            self._known[origin] = statements
            return statements
        finally:
            del self._asking[origin]

    async def close(self) -> None:
        """Stop asking."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
