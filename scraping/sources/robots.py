"""Robots rules for sources that are scraped. The hosts of public APIs are meant for programs and
need no such check.
"""

from protego import Protego

from scraping.net.http import PRODUCT, FetchFailure
from scraping.sources.base import (
    Query,
    SearchResult,
    SearchStats,
    Source,
    SourceTools,
    rate_limited,
)
from scraping.sources.catalogue import Outcome


def robots_refusal(
    source: Source, query: Query, tools: SourceTools, paths: tuple[str, ...]
) -> SearchResult | None:
    """Why the result pages may not be read, or None.

    A missing file allows everything; one that cannot be had allows nothing (RFC 9309). An operator
    who has answered for the source (`robots` is `operator`) is not asked again.
    """
    if query.options.robots == "operator":
        return None
    rules = tools.fetch_text(f"{tools.base_url}/robots.txt")
    if isinstance(rules, FetchFailure):
        if rules.status == 429:
            return rate_limited(source, (), SearchStats(), rules.retry_after, "robots rules")
        if rules.status is not None and 400 <= rules.status < 500:
            return None
        message = f"{source.label} was skipped: its robots rules could not be read."
        return SearchResult(Outcome.NETWORK, message=message, detail=rules.detail)
    parsed = Protego.parse(rules)
    if all(parsed.can_fetch(tools.base_url + path, PRODUCT) for path in paths):
        return None
    message = f"{source.label} was skipped: its robots rules exclude its result page."
    return SearchResult(Outcome.NOT_APPLICABLE, message=message)
