"""“On my own pictures”: who may, what is taken, how it is measured, and what is kept how long."""

import io
import stat
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from selenium.webdriver.common.by import By

from requests_app import curation, lifecycle, own_check, prediction, sharing, tasks, versions
from requests_app.models import Decision, ImageUrl, OwnCheck, Status
from scraping.picture_zip import ZipRefusedError, read_zip
from tests.web.accessibility import barriers
from tests.web.conftest import STRANGER, post, words
from tests.web.delivered_model import (
    NAMES,
    deliver_model,  # noqa: F401
    export_model,  # noqa: F401
)
from tests.web.test_browser import (
    address,  # noqa: F401
    browser,  # noqa: F401
    chromium,  # noqa: F401
    wait,
)
from tests.web.test_browser import (
    pytestmark as in_browser,
)
from tests.web.test_correction import photograph, upload
from training import run_folder


@pytest.fixture
def finished(with_model):
    """The request with a whole run folder: its configuration and the pictures of its dataset."""
    version = with_model.versions.get()
    config = versions.run_config(with_model)
    rows = []
    for number, image in enumerate(versions.kept_images(with_model)):
        path = with_model.folder / "collect" / image.file
        path.write_bytes(photograph(5000 + number))
        split = "test" if number % 3 == 0 else "train"
        ImageUrl.objects.filter(pk=image.pk).update(split=split)
        row = run_folder.ImageRow(
            image.file, image.current_class.class_id, f"{number}", split=split
        )
        rows.append(row)
    run_folder.write_run(version.folder, config, rows, with_model.folder / "collect")
    return with_model


def place(classifier) -> str:
    return f"{classifier.get_absolute_url()}own/"


def page(client, classifier) -> str:
    return words(client.get(place(classifier)).content.decode())


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def pictures(first: int, count: int) -> list:
    return [upload(photograph(first + n), f"mine-{first + n}.jpg") for n in range(count)]


# --- who may ---


def test_the_holder_and_staff_with_the_link_give_pictures(holder, finished):
    for who in ("holder", "staff"):
        if who == "staff":
            holder.force_login(User.objects.create_superuser("eva"))
            holder.get("/")
        fields = {"do": "give", "pictures-1": pictures(1, 2)}
        assert post(holder, place(finished), **fields).status_code == 303
    assert own_check.counts(OwnCheck.objects.get())[0] == ("mammal", 4)


@pytest.mark.parametrize("kind", ["stranger", "shared", "shared below r", "foreign", "gone"])
def test_nobody_else_sees_or_gives_any(holder, finished, kind):
    assert sharing.switch_on(finished, "person")
    places = {
        "stranger": (f"/r/{STRANGER}/own/", 404),
        "shared": (f"/s/{finished.share_token}/own/", 404),
        "shared below r": (f"/r/{finished.share_token}/own/", 404),
        "foreign": (place(finished), 403),
        "gone": (place(finished), 410),
    }
    path, status = places[kind]
    if kind == "gone":
        lifecycle.delete(finished)
    fields = {"do": "give", "pictures-1": upload(photograph(1))}
    if kind == "foreign":
        response = holder.post(path, fields)
    else:
        assert holder.get(path).status_code == status
        response = post(holder, path, **fields)
    assert response.status_code == status and not OwnCheck.objects.exists()


# --- what is taken ---


def no_picture(picture) -> None:
    raise AssertionError(f"{picture.name} was taken")


def test_a_zip_is_read_with_care():
    numbers = {"cat": 1, "dog": 2}
    link = zipfile.ZipInfo("set/cat/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO(
        zipped(
            {
                "set/Cat/ä ok.jpg": b"one",
                "dog/a.jpg": b"two",
                "__MACOSX/set/cat/._a.jpg": b"x",
                "set/cat/.DS_Store": b"x",
                "../../cat/evil.jpg": b"x",
                "/cat/evil.jpg": b"x",
                "set\\..\\cat/evil.jpg": b"x",
                "cat/inner.zip": b"x",
                "owl/a.jpg": b"x",
                "a.jpg": b"x",
            }
        )
    )
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("cat/bomb.jpg", bytes(15_000_000))
        archive.writestr("cat/huge.jpg", bytes(21_000_000))
    taken = []
    found = read_zip(file.getvalue(), numbers, taken.append)
    assert [(one.class_number, one.content) for one in taken] == [(1, b"one"), (2, b"two")]
    assert found.taken == 2
    why = [sentence for _name, sentence in found.refused]
    assert sum("leads out of the zip" in sentence for sentence in why) == 3
    for words_of_it in (
        "It is a link", "archive inside", "“owl”", "in no folder", "grows far more", "than 20 MB",
    ):  # fmt: skip
        assert sum(words_of_it in sentence for sentence in why) == 1, words_of_it
    assert len(why) == 9


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 torn", zipped({f"cat/{n}": b"" for n in range(5001)})]
)
def test_a_zip_that_is_none_or_far_too_full_is_refused_whole(content):
    with pytest.raises(ZipRefusedError):
        read_zip(content, {"cat": 1}, no_picture)


def test_a_refused_zip_stands_beside_its_field_and_loses_no_picture(holder, finished):
    fields = {"do": "measure", "pictures-1": pictures(1, 1), "zip": upload(b"Dear Ada", "a.zip")}
    response = post(holder, place(finished), **fields)
    assert (
        'id="own-zip-error">This file is not a zip that can be read.<' in response.content.decode()
    )
    check = OwnCheck.objects.get()
    assert (check.received, check.asked) == (1, None)
    wrong = {"zip": upload(zipped({"owl/a.jpg": photograph(1)}), "a.zip"), "do": "give"}
    said = words(post(holder, place(finished), **wrong).content.decode())
    assert "Make a folder for each class" in said and "No class is called “owl”." in said


def test_what_no_picture_can_be_is_refused_at_once(holder, finished):
    nothing = post(holder, place(finished), do="measure")
    assert "Choose pictures first." in words(nothing.content.decode())
    heic = upload(b"\0\0\0\x18ftypheic" + bytes(40), "IMG_1.HEIC")
    inner = upload(zipped({"a": b"b"}), "b.jpg")
    files = [heic, inner, upload(bytes(20_000_001), "large.jpg")]
    post(holder, place(finished), do="give", **{"pictures-2": files})
    check = OwnCheck.objects.get()
    assert check.received == 0 and [name for name, _why in check.refused] == [
        "IMG_1.HEIC", "b.jpg", "large.jpg",
    ]  # fmt: skip
    assert "HEIC pictures cannot be read here" in page(holder, finished)


# --- measuring, calibrating, training with them ---


def give_all(client, classifier) -> None:
    """Give 12 pictures of two classes, some in a zip, and a few that are of no use."""
    known = classifier.folder / "collect" / ImageUrl.objects.first().file
    inside = {f"set/plant/{n}.jpg": photograph(200 + n) for n in range(12)}
    inside["set/plant/again.jpg"] = photograph(200, (640, 480))
    inside["set/plant/known.jpg"] = known.read_bytes()
    files = [
        *pictures(100, 12),
        upload(b"Dear Ada", "letter.jpg"),
        upload(photograph(1, (90, 90)), "s.jpg"),
    ]
    fields = {"do": "measure", "pictures-1": files, "zip": upload(zipped(inside), "a.zip")}
    assert post(client, place(classifier), **fields).status_code == 303


def test_pictures_are_measured_by_a_worker_and_then_forgotten(holder, finished):
    give_all(holder, finished)
    check = OwnCheck.objects.get()
    assert (check.received, own_check.is_waiting(check)) == (28, True)
    fragment = holder.get(place(finished), headers={"X-Fragment": "1"}).content.decode()
    assert "<progress" in fragment and "<html" not in fragment
    tasks.drain("train")
    check.refresh_from_db()
    assert check.error == "" and not (check.folder / "received").exists()
    figures = check.result["figures"]
    assert [len(check.result["pictures"]), figures["confusion"]["labels"]] == [24, list(NAMES)]
    refused = dict(check.refused)
    copies = {"set/plant/again.jpg", "set/plant/0.jpg"} & refused.keys()  # either is the other's
    assert [refused.pop(name) for name in copies] == ["A copy of another of your pictures."]
    assert refused == {
        "letter.jpg": "This file is not a picture that can be read. Save it as JPEG or PNG.",
        "s.jpg": "This picture is too small: its shorter side needs 200 pixels.",
        "set/plant/known.jpg": "A copy of a picture of the dataset, so it says nothing new.",
    }
    right = sum(row["class_id"] == row["predicted"] for row in check.result["pictures"])
    said = page(holder, finished)
    assert f"% on yours ({right} of 24;" in said and "% on the web" in said
    assert "Fewer than 10" in said  # of the third class there is none

    usable = prediction.usable_model(finished)
    plain = prediction.classify(usable, photograph(100), explained=False)
    post(holder, place(finished), do="calibrate")
    fitted = check.result["calibration"]
    suited = prediction.classify(prediction.calibrated(usable), photograph(100), explained=False)
    assert suited.reject == fitted["reject"] and plain.reject == fitted["model_reject"]
    powers = {name: share ** fitted["sharpness"] for name, share in plain.probabilities.items()}
    whole = sum(powers.values())
    assert suited.probabilities == pytest.approx({n: p / whole for n, p in powers.items()})
    tried = holder.get(f"{finished.get_absolute_url()}try/").content.decode()
    assert f'data-reject="{fitted["reject"]!r}"' in tried and "set by your own pictures" in tried
    sharing.switch_on(finished, "person")
    shared = holder.get(f"/s/{finished.share_token}/try/").content.decode()
    assert f'data-reject="{fitted["model_reject"]!r}"' in shared
    post(holder, place(finished), do="uncalibrate")
    assert prediction.calibrated(usable) == usable

    train_with_them(holder, finished, check)


def train_with_them(client, classifier, check) -> None:
    """One half is added for training alone, the other stays apart and measures the next version."""
    tested = set(ImageUrl.objects.filter(split="test").values_list("pk", flat=True))
    ImageUrl.objects.filter(image_class__number=3).update(state="removed")
    post(client, place(classifier), do="train")
    own = ImageUrl.objects.filter(source="own")
    assert {(image.split, image.state) for image in own} == {("train", "kept")} and len(own) == 12
    assert set(ImageUrl.objects.filter(split="test").values_list("pk", flat=True)) == tested
    clean = [Path(path) for path in (check.folder / "clean").glob("*/*.jpg")]
    judged = {Path(row["file"]).name for row in check.result["pictures"]}
    held_out = {path.name for path in clean} & judged
    assert len(held_out) == 12 and not held_out & {Path(image.file).name for image in own}
    assert Decision.objects.filter(action="add").count() == 2
    assert own_check.train_with(check, "person") == 0
    OwnCheck.objects.update(created=timezone.now() - timedelta(days=2))
    own_check.expire()
    said = page(client, classifier)
    assert "The other 12 are held out to measure" in said, said
    ImageUrl.objects.filter(image_class__number=3).update(state="kept")

    version = versions.create_version(classifier)
    first = classifier.versions.get(number=1)
    version.folder.parent.mkdir(exist_ok=True)
    first.folder.rename(version.folder)
    first.artifacts.update(version=version)
    version.run.metrics = first.run.metrics
    version.run.finished = timezone.now()
    version.run.save()
    type(classifier).objects.update(status=Status.DELIVERED)
    assert "Measure version 2 on those" in page(client, classifier)
    fields = {"do": "give", "pictures-1": pictures(60, 1)}
    assert "measures your next versions" in words(
        post(client, place(classifier), **fields).content.decode()
    )
    post(client, place(classifier), do="again")
    tasks.drain("train")
    said = page(client, classifier)
    assert "were held out, version 2 has" in said and "on the same pictures." in said
    curation.undo(classifier)
    assert ImageUrl.objects.filter(source="own").count() == 6


def test_pictures_go_after_a_day_and_at_once_when_it_is_wished(holder, finished):
    post(holder, place(finished), do="give", **{"pictures-1": pictures(1, 2)})
    check = OwnCheck.objects.get()
    own_check.expire()
    assert check.folder.exists()
    OwnCheck.objects.update(created=timezone.now() - timedelta(hours=25))
    lifecycle.expire()
    check.refresh_from_db()
    assert not check.folder.exists() and check.removed and check.refused == []
    post(holder, place(finished), do="give", **{"pictures-1": pictures(1, 2)})
    newest = OwnCheck.objects.latest("pk")
    assert newest != check and newest.received == 2
    post(holder, place(finished), do="forget")
    assert not newest.folder.exists() and not OwnCheck.objects.filter(pk=newest.pk).exists()


def test_a_job_that_fails_says_so_and_harms_no_request(holder, finished):
    post(holder, place(finished), do="measure", **{"pictures-1": pictures(1, 2)})
    (finished.versions.get().folder / "config.json").write_text("torn")
    tasks.drain("train")
    check = OwnCheck.objects.get()
    finished.refresh_from_db()
    assert (check.error, finished.status) == (own_check.FAILED, Status.DELIVERED)
    assert "could not be measured" in page(holder, finished)
    assert check.result is None


@pytest.mark.usefixtures("address")
class TestInTheBrowser:
    pytestmark = in_browser

    def test_a_folder_is_given_measured_and_deleted(self, browser, finished, tmp_path):  # noqa: F811
        for number, name in enumerate(("mammal", "plant", "owl")):
            folder = tmp_path / "mine" / name
            folder.mkdir(parents=True)
            for n in range(11):
                (folder / f"{n}.jpg").write_bytes(photograph(300 + 20 * number + n))
        browser.get(f"{finished.url}own/")
        assert barriers(browser) == []
        browser.find_element(By.ID, "own-folder").send_keys(str(tmp_path / "mine"))
        browser.find_element(By.CSS_SELECTOR, "#own-form .button").click()
        wait(browser, lambda d: d.find_element(By.ID, "waiting"), seconds=30)
        check = OwnCheck.objects.get()
        assert own_check.counts(check)[:2] == [("mammal", 11), ("plant", 11)]
        left_out = "No class is called “owl”; those pictures were left out."
        assert browser.find_element(By.ID, "own-left-out").text == left_out
        assert barriers(browser) == []
        tasks.drain("train")
        wait(browser, lambda d: d.find_element(By.ID, "own-title"), seconds=30)
        assert browser.find_element(By.ID, "own-left-out").text == left_out
        assert "of 22" in browser.find_element(By.ID, "own-title").text
        assert barriers(browser) == []
        for width in (390, 1440):
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.find_element(By.CSS_SELECTOR, ".own-forget button").click()
        wait(browser, lambda d: d.find_element(By.CSS_SELECTOR, ".note.success"))
        assert not OwnCheck.objects.exists()
