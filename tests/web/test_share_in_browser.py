"""The shared result in a real Chromium, also without a network."""

import socket
from contextlib import suppress
from typing import Any

import pytest
from django.core.servers.basehttp import ThreadedWSGIServer
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver.common.by import By

from requests_app import sharing
from tests.web.conftest import delivered
from tests.web.delivered_model import deliver_model, export_model
from tests.web.test_browser import CHROMIUM, DRIVER, address, browser, chromium, press, wait

__all__ = ["address", "browser", "chromium", "deliver_model", "export_model"]  # fixtures
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


class EndingServer(ThreadedWSGIServer):
    """Ends its connections when it stops: the browser would go on using them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sockets: list[socket.socket] = []

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        self.sockets.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for one in self.sockets:
            with suppress(OSError):  # it has ended
                one.shutdown(socket.SHUT_RDWR)


def test_the_shared_result_stays_without_a_network(browser, with_model, settings):
    site = LiveServer("localhost", start=False)
    site.thread.server_class = EndingServer
    site.start()
    settings.BASE_URL = site.url
    try:
        sharing.switch_on(with_model, "person")
        browser.get(with_model.share_url)
        ready = "return navigator.serviceWorker.controller?.state"
        wait(browser, lambda d: d.execute_script(ready) == "activated")
    finally:
        site.stop()
    lost = "return fetch('credits/').then(() => 'found', () => 'lost')"
    assert browser.execute_script(lost) == "lost"
    browser.get(with_model.share_url)
    assert "How good it is" in browser.page_source
    shape = "return getComputedStyle(document.querySelector('.button')).borderRadius"
    assert browser.execute_script(shape) == "10px"  # the style sheet is there too
    press(browser, "Try it on a picture")
    wait(browser, lambda d: d.find_element(By.ID, "device").is_displayed())
    browser.get_log("browser")  # the browser reports the lost connection
