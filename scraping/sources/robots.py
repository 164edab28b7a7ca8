"""Robots rules for sources whose pages are read. Public APIs are meant for programs."""

from protego import Protego

from scraping.net.http import PRODUCT, FetchFailure
from scraping.sources.base import (
    PageResults,
    Query,
    SearchResult,
    Source,
    SourceTools,
    skipped,
)
from scraping.sources.catalogue import Outcome


def robots_refusal(
    source: Source, query: Query, tools: SourceTools, paths: tuple[str, ...]
) -> SearchResult | None:
    """Return why the result pages at `paths` may not be read, or None.

    A missing file allows everything; one that cannot be had allows nothing (RFC 9309, section
    2.3.1). An operator who has answered for the source (`robots` is `operator`) is not asked again.
    """
    if query.options.robots == "operator":
        return None
    rules = tools.fetch_text(f"{tools.base_url}/robots.txt")
    if isinstance(rules, FetchFailure):
        if rules.status == 429:
            return PageResults(source, query).rate_limited(rules.retry_after, "robots rules")
        if rules.status is not None and 400 <= rules.status < 500:
            return None
        message = f"{source.label} was skipped: its robots rules could not be read."
        return SearchResult(Outcome.NETWORK, message=message, detail=rules.detail)
    parsed = Protego.parse(rules)
    for path in paths:
        if not parsed.can_fetch(tools.base_url + path, PRODUCT):
            return skipped(source, "its robots rules exclude its result page")
    return None
