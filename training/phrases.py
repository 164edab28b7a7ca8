"""Numbers in words, so that report, card, plots, command line and site say the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

FEW_TEST_IMAGES = 50  # below this the verdict warns that its figure is uncertain


def percent(share: float) -> str:
    """Return a share in [0, 1] as a percentage with at most one decimal: `94.2 %`."""
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


def interval(bounds: Sequence[float]) -> str:
    """Return two shares as `88.1 % to 97.6 %`."""
    low, high = bounds
    return f"{percent(low)} to {percent(high)}"


def duration(seconds: float) -> str:
    """Return seconds as a person says them: `0.4 s`, `12 s`, `3 min 20 s`, `1 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if not minutes:
        return f"{rest} s"
    if not hours:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if not minutes_left:
        return f"{hours} h"
    return f"{hours} h {minutes_left} min"


def counted(count: int, one: str, several: str = "") -> str:
    """Return a number with its noun: `1 picture`, `3 pictures`, `no picture`."""
    if count == 0:
        return f"no {one}"
    if count == 1:
        return f"1 {one}"
    return f"{count:,} {several or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """Return words as a list: `corgi`, `corgi and fox`, `corgi, fox and wolf`."""
    if len(words) == 1:
        return words[0]
    beginning = ", ".join(words[:-1])
    return f"{beginning} and {words[-1]}"


def shortened(text: str, columns: int) -> str:
    """Return the text cut to so many columns, with an ellipsis where something is missing.

    Wide characters count two columns.
    """
    width = 0
    for index, character in enumerate(text):
        wide = unicodedata.east_asian_width(character) in "WF"
        width += 2 if wide else 1
        if width > columns:
            return text[: max(1, index - 1)] + "…"
    return text


def verdict(metrics: Mapping[str, Any]) -> str:
    """Return how good a model is, in one or two sentences, from the figures of `metrics.json`.

    The model card, the report, the command line and the site all use it.
    """
    tested = metrics["split"]["test"]
    accuracy = percent(metrics["accuracy"])
    bounds = interval(metrics["interval"])
    baseline = percent(metrics["majority_baseline"])
    right = (
        f"right on {accuracy} of {counted(tested, 'test picture')} that it never saw"
        f" (95 % interval {bounds})"
    )
    if not metrics["better_than_chance"]:
        return (
            f"This model is no better than guessing: {right},"
            f" where always naming the largest class would be right on {baseline}."
        )
    sentence = (
        f"This model tells the classes apart: {right};"
        f" always naming the largest class would be right on {baseline}."
    )
    if tested < FEW_TEST_IMAGES:
        sentence += " With so few test pictures the true figure can lie anywhere in the interval."
    return sentence
