"""What the operator needs to mend a source: the page or answer that was not understood, saved when
it happens.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scraping.sources.base import Query, Source

MOST_BYTES = 1 << 20


def save_page(source: Source, query: Query, page: str, screenshot: bytes) -> str:
    """Save a page and its screenshot side by side; return the page's path, empty when no folder was
    given.
    """
    path = _path(source, query, ".html")
    if path is None:
        return ""
    path.write_bytes(page.encode()[:MOST_BYTES])
    if screenshot:
        path.with_suffix(".png").write_bytes(screenshot)
    return str(path)


def save_answer(source: Source, query: Query, data: Any) -> str:
    """Save the JSON answer of an interface; return its path, empty when no folder was given."""
    path = _path(source, query, ".json")
    if path is None:
        return ""
    path.write_bytes(json.dumps(data, ensure_ascii=False, indent=1).encode()[:MOST_BYTES])
    return str(path)


def _path(source: Source, query: Query, suffix: str) -> Path | None:
    if not query.options.evidence_dir:
        return None
    folder = Path(query.options.evidence_dir)
    folder.mkdir(parents=True, exist_ok=True)
    words = re.sub(r"\W+", "-", query.words).strip("-")[:40] or "query"
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    return folder / f"{source.name}-{words}-{moment}{suffix}"
