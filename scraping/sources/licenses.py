"""One spelling for every licence, whatever a source writes."""

import re
from dataclasses import dataclass

DEED = re.compile(
    r"creativecommons\.org/"
    r"(?:licenses/(?P<name>by(?:-nc)?(?:-nd|-sa)?)|publicdomain/(?P<free>zero|mark))"
    r"(?:/(?P<version>\d\.\d))?",
    re.IGNORECASE,
)
CODE = re.compile(r"(?:cc-)?(?P<name>by(?:-nc)?(?:-nd|-sa)?)(?:-(?P<major>\d)-(?P<minor>\d))?")
ZERO = re.compile(r"cc-?0(?:-1-0)?|cc-?zero(?:-1-0)?")
MARK = re.compile(r"pdm|public-domain(?:-mark)?(?:-1-0)?")


@dataclass(frozen=True)
class License:
    """A licence: `name` is `cc-by-sa` and the like, `cc0` or `pdm`, empty for no open licence."""

    name: str = ""
    version: str = ""
    url: str = ""


CC0 = License("cc0", "1.0", "https://creativecommons.org/publicdomain/zero/1.0/")
PUBLIC_DOMAIN_MARK = License("pdm", "1.0", "https://creativecommons.org/publicdomain/mark/1.0/")


def read_license(text: object, version: str = "") -> License:
    """Return the licence named by a URL, a code or a usual short form.

    `version` is taken where the text has none.
    """
    if not isinstance(text, str):
        return License()
    if deed := DEED.search(text):
        if deed["free"]:
            return CC0 if deed["free"].lower() == "zero" else PUBLIC_DOMAIN_MARK
        return _creative_commons(deed["name"].lower(), deed["version"] or version)
    code = re.sub(r"[\s_.-]+", "-", text.strip().lower()).strip("-")
    if ZERO.fullmatch(code):
        return CC0
    if MARK.fullmatch(code):
        return PUBLIC_DOMAIN_MARK
    found = CODE.fullmatch(code)
    if found is None:
        return License()
    if found["major"]:
        version = f"{found['major']}.{found['minor']}"
    return _creative_commons(found["name"], version)


def _creative_commons(name: str, version: str) -> License:
    url = f"https://creativecommons.org/licenses/{name}/{version}/" if version else ""
    return License(f"cc-{name}", version, url)


def license_in_words(name: str, version: str) -> str:
    """Return the licence as people write it: CC BY-SA 4.0; what no rule knows as its source did."""
    if not name:
        return "licence unknown"
    if name == "pdm":
        return "public domain"
    shown = "CC0" if name == "cc0" else name
    if name.startswith("cc-"):
        shown = name.upper().replace("CC-", "CC ", 1)
    return f"{shown} {version}".strip()
