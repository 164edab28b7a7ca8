"""What the adapters of JSON APIs share: asking with retries, and reading what comes back."""

import html
import random
import re
from collections.abc import Mapping
from typing import Any

from scraping.net.http import FetchFailure, JsonReply, JsonRequest
from scraping.outside import MAX_TEXT_CHARACTERS, clean_text, web_address, whole_number
from scraping.reasons import Reason
from scraping.sources.base import Query, SourceTools

__all__ = [
    "ask",
    "credit_line",
    "list_at",
    "object_at",
    "plain_text",
    "web_address",
    "whole_number",
]

TRIES = 3
FIRST_PAUSE_SECONDS = 1.0
MARKUP_FACTOR = 10  # a text may be mostly tags


def ask(
    url: str,
    parameters: Mapping[str, str],
    query: Query,
    tools: SourceTools,
    interval: float,
    headers: Mapping[str, str] | None = None,
) -> JsonReply | FetchFailure:
    """Ask at the source's pace, `interval` in seconds.

    After a server error or no answer, try again with growing, jittered pauses.
    """
    pause = FIRST_PAUSE_SECONDS
    for tries_left in reversed(range(TRIES)):
        tools.pace(interval)
        if headers:
            answer = tools.request(JsonRequest(url, parameters, headers))
        else:
            answer = tools.get_json(url, parameters)
        if not isinstance(answer, FetchFailure):
            return answer
        may_pass = answer.reason == Reason.UNREACHABLE or (answer.status or 0) >= 500
        if not may_pass or not tries_left or query.seconds_left() < pause:
            return answer
        tools.wait(pause * random.uniform(0.75, 1.25))
        pause *= 2
    raise AssertionError("not reached")


def list_at(data: object, *names: str) -> list[Any] | None:
    """Return the list below the given keys, None when there is none."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data if isinstance(data, list) else None


def object_at(data: object, name: str) -> dict[str, Any]:
    """Return the object below a key, an empty one when there is none."""
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, dict) else {}


def plain_text(value: object) -> str:
    """Return the text of a field that may hold HTML, be missing, or be of another type."""
    if not isinstance(value, str):
        return ""
    bounded = value[: MARKUP_FACTOR * MAX_TEXT_CHARACTERS]
    without_tags = re.sub(r"<[^<>]*>", " ", bounded)
    text = clean_text(html.unescape(without_tags))
    return re.sub(r"\s+", " ", text)


def credit_line(*parts: str) -> str:
    """Return the parts of a line of credit that are known, joined by commas."""
    return ", ".join(part for part in parts if part)
