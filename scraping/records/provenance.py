"""Where an image comes from and what one may do with it.

Open means free in the sense of the Open Definition: anyone may use, change and share the image for
any purpose, at most with credit and under the same terms. Licences that forbid commercial use (NC)
or changes (ND) are known, and recorded as they are, but not open: an image in a training set is
cut, scaled and shared further.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from scraping.sources.base import Candidate
from scraping.sources.licenses import License, license_in_words, read_license

OPEN_LICENSES = frozenset({"cc0", "pdm", "cc-by", "cc-by-sa"})
NO_CREDIT_NEEDED = frozenset({"cc0", "pdm"})


@dataclass(frozen=True)
class Credit:
    """What a line of credit names; `address` is that of the page, or else of the image."""

    title: str
    creator: str
    license: License
    address: str


def license_of(candidate: Candidate) -> License:
    """Return the licence in its one spelling; what no rule knows stays as the source wrote it."""
    name = candidate.license
    version = candidate.license_version
    url = candidate.license_url
    known = read_license(url, version)
    if not known.name:
        known = read_license(name, version)
    if not known.name:
        return License(name, version, url)
    return License(known.name, known.version, url or known.url)


def is_open(license_name: str, basis: str) -> bool:
    """Return whether a licence is open and known for this very image, not only from a filter."""
    return basis == "per-item" and license_name in OPEN_LICENSES


def license_rank(license_name: str, basis: str) -> int:
    """Return how well a licence is known and how much it allows, from 0 to 4.

    Of two duplicates the one of higher rank is kept.
    """
    if is_open(license_name, basis):
        return 4 if license_name in NO_CREDIT_NEEDED else 3
    if basis == "filter" or (basis == "file" and license_name):
        return 1
    return 2 if license_name and basis == "per-item" else 0


def attribution(candidate: Candidate) -> str:
    """Return the line of credit: the source's own, else one of title, author, licence and page."""
    if candidate.attribution:
        return candidate.attribution
    credit = Credit(
        title=candidate.title,
        creator=candidate.creator,
        license=license_of(candidate),
        address=candidate.page_url or candidate.image_url,
    )
    return credit_line(credit)


def credit_line(credit: Credit, rights: str = "") -> str:
    """Return the line of credit, with the copyright notice at its end where there is one."""
    known = credit.license
    work = f"“{credit.title}”" if credit.title else "Untitled picture"
    author = f" by {credit.creator}" if credit.creator else ""
    licence = license_in_words(known.name, known.version)
    address = f" ({known.url})" if known.url else ""
    host = _host_of(credit.address) or credit.address
    line = f"{work}{author}, {licence}{address}, via {host}"
    return f"{line}. {rights}" if rights else line


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # an image's address may be any text
        return None
