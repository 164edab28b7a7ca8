"""Pictures and addresses that a person brings along with a new request."""

import io
import json
import os
import re
import time
import zipfile
from pathlib import Path

import pytest
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection

import picaisso_client
from requests_app import pipeline, sharing, supplied
from requests_app.delivery.contents import DatasetImage
from requests_app.delivery.dataset_zip import build_dataset
from requests_app.models import ClassifierRequest, ImageUrl, Status
from requests_app.views import submission, uploads
from tests.replicas.pictures import jpeg
from tests.web.conftest import delivered, metrics, post, words
from training.phrases import headline_title, verdict


def pets(each: int = 4, names: tuple[str, ...] = ("cat", "dog")) -> SimpleUploadedFile:
    files = {}
    for place, name in enumerate(names):
        for number in range(each):
            files[f"pets/{name}/{number}.jpg"] = jpeg(100 * place + number)
    return zip_of(files)


def zip_of(files: dict[str, bytes]) -> SimpleUploadedFile:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # without the time of now
    return SimpleUploadedFile("pets.zip", content.getvalue(), "application/zip")


def addresses(text: str = "url,label\nhttps://a.example/1.jpg,cat\n") -> SimpleUploadedFile:
    return SimpleUploadedFile("urls.csv", text.encode(), "text/csv")


def send(holder, **fields):
    return post(holder, "/", **{"classes": ["cat", "dog"], "email": "ada@example.org", **fields})


def held_key(page: str) -> str:
    found = re.search(r'name="draft" value="(\w+)"', page)
    assert found is not None
    return found[1]


def complaint(page: str, field: str) -> str:
    found = re.search(rf'id="id_{field}_error">([^<]*)<', page)
    return found[1] if found else ""


def test_what_is_brought_along_lies_with_the_request_and_is_collected_from_there(holder):
    table = addresses("url,label\nhttps://a.example/1.jpg,cat\nhttps://a.example/2.jpg,owl\n")
    response = send(holder, own_pictures=pets(), own_addresses=table)
    classifier = ClassifierRequest.objects.get()
    assert response.status_code == 303 and response.headers["Location"].endswith(
        classifier.get_absolute_url()
    )
    folder = classifier.folder / "supplied"
    assert (folder / "pictures.zip").is_file() and (folder / "addresses.csv").is_file()
    page = words(holder.get(classifier.get_absolute_url()).content.decode())
    assert "8 pictures and 1 address of your own, besides what is found." in page
    assert "row 3: No class is called “owl”." in page
    said = words(holder.get(pipeline.confirmation_path(classifier)).content.decode())
    assert "8 pictures and 1 address of your own" in said
    values = supplied.collection_values(classifier)
    assert values == {
        "own": str(folder / "pictures.zip"),
        "own_urls": str(folder / "addresses.csv"),
    }
    assert not list((classifier.folder.parent.parent / "uploads").iterdir())


def test_folders_name_the_classes_where_nobody_does(holder):
    send(holder, classes=["", ""], own_pictures=pets(9, ("łoś", "c++", "狗")), own_alone="on")
    classifier = ClassifierRequest.objects.get()
    assert [row.name for row in classifier.classes.all()] == ["c++", "łoś", "狗"]
    assert supplied.collection_values(classifier)["sources"] == []


def test_files_that_name_no_class_are_told_beside_their_fields(holder):
    nothing = zip_of({"cat/notes.txt": b"no picture"})
    page = send(holder, classes=["", ""], own_pictures=nothing).content.decode()
    assert complaint(page, "own_pictures").startswith("No folder in it holds pictures.")
    page = send(holder, classes=["", ""], own_addresses=addresses("url,label\n")).content.decode()
    assert complaint(page, "own_addresses").startswith("It names no class with an address.")


def test_far_too_many_classes_are_told_and_not_listed(holder):
    labels = "".join(f"https://a.example/{number}.jpg,class {number}\n" for number in range(600))
    sent = {"own_addresses": addresses(f"url,label\n{labels}")}
    sent["own_pictures"] = pets(1, tuple("abcdefghijk"))
    page = send(holder, classes=["", ""], **sent).content.decode()
    assert complaint(page, "own_addresses").startswith("It names 600 classes; a request has 10")
    assert complaint(page, "own_pictures").startswith("It names 11 classes")
    assert len(re.findall('name="classes"', page)) < 10 and "class 599" not in page
    wanted = send(holder, draft=held_key(page), classes=["class 1", "class 2", "a"])
    assert wanted.status_code == 303, "the files are held, and give what is asked for"
    for file in sent.values():
        file.seek(0)
    refused = call(holder, {"email": "ada@example.org"}, addresses=sent["own_addresses"])
    assert "600 classes" in refused.json()["error"]["fields"]["addresses"]


def test_no_other_mistake_loses_what_was_uploaded(holder):
    first = send(holder, email="nobody", own_pictures=pets(), own_as_test="on")
    page = first.content.decode()
    assert first.status_code == 400 and "pets.zip" in page and not complaint(page, "own_pictures")
    assert re.search(r'name="own_as_test"[^>]*checked', page)
    key = held_key(page)
    again = send(holder, draft=key, own_as_test="on", add="1")
    assert held_key(again.content.decode()) == key, "a class more loses nothing either"
    assert send(holder, draft=key, own_as_test="on").status_code == 303
    classifier = ClassifierRequest.objects.get()
    assert classifier.supplied["as_test"] and classifier.supplied["pictures"] == 8
    assert supplied.collection_values(classifier)["own_as_test"] is True
    gone = send(holder, draft=key)
    assert complaint(gone.content.decode(), "own_pictures") == supplied.GONE


def test_a_held_file_can_be_left_out_and_replaced(holder):
    key = held_key(send(holder, email="", own_pictures=pets(2)).content.decode())
    page = send(holder, email="", draft=key, own_pictures=pets(3)).content.decode()
    assert held_key(page) == key and page.count("pets.zip") == 1
    send(holder, draft=key, leave_file_out="pictures")
    assert ClassifierRequest.objects.get().supplied == {}


@pytest.mark.parametrize(
    ("fields", "field", "sentence"),
    [
        ({"own_pictures": SimpleUploadedFile("a.zip", b"Dear Ada")}, "own_pictures", "not a zip"),
        ({"own_pictures": pets(4, ("owl", "fox"))}, "own_pictures", "Make a folder for each class"),
        ({"own_addresses": addresses("a,b\n1,2\n")}, "own_addresses", "url and label"),
        ({"own_addresses": SimpleUploadedFile("a.csv", jpeg(1))}, "own_addresses", "table"),
        ({"own_as_test": "on"}, "own_pictures", "Choose a zip"),
        ({"own_pictures": pets(2), "own_as_test": "on"}, "own_pictures", "at least 3"),
        ({"own_pictures": pets(4), "own_alone": "on"}, "own_pictures", "at least 9"),
        (
            {"own_pictures": pets(9), "own_alone": "on", "own_as_test": "on"},
            "own_pictures", "nothing is left to train on",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said_beside_its_field(holder, fields, field, sentence):
    for file in fields.values():
        if not isinstance(file, str):
            file.seek(0)
    response = send(holder, **fields)
    page = response.content.decode()
    assert response.status_code == 400 and sentence in complaint(page, field), complaint(
        page, field
    )
    assert '<details class="options" open>' in page
    assert not ClassifierRequest.objects.exists()


def test_far_too_large_files_and_far_too_many_are_refused(holder, monkeypatch):
    monkeypatch.setattr(supplied, "MOST_BYTES", 1000)
    page = send(holder, own_pictures=pets()).content.decode()
    assert "larger than" in complaint(page, "own_pictures") and "pets.zip" not in page
    monkeypatch.setattr(supplied, "MOST_BYTES", 10_000_000)
    monkeypatch.setattr(supplied, "MOST_WAITING", 1000)
    assert send(holder, own_pictures=pets()).status_code == 303
    full = send(holder, own_pictures=pets()).content.decode()
    assert complaint(full, "own_pictures") == supplied.FULL
    ClassifierRequest.objects.update(status=Status.RUNNING)
    assert send(holder, own_pictures=pets()).status_code == 303


def test_uploads_that_nobody_sends_block_others_for_a_day_only(holder, site, monkeypatch):
    monkeypatch.setattr(supplied, "MOST_WAITING", 1000)
    draft = supplied.opened(held_key(send(holder, email="", own_pictures=pets()).content.decode()))
    assert draft is not None
    assert send(holder, own_pictures=pets()).status_code == 400
    two_days_ago = time.time() - 2 * 86_400
    os.utime(draft.folder, (two_days_ago, two_days_ago))
    assert send(holder, own_pictures=pets()).status_code == 303
    assert not draft.folder.exists()


def test_many_files_in_one_form_are_no_way_around_the_limit(holder, monkeypatch):
    size = len(pets().read())
    monkeypatch.setattr(supplied, "MOST_BYTES", size + 1)
    page = send(holder, own_pictures=[pets(), pets(), pets()]).content.decode()
    assert "larger than" in complaint(page, "own_pictures")


def test_nothing_is_received_where_there_is_no_room(holder, settings, monkeypatch):
    arriving = Path(settings.FILE_UPLOAD_TEMP_DIR)
    assert arriving.is_dir() and arriving.name == "arriving"
    monkeypatch.setattr(supplied, "MOST_WAITING", 0)
    monkeypatch.setattr(supplied, "hold", None)
    page = send(holder, own_pictures=pets()).content.decode()
    assert complaint(page, "own_pictures") == supplied.FULL
    refused = call(holder, {"email": "ada@example.org"}, pictures=pets())
    assert refused.status_code == 503 and refused.headers["Retry-After"] == "600"
    assert not list(arriving.iterdir())


def test_a_file_that_outgrows_the_room_is_given_up(holder, settings, monkeypatch):
    monkeypatch.setattr(uploads, "ASK_FOR_ROOM_BYTES", 1000)
    monkeypatch.setattr(supplied, "MOST_WAITING", 50_000)
    large = SimpleUploadedFile("large.zip", bytes(300_000))
    page = send(holder, own_pictures=large).content.decode()
    assert complaint(page, "own_pictures") == supplied.FULL
    assert not list(Path(settings.FILE_UPLOAD_TEMP_DIR).iterdir())


def test_what_arrived_in_part_is_forgotten_after_a_day(settings):
    rest = Path(settings.FILE_UPLOAD_TEMP_DIR) / "rest.upload.zip"
    rest.write_bytes(b"of a process that was killed")
    supplied.forget_old_drafts()
    assert rest.exists()
    two_days_ago = time.time() - 2 * 86_400
    os.utime(rest, (two_days_ago, two_days_ago))
    supplied.forget_old_drafts()
    assert not rest.exists()


def test_an_empty_file_is_said_to_be_empty(holder):
    empty = SimpleUploadedFile("pets.zip", b"")
    page = send(holder, own_pictures=empty).content.decode()
    assert complaint(page, "own_pictures") == supplied.EMPTY
    error = call(holder, {"email": "ada@example.org"}, addresses=empty).json()["error"]
    assert error["fields"] == {"addresses": supplied.EMPTY}
    assert not ClassifierRequest.objects.exists()


def test_a_foreign_page_can_bring_nothing(holder, site):
    fields = {"classes": ["cat", "dog"], "email": "ada@example.org", "own_pictures": pets()}
    assert holder.post("/", fields).status_code == 403
    assert not (site / "uploads").exists() and not ClassifierRequest.objects.exists()


def test_a_key_of_somebody_elses_making_opens_no_folder(holder, site):
    (site / "secret").mkdir()
    for key in ("../secret", "", "0" * 32, "..%2fsecret"):
        assert supplied.opened(key) is None
    assert send(holder, own_pictures=pets(), draft="../secret").status_code == 400


def test_what_is_deleted_takes_along_what_was_brought(holder):
    send(holder, own_pictures=pets())
    classifier = ClassifierRequest.objects.get()
    folder: Path = classifier.folder
    assert (folder / "supplied").is_dir()
    post(holder, f"{classifier.get_absolute_url()}delete/")
    assert not (folder / "supplied").exists()


def leftover_of_the_next_request(site: Path) -> Path:
    """Let a stranger's pictures lie where the next request's will: its making broke off."""
    folder = site / "requests" / "1" / "supplied"
    folder.mkdir(parents=True)
    (folder / "pictures.zip").write_bytes(pets().read())
    return folder


@pytest.mark.django_db(reset_sequences=True)
def test_a_request_never_gets_what_another_one_left_behind(holder, site):
    folder = leftover_of_the_next_request(site)
    send(holder)
    classifier = ClassifierRequest.objects.get(pk=1)
    assert supplied.collection_values(classifier) == {} and not folder.exists()
    bare = ClassifierRequest(pk=1, supplied={})
    leftover_of_the_next_request(site)
    assert supplied.collection_values(bare) == {}


@pytest.mark.django_db(reset_sequences=True)
def test_what_another_request_left_behind_stops_none(holder, site):
    folder = leftover_of_the_next_request(site)
    (folder / "addresses.csv").write_text("a stranger's")
    assert send(holder, own_pictures=pets(5)).status_code == 303
    classifier = ClassifierRequest.objects.get(pk=1)
    assert list(supplied.collection_values(classifier)) == ["own"]
    assert classifier.supplied["pictures"] == 10


def test_a_request_that_cannot_be_stored_keeps_what_was_uploaded(holder, site, monkeypatch):
    key = held_key(send(holder, email="", own_pictures=pets()).content.decode())

    def fails(*_arguments: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as broken, pytest.raises(OSError, match="no space left"):
        broken.setattr(pipeline, "_mail_confirmation", fails)
        send(holder, draft=key)
    assert not list(site.glob("requests/*/supplied")) and not ClassifierRequest.objects.exists()
    assert send(holder, draft=key).status_code == 303


@pytest.mark.parametrize(
    ("module", "moment"),
    [(submission, "hold_files"), (submission, "SubmissionForm"), (supplied, "facts")],
)
def test_a_form_sent_from_two_tabs_makes_one_request(holder, site, monkeypatch, module, moment):
    """The other tab is done before this one holds a file, checks, or makes the request."""
    key = held_key(send(holder, email="", own_pictures=pets()).content.decode())
    of_module = getattr(module, moment)

    def late(*arguments: object, **named: object):
        if (site / "uploads" / key).exists():
            (site / "uploads" / key).rename(site / "requests")
        return of_module(*arguments, **named)

    monkeypatch.setattr(module, moment, late)
    response = send(holder, draft=key, own_addresses=addresses())
    page = response.content.decode()
    assert response.status_code == 400 and complaint(page, "own_pictures") == supplied.GONE
    assert not ClassifierRequest.objects.exists()


def test_names_of_files_are_never_read_in_part(site, monkeypatch):
    written = []
    write_text = Path.write_text

    def watched(file: Path, *arguments, **named) -> int:
        written.append(file.name)
        return write_text(file, *arguments, **named)

    monkeypatch.setattr(Path, "write_text", watched)
    draft = supplied.hold({})
    assert len(written) == 1 and "names.json" not in written
    assert [file.name for file in draft.folder.iterdir()] == ["names.json"]


def test_files_are_read_while_nobody_waits_for_the_database(holder, monkeypatch):
    depth = len(connection.savepoint_ids)
    depths = []
    read = supplied.read_supplied

    def watched(*arguments: object) -> supplied.Supplied:
        depths.append(len(connection.savepoint_ids))
        return read(*arguments)

    monkeypatch.setattr(supplied, "read_supplied", watched)
    assert send(holder, own_pictures=pets()).status_code == 303
    assert set(depths) == {depth}


# --- through the API ---

WITH_PICTURES = "/api/v1/requests/with-pictures"


def call(client, body: dict, key: str = "", **files):
    headers = {"Idempotency-Key": key} if key else {}
    return client.post(WITH_PICTURES, {"request": json.dumps(body), **files}, headers=headers)


def test_a_program_brings_pictures_and_is_told_what_cannot_be_used(client):
    cache.clear()
    key = "0123456789abcdef0"
    body = {"email": "ada@example.org", "own_as_test": True}
    table = "url,label\nhttps://a.example/1.jpg,cat\n,dog\n"
    made = call(client, body, key, pictures=pets(), addresses=addresses(table))
    assert made.status_code == 201
    shown = made.json()
    assert [row["name"] for row in shown["classes"]] == ["cat", "dog"]
    assert shown["own"] == {
        "pictures": 8, "addresses": 1, "as_test": True, "alone": False,
        "unused": [["row 3", "It has no address."]], "unused_count": 1,
    }  # fmt: skip
    again = call(client, body, key, pictures=pets(), addresses=addresses(table))
    assert again.json()["id"] == shown["id"] and ClassifierRequest.objects.count() == 1
    assert call(client, body, key, pictures=pets(5)).status_code == 409
    assert not list((ClassifierRequest.objects.get().folder.parent.parent / "uploads").iterdir())


@pytest.mark.parametrize(
    ("body", "files", "field", "sentence"),
    [
        ({"email": "a@example.org"}, {}, "pictures", "Send a form"),
        ({"email": "a@example.org", "wish": 1}, {"pictures": pets()}, "wish", "not permitted"),
        ({"email": "nobody"}, {"pictures": pets()}, "email", "complete"),
        (
            {"email": "a@example.org", "classes": ["owl", "fox"]}, {"pictures": pets()},
            "pictures", "Make a folder for each class",
        ),
        (
            {"email": "a@example.org"}, {"pictures": SimpleUploadedFile("a.zip", b"PK")},
            "pictures", "not a zip",
        ),
        (
            {"email": "a@example.org"}, {"addresses": addresses("url\n")},
            "addresses", "url and label",
        ),
    ],
)  # fmt: skip
def test_a_program_is_told_what_is_wrong_and_where(client, site, body, files, field, sentence):
    cache.clear()
    for file in files.values():
        file.seek(0)
    refused = call(client, body, **files)
    error = refused.json()["error"]
    assert refused.status_code == 400 and sentence in error["fields"][field], error
    assert not ClassifierRequest.objects.exists()
    assert not (site / "uploads").exists() or not list((site / "uploads").iterdir())


@pytest.mark.django_db(transaction=True)
def test_the_client_brings_pictures_along(live_server, tmp_path, capsys):
    cache.clear()
    zipped = tmp_path / "łoś.zip"
    zipped.write_bytes(pets().read())
    table = tmp_path / "urls.csv"
    table.write_text("url,label\nhttps://a.example/1.jpg,cat\n")
    own = ["--own", str(zipped), "--urls", str(table), "--own-as-test"]
    order = ["submit", *own, "--email", "ada@example.org", "--site", live_server.url, "--json"]
    assert picaisso_client.main(order) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["own"]["pictures"] == 8 and shown["own"]["as_test"]
    gone = ["--own", str(tmp_path / "gone.zip"), "--email", "ada@example.org"]
    assert picaisso_client.main(["submit", *gone, "--site", live_server.url]) == 1
    assert "gone.zip cannot be read" in capsys.readouterr().err


# --- what is shown of it ---


def test_everything_that_is_shown_says_who_supplied_the_pictures(client):
    classifier = delivered("cat", "dog")
    classifier.supplied = {"pictures": 2, "addresses": 0, "as_test": True, "alone": False}
    classifier.save()
    own = ImageUrl.objects.of_request(classifier).filter(source="openverse")
    own.update(
        source="upload", license_basis="requester", image_url="upload:cat/secret-name.jpg",
        license="cc0",
    )  # fmt: skip
    version = classifier.versions.get()
    kept = ImageUrl.objects.of_request(classifier)
    images = [DatasetImage(image, image.image_class, "test", None) for image in kept]
    made = build_dataset(version, images, classifier.folder / "dataset.zip")
    with zipfile.ZipFile(made.path) as archive:
        texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist()
                 if name.endswith((".md", ".csv"))}  # fmt: skip
    card = " ".join(texts["README.md"].split())
    assert "The requester supplied 2 of these pictures" in card
    assert "They are the test split, exactly" in card
    known = ": Supplied by the requester. Licence: CC0 (as its file says)\n"
    assert texts["ATTRIBUTION.md"].count(known) == 2
    assert texts["images.csv"].count(",requester,") == 2
    assert "secret-name" not in texts["images.csv"]
    image = kept.filter(source="upload").first()
    assert image is not None
    page = client.get(f"{classifier.get_absolute_url()}images/{image.pk}/").content.decode()
    assert "Supplied by the requester." in page and "upload:" not in page
    assert not sharing.open_images(classifier).filter(source="upload").exists()


def test_the_page_says_that_the_figure_is_of_own_test_pictures():
    figures = metrics(["cat", "dog"], [[9, 1], [1, 9]]) | {"own_test": True}
    assert headline_title(figures) == "Right on the requester's own test pictures"
    assert "right on 18 of the requester's own 20 test pictures" in verdict(figures)
    assert "own" not in verdict(figures | {"own_test": False})
