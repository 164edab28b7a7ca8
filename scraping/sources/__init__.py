"""The places that pictures come from: one module each, and the registry of them."""

from scraping.sources.bing import BingSource
from scraping.sources.contract import Source
from scraping.sources.openverse import OpenverseSource
from scraping.sources.wikimedia import WikimediaSource

REGISTRY: dict[str, Source] = {source.name: source for source in (OpenverseSource(), WikimediaSource(), BingSource())}
