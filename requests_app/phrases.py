"""Codes and numbers in words: what pages and mails say, in one place so that they say the same."""

from collections.abc import Mapping
from typing import Any

import training.phrases
from scraping.reasons import Reason

# Reason of rejection (product.md section 6): said of one picture, said of several.
REASONS: dict[str, tuple[str, str]] = {
    Reason.UNREACHABLE: ("unreachable", "unreachable"),
    Reason.REFUSED_ADDRESS: ("at a refused address", "at refused addresses"),
    Reason.HTTP_ERROR: ("answered with an error", "answered with an error"),
    Reason.TOO_LARGE: ("too large", "too large"),
    Reason.NOT_A_PICTURE: ("not a picture", "not pictures"),
    Reason.TOO_SMALL: ("too small", "too small"),
    Reason.BAD_SHAPE: ("of an odd shape", "of odd shapes"),
    Reason.DUPLICATE: ("duplicate", "duplicates"),
    Reason.NEAR_DUPLICATE: ("near-duplicate", "near-duplicates"),
    Reason.IN_TWO_CLASSES: ("found in two classes", "found in two classes"),
    Reason.OPTED_OUT: ("withheld by its site", "withheld by their sites"),
    Reason.LICENSE: ("without an open licence", "without an open licence"),
    Reason.TAKEN_DOWN: ("taken down", "taken down"),
    Reason.OVER_QUOTA: ("more than needed", "more than needed"),
}

SOURCES = {
    "openverse": "Openverse",
    "wikimedia": "Wikimedia Commons",
    "inaturalist": "iNaturalist",
    "gbif": "GBIF",
    "bing": "Bing",
    "nasa": "NASA",
    "met": "The Met",
    "artic": "Art Institute of Chicago",
    "pixabay": "Pixabay",
    "google": "Google Images",
}

NETWORKS = {
    "resnet50": "ResNet50",
    "resnet18": "ResNet18",
    "efficientnet_lite0": "EfficientNet-Lite0",
}

DEVICES = {"cpu": "processor (CPU)", "cuda": "graphics card (GPU)", "mps": "graphics card (GPU)"}

OUTCOMES = {
    "ok": "answered",
    "partial": "answered in part",
    "no_results": "found nothing",
    "not_applicable": "does not cover this",
    "blocked": "refused to answer",
    "rate_limited": "asked us to slow down",
    "layout_changed": "has changed its pages",
    "timeout": "took too long",
    "network": "could not be reached",
    "unavailable": "was not available",
}


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with at most one decimal: ``94.2 %``."""
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


def interval(bounds: tuple[float, float] | list[float]) -> str:
    """Two shares as ``88.1 % to 97.6 %``."""
    low, high = bounds
    return f"{percent(low)} to {percent(high)}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``12 s``, ``3 min 20 s``, ``1 h 5 min``."""
    whole = max(0, round(seconds))
    if whole == 0:
        return "under 1 s"
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def time_left(seconds: float) -> str:
    """An estimate, as coarse as it deserves: ``less than a minute``, ``about 4 minutes``, ``about 2
    hours``.
    """
    if seconds < 50:
        return "less than a minute"
    if seconds < 90 * 60:
        return "about " + counted(max(1, round(seconds / 60)), "minute")
    return "about " + counted(round(seconds / 3600), "hour")


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 picture``, ``2 pictures``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def rejections(counts: Mapping[str, int]) -> str:
    """Counts by reason, the largest first: ``9 duplicates, 5 unreachable, 3 too small``; empty
    without any.
    """
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {_reason(reason, count)}" for reason, count in ordered if count)


def _reason(reason: str, count: int) -> str:
    one, several = REASONS.get(reason, (reason.replace("_", " "),) * 2)
    return one if count == 1 else several


def source_title(name: str) -> str:
    return SOURCES.get(name, name.replace("_", " ").capitalize())


def outcome(code: str) -> str:
    return OUTCOMES.get(code, code.replace("_", " "))


def verdict(metrics: Mapping[str, Any]) -> str:
    """Return how good a model is, in the words of its model card and report."""
    return training.phrases.verdict(metrics)
