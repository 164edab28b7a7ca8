"""The figures above the tables on the first page of the admin."""

from django import template

from requests_app import dashboard

register = template.Library()
register.simple_tag(dashboard.first_page, name="dashboard")
