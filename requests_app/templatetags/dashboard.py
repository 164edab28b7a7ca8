"""The figures above the tables on the first page of the admin."""

from typing import Any

from django import template

from requests_app import admin

register = template.Library()


@register.simple_tag
def dashboard() -> dict[str, Any]:
    return admin.dashboard()
