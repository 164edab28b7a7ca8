"""The phrases of pages and mails as template filters."""

from django import template

from requests_app import phrases

register = template.Library()
register.filter("percent", phrases.percent)
register.filter("interval", phrases.interval)
register.filter("duration", phrases.duration)
register.filter("verdict", phrases.verdict)
register.filter("rejections", phrases.rejections)
