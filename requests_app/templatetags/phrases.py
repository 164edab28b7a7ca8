"""The phrases of pages and mails as template filters."""

from collections.abc import Iterable
from typing import Protocol

from django import template

from requests_app import phrases
from requests_app.delivery import names
from training.earlier_metrics import completed

register = template.Library()
register.filter("percent", phrases.percent)
register.filter("interval", phrases.interval)
register.filter("duration", phrases.duration)
register.filter("refusal", phrases.refusal)
register.filter("verdict", phrases.verdict)
register.filter("headline_title", phrases.headline_title)
register.filter("headline_counts", phrases.headline_counts)
register.filter("completed", completed)
register.filter("rejections", phrases.rejections)
register.filter("size", phrases.size)
register.filter("comparison", phrases.comparison)


class Named(Protocol):
    """A class of a request: its row, or what a page shows of it."""

    @property
    def name(self) -> str: ...


@register.filter
def class_names(classes: Iterable[Named]) -> str:
    """Return the names of classes for the title of a page."""
    return names.short_names(one.name for one in classes)
