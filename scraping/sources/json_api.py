"""What the adapters of JSON APIs share: asking with retries, and cleaning the text that comes
back.
"""

import html
import random
import re
from collections.abc import Mapping
from typing import Any

from scraping.net.http import FetchFailure, JsonReply, JsonRequest
from scraping.reasons import Reason
from scraping.sources.base import Query, SourceTools

TRIES = 3
FIRST_PAUSE_SECONDS = 1.0


def ask(
    url: str,
    parameters: Mapping[str, str],
    query: Query,
    tools: SourceTools,
    interval: float,
    headers: Mapping[str, str] | None = None,
) -> JsonReply | FetchFailure:
    """Ask at the source's pace; after a server error or no answer, try again with growing, jittered
    pauses.

    `headers` go along where the tools can send them.
    """
    pause = FIRST_PAUSE_SECONDS
    for attempt in range(1, TRIES + 1):
        tools.pace(interval)
        if headers and tools.send is not None:
            answer = tools.send(JsonRequest(url, parameters, headers))
        else:
            answer = tools.get_json(url, parameters)
        again = isinstance(answer, FetchFailure) and _passing(answer)
        if not again or attempt == TRIES or query.seconds_left() < pause:
            return answer
        tools.wait(pause * random.uniform(0.75, 1.25))
        pause *= 2
    raise AssertionError("not reached")


def _passing(failure: FetchFailure) -> bool:
    """Whether the failure may be gone in a moment."""
    return failure.reason == Reason.UNREACHABLE or (failure.status or 0) >= 500


def list_at(data: object, *names: str) -> list[Any] | None:
    """The list below the given keys, None when there is none."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data if isinstance(data, list) else None


def same_name(name: object, words: str) -> bool:
    """Whether a name is exactly the words, but for case and spaces."""
    return plain_text(name).casefold() == " ".join(words.split()).casefold() != ""


def plain_text(value: object) -> str:
    """Text of a field that may hold HTML, may be missing, and may be of another type."""
    if not isinstance(value, str):
        return ""
    without_tags = re.sub(r"<[^>]*>", " ", value)
    return re.sub(r"\s+", " ", html.unescape(without_tags)).strip()


def whole_number(value: object) -> int | None:
    """A positive whole number, or None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def web_address(value: object) -> str:
    """An http or https address, scheme completed; empty for anything else."""
    text = value.strip() if isinstance(value, str) else ""
    text = f"https:{text}" if text.startswith("//") else text
    return text if text.lower().startswith(("http://", "https://")) else ""
