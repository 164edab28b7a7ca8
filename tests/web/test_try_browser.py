"""The try page and the report in a real Chromium."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By

from requests_app import prediction
from tests.web.delivered_model import (
    NAMES,
    deliver_model,  # noqa: F401
    export_model,  # noqa: F401
    write_pictures,
)
from tests.web.test_browser import (
    address,  # noqa: F401
    browser,  # noqa: F401
    chromium,  # noqa: F401
    heading,
    open_browser,
    pytestmark,  # noqa: F401
    wait,
)

# Drops a small drawn picture on the page, or pastes it.
GIVE = """
const [kind] = arguments;
const canvas = document.createElement('canvas');
canvas.width = canvas.height = 64;
canvas.getContext('2d').fillRect(8, 8, 30, 30);
canvas.toBlob((blob) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([blob], `${kind}.png`, { type: 'image/png' }));
  const options = { bubbles: true, cancelable: true };
  if (kind === 'paste') {
    document.body.dispatchEvent(new ClipboardEvent(kind, { ...options, clipboardData: transfer }));
  } else {
    document.body.dispatchEvent(new DragEvent(kind, { ...options, dataTransfer: transfer }));
  }
});
"""


@pytest.fixture
def page(address, with_model, browser):  # noqa: F811
    """The try page of a delivered request."""
    browser.get(f"{with_model.url}try/")
    wait(browser, lambda d: d.find_element(By.ID, "device").is_displayed())
    return browser


def answered(driver) -> list[dict]:
    """The answers on the page, in its order."""
    cards = driver.find_elements(By.CSS_SELECTOR, ".answer[data-result]")
    found = []
    for card in cards:
        result = json.loads(card.get_attribute("data-result"))
        name = card.find_element(By.CSS_SELECTOR, ".from").text
        found.append({**result, "name": name, "title": card.find_element(By.TAG_NAME, "h2").text})
    return found


def give(driver, files: list[Path]) -> list[dict]:
    """Choose files, and return their answers."""
    before = len(answered(driver))
    driver.find_element(By.ID, "id_pictures").send_keys("\n".join(map(str, files)))
    wait(driver, lambda d: len(answered(d)) == before + len(files), seconds=60)
    return answered(driver)[: len(files)]


def switch_to_device(driver) -> None:
    driver.find_element(By.ID, "on_device").click()
    state = "return document.getElementById('device').dataset.state"
    wait(driver, lambda d: d.execute_script(state) in ("ready", "broken"), seconds=60)
    assert driver.execute_script(state) == "ready"


def shares(answer: dict) -> list[float]:
    by_name = {bar["name"]: bar["share"] for bar in answer["bars"]}
    return [by_name[name] for name in NAMES]


def posts(driver) -> int:
    """How often the page has sent something."""
    sent = "return performance.getEntriesByType('resource').filter(e => e.initiatorType === 'fetch'"
    return driver.execute_script(f"{sent} && e.name.endsWith('/try/')).length")


def test_several_files_are_answered_one_by_one_and_a_bad_one_loses_no_other(page, tmp_path):
    files = write_pictures(tmp_path / "given")[:3]
    bad = tmp_path / "letter.png"
    bad.write_text("Dear Ada")
    found = give(page, [files[0], bad, files[1], files[2]])
    assert [answer["name"] for answer in found] == [
        files[0].name,
        "letter.png",
        files[1].name,
        files[2].name,
    ]
    assert [len(answer.get("bars") or []) for answer in found] == [3, 0, 3, 3]
    problem = page.find_elements(By.CSS_SELECTOR, ".refused [data-field=problem]")
    assert [part.text for part in problem] == [
        "This file cannot be used: not a picture that can be read."
    ]


def test_the_map_is_shown_by_its_switch(page, tmp_path):
    give(page, write_pictures(tmp_path / "given")[:1])
    shown = "return getComputedStyle(document.querySelector('.view-map')).visibility"
    assert page.execute_script(shown) == "hidden"
    page.find_element(By.CSS_SELECTOR, ".looked input").click()
    assert page.execute_script(shown) == "visible"
    width = "return document.querySelector('.view-map').naturalWidth"
    wait(page, lambda d: d.execute_script(width) > 0)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_taken_by_drop_and_by_paste(page, kind):
    page.execute_script(GIVE, kind)
    wait(page, lambda d: answered(d))
    assert answered(page)[0]["name"] == f"{kind}.png"


def test_a_refused_address_stays_in_its_field_with_the_reason(page):
    field = page.find_element(By.ID, "id_url")
    field.send_keys("http://127.0.0.1/secret.png\n")
    wait(page, lambda d: d.find_element(By.ID, "url_error").is_displayed())
    said = page.find_element(By.ID, "url_error").text
    assert said.startswith("This address could not be fetched.")
    assert field.get_attribute("value") == "http://127.0.0.1/secret.png"
    assert not page.find_elements(By.CSS_SELECTOR, ".answer")


def test_a_form_without_anything_says_what_to_give(page):
    page.find_element(By.CSS_SELECTOR, "#give button").click()
    wait(page, lambda d: d.find_element(By.ID, "url_error").is_displayed())
    said = page.find_element(By.ID, "url_error").text
    assert said == "Choose a picture, or give the web address of one."


def test_the_browser_answers_as_the_server_and_sends_nothing(page, tmp_path):
    files = write_pictures(tmp_path / "given")
    by_server = give(page, files)
    switch_to_device(page)
    sent = posts(page)
    by_browser = give(page, files)
    assert posts(page) == sent
    for one, other in zip(by_server, by_browser, strict=True):
        difference = np.abs(np.subtract(shares(one), shares(other))).max()
        assert difference < 1e-3, one["name"]
        assert abs(one["novelty"] - other["novelty"]) < 1e-3
        assert (one["title"], one["known"]) == (other["title"], other["known"])
    assert not page.find_element(By.ID, "id_url").is_enabled()


def test_the_browsers_map_is_the_servers(page, tmp_path):
    file = tmp_path / "picture.png"
    Image.open(write_pictures(tmp_path / "given")[3]).save(file)
    give(page, [file])
    switch_to_device(page)
    give(page, [file])
    draw = """
        const done = arguments[0];
        const maps = [...document.querySelectorAll('.view-map')];
        Promise.all(maps.map((map) => map.decode())).then(() => done(maps.map((map) => {
          const canvas = document.createElement('canvas');
          canvas.width = 64;
          canvas.height = 40;
          const brush = canvas.getContext('2d');
          brush.drawImage(map, 0, 0, 64, 40);
          return [...brush.getImageData(0, 0, 64, 40).data];
        })));
    """
    one, other = page.execute_async_script(draw)
    assert np.abs(np.subtract(one, other)).mean() < 2  # of 255


def test_what_is_given_while_the_model_loads_is_not_sent(page, tmp_path):
    file = write_pictures(tmp_path / "given")[0]
    page.find_element(By.ID, "on_device").click()
    give(page, [file])
    assert posts(page) == 0


def test_a_model_that_cannot_be_loaded_says_so_and_sends_nothing(page, with_model, tmp_path):
    prediction.model_file(with_model.versions.get()).write_bytes(b"torn")
    page.find_element(By.ID, "on_device").click()
    wait(page, lambda d: d.find_element(By.ID, "device_error").is_displayed(), seconds=30)
    give(page, write_pictures(tmp_path / "given")[:1])
    assert "could not be loaded" in page.find_element(By.CSS_SELECTOR, ".refused .complaint").text
    assert posts(page) == 0
    assert page.get_log("browser")  # the browser reports the failure


def test_without_scripts_the_form_is_sent_whole(address, with_model, tmp_path):  # noqa: F811
    driver = open_browser(scripts=False)
    try:
        driver.get(f"{with_model.url}try/")
        assert heading(driver).startswith("Which is it: mammal, plant or ")
        assert not driver.find_element(By.ID, "device").is_displayed()
        files = write_pictures(tmp_path / "given")[:2]
        driver.find_element(By.ID, "id_pictures").send_keys("\n".join(map(str, files)))
        driver.find_element(By.CSS_SELECTOR, "#give button").click()
        wait(driver, lambda d: len(d.find_elements(By.CSS_SELECTOR, "#answers .answer")) == 2)
        driver.find_element(By.CSS_SELECTOR, ".looked input").click()
        assert driver.find_element(By.CSS_SELECTOR, ".view-map").is_displayed()
    finally:
        driver.quit()


def test_the_report_runs_no_script_and_keeps_its_styles(address, with_model, chromium):  # noqa: F811
    chromium.get(f"{with_model.url}report/")
    assert chromium.title == "Report"
    colour = "return getComputedStyle(document.getElementById('text')).color"
    assert chromium.execute_script(colour) == "rgb(1, 2, 3)"
    chromium.get_log("browser")


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_of_the_try_page_is_wider_than_the_screen(page, tmp_path, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.refresh()
        wait(page, lambda d: d.find_element(By.ID, "device").is_displayed())
        give(page, write_pictures(tmp_path / "given")[-1:])
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
