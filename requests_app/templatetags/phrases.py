"""The phrases of pages and mails as template filters."""

from django import template

from requests_app import phrases
from requests_app.delivery import names
from requests_app.models import ClassifierRequest
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


@register.filter
def class_names(classifier: ClassifierRequest) -> str:
    """Return the classes of a request for the title of a page."""
    return names.short_names(names.names_of(classifier))
