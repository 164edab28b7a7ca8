"""What the person supplies who asks: pictures of their own, and a list of addresses.

Nobody is searched: both answer with what was given for a class, whose name is the question. What
was given is read by `scraping.supplied`.
"""

from scraping.sources.base import PageResults, Query, SearchResult, Source, SourceTools
from scraping.sources.catalogue import UPLOAD, URL_LIST, Outcome

BASIS = "requester"  # how a licence is known: whoever asks answers for it


class _SuppliedSource(Source):
    min_interval_s = 1.0

    def search(self, query: Query, tools: SourceTools) -> SearchResult:
        results = PageResults(self, query)
        for candidate in query.options.supplied.get((self.name, query.words), ()):
            results.add(candidate)
        if not len(results):
            message = f"{self.label}: none of “{query.words}”."
            return results.end(Outcome.NOT_APPLICABLE, message)
        results.stats.ended_by = "all"
        return results.end(Outcome.OK, f"{self.label}: {len(results)} of “{query.words}”.")


class UploadSource(_SuppliedSource):
    """Pictures of a folder or a zip."""

    name = UPLOAD
    default_url = "https://upload.invalid"


class UrlListSource(_SuppliedSource):
    """Addresses of a table."""

    name = URL_LIST
    default_url = "https://url-list.invalid"
