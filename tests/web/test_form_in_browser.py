"""The form in a real Chromium: names as chips, better words, the estimate, and the way back."""

from itertools import product

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from requests_app.models import ClassifierRequest, WorkerBeat
from tests.web.accessibility import barriers
from tests.web.test_better_words import commons
from tests.web.test_browser import (
    CHROMIUM,
    DRIVER,
    address,
    browser,
    chromium,
    fill,
    press,
    wait,
)
from tests.web.test_supplied import pets

__all__ = ["address", "browser", "chromium", "commons"]  # fixtures
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"
    ),
]
PASTE = """
  const data = new DataTransfer();
  data.setData("text", arguments[0]);
  const options = { clipboardData: data, bubbles: true, cancelable: true };
  document.activeElement.dispatchEvent(new ClipboardEvent("paste", options));"""


def values(driver, field: str = "classes") -> list[str]:
    return [each.get_attribute("value") for each in driver.find_elements(By.NAME, field)]


def type_names(driver, text: str) -> None:
    driver.find_elements(By.NAME, "classes")[0].click()
    for key in text:
        driver.switch_to.active_element.send_keys(key)


def complaints(driver) -> list[str]:
    found = driver.find_elements(By.CSS_SELECTOR, ".names .complaint")
    return [each.text for each in found]


def test_names_become_chips_by_keys_and_are_taken_back_by_keys(browser, address):
    browser.get(address)
    type_names(browser, f"corgi{Keys.ENTER}shiba inu, akita;")
    assert values(browser) == ["corgi", "shiba inu", "akita", ""]
    type_names(browser, "")
    browser.find_elements(By.NAME, "classes")[3].send_keys(Keys.BACKSPACE)
    assert values(browser) == ["corgi", "shiba inu", "akita"]
    browser.switch_to.active_element.send_keys(Keys.BACKSPACE, "o")  # the last one, edited
    assert values(browser) == ["corgi", "shiba inu", "akito"]
    browser.switch_to.active_element.send_keys(Keys.HOME, Keys.ARROW_LEFT, "s")
    assert values(browser) == ["corgi", "shiba inus", "akito"]
    remove = browser.find_element(By.CSS_SELECTOR, "[aria-label='Remove corgi']")
    remove.send_keys(Keys.SPACE)
    assert values(browser) == ["shiba inus", "akito"]
    said = browser.find_element(By.CSS_SELECTOR, "[data-spoken]").get_attribute("textContent")
    assert said == "corgi removed. 2 classes."
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    browser.switch_to.active_element.send_keys(Keys.ENTER)  # nothing to add: on to the address
    assert browser.switch_to.active_element.get_attribute("name") == "email"
    browser.switch_to.active_element.send_keys("ada@example.org", Keys.ENTER)
    wait(browser, lambda d: "/r/" in d.current_url)
    names = [each.name for each in ClassifierRequest.objects.get().classes.all()]
    assert names == ["shiba inus", "akito"]


def test_a_pasted_list_makes_chips_up_to_ten_and_says_what_is_left_out(browser, address):
    browser.get(address)
    type_names(browser, "")
    browser.execute_script(PASTE, "corgi, shiba inu; Corgi\nakita\r\n")
    assert values(browser) == ["corgi", "shiba inu", "akita", ""]
    browser.execute_script(PASTE, "a1,a2,a3,a4,a5,a6,a7,a8,a9")
    assert len(values(browser)) == 10 and values(browser)[-1] == "a7"
    hint = browser.find_element(By.CSS_SELECTOR, "[data-hint]").text
    assert hint == "At most 10 classes, please; these are 12. Left out: a8, a9."


def test_what_the_server_would_say_is_said_while_typing(browser, address):
    browser.get(address)
    type_names(browser, f"cat{Keys.ENTER}Cat")
    wait(browser, lambda d: complaints(d) == ["Classes 1 and 2 have the same name."])
    assert browser.switch_to.active_element.get_attribute("aria-invalid") == "true"
    browser.switch_to.active_element.send_keys(Keys.ENTER)  # no third chip while this one is wrong
    assert values(browser) == ["cat", "Cat"]
    browser.switch_to.active_element.send_keys("s")
    assert complaints(browser) == []
    browser.switch_to.active_element.send_keys("x" * 61)
    too_long = "At most 64 characters, please; this has 65."
    wait(browser, lambda d: complaints(d) == [too_long])
    browser.find_element(By.NAME, "email").send_keys("ada@example.org", Keys.ENTER)
    wait(browser, lambda d: d.find_elements(By.CSS_SELECTOR, ".note.error, [role=alert]"))
    assert complaints(browser) == [too_long], "the server says the same at the same place"
    browser.get_log("browser")  # the browser reports the 400


def test_a_name_of_several_meanings_gets_better_words_and_loses_them_again(
    browser, address, commons
):
    browser.get(address)
    type_names(browser, f"jaguar{Keys.ENTER}corgi")
    wait(browser, lambda d: d.find_elements(By.CSS_SELECTOR, ".question"))
    question = browser.find_element(By.CSS_SELECTOR, ".question").text.split("\n")
    assert question == ["1", "jaguar can mean:", "animal", "car", "instrument", "Any"]
    press(browser, "animal")
    assert values(browser, "queries") == ["jaguar animal", ""]
    assert "We search for “jaguar animal”." in browser.find_element(By.CLASS_NAME, "question").text
    press(browser, "Undo")
    assert values(browser, "queries") == ["", ""]
    press(browser, "car")
    browser.find_elements(By.NAME, "classes")[0].send_keys("s")
    assert values(browser, "queries") == ["", ""], "chosen for another name"
    browser.find_elements(By.NAME, "classes")[0].send_keys(Keys.BACKSPACE)
    press(browser, "car")
    browser.find_element(By.NAME, "email").send_keys("ada@example.org", Keys.ENTER)
    wait(browser, lambda d: "/r/" in d.current_url)
    rows = [(each.name, each.query) for each in ClassifierRequest.objects.get().classes.all()]
    assert rows == [("jaguar", "jaguar car"), ("corgi", "corgi")]
    asked = set(commons.names_asked)
    assert "jaguar" in asked and asked <= {"jaguar", "corgi", "jaguars"}, "whole names alone"


def test_the_estimate_follows_the_form(browser, address):
    WorkerBeat.objects.create(cluster="collect-1", queue="collect")
    browser.get(address)
    shown = browser.find_element(By.ID, "estimate")
    assert shown.text == "The first request here: usually 3 to 15 minutes."
    WorkerBeat.objects.all().delete()
    type_names(browser, "cat,dog,owl")
    wait(browser, lambda d: shown.text.startswith("No worker is running at the moment."))


def test_the_way_back_keeps_what_was_typed(browser, address):
    browser.get(address)
    type_names(browser, "cat,dog,owl,bee")
    browser.find_element(By.CSS_SELECTOR, "details.options > summary").click()
    browser.find_elements(By.NAME, "queries")[2].send_keys("owl bird")
    browser.get(f"{address}/robots.txt")
    browser.back()
    wait(browser, lambda d: values(d)[:4] == ["cat", "dog", "owl", "bee"])
    assert values(browser, "queries")[2] == "owl bird"


def test_the_form_has_no_barriers_and_fits_a_phone_in_light_and_dark(
    browser, address, commons, tmp_path
):
    for width, scheme in product((1440, 390), ("light", "dark")):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get(
            f"{address}/?classes=jaguar&classes=leopard&classes=a very long name of a class"
        )
        fill(browser, "", "", "", "")
        wait(browser, lambda d: d.find_elements(By.CSS_SELECTOR, ".question"))
        browser.find_elements(By.NAME, "classes")[1].send_keys(Keys.ENTER)
        browser.switch_to.active_element.send_keys("Leopard")
        wait(browser, lambda d: complaints(d) == ["Classes 2 and 4 have the same name."])
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert barriers(browser) == [], (width, scheme)
        browser.save_screenshot(str(tmp_path / f"form-{width}-{scheme}.png"))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_what_was_uploaded_survives_another_mistake_in_the_form(browser, address, tmp_path):
    file = tmp_path / "pets.zip"
    file.write_bytes(pets(3, ("corgi", "shiba inu")).read())
    browser.get(address)
    browser.find_element(By.CSS_SELECTOR, "form details.options > summary").click()
    browser.find_element(By.NAME, "own_pictures").send_keys(str(file))
    browser.find_element(By.NAME, "own_as_test").click()
    browser.find_element(By.NAME, "email").send_keys("nobody")
    press(browser, "Make my classifier")
    wait(browser, lambda d: d.find_elements(By.ID, "errors"))
    browser.get_log("browser")  # the answer is a 400, and meant to be
    assert [value for value in values(browser) if value] == ["corgi", "shiba inu"]
    held = browser.find_element(By.CSS_SELECTOR, ".held")
    assert held.is_displayed() and "pets.zip is held here" in held.text
    assert browser.find_element(By.NAME, "own_as_test").is_selected()
    for width in (390, 1280):
        browser.set_window_size(width, 1000)
        assert barriers(browser) == []
    email = browser.find_element(By.NAME, "email")
    email.clear()
    email.send_keys("ada@example.org", Keys.ENTER)
    wait(browser, lambda d: "/r/" in d.current_url)
    supplied = ClassifierRequest.objects.get().supplied
    assert (supplied["pictures"], supplied["as_test"]) == (6, True)
