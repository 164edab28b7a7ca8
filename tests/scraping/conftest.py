"""What the tests of the scraping library share."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scraping.config import CollectConfig
from scraping.net.http import FetchSettings
from scraping.search.searcher import Searcher
from scraping.sources.base import SearchResult
from tests.replicas.server import Replica

BASE = {
    "classes": [{"id": "c001", "name": "thing", "query": "thing"}],
    "contact": "operator@example.org",
}


def config_for(replicas: dict[str, Replica], **values) -> CollectConfig:
    """Return a configuration that knows only local replicas."""
    hosts = [replica.host for replica in replicas.values()] + values.pop(
        "allowed_private_hosts", []
    )
    urls = {name: replica.url for name, replica in replicas.items()}
    return CollectConfig.of(BASE | {"source_urls": urls, "allowed_private_hosts": hosts} | values)


def fetching_for(config: CollectConfig) -> FetchSettings:
    return FetchSettings(
        contact=config.contact,
        allowed_private_hosts=frozenset(config.allowed_private_hosts),
        deadline_seconds=10,
    )


Ask = Callable[..., SearchResult]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Ask one source of a configuration, in the production's way."""
    searchers: dict[int, Searcher] = {}
    stop = threading.Event()

    def run(
        source: str, config: CollectConfig, words: str, limit: int = 30, seconds: float = 60
    ) -> SearchResult:
        searcher = searchers.setdefault(id(config), Searcher(config, fetching_for(config), stop))
        return asyncio.run(searcher.search(source, words, limit, time.monotonic() + seconds))

    yield run
    for searcher in searchers.values():
        searcher.close()


def descendants(pid: int) -> set[int]:
    """Return the pids of all living processes below one."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return set()
    return {child.pid for child in children if alive(child.pid)}


def alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be collected does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something to become true; fail the test when it does not."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def repository() -> Path:
    return Path(__file__).resolve().parents[2]


def environment(**values: str) -> dict[str, str]:
    """Return the environment for a command of ours, without the tester's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PICAISSO_")}
    return kept | {"PYTHONPATH": str(repository())} | values
