"""Numbers in words: what report, card, plots and command line say, in one place so that they say
the same.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

FEW_TEST_IMAGES = 50  # below this the verdict warns that its figure is uncertain


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with at most one decimal: `94.2 %`."""
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


def interval(bounds: Sequence[float]) -> str:
    """Two shares as `88.1 % to 97.6 %`."""
    return f"{percent(bounds[0])} to {percent(bounds[1])}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: `0.4 s`, `12 s`, `3 min 20 s`, `1 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def counted(count: int, one: str, several: str = "") -> str:
    """`1 picture`, `3 pictures`, `no picture`."""
    if count == 0:
        return f"no {one}"
    return f"1 {one}" if count == 1 else f"{count:,} {several or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """`corgi`, `corgi and fox`, `corgi, fox and wolf`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def shortened(text: str, columns: int) -> str:
    """The text cut to so many columns, wide signs counting two, with an ellipsis where something is
    missing.
    """
    taken = 0
    for place, sign in enumerate(text):
        taken += 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        if taken > columns:
            return text[: max(1, place - 1)] + "…"
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
