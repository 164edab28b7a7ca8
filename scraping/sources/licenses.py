"""One spelling for every licence: a short name, its version and its address, whatever a source
writes.
"""

import re
from dataclasses import dataclass

DEED = re.compile(
    r"creativecommons\.org/(?:licenses/(?P<name>by(?:-nc)?(?:-nd|-sa)?)|publicdomain/(?P<free>zero|mark))"
    r"(?:/(?P<version>\d\.\d))?",
    re.IGNORECASE,
)
CODE = re.compile(r"(?:cc-)?(?P<name>by(?:-nc)?(?:-nd|-sa)?)(?:-(?P<major>\d)-(?P<minor>\d))?")
ZERO = re.compile(r"cc-?0(?:-1-0)?|cc-?zero(?:-1-0)?")
MARK = re.compile(r"pdm|public-domain(?:-mark)?(?:-1-0)?")


@dataclass(frozen=True)
class License:
    """`name` is `cc-by-sa` and the like, `cc0` or `pdm`; empty when the text names no open
    licence.
    """

    name: str = ""
    version: str = ""
    url: str = ""


def read_license(text: object, version: str = "") -> License:
    """A licence from its address, its code or its usual short form; `version` is taken where the
    text has none.
    """
    if not isinstance(text, str):
        return License()
    if deed := DEED.search(text):
        if deed["free"]:
            return FREE[deed["free"].lower()]
        return _creative_commons(deed["name"].lower(), deed["version"] or version)
    code = re.sub(r"[\s_.-]+", "-", text.strip().lower()).strip("-")
    if ZERO.fullmatch(code):
        return FREE["zero"]
    if MARK.fullmatch(code):
        return FREE["mark"]
    if found := CODE.fullmatch(code):
        stated = f"{found['major']}.{found['minor']}" if found["major"] else version
        return _creative_commons(found["name"], stated)
    return License()


FREE = {
    "zero": License("cc0", "1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "mark": License("pdm", "1.0", "https://creativecommons.org/publicdomain/mark/1.0/"),
}


def _creative_commons(name: str, version: str) -> License:
    url = f"https://creativecommons.org/licenses/{name}/{version}/" if version else ""
    return License(f"cc-{name}", version, url)
