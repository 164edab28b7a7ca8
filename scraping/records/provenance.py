"""Where a picture comes from and what one may do with it: one spelling, one line of credit, one
order of preference.

Open means free in the sense of the Open Definition: anyone may use, change and share the picture
for any purpose, at most with credit and under the same terms. Licences that forbid commercial use
(NC) or changes (ND) are known, and recorded as they are, but not open: a picture in a training set
is cut, scaled and shared further.
"""

from urllib.parse import urlsplit

from scraping.sources.base import Candidate
from scraping.sources.licenses import read_license

OPEN_LICENSES = frozenset({"cc0", "pdm", "cc-by", "cc-by-sa"})
NO_CREDIT_NEEDED = frozenset({"cc0", "pdm"})


def license_fields(candidate: Candidate) -> dict[str, str]:
    """Short name, version and address of the licence; what no rule knows stays as the source wrote
    it.
    """
    url, name, version = candidate.license_url, candidate.license, candidate.license_version
    known = read_license(url, version)
    if not known.name:
        known = read_license(name, version)
    if not known.name:
        return {"license": name, "license_version": version, "license_url": url}
    return {
        "license": known.name,
        "license_version": known.version,
        "license_url": url or known.url,
    }


def is_open(license_name: str, basis: str) -> bool:
    """Whether a normalised licence is open and known for this very picture, not only from a
    filter.
    """
    return basis == "per-item" and license_name in OPEN_LICENSES


def license_rank(license_name: str, basis: str) -> int:
    """How well a licence is known and how much it allows; of two copies the one with more is
    kept.
    """
    if is_open(license_name, basis):
        return 4 if license_name in NO_CREDIT_NEEDED else 3
    return {"per-item": 2, "filter": 1}.get(basis, 0) if license_name or basis == "filter" else 0


def attribution(candidate: Candidate) -> str:
    """The line of credit: the source's own, else one made of title, author, licence and page."""
    if candidate.attribution:
        return candidate.attribution
    fields = license_fields(candidate)
    work = f"“{candidate.title}”" if candidate.title else "Untitled picture"
    author = f" by {candidate.creator}" if candidate.creator else ""
    licence = license_in_words(fields["license"], fields["license_version"])
    address = f" ({fields['license_url']})" if fields["license_url"] else ""
    page = candidate.page_url or candidate.image_url
    return f"{work}{author}, {licence}{address}, via {urlsplit(page).hostname or page}"


def license_in_words(name: str, version: str) -> str:
    """The licence as people write it: CC BY-SA 4.0."""
    if not name:
        return "licence unknown"
    if name == "pdm":
        return "public domain"
    return f"{'CC0' if name == 'cc0' else name.upper().replace('CC-', 'CC ', 1)} {version}".strip()
