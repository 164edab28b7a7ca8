"""The pages in a real Chromium: what only a browser can get wrong."""

import shutil
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from selenium import webdriver
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from requests_app import lifecycle, pipeline
from requests_app.models import ClassifierRequest, ImageClass, Status
from tests.web.conftest import delivered, keep_picture, running, stopped

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"
    ),
]
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--disable-sync",
    "--no-proxy-server",
]


@pytest.fixture
def address(transactional_db, live_server, settings) -> str:
    """The running site; mails' links lead to it."""
    settings.BASE_URL = live_server.url
    settings.CSRF_TRUSTED_ORIGINS = []
    return live_server.url


def open_browser(*, scripts: bool) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not scripts:
        options.add_experimental_option(
            "prefs", {"profile.managed_default_content_settings.javascript": 2}
        )
    return webdriver.Chrome(options=options, service=Service(DRIVER))


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    driver = open_browser(scripts=True)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, address) -> Iterator[webdriver.Chrome]:
    """A page must not make the browser complain: a blocked script, a missing file, an error of
    ours.

    It leaves the site before the site's rows go: a page that polls would complain of that.
    """
    chromium.get_log("browser")
    yield chromium
    chromium.get("about:blank")
    complaints = [
        entry["message"]
        for entry in chromium.get_log("browser")
        if "favicon" not in entry["message"]
    ]
    assert complaints == []


# What the driver says, in errors that have no class of their own, when a page goes away between two
# of its questions.
GOING_AWAY = (
    "does not belong to the document",
    "cannot find context",
    "context was destroyed",
    "no longer attached",
    "navigated or closed",
)


def wait(driver: webdriver.Chrome, condition, seconds: float = 10) -> None:
    """Until the condition holds; a page that is just being replaced is asked again."""

    def holds(_: webdriver.Chrome) -> bool:
        try:
            return bool(condition(driver))
        except (NoSuchElementException, StaleElementReferenceException):
            return False
        except WebDriverException as error:
            if any(words in (error.msg or "").lower() for words in GOING_AWAY):
                return False
            raise

    WebDriverWait(driver, seconds, poll_frequency=0.1).until(holds)


def fill(driver: webdriver.Chrome, *names: str) -> None:
    for field, name in zip(driver.find_elements(By.NAME, "classes"), names, strict=False):
        field.send_keys(name)
    driver.find_element(By.NAME, "email").send_keys("ada@example.org")


def heading(driver: webdriver.Chrome) -> str:
    return driver.find_element(By.TAG_NAME, "h1").text


def press(driver: webdriver.Chrome, words: str) -> None:
    path = f"//main//*[self::button or self::a][not(@aria-hidden)][normalize-space(.)='{words}']"
    wait(driver, lambda d: d.find_element(By.XPATH, path).click() or True)


def test_three_classes_from_the_form_to_the_queue_and_away_again(browser, address):
    """Also shows that our own forms are accepted, although the pages tell other sites nothing of
    their address.
    """
    browser.get(address)
    press(browser, "+ Add a class")
    assert browser.switch_to.active_element.get_attribute("id") == "id_classes_2"
    fill(browser, "cat", "dog", "owl")
    press(browser, "Make my classifier")
    wait(browser, lambda d: "/r/" in d.current_url)
    classifier = ClassifierRequest.objects.get()
    assert [c.name for c in classifier.classes.all()] == ["cat", "dog", "owl"]

    browser.get(pipeline.confirmation_link(classifier))
    press(browser, "Yes, start")
    wait(browser, lambda d: heading(d) == "Waiting in the queue")
    press(browser, "Cancel")
    wait(browser, lambda d: heading(d) == "Cancelled")
    press(browser, "Try again")
    wait(browser, lambda d: heading(d) == "Waiting in the queue")
    press(browser, "Delete everything …")
    press(browser, "Delete everything")
    wait(browser, lambda d: d.current_url == f"{address}/")
    classifier.refresh_from_db()
    assert classifier.status == Status.EXPIRED


def test_rows_that_are_added_and_removed_keep_classes_and_queries_together(browser, address):
    browser.get(address)
    for _ in range(2):
        press(browser, "+ Add a class")
    fill(browser, "cat", "dog", "owl", "bee")
    browser.find_element(By.CSS_SELECTOR, "details.options > summary").click()
    for field, query in zip(
        browser.find_elements(By.NAME, "queries"), ["", "", "owl bird", "bee insect"], strict=True
    ):
        field.send_keys(query)
    browser.find_elements(By.CSS_SELECTOR, "[data-remove]")[2].click()
    press(browser, "Make my classifier")
    wait(browser, lambda d: "/r/" in d.current_url)
    rows = [(c.name, c.query) for c in ClassifierRequest.objects.get().classes.all()]
    assert rows == [("cat", "cat"), ("dog", "dog"), ("bee", "bee insect")]


def test_the_page_follows_the_work_to_its_end_by_itself(browser, address):
    classifier = running()
    browser.get(classifier.url)
    assert heading(browser) == "Collecting pictures"
    assert browser.find_elements(By.CSS_SELECTOR, ".thumbs img") == []
    keep_picture(classifier.classes.first(), 1)
    wait(browser, lambda d: d.find_elements(By.CSS_SELECTOR, ".thumbs img"))
    shown = "return document.querySelector('.thumbs img').naturalWidth"
    wait(browser, lambda d: d.execute_script(shown) == 256)
    classifier.refresh_from_db()
    error = {"stage": "collect", "reason": "The disk is full.", "remedy": "Retry later."}
    assert classifier.move(Status.FAILED, error=error)
    wait(browser, lambda d: heading(d) == "This request failed")
    assert browser.title == "cat, dog · This request failed · Picaisso"
    assert (
        browser.find_element(By.ID, "spoken").get_attribute("textContent") == "This request failed"
    )
    assert not browser.find_elements(By.CSS_SELECTOR, "[hx-get]")


def test_a_retry_that_was_not_accepted_strands_nobody(browser, address):
    classifier = stopped("needs_attention")
    classifier.classes.update(kept=12)
    browser.get(classifier.url)
    browser.find_element(By.CSS_SELECTOR, "details.options > summary").click()
    field = browser.find_element(By.NAME, "images_per_class")
    field.clear()
    field.send_keys("5")
    press(browser, "Search again")
    wait(browser, lambda d: d.find_elements(By.CSS_SELECTOR, "[role=alert]"))
    assert browser.get_log("browser")[0]["message"].count(
        "400"
    )  # the browser reports the refusal, and no more
    browser.get(browser.current_url)  # what a press of Return in the address bar does
    assert browser.current_url == classifier.url
    assert heading(browser) == "We found too few pictures"
    press(browser, "Train with what was found")
    wait(browser, lambda d: heading(d) == "Waiting in the queue")


def offline(browser, *, is_offline: bool) -> None:
    browser.execute_cdp_cmd("Network.enable", {})
    limits = {"offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", limits)


def test_a_lost_connection_is_said_until_it_is_back(browser, address):
    browser.get(running().url)
    line = browser.find_element(By.ID, "connection")
    assert not line.is_displayed()
    try:
        offline(browser, is_offline=True)
        wait(browser, lambda _: "The connection is lost" in line.text)
    finally:
        offline(browser, is_offline=False)
    wait(browser, lambda _: not line.is_displayed())
    for entry in browser.get_log("browser"):  # the browser reports what we cut, and no more
        assert "ERR_INTERNET_DISCONNECTED" in entry["message"] or "htmx" in entry["message"]


def test_words_that_are_being_typed_are_not_swept_away_by_the_next_try(browser, address):
    again_at = timezone.now() + timedelta(minutes=5)
    classifier = stopped("needs_attention")
    error = {**classifier.error, "again_at": again_at.isoformat()}
    ClassifierRequest.objects.update(error=error)
    browser.get(classifier.url)
    shown = browser.find_element(By.CSS_SELECTOR, "time[data-clock]").text
    assert shown and "UTC" not in shown, "times are the reader's"
    field = browser.find_element(By.NAME, "queries")
    field.send_keys(" animal")
    assert lifecycle.retry(ClassifierRequest.objects.get(), actor="timer")
    time.sleep(3)
    assert field.get_attribute("value") == "cat animal"
    browser.find_element(By.TAG_NAME, "h1").click()
    browser.execute_script("document.activeElement.blur()")
    wait(browser, lambda d: heading(d) == "Waiting in the queue")


def test_a_class_is_left_out_by_keyboard(browser, address):
    classifier = stopped("needs_attention")
    classifier.classes.update(kept=40)
    ImageClass.objects.create(request=classifier, number=3, name="zzzzqq")
    browser.get(classifier.url)
    browser.find_element(By.NAME, "number").send_keys(Keys.ENTER)
    wait(browser, lambda d: heading(d) == "Waiting in the queue")
    assert [tag.text for tag in browser.find_elements(By.CSS_SELECTOR, ".tag")] == ["cat", "dog"]


def test_polls_without_news_change_nothing_on_the_page(browser, address):
    browser.get(running().url)
    ClassifierRequest.objects.get().jobs.update(started=None)
    time.sleep(2.5)
    mark = "document.getElementById('progress').dataset.seen = 'yes'"
    browser.execute_script(mark)
    time.sleep(4.5)
    assert (
        browser.execute_script("return document.getElementById('progress').dataset.seen") == "yes"
    )
    polls = """
        const requests = performance.getEntriesByType('resource');
        return requests.filter(entry => entry.name.endsWith('/progress/')).length;
    """
    assert browser.execute_script(polls) >= 2


def test_the_file_that_the_browser_saves_is_the_file(browser, address, tmp_path):
    classifier = delivered()
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "got")}
    )
    browser.get(classifier.url)
    browser.find_element(By.CSS_SELECTOR, ".downloads a").click()
    saved = tmp_path / "got" / "picaisso-cat-dog-model.zip"
    wait(browser, lambda _: saved.exists())
    assert (
        saved.read_bytes()
        == classifier.versions.get().artifacts.get(kind="model").file.read_bytes()
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(browser, address, width):
    long_name = "a-name-without-any-space-that-goes-on-until-sixty-four-characters"[:64]
    classifier = delivered(long_name, "dog", *[f"class {n}" for n in range(8)])
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for place in (
            address,
            classifier.url,
            classifier.url + "delete/",
            stopped("needs_attention").url,
        ):
            browser.get(place)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width, (
                place
            )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_everything_works_without_scripts(address):
    driver = open_browser(scripts=False)
    try:
        driver.get(address)
        fill(driver, "cat", "dog")
        press(driver, "+ Add a class")
        wait(driver, lambda d: len(d.find_elements(By.NAME, "classes")) == 3)
        driver.find_elements(By.NAME, "classes")[2].send_keys(
            "owl\n"
        )  # Return sends the form, and adds no row
        wait(driver, lambda d: "/r/" in d.current_url)
        classifier = ClassifierRequest.objects.get()
        assert classifier.classes.count() == 3
        pipeline.confirm(classifier)
        wait(
            driver, lambda d: heading(d) == "Waiting in the queue", seconds=12
        )  # the page reloads itself
        press(driver, "Cancel")
        wait(driver, lambda d: heading(d) == "Cancelled")
    finally:
        driver.quit()
