"""“Wrong? Say what it shows”: who may add pictures of their own, how, and who never sees them."""

import base64
import csv
import io
import json
import random

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image
from selenium.webdriver.common.by import By

from requests_app import curation, lifecycle, sharing, takedowns, versions
from requests_app.delivery import dataset_zip
from requests_app.delivery.contents import DatasetImage
from requests_app.models import OWN_SOURCE, Decision, ImageUrl
from tests.pipeline.stages import TopFolder
from tests.web.accessibility import barriers
from tests.web.conftest import STRANGER, post, running, words
from tests.web.delivered_model import (
    deliver_model,  # noqa: F401
    export_model,  # noqa: F401
)
from tests.web.test_browser import (
    address,  # noqa: F401
    browser,  # noqa: F401
    chromium,  # noqa: F401
    open_browser,
    wait,
)
from tests.web.test_browser import (
    pytestmark as in_browser,
)
from tests.web.test_try import host  # noqa: F401


def photograph(
    seed: int = 1, size: tuple[int, int] = (320, 240), kind: str = "JPEG", **how
) -> bytes:
    """A picture unlike those of other seeds, and unlike every one of the data set."""
    blocks = Image.frombytes("RGB", (8, 6), random.Random(seed).randbytes(144))
    file = io.BytesIO()
    blocks.resize(size, Image.Resampling.BICUBIC).save(file, kind, **how)
    return file.getvalue()


def upload(content: bytes, name: str = "mine.jpg") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content, content_type="image/jpeg")


def correct(client, classifier, **fields) -> dict:
    """What the page's script gets."""
    path = f"{classifier.get_absolute_url()}try/correct/"
    data = {**fields, "csrfmiddlewaretoken": client.cookies["csrftoken"].value}
    response = client.post(path, data, headers={"Accept": "application/json"})
    assert response.status_code == 200
    return json.loads(response.content)


def seen(client, path: str) -> str:
    return words(client.get(path).content.decode())


def own() -> list[ImageUrl]:
    return list(ImageUrl.objects.filter(source=OWN_SOURCE).order_by("pk"))


# --- who may ---


def test_the_holder_and_staff_with_the_link_add_pictures_and_each_is_named(holder, with_model):
    assert correct(holder, with_model, number=1, picture=upload(photograph(1)))["is_done"]
    holder.force_login(User.objects.create_superuser("eva"))
    holder.get("/")
    assert correct(holder, with_model, number=2, picture=upload(photograph(2)))["is_done"]
    actors = Decision.objects.values_list("action", "actor", "value")
    assert list(actors) == [("add", "person", "mammal"), ("add", "eva", "plant")]


@pytest.mark.parametrize("kind", ["stranger", "shared", "shared below r", "foreign", "gone"])
def test_nobody_else_adds_anything(holder, with_model, kind):
    assert sharing.switch_on(with_model, "person")
    own_place = with_model.get_absolute_url()
    places = {
        "stranger": (f"/r/{STRANGER}/", 404),
        "shared": (f"/s/{with_model.share_token}/", 404),
        "shared below r": (f"/r/{with_model.share_token}/", 404),
        "foreign": (own_place, 403),
        "gone": (own_place, 410),
    }
    place, status = places[kind]
    if kind == "gone":
        lifecycle.delete(with_model)
    fields = {"number": 1, "picture": upload(photograph())}
    if kind == "foreign":
        response = holder.post(f"{place}try/correct/", fields)
    else:
        response = post(holder, f"{place}try/correct/", **fields)
    assert (response.status_code, own()) == (status, [])


def test_the_page_for_others_has_no_such_control_and_shows_none_of_them(holder, with_model):
    correct(holder, with_model, number=1, picture=upload(photograph(1)))
    (image,) = own()
    versions.kept_images(with_model).exclude(pk=image.pk).update(license="by")
    assert sharing.switch_on(with_model, "person")
    place = f"/s/{with_model.share_token}/"
    picture = upload(photograph(1))
    for response in (holder.get(f"{place}try/"), post(holder, f"{place}try/", pictures=picture)):
        assert "Say what it shows" not in response.content.decode()
    assert holder.get(f"{place}images/{image.pk}.jpg").status_code == 404
    assert "added by whoever" not in holder.get(f"{place}credits/").content.decode()
    assert str(image.pk) not in {str(shown.pk) for shown in sharing.open_images(with_model)}


# --- what becomes of a picture ---


def test_an_added_picture_is_cleaned_learned_from_and_never_tested_on(holder, with_model):
    turned = Image.Exif()
    turned[0x0112] = 6
    turned[0x010F] = "Secret Camera"
    content = photograph(1, (1600, 900), exif=turned)
    said = correct(holder, with_model, number=2, picture=upload(content, "IMG_0001.jpg"))
    assert said["sentence"] == "Added as “plant”. It counts when you train again."
    (image,) = own()
    assert (image.split, image.license, image.image_url) == ("train", "your own", "")
    assert (image.width, image.height) == (576, 1024)
    stored = with_model.folder / "collect" / image.file
    assert b"Secret" not in stored.read_bytes() and "IMG_0001" not in str(vars(image))
    assert versions.changes(with_model).added >= 1
    gallery = seen(holder, f"{with_model.get_absolute_url()}images/?source=own")
    assert "You: 1 picture of your own added to “plant”" in gallery
    for part in (f"images/{image.pk}.jpg", f"images/{image.pk}/picture/"):
        assert holder.get(with_model.get_absolute_url() + part).status_code == 200
    panel = seen(holder, f"{with_model.get_absolute_url()}images/{image.pk}/")
    assert "Their own picture, added by whoever made this dataset." in panel
    label = with_model.classes.get(number=2)
    entry = DatasetImage(image, label, "train", 0)
    made = dataset_zip.build_dataset(
        versions.latest_version(with_model), [entry], stored.parent / "d"
    )
    with TopFolder(made.path) as archive:
        (row,) = csv.DictReader(io.StringIO(archive.read_below("images.csv").decode()))
    assert (row["source"], row["license"], row["class"]) == ("own", "your own", "plant")


def test_a_picture_of_the_web_is_fetched_again_and_keeps_its_address(holder, with_model, host):  # noqa: F811
    assert correct(holder, with_model, number=1, url=f"{host}/good.png")["is_done"]
    (image,) = own()
    assert (image.image_url, image.license) == (f"{host}/good.png", "")
    private = correct(holder, with_model, number=1, url="http://169.254.169.254/a.png")
    assert private["sentence"].startswith("This address could not be fetched.")
    takedowns.take_down(url=f"{host}/good.png")
    assert ImageUrl.objects.get(pk=image.pk).state == "rejected"
    again = correct(holder, with_model, number=2, url=f"{host}/good.png")
    assert "does not accept" in again["sentence"]


def test_a_picture_taken_back_is_gone_with_its_file_and_stays_in_the_history(holder, with_model):
    first = correct(holder, with_model, number=1, picture=upload(photograph(1)))
    correct(holder, with_model, number=1, picture=upload(photograph(2)))
    files = [with_model.folder / "collect" / image.file for image in own()]
    taken = correct(holder, with_model, take_back=first["take_back"])
    assert taken["is_done"] and [file.exists() for file in files] == [False, True]
    assert not correct(holder, with_model, take_back=first["take_back"])["is_done"]
    curation.undo(with_model)
    assert (own(), files[1].exists(), curation.undo(with_model)) == ([], False, None)
    assert Decision.objects.exclude(undone=None).count() == 2


REFUSED = {
    "letter": (b"Dear Ada", "not a picture that can be read"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC pictures cannot be read here"),
    "small": (photograph(3, (320, 90)), "its shorter side needs 200 pixels"),
    "long": (photograph(3, (2000, 300)), "more than five times as long"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_added_says_why(holder, with_model, kind):
    content, sentence = REFUSED[kind]
    said = correct(holder, with_model, number=1, picture=upload(content))
    assert not said["is_done"] and sentence in said["sentence"] and own() == []


def test_a_class_that_is_none_and_a_picture_that_is_there_already_are_refused(holder, with_model):
    for number in (0, 9, "x", ""):
        said = correct(holder, with_model, number=number, picture=upload(photograph(1)))
        assert said["sentence"] == "Choose what the picture shows."
    assert "no picture" in correct(holder, with_model, number=1)["sentence"]
    assert correct(holder, with_model, number=1, picture=upload(photograph(1)))["is_done"]
    twice = correct(holder, with_model, number=2, picture=upload(photograph(1)))
    assert "in the dataset already, as “mammal”" in twice["sentence"]
    taken = ImageUrl.objects.get(source=OWN_SOURCE)
    takedowns.take_down(sha256=taken.sha256)
    again = correct(holder, with_model, number=2, picture=upload(photograph(1)))
    assert "does not accept" in again["sentence"]


def test_a_copy_of_a_test_picture_is_never_learned_from(holder, with_model):
    tested = ImageUrl.objects.filter(image_class__request=with_model).first()
    file = with_model.folder / "collect" / tested.file
    file.write_bytes(photograph(7, (800, 600)))
    ImageUrl.objects.filter(pk=tested.pk).update(split="test")
    said = correct(holder, with_model, number=1, picture=upload(photograph(7, (500, 375), "PNG")))
    assert said["sentence"].startswith("This is a copy of a test picture.")
    assert own() == []


def test_nothing_is_added_before_the_first_version(holder):
    classifier = running()
    said = correct(holder, classifier, number=1, picture=upload(photograph()))
    assert said["sentence"] == "Pictures can be added when the first version is there."


def test_reworded_classes_keep_what_a_person_added_and_what_a_version_holds(holder, with_model):
    correct(holder, with_model, number=1, picture=upload(photograph(1)))
    of_class = ImageUrl.objects.filter(image_class__number=1)
    before = [image.source for image in of_class]
    assert lifecycle._reword(with_model, 1, "other words")
    assert [image.source for image in of_class.all()] == before and "own" in before
    with_model.versions.all().delete()
    assert lifecycle._reword(with_model, 1, "yet other words")
    assert [image.source for image in of_class.all()] == ["own"]


# --- in the browser ---


@pytest.mark.usefixtures("address")
class TestInTheBrowser:
    pytestmark = in_browser

    def test_a_wrong_answer_is_corrected_and_taken_back(self, browser, with_model, tmp_path):  # noqa: F811
        file = tmp_path / "mine.png"
        file.write_bytes(photograph(5, (640, 480), "PNG"))
        browser.get(f"{with_model.url}try/")
        browser.find_element(By.ID, "id_pictures").send_keys(str(file))
        wait(browser, lambda d: d.find_elements(By.CSS_SELECTOR, ".answer[data-result]"))
        assert own() == []  # nothing is kept before the click
        browser.find_element(By.CSS_SELECTOR, ".correct summary").click()
        assert barriers(browser) == []
        browser.find_elements(By.CSS_SELECTOR, ".correct form button")[1].click()
        said = (By.CSS_SELECTOR, ".correct-said")
        wait(browser, lambda d: d.find_element(*said).text.startswith("Added as “plant”."))
        (image,) = own()
        assert (image.width, image.height) == (640, 480)  # the file, not what was shown of it
        browser.find_element(By.CSS_SELECTOR, ".correct-after button").click()
        wait(browser, lambda d: d.find_element(*said).text.startswith("Taken back"))
        assert own() == []

    def test_without_scripts_the_shown_picture_is_sent(self, with_model, tmp_path):
        file = tmp_path / "mine.png"
        file.write_bytes(photograph(5, (640, 480), "PNG"))
        driver = open_browser(scripts=False)
        try:
            driver.get(f"{with_model.url}try/")
            driver.find_element(By.ID, "id_pictures").send_keys(str(file))
            driver.find_element(By.CSS_SELECTOR, "#give > button").click()
            summary = (By.CSS_SELECTOR, ".correct summary")
            wait(driver, lambda d: d.find_element(*summary).click() or True)
            driver.find_elements(By.CSS_SELECTOR, ".correct form button")[1].click()
            note = (By.CSS_SELECTOR, ".note.success")
            wait(driver, lambda d: "Added as “plant”." in d.find_element(*note).text)
        finally:
            driver.quit()
        assert len(own()) == 1


def test_the_form_without_scripts_takes_only_pictures(holder, with_model):
    for shown in ("data:image/jpeg;base64,%%%", "data:text/html;base64,PGI+", "x"):
        assert not correct(holder, with_model, number=1, shown=shown)["is_done"]
    shown = base64.b64encode(photograph(1)).decode()
    response = post(
        holder,
        f"{with_model.get_absolute_url()}try/correct/",
        number=1,
        shown=f"data:image/jpeg;base64,{shown}",
    )
    assert response.status_code == 303 and len(own()) == 1
