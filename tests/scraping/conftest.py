"""What the tests of the scraping library share."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
    """A configuration that knows only local replicas."""
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
    """Pids of all living processes below one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level} - found
        found |= level
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
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
    """The environment for a command of ours, without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PICAISSO_")}
    return kept | {"PYTHONPATH": str(repository())} | values
