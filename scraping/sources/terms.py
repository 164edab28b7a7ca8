"""The terms of each source in one sentence, with the page that has them and when it was read.

The site's pages and what is delivered read this, so it imports the standard library alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """What a source asks of those who use it."""

    sentence: str
    url: str
    read: str = "2026-11-28"
    """The date, in ISO 8601."""
    first_hand: bool = False
    """Whether a stored copy of the page was read, or only what others say of it."""

    @property
    def when(self) -> str:
        """Return when they were read, and in what, as a part of a sentence."""
        if self.first_hand:
            return f"read on {self.read} in a stored copy of that page"
        return f"as others described them on {self.read}; look at that page before you rely on it"


# By name of the source.
TERMS: dict[str, Terms] = {
    "openverse": Terms(
        "Credit the authors, keep to the limits on requests and do not scrape the catalogue;"
        " Openverse does not verify the licences that it names.",
        "https://docs.openverse.org/terms_of_service.html",
        first_hand=True,
    ),
    "wikimedia": Terms(
        "Each file has a licence of its own, named on its page, and most ask for credit;"
        " programs must name a contact.",
        "https://foundation.wikimedia.org/wiki/Policy:Terms_of_Use",
    ),
    "inaturalist": Terms(
        "Each photograph has the licence that its observer chose, which asks for credit and may"
        " forbid commercial use; at most 24 GB of media may be taken a day.",
        "https://www.inaturalist.org/pages/api+recommended+practices",
    ),
    "gbif": Terms(
        "Keep to the licence of each record, acknowledge those who published the data, and cite"
        " what you use by a DOI.",
        "https://www.gbif.org/terms/data-user",
    ),
    "bing": Terms(
        "Bing finds pictures of other sites and grants no rights in them, and Microsoft generally"
        " disallows programs that read its pages.",
        "https://about.ads.microsoft.com/en-us/resources/policies/web-crawling",
        first_hand=True,
    ),
    "nasa": Terms(
        "Pictures by NASA generally have no copyright in the United States, and NASA is to be"
        " credited; its logos, works of others and people who can be recognised are excepted.",
        "https://www.nasa.gov/nasa-brand-center/images-and-media/",
        first_hand=True,
    ),
    "met": Terms(
        "Pictures of works marked as public domain are CC0, for any purpose.",
        "https://www.metmuseum.org/about-the-met/policies-and-documents/open-access",
    ),
    "artic": Terms(
        "Pictures of works marked as public domain are CC0, for any purpose; programs may ask 60"
        " times a minute.",
        "https://www.artic.edu/terms",
    ),
    "pixabay": Terms(
        "Pictures may be used and changed without credit, but not passed on as they are, nor"
        " downloaded systematically in masses.",
        "https://pixabay.com/service/terms/",
    ),
    "google": Terms(
        "Google finds pictures of other sites and grants no rights in them, and its terms bind"
        " programs to its robots.txt, which excludes searches.",
        "https://policies.google.com/terms",
    ),
}
