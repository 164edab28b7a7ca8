"""No page has serious barriers or is wider than the screen, on a phone and on a desk, light and
dark.
"""

from datetime import UTC, datetime

import pytest
from selenium.webdriver.common.by import By

from requests_app.models import ClassifierRequest, TrainingRun
from tests.web.accessibility import barriers, show_as, show_plainly
from tests.web.conftest import delivered, keep_picture
from tests.web.delivered_model import deliver_model, export_model, write_pictures  # noqa: F401
from tests.web.pages import PAGES, States, second_version
from tests.web.test_browser import address, chromium, pytestmark

__all__ = ["address", "chromium", "pytestmark"]


@pytest.fixture
def states(address, with_model, tmp_path) -> States:
    for image_class in with_model.classes.all():
        for number, split in enumerate(("train", "train", "val", "test", "test"), 10):
            picture = keep_picture(image_class, number)
            picture.split = split
            picture.version_number = image_class.number
            picture.save()
    twice = second_version(delivered("cat", "dog"))
    return States(with_model, twice, (), write_pictures(tmp_path / "given")[0])


def test_no_page_has_barriers_or_is_wider_than_the_screen(chromium, address, states):
    """The phone in the dark and the desk in the light: `python -m tests.web.screenshots`."""
    found = []
    try:
        for page in PAGES:
            page.open(chromium, states, address)
            for width, scheme in ((390, "light"), (1440, "dark")):
                show_as(chromium, width, scheme)
                found += [(page.name, width, scheme, line) for line in barriers(chromium)]
                wide = chromium.execute_script("return document.documentElement.scrollWidth")
                if wide > width:
                    found.append((page.name, width, scheme, f"{wide} px wide"))
    finally:
        show_plainly(chromium)
        chromium.get_log("browser")  # the browser reports the error pages
    assert not found, "\n".join(map(str, found))


def test_times_are_shown_in_the_readers_zone(chromium, address):
    classifier = delivered("cat", "dog")
    moment = datetime(2026, 11, 27, 20, 30, tzinfo=UTC)
    TrainingRun.objects.update(finished=moment)
    ClassifierRequest.objects.update(moved=moment)
    zone = "Emulation.setTimezoneOverride"
    try:
        for name, day, hour in (("Asia/Tokyo", "28", "5:30"), ("America/Lima", "27", "3:30")):
            chromium.execute_cdp_cmd(zone, {"timezoneId": name})
            chromium.get(classifier.url)
            shown = [
                time.get_attribute("textContent")
                for time in chromium.find_elements(By.TAG_NAME, "time")
            ]
            assert any(f"{day}, 2026" in text and hour in text for text in shown), shown
            assert any(f"December {day}, 2026" in text for text in shown), shown
            assert not any("UTC" in text for text in shown)
    finally:
        chromium.execute_cdp_cmd(zone, {"timezoneId": ""})
