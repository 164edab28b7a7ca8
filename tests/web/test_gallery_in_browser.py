"""Gallery, review and versions in a real Chromium: keys, lasso, panel, and who is kept out."""

import time

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from requests_app.models import (
    ClassifierRequest,
    ImageUrl,
)
from tests.web.accessibility import barriers
from tests.web.conftest import delivered, keep_picture
from tests.web.test_browser import (
    CHROMIUM,
    DRIVER,
    address,
    browser,
    chromium,
    open_browser,
    press,
    wait,
)

__all__ = ["address", "browser", "chromium"]  # fixtures
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"
    ),
]


@pytest.fixture(autouse=True)
def large_window(request) -> None:
    if "browser" in request.fixturenames:
        request.getfixturevalue("browser").set_window_size(1280, 1000)


@pytest.fixture
def classifier(address) -> ClassifierRequest:
    """A delivered request with 12 pictures a class, of which the first two of each are tested."""
    made = delivered("cat", "dog")
    for image_class in made.classes.all():
        for number in range(3, 13):
            keep_picture(image_class, number)
        images = list(image_class.images.order_by("pk"))
        for image in images:
            image.version_number = image_class.number
            image.split = "test" if image in images[:2] else "train"
            image.save()
    return made


def tell(driver: webdriver.Chrome, *keys: str) -> None:
    """Press keys, and wait each time until what they did is saved."""
    for key in keys:
        ActionChains(driver).send_keys(key).perform()
        time.sleep(0.1)
        wait(driver, lambda d: not d.find_elements(By.CSS_SELECTOR, "body.saving"))


def count(driver: webdriver.Chrome, selector: str) -> int:
    return len(driver.find_elements(By.CSS_SELECTOR, selector))


def said(driver: webdriver.Chrome) -> str:
    return driver.find_element(By.ID, "chosen").text


def test_three_pictures_are_removed_by_keys_and_one_comes_back_after_a_reload(browser, classifier):
    browser.get(f"{classifier.url}images/")
    tell(browser, "j", "x", "x", "x")
    assert said(browser) == "1 picture removed."
    assert count(browser, ".tile.removed") == 3
    assert "3 removed" in browser.find_element(By.ID, "pending").text
    browser.refresh()
    assert count(browser, ".tile") == 21
    tell(browser, "u")
    assert said(browser) == "Undone: 1 picture removed."
    assert ImageUrl.objects.filter(state="removed").count() == 2
    tell(browser, "j", "2")
    assert said(browser) == "1 picture moved to “dog”."
    assert classifier.decisions.filter(undone=None).count() == 3


def test_many_are_chosen_by_shift_and_by_a_lasso(browser, classifier):
    browser.get(f"{classifier.url}images/")
    boxes = browser.find_elements(By.CSS_SELECTOR, ".tile .check")
    boxes[1].click()
    chain = ActionChains(browser)
    chain.key_down(Keys.SHIFT).click(boxes[4]).key_up(Keys.SHIFT).perform()
    assert said(browser) == "4 chosen"
    tell(browser, Keys.ESCAPE)
    assert said(browser) == "Choose pictures"
    pictures = browser.find_elements(By.CSS_SELECTOR, ".tile img")
    chain = ActionChains(browser)
    chain.move_to_element_with_offset(pictures[0], 0, 30).click_and_hold()
    chain.move_to_element_with_offset(pictures[2], 0, 40).release().perform()
    assert said(browser) == "3 chosen"
    press(browser, "Remove")
    wait(browser, lambda d: said(d) == "3 pictures removed.")


def test_a_picture_opens_up_close_and_is_removed_there(browser, classifier):
    browser.get(f"{classifier.url}images/")
    browser.find_elements(By.CSS_SELECTOR, ".tile-open")[3].click()
    wait(browser, lambda d: d.find_element(By.CSS_SELECTOR, "#panel[open] h2").text)
    first = browser.find_element(By.CSS_SELECTOR, "#panel img").get_attribute("src")
    tell(browser, "j")
    wait(
        browser,
        lambda d: d.find_element(By.CSS_SELECTOR, "#panel img").get_attribute("src") != first,
    )
    assert barriers(browser) == []
    browser.find_element(By.CSS_SELECTOR, "#panel button.danger").click()
    wait(browser, lambda d: said(d) == "1 picture removed.")
    assert count(browser, "#panel[open]") == 0


def test_keys_do_nothing_to_the_page_behind_a_picture_that_is_not_on_it(browser, classifier):
    image = ImageUrl.objects.filter(image_class__name="dog").earliest("pk")
    browser.get(f"{classifier.url}images/?class=1")
    browser.find_element(By.CSS_SELECTOR, ".tile .check").click()
    browser.find_element(By.CSS_SELECTOR, ".tile-open").click()
    wait(browser, lambda d: d.find_element(By.CSS_SELECTOR, "#panel[open] h2").text)
    # As under “Most alike in the dataset”, which needs a trained model.
    text = browser.find_element(By.CSS_SELECTOR, "#panel .panel-text")
    link = f'<p class="thumbs"><a href="{classifier.url}images/{image.pk}/">Alike</a></p>'
    browser.execute_script("arguments[0].insertAdjacentHTML('beforeend', arguments[1])", text, link)
    browser.find_element(By.LINK_TEXT, "Alike").click()
    wait(browser, lambda d: d.find_element(By.CSS_SELECTOR, "#panel h2").text.endswith("dog"))
    tell(browser, "x", "2", "j", "u")
    assert count(browser, "#panel[open]") == 1
    assert not classifier.decisions.exists()
    browser.find_element(By.CSS_SELECTOR, "#panel button.danger").click()
    wait(browser, lambda d: not d.find_elements(By.CSS_SELECTOR, "#panel[open]"))
    assert ImageUrl.objects.get(state="removed") == image
    assert count(browser, ".tile.chosen") == 1


def test_filters_reload_by_themselves_and_stand_in_the_address(browser, classifier):
    browser.get(f"{classifier.url}images/")
    choice = "//select[@name='split']/option[@value='test']"
    browser.find_element(By.XPATH, choice).click()
    wait(browser, lambda d: d.current_url.endswith("/images/?state=kept&split=test"))
    assert count(browser, ".tile") == 4
    press(browser, "review them")
    wait(browser, lambda d: d.current_url.endswith("/review/"))


def test_the_test_pictures_are_judged_with_single_keys(browser, classifier):
    browser.get(f"{classifier.url}review/")
    for number, key in enumerate("rot"):
        wait(browser, lambda d, n=number: f"{n} of 4 judged" in d.page_source)
        tell(browser, key)
    wait(browser, lambda d: "3 of 4 judged" in d.page_source)
    assert "1 right, 1 of another class, 1 off-topic" in browser.page_source
    tell(browser, "u")
    wait(browser, lambda d: "2 of 4 judged" in d.page_source)


def test_a_lost_connection_is_told_and_changes_nothing(browser, classifier):
    browser.get(f"{classifier.url}images/")
    browser.execute_cdp_cmd("Network.enable", {})
    lost = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", lost)
    try:
        tell(browser, "j", "x")
        assert said(browser) == "Not saved: the site did not answer. Try again."
        assert count(browser, ".tile.removed") == 0
    finally:
        found = {**lost, "offline": False}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", found)
    browser.get_log("browser")  # the browser reports the lost connection
    tell(browser, "x")
    assert count(browser, ".tile.removed") == 1


def test_the_gallery_works_without_scripts(classifier):
    driver = open_browser(scripts=False)
    driver.set_window_size(1280, 1000)
    try:
        driver.get(f"{classifier.url}images/?class=1")
        driver.find_elements(By.CSS_SELECTOR, ".tile .check")[0].click()
        press(driver, "Remove")
        wait(driver, lambda d: "1 picture removed." in d.page_source)
        assert driver.current_url.endswith("?class=1") and count(driver, ".tile") == 11
        press(driver, "Undo")
        wait(driver, lambda d: count(d, ".tile") == 12)
    finally:
        driver.quit()
