"""The pages that a source was not understood by, saved for the operator."""

from pathlib import Path

from scraping.sources.base import (
    Query,
    SearchOptions,
)
from scraping.sources.registry import REGISTRY
from scraping.sources.snapshots import save_page


def test_a_saved_page_is_capped_and_without_a_folder_nothing_is_saved(tmp_path):
    bing = REGISTRY["bing"]
    query = Query("a/../b corgi", 5, SearchOptions(snapshot_dir=str(tmp_path / "new")), 0.0)
    page = Path(save_page(bing, query, "ä" * (2 << 20), b"png"))
    assert page.stat().st_size == 1 << 20
    assert page.parent == tmp_path / "new"
    assert page.name.startswith("bing-a-b-corgi-")
    assert page.with_suffix(".png").read_bytes() == b"png"
    assert save_page(bing, Query("corgi", 5, SearchOptions(), 0.0), "x", b"") == ""
