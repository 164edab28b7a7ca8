"""The configuration of a collection: its secrets and the order of its sources."""

import pytest

from scraping.sources.registry import REGISTRY
from tests.scraping.collect_folder import (
    configuration,
)


def test_keys_of_sources_are_not_written_into_the_folder(tmp_path):
    config = configuration(
        {}, [], sources=["openverse"], credentials={"openverse_client_secret": "do not tell"}
    )
    config.write(tmp_path)
    assert "do not tell" not in (tmp_path / "config.json").read_text()
    assert "do not tell" not in repr(config)


@pytest.mark.skipif("google" not in REGISTRY, reason="there is no source that is always last")
def test_a_source_that_is_always_last_is_last_whatever_the_order_says():
    assert configuration({}, [], sources=["google", "openverse", "openverse"]).sources == (
        "openverse",
        "google",
    )
