"""The wording of pages and mails as template filters."""

from collections.abc import Mapping
from typing import Any

from django import template

from requests_app import phrases

register = template.Library()


@register.filter
def percent(share: float) -> str:
    return phrases.percent(share)


@register.filter
def interval(bounds: list[float]) -> str:
    return phrases.interval(bounds)


@register.filter
def duration(seconds: float) -> str:
    return phrases.duration(seconds)


@register.filter
def verdict(metrics: Mapping[str, Any]) -> str:
    return phrases.verdict(metrics)


@register.filter
def rejections(counts: Mapping[str, int]) -> str:
    return phrases.rejections(counts)
