"""Two things under one word, from the gallery site to the question and a better search, in a real
Chromium.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from selenium.webdriver.common.by import By

from benchmarks.photographs import photographs
from requests_app import curation, lifecycle, pipeline, versions
from requests_app.models import ClassifierRequest, ImageUrl, Status, WorkerBeat
from scraping.gallery import GalleryServer
from tests.pipeline.stages import drain
from tests.web.accessibility import barriers
from tests.web.conftest import delivered
from tests.web.test_browser import (
    address,
    browser,
    chromium,
    heading,
    press,
    pytestmark,
    wait,
)
from tests.web.test_meanings import group_pictures
from training.meanings import MEANINGS_FILE, read_meanings

__all__ = ["address", "browser", "chromium", "pytestmark"]

PICTURES = 34  # of each class
FOLDERS = {
    "animal/jaguar": ["animals/mammals"],
    "sign/jaguar": ["symbols/alphabets/asl"],
    "plant": ["plants"],
}


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[GalleryServer]:
    """A search site that knows two things as “jaguar”: mammals, and signs of a hand."""
    for name, folders in FOLDERS.items():
        folder = tmp_path / "gallery" / name
        folder.mkdir(parents=True)
        for file in photographs(folders):
            (folder / f"{file.parent.name}-{file.name}").symlink_to(file)
    with GalleryServer(tmp_path / "gallery") as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def classifier(gallery, address, settings) -> ClassifierRequest:
    settings.SOURCES = ["bing"]
    settings.SOURCE_URLS = {"bing": gallery.url}
    settings.ALLOWED_PRIVATE_HOSTS = [gallery.url.removeprefix("http://")]
    settings.MIN_SIDE = 64
    settings.CONFIRM_EMAIL = False
    settings.FIRST_MODEL = False
    settings.DEVICE = "cpu"
    return pipeline.submit(
        pipeline.Submission(
            classes=(("jaguar", ""), ("plant", "")),
            email="ada@example.org",
            images_per_class=PICTURES,
            backbone="efficientnet_lite0",
        )
    )


def things(classifier: ClassifierRequest, state: str) -> Counter[str]:
    """What the pictures of jaguars in this state really are."""
    images = ImageUrl.objects.of_request(classifier).filter(image_class__number=1, state=state)
    return Counter(image.image_url.split("/")[4] for image in images)


def look_at_the_pictures(classifier: ClassifierRequest) -> None:
    """Train until the pictures are in groups, as a worker does, and stop there."""
    version = versions.latest_version(classifier)
    versions.write_run_folder(version)
    command = [sys.executable, "-m", "training", "fit", str(version.folder), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as training:
        while training.poll() is None and not (version.folder / MEANINGS_FILE).exists():
            time.sleep(0.1)
        training.kill()
    jaguar, plant = read_meanings(version.folder)
    assert (jaguar.clear, plant.clear) == (True, False)


@pytest.mark.timeout(600)
def test_one_meaning_is_kept_while_it_trains_and_more_is_found_with_better_words(
    browser, classifier
):
    drain("collect")
    found = things(classifier, "kept")
    assert found.total() == PICTURES and min(found["animal"], found["sign"]) >= 8
    look_at_the_pictures(classifier)

    browser.get(classifier.url)
    question = browser.find_element(By.CSS_SELECTOR, ".meaning h2")
    assert question.text == "“jaguar”: which do you mean?"
    strips = browser.find_elements(By.CSS_SELECTOR, "label.strip")
    assert len(strips) == 2
    strips[0].click()
    # A choice outlives the news that come to the page.
    WorkerBeat.objects.create(cluster="train-1", queue="train")
    wait(browser, lambda d: "Yours is next." in d.find_element(By.ID, "progress").text)
    assert browser.find_element(By.NAME, "group").is_selected()
    assert "nothing waits for your answer" in browser.find_element(By.CLASS_NAME, "meaning").text
    assert barriers(browser) == []
    press(browser, "Keep only the chosen")
    wait(browser, lambda d: "of “jaguar” removed" in d.find_element(By.TAG_NAME, "main").text)
    removed = things(classifier, "removed")
    assert removed["sign"] == found["sign"] and removed["animal"] <= 1

    # The training ends, here by a cancel; then the quota is filled again.
    classifier.refresh_from_db()
    assert lifecycle.cancel(classifier)
    browser.get(f"{classifier.url}images/groups/")
    words = browser.find_element(By.NAME, "words")
    words.clear()
    words.send_keys("jaguar animal")
    press(browser, "Search and train again")
    wait(browser, lambda d: heading(d) == "Waiting in the queue")
    drain("collect")
    assert things(classifier, "kept") == {"animal": PICTURES}
    assert things(classifier, "removed") == removed
    classifier.refresh_from_db()
    assert (classifier.status, classifier.versions.count()) == (Status.RUNNING, 2)
    assert classifier.classes.first().query == "jaguar animal"
    assert curation.undo(classifier) is not None
    assert things(classifier, "kept").total() == PICTURES + removed.total()


def test_the_groups_have_no_barriers(browser, address):
    """On a phone and a large screen, by day and by night, asked and not."""
    classifier = delivered("jaguar", "plant")
    group_pictures(classifier)
    views = [("light", 390, "images/groups/"), ("dark", 1440, "images/groups/"), ("dark", 390, "")]
    views += [("light", 1440, "images/")]
    for clear in (True, False):
        group_pictures(classifier, clear=clear)
        for scheme, width, place in views[: 4 if clear else 2]:
            browser.set_window_size(width, 900)
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
            browser.get(classifier.url + place)
            assert barriers(browser) == [], (clear, scheme, width, place)
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= browser.execute_script("return innerWidth"), (clear, width, place)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_words_follow_the_choice_until_somebody_writes_their_own(browser, address):
    classifier = delivered("jaguar", "plant")
    group_pictures(classifier)
    browser.get(f"{classifier.url}images/groups/")
    cats, cars = browser.find_elements(By.CSS_SELECTOR, "label.strip")
    words = browser.find_element(By.NAME, "words")
    seen = []
    for strip in (cats, cars, cats):
        strip.click()
        seen.append(words.get_property("value"))
    assert seen == ["jaguar cat", "jaguar", "jaguar car"]
    words.send_keys("s")
    cars.click()
    cats.click()
    assert words.get_property("value") == "jaguar cars"
