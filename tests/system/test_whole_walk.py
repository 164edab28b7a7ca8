"""The product as a person meets it, page after page, in a real Chromium."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from benchmarks.first_model import SlowSite
from benchmarks.photographs import photographs
from requests_app.demo.visitor import Visitor
from tests.system.site import Site, links, text_of, told_by_logs
from tests.system.test_survival import missing
from tests.web.test_browser import heading, open_browser, press, wait
from tests.web.test_gallery_in_browser import tell
from tests.web.test_try_browser import answered, give, switch_to_device

pytestmark = [
    pytest.mark.system,
    pytest.mark.browser,
    pytest.mark.timeout(480),
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}"),
]

PICTURES = 60  # of each class; there are fewer plants
PICTURES_A_SECOND = 2.5
FOLDERS = {
    "animal/jaguar": ["animals/mammals"],
    "sign/jaguar": ["symbols/alphabets/asl"],
    "plant": ["plants"],
}
READY = "Your classifier is ready"


@pytest.fixture
def site(tmp_path: Path, smtpd) -> Iterator[Site]:
    """A site whose source knows two things as “jaguar”, and gives its pictures slowly."""
    for name, folders in FOLDERS.items():
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for file in photographs(folders):
            (folder / f"{file.parent.name}-{file.name}").symlink_to(file)
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", smtpd.port, pictures=tmp_path / "pictures")
    site.settings["PICAISSO_FIRST_MODEL"] = "1"
    try:
        site.start_gallery()
        with SlowSite(site.gallery_url, PICTURES_A_SECOND) as slow:
            Thread(target=slow.serve_forever, daemon=True).start()
            site.gallery_url = slow.url
            site.start()
            yield site
            slow.shutdown()
    finally:
        site.end()


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    driver = open_browser(scripts=True)
    driver.set_window_size(1280, 1000)
    yield driver
    driver.quit()


def main(driver: webdriver.Chrome) -> str:
    return driver.find_element(By.TAG_NAME, "main").text


def wait_for(site: Site, driver: webdriver.Chrome, what: str, condition, seconds: float) -> None:
    try:
        wait(driver, condition, seconds)
    except TimeoutException:
        raise AssertionError(f"no {what}:\n{main(driver)}\n{site.tail()}") from None


def submit(site: Site, driver: webdriver.Chrome, smtpd) -> str:
    """Fill the form, confirm by the link of the mail, and return the address of the request."""
    driver.get(site.url)
    for name in ("jaguar", "plant"):
        fields = driver.find_elements(By.NAME, "classes")
        empty = next(each for each in fields if not each.get_attribute("value"))
        empty.send_keys(name, Keys.ENTER)
    driver.find_element(By.CSS_SELECTOR, "form details > summary").click()
    count = driver.find_element(By.NAME, "images_per_class")
    count.clear()
    count.send_keys(str(PICTURES))
    driver.find_element(By.NAME, "email").send_keys("ada@example.org")
    press(driver, "Make my classifier")
    wait(driver, lambda d: heading(d) == "Check your inbox")
    address = driver.current_url
    site.wait("the confirmation mail", lambda: bool(links(smtpd.messages)), 30)
    driver.get(links(smtpd.messages)[0])
    press(driver, "Yes, start")
    wait(driver, lambda d: d.current_url == address)
    return address


def correct(site: Site, driver: webdriver.Chrome, address: str) -> None:
    """Remove three pictures by keys, undo one, and train again."""
    driver.get(f"{address}images/")
    tell(driver, "j", "x", "x", "x", "u")
    assert "removed" in driver.find_element(By.ID, "pending").text
    driver.get(f"{address}versions/")
    press(driver, "Train again")
    wait(driver, lambda d: d.current_url == address)
    wait_for(site, driver, "second version", lambda d: heading(d) == READY, 150)
    driver.get(f"{address}versions/")
    assert re.search(r"On the \d+ test pictures that both versions have", main(driver))


def try_it(site: Site, driver: webdriver.Chrome, address: str, picture: Path) -> None:
    """Try a picture by upload, by its address and in the browser, and say what it shows."""
    driver.get(f"{address}try/")
    (by_upload,) = give(driver, [picture])
    field = driver.find_element(By.ID, "id_url")
    field.send_keys(f"{site.gallery_url}/pictures/plant/{picture.name}", Keys.ENTER)
    wait(driver, lambda d: len(answered(d)) == 2, 30)
    by_address = answered(driver)[0]
    switch_to_device(driver)
    by_browser = give(driver, [picture])[0]
    shares = [shares_of(each) for each in (by_upload, by_address, by_browser)]
    assert np.abs(np.subtract(shares[0], shares[1])).max() < 1e-3
    assert np.abs(np.subtract(shares[0], shares[2])).max() < 1e-3
    driver.find_element(By.CSS_SELECTOR, ".correct summary").click()
    driver.find_elements(By.CSS_SELECTOR, ".correct form button")[1].click()
    said = (By.CSS_SELECTOR, ".correct-said")
    wait(driver, lambda d: d.find_element(*said).text)
    assert "plant" in driver.find_element(*said).text


def shares_of(answer: dict) -> list[float]:
    by_name = {bar["name"]: bar["share"] for bar in answer["bars"]}
    return [by_name["jaguar"], by_name["plant"]]


def share_and_revoke(driver: webdriver.Chrome, address: str) -> None:
    driver.get(f"{address}share/")
    press(driver, "Make a link for others")
    wait(driver, lambda d: d.find_elements(By.ID, "share-link"))
    link = driver.find_element(By.ID, "share-link").get_attribute("value")
    driver.get(link)
    assert "How good it is" in main(driver)
    driver.get(f"{address}share/")
    press(driver, "Revoke the link")
    wait(driver, lambda d: not d.find_elements(By.ID, "share-link"))
    driver.get(link)
    assert heading(driver) == "Page not found"


def download(address: str, folder: Path) -> None:
    for kind, file in (("dataset", "classes.json"), ("model", "model.onnx")):
        target = folder / f"{kind}.zip"
        Visitor(address).download(f"download/{kind}/", target)
        assert any(name.endswith(file) for name in zipfile.ZipFile(target).namelist())


def test_a_person_walks_through_all_pages(site, browser, smtpd, tmp_path):
    address = submit(site, browser, smtpd)
    first = (By.ID, "first-model")
    wait_for(site, browser, "first model", lambda d: d.find_element(*first).is_displayed(), 90)
    asked = (By.CSS_SELECTOR, ".meaning h2")
    wait_for(site, browser, "question", lambda d: d.find_element(*asked).is_displayed(), 120)
    assert browser.find_element(*asked).text == "“jaguar”: which do you mean?"
    browser.find_elements(By.CSS_SELECTOR, "label.strip")[0].click()
    press(browser, "Keep only the chosen")
    wait(browser, lambda d: "of “jaguar” removed" in main(d))
    wait_for(site, browser, "first version", lambda d: heading(d) == READY, 150)
    correct(site, browser, address)
    picture = next((tmp_path / "pictures" / "plant").iterdir())
    try_it(site, browser, address, picture)
    share_and_revoke(browser, address)
    download(address, tmp_path)
    token = address.split("/")[4]
    for wrong in (f"{address}images/999999.jpg", f"{address}nothing/"):
        browser.get(wrong)
        assert heading(browser) == "Page not found"
    browser.get(f"{address}delete/")
    press(browser, "Delete everything")
    wait(browser, lambda d: d.current_url == f"{site.url}/")
    browser.get(address)
    assert heading(browser) == "This request is gone"
    subjects = [mail["Subject"] for mail in smtpd.messages]
    assert len(subjects) == 3, subjects  # the confirmation, and one for each version
    assert all("ada@example.org" in mail["To"] for mail in smtpd.messages)
    assert text_of(smtpd.messages[1])
    assert token not in "".join(subjects)
    assert told_by_logs(site.folder, token, "ada@example.org") == []
    key = (site.folder / "data" / "secret_key").read_text().strip()
    assert [mail for mail in smtpd.messages if key in mail.as_string()] == []
