"""Snapshots: pages and answers that could not be understood, saved for the operator."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scraping.sources.base import Query, Source

MAX_BYTES = 1 << 20
MAX_NAME_CHARACTERS = 40


def save_page(source: Source, query: Query, page: str, screenshot: bytes) -> str:
    """Save a page and its screenshot side by side.

    Return the page's path, empty when the options name no folder.
    """
    path = _new_path(source, query, ".html")
    if path is None:
        return ""
    path.write_bytes(page.encode(errors="replace")[:MAX_BYTES])
    if screenshot:
        path.with_suffix(".png").write_bytes(screenshot)
    return str(path)


def save_answer(source: Source, query: Query, data: Any) -> str:
    """Save a JSON answer. Return its path, empty when the options name no folder."""
    path = _new_path(source, query, ".json")
    if path is None:
        return ""
    try:
        text = json.dumps(data, ensure_ascii=False, indent=1)
    except RecursionError:  # writing nests more calls than reading did
        return ""
    path.write_bytes(text.encode(errors="replace")[:MAX_BYTES])
    return str(path)


def _new_path(source: Source, query: Query, suffix: str) -> Path | None:
    if not query.options.snapshot_dir:
        return None
    folder = Path(query.options.snapshot_dir)
    folder.mkdir(parents=True, exist_ok=True)
    words = re.sub(r"\W+", "-", query.words).strip("-")
    words = words[:MAX_NAME_CHARACTERS] or "query"
    now = datetime.now(UTC)
    moment = now.strftime("%Y%m%dT%H%M%S%f")
    return folder / f"{source.name}-{words}-{moment}{suffix}"
