"""The card about the first model in a real Chromium."""

import pytest
from selenium.webdriver.common.by import By

from tests.web.conftest import running
from tests.web.test_browser import CHROMIUM, DRIVER, address, browser, chromium, wait
from tests.web.test_first_model import add_round

__all__ = ["address", "browser", "chromium"]  # fixtures
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"
    ),
]


def test_the_first_model_appears_while_the_page_is_open(browser, address):
    classifier = running()
    browser.get(classifier.url)
    assert browser.find_elements(By.ID, "first-model") == []
    add_round(classifier, 20, 40, 36)
    wait(browser, lambda d: "36 of 40" in d.find_element(By.ID, "first-model").text)
    browser.find_element(By.ID, "first-model").find_element(By.TAG_NAME, "a").click()
    wait(browser, lambda d: d.current_url.endswith("/try/"))
