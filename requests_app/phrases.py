"""Codes and numbers in words: what pages and mails say, in one place so that they say the same.

Percentages, intervals and the verdict are those of the report and the model card.
"""

from collections.abc import Mapping
from typing import Any

import training.phrases
from scraping.reasons import Reason
from scraping.sources import catalogue as sources
from training.networks import catalogue as backbones
from training.phrases import (
    baseline,
    figure_on_test,
    headline_counts,
    headline_title,
    interval,
    opening,
    percent,
    refusal,
    verdict,
    whole_percent,
)

__all__ = [
    "backbone_choices",
    "backbone_title",
    "baseline",
    "change",
    "comparison",
    "counted",
    "device_title",
    "duration",
    "figure_on_test",
    "headline_counts",
    "headline_title",
    "interval",
    "looked_at",
    "masked_address",
    "opening",
    "outcome",
    "percent",
    "refusal",
    "rejections",
    "rejections_listed",
    "size",
    "source_title",
    "time_left",
    "verdict",
    "whole_percent",
]

# Why an image was rejected: said of one picture, said of several.
REASONS: Mapping[str, tuple[str, str]] = {
    Reason.UNREACHABLE: ("unreachable", "unreachable"),
    Reason.REFUSED_ADDRESS: ("at a refused address", "at refused addresses"),
    Reason.HTTP_ERROR: ("answered with an error", "answered with an error"),
    Reason.TOO_LARGE: ("too large", "too large"),
    Reason.NOT_A_PICTURE: ("not a picture", "not pictures"),
    Reason.TOO_SMALL: ("too small", "too small"),
    Reason.BAD_SHAPE: ("too long and narrow", "too long and narrow"),
    Reason.DUPLICATE: ("duplicate", "duplicates"),
    Reason.NEAR_DUPLICATE: ("near-duplicate", "near-duplicates"),
    Reason.IN_TWO_CLASSES: ("found in two classes", "found in two classes"),
    Reason.OPTED_OUT: ("withheld by its site or its file", "withheld by their sites or files"),
    Reason.AI_MADE: ("marked as made by AI", "marked as made by AI"),
    Reason.LICENSE: ("without an open licence", "without an open licence"),
    Reason.TAKEN_DOWN: ("taken down", "taken down"),
    Reason.REFUSED_DIGEST: ("on the operator's list of refused pictures",) * 2,
    Reason.NUDITY: ("refused for nudity", "refused for nudity"),
    Reason.OVER_QUOTA: ("not needed", "not needed"),
}

# Where the catalogue's own remark says nothing to a visitor, or is not true of every site.
# The catalogue has the sizes of weights in units of 1,048,576 bytes.
BACKBONE_REMARKS = {
    backbones.DEFAULT: "103 MB",
    "resnet50_v1": "older weights, 103 MB",
    "convnext_tiny": "114 MB",
    "efficientnet_v2_s": "87 MB",
    "swin_v2_t": "114 MB",
    backbones.BUNDLED: "smallest",
}
DEVICES = {"cpu": "CPU", "cuda": "GPU", "mps": "GPU"}


def duration(seconds: float) -> str:
    """Return whole seconds in words: ``under 1 s``, ``12 s``, ``3 min 20 s``, ``1 h 5 min``."""
    whole = round(seconds)
    if whole < 1:
        return "under 1 s"
    if whole < 10:
        return f"{whole} s"
    return training.phrases.duration(whole)


def time_left(seconds: float) -> str:
    """Return a rough estimate: ``less than a minute``, ``about 4 minutes``, ``about 2 hours``."""
    if seconds < 50:
        return "less than a minute"
    minutes = max(1, round(seconds / 60))
    if seconds < 90 * 60:
        return f"about {counted(minutes, 'minute')}"
    hours = round(seconds / 3600)
    return f"about {counted(hours, 'hour')}"


def size(number: float) -> str:
    """Return bytes as ``730 bytes``, ``12.3 kB``, ``53.1 MB`` or ``1.2 GB``.

    A megabyte has 1,000,000 bytes everywhere: on pages, in mails and in settings.
    """
    if number < 1000:
        return counted(round(number), "byte")
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95 or unit == "GB":
            break
    return f"{number:,.1f} {unit}"


def counted(count: int, one: str, several: str = "") -> str:
    """Return ``0 pictures``, ``1 picture`` or ``2 pictures``."""
    if count == 0:
        return f"0 {several or one + 's'}"
    return training.phrases.counted(count, one, several)


def comparison(compared: Mapping[str, Any]) -> str:
    """Return before and after in words, with how likely chance alone would do as much."""
    images = compared["images"]
    if not images:
        return "The two versions have no test picture in common, so they cannot be compared."
    before = compared["right_before"]
    after = compared["right_after"]
    mended = len(compared["mended"])
    broken = len(compared["broken"])
    pictures = counted(images, "test picture")
    start = f"On the {pictures} that both versions have, {after} are right instead of {before}"
    return f"{start}; {mended_and_broken(mended, broken, compared['p_value'])}"


def mended_and_broken(mended: int, broken: int, p_value: float) -> str:
    """Return what McNemar's exact test says of two models, to end a sentence about them."""
    if not mended and not broken:
        return "both models are right and wrong on the same pictures."
    chance = f"{p_value:.2f}" if p_value >= 0.01 else "under 0.01"
    change = f"{mended} mended, {broken} broken (p = {chance}, McNemar’s exact test)"
    if p_value < 0.05:
        return f"{change}. Chance alone would hardly do that."
    return f"{change}. Chance alone may do that, so neither is shown to be better."


def change(compared: Mapping[str, Any]) -> str:
    """Return before and after as a subject has room for it: ``94 of 100 instead of 88``."""
    after = compared["right_after"]
    before = compared["right_before"]
    return f"{after:,} of {compared['images']:,} instead of {before:,}"


def looked_at(count: int, tested: int) -> str:
    """Return how many test pictures a person has looked at as a sentence, "" for none."""
    if not count:
        return ""
    if count == tested:
        return f"A person has looked at all {counted(tested, 'test picture')}."
    return f"A person has looked at {count} of the {counted(tested, 'test picture')}."


def rejections(counts: Mapping[str, int]) -> str:
    """Return counts by reason, the largest first, "" without any.

    For example ``9 duplicates, 5 unreachable, 3 too small``.
    """
    return ", ".join(rejections_listed(counts))


def rejections_listed(counts: Mapping[str, int]) -> list[str]:
    """Return counts by reason in words, the largest first."""
    parts = []
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        unknown = reason.replace("_", " ")
        one, several = REASONS.get(reason, (unknown, unknown))
        if count:
            parts.append(f"{count} {one if count == 1 else several}")
    return parts


def masked_address(address: str) -> str:
    """Return an address that its owner knows again and nobody else learns: `d…@example.org`."""
    local_part, _, domain = address.rpartition("@")
    return f"{local_part[:1]}…@{domain}"


def source_title(name: str) -> str:
    """Return the name of a source for people."""
    if name == "own":
        return "Your own"
    source = sources.CATALOGUE.get(name)
    if source is None:
        return name.replace("_", " ").capitalize()
    return source.label


def backbone_title(name: str) -> str:
    """Return the name of a backbone for people."""
    backbone = backbones.CATALOGUE.get(name)
    return name if backbone is None else backbone.title


def backbone_choices(default: str) -> list[tuple[str, str]]:
    """Return (name, label) of every backbone for the form.

    :param default: the one that the operator has chosen, whatever the catalogue calls the default
    """
    choices = []
    for name, backbone in backbones.CATALOGUE.items():
        remark = BACKBONE_REMARKS.get(name, backbone.remark)
        if name == default:
            remark = "the default"
        choices.append((name, f"{backbone.title} ({remark})"))
    return choices


def device_title(name: str) -> str:
    """Return the name of a device for people."""
    return DEVICES.get(name, name)


def outcome(code: str) -> str:
    """Return how a search ended, to be put after the name of the source."""
    try:
        return sources.Outcome(code).in_words
    except ValueError:  # recorded by another version
        return code.replace("_", " ")


def brought_along(supplied: Mapping[str, Any]) -> str:
    """Return what a person brought along with a request, in sentences; "" for nothing."""
    if not supplied:
        return ""
    parts = []
    if supplied.get("pictures"):
        parts.append(counted(supplied["pictures"], "picture"))
    if supplied.get("addresses"):
        parts.append(counted(supplied["addresses"], "address", "addresses"))
    sentence = f"{training.phrases.listed(parts or ['nothing'])} of your own"
    if supplied.get("as_test"):
        sentence += ", to test on and on nothing else"
    elif supplied.get("alone"):
        sentence += ", without a search"
    else:
        sentence += ", besides what is found"
    return f"{sentence[0].upper()}{sentence[1:]}."
