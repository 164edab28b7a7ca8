"""The figures above the tables on the first page of the admin."""

from django import template

from requests_app import admin

register = template.Library()
register.simple_tag(admin.dashboard, name="dashboard")
