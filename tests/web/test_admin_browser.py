"""The dashboard in a real Chromium: no list is wider than the room that common screens have."""

from collections.abc import Iterator

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.urls import reverse
from selenium import webdriver

from requests_app.models import SourceHealth
from tests.web.conftest import delivered, operations, running, stopped
from tests.web.test_browser import address, browser, chromium, pytestmark

__all__ = ["address", "browser", "chromium", "pytestmark"]

LONG = "a class with a name as long as names may be, number"
TOO_WIDE = """
return [...document.querySelectorAll(".results")]
    .map(list => list.scrollWidth - list.clientWidth)
    .concat(document.documentElement.scrollWidth - document.documentElement.clientWidth)
"""


@pytest.fixture
def logged_in(browser, address, client) -> Iterator[webdriver.Chrome]:
    """A browser in which a superuser is logged in."""
    client.force_login(User.objects.create_superuser("boss", "boss@example.org", "a long secret"))
    browser.get(f"{address}/robots.txt")
    session = client.cookies["sessionid"].value
    browser.add_cookie({"name": "sessionid", "value": session})
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def set_width(driver: webdriver.Chrome, pixels: int) -> None:
    size = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_no_column_is_pushed_out_of_sight_by_long_labels(logged_in, address):
    delivered(*[f"{LONG} {number}" for number in range(10)])
    running()
    stopped("failed")
    operations()
    SourceHealth.record("bing", "blocked", 9 * "Bing asked for a human check. ")
    set_width(logged_in, 1440)
    for model in apps.get_app_config("requests_app").get_models():
        path = reverse(f"admin:requests_app_{model._meta.model_name}_changelist")
        logged_in.get(address + path)
        assert max(logged_in.execute_script(TOO_WIDE)) <= 0, model.__name__


def test_the_first_page_and_that_of_a_request_fit_a_phone(logged_in, address):
    classifier = delivered(f"{LONG} 1", f"{LONG} 2")
    stopped("failed")
    operations()
    set_width(logged_in, 390)
    row = reverse("admin:requests_app_classifierrequest_change", args=[classifier.pk])
    for path in ("/admin/", row):
        logged_in.get(address + path)
        assert max(logged_in.execute_script(TOO_WIDE)) <= 0, path
