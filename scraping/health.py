"""How the sources are: one small real question to each."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from scraping.config import CollectConfig
from scraping.net.http import FetchSettings
from scraping.search.searcher import Searcher
from scraping.sources.catalogue import CATALOGUE
from scraping.sources.registry import REGISTRY

WANTED = 5
SECONDS = 60.0  # for one source; those that share the browser wait for each other on top


@dataclass(frozen=True)
class Health:
    """How one source answered.

    `cool_down_seconds` is how long to leave it alone, None when it may be asked at once.
    """

    name: str
    outcome: str
    found: int
    message: str
    seconds: float
    cool_down_seconds: float | None


def check_sources(
    config: CollectConfig,
    stop: threading.Event | None = None,
    on_health: Callable[[Health], None] | None = None,
) -> list[Health]:
    """Ask all sources of the configuration at once for something that they certainly have.

    Sources that the configuration closes are asked too. `on_health` hears of each as it answers;
    the result is in the order of the configuration. Raises Stopped when `stop` is set meanwhile.
    """
    fetching = FetchSettings(
        contact=config.contact, allowed_private_hosts=frozenset(config.allowed_private_hosts)
    )
    searcher = Searcher(replace(config, closed_sources={}), fetching, stop or threading.Event())
    with_browser = [name for name in config.sources if CATALOGUE[name].uses_browser]

    async def check(name: str) -> Health:
        started = time.monotonic()
        seconds = SECONDS * len(with_browser) if name in with_browser else SECONDS
        words = REGISTRY[name].sample_words
        result = await searcher.search(name, words, WANTED, started + seconds)
        health = Health(
            name=name,
            outcome=result.outcome.value,
            found=len(result.candidates),
            message=result.message,
            seconds=round(time.monotonic() - started, 2),
            cool_down_seconds=result.cool_down_seconds,
        )
        if on_health is not None:
            on_health(health)
        return health

    async def check_all() -> list[Health]:
        return list(await asyncio.gather(*map(check, config.sources)))

    try:
        return asyncio.run(check_all())
    finally:
        searcher.close()
