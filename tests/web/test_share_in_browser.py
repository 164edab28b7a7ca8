"""The shared result in a real Chromium, also without a network."""

import pytest
from selenium.webdriver.common.by import By

from requests_app import sharing
from tests.web.conftest import delivered
from tests.web.test_browser import CHROMIUM, DRIVER, address, browser, chromium, press, wait

__all__ = ["address", "browser", "chromium"]  # fixtures
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"
    ),
]


def test_a_link_is_made_looked_at_and_revoked(browser, address):
    classifier = delivered("cat", "dog")
    browser.get(classifier.url)
    press(browser, "Share")
    press(browser, "Make a link for others")
    wait(browser, lambda d: d.find_elements(By.ID, "share-link"))
    link = browser.find_element(By.ID, "share-link").get_attribute("value")
    press(browser, "Look at it")
    wait(browser, lambda d: d.current_url == link)
    browser.get(f"{classifier.url}share/")
    press(browser, "Revoke the link")
    wait(browser, lambda d: not d.find_elements(By.ID, "share-link"))
    browser.get(link)
    assert "Page not found" in browser.page_source
    browser.get_log("browser")  # the browser reports the 404


def test_the_shared_result_stays_without_a_network(browser, address):
    classifier = delivered("cat", "dog")
    sharing.switch_on(classifier, "person")
    browser.get(classifier.share_url)
    ready = "return navigator.serviceWorker.controller?.state"
    wait(browser, lambda d: d.execute_script(ready) == "activated")
    browser.execute_cdp_cmd("Network.enable", {})
    lost = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", lost)
    try:
        browser.get(classifier.share_url)
        assert "How good it is" in browser.page_source
        font = "return getComputedStyle(document.querySelector('.button')).borderRadius"
        assert browser.execute_script(font) == "10px"  # the style sheet is there too
    finally:
        found = {**lost, "offline": False}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", found)
    browser.get_log("browser")  # the browser reports the lost connection
