"""The card about the first model in a real Chromium, light and dark, on a phone and a desk."""

from itertools import product

import pytest
from selenium.webdriver.common.by import By

from tests.web.accessibility import barriers
from tests.web.conftest import keep_picture, running
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


def test_the_card_has_no_barriers_and_fits_a_phone_in_light_and_dark(browser, address, tmp_path):
    classifier = running()
    for image_class, number in product(classifier.classes.all(), range(1, 5)):
        keep_picture(image_class, number)
    add_round(classifier, 20, 40, 36)
    add_round(classifier, 40, 83, 77)
    add_round(classifier, 80, 168, 160)
    for width, scheme in product((1440, 390), ("light", "dark")):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme_feature]})
        browser.get(classifier.url)
        wait(browser, lambda d: len(d.find_elements(By.CSS_SELECTOR, ".growth-point")) == 3)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        assert barriers(browser) == [], (width, scheme)
        browser.save_screenshot(str(tmp_path / f"first-{width}-{scheme}.png"))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
